package senml

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"carnet"
)

// field is a set of the fields of a record (RFC 8428 §4.1, §4.2).
type field uint16

const (
	baseName field = 1 << iota
	baseTime
	baseUnit
	baseValue
	baseSum
	baseVersion
	name
	unit
	value
	boolValue
	textValue
	dataValue
	sum
	instant
	updateTime

	anyBase  = baseName | baseTime | baseUnit | baseValue | baseSum | baseVersion
	anyValue = value | boolValue | textValue | dataValue
)

// fieldOf maps the labels of JSON and XML; 0 is an unknown one.
func fieldOf(label []byte) field {
	switch string(label) {
	case "n":
		return name
	case "u":
		return unit
	case "v":
		return value
	case "t":
		return instant
	case "vb":
		return boolValue
	case "vs":
		return textValue
	case "vd":
		return dataValue
	case "bn":
		return baseName
	case "bt":
		return baseTime
	case "bu":
		return baseUnit
	case "bv":
		return baseValue
	case "bs":
		return baseSum
	case "bver":
		return baseVersion
	case "s":
		return sum
	case "ut":
		return updateTime
	}
	return 0
}

// mustUnderstand says whether an unknown label forbids ignoring it (RFC 8428
// §4.4).
func mustUnderstand(label []byte) bool {
	return len(label) > 0 && label[len(label)-1] == '_'
}

// record is one record as it was read; strings refer to the pack or to the
// decoder's scratch.
type record struct {
	has                field
	baseName, baseUnit []byte
	baseTime           int64
	baseValue          float64
	version            float64
	name, unit         []byte
	time               int64
	value              float64
	boolean            bool
	text               []byte // a text or, decoded, data
}

// bases are the base fields in force; each is so until a later record has it
// anew (RFC 8428 §4.1).
type bases struct {
	name, unit []byte
	time       int64
	value      float64
	version    float64
	records    int  // read so far
	open       bool // the last record has base fields only
}

// The version of RFC 8428, the default; a higher one has features that we'd
// misread (RFC 9100).
const version = 10

// relative is the bound, in nanoseconds, below which a time counts from now
// (RFC 8428 §4.5.3).
const relative = 1 << 28 * 1e9

// resolve takes a record into the bases and appends its measurement, if it has
// one, to dst. The error says what is wrong with the record.
func (d *Decoder) resolve(dst []carnet.Measurement, base *bases, r *record, received int64) ([]carnet.Measurement, error) {
	if r.has&(baseName|baseUnit|baseTime|baseValue|baseVersion) != 0 {
		if err := base.take(r); err != nil {
			return dst, err
		}
	}
	kinds := r.has & anyValue
	if base.open = kinds == 0; base.open {
		return dst, r.withoutValue()
	}
	if kinds&(kinds-1) != 0 {
		return dst, malformed("more than one of v, vb, vs and vd, want one")
	}
	n := len(dst)
	dst = append(dst, carnet.Measurement{})
	m := &dst[n]
	var err error
	if m.Name, err = d.resolveName(base.name, r.name); err != nil {
		return dst, err
	}
	symbol := r.unit
	if r.has&unit == 0 {
		symbol = base.unit
	}
	if m.Unit, err = d.resolveUnit(symbol); err != nil {
		return dst, err
	}
	if m.Time, err = resolveTime(base.time, r.time, received); err != nil {
		return dst, err
	}
	return dst, d.resolveValue(&m.Value, base, r, kinds)
}

func (d *Decoder) resolveValue(v *carnet.Value, base *bases, r *record, kind field) error {
	switch kind {
	case value:
		v.Kind, v.Num = carnet.Number, r.value
		if base.value != 0 { // else a negative zero stays one
			v.Num += base.value
		}
		if math.IsInf(v.Num, 0) {
			return malformed("the sum of bv and v is out of range")
		}
		return nil
	case boolValue:
		*v = carnet.Bool(r.boolean)
		return nil
	}
	if len(r.text) > d.limits.Text {
		return carnet.Errorf(carnet.TooLarge, "a value of %d bytes, the limit is %d", len(r.text), d.limits.Text)
	}
	v.Kind, v.Str = carnet.Text, d.text(r.text)
	if kind == dataValue {
		v.Kind = carnet.Data
	}
	return nil
}

// take puts the base fields that r has in force.
func (base *bases) take(r *record) error {
	if r.has&baseName != 0 {
		base.name = r.baseName
	}
	if r.has&baseUnit != 0 {
		base.unit = r.baseUnit
	}
	if r.has&baseTime != 0 {
		base.time = r.baseTime
	}
	if r.has&baseValue != 0 {
		base.value = r.baseValue
	}
	if r.has&baseVersion == 0 {
		return nil
	}
	if !(r.version >= 1 && r.version <= version && r.version == math.Trunc(r.version)) {
		return malformed("bver is %v, want at most %d", r.version, version)
	}
	if base.records > 0 && r.version != base.versionOrDefault() {
		return malformed("bver is %v after records with bver %v: all must be equal (RFC 8428 §4.1)", r.version, base.versionOrDefault())
	}
	base.version = r.version
	return nil
}

func (base *bases) versionOrDefault() float64 {
	if base.version == 0 {
		return version
	}
	return base.version
}

// withoutValue says whether a record may have no value. RFC 8428 §4.2 demands
// one, but beside a sum, and a Measurement has no sum. A record of base fields
// only is as in the example of §5.1.7, and stands for the records after it.
func (r *record) withoutValue() error {
	switch {
	case r.has&(sum|baseSum) != 0:
		return malformed("a sum without a value: sums are not taken, want v")
	case r.has == 0 || r.has&^anyBase != 0:
		return malformed("no value, want one of v, vb, vs and vd (RFC 8428 §4.2)")
	}
	return nil
}

