package policy

// UseUntil marks every rate's interval that holds the time at, and all before
// it, as used, for a sender that lost its State. Under a rate nothing measured
// up to at is then sent twice, but whatever was measured before and not yet
// sent is withheld, however much. It knows nothing of what was sent with a
// measured time after at, and a deadband has forgotten its last value, so it
// admits one.
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
