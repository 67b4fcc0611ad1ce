package senml

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"carnet"
)

// maxDepth bounds the nesting of the values of fields that are ignored.
const maxDepth = 16

// maxUnknown bounds the unknown fields of one record.
const maxUnknown = 16

// jsonReader scans one pack. It is strict by itself (RFC 8259 with valid UTF-8
// and no label twice in a record). The first failure stays; each method returns
// false after it.
type jsonReader struct {
	d       *Decoder
	b       []byte
	i       int
	err     *carnet.Error
	rec     record
	unknown [][]byte // labels of the record that are not of RFC 8428
}

func (d *Decoder) decodeJSON(dst []carnet.Measurement, data []byte, received int64) ([]carnet.Measurement, error) {
	r := jsonReader{d: d, b: data}
	var base bases
	out := dst
	if !r.expect('[', "'[' at the start of the pack") {
		r.err = r.err.WithFix(`send SenML: a list of measurements, such as [{"n":"heart_rate","v":72}] (RFC 8428)`)
		return dst, at(r.err, 0, inText(data, r.i))
	}
	r.space()
	for more := !r.accept(']'); more; {
		if base.records >= d.limits.Records {
			return dst, carnet.Errorf(carnet.TooLarge, "the pack has more records than the limit of %d", d.limits.Records)
		}
		r.space()
		start := r.i
		if !r.record() {
			return dst, at(r.err, base.records, inText(data, r.i))
		}
		var err error
		if out, err = d.resolve(out, &base, &r.rec, received); err != nil {
			return dst, at(err, base.records, inText(data, start))
		}
		base.records++
		r.space()
		if more = r.accept(','); !more && !r.expect(']', "',' or ']' after a record") {
			return dst, at(r.err, base.records, inText(data, r.i))
		}
	}
	r.space()
	if r.i < len(data) {
		return dst, at(malformed("want nothing after the pack"), base.records, inText(data, r.i))
	}
	if err := base.end(); err != nil {
		return dst, at(err, base.records, inText(data, r.i))
	}
	return out, nil
}

func (r *jsonReader) fail(format string, args ...any) bool {
	if r.err == nil {
		r.err = malformed("want "+format+"%s", append(args, r.found())...)
	}
	return false
}

// another says where a value goes, if it is of another kind than its label's. It
// returns false.
func (r *jsonReader) another(label string) bool {
	if r.i >= len(r.b) {
		return false
	}
	is, fix := "", ""
	switch c := r.b[r.i]; {
	case c == '"':
		is, fix = "vs", "a text goes in vs, and a number in v stands without quotation marks (RFC 8428)"
	case c == 't' || c == 'f':
		is, fix = "vb", "true and false go in vb (RFC 8428)"
	case c == '-' || '0' <= c && c <= '9':
		is, fix = "v", "a number goes in v (RFC 8428)"
	}
	if is != "" && is != label {
		r.err = r.err.WithFix("%s", fix)
	}
	return false
}

// found says what is there instead, without showing the data.
func (r *jsonReader) found() string {
	if r.i >= len(r.b) {
		return ", found the end"
	}
	c, size := utf8.DecodeRune(r.b[r.i:])
	if c == utf8.RuneError && size == 1 {
		return fmt.Sprintf(", found the byte 0x%02x, which no text in UTF-8 has there", r.b[r.i])
	}
	return fmt.Sprintf(", found %q", c)
}

// space is small enough to be a part of its callers: most packs have none.
func (r *jsonReader) space() {
	if r.i < len(r.b) && r.b[r.i] <= ' ' {
		r.skipSpace()
	}
}

func (r *jsonReader) skipSpace() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

func (r *jsonReader) accept(c byte) bool {
	if r.i < len(r.b) && r.b[r.i] == c {
		r.i++
		return true
	}
	return false
}

func (r *jsonReader) expect(c byte, what string) bool {
	r.space()
	return r.accept(c) || r.fail("%s", what)
}

