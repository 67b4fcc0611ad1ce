package avatar

import (
	"bytes"
	"context"
	"slices"

	"carnet"
	"carnet/seal"
)

// BatchQuery asks for the batches of an avatar that hold something which fits a query.
type BatchQuery struct {
	From, To   int64    // measured time, ns: From included, To not
	Properties []string // none: all; an object property's name stands for its fields
	Onward     bool     // leave out what isn't to be passed on
	// Stream is the only one that is read, and First and Last the batches of it; zero:
	// all streams, whole.
	Stream      carnet.StreamID
	First, Last uint64
}

// EachBatch hands over the batches of an avatar that hold a measurement which fits the
// query, byte for byte as they were received, with these measurements: the streams in
// the order of their ids, each in that of its batches. Both are good until do returns.
// id is the stream's in this world's store, by which BatchQuery finds it again.
//
// What came by a share that isn't to be passed on is left out if the query says Onward;
// batches whose keys are destroyed always are.
func (a *Agent) EachBatch(ctx context.Context, id carnet.AvatarID, q BatchQuery, do func(id carnet.StreamID, b *Batch, ms []carnet.Measurement) error) error {
	v, err := a.readable(id)
	if err != nil {
		return err
	}
	streams := a.streamsOf(v)
	slices.SortFunc(streams, func(x, y *stream) int { return bytes.Compare(x.id[:], y.id[:]) })
	r := reading{agent: a, opening: newOpening(), minutes: span{minuteOf(q.From), minuteOf(q.To - 1)}}
	for _, s := range streams {
		if _, erased := a.erasedBy(s.id); erased {
			continue
		}
		if q.Stream != (carnet.StreamID{}) && s.id != q.Stream || q.Onward && a.inward(s) {
			continue
		}
		r.start(s, q.First, 0)
		err := r.each(ctx, func(b readBatch) error {
			if q.Stream != (carnet.StreamID{}) && b.header.Number > q.Last {
				return errEnough
			}
			fits := slices.DeleteFunc(slices.Clone(b.measurements), func(m carnet.Measurement) bool { return !q.fits(&m) })
			if len(fits) == 0 {
				return nil
			}
			batch := newBatch(s, b.bytes, b.header, b.body)
			batch.Inward = a.inward(s)
			return do(s.id, batch, fits)
		})
		if err != nil && err != errEnough {
			return err
		}
	}
	return nil
}

// fits reports whether a measurement is one that is asked for.
func (q *BatchQuery) fits(m *carnet.Measurement) bool {
	return m.Time >= q.From && m.Time < q.To && (len(q.Properties) == 0 || slices.ContainsFunc(q.Properties, func(p string) bool { return covers(p, m.Name) }))
}

// OpenBag opens a key bag that is sealed to one of this world's reception keys, for
// its own purpose, and keeps nothing of it.
func (a *Agent) OpenBag(sealed []byte, want seal.Expected) (*seal.Bag, error) {
	return a.openBag(sealed, want)
}
