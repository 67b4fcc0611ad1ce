package sqlite

import (
	"context"

	"carnet"
	"carnet/dpm"
	"carnet/ledger"
)

// DPM implements dpm.Store.
type DPM struct {
	statements
	documents
	db *DB
}

var _ dpm.Store = (*DPM)(nil)

// DPM returns the store of a DPM, making or migrating its tables.
func (db *DB) DPM(ctx context.Context) (*DPM, error) {
	if err := db.migrate(ctx, schemas, "dpm"); err != nil {
		return nil, err
	}
	return &DPM{statements{db, "dpm"}, documents{db, "dpm"}, db}, nil
}

// Put implements dpm.Store.
func (s *DPM) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.db.change(ctx, "put documents", func(t *tx) error {
		if err := s.put(t, docs); err != nil {
			return err
		}
		s.addAll(t, items)
		return nil
	})
}

// Overwrite implements dpm.Store: what was deleted is zeros by now, in the log or in the
// file, and the log is emptied into it.
func (s *DPM) Overwrite(ctx context.Context) error { return s.db.scrub(ctx) }
