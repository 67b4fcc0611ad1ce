package link

import (
	"encoding/binary"

	"carnet"
)

// Covers is a position in the sender's log, in a form that only the sender can
// read.
type Covers [16]byte

// Nonce names one connection of one sender process: 8 random bytes drawn at the
// start of the process, then the connection's number in it.
type Nonce [16]byte

// Process is the part of a nonce that all connections of a process share.
type Process [8]byte

// Process returns the process that made n.
func (n Nonce) Process() Process { return Process(n[:8]) }

func (p Process) nonce(connection uint64) (n Nonce) {
	copy(n[:], p[:])
	binary.BigEndian.PutUint64(n[8:], connection)
	return n
}

// Position is a frame that a receiver has: its number (0: none at all), its
// hash, and what of the sender's log is at the receiver with it.
type Position struct {
	Number uint64
	Hash   carnet.Fingerprint
	Covers Covers
}

// State is what a receiver durably knows of one sender. The zero State is a
// sender that never registered.
type State struct {
	Nonce       Nonce
	Incarnation uint64
	Last        Position
}

// Hello is a sender's wish to register.
type Hello struct {
	Nonce Nonce
	// Seen is the incarnation that the receiver's greeting named. A hello that
	// was overtaken by another registration is stale: without this rule the late
	// hello of a dead process would fence its successor.
	Seen uint64
	// Own is the last incarnation this process was given, 0 if none yet.
	Own uint64
	// Known is the greatest incarnation that the sender's durable records name:
	// the new one must be greater even if the receiver was restored from an old
	// backup, so that (incarnation, number) names one frame for ever.
	Known uint64
	// Number is the greatest frame number that the sender knows to be
	// acknowledged; the receiver alarms if it is beyond its own.
	Number uint64
}

// Admission is the answer to a Hello.
type Admission uint8

// maxNumber bounds what the other side may say of incarnations and of frames' numbers: a
// store has numbers up to 2^63, and no link is registered, or sends, so often.
const maxNumber = 1 << 62

const (
	Admitted Admission = iota + 1 // register Nonce above Above
	Stale                         // another registration came between: connect again
	Dead                          // a newer process registered: this one is fenced
)

// Admit decides on a hello. When the answer is Admitted, the receiver durably
// registers hello.Nonce with an incarnation greater than above before it
// answers.
func (s State) Admit(h Hello) (answer Admission, above uint64) {
	switch {
	case h.Seen != s.Incarnation || h.Own > maxNumber || h.Known > maxNumber:
		return Stale, 0
	case h.Own != 0 && h.Own <= s.Incarnation && h.Nonce.Process() != s.Nonce.Process():
		return Dead, 0
	}
	return Admitted, max(s.Incarnation, h.Own, h.Known)
}

// Register returns the state after registering nonce above an incarnation. A
// nonce that is the last registered keeps its incarnation: a Sink may repeat
// what it doesn't know the outcome of.
func (s State) Register(n Nonce, above uint64) State {
	if s.Incarnation != 0 && n == s.Nonce {
		return s
	}
	return State{Nonce: n, Incarnation: max(s.Incarnation, above) + 1, Last: s.Last}
}

// Head is what the protocol reads of a frame: fields of its signed header, and
// that header's hash.
type Head struct {
	Incarnation uint64
	Number      uint64
	Parent      carnet.Fingerprint
	Hash        carnet.Fingerprint
	Covers      Covers
}

// Verdict is a receiver's decision on one frame.
type Verdict uint8

const (
	Next       Verdict = iota + 1 // store it, then acknowledge
	Again                         // stored before: acknowledge again
	Superseded                    // of an incarnation that is not current: drop it
	Forked                        // other hash at a known number, or a broken chain: refuse, alarm, fence
	Jumped                        // not the next number: refuse
)

// Judge decides on a frame whose signature holds and returns the state with it
// stored. known returns the hash of the stored frame with a number up to
// s.Last.Number, and false if it isn't kept any more.
func (s State) Judge(h Head, known func(number uint64) (carnet.Fingerprint, bool)) (State, Verdict) {
	switch {
	case h.Incarnation != s.Incarnation:
		return s, Superseded
	case h.Number == s.Last.Number+1:
		if h.Parent != s.Last.Hash {
			return s, Forked
		}
		s.Last = Position{h.Number, h.Hash, h.Covers}
		return s, Next
	case h.Number > s.Last.Number || h.Number == 0:
		return s, Jumped
	}
	hash, ok := s.Last.Hash, true
	if h.Number != s.Last.Number {
		hash, ok = known(h.Number)
	}
	switch {
	case !ok:
		return s, Jumped
	case hash != h.Hash:
		return s, Forked
	}
	return s, Again
}
