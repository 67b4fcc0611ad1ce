package avatar

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"

	"carnet"
	"carnet/seal"
	"carnet/senml"
)

// Query asks for a part of an avatar's history.
type Query struct {
	From, To int64  // measured time, ns: From included, To not; zero To: no end
	Property string // empty: all; an object property's name stands for its fields
	Limit    int    // at most this many, the oldest; 0: MaxHistory
}

// MaxHistory is how many measurements one answer has at most.
const MaxHistory = 100_000

// History returns measurements in order of measured time, and whether there are
// more than the limit.
func (a *Agent) History(ctx context.Context, id carnet.AvatarID, q Query) (ms []carnet.Measurement, more bool, err error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, false, err
	}
	if q.To == 0 {
		q.To = math.MaxInt64
	}
	if q.Limit <= 0 || q.Limit > MaxHistory {
		q.Limit = MaxHistory
	}
	keep := func() {
		slices.SortStableFunc(ms, func(p, q carnet.Measurement) int {
			return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Name, q.Name))
		})
		if len(ms) > q.Limit {
			ms, more = ms[:q.Limit], true
		}
	}
	o := opening{decoder: newColumnsDecoder()}
	for _, s := range a.streamsOf(v) {
		err := a.eachOf(ctx, &o, s, span{minuteOf(q.From), minuteOf(q.To - 1)}, every, func(_ uint64, found []carnet.Measurement) error {
			for i := range found {
				if m := &found[i]; m.Time >= q.From && m.Time < q.To && covers(q.Property, m.Name) {
					ms = append(ms, *m)
				}
			}
			if len(ms) > 2*q.Limit+MaxHistory {
				keep()
			}
			return nil
		})
		if err != nil {
			return nil, false, err
		}
	}
	keep()
	return ms, more, nil
}

func covers(property, name string) bool {
	return property == "" || name == property || len(name) > len(property) && name[:len(property)] == property && name[len(property)] == '/'
}

func (a *Agent) streamsOf(v *Avatar) []*stream {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Clone(v.streams)
}

// span is a range of measured minutes, both included.
type span struct{ from, to int64 }

var ever = span{everFrom, everTo}

// span64 is a range of measurement numbers: from included, to not.
type span64 struct{ from, to uint64 }

var every = span64{0, math.MaxUint64}

// eachOf opens a stream's batches that overlap a span of minutes and begin before
// numbers.to, in the order of their batches within a retention class, and hands
// over what is numbered from numbers.from on. first is the number of the first
// measurement handed over.
func (a *Agent) eachOf(ctx context.Context, o *opening, s *stream, minutes span, numbers span64, do func(first uint64, ms []carnet.Measurement) error) error {
	// The tail is taken first: what is compacted meanwhile is in both, and told
	// apart by the frame that the stretches begin after.
	a.mu.RLock()
	refs := slices.Clone(a.tail.batches[s.id])
	a.mu.RUnlock()
	stretches, err := a.store.Stretches(ctx, s.id, minutes.from, minutes.to)
	if err != nil {
		return err
	}
	compacted := make(map[uint64]bool) // batch numbers that a stretch holds
	for _, row := range stretches {
		or, err := parseOrigins(row.Origins)
		if err != nil {
			return err
		}
		for _, b := range or.batches {
			compacted[b.number] = true
		}
		if or.next <= numbers.from || or.first >= numbers.to {
			continue
		}
		body, err := a.stretchBody(ctx, row)
		if err != nil {
			return err
		}
		err = eachBatch(body, func(_, from, to int) error { return a.openOne(o, body[from:to], numbers, do) })
		if err != nil {
			return err
		}
	}
	return a.eachOfTail(ctx, o, refs, minutes, numbers, compacted, do)
}

