package senml

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"carnet"
)

// The major types of RFC 8949 §3.1.
const (
	cborUint = iota
	cborNegative
	cborBytes
	cborText
	cborArray
	cborMap
	cborTag
	cborSimple
)

// What the additional information of major type 7 says (RFC 8949 §3.3), and
// indefinite lengths and their end (§3.2).
const (
	cborFalse      = 20
	cborTrue       = 21
	cborFloat16    = 25
	cborFloat32    = 26
	cborFloat64    = 27
	cborIndefinite = 31
	cborBreak      = 0xff
)

// decimalFraction is the tag of RFC 8949 §3.4.4.
const decimalFraction = 4

// cborReader reads one pack (RFC 8428 §6 in well-formed CBOR, RFC 8949). Arrays
// and maps may have indefinite lengths; integers and lengths may be longer than
// needed. The first failure stays; each method returns false after it.
type cborReader struct {
	d       *Decoder
	b       []byte
	i       int
	err     error
	rec     record
	unknown [][]byte
}

func (d *Decoder) decodeCBOR(dst []carnet.Measurement, data []byte, received int64) ([]carnet.Measurement, error) {
	r := cborReader{d: d, b: data}
	var base bases
	out := dst
	n, ok := r.open(cborArray, "an array of records")
	for ; ok && r.more(&n); n-- {
		if base.records >= d.limits.Records {
			return dst, carnet.Errorf(carnet.TooLarge, "the pack has more records than the limit of %d", d.limits.Records)
		}
		start := r.i
		if ok = r.record(); !ok {
			break
		}
		var err error
		if out, err = d.resolve(out, &base, &r.rec, received); err != nil {
			return dst, at(err, base.records, inBytes(start))
		}
		base.records++
	}
	if r.err == nil && r.i < len(data) {
		r.fail("nothing after the pack")
	}
	if r.err == nil {
		r.err = base.end()
	}
	if r.err != nil {
		return dst, at(r.err, base.records, inBytes(r.i))
	}
	return out, nil
}

func (r *cborReader) fail(format string, args ...any) bool {
	if r.err == nil {
		r.err = malformed("want "+format, args...)
	}
	return false
}

// head reads the start of an item: major type, additional information and
// argument (RFC 8949 §3).
func (r *cborReader) head() (major, info byte, arg uint64, ok bool) {
	if r.i >= len(r.b) {
		return 0, 0, 0, r.fail("an item, found the end")
	}
	c := r.b[r.i]
	major, info = c>>5, c&31
	if info < 24 {
		r.i++
		return major, info, uint64(info), true
	}
	arg, ok = r.argument(major, info)
	return major, info, arg, ok
}

func (r *cborReader) argument(major, info byte) (arg uint64, ok bool) {
	if info > cborFloat64 {
		if info == cborIndefinite && major >= cborBytes && major <= cborMap {
			r.i++
			return 0, true
		}
		return 0, r.fail("an item of RFC 8949, found byte 0x%02x", r.b[r.i])
	}
	size := 1 << (info - 24)
	b := r.b[r.i+1:]
	if len(b) < size {
		return 0, r.fail("%d bytes of a length or number, found the end", size)
	}
	switch size {
	case 1:
		arg = uint64(b[0])
	case 2:
		arg = uint64(binary.BigEndian.Uint16(b))
	case 4:
		arg = uint64(binary.BigEndian.Uint32(b))
	case 8:
		arg = binary.BigEndian.Uint64(b)
	}
	r.i += 1 + size
	return arg, true
}

// indefinite stands for the unknown count of an array or map.
const indefinite = math.MaxInt

// open reads the head of an array or map and returns its count.
func (r *cborReader) open(want byte, what string) (n int, ok bool) {
	at := r.i
	major, info, arg, ok := r.head()
	if !ok {
		return 0, false
	}
	if major != want {
		r.i = at
		return 0, r.fail("%s, found major type %d", what, major)
	}
	return r.count(info, arg)
}

// count checks that the pack can hold arg items.
func (r *cborReader) count(info byte, arg uint64) (n int, ok bool) {
	if info == cborIndefinite {
		return indefinite, true
	}
	if arg > uint64(len(r.b)-r.i) {
		return 0, r.fail("%d items, found the end", arg)
	}
	return int(arg), true
}

// more says whether another item follows. For an indefinite length the caller's
// count is large enough to be reduced by one for each item.
func (r *cborReader) more(n *int) bool {
	if *n < indefinite-len(r.b) {
		return *n > 0
	}
	if r.i < len(r.b) && r.b[r.i] == cborBreak {
		r.i++
		return false
	}
	return true
}

func (r *cborReader) record() bool {
	r.rec.has = 0
	r.rec.name, r.rec.unit = nil, nil
	r.rec.time, r.rec.value = 0, 0
	r.unknown = r.unknown[:0]
	n, ok := r.open(cborMap, "a map")
	for ; ok && r.more(&n); n-- {
		ok = r.labelled()
	}
	return ok
}

