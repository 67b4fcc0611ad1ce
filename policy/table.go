package policy

import (
	"math"
	"time"

	"carnet"
)

// Verdict says what became of a measurement or property: Admitted, or why it
// is withheld.
type Verdict uint8

// The verdicts. The zero Verdict is none of them.
const (
	Admitted Verdict = iota + 1
	NotInView
	ExceedsClearance
	DeniedByPolicy
	Incomplete
	WrongKind
	OutsideWindow
	RateExceeded
	NotExact
	WithinDeadband
)

var verdictTexts = [...]string{
	Admitted:         "admitted",
	NotInView:        "not in view",
	ExceedsClearance: "label exceeds clearance",
	DeniedByPolicy:   "denied by policy",
	Incomplete:       "incomplete",
	WrongKind:        "wrong kind of value",
	OutsideWindow:    "outside window",
	RateExceeded:     "rate",
	NotExact:         "not a number that can be rounded",
	WithinDeadband:   "deadband",
}

func (v Verdict) String() string {
	if v == 0 || int(v) >= len(verdictTexts) {
		return "undecided"
	}
	return verdictTexts[v]
}

// Class is what measurements share that may share a batch.
type Class struct {
	Label     carnet.Label
	Retention carnet.Retention
}

// Result is a compiled property. Label, Retention and Class are of what is
// sent; a withheld property has none, and Class -1.
type Result struct {
	Admit     bool
	Reason    Verdict // Admitted, or why every measurement of it is withheld
	Decision  Decision
	Label     carnet.Label
	Retention carnet.Retention
	Class     int
}

// Table is a view compiled for one reader. It is immutable and safe for
// concurrent use; properties go by their index in what Compile was given.
type Table struct {
	version uint64
	view    View
	results []Result
	classes []Class
	entries []entry
	slots   []string // names of what a State has memory for, sorted
	rates   []int64  // by slot, nanoseconds; 0 is none
	fields  []uint32 // by slot, the bits of an object's fields; 0 for a leaf
}

// role is how a property is shown with others.
type role uint8

const (
	single    role = iota
	field          // of an object shown as a whole
	latitude       // of a position shown on a grid
	longitude      // of a position shown on a grid
)

// entry is what the hot path needs to know of a property.
type entry struct {
	fixed    Verdict // Admitted, or the verdict whatever is measured
	kind     carnet.Kind
	plain    bool // admitted as it is
	role     role
	slot     uint16
	bit      uint32 // of the field in its object
	rate     int64
	deadband float64
	step     rounding
	grid     grid
	windows  *Windows
}

// Version is the policy version the table was compiled for.
func (t *Table) Version() uint64 { return t.version }

// Result returns what was compiled for property i.
func (t *Table) Result(i int) Result { return t.results[i] }

// Why says why property i is received or withheld.
func (t *Table) Why(i int) Decision { return t.results[i].Decision }

// Classes lists the labels and retentions of admitted properties by
// Result.Class.
func (t *Table) Classes() []Class { return t.classes }

// MaySend reports whether the view lets data be transmitted at now, and until
// when the answer is sure to hold; the zero time is for ever.
func (t *Table) MaySend(now time.Time) (open bool, until time.Time) {
	open, _, end := t.view.Send.At(now.UnixNano())
	if end == math.MaxInt64 {
		return open, time.Time{}
	}
	return open, time.Unix(0, end)
}

// Apply decides one measurement of property prop and makes its value as exact
// as the view shows it. Measurements of one mapping come in the order of the
// sender's log; the fields of an object property come one after the other with
// one time, a position's lat before its lon. When it is withheld, m and s stay
// as they are, but for a latitude, which then has no longitude.
func (t *Table) Apply(s *State, prop int, m *carnet.Measurement) Verdict {
	if uint(prop) >= uint(len(t.entries)) {
		return NotInView
	}
	e := &t.entries[prop]
	switch {
	case e.fixed != Admitted:
		return e.fixed
	case m.Value.Kind != e.kind:
		return WrongKind
	case e.plain:
		m.Value.Num += 0 // turns -0 into 0
		return Admitted
	}
	if s.table != t {
		s.bind(t)
	}
	mem := &s.slots[e.slot]
	if e.windows != nil && !mem.inWindow(e.windows, m.Time) {
		return OutsideWindow
	}
	if e.role == single {
		return t.applySingle(s, e, mem, m)
	}
	return t.applyField(s, e, mem, m)
}

func (t *Table) applySingle(s *State, e *entry, mem *memory, m *carnet.Measurement) Verdict {
	if e.rate != 0 && mem.has&hasLast != 0 && m.Time < mem.next {
		return RateExceeded
	}
	v := m.Value.Num + 0 // turns -0 into 0
	if e.step.c != 0 {
		var ok bool
		if v, ok = e.step.round(v); !ok {
			return NotExact
		}
	}
	if e.deadband != 0 {
		if mem.has&hasSent != 0 && !(math.Abs(v-mem.sent) >= e.deadband) {
			return WithinDeadband
		}
		mem.sent, mem.has = v, mem.has|hasSent|touched
	}
	if e.rate != 0 {
		mem.use(m.Time, e.rate)
	}
	m.Value.Num = v
	return Admitted
}

// applyField admits an object's fields together: the first one of a new time
// uses the rate's interval, and the others follow it.
func (t *Table) applyField(s *State, e *entry, mem *memory, m *carnet.Measurement) Verdict {
	opens := e.role == latitude || e.role == field && e.rate != 0 && !mem.follows(e.bit, m.Time)
	if opens && e.rate != 0 && mem.has&hasLast != 0 && m.Time < mem.next {
		if e.role == latitude {
			mem.close()
		}
		return RateExceeded
	}
	if e.role == longitude && !mem.follows(e.bit, m.Time) {
		if e.rate != 0 && mem.has&hasLast != 0 && m.Time < mem.next {
			return RateExceeded
		}
		return Incomplete
	}
	v, snapped, ok := m.Value.Num+0, 0.0, true // turns -0 into 0
	switch e.role {
	case latitude:
		snapped, ok = e.grid.latitude(v)
		v = snapped
	case longitude:
		v, ok = e.grid.longitude(v, mem.lat)
	}
	if ok && e.step.c != 0 {
		v, ok = e.step.round(v)
	}
	if !ok {
		if e.role == latitude {
			mem.close()
		}
		return NotExact
	}
	if opens {
		mem.open(m.Time, snapped)
		if e.rate != 0 {
			mem.use(m.Time, e.rate)
		}
	}
	if e.role != field || e.rate != 0 {
		mem.take(e.bit, t.fields[e.slot])
	}
	m.Value.Num = v
	return Admitted
}
