package senml

import (
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"

	"carnet"
)

// columnsReader reads one batch in the column form. The first failure stays;
// after it every read gives zeros.
type columnsReader struct {
	d      *Decoder
	b      []byte
	i      int
	err    string
	large  bool // the failure is of a limit
	column int
	first  int64
	span   uint64
	// Whether the first and the last time that the header names were there.
	sawFirst, sawLast bool
	vals              []float64
}

func (d *Decoder) decodeColumns(dst []carnet.Measurement, data []byte) ([]carnet.Measurement, error) {
	r := columnsReader{d: d, b: data}
	n := r.header()
	if r.err == "" && n > d.limits.Records {
		return dst, carnet.Errorf(carnet.TooLarge, "the batch has %d measurements, the limit is %d", n, d.limits.Records)
	}
	if r.err != "" {
		return dst, r.failure()
	}
	start := len(dst)
	out := slices.Grow(dst, n)[:start+n]
	r.vals = d.vals[:0]
	heads, index := d.heads[:0], columnIndex(nil)
	for at, prev := start, start; at < len(out); r.column++ {
		count := r.readColumn(out[prev:at], out[at:])
		if r.err == "" && index.find(out[start:], heads, at-start) < r.column {
			r.fail("each column once")
		}
		if r.err != "" {
			break
		}
		heads = append(heads, int32(at-start))
		prev, at = at, at+count
	}
	d.vals, d.heads = r.vals, heads
	if r.err == "" && r.i < len(data) {
		r.fail("nothing after the last column")
	}
	if r.err == "" && n > 1 && !(r.sawFirst && r.sawLast) {
		r.fail("the first and the last time that the header names")
	}
	if r.err != "" {
		clear(out[start:]) // hold no strings behind the caller's back
		return dst, r.failure()
	}
	return out, nil
}

func (r *columnsReader) fail(want string) {
	if r.err == "" {
		r.err = want
	}
}

func (r *columnsReader) failure() error {
	code := carnet.Malformed
	if r.large {
		code = carnet.TooLarge
	}
	return carnet.Errorf(code, "column %d, byte %d: want %s", r.column, r.i, r.err)
}

func (r *columnsReader) byte() byte {
	if r.i >= len(r.b) {
		r.fail("a byte, found the end")
		return 0
	}
	c := r.b[r.i]
	r.i++
	return c
}

// uvarint reads the shortest form only.
func (r *columnsReader) uvarint() uint64 {
	if r.i < len(r.b) && r.b[r.i] < 0x80 {
		r.i++
		return uint64(r.b[r.i-1])
	}
	return r.longUvarint()
}

func (r *columnsReader) longUvarint() uint64 {
	u, n := binary.Uvarint(r.b[r.i:])
	if n <= 0 || n > 1 && r.b[r.i+n-1] == 0 {
		r.fail("a variable-length integer of at most 64 bits in its shortest form")
		r.i = len(r.b)
		return 0
	}
	r.i += n
	return u
}

// bytes reads n bytes, at most limit.
func (r *columnsReader) bytes(n uint64, limit int, what string) []byte {
	if r.err == "" && n > uint64(limit) {
		r.large = true
		r.fail(what + " within the limit")
	}
	if n > uint64(len(r.b)-r.i) {
		r.fail(what + ", found the end")
	}
	if r.err != "" {
		return nil
	}
	r.i += int(n)
	return r.b[r.i-int(n) : r.i]
}

