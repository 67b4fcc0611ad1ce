// Package seal owns the formats in which measurements rest and travel: the key
// tree, the batch, the body inside it, the frame, the Merkle tree of a frame,
// the key bag, and the reception key that a bag is sealed to.
//
// A stream has epochs, an epoch has one random 256-bit key, and HKDF leads from
// it to the slots and from a slot to its batches:
//
//	epoch key ── (stream, epoch, slot number) ──▶ slot key
//	slot key  ── (batch number, salt)         ──▶ batch key
//	batch key ──▶ content key ‖ commitment
//
// A batch is sealed once and never changes; who gets a key of the tree, in a
// key bag, reads what is below it and nothing else. A reader compares the
// commitment before it opens, so that a batch has one content only.
//
// The package has no state but what its values hold, no configuration and no
// I/O; it draws from crypto/rand. It must not know senml, policies, stores,
// links or clocks (times are given), and it never decides who may read, but for
// one rule: Grant, the only maker of key bags, refuses a label above the
// reader's clearance.
//
// # Compatibility
//
// What a released version sealed, every later version opens: formats are only
// added, under a new suite or version number, never changed. An encoding is
// unique: for one content there is one sequence of bytes, and a reader refuses
// every other. Unknown suites, versions, labels and types are refused. The
// formats are in docs/design/seal.md, test vectors in testdata.
package seal

import "carnet"

// Limits. A parser refuses what is over them before it looks further.
const (
	MaxBatch        = 1 << 20  // bytes of a batch
	MaxFrame        = 16 << 20 // bytes of a frame in its wire form
	MaxFrameBatches = 4096     // batches of a frame
	MaxBag          = 1 << 20  // bytes of a sealed key bag
	maxWords        = 1024     // bytes of a set of words in a label
)

// ownLabel is the COSE header parameter -65537, which carries what this package
// says in a protected header: the first of the range for private use (RFC 9052
// §11.1: labels below -65536).
const ownLabel = "\x3a\x00\x01\x00\x00"

func malformed(format string, args ...any) error {
	return carnet.Errorf(carnet.Malformed, format, args...)
}

func tampered(format string, args ...any) error {
	return carnet.Errorf(carnet.Tampered, format, args...)
}
