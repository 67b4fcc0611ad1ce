// Package packet reads and writes the control packets of MQTT 3.1.1 (OASIS,
// 29 October 2014) and MQTT 5.0 (OASIS, 7 March 2019); § means a section of the
// latter.
//
// It holds no state and does no I/O. Parsing works in place: what a parsed
// packet points to is the buffer it was parsed from. It must not know sessions:
// whether a packet is allowed now is not its business, whether it is well
// formed is.
package packet

import "fmt"

// Version is a protocol level of CONNECT.
type Version byte

// The versions spoken.
const (
	V311 Version = 4
	V5   Version = 5
)

// Type is a control packet's type (§2.1.2).
type Type byte

// The control packet types.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

var typeNames = [...]string{"packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

func (t Type) String() string { return typeNames[t&15] }

// Error says what is wrong with a packet, with the reason code that tells the
// other side.
type Error struct {
	Reason Reason
	Text   string
}

func (e *Error) Error() string { return e.Text }

func malformed(format string, args ...any) *Error {
	return &Error{MalformedPacket, fmt.Sprintf(format, args...)}
}

func violation(format string, args ...any) *Error {
	return &Error{ProtocolError, fmt.Sprintf(format, args...)}
}

// MaxSize is the largest remaining length that can be written (§1.5.5).
const MaxSize = 268_435_455

// Header is a fixed header (§2.1).
type Header struct {
	Type  Type
	Flags byte
	Len   int // of the header itself
	Size  int // of what follows it
}

// ParseHeader reads the fixed header at the start of b. Len is 0 when b ends
// before the header does.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < 2 {
		return Header{}, nil
	}
	h := Header{Type: Type(b[0] >> 4), Flags: b[0] & 15}
	if want, fixed := fixedFlags(h.Type); fixed && h.Flags != want {
		return h, malformed("%s with flags %04b, want %04b", h.Type, h.Flags, want)
	}
	if h.Type == 0 {
		return h, malformed("packet type 0")
	}
	size, n, err := varint(b[1:])
	if err != nil || n == 0 {
		return Header{}, err
	}
	h.Size, h.Len = size, 1+n
	return h, nil
}

// fixedFlags returns the flags that a type must have (§2.1.3).
func fixedFlags(t Type) (flags byte, fixed bool) {
	switch t {
	case PUBLISH:
		return 0, false
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return 2, true
	}
	return 0, true
}

// varint reads a variable byte integer (§1.5.5); n is 0 when b ends inside it.
func varint(b []byte) (v, n int, err error) {
	for i := range 4 {
		if i == len(b) {
			return 0, 0, nil
		}
		v |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			if i > 0 && b[i] == 0 {
				return 0, 0, malformed("a variable byte integer is longer than it needs to be")
			}
			return v, i + 1, nil
		}
	}
	return 0, 0, malformed("a variable byte integer has more than four bytes")
}
