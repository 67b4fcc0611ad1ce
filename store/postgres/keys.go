package postgres

import (
	"context"
	"fmt"

	"carnet"
	"carnet/keys"

	"github.com/jackc/pgx/v5"
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
	err := s.db.read(ctx, `SELECT wrapped FROM key_row WHERE kind = $1 AND name = $2`, []any{id.Kind, id.Name}, func(r pgx.Rows) error {
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
		[]any{after.Kind, after.Name, max(limit, 0)}, func(r pgx.Rows) error {
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

// begin has changes come one after the other, while readers go on, and refuses this one
// if there is a row of upTo's kind above it.
func (s *Keys) begin(t *tx, upTo keys.ID) error {
	t.exec(`LOCK TABLE key_row IN SHARE ROW EXCLUSIVE MODE`)
	var name string
	if t.row(`SELECT name FROM key_row WHERE kind = $1 AND name > $2 LIMIT 1`, []any{upTo.Kind, upTo.Name}, &name) {
		return carnet.Errorf(carnet.Fenced, "there is a row %s:%s", upTo.Kind, name)
	}
	return nil
}

// Put implements keys.Store.
func (s *Keys) Put(ctx context.Context, upTo keys.ID, rows []keys.Row) error {
	last := make(map[keys.ID][]byte) // of rows with one id, the last stands
	for i := range rows {
		last[rows[i].ID] = blob(rows[i].Wrapped)
	}
	var kinds, names []string
	var wrapped [][]byte
	for id, w := range last {
		kinds, names, wrapped = append(kinds, id.Kind), append(names, id.Name), append(wrapped, w)
	}
	return s.db.change(ctx, "store keys", func(t *tx) error {
		if err := s.begin(t, upTo); err != nil {
			return err
		}
		t.exec(`INSERT INTO key_row (kind, name, wrapped) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
			ON CONFLICT (kind, name) DO UPDATE SET wrapped = excluded.wrapped`, kinds, names, wrapped)
		return nil
	})
}

// Replace implements keys.Store.
func (s *Keys) Replace(ctx context.Context, upTo keys.ID, was, now []keys.Row) error {
	var kinds, names []string
	var before, after [][]byte
	for i := range now {
		kinds, names = append(kinds, now[i].ID.Kind), append(names, now[i].ID.Name)
		before, after = append(before, blob(was[i].Wrapped)), append(after, blob(now[i].Wrapped))
	}
	return s.db.change(ctx, "replace keys", func(t *tx) error {
		if err := s.begin(t, upTo); err != nil {
			return err
		}
		t.exec(`UPDATE key_row AS k SET wrapped = n.after FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS n (kind, name, before, after)
			WHERE k.kind = n.kind AND k.name = n.name AND k.wrapped = n.before`, kinds, names, before, after)
		return nil
	})
}

// Delete implements keys.Store. PostgreSQL doesn't overwrite: the table is
// written anew without the rows and the old file deleted. The server's log and
// its backups hold them until they are recycled.
func (s *Keys) Delete(ctx context.Context, upTo keys.ID, ids []keys.ID) error {
	var kinds, names []string
	for _, id := range ids {
		kinds, names = append(kinds, id.Kind), append(names, id.Name)
	}
	err := s.db.change(ctx, "delete keys", func(t *tx) error {
		if err := s.begin(t, upTo); err != nil {
			return err
		}
		t.exec(`DELETE FROM key_row WHERE (kind, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, kinds, names)
		return nil
	})
	if err != nil {
		return err
	}
	return s.rewrite(ctx)
}

// rewrite writes the table anew. Whoever reads it for long, such as a backup, holds that up,
// and behind a rewriting that waits every other reader waits; so it gives up soon, and is to
// be asked for again.
func (s *Keys) rewrite(ctx context.Context) error {
	conn, err := s.db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("rewrite keys: %w", classify(err))
	}
	defer conn.Release()
	if _, err = conn.Exec(ctx, `SET lock_timeout = '2s'`); err == nil {
		_, err = conn.Exec(ctx, `VACUUM FULL key_row`)
	}
	if err != nil {
		err = fmt.Errorf("rewrite keys: they are deleted, and still in the table's file: %w", classify(err))
	}
	if _, failed := conn.Exec(context.WithoutCancel(ctx), `RESET lock_timeout`); failed != nil {
		_ = conn.Conn().Close(context.WithoutCancel(ctx)) // nobody else is to have it
	}
	return err
}
