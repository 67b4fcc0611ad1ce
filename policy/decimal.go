package policy

import (
	"math"
	"math/bits"
	"strconv"
	"strings"

	"carnet"
)

// Decimal is an exact positive decimal number in billionths: 5 is 5*One. Zero
// means that nothing was said.
type Decimal int64

// One is the Decimal 1.
const One Decimal = 1e9

// ParseDecimal reads digits with at most nine decimals, greater than zero, and
// without sign or exponent.
func ParseDecimal(s string) (Decimal, error) {
	whole, frac, dotted := strings.Cut(s, ".")
	if whole == "" || dotted && frac == "" || len(frac) > 9 || strings.Trim(whole+frac, "0123456789") != "" {
		return 0, carnet.Errorf(carnet.Malformed, "number %q: want digits with at most nine decimals, without sign or exponent", s)
	}
	n, err := strconv.ParseInt(whole+frac+"000000000"[len(frac):], 10, 64)
	if err != nil || n == 0 {
		return 0, carnet.Errorf(carnet.Malformed, "number %q: want more than 0 and at most 9223372036", s)
	}
	return Decimal(n), nil
}

// String writes the shortest form that ParseDecimal reads.
func (d Decimal) String() string {
	s := strconv.FormatInt(int64(d/One), 10)
	if d%One == 0 {
		return s
	}
	frac := strconv.FormatInt(int64(One+d%One), 10)[1:]
	return s + "." + strings.TrimRight(frac, "0")
}

// MarshalJSON writes d as a number.
func (d Decimal) MarshalJSON() ([]byte, error) { return []byte(d.String()), nil }

// fraction returns d as c/p with p the smallest power of ten for which c is
// whole.
func (d Decimal) fraction() (c, p float64) {
	num, den := int64(d), int64(One)
	for den > 1 && num%10 == 0 {
		num, den = num/10, den/10
	}
	return float64(num), float64(den)
}

// Float returns the float64 nearest to d.
func (d Decimal) Float() float64 {
	f, _ := strconv.ParseFloat(d.String(), 64) // String writes a number
	return f
}

// lcm returns the least common multiple of a and b, and ok false when it is
// too large for a Decimal. A zero says nothing.
func lcm(a, b Decimal) (m Decimal, ok bool) {
	if a == 0 || b == 0 {
		return max(a, b), true
	}
	x, y := a, b
	for y != 0 {
		x, y = y, x%y
	}
	hi, lo := bits.Mul64(uint64(a/x), uint64(b))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, false
	}
	return Decimal(lo), true
}

// rounding is a step compiled for the hot path; the zero rounding leaves
// values alone.
type rounding struct{ c, p float64 }

// maxExact bounds the whole numbers that a float64 holds exactly.
const maxExact = 1 << 53

// round returns the multiple of the step nearest to v, ties away from zero,
// as the float64 nearest to that decimal; ok is false where float64 has no
// such precision, and for NaN and infinities.
func (r rounding) round(v float64) (_ float64, ok bool) {
	k := math.Round(float64(v*r.p)/r.c) * r.c
	if !(math.Abs(k) <= maxExact) {
		return 0, false
	}
	return k/r.p + 0, true // + 0 turns -0 into 0
}
