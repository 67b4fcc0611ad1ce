package postgres

import (
	"context"
	"fmt"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"
	"carnet/ledger"

	"github.com/jackc/pgx/v5"
)

// Worlds implements avatar.Store.
type Worlds struct {
	statements
	documents
	db    *DB
	large *bodies.Beside
}

var _ avatar.Store = (*Worlds)(nil)

// Worlds returns the store of an avatar agent, making or migrating its tables, and
// opening the directory of its large bodies.
func (db *DB) Worlds(ctx context.Context) (*Worlds, error) {
	if err := db.migrate(ctx, schemas, "worlds"); err != nil {
		return nil, err
	}
	s := &Worlds{statements: statements{db, "world"}, documents: documents{db, "world"}, db: db}
	var err error
	if s.large, err = db.beside(ctx); err != nil {
		return nil, fmt.Errorf("open large bodies: %w", db.fatal(classify(err)))
	}
	return s, nil
}

// worldTotals is the row of world_totals.
type worldTotals struct {
	avatar.Totals
	lastFrame, lastStretch, lastStatement uint64
}

const selectWorldTotals = `SELECT frames, bodies, batches, stretches, stretch_bytes, statements, receipts, last_frame, last_stretch, last_statement FROM world_totals`

func (n *worldTotals) columns() []any {
	return []any{&n.Frames, &n.FramesWithBody, &n.Batches, &n.Stretches, &n.StretchBytes, &n.Statements, &n.Receipts, &n.lastFrame, &n.lastStretch, &n.lastStatement}
}

func (n *worldTotals) save(b *pgx.Batch) {
	b.Queue(`UPDATE world_totals SET frames = $1, bodies = $2, batches = $3, stretches = $4, stretch_bytes = $5,
		statements = $6, receipts = $7, last_frame = $8, last_stretch = $9, last_statement = $10`,
		n.Frames, n.FramesWithBody, n.Batches, n.Stretches, n.StretchBytes, n.Statements, n.Receipts, n.lastFrame, n.lastStretch, n.lastStatement)
}

