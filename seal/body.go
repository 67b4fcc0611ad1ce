package seal

import (
	"math"

	"carnet"
)

// Body is the plaintext of a batch: what the batch is, and its content, which
// is opaque here. In bytes it is one CBOR array, then zero bytes up to the next
// multiple of 64:
//
//	[version 1, label, retention, hour, first, count, content]
//	label = [sensitivity bits, purposes, residency]
type Body struct {
	Label     carnet.Label
	Retention carnet.Retention
	Hour      uint32 // receive hour: hours since the Unix epoch
	First     uint64 // number of the first measurement in the stream
	Count     uint32 // of measurements
	Content   []byte
}

const bodyVersion = 1

// AppendBody appends the body's bytes to dst.
func AppendBody(dst []byte, b Body) ([]byte, error) {
	if b.Retention < carnet.Hour || b.Retention > carnet.Keep {
		return dst, malformed("a body has %s, which is no retention class", b.Retention)
	}
	if err := checkLabel(b.Label); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = appendUint(appendArray(dst, 7), bodyVersion)
	dst = appendLabel(dst, b.Label)
	dst = appendUint(dst, uint64(b.Retention))
	dst = appendUint(dst, uint64(b.Hour))
	dst = appendUint(dst, b.First)
	dst = appendUint(dst, uint64(b.Count))
	dst = appendBytes(dst, b.Content)
	var padding [padTo]byte
	if over := (len(dst) - start) % padTo; over != 0 {
		dst = append(dst, padding[over:]...)
	}
	return dst, nil
}

// ParseBody reads an opened batch. Content is part of data, not a copy.
func ParseBody(data []byte) (Body, error) {
	if len(data) > MaxBatch {
		return Body{}, carnet.Errorf(carnet.TooLarge, "a body has %d bytes, more than %d", len(data), MaxBatch)
	}
	r := reader{b: data}
	r.array(7)
	if version := r.uint(math.MaxUint64); !r.bad && version != bodyVersion {
		return Body{}, malformed("a body has version %d, this program reads %d", version, bodyVersion)
	}
	b := Body{Label: r.label()}
	b.Retention = carnet.Retention(r.uint(uint64(carnet.Keep)))
	b.Hour = uint32(r.uint(math.MaxUint32))
	b.First = r.uint(math.MaxUint64)
	b.Count = uint32(r.uint(math.MaxUint32))
	b.Content = r.bytes(MaxBatch)
	if r.bad || b.Retention < carnet.Hour || len(data)%padTo != 0 || len(r.b) >= padTo || !zeros(r.b) {
		return Body{}, malformed("a body is not in the form of version 1")
	}
	return b, nil
}

func appendLabel(dst []byte, l carnet.Label) []byte {
	dst = appendUint(appendArray(dst, 3), uint64(l.Sensitivity))
	return appendText(appendText(dst, string(l.Purposes)), string(l.Residency))
}

func (r *reader) label() carnet.Label {
	r.array(3)
	return carnet.Label{
		Sensitivity: carnet.Sensitivity(r.uint(uint64(carnet.AllSensitive))),
		Purposes:    r.set(),
		Residency:   r.set(),
	}
}

func (r *reader) set() carnet.Set {
	s := r.text(maxWords)
	if !canonical(s) {
		r.fail()
		return ""
	}
	return carnet.Set(s)
}

func checkLabel(l carnet.Label) error {
	if l.Sensitivity > carnet.AllSensitive {
		return malformed("a label has the unknown sensitivity %d", l.Sensitivity)
	}
	for _, s := range []carnet.Set{l.Purposes, l.Residency} {
		if len(s) > maxWords || !canonical([]byte(s)) {
			return malformed("a label has %q, which is no set of words: make it with carnet.NewSet", s)
		}
	}
	return nil
}

// canonical reports whether s is what carnet.NewSet writes: words in ascending
// order, none empty, none twice.
func canonical(s []byte) bool {
	var last []byte
	for len(s) > 0 {
		word, rest := s, []byte(nil)
		for i, c := range s {
			if c == ',' {
				word, rest = s[:i], s[i+1:]
				if len(rest) == 0 {
					return false
				}
				break
			}
		}
		if string(word) <= string(last) {
			return false
		}
		last, s = word, rest
	}
	return true
}
