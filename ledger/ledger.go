// Package ledger is what every party knows of the ledger without running one:
// statements, the entries made of them, receipts, checkpoints, and how each is
// verified offline; and the outbox by which a party's statements reach a depot
// and come back with receipts.
//
// An entry is exactly SHA-256(salt ‖ statement). Statement and salt stay with
// the party that made them, sealed and deletable, so nothing on the ledger says
// anything about anybody. A receipt proves that an entry is in the ledger: a
// Merkle path (RFC 9162 §2.1.3) to the root of a signed checkpoint (C2SP
// tlog-checkpoint), and the signature that makes the same proof a COSE receipt
// (RFC 9942).
//
// Everything but Outbox is a pure function of bytes. An Outbox item is pending
// until the store keeps a verified receipt for it, and then done; there is no
// third state, and sending an entry again is always allowed.
//
// The package must not know how a ledger is kept (that is ledger/tlog), nor
// what the parties' statements are about beyond the closed table of kinds. All
// encodings are deterministic CBOR (RFC 8949 §4.2.1) in one form only: what
// would encode otherwise is refused.
package ledger

import (
	"crypto/rand"
	"crypto/sha256"
)

// Entry is what the ledger holds for a statement. Nothing can be learned from
// it without the salt.
type Entry = [32]byte

// Salt hides a statement in its entry; each statement has its own.
type Salt = [32]byte

// NewSalt draws a salt from crypto/rand, which never fails.
func NewSalt() (s Salt) { rand.Read(s[:]); return s }

// EntryOf makes the entry of a statement in the form that Statement.Marshal
// writes.
func EntryOf(salt Salt, statement []byte) Entry {
	h := sha256.New()
	h.Write(salt[:])
	h.Write(statement)
	return Entry(h.Sum(nil))
}
