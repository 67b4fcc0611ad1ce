package r5

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

// wrong is one thing that is changed in a call that succeeds, or in what the world
// knows; and the rule and reason by which it is refused inside.
type wrong struct {
	name   string
	change func(*attempt)
	world  func(*stage) (undo func())
	rule   Rule
	why    string
}

// swap changes a payload, head a header. What isn't there can't be changed.
func swap(from, to string) func(*text) {
	return func(x *text) { x.payload = replaced(x.payload, from, to) }
}

func head(from, to string) func(*text) {
	return func(x *text) { x.header = replaced(x.header, from, to) }
}

func replaced(in, from, to string) string {
	if !strings.Contains(in, from) {
		panic(fmt.Sprintf("%q isn't in %s", from, in))
	}
	return strings.Replace(in, from, to, 1)
}

// unsigned makes a token of the algorithm none (RFC 7515 appendix A.5).
func unsigned(x *text) {
	x.header = replaced(x.header, `"EdDSA"`, `"none"`)
	x.cut = func(s string) string { return s[:strings.LastIndex(s, ".")+1] }
}

// hmacked signs with the public key as if it were a secret.
func hmacked(x *text) {
	x.header = replaced(x.header, `"EdDSA"`, `"HS256"`)
	key := public(x.key)
	x.cut = func(s string) string {
		input := s[:strings.LastIndex(s, ".")]
		m := hmac.New(sha256.New, key)
		m.Write([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
}

func signedBy(key ed25519.PrivateKey) func(*text) { return func(x *text) { x.key = key } }

// shifted moves times in a payload.
func shifted(by time.Duration, claims ...string) func(*text) {
	return func(x *text) {
		for _, c := range claims {
			at := strings.Index(x.payload, `"`+c+`":`)
			if at < 0 {
				panic("no " + c + " in " + x.payload)
			}
			var n int64
			rest := x.payload[at+len(c)+3:]
			if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
				panic(err)
			}
			x.payload = replaced(x.payload, fmt.Sprintf(`"%s":%d`, c, n), fmt.Sprintf(`"%s":%d`, c, n+int64(by/time.Second)))
		}
	}
}

func asked(from, to string) func(*attempt) {
	return func(a *attempt) { a.form = func(f string) string { return replaced(f, from, to) } }
}

func asking(f func(*text)) func(*attempt)     { return func(a *attempt) { a.asking = f } }
func asserting(f func(*text)) func(*attempt)  { return func(a *attempt) { a.assertion = f } }
func vouching(f func(*text)) func(*attempt)   { return func(a *attempt) { a.credential = f } }
func permitting(f func(*text)) func(*attempt) { return func(a *attempt) { a.mandate = f } }
func bearing(f func(*text)) func(*attempt)    { return func(a *attempt) { a.token = f } }
func calling(f func(*text)) func(*attempt)    { return func(a *attempt) { a.calling = f } }

func sending(f func(*http.Request)) func(*attempt) { return func(a *attempt) { a.ask = f } }
func requesting(f func(*http.Request)) func(*attempt) {
	return func(a *attempt) { a.call = f }
}

// known changes what the world knows.
func known(f func(*world)) func(*stage) func() {
	return func(s *stage) func() {
		before := *s.world.copied()
		s.world.change(func() { f(s.world) })
		return func() { s.world.restore(&before) }
	}
}

func (w *world) copied() *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &world{peers: map[carnet.Fingerprint]Peer{}, owners: map[carnet.AvatarID]ed25519.PublicKey{}, withdrawn: map[string]bool{}, stale: w.stale, unread: w.unread}
	for k, v := range w.peers {
		c.peers[k] = v
	}
	for k, v := range w.owners {
		c.owners[k] = v
	}
	c.grants = append(c.grants, w.grants...)
	return c
}

func (w *world) restore(c *world) {
	w.change(func() {
		w.peers, w.owners, w.withdrawn, w.grants, w.stale, w.unread = c.peers, c.owners, c.withdrawn, c.grants, c.stale, c.unread
	})
}

func grant(f func(*fakeGrant)) func(*stage) func() {
	return known(func(w *world) {
		w.grants = append([]fakeGrant{}, w.grants...)
		f(&w.grants[0])
	})
}

func peers(f func(*Peer)) func(*stage) func() {
	return known(func(w *world) {
		for pin, p := range w.peers {
			f(&p)
			w.peers[pin] = p
		}
	})
}

const otherAvatar = "00112233445566778899aabbccddeeff"

// exchanges are the ways in which a question for a token is wrong.
func exchanges(s *stage) []wrong {
	other := newKey()
	const fresh = "urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5"
	uuid := func(x *text) string { return x.payload[strings.Index(x.payload, "urn:uuid:"):][:len(fresh)] }
	var shown string // the jti of something that was shown before
	replay := func(x *text) {
		if shown == "" {
			panic("nothing was shown")
		}
		x.payload = replaced(x.payload, uuid(x), shown)
	}
	return []wrong{
		// The platform.
		{name: "another platform's certificate", change: func(a *attempt) { a.askedBy = s.httpClinic }, rule: FormRule, why: "the TLS key is urn:carnet:party:clinic's"},
		{name: "another platform's certificate and name", change: func(a *attempt) {
			a.askedBy = s.httpClinic
			asked("party%3Acitadel", "party%3Aclinic")(a)
		}, rule: CredentialRule, why: "signature"},
		{name: "the peering was suspended meanwhile", world: known(func(w *world) { w.peers = nil }), rule: PlatformRule, why: "no peer in force"},
		{name: "the peering is over", world: peers(func(p *Peer) { p.Until = begin }), rule: GrantRule, why: "would live by ended"},
		// The form.
		{name: "another client_id", change: asked("party%3Acitadel", "party%3Aclinic"), rule: FormRule, why: "client_id"},
		{name: "no client_id", change: asked("client_id=urn%3Acarnet%3Aparty%3Acitadel&", ""), rule: FormRule, why: "no parameter client_id"},
		{name: "another grant_type", change: asked("token-exchange", "jwt-bearer"), rule: FormRule, why: "grant_type"},
		{name: "another subject_token_type", change: asked("subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt", "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Asaml2"), rule: FormRule, why: "subject_token_type"},
		{name: "another requested_token_type", change: asked("access_token", "refresh_token"), rule: FormRule, why: "requested_token_type"},
		{name: "no scope", change: asked("&scope=read", ""), rule: FormRule, why: "no parameter scope"},
		{name: "an empty scope", change: asked("&scope=read", "&scope="), rule: FormRule, why: "the scope is"},
		{name: "two scopes", change: asked("&scope=read", "&scope=read+move"), rule: FormRule, why: "the scope is"},
		{name: "a scope in capitals", change: asked("&scope=read", "&scope=Read"), rule: FormRule, why: "the scope is"},
		{name: "the scope twice", change: asked("&scope=read", "&scope=read&scope=read"), rule: FormRule, why: "scope is there twice"},
		{name: "the scope twice, spelled otherwise", change: asked("&scope=read", "&scope=read&%73cope=read"), rule: FormRule, why: "scope is there twice"},
		{name: "two resources", change: asked("resource=", "resource=urn%3Acarnet%3Aavatar%3A"+otherAvatar+"&resource="), rule: FormRule, why: "resource is there twice"},
		{name: "an audience, too", change: asked("client_id", "audience=x&client_id"), rule: FormRule, why: `"audience", which is not understood`},
		{name: "an actor_token, too", change: asked("client_id", "actor_token=x&client_id"), rule: FormRule, why: "not understood"},
		{name: "a parameter in capitals", change: asked("&scope", "&SCOPE"), rule: FormRule, why: "not understood"},
		{name: "an empty parameter", change: asked("&scope", "&&scope"), rule: FormRule, why: "not understood"},
		{name: "a broken escape", change: asked("&scope=read", "&scope=%zz"), rule: FormRule, why: "not URL-encoded"},
		{name: "a resource of another kind", change: asked("avatar%3A", "thing%3A"), rule: FormRule, why: "not the URN of an avatar"},
		{name: "a resource in capitals", change: asked("resource=urn%3Acarnet", "resource=URN%3Acarnet"), rule: FormRule, why: "not the URN of an avatar"},
		{name: "parameters in the URL", change: sending(func(r *http.Request) { r.URL.RawQuery = "scope=read" }), rule: FormRule, why: "in the URL"},
		{name: "JSON", change: sending(func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }), rule: FormRule, why: "content type"},
		{name: "another charset", change: sending(func(r *http.Request) { r.Header.Set("Content-Type", FormType+"; charset=utf-16") }), rule: FormRule, why: "content type"},
		{name: "a secret of the client, too", change: sending(func(r *http.Request) { r.SetBasicAuth("citadel", "secret") }), rule: FormRule, why: "an Authorization"},
		{name: "a compressed body", change: sending(func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }), rule: FormRule, why: "Content-Encoding"},
		{name: "too much", change: asked("&scope=read", "&scope=read&x="+strings.Repeat("x", maxForm)), rule: FormRule, why: "more than 16384"},
		{name: "another method", change: sending(func(r *http.Request) { r.Method = "PUT" }), rule: NoRoute, why: "there is no PUT"},
		{name: "another path", change: sending(func(r *http.Request) { r.URL.Path = "/r5//token" }), rule: NoRoute, why: "there is no POST"},
		// The proof.
		{name: "no proof", change: sending(func(r *http.Request) { delete(r.Header, "Dpop") }), rule: ProofRule, why: "Dpop is there 0 times"},
		{name: "two proofs", change: sending(func(r *http.Request) { r.Header["Dpop"] = append(r.Header["Dpop"], r.Header["Dpop"][0]) }), rule: ProofRule, why: "Dpop is there 2 times"},
		{name: "a proof of algorithm none", change: asking(unsigned), rule: ProofRule, why: `the alg "none"`},
		{name: "a proof by HMAC", change: asking(hmacked), rule: ProofRule, why: `the alg "HS256"`},
		{name: "a proof of RS256", change: asking(head("EdDSA", "RS256")), rule: ProofRule, why: `the alg "RS256"`},
		{name: "a proof of another type", change: asking(head("dpop+jwt", "JWT")), rule: ProofRule, why: `the typ "JWT"`},
		{name: "a proof signed by another key than it names", change: asking(signedBy(other)), rule: ProofRule, why: "signature"},
		{name: "a proof with a private key", change: asking(head(`"kty":`, `"d":"AA","kty":`)), rule: ProofRule, why: `"d", which is not understood`},
		{name: "a proof with a kid", change: asking(head(`{"typ"`, `{"kid":"1","typ"`)), rule: ProofRule, why: `"kid", which is not understood`},
		{name: "a proof with crit", change: asking(head(`{"typ"`, `{"crit":["exp"],"typ"`)), rule: ProofRule, why: `"crit", which is not understood`},
		{name: "a proof with b64", change: asking(head(`{"typ"`, `{"b64":false,"typ"`)), rule: ProofRule, why: `"b64", which is not understood`},
		{name: "a proof that says alg twice", change: asking(head(`{"typ"`, `{"alg":"none","typ"`)), rule: ProofRule, why: `"alg" twice`},
		{name: "a proof for another method", change: asking(swap(`"POST"`, `"GET"`)), rule: ProofRule, why: `is for the method "GET"`},
		{name: "a proof for another URL", change: asking(swap("/r5/token", "/r5/tokens")), rule: ProofRule, why: "/r5/tokens"},
		{name: "a proof for another host", change: asking(swap("127.0.0.1", "localhost")), rule: ProofRule, why: "localhost"},
		{name: "a proof for the URL with a query", change: asking(swap("/r5/token", "/r5/token?")), rule: ProofRule, why: "without query"},
		{name: "a proof of the future", change: asking(shifted(31*time.Second, "iat")), rule: ProofRule, why: "in the future"},
		{name: "a proof of the past", change: asking(shifted(-90*time.Second, "iat")), rule: ProofRule, why: "more than 1m0s ago"},
		{name: "a proof from before the start", change: asking(shifted(-60*time.Second, "iat")), rule: ProofRule, why: "can't tell what was shown before"},
		{name: "a proof for a token", change: asking(swap(`}`, `,"ath":"fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}`)), rule: ProofRule, why: `"ath", which is not understood`},
		{name: "a proof with a nonce", change: asking(swap(`{`, `{"nonce":"1",`)), rule: ProofRule, why: `"nonce", which is not understood`},
		{name: "a proof that says htm twice", change: asking(swap(`{`, `{"htm":"GET",`)), rule: ProofRule, why: `"htm" twice`},
		{name: "a proof with HTM in capitals", change: asking(swap(`"htm"`, `"HTM"`)), rule: ProofRule, why: `"HTM", which is not understood`},
		{name: "a proof with data after it", change: asking(func(x *text) { x.payload += "{}" }), rule: ProofRule, why: "goes on after its end"},
		{name: "a proof with white space", change: asking(swap(`{`, `{ `)), rule: ProofRule, why: "one form"},
		{name: "a proof with padding", change: asking(func(x *text) { x.cut = func(s string) string { return s + "==" } }), rule: ProofRule, why: "base64url"},
		{name: "a proof of four parts", change: asking(func(x *text) { x.cut = func(s string) string { return s + ".x" } }), rule: ProofRule, why: "three parts"},
		{name: "a large proof", change: asking(swap("/r5/token", "/r5/token"+strings.Repeat("x", 4096))), rule: ProofRule, why: "bytes, at most"},
		{name: "a proof that was shown before", world: func(*stage) func() {
			a := s.attempt()
			a.asking = func(x *text) { shown = uuid(x) }
			if _, token, err := a.exchange(); err != nil || token == "" {
				panic("the first showing failed")
			}
			return func() {}
		}, change: asking(replay), rule: ProofRule, why: "replay"},
		// The assertion.
		{name: "an assertion for another world", change: asserting(swap("party:arena", "party:clinic")), rule: AssertionRule, why: `is for "urn:carnet:party:clinic"`},
		{name: "an assertion for two worlds", change: asserting(swap(`"urn:carnet:party:arena"`, `["urn:carnet:party:arena","x"]`)), rule: AssertionRule, why: `"aud" of another type`},
		{name: "an assertion that ended", change: asserting(shifted(-50*time.Second-40*time.Second, "iat", "exp")), rule: AssertionRule, why: "ended at"},
		{name: "an assertion of the future", change: asserting(shifted(31*time.Second, "iat", "exp")), rule: AssertionRule, why: "in the future"},
		{name: "an assertion for too long", change: asserting(shifted(time.Second, "exp")), rule: AssertionRule, why: "at most 1m0s"},
		{name: "an assertion from before the start", change: asserting(shifted(-60*time.Second, "iat", "exp")), rule: AssertionRule, why: "can't tell what was shown before"},
		{name: "an assertion that was shown before", world: func(*stage) func() {
			a := s.attempt()
			a.assertion = func(x *text) { shown = uuid(x) }
			if _, token, err := a.exchange(); err != nil || token == "" {
				panic("the first showing failed")
			}
			return func() {}
		}, change: asserting(replay), rule: AssertionRule, why: "replay"},
		{name: "an assertion for another proof's key", change: func(a *attempt) { a.askKey = other }, rule: AssertionRule, why: "another key than the proof's"},
		{name: "an assertion by another than it is about", change: asserting(swap(`"sub":"`+identity.DID(public(s.avatar)), `"sub":"`+identity.DID(public(other)))), rule: AssertionRule, why: "is by"},
		{name: "an assertion signed by the platform", change: asserting(signedBy(s.citadel.key)), rule: AssertionRule, why: "signature"},
		{name: "another avatar's assertion", change: asserting(func(x *text) {
			x.payload = strings.ReplaceAll(x.payload, identity.DID(public(s.avatar)), identity.DID(public(other)))
			x.header = strings.ReplaceAll(x.header, identity.DID(public(s.avatar))[8:], identity.DID(public(other))[8:])
			x.key = other
		}), rule: CredentialRule, why: "another avatar's"},
		{name: "an assertion of algorithm none", change: asserting(unsigned), rule: AssertionRule, why: "none"},
		{name: "an assertion by HMAC", change: asserting(hmacked), rule: AssertionRule, why: "HS256"},
		{name: "an assertion of RS256", change: asserting(head("EdDSA", "RS256")), rule: AssertionRule, why: "RS256"},
		{name: "an assertion with a wrong kid", change: asserting(head("#z", "#y")), rule: AssertionRule, why: "header is"},
		{name: "an assertion with its own jwk", change: asserting(head(`{"alg"`, `{"jwk":{},"alg"`)), rule: AssertionRule, why: `"jwk", which is not understood`},
		{name: "an assertion of another type", change: asserting(head("carnet-assertion+jwt", "at+jwt")), rule: AssertionRule, why: "header is"},
		{name: "an assertion with another claim", change: asserting(swap(`{`, `{"act":{},`)), rule: AssertionRule, why: `"act", which is not understood`},
		{name: "an assertion that says aud twice", change: asserting(swap(`{`, `{"aud":"urn:carnet:party:clinic",`)), rule: AssertionRule, why: `"aud" twice`},
		{name: "an assertion with AUD in capitals", change: asserting(swap(`"aud"`, `"AUD"`)), rule: AssertionRule, why: `"AUD", which is not understood`},
		{name: "an assertion with data after it", change: asserting(func(x *text) { x.payload += " 1" }), rule: AssertionRule, why: "goes on after its end"},
		{name: "an assertion with its claims in another order", change: asserting(func(x *text) {
			at := strings.Index(x.payload, `,"sub"`)
			iss := x.payload[1:at]
			x.payload = "{" + x.payload[at+1:len(x.payload)-1] + "," + iss + "}"
		}), rule: AssertionRule, why: "one form"},
		// The credential.
		{name: "no credential", change: asserting(func(x *text) { x.payload = emptied(x.payload, "credential") }), rule: AssertionRule, why: "carries no credential"},
		{name: "a credential by another world", change: vouching(signedBy(s.clinic.key)), rule: CredentialRule, why: "signature"},
		{name: "a credential by the avatar itself", change: vouching(func(x *text) {
			*x = *textOf(must(identity.IssueCredential(s.avatar, identity.Credential{
				World: "citadel", Avatar: carnet.AvatarID{1}, Subject: public(s.avatar), Issued: s.clock.Now(), NotBefore: s.clock.Now(), Expires: s.clock.Now().Add(time.Hour),
			})), s.avatar)
		}), rule: CredentialRule, why: "signature"},
		{name: "a swapped avatar", change: vouching(swap(identity.DID(public(s.avatar)), identity.DID(public(other)))), rule: CredentialRule, why: "another avatar's than the assertion"},
		{name: "a credential that ended", change: vouching(shifted(-2*time.Hour, "iat", "nbf", "exp")), rule: CredentialRule, why: "ended at"},
		{name: "a credential not yet valid", change: vouching(shifted(31*time.Second, "nbf")), rule: CredentialRule, why: "holds from"},
		{name: "a credential of the future", change: vouching(shifted(31*time.Second, "iat")), rule: CredentialRule, why: "in the future"},
		{name: "a credential about another world's avatar", change: vouching(swap(`"world":"citadel"`, `"world":"clinic"`)), rule: CredentialRule, why: `an avatar of "clinic"`},
		{name: "a credential of algorithm none", change: vouching(unsigned), rule: CredentialRule, why: "signature"},
		{name: "a credential with another claim", change: vouching(swap(`{`, `{"aud":"x",`)), rule: CredentialRule, why: "not understood"},
		// The avatar that it is about.
		{name: "an avatar that isn't here", change: asked(s.about.String(), otherAvatar), rule: AvatarRule, why: "there is no avatar"},
		{name: "an avatar without an owner", world: known(func(w *world) { delete(w.owners, s.about) }), rule: AvatarRule, why: "there is no avatar"},
		// The mandate.
		{name: "no mandate", change: asserting(func(x *text) { x.payload = emptied(x.payload, "mandate") }), rule: AssertionRule, why: "carries no mandate"},
		{name: "a mandate by another owner", change: permitting(signedBy(other)), rule: MandateRule, why: "signature"},
		{name: "a mandate by the platform", change: permitting(signedBy(s.citadel.key)), rule: MandateRule, why: "signature"},
		{name: "another owner's avatar", world: known(func(w *world) { w.owners[s.about] = public(other) }), rule: MandateRule, why: "signature"},
		{name: "a mandate for another world", change: permitting(swap("party:arena", "party:clinic")), rule: MandateRule, why: `is for "clinic"`},
		{name: "a mandate for another avatar of the platform", change: permitting(swap(identity.DID(public(s.avatar)), identity.DID(public(other)))), rule: MandateRule, why: "lets"},
		{name: "a mandate for another platform", change: permitting(swap(identity.DID(public(s.citadel.key)), identity.DID(public(s.clinic.key)))), rule: MandateRule, why: "is for the platform"},
		{name: "a mandate about another avatar", change: permitting(swap(s.about.String(), otherAvatar)), rule: MandateRule, why: "is about the avatar"},
		{name: "a mandate for another action", change: permitting(swap(`["read"]`, `["move","subscribe"]`)), rule: MandateRule, why: "permits move, subscribe, not read"},
		{name: "a mandate for no action", change: permitting(swap(`["read"]`, `[]`)), rule: MandateRule, why: "permits"},
		{name: "a mandate for any action", change: permitting(swap(`["read"]`, `["*"]`)), rule: MandateRule, why: "permits"},
		{name: "a mandate that ended", change: permitting(shifted(-2*time.Hour, "iat", "nbf", "exp")), rule: MandateRule, why: "ended at"},
		{name: "a mandate not yet valid", change: permitting(shifted(31*time.Second, "nbf")), rule: MandateRule, why: "holds from"},
		{name: "a mandate of the future", change: permitting(shifted(31*time.Second, "iat", "nbf", "exp")), rule: MandateRule, why: "in the future"},
		{name: "a mandate for two days", change: permitting(shifted(47*time.Hour, "exp")), rule: MandateRule, why: "at most 24h"},
		{name: "a mandate of algorithm none", change: permitting(unsigned), rule: MandateRule, why: "signature"},
		{name: "a credential instead of a mandate", change: permitting(head("carnet-mandate+jwt", "JWT")), rule: MandateRule, why: "header is"},
		{name: "a withdrawn mandate", change: permitting(func(x *text) {
			s.world.change(func() { s.world.withdrawn[uuid(x)] = true })
		}), world: known(func(*world) {}), rule: MandateRule, why: "withdrawn"},
		{name: "a mandate of which nobody can tell", world: known(func(w *world) { w.unread = true }), rule: RevocationsRule, why: "nobody can tell"},
		// The grant, and the label.
		{name: "no grant", world: known(func(w *world) { w.grants = nil }), rule: GrantRule, why: "there is no grant"},
		{name: "a grant to another platform", world: grant(func(g *fakeGrant) { g.to = "clinic" }), rule: GrantRule, why: "there is no grant"},
		{name: "a grant to another avatar", world: grant(func(g *fakeGrant) { g.by = identity.DID(public(other)) }), rule: GrantRule, why: "there is no grant"},
		{name: "a grant for another action", world: grant(func(g *fakeGrant) { g.ok = identity.ActionMove }), rule: GrantRule, why: "there is no grant"},
		{name: "a grant for another purpose", world: grant(func(g *fakeGrant) { g.on = "play" }), rule: GrantRule, why: "there is no grant for care"},
		{name: "a mandate for another purpose", change: permitting(swap(`"purpose":"care"`, `"purpose":"play"`)), rule: GrantRule, why: "there is no grant for play"},
		{name: "a grant that ends now", world: grant(func(g *fakeGrant) { g.Until = s.clock.Now() }), rule: GrantRule, why: "would live by ended"},
		{name: "data above the peer's clearance", world: peers(func(p *Peer) { p.Clearance.Sensitivity = carnet.Personal }), rule: LabelRule, why: "by the peer's clearance: the data is health"},
		{name: "data above the peering", world: peers(func(p *Peer) { p.Terms.Sensitivity = carnet.Public }), rule: LabelRule, why: "by the peering: the data is health"},
		{name: "data above the mandate", change: permitting(swap("health+location", "location")), rule: LabelRule, why: "by the mandate: the data is health"},
		{name: "data of another label than it was", world: grant(func(g *fakeGrant) { g.Label.Sensitivity = carnet.AllSensitive }), rule: LabelRule, why: "by the peer's clearance: the data is location"},
		{name: "a purpose that isn't the peer's", world: peers(func(p *Peer) { p.Clearance.Purposes = "play" }), rule: LabelRule, why: "bound to purpose play"},
		{name: "a purpose that the peering hasn't", world: peers(func(p *Peer) { p.Terms.Purposes = "play" }), rule: LabelRule, why: "by the peering"},
		{name: "a purpose that the data isn't for", world: grant(func(g *fakeGrant) { g.Label.Purposes = "play" }), rule: LabelRule, why: "bound to purpose play"},
		{name: "a place outside the data's", world: peers(func(p *Peer) { p.Clearance.Residency = "us" }), rule: LabelRule, why: "residency eu"},
		{name: "a place outside the peering's", world: peers(func(p *Peer) { p.Terms.Residency = "us" }), rule: LabelRule, why: "by the peering: the data is bound to residency us"},
		{name: "a place outside the mandate's", change: permitting(swap(`"residency":["eu"]`, `"residency":["us"]`)), rule: LabelRule, why: "by the mandate: the data is bound to residency us"},
		{name: "a stale store", world: known(func(w *world) { w.stale = true }), rule: RevocationsRule, why: "hasn't said for a second"},
	}
}

