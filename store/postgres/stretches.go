package postgres

import (
	"context"
	"errors"
	"fmt"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"
	"carnet/ledger"

	"github.com/jackc/pgx/v5"
)

// Compact implements avatar.Store. A frame that has no body any more, because
// somebody else compacted it, fails the whole with carnet.Conflict.
func (s *Worlds) Compact(ctx context.Context, c avatar.Compaction) error {
	return s.adding(ctx, "compact frames", largeOf(c.Stretches), func(t *tx, n *worldTotals, b *pgx.Batch) error {
		ids, leaves := make([]int64, len(c.Strip)), make([][]byte, len(c.Strip))
		for i := range c.Strip {
			ids[i], leaves[i] = cursor(c.Strip[i].Frame), blob(c.Strip[i].Leaves)
		}
		stripped := t.exec(`DELETE FROM world_frame_body WHERE frame = ANY ($1)`, ids)
		if t.err == nil && int(stripped) != len(ids) {
			return carnet.Errorf(carnet.Conflict, "%d of %d frames to strip are not there or have been compacted", len(ids)-int(stripped), len(ids))
		}
		t.exec(`UPDATE world_frame f SET leaves = s.leaves FROM unnest($1::bigint[], $2::bytea[]) s (id, leaves) WHERE f.id = s.id`, ids, leaves)
		n.FramesWithBody -= uint64(len(ids))
		if err := addStretches(t, n, c.Stretches); err != nil {
			return err
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
func (s *Worlds) adding(ctx context.Context, what string, large []bodies.Body, fn func(*tx, *worldTotals, *pgx.Batch) error) error {
	if len(large) == 0 {
		return s.changeTotals(ctx, what, fn)
	}
	if failed := s.db.Failure(); failed != nil {
		return fmt.Errorf("%s: %w", what, failed)
	}
	if err := s.large.Place(ctx, large); err != nil {
		return fmt.Errorf("%s: %w", what, s.db.fatal(classify(err)))
	}
	err := s.changeTotals(ctx, what, func(t *tx, n *worldTotals, b *pgx.Batch) error {
		if err := s.large.Stay(large); err != nil {
			return err
		}
		return fn(t, n, b)
	})
	if err != nil && !errors.Is(err, ErrDurability) { // else the rows may be there
		s.large.Discard(ctx, large)
	}
	return err
}

func addStretches(t *tx, n *worldTotals, rows []avatar.StretchRow) error {
	first := n.lastStretch + 1
	for i := range rows {
		if err := inRange(rows[i].FirstBatch, rows[i].LastBatch, rows[i].Measurements); err != nil {
			return err
		}
		n.lastStretch++
		n.Stretches++
		n.StretchBytes += uint64(len(rows[i].Body))
	}
	t.copy("world_stretch", `id stream class first_batch last_batch batches measurements from_minute to_minute received size stored fingerprint origins`,
		len(rows), func(i int) ([]any, error) {
			row := &rows[i]
			return []any{first + uint64(i), row.Stream[:], int16(row.Class), row.FirstBatch, row.LastBatch, int64(row.Batches), row.Measurements,
				row.FromMinute, row.ToMinute, row.Received, len(row.Body), row.Stored, row.Fingerprint[:], blob(row.Origins)}, nil
		})
	var small []int
	for i := range rows {
		if len(rows[i].Body) < bodies.Large {
			small = append(small, i)
		}
	}
	t.copy("world_stretch_body", `stretch body`, len(small), func(i int) ([]any, error) {
		return []any{first + uint64(small[i]), blob(rows[small[i]].Body)}, nil
	})
	return nil
}

const selectStretch = `SELECT id, stream, class, first_batch, last_batch, batches, measurements, from_minute, to_minute, received, size, stored, fingerprint, origins FROM world_stretch`

func (s *Worlds) stretches(ctx context.Context, where string, args ...any) (rows []avatar.StretchRow, err error) {
	err = s.db.read(ctx, selectStretch+where, args, func(r pgx.Rows) error {
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
	err = s.db.read(ctx, `SELECT DISTINCT stream FROM world_stretch WHERE stream > $1 ORDER BY stream LIMIT $2`, []any{after[:], max(limit, 0)}, func(r pgx.Rows) error {
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
	return s.stretches(ctx, ` WHERE NOT stored AND id > $1 ORDER BY id LIMIT $2`, cursor(after), max(limit, 0))
}

// StretchBody implements avatar.Store.
func (s *Worlds) StretchBody(ctx context.Context, id uint64) (body []byte, err error) {
	var f carnet.Fingerprint
	here, large := false, false
	err = s.db.read(ctx, `SELECT b.stretch IS NOT NULL, b.body, s.size >= $2, s.fingerprint
		FROM world_stretch s LEFT JOIN world_stretch_body b ON b.stretch = s.id WHERE s.id = $1`,
		[]any{cursor(id), int64(bodies.Large)}, func(r pgx.Rows) error { return r.Scan(&here, &body, &large, fixed(f[:])) })
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
		err := s.db.read(ctx, `SELECT fingerprint FROM world_stretch WHERE id = $1`, []any{cursor(id)}, func(r pgx.Rows) error {
			large = []bodies.Body{{Bytes: body}}
			return r.Scan(fixed(large[0].Fingerprint[:]))
		})
		if err != nil {
			return fmt.Errorf("restore stretch: %w", err)
		}
	}
	return s.adding(ctx, "restore stretch", large, func(t *tx, n *worldTotals, b *pgx.Batch) error {
		var size uint64
		if !t.row(`SELECT size FROM world_stretch WHERE id = $1`, []any{cursor(id)}, &size) && t.err == nil {
			return carnet.Errorf(carnet.NotFound, "there is no stretch %d", id)
		}
		b.Queue(`DELETE FROM world_stretch_body WHERE stretch = $1`, cursor(id))
		if len(large) == 0 {
			b.Queue(`INSERT INTO world_stretch_body (stretch, body) VALUES ($1, $2)`, cursor(id), blob(body))
		}
		b.Queue(`UPDATE world_stretch SET size = $2 WHERE id = $1`, cursor(id), len(body))
		n.StretchBytes += uint64(len(body)) - size
		return nil
	})
}

// Stored implements avatar.Store.
func (s *Worlds) Stored(ctx context.Context, ids []uint64) error {
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = cursor(id)
	}
	return s.db.change(ctx, "mark stretches stored", func(t *tx) error {
		t.exec(`SELECT FROM world_totals FOR UPDATE`)
		t.exec(`UPDATE world_stretch SET stored = true WHERE id = ANY ($1) AND NOT stored`, list)
		return nil
	})
}

// Unstore implements avatar.Store.
func (s *Worlds) Unstore(ctx context.Context, ids []uint64, docs []carnet.Document, items []ledger.Item) error {
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = cursor(id)
	}
	return s.changeTotals(ctx, "mark stretches not stored", func(t *tx, n *worldTotals, b *pgx.Batch) error {
		t.exec(`UPDATE world_stretch SET stored = false WHERE id = ANY ($1)`, list)
		return s.record(t, n, b, docs, items)
	})
}

// Expired implements avatar.Store.
func (s *Worlds) Expired(ctx context.Context, class carnet.Retention, before int64, limit int) ([]avatar.StretchRow, error) {
	return s.stretches(ctx, ` WHERE class = $1 AND received < $2 ORDER BY id LIMIT $3`, int16(class), before, max(limit, 0))
}

// DropStretches implements avatar.Store. PostgreSQL doesn't overwrite: what was
// deleted is vacuumed, which frees its space for what comes next, and lies there
// until then.
func (s *Worlds) DropStretches(ctx context.Context, ids []uint64, docs []carnet.Document, items []ledger.Item) error {
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = cursor(id)
	}
	err := s.changeTotals(ctx, "drop stretches", func(t *tx, n *worldTotals, b *pgx.Batch) error {
		gone := 0
		t.each(`WITH old AS (DELETE FROM world_stretch WHERE id = ANY ($1) RETURNING id, size, fingerprint),
			bodies AS (DELETE FROM world_stretch_body WHERE stretch IN (SELECT id FROM old)),
			files AS (INSERT INTO world_body_ended (fingerprint) SELECT fingerprint FROM old WHERE size >= 131072)
			SELECT size FROM old`, []any{list}, func(r pgx.Rows) error {
			var size uint64
			err := r.Scan(&size)
			gone++
			n.Stretches--
			n.StretchBytes -= size
			return err
		})
		if t.err == nil && gone != len(ids) {
			return carnet.Errorf(carnet.Conflict, "%d of %d stretches to drop are not there", len(ids)-gone, len(ids))
		}
		return s.record(t, n, b, docs, items)
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	return s.db.vacuum(ctx, `VACUUM world_stretch, world_stretch_body`)
}
