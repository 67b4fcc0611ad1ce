package policy

import (
	"cmp"
	"slices"

	"carnet"
)

// Sight is a view applied where no description is at hand, as at a world: what it
// knows of properties is what it was told of them. What can't stand beside what it
// was told before, such as a field of what is a number already, it leaves out: who
// says such names keeps them from being shown, and nothing else. It compiles the view
// anew when it is told something new of what the view names, and asks the judge only
// what it hasn't asked before; memories follow by the properties' names. It is for
// one goroutine.
type Sight struct {
	view    View
	version uint64

	props    []Property
	index    map[string]int
	beside   beside
	compiler compiler
	table    *Table
}

// NewSight makes a sight that knows some properties: of those that can't stand
// beside each other, the first.
func NewSight(j *Judge, v View, r Reader, version uint64, known ...Property) (*Sight, error) {
	if err := v.validate(); err != nil {
		return nil, err
	}
	s := &Sight{view: v, version: version, index: make(map[string]int), compiler: compiler{judge: j, view: v, reader: r, decided: make(map[Property]Decision)}}
	if err := s.compile(); err != nil {
		return nil, err
	}
	return s, s.Learn(known...)
}

// Knows reports whether the sight was told of a property.
func (s *Sight) Knows(name string) bool { _, ok := s.index[name]; return ok }

// Has reports whether this is what the sight knows of a property.
func (s *Sight) Has(p Property) bool {
	at, ok := s.index[p.Name]
	return ok && s.props[at] == p
}

// Names reports whether the view says anything of a property.
func (s *Sight) Names(name string) bool { _, ok := s.view.Of(name); return ok }

// Known lists what the sight was told, in the order in which it was.
func (s *Sight) Known() []Property { return slices.Clone(s.props) }

// Fits says why a property can't stand beside what the sight knows, or can't be shown
// as the view says.
func (s *Sight) Fits(p Property) error {
	if !s.Names(p.Name) {
		return carnet.Errorf(carnet.NotFound, "the view does not name %s", p.Name)
	}
	if err := s.view.suits(p); err != nil {
		return err
	}
	if s.Knows(p.Name) {
		return p.check()
	}
	return s.beside.fits(p)
}

// Learn takes in what properties are, or are now, all at once. What the view doesn't
// name isn't remembered: nothing of it is shown. What doesn't fit is left out, and what
// the sight knew of it stays.
func (s *Sight) Learn(all ...Property) error {
	changed := false
	for _, p := range all {
		if s.Has(p) || s.Fits(p) != nil {
			continue
		}
		changed = true
		if at, known := s.index[p.Name]; known {
			s.props[at] = p
			continue
		}
		s.beside.add(p)
		s.index[p.Name] = len(s.props)
		s.props = append(s.props, p)
	}
	if !changed {
		return nil
	}
	return s.compile()
}

// maxDecided is how many answers of the judge a sight remembers.
const maxDecided = 4 * maxProperties

func (s *Sight) compile() error {
	if len(s.compiler.decided) > maxDecided {
		clear(s.compiler.decided)
	}
	s.compiler.props = s.props
	err := s.compiler.compile(s.version)
	s.table = s.compiler.table
	return err
}

// Result returns what was compiled of a property, and whether the sight knows it.
func (s *Sight) Result(name string) (Result, bool) {
	at, ok := s.index[name]
	if !ok {
		return Result{}, false
	}
	return s.table.Result(at), true
}

// Shows reports whether measurements of a property are shown.
func (s *Sight) Shows(name string) bool {
	r, _ := s.Result(name)
	return r.Admit
}

// Permits reports whether a property that is labelled so may be shown, beside whatever
// the sight knows of it by other labels.
func (s *Sight) Permits(p Property) bool {
	if len(s.compiler.decided) > maxDecided {
		clear(s.compiler.decided)
	}
	return s.compiler.permits(p)
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
