package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"carnet"
)

// Token is an access token (RFC 9068) that a world gives for calls about one of its
// avatars, and reads itself. It is no bearer token: each call proves its key.
type Token struct {
	ID       string            // a "urn:uuid:…"; IssueToken draws one when it is empty
	World    carnet.PartyID    // who gives and takes it
	Subject  ed25519.PublicKey // the calling avatar's key
	Platform carnet.PartyID    // the world that calls, as World calls it
	Scope    Action
	Avatar   carnet.AvatarID // that the calls are about
	Purpose  string
	// Grant and GrantVersion are what was found to permit it; Mandate is the owner's.
	Grant        string
	GrantVersion uint64
	Mandate      string
	// Most is what the mandate says may flow at most.
	Most carnet.Clearance
	// Until is when the first of what it lives by ends: a connection that is begun
	// with the token need not end before.
	Until      time.Time
	Thumbprint carnet.Fingerprint // of the key that each call proves
	Issued     time.Time
	Expires    time.Time // at most TokenLife after Issued, and not after Until
}

// TokenLife is the most that an access token holds.
const TokenLife = 5 * time.Minute

const (
	tokenJWT = "at+jwt"
	maxToken = 4 << 10 // bytes
	maxWord  = 128     // of a scope, purpose, or grant's id
)

type tokenClaims struct {
	Issuer       string       `json:"iss"`
	Audience     string       `json:"aud"`
	Subject      string       `json:"sub"`
	Client       string       `json:"client_id"`
	Actor        actor        `json:"act"`
	Scope        Action       `json:"scope"`
	Resource     string       `json:"resource"`
	Purpose      string       `json:"purpose"`
	Grant        string       `json:"grant"`
	GrantVersion uint64       `json:"grant_version"`
	Mandate      string       `json:"mandate"`
	Most         labelClaims  `json:"most"`
	Until        int64        `json:"until"`
	Confirm      confirmation `json:"cnf"`
	ID           string       `json:"jti"`
	Issued       int64        `json:"iat"`
	Expires      int64        `json:"exp"`
}

// actor is who acts for the subject (RFC 8693 section 4.1).
type actor struct {
	Subject string `json:"sub"`
}

// IssueToken signs t with the world's key for tokens.
func IssueToken(key ed25519.PrivateKey, t Token) (string, error) {
	if t.ID == "" {
		t.ID = urnUUID + newUUID()
	}
	if len(t.Subject) != ed25519.PublicKeySize {
		return "", carnet.Errorf(carnet.Malformed, "the avatar's key has %d bytes, want %d", len(t.Subject), ed25519.PublicKeySize)
	}
	world := PartyURN(t.World)
	c := tokenClaims{
		Issuer: world, Audience: world, Subject: DID(t.Subject), Client: string(t.Platform), Actor: actor{string(t.Platform)},
		Scope: t.Scope, Resource: AvatarURN(t.Avatar), Purpose: t.Purpose, Grant: t.Grant, GrantVersion: t.GrantVersion, Mandate: t.Mandate,
		Most: labelClaims{t.Most.Sensitivity.String(), listed(t.Most.Purposes), listed(t.Most.Residency)}, Until: t.Until.Unix(), Confirm: confirm(t.Thumbprint), ID: t.ID, Issued: t.Issued.Unix(), Expires: t.Expires.Unix(),
	}
	if err := c.check(); err != nil {
		return "", err
	}
	return issue(key, "access token", headerOf(tokenJWT, DID(key.Public().(ed25519.PublicKey))), c)
}

// VerifyToken takes an access token only if this world gave it. Whether it holds
// now is Token.HoldsAt's to say: what is read once may be kept.
func VerifyToken(key ed25519.PublicKey, world carnet.PartyID, token string) (t Token, err error) {
	if len(token) > maxToken {
		return t, carnet.Errorf(carnet.TooLarge, "the access token has %d bytes, at most %d are read", len(token), maxToken)
	}
	header, payload, err := open(key, token)
	if err != nil {
		return t, err
	}
	if err := checkHeader("access token", header, headerOf(tokenJWT, DID(key))); err != nil {
		return t, err
	}
	c, err := readToken(payload, &t)
	if err != nil {
		return t, err
	}
	if urn := PartyURN(world); c.Issuer != urn || c.Audience != urn {
		return t, carnet.Errorf(carnet.Unauthenticated, "the access token is by %.80q for %.80q, want %q for both", c.Issuer, c.Audience, urn)
	}
	t.World, t.ID, t.Platform, t.Scope, t.Purpose = world, c.ID, carnet.PartyID(c.Client), c.Scope, c.Purpose
	t.Grant, t.GrantVersion, t.Mandate = c.Grant, c.GrantVersion, c.Mandate
	t.Until, t.Issued, t.Expires = time.Unix(c.Until, 0).UTC(), time.Unix(c.Issued, 0).UTC(), time.Unix(c.Expires, 0).UTC()
	return t, nil
}

