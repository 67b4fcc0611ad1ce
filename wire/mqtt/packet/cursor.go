package packet

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// cursor reads fields off the front of b. After an error it yields zeros and
// keeps the first error.
type cursor struct {
	b   []byte
	err *Error
}

func (c *cursor) fail(err *Error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// finish reports the first error, or that bytes are left over.
func (c *cursor) finish(t Type) error {
	if c.err != nil {
		return c.err
	}
	if len(c.b) > 0 {
		return malformed("%s has %d bytes too many", t, len(c.b))
	}
	return nil
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.fail(malformed("the packet ends inside a field"))
		return nil
	}
	field := c.b[:n:n]
	c.b = c.b[n:]
	return field
}

func (c *cursor) byte() byte {
	if f := c.take(1); f != nil {
		return f[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if f := c.take(2); f != nil {
		return binary.BigEndian.Uint16(f)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if f := c.take(4); f != nil {
		return binary.BigEndian.Uint32(f)
	}
	return 0
}

func (c *cursor) varint() int {
	v, n, err := varint(c.b)
	if err != nil || n == 0 {
		c.fail(malformed("a variable byte integer is malformed"))
		return 0
	}
	c.b = c.b[n:]
	return v
}

// binary reads binary data (§1.5.6).
func (c *cursor) binary() []byte { return c.take(int(c.uint16())) }

// text reads a UTF-8 encoded string (§1.5.4): well formed, without U+0000.
func (c *cursor) text() []byte {
	s := c.binary()
	if !utf8.Valid(s) || bytes.IndexByte(s, 0) >= 0 {
		c.fail(malformed("a string is not UTF-8, or has U+0000 in it"))
		return nil
	}
	return s
}

// packetID reads a packet identifier, which is never 0 (§2.2.1).
func (c *cursor) packetID() uint16 {
	id := c.uint16()
	if id == 0 {
		c.fail(violation("the packet identifier is 0"))
	}
	return id
}

func appendVarint(dst []byte, v int) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// insertLength puts the length of dst[start:] as a variable byte integer in
// front of it.
func insertLength(dst []byte, start int) []byte {
	var length [4]byte
	return slices.Insert(dst, start, appendVarint(length[:0], len(dst)-start)...)
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}
