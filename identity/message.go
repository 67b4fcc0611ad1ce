package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"carnet"
)

// MaxMessage bounds a signed message between two parties that aren't peers yet.
const MaxMessage = 32 << 10

// SignMessage makes a compact JWS of a message: what a party says to another with
// the key that it shows it. typ says what the message is.
func SignMessage(key ed25519.PrivateKey, typ string, message any) (string, error) {
	return signWithin(MaxMessage, key, typ, message)
}

// signWithin is SignMessage of so many bytes at most.
func signWithin(most int, key ed25519.PrivateKey, typ string, message any) (string, error) {
	token, err := issue(key, typ, headerOf(typ, DID(key.Public().(ed25519.PublicKey))), message)
	if err == nil && len(token) > most {
		return "", carnet.Errorf(carnet.TooLarge, "the %s has %d bytes, at most %d are taken", typ, len(token), most)
	}
	return token, err
}

// OpenMessage reads what SignMessage makes into message, a pointer, in its one
// form only. signer returns the key that must have signed; it is asked after
// message was filled, since a party's first message brings its key itself.
func OpenMessage(token, typ string, message any, signer func() (ed25519.PublicKey, error)) error {
	return openWithin(MaxMessage, token, typ, message, signer)
}

// openWithin is OpenMessage of so many bytes at most.
func openWithin(most int, token, typ string, message any, signer func() (ed25519.PublicKey, error)) error {
	err := openMessage(most, token, typ, message, signer)
	if e, ok := errors.AsType[*carnet.Error](err); ok && e.Code == carnet.Malformed && e.Fix == "" {
		return carnet.Errorf(e.Code, "this is no %s: %s", typ, e.Reason).WithFix("give the file whole, as the other side's 'carnet' wrote it")
	}
	return err
}

func openMessage(most int, token, typ string, message any, signer func() (ed25519.PublicKey, error)) error {
	if len(token) > most {
		return carnet.Errorf(carnet.TooLarge, "the %s has %d bytes, at most %d are taken", typ, len(token), most)
	}
	p, err := split(token)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(p.payload))
	d.DisallowUnknownFields()
	if err := d.Decode(message); err != nil {
		return carnet.Errorf(carnet.Malformed, "the %s has been changed on its way, or was written by another version: %s", typ, strings.TrimPrefix(err.Error(), "json: ")).WithFix("have it sent again")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "the %s goes on after its object", typ)
	}
	if err := inOneForm(typ, p.payload, message); err != nil {
		return err
	}
	key, err := signer()
	if err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize {
		return carnet.Errorf(carnet.Malformed, "the %s has no key of 32 bytes", typ)
	}
	if err := checkHeader(typ, p.header, headerOf(typ, DID(key))); err != nil {
		return err
	}
	if err := p.verify(key); err != nil {
		return carnet.Errorf(carnet.CodeOf(err), "the %s has been changed on its way, or isn't by who it says: %v", typ, err).WithFix("have it sent again")
	}
	return nil
}
