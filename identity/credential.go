package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"carnet"
)

// Credential is what a world says about its avatar: that the holder of a key is
// this avatar of this world. The times are of whole seconds.
type Credential struct {
	ID        string // a "urn:uuid:…"; IssueCredential draws one when it is empty
	World     carnet.PartyID
	Avatar    carnet.AvatarID
	Subject   ed25519.PublicKey // the avatar's key
	Owner     ed25519.PublicKey // its owner's key for this world; nil: none is pinned
	Issued    time.Time
	NotBefore time.Time
	Expires   time.Time // at most 366 days after NotBefore
}

// Expectation is what a credential is checked against.
type Expectation struct {
	Issuer ed25519.PublicKey // the world's key, as pinned: nobody else's word is taken
	World  carnet.PartyID    // the world's name
	Now    time.Time
	Skew   time.Duration // how far clocks may differ, 0 to 5 minutes
}

const (
	credentialJWT = "JWT" // VC Data Model 1.1 section 6.3.1

	maxCredential     = 4 << 10 // bytes
	maxCredentialLife = 366 * 24 * time.Hour
	maxSkew           = 5 * time.Minute
)

// credentialContext and credentialType are what makes the payload a verifiable
// credential (VC Data Model 1.1 sections 4.1 and 4.3).
var (
	credentialContext = []string{"https://www.w3.org/2018/credentials/v1"}
	credentialType    = []string{"VerifiableCredential", "AvatarCredential"}
)

// claims is the payload: VC Data Model 1.1 section 6.3.1 over RFC 7519.
type claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	ID        string `json:"jti"`
	Issued    int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
	VC        vc     `json:"vc"`
}

type vc struct {
	Context []string `json:"@context"`
	Type    []string `json:"type"`
	Subject subject  `json:"credentialSubject"` // its id is the claim sub
}

type subject struct {
	Avatar carnet.AvatarID `json:"avatar"`
	World  carnet.PartyID  `json:"world"`
	Owner  string          `json:"owner,omitempty"` // did:key
}

// IssueCredential signs c with the world's key.
func IssueCredential(key ed25519.PrivateKey, c Credential) (string, error) {
	if c.ID == "" {
		c.ID = urnUUID + newUUID()
	}
	if len(c.Subject) != ed25519.PublicKeySize {
		return "", carnet.Errorf(carnet.Malformed, "the avatar's key has %d bytes, want %d", len(c.Subject), ed25519.PublicKeySize)
	}
	about := subject{Avatar: c.Avatar, World: c.World}
	switch len(c.Owner) {
	case 0:
	case ed25519.PublicKeySize:
		about.Owner = DID(c.Owner)
	default:
		return "", carnet.Errorf(carnet.Malformed, "the owner's key has %d bytes, want %d", len(c.Owner), ed25519.PublicKeySize)
	}
	issuer := DID(key.Public().(ed25519.PublicKey))
	payload := claims{
		Issuer: issuer, Subject: DID(c.Subject), ID: c.ID,
		Issued: c.Issued.Unix(), NotBefore: c.NotBefore.Unix(), Expires: c.Expires.Unix(),
		VC: vc{credentialContext, credentialType, about},
	}
	if err := payload.check(); err != nil {
		return "", err
	}
	return issue(key, "credential", headerOf(credentialJWT, issuer), payload)
}

// VerifyCredential takes a credential only if the expected world signed it, it
// holds now, and it says nothing that isn't understood.
func VerifyCredential(token string, want Expectation) (Credential, error) {
	if len(token) > maxCredential {
		return Credential{}, carnet.Errorf(carnet.TooLarge, "the credential has %d bytes, at most %d are read", len(token), maxCredential)
	}
	if want.Skew < 0 || want.Skew > maxSkew || len(want.Issuer) != ed25519.PublicKeySize {
		return Credential{}, fmt.Errorf("verify credential: the expectation has a skew of %v and an issuer's key of %d bytes", want.Skew, len(want.Issuer))
	}
	header, payload, err := open(want.Issuer, token)
	if err != nil {
		return Credential{}, err
	}
	issuer := DID(want.Issuer)
	if err := checkHeader("credential", header, headerOf(credentialJWT, issuer)); err != nil {
		return Credential{}, err
	}
	p, err := readClaims(payload)
	if err != nil {
		return Credential{}, err
	}
	return p.credential(issuer, want)
}

