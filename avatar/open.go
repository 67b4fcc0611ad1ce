package avatar

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/policy"
	"carnet/seal"
	"carnet/senml"
)

// work is what the committer hands to the opener: frames just stored, or a mark
// that is closed when everything handed over before it is folded.
type work struct {
	groups []*arrived
	mark   chan struct{}
}

// maxOpened is how many commits wait to be opened.
const maxOpened = 4

// opening is an opener's memory, used for one frame after the other.
type opening struct {
	body         []byte
	decoder      *senml.Decoder
	measurements []carnet.Measurement
	names        []string // single's

	// Of the frame that is being folded.
	noted   []noted
	events  []published
	refused []refusal
	count   int // measurements so far
}

// How many measurements a batch and a frame may hold. Our senders put at most 10,000
// into a batch and 512 batches into a frame. A byte can hold eight: without a bound
// a few kilobytes of a sender's would keep all others waiting.
const (
	maxOfBatch = 1 << 14
	maxOfFrame = 1 << 23
)

// refusal is a batch that must not be here.
type refusal struct {
	at          batchAt
	fingerprint carnet.Fingerprint
	why         error
}

// noted is a batch to be put into the tail's index.
type noted struct {
	stream *stream
	ref    batchRef
}

// published is an event for who is subscribed to an avatar.
type published struct {
	avatar *Avatar
	event  Event
}

func newOpening() opening {
	return opening{decoder: senml.NewDecoder(senml.Limits{Bytes: seal.MaxBatch, Records: maxOfBatch})}
}