// cborFields are the labels of RFC 8428 §6: 0 to 8, then -1 to -6.
var cborFields = [...]field{name, unit, value, textValue, boolValue, sum, instant, updateTime, dataValue,
	baseVersion, baseName, baseTime, baseUnit, baseValue, baseSum}

// labelled reads a label and its value.
func (r *cborReader) labelled() bool {
	at := r.i
	if at < len(r.b) && r.b[at] <= 8 { // the common labels, without a detour
		if f := cborFields[r.b[at]]; r.rec.has&f == 0 {
			r.i++
			r.rec.has |= f
			return r.field(f)
		}
	}
	major, info, arg, ok := r.head()
	if !ok {
		return false
	}
	f := field(0)
	switch {
	case major == cborUint && arg <= 8:
		f = cborFields[arg] // again, or longer than needed
	case major == cborNegative && arg <= 5:
		f = cborFields[9+arg]
	case major <= cborNegative: // unknown, by number
		return r.ignore(r.b[at:r.i])
	case major == cborText && info != cborIndefinite:
		label, ok := r.content(major, arg)
		if !ok {
			return false
		}
		if fieldOf(label) != 0 {
			return r.fail("the integer label for %q (RFC 8428 §6)", label)
		}
		if mustUnderstand(label) {
			if r.err == nil {
				r.err = notUnderstood(label)
			}
			return false
		}
		return r.ignore(label)
	default:
		r.i = at
		return r.fail("an integer or a text of definite length as label")
	}
	if r.rec.has&f != 0 {
		r.i = at
		return r.fail("each label once in a record")
	}
	r.rec.has |= f
	return r.field(f)
}

func (r *cborReader) field(f field) (ok bool) {
	switch f {
	case name:
		r.rec.name, ok = r.str(cborText)
	case unit:
		r.rec.unit, ok = r.str(cborText)
	case value:
		r.rec.value, ok = r.number()
	case instant:
		r.rec.time, ok = r.seconds()
	case boolValue:
		r.rec.boolean, ok = r.boolean()
	case textValue:
		r.rec.text, ok = r.str(cborText)
	case dataValue:
		r.rec.text, ok = r.str(cborBytes)
	case baseName:
		r.rec.baseName, ok = r.str(cborText)
	case baseTime:
		r.rec.baseTime, ok = r.seconds()
	case baseUnit:
		r.rec.baseUnit, ok = r.str(cborText)
	case baseValue:
		r.rec.baseValue, ok = r.number()
	case baseVersion: // RFC 8428 §6: an unsigned integer
		var major byte
		var arg uint64
		major, _, arg, ok = r.head()
		if r.rec.version = float64(arg); ok && major != cborUint {
			return r.fail("an unsigned integer as bver")
		}
	default: // bs, s, ut: not kept
		_, ok = r.number()
	}
	return ok
}

// ignore skips the value of an unknown label.
func (r *cborReader) ignore(label []byte) bool {
	if len(r.unknown) == maxUnknown {
		return r.fail("at most %d unknown labels in a record", maxUnknown)
	}
	for _, u := range r.unknown {
		if bytes.Equal(u, label) {
			return r.fail("each label once in a record")
		}
	}
	r.unknown = append(r.unknown, label)
	return r.skip(maxDepth)
}

// str reads a text or bytes of definite length, as RFC 8428 §6 demands.
func (r *cborReader) str(want byte) ([]byte, bool) {
	at := r.i
	major, info, arg, ok := r.head()
	if !ok {
		return nil, false
	}
	if major != want || info == cborIndefinite {
		r.i = at
		return nil, r.fail("%s of definite length", [...]string{cborBytes: "bytes", cborText: "a text"}[want])
	}
	return r.content(major, arg)
}

func (r *cborReader) content(major byte, n uint64) ([]byte, bool) {
	if n > uint64(len(r.b)-r.i) {
		return nil, r.fail("%d bytes, found the end", n)
	}
	b := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	if major == cborText && !utf8.Valid(b) {
		return nil, r.fail("valid UTF-8 in a text")
	}
	return b, true
}

func (r *cborReader) boolean() (bool, bool) {
	major, info, _, ok := r.head()
	if ok && !(major == cborSimple && (info == cborFalse || info == cborTrue)) {
		ok = r.fail("true or false")
	}
	return info == cborTrue, ok
}

// number reads an integer, a float or a decimal fraction as a float64.
func (r *cborReader) number() (float64, bool) {
	major, info, arg, ok := r.head()
	if !ok {
		return 0, false
	}
	switch {
	case major == cborUint:
		return float64(arg), true
	case major == cborNegative:
		return -float64(arg) - 1, true // the same as of the exact integer up to 2^53
	case major == cborTag && arg == decimalFraction:
		d, ok := r.fraction()
		if !ok {
			return 0, false
		}
		return r.fractionFloat(&d)
	}
	return r.float(major, info, arg)
}

