package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"time"

	"carnet"
)

// Assertion is what an avatar says to another world: I ask for a token. It carries
// what its world says of it, and what its owner does.
type Assertion struct {
	ID         string            // a "urn:uuid:…"; IssueAssertion draws one when it is empty
	Subject    ed25519.PublicKey // the avatar's key, which signs
	Audience   carnet.PartyID    // the world that is asked, as it calls itself
	Issued     time.Time
	Expires    time.Time // at most AssertionLife after Issued
	Credential string    // the avatar's (IssueCredential)
	Mandate    string    // the owner's, for the audience
	Thumbprint carnet.Fingerprint
}

// AssertionExpectation is what an assertion is checked against.
type AssertionExpectation struct {
	Audience   carnet.PartyID
	Thumbprint carnet.Fingerprint // of the key that the request's proof is by
	Now        time.Time
	Skew       time.Duration // how far clocks may differ, 0 to 5 minutes
}

// AssertionLife is the most that an assertion holds.
const AssertionLife = time.Minute

const (
	assertionJWT = "carnet-assertion+jwt"
	maxAssertion = 14 << 10 // bytes: a credential, a mandate and their base64
)

// AvatarURN names an avatar in signed tokens.
func AvatarURN(a carnet.AvatarID) string { return avatarURN + a.String() }

const avatarURN = "urn:carnet:avatar:"

type assertionClaims struct {
	Issuer     string       `json:"iss"`
	Subject    string       `json:"sub"`
	Audience   string       `json:"aud"`
	ID         string       `json:"jti"`
	Issued     int64        `json:"iat"`
	Expires    int64        `json:"exp"`
	Credential string       `json:"credential"`
	Mandate    string       `json:"mandate"`
	Confirm    confirmation `json:"cnf"`
}

// IssueAssertion signs a with the avatar's key.
func IssueAssertion(key ed25519.PrivateKey, a Assertion) (string, error) {
	if a.ID == "" {
		a.ID = urnUUID + newUUID()
	}
	did := DID(key.Public().(ed25519.PublicKey))
	c := assertionClaims{
		Issuer: did, Subject: did, Audience: PartyURN(a.Audience), ID: a.ID, Issued: a.Issued.Unix(), Expires: a.Expires.Unix(),
		Credential: a.Credential, Mandate: a.Mandate, Confirm: confirm(a.Thumbprint),
	}
	if err := c.check(); err != nil {
		return "", err
	}
	return issue(key, "assertion", headerOf(assertionJWT, did), c)
}

// VerifyAssertion takes an assertion only if who has its key made it for this
// audience, for the expected proof, and for now. Whose key it is, says the
// credential; both its tokens are the caller's to check.
func VerifyAssertion(token string, want AssertionExpectation) (a Assertion, err error) {
	if len(token) > maxAssertion {
		return a, carnet.Errorf(carnet.TooLarge, "the assertion has %d bytes, at most %d are read", len(token), maxAssertion)
	}
	if err := checkSkew(want.Skew); err != nil {
		return a, err
	}
	parts, err := split(token)
	if err != nil {
		return a, err
	}
	c, thumbprint, err := readAssertion(parts.payload)
	if err != nil {
		return a, err
	}
	if a.Subject, err = ParseDID(c.Subject); err != nil {
		return a, err
	}
	if err := checkHeader("assertion", parts.header, headerOf(assertionJWT, c.Subject)); err != nil {
		return a, err
	}
	if err := parts.verify(a.Subject); err != nil {
		return a, err
	}
	a.ID, a.Issued, a.Expires = c.ID, time.Unix(c.Issued, 0).UTC(), time.Unix(c.Expires, 0).UTC()
	a.Audience, a.Credential, a.Mandate, a.Thumbprint = want.Audience, c.Credential, c.Mandate, thumbprint
	return a, c.meets(a, want)
}

func readAssertion(data []byte) (c assertionClaims, thumbprint carnet.Fingerprint, err error) {
	var cnf json.RawMessage
	err = members("assertion", data, map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "jti": &c.ID, "iat": &c.Issued, "exp": &c.Expires,
		"credential": &c.Credential, "mandate": &c.Mandate, "cnf": &cnf,
	})
	if err != nil {
		return c, thumbprint, err
	}
	if thumbprint, err = readConfirmation("assertion", cnf); err != nil {
		return c, thumbprint, err
	}
	if err := c.check(); err != nil {
		return c, thumbprint, err
	}
	c.Confirm = confirm(thumbprint)
	return c, thumbprint, inOneForm("assertion", data, c)
}

// check refuses what no avatar may say.
func (c assertionClaims) check() error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the assertion "+format, args...)
	}
	life := c.Expires - c.Issued
	switch {
	case c.Issuer != c.Subject:
		return refuse("is by %.80q about %.80q", c.Issuer, c.Subject)
	case !isURN(c.ID):
		return refuse("has the jti %.80q, want a urn:uuid", c.ID)
	case c.Issued < 0 || c.Expires > maxTime || life <= 0 || life > int64(AssertionLife/time.Second):
		return refuse("holds from %d to %d: want at most %v", c.Issued, c.Expires, AssertionLife)
	case c.Credential == "":
		return refuse("carries no credential")
	case c.Mandate == "":
		return refuse("carries no mandate")
	}
	return nil
}

func (c assertionClaims) meets(a Assertion, want AssertionExpectation) error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Unauthenticated, "the assertion "+format, args...)
	}
	switch {
	case c.Audience != PartyURN(want.Audience):
		return refuse("is for %.80q, want %q", c.Audience, PartyURN(want.Audience))
	case a.Thumbprint != want.Thumbprint:
		return refuse("confirms another key than the proof's")
	case want.Now.Add(want.Skew).Before(a.Issued):
		return refuse("was made in the future, at %v", a.Issued)
	case !want.Now.Add(-want.Skew).Before(a.Expires):
		return refuse("ended at %v", a.Expires)
	}
	return nil
}
