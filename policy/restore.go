package policy

// UseUntil marks every rate's interval that holds the time at, and all before
// it, as used. A sender that lost its State calls it before it goes on: it may
// then withhold one measurement too many of each property, and never sends one
// more than the view allows.
func (s *State) UseUntil(t *Table, at int64) {
	if s.table != t {
		s.bind(t)
	}
	for i, rate := range t.rates {
		if m := &s.slots[i]; rate != 0 && (m.has&hasLast == 0 || m.last < at) {
			m.use(at, rate)
		}
	}
}
