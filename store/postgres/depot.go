package postgres

import (
	"context"
	"fmt"
	"time"

	"carnet"
	"carnet/depot"
	"carnet/ledger"

	"github.com/jackc/pgx/v5"
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

// PutObject implements depot.Store.
func (s *Depot) PutObject(ctx context.Context, o depot.Object) error {
	return s.db.change(ctx, "put object", func(t *tx) error {
		s.lock(t)
		added := t.exec(`INSERT INTO depot_object (owner, fingerprint, size, time, retention) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			string(o.Owner), o.Fingerprint[:], o.Size, o.Time.UnixMicro(), int16(o.Retention))
		if added == 0 {
			t.exec(`UPDATE depot_object SET retention = greatest(retention, $3) WHERE owner = $1 AND fingerprint = $2`,
				string(o.Owner), o.Fingerprint[:], int16(o.Retention))
			return nil
		}
		t.exec(`INSERT INTO depot_owner (owner, objects, bytes) VALUES ($1, 1, $2)
			ON CONFLICT (owner) DO UPDATE SET objects = depot_owner.objects + 1, bytes = depot_owner.bytes + excluded.bytes`, string(o.Owner), o.Size)
		return nil
	})
}

// lock makes changes come one after the other.
func (s *Depot) lock(t *tx) { t.exec(`SELECT FROM depot_indexed FOR UPDATE`) }

const selectObject = `SELECT fingerprint, size, time, retention FROM depot_object WHERE owner = $1`

func (s *Depot) objects(ctx context.Context, owner carnet.PartyID, where string, args ...any) (objects []depot.Object, err error) {
	err = s.db.read(ctx, selectObject+where, append([]any{string(owner)}, args...), func(r pgx.Rows) error {
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
		s.lock(t)
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
	err = s.db.read(ctx, `SELECT f FROM unnest($1::bytea[]) WITH ORDINALITY u (f, at)
		WHERE NOT EXISTS (SELECT FROM depot_object WHERE fingerprint = f) ORDER BY at`, []any{bytesOf(fs)}, func(r pgx.Rows) error {
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
	err = s.db.read(ctx, `SELECT coalesce(sum(objects), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM depot_owner WHERE $1 IN ('', owner)`,
		[]any{string(owner)}, func(r pgx.Rows) error { return r.Scan(&n.Objects, &n.Bytes) })
	if err != nil {
		return depot.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return n, nil
}

// Lookup implements tlog.Index.
func (s *Depot) Lookup(ctx context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
	leaves := make(map[ledger.Entry]uint64)
	err := s.db.read(ctx, `SELECT entry, leaf FROM depot_leaf WHERE entry = ANY ($1)`,
		[]any{bytesOf(entries)}, func(r pgx.Rows) error {
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
	return s.db.change(ctx, "record leaves", func(t *tx) error {
		s.lock(t)
		t.exec(`INSERT INTO depot_leaf (entry, leaf) SELECT entry, $2::bigint + at - 1 FROM unnest($1::bytea[]) WITH ORDINALITY u (entry, at) ORDER BY at
			ON CONFLICT (entry) DO NOTHING`, bytesOf(entries), first)
		t.exec(`UPDATE depot_indexed SET next = $1`, next)
		return nil
	})
}

// Indexed implements tlog.Index.
func (s *Depot) Indexed(ctx context.Context) (next uint64, err error) {
	err = s.db.read(ctx, `SELECT next FROM depot_indexed`, nil, func(r pgx.Rows) error { return r.Scan(&next) })
	if err != nil {
		return 0, fmt.Errorf("read end of index: %w", err)
	}
	return next, nil
}

// Put stores documents (nil Body: delete) with statements about the change, all
// or nothing.
func (s *Depot) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.db.change(ctx, "put documents", func(t *tx) error {
		var count, receipts, last uint64
		t.row(`SELECT statements, receipts, last_statement FROM depot_totals FOR UPDATE`, nil, &count, &receipts, &last)
		if t.err != nil {
			return t.err
		}
		if err := s.put(t, docs); err != nil {
			return err
		}
		b := &pgx.Batch{}
		box := &outbox{last: &last, count: &count, receipts: &receipts}
		for i := range items {
			box.add(&items[i])
		}
		s.queue(b, box)
		b.Queue(`UPDATE depot_totals SET statements = $1, receipts = $2, last_statement = $3`, count, receipts, last)
		t.send(b)
		return nil
	})
}
