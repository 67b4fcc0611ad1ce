package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"carnet"
	"carnet/depot"
	"carnet/ledger"
)

// Depot implements depot.Store.
type Depot struct {
	statements
	documents
	db *DB
}

var _ depot.Store = (*Depot)(nil)

// Depot returns the store of a depot, making or migrating its tables.
func (db *DB) Depot(ctx context.Context) (*Depot, error) {
	if err := db.migrate(ctx, schemas, "depot"); err != nil {
		return nil, err
	}
	return &Depot{statements{db, "depot"}, documents{db, "depot"}, db}, nil
}

// list is ids as a JSON array of hexadecimal strings, for json_each and unhex:
// one statement for many ids.
func list[ID ~[32]byte](ids []ID) (string, error) {
	texts := make([]carnet.Fingerprint, len(ids))
	for i, id := range ids {
		texts[i] = carnet.Fingerprint(id)
	}
	b, err := json.Marshal(texts)
	return string(b), err
}

// PutObject implements depot.Store.
func (s *Depot) PutObject(ctx context.Context, o depot.Object) error {
	return s.db.change(ctx, "put object", func(t *tx) error {
		known := t.exec(`UPDATE depot_object SET retention = max(retention, $3) WHERE owner = $1 AND fingerprint = $2`,
			string(o.Owner), o.Fingerprint[:], uint8(o.Retention))
		if known > 0 {
			return nil
		}
		t.exec(`INSERT INTO depot_object (owner, fingerprint, size, time, retention) VALUES ($1, $2, $3, $4, $5)`,
			string(o.Owner), o.Fingerprint[:], o.Size, o.Time.UnixMicro(), uint8(o.Retention))
		t.exec(`INSERT INTO depot_owner (owner, objects, bytes) VALUES ($1, 1, $2)
			ON CONFLICT (owner) DO UPDATE SET objects = objects + 1, bytes = bytes + $2`, string(o.Owner), o.Size)
		return nil
	})
}

const selectObject = `SELECT fingerprint, size, time, retention FROM depot_object WHERE owner = $1`

func (s *Depot) objects(ctx context.Context, owner carnet.PartyID, where string, args ...any) (objects []depot.Object, err error) {
	err = s.db.read(ctx, selectObject+where, append([]any{string(owner)}, args...), func(r *sql.Rows) error {
		o := depot.Object{Owner: owner}
		var micros int64
		err := r.Scan(fixed(o.Fingerprint[:]), &o.Size, &micros, &o.Retention)
		o.Time = time.UnixMicro(micros).UTC()
		objects = append(objects, o)
		return err
	})
	return objects, err
}

// Object implements depot.Store.
func (s *Depot) Object(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint) (depot.Object, error) {
	objects, err := s.objects(ctx, owner, ` AND fingerprint = $2`, f[:])
	if err == nil && len(objects) == 0 {
		err = notStored(owner, f)
	}
	if err != nil {
		return depot.Object{}, fmt.Errorf("read object: %w", err)
	}
	return objects[0], nil
}

func notStored(owner carnet.PartyID, f carnet.Fingerprint) error {
	return carnet.Errorf(carnet.NotFound, "%s has no object %s", owner, f)
}

// DeleteObject implements depot.Store.
func (s *Depot) DeleteObject(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint) (others int, err error) {
	err = s.db.change(ctx, "delete object", func(t *tx) error {
		var size int64
		if !t.row(`SELECT size FROM depot_object WHERE owner = $1 AND fingerprint = $2`, []any{string(owner), f[:]}, &size) && t.err == nil {
			return notStored(owner, f)
		}
		t.exec(`DELETE FROM depot_object WHERE owner = $1 AND fingerprint = $2`, string(owner), f[:])
		t.exec(`UPDATE depot_owner SET objects = objects - 1, bytes = bytes - $2 WHERE owner = $1`, string(owner), size)
		t.row(`SELECT count(*) FROM depot_object WHERE fingerprint = $1`, []any{f[:]}, &others)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return others, nil
}

// Objects implements depot.Store.
func (s *Depot) Objects(ctx context.Context, owner carnet.PartyID, after carnet.Fingerprint, limit int) ([]depot.Object, error) {
	objects, err := s.objects(ctx, owner, ` AND fingerprint > $2 ORDER BY fingerprint LIMIT $3`, after[:], max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	return objects, nil
}

// Unowned implements depot.Store.
func (s *Depot) Unowned(ctx context.Context, fs []carnet.Fingerprint) (unowned []carnet.Fingerprint, err error) {
	ids, err := list(fs)
	if err != nil {
		return nil, fmt.Errorf("find unowned objects: %w", err)
	}
	err = s.db.read(ctx, `SELECT unhex(value) FROM json_each($1)
		WHERE NOT EXISTS (SELECT 1 FROM depot_object WHERE fingerprint = unhex(value)) ORDER BY key`, []any{ids}, func(r *sql.Rows) error {
		var f carnet.Fingerprint
		err := r.Scan(fixed(f[:]))
		unowned = append(unowned, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find unowned objects: %w", err)
	}
	return unowned, nil
}

// Totals implements depot.Store.
func (s *Depot) Totals(ctx context.Context, owner carnet.PartyID) (n depot.Totals, err error) {
	err = s.db.read(ctx, `SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0) FROM depot_owner WHERE $1 IN ('', owner)`,
		[]any{string(owner)}, func(r *sql.Rows) error { return r.Scan(&n.Objects, &n.Bytes) })
	if err != nil {
		return depot.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return n, nil
}

// Lookup implements tlog.Index.
func (s *Depot) Lookup(ctx context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
	leaves := make(map[ledger.Entry]uint64)
	ids, err := list(entries)
	if err != nil {
		return nil, fmt.Errorf("find leaves: %w", err)
	}
	err = s.db.read(ctx, `SELECT entry, leaf FROM depot_leaf WHERE entry IN (SELECT unhex(value) FROM json_each($1))`,
		[]any{ids}, func(r *sql.Rows) error {
			var entry ledger.Entry
			var leaf uint64
			err := r.Scan(fixed(entry[:]), &leaf)
			leaves[entry] = leaf
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("find leaves: %w", err)
	}
	return leaves, nil
}

// Record implements tlog.Index.
func (s *Depot) Record(ctx context.Context, first uint64, entries []ledger.Entry) error {
	next := first + uint64(len(entries))
	if err := inRange(first, next); err != nil {
		return err
	}
	ids, err := list(entries)
	if err != nil {
		return fmt.Errorf("record leaves: %w", err)
	}
	return s.db.change(ctx, "record leaves", func(t *tx) error {
		t.exec(`INSERT INTO depot_leaf (entry, leaf) SELECT unhex(value), $2 + key FROM json_each($1) WHERE true ORDER BY key
			ON CONFLICT (entry) DO NOTHING`, ids, first)
		t.exec(`UPDATE depot_indexed SET next = $1`, next)
		return nil
	})
}

// Indexed implements tlog.Index.
func (s *Depot) Indexed(ctx context.Context) (next uint64, err error) {
	err = s.db.read(ctx, `SELECT next FROM depot_indexed`, nil, func(r *sql.Rows) error { return r.Scan(&next) })
	if err != nil {
		return 0, fmt.Errorf("read end of index: %w", err)
	}
	return next, nil
}

// Put stores documents (nil Body: delete) with statements about the change, all
// or nothing.
func (s *Depot) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.db.change(ctx, "put documents", func(t *tx) error {
		if err := s.put(t, docs); err != nil {
			return err
		}
		s.addAll(t, items)
		return nil
	})
}
