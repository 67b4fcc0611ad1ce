package senml

import (
	"encoding/binary"
	"math"

	"carnet"
)

// appendCBOR writes RFC 8428 §6 with definite lengths, the shortest integers
// and floats, and in the order of labels below: one content, one encoding.
func appendCBOR(dst []byte, ms []carnet.Measurement) []byte {
	s := sharedOf(ms)
	dst = appendCBORHead(dst, cborArray, uint64(len(ms)))
	for i := range ms {
		m := &ms[i]
		t := m.Time - s.base
		withName, withUnit := !s.name, !s.unit && m.Unit != ""
		fields := 1 + count(withName) + count(withUnit) + count(t != 0)
		if i == 0 {
			fields += count(s.name) + count(s.unit) + count(s.base != 0)
		}
		dst = append(dst, cborMap<<5|byte(fields))
		if i == 0 {
			dst = appendCBORBase(dst, s, m)
		}
		if withName {
			dst = appendCBORText(append(dst, 0), m.Name)
		}
		if withUnit {
			dst = appendCBORText(append(dst, 1), m.Unit)
		}
		if t != 0 {
			dst = appendCBORSeconds(append(dst, 6), t)
		}
		dst = appendCBORValue(dst, m.Value)
	}
	return dst
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func appendCBORBase(dst []byte, s shared, m *carnet.Measurement) []byte {
	const bn, bt, bu = cborNegative<<5 | 1, cborNegative<<5 | 2, cborNegative<<5 | 3
	if s.name {
		dst = appendCBORText(append(dst, bn), m.Name)
	}
	if s.base != 0 {
		dst = appendCBORSeconds(append(dst, bt), s.base)
	}
	if s.unit {
		dst = appendCBORText(append(dst, bu), m.Unit)
	}
	return dst
}

func appendCBORHead(dst []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func appendCBORText(dst []byte, s string) []byte {
	return append(appendCBORHead(dst, cborText, uint64(len(s))), s...)
}

func appendCBORInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendCBORHead(dst, cborNegative, uint64(^v))
	}
	return appendCBORHead(dst, cborUint, uint64(v))
}

// appendCBORSeconds writes whole seconds as an integer, others as a decimal
// fraction of ms, µs or ns.
func appendCBORSeconds(dst []byte, ns int64) []byte {
	u := unitOf(abs(ns), 0)
	if u > 0 {
		dst = append(dst, cborTag<<5|decimalFraction, cborArray<<5|2)
		dst = appendCBORInt(dst, int64(-3*u))
	}
	return appendCBORInt(dst, ns/int64(timeUnits[u]))
}

func appendCBORValue(dst []byte, v carnet.Value) []byte {
	switch v.Kind {
	case carnet.Number:
		return appendCBORNumber(append(dst, 2), v.Num)
	case carnet.Boolean:
		return append(dst, 4, cborSimple<<5|cborFalse+byte(v.Num))
	case carnet.Text:
		return appendCBORText(append(dst, 3), v.Str)
	}
	dst = appendCBORHead(append(dst, 8), cborBytes, uint64(len(v.Str)))
	return append(dst, v.Str...)
}

// appendCBORNumber writes integers up to 2^53 as such, others as the shortest
// float that holds them.
func appendCBORNumber(dst []byte, v float64) []byte {
	if n := int64(v); float64(n) == v && n > -1<<53 && n < 1<<53 && (n != 0 || !math.Signbit(v)) {
		return appendCBORInt(dst, n)
	}
	if !isFloat32(v) {
		return binary.BigEndian.AppendUint64(append(dst, cborSimple<<5|cborFloat64), math.Float64bits(v))
	}
	if h, ok := toFloat16(v); ok {
		return binary.BigEndian.AppendUint16(append(dst, cborSimple<<5|cborFloat16), h)
	}
	return binary.BigEndian.AppendUint32(append(dst, cborSimple<<5|cborFloat32), math.Float32bits(float32(v)))
}

// toFloat16 finds the half of v if there is one.
func toFloat16(v float64) (h uint16, ok bool) {
	bits := math.Float64bits(v)
	sign := uint16(bits >> 48 & 0x8000)
	exp := int(bits>>52&0x7ff) - 1023
	switch {
	case v == 0:
		return sign, true
	case exp > 15 || exp < -24:
		return 0, false
	case exp >= -14:
		h = sign | uint16(exp+15)<<10 | uint16(bits>>42&0x3ff)
	default: // subnormal
		h = sign | uint16(math.Ldexp(math.Abs(v), 24))
	}
	return h, float16(h) == v
}
