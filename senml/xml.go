package senml

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"io"
	"strconv"

	"carnet"
)

// xmlSpace is the namespace of RFC 8428 §7.
const xmlSpace = "urn:ietf:params:xml:ns:senml"

// decodeXML reads RFC 8428 §7. XML comes from the edge of other systems, not
// from devices by the thousand: it may allocate.
func (d *Decoder) decodeXML(dst []carnet.Measurement, data []byte, received int64) ([]carnet.Measurement, error) {
	dec := xml.NewDecoder(bytes.NewReader(data))
	var base bases
	out, depth, ended := dst, 0, false // ended: the document's element is closed
	fail := func(format string, args ...any) ([]carnet.Measurement, error) {
		return dst, at(malformed(format, args...), base.records, inText(data, int(dec.InputOffset())))
	}
	for {
		offset := int(dec.InputOffset())
		token, err := dec.Token()
		if err == io.EOF && ended {
			if err := base.end(); err != nil {
				return dst, at(err, base.records, inText(data, offset))
			}
			return out, nil
		}
		if err != nil {
			return fail("want XML in UTF-8: %s", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			want := "sensml"
			if depth == 2 {
				want = "senml"
			}
			if depth > 2 || ended || t.Name.Local != want || t.Name.Space != xmlSpace {
				return fail("want <sensml> with <senml> elements of namespace %s only, found <%.80s>", xmlSpace, t.Name.Local)
			}
			if depth == 1 {
				continue
			}
			if base.records >= d.limits.Records {
				return dst, carnet.Errorf(carnet.TooLarge, "the pack has more records than the limit of %d", d.limits.Records)
			}
			var r record
			if err = d.xmlRecord(&r, t.Attr); err == nil {
				out, err = d.resolve(out, &base, &r, received)
			}
			if err != nil {
				return dst, at(err, base.records, inText(data, offset))
			}
			base.records++
		case xml.EndElement:
			depth--
			ended = depth == 0
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return fail("want no text outside of attributes")
			}
		case xml.Directive:
			return fail("want no document type")
		}
	}
}

func (d *Decoder) xmlRecord(r *record, attrs []xml.Attr) error {
	seen := make(map[xml.Name]bool, len(attrs))
	for _, a := range attrs {
		if seen[a.Name] {
			return malformed("want the attribute %.80q once", a.Name.Local)
		}
		seen[a.Name] = true
		f := fieldOf([]byte(a.Name.Local))
		if a.Name.Space != "" || f == 0 {
			if mustUnderstand([]byte(a.Name.Local)) {
				return notUnderstood([]byte(a.Name.Local))
			}
			continue
		}
		r.has |= f
		if !d.xmlField(r, f, []byte(a.Value)) {
			return malformed("the attribute %s has no value of its type (RFC 8428 §7)", a.Name.Local)
		}
	}
	return nil
}

// xmlField reads the value of f; false if it isn't of f's type.
func (d *Decoder) xmlField(r *record, f field, text []byte) (ok bool) {
	ok = true
	switch f {
	case name:
		r.name = text
	case unit:
		r.unit = text
	case baseName:
		r.baseName = text
	case baseUnit:
		r.baseUnit = text
	case value:
		r.value, ok = xmlNumber(text)
	case baseValue:
		r.baseValue, ok = xmlNumber(text)
	case baseVersion:
		r.version, ok = xmlNumber(text)
	case instant:
		r.time, ok = xmlSeconds(text)
	case baseTime:
		r.baseTime, ok = xmlSeconds(text)
	case boolValue:
		s := string(text) // xsd:boolean
		r.boolean = s == "true" || s == "1"
		ok = r.boolean || s == "false" || s == "0"
	case textValue:
		r.text, ok = d.unescape(text)
	case dataValue:
		r.text, ok = d.base64(text)
	default: // bs, s, ut: not kept
		_, ok = xmlNumber(text)
	}
	return ok
}

// xmlNumber reads an xsd:double that is a number.
func xmlNumber(text []byte) (float64, bool) {
	var n decimal
	if len(text) == 0 || scanNumber(&n, text, 0, true) != len(text) {
		return 0, false
	}
	return n.float(text)
}

func xmlSeconds(text []byte) (int64, bool) {
	var n decimal
	if len(text) == 0 || scanNumber(&n, text, 0, true) != len(text) {
		return 0, false
	}
	return n.nanos()
}

// unescape resolves the JSON escapes that RFC 8428 §7 has in string values
// inside of XML; so every text has an XML form.
func (d *Decoder) unescape(text []byte) ([]byte, bool) {
	if bytes.IndexByte(text, '\\') < 0 {
		return text, true
	}
	r := jsonReader{d: d, b: text}
	from, start := len(d.scratch), 0
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		d.scratch = append(d.scratch, text[start:i]...)
		n := r.escape(i)
		if n == 0 {
			return nil, false
		}
		i += n - 1
		start = i + 1
	}
	d.scratch = append(d.scratch, text[start:]...)
	return d.scratch[from:len(d.scratch):len(d.scratch)], true
}

func appendXML(dst []byte, ms []carnet.Measurement) []byte {
	w := xmlWriter{bytes.NewBuffer(dst)}
	s := sharedOf(ms)
	w.WriteString(`<sensml xmlns="` + xmlSpace + `">`)
	for i := range ms {
		m := &ms[i]
		w.WriteString("<senml")
		if i == 0 && s.name {
			w.attr("bn", m.Name)
		}
		if i == 0 && s.unit {
			w.attr("bu", m.Unit)
		}
		if i == 0 && s.base != 0 {
			w.attr("bt", string(appendSeconds(nil, s.base)))
		}
		if !s.name {
			w.attr("n", m.Name)
		}
		if !s.unit && m.Unit != "" {
			w.attr("u", m.Unit)
		}
		if t := m.Time - s.base; t != 0 {
			w.attr("t", string(appendSeconds(nil, t)))
		}
		w.value(m.Value)
		w.WriteString("/>")
	}
	w.WriteString("</sensml>")
	return w.Bytes()
}

type xmlWriter struct{ *bytes.Buffer }

func (w xmlWriter) attr(label, text string) {
	w.WriteString(" " + label + `="`)
	xml.EscapeText(w, []byte(text)) // a Buffer doesn't fail
	w.WriteString(`"`)
}

func (w xmlWriter) value(v carnet.Value) {
	switch v.Kind {
	case carnet.Number:
		w.attr("v", string(appendFloat(nil, v.Num)))
	case carnet.Boolean:
		w.attr("vb", strconv.FormatBool(v.Num != 0))
	case carnet.Text:
		w.attr("vs", escapeForXML(v.Str))
	default:
		w.attr("vd", base64.RawURLEncoding.EncodeToString([]byte(v.Str)))
	}
}

// escapeForXML escapes as in JSON what XML 1.0 §2.2 can't carry, and '\'.
func escapeForXML(s string) string {
	const hex = "0123456789abcdef"
	var out []byte
	for _, c := range s {
		switch {
		case c == '\\':
			out = append(out, '\\', '\\')
		case c < 0x20 || c == 0xfffe || c == 0xffff:
			out = append(out, '\\', 'u', hex[c>>12], hex[c>>8&15], hex[c>>4&15], hex[c&15])
		default:
			out = append(out, string(c)...)
		}
	}
	return string(out)
}
