package ledger

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"carnet"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// Key is the public identity of a ledger: the origin line of its checkpoints
// and the Ed25519 key that signs them.
type Key struct {
	Origin string
	Public ed25519.PublicKey
}

// maxOrigin bounds the origin line.
const maxOrigin = 255

// ParseKey reads the form that String writes: a C2SP signed-note verifier key,
// "origin+hash+key".
func ParseKey(s string) (Key, error) {
	v, err := note.NewVerifier(s)
	if err != nil {
		return Key{}, carnet.Errorf(carnet.Malformed, "ledger key %q is not a verifier key", s).
			WithFix("give the line that the depot prints: origin+hash+key")
	}
	_, encoded, _ := strings.Cut(s[len(v.Name())+1:], "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return Key{}, carnet.Errorf(carnet.Malformed, "ledger key %q is not an Ed25519 key", s)
	}
	k := Key{v.Name(), raw[1:]}
	if err := k.check(); err != nil {
		return Key{}, err
	}
	return k, nil
}

func (k Key) check() error {
	if len(k.Origin) > maxOrigin {
		return carnet.Errorf(carnet.Malformed, "ledger origin has %d bytes, want at most %d", len(k.Origin), maxOrigin)
	}
	if _, err := k.verifier(); err != nil {
		return carnet.Errorf(carnet.Malformed, "ledger key of %q: %v", k.Origin, err)
	}
	return nil
}

// String writes the key as a C2SP signed-note verifier key.
func (k Key) String() string {
	s, err := note.NewEd25519VerifierKey(k.Origin, k.Public)
	if err != nil {
		return "invalid ledger key"
	}
	return s
}

// ID is the key hash that stands in the checkpoint's signature line, and the
// kid of the COSE form.
func (k Key) ID() (id [4]byte) {
	if v, err := k.verifier(); err == nil {
		binary.BigEndian.PutUint32(id[:], v.KeyHash())
	}
	return id
}

func (k Key) verifier() (note.Verifier, error) {
	if len(k.Public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("has %d bytes, want %d", len(k.Public), ed25519.PublicKeySize)
	}
	s, err := note.NewEd25519VerifierKey(k.Origin, k.Public)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(s)
}

// Checkpoint is the state of a ledger that its key has signed.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   [32]byte
}

// maxCheckpoint bounds the bytes of a signed checkpoint with one signature.
const maxCheckpoint = 1024

// ParseCheckpoint verifies a signed checkpoint (C2SP tlog-checkpoint in a C2SP
// signed-note) under key. It takes the one form that a carnet depot writes:
// three lines, a blank one, one signature; so that no byte of it can change
// unnoticed. Extension lines and signatures of others are refused.
func ParseCheckpoint(key Key, signed []byte) (Checkpoint, error) {
	cp, err := parseCheckpoint(key, signed)
	if err != nil {
		return Checkpoint{}, carnet.Errorf(carnet.Tampered, "the checkpoint %v", err)
	}
	return cp, nil
}

func parseCheckpoint(key Key, signed []byte) (cp Checkpoint, err error) {
	if len(signed) > maxCheckpoint {
		return cp, fmt.Errorf("has %d bytes, want at most %d", len(signed), maxCheckpoint)
	}
	v, err := key.verifier()
	if err != nil {
		return cp, fmt.Errorf("cannot be verified: the trusted key %w", err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return cp, fmt.Errorf("is not signed by %q: %w", key.Origin, err)
	}
	var in log.Checkpoint
	rest, err := in.Unmarshal([]byte(n.Text))
	if err != nil {
		return cp, err
	}
	if in.Origin != key.Origin {
		return cp, fmt.Errorf("is of %q, want %q", in.Origin, key.Origin)
	}
	if len(in.Hash) != len(cp.Root) {
		return cp, fmt.Errorf("has a root of %d bytes", len(in.Hash))
	}
	cp = Checkpoint{in.Origin, in.Size, [32]byte(in.Hash)}
	// Base64 and decimal numbers have more than one spelling; only one is taken.
	again := fmt.Appendf(in.Marshal(), "\n— %s %s\n", n.Sigs[0].Name, n.Sigs[0].Base64)
	if len(rest) > 0 || len(n.Sigs) != 1 || len(n.UnverifiedSigs) > 0 || !bytes.Equal(again, signed) || !strictBase64(n.Sigs[0].Base64) {
		return cp, fmt.Errorf("of %q has more than its three lines and one signature", in.Origin)
	}
	return cp, nil
}

func strictBase64(s string) bool {
	raw, err := base64.StdEncoding.DecodeString(s)
	return err == nil && base64.StdEncoding.EncodeToString(raw) == s
}

// Signer signs checkpoints with a ledger's key: as a C2SP signed note (it is a
// note.Signer) and as COSE. One key can sign both, since no note begins with
// the byte 0x84 that begins what COSE signs.
type Signer struct {
	key  Key
	hash uint32
	sign crypto.Signer
}

// NewSigner makes the signer of the ledger called origin; key must be Ed25519.
func NewSigner(origin string, key crypto.Signer) (*Signer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("make ledger signer: key is %T, want Ed25519", key.Public())
	}
	k := Key{origin, public}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("make ledger signer: %w", err)
	}
	id := k.ID()
	return &Signer{k, binary.BigEndian.Uint32(id[:]), key}, nil
}

// Key is the public half.
func (s *Signer) Key() Key { return s.key }

// Name is the ledger's origin (note.Signer).
func (s *Signer) Name() string { return s.key.Origin }

// KeyHash is the key's id in signature lines (note.Signer).
func (s *Signer) KeyHash() uint32 { return s.hash }

// Sign signs the text of a note (note.Signer).
func (s *Signer) Sign(msg []byte) ([]byte, error) {
	return s.sign.Sign(rand.Reader, msg, crypto.Hash(0))
}

// SignRoot signs a checkpoint's root as the detached payload of a COSE receipt;
// the signature is the same for all receipts of the checkpoint.
func (s *Signer) SignRoot(root [32]byte) (sig [64]byte, err error) {
	b, err := s.Sign(coseToBeSigned(s.key.ID(), root))
	if err != nil || len(b) != len(sig) {
		return sig, fmt.Errorf("sign ledger root: %d bytes: %w", len(b), err)
	}
	return [64]byte(b), nil
}
