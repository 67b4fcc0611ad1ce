// Package carnet is the vocabulary that every other package shares: the ids of
// parties, things, avatars and streams, the measurement, labels and clearances,
// retention classes, and the codes of errors that another package must react to.
//
// It owns no state and does no I/O. It uses the standard library only, and a
// type enters it when two domains need it. It must not know formats, stores,
// transports or policy.
package carnet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// PartyID names an organisation's running role ("hub", "arena", "vault"): a
// lower-case letter, then up to 31 lower-case letters, digits or hyphens.
type PartyID string

// ThingID names a thing at its things agent: 1 to 64 of a-z, 0-9, '.', '_' and
// '-', starting with a letter or digit. It appears in MQTT topics and never
// leaves the agent towards a world.
type ThingID string

// AvatarID is a thing's representation in one world: random, 128 bits, written
// as 32 hexadecimal digits.
type AvatarID [16]byte

// StreamID is what one writer says about one avatar: random, 128 bits.
type StreamID [16]byte

// EpochID names a stretch of a stream with one key: random, 64 bits.
type EpochID [8]byte

// MappingID names one (thing, avatar) pair at the things agent: random, 128
// bits; it never leaves the agent.
type MappingID [16]byte

// ShareID names a share between two worlds: random, 128 bits, drawn by who takes.
type ShareID [16]byte

// CrossingID names a move from one world to another: random, 128 bits, drawn by
// the target.
type CrossingID [16]byte

// HomeID is what the register calls an avatar or item: random, 128 bits. It says
// nothing to who doesn't know it already.
type HomeID [16]byte

// ItemID names an item: random, 128 bits, drawn by its issuer.
type ItemID [16]byte

// ErasureID names an erasure of an avatar: random, 128 bits.
type ErasureID [16]byte

// JobID names a computation that a world orders: random, 128 bits.
type JobID [16]byte

// Fingerprint is the SHA-256 of exact bytes (of a batch, an object, a frame's
// signed header).
type Fingerprint [32]byte

// NewAvatarID and the others draw from crypto/rand, which never fails.
func NewAvatarID() (id AvatarID)     { rand.Read(id[:]); return id }
func NewStreamID() (id StreamID)     { rand.Read(id[:]); return id }
func NewEpochID() (id EpochID)       { rand.Read(id[:]); return id }
func NewMappingID() (id MappingID)   { rand.Read(id[:]); return id }
func NewShareID() (id ShareID)       { rand.Read(id[:]); return id }
func NewCrossingID() (id CrossingID) { rand.Read(id[:]); return id }
func NewHomeID() (id HomeID)         { rand.Read(id[:]); return id }
func NewItemID() (id ItemID)         { rand.Read(id[:]); return id }
func NewErasureID() (id ErasureID)   { rand.Read(id[:]); return id }
func NewJobID() (id JobID)           { rand.Read(id[:]); return id }

// FingerprintOf hashes b.
func FingerprintOf(b []byte) Fingerprint { return sha256.Sum256(b) }