// openLoop opens the batches of stored frames in the order of their commits,
// folds them into states and publishes them.
func (a *Agent) openLoop(ctx context.Context) error {
	o := newOpening()
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-a.opened:
			if err := a.openWork(ctx, &o, w); ctx.Err() != nil {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

func (a *Agent) openWork(ctx context.Context, o *opening, w work) error {
	for _, g := range w.groups {
		for i := range g.rows {
			if err := a.foldFrame(ctx, o, &g.rows[i], true); err != nil || ctx.Err() != nil {
				return err
			}
			g.arrivals[i].Release()
		}
		a.turns.end(g.sender, g.bytes)
	}
	if w.mark != nil {
		close(w.mark)
	}
	return nil
}

// settled waits until every frame that was acknowledged is folded.
func (a *Agent) settled(ctx context.Context) error {
	mark := make(chan struct{})
	select {
	case a.opened <- work{mark: mark}:
	case <-a.stopped:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-mark:
		return nil
	case <-a.stopped:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
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

// foldFrame opens a frame's batches, notes where they are, folds them unless the
// saved states hold them, and then publishes them. A batch that must not be here
// is recorded and kept apart: the frame is stored and acknowledged, so its sender
// has proof of what it sent. Of a frame that isn't sound (its body on disk isn't
// what was received) what opens is folded and nobody is blamed for the rest.
//
// The only errors are of the key table: what can't be read for that is not the
// sender's fault, and is folded after a restart.
func (a *Agent) foldFrame(ctx context.Context, o *opening, row *FrameRow, sound bool) error {
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	o.noted, o.events, o.refused, o.count = o.noted[:0], o.events[:0], o.refused[:0], 0
	fold := row.ID > a.folded // written under foldMu and mu
	err := eachBatch(row.Body, func(leaf, from, to int) error {
		ref := batchRef{batchAt: batchAt{row.ID, uint32(leaf)}, from: uint32(from), to: uint32(to)}
		return a.foldBatch(ctx, o, row, ref, fold, sound)
	})
	if err != nil && sound {
		return err
	}
	if len(o.refused) > 0 {
		a.refuse(row, o.refused)
		clear(o.refused)
	}
	a.mu.Lock()
	for i := range o.noted {
		n := &o.noted[i]
		a.tail.add(n.stream, n.ref)
	}
	a.tail.frames = append(a.tail.frames, tailFrame{row.ID, row.Received, len(row.Body), !sound})
	a.tail.bytes += len(row.Body)
	a.folded = max(a.folded, row.ID)
	full := a.tail.bytes > tailBytes
	a.mu.Unlock()
	if full {
		a.compactSoon()
	}
	// Who replays from now on finds the frame in the tail; who has begun before
	// is given the events.
	for i := range o.events {
		o.events[i].avatar.publish(o.events[i].event)
	}
	clear(o.events)
	return nil
}

// foldBatch opens one batch of a frame and folds it. What is folded, and nothing
// else, is noted under its stream.
func (a *Agent) foldBatch(ctx context.Context, o *opening, row *FrameRow, ref batchRef, fold, sound bool) error {
	if !fold && a.wasRefused(ref.batchAt) {
		o.noted = append(o.noted, noted{&a.tail.outcast, refused(ref)})
		return nil
	}
	batch := row.Body[ref.from:ref.to]
	if fold && o.count > maxOfFrame {
		o.noted = append(o.noted, noted{&a.tail.outcast, refused(ref)})
		o.refused = append(o.refused, refusal{ref.batchAt, carnet.FingerprintOf(batch),
			carnet.Errorf(carnet.TooLarge, "the frame's batches before this one hold %d measurements, more than %d", o.count, maxOfFrame)})
		return nil
	}
	h, b, err := a.open(ctx, o, batch, row.Received)
	o.count += len(o.measurements)
	if err != nil && carnet.CodeOf(err) == "" {
		return err
	}
	s := a.stream(h.Stream)
	if s != nil && s.gone { // who sent it hasn't been told yet where the avatar is
		return nil
	}
	if err == nil {
		err = a.check(s, row.Sender, h, b, len(o.measurements), fold)
	}
	if err == nil && fold {
		err = o.single()
	}
	ref.number, ref.first, ref.count, ref.class, ref.epoch = h.Number, b.First, b.Count, b.Retention, h.Epoch
	switch {
	case err == nil:
		ref.fromMinute, ref.toMinute = minutes(o.measurements)
		o.noted = append(o.noted, noted{s, ref})
		if fold {
			a.fold(o, s, batch, h, b, row.Received)
		}
	case !sound:
		a.log.Error("a batch of a damaged frame can't be read", "sender", row.Sender, "frame", row.Number, "batch", ref.leaf, "err", err)
	case !fold && s != nil:
		// It was folded, and its key has been destroyed since: who reads passes over it.
		ref.class, ref.fromMinute, ref.toMinute = carnet.Keep, everFrom, everTo
		o.noted = append(o.noted, noted{s, ref})
	default:
		o.noted = append(o.noted, noted{&a.tail.outcast, refused(ref)})
		o.refused = append(o.refused, refusal{ref.batchAt, carnet.FingerprintOf(batch), err})
	}
	return nil
}

// single refuses a batch in which a name stands for several: a property is of one unit
// and kind, and who follows it asks what it is once for each batch.
func (o *opening) single() error {
	ms := o.measurements
	o.names = o.names[:0]
	for i := range ms {
		m := &ms[i]
		if i > 0 && m.Name == ms[i-1].Name && m.Unit == ms[i-1].Unit && m.Value.Kind == ms[i-1].Value.Kind {
			continue
		}
		o.names = append(o.names, m.Name)
	}
	if len(o.names) < 2 {
		return nil
	}
	slices.Sort(o.names)
	for i := range o.names[1:] {
		if o.names[i] == o.names[i+1] {
			return carnet.Errorf(carnet.Malformed, "the batch has %s in several units or kinds", o.names[i])
		}
	}
	return nil
}

// fold takes an opened batch into its avatar's state, and keeps what it says for
// who is subscribed.
func (a *Agent) fold(o *opening, s *stream, batch []byte, h seal.Header, b seal.Body, received int64) {
	v := s.avatar
	class := a.classOf(policy.Class{Label: b.Label, Retention: b.Retention})
	v.mu.Lock()
	s.nextBatch, s.nextFirst = h.Number+1, b.First+uint64(b.Count)
	s.batches++
	s.measurements += uint64(b.Count)
	v.take(o.measurements, latest{ends: valueEnds(b.Retention, received), epoch: h.Epoch, slot: h.Slot, place: s.place, class: class}, received)
	subscribed, followed := v.subscribers != nil, v.followed()
	v.mu.Unlock()
	a.changed(v)
	if subscribed && len(o.measurements) > 0 {
		e := Event{Class: policy.Class{Label: b.Label, Retention: b.Retention}, Inward: a.inward(s), place: int(s.place), next: b.First + uint64(b.Count), Measurements: append([]carnet.Measurement(nil), o.measurements...)}
		if followed {
			e.Batch = newBatch(s, batch, h, b)
		}
		o.events = append(o.events, published{v, e})
	}
}

// open opens a batch into o. An error without a code is the key table's.
func (a *Agent) open(ctx context.Context, o *opening, batch []byte, received int64) (h seal.Header, b seal.Body, err error) {
	o.measurements = o.measurements[:0]
	h, o.body, err = a.opener.Open(o.body[:0], batch)
	for carnet.CodeOf(err) == carnet.NotFound {
		// Is there no key, or could it only not be read?
		switch _, failed := a.epochs.key(ctx, h); carnet.CodeOf(failed) {
		case carnet.NotFound:
			return h, b, a.noKey(ctx, h, err)
		case carnet.Unavailable:
			a.log.Warn("the key table can't be read; it is tried again", "err", failed)
			select {
			case <-time.After(keyPause):
			case <-ctx.Done():
				return h, b, ctx.Err()
			}
		default:
			if failed != nil {
				return h, b, fmt.Errorf("read key of stream %s: %v", h.Stream, failed) // without its code
			}
		}
		h, o.body, err = a.opener.Open(o.body[:0], batch)
	}
	if err != nil {
		return h, b, err
	}
	b, err = o.read(received)
	return h, b, err
}

// read reads the opened body of a batch.
func (o *opening) read(received int64) (b seal.Body, err error) {
	if b, err = seal.ParseBody(o.body); err != nil {
		return b, err
	}
	o.measurements, err = o.decoder.Decode(o.measurements[:0], senml.Columns, b.Content, received)
	return b, err
}

// keyPause is how long a key table that is away is left alone.
const keyPause = 200 * time.Millisecond

// maxNumber bounds the numbers of batches and measurements: no stream comes near
// it, and stores take numbers below 2^63.
const maxNumber = 1 << 60

// check refuses what must not be here whoever sent it, and numbers that were
// used before.
func (a *Agent) check(s *stream, sender carnet.PartyID, h seal.Header, b seal.Body, n int, fold bool) error {
	switch {
	case s == nil || s.sender != sender:
		return carnet.Errorf(carnet.Forbidden, "%s has no stream %s here", sender, h.Stream)
	case h.Number >= maxNumber || b.First >= maxNumber:
		return carnet.Errorf(carnet.TooLarge, "batch %d of stream %s begins at measurement %d: numbers end before %d", h.Number, h.Stream, b.First, uint64(maxNumber))
	case int(b.Count) != n:
		return carnet.Errorf(carnet.Tampered, "batch %d of stream %s holds %d measurements and says %d", h.Number, h.Stream, n, b.Count)
	case b.Count == 0:
		return carnet.Errorf(carnet.Malformed, "batch %d of stream %s holds no measurement", h.Number, h.Stream)
	case fold && (h.Number < s.nextBatch || b.First < s.nextFirst):
		return carnet.Errorf(carnet.Conflict, "batch %d of stream %s comes twice: the next is %d, its measurements begin at %d, the next at %d",
			h.Number, h.Stream, s.nextBatch, b.First, s.nextFirst)
	}
	if a.lapsed(s, h.Number) {
		return carnet.Errorf(carnet.Forbidden, "no share of stream %s is in force for batch %d", h.Stream, h.Number)
	}
	if over := b.Label.Exceeds(a.clearance); over != "" {
		return carnet.Errorf(carnet.Forbidden, "batch %d of stream %s: %s", h.Number, h.Stream, over)
	}
	if fold {
		return a.bring(sender, policy.Class{Label: b.Label, Retention: b.Retention})
	}
	return nil
}

// refuse records the batches of a frame that were stored and must not be used,
// in one statement that says why of the first: a sender that sends nothing else
// doesn't get more written than its frames. The statement becomes durable with
// the states that are as of its frame, so that a frame that is folded again after
// a restart isn't stated twice.
func (a *Agent) refuse(row *FrameRow, all []refusal) {
	a.mu.Lock()
	a.defects += uint64(len(all))
	for i := range all {
		a.tail.refused[all[i].at] = struct{}{}
	}
	many := len(a.tail.refused) >= maxRefused
	a.mu.Unlock()
	if many {
		a.compactSoon()
	}
	first := &all[0]
	a.log.Error("batches are refused", "sender", row.Sender, "frame", row.Number, "batches", len(all), "of", row.Batches, "first", first.fingerprint, "why", first.why)
	more := ""
	if len(all) > 1 {
		more = fmt.Sprintf("; %d more of the frame are refused", len(all)-1)
	}
	reason := first.why.Error()
	reason = carnet.Shorten(reason, ledger.MaxReason-len(more)) + more
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.RefusedBatch, Time: a.now().UnixNano(), Peer: row.Sender, Frame: row.Number, Object: first.fingerprint, Reason: reason,
	})
	if err != nil {
		a.log.Error("a refusal could not be stated", "err", err)
		return
	}
	a.pending.refusals = append(a.pending.refusals, item)
}

// maxRefused is how many refused batches wait to be compacted before that is done
// at once: they are saved with each state until then.
const maxRefused = 4096

// wasRefused reports whether a batch is known to be refused.
func (a *Agent) wasRefused(at batchAt) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, ok := a.tail.refused[at]
	return ok
}

// refused is a batch's place among the refused ones. They are numbered by where
// they came from: what they say of themselves is nothing to rely on. They are
// kept for a month, to look into.
func refused(ref batchRef) batchRef {
	ref.number, ref.first, ref.count, ref.class = ref.frame, 0, 0, carnet.Month
	ref.fromMinute, ref.toMinute = everFrom, everTo
	return ref
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
