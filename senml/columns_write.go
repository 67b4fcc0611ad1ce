package senml

import (
	"encoding/binary"
	"math"
	"slices"

	"carnet"
)

// AppendColumns appends ms in the column form: grouped by name, unit and kind
// in the order of first appearance, with the order inside a group kept.
// Measurements must be such that Check accepts them; this function can't fail,
// and a reader refuses what Check does.
func AppendColumns(dst []byte, ms []carnet.Measurement) []byte {
	w := columnsWriter{dst: dst, ms: ms}
	w.header()
	if len(ms) == 1 {
		w.next = []int32{-1}
		w.column(0, true)
	} else if len(ms) > 1 {
		w.columns()
	}
	return w.dst
}

// grouping strings the measurements of each column together.
type grouping struct {
	ms    []carnet.Measurement
	next  []int32 // the following measurement of the same column, -1 at the end
	heads []int32 // the first measurement of each column
	tails []int32 // the last so far
	index map[columnKey]int32
}

type columnKey struct {
	name, unit string
	kind       carnet.Kind
}

func keyOf(m *carnet.Measurement) columnKey { return columnKey{m.Name, m.Unit, m.Value.Kind} }

func sameColumn(a, b *carnet.Measurement) bool {
	return a.Value.Kind == b.Value.Kind && a.Name == b.Name && a.Unit == b.Unit
}

// fewColumns are searched one by one; more are kept in a map.
const fewColumns = 32

func (g *grouping) group() {
	at := 0
	for i := range g.ms {
		g.next[i] = -1
		// Devices send their properties in turn or one after the other.
		if i > 0 && !g.in(at, i) {
			if at++; at == len(g.heads) {
				at = 0
			}
		}
		if i == 0 || !g.in(at, i) {
			at = g.find(i)
		}
		if at == len(g.heads) {
			g.heads, g.tails = append(g.heads, int32(i)), append(g.tails, int32(i))
			continue
		}
		g.next[g.tails[at]] = int32(i)
		g.tails[at] = int32(i)
	}
}

// in says whether measurement i belongs to column c.
func (g *grouping) in(c, i int) bool { return sameColumn(&g.ms[g.heads[c]], &g.ms[i]) }

// find is the column of measurement i, len(heads) for a new one.
func (g *grouping) find(i int) int {
	if len(g.heads) < fewColumns {
		for c := range g.heads {
			if g.in(c, i) {
				return c
			}
		}
		return len(g.heads)
	}
	if g.index == nil {
		g.index = make(map[columnKey]int32, 2*fewColumns)
		for c, head := range g.heads {
			g.index[keyOf(&g.ms[head])] = int32(c)
		}
	}
	key := keyOf(&g.ms[i])
	c, ok := g.index[key]
	if !ok {
		c = int32(len(g.heads))
		g.index[key] = c
	}
	return int(c)
}

type columnsWriter struct {
	dst   []byte
	ms    []carnet.Measurement
	next  []int32 // as grouping has it
	first int64
	span  uint64
	prev  []int64 // times of the column before
	times [2][128]int64
	flip  int
	vals  [128]float64
}

func (w *columnsWriter) uvarint(u uint64) { w.dst = binary.AppendUvarint(w.dst, u) }

// columns groups and writes; small batches take no memory for it.
func (w *columnsWriter) columns() {
	var next [128]int32
	var heads, tails [fewColumns]int32
	g := grouping{ms: w.ms, next: next[:], heads: heads[:0], tails: tails[:0]}
	if len(w.ms) > len(next) {
		g.next = make([]int32, len(w.ms))
	}
	g.group()
	w.next = g.next
	for i, head := range g.heads {
		w.column(head, i == len(g.heads)-1)
	}
}

func (w *columnsWriter) header() {
	ms := w.ms
	if len(ms) == 0 {
		w.dst = append(w.dst, columnsVersion, 0)
		return
	}
	first, last := ms[0].Time, ms[0].Time
	for i := range ms {
		first, last = min(first, ms[i].Time), max(last, ms[i].Time)
	}
	w.first, w.span = first, uint64(last)-uint64(first)
	unit, spanUnit := unitOf(abs(first), 0), 0
	if len(ms) > 1 {
		spanUnit = unitOf(w.span, 0)
	}
	w.dst = append(w.dst, columnsVersion|byte(spanUnit)<<2|byte(unit))
	w.uvarint(uint64(len(ms)))
	w.uvarint(zigzag(first / int64(timeUnits[unit])))
	if len(ms) > 1 {
		w.uvarint(w.span / timeUnits[spanUnit])
	}
}

