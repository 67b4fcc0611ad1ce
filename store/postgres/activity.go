package postgres

import (
	"context"
	"fmt"

	"carnet/activity"

	"github.com/jackc/pgx/v5"
)

// Activity implements activity.Store.
type Activity struct{ db *DB }

var _ activity.Store = (*Activity)(nil)

// Activity returns the store of an activity log, making or migrating its tables.
func (db *DB) Activity(ctx context.Context) (*Activity, error) {
	if err := db.migrate(ctx, schemas, "activity"); err != nil {
		return nil, err
	}
	return &Activity{db}, nil
}

// Append implements activity.Store.
func (s *Activity) Append(ctx context.Context, rows []activity.Row) error {
	var offsets, times []int64
	var bodies [][]byte
	for i := range rows {
		offsets, times, bodies = append(offsets, int64(i)), append(times, rows[i].Time), append(bodies, blob(rows[i].Body))
	}
	return s.db.change(ctx, "append activity", func(t *tx) error {
		var last int64
		t.row(`UPDATE activity_last SET last = last + $1 RETURNING last - $1`, []any{len(rows)}, &last)
		t.exec(`INSERT INTO activity_row (id, time, body) SELECT $1 + 1 + o, t, b FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS r(o, t, b)`,
			last, offsets, times, bodies)
		return nil
	})
}

// After implements activity.Store.
func (s *Activity) After(ctx context.Context, after uint64, limit int) ([]activity.Row, error) {
	return s.list(ctx, ` WHERE id > $1 ORDER BY id LIMIT $2`, cursor(after), max(limit, 0))
}

// Before implements activity.Store.
func (s *Activity) Before(ctx context.Context, before uint64, limit int) ([]activity.Row, error) {
	return s.list(ctx, ` WHERE id < $1 ORDER BY id DESC LIMIT $2`, cursor(before), max(limit, 0))
}

func (s *Activity) list(ctx context.Context, where string, args ...any) (rows []activity.Row, err error) {
	err = s.db.read(ctx, `SELECT id, time, body FROM activity_row`+where, args, func(r pgx.Rows) error {
		var row activity.Row
		err := r.Scan(&row.ID, &row.Time, &row.Body)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read activity: %w", err)
	}
	return rows, nil
}

// Trim implements activity.Store.
func (s *Activity) Trim(ctx context.Context, before int64, limit int) (n int, err error) {
	err = s.db.change(ctx, "trim activity", func(t *tx) error {
		n = int(t.exec(`DELETE FROM activity_row WHERE id IN (SELECT id FROM activity_row WHERE time < $1 ORDER BY time, id LIMIT $2)`, before, max(limit, 0)))
		return nil
	})
	return n, err
}