func (r *jsonReader) record() bool {
	if !r.accept('{') && !r.expect('{', "'{' at the start of a record") {
		return false
	}
	r.rec.has = 0
	r.rec.name, r.rec.unit = nil, nil
	r.rec.time, r.rec.value = 0, 0
	r.unknown = r.unknown[:0]
	r.space()
	if r.accept('}') {
		return true
	}
	for {
		label, ok := r.str()
		if !ok || !r.accept(':') && !r.expect(':', "':' after a label") {
			return false
		}
		r.space()
		if f := fieldOf(label); f == 0 {
			ok = r.ignore(label)
		} else if r.rec.has&f != 0 {
			return r.fail("the label %q once in a record", label)
		} else {
			r.rec.has |= f
			ok = r.field(f)
		}
		if !ok {
			return false
		}
		r.space()
		if r.accept(',') {
			r.space()
			continue
		}
		return r.accept('}') || r.fail("',' or '}' after a field")
	}
}

func (r *jsonReader) field(f field) (ok bool) {
	switch f {
	case name:
		r.rec.name, ok = r.str()
	case unit:
		r.rec.unit, ok = r.str()
	case value:
		r.rec.value, ok = r.number()
		return ok || r.another("v")
	case instant:
		r.rec.time, ok = r.seconds()
	case boolValue:
		r.rec.boolean, ok = r.boolean()
		return ok || r.another("vb")
	case textValue:
		r.rec.text, ok = r.str()
		return ok || r.another("vs")
	case dataValue:
		r.rec.text, ok = r.str()
		if ok {
			if r.rec.text, ok = r.d.base64(r.rec.text); !ok {
				return r.fail("base64url without padding in vd (RFC 8428 §5)")
			}
		}
	case baseName:
		r.rec.baseName, ok = r.str()
	case baseTime:
		r.rec.baseTime, ok = r.seconds()
	case baseUnit:
		r.rec.baseUnit, ok = r.str()
	case baseValue:
		r.rec.baseValue, ok = r.number()
	case baseVersion:
		r.rec.version, ok = r.number()
	default: // bs, s, ut: not kept
		_, ok = r.number()
	}
	return ok
}

// base64 decodes into scratch. The package's decoder skips line ends; here they
// are refused.
func (d *Decoder) base64(text []byte) ([]byte, bool) {
	if bytes.ContainsAny(text, "\r\n") {
		return nil, false
	}
	start := len(d.scratch)
	out, err := base64.RawURLEncoding.Strict().AppendDecode(d.scratch, text)
	if err != nil {
		return nil, false
	}
	d.scratch = out
	return out[start:], true
}

// ignore skips the value of an unknown label.
func (r *jsonReader) ignore(label []byte) bool {
	if mustUnderstand(label) {
		if r.err == nil {
			r.err = notUnderstood(label)
		}
		return false
	}
	for _, u := range r.unknown {
		if bytes.Equal(u, label) {
			return r.fail("the label %.80q once in a record", label)
		}
	}
	if len(r.unknown) == maxUnknown {
		return r.fail("at most %d unknown labels in a record", maxUnknown)
	}
	r.unknown = append(r.unknown, label)
	return r.skip(maxDepth)
}

// skip checks and passes over any value.
func (r *jsonReader) skip(depth int) bool {
	if depth == 0 {
		return r.fail("at most %d levels", maxDepth)
	}
	if r.i >= len(r.b) {
		return r.fail("a value")
	}
	switch r.b[r.i] {
	case '"':
		_, ok := r.str()
		return ok
	case '{', '[':
		return r.skipMembers(r.b[r.i]+2, r.b[r.i] == '{', depth) // '}' is '{'+2, ']' is '['+2
	case 't':
		return r.word("true")
	case 'f':
		return r.word("false")
	case 'n':
		return r.word("null")
	}
	var n decimal
	end := scanNumber(&n, r.b, r.i, false)
	if end < 0 {
		return r.fail("a value")
	}
	r.i = end
	return true
}

func (r *jsonReader) skipMembers(end byte, object bool, depth int) bool {
	r.i++
	r.space()
	if r.accept(end) {
		return true
	}
	for {
		r.space()
		if object {
			if _, ok := r.str(); !ok || !r.expect(':', "':' after a label") {
				return false
			}
			r.space()
		}
		if !r.skip(depth - 1) {
			return false
		}
		r.space()
		if !r.accept(',') {
			return r.accept(end) || r.fail("',' or '%c'", end)
		}
	}
}

func (r *jsonReader) word(w string) bool {
	if len(r.b)-r.i >= len(w) && string(r.b[r.i:r.i+len(w)]) == w {
		r.i += len(w)
		return true
	}
	return r.fail("a value")
}

