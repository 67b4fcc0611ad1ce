package senml

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"

	"carnet"
)

// columnsReader reads one batch in the column form, a column at a time, into the
// decoder's scratch. The first failure stays; after it every read gives zeros.
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
	index             columnIndex
}

// column is a column that was read, with all that it says checked. What it holds
// lies in the decoder's scratch until the next is read.
type column struct {
	columnKey
	count int
	times []int64   // nil: all are the first of the batch
	nums  []float64 // numbers and booleans
	texts []extent  // texts and data
}

// extent is where a value lies in the batch.
type extent struct{ from, to int }

// columnScratch is memory that one batch after the other is read into.
type columnScratch struct {
	keys        []columnKey
	raw         []uint64
	times, prev []int64
	nums        []float64
	texts       []extent
}

// decodeColumns appends what a batch holds to dst.
func (d *Decoder) decodeColumns(dst []carnet.Measurement, data []byte) ([]carnet.Measurement, error) {
	r := columnsReader{d: d, b: data}
	n, err := r.begin()
	if err != nil {
		return dst, err
	}
	start := len(dst)
	out := slices.Grow(dst, n)[:start+n]
	for rest := out[start:]; len(rest) > 0; {
		c := r.next(len(rest))
		if r.err != "" {
			break
		}
		r.fill(rest[:c.count], &c)
		rest = rest[c.count:]
	}
	if r.end(); r.err != "" {
		clear(out[start:]) // hold no strings behind the caller's back
		return dst, r.failure()
	}
	return out, nil
}

// CheckColumns refuses what Decode refuses of data in the column form, and
// answers what ColumnsRange does, proved, without making measurements.
func (d *Decoder) CheckColumns(data []byte) (count int, first, last int64, err error) {
	if err := d.checkSize(data); err != nil {
		return 0, 0, 0, err
	}
	r := columnsReader{d: d, b: data}
	if count, err = r.begin(); err != nil {
		return 0, 0, 0, err
	}
	for rest := count; rest > 0 && r.err == ""; {
		rest -= r.next(rest).count
	}
	if r.end(); r.err != "" {
		return 0, 0, 0, r.failure()
	}
	return count, r.first, r.last(), nil
}

// begin reads the head of the batch and returns the count.
func (r *columnsReader) begin() (int, error) {
	n := r.header()
	if r.err != "" {
		return 0, r.failure()
	}
	if limit := r.d.limits.Records; n > limit {
		return 0, carnet.Errorf(carnet.TooLarge, "the batch has %d measurements, the limit is %d", n, limit)
	}
	r.d.columns.keys = r.d.columns.keys[:0]
	return n, nil
}

// end refuses what only the whole batch shows.
func (r *columnsReader) end() {
	if r.i < len(r.b) {
		r.fail("nothing after the last column")
	}
	if r.span > 0 && !(r.sawFirst && r.sawLast) {
		r.fail("the first and the last time that the header names")
	}
}

func (r *columnsReader) last() int64 { return int64(uint64(r.first) + r.span) }

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

const shortest = "a variable-length integer of at most 64 bits in its shortest form"

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
		r.fail(shortest)
		r.i = len(r.b)
		return 0
	}
	r.i += n
	return u
}

// uvarints reads n of them into the scratch. Most bytes of a batch go through
// here, so up to eight are taken at once, and one is first looked at as if it
// were as long as the one before: the next then needn't wait for its length.
func (r *columnsReader) uvarints(n int) []uint64 {
	const more = 0x8080808080808080
	raw := resize(r.d.columns.raw, n)
	r.d.columns.raw = raw
	b, i := r.b, r.i
	end, size := uint64(1<<15), 2 // the high bit of the last byte, and how many there are
	for k := range raw {
		if i < len(b) && b[i] < 0x80 {
			raw[k] = uint64(b[i])
			i++
			continue
		}
		var w uint64
		if len(b)-i >= 8 {
			w = ^binary.LittleEndian.Uint64(b[i:])
		}
		if ends := w & more; ends&-ends != end {
			if ends == 0 { // near the end of the batch, or longer
				r.i = i
				raw[k] = r.uvarint()
				i = r.i
				continue
			}
			end, size = ends&-ends, bits.TrailingZeros64(ends)>>3+1
		}
		u := sevenBits(^w & (end - 1) &^ more)
		if u>>(7*size-7) == 0 {
			r.fail(shortest)
		}
		raw[k] = u
		i += size
	}
	r.i = i
	return raw
}

