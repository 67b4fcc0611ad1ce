// Package senml turns measurements into SenML (RFC 8428) in JSON, CBOR and XML
// and into our own column form, and back.
//
// It owns the formats' grammar, the resolution of base fields (names, units,
// times relative to the moment of receipt) and the limits of a pack. A Decoder
// has one state besides its limits: the names, units and short texts that it
// has seen, kept so that a pack like the one before allocates nothing. A
// refused pack leaves no trace but that.
//
// It must not know descriptions, policy, streams or stores: whether a name, a
// unit or a time is acceptable for a thing is decided elsewhere. It does no I/O
// and reads no clock.
//
// docs/design/senml.md has the column form byte by byte and the choices made
// where RFC 8428 leaves one.
package senml

import (
	"fmt"
	"strings"

	"carnet"
)

// Format is a way to write measurements.
type Format uint8

// The formats. Columns is the inside of our batches and logs; it has no
// registered content type and FormatOf never answers it.
const (
	JSON Format = iota + 1
	CBOR
	XML
	Columns
)

func (f Format) String() string {
	switch f {
	case JSON:
		return "JSON"
	case CBOR:
		return "CBOR"
	case XML:
		return "XML"
	case Columns:
		return "columns"
	}
	return fmt.Sprintf("format %d", uint8(f))
}

// ContentType is the media type of RFC 8428 §12.3, and
// "application/vnd.carnet.columns" for Columns.
func (f Format) ContentType() string {
	switch f {
	case JSON:
		return "application/senml+json"
	case CBOR:
		return "application/senml+cbor"
	case XML:
		return "application/senml+xml"
	case Columns:
		return "application/vnd.carnet.columns"
	}
	return "application/octet-stream"
}

// FormatOf picks JSON, CBOR or XML by the content type when there is one
// (parameters are ignored; application/json, application/cbor and
// application/xml are taken as SenML), else by the first byte of the pack. What
// it does not know it refuses.
func FormatOf(contentType string, first byte) (Format, error) {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.Trim(media, " \t")
	for _, known := range []struct {
		media string
		f     Format
	}{
		{"application/senml+json", JSON}, {"application/json", JSON},
		{"application/senml+cbor", CBOR}, {"application/cbor", CBOR},
		{"application/senml+xml", XML}, {"application/xml", XML},
	} {
		if strings.EqualFold(media, known.media) {
			return known.f, nil
		}
	}
	if media != "" {
		return 0, carnet.Errorf(carnet.Malformed, "content type %.80q is not SenML", media).
			WithFix("use application/senml+json, application/senml+cbor or application/senml+xml")
	}
	switch {
	case first == '[' || first == ' ' || first == '\t' || first == '\n' || first == '\r':
		return JSON, nil
	case first >= 0x80 && first <= 0x9f: // RFC 8949 §3.1, major type 4
		return CBOR, nil
	case first == '<':
		return XML, nil
	}
	return 0, carnet.Errorf(carnet.Malformed, "a pack starts with byte 0x%02x, want '[' (JSON), 0x80 to 0x9f (CBOR) or '<' (XML)", first)
}

// Limits bound what a Decoder accepts. A zero field stands for its default.
type Limits struct {
	Bytes   int // of a whole pack; default 256 KiB
	Records int // of a pack; default 10,000
	Name    int // bytes of a resolved name, and of a unit; default 128
	Text    int // bytes of one text or data value; default 16 KiB
}

func (l Limits) orDefault() Limits {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&l.Bytes, 256<<10)
	set(&l.Records, 10_000)
	set(&l.Name, 128)
	set(&l.Text, 16<<10)
	return l
}

// Decoder reads packs. One goroutine at a time uses it; what it returns doesn't
// refer to it or to the bytes it read.
type Decoder struct {
	limits  Limits
	names   interner
	units   interner
	texts   interner
	scratch []byte // unescaped and decoded strings of the pack being read
	joined  []byte // base name and name of the record being resolved
	columns columnScratch
}

// NewDecoder makes a Decoder.
func NewDecoder(limits Limits) *Decoder {
	return &Decoder{limits: limits.orDefault()}
}

// Decode appends to dst the measurements of one pack. Times relative to now and
// missing times (RFC 8428 §4.5.3) are taken relative to received, nanoseconds
// since the Unix epoch. On an error, a *carnet.Error of code Malformed or
// TooLarge that names the record and the byte (from 0), nothing is appended.
func (d *Decoder) Decode(dst []carnet.Measurement, f Format, data []byte, received int64) ([]carnet.Measurement, error) {
	if err := d.checkSize(data); err != nil {
		return dst, err
	}
	d.scratch = d.scratch[:0]
	switch f {
	case JSON:
		return d.decodeJSON(dst, data, received)
	case CBOR:
		return d.decodeCBOR(dst, data, received)
	case XML:
		return d.decodeXML(dst, data, received)
	case Columns:
		return d.decodeColumns(dst, data)
	}
	return dst, carnet.Errorf(carnet.Malformed, "%s is not a format of measurements", f)
}

func (d *Decoder) checkSize(data []byte) error {
	if len(data) > d.limits.Bytes {
		return carnet.Errorf(carnet.TooLarge, "the pack has %d bytes, the limit is %d", len(data), d.limits.Bytes)
	}
	return nil
}

// Append appends ms as one pack in f. What has no form in f is refused, with
// dst returned as it was: a name or unit that RFC 8428 forbids, NaN and
// infinities, texts that aren't UTF-8, and in JSON, CBOR and XML the times
// before 1978-07-04T21:24:16Z, which RFC 8428 §4.5.3 reads as relative to now.
func Append(dst []byte, f Format, ms []carnet.Measurement) ([]byte, error) {
	for i := range ms {
		if err := check(&ms[i], f); err != nil {
			return dst, carnet.Errorf(carnet.Malformed, "measurement %d: %s", i, err)
		}
	}
	switch f {
	case JSON:
		return appendJSON(dst, ms), nil
	case CBOR:
		return appendCBOR(dst, ms), nil
	case XML:
		return appendXML(dst, ms), nil
	case Columns:
		return AppendColumns(dst, ms), nil
	}
	return dst, carnet.Errorf(carnet.Malformed, "%s is not a format of measurements", f)
}
