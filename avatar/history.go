package avatar

import (
	"cmp"
	"context"
	"math"
	"slices"

	"carnet"
	"carnet/policy"
)

// Query asks for a part of an avatar's history.
type Query struct {
	From, To int64  // measured time, ns: From included, To not; zero To: no end
	Property string // empty: all; an object property's name stands for its fields
	Limit    int    // at most this many, the oldest; 0: MaxHistory
	// Reader is asked of each property of each batch. Nil: all is read.
	Reader Reader
	// Onward leaves out what came by a share and isn't to be passed on.
	Onward bool
}

// Reader says what may be read.
type Reader interface {
	// Reads reports whether a property may be read that is labelled so.
	Reads(policy.Property) bool
}

// MaxHistory is how many measurements one answer has at most.
const MaxHistory = 100_000

// History returns measurements in order of measured time, and whether there are
// more than the limit. If there are none but for those whose keys were destroyed
// when their grant was over, it says so (carnet.TooOld).
func (a *Agent) History(ctx context.Context, id carnet.AvatarID, q Query) (ms []carnet.Measurement, more bool, err error) {
	v, err := a.readable(id)
	if err != nil {
		return nil, false, err
	}
	if q.To == 0 {
		q.To = math.MaxInt64
	}
	if q.Limit <= 0 || q.Limit > MaxHistory {
		q.Limit = MaxHistory
	}
	found := results{query: q}
	r := reading{agent: a, opening: newOpening(), minutes: span{minuteOf(q.From), minuteOf(q.To - 1)}}
	for _, s := range a.streamsOf(v) {
		if _, erased := a.erasedBy(s.id); erased || q.Onward && a.inward(s) {
			continue
		}
		r.start(s, 0, 0)
		err := r.each(ctx, func(b readBatch) error {
			found.add(&b, &r.minutes)
			return nil
		})
		if err != nil {
			return nil, false, err
		}
	}
	found.cut()
	if r.ended != nil && len(found.ms) == 0 {
		return nil, false, r.ended
	}
	return found.ms, found.more, nil
}

// results is the oldest of what a query has found so far.
type results struct {
	query Query
	ms    []carnet.Measurement
	more  bool
}

// add takes what fits the query. When there is enough, minutes ends where the
// newest of it lies: nothing beyond can be wanted.
func (f *results) add(b *readBatch, minutes *span) {
	var of policy.Property // that was asked about last
	may := f.query.Reader == nil
	for i := range b.measurements {
		m := &b.measurements[i]
		if m.Time < f.query.From || m.Time >= f.query.To || !covers(f.query.Property, m.Name) {
			continue
		}
		if f.query.Reader != nil && (of.Name != m.Name || of.Unit != m.Unit || of.Kind != m.Value.Kind) {
			of = policy.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Label: b.body.Label, Retention: b.body.Retention}
			may = f.query.Reader.Reads(of)
		}
		if may {
			f.ms = append(f.ms, *m)
		}
	}
	if len(f.ms) > 2*f.query.Limit+cutEvery {
		f.cut()
		minutes.to = min(minutes.to, minuteOf(f.ms[len(f.ms)-1].Time))
	}
}

// cutEvery is how many results too many are collected before they are cut.
const cutEvery = 10_000

func (f *results) cut() {
	slices.SortStableFunc(f.ms, func(p, q carnet.Measurement) int {
		return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Name, q.Name))
	})
	if len(f.ms) > f.query.Limit {
		clear(f.ms[f.query.Limit:])
		f.ms, f.more = f.ms[:f.query.Limit], true
	}
}

func covers(property, name string) bool {
	return property == "" || name == property || len(name) > len(property) && name[:len(property)] == property && name[len(property)] == '/'
}

func (a *Agent) streamsOf(v *Avatar) []*stream {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Clone(v.streams)
}
