package r5

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/porter"
)

// Values of parameters (RFC 8693 section 3).
const (
	ExchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	JWTType       = "urn:ietf:params:oauth:token-type:jwt"
	AccessType    = "urn:ietf:params:oauth:token-type:access_token"
	FormType      = "application/x-www-form-urlencoded"
)

// maxForm bounds the parameters of a question for a token.
const maxForm = 16 << 10

// bodyTime is how long a request's body may take.
const bodyTime = 10 * time.Second

// form is what a token is asked for with: exactly these parameters, each once.
type form struct {
	client, assertion, resource string
	action                      identity.Action
}

// readForm reads parameters in their one form (RFC 6749 appendix B).
func readForm(r *http.Request, body []byte) (f form, err error) {
	malformed := func(format string, args ...any) (form, error) {
		return form{}, carnet.Errorf(carnet.Malformed, format, args...)
	}
	if len(body) > maxForm {
		return malformed("the parameters have more than %d bytes", maxForm)
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return malformed("parameters are in the URL")
	}
	if t := r.Header["Content-Type"]; len(t) != 1 || t[0] != FormType {
		return malformed("the content type is %.100q, want %s", t, FormType)
	}
	if r.Header["Authorization"] != nil || r.Header["Content-Encoding"] != nil {
		return malformed("there is an Authorization or a Content-Encoding")
	}
	var grantType, subjectType, requestedType, scope string
	wanted := map[string]*string{
		"grant_type": &grantType, "client_id": &f.client, "subject_token": &f.assertion, "subject_token_type": &subjectType,
		"requested_token_type": &requestedType, "resource": &f.resource, "scope": &scope,
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(string(body), "&") {
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		into := wanted[key]
		switch {
		case err != nil || err2 != nil:
			return malformed("a parameter is not URL-encoded")
		case into == nil:
			return malformed("there is a parameter %.40q, which is not understood", key)
		case seen[key]:
			return malformed("the parameter %s is there twice", key)
		}
		seen[key] = true
		*into = value
	}
	for key := range wanted {
		if !seen[key] {
			return malformed("there is no parameter %s", key)
		}
	}
	f.action = identity.Action(scope)
	switch {
	case grantType != ExchangeGrant:
		return malformed("the grant_type is %.80q", grantType)
	case subjectType != JWTType:
		return malformed("the subject_token_type is %.80q", subjectType)
	case requestedType != AccessType:
		return malformed("the requested_token_type is %.80q", requestedType)
	case f.action != identity.ActionRead && f.action != identity.ActionSubscribe && f.action != identity.ActionMove:
		return malformed("the scope is %.40q", scope)
	}
	return f, nil
}

// one returns the value of a header that must be there once.
func one(h http.Header, name string) (string, error) {
	if v := h[name]; len(v) == 1 {
		return v[0], nil
	}
	return "", carnet.Errorf(carnet.Malformed, "the header %s is there %d times, want once", name, len(h[name]))
}

// platform is the first check: whose TLS key it is.
func (s *Server) platform(r *http.Request) (Peer, carnet.Fingerprint, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return Peer{}, carnet.Fingerprint{}, refusal(PlatformRule, carnet.Errorf(carnet.Unauthenticated, "no TLS key is shown"))
	}
	pin := pinOf(r.TLS.PeerCertificates[0])
	peer, err := s.cfg.Peers.ByPin(pin)
	if err != nil {
		return peer, pin, refusal(PlatformRule, err)
	}
	return peer, pin, nil
}

// proof checks the DPoP proof of a request, and that it is shown for the first time.
func (s *Server) proof(r *http.Request, peer Peer, token carnet.Fingerprint) (identity.Proof, error) {
	now := s.cfg.Now()
	text, err := one(r.Header, "Dpop")
	if err != nil {
		return identity.Proof{}, refusal(ProofRule, err)
	}
	p, err := identity.VerifyProof(text, identity.ProofExpectation{
		Method: r.Method, URL: s.cfg.Base + r.URL.EscapedPath(), Token: token, Now: now, Skew: Skew,
	})
	if err != nil {
		return p, refusal(ProofRule, err)
	}
	return p, because(ProofRule, s.seen.take(r.Context(), peer.Name, aProof, p.ID, p.Issued, now))
}

// because gives a rule to an error that has none.
func because(rule Rule, err error) error {
	if _, has := err.(*refused); err == nil || has {
		return err
	}
	return refusal(rule, err)
}