// header reads the head of the batch and returns the count.
func (r *columnsReader) header() int {
	head := r.byte()
	if head&0xf0 != columnsVersion {
		r.fail("version 1 of the column form")
		return 0
	}
	unit, spanUnit := int(head&3), int(head>>2&3)
	n := r.uvarint()
	if n > 8*uint64(len(r.b)) { // not even a bit for each
		r.fail("as many measurements as the header says")
		return 0
	}
	if n == 0 {
		if head != columnsVersion || r.i < len(r.b) {
			r.fail("nothing after a count of 0")
		}
		return 0
	}
	q, u := unzigzag(r.uvarint()), int64(timeUnits[unit])
	r.first = q * u
	if r.first/u != q || unitOf(abs(r.first), 0) != unit {
		r.fail("the first time, in the largest unit that divides it")
	}
	if n == 1 {
		if spanUnit != 0 {
			r.fail("no unit of a span, for one measurement")
		}
		return 1
	}
	span, su := r.uvarint(), timeUnits[spanUnit]
	if span > math.MaxUint64/su || unitOf(span*su, 0) != spanUnit || span*su > uint64(math.MaxInt64)-uint64(r.first) {
		r.fail("a span of times that ends in 2262 or before, in the largest unit that divides it")
		return 0
	}
	r.span = span * su
	return int(n)
}

// readColumn reads a column into out, whose rest is for the columns after it;
// prev is the column before. It returns the count.
func (r *columnsReader) readColumn(prev, out []carnet.Measurement) int {
	n := r.bytes(r.uvarint(), r.d.limits.Name, "a name")
	if r.err != "" {
		return 0
	}
	name, err := r.d.resolveName(nil, n)
	if err != nil {
		r.fail("a name as RFC 8428 §4.5.1 has it")
	}
	unit := r.unit()
	head := r.byte()
	count := len(out)
	if head&headLast == 0 {
		c := r.uvarint()
		if c == 0 || c >= uint64(len(out)) {
			r.fail("a count that leaves something for the last column")
			return 0
		}
		count = int(c)
	}
	if r.err != "" {
		return 0
	}
	out = out[:count]
	kind := carnet.Kind(head & headKind)
	for i := range out {
		out[i] = carnet.Measurement{Name: name, Unit: unit, Value: carnet.Value{Kind: kind}}
	}
	r.times(prev, out, head)
	form := head >> formShift
	switch {
	case kind == carnet.Number:
		r.numbers(out, form)
	case form != 0:
		r.fail("a form for numbers only")
	case kind == carnet.Boolean:
		r.booleans(out)
	case kind == carnet.Text || kind == carnet.Data:
		r.texts(out, kind)
	default:
		r.fail("a kind from 1 to 4")
	}
	return count
}

func (r *columnsReader) unit() string {
	code := r.uvarint()
	switch {
	case code == 0:
		return ""
	case code <= uint64(len(commonUnits)):
		return commonUnits[code-1]
	case code <= literalUnit:
		r.fail("a known unit")
		return ""
	}
	u := r.bytes(code-literalUnit, r.d.limits.Name, "a unit")
	s, err := r.d.resolveUnit(u)
	if err != nil || unitCodes[s] != 0 {
		r.fail("a unit without control characters and without a code")
	}
	return s
}

func (r *columnsReader) times(prev, out []carnet.Measurement, head byte) {
	if head&headSameTime != 0 {
		if r.span == 0 || len(prev) != len(out) {
			r.fail("times of its own")
			return
		}
		for i := range out {
			out[i].Time = prev[i].Time
		}
		return
	}
	if r.span == 0 {
		for i := range out {
			out[i].Time = r.first
		}
		r.sawFirst, r.sawLast = true, true
		return
	}
	t := r.byte()
	if t&^(timeUnit|timeStep) != 0 || t&timeStep != 0 && len(out) < 2 {
		r.fail("a time byte")
		return
	}
	unit := int(t & timeUnit)
	q := r.uvarint()
	if t&timeStep != 0 {
		r.stepTimes(out, unit, q)
	} else {
		r.deltaTimes(out, unit, q)
	}
	if r.err == "" && len(prev) == len(out) && sameTimes(prev, out) {
		r.fail("the same times by reference")
	}
}

func sameTimes(a, b []carnet.Measurement) bool {
	for i := range a {
		if a[i].Time != b[i].Time {
			return false
		}
	}
	return true
}

// setTime puts the time at q units; false when it's beyond the span.
func (r *columnsReader) setTime(m *carnet.Measurement, q, u, maxQ uint64) bool {
	if q > maxQ {
		r.fail("a time within the span")
		return false
	}
	o := q * u
	m.Time = int64(uint64(r.first) + o)
	r.sawFirst = r.sawFirst || o == 0
	r.sawLast = r.sawLast || o == r.span
	return true
}

