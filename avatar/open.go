package avatar

import (
	"context"
	"encoding/binary"
	"strings"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
	"carnet/senml"
)

// opening is the opener's memory, used for one batch after the other.
type opening struct {
	body         []byte
	decoder      *senml.Decoder
	measurements []carnet.Measurement
}

// openLoop opens the batches of stored frames in the order of their commits,
// folds them into states and publishes them.
func (a *Agent) openLoop(ctx context.Context) error {
	o := opening{decoder: newColumnsDecoder()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case groups := <-a.opened:
			for _, g := range groups {
				for i := range g.rows {
					a.foldFrame(ctx, &o, &g.rows[i])
					g.arrivals[i].Release()
				}
			}
		}
	}
}

func newColumnsDecoder() *senml.Decoder {
	return senml.NewDecoder(senml.Limits{Bytes: seal.MaxBatch, Records: 1 << 20})
}

// eachBatch calls do for each batch of a body, with its place in it.
func eachBatch(body []byte, do func(leaf, from, to int) error) error {
	at := 0
	for leaf := 0; at < len(body); leaf++ {
		if len(body)-at < 4 {
			return carnet.Errorf(carnet.Tampered, "a stored body ends in the middle of a batch")
		}
		n := int(binary.BigEndian.Uint32(body[at:]))
		if at += 4; n > len(body)-at {
			return carnet.Errorf(carnet.Tampered, "a stored body ends in the middle of a batch")
		}
		if err := do(leaf, at, at+n); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// foldFrame opens a frame's batches. A batch that can't be opened or must not be
// here is recorded and left alone: the frame is stored and acknowledged, so its
// sender has proof of what it sent.
func (a *Agent) foldFrame(ctx context.Context, o *opening, row *FrameRow) {
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	a.mu.RLock()
	fold := row.ID > a.folded
	a.mu.RUnlock()
	err := eachBatch(row.Body, func(leaf, from, to int) error {
		ref := batchRef{frame: row.ID, from: uint32(from), to: uint32(to), leaf: uint32(leaf)}
		err := a.foldBatch(o, row, ref, row.Body[from:to], fold)
		if err != nil && fold {
			a.defect(ctx, row, carnet.FingerprintOf(row.Body[from:to]), err)
		}
		return nil
	})
	if err != nil {
		a.log.Error("a stored frame is damaged", "sender", row.Sender, "frame", row.Number, "err", err)
	}
	a.mu.Lock()
	a.folded = max(a.folded, row.ID)
	a.tail.frames = append(a.tail.frames, tailFrame{row.ID, row.Received, len(row.Body), int(row.Batches)})
	a.tail.bytes += len(row.Body)
	full := a.tail.bytes > tailBytes
	a.mu.Unlock()
	if full {
		a.compactSoon()
	}
}

func (a *Agent) foldBatch(o *opening, row *FrameRow, ref batchRef, batch []byte, fold bool) error {
	ref.class, ref.fromMinute, ref.toMinute = carnet.Keep, everFrom, everTo
	h, body, err := a.opener.Open(o.body[:0], batch)
	o.body = body
	ref.number = h.Number
	s := a.stream(h.Stream)
	if err == nil && (s == nil || s.sender != row.Sender) {
		err = carnet.Errorf(carnet.Forbidden, "%s has no stream %s here", row.Sender, h.Stream)
	}
	if err != nil {
		a.note(h.Stream, ref)
		return err
	}
	b, err := seal.ParseBody(body)
	if err == nil {
		o.measurements, err = o.decoder.Decode(o.measurements[:0], senml.Columns, b.Content, row.Received)
	}
	if err == nil {
		err = a.checkBody(s, h, b, len(o.measurements), fold)
	}
	if err != nil {
		a.note(h.Stream, ref)
		return err
	}
	ref.class, ref.count, ref.first = b.Retention, b.Count, b.First
	ref.fromMinute, ref.toMinute = minutes(o.measurements)
	a.note(h.Stream, ref)
	if fold {
		a.mu.Lock()
		s.nextBatch, s.nextFirst = h.Number+1, b.First+uint64(b.Count)
		s.batches++
		s.measurements += uint64(b.Count)
		a.mu.Unlock()
		s.avatar.fold(s, b.First, o.measurements)
	}
	return nil
}

// checkBody refuses what must not be here whoever sent it, and numbers that
// were used before.
func (a *Agent) checkBody(s *stream, h seal.Header, b seal.Body, n int, fold bool) error {
	if over := b.Label.Exceeds(a.clearance); over != "" {
		return carnet.Errorf(carnet.Forbidden, "batch %d of stream %s: %s", h.Number, h.Stream, over)
	}
	if int(b.Count) != n {
		return carnet.Errorf(carnet.Tampered, "batch %d of stream %s holds %d measurements and says %d", h.Number, h.Stream, n, b.Count)
	}
	if fold && (h.Number < s.nextBatch || b.First < s.nextFirst) {
		return carnet.Errorf(carnet.Conflict, "batch %d of stream %s comes twice: the next is %d, its measurements begin at %d, the next at %d",
			h.Number, h.Stream, s.nextBatch, b.First, s.nextFirst)
	}
	return nil
}

// fold takes measurements into the avatar's state and gives them to who is
// subscribed.
func (v *Avatar) fold(s *stream, first uint64, ms []carnet.Measurement) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range ms {
		if last, ok := v.latest[ms[i].Name]; !ok || ms[i].Time >= last.Time {
			v.latest[ms[i].Name] = ms[i]
		}
	}
	if len(v.subscribers) == 0 {
		return
	}
	e := Event{place: s.place, next: first + uint64(len(ms)), Measurements: append([]carnet.Measurement(nil), ms...)}
	for sub := range v.subscribers {
		sub.offer(e)
	}
}

// defect records a batch that was stored and can't be used.
func (a *Agent) defect(ctx context.Context, row *FrameRow, f carnet.Fingerprint, why error) {
	a.log.Error("a batch is refused", "sender", row.Sender, "frame", row.Number, "batch", f, "err", why)
	a.mu.Lock()
	a.defects++
	a.mu.Unlock()
	reason := why.Error()
	item, err := a.state(ledger.Statement{
		Kind: ledger.RefusedBatch, Time: a.now().UnixNano(), Peer: row.Sender, Frame: row.Number, Object: f,
		Reason: strings.ToValidUTF8(reason[:min(len(reason), ledger.MaxReason)], ""),
	})
	if err == nil {
		err = a.store.Put(ctx, nil, []ledger.Item{item})
	}
	if err != nil {
		a.log.Error("the refusal of a batch could not be recorded", "err", err)
	}
}

const (
	everFrom = -1 << 62
	everTo   = 1 << 62
)

const nanosPerMinute = int64(60e9)

func minuteOf(t int64) int64 {
	m := t / nanosPerMinute
	if t%nanosPerMinute < 0 {
		m--
	}
	return m
}

// minutes returns the smallest and largest measured minute.
func minutes(ms []carnet.Measurement) (from, to int64) {
	if len(ms) == 0 {
		return everFrom, everTo
	}
	first, last := ms[0].Time, ms[0].Time
	for i := range ms {
		first, last = min(first, ms[i].Time), max(last, ms[i].Time)
	}
	return minuteOf(first), minuteOf(last)
}
