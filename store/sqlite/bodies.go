package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"carnet"
	"carnet/bodies"
)

// beside returns the large bodies beside the database, which it opens once: what a
// crash left is deleted then.
func (db *DB) beside(ctx context.Context) (*bodies.Beside, error) {
	db.opening.Lock()
	defer db.opening.Unlock()
	if db.large != nil {
		return db.large, nil
	}
	var id string
	err := db.change(ctx, "give the database an id", func(t *tx) error {
		if !t.row(`SELECT id FROM world_bodies`, nil, &id) && t.err == nil {
			id = rand.Text()
			t.exec(`INSERT INTO world_bodies (one, id) VALUES (1, $1)`, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	db.large, err = bodies.OpenBeside(ctx, bodies.Dir{Path: db.bodies, Files: db.files}, id, rowsOfBodies{db})
	return db.large, err
}

// The schema and a query below say how large a body is that is a file: no variable
// would find the index.
var _ = [1]struct{}{}[bodies.Large-131072]

// rowsOfBodies implements bodies.Rows.
type rowsOfBodies struct{ db *DB }

// Unnamed implements bodies.Rows: whoever adds a row has the database's turn.
func (r rowsOfBodies) Unnamed(ctx context.Context, of []carnet.Fingerprint, do func([]carnet.Fingerprint) error) error {
	ids, err := list(of)
	if err != nil {
		return err
	}
	return r.db.change(ctx, "find bodies that no row names", func(t *tx) error {
		var unnamed []carnet.Fingerprint
		t.each(`SELECT DISTINCT unhex(value) FROM json_each($1)
			WHERE NOT EXISTS (SELECT 1 FROM world_stretch WHERE fingerprint = unhex(value) AND size >= 131072)`, []any{ids}, func(rows *sql.Rows) error {
			var f carnet.Fingerprint
			err := rows.Scan(fixed(f[:]))
			unnamed = append(unnamed, f)
			return err
		})
		if t.err != nil {
			return t.err
		}
		return do(unnamed)
	})
}

// Ended implements bodies.Rows.
func (r rowsOfBodies) Ended(ctx context.Context, limit int) (all []bodies.Ended, err error) {
	err = r.db.read(ctx, `SELECT id, fingerprint FROM world_body_ended ORDER BY id LIMIT $1`, []any{limit}, func(rows *sql.Rows) error {
		var e bodies.Ended
		err := rows.Scan(&e.ID, fixed(e.Fingerprint[:]))
		all = append(all, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read which bodies have ended: %w", err)
	}
	return all, nil
}

// Forget implements bodies.Rows.
func (r rowsOfBodies) Forget(ctx context.Context, ids []uint64) error {
	return r.db.change(ctx, "forget bodies that have ended", func(t *tx) error {
		for _, id := range ids {
			t.exec(`DELETE FROM world_body_ended WHERE id = $1`, cursor(id))
		}
		return nil
	})
}

// clear deletes the files of bodies that have ended.
func (s *Worlds) clear(ctx context.Context) error {
	if err := s.large.Clear(ctx); err != nil {
		return fmt.Errorf("delete bodies that have ended: %w", s.db.fatal(classify(err)))
	}
	return nil
}
