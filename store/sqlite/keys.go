package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"carnet"
	"carnet/keys"
)

// Keys implements keys.Store.
type Keys struct{ db *DB }

var _ keys.Store = (*Keys)(nil)

// Keys returns the store of a key table, making or migrating its tables.
func (db *DB) Keys(ctx context.Context) (*Keys, error) {
	if err := db.migrate(ctx, schemas, "keys"); err != nil {
		return nil, err
	}
	return &Keys{db}, nil
}

// Get implements keys.Store.
func (s *Keys) Get(ctx context.Context, id keys.ID) (keys.Row, error) {
	row, found := keys.Row{ID: id}, false
	err := s.db.read(ctx, `SELECT wrapped FROM key_row WHERE kind = $1 AND name = $2`, []any{id.Kind, id.Name}, func(r *sql.Rows) error {
		found = true
		return r.Scan(&row.Wrapped)
	})
	if err == nil && !found {
		err = carnet.Errorf(carnet.NotFound, "there is no key %s", id)
	}
	if err != nil {
		return keys.Row{}, fmt.Errorf("read key: %w", err)
	}
	return row, nil
}

// Page implements keys.Store.
func (s *Keys) Page(ctx context.Context, after keys.ID, limit int) (rows []keys.Row, err error) {
	err = s.db.read(ctx, `SELECT kind, name, wrapped FROM key_row WHERE (kind, name) > ($1, $2) ORDER BY kind, name LIMIT $3`,
		[]any{after.Kind, after.Name, max(limit, 0)}, func(r *sql.Rows) error {
			var row keys.Row
			err := r.Scan(&row.ID.Kind, &row.ID.Name, &row.Wrapped)
			rows = append(rows, row)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return rows, nil
}

// fenced refuses the change if there is a row of upTo's kind above it.
func (t *tx) fenced(upTo keys.ID) error {
	var name string
	if t.row(`SELECT name FROM key_row WHERE kind = $1 AND name > $2 LIMIT 1`, []any{upTo.Kind, upTo.Name}, &name) {
		return carnet.Errorf(carnet.Fenced, "there is a row %s:%s", upTo.Kind, name)
	}
	return nil
}

// Put implements keys.Store.
func (s *Keys) Put(ctx context.Context, upTo keys.ID, rows []keys.Row) error {
	return s.db.change(ctx, "store keys", func(t *tx) error {
		if err := t.fenced(upTo); err != nil {
			return err
		}
		for i := range rows {
			t.exec(`INSERT INTO key_row (kind, name, wrapped) VALUES ($1, $2, $3) ON CONFLICT (kind, name) DO UPDATE SET wrapped = $3`,
				rows[i].ID.Kind, rows[i].ID.Name, blob(rows[i].Wrapped))
		}
		return nil
	})
}

// Replace implements keys.Store.
func (s *Keys) Replace(ctx context.Context, upTo keys.ID, was, now []keys.Row) error {
	return s.db.change(ctx, "replace keys", func(t *tx) error {
		if err := t.fenced(upTo); err != nil {
			return err
		}
		for i := range now {
			t.exec(`UPDATE key_row SET wrapped = $3 WHERE kind = $1 AND name = $2 AND wrapped = $4`,
				now[i].ID.Kind, now[i].ID.Name, blob(now[i].Wrapped), blob(was[i].Wrapped))
		}
		return nil
	})
}

// Delete implements keys.Store.
func (s *Keys) Delete(ctx context.Context, upTo keys.ID, ids []keys.ID) error {
	err := s.db.change(ctx, "delete keys", func(t *tx) error {
		if err := t.fenced(upTo); err != nil {
			return err
		}
		for _, id := range ids {
			t.exec(`DELETE FROM key_row WHERE kind = $1 AND name = $2`, id.Kind, id.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.db.scrub(ctx)
}
