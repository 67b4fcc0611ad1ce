package postgres

import (
	"context"

	"carnet"
	"carnet/dpm"
	"carnet/ledger"

	"github.com/jackc/pgx/v5"
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
		var count, receipts, last uint64
		t.row(`SELECT statements, receipts, last_statement FROM dpm_totals FOR UPDATE`, nil, &count, &receipts, &last)
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
		b.Queue(`UPDATE dpm_totals SET statements = $1, receipts = $2, last_statement = $3`, count, receipts, last)
		t.send(b)
		return nil
	})
}

// Overwrite implements dpm.Store, as far as PostgreSQL can: what was replaced is vacuumed.
func (s *DPM) Overwrite(ctx context.Context) error { return s.db.vacuum(ctx, `VACUUM dpm_document`) }
