package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"carnet"
)

// Proof is a DPoP proof (RFC 9449 section 4.2): who sends a request has a key, now,
// and for this request.
type Proof struct {
	ID     string // a "urn:uuid:…"; IssueProof draws one when it is empty
	Key    ed25519.PublicKey
	Method string // htm
	URL    string // htu: without query and fragment
	Issued time.Time
	// Token is the SHA-256 of the access token beside it (ath); zero: there is none.
	Token carnet.Fingerprint
}

// ProofExpectation is what a proof is checked against.
type ProofExpectation struct {
	Method string
	URL    string
	Token  carnet.Fingerprint
	Now    time.Time
	Skew   time.Duration // how far clocks may differ, 0 to 5 minutes
}

// ProofLife is how long after its making a proof is taken.
const ProofLife = time.Minute

const (
	proofJWT    = "dpop+jwt"
	maxProof    = 4 << 10 // bytes
	maxProofURL = 1 << 10
)

type proofHeader struct {
	Type      string `json:"typ"`
	Algorithm string `json:"alg"`
	Key       jwk    `json:"jwk"`
}

func proofHeaderOf(key ed25519.PublicKey) proofHeader {
	return proofHeader{proofJWT, "EdDSA", jwkOf(key)}
}

type proofClaims struct {
	ID     string `json:"jti"`
	Method string `json:"htm"`
	URL    string `json:"htu"`
	Issued int64  `json:"iat"`
	Token  string `json:"ath,omitempty"`
}

// IssueProof signs p with the key that it proves.
func IssueProof(key ed25519.PrivateKey, p Proof) (string, error) {
	if p.ID == "" {
		p.ID = urnUUID + newUUID()
	}
	claims := proofClaims{ID: p.ID, Method: p.Method, URL: p.URL, Issued: p.Issued.Unix()}
	if p.Token != (carnet.Fingerprint{}) {
		claims.Token = hashText(p.Token)
	}
	if err := claims.check(); err != nil {
		return "", err
	}
	return issue(key, "proof", proofHeaderOf(key.Public().(ed25519.PublicKey)), claims)
}

// VerifyProof takes a proof only if it is for the expected request, and of now.
// Whether its key is the right one, and whether it was shown before, is the
// caller's to ask.
func VerifyProof(token string, want ProofExpectation) (p Proof, err error) {
	if len(token) > maxProof {
		return p, carnet.Errorf(carnet.TooLarge, "the proof has %d bytes, at most %d are read", len(token), maxProof)
	}
	if err := checkSkew(want.Skew); err != nil {
		return p, err
	}
	parts, err := split(token)
	if err != nil {
		return p, err
	}
	if p.Key, err = readProofHeader(parts.header); err != nil {
		return p, err
	}
	if err := parts.verify(p.Key); err != nil {
		return p, err
	}
	c, err := readProofClaims(parts.payload, want.Token != carnet.Fingerprint{})
	if err != nil {
		return p, err
	}
	p.ID, p.Method, p.URL, p.Issued = c.ID, c.Method, c.URL, time.Unix(c.Issued, 0).UTC()
	if c.Token != "" {
		if p.Token, err = readHash("proof's ath", c.Token); err != nil {
			return p, err
		}
	}
	return p, p.meets(want)
}

func (p Proof) meets(want ProofExpectation) error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Unauthenticated, "the proof "+format, args...)
	}
	switch {
	case p.Method != want.Method:
		return refuse("is for the method %.20q, want %q", p.Method, want.Method)
	case p.URL != want.URL:
		return refuse("is for %.200q, want %q", p.URL, want.URL)
	case p.Token != want.Token:
		return refuse("is for another access token")
	case want.Now.Add(want.Skew).Before(p.Issued):
		return refuse("was made in the future, at %v", p.Issued)
	case !want.Now.Add(-want.Skew).Before(p.Issued.Add(ProofLife)):
		return refuse("was made at %v, more than %v ago", p.Issued, ProofLife)
	}
	return nil
}

func readProofHeader(data []byte) (ed25519.PublicKey, error) {
	var h proofHeader
	var key json.RawMessage
	err := members("proof's header", data, map[string]any{"typ": &h.Type, "alg": &h.Algorithm, "jwk": &key})
	if err != nil {
		return nil, err
	}
	if h.Type != proofJWT || h.Algorithm != "EdDSA" {
		return nil, carnet.Errorf(carnet.Malformed, "the proof's header has the typ %.40q and the alg %.40q, want %q and EdDSA", h.Type, h.Algorithm, proofJWT)
	}
	k, err := readJWK("proof's jwk", key)
	if err != nil {
		return nil, err
	}
	return k, inOneForm("proof's header", data, proofHeaderOf(k))
}

func readProofClaims(data []byte, withToken bool) (c proofClaims, err error) {
	wanted := map[string]any{"jti": &c.ID, "htm": &c.Method, "htu": &c.URL, "iat": &c.Issued}
	if withToken {
		wanted["ath"] = &c.Token
	}
	if err := members("proof", data, wanted); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, err
	}
	return c, inOneForm("proof", data, c)
}

// check refuses what nobody may say.
func (c proofClaims) check() error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the proof "+format, args...)
	}
	u, err := url.Parse(c.URL)
	switch {
	case !isURN(c.ID):
		return refuse("has the jti %.80q, want a urn:uuid", c.ID)
	case c.Method == "" || len(c.Method) > 20 || strings.Trim(c.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		return refuse("has the htm %.20q", c.Method)
	case err != nil || len(c.URL) > maxProofURL || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(c.URL, "?#"):
		return refuse("has the htu %.200q, want an https URL without query and fragment", c.URL)
	case c.Issued < 0 || c.Issued > maxTime:
		return refuse("has the iat %d", c.Issued)
	}
	return nil
}

// maxTime is the last second that a token may name, far in the future.
const maxTime = 1 << 40

func checkSkew(skew time.Duration) error {
	if skew < 0 || skew > maxSkew {
		return carnet.Errorf(carnet.Malformed, "clocks may differ by 0 to %v, not by %v", maxSkew, skew)
	}
	return nil
}
