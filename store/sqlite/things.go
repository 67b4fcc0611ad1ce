package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"carnet"
	"carnet/ledger"
	"carnet/thing"
)

const (
	keptRefusals  = 1000 // of each thing
	keptSnapshots = 32   // of each link
)

// Things implements thing.Store.
type Things struct {
	statements
	documents
	db *DB
}

var _ thing.Store = (*Things)(nil)

// Things returns the store of a things agent, making or migrating its tables.
func (db *DB) Things(ctx context.Context) (*Things, error) {
	if err := db.migrate(ctx, schemas, "things"); err != nil {
		return nil, err
	}
	return &Things{statements{db, "thing"}, documents{db, "thing"}, db}, nil
}

// thingTotals is the row of thing_totals.
type thingTotals struct {
	thing.Totals
	lastRefusal, lastStatement uint64
}

const selectThingTotals = `SELECT log_rows, log_next, sent_frames, sent_batches, refusals, statements, receipts, last_refusal, last_statement FROM thing_totals`

func (n *thingTotals) columns() []any {
	return []any{&n.LogRows, &n.LogNext, &n.SentFrames, &n.SentBatches, &n.Refusals, &n.Statements, &n.Receipts, &n.lastRefusal, &n.lastStatement}
}

func (n *thingTotals) save(t *tx) {
	t.exec(`UPDATE thing_totals SET log_rows = $1, log_next = $2, sent_frames = $3, sent_batches = $4, refusals = $5,
		statements = $6, receipts = $7, last_refusal = $8, last_statement = $9`,
		n.LogRows, n.LogNext, n.SentFrames, n.SentBatches, n.Refusals, n.Statements, n.Receipts, n.lastRefusal, n.lastStatement)
}

// changeTotals runs fn as one transaction with the totals read before and
// written after it.
func (s *Things) changeTotals(ctx context.Context, what string, fn func(*tx, *thingTotals) error) error {
	return s.db.change(ctx, what, func(t *tx) error {
		var n thingTotals
		t.row(selectThingTotals, nil, n.columns()...)
		before := n
		if err := fn(t, &n); err != nil {
			return err
		}
		if n != before {
			n.save(t)
		}
		return nil
	})
}

// Commit implements thing.Store.
func (s *Things) Commit(ctx context.Context, g *thing.Group) error {
	return s.changeTotals(ctx, "commit group", func(t *tx, n *thingTotals) error {
		if g.Log != nil {
			if err := s.addLog(t, n, g.Log); err != nil {
				return err
			}
		}
		for i := range g.Sent {
			if err := s.addSent(t, n, &g.Sent[i]); err != nil {
				return err
			}
		}
		s.addRefusals(t, n, g.Refusals)
		if err := s.put(t, g.Documents); err != nil {
			return err
		}
		for i := range g.Statements {
			s.state(t, n, &g.Statements[i])
		}
		return nil
	})
}

// state puts a statement into the outbox and returns its id.
func (s *Things) state(t *tx, n *thingTotals, item *ledger.Item) uint64 {
	n.lastStatement++
	n.Statements++
	if len(item.Receipt) > 0 {
		n.Receipts++
	}
	s.add(t, n.lastStatement, item)
	return n.lastStatement
}

// Put stores documents (nil Body: delete) with statements about the change, all
// or nothing.
func (s *Things) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.Commit(ctx, &thing.Group{Documents: docs, Statements: items})
}

// addLog appends one row to the log. The first row of a new store may begin at
// any position; each later one begins where the log ends.
func (s *Things) addLog(t *tx, n *thingTotals, row *thing.LogRow) error {
	next := row.First + uint64(row.Count)
	if err := inRange(row.First, next); err != nil {
		return err
	}
	if t.err == nil && (row.Count == 0 || row.First != n.LogNext && n.LogNext != 0) {
		return carnet.Errorf(carnet.Conflict, "the log goes on at position %d, so %d messages at %d don't follow", n.LogNext, row.Count, row.First)
	}
	t.exec(`INSERT INTO thing_log (first, count, received, idx, body) VALUES ($1, $2, $3, $4, $5)`,
		row.First, row.Count, row.Received, blob(row.Index), blob(row.Body))
	n.LogRows++
	n.LogNext = next
	return nil
}