func (r *jsonReader) boolean() (bool, bool) {
	if r.i < len(r.b) && r.b[r.i] == 't' {
		return true, r.word("true")
	}
	if r.i < len(r.b) && r.b[r.i] == 'f' {
		return false, r.word("false")
	}
	return false, r.fail("true or false")
}

func (r *jsonReader) number() (float64, bool) {
	var n decimal
	end := scanNumber(&n, r.b, r.i, false)
	if end < 0 {
		return 0, r.fail("a number")
	}
	v, ok := n.float(r.b[r.i:end])
	if !ok {
		return 0, r.fail("a number in the range of a float64")
	}
	r.i = end
	return v, true
}

func (r *jsonReader) seconds() (int64, bool) {
	var n decimal
	end := scanNumber(&n, r.b, r.i, false)
	if end < 0 {
		return 0, r.fail("a number of seconds")
	}
	ns, ok := n.nanos()
	if !ok {
		return 0, r.fail("a time from 1678 to 2262")
	}
	r.i = end
	return ns, true
}

// str reads a string. Without escapes the result is part of the pack.
func (r *jsonReader) str() ([]byte, bool) {
	if r.i >= len(r.b) || r.b[r.i] != '"' {
		return nil, r.fail("a string")
	}
	b, i := r.b, r.i+1
	start := i
	for i < len(b) && plainByte[b[i]] {
		i++
	}
	if i < len(b) && b[i] == '"' {
		r.i = i + 1
		return b[start:i], true
	}
	return r.longStr(start, i)
}

// plainByte is plain for each byte: one load instead of four comparisons.
var plainByte = func() (table [256]bool) {
	for c := range table {
		table[c] = plain(byte(c))
	}
	return table
}()

// plain says whether c stands for itself in a JSON string and is ASCII.
func plain(c byte) bool { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\' }

// longStr goes on at b[i:] with a string that has more than plain ASCII: parts
// without escapes are checked and copied as they are.
func (r *jsonReader) longStr(start, i int) ([]byte, bool) {
	from, escaped := len(r.d.scratch), false
	for ; i < len(r.b); i++ {
		c := r.b[i]
		if c != '"' && c != '\\' && c >= 0x20 {
			continue
		}
		part := r.b[start:i]
		if r.i = i; !utf8.Valid(part) {
			return nil, r.fail("valid UTF-8 in a string")
		}
		switch {
		case c == '"' && !escaped:
			r.i = i + 1
			return part, true
		case c < 0x20:
			return nil, r.fail("no control character in a string")
		}
		r.d.scratch = append(r.d.scratch, part...)
		if c == '"' {
			r.i = i + 1
			return r.d.scratch[from:len(r.d.scratch):len(r.d.scratch)], true
		}
		escaped = true
		n := r.escape(i)
		if n == 0 {
			return nil, r.fail(`an escape of RFC 8259 §7`)
		}
		i += n - 1
		start = i + 1
	}
	r.i = len(r.b)
	return nil, r.fail("'\"' at the end of a string")
}

// escape appends what the escape at b[i:] stands for and returns its length; 0
// is a bad one. A surrogate without its other half is bad: it is no character.
func (r *jsonReader) escape(i int) int {
	if i+1 >= len(r.b) {
		return 0
	}
	c := r.b[i+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		u, n := r.hex4(i+2), 6
		if utf16.IsSurrogate(u) {
			if i+7 >= len(r.b) || r.b[i+6] != '\\' || r.b[i+7] != 'u' {
				return 0
			}
			u, n = utf16.DecodeRune(u, r.hex4(i+8)), 12
			if u == utf8.RuneError {
				return 0
			}
		}
		if u < 0 {
			return 0
		}
		r.d.scratch = utf8.AppendRune(r.d.scratch, u)
		return n
	default:
		return 0
	}
	r.d.scratch = append(r.d.scratch, c)
	return 2
}

// hex4 reads four hexadecimal digits at b[i:]; -1 is an error.
func (r *jsonReader) hex4(i int) (u rune) {
	if i+4 > len(r.b) {
		return -1
	}
	for _, c := range r.b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		u = u<<4 | rune(c)
	}
	return u
}
