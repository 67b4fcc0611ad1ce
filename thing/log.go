package thing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"carnet"
	"carnet/senml"
)

// A log row's body is its messages one after the other:
//
//	thing number, day, length (unsigned LEB128 each), sealed columns
//
// The columns (docs/design/senml.md) are sealed under the thing's key of the
// UTC day of receipt, with the thing's number and the day as associated data.
// The row's index is clear: for each thing and 10 minutes of measured time that
// the row holds something of, once each:
//
//	thing number (unsigned LEB128), bucket (signed LEB128)

func appendEntryHead(dst []byte, thing, day uint32, n int) []byte {
	dst = binary.AppendUvarint(dst, uint64(thing))
	dst = binary.AppendUvarint(dst, uint64(day))
	return binary.AppendUvarint(dst, uint64(n))
}

func restAAD(dst []byte, thing, day uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, thing), day)
}

// sealMessage appends one message's part of a log row to dst.
func (a *Agent) sealMessage(dst []byte, t *Thing, now int64, columns []byte) ([]byte, error) {
	day := dayOf(now)
	key, err := a.dayKey(t, day)
	if err != nil {
		return dst, err
	}
	var aad [8]byte
	dst = appendEntryHead(dst, t.number, day, key.SealedLen(len(columns)))
	return key.Seal(dst, restAAD(aad[:0], t.number, day), columns), nil
}

// logDecoder reads what the log holds: columns, which may be larger than the
// packs that they came in.
func logDecoder() *senml.Decoder { return senml.NewDecoder(senml.Limits{Bytes: maxGroupBytes}) }

// Message is one message of the log, opened.
type Message struct {
	Position     uint64
	Thing        carnet.ThingID
	Received     int64
	Measurements []carnet.Measurement
}

// eachMessage opens the messages of a row, in order. Messages of things that
// want rejects, and those whose key is destroyed, are passed over.
func (a *Agent) eachMessage(ctx context.Context, row LogRow, d *senml.Decoder, want func(*Thing) bool, do func(position uint64, t *Thing, ms []carnet.Measurement) error) error {
	var (
		plain, aad   []byte
		measurements []carnet.Measurement
	)
	rest, position := row.Body, row.First
	for ; len(rest) > 0; position++ {
		var head [3]uint64
		for i := range head {
			v, n := binary.Uvarint(rest)
			if n <= 0 {
				return carnet.Errorf(carnet.Tampered, "log row %d is damaged at message %d", row.First, position)
			}
			head[i], rest = v, rest[n:]
		}
		if head[2] > uint64(len(rest)) {
			return carnet.Errorf(carnet.Tampered, "log row %d is damaged at message %d", row.First, position)
		}
		sealed := rest[:head[2]]
		rest = rest[head[2]:]
		t := a.thingByNumber(uint32(head[0]))
		if t == nil || want != nil && !want(t) {
			continue
		}
		key, err := a.oldDayKey(ctx, t, uint32(head[1]))
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // erased
		} else if err != nil {
			return err
		}
		aad = restAAD(aad[:0], t.number, uint32(head[1]))
		if plain, err = key.Open(plain[:0], aad, sealed); err != nil {
			return fmt.Errorf("open message %d of the log: %w", position, err)
		}
		if measurements, err = d.Decode(measurements[:0], senml.Columns, plain, row.Received); err != nil {
			return fmt.Errorf("read message %d of the log: %w", position, err)
		}
		// Columns part the fields of an object, which the policy takes together.
		if _, err := t.description.Arrange(measurements); err != nil {
			return carnet.Errorf(carnet.Tampered, "message %d of the log: %v", position, err)
		}
		if err := do(position, t, measurements); err != nil {
			return err
		}
	}
	if position != row.First+uint64(row.Count) {
		return carnet.Errorf(carnet.Tampered, "log row %d holds %d messages, its record says %d", row.First, position-row.First, row.Count)
	}
	return nil
}

// index knows, per thing and bucket of measured time, which positions may hold
// measurements of it.
type index struct {
	mu      sync.Mutex
	buckets map[bucketKey]span

	row_ []byte // the row being made; the committer's
	keys []bucketKey
}

type bucketKey struct {
	thing  uint32
	bucket int64
}