// end says whether the pack may end here.
func (base *bases) end() error {
	if base.open {
		return malformed("base fields without a record after them")
	}
	return nil
}

func (d *Decoder) resolveName(base, n []byte) (string, error) {
	if len(base) > 0 && len(n) > 0 {
		d.joined = append(append(d.joined[:0], base...), n...)
		n = d.joined
	} else if len(n) == 0 {
		n = base
	}
	if s, ok := d.names.find(n); ok && s != "" {
		return s, nil
	}
	if len(n) > d.limits.Name {
		return "", carnet.Errorf(carnet.TooLarge, "a name of %d bytes, the limit is %d", len(n), d.limits.Name)
	}
	if why := checkName(n); why != "" {
		return "", malformed("%s", why)
	}
	return d.names.add(n), nil
}

func (d *Decoder) resolveUnit(u []byte) (string, error) {
	if s, ok := d.units.find(u); ok {
		return s, nil
	}
	if len(u) > d.limits.Name {
		return "", carnet.Errorf(carnet.TooLarge, "a unit of %d bytes, the limit is %d", len(u), d.limits.Name)
	}
	if why := checkUnit(u); why != "" {
		return "", malformed("%s", why)
	}
	return d.units.add(u), nil
}

// shortText is the length up to which equal texts share one string.
const shortText = 32

// text makes a string of b, a shared one when b is short: states and labels
// come again and again.
func (d *Decoder) text(b []byte) string {
	if len(b) > shortText {
		return string(b)
	}
	if s, ok := d.texts.find(b); ok {
		return s
	}
	return d.texts.add(b)
}

// resolveTime is RFC 8428 §4.5.3: the sum of base time and time, from now if it
// is less than 2^28 seconds.
func resolveTime(base, t, received int64) (int64, error) {
	sum, ok := addTimes(base, t)
	if ok && sum < relative {
		sum, ok = addTimes(received, sum)
	}
	if !ok {
		return 0, malformed("the time is out of range, want a year from 1678 to 2262")
	}
	return sum, nil
}

// checkName is RFC 8428 §4.5.1.
func checkName[T string | []byte](n T) string {
	if len(n) == 0 {
		return "no name, want n or bn"
	}
	for i := 0; i < len(n); i++ {
		c := n[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == ':' || c == '.' || c == '/' || c == '_'):
		default:
			return fmt.Sprintf("name %.80q: want letters, digits, '-', ':', '.', '/' and '_', starting with a letter or digit (RFC 8428 §4.5.1)", string(n))
		}
	}
	return ""
}

// checkUnit takes any printable UTF-8, so that units beside the registry of RFC
// 8428 §12.1 get through.
func checkUnit[T string | []byte](u T) string {
	s := string(u)
	if !utf8.ValidString(s) {
		return "the unit is not valid UTF-8"
	}
	for _, c := range s {
		if c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0xfffe || c == 0xffff {
			return fmt.Sprintf("unit %.80q has a control character", s)
		}
	}
	return ""
}

// check says why m can't be written in f, and returns nil when it can.
func check(m *carnet.Measurement, f Format) error {
	if why := checkName(m.Name); why != "" {
		return malformed("%s", why)
	}
	if why := checkUnit(m.Unit); why != "" {
		return malformed("%s", why)
	}
	if f != Columns && m.Time < relative {
		return malformed("the time is before 1978-07-04T21:24:16Z, which SenML reads as relative to now (RFC 8428 §4.5.3)")
	}
	switch m.Value.Kind {
	case carnet.Number:
		if math.IsNaN(m.Value.Num) || math.IsInf(m.Value.Num, 0) {
			return malformed("the value is %v, want a number", m.Value.Num)
		}
	case carnet.Boolean:
		if m.Value.Num != 0 && m.Value.Num != 1 {
			return malformed("the boolean is %v, want 0 or 1", m.Value.Num)
		}
	case carnet.Text:
		if !utf8.ValidString(m.Value.Str) {
			return malformed("the text is not valid UTF-8")
		}
	case carnet.Data:
	default:
		return malformed("the value has no kind")
	}
	return nil
}

// Check says why m can't be written in any format: what Append refuses in
// Columns. It is for those who make measurements from other sources and call
// AppendColumns, which doesn't check.
func Check(m *carnet.Measurement) error { return check(m, Columns) }

// notUnderstood refuses a label that who knows it must understand.
func notUnderstood(label []byte) *carnet.Error {
	return malformed("the label %.80q must be understood (RFC 8428 §4.4), and isn't known here", label)
}

func malformed(format string, args ...any) *carnet.Error {
	return carnet.Errorf(carnet.Malformed, format, args...)
}

// inText is a place in a pack of JSON or XML, as a person counts.
func inText(pack []byte, offset int) string {
	before := pack[:min(offset, len(pack))]
	character := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	if bytes.IndexByte(pack, '\n') < 0 {
		return fmt.Sprintf("character %d", character)
	}
	return fmt.Sprintf("line %d, character %d", bytes.Count(before, []byte("\n"))+1, character)
}

// inBytes is a place in a pack of CBOR.
func inBytes(offset int) string { return fmt.Sprintf("byte %d", offset+1) }

// at names the place of a failure in a pack, with the records counted from 1.
func at(err error, record int, place string) error {
	e := new(carnet.Error)
	if !errors.As(err, &e) {
		e = carnet.Errorf(carnet.CodeOf(err), "%v", err)
	}
	placed := *e
	placed.Reason = fmt.Sprintf("record %d, %s: %s", record+1, place, e.Reason)
	return &placed
}