func (r *cborReader) float(major, info byte, arg uint64) (v float64, ok bool) {
	switch {
	case major == cborSimple && info == cborFloat64:
		v = math.Float64frombits(arg)
	case major == cborSimple && info == cborFloat32:
		v = float64(math.Float32frombits(uint32(arg)))
	case major == cborSimple && info == cborFloat16:
		v = float16(uint16(arg))
	default:
		return 0, r.fail("a number, found major type %d", major)
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, r.fail("a number, found %v", v)
	}
	return v, true
}

// float16 is RFC 8949 Appendix D.
func float16(h uint16) float64 {
	exp, mant := int(h>>10&31), float64(h&0x3ff)
	var v float64
	switch exp {
	case 0:
		v = math.Ldexp(mant, -24)
	case 31:
		if v = math.Inf(1); mant != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(mant+1024, exp-25)
	}
	if h&0x8000 != 0 {
		return -v
	}
	return v
}

// fraction reads the array of a decimal fraction: exponent and mantissa.
func (r *cborReader) fraction() (d decimal, ok bool) {
	n, ok := r.open(cborArray, "[exponent, mantissa]")
	if !ok {
		return d, false
	}
	if n != 2 {
		return d, r.fail("[exponent, mantissa]")
	}
	exp, ok := r.integer()
	if !ok {
		return d, false
	}
	if d, ok = r.integer(); !ok {
		return d, false
	}
	if exp.mant > maxExp {
		return d, r.fail("an exponent from -%d to %d", maxExp, maxExp)
	}
	d.exp = int(exp.mant)
	if exp.neg {
		d.exp = -d.exp
	}
	return d, true
}

func (r *cborReader) integer() (d decimal, ok bool) {
	major, _, arg, ok := r.head()
	if !ok {
		return d, false
	}
	return r.toDecimal(major, arg)
}

func (r *cborReader) toDecimal(major byte, arg uint64) (d decimal, ok bool) {
	switch {
	case major == cborUint:
		return decimal{mant: arg}, true
	case major == cborNegative && arg < math.MaxUint64:
		return decimal{mant: arg + 1, neg: true}, true
	}
	return d, r.fail("an integer of 64 bits")
}

func (r *cborReader) fractionFloat(d *decimal) (float64, bool) {
	var buf [40]byte
	text := buf[:0]
	if d.neg {
		text = append(text, '-')
	}
	text = append(strconv.AppendUint(text, d.mant, 10), 'e')
	v, ok := d.float(strconv.AppendInt(text, int64(d.exp), 10))
	if !ok {
		return 0, r.fail("a number in the range of a float64")
	}
	return v, true
}

// seconds reads a number of seconds as nanoseconds: exactly, or for floats to
// the nearest.
func (r *cborReader) seconds() (ns int64, ok bool) {
	major, info, arg, ok := r.head()
	if !ok {
		return 0, false
	}
	var d decimal
	switch {
	case major == cborSimple:
		v, ok := r.float(major, info, arg)
		if !ok {
			return 0, false
		}
		if ns, ok = floatNanos(v); !ok {
			return 0, r.fail("a time from 1678 to 2262")
		}
		return ns, true
	case major == cborTag && arg == decimalFraction:
		d, ok = r.fraction()
	default:
		d, ok = r.toDecimal(major, arg)
	}
	if !ok {
		return 0, false
	}
	if ns, ok = d.nanos(); !ok {
		return 0, r.fail("a time from 1678 to 2262")
	}
	return ns, true
}

// skip checks that any item is well-formed and passes over it.
func (r *cborReader) skip(depth int) bool {
	if depth == 0 {
		return r.fail("at most %d levels", maxDepth)
	}
	major, info, arg, ok := r.head()
	if !ok {
		return false
	}
	switch major {
	case cborBytes, cborText:
		return r.skipString(major, info, arg)
	case cborArray, cborMap:
		n, ok := r.count(info, arg)
		for ; ok && r.more(&n); n-- {
			ok = r.skip(depth-1) && (major == cborArray || r.skip(depth-1))
		}
		return ok
	case cborTag:
		return r.skip(depth - 1)
	case cborSimple:
		if info == 24 && arg < 32 {
			return r.fail("a simple value of RFC 8949 §3.3")
		}
	}
	return true
}

// skipString passes over a string; one of indefinite length is made of definite
// ones of the same type (RFC 8949 §3.2.3).
func (r *cborReader) skipString(major, info byte, n uint64) bool {
	if info != cborIndefinite {
		_, ok := r.content(major, n)
		return ok
	}
	for n := indefinite; r.more(&n); {
		m, info, arg, ok := r.head()
		if !ok {
			return false
		}
		if m != major || info == cborIndefinite {
			return r.fail("a piece of the same type and of definite length")
		}
		if _, ok = r.content(major, arg); !ok {
			return false
		}
	}
	return true
}
