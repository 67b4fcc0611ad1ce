package senml

import (
	"math"
	"math/bits"
	"strconv"
)

// decimal is a number as its text says it: ±mant × 10^exp. Text with more than
// 19 significant digits keeps the first 19 and whether the next rounds up.
type decimal struct {
	mant    uint64
	exp     int
	neg     bool
	cut     bool // digits were left out
	roundUp bool // the first of them was 5 or more
}

const (
	maxDigits = 19   // digits that always fit a uint64
	maxExp    = 9999 // exponents beyond are all out of range
)

// Powers of ten that float64 and uint64 hold exactly.
var (
	floatPow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
		1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}
	intPow10 = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
		1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}
)

// scanNumber reads the JSON number (RFC 8259 §6) at b[i:] and returns where it
// ends, or -1 if there is none. With loose it takes what xsd:double allows
// besides: a leading '+', and a missing integer or fraction part.
func scanNumber(d *decimal, b []byte, i int, loose bool) int {
	*d = decimal{}
	if i < len(b) && (b[i] == '-' || loose && b[i] == '+') {
		d.neg = b[i] == '-'
		i++
	}
	var mant uint64
	start := i
	for i < len(b) && b[i]-'0' <= 9 && i-start < maxDigits {
		mant = mant*10 + uint64(b[i]-'0')
		i++
	}
	whole := i - start
	if i < len(b) && b[i] == '.' && whole < maxDigits {
		i++
		frac := i
		for i < len(b) && b[i]-'0' <= 9 && whole+i-frac < maxDigits {
			mant = mant*10 + uint64(b[i]-'0')
			i++
		}
		d.exp = frac - i
		if i == frac && !(loose && whole > 0) {
			return -1
		}
	}
	if whole == 0 && !(loose && d.exp < 0) || whole > 1 && b[start] == '0' && !loose {
		return -1
	}
	d.mant = mant
	if i < len(b) && (b[i]-'0' <= 9 || b[i] == '.' && d.exp == 0 && b[i-1] != '.') {
		if i = scanLong(d, b, start, loose); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		return scanExponent(d, b, i+1)
	}
	return i
}

// scanLong reads the digits at b[i:] again when there are too many for the
// quick way of scanNumber.
func scanLong(d *decimal, b []byte, i int, loose bool) int {
	d.mant, d.exp = 0, 0
	digits, frac, start := 0, -1, i
	for ; i < len(b); i++ {
		c := b[i] - '0'
		switch {
		case b[i] == '.' && frac < 0:
			frac = i
		case c > 9:
			goto end
		case digits < maxDigits:
			d.mant = d.mant*10 + uint64(c)
			if d.mant != 0 {
				digits++
			}
			if frac >= 0 {
				d.exp--
			}
		default:
			if !d.cut {
				d.cut, d.roundUp = true, c >= 5
			}
			if frac < 0 {
				d.exp++
			}
		}
	}
end:
	if frac == i-1 && !loose || b[start] == '0' && frac != start+1 && !loose {
		return -1
	}
	return i
}

// scanExponent reads what follows the 'e' of a number.
func scanExponent(d *decimal, b []byte, i int) int {
	neg := false
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		neg = b[i] == '-'
		i++
	}
	start, e := i, 0
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		if e < maxExp {
			e = e*10 + int(b[i]-'0')
		}
	}
	if i == start {
		return -1
	}
	if neg {
		e = -e
	}
	d.exp += e
	return i
}

// float is the float64 nearest to d, whose text is given; ok is false when it
// is out of range.
func (d *decimal) float(text []byte) (v float64, ok bool) {
	if d.mant <= 1<<53 && d.exp >= -22 && d.exp <= 22 && !d.cut {
		v = float64(d.mant) // exact, and so is the power: one rounding
		if d.exp < 0 {
			v /= floatPow10[-d.exp]
		} else {
			v *= floatPow10[d.exp]
		}
		if d.neg {
			v = -v
		}
		return v, true
	}
	v, err := strconv.ParseFloat(string(text), 64)
	return v, err == nil
}

// nanos is d seconds in nanoseconds, exact, or rounded to the nearest (half
// away from zero) when d is finer; ok is false when an int64 doesn't hold it.
func (d *decimal) nanos() (ns int64, ok bool) {
	m, e := d.mant, d.exp+9
	switch {
	case m == 0 || e < -maxDigits:
		return 0, true
	case e < 0:
		p := intPow10[-e]
		q, r := m/p, m%p
		if r >= p-r {
			q++
		}
		m = q
	case e == 0 && d.roundUp:
		m++
	case e >= len(intPow10):
		return 0, false
	case e > 0:
		hi, lo := bits.Mul64(m, intPow10[e])
		if hi != 0 {
			return 0, false
		}
		m = lo
	}
	if m > math.MaxInt64 {
		return 0, false
	}
	if d.neg {
		return -int64(m), true
	}
	return int64(m), true
}

// floatNanos is f seconds in nanoseconds. A float64 that is the nearest to a
// whole number of microseconds stands for that, as the same number in decimals
// would; others are rounded to the nearest nanosecond.
func floatNanos(f float64) (ns int64, ok bool) {
	if !(math.Abs(f) < math.MaxInt64/1e9) {
		return 0, false
	}
	if micros := math.Round(f * 1e6); micros/1e6 == f {
		return int64(micros) * 1e3, true
	}
	whole, frac := math.Modf(f)
	return addTimes(int64(whole)*1e9, int64(math.Round(frac*1e9)))
}

// addTimes adds, and says whether the sum fits.
func addTimes(a, b int64) (int64, bool) {
	c := a + b
	return c, (a^c)&(b^c) >= 0
}

// appendSeconds writes ns nanoseconds as exact decimal seconds.
func appendSeconds(dst []byte, ns int64) []byte {
	u := uint64(ns)
	if ns < 0 {
		dst = append(dst, '-')
		u = -u
	}
	dst = strconv.AppendUint(dst, u/1e9, 10)
	frac := u % 1e9
	if frac == 0 {
		return dst
	}
	var digits [10]byte
	digits[0] = '.'
	for i := 9; i > 0; i-- {
		digits[i] = byte('0' + frac%10)
		frac /= 10
	}
	n := len(digits)
	for digits[n-1] == '0' {
		n--
	}
	return append(dst, digits[:n]...)
}

// appendFloat writes the shortest text that reads back as v.
func appendFloat(dst []byte, v float64) []byte {
	if n := int64(v); v == float64(n) && n > -1<<53 && n < 1<<53 && (n != 0 || !math.Signbit(v)) {
		return strconv.AppendInt(dst, n, 10)
	}
	form := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(dst, v, form, -1, 64)
}
