package identity

import (
	"bytes"
	"crypto/ed25519"
	"math/big"
	"slices"
	"strings"

	"carnet"
)

// An avatar's identifier is a did:key of its Ed25519 key: the key itself, so
// that nothing has to be looked up, and another for each avatar, so that it
// links nothing.
//
// https://w3c-ccg.github.io/did-key-spec/, https://www.w3.org/TR/did-1.0/

// multicodec of an Ed25519 public key: 0xed as an unsigned varint.
// https://github.com/multiformats/multicodec
var ed25519Codec = []byte{0xed, 0x01}

// didLength is how long a did:key of an Ed25519 key is: 34 bytes that begin with
// 0xed are 47 digits of base 58.
const didLength = len(didPrefix) + 47

const didPrefix = "did:key:z"

// base58 is the alphabet of multibase 'z' (base58btc).
const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// DID names the holder of a key.
func DID(key ed25519.PublicKey) string {
	n := new(big.Int).SetBytes(append(slices.Clone(ed25519Codec), key...))
	var digits []byte
	for base, digit := big.NewInt(58), new(big.Int); n.Sign() > 0; {
		n.DivMod(n, base, digit)
		digits = append(digits, base58[digit.Int64()])
	}
	slices.Reverse(digits)
	return didPrefix + string(digits)
}

// ParseDID returns the key that a did:key names. It takes Ed25519 keys only, in
// the one form that DID writes.
func ParseDID(did string) (ed25519.PublicKey, error) {
	refuse := carnet.Errorf(carnet.Malformed, "%.80q is not the did:key of an Ed25519 key", did)
	if len(did) != didLength || !strings.HasPrefix(did, didPrefix) {
		return nil, refuse
	}
	n, base := new(big.Int), big.NewInt(58)
	for _, c := range []byte(did[len(didPrefix):]) {
		digit := strings.IndexByte(base58, c)
		if digit < 0 {
			return nil, refuse
		}
		n.Add(n.Mul(n, base), big.NewInt(int64(digit)))
	}
	raw := n.Bytes()
	if len(raw) != len(ed25519Codec)+ed25519.PublicKeySize || !bytes.HasPrefix(raw, ed25519Codec) {
		return nil, refuse
	}
	return ed25519.PublicKey(raw[len(ed25519Codec):]), nil
}

// Document is an avatar's DID document (DID Core 1.0 section 5), in JSON-LD.
type Document struct {
	Context            []string             `json:"@context"`
	ID                 string               `json:"id"`
	VerificationMethod []VerificationMethod `json:"verificationMethod"`
	Authentication     []string             `json:"authentication"`
	AssertionMethod    []string             `json:"assertionMethod"`
}

// VerificationMethod is a key in a DID document.
type VerificationMethod struct {
	ID                 string `json:"id"`
	Type               string `json:"type"`
	Controller         string `json:"controller"`
	PublicKeyMultibase string `json:"publicKeyMultibase"`
}

// DocumentFor makes the DID document of the holder of a key: what resolving its
// did:key gives.
func DocumentFor(key ed25519.PublicKey) Document {
	did := DID(key)
	method := KeyID(did)
	return Document{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/ed25519-2020/v1"},
		ID:      did,
		VerificationMethod: []VerificationMethod{{
			ID: method, Type: "Ed25519VerificationKey2020", Controller: did, PublicKeyMultibase: did[len("did:key:"):],
		}},
		Authentication:  []string{method},
		AssertionMethod: []string{method},
	}
}

// KeyID names the one key of a did:key, as a DID URL.
func KeyID(did string) string { return did + "#" + strings.TrimPrefix(did, "did:key:") }