// row makes the clear index of a group's log row.
func (x *index) row(g *group) []byte {
	x.keys = x.keys[:0]
	for _, e := range g.entries {
		last := int64(unseen)
		for i := e.from; i < e.to; i++ {
			b := bucketOf(g.samples[i].time)
			if b != last {
				x.keys = append(x.keys, bucketKey{e.thing.number, b})
				last = b
			}
		}
	}
	slices.SortFunc(x.keys, func(p, q bucketKey) int {
		if p.thing != q.thing {
			return int(int64(p.thing) - int64(q.thing))
		}
		if p.bucket < q.bucket {
			return -1
		}
		return int(min(1, p.bucket-q.bucket))
	})
	x.keys = slices.Compact(x.keys)
	x.row_ = x.row_[:0]
	for _, k := range x.keys {
		x.row_ = binary.AppendUvarint(x.row_, uint64(k.thing))
		x.row_ = binary.AppendVarint(x.row_, k.bucket)
	}
	return x.row_
}

// add takes note of the group whose row was made last and is now on disk.
func (x *index) add(g *group) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range x.keys {
		x.note(k, span{g.first, g.next() - 1})
	}
	x.keys = x.keys[:0]
}

// load takes note of a row read at the start.
func (x *index) load(row LogRow) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for rest := row.Index; len(rest) > 0; {
		thing, n := binary.Uvarint(rest)
		if n <= 0 {
			return carnet.Errorf(carnet.Tampered, "the index of log row %d is damaged", row.First)
		}
		bucket, m := binary.Varint(rest[n:])
		if m <= 0 {
			return carnet.Errorf(carnet.Tampered, "the index of log row %d is damaged", row.First)
		}
		rest = rest[n+m:]
		x.note(bucketKey{uint32(thing), bucket}, span{row.First, row.First + uint64(row.Count) - 1})
	}
	return nil
}

func (x *index) note(k bucketKey, s span) {
	if held, ok := x.buckets[k]; ok {
		s.first = min(held.first, s.first)
	}
	x.buckets[k] = s
}

// forget drops what was trimmed: positions before first.
func (x *index) forget(first uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, s := range x.buckets {
		if s.last < first {
			delete(x.buckets, k)
		} else if s.first < first {
			s.first = first
			x.buckets[k] = s
		}
	}
}

func (x *index) find(thing uint32, bucket int64) (span, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.buckets[bucketKey{thing, bucket}]
	return s, ok
}

// readBytes is how much of the log one read takes.
const readBytes = 8 << 20

// errCrowded says that a bucket is larger than what may be held of it.
var errCrowded = errors.New("the bucket has too much to be held")

// loadBucket reads from the log every identity of one thing in one bucket, as long as
// that takes at most room bytes.
func (a *Agent) loadBucket(ctx context.Context, t *Thing, bucket int64, room int) (map[identity]struct{}, error) {
	has := make(map[identity]struct{})
	err := a.eachHeld(ctx, t, []int64{bucket}, func(id identity) error {
		if _, held := has[id]; held || bucketOf(id.time) != bucket {
			return nil
		}
		if room -= id.size(); room < 0 {
			return errCrowded
		}
		has[id] = struct{}{}
		return nil
	})
	return has, err
}

// heldOf reads from the log which of some identities of one thing it holds, in one
// pass. One thing at a time does that: it may read the whole log.
func (a *Agent) heldOf(ctx context.Context, t *Thing, ids map[identity]struct{}) (map[identity]struct{}, error) {
	select {
	case a.wide <- struct{}{}:
		defer func() { <-a.wide }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	buckets := make([]int64, 0, len(ids))
	for id := range ids {
		buckets = append(buckets, bucketOf(id.time))
	}
	held := make(map[identity]struct{})
	err := a.eachHeld(ctx, t, buckets, func(id identity) error {
		if _, asked := ids[id]; asked {
			held[id] = struct{}{}
		}
		return nil
	})
	return held, err
}

// eachHeld hands over every identity of one thing in the part of the log that has
// some buckets. What was added before is waited for, so nothing that is admitted is
// missed; the caller holds the thing's mutex, so nothing of it is added meanwhile.
func (a *Agent) eachHeld(ctx context.Context, t *Thing, buckets []int64, do func(identity) error) error {
	if err := a.barrier(ctx); err != nil {
		return err
	}
	var part span // empty
	for _, b := range buckets {
		if s, ok := a.index.find(t.number, b); ok && part == (span{}) {
			part = s
		} else if ok {
			part = span{min(part.first, s.first), max(part.last, s.last)}
		}
	}
	d := logDecoder()
	for at := part.first; at <= part.last && part.first > 0; {
		rows, err := a.store.Log(ctx, at, readBytes)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			err := a.eachMessage(ctx, row, d, func(o *Thing) bool { return o == t }, func(_ uint64, _ *Thing, ms []carnet.Measurement) error {
				for i := range ms {
					if p, known := t.description.Lookup(ms[i].Name); known {
						if err := do(identity{uint16(p.Index), ms[i].Time, ms[i].Value}); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			at = row.First + uint64(row.Count)
		}
	}
	return nil
}