// exchange answers a question for a token.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	d := Decision{Exchange: true}
	token, err := s.give(w, r, &d)
	if err == nil {
		d.Time, d.Permitted = s.cfg.Now(), true
		err = because(RecordRule, s.cfg.Activity.Record(r.Context(), d))
	}
	if err != nil {
		s.refuse(w, r, d, err)
		return
	}
	body, err := json.Marshal(TokenAnswer{token.text, AccessType, "DPoP", int64(token.Expires.Sub(token.Issued) / time.Second), token.Scope})
	if err != nil {
		s.refuse(w, r, d, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a failed write means that the caller went away
}

// TokenAnswer is what a question for a token is answered with (RFC 8693 section 2.2.1).
type TokenAnswer struct {
	Token     string          `json:"access_token"`
	Issued    string          `json:"issued_token_type"`
	Type      string          `json:"token_type"`
	ExpiresIn int64           `json:"expires_in"`
	Scope     identity.Action `json:"scope"`
}

type given struct {
	identity.Token
	text string
}

// give checks a question for a token, in the order that docs/design/r5.md has.
func (s *Server) give(w http.ResponseWriter, r *http.Request, d *Decision) (t given, err error) {
	peer, pin, err := s.platform(r)
	d.Peer = peer.Name
	if err != nil {
		return t, err
	}
	leave, err := s.live.begin(pin)
	if err != nil {
		return t, refusal(OverloadRule, err)
	}
	defer leave()
	porter.BodyWithin(w, r, bodyTime)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil {
		return t, refusal(FormRule, carnet.Errorf(carnet.Malformed, "the parameters didn't arrive: %v", err))
	}
	f, err := readForm(r, body)
	if err != nil {
		return t, refusal(FormRule, err)
	}
	if own := identity.PartyURN(peer.OwnName); f.client != own {
		return t, refusal(FormRule, carnet.Errorf(carnet.Unauthenticated, "the client_id is %.80q, and the TLS key is %s's", f.client, own))
	}
	d.Action = f.action
	proof, err := s.proof(r, peer, carnet.Fingerprint{})
	if err != nil {
		return t, err
	}
	assertion, credential, err := s.avatar(r, peer, f, proof, d)
	if err != nil {
		return t, err
	}
	about, mandate, err := s.mandate(f, peer, assertion, d)
	if err != nil {
		return t, err
	}
	ask := Ask{Platform: peer.Name, Subject: assertion.Subject, Avatar: about, Action: f.action, Purpose: mandate.Purpose}
	grant, err := s.cfg.Grants.Find(r.Context(), ask)
	if err != nil {
		return t, refusal(GrantRule, err)
	}
	d.Grant = grant.ID
	if err := s.fresh(); err != nil {
		return t, err
	}
	if err := fits(grant.Label, peer, ask.Purpose, mandate.Clearance); err != nil {
		return t, refusal(LabelRule, err)
	}
	now := s.cfg.Now().Truncate(time.Second)
	until := earliest(mandate.Expires, credential.Expires, peer.Until, grant.Until)
	t.Token = identity.Token{
		World: s.cfg.Party, Subject: assertion.Subject, Platform: peer.Name, Scope: f.action, Avatar: about, Purpose: ask.Purpose,
		Grant: grant.ID, GrantVersion: grant.Version, Mandate: mandate.ID, Most: mandate.Clearance, Until: until,
		Thumbprint: assertion.Thumbprint, Issued: now, Expires: earliest(now.Add(identity.TokenLife), until),
	}
	if !t.Expires.Truncate(time.Second).After(now) {
		return t, refusal(GrantRule, carnet.Errorf(carnet.Unauthenticated, "what the token would live by ended at %v", until))
	}
	t.text, err = identity.IssueToken(s.cfg.Key, t.Token)
	return t, err
}

func earliest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.Before(first) {
			first = t
		}
	}
	return first
}

