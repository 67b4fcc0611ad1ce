package evidence

import (
	"crypto"
	"crypto/ed25519"
	"encoding/binary"

	"carnet"
	"carnet/seal"
)

// What a world signs is a COSE_Sign1 (RFC 9052 §4.2, tag 18) with EdDSA over Ed25519:
//
//	18([ << {1: -8, 4: key id, 16: type} >>, {}, JSON, signature ])
//
// All lengths but the payload's are fixed by the type, and the payload's has four
// bytes, so there is one form only.
const (
	protectedOpen = "\xa3\x01\x27\x04\x58\x20" // map of 3; alg: EdDSA; kid: 32 bytes
	typeOpen      = "\x10\x78"                 // typ (RFC 9596): text of n, one byte
	sign1Open     = "\xd2\x84\x58"             // tag 18, array of 4, bytes of n, one byte
	payloadOpen   = "\xa0\x5a"                 // no unprotected header; bytes, length in 4
	signatureOpen = "\x58\x40"                 // bytes of 64
	sigStructure  = "\x84\x6aSignature1\x58"   // RFC 9052 §4.4; bytes of n, one byte
	sigPayload    = "\x40\x5a"                 // no external data; bytes, length in 4
)

// envelope is something signed, taken apart and not verified.
type envelope struct {
	kid                           carnet.Fingerprint
	protected, payload, signature []byte
}

// protectedOf is the protected header of a type, signed by the key with an id.
func protectedOf(typ string, kid carnet.Fingerprint) []byte {
	b := append([]byte(protectedOpen), kid[:]...)
	return append(append(append(b, typeOpen...), byte(len(typ))), typ...)
}

// signEnvelope signs a payload of a type, whose name has 24 to 200 bytes.
func signEnvelope(typ string, key crypto.Signer, payload []byte, limit int) ([]byte, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, carnet.Errorf(carnet.Malformed, "the key that signs a bundle is %T, want Ed25519", key.Public())
	}
	protected := protectedOf(typ, seal.KeyID(pub))
	signature, err := key.Sign(nil, toBeSigned(protected, payload), crypto.Hash(0))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the world's key did not sign: %v", err)
	}
	b := append(append([]byte(sign1Open), byte(len(protected))), protected...)
	b = binary.BigEndian.AppendUint32(append(b, payloadOpen...), uint32(len(payload)))
	b = append(append(b, payload...), signatureOpen...)
	if b = append(b, signature...); len(b) > limit {
		return nil, carnet.Errorf(carnet.TooLarge, "what is to be signed has %d bytes, more than %d", len(b), limit)
	}
	return b, nil
}

func toBeSigned(protected, payload []byte) []byte {
	b := append(append([]byte(sigStructure), byte(len(protected))), protected...)
	b = binary.BigEndian.AppendUint32(append(b, sigPayload...), uint32(len(payload)))
	return append(b, payload...)
}

func (e *envelope) verify(key PublicKey) bool {
	return ed25519.Verify(ed25519.PublicKey(key), toBeSigned(e.protected, e.payload), e.signature)
}

// openEnvelope takes something signed of a type apart.
func openEnvelope(typ string, b []byte, limit int) (*envelope, error) {
	protected := len(protectedOf(typ, carnet.Fingerprint{}))
	least := len(sign1Open) + 1 + protected + len(payloadOpen) + 4 + len(signatureOpen) + ed25519.SignatureSize
	if len(b) > limit || len(b) < least {
		return nil, carnet.Errorf(carnet.Malformed, "what is signed as %s has a size that none has", typ)
	}
	e, ok := new(envelope), true
	take := func(n int) (part []byte) {
		part, b = b[:n:n], b[n:]
		return part
	}
	want := func(part []byte, is string) { ok = ok && string(part) == is }
	want(take(len(sign1Open)+1), sign1Open+string([]byte{byte(protected)}))
	e.protected = take(protected)
	e.kid = carnet.Fingerprint(e.protected[len(protectedOpen):][:hashSize])
	want(e.protected, string(protectedOf(typ, e.kid)))
	want(take(len(payloadOpen)), payloadOpen)
	n := uint64(binary.BigEndian.Uint32(take(4)))
	if !ok || n != uint64(len(b)-len(signatureOpen)-ed25519.SignatureSize) {
		return nil, carnet.Errorf(carnet.Malformed, "what is signed as %s is not a signature in the form of version 1", typ)
	}
	e.payload = take(int(n))
	want(take(len(signatureOpen)), signatureOpen)
	if e.signature = b; !ok {
		return nil, carnet.Errorf(carnet.Malformed, "what is signed as %s is not a signature in the form of version 1", typ)
	}
	return e, nil
}
