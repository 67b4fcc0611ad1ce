package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"carnet"
)

// jwk is an Ed25519 public key as a JSON Web Key (RFC 8037 section 2), its members
// in the order that a thumbprint hashes.
type jwk struct {
	Curve string `json:"crv"`
	Type  string `json:"kty"`
	X     string `json:"x"`
}

func jwkOf(key ed25519.PublicKey) jwk {
	return jwk{Curve: "Ed25519", Type: "OKP", X: base64.RawURLEncoding.EncodeToString(key)}
}

func readJWK(what string, data []byte) (ed25519.PublicKey, error) {
	var k jwk
	err := members(what, data, map[string]any{"crv": &k.Curve, "kty": &k.Type, "x": &k.X})
	if err != nil {
		return nil, err
	}
	key, err := decode(k.X)
	if err != nil || len(key) != ed25519.PublicKeySize || k != jwkOf(key) {
		return nil, carnet.Errorf(carnet.Malformed, "the %s is not an Ed25519 public key (RFC 8037)", what)
	}
	return key, nil
}

// Thumbprint is a key's name in a confirmation (RFC 7638, RFC 8037 section 2).
func Thumbprint(key ed25519.PublicKey) carnet.Fingerprint {
	k := jwkOf(key)
	return sha256.Sum256([]byte(`{"crv":"` + k.Curve + `","kty":"` + k.Type + `","x":"` + k.X + `"}`))
}

// confirmation is the claim cnf (RFC 7800) with a DPoP key (RFC 9449 section 6.1).
type confirmation struct {
	Thumbprint string `json:"jkt"`
}

func confirm(thumbprint carnet.Fingerprint) confirmation { return confirmation{hashText(thumbprint)} }

func readConfirmation(what string, data json.RawMessage) (f carnet.Fingerprint, err error) {
	var text string
	if err = members(what+"'s cnf", data, map[string]any{"jkt": &text}); err != nil {
		return f, err
	}
	return readHash(what+"'s cnf", text)
}

// hashText and readHash write a SHA-256 as base64url.
func hashText(f carnet.Fingerprint) string { return base64.RawURLEncoding.EncodeToString(f[:]) }

func readHash(what, text string) (f carnet.Fingerprint, err error) {
	b, err := decode(text)
	if err != nil || len(b) != len(f) {
		return f, carnet.Errorf(carnet.Malformed, "the %s is not a SHA-256 in base64url", what)
	}
	return carnet.Fingerprint(b), nil
}