func (a *Agent) eachOfTail(ctx context.Context, o *opening, refs []batchRef, minutes span, numbers span64, compacted map[uint64]bool, do func(uint64, []carnet.Measurement) error) error {
	var row FrameRow
	for _, ref := range refs {
		if compacted[ref.number] || ref.toMinute < minutes.from || ref.fromMinute > minutes.to || ref.first+uint64(ref.count) <= numbers.from || ref.first >= numbers.to {
			continue
		}
		if row.ID != ref.frame {
			rows, err := a.store.Frames(ctx, ref.frame-1, 1)
			if err != nil {
				return err
			}
			if len(rows) == 0 || rows[0].ID != ref.frame {
				continue // compacted since: the caller's stretches are older
			}
			row = rows[0]
		}
		if int(ref.to) > len(row.Body) {
			return carnet.Errorf(carnet.Tampered, "frame %d is shorter than its index says", ref.frame)
		}
		if err := a.openOne(o, row.Body[ref.from:ref.to], numbers, do); err != nil {
			return err
		}
	}
	return nil
}

// openOne opens a batch and hands over what it holds from numbers.from on. A batch
// that can't be opened (its key is destroyed, or it was refused) is passed over.
func (a *Agent) openOne(o *opening, batch []byte, numbers span64, do func(uint64, []carnet.Measurement) error) error {
	_, body, err := a.opener.Open(o.body[:0], batch)
	o.body = body
	if err != nil {
		return nil
	}
	b, err := seal.ParseBody(body)
	if err != nil {
		return nil
	}
	if o.measurements, err = o.decoder.Decode(o.measurements[:0], senml.Columns, b.Content, 0); err != nil {
		return nil
	}
	ms, first := o.measurements, b.First
	if first >= numbers.to {
		return nil
	}
	if first < numbers.from {
		skip := min(numbers.from-first, uint64(len(ms)))
		ms, first = ms[skip:], first+skip
	}
	if len(ms) == 0 {
		return nil
	}
	return do(first, ms)
}

// stretchBody returns a stretch's bytes. A body that is lost or damaged here is
// fetched back from the depot by its fingerprint.
func (a *Agent) stretchBody(ctx context.Context, row StretchRow) ([]byte, error) {
	body, err := a.store.StretchBody(ctx, row.ID)
	if err == nil && carnet.FingerprintOf(body) == row.Fingerprint {
		return body, nil
	}
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return nil, err
	}
	a.log.Warn("a stretch is lost or damaged here: fetching it from the depot", "stretch", row.ID, "fingerprint", row.Fingerprint)
	if body, err = a.depot.GetObject(ctx, row.Fingerprint); err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "a part of the history is lost here and the depot does not give it back: %v", err)
	}
	if carnet.FingerprintOf(body) != row.Fingerprint {
		return nil, carnet.Errorf(carnet.Tampered, "the depot gave other bytes than were stored there for %s", row.Fingerprint)
	}
	return body, a.store.RestoreStretch(ctx, row.ID, body)
}

// origins says where a stretch's batches came from, and which measurements they
// hold. In bytes, unsigned LEB128:
//
//	first measurement, number after the last,
//	then per batch: number, frame id, leaf index
type origins struct {
	first, next uint64
	batches     []origin
}

type origin struct {
	number, frame uint64
	leaf          uint32
}

func (or *origins) append(b []byte) []byte {
	b = binary.AppendUvarint(b, or.first)
	b = binary.AppendUvarint(b, or.next)
	for _, o := range or.batches {
		b = binary.AppendUvarint(b, o.number)
		b = binary.AppendUvarint(b, o.frame)
		b = binary.AppendUvarint(b, uint64(o.leaf))
	}
	return b
}

func parseOrigins(b []byte) (or origins, err error) {
	bad := false
	read := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	or.first, or.next = read(), read()
	for len(b) > 0 {
		or.batches = append(or.batches, origin{read(), read(), uint32(read())})
	}
	if bad {
		return or, carnet.Errorf(carnet.Tampered, "the origins of a stretch are damaged")
	}
	return or, nil
}
