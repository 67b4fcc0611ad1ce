package seal

import (
	"bytes"
	"encoding/binary"
	"time"
	"unicode/utf8"
)

// Major types of RFC 8949 §3.1.
const (
	majorUint  = 0 << 5
	majorNint  = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
	majorTag   = 6 << 5
)

// appendHead writes the head of a data item with the shortest argument, as
// deterministic encoding demands (RFC 8949 §4.2.1).
func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n < 1<<8:
		return append(dst, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func appendUint(dst []byte, n uint64) []byte { return appendHead(dst, majorUint, n) }

func appendInt(dst []byte, n int64) []byte {
	if n < 0 {
		return appendHead(dst, majorNint, uint64(-1-n))
	}
	return appendHead(dst, majorUint, uint64(n))
}

func appendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(b))), b...)
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendArray(dst []byte, n int) []byte { return appendHead(dst, majorArray, uint64(n)) }

// reader takes data items off b and accepts only their deterministic encoding.
// After the first item that is not what was asked for, bad stays set and every
// answer is zero; the caller looks once, at the end.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

// ended reports whether all was read and nothing was wrong.
func (r *reader) ended() bool { return !r.bad && len(r.b) == 0 }

// literal takes exactly want.
func (r *reader) literal(want string) {
	if len(r.b) < len(want) || string(r.b[:len(want)]) != want {
		r.fail()
		return
	}
	r.b = r.b[len(want):]
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// head takes a head of the major type and returns its argument, which must be
// in the shortest form. Indefinite lengths are refused.
func (r *reader) head(major byte) uint64 {
	first := r.take(1)
	if first == nil || first[0]&0xe0 != major {
		r.fail()
		return 0
	}
	info := first[0] & 0x1f
	if info < 24 {
		return uint64(info)
	}
	var n, least uint64
	switch info {
	case 24:
		if b := r.take(1); b != nil {
			n, least = uint64(b[0]), 24
		}
	case 25:
		if b := r.take(2); b != nil {
			n, least = uint64(binary.BigEndian.Uint16(b)), 1<<8
		}
	case 26:
		if b := r.take(4); b != nil {
			n, least = uint64(binary.BigEndian.Uint32(b)), 1<<16
		}
	case 27:
		if b := r.take(8); b != nil {
			n, least = binary.BigEndian.Uint64(b), 1<<32
		}
	default:
		r.fail()
	}
	if n < least {
		r.fail()
	}
	if r.bad {
		return 0
	}
	return n
}

func (r *reader) uint(most uint64) uint64 {
	n := r.head(majorUint)
	if n > most {
		r.fail()
		return 0
	}
	return n
}

func (r *reader) int() int64 {
	if len(r.b) > 0 && r.b[0]&0xe0 == majorNint {
		n := r.head(majorNint)
		if n >= 1<<63 {
			r.fail()
			return 0
		}
		return -1 - int64(n)
	}
	return int64(r.uint(1<<63 - 1))
}

// bytes takes a byte string of at most the given length, without copying it.
func (r *reader) bytes(most int) []byte {
	n := r.head(majorBytes)
	if n > uint64(most) {
		r.fail()
		return nil
	}
	return r.take(n)
}

// fixed takes a byte string of exactly the length of dst into dst.
func (r *reader) fixed(dst []byte) {
	if r.head(majorBytes) != uint64(len(dst)) {
		r.fail()
		return
	}
	copy(dst, r.take(uint64(len(dst))))
}

// text takes a text string of at most the given length, without copying it.
func (r *reader) text(most int) []byte {
	n := r.head(majorText)
	if n > uint64(most) {
		r.fail()
		return nil
	}
	s := r.take(n)
	if !utf8.Valid(s) {
		r.fail()
		return nil
	}
	return s
}

// array takes the head of an array of exactly n items.
func (r *reader) array(n int) {
	if r.head(majorArray) != uint64(n) {
		r.fail()
	}
}

// Times are nanoseconds since the Unix epoch. Those of a program lie between 1970
// and 2262, where they fit.
func appendTime(dst []byte, t time.Time) []byte { return appendInt(dst, t.UnixNano()) }

func (r *reader) time() time.Time { return time.Unix(0, r.int()) }

func checkTime(t time.Time) error {
	if y := t.UTC().Year(); y < 1970 || y > 2261 {
		return malformed("the time %s: want one from 1970 to 2261", t)
	}
	return nil
}

// zeros reports whether b holds nothing but zero bytes.
func zeros(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
