package senml

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

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// ColumnsRange says what the first bytes of data in the column form announce:
// how many measurements, and their first and last time (0 and 0 when there are
// none). Decode and CheckColumns prove it.
func ColumnsRange(data []byte) (count int, first, last int64, err error) {
	r := columnsReader{b: data}
	n := r.header()
	if r.err != "" {
		return 0, 0, 0, r.failure()
	}
	return n, r.first, r.last(), nil
}
