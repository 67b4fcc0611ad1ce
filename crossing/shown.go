package crossing

import (
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/policy"
)

// remembered is what a share's view remembers: one memory, whatever number of source
// streams have a property, or its taker would get as many in each interval.
type remembered struct {
	policy.State
	of carnet.StreamID // the last that was decided
}

// shown applies a share's view to the batches of one source stream.
type shown struct {
	share   *Given
	sight   *policy.Sight
	memory  *remembered
	changes changes
	learned bool // the sight has, since this was last false

	// Memory of one batch.
	columns map[string]policy.Property
	left    map[string]bool // names of which nothing is shown
	order   []carnet.Measurement
	out     []carnet.Measurement
}

// changes is how many changes of properties a stream may make: changesAtOnce, and
// changesEach for each second since. Each costs an answer of the judge.
type changes struct {
	used float64
	at   time.Time
}

const (
	changesAtOnce = 2048 // twice as many as a stream can have properties
	changesEach   = 16
)

// take takes up to n, and says how many that are.
func (c *changes) take(n int, now time.Time) int {
	if since := now.Sub(c.at).Seconds(); since > 0 {
		c.used = max(0, c.used-since*changesEach)
	}
	c.at = now
	n = min(n, int(changesAtOnce-c.used))
	c.used += float64(n)
	return n
}

// see begins with what is known of properties.
func (s *shown) see(j *policy.Judge, known ...policy.Property) (err error) {
	s.sight, err = policy.NewSight(j, s.share.View, policy.Reader{Party: s.share.Taker, Clearance: s.share.Most}, s.share.GrantVersion, known...)
	return err
}

// learn takes in what a batch says of properties, all at once. Nothing is shown of a
// name that stands for several in one batch, or can't stand beside what is known, nor of
// changes beyond what a stream may make: who sends such batches keeps them from the
// taker, and nothing else.
func (s *shown) learn(b *avatar.Batch, ms []carnet.Measurement, now time.Time) {
	if s.columns == nil {
		s.columns, s.left = make(map[string]policy.Property), make(map[string]bool)
	}
	clear(s.columns)
	clear(s.left)
	var fresh []policy.Property
	for i := range ms {
		m := &ms[i]
		if i > 0 && m.Name == ms[i-1].Name && m.Unit == ms[i-1].Unit && m.Value.Kind == ms[i-1].Value.Kind {
			continue
		}
		p := policy.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Label: b.Label, Retention: b.Retention}
		if had, twice := s.columns[m.Name]; twice {
			s.left[m.Name] = s.left[m.Name] || had != p
			continue
		}
		s.columns[m.Name] = p
		if s.sight.Names(p.Name) && !s.sight.Has(p) {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return
	}
	fresh = slices.DeleteFunc(fresh, func(p policy.Property) bool { return s.left[p.Name] || s.sight.Fits(p) != nil })
	fresh = fresh[:s.changes.take(len(fresh), now)]
	s.learned = s.learned || len(fresh) > 0
	err := s.sight.Learn(fresh...)
	for name, p := range s.columns {
		if err != nil || !s.sight.Has(p) {
			s.left[name] = true
		}
	}
}

// batch applies the view to a batch's measurements and returns those that it
// admits, in the order of their times, good until the next call. whole says that
// they are all of them, and as they were.
func (s *shown) batch(b *avatar.Batch, ms []carnet.Measurement, now time.Time) (out []carnet.Measurement, whole bool) {
	s.learn(b, ms, now)
	if s.memory.of != b.Stream && s.memory.of != (carnet.StreamID{}) {
		s.memory.Part()
	}
	s.memory.of = b.Stream
	s.order = append(s.order[:0], ms...)
	policy.InOrder(s.order)
	s.out, whole = s.out[:0], true
	for i := range s.order {
		m := s.order[i]
		if len(s.left) > 0 && s.left[m.Name] || s.sight.Apply(&s.memory.State, &m) != policy.Admitted {
			whole = false
			continue
		}
		whole = whole && m == s.order[i]
		s.out = append(s.out, m)
	}
	return s.out, whole
}

// label and retention are of what is sent of a batch: its own, bound by the view's.
func (s *shown) label(b *avatar.Batch) carnet.Label {
	return b.Label.Join(carnet.Label{Purposes: s.share.View.Purposes, Residency: s.share.View.Residency})
}

func (s *shown) retention(b *avatar.Batch) carnet.Retention {
	if r := s.share.View.Retention; r != 0 {
		return min(r, b.Retention)
	}
	return b.Retention
}
