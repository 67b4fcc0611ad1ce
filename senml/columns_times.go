package senml

import "slices"

// How the times of a column are read and written: offsets from the first time of
// the batch, in the largest unit that divides them all.

// times reads the times of a column into c.
func (r *columnsReader) times(c *column, head byte) {
	s := &r.d.columns
	if head&headSameTime != 0 {
		if r.span == 0 || r.column == 0 || len(s.times) != c.count {
			r.fail("times of its own")
			return
		}
		c.times = s.times
		return
	}
	if r.span == 0 {
		return
	}
	t := r.byte()
	if t&^(timeUnit|timeStep) != 0 || t&timeStep != 0 && c.count < 2 {
		r.fail("a time byte")
		return
	}
	s.times, s.prev = resize(s.prev, c.count), s.times
	c.times = s.times
	unit := int(t & timeUnit)
	if t&timeStep != 0 {
		r.stepTimes(c.times, unit)
	} else {
		r.deltaTimes(c.times, unit)
	}
	if r.err == "" && r.column > 0 && slices.Equal(s.prev, s.times) {
		r.fail("the same times by reference")
	}
}

// stepTimes and deltaTimes go around the range of numbers where the writer does:
// the times of a batch may lie further apart than an int64 says.

func (r *columnsReader) stepTimes(times []int64, unit int) {
	q, step := r.uvarint(), uint64(unzigzag(r.uvarint()))
	o := newOffsets(q, unit)
	times[0] = r.at(q, o.unit)
	for i := range times[1:] {
		q += step
		o.add(q)
		times[i+1] = r.at(q, o.unit)
	}
	r.checkOffsets(&o)
}

func (r *columnsReader) deltaTimes(times []int64, unit int) {
	q := r.uvarint()
	o := newOffsets(q, unit)
	times[0] = r.at(q, o.unit)
	deltas := r.uvarints(len(times) - 1)
	steady := true
	for i, delta := range deltas {
		q += uint64(unzigzag(delta))
		o.add(q)
		times[i+1] = r.at(q, o.unit)
		steady = steady && delta == deltas[0]
	}
	if r.checkOffsets(&o); steady && len(times) > 1 {
		r.fail("equal steps written once")
	}
}

// at is the time at an offset of q units.
func (r *columnsReader) at(q, unit uint64) int64 { return int64(uint64(r.first) + q*unit) }

// offsets is what is to be known of the offsets of a column, in units.
type offsets struct {
	unit        uint64 // ns
	least, most uint64
	coarse      bool // all could be in the next larger unit
}

func newOffsets(q uint64, unit int) offsets {
	return offsets{timeUnits[unit], q, q, unit > 0 && q%1000 == 0}
}

func (o *offsets) add(q uint64) {
	o.least, o.most = min(o.least, q), max(o.most, q)
	o.coarse = o.coarse && q%1000 == 0
}

func (r *columnsReader) checkOffsets(o *offsets) {
	if o.most > r.span/o.unit {
		r.fail("a time within the span")
	}
	if o.coarse {
		r.fail("the largest unit that divides all times")
	}
	r.sawFirst = r.sawFirst || o.least == 0
	r.sawLast = r.sawLast || o.most*o.unit == r.span
}

// appendTimes writes the offsets of the times from the first of the batch.
func appendTimes(dst []byte, times []int64, first int64) []byte {
	unit := 0
	for _, t := range times {
		unit = unitOf(uint64(t)-uint64(first), unit)
	}
	at := func(i int) uint64 { return inUnit(uint64(times[i])-uint64(first), unit) }
	q := at(0)
	steady := len(times) > 1
	for i := 2; i < len(times) && steady; i++ {
		steady = at(i)-at(i-1) == at(1)-q
	}
	if steady {
		dst = appendUvarint(append(dst, byte(unit)|timeStep), q)
		return appendUvarint(dst, zigzag(int64(at(1)-q)))
	}
	dst = appendUvarint(append(dst, byte(unit)), q)
	for i := range times[1:] {
		next := at(i + 1)
		dst = appendUvarint(dst, zigzag(int64(next-q)))
		q = next
	}
	return dst
}

// inUnit is t in units that divide it. A constant divisor is a multiplication.
func inUnit(t uint64, unit int) uint64 {
	switch unit {
	case 0:
		return t / 1e9
	case 1:
		return t / 1e6
	case 2:
		return t / 1e3
	}
	return t
}