// emptied makes a claim's text empty.
func emptied(payload, claim string) string {
	at := strings.Index(payload, `"`+claim+`":"`) + len(claim) + 4
	return payload[:at] + payload[at+strings.IndexByte(payload[at:], '"'):]
}

// calls are the ways in which a call is wrong whose token was given rightly.
func calls(s *stage) []wrong {
	other := newKey()
	path := "/r5/avatars/"
	return []wrong{
		{name: "another platform's certificate", change: func(a *attempt) { a.calledBy = s.httpClinic }, rule: PlatformRule, why: "citadel's, and the TLS key is clinic's"},
		{name: "the peering was suspended meanwhile", world: known(func(w *world) { w.peers = nil }), rule: PlatformRule, why: "no peer in force"},
		{name: "no token", change: requesting(func(r *http.Request) { r.Header.Del("Authorization") }), rule: TokenRule, why: "Authorization is there 0 times"},
		{name: "two tokens", change: requesting(func(r *http.Request) {
			r.Header["Authorization"] = append(r.Header["Authorization"], r.Header.Get("Authorization"))
		}), rule: TokenRule, why: "2 times"},
		{name: "a bearer token", change: requesting(func(r *http.Request) {
			r.Header.Set("Authorization", replaced(r.Header.Get("Authorization"), "DPoP", "Bearer"))
		}), rule: TokenRule, why: "not DPoP"},
		{name: "a token by the platform", change: bearing(signedBy(s.citadel.key)), rule: TokenRule, why: "signature"},
		{name: "a token of algorithm none", change: bearing(unsigned), rule: TokenRule, why: "signature"},
		{name: "a token by HMAC", change: bearing(hmacked), rule: TokenRule, why: "signature"},
		{name: "a token of RS256", change: bearing(head("EdDSA", "RS256")), rule: TokenRule, why: "header is"},
		{name: "a token of another type", change: bearing(head("at+jwt", "JWT")), rule: TokenRule, why: "header is"},
		{name: "a token with a wrong kid", change: bearing(head("#z", "#y")), rule: TokenRule, why: "header is"},
		{name: "a token by another world", change: bearing(swap(`"iss":"urn:carnet:party:arena"`, `"iss":"urn:carnet:party:clinic"`)), rule: TokenRule, why: "want"},
		{name: "a token for another world", change: bearing(swap(`"aud":"urn:carnet:party:arena"`, `"aud":"urn:carnet:party:clinic"`)), rule: TokenRule, why: "want"},
		{name: "a token with another claim", change: bearing(swap(`{`, `{"nbf":1,`)), rule: TokenRule, why: "not understood"},
		{name: "a token that says sub twice", change: bearing(swap(`"sub"`, `"sub":"x","sub"`)), rule: TokenRule, why: "twice"},
		{name: "a token with data after it", change: bearing(func(x *text) { x.payload += "x" }), rule: TokenRule, why: "goes on after its end"},
		{name: "a token for another platform", change: bearing(func(x *text) { x.payload = strings.ReplaceAll(x.payload, `"citadel"`, `"clinic"`) }), rule: PlatformRule, why: "clinic's, and the TLS key is citadel's"},
		{name: "a token whose actor isn't its client", change: bearing(swap(`{"sub":"citadel"}`, `{"sub":"clinic"}`)), rule: TokenRule, why: "acts"},
		{name: "a token that ended", change: bearing(shifted(-5*time.Minute, "iat", "exp")), rule: TokenRule, why: "ended at"},
		{name: "a token of the future", change: bearing(shifted(time.Second, "iat", "exp")), rule: TokenRule, why: "of the future"},
		{name: "a token for too long", change: bearing(shifted(time.Second, "exp")), rule: TokenRule, why: "at most 5m0s"},
		{name: "a token of another scope", change: bearing(swap(`"scope":"read"`, `"scope":"subscribe"`)), rule: ScopeRule, why: "is for subscribe, and this is read"},
		{name: "a token of another resource", change: bearing(swap(s.about.String(), otherAvatar)), rule: ResourceRule, why: "is for the avatar " + otherAvatar},
		{name: "an assertion instead of a token", change: requesting(func(r *http.Request) {
			a := s.attempt()
			var assertion string
			a.assertion = func(x *text) { assertion = x.sign() }
			a.request()
			r.Header.Set("Authorization", "DPoP "+assertion)
		}), rule: TokenRule, why: "signature"},
		// The proof.
		{name: "no proof", change: requesting(func(r *http.Request) { r.Header.Del("Dpop") }), rule: ProofRule, why: "0 times"},
		{name: "two proofs", change: requesting(func(r *http.Request) { r.Header["Dpop"] = append(r.Header["Dpop"], "x") }), rule: ProofRule, why: "2 times"},
		{name: "a proof by another key", change: func(a *attempt) { a.callKey = other }, rule: ProofRule, why: "another key than the access token's"},
		{name: "a proof signed by another key than it names", change: calling(signedBy(other)), rule: ProofRule, why: "signature"},
		{name: "a proof for another method", change: calling(swap(`"GET"`, `"POST"`)), rule: ProofRule, why: "for the method"},
		{name: "a proof for another URL", change: calling(swap(s.about.String(), otherAvatar)), rule: ProofRule, why: otherAvatar},
		{name: "a proof for another token", change: calling(swap(`"ath":"`, `"ath":"A`)), rule: ProofRule, why: "SHA-256"},
		{name: "a proof for the token of another call", change: calling(func(x *text) {
			at := strings.Index(x.payload, `"ath":"`) + 7
			x.payload = x.payload[:at] + "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" + x.payload[at+43:]
		}), rule: ProofRule, why: "for another access token"},
		{name: "a proof for no token", change: calling(func(x *text) { x.payload = x.payload[:strings.Index(x.payload, `,"ath"`)] + "}" }), rule: ProofRule, why: `no "ath"`},
		{name: "a proof of the future", change: calling(shifted(31*time.Second, "iat")), rule: ProofRule, why: "in the future"},
		{name: "a proof of the past", change: calling(shifted(-90*time.Second, "iat")), rule: ProofRule, why: "more than 1m0s ago"},
		{name: "a proof from before the start", change: calling(shifted(-60*time.Second, "iat")), rule: ProofRule, why: "can't tell"},
		{name: "a proof that was shown before", change: func(a *attempt) {
			a.call = func(r *http.Request) {
				if got, err := do(s.http, r.Clone(r.Context())); err != nil || got.status != 200 {
					panic("the first showing failed")
				}
			}
		}, rule: ProofRule, why: "replay"},
		{name: "a proof of algorithm none", change: calling(unsigned), rule: ProofRule, why: "none"},
		// What the token is for.
		{name: "another action", change: func(a *attempt) {
			a.calling = swap(s.about.String(), s.about.String()+"/live")
			a.call = func(r *http.Request) { r.URL.Path += "/live" }
		}, rule: ScopeRule, why: "is for read, and this is subscribe"},
		{name: "another avatar", change: func(a *attempt) {
			a.calling = swap(s.about.String(), otherAvatar)
			a.call = func(r *http.Request) { r.URL.Path = path + otherAvatar }
		}, rule: ResourceRule, why: "is for the avatar " + s.about.String()},
		{name: "an avatar that is none", change: func(a *attempt) {
			a.calling = swap(s.about.String(), "x")
			a.call = func(r *http.Request) { r.URL.Path = path + "x" }
		}, rule: ResourceRule, why: "avatar"},
		{name: "another method", change: func(a *attempt) {
			a.calling = swap("GET", "DELETE")
			a.call = func(r *http.Request) { r.Method = "DELETE" }
		}, rule: NoRoute, why: "there is no DELETE"},
		{name: "a path that isn't clean", change: requesting(func(r *http.Request) {
			r.URL = &url.URL{Scheme: "https", Host: r.URL.Host, Path: "/r5/./avatars/" + s.about.String()}
		}), rule: NoRoute, why: "there is no GET"},
		{name: "a path that isn't there", change: requesting(func(r *http.Request) { r.URL.Path = "/r5/avatar/" + s.about.String() }), rule: NoRoute, why: "there is no GET"},
		// What it lives by.
		{name: "the mandate was withdrawn", change: bearing(func(x *text) {
			at := strings.Index(x.payload, `"mandate":"`) + 11
			id := x.payload[at : at+45]
			s.world.change(func() { s.world.withdrawn[id] = true })
		}), world: known(func(*world) {}), rule: MandateRule, why: "withdrawn"},
		{name: "the grant was revoked", world: known(func(w *world) { w.grants = nil }), rule: GrantRule, why: "there is no grant"},
		{name: "the grant has another version", world: grant(func(g *fakeGrant) { g.Version++ }), rule: GrantRule, why: "another version"},
		{name: "the grant is another", world: grant(func(g *fakeGrant) { g.ID = "g2" }), rule: GrantRule, why: "another version"},
		{name: "the grant is over", world: grant(func(g *fakeGrant) { g.Until = s.clock.Now() }), rule: GrantRule, why: "ended at"},
		{name: "the grant is for another purpose", world: grant(func(g *fakeGrant) { g.on = "play" }), rule: GrantRule, why: "there is no grant"},
		{name: "the data has another label now", world: grant(func(g *fakeGrant) { g.Label.Sensitivity |= carnet.Location }), rule: LabelRule, why: "by the peer's clearance"},
		{name: "the peer has another clearance now", world: peers(func(p *Peer) { p.Clearance.Sensitivity = carnet.Public }), rule: LabelRule, why: "by the peer's clearance"},
		{name: "the peering has other terms now", world: peers(func(p *Peer) { p.Terms.Sensitivity = carnet.Public }), rule: LabelRule, why: "by the peering"},
		{name: "the token's mandate is for less", change: bearing(swap("health+location", "location")), rule: LabelRule, why: "by the mandate"},
		{name: "a stale store", world: known(func(w *world) { w.stale = true }), rule: RevocationsRule, why: "hasn't said for a second"},
	}
}