// addSent records one frame. Its number must be above all that are recorded for
// its link: a process that was overtaken can't fill a gap.
func (s *Things) addSent(t *tx, n *thingTotals, row *thing.SentRow) error {
	if err := inRange(row.Number, row.Policy); err != nil {
		return err
	}
	var last uint64
	known := t.row(`SELECT number FROM thing_sent WHERE link = $1 ORDER BY number DESC LIMIT 1`, []any{string(row.Link)}, &last)
	if known && row.Number <= last {
		return carnet.Errorf(carnet.Conflict, "frame %d to %s is recorded, so %d is not new", last, row.Link, row.Number)
	}
	var statement any // NULL: none
	if row.Statement.Entry != (ledger.Entry{}) {
		statement = s.state(t, n, &row.Statement)
	}
	t.exec(`INSERT INTO thing_sent (link, number, hash, time, policy, batches, statement, header, leaves, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, string(row.Link), row.Number, row.Hash[:], row.Time, row.Policy,
		row.Batches, statement, blob(row.Header), blob(row.Leaves), blob(row.State))
	n.SentFrames++
	n.SentBatches += uint64(row.Batches)
	return nil
}

func (s *Things) addRefusals(t *tx, n *thingTotals, rows []thing.RefusalRow) {
	things := make(map[carnet.ThingID]bool)
	for i := range rows {
		row := &rows[i]
		n.lastRefusal++
		n.Refusals++
		t.exec(`INSERT INTO thing_refusal (id, thing, time, code, body) VALUES ($1, $2, $3, $4, $5)`,
			n.lastRefusal, string(row.Thing), row.Time, string(row.Code), blob(row.Body))
		t.exec(`INSERT INTO thing_refusal_count (thing, code, count) VALUES ($1, $2, 1)
			ON CONFLICT (thing, code) DO UPDATE SET count = count + 1`, string(row.Thing), string(row.Code))
		things[row.Thing] = true
	}
	for id := range things {
		n.Refusals -= uint64(t.exec(`DELETE FROM thing_refusal WHERE thing = $1 AND id <= (
			SELECT id FROM thing_refusal WHERE thing = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)`, string(id), keptRefusals))
	}
}

// fromRow is the first row that ends after position $1: the one that holds the
// position, or the first after it.
const fromRow = `first >= coalesce((SELECT max(first) FROM thing_log WHERE first <= $1), 0) AND first + count > $1`

// Log implements thing.Store.
func (s *Things) Log(ctx context.Context, from uint64, limit int) (rows []thing.LogRow, err error) {
	size := 0
	err = s.db.read(ctx, `SELECT first, count, received, idx, body FROM thing_log WHERE `+fromRow+` ORDER BY first`,
		[]any{cursor(from)}, func(r *sql.Rows) error {
			var row thing.LogRow
			if err := r.Scan(&row.First, &row.Count, &row.Received, &row.Index, &row.Body); err != nil {
				return err
			}
			if size += len(row.Body); size > limit && len(rows) > 0 {
				return errEnough
			}
			rows = append(rows, row)
			if size >= limit {
				return errEnough
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return rows, nil
}

// LogIndex implements thing.Store.
func (s *Things) LogIndex(ctx context.Context, from uint64, limit int) (rows []thing.LogRow, err error) {
	err = s.db.read(ctx, `SELECT first, count, received, idx FROM thing_log WHERE `+fromRow+` ORDER BY first LIMIT $2`,
		[]any{cursor(from), max(limit, 0)}, func(r *sql.Rows) error {
			var row thing.LogRow
			err := r.Scan(&row.First, &row.Count, &row.Received, &row.Index)
			rows = append(rows, row)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read log index: %w", err)
	}
	return rows, nil
}

// TrimLog implements thing.Store.
func (s *Things) TrimLog(ctx context.Context, before int64) (rows int, err error) {
	err = s.changeTotals(ctx, "trim log", func(t *tx, n *thingTotals) error {
		rows = int(t.exec(`DELETE FROM thing_log WHERE received < $1`, before))
		n.LogRows -= uint64(rows)
		return nil
	})
	if err != nil {
		return 0, err
	}
	if rows == 0 {
		return 0, nil
	}
	return rows, s.db.scrub(ctx)
}

// Sent implements thing.Store.
func (s *Things) Sent(ctx context.Context, link carnet.PartyID, after uint64, limit int) (rows []thing.SentRow, err error) {
	err = s.db.read(ctx, `SELECT f.number, f.hash, f.time, f.policy, f.batches, f.header, f.leaves, f.state,
			s.id, s.entry, s.statement, s.salt, s.receipt
		FROM thing_sent f LEFT JOIN thing_statement s ON s.id = f.statement
		WHERE f.link = $1 AND f.number > $2 ORDER BY f.number LIMIT $3`,
		[]any{string(link), cursor(after), max(limit, 0)}, func(r *sql.Rows) error {
			row := thing.SentRow{Link: link}
			var id sql.Null[uint64]
			var entry []byte
			err := r.Scan(&row.Number, fixed(row.Hash[:]), &row.Time, &row.Policy, &row.Batches, &row.Header, &row.Leaves, &row.State,
				&id, &entry, &row.Statement.Statement, &row.Statement.Salt, &row.Statement.Receipt)
			row.Statement.ID = id.V
			copy(row.Statement.Entry[:], entry)
			rows = append(rows, row)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read frames sent to %s: %w", link, err)
	}
	return rows, nil
}

// Rewind implements thing.Store. Snapshots above last go, too: they hold what
// the deleted frames changed.
func (s *Things) Rewind(ctx context.Context, link carnet.PartyID, last, acked uint64) error {
	return s.changeTotals(ctx, "rewind link", func(t *tx, n *thingTotals) error {
		above := []any{string(link), cursor(last)}
		var frames, batches uint64
		t.row(`SELECT count(*), coalesce(sum(batches), 0) FROM thing_sent WHERE link = $1 AND number > $2`, above, &frames, &batches)
		n.Statements -= uint64(t.exec(`DELETE FROM thing_statement WHERE receipt IS NULL AND id IN (
			SELECT statement FROM thing_sent WHERE link = $1 AND number > $2)`, string(link), cursor(max(last, acked))))
		t.exec(`DELETE FROM thing_sent WHERE link = $1 AND number > $2`, above...)
		t.exec(`DELETE FROM thing_link WHERE link = $1 AND number > $2`, above...)
		n.SentFrames -= frames
		n.SentBatches -= batches
		return nil
	})
}

// SaveLink implements thing.Store.
func (s *Things) SaveLink(ctx context.Context, snapshot thing.LinkSnapshot) error {
	if err := inRange(snapshot.Number); err != nil {
		return err
	}
	return s.db.change(ctx, "save link", func(t *tx) error {
		t.exec(`INSERT INTO thing_link (link, number, state) VALUES ($1, $2, $3)
			ON CONFLICT (link, number) DO UPDATE SET state = $3`, string(snapshot.Link), snapshot.Number, blob(snapshot.State))
		t.exec(`DELETE FROM thing_link WHERE link = $1 AND number <= (
			SELECT number FROM thing_link WHERE link = $1 ORDER BY number DESC LIMIT 1 OFFSET $2)`, string(snapshot.Link), keptSnapshots)
		return nil
	})
}

// Link implements thing.Store.
func (s *Things) Link(ctx context.Context, link carnet.PartyID, at uint64) (snapshot thing.LinkSnapshot, err error) {
	err = s.db.read(ctx, `SELECT number, state FROM thing_link WHERE link = $1 AND number <= $2 ORDER BY number DESC LIMIT 1`,
		[]any{string(link), cursor(at)}, func(r *sql.Rows) error {
			snapshot.Link = link
			return r.Scan(&snapshot.Number, &snapshot.State)
		})
	if err != nil {
		return thing.LinkSnapshot{}, fmt.Errorf("read snapshot of link to %s: %w", link, err)
	}
	return snapshot, nil
}

// Refusals implements thing.Store.
func (s *Things) Refusals(ctx context.Context, id carnet.ThingID, limit int) (rows []thing.RefusalRow, err error) {
	err = s.db.read(ctx, `SELECT time, code, body FROM thing_refusal WHERE thing = $1 ORDER BY id DESC LIMIT $2`,
		[]any{string(id), max(limit, 0)}, func(r *sql.Rows) error {
			row := thing.RefusalRow{Thing: id}
			err := r.Scan(&row.Time, &row.Code, &row.Body)
			rows = append(rows, row)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read refusals of %s: %w", id, err)
	}
	return rows, nil
}

// RefusalCounts implements thing.Store.
func (s *Things) RefusalCounts(ctx context.Context) (map[carnet.ThingID]map[carnet.Code]uint64, error) {
	counts := make(map[carnet.ThingID]map[carnet.Code]uint64)
	err := s.db.read(ctx, `SELECT thing, code, count FROM thing_refusal_count`, nil, func(r *sql.Rows) error {
		var id carnet.ThingID
		var code carnet.Code
		var n uint64
		if err := r.Scan(&id, &code, &n); err != nil {
			return err
		}
		if counts[id] == nil {
			counts[id] = make(map[carnet.Code]uint64)
		}
		counts[id][code] = n
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read refusal counts: %w", err)
	}
	return counts, nil
}

// Totals implements thing.Store.
func (s *Things) Totals(ctx context.Context) (thing.Totals, error) {
	var n thingTotals
	err := s.db.read(ctx, selectThingTotals, nil, func(r *sql.Rows) error { return r.Scan(n.columns()...) })
	if err != nil {
		return thing.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return n.Totals, nil
}
