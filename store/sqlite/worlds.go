package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"
	"carnet/ledger"
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

func (n *worldTotals) save(t *tx) {
	t.exec(`UPDATE world_totals SET frames = $1, bodies = $2, batches = $3, stretches = $4, stretch_bytes = $5,
		statements = $6, receipts = $7, last_frame = $8, last_stretch = $9, last_statement = $10`,
		n.Frames, n.FramesWithBody, n.Batches, n.Stretches, n.StretchBytes, n.Statements, n.Receipts, n.lastFrame, n.lastStretch, n.lastStatement)
}

// changeTotals runs fn as one transaction with the totals read before and
// written after it.
func (s *Worlds) changeTotals(ctx context.Context, what string, fn func(*tx, *worldTotals) error) error {
	return s.db.change(ctx, what, func(t *tx) error {
		var n worldTotals
		t.row(selectWorldTotals, nil, n.columns()...)
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

// state puts a statement into the outbox and returns its id.
func (s *Worlds) state(t *tx, n *worldTotals, item *ledger.Item) uint64 {
	n.lastStatement++
	n.Statements++
	if len(item.Receipt) > 0 {
		n.Receipts++
	}
	s.add(t, n.lastStatement, item)
	return n.lastStatement
}

const selectLink = `SELECT sender, nonce, incarnation, number, hash, covers FROM world_link`

func linkColumns(row *avatar.LinkRow) []any {
	return []any{&row.Sender, fixed(row.Nonce[:]), &row.Incarnation, &row.Number, fixed(row.Hash[:]), fixed(row.Covers[:])}
}

func saveLink(t *tx, row *avatar.LinkRow) {
	t.exec(`INSERT INTO world_link (sender, nonce, incarnation, number, hash, covers) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (sender) DO UPDATE SET nonce = $2, incarnation = $3, number = $4, hash = $5, covers = $6`,
		string(row.Sender), row.Nonce[:], row.Incarnation, row.Number, row.Hash[:], row.Covers[:])
}

// Register implements avatar.Store.
func (s *Worlds) Register(ctx context.Context, sender carnet.PartyID, nonce [16]byte, above uint64) (row avatar.LinkRow, err error) {
	err = s.db.change(ctx, "register sender", func(t *tx) error {
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
		saveLink(t, &row)
		return nil
	})
	if err != nil {
		return avatar.LinkRow{}, err
	}
	return row, nil
}

// Links implements avatar.Store.
func (s *Worlds) Links(ctx context.Context) (rows []avatar.LinkRow, err error) {
	err = s.db.read(ctx, selectLink+` ORDER BY sender`, nil, func(r *sql.Rows) error {
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
	first := uint64(0)
	err := s.changeTotals(ctx, "append frames", func(t *tx, n *worldTotals) error {
		first = n.lastFrame + 1
		links := make(map[carnet.PartyID]*avatar.LinkRow)
		for i := range frames {
			f := &frames[i]
			link := links[f.Sender]
			if link == nil {
				link = &avatar.LinkRow{}
				t.row(selectLink+` WHERE sender = $1`, []any{string(f.Sender)}, linkColumns(link)...)
				links[f.Sender] = link
			}
			if t.err != nil {
				return t.err
			}
			if err := follow(link, f); err != nil {
				return err
			}
			s.addFrame(t, n, f)
		}
		for _, link := range links {
			saveLink(t, link)
		}
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

// follow moves a link to its next frame, or says why that isn't the next.
func follow(link *avatar.LinkRow, f *avatar.FrameRow) error {
	switch {
	case link.Sender == "":
		return carnet.Errorf(carnet.Conflict, "%s has not registered", f.Sender)
	case f.Incarnation != link.Incarnation:
		return carnet.Errorf(carnet.Conflict, "the incarnation of %s is %d, not %d", f.Sender, link.Incarnation, f.Incarnation)
	case f.Number != link.Number+1 || f.Parent != link.Hash:
		return carnet.Errorf(carnet.Conflict, "frame %d of %s doesn't follow frame %d, the last stored", f.Number, f.Sender, link.Number)
	}
	link.Number, link.Hash, link.Covers = f.Number, f.Hash, f.Covers
	return nil
}

func (s *Worlds) addFrame(t *tx, n *worldTotals, f *avatar.FrameRow) {
	var statement any // NULL: none
	if f.Statement.Entry != (ledger.Entry{}) {
		statement = s.state(t, n, &f.Statement)
	}
	n.lastFrame++
	n.Frames++
	n.Batches += uint64(f.Batches)
	t.exec(`INSERT INTO world_frame (id, sender, incarnation, number, parent, hash, covers, received, batches, statement, header, leaves)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, n.lastFrame, string(f.Sender), f.Incarnation, f.Number,
		f.Parent[:], f.Hash[:], f.Covers[:], f.Received, f.Batches, statement, blob(f.Header), blob(f.Leaves))
	if f.Body != nil {
		t.exec(`INSERT INTO world_frame_body (frame, body) VALUES ($1, $2)`, n.lastFrame, f.Body)
		n.FramesWithBody++
	}
}

// frameColumns names the columns of world_frame f, which scanFrame reads, with
// those of its statement; the body comes last.
const (
	frameColumns   = `f.id, f.sender, f.incarnation, f.number, f.parent, f.hash, f.covers, f.received, f.batches, f.header, f.leaves, s.id, s.entry, s.statement, s.salt, s.receipt`
	frameStatement = ` LEFT JOIN world_statement s ON s.id = f.statement`
)

func scanFrame(r *sql.Rows, f *avatar.FrameRow, more ...any) error {
	var statement sql.Null[uint64]
	var entry []byte
	err := r.Scan(append([]any{&f.ID, &f.Sender, &f.Incarnation, &f.Number, fixed(f.Parent[:]), fixed(f.Hash[:]), fixed(f.Covers[:]),
		&f.Received, &f.Batches, &f.Header, &f.Leaves,
		&statement, &entry, &f.Statement.Statement, &f.Statement.Salt, &f.Statement.Receipt}, more...)...)
	f.StatementID, f.Statement.ID = statement.V, statement.V
	copy(f.Statement.Entry[:], entry)
	return err
}

// Frames implements avatar.Store.
func (s *Worlds) Frames(ctx context.Context, after uint64, limit int) (frames []avatar.FrameRow, err error) {
	size := 0
	err = s.db.read(ctx, `SELECT `+frameColumns+`, b.body
		FROM world_frame_body b JOIN world_frame f ON f.id = b.frame`+frameStatement+`
		WHERE b.frame > $1 ORDER BY b.frame`,
		[]any{cursor(after)}, func(r *sql.Rows) error {
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
		[]any{string(sender), cursor(number)}, func(r *sql.Rows) error {
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
		[]any{cursor(after), max(limit, 0)}, func(r *sql.Rows) error {
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

// Overwrite implements avatar.Store: what was deleted is zeros by now, in the log or in
// the file, and the log is emptied into it; and files of bodies that have ended are
// overwritten.
func (s *Worlds) Overwrite(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	return s.db.scrub(ctx)
}

// record puts documents, and statements into the outbox.
func (s *Worlds) record(t *tx, n *worldTotals, docs []carnet.Document, items []ledger.Item) error {
	if err := s.put(t, docs); err != nil {
		return err
	}
	for i := range items {
		s.state(t, n, &items[i])
	}
	return nil
}

// Put implements avatar.Store.
func (s *Worlds) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.changeTotals(ctx, "put documents", func(t *tx, n *worldTotals) error { return s.record(t, n, docs, items) })
}

// Totals implements avatar.Store.
func (s *Worlds) Totals(ctx context.Context) (avatar.Totals, error) {
	var n worldTotals
	err := s.db.read(ctx, selectWorldTotals, nil, func(r *sql.Rows) error { return r.Scan(n.columns()...) })
	if err != nil {
		return avatar.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return n.Totals, nil
}
