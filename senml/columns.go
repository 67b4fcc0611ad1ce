package senml

import "math"

// The column form (docs/design/senml.md). Content has one encoding only: of the
// choices below a writer makes the first that fits, and a reader refuses any
// other.
const columnsVersion = 0x10 // high half of the first byte

// The head byte of a column.
const (
	headKind     = 0x07 // carnet.Kind
	headLast     = 0x08 // the last column: its count is what remains
	headSameTime = 0x10 // the times of the column before
	headForm     = 0xe0 // how numbers are written
	formShift    = 5
)

// Forms of a number column: decimals with 0 to 4 places, decimals with their
// places in a byte, float32, float64.
const (
	formPlaces  = 5
	formFloat32 = 6
	formFloat64 = 7
)

// The time byte of a column.
const (
	timeUnit = 0x03 // index into timeUnits
	timeStep = 0x04 // all steps are equal and written once
)

// timeUnits in nanoseconds, the largest first: s, ms, µs, ns.
var timeUnits = [4]uint64{1e9, 1e6, 1e3, 1}

// unitOf is the index of the largest unit that divides t and isn't larger than
// the one at index from.
func unitOf(t uint64, from int) int {
	switch { // constant divisors are multiplications
	case from == 0 && t%1e9 == 0:
		return 0
	case from <= 1 && t%1e6 == 0:
		return 1
	case from <= 2 && t%1e3 == 0:
		return 2
	}
	return 3
}

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

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// ColumnsRange says what the first bytes of data in the column form announce:
// how many measurements, and their first and last time (0 and 0 when there are
// none). Only Decode proves it.
func ColumnsRange(data []byte) (count int, first, last int64, err error) {
	r := columnsReader{b: data}
	n := r.header()
	if r.err != "" {
		return 0, 0, 0, r.failure()
	}
	return n, r.first, int64(uint64(r.first) + r.span), nil
}
