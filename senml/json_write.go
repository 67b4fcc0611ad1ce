package senml

import (
	"encoding/base64"
	"unicode/utf8"

	"carnet"
)

// shared says which fields all measurements of a pack have in common and a
// writer puts into the first record as base fields (RFC 8428 §4.1).
type shared struct {
	name, unit bool
	base       int64 // bt; 0 for none. All times are after 1978: differences fit.
}

// sharedOf: a pack of one has no base fields; a larger one has the first time
// as its base time, and its name and unit when all agree.
func sharedOf(ms []carnet.Measurement) shared {
	if len(ms) < 2 {
		return shared{}
	}
	s := shared{name: true, unit: ms[0].Unit != "", base: ms[0].Time}
	for i := 1; i < len(ms) && (s.name || s.unit); i++ {
		s.name = s.name && ms[i].Name == ms[0].Name
		s.unit = s.unit && ms[i].Unit == ms[0].Unit
	}
	return s
}

func appendJSON(dst []byte, ms []carnet.Measurement) []byte {
	if len(ms) == 0 {
		return append(dst, '[', ']')
	}
	s := sharedOf(ms)
	for i := range ms {
		m := &ms[i]
		if i == 0 {
			dst = append(dst, '[', '{')
			dst = appendJSONBase(dst, s, m)
		} else {
			dst = append(dst, ',', '{')
		}
		if !s.name {
			dst = append(dst, `"n":"`...)
			dst = append(dst, m.Name...) // needs no escape
			dst = append(dst, `",`...)
		}
		if !s.unit && m.Unit != "" {
			dst = append(dst, `"u":`...)
			dst = appendJSONString(dst, m.Unit)
			dst = append(dst, ',')
		}
		if t := m.Time - s.base; t != 0 {
			dst = append(dst, `"t":`...)
			dst = appendSeconds(dst, t)
			dst = append(dst, ',')
		}
		dst = appendJSONValue(dst, m.Value)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendJSONBase(dst []byte, s shared, m *carnet.Measurement) []byte {
	if s.name {
		dst = append(dst, `"bn":"`...)
		dst = append(dst, m.Name...)
		dst = append(dst, `",`...)
	}
	if s.unit {
		dst = append(dst, `"bu":`...)
		dst = appendJSONString(dst, m.Unit)
		dst = append(dst, ',')
	}
	if s.base != 0 {
		dst = append(dst, `"bt":`...)
		dst = appendSeconds(dst, s.base)
		dst = append(dst, ',')
	}
	return dst
}

func appendJSONValue(dst []byte, v carnet.Value) []byte {
	switch v.Kind {
	case carnet.Number:
		dst = append(dst, `"v":`...)
		return appendFloat(dst, v.Num)
	case carnet.Boolean:
		if v.Num != 0 {
			return append(dst, `"vb":true`...)
		}
		return append(dst, `"vb":false`...)
	case carnet.Text:
		dst = append(dst, `"vs":`...)
		return appendJSONString(dst, v.Str)
	}
	dst = append(dst, `"vd":"`...)
	dst = base64.RawURLEncoding.AppendEncode(dst, []byte(v.Str))
	return append(dst, '"')
}

// appendJSONString writes valid UTF-8; control characters, '"' and '\' are
// escaped, nothing else.
func appendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf || plain(c) {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}
