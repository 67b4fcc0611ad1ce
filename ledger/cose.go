package ledger

import (
	"bytes"
	"crypto/ed25519"
	"fmt"

	"carnet"
)

// The numbers of RFC 9942 (COSE receipts) and RFC 9052 that a receipt uses.
const (
	coseSign1Tag   = 18  // RFC 9052 §4.2
	labelAlg       = 1   // protected: the signature's algorithm
	labelKID       = 4   // protected: the ledger key's id
	labelVDS       = 395 // protected: the verifiable data structure (RFC 9942 §2)
	labelVDP       = 396 // unprotected: its proofs (RFC 9942 §2)
	algEdDSA       = -8  // RFC 9053 §2.2
	vdsRFC9162     = 1   // RFC9162_SHA256 (RFC 9942 §5.1)
	proofInclusion = -1  // RFC 9942 §5.2
)

// appendInt writes a signed integer.
func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, majorNeg, uint64(-1-n))
	}
	return appendHead(b, majorUint, uint64(n))
}

// coseProtected is the protected header {1: -8, 4: kid, 395: 1}.
func coseProtected(keyID [4]byte) []byte {
	b := appendHead(nil, majorMap, 3)
	b = appendInt(appendInt(b, labelAlg), algEdDSA)
	b = appendBytes(appendInt(b, labelKID), keyID[:])
	return appendInt(appendInt(b, labelVDS), vdsRFC9162)
}

// coseToBeSigned is the Sig_structure of RFC 9052 §4.4 over a detached root,
// without external data.
func coseToBeSigned(keyID [4]byte, root [32]byte) []byte {
	b := appendHead(nil, majorArray, 4)
	b = appendText(b, "Signature1")
	b = appendBytes(b, coseProtected(keyID))
	b = appendBytes(b, nil)
	return appendBytes(b, root[:])
}

// COSE writes the receipt as an RFC 9942 receipt of inclusion: a COSE_Sign1
// whose detached payload is the root that the proof leads to.
func (r Receipt) COSE() ([]byte, error) {
	size, keyID, err := r.unverified()
	if err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the receipt's checkpoint %v", err)
	}
	b := appendHead(nil, majorTag, coseSign1Tag)
	b = appendHead(b, majorArray, 4)
	b = appendBytes(b, coseProtected(keyID))
	b = appendHead(b, majorMap, 1)
	b = appendInt(b, labelVDP)
	b = appendHead(b, majorMap, 1)
	b = appendInt(b, proofInclusion)
	b = appendHead(b, majorArray, 1)
	b = appendBytes(b, inclusionProof(size, r.Index, r.Path))
	b = append(b, cborNull)
	return appendBytes(b, r.Signature[:]), nil
}

// inclusionProof is [tree-size, leaf-index, [path]] (RFC 9942 §5.2).
func inclusionProof(size, index uint64, path [][32]byte) []byte {
	b := appendHead(nil, majorArray, 3)
	b = appendHead(b, majorUint, size)
	b = appendHead(b, majorUint, index)
	b = appendHead(b, majorArray, uint64(len(path)))
	for _, p := range path {
		b = appendBytes(b, p[:])
	}
	return b
}

// VerifyCOSE checks that an RFC 9942 receipt, in the one form that COSE
// writes, proves entry to be in the ledger that key signs. Unlike a Receipt it
// doesn't show which checkpoint it belongs to.
func VerifyCOSE(key Key, entry Entry, receipt []byte) error {
	if err := key.check(); err != nil {
		return err
	}
	size, index, path, sig, err := parseCOSE(key, receipt)
	if err != nil {
		return carnet.Errorf(carnet.Malformed, "the COSE receipt %v", err)
	}
	root, err := rootFromPath(entry, index, size, path)
	if err != nil {
		return carnet.Errorf(carnet.Tampered, "the COSE receipt's inclusion proof is not one: %v", err)
	}
	if !ed25519.Verify(key.Public, coseToBeSigned(key.ID(), root), sig) {
		return carnet.Errorf(carnet.Tampered, "the COSE receipt's signature does not hold for the root that its proof leads to")
	}
	return nil
}

func parseCOSE(key Key, b []byte) (size, index uint64, path [][32]byte, sig []byte, err error) {
	r := reader{rest: b}
	if len(b) > MaxReceipt {
		r.fail(fmt.Errorf("has %d bytes, want at most %d", len(b), MaxReceipt))
	}
	r.want(majorTag, coseSign1Tag, "tag")
	r.want(majorArray, 4, "an array of")
	if protected := r.take(majorBytes, 64); r.err == nil && !bytes.Equal(protected, coseProtected(key.ID())) {
		r.fail(fmt.Errorf("has a protected header that is not {alg: EdDSA, kid: %x, vds: RFC9162_SHA256}", key.ID()))
	}
	r.want(majorMap, 1, "a map of")
	r.want(majorUint, labelVDP, "label")
	r.want(majorMap, 1, "a map of")
	r.want(majorNeg, -1-proofInclusion, "proof type")
	r.want(majorArray, 1, "an array of")
	inner := reader{rest: r.take(majorBytes, MaxReceipt)}
	if r.err == nil && (len(r.rest) == 0 || r.rest[0] != cborNull) {
		r.fail(fmt.Errorf("has a payload that is not detached"))
	}
	if r.err == nil {
		r.rest = r.rest[1:]
	}
	sig = make([]byte, ed25519.SignatureSize)
	r.fixed(sig)
	if err = r.end(); err != nil {
		return
	}
	inner.want(majorArray, 3, "an array of")
	size, index = inner.head(majorUint), inner.head(majorUint)
	path = inner.path()
	return size, index, path, sig, inner.end()
}
