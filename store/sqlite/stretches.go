package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"
	"carnet/ledger"
)

// Compact implements avatar.Store. A frame that has no body any more, because
// somebody else compacted it, fails the whole with carnet.Conflict.
func (s *Worlds) Compact(ctx context.Context, c avatar.Compaction) error {
	return s.adding(ctx, "compact frames", largeOf(c.Stretches), func(t *tx, n *worldTotals) error {
		for i := range c.Strip {
			strip := &c.Strip[i]
			stripped := t.exec(`DELETE FROM world_frame_body WHERE frame = $1`, cursor(strip.Frame))
			if t.err == nil && stripped == 0 {
				return carnet.Errorf(carnet.Conflict, "frame with id %d is not there or has been compacted", strip.Frame)
			}
			t.exec(`UPDATE world_frame SET leaves = $2 WHERE id = $1`, cursor(strip.Frame), blob(strip.Leaves))
			n.FramesWithBody--
		}
		for i := range c.Stretches {
			if err := addStretch(t, n, &c.Stretches[i]); err != nil {
				return err
			}
		}
		return s.put(t, c.Documents)
	})
}

// largeOf are those of the stretches' bodies that become files.
func largeOf(rows []avatar.StretchRow) (large []bodies.Body) {
	for i := range rows {
		if len(rows[i].Body) >= bodies.Large {
			large = append(large, bodies.Body{Fingerprint: rows[i].Fingerprint, Bytes: rows[i].Body})
		}
	}
	return large
}

// adding is changeTotals for a change with rows that name bodies: these are durable
// before it begins.
func (s *Worlds) adding(ctx context.Context, what string, large []bodies.Body, fn func(*tx, *worldTotals) error) error {
	if len(large) == 0 {
		return s.changeTotals(ctx, what, fn)
	}
	if failed := s.db.Failure(); failed != nil {
		return fmt.Errorf("%s: %w", what, failed)
	}
	if err := s.large.Place(ctx, large); err != nil {
		return fmt.Errorf("%s: %w", what, s.db.fatal(classify(err)))
	}
	err := s.changeTotals(ctx, what, func(t *tx, n *worldTotals) error {
		if err := s.large.Stay(large); err != nil {
			return err
		}
		return fn(t, n)
	})
	if err != nil && !errors.Is(err, ErrDurability) { // else the rows may be there
		s.large.Discard(ctx, large)
	}
	return err
}

func addStretch(t *tx, n *worldTotals, row *avatar.StretchRow) error {
	if err := inRange(row.FirstBatch, row.LastBatch, row.Measurements); err != nil {
		return err
	}
	n.lastStretch++
	n.Stretches++
	n.StretchBytes += uint64(len(row.Body))
	t.exec(`INSERT INTO world_stretch (id, stream, class, first_batch, last_batch, batches, measurements, from_minute, to_minute,
			received, size, stored, fingerprint, origins)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`, n.lastStretch, row.Stream[:], uint8(row.Class),
		row.FirstBatch, row.LastBatch, row.Batches, row.Measurements, row.FromMinute, row.ToMinute,
		row.Received, len(row.Body), row.Stored, row.Fingerprint[:], blob(row.Origins))
	if len(row.Body) < bodies.Large {
		t.exec(`INSERT INTO world_stretch_body (stretch, body) VALUES ($1, $2)`, n.lastStretch, blob(row.Body))
	}
	return nil
}

const selectStretch = `SELECT id, stream, class, first_batch, last_batch, batches, measurements, from_minute, to_minute, received, size, stored, fingerprint, origins FROM world_stretch`