// one answer to all of them, whatever was wrong.
var oneAnswer = said{
	status: 401,
	header: http.Header{
		"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"},
		"Www-Authenticate": {`DPoP error="invalid_token"`}, "Content-Length": {fmt.Sprint(len(Outside))},
	},
	body: Outside,
}

// Each wrong way is refused with the one answer, for its own reason, which is
// recorded; without it everything is taken just before and just after.
func TestWrongWays(t *testing.T) {
	s := newStage(t)
	for _, kind := range []struct {
		name string
		rows []wrong
		try  func(a *attempt, token string) (said, error)
	}{
		{"exchange", exchanges(s), func(a *attempt, _ string) (said, error) { got, _, err := a.exchange(); return got, err }},
		{"call", calls(s), func(a *attempt, token string) (said, error) { return a.use(token) }},
	} {
		for _, row := range kind.rows {
			t.Run(kind.name+"/"+row.name, func(t *testing.T) {
				s.succeeds(t, "before")
				a := s.attempt()
				_, token, err := a.exchange()
				if err != nil || token == "" {
					t.Fatal("no token", err)
				}
				undo := func() {}
				if row.world != nil {
					undo = row.world(s)
				}
				if row.change != nil {
					row.change(a)
				}
				had := s.world.count()
				got, err := kind.try(a, token)
				d, count := s.world.last(), s.world.count()
				undo()
				if err != nil || !reflect.DeepEqual(got, oneAnswer) {
					t.Errorf("the answer is %d %q %q (%v), want the one", got.status, got.header, got.body, err)
				}
				if count <= had {
					t.Fatal("nothing is recorded")
				}
				if d.Permitted || d.Rule != row.rule || !strings.Contains(d.Reason, row.why) || d.Exchange != (kind.name == "exchange" && row.rule != NoRoute) {
					t.Errorf("recorded as %+v, want the rule %s and a reason with %q", d, row.rule, row.why)
				}
				s.succeeds(t, "after")
			})
		}
	}
}

