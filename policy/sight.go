package policy

import (
	"cmp"
	"slices"

	"carnet"
)

// Sight is a view applied where no description is at hand, as at a world: what it
// knows of properties is what it was told of them. It compiles the view anew when
// it is told something new of what the view names, which is rare; memories follow
// by the properties' names. It is for one goroutine.
type Sight struct {
	judge   *Judge
	view    View
	reader  Reader
	version uint64

	props []Property
	index map[string]int
	table *Table
}

// NewSight makes a sight that knows some properties.
func NewSight(j *Judge, v View, r Reader, version uint64, known ...Property) (*Sight, error) {
	s := &Sight{judge: j, view: v, reader: r, version: version, props: slices.Clone(known), index: make(map[string]int, len(known))}
	for i, p := range known {
		s.index[p.Name] = i
	}
	var err error
	s.table, err = Compile(j, s.props, v, r, version)
	return s, err
}

// Knows reports whether the sight was told of a property.
func (s *Sight) Knows(name string) bool { _, ok := s.index[name]; return ok }

// Known lists what the sight was told, in the order in which it was.
func (s *Sight) Known() []Property { return slices.Clone(s.props) }

// Learn takes in what a property is, or is now. What the view doesn't name isn't
// remembered: nothing of it is shown. What can't be beside the others, such as an
// object that is a field, too, is refused, and the sight stays as it was.
func (s *Sight) Learn(p Property) error {
	at, known := s.index[p.Name]
	if known && s.props[at] == p {
		return nil
	}
	if _, named := s.view.Of(p.Name); !named {
		return nil
	}
	props := slices.Clone(s.props)
	if !known {
		at, props = len(props), append(props, p)
	}
	props[at] = p
	table, err := Compile(s.judge, props, s.view, s.reader, s.version)
	if err != nil {
		return err
	}
	s.props, s.table, s.index[p.Name] = props, table, at
	return nil
}

// Shows reports whether measurements of a property are shown.
func (s *Sight) Shows(name string) bool {
	at, ok := s.index[name]
	return ok && s.table.Result(at).Admit
}

// Apply decides one measurement, as Table.Apply does. What the sight doesn't know
// isn't shown.
func (s *Sight) Apply(memory *State, m *carnet.Measurement) Verdict {
	at, ok := s.index[m.Name]
	if !ok {
		return NotInView
	}
	return s.table.Apply(memory, at, m)
}

// Saw takes back what a receiver has into a memory, as State.Saw does.
func (s *Sight) Saw(memory *State, m *carnet.Measurement) {
	if at, ok := s.index[m.Name]; ok {
		memory.Saw(s.table, at, m)
	}
}

// InOrder sorts measurements as views decide them: by time, then name, so that an
// object's fields stand together.
func InOrder(ms []carnet.Measurement) {
	slices.SortStableFunc(ms, func(p, q carnet.Measurement) int {
		return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Name, q.Name))
	})
}
