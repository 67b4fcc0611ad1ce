package seal

import (
	"crypto"
	"crypto/ed25519"

	"carnet"
)

// What is signed is a COSE_Sign1 (RFC 9052 §4.2, tag 18) in deterministic CBOR
// with EdDSA over Ed25519 (alg -8, RFC 9053 §2.2):
//
//	18([ << {1: -8, 4: key id, 16: type, …} >>, {}, payload, signature ])
//
// One signing key signs frames, bags and announcements; the type (RFC 9596)
// keeps one from passing for another.
const (
	sign1Open    = "\xd2\x84"             // tag 18, array of 4
	sign1Header  = "\x01\x27\x04\x58\x20" // alg: EdDSA; kid: 32 bytes
	sigStructure = "\x84\x6aSignature1"   // array of 4; context; protected, aad, payload follow
	signatureLen = "\x58\x40"             // byte string of 64

	maxProtected = 256 // bytes of a protected header

	typeFrame     = "application/vnd.carnet.frame+cose"
	typeBag       = "application/vnd.carnet.bag+cose"
	typeReception = "application/vnd.carnet.reception+cose"
)

// KeyID names a signing key: the SHA-256 of its public key's 32 bytes.
func KeyID(pub ed25519.PublicKey) carnet.Fingerprint { return carnet.FingerprintOf(pub) }

// signerID returns the id of an Ed25519 signer's key.
func signerID(key crypto.Signer) (id carnet.Fingerprint, err error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return id, malformed("the signing key is %T, want Ed25519", key.Public())
	}
	return KeyID(pub), nil
}

// appendProtected opens a protected header of n parameters and writes the three
// that all have.
func appendProtected(dst []byte, n int, kid carnet.Fingerprint, typ string) []byte {
	dst = append(appendHead(dst, majorMap, uint64(n)), sign1Header...)
	dst = append(dst, kid[:]...)
	return appendText(appendUint(dst, 16), typ)
}

// protected reads what appendProtected writes.
func (r *reader) protected(n int, typ string) (kid carnet.Fingerprint) {
	if r.head(majorMap) != uint64(n) {
		r.fail()
	}
	r.literal(sign1Header)
	copy(kid[:], r.take(32))
	if r.uint(16) != 16 || string(r.text(len(typ))) != typ {
		r.fail()
	}
	return kid
}

func appendSigStructure(dst, protected, payload []byte) []byte {
	dst = appendBytes(append(dst, sigStructure...), protected)
	return appendBytes(append(dst, majorBytes), payload)
}

// appendSign1 signs and appends the COSE_Sign1 to dst; it builds the structure
// to be signed in scratch, and returns both.
func appendSign1(dst, scratch []byte, key crypto.Signer, protected, payload []byte) ([]byte, []byte, error) {
	scratch = appendSigStructure(scratch[:0], protected, payload)
	signature, err := key.Sign(nil, scratch, crypto.Hash(0))
	if err != nil || len(signature) != ed25519.SignatureSize {
		return dst, scratch, carnet.Errorf(carnet.Unavailable, "the signing key did not sign: %v", err)
	}
	dst = appendBytes(append(dst, sign1Open...), protected)
	dst = appendBytes(append(dst, majorMap), payload)
	return append(append(dst, signatureLen...), signature...), scratch, nil
}

// signed is a COSE_Sign1 taken apart, not verified. Its slices are part of what
// was parsed.
type signed struct {
	protected, payload, signature []byte
}

func parseSign1(data []byte, maxPayload int) (s signed, ok bool) {
	r := reader{b: data}
	r.literal(sign1Open)
	s.protected = r.bytes(maxProtected)
	r.literal("\xa0")
	s.payload = r.bytes(maxPayload)
	r.literal(signatureLen)
	s.signature = r.take(ed25519.SignatureSize)
	return s, r.ended()
}

// verify builds what was signed in scratch and returns scratch to be used again.
func (s signed) verify(scratch []byte, pub ed25519.PublicKey) (bool, []byte) {
	if len(pub) != ed25519.PublicKeySize {
		return false, scratch
	}
	scratch = appendSigStructure(scratch[:0], s.protected, s.payload)
	return ed25519.Verify(pub, scratch, s.signature), scratch
}
