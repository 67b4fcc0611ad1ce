package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"carnet"
	"carnet/ledger"
	"carnet/register"
)

// Register implements register.Store.
type Register struct {
	statements // of the depot
	db         *DB
}

var _ register.Store = (*Register)(nil)

// Register returns the store of a depot's register, making or migrating its
// tables and the depot's, in whose outbox its statements are.
func (db *DB) Register(ctx context.Context) (*Register, error) {
	for _, domain := range []string{"depot", "register"} {
		if err := db.migrate(ctx, schemas, domain); err != nil {
			return nil, err
		}
	}
	return &Register{statements{db, "depot"}, db}, nil
}

// Append implements register.Store.
func (s *Register) Append(ctx context.Context, c register.Change) error {
	if err := inRange(c.Number); err != nil {
		return err
	}
	return s.db.change(ctx, "append to register", func(t *tx) error {
		var last, decided uint64
		t.row(`SELECT coalesce(max(number), 0) FROM register_change`, nil, &last)
		t.row(`SELECT change FROM register_crossing WHERE crossing = $1`, []any{c.Crossing[:]}, &decided)
		switch {
		case t.err != nil:
			return t.err
		case c.Number != last+1:
			return carnet.Errorf(carnet.Conflict, "the register has %d changes, so the next is not %d", last, c.Number)
		case decided != 0:
			return carnet.Errorf(carnet.Conflict, "the crossing %s was decided by change %d", c.Crossing, decided)
		}
		id := s.addAll(t, []ledger.Item{c.Item})
		t.exec(`INSERT INTO register_change (number, statement, body) VALUES ($1, $2, $3)`, c.Number, id, blob(c.Body))
		for _, h := range c.Homes {
			t.exec(`INSERT INTO register_home (home, change) VALUES ($1, $2) ON CONFLICT (home) DO UPDATE SET change = $2`, h[:], c.Number)
		}
		if c.Crossing != (carnet.CrossingID{}) {
			t.exec(`INSERT INTO register_crossing (crossing, change) VALUES ($1, $2)`, c.Crossing[:], c.Number)
		}
		return nil
	})
}

const changeColumns = `c.number, c.body, s.id, s.entry, s.statement, s.salt, s.receipt`

func (s *Register) changes(ctx context.Context, what, where string, args ...any) (all []register.Change, err error) {
	err = s.db.read(ctx, `SELECT `+changeColumns+` FROM register_change c JOIN depot_statement s ON s.id = c.statement `+where, args, func(r *sql.Rows) error {
		c, err := scanChange(r)
		all = append(all, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return all, nil
}

// scanChange reads the columns of a change, and more after them.
func scanChange(r *sql.Rows, more ...any) (c register.Change, err error) {
	err = r.Scan(append([]any{&c.Number, &c.Body, &c.Item.ID, fixed(c.Item.Entry[:]), &c.Item.Statement, &c.Item.Salt, &c.Item.Receipt}, more...)...)
	return c, err
}

// Last implements register.Store.
func (s *Register) Last(ctx context.Context) (register.Change, error) {
	all, err := s.changes(ctx, "last change", `ORDER BY c.number DESC LIMIT 1`)
	if err != nil || len(all) == 0 {
		return register.Change{}, err
	}
	return all[0], nil
}

// Homes implements register.Store.
func (s *Register) Homes(ctx context.Context, ids []carnet.HomeID) (map[carnet.HomeID]register.Change, error) {
	texts, err := json.Marshal(ids)
	if err != nil {
		return nil, fmt.Errorf("read homes: %w", err)
	}
	homes := make(map[carnet.HomeID]register.Change)
	err = s.db.read(ctx, `SELECT `+changeColumns+`, h.home
		FROM register_home h JOIN register_change c ON c.number = h.change JOIN depot_statement s ON s.id = c.statement
		WHERE h.home IN (SELECT unhex(value) FROM json_each($1))`, []any{string(texts)}, func(r *sql.Rows) error {
		var id carnet.HomeID
		c, err := scanChange(r, fixed(id[:]))
		homes[id] = c
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read homes: %w", err)
	}
	return homes, nil
}

// Decided implements register.Store.
func (s *Register) Decided(ctx context.Context, id carnet.CrossingID) (register.Change, error) {
	all, err := s.changes(ctx, "decision", `WHERE c.number = (SELECT change FROM register_crossing WHERE crossing = $1)`, id[:])
	if err == nil && len(all) == 0 {
		err = carnet.Errorf(carnet.NotFound, "the crossing %s isn't decided", id)
	}
	if err != nil {
		return register.Change{}, err
	}
	return all[0], nil
}

// Changes implements register.Store.
func (s *Register) Changes(ctx context.Context, after uint64, limit int) ([]register.Change, error) {
	return s.changes(ctx, "changes", `WHERE c.number > $1 ORDER BY c.number LIMIT $2`, cursor(after), max(limit, 0))
}