func readClaims(data []byte) (p claims, err error) {
	var body, about json.RawMessage
	err = members("credential", data, map[string]any{
		"iss": &p.Issuer, "sub": &p.Subject, "jti": &p.ID, "iat": &p.Issued, "nbf": &p.NotBefore, "exp": &p.Expires, "vc": &body,
	})
	if err != nil {
		return p, err
	}
	err = members("credential's vc", body, map[string]any{"@context": &p.VC.Context, "type": &p.VC.Type, "credentialSubject": &about})
	if err != nil {
		return p, err
	}
	wanted := map[string]any{"avatar": &p.VC.Subject.Avatar, "world": &p.VC.Subject.World}
	var has map[string]json.RawMessage
	if err := json.Unmarshal(about, &has); err == nil && has["owner"] != nil { // it is told only where there is one
		wanted["owner"] = &p.VC.Subject.Owner
	}
	if err := members("credential's subject", about, wanted); err != nil {
		return p, err
	}
	if has["owner"] != nil {
		if _, err := ParseDID(p.VC.Subject.Owner); err != nil {
			return p, err
		}
	}
	return p, p.check()
}

// check refuses what no issuer may say.
func (p claims) check() error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the credential "+format, args...)
	}
	if _, err := carnet.ParsePartyID(string(p.VC.Subject.World)); err != nil {
		return err
	}
	life := p.Expires - p.NotBefore
	switch {
	case !slices.Equal(p.VC.Context, credentialContext) || !slices.Equal(p.VC.Type, credentialType):
		return refuse("is not a verifiable credential of an avatar")
	case !isURN(p.ID):
		return refuse("has the id %.80q, want a urn:uuid", p.ID)
	case p.VC.Subject.Avatar == carnet.AvatarID{}:
		return refuse("names no avatar")
	case p.Issued < 0 || p.NotBefore < 0 || p.Expires > 1<<40 || life <= 0 || life > int64(maxCredentialLife/time.Second) || p.Issued >= p.Expires:
		return refuse("holds from %d to %d and was issued at %d: want at most %v", p.NotBefore, p.Expires, p.Issued, maxCredentialLife)
	}
	return nil
}

// credential checks well-formed claims against what is expected.
func (p claims) credential(issuer string, want Expectation) (c Credential, err error) {
	refuse := func(format string, args ...any) (Credential, error) {
		return Credential{}, carnet.Errorf(carnet.Unauthenticated, "the credential "+format, args...)
	}
	c = Credential{
		ID: p.ID, World: p.VC.Subject.World, Avatar: p.VC.Subject.Avatar,
		Issued: time.Unix(p.Issued, 0).UTC(), NotBefore: time.Unix(p.NotBefore, 0).UTC(), Expires: time.Unix(p.Expires, 0).UTC(),
	}
	if c.Subject, err = ParseDID(p.Subject); err != nil {
		return Credential{}, err
	}
	if p.VC.Subject.Owner != "" {
		if c.Owner, err = ParseDID(p.VC.Subject.Owner); err != nil {
			return Credential{}, err
		}
	}
	switch {
	case p.Issuer != issuer:
		return refuse("is issued by %.80q, want %q", p.Issuer, issuer)
	case c.World != want.World:
		return refuse("is about an avatar of %q, want %q", c.World, want.World)
	case want.Now.Add(want.Skew).Before(c.Issued):
		return refuse("was issued in the future, at %v", c.Issued)
	case want.Now.Add(want.Skew).Before(c.NotBefore):
		return refuse("holds from %v on", c.NotBefore)
	case !want.Now.Add(-want.Skew).Before(c.Expires):
		return refuse("ended at %v", c.Expires)
	}
	return c, nil
}