// changeTotals runs fn as one transaction that holds the lock of the totals. fn
// queues what it writes, after which the totals are written with it in one
// round trip.
func (s *Worlds) changeTotals(ctx context.Context, what string, fn func(*tx, *worldTotals, *pgx.Batch) error) error {
	return s.db.change(ctx, what, func(t *tx) error {
		var n worldTotals
		b := &pgx.Batch{}
		t.row(selectWorldTotals+` FOR UPDATE`, nil, n.columns()...)
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

const selectLink = `SELECT sender, nonce, incarnation, number, hash, covers FROM world_link`

func linkColumns(row *avatar.LinkRow) []any {
	return []any{&row.Sender, fixed(row.Nonce[:]), &row.Incarnation, &row.Number, fixed(row.Hash[:]), fixed(row.Covers[:])}
}

func saveLinks(b *pgx.Batch, links map[carnet.PartyID]*avatar.LinkRow) {
	var senders []string
	var incarnations, numbers []uint64
	var nonces, hashes, covers [][]byte
	for _, row := range links {
		senders, nonces = append(senders, string(row.Sender)), append(nonces, row.Nonce[:])
		incarnations, numbers = append(incarnations, row.Incarnation), append(numbers, row.Number)
		hashes, covers = append(hashes, row.Hash[:]), append(covers, row.Covers[:])
	}
	b.Queue(`INSERT INTO world_link (sender, nonce, incarnation, number, hash, covers)
		SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[])
		ON CONFLICT (sender) DO UPDATE SET nonce = excluded.nonce, incarnation = excluded.incarnation, number = excluded.number,
			hash = excluded.hash, covers = excluded.covers`, senders, nonces, incarnations, numbers, hashes, covers)
}

// Register implements avatar.Store.
func (s *Worlds) Register(ctx context.Context, sender carnet.PartyID, nonce [16]byte, above uint64) (row avatar.LinkRow, err error) {
	err = s.db.change(ctx, "register sender", func(t *tx) error {
		t.exec(`SELECT FROM world_totals FOR UPDATE`)
		row = avatar.LinkRow{Sender: sender}
		known := t.row(selectLink+` WHERE sender = $1`, []any{string(sender)}, linkColumns(&row)...)
		if known && row.Nonce == nonce {
			return nil
		}
		row.Nonce = nonce
		row.Incarnation = max(row.Incarnation, above) + 1
		if err := inRange(above, row.Incarnation); err != nil {
			return err
		}
		b := &pgx.Batch{}
		saveLinks(b, map[carnet.PartyID]*avatar.LinkRow{sender: &row})
		t.send(b)
		return nil
	})
	if err != nil {
		return avatar.LinkRow{}, err
	}
	return row, nil
}

// Links implements avatar.Store.
func (s *Worlds) Links(ctx context.Context) (rows []avatar.LinkRow, err error) {
	err = s.db.read(ctx, selectLink+` ORDER BY sender`, nil, func(r pgx.Rows) error {
		var row avatar.LinkRow
		err := r.Scan(linkColumns(&row)...)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return rows, nil
}

// Append implements avatar.Store.
func (s *Worlds) Append(ctx context.Context, frames []avatar.FrameRow) error {
	if len(frames) == 0 {
		return nil
	}
	first := uint64(0)
	err := s.changeTotals(ctx, "append frames", func(t *tx, n *worldTotals, b *pgx.Batch) error {
		first = n.lastFrame + 1
		links, err := linksOf(t, frames)
		if err != nil {
			return err
		}
		for i := range frames {
			link := links[frames[i].Sender]
			if link == nil {
				return carnet.Errorf(carnet.Conflict, "%s has not registered", frames[i].Sender)
			}
			if err := follow(link, &frames[i]); err != nil {
				return err
			}
		}
		saveLinks(b, links)
		s.addFrames(n, b, frames)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range frames {
		frames[i].ID = first + uint64(i)
	}
	return nil
}

func linksOf(t *tx, frames []avatar.FrameRow) (map[carnet.PartyID]*avatar.LinkRow, error) {
	var senders []string
	for i := range frames {
		senders = append(senders, string(frames[i].Sender))
	}
	links := make(map[carnet.PartyID]*avatar.LinkRow)
	t.each(selectLink+` WHERE sender = ANY ($1)`, []any{senders}, func(r pgx.Rows) error {
		row := &avatar.LinkRow{}
		err := r.Scan(linkColumns(row)...)
		links[row.Sender] = row
		return err
	})
	return links, t.err
}

// follow moves a link to its next frame, or says why that isn't the next.
func follow(link *avatar.LinkRow, f *avatar.FrameRow) error {
	switch {
	case f.Incarnation != link.Incarnation:
		return carnet.Errorf(carnet.Conflict, "the incarnation of %s is %d, not %d", f.Sender, link.Incarnation, f.Incarnation)
	case f.Number != link.Number+1 || f.Parent != link.Hash:
		return carnet.Errorf(carnet.Conflict, "frame %d of %s doesn't follow frame %d, the last stored", f.Number, f.Sender, link.Number)
	}
	link.Number, link.Hash, link.Covers = f.Number, f.Hash, f.Covers
	return nil
}

func (s *Worlds) addFrames(n *worldTotals, b *pgx.Batch, frames []avatar.FrameRow) {
	box := &outbox{last: &n.lastStatement, count: &n.Statements, receipts: &n.Receipts}
	var ids, bodyIDs, incarnations, numbers []uint64
	var senders []string
	var received, batches []int64
	var statements []*uint64
	var parents, hashes, covers, headers, leaves, bodies [][]byte
	for i := range frames {
		f := &frames[i]
		n.lastFrame++
		n.Frames++
		n.Batches += uint64(f.Batches)
		ids, senders, statements = append(ids, n.lastFrame), append(senders, string(f.Sender)), append(statements, box.add(&f.Statement))
		incarnations, numbers = append(incarnations, f.Incarnation), append(numbers, f.Number)
		parents, hashes, covers = append(parents, f.Parent[:]), append(hashes, f.Hash[:]), append(covers, f.Covers[:])
		received, batches = append(received, f.Received), append(batches, int64(f.Batches))
		headers, leaves = append(headers, blob(f.Header)), append(leaves, blob(f.Leaves))
		if f.Body != nil {
			bodyIDs, bodies = append(bodyIDs, n.lastFrame), append(bodies, f.Body)
			n.FramesWithBody++
		}
	}
	b.Queue(`INSERT INTO world_frame (id, sender, incarnation, number, parent, hash, covers, received, batches, statement, header, leaves)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bigint[],
			$9::bigint[], $10::bigint[], $11::bytea[], $12::bytea[])`,
		ids, senders, incarnations, numbers, parents, hashes, covers, received, batches, statements, headers, leaves)
	b.Queue(`INSERT INTO world_frame_body (frame, body) SELECT * FROM unnest($1::bigint[], $2::bytea[])`, bodyIDs, bodies)
	s.queue(b, box)
}

// frameColumns names the columns of world_frame f, which scanFrame reads, with
// those of its statement; the body comes last.
const (
	frameColumns   = `f.id, f.sender, f.incarnation, f.number, f.parent, f.hash, f.covers, f.received, f.batches, f.header, f.leaves, s.id, s.entry, s.statement, s.salt, s.receipt`
	frameStatement = ` LEFT JOIN world_statement s ON s.id = f.statement`
)

func scanFrame(r pgx.Rows, f *avatar.FrameRow, more ...any) error {
	var statement *uint64
	var entry []byte
	err := r.Scan(append([]any{&f.ID, &f.Sender, &f.Incarnation, &f.Number, fixed(f.Parent[:]), fixed(f.Hash[:]), fixed(f.Covers[:]),
		&f.Received, &f.Batches, &f.Header, &f.Leaves,
		&statement, &entry, &f.Statement.Statement, &f.Statement.Salt, &f.Statement.Receipt}, more...)...)
	if statement != nil {
		f.StatementID, f.Statement.ID = *statement, *statement
	}
	copy(f.Statement.Entry[:], entry)
	return err
}

// Frames implements avatar.Store.
func (s *Worlds) Frames(ctx context.Context, after uint64, limit int) (frames []avatar.FrameRow, err error) {
	size := 0
	query := fmt.Sprintf(`SELECT `+frameColumns+`, b.body
		FROM world_frame_body b JOIN world_frame f ON f.id = b.frame`+frameStatement+`
		WHERE b.frame > %d ORDER BY b.frame`, cursor(after))
	err = s.db.stream(ctx, "world_frames", query, func(r pgx.Rows) error {
		var f avatar.FrameRow
		if err := scanFrame(r, &f, &f.Body); err != nil {
			return err
		}
		f.Body = blob(f.Body)
		if size += len(f.Body); size > limit && len(frames) > 0 {
			return errEnough
		}
		frames = append(frames, f)
		if size >= limit {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read frames: %w", err)
	}
	return frames, nil
}

// Frame implements avatar.Store.
func (s *Worlds) Frame(ctx context.Context, sender carnet.PartyID, number uint64) (f avatar.FrameRow, err error) {
	found := false
	err = s.db.read(ctx, `SELECT `+frameColumns+`, b.frame IS NOT NULL, b.body
		FROM world_frame f`+frameStatement+` LEFT JOIN world_frame_body b ON b.frame = f.id
		WHERE f.sender = $1 AND f.number = $2`,
		[]any{string(sender), cursor(number)}, func(r pgx.Rows) error {
			var whole bool
			found = true
			err := scanFrame(r, &f, &whole, &f.Body)
			if whole {
				f.Body = blob(f.Body)
			}
			return err
		})
	if err == nil && !found {
		err = carnet.Errorf(carnet.NotFound, "there is no frame %d of %s", number, sender)
	}
	if err != nil {
		return avatar.FrameRow{}, fmt.Errorf("read frame: %w", err)
	}
	return f, nil
}

// FrameHeaders implements avatar.Store.
func (s *Worlds) FrameHeaders(ctx context.Context, after uint64, limit int) (frames []avatar.FrameRow, err error) {
	err = s.db.read(ctx, `SELECT `+frameColumns+` FROM world_frame f`+frameStatement+` WHERE f.id > $1 ORDER BY f.id LIMIT $2`,
		[]any{cursor(after), max(limit, 0)}, func(r pgx.Rows) error {
			var f avatar.FrameRow
			err := scanFrame(r, &f)
			frames = append(frames, f)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read frame headers: %w", err)
	}
	return frames, nil
}

// Overwrite implements avatar.Store, as far as PostgreSQL can: what was deleted is
// vacuumed. Files of bodies that have ended are overwritten.
func (s *Worlds) Overwrite(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	return s.db.vacuum(ctx, `VACUUM world_stretch, world_stretch_body, world_frame, world_frame_body, world_document`)
}

// record puts documents, and queues statements for the outbox.
func (s *Worlds) record(t *tx, n *worldTotals, b *pgx.Batch, docs []carnet.Document, items []ledger.Item) error {
	if err := s.put(t, docs); err != nil {
		return err
	}
	box := &outbox{last: &n.lastStatement, count: &n.Statements, receipts: &n.Receipts}
	for i := range items {
		box.add(&items[i])
	}
	s.queue(b, box)
	return nil
}

// Put implements avatar.Store.
func (s *Worlds) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.changeTotals(ctx, "put documents", func(t *tx, n *worldTotals, b *pgx.Batch) error {
		return s.record(t, n, b, docs, items)
	})
}

// Totals implements avatar.Store.
func (s *Worlds) Totals(ctx context.Context) (avatar.Totals, error) {
	var n worldTotals
	err := s.db.read(ctx, selectWorldTotals, nil, func(r pgx.Rows) error { return r.Scan(n.columns()...) })
	if err != nil {
		return avatar.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return n.Totals, nil
}
