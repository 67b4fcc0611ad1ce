package crossing

import (
	"cmp"
	"slices"

	"carnet"
	"carnet/avatar"
	"carnet/policy"
)

// shown applies a share's view to the batches of one source stream. A world has no
// description of what it is sent: what it knows of a property is what batches say.
// So the view is compiled anew when a batch says something new, which is rare, and
// the memory of rates and deadbands follows.
type shown struct {
	judge  *policy.Judge
	share  *Given
	index  map[string]int
	props  []policy.Property
	table  *policy.Table
	memory policy.State

	order []carnet.Measurement // memory of one batch
	out   []carnet.Measurement
}

// batch applies the view to a batch's measurements and returns those that it
// admits, in the order of their times, good until the next call. whole says that
// they are all of them, and as they were.
func (s *shown) batch(b *avatar.Batch, ms []carnet.Measurement) (out []carnet.Measurement, whole bool, err error) {
	if err := s.learn(b, ms); err != nil {
		return nil, false, err
	}
	// Batches have their measurements by property; a view decides the fields of an
	// object together, and intervals in the order of time.
	s.order = append(s.order[:0], ms...)
	slices.SortStableFunc(s.order, func(p, q carnet.Measurement) int {
		return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Name, q.Name))
	})
	s.out, whole = s.out[:0], true
	for i := range s.order {
		m := s.order[i]
		if s.table.Apply(&s.memory, s.index[m.Name], &m) != policy.Admitted {
			whole = false
			continue
		}
		whole = whole && m == s.order[i]
		s.out = append(s.out, m)
	}
	return s.out, whole, nil
}

// learn takes in what a batch says of properties.
func (s *shown) learn(b *avatar.Batch, ms []carnet.Measurement) error {
	changed := s.table == nil
	for i := range ms {
		m := &ms[i]
		if i > 0 && m.Name == ms[i-1].Name {
			continue
		}
		p := policy.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Label: b.Label, Retention: b.Retention}
		at, known := s.index[m.Name]
		switch {
		case !known:
			if s.index == nil {
				s.index = make(map[string]int)
			}
			s.index[m.Name] = len(s.props)
			s.props = append(s.props, p)
			changed = true
		case s.props[at] != p:
			s.props[at], changed = p, true
		}
	}
	if !changed {
		return nil
	}
	return s.compile()
}

func (s *shown) compile() error {
	table, err := policy.Compile(s.judge, s.props, s.share.View, policy.Reader{Party: s.share.Taker, Clearance: s.share.Most}, s.share.GrantVersion)
	if err != nil {
		return err
	}
	s.table = table
	return nil
}

// mark is what is kept when everything before a measurement is decided.
func (s *shown) mark(position uint64) (m markOf, err error) {
	m.Position, m.Known = position, slices.Clone(s.props)
	m.Memory, err = s.memory.MarshalBinary()
	return m, err
}

// recall goes on from a mark.
func (s *shown) recall(m markOf) error {
	s.props, s.index = slices.Clone(m.Known), make(map[string]int)
	for i, p := range s.props {
		s.index[p.Name] = i
	}
	if err := s.compile(); err != nil {
		return err
	}
	return s.memory.UnmarshalBinary(m.Memory)
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
