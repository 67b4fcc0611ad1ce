package peering

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"net/url"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
)

// The types of the messages.
const (
	typInvitation   = "carnet-invitation+jws"
	typAcceptance   = "carnet-acceptance+jws"
	typConfirmation = "carnet-confirmation+jws"
)

// ReplyTo is where an acceptance is posted to.
type ReplyTo struct {
	URL string             `json:"url"` // https://HOST:PORT of the inviter's HTTP interface
	Pin carnet.Fingerprint `json:"pin"` // of its TLS key
}

func (r ReplyTo) check() error {
	if u, err := url.Parse(r.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return carnet.Errorf(carnet.Malformed, "the invitation wants its answer at %.80q: want https://HOST:PORT", r.URL)
	}
	return nil
}

// invitation is what the inviter says first. ReplyTo is absent where the answer
// is carried by hand.
type invitation struct {
	Terms   Terms     `json:"terms"`
	ReplyTo *ReplyTo  `json:"reply_to,omitempty"`
	Secret  string    `json:"secret"` // 160 bits; whoever posts an acceptance shows it
	Until   time.Time `json:"until"`
}

// confirmation is what the inviter says last.
type confirmation struct {
	Terms carnet.Fingerprint `json:"terms"`
}

func newSecret() string {
	b := make([]byte, 20)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}

func openInvitation(token string, now time.Time) (v invitation, err error) {
	err = identity.OpenMessage(strings.TrimSpace(token), typInvitation, &v, func() (ed25519.PublicKey, error) { return v.Terms.Inviter.Key, nil })
	if err != nil {
		return v, err
	}
	switch {
	case v.Terms.Accepter != nil:
		return v, carnet.Errorf(carnet.Malformed, "the invitation names who accepts it")
	case len(v.Secret) != 32:
		return v, carnet.Errorf(carnet.Malformed, "the invitation has no secret")
	case v.Until.After(now.Add(LongestInvitation + maxSkew)):
		return v, carnet.Errorf(carnet.Malformed, "the invitation is open until %s, and at most seven days are taken", v.Until.Format(time.RFC3339))
	case !now.Before(v.Until):
		return v, carnet.Errorf(carnet.Forbidden, "the invitation ended at %s", v.Until.Format(time.RFC3339)).WithFix("ask %s for a new one", v.Terms.Inviter.Party)
	case !now.Before(v.Terms.NotAfter):
		return v, carnet.Errorf(carnet.Forbidden, "the terms ended at %s", v.Terms.NotAfter.Format(time.RFC3339)).WithFix("ask %s for others", v.Terms.Inviter.Party)
	}
	if v.ReplyTo != nil {
		if err := v.ReplyTo.check(); err != nil {
			return v, err
		}
	}
	return v, v.Terms.check(now.Add(maxSkew))
}

// maxSkew is how much two parties' clocks may differ.
const maxSkew = 5 * time.Minute

func openAcceptance(token string, now time.Time) (t Terms, err error) {
	err = identity.OpenMessage(strings.TrimSpace(token), typAcceptance, &t, func() (ed25519.PublicKey, error) {
		if t.Accepter == nil {
			return nil, carnet.Errorf(carnet.Malformed, "the acceptance doesn't say who accepts")
		}
		return t.Accepter.Key, nil
	})
	if err != nil {
		return t, err
	}
	return t, t.check(now.Add(maxSkew))
}

// openConfirmation checks that the inviter of the terms confirms them.
func openConfirmation(token string, t Terms) error {
	var v confirmation
	err := identity.OpenMessage(strings.TrimSpace(token), typConfirmation, &v, func() (ed25519.PublicKey, error) { return t.Inviter.Key, nil })
	if err != nil {
		return err
	}
	if v.Terms != t.Fingerprint() {
		return carnet.Errorf(carnet.Conflict, "the confirmation is of other terms").WithFix("compare the words with the other side")
	}
	return nil
}

// ParseInvitationID reads the name of an invitation: 32 hexadecimal digits.
func ParseInvitationID(s string) (id InvitationID, err error) {
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || len(s) != 2*len(id) {
		return id, carnet.Errorf(carnet.Malformed, "an invitation's id is 32 hexadecimal digits")
	}
	return id, nil
}