func (id AvatarID) String() string   { return hex.EncodeToString(id[:]) }
func (id StreamID) String() string   { return hex.EncodeToString(id[:]) }
func (id EpochID) String() string    { return hex.EncodeToString(id[:]) }
func (id MappingID) String() string  { return hex.EncodeToString(id[:]) }
func (id ShareID) String() string    { return hex.EncodeToString(id[:]) }
func (id CrossingID) String() string { return hex.EncodeToString(id[:]) }
func (id HomeID) String() string     { return hex.EncodeToString(id[:]) }
func (id ItemID) String() string     { return hex.EncodeToString(id[:]) }
func (id ErasureID) String() string  { return hex.EncodeToString(id[:]) }
func (id JobID) String() string      { return hex.EncodeToString(id[:]) }
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText and UnmarshalText make ids and fingerprints hexadecimal in JSON
// and usable as map keys there.
func (id AvatarID) MarshalText() ([]byte, error)       { return []byte(id.String()), nil }
func (id StreamID) MarshalText() ([]byte, error)       { return []byte(id.String()), nil }
func (id EpochID) MarshalText() ([]byte, error)        { return []byte(id.String()), nil }
func (id MappingID) MarshalText() ([]byte, error)      { return []byte(id.String()), nil }
func (id ShareID) MarshalText() ([]byte, error)        { return []byte(id.String()), nil }
func (id CrossingID) MarshalText() ([]byte, error)     { return []byte(id.String()), nil }
func (id HomeID) MarshalText() ([]byte, error)         { return []byte(id.String()), nil }
func (id ItemID) MarshalText() ([]byte, error)         { return []byte(id.String()), nil }
func (id ErasureID) MarshalText() ([]byte, error)      { return []byte(id.String()), nil }
func (id JobID) MarshalText() ([]byte, error)          { return []byte(id.String()), nil }
func (f Fingerprint) MarshalText() ([]byte, error)     { return []byte(f.String()), nil }
func (id *AvatarID) UnmarshalText(text []byte) error   { return parseHex(id[:], text, "avatar id") }
func (id *StreamID) UnmarshalText(text []byte) error   { return parseHex(id[:], text, "stream id") }
func (id *EpochID) UnmarshalText(text []byte) error    { return parseHex(id[:], text, "epoch id") }
func (id *MappingID) UnmarshalText(text []byte) error  { return parseHex(id[:], text, "mapping id") }
func (id *ShareID) UnmarshalText(text []byte) error    { return parseHex(id[:], text, "share id") }
func (id *CrossingID) UnmarshalText(text []byte) error { return parseHex(id[:], text, "crossing id") }
func (id *HomeID) UnmarshalText(text []byte) error     { return parseHex(id[:], text, "home id") }
func (id *ItemID) UnmarshalText(text []byte) error     { return parseHex(id[:], text, "item id") }
func (id *ErasureID) UnmarshalText(text []byte) error  { return parseHex(id[:], text, "erasure id") }
func (id *JobID) UnmarshalText(text []byte) error      { return parseHex(id[:], text, "job id") }
func (f *Fingerprint) UnmarshalText(text []byte) error {
	return parseHex(f[:], text, "fingerprint")
}

func parseHex(dst, text []byte, what string) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return Errorf(Malformed, "%s has %d characters, want %d hexadecimal digits", what, len(text), hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return Errorf(Malformed, "%s is not hexadecimal", what)
	}
	return nil
}

// ParseAvatarID reads the form that String writes.
func ParseAvatarID(s string) (id AvatarID, err error) { return id, id.UnmarshalText([]byte(s)) }

// ParseStreamID reads the form that String writes.
func ParseStreamID(s string) (id StreamID, err error) { return id, id.UnmarshalText([]byte(s)) }

// ParsePartyID checks s against the form of a PartyID.
func ParsePartyID(s string) (PartyID, error) {
	if len(s) < 1 || len(s) > 32 || s[0] < 'a' || s[0] > 'z' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", Errorf(Malformed, "party id %q: want a lower-case letter, then up to 31 of a-z, 0-9 and '-'", s)
	}
	return PartyID(s), nil
}

// ParseThingID checks s against the form of a ThingID.
func ParseThingID(s string) (ThingID, error) {
	if len(s) < 1 || len(s) > 64 || strings.IndexByte("._-", s[0]) >= 0 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return "", Errorf(Malformed, "thing id %q: want 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit", s)
	}
	return ThingID(s), nil
}

// Kind tells which field of a Value holds it.
type Kind uint8

// The kinds of values of RFC 8428 §4.2: v, vb, vs, vd.
const (
	Number Kind = iota + 1
	Boolean
	Text
	Data
)

func (k Kind) String() string {
	switch k {
	case Number:
		return "number"
	case Boolean:
		return "boolean"
	case Text:
		return "text"
	case Data:
		return "data"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Value is one measured value. Num holds a Number, and 0 or 1 for a Boolean;
// Str holds a Text (UTF-8) or Data (bytes). Values compare with ==.
type Value struct {
	Num  float64
	Str  string
	Kind Kind
}

// Float, Bool, String and Bytes make values.
func Float(v float64) Value { return Value{Kind: Number, Num: v} }
func String(s string) Value { return Value{Kind: Text, Str: s} }
func Bytes(b []byte) Value  { return Value{Kind: Data, Str: string(b)} }
func Bool(b bool) Value {
	if b {
		return Value{Kind: Boolean, Num: 1}
	}
	return Value{Kind: Boolean}
}

// Measurement is one SenML record (RFC 8428) with base fields resolved: what
// was measured, in which unit, when (nanoseconds since the Unix epoch), and the
// value. Name is a property of the thing's description; a field of an object
// property is written property/field ("position/lat").
type Measurement struct {
	Name  string
	Unit  string
	Time  int64
	Value Value
}
