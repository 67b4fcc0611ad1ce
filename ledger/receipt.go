package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"sync"

	"carnet"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// Receipt proves that an entry is in a ledger.
type Receipt struct {
	Index      uint64     // of the leaf, from 0
	Path       [][32]byte // inclusion path, leaf to root (RFC 9162 §2.1.3.1)
	Checkpoint []byte     // signed; says the tree's size and root
	Signature  [64]byte   // over the root as COSE_Sign1 (RFC 9942 §5.2)
}

// Limits of a receipt. A path is never longer than the bits of an index.
const (
	maxPath    = 64
	MaxReceipt = 4096
)

const receiptVersion = 1

// Marshal writes the receipt's only form, the CBOR array
// [1, index, [path], checkpoint, signature].
func (r Receipt) Marshal() []byte {
	return r.append(make([]byte, 0, 512+34*len(r.Path)))
}

func (r Receipt) append(b []byte) []byte {
	b = appendHead(b, majorArray, 5)
	b = appendHead(b, majorUint, receiptVersion)
	b = appendHead(b, majorUint, r.Index)
	b = appendHead(b, majorArray, uint64(len(r.Path)))
	for _, p := range r.Path {
		b = appendBytes(b, p[:])
	}
	b = appendBytes(b, r.Checkpoint)
	return appendBytes(b, r.Signature[:])
}

// ParseReceipt reads what Marshal writes and nothing else. It verifies nothing.
func ParseReceipt(b []byte) (Receipt, error) {
	r := reader{rest: b}
	if len(b) > MaxReceipt {
		r.fail(fmt.Errorf("has %d bytes, want at most %d", len(b), MaxReceipt))
	}
	out := r.receipt()
	if err := r.end(); err != nil {
		return Receipt{}, carnet.Errorf(carnet.Malformed, "the receipt %v", err)
	}
	return out, nil
}

func (r *reader) receipt() (out Receipt) {
	r.want(majorArray, 5, "an array of")
	r.want(majorUint, receiptVersion, "receipt version")
	out.Index = r.head(majorUint)
	out.Path = r.path()
	out.Checkpoint = bytes.Clone(r.take(majorBytes, maxCheckpoint))
	r.fixed(out.Signature[:])
	return out
}

func (r *reader) path() [][32]byte {
	n := r.head(majorArray)
	if r.err == nil && n > maxPath {
		r.fail(fmt.Errorf("has a path of %d hashes, want at most %d", n, maxPath))
	}
	if r.err != nil {
		return nil
	}
	path := make([][32]byte, n)
	for i := range path {
		r.fixed(path[i][:])
	}
	return path
}

// VerifyReceipt checks that r proves entry to be in the ledger that key signs:
// the checkpoint's signature, the path from the entry to its root, and the
// signature of the COSE form. The error says which of them fails.
func VerifyReceipt(key Key, entry Entry, r Receipt) error {
	_, err := NewVerifier(key).Verify(entry, r)
	return err
}

// Verifier verifies receipts of one ledger and remembers the last checkpoints
// that held, since many receipts share one. It may be used concurrently.
type Verifier struct {
	key Key

	mu   sync.Mutex
	held map[string]Checkpoint // by checkpoint and COSE signature; guarded by mu
}

const maxHeld = 1024

// NewVerifier makes a Verifier that trusts key and nothing else.
func NewVerifier(key Key) *Verifier { return &Verifier{key: key, held: make(map[string]Checkpoint)} }

// Key is the key that v trusts.
func (v *Verifier) Key() Key { return v.key }

// Verify is VerifyReceipt; it also returns the checkpoint.
func (v *Verifier) Verify(entry Entry, r Receipt) (Checkpoint, error) {
	cp, err := v.checkpoint(r)
	if err != nil {
		return Checkpoint{}, err
	}
	if r.Index >= cp.Size {
		return Checkpoint{}, carnet.Errorf(carnet.Tampered, "the receipt is for leaf %d of a ledger of %d", r.Index, cp.Size)
	}
	root, err := rootFromPath(entry, r.Index, cp.Size, r.Path)
	if err != nil {
		return Checkpoint{}, carnet.Errorf(carnet.Tampered, "the receipt's inclusion path is not one: %v", err)
	}
	if root != cp.Root {
		return Checkpoint{}, carnet.Errorf(carnet.Tampered, "the entry is not leaf %d under the checkpoint's root: the inclusion path leads to another root", r.Index)
	}
	return cp, nil
}

// checkpoint verifies both signatures over r's root, unless it just did.
func (v *Verifier) checkpoint(r Receipt) (Checkpoint, error) {
	name := string(r.Checkpoint) + string(r.Signature[:])
	v.mu.Lock()
	cp, ok := v.held[name]
	v.mu.Unlock()
	if ok {
		return cp, nil
	}
	cp, err := ParseCheckpoint(v.key, r.Checkpoint)
	if err != nil {
		return cp, err
	}
	if !ed25519.Verify(v.key.Public, coseToBeSigned(v.key.ID(), cp.Root), r.Signature[:]) {
		return cp, carnet.Errorf(carnet.Tampered, "the receipt's COSE signature does not hold for the checkpoint's root")
	}
	v.mu.Lock()
	if len(v.held) >= maxHeld {
		clear(v.held)
	}
	v.held[name] = cp
	v.mu.Unlock()
	return cp, nil
}

// rootFromPath computes the root that a path leads to (RFC 9162 §2.1.3.2).
func rootFromPath(entry Entry, index, size uint64, path [][32]byte) ([32]byte, error) {
	leaf := rfc6962.DefaultHasher.HashLeaf(entry[:])
	root, err := proof.RootFromInclusionProof(rfc6962.DefaultHasher, index, size, leaf, slicesOf(path))
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(root), nil
}

// VerifyConsistency checks that the ledger at newer holds everything that it
// held at older, in the same order (RFC 9162 §2.1.4.2).
func VerifyConsistency(older, newer Checkpoint, path [][32]byte) error {
	if older.Origin != newer.Origin {
		return carnet.Errorf(carnet.Tampered, "the checkpoints are of two ledgers, %q and %q", older.Origin, newer.Origin)
	}
	err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, newer.Size, slicesOf(path), older.Root[:], newer.Root[:])
	if err != nil {
		return carnet.Errorf(carnet.Tampered, "the ledger %q at size %d does not continue what it was at size %d: %v", newer.Origin, newer.Size, older.Size, err)
	}
	return nil
}

func slicesOf(path [][32]byte) [][]byte {
	out := make([][]byte, len(path))
	for i := range path {
		out[i] = path[i][:]
	}
	return out
}

// unverified reads size and key id from the checkpoint without verifying it,
// which is enough to write the receipt in another form.
func (r Receipt) unverified() (size uint64, keyID [4]byte, err error) {
	var cp log.Checkpoint
	if _, err := cp.Unmarshal(r.Checkpoint); err != nil {
		return 0, keyID, err
	}
	line := r.Checkpoint[bytes.LastIndexByte(bytes.TrimSuffix(r.Checkpoint, []byte("\n")), ' ')+1:]
	sig, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(line)))
	if err != nil || len(sig) < len(keyID) {
		return 0, keyID, fmt.Errorf("has no signature line")
	}
	return cp.Size, [4]byte(sig), nil
}
