package audit

import (
	"math"

	"carnet"
)

// memory is what policy.md section 5 keeps between two measurements of a leaf,
// or of an object named as a whole.
type memory struct {
	version int    // under which it was used last
	last    *int64 // measured time of the last one admitted under a rate
	sent    *float64
	open    *opened
}

// opened is an object's measurement of which fields may still come.
type opened struct {
	time   int64
	fields uint32 // admitted
	lat    float64
}

// apply decides one measurement and returns its value as the view shows it.
// Policy.md section 3 numbers the verdicts.
func (l *leaf) apply(mem *memory, m carnet.Measurement) (shown carnet.Value, ok bool) {
	if !l.show || m.Value.Kind != l.kind || !l.windows.isOpen(m.Time) { // fixed; 1; 2
		return shown, false
	}
	if !l.whole || l.rate == 0 && l.place == offGrid {
		return l.applyLone(mem, m)
	}
	follows := mem.open != nil && mem.open.time == m.Time && mem.open.fields&l.bit == 0
	if l.place == latitude {
		follows = false
	}
	if l.place == longitude && !follows || !follows && l.used(mem, m.Time) { // 3
		l.close(mem)
		return shown, false
	}
	var lat float64
	if follows {
		lat = mem.open.lat
	}
	value, coarse, ok := l.coarsen(m.Value, lat)
	if !ok { // 4
		l.close(mem)
		return shown, false
	}
	if !follows {
		mem.open = &opened{time: m.Time}
		if l.place == latitude {
			mem.open.lat = coarse
		}
		l.use(mem, m.Time)
	}
	if mem.open.fields |= l.bit; mem.open.fields&l.all == l.all {
		mem.open = nil
	}
	return value, true
}

// asks says whether the measurement asks the memory: it isn't withheld whatever
// came before, and the view says something of how it is shown.
func (l *leaf) asks(m carnet.Measurement) bool {
	said := l.round != 0 || l.deadband != 0 || l.rate != 0 || len(l.windows) > 0 || l.place != offGrid
	return l.show && m.Value.Kind == l.kind && said
}

// applyLone decides a leaf, or a field whose object needs no open measurement.
func (l *leaf) applyLone(mem *memory, m carnet.Measurement) (shown carnet.Value, ok bool) {
	if l.used(mem, m.Time) { // 3
		return shown, false
	}
	if shown, _, ok = l.coarsen(m.Value, 0); !ok { // 4
		return shown, false
	}
	if l.deadband != 0 { // 5
		if mem.sent != nil && !(math.Abs(shown.Num-*mem.sent) >= l.deadband) {
			return shown, false
		}
		mem.sent = &shown.Num
	}
	l.use(mem, m.Time)
	return shown, true
}

// close forgets the open measurement when a latitude is withheld, so that its
// longitude is, too.
func (l *leaf) close(mem *memory) {
	if l.place == latitude {
		mem.open = nil
	}
}

// used says whether the interval of t, or a later one, is used.
func (l *leaf) used(mem *memory, t int64) bool {
	return l.rate != 0 && mem.last != nil && floorDiv(t, l.rate) <= floorDiv(*mem.last, l.rate)
}

func (l *leaf) use(mem *memory, t int64) {
	if l.rate != 0 {
		mem.last = &t
	}
}

func floorDiv(t, r int64) int64 {
	q := t / r
	if t%r < 0 {
		q--
	}
	return q
}

// coarsen shows -0 as 0, puts a value on the grid, then rounds it; onGrid is what it was in
// between. lat is the latitude, on the grid, that goes with a longitude.
func (l *leaf) coarsen(v carnet.Value, lat float64) (shown carnet.Value, onGrid float64, ok bool) {
	v.Num, ok = plain(v.Num), true
	switch l.place {
	case latitude:
		v.Num, ok = gridLatitude(l.precision, v.Num)
	case longitude:
		v.Num, ok = gridLongitude(l.precision, lat, v.Num)
	}
	onGrid = v.Num
	if ok && l.round != 0 {
		v.Num, ok = round(l.round, v.Num)
	}
	return v, onGrid, ok
}
