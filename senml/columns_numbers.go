package senml

import (
	"encoding/binary"
	"math"
)

// How numbers are read and written: decimals where all of a column are, else
// floats of 4 or 8 bytes.

// Decimals have at most 15 digits: such a decimal is told from every other by
// its float64, so the places of a column are determined by its values.
const (
	maxPlaces  = 15
	maxDecimal = 1e15
)

// decimalPlaces is the least number of places with which all vals are decimals,
// bit for bit; ok is false when there is none.
func decimalPlaces(vals []float64) (places int, ok bool) {
	largest := 0.0
	for _, v := range vals {
		for !isDecimal(v, places) {
			if places++; places > maxPlaces {
				return 0, false
			}
		}
		largest = max(largest, math.Abs(v))
	}
	return places, largest*floatPow10[places] < maxDecimal
}

func isDecimal(v float64, places int) bool {
	f := v * floatPow10[places]
	if !(f < maxDecimal && f > -maxDecimal) {
		return false
	}
	return math.Float64bits(fromDecimal(roundInt(f), places)) == math.Float64bits(v)
}

// roundInt rounds f, of at most maxDecimal, to the nearest integer.
func roundInt(f float64) int64 {
	if f < 0 {
		return int64(f - 0.5)
	}
	return int64(f + 0.5)
}

// fromDecimal is the float64 nearest to m / 10^places: both are exact, so the
// division rounds once.
func fromDecimal(m int64, places int) float64 { return float64(m) / floatPow10[places] }

func isFloat32(v float64) bool { return float64(float32(v)) == v }

func allFloat32(vals []float64) bool {
	for _, v := range vals {
		if !isFloat32(v) {
			return false
		}
	}
	return true
}

// numbers reads the numbers of a column into c.
func (r *columnsReader) numbers(c *column, form byte) {
	c.nums = resize(r.d.columns.nums, c.count)
	r.d.columns.nums = c.nums
	places := int(form)
	switch form {
	case formFloat32:
		r.floats32(c.nums)
	case formFloat64:
		r.floats64(c.nums)
	case formPlaces:
		if places = int(r.byte()); places < formPlaces || places > maxPlaces {
			r.fail("from 5 to 15 places")
			return
		}
		fallthrough
	default:
		r.decimals(c.nums, places)
	}
}

func (r *columnsReader) decimals(nums []float64, places int) {
	deltas := r.uvarints(len(nums))
	if r.err != "" {
		return
	}
	fewest := places == 0 // no fewer places would do
	// A sum that goes around the range of numbers leaves these bounds, too: two
	// decimals within them never differ by that much.
	m, least, most := int64(0), int64(0), int64(0)
	scale := floatPow10[places]
	for i, delta := range deltas {
		m += unzigzag(delta)
		least, most = min(least, m), max(most, m)
		fewest = fewest || m%10 != 0
		nums[i] = float64(m)
		if places > 0 {
			nums[i] /= scale
		}
	}
	if most >= maxDecimal || least <= -maxDecimal {
		r.fail("decimals of at most 15 digits")
	}
	if !fewest {
		r.fail("the fewest places")
	}
}

func (r *columnsReader) floats32(nums []float64) {
	b := r.bytes(4*uint64(len(nums)), len(r.b), "a float for each measurement")
	if r.err != "" {
		return
	}
	for i := range nums {
		nums[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		b = b[4:]
	}
	r.checkFloats(nums, formFloat32)
}

func (r *columnsReader) floats64(nums []float64) {
	b := r.bytes(8*uint64(len(nums)), len(r.b), "a float for each measurement")
	if r.err != "" {
		return
	}
	for i := range nums {
		nums[i] = math.Float64frombits(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	r.checkFloats(nums, formFloat64)
}

func (r *columnsReader) checkFloats(nums []float64, form byte) {
	finite := true
	for _, v := range nums {
		finite = finite && v-v == 0
	}
	if !finite {
		r.fail("numbers, neither NaN nor infinite")
		return
	}
	if want, _ := numberForm(nums); want != form {
		r.fail("the shortest form that holds the numbers")
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