// avatar checks who asks: the avatar's assertion and its world's credential.
func (s *Server) avatar(r *http.Request, peer Peer, f form, proof identity.Proof, d *Decision) (a identity.Assertion, c identity.Credential, err error) {
	now := s.cfg.Now()
	a, err = identity.VerifyAssertion(f.assertion, identity.AssertionExpectation{
		Audience: s.cfg.Party, Thumbprint: identity.Thumbprint(proof.Key), Now: now, Skew: Skew,
	})
	if err == nil {
		err = s.seen.take(r.Context(), peer.Name, anAssertion, a.ID, a.Issued, now)
	}
	if err != nil {
		return a, c, because(AssertionRule, err)
	}
	c, err = identity.VerifyCredential(a.Credential, identity.Expectation{Issuer: peer.Key, World: peer.OwnName, Now: now, Skew: Skew})
	if err != nil {
		return a, c, refusal(CredentialRule, err)
	}
	if !c.Subject.Equal(a.Subject) {
		return a, c, refusal(CredentialRule, carnet.Errorf(carnet.Unauthenticated, "the credential is another avatar's than the assertion"))
	}
	d.Subject = identity.DID(a.Subject)
	return a, c, nil
}

// mandate checks what the owner of the avatar that it is about has permitted. Who
// asks about an avatar that isn't here costs, and is told, the same as who asks
// about another owner's.
func (s *Server) mandate(f form, peer Peer, a identity.Assertion, d *Decision) (about carnet.AvatarID, m identity.Mandate, err error) {
	if about, err = identity.ParseAvatarURN(f.resource); err != nil {
		return about, m, refusal(FormRule, err)
	}
	d.Avatar = &about
	owner, absent := s.cfg.Avatars.Owner(about)
	if absent != nil {
		owner = s.decoy
	}
	m, err = identity.VerifyMandate(a.Mandate, identity.MandateExpectation{
		Owner: owner, Audience: s.cfg.Party, Subject: a.Subject, Platform: peer.Key, Avatar: about, Actions: []identity.Action{f.action},
		Now: s.cfg.Now(), Skew: Skew,
	})
	if absent != nil {
		return about, m, refusal(AvatarRule, absent)
	}
	if err != nil {
		return about, m, refusal(MandateRule, err)
	}
	d.Mandate, d.Purpose = m.ID, m.Purpose
	return about, m, s.notWithdrawn(about, m.ID)
}

func (s *Server) notWithdrawn(about carnet.AvatarID, mandate string) error {
	owner, err := s.cfg.Avatars.Owner(about)
	if err != nil {
		return refusal(AvatarRule, err)
	}
	switch err := s.cfg.Mandates.Stands(owner, mandate); carnet.CodeOf(err) {
	case "":
		return err
	case carnet.Unavailable:
		return refusal(RevocationsRule, err)
	default:
		return refusal(MandateRule, err)
	}
}

// fresh refuses while nobody can tell what was ended.
func (s *Server) fresh() error {
	if s.cfg.Revocations.Fresh() {
		return nil
	}
	return refusal(RevocationsRule, carnet.Errorf(carnet.Unavailable, "the store hasn't said for a second what was revoked"))
}

// fits says why data with a label may not flow to a peer for a purpose: the peer's
// clearance, the peering's terms and the mandate each bound it.
func fits(label carnet.Label, peer Peer, purpose string, most carnet.Clearance) error {
	if most.Purposes == "" { // the mandate has its purpose beside its label
		most.Purposes = carnet.NewSet(purpose)
	}
	for _, bound := range []struct {
		of   string
		most carnet.Clearance
	}{{"the peer's clearance", peer.Clearance}, {"the peering", peer.Terms}, {"the mandate", most}} {
		if bound.most.Purposes == "" {
			return carnet.Errorf(carnet.Forbidden, "by %s: there is no purpose", bound.of)
		}
		reader := carnet.Clearance{Sensitivity: bound.most.Sensitivity, Purposes: carnet.NewSet(purpose), Residency: peer.Clearance.Residency}
		// What the bound allows is asked in the form of a label.
		allowed := carnet.Label{Purposes: bound.most.Purposes, Residency: bound.most.Residency}
		for _, l := range []carnet.Label{allowed, label} {
			if why := l.Exceeds(reader); why != "" {
				return carnet.Errorf(carnet.Forbidden, "by %s: %s", bound.of, why)
			}
		}
	}
	return nil
}

// guard lets a proven caller through to a handler, once that is recorded.
func (s *Server) guard(w http.ResponseWriter, r *http.Request, action identity.Action, record func(context.Context, Decision) error, handle Handler) {
	d := Decision{Action: action}
	call, end, err := s.check(w, r, &d)
	if err == nil {
		defer end.leave()
		if call.Most, err = s.standing(r.Context(), call); err == nil {
			d.Time, d.Permitted = s.cfg.Now(), true
			err = because(RecordRule, record(r.Context(), d))
		}
		if err == nil {
			err = end.admit(call.Most)
		}
	}
	if err != nil {
		s.refuse(w, r, d, err)
		return
	}
	end.after(call.TokenEnd.Sub(s.cfg.Now()))
	porter.BodyWithin(w, r, bodyTime)
	handle(w, r.WithContext(end.ctx), call)
}

