package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carnet"
	"carnet/ledger"
	"carnet/thing"

	"github.com/jackc/pgx/v5"
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

func (n *thingTotals) save(b *pgx.Batch) {
	b.Queue(`UPDATE thing_totals SET log_rows = $1, log_next = $2, sent_frames = $3, sent_batches = $4, refusals = $5,
		statements = $6, receipts = $7, last_refusal = $8, last_statement = $9`,
		n.LogRows, n.LogNext, n.SentFrames, n.SentBatches, n.Refusals, n.Statements, n.Receipts, n.lastRefusal, n.lastStatement)
}

// changeTotals runs fn as one transaction that holds the lock of the totals. fn
// queues what it writes, after which the totals are written with it in one
// round trip.
func (s *Things) changeTotals(ctx context.Context, what string, fn func(*tx, *thingTotals, *pgx.Batch) error) error {
	return s.db.change(ctx, what, func(t *tx) error {
		var n thingTotals
		b := &pgx.Batch{}
		t.row(selectThingTotals+` FOR UPDATE`, nil, n.columns()...)
		before := n
		if t.err != nil {
			return t.err
		}
		if err := fn(t, &n, b); err != nil {
			return err
		}
		if n != before {
			n.save(b)
		}
		t.send(b)
		return nil
	})
}

// Commit implements thing.Store.
func (s *Things) Commit(ctx context.Context, g *thing.Group) error {
	return s.changeTotals(ctx, "commit group", func(t *tx, n *thingTotals, b *pgx.Batch) error {
		box := &outbox{last: &n.lastStatement, count: &n.Statements, receipts: &n.Receipts}
		if g.Log != nil {
			if err := addLog(n, b, g.Log); err != nil {
				return err
			}
		}
		if err := addSent(t, n, b, box, g.Sent); err != nil {
			return err
		}
		if err := s.put(t, g.Documents); err != nil {
			return err
		}
		for i := range g.Statements {
			box.add(&g.Statements[i])
		}
		s.queue(b, box)
		return addRefusals(t, n, b, g.Refusals)
	})
}

// Put stores documents (nil Body: delete) with statements about the change, all
// or nothing.
func (s *Things) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.Commit(ctx, &thing.Group{Documents: docs, Statements: items})
}

// addLog appends one row to the log. The first row of a new store may begin at
// any position; each later one begins where the log ends.
func addLog(n *thingTotals, b *pgx.Batch, row *thing.LogRow) error {
	next := row.First + uint64(row.Count)
	if err := inRange(row.First, next); err != nil {
		return err
	}
	if row.Count == 0 || row.First != n.LogNext && n.LogNext != 0 {
		return carnet.Errorf(carnet.Conflict, "the log goes on at position %d, so %d messages at %d don't follow", n.LogNext, row.Count, row.First)
	}
	b.Queue(`INSERT INTO thing_log (first, count, received, idx, body) VALUES ($1, $2, $3, $4, $5)`,
		row.First, row.Count, row.Received, blob(row.Index), blob(row.Body))
	n.LogRows++
	n.LogNext = next
	return nil
}

// addSent records frames. Their numbers must be above all that are recorded for
// their link: a process that was overtaken can't fill a gap.
func addSent(t *tx, n *thingTotals, b *pgx.Batch, box *outbox, rows []thing.SentRow) error {
	if len(rows) == 0 {
		return nil
	}
	last, err := lastSent(t, rows)
	if err != nil {
		return err
	}
	var links []string
	var numbers, policies []uint64
	var times, batches []int64
	var ids []*uint64
	var hashes, headers, leaves, states [][]byte
	for i := range rows {
		row := &rows[i]
		if err := inRange(row.Number, row.Policy); err != nil {
			return err
		}
		if before, known := last[row.Link]; known && row.Number <= before {
			return carnet.Errorf(carnet.Conflict, "frame %d to %s is recorded, so %d is not new", before, row.Link, row.Number)
		}
		last[row.Link] = row.Number
		links, numbers, policies = append(links, string(row.Link)), append(numbers, row.Number), append(policies, row.Policy)
		times, batches, ids = append(times, row.Time), append(batches, int64(row.Batches)), append(ids, box.add(&row.Statement))
		hashes, headers = append(hashes, row.Hash[:]), append(headers, blob(row.Header))
		leaves, states = append(leaves, blob(row.Leaves)), append(states, blob(row.State))
		n.SentFrames++
		n.SentBatches += uint64(row.Batches)
	}
	b.Queue(`INSERT INTO thing_sent (link, number, hash, time, policy, batches, statement, header, leaves, state)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[])`,
		links, numbers, hashes, times, policies, batches, ids, headers, leaves, states)
	return nil
}

// lastSent returns the largest number recorded for each link of rows that has
// any.
func lastSent(t *tx, rows []thing.SentRow) (map[carnet.PartyID]uint64, error) {
	links := make(map[string]bool)
	for i := range rows {
		links[string(rows[i].Link)] = true
	}
	last := make(map[carnet.PartyID]uint64)
	t.each(`SELECT l.link, s.number FROM unnest($1::text[]) l (link)
		CROSS JOIN LATERAL (SELECT number FROM thing_sent WHERE link = l.link ORDER BY number DESC LIMIT 1) s`,
		[]any{slices.Collect(maps.Keys(links))}, func(r pgx.Rows) error {
			var link carnet.PartyID
			var number uint64
			err := r.Scan(&link, &number)
			last[link] = number
			return err
		})
	return last, t.err
}

