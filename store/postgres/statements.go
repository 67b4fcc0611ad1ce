package postgres

import (
	"context"
	"fmt"
	"strings"

	"carnet"
	"carnet/ledger"

	"github.com/jackc/pgx/v5"
)

// statements are the outbox of one domain, in its table DOMAIN_statement. It is
// embedded in the domain's store, whose methods it promotes.
type statements struct {
	db     *DB
	domain string
}

// sql fills the domain into the name of a table.
func (s statements) sql(query string) string {
	return strings.ReplaceAll(query, "{domain}", s.domain)
}

// outbox gathers the statements of one change; the totals count them.
type outbox struct {
	last, count, receipts *uint64 // of the totals
	ids                   []uint64
	items                 []*ledger.Item
}

// add takes a statement up and returns its id, or nil for the zero entry.
func (o *outbox) add(item *ledger.Item) *uint64 {
	if item.Entry == (ledger.Entry{}) {
		return nil
	}
	*o.last++
	*o.count++
	if len(item.Receipt) > 0 {
		*o.receipts++
	}
	id := *o.last
	o.ids = append(o.ids, id)
	o.items = append(o.items, item)
	return &id
}

// queue writes the statements gathered.
func (s statements) queue(b *pgx.Batch, o *outbox) {
	if len(o.items) == 0 {
		return
	}
	var entries, texts, salts, receipts [][]byte
	for _, item := range o.items {
		entries = append(entries, item.Entry[:])
		texts = append(texts, blob(item.Statement))
		salts = append(salts, blob(item.Salt))
		receipts = append(receipts, receipt(item))
	}
	b.Queue(s.sql(`INSERT INTO {domain}_statement (id, entry, statement, salt, receipt)
		SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[])`), o.ids, entries, texts, salts, receipts)
}

// receipt is NULL while there is none.
func receipt(item *ledger.Item) []byte {
	if len(item.Receipt) == 0 {
		return nil
	}
	return item.Receipt
}

// Pending implements ledger.OutboxStore; it fills ID and Entry.
func (s statements) Pending(ctx context.Context, after uint64, limit int) (items []ledger.Item, err error) {
	err = s.db.read(ctx, s.sql(`SELECT id, entry FROM {domain}_statement WHERE receipt IS NULL AND id > $1 ORDER BY id LIMIT $2`),
		[]any{cursor(after), max(limit, 0)}, func(rows pgx.Rows) error {
			var item ledger.Item
			err := rows.Scan(&item.ID, fixed(item.Entry[:]))
			items = append(items, item)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read pending statements: %w", err)
	}
	return items, nil
}

// Receipted implements ledger.OutboxStore: the first receipt of an item stays.
func (s statements) Receipted(ctx context.Context, items []ledger.Item) error {
	ids, receipts := make([]int64, len(items)), make([][]byte, len(items))
	for i := range items {
		if len(items[i].Receipt) == 0 {
			return carnet.Errorf(carnet.Malformed, "the receipt of statement %d is empty", items[i].ID)
		}
		ids[i], receipts[i] = cursor(items[i].ID), items[i].Receipt
	}
	return s.db.change(ctx, "store receipts", func(t *tx) error {
		t.exec(s.sql(`SELECT FROM {domain}_totals FOR UPDATE`))
		n := t.exec(s.sql(`UPDATE {domain}_statement s SET receipt = r.receipt FROM unnest($1::bigint[], $2::bytea[]) r (id, receipt)
			WHERE s.id = r.id AND s.receipt IS NULL`), ids, receipts)
		t.exec(s.sql(`UPDATE {domain}_totals SET receipts = receipts + $1`), n)
		return nil
	})
}

// LastReceipt returns the receipt of the newest statement that has one; nil without
// one.
func (s statements) LastReceipt(ctx context.Context) (last []byte, err error) {
	err = s.db.read(ctx, s.sql(`SELECT receipt FROM {domain}_statement WHERE receipt IS NOT NULL ORDER BY id DESC LIMIT 1`),
		nil, func(rows pgx.Rows) error { return rows.Scan(&last) })
	if err != nil {
		return nil, fmt.Errorf("read last receipt: %w", err)
	}
	return last, nil
}

// Statements returns statements with id > after, in order, at most limit.
func (s statements) Statements(ctx context.Context, after uint64, limit int) (items []ledger.Item, err error) {
	err = s.db.read(ctx, s.sql(`SELECT id, entry, statement, salt, receipt FROM {domain}_statement WHERE id > $1 ORDER BY id LIMIT $2`),
		[]any{cursor(after), max(limit, 0)}, func(rows pgx.Rows) error {
			var item ledger.Item
			err := rows.Scan(&item.ID, fixed(item.Entry[:]), &item.Statement, &item.Salt, &item.Receipt)
			items = append(items, item)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	return items, nil
}
