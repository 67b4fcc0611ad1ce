package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"carnet"
)

// Level says how far up in the tree a key is.
type Level uint8

// The levels, with the number of elements of their paths.
const (
	EpochLevel Level = iota + 2 // stream, epoch
	SlotLevel                   // and slot number
	BatchLevel                  // and batch number
)

// Path says where in the key tree a key is. Fields below its level are zero.
type Path struct {
	Level  Level
	Stream carnet.StreamID
	Epoch  carnet.EpochID
	Slot   uint32
	Number uint64 // the batch's number in the stream
}

// Covers reports whether a key at p opens the batch with header h, given that
// it is the right key.
func (p Path) Covers(h Header) bool {
	return p.Stream == h.Stream && p.Epoch == h.Epoch &&
		(p.Level < SlotLevel || p.Slot == h.Slot) && (p.Level < BatchLevel || p.Number == h.Number) &&
		p.Level >= EpochLevel && p.Level <= BatchLevel
}

// String writes stream/epoch, stream/epoch/slot or stream/epoch/slot/number:
// ids in hexadecimal, numbers in decimal.
func (p Path) String() string {
	s := p.Stream.String() + "/" + p.Epoch.String()
	if p.Level >= SlotLevel {
		s += fmt.Sprintf("/%d", p.Slot)
	}
	if p.Level >= BatchLevel {
		s += fmt.Sprintf("/%d", p.Number)
	}
	return s
}

// ParsePath reads what String writes, and nothing else.
func ParsePath(text string) (p Path, err error) {
	parts := strings.Split(text, "/")
	if len(parts) < int(EpochLevel) || len(parts) > int(BatchLevel) {
		return p, malformed("%q is no path of the key tree", text)
	}
	p.Level = Level(len(parts))
	err = errors.Join(p.Stream.UnmarshalText([]byte(parts[0])), p.Epoch.UnmarshalText([]byte(parts[1])))
	if err == nil && p.Level >= SlotLevel {
		var n uint64
		n, err = strconv.ParseUint(parts[2], 10, 32)
		p.Slot = uint32(n)
	}
	if err == nil && p.Level >= BatchLevel {
		p.Number, err = strconv.ParseUint(parts[3], 10, 64)
	}
	if err != nil || p.String() != text {
		return Path{}, malformed("%q is no path of the key tree", text)
	}
	return p, nil
}

// Key is a key of the tree with its place. Printing one shows its path only.
type Key struct {
	Path
	Secret [32]byte
}

// Commits reports whether the key leads to the batch with header h: whether it
// opens it, or nothing does.
func (k Key) Commits(h Header) bool {
	if !k.Covers(h) {
		return false
	}
	if k.Level == EpochLevel {
		k = slotKey(k, h.Slot)
	}
	secret := k.Secret
	if k.Level == SlotLevel {
		secret = batchSecret(&k.Secret, h.Number, &h.Salt)
	}
	_, commitment := contentKey(&secret)
	return commitment == h.Commitment
}

// NewEpoch starts an epoch of the stream: a random id and a random key.
func NewEpoch(stream carnet.StreamID) Key {
	k := Key{Path: Path{Level: EpochLevel, Stream: stream, Epoch: carnet.NewEpochID()}}
	rand.Read(k.Secret[:])
	return k
}

// Format keeps secrets out of logs, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "key %s", k.Path) }

// LogValue does the same for the handlers of slog that don't format.
func (k Key) LogValue() slog.Value { return slog.StringValue("key " + k.Path.String()) }

// Slot holds the key of a slot: it seals and opens the batches of the slot. It
// doesn't change and may be used by many goroutines.
type Slot struct {
	key Key
}

// Slot derives the key of slot n from an epoch's key, or takes the slot's own.
func (k Key) Slot(n uint32) (*Slot, error) {
	switch {
	case k.Level == EpochLevel:
		return &Slot{slotKey(k, n)}, nil
	case k.Level == SlotLevel && k.Path.Slot == n:
		return &Slot{k}, nil
	}
	return nil, carnet.Errorf(carnet.Forbidden, "the key of %s does not lead to slot %d", k.Path, n)
}

// Key returns the slot's key, to be granted or kept.
func (s *Slot) Key() Key { return s.key }

// BatchKey derives the key of the one batch with header h.
func (s *Slot) BatchKey(h Header) Key {
	p := s.key.Path
	p.Level, p.Number = BatchLevel, h.Number
	return Key{p, batchSecret(&s.key.Secret, h.Number, &h.Salt)}
}

// The info strings of the derivations (RFC 5869 §2.3). Each ends in a zero byte
// and is followed by fields of fixed length, so no two derivations share one.
const (
	infoSlot    = "carnet/1 slot\x00"
	infoBatch   = "carnet/1 batch\x00"
	infoContent = "carnet/1 content\x00"
)

func slotKey(epoch Key, n uint32) Key {
	p := epoch.Path
	p.Level, p.Slot = SlotLevel, n
	info := append(make([]byte, 0, 64), infoSlot...)
	info = append(info, p.Stream[:]...)
	info = append(info, p.Epoch[:]...)
	info = binary.BigEndian.AppendUint32(info, n)
	k := Key{Path: p}
	expand(k.Secret[:], &epoch.Secret, info)
	return k
}

func batchSecret(slot *[32]byte, number uint64, salt *[16]byte) (secret [32]byte) {
	info := append(make([]byte, 0, 64), infoBatch...)
	info = binary.BigEndian.AppendUint64(info, number)
	info = append(info, salt[:]...)
	expand(secret[:], slot, info)
	return secret
}

// contentKey derives what seals a batch, and the commitment to it: finding two
// batch keys with one commitment means finding a collision of SHA-256.
func contentKey(batch *[32]byte) (key, commitment [32]byte) {
	var out [64]byte
	expand(out[:], batch, []byte(infoContent))
	return [32]byte(out[:32]), [32]byte(out[32:])
}

// expand is HKDF-Expand with SHA-256 (RFC 5869 §2.3) for a 32-byte key, an info
// of at most 64 bytes and an output of a multiple of 32 bytes: a third of the
// time of crypto/hkdf and no allocation, which counts once for each batch.
func expand(out []byte, key *[32]byte, info []byte) {
	var m [32 + 64 + 1]byte
	var t [32]byte
	prev := m[:0]
	for i := byte(1); len(out) > 0; i++ {
		t = mac(key, append(append(prev, info...), i))
		prev = append(m[:0], t[:]...)
		out = out[copy(out, t[:]):]
	}
}

// mac is HMAC-SHA-256 (RFC 2104) of at most 97 bytes under a 32-byte key.
func mac(key *[32]byte, message []byte) [32]byte {
	var inner [64 + 97]byte
	var outer [64 + 32]byte
	for i := range 64 {
		inner[i], outer[i] = 0x36, 0x5c
	}
	for i, b := range key {
		inner[i] ^= b
		outer[i] ^= b
	}
	n := copy(inner[64:], message)
	digest := sha256.Sum256(inner[:64+n])
	copy(outer[64:], digest[:])
	return sha256.Sum256(outer[:])
}
