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
	dst, span := appendColumnsHeader(dst, ms)
	switch len(ms) {
	case 0:
		return dst
	case 1:
		dst = appendColumnHead(dst, &ms[0], headLast, 1)
		return appendOne(dst, &ms[0])
	}
	return appendGroups(dst, ms, span)
}

// appendGroups writes all columns. Batches of up to smallBatch in few columns
// are grouped on the stack; that's why slices here are passed and returned, and
// never stored.
func appendGroups(dst []byte, ms []carnet.Measurement, span timeSpan) []byte {
	var nextOf [smallBatch]int32
	var headsOf, tailsOf [fewColumns]int32
	var timesOf, prevOf [smallBatch]int64
	var valsOf [smallBatch]float64
	next, times, prev, vals := nextOf[:], timesOf[:0], prevOf[:0], valsOf[:0]
	if len(ms) > len(next) {
		next = make([]int32, len(ms))
	}
	heads := group(ms, next, headsOf[:0], tailsOf[:0])
	for c, first := range heads {
		kind := ms[first].Value.Kind
		times, vals = times[:0], vals[:0]
		for i := first; i >= 0; i = next[i] {
			times = append(times, ms[i].Time)
			if kind == carnet.Number {
				vals = append(vals, ms[i].Value.Num)
			}
		}
		form, places := byte(0), 0
		if kind == carnet.Number {
			form, places = numberForm(vals)
		}
		head := form << formShift
		if c == len(heads)-1 {
			head |= headLast
		}
		if span.length > 0 && slices.Equal(times, prev) {
			head |= headSameTime
		}
		dst = appendColumnHead(dst, &ms[first], head, len(times))
		if span.length > 0 && head&headSameTime == 0 {
			dst = appendTimes(dst, times, span.first)
		}
		if kind == carnet.Number {
			dst = appendNumbers(dst, vals, form, places)
		} else {
			dst = appendOthers(dst, ms, next, first)
		}
		times, prev = prev, times
	}
	return dst
}

// smallBatch measurements and fewColumns are what grouping does without
// allocating.
const (
	smallBatch = 128
	fewColumns = 32
)

// group strings the measurements of each column together: it fills next with
// the following measurement of the same column, -1 at the end, and returns the
// first of each column.
func group(ms []carnet.Measurement, next, heads, tails []int32) []int32 {
	var index columnIndex
	at := 0
	for i := range ms {
		next[i] = -1
		// Devices send their properties in turn or one after the other.
		if i > 0 && !sameColumn(&ms[heads[at]], &ms[i]) {
			if at++; at == len(heads) {
				at = 0
			}
		}
		if i == 0 || !sameColumn(&ms[heads[at]], &ms[i]) {
			at = index.find(ms, heads, i)
		}
		if at == len(heads) {
			heads, tails = append(heads, int32(i)), append(tails, int32(i))
			continue
		}
		next[tails[at]] = int32(i)
		tails[at] = int32(i)
	}
	return heads
}

func sameColumn(a, b *carnet.Measurement) bool {
	return a.Value.Kind == b.Value.Kind && a.Name == b.Name && a.Unit == b.Unit
}

// columnIndex finds columns when there are too many to look at each.
type columnIndex map[columnKey]int32

type columnKey struct {
	name, unit string
	kind       carnet.Kind
}

func keyOf(m *carnet.Measurement) columnKey { return columnKey{m.Name, m.Unit, m.Value.Kind} }

// find is the column of measurement i, len(heads) for a new one, which the
// caller adds.
func (x *columnIndex) find(ms []carnet.Measurement, heads []int32, i int) int {
	if len(heads) < fewColumns {
		for c, head := range heads {
			if sameColumn(&ms[head], &ms[i]) {
				return c
			}
		}
		return len(heads)
	}
	if *x == nil {
		*x = make(columnIndex, 2*fewColumns)
		for c, head := range heads {
			(*x)[keyOf(&ms[head])] = int32(c)
		}
	}
	key := keyOf(&ms[i])
	c, ok := (*x)[key]
	if !ok {
		c = int32(len(heads))
		(*x)[key] = c
	}
	return int(c)
}

// timeSpan is what the header says of the times of a batch.
type timeSpan struct {
	first  int64
	length uint64
}