// Who isn't a peer gets no further than TLS; why, is recorded.
func TestStrangersEndInTheHandshake(t *testing.T) {
	s := newStage(t)
	s.succeeds(t, "before")
	var alerts []string
	for _, row := range []struct {
		name  string
		certs []tls.Certificate
		world func(*stage) func()
		rule  Rule
		why   string
	}{
		{"no certificate", nil, nil, PlatformRule, "no TLS key is shown"},
		{"a stranger's certificate", []tls.Certificate{newCertificate(t)}, nil, PlatformRule, "no peer in force"},
		{"a suspended peer's certificate", []tls.Certificate{s.clinic.cert}, known(func(w *world) { delete(w.peers, pinOf(s.clinic.cert.Leaf)) }), PlatformRule, "no peer in force"},
		{"a peer's, while the store is stale", []tls.Certificate{s.clinic.cert}, known(func(w *world) { w.stale = true }), RevocationsRule, "hasn't said"},
	} {
		undo := func() {}
		if row.world != nil {
			undo = row.world(s)
		}
		had := s.world.count()
		c, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: row.certs, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 1)) // the client of TLS 1.3 has ended its part before
		c.Close()
		undo()
		alerts = append(alerts, err.Error())
		if d := s.world.last(); s.world.count() != had+1 || d.Permitted || d.Rule != row.rule || !strings.Contains(d.Reason, row.why) {
			t.Errorf("%s is recorded as %+v", row.name, d)
		}
	}
	for _, alert := range alerts {
		if alert != "remote error: tls: bad certificate" {
			t.Errorf("the alerts are %q", alerts)
			break
		}
	}
	s.succeeds(t, "after")
}

