package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"carnet"
)

// Every token is a compact JWS (RFC 7515 section 7.1) signed with Ed25519 (RFC
// 8037 section 3.1): header, payload and signature in base64url without padding,
// joined by dots. This is the one reader of them.

// header is that of a token by a key that the reader knows: exactly these members.
type header struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	Key       string `json:"kid"`
}

// headerOf is the header of a token of a type (RFC 8725 section 3.11: no token is
// taken for one of another kind) by an issuer.
func headerOf(typ, issuer string) header {
	return header{Algorithm: "EdDSA", Type: typ, Key: KeyID(issuer)}
}

func checkHeader(what string, data []byte, want header) error {
	var h header
	err := members(what+"'s header", data, map[string]any{"alg": &h.Algorithm, "typ": &h.Type, "kid": &h.Key})
	if err == nil && h != want {
		err = carnet.Errorf(carnet.Malformed, "the %s's header is %+v, want %+v", what, h, want)
	}
	return err
}

// issue signs a header and a payload, each as encoding/json writes it.
func issue(key ed25519.PrivateKey, what string, header, payload any) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("write the %s's header: %w", what, err)
	}
	p, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("write the %s: %w", what, err)
	}
	return sign(key, h, p), nil
}

// openTyped opens a token of at most maxMandate bytes whose header is exactly
// that of its type.
func openTyped(what, typ string, issuer ed25519.PublicKey, token string) ([]byte, error) {
	if len(token) > maxMandate {
		return nil, carnet.Errorf(carnet.TooLarge, "the %s has %d bytes, at most %d are read", what, len(token), maxMandate)
	}
	header, payload, err := open(issuer, token)
	if err != nil {
		return nil, err
	}
	return payload, checkHeader(what, header, headerOf(typ, DID(issuer)))
}

// inOneForm refuses a payload that isn't written as issue writes what was read
// from it.
func inOneForm(what string, payload []byte, read any) error {
	same, err := json.Marshal(read)
	if err != nil || !bytes.Equal(same, payload) {
		return carnet.Errorf(carnet.Malformed, "the %s is not in its one form: members in order, no white space", what)
	}
	return nil
}

// sign makes a compact JWS. The header must say "alg":"EdDSA".
func sign(key ed25519.PrivateKey, header, payload []byte) string {
	input := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(input)))
}

// open checks a compact JWS against a key and returns its parts. It says nothing
// of what the header means.
func open(key ed25519.PublicKey, token string) (header, payload []byte, err error) {
	parts, err := split(token)
	if err != nil {
		return nil, nil, err
	}
	if err := parts.verify(key); err != nil {
		return nil, nil, err
	}
	return parts.header, parts.payload, nil
}

// parts are a compact JWS of which nothing is checked but its form.
type parts struct {
	header, payload, signature []byte
	signed                     string
}

func split(token string) (p parts, err error) {
	if n := strings.Count(token, "."); n != 2 {
		return p, carnet.Errorf(carnet.Malformed, "a signed token has three parts, this one has %d", n+1)
	}
	at := strings.LastIndexByte(token, '.')
	p.signed = token[:at]
	header, payload, _ := strings.Cut(p.signed, ".")
	if p.header, err = decode(header); err != nil {
		return p, err
	}
	if p.payload, err = decode(payload); err != nil {
		return p, err
	}
	p.signature, err = decode(token[at+1:])
	return p, err
}

func (p parts) verify(key ed25519.PublicKey) error {
	if !ed25519.Verify(key, []byte(p.signed), p.signature) {
		return carnet.Errorf(carnet.Unauthenticated, "the token's signature is not by the expected key")
	}
	return nil
}

// decode reads base64url in its one form: no padding, no line breaks (which Go's
// decoder skips), no bits left over.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, carnet.Errorf(carnet.Malformed, "a part of the token is not base64url (RFC 7515 section 2)")
	}
	return b, nil
}

// members reads a JSON object whose members are exactly the wanted ones, each
// once and spelled letter by letter (encoding/json alone takes the last of two,
// and "ISS" for "iss": RFC 7515 section 4 wants neither).
func members(what string, data []byte, wanted map[string]any) error {
	refuse := func(why string) error { return carnet.Errorf(carnet.Malformed, "the %s %s", what, why) }
	if !utf8.Valid(data) {
		return refuse("is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return refuse("is not a JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return refuse("is not JSON")
		}
		into, known := wanted[name]
		switch {
		case !known:
			return carnet.Errorf(carnet.Malformed, "the %s has %.40q, which is not understood", what, name)
		case seen[name]:
			return carnet.Errorf(carnet.Malformed, "the %s has %q twice", what, name)
		}
		seen[name] = true
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return refuse("is not JSON")
		}
		if err := json.Unmarshal(raw, into); err != nil || string(raw) == "null" {
			return carnet.Errorf(carnet.Malformed, "the %s has a %q of another type", what, name)
		}
	}
	if _, err := d.Token(); err != nil {
		return refuse("is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse("goes on after its end")
	}
	for name := range wanted {
		if !seen[name] {
			return carnet.Errorf(carnet.Malformed, "the %s has no %q", what, name)
		}
	}
	return nil
}
