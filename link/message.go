package link

import (
	"bytes"
	"fmt"

	"carnet"

	"github.com/fxamacker/cbor/v2"
)

// The version of the protocol, and its name in TLS (RFC 7301).
const (
	version  = 1
	protocol = "carnet-r1/1"
)

// kind is a message's type byte.
type kind byte

const (
	kindGreeting kind = iota + 1
	kindHello
	kindWelcome
	kindFrame
	kindAck
	kindRefuse
	kindCall
	kindReply
	kindNotify
	kindPing
	kindPong
	kindTrace
	kindTraced
)

// Limits of bodies in bytes, by type; kindFrame's is configured.
var limits = [...]int{
	kindGreeting: 1 << 10,
	kindHello:    1 << 10,
	kindWelcome:  64 << 10,
	kindAck:      1 << 10,
	kindRefuse:   4 << 10,
	kindCall:     1 << 20,
	kindReply:    1 << 20,
	kindNotify:   256 << 10,
	kindPing:     1 << 10,
	kindPong:     1 << 10,
	kindTrace:    1 << 10,
	kindTraced:   1 << 10,
}

const (
	maxKind   = 64                    // bytes of a call's or notice's kind
	maxReason = 2 << 10               // bytes of a refusal's reason
	maxFix    = 1 << 10               // bytes of what it says to do
	maxBody   = 1<<20 - 4<<10         // bytes of a call's or reply's body
	maxNotice = 256<<10 - maxKind - 8 // bytes of a notice's body
)

// limit returns the greatest body of a type, and 0 for an unknown type.
func (k kind) limit(maxFrame int) int {
	switch {
	case k == kindFrame:
		return maxFrame
	case int(k) < len(limits):
		return limits[k]
	}
	return 0
}

// Control messages are CBOR arrays of their fields in order.
type (
	greeting struct {
		_           struct{} `cbor:",toarray"`
		Version     uint64
		Incarnation uint64
	}
	hello struct {
		_        struct{} `cbor:",toarray"`
		Version  uint64
		Party    string
		Audience string
		Nonce    Nonce
		Seen     uint64
		Own      uint64
		Known    uint64
		Number   uint64
	}
	welcome struct {
		_            struct{} `cbor:",toarray"`
		Incarnation  uint64
		Number       uint64
		Hash         carnet.Fingerprint
		Covers       Covers
		MaxFrame     int
		Window       int
		Announcement []byte
	}
	ack struct {
		_      struct{} `cbor:",toarray"`
		Number uint64
	}
	refuse struct {
		_      struct{} `cbor:",toarray"`
		Number uint64   // 0: the hello, or the connection as a whole
		Code   string
		Reason string
		Fix    string
	}
	call struct {
		_    struct{} `cbor:",toarray"`
		ID   uint64
		Kind string
		Body []byte
	}
	reply struct {
		_      struct{} `cbor:",toarray"`
		ID     uint64
		Code   string // empty: answered
		Reason string
		Fix    string
		Body   []byte
	}
	notify struct {
		_    struct{} `cbor:",toarray"`
		Kind string
		Body []byte
	}
	ping struct {
		_ struct{} `cbor:",toarray"`
		N uint64
	}
	trace struct {
		_      struct{} `cbor:",toarray"`
		ID     uint64
		Number uint64
	}
	traced struct {
		_      struct{} `cbor:",toarray"`
		ID     uint64
		Kept   bool
		Number uint64
		Hash   carnet.Fingerprint
		Covers Covers
	}
)

// newRefuse tells an error; number is the frame that it is about, or 0.
func newRefuse(number uint64, told *carnet.Error) *refuse {
	return &refuse{Number: number, Code: string(told.Code), Reason: clip(told.Reason, maxReason), Fix: clip(told.Fix, maxFix)}
}

// heard is an error as the other side told it.
func heard(code, reason, fix string) *carnet.Error {
	return &carnet.Error{Code: carnet.Code(code), Reason: clip(reason, maxReason), Fix: clip(fix, maxFix)}
}

// codec reads and writes control messages in core deterministic encoding (RFC
// 8949 §4.2.1).
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return codec{}, fmt.Errorf("make encoder: %w", err)
	}
	dec, err := cbor.DecOptions{
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		return codec{}, fmt.Errorf("make decoder: %w", err)
	}
	return codec{enc, dec}, nil
}

// decode reads a body into the message at m and refuses every encoding but the
// one that the message has.
func (c codec) decode(k kind, body []byte, m any) error {
	if err := c.dec.Unmarshal(body, m); err != nil {
		return carnet.Errorf(carnet.Malformed, "message of type %d: %v", k, err)
	}
	again, err := c.enc.Marshal(m)
	if err != nil || !bytes.Equal(again, body) {
		return carnet.Errorf(carnet.Malformed, "message of type %d is not in deterministic encoding", k)
	}
	return nil
}