// Clocks may differ by half a minute both ways, and no more; the rows of
// TestWrongWays have the second beyond.
func TestClocksMayDiffer(t *testing.T) {
	s := newStage(t)
	s.clock.add(10 * time.Minute)
	for _, by := range []time.Duration{-Skew, Skew} {
		a := s.attempt()
		a.asking, a.assertion = shifted(by, "iat"), shifted(by, "iat", "exp")
		a.credential, a.mandate = shifted(by, "iat", "nbf", "exp"), shifted(by, "iat", "nbf", "exp")
		a.calling = shifted(by, "iat")
		got, token, err := a.exchange()
		if err != nil || token == "" {
			t.Fatalf("by %v: %d %v %+v", by, got.status, err, s.world.last())
		}
		if got, err := a.use(token); err != nil || got.status != 200 {
			t.Errorf("by %v: %d %v %+v", by, got.status, err, s.world.last())
		}
	}
}

// Whoever asks about an avatar without its owner's mandate learns nothing of
// whether it is here: neither by the answer, nor by the work.
func TestHiddenAndAbsentCostTheSame(t *testing.T) {
	s := newStage(t)
	probe := func(about carnet.AvatarID) (said, []string) {
		a := s.attempt()
		a.mandate = func(x *text) { x.payload, x.key = replaced(x.payload, s.about.String(), about.String()), newKey() }
		a.form = func(f string) string { return replaced(f, s.about.String(), about.String()) }
		s.world.change(func() { s.world.asked = nil })
		got, _, err := a.exchange()
		if err != nil {
			t.Fatal(err)
		}
		s.world.mu.Lock()
		defer s.world.mu.Unlock()
		return got, append([]string{}, s.world.asked...)
	}
	s.succeeds(t, "before") // the connection is made
	hidden, askedHidden := probe(s.about)
	absent, askedAbsent := probe(carnet.NewAvatarID())
	if !reflect.DeepEqual(hidden, absent) || !reflect.DeepEqual(hidden, oneAnswer) {
		t.Errorf("hidden: %+v, absent: %+v", hidden, absent)
	}
	if !reflect.DeepEqual(askedHidden, askedAbsent) || len(askedHidden) == 0 {
		t.Errorf("hidden asks %q, absent %q", askedHidden, askedAbsent)
	}
	// With a token for one avatar others are asked for.
	there := carnet.NewAvatarID()
	s.world.change(func() { s.world.owners[there] = public(s.owner) })
	hidden, askedHidden = s.probeCall(t, there)
	absent, askedAbsent = s.probeCall(t, carnet.NewAvatarID())
	if !reflect.DeepEqual(hidden, absent) || !reflect.DeepEqual(askedHidden, askedAbsent) {
		t.Errorf("hidden: %+v %q, absent: %+v %q", hidden, askedHidden, absent, askedAbsent)
	}
}