func appendColumnsHeader(dst []byte, ms []carnet.Measurement) ([]byte, timeSpan) {
	if len(ms) == 0 {
		return append(dst, columnsVersion, 0), timeSpan{}
	}
	first, last := ms[0].Time, ms[0].Time
	for i := range ms {
		first, last = min(first, ms[i].Time), max(last, ms[i].Time)
	}
	span := timeSpan{first, uint64(last) - uint64(first)}
	unit, spanUnit := unitOf(abs(first), 0), 0
	if len(ms) > 1 {
		spanUnit = unitOf(span.length, 0)
	}
	dst = append(dst, columnsVersion|byte(spanUnit)<<2|byte(unit))
	dst = appendUvarint(dst, uint64(len(ms)))
	dst = appendUvarint(dst, zigzag(first/int64(timeUnits[unit])))
	if len(ms) > 1 {
		dst = appendUvarint(dst, span.length/timeUnits[spanUnit])
	}
	return dst, span
}

// appendUvarint is small enough to be a part of its caller for one byte.
func appendUvarint(dst []byte, u uint64) []byte {
	if u < 0x80 {
		return append(dst, byte(u))
	}
	return binary.AppendUvarint(dst, u)
}

// abs works for the least int64, too.
func abs(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// appendColumnHead writes what comes before the times of a column of n
// measurements like m.
func appendColumnHead(dst []byte, m *carnet.Measurement, head byte, n int) []byte {
	dst = appendUvarint(dst, uint64(len(m.Name)))
	dst = append(dst, m.Name...)
	if code := unitCodes[m.Unit]; code != 0 || m.Unit == "" {
		dst = append(dst, code)
	} else {
		dst = appendUvarint(dst, literalUnit+uint64(len(m.Unit)))
		dst = append(dst, m.Unit...)
	}
	dst = append(dst, head|byte(m.Value.Kind)&headKind)
	if head&headLast == 0 {
		dst = appendUvarint(dst, uint64(n))
	}
	return dst
}

// appendOne completes the column of a batch of one.
func appendOne(dst []byte, m *carnet.Measurement) []byte {
	if m.Value.Kind != carnet.Number {
		return appendOthers(dst, []carnet.Measurement{*m}, []int32{-1}, 0)
	}
	vals := [1]float64{m.Value.Num}
	form, places := numberForm(vals[:])
	dst[len(dst)-1] |= form << formShift
	return appendNumbers(dst, vals[:], form, places)
}

// appendTimes writes the offsets of the times from the first of the batch.
func appendTimes(dst []byte, times []int64, first int64) []byte {
	unit := 0
	for _, t := range times {
		unit = unitOf(uint64(t)-uint64(first), unit)
	}
	u := timeUnits[unit]
	q := (uint64(times[0]) - uint64(first)) / u
	if len(times) == 1 {
		dst = append(dst, byte(unit))
		return appendUvarint(dst, q)
	}
	at := len(dst)
	dst = append(dst, byte(unit))
	dst = appendUvarint(dst, q)
	var step uint64
	steady := true
	for i, t := range times[1:] {
		next := (uint64(t) - uint64(first)) / u
		if i == 0 {
			step = next - q
		}
		steady = steady && next-q == step
		dst = appendUvarint(dst, zigzag(int64(next-q)))
		q = next
	}
	if steady {
		dst = append(dst[:at], byte(unit)|timeStep)
		dst = appendUvarint(dst, (uint64(times[0])-uint64(first))/u)
		dst = appendUvarint(dst, zigzag(int64(step)))
	}
	return dst
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

func appendNumbers(dst []byte, vals []float64, form byte, places int) []byte {
	switch form {
	case formFloat32:
		for _, v := range vals {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v)))
		}
		return dst
	case formFloat64:
		for _, v := range vals {
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
		}
		return dst
	case formPlaces:
		dst = append(dst, byte(places))
	}
	scale, prev := floatPow10[places], int64(0)
	for _, v := range vals {
		m := roundInt(v * scale)
		dst = appendUvarint(dst, zigzag(m-prev))
		prev = m
	}
	return dst
}

// appendOthers writes the values of a column of booleans, texts or data.
func appendOthers(dst []byte, ms []carnet.Measurement, next []int32, first int32) []byte {
	n := 0
	for i := first; i >= 0; i = next[i] {
		v := &ms[i].Value
		if v.Kind != carnet.Boolean {
			dst = appendUvarint(dst, uint64(len(v.Str)))
			dst = append(dst, v.Str...)
			continue
		}
		if n&7 == 0 {
			dst = append(dst, 0)
		}
		if v.Num != 0 {
			dst[len(dst)-1] |= 1 << (n & 7)
		}
		n++
	}
	return dst
}
