package identity

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"carnet"
)

// Ownership is what an owner says to one world: the avatar is mine, and this is
// my key for you. It is signed by that key, so that nobody pins a key that they
// don't have.
type Ownership struct {
	Audience carnet.PartyID // the world, as it calls itself
	Avatar   carnet.AvatarID
	Issued   time.Time // whole seconds
}

// OwnershipExpectation is what an ownership is checked against.
type OwnershipExpectation struct {
	Audience carnet.PartyID
	Now      time.Time
	Skew     time.Duration // how far clocks may differ, 0 to 5 minutes
}

const (
	ownershipType = "carnet-ownership+jwt"

	// ownershipLife is how long an ownership can be handed in: it is signed when
	// it is needed, and what is pinned stays.
	ownershipLife = 5 * time.Minute
)

type ownershipClaims struct {
	Issuer   string          `json:"iss"`
	Audience string          `json:"aud"`
	Avatar   carnet.AvatarID `json:"avatar"`
	Issued   int64           `json:"iat"`
}

// SignOwnership signs o with the owner's key for its audience.
func SignOwnership(key ed25519.PrivateKey, o Ownership) (string, error) {
	issuer := DID(key.Public().(ed25519.PublicKey))
	p := ownershipClaims{issuer, PartyURN(o.Audience), o.Avatar, o.Issued.Unix()}
	if _, err := p.ownership(); err != nil {
		return "", err
	}
	return issue(key, "ownership", headerOf(ownershipType, issuer), p)
}

// VerifyOwnership takes an ownership for who asks, signed just now by the key
// that it names, and returns that key.
func VerifyOwnership(token string, want OwnershipExpectation) (o Ownership, owner ed25519.PublicKey, err error) {
	refuse := func(err error) (Ownership, ed25519.PublicKey, error) { return Ownership{}, nil, err }
	if want.Skew < 0 || want.Skew > maxSkew || want.Now.IsZero() {
		return refuse(fmt.Errorf("verify ownership: the expectation has a skew of %v and the time %v", want.Skew, want.Now))
	}
	if len(token) > maxMandate {
		return refuse(carnet.Errorf(carnet.TooLarge, "the ownership has %d bytes, at most %d are read", len(token), maxMandate))
	}
	parts, err := split(token)
	if err != nil {
		return refuse(err)
	}
	var p ownershipClaims
	err = members("ownership", parts.payload, map[string]any{"iss": &p.Issuer, "aud": &p.Audience, "avatar": &p.Avatar, "iat": &p.Issued})
	if err != nil {
		return refuse(err)
	}
	if owner, err = ParseDID(p.Issuer); err != nil {
		return refuse(err)
	}
	payload, err := openTyped("ownership", ownershipType, owner, token)
	if err != nil {
		return refuse(err)
	}
	if err := inOneForm("ownership", payload, p); err != nil {
		return refuse(err)
	}
	if o, err = p.ownership(); err != nil {
		return refuse(err)
	}
	unproved := func(format string, args ...any) (Ownership, ed25519.PublicKey, error) {
		return refuse(carnet.Errorf(carnet.Unauthenticated, "the ownership "+format, args...))
	}
	switch {
	case o.Audience != want.Audience:
		return unproved("is for %q, not for %q", o.Audience, want.Audience)
	case want.Now.Add(want.Skew).Before(o.Issued):
		return unproved("was signed in the future, at %v", o.Issued)
	case !want.Now.Add(-want.Skew).Before(o.Issued.Add(ownershipLife)):
		return unproved("was signed at %v, longer ago than %v", o.Issued, ownershipLife)
	}
	return o, owner, nil
}

func (p ownershipClaims) ownership() (o Ownership, err error) {
	if o.Audience, err = parsePartyURN(p.Audience); err != nil {
		return o, err
	}
	if p.Avatar == (carnet.AvatarID{}) || p.Issued < 0 || p.Issued > 1<<40 {
		return o, carnet.Errorf(carnet.Malformed, "the ownership names no avatar, or %d, which is no time", p.Issued)
	}
	o.Avatar, o.Issued = p.Avatar, time.Unix(p.Issued, 0).UTC()
	return o, nil
}
