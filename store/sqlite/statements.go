package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"carnet"
	"carnet/ledger"
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

// add puts one statement into the outbox, as number id.
func (s statements) add(t *tx, id uint64, item *ledger.Item) {
	t.exec(s.sql(`INSERT INTO {domain}_statement (id, entry, statement, salt, receipt) VALUES ($1, $2, $3, $4, $5)`),
		id, item.Entry[:], blob(item.Statement), blob(item.Salt), receipt(item))
}

// addAll puts statements into the outbox, counts them, and returns the number of the last.
func (s statements) addAll(t *tx, items []ledger.Item) (last uint64) {
	if len(items) == 0 {
		return 0
	}
	t.row(s.sql(`SELECT last_statement FROM {domain}_totals`), nil, &last)
	var receipts int
	for i := range items {
		last++
		s.add(t, last, &items[i])
		if len(items[i].Receipt) > 0 {
			receipts++
		}
	}
	t.exec(s.sql(`UPDATE {domain}_totals SET statements = statements + $1, receipts = receipts + $2, last_statement = $3`), len(items), receipts, last)
	return last
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
		[]any{cursor(after), max(limit, 0)}, func(rows *sql.Rows) error {
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
	for i := range items {
		if len(items[i].Receipt) == 0 {
			return carnet.Errorf(carnet.Malformed, "the receipt of statement %d is empty", items[i].ID)
		}
	}
	return s.db.change(ctx, "store receipts", func(t *tx) error {
		set := s.sql(`UPDATE {domain}_statement SET receipt = $2 WHERE id = $1 AND receipt IS NULL`)
		var n int64
		for i := range items {
			n += t.exec(set, cursor(items[i].ID), items[i].Receipt)
		}
		t.exec(s.sql(`UPDATE {domain}_totals SET receipts = receipts + $1`), n)
		return nil
	})
}

// LastReceipt returns the receipt of the newest statement that has one; nil without
// one.
func (s statements) LastReceipt(ctx context.Context) (last []byte, err error) {
	err = s.db.read(ctx, s.sql(`SELECT receipt FROM {domain}_statement WHERE receipt IS NOT NULL ORDER BY id DESC LIMIT 1`),
		nil, func(rows *sql.Rows) error { return rows.Scan(&last) })
	if err != nil {
		return nil, fmt.Errorf("read last receipt: %w", err)
	}
	return last, nil
}

// Statements returns statements with id > after, in order, at most limit.
func (s statements) Statements(ctx context.Context, after uint64, limit int) (items []ledger.Item, err error) {
	err = s.db.read(ctx, s.sql(`SELECT id, entry, statement, salt, receipt FROM {domain}_statement WHERE id > $1 ORDER BY id LIMIT $2`),
		[]any{cursor(after), max(limit, 0)}, func(rows *sql.Rows) error {
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