func (r *columnsReader) stepTimes(out []carnet.Measurement, unit int, q uint64) {
	u := timeUnits[unit]
	maxQ := r.span / u
	step := uint64(unzigzag(r.uvarint()))
	if unit > 0 && q%1000 == 0 && int64(step)%1000 == 0 {
		r.fail("the largest unit that divides all times")
		return
	}
	for i := range out {
		if !r.setTime(&out[i], q, u, maxQ) {
			return
		}
		q += step
	}
}

func (r *columnsReader) deltaTimes(out []carnet.Measurement, unit int, q uint64) {
	u := timeUnits[unit]
	maxQ := r.span / u
	if !r.setTime(&out[0], q, u, maxQ) {
		return
	}
	coarse := q%1000 == 0 // all could be in a larger unit
	steady := true
	var step uint64
	for i := 1; i < len(out); i++ {
		delta := uint64(unzigzag(r.uvarint()))
		if i == 1 {
			step = delta
		}
		steady = steady && delta == step
		q += delta
		if !r.setTime(&out[i], q, u, maxQ) {
			return
		}
		coarse = coarse && q%1000 == 0
	}
	if coarse && unit > 0 {
		r.fail("the largest unit that divides all times")
	}
	if steady && len(out) > 1 {
		r.fail("equal steps written once")
	}
}

func (r *columnsReader) numbers(out []carnet.Measurement, form byte) {
	switch form {
	case formFloat32, formFloat64:
		r.floats(out, form)
		return
	}
	places := int(form)
	if form == formPlaces {
		if places = int(r.byte()); places < formPlaces || places > maxPlaces {
			r.fail("from 5 to 15 places")
			return
		}
	}
	least := places == 0 // no fewer places would do
	m, scale := int64(0), floatPow10[places]
	for i := range out {
		delta := unzigzag(r.uvarint())
		if delta >= 2*maxDecimal || delta <= -2*maxDecimal {
			r.fail("decimals of at most 15 digits")
			return
		}
		m += delta
		if m >= maxDecimal || m <= -maxDecimal {
			r.fail("decimals of at most 15 digits")
			return
		}
		least = least || m%10 != 0
		if places == 0 {
			out[i].Value.Num = float64(m)
		} else {
			out[i].Value.Num = float64(m) / scale
		}
	}
	if !least {
		r.fail("the fewest places")
	}
}

func (r *columnsReader) floats(out []carnet.Measurement, form byte) {
	size := 8
	if form == formFloat32 {
		size = 4
	}
	b := r.bytes(uint64(size)*uint64(len(out)), len(r.b), "a float for each measurement")
	if r.err != "" {
		return
	}
	r.vals = r.vals[:0]
	for i := range out {
		var v float64
		if size == 4 {
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		} else {
			v = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			r.fail("numbers, neither NaN nor infinite")
			return
		}
		out[i].Value.Num = v
		r.vals = append(r.vals, v)
	}
	if want, _ := numberForm(r.vals); want != form {
		r.fail("the shortest form that holds the numbers")
	}
}

func (r *columnsReader) booleans(out []carnet.Measurement) {
	n := (len(out) + 7) / 8
	b := r.bytes(uint64(n), len(r.b), "a bit for each measurement")
	if r.err != "" {
		return
	}
	for i := range out {
		out[i].Value.Num = float64(b[i>>3] >> (i & 7) & 1)
	}
	if rest := len(out) & 7; rest != 0 && b[n-1]>>rest != 0 {
		r.fail("zeros after the last boolean")
	}
}

func (r *columnsReader) texts(out []carnet.Measurement, kind carnet.Kind) {
	for i := range out {
		b := r.bytes(r.uvarint(), r.d.limits.Text, "a value")
		if r.err != "" {
			return
		}
		if kind == carnet.Text && !utf8.Valid(b) {
			r.fail("text in UTF-8")
			return
		}
		out[i].Value.Str = r.d.text(b)
	}
}