// HoldsAt says why the token doesn't hold at a time. The clock is the one that gave
// it: there is no skew.
func (t Token) HoldsAt(now time.Time) error {
	switch {
	case now.Before(t.Issued):
		return carnet.Errorf(carnet.Unauthenticated, "the access token is of the future, of %v", t.Issued)
	case !now.Before(t.Expires):
		return carnet.Errorf(carnet.Unauthenticated, "the access token ended at %v", t.Expires)
	}
	return nil
}

func readToken(data []byte, t *Token) (c tokenClaims, err error) {
	var act, most, cnf json.RawMessage
	err = members("access token", data, map[string]any{
		"iss": &c.Issuer, "aud": &c.Audience, "sub": &c.Subject, "client_id": &c.Client, "act": &act, "scope": &c.Scope,
		"resource": &c.Resource, "purpose": &c.Purpose, "grant": &c.Grant, "grant_version": &c.GrantVersion, "mandate": &c.Mandate,
		"most": &most, "until": &c.Until, "cnf": &cnf, "jti": &c.ID, "iat": &c.Issued, "exp": &c.Expires,
	})
	if err != nil {
		return c, err
	}
	if err := members("access token's act", act, map[string]any{"sub": &c.Actor.Subject}); err != nil {
		return c, err
	}
	err = members("access token's most", most, map[string]any{
		"sensitivity": &c.Most.Sensitivity, "purposes": &c.Most.Purposes, "residency": &c.Most.Residency,
	})
	if err != nil {
		return c, err
	}
	if t.Thumbprint, err = readConfirmation("access token", cnf); err != nil {
		return c, err
	}
	if t.Subject, err = ParseDID(c.Subject); err != nil {
		return c, err
	}
	if t.Avatar, err = ParseAvatarURN(c.Resource); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, err
	}
	if t.Most, err = c.Most.clearance(); err != nil {
		return c, err
	}
	c.Confirm = confirm(t.Thumbprint)
	return c, inOneForm("access token", data, c)
}

// ParseAvatarURN reads what AvatarURN writes.
func ParseAvatarURN(urn string) (carnet.AvatarID, error) {
	id, err := carnet.ParseAvatarID(strings.TrimPrefix(urn, avatarURN))
	if err != nil || AvatarURN(id) != urn {
		return carnet.AvatarID{}, carnet.Errorf(carnet.Malformed, "%.80q is not the URN of an avatar", urn)
	}
	return id, nil
}

// check refuses what no world may say.
func (c tokenClaims) check() error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the access token "+format, args...)
	}
	if _, err := carnet.ParsePartyID(c.Client); err != nil {
		return err
	}
	if _, err := ParseAvatarURN(c.Resource); err != nil {
		return err
	}
	life := c.Expires - c.Issued
	words := []string{string(c.Scope), c.Purpose}
	switch {
	case c.Actor.Subject != c.Client:
		return refuse("is %.40q's, and %.40q acts", c.Client, c.Actor.Subject)
	case !isURN(c.ID) || !isURN(c.Mandate):
		return refuse("has the jti %.80q and the mandate %.80q, want a urn:uuid each", c.ID, c.Mandate)
	case !Words(words) || slices.ContainsFunc(words, func(w string) bool { return len(w) > maxWord }):
		return refuse("has words that are none: %.200q", words)
	case c.Grant == "" || len(c.Grant) > maxWord:
		return refuse("has the grant %.80q", c.Grant)
	case c.Issued < 0 || c.Until > maxTime || life <= 0 || life > int64(TokenLife/time.Second) || c.Expires > c.Until:
		return refuse("holds from %d to %d: want at most %v, and not after %d", c.Issued, c.Expires, TokenLife, c.Until)
	}
	return nil
}