// abs works for the least int64, too.
func abs(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// column writes the column that starts with measurement first.
func (w *columnsWriter) column(first int32, last bool) {
	m := &w.ms[first]
	w.uvarint(uint64(len(m.Name)))
	w.dst = append(w.dst, m.Name...)
	if code := unitCodes[m.Unit]; code != 0 || m.Unit == "" {
		w.dst = append(w.dst, code)
	} else {
		w.uvarint(literalUnit + uint64(len(m.Unit)))
		w.dst = append(w.dst, m.Unit...)
	}
	kind := m.Value.Kind
	times, vals := w.times[w.flip][:0], w.vals[:0]
	for i := first; i >= 0; i = w.next[i] {
		times = append(times, w.ms[i].Time)
		if kind == carnet.Number {
			vals = append(vals, w.ms[i].Value.Num)
		}
	}
	form, places := byte(0), 0
	if kind == carnet.Number {
		form, places = numberForm(vals)
	}
	head := byte(kind)&headKind | form<<formShift
	if last {
		head |= headLast
	}
	if w.span > 0 && slices.Equal(times, w.prev) {
		head |= headSameTime
	}
	w.prev, w.flip = times, 1-w.flip
	w.dst = append(w.dst, head)
	if !last {
		w.uvarint(uint64(len(times)))
	}
	if w.span > 0 && head&headSameTime == 0 {
		w.columnTimes(times)
	}
	switch kind {
	case carnet.Number:
		w.numbers(vals, form, places)
	case carnet.Boolean:
		w.booleans(first)
	default:
		for i := first; i >= 0; i = w.next[i] {
			w.uvarint(uint64(len(w.ms[i].Value.Str)))
			w.dst = append(w.dst, w.ms[i].Value.Str...)
		}
	}
}

// columnTimes writes the offsets of the times from the first of the batch.
func (w *columnsWriter) columnTimes(times []int64) {
	unit := 0
	for _, t := range times {
		unit = unitOf(uint64(t)-uint64(w.first), unit)
	}
	u := timeUnits[unit]
	q := (uint64(times[0]) - uint64(w.first)) / u
	if len(times) == 1 {
		w.dst = append(w.dst, byte(unit))
		w.uvarint(q)
		return
	}
	at := len(w.dst)
	w.dst = append(w.dst, byte(unit))
	w.uvarint(q)
	var step uint64
	steady := true
	for i, t := range times[1:] {
		next := (uint64(t) - uint64(w.first)) / u
		if i == 0 {
			step = next - q
		}
		steady = steady && next-q == step
		w.uvarint(zigzag(int64(next - q)))
		q = next
	}
	if steady {
		w.dst = append(w.dst[:at], byte(unit)|timeStep)
		w.uvarint((uint64(times[0]) - uint64(w.first)) / u)
		w.uvarint(zigzag(int64(step)))
	}
}

// numberForm picks the form of a number column.
func numberForm(vals []float64) (form byte, places int) {
	places, ok := decimalPlaces(vals)
	switch {
	case ok && places < formPlaces:
		return byte(places), places
	case ok:
		return formPlaces, places
	case allFloat32(vals):
		return formFloat32, 0
	}
	return formFloat64, 0
}

func (w *columnsWriter) numbers(vals []float64, form byte, places int) {
	switch form {
	case formFloat32:
		for _, v := range vals {
			w.dst = binary.LittleEndian.AppendUint32(w.dst, math.Float32bits(float32(v)))
		}
		return
	case formFloat64:
		for _, v := range vals {
			w.dst = binary.LittleEndian.AppendUint64(w.dst, math.Float64bits(v))
		}
		return
	case formPlaces:
		w.dst = append(w.dst, byte(places))
	}
	scale, prev := floatPow10[places], int64(0)
	for _, v := range vals {
		m := roundInt(v * scale)
		w.uvarint(zigzag(m - prev))
		prev = m
	}
}

func (w *columnsWriter) booleans(first int32) {
	n := 0
	for i := first; i >= 0; i = w.next[i] {
		if n&7 == 0 {
			w.dst = append(w.dst, 0)
		}
		if w.ms[i].Value.Num != 0 {
			w.dst[len(w.dst)-1] |= 1 << (n & 7)
		}
		n++
	}
}