// sevenBits moves the low seven bits of each byte together, pair by pair.
func sevenBits(u uint64) uint64 {
	u = u&0x007f007f007f007f | u&0x7f007f007f007f00>>1
	u = u&0x00003fff00003fff | u&0x3fff00003fff0000>>2
	return u&0x000000000fffffff | u&0x0fffffff00000000>>4
}

// resize makes s as long as n; what is in it stays undefined.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
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

// next reads a column, when rest measurements remain. After a failure its count
// is of no meaning.
func (r *columnsReader) next(rest int) (c column) {
	n := r.bytes(r.uvarint(), r.d.limits.Name, "a name")
	if r.err != "" {
		return c
	}
	var err error
	if c.name, err = r.d.resolveName(nil, n); err != nil {
		r.fail("a name as RFC 8428 §4.5.1 has it")
	}
	c.unit = r.unit()
	head := r.byte()
	c.kind = carnet.Kind(head & headKind)
	if c.count = rest; head&headLast == 0 {
		n := r.uvarint()
		if n == 0 || n >= uint64(rest) {
			r.fail("a count that leaves something for the last column")
		}
		c.count = int(n)
	}
	if r.err != "" {
		return c
	}
	r.times(&c, head)
	r.values(&c, head>>formShift)
	if keys := &r.d.columns.keys; r.err == "" && r.index.find(*keys, c.columnKey) < len(*keys) {
		r.fail("each column once")
	} else {
		*keys = append(*keys, c.columnKey)
	}
	if r.err == "" {
		r.column++
	}
	return c
}

func (r *columnsReader) values(c *column, form byte) {
	switch {
	case r.err != "":
	case c.kind == carnet.Number:
		r.numbers(c, form)
	case form != 0:
		r.fail("a form for numbers only")
	case c.kind == carnet.Boolean:
		r.booleans(c)
	case c.kind == carnet.Text || c.kind == carnet.Data:
		r.texts(c)
	default:
		r.fail("a kind from 1 to 4")
	}
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

// fill makes measurements of a column.
func (r *columnsReader) fill(out []carnet.Measurement, c *column) {
	for i := range out {
		m := &out[i]
		m.Name, m.Unit, m.Time, m.Value.Kind = c.name, c.unit, r.first, c.kind
		if c.nums != nil {
			m.Value.Num, m.Value.Str = c.nums[i], ""
		} else {
			m.Value.Num, m.Value.Str = 0, r.d.text(r.b[c.texts[i].from:c.texts[i].to])
		}
	}
	if c.times != nil {
		for i, t := range c.times {
			out[i].Time = t
		}
	}
}

func (r *columnsReader) booleans(c *column) {
	n := (c.count + 7) / 8
	b := r.bytes(uint64(n), len(r.b), "a bit for each measurement")
	if r.err != "" {
		return
	}
	c.nums = resize(r.d.columns.nums, c.count)
	r.d.columns.nums = c.nums
	for i := range c.nums {
		c.nums[i] = float64(b[i>>3] >> (i & 7) & 1)
	}
	if rest := c.count & 7; rest != 0 && b[n-1]>>rest != 0 {
		r.fail("zeros after the last boolean")
	}
}

func (r *columnsReader) texts(c *column) {
	c.texts = resize(r.d.columns.texts, c.count)
	r.d.columns.texts = c.texts
	for i := range c.texts {
		b := r.bytes(r.uvarint(), r.d.limits.Text, "a value")
		if r.err != "" {
			return
		}
		if c.kind == carnet.Text && !utf8.Valid(b) {
			r.fail("text in UTF-8")
			return
		}
		c.texts[i] = extent{r.i - len(b), r.i}
	}
}
