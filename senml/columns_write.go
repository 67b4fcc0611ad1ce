package senml

import (
	"encoding/binary"
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
	var keysOf [fewColumns]columnKey
	var timesOf, prevOf [smallBatch]int64
	var numsOf [smallBatch]float64
	next, times, prev, nums := nextOf[:], timesOf[:0], prevOf[:0], numsOf[:0]
	if len(ms) > smallBatch {
		next, times, nums = make([]int32, len(ms)), make([]int64, 0, len(ms)), make([]float64, 0, len(ms))
	}
	heads := group(ms, next, headsOf[:0], tailsOf[:0], keysOf[:0])
	for c, first := range heads {
		kind := ms[first].Value.Kind
		times, nums = times[:0], nums[:0]
		for i := first; i >= 0; i = next[i] {
			times, nums = append(times, ms[i].Time), append(nums, ms[i].Value.Num)
		}
		form, places := byte(0), 0
		if kind == carnet.Number {
			form, places = numberForm(nums)
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
			dst = appendNumbers(dst, nums, form, places)
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
func group(ms []carnet.Measurement, next, heads, tails []int32, keys []columnKey) []int32 {
	var index columnIndex
	at := 0
	for i := range ms {
		m := &ms[i]
		next[i] = -1
		// Devices send their properties in turn or one after the other.
		if i == 0 || !keys[at].of(m) {
			if at++; at >= len(heads) {
				at = 0
			}
			if i == 0 || !keys[at].of(m) {
				at = index.find(keys, columnKey{m.Name, m.Unit, m.Value.Kind})
			}
		}
		if at == len(heads) {
			heads, tails, keys = append(heads, int32(i)), append(tails, int32(i)), append(keys, columnKey{m.Name, m.Unit, m.Value.Kind})
			continue
		}
		next[tails[at]] = int32(i)
		tails[at] = int32(i)
	}
	return heads
}

// columnKey is what a batch has one column of.
type columnKey struct {
	name, unit string
	kind       carnet.Kind
}

// of reports whether m belongs into the column.
func (k *columnKey) of(m *carnet.Measurement) bool {
	return k.kind == m.Value.Kind && k.name == m.Name && k.unit == m.Unit
}

// columnIndex finds columns when there are too many to look at each.
type columnIndex map[columnKey]int32

// find is the place of a column among those there are, or the place after the
// last, where the caller then adds it.
func (x *columnIndex) find(keys []columnKey, key columnKey) int {
	if len(keys) < fewColumns {
		for c := range keys {
			if keys[c] == key {
				return c
			}
		}
		return len(keys)
	}
	if *x == nil {
		*x = make(columnIndex, 2*fewColumns)
		for c, key := range keys {
			(*x)[key] = int32(c)
		}
	}
	c, ok := (*x)[key]
	if !ok {
		c = int32(len(keys))
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