// addRefusals writes refusals, counts them, and trims what is over the limit.
func addRefusals(t *tx, n *thingTotals, b *pgx.Batch, rows []thing.RefusalRow) error {
	if len(rows) == 0 {
		return nil
	}
	var ids []uint64
	var things, codes []string
	var times []int64
	var bodies [][]byte
	for i := range rows {
		row := &rows[i]
		n.lastRefusal++
		n.Refusals++
		ids, things, codes = append(ids, n.lastRefusal), append(things, string(row.Thing)), append(codes, string(row.Code))
		times, bodies = append(times, row.Time), append(bodies, blob(row.Body))
	}
	b.Queue(`INSERT INTO thing_refusal (id, thing, time, code, body)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bytea[])`, ids, things, times, codes, bodies)
	b.Queue(`INSERT INTO thing_refusal_count (thing, code, count)
		SELECT thing, code, count(*) FROM unnest($1::text[], $2::text[]) r (thing, code) GROUP BY thing, code
		ON CONFLICT (thing, code) DO UPDATE SET count = thing_refusal_count.count + excluded.count`, things, codes)
	t.send(b)
	*b = pgx.Batch{}
	n.Refusals -= uint64(t.exec(`DELETE FROM thing_refusal r USING unnest($1::text[]) l (thing)
		WHERE r.thing = l.thing AND r.id <= (SELECT id FROM thing_refusal WHERE thing = l.thing ORDER BY id DESC LIMIT 1 OFFSET $2)`,
		things, keptRefusals))
	return nil
}

// fromRow is the first row that ends after position $1: the one that holds the
// position, or the first after it.
const fromRow = `first >= coalesce((SELECT max(first) FROM thing_log WHERE first <= $1), 0) AND first + count > $1::bigint`

// Log implements thing.Store.
func (s *Things) Log(ctx context.Context, from uint64, limit int) (rows []thing.LogRow, err error) {
	size := 0
	query := strings.ReplaceAll(`SELECT first, count, received, idx, body FROM thing_log WHERE `+fromRow+` ORDER BY first`, "$1", fmt.Sprint(cursor(from)))
	err = s.db.stream(ctx, "thing_log_rows", query, func(r pgx.Rows) error {
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
		[]any{cursor(from), max(limit, 0)}, func(r pgx.Rows) error {
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
	err = s.changeTotals(ctx, "trim log", func(t *tx, n *thingTotals, b *pgx.Batch) error {
		rows = int(t.exec(`DELETE FROM thing_log WHERE received < $1`, before))
		n.LogRows -= uint64(rows)
		return nil
	})
	return rows, err
}

// Sent implements thing.Store.
func (s *Things) Sent(ctx context.Context, link carnet.PartyID, after uint64, limit int) (rows []thing.SentRow, err error) {
	err = s.db.read(ctx, `SELECT f.number, f.hash, f.time, f.policy, f.batches, f.header, f.leaves, f.state,
			s.id, s.entry, s.statement, s.salt, s.receipt
		FROM thing_sent f LEFT JOIN thing_statement s ON s.id = f.statement
		WHERE f.link = $1 AND f.number > $2 ORDER BY f.number LIMIT $3`,
		[]any{string(link), cursor(after), max(limit, 0)}, func(r pgx.Rows) error {
			row := thing.SentRow{Link: link}
			var id *uint64
			var entry []byte
			err := r.Scan(&row.Number, fixed(row.Hash[:]), &row.Time, &row.Policy, &row.Batches, &row.Header, &row.Leaves, &row.State,
				&id, &entry, &row.Statement.Statement, &row.Statement.Salt, &row.Statement.Receipt)
			if id != nil {
				row.Statement.ID = *id
			}
			copy(row.Statement.Entry[:], entry)
			rows = append(rows, row)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read frames sent to %s: %w", link, err)
	}
	return rows, nil
}

// Rewind implements thing.Store.
func (s *Things) Rewind(ctx context.Context, link carnet.PartyID, last, acked uint64) error {
	return s.changeTotals(ctx, "rewind link", func(t *tx, n *thingTotals, b *pgx.Batch) error {
		var frames, batches, statements uint64
		t.row(`WITH frames AS (DELETE FROM thing_sent WHERE link = $1 AND number > $2 RETURNING number, batches, statement),
			stated AS (DELETE FROM thing_statement WHERE receipt IS NULL AND id IN (SELECT statement FROM frames WHERE number > $3) RETURNING id),
			snapshots AS (DELETE FROM thing_link WHERE link = $1 AND number > $2)
			SELECT (SELECT count(*) FROM frames), (SELECT coalesce(sum(batches), 0) FROM frames)::bigint,
				(SELECT count(*) FROM stated)`,
			[]any{string(link), cursor(last), cursor(max(last, acked))}, &frames, &batches, &statements)
		n.SentFrames -= frames
		n.SentBatches -= batches
		n.Statements -= statements
		return nil
	})
}

// SaveLink implements thing.Store.
func (s *Things) SaveLink(ctx context.Context, snapshot thing.LinkSnapshot) error {
	if err := inRange(snapshot.Number); err != nil {
		return err
	}
	return s.db.change(ctx, "save link", func(t *tx) error {
		t.exec(`SELECT FROM thing_totals FOR UPDATE`)
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
		[]any{string(link), cursor(at)}, func(r pgx.Rows) error {
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
		[]any{string(id), max(limit, 0)}, func(r pgx.Rows) error {
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
	err := s.db.read(ctx, `SELECT thing, code, count FROM thing_refusal_count`, nil, func(r pgx.Rows) error {
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
	err := s.db.read(ctx, selectThingTotals, nil, func(r pgx.Rows) error { return r.Scan(n.columns()...) })
	if err != nil {
		return thing.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return n.Totals, nil
}
