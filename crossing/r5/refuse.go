package r5

import (
	"context"
	"errors"
	"net/http"
	"strconv"
)

// Rule names the check that refused, in the order in which they are made.
type Rule string

// The rules.
const (
	NoRoute         Rule = "route"      // there is no such path
	PlatformRule    Rule = "platform"   // the TLS key is a peer's, in force, with the scope r5
	FormRule        Rule = "form"       // parameters and headers
	TokenRule       Rule = "token"      // the access token
	ProofRule       Rule = "proof"      // the DPoP proof
	AssertionRule   Rule = "assertion"  // the avatar's word
	CredentialRule  Rule = "credential" // its world's word for it
	ScopeRule       Rule = "scope"      // the token is for such a call
	ResourceRule    Rule = "resource"   // and for this avatar
	AvatarRule      Rule = "avatar"     // the avatar is here and has an owner
	MandateRule     Rule = "mandate"    // its owner's word
	GrantRule       Rule = "grant"      // a grant, and the policies, permit it
	LabelRule       Rule = "label"      // what flows isn't above anybody's clearance
	RevocationsRule Rule = "revocations"
	OverloadRule    Rule = "overload"
	RecordRule      Rule = "record"
)

// refused is a call that isn't let in, for inside.
type refused struct {
	rule Rule
	err  error
}

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

func refusal(rule Rule, err error) error { return &refused{rule, err} }

// ruleOf returns the rule of an error that has one.
func ruleOf(err error) Rule {
	if r, ok := errors.AsType[*refused](err); ok {
		return r.rule
	}
	return RecordRule
}

// Outside is the one answer to whatever isn't proved.
const Outside = `{"title":"Unauthorized","status":401,"detail":"the call is not proved","code":"unauthenticated","error":"invalid_token"}` + "\n"

const challenge = `DPoP error="invalid_token"` // RFC 9449 section 7.1

// The answers to who does too much, and when this world can't know or record.
const (
	tooMany = `{"title":"Too Many Requests","status":429,"detail":"this peer has too much under way","code":"unavailable"}` + "\n"
	notNow  = `{"title":"Service Unavailable","status":503,"detail":"try again","code":"unavailable"}` + "\n"
)

// refuse records why a call isn't let in, and answers it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, d Decision, err error) {
	d.Time, d.Permitted, d.Rule, d.Reason = s.cfg.Now(), false, ruleOf(err), err.Error()
	rule := d.Rule
	if !s.note(r.Context(), d) {
		rule = RecordRule
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	status, body := http.StatusUnauthorized, Outside
	switch rule {
	case OverloadRule:
		status, body = http.StatusTooManyRequests, tooMany
	case RecordRule:
		status, body = http.StatusServiceUnavailable, notNow
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", challenge)
	} else {
		h.Set("Retry-After", "1")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a failed write means that the caller went away
}

// note records a refusal, unless its peer has had as many as are recorded one by
// one: then it is counted with the next.
func (s *Server) note(ctx context.Context, d Decision) bool {
	more, ok := s.told.Take(d.Peer, d.Time)
	if !ok {
		return true
	}
	d.More = more
	if err := s.cfg.Activity.Record(ctx, d); err != nil {
		s.cfg.Log.Error("a refused call between worlds can't be recorded", "peer", d.Peer, "rule", d.Rule, "err", err)
		return false
	}
	return true
}
