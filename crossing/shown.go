package crossing

import (
	"carnet"
	"carnet/avatar"
	"carnet/policy"
)

// shown applies a share's view to the batches of one source stream.
type shown struct {
	share  *Given
	sight  *policy.Sight
	memory policy.State

	order []carnet.Measurement // memory of one batch
	out   []carnet.Measurement
}

// see begins with what is known of properties.
func (s *shown) see(j *policy.Judge, known ...policy.Property) (err error) {
	s.sight, err = policy.NewSight(j, s.share.View, policy.Reader{Party: s.share.Taker, Clearance: s.share.Most}, s.share.GrantVersion, known...)
	return err
}

// batch applies the view to a batch's measurements and returns those that it
// admits, in the order of their times, good until the next call. whole says that
// they are all of them, and as they were.
func (s *shown) batch(b *avatar.Batch, ms []carnet.Measurement) (out []carnet.Measurement, whole bool) {
	for i := range ms {
		if m := &ms[i]; i == 0 || m.Name != ms[i-1].Name {
			// What can't be beside what is known already isn't shown: who sends such names
			// keeps them from the taker, and nothing else.
			_ = s.sight.Learn(policy.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Label: b.Label, Retention: b.Retention})
		}
	}
	s.order = append(s.order[:0], ms...)
	policy.InOrder(s.order)
	s.out, whole = s.out[:0], true
	for i := range s.order {
		m := s.order[i]
		if s.sight.Apply(&s.memory, &m) != policy.Admitted {
			whole = false
			continue
		}
		whole = whole && m == s.order[i]
		s.out = append(s.out, m)
	}
	return s.out, whole
}

// mark is what is kept when everything before a measurement is decided.
func (s *shown) mark(position uint64) (m markOf, err error) {
	m.Position, m.Known = position, s.sight.Known()
	m.Memory, err = s.memory.MarshalBinary()
	return m, err
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