func (s *Worlds) stretches(ctx context.Context, where string, args ...any) (rows []avatar.StretchRow, err error) {
	err = s.db.read(ctx, selectStretch+where, args, func(r *sql.Rows) error {
		var row avatar.StretchRow
		err := r.Scan(&row.ID, fixed(row.Stream[:]), &row.Class, &row.FirstBatch, &row.LastBatch, &row.Batches, &row.Measurements,
			&row.FromMinute, &row.ToMinute, &row.Received, &row.Size, &row.Stored, fixed(row.Fingerprint[:]), &row.Origins)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read stretches: %w", err)
	}
	return rows, nil
}

// Stretches implements avatar.Store.
func (s *Worlds) Stretches(ctx context.Context, stream carnet.StreamID, from, to int64) ([]avatar.StretchRow, error) {
	return s.stretches(ctx, ` WHERE stream = $1 AND to_minute >= $2 AND from_minute <= $3 ORDER BY first_batch, id`, stream[:], from, to)
}

// StretchPage implements avatar.Store.
func (s *Worlds) StretchPage(ctx context.Context, stream carnet.StreamID, from uint64, limit int) ([]avatar.StretchRow, error) {
	return s.stretches(ctx, ` WHERE stream = $1 AND first_batch >= $2 ORDER BY first_batch, id LIMIT $3`, stream[:], cursor(from), max(limit, 0))
}

// StretchStreams implements avatar.Store.
func (s *Worlds) StretchStreams(ctx context.Context, after carnet.StreamID, limit int) (streams []carnet.StreamID, err error) {
	err = s.db.read(ctx, `SELECT DISTINCT stream FROM world_stretch WHERE stream > $1 ORDER BY stream LIMIT $2`, []any{after[:], max(limit, 0)}, func(r *sql.Rows) error {
		var id carnet.StreamID
		err := r.Scan(fixed(id[:]))
		streams = append(streams, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read streams: %w", err)
	}
	return streams, nil
}

// Unstored implements avatar.Store.
func (s *Worlds) Unstored(ctx context.Context, after uint64, limit int) ([]avatar.StretchRow, error) {
	return s.stretches(ctx, ` WHERE stored = 0 AND id > $1 ORDER BY id LIMIT $2`, cursor(after), max(limit, 0))
}

// StretchBody implements avatar.Store.
func (s *Worlds) StretchBody(ctx context.Context, id uint64) (body []byte, err error) {
	var f carnet.Fingerprint
	here, large := false, false
	err = s.db.read(ctx, `SELECT b.stretch IS NOT NULL, b.body, s.size >= $2, s.fingerprint
		FROM world_stretch s LEFT JOIN world_stretch_body b ON b.stretch = s.id WHERE s.id = $1`,
		[]any{cursor(id), bodies.Large}, func(r *sql.Rows) error { return r.Scan(&here, &body, &large, fixed(f[:])) })
	switch {
	case err != nil:
	case here:
		body = blob(body)
	case large:
		body, err = s.large.Read(f)
	default:
		err = carnet.Errorf(carnet.NotFound, "there is no body of stretch %d", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read stretch: %w", err)
	}
	return body, nil
}

// RestoreStretch implements avatar.Store; carnet.NotFound if there is no such
// stretch.
func (s *Worlds) RestoreStretch(ctx context.Context, id uint64, body []byte) error {
	var large []bodies.Body
	if len(body) >= bodies.Large {
		err := s.db.read(ctx, `SELECT fingerprint FROM world_stretch WHERE id = $1`, []any{cursor(id)}, func(r *sql.Rows) error {
			large = []bodies.Body{{Bytes: body}}
			return r.Scan(fixed(large[0].Fingerprint[:]))
		})
		if err != nil {
			return fmt.Errorf("restore stretch: %w", err)
		}
	}
	return s.adding(ctx, "restore stretch", large, func(t *tx, n *worldTotals) error {
		var size uint64
		if !t.row(`SELECT size FROM world_stretch WHERE id = $1`, []any{cursor(id)}, &size) && t.err == nil {
			return carnet.Errorf(carnet.NotFound, "there is no stretch %d", id)
		}
		t.exec(`DELETE FROM world_stretch_body WHERE stretch = $1`, cursor(id))
		if len(large) == 0 {
			t.exec(`INSERT INTO world_stretch_body (stretch, body) VALUES ($1, $2)`, cursor(id), blob(body))
		}
		t.exec(`UPDATE world_stretch SET size = $2 WHERE id = $1`, cursor(id), len(body))
		n.StretchBytes += uint64(len(body)) - size
		return nil
	})
}

// Stored implements avatar.Store.
func (s *Worlds) Stored(ctx context.Context, ids []uint64) error {
	return s.db.change(ctx, "mark stretches stored", func(t *tx) error {
		for _, id := range ids {
			t.exec(`UPDATE world_stretch SET stored = 1 WHERE id = $1 AND stored = 0`, cursor(id))
		}
		return nil
	})
}

// Unstore implements avatar.Store.
func (s *Worlds) Unstore(ctx context.Context, ids []uint64, docs []carnet.Document, items []ledger.Item) error {
	return s.changeTotals(ctx, "mark stretches not stored", func(t *tx, n *worldTotals) error {
		for _, id := range ids {
			t.exec(`UPDATE world_stretch SET stored = 0 WHERE id = $1`, cursor(id))
		}
		return s.record(t, n, docs, items)
	})
}

// Expired implements avatar.Store.
func (s *Worlds) Expired(ctx context.Context, class carnet.Retention, before int64, limit int) ([]avatar.StretchRow, error) {
	return s.stretches(ctx, ` WHERE class = $1 AND received < $2 ORDER BY id LIMIT $3`, uint8(class), before, max(limit, 0))
}

// DropStretches implements avatar.Store.
func (s *Worlds) DropStretches(ctx context.Context, ids []uint64, docs []carnet.Document, items []ledger.Item) error {
	err := s.changeTotals(ctx, "drop stretches", func(t *tx, n *worldTotals) error {
		for _, id := range ids {
			var size uint64
			var f carnet.Fingerprint
			if !t.row(`SELECT size, fingerprint FROM world_stretch WHERE id = $1`, []any{cursor(id)}, &size, fixed(f[:])) && t.err == nil {
				return carnet.Errorf(carnet.Conflict, "stretch %d is not there", id)
			}
			if size >= bodies.Large {
				t.exec(`INSERT INTO world_body_ended (fingerprint) VALUES ($1)`, f[:])
			}
			t.exec(`DELETE FROM world_stretch_body WHERE stretch = $1`, cursor(id))
			t.exec(`DELETE FROM world_stretch WHERE id = $1`, cursor(id))
			n.Stretches--
			n.StretchBytes -= size
		}
		return s.record(t, n, docs, items)
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	return s.db.cut(ctx)
}
