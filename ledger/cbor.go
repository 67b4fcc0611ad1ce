package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The major types of RFC 8949 §3.1 that the package's formats use.
const (
	majorUint  = 0
	majorNeg   = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
)

const cborNull = 0xf6

// appendHead writes an initial byte and its argument in the shortest form
// (RFC 8949 §4.2.1).
func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendBytes(b, s []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

// reader takes deterministic CBOR apart. The first thing that is not as
// expected stays in err, and everything after it reads as zero.
type reader struct {
	rest []byte
	err  error
}

var errShort = errors.New("ends too early")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// head reads an initial byte of the given major type and its argument, which
// must be in the shortest form; indefinite lengths are refused with it.
func (r *reader) head(major byte) uint64 {
	if r.err != nil {
		return 0
	}
	if len(r.rest) == 0 {
		r.fail(errShort)
		return 0
	}
	first := r.rest[0]
	r.rest = r.rest[1:]
	if first>>5 != major {
		r.fail(fmt.Errorf("has CBOR major type %d where %d belongs", first>>5, major))
		return 0
	}
	info := first & 0x1f
	if info < 24 {
		return uint64(info)
	}
	if info > 27 {
		r.fail(errors.New("has a CBOR length that is not definite"))
		return 0
	}
	return r.argument(1 << (info - 24))
}

func (r *reader) argument(size int) (n uint64) {
	if len(r.rest) < size {
		r.fail(errShort)
		return 0
	}
	for _, c := range r.rest[:size] {
		n = n<<8 | uint64(c)
	}
	r.rest = r.rest[size:]
	shortest := n >= 24
	if size > 1 {
		shortest = n>>(4*size) != 0
	}
	if !shortest {
		r.fail(errors.New("has a CBOR number that is not in its shortest form"))
		return 0
	}
	return n
}

// take reads a string of the given major type with at most limit bytes. The
// result is part of the input.
func (r *reader) take(major byte, limit int) []byte {
	n := r.head(major)
	if r.err == nil && n > uint64(limit) {
		r.fail(fmt.Errorf("has a string of %d bytes where at most %d are allowed", n, limit))
	}
	if r.err == nil && n > uint64(len(r.rest)) {
		r.fail(errShort)
	}
	if r.err != nil {
		return nil
	}
	s := r.rest[:n:n]
	r.rest = r.rest[n:]
	return s
}

// fixed reads a byte string of exactly len(dst) bytes.
func (r *reader) fixed(dst []byte) {
	s := r.take(majorBytes, len(dst))
	if r.err == nil && len(s) != len(dst) {
		r.fail(fmt.Errorf("has a string of %d bytes where %d belong", len(s), len(dst)))
	}
	copy(dst, s)
}

// want reads an initial byte and argument that can only be one.
func (r *reader) want(major byte, n uint64, what string) {
	if got := r.head(major); r.err == nil && got != n {
		r.fail(fmt.Errorf("has %d where %s %d belongs", got, what, n))
	}
}

// end says what went wrong, bytes left over included.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("has %d bytes too many", len(r.rest))
	}
	return r.err
}