// A token ends with the first of what it lives by, and what may outlast it, too.
func TestTokenEndsWithTheFirstOfWhatItLivesBy(t *testing.T) {
	s := newStage(t)
	now := s.clock.Now()
	for name, v := range map[string]struct {
		change func(*attempt)
		world  func(*stage) func()
		until  time.Duration
	}{
		"nothing":        {nil, nil, time.Hour},
		"the mandate":    {permitting(shifted(-58*time.Minute, "exp")), nil, 2 * time.Minute},
		"the credential": {vouching(shifted(-57*time.Minute, "exp")), nil, 3 * time.Minute},
		"the grant":      {nil, grant(func(g *fakeGrant) { g.Until = now.Add(time.Minute) }), time.Minute},
		"the peering":    {nil, peers(func(p *Peer) { p.Until = now.Add(4*time.Minute + time.Millisecond) }), 4 * time.Minute},
	} {
		a, undo := s.attempt(), func() {}
		if v.world != nil {
			undo = v.world(s)
		}
		if v.change != nil {
			v.change(a)
		}
		got, text, err := a.exchange()
		undo()
		if err != nil || text == "" {
			t.Fatal(name, err, s.world.last())
		}
		token, err := identity.VerifyToken(public(s.arena), "arena", text)
		life := min(v.until, identity.TokenLife)
		if err != nil || !token.Until.Equal(now.Add(v.until)) || !token.Expires.Equal(now.Add(life)) {
			t.Errorf("%s: until %v, expires %v (%v)", name, token.Until.Sub(now), token.Expires.Sub(now), err)
		}
		if want := fmt.Sprintf(`"expires_in":%d,`, life/time.Second); !strings.Contains(got.body, want) {
			t.Errorf("%s: %s", name, got.body)
		}
	}
}
