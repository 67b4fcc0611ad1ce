package policy

import "carnet"

// Saw takes back into a State that was lost what the receiver has: m, as it was
// sent, is the newest measurement of property prop that it got. Under a rate
// nothing of m's interval or an earlier one is admitted any more, and a deadband
// goes on from m's value, as if the State had never been lost.
func (s *State) Saw(t *Table, prop int, m *carnet.Measurement) {
	if uint(prop) >= uint(len(t.entries)) {
		return
	}
	e := &t.entries[prop]
	if e.fixed != Admitted || e.plain {
		return
	}
	if s.table != t {
		s.bind(t)
	}
	mem := &s.slots[e.slot]
	if e.rate != 0 && (mem.has&hasLast == 0 || mem.last < m.Time) {
		mem.use(m.Time, e.rate)
	}
	if e.role == single && e.deadband != 0 && m.Value.Kind == carnet.Number {
		mem.sent, mem.has = m.Value.Num, mem.has|hasSent|touched
	}
}