// check proves a call by what it brings, in the order that docs/design/r5.md has,
// and enters it among those that are live.
func (s *Server) check(w http.ResponseWriter, r *http.Request, d *Decision) (c Call, l *liveCall, err error) {
	peer, pin, err := s.platform(r)
	d.Peer = peer.Name
	if err != nil {
		return c, nil, err
	}
	text, err := one(r.Header, "Authorization")
	text, isDPoP := strings.CutPrefix(text, "DPoP ")
	if err == nil && !isDPoP {
		err = carnet.Errorf(carnet.Malformed, "the Authorization is not DPoP")
	}
	if err != nil {
		return c, nil, refusal(TokenRule, err)
	}
	hash := carnet.FingerprintOf([]byte(text))
	token, err := s.tokens.verify(text, hash)
	if err == nil {
		err = token.HoldsAt(s.cfg.Now())
	}
	if err != nil {
		return c, nil, refusal(TokenRule, err)
	}
	d.Subject, d.Purpose, d.Grant, d.Mandate = identity.DID(token.Subject), token.Purpose, token.Grant, token.Mandate
	if token.Platform != peer.Name {
		return c, nil, refusal(PlatformRule, carnet.Errorf(carnet.Unauthenticated, "the access token is %s's, and the TLS key is %s's", token.Platform, peer.Name))
	}
	proof, err := s.proof(r, peer, hash)
	if err != nil {
		return c, nil, err
	}
	if identity.Thumbprint(proof.Key) != token.Thumbprint {
		return c, nil, refusal(ProofRule, carnet.Errorf(carnet.Unauthenticated, "the proof is by another key than the access token's"))
	}
	if token.Scope != d.Action {
		return c, nil, refusal(ScopeRule, carnet.Errorf(carnet.Forbidden, "the access token is for %s, and this is %s", token.Scope, d.Action))
	}
	about, err := carnet.ParseAvatarID(r.PathValue("id"))
	if err != nil {
		return c, nil, refusal(ResourceRule, err)
	}
	d.Avatar = &about
	if about != token.Avatar {
		return c, nil, refusal(ResourceRule, carnet.Errorf(carnet.Forbidden, "the access token is for the avatar %s", token.Avatar))
	}
	c = Call{
		Ask: Ask{Platform: peer.Name, Subject: token.Subject, Avatar: about, Action: token.Scope, Purpose: token.Purpose},
		Pin: pin, Grant: Grant{ID: token.Grant, Version: token.GrantVersion}, Mandate: token.Mandate, mandated: token.Most,
		TokenEnd: token.Expires, Until: token.Until,
	}
	if l, err = s.live.enter(w, r, c); err != nil {
		return c, nil, refusal(OverloadRule, err)
	}
	return c, l, nil
}

// standing asks what a call lives by, anew: at its beginning and as long as it
// lasts. It returns the most that may flow to the caller.
func (s *Server) standing(ctx context.Context, c Call) (most carnet.Clearance, err error) {
	peer, err := s.cfg.Peers.ByPin(c.Pin)
	if err != nil {
		return most, refusal(PlatformRule, err)
	}
	if err := s.notWithdrawn(c.Avatar, c.Mandate); err != nil {
		return most, err
	}
	grant, err := s.cfg.Grants.Still(ctx, c.Ask, c.Grant.ID, c.Grant.Version)
	if err != nil {
		return most, refusal(GrantRule, err)
	}
	if !s.cfg.Now().Before(grant.Until) {
		return most, refusal(GrantRule, carnet.Errorf(carnet.Forbidden, "the grant %s ended at %v", grant.ID, grant.Until))
	}
	if err := s.fresh(); err != nil {
		return most, err
	}
	if err := fits(grant.Label, peer, c.Purpose, c.mandated); err != nil {
		return most, refusal(LabelRule, err)
	}
	return carnet.Clearance{
		Sensitivity: peer.Clearance.Sensitivity & peer.Terms.Sensitivity & c.mandated.Sensitivity,
		Purposes:    carnet.NewSet(c.Purpose), Residency: peer.Clearance.Residency,
	}, nil
}

// DID names the calling avatar.
func (a Ask) DID() string { return identity.DID(a.Subject) }
