package identity

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
)

// RFC 8037 appendix A.3.
const rfc8037Thumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"

func TestThumbprintIsThatOfTheRFC(t *testing.T) {
	key := rfc8037(t).Public().(ed25519.PublicKey)
	if got := hashText(Thumbprint(key)); got != rfc8037Thumbprint {
		t.Errorf("A.3: the thumbprint is %s", got)
	}
	if got, err := readJWK("jwk", []byte(`{"crv":"Ed25519","kty":"OKP","x":"`+rfc8037Key+`"}`)); err != nil || !got.Equal(key) {
		t.Errorf("A.2: the key is %x, %v", got, err)
	}
}

// ath of RFC 9449 section 7.1 for the token shown there.
func TestTokenHashIsThatOfTheRFC(t *testing.T) {
	const token, want = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
	if got := hashText(carnet.FingerprintOf([]byte(token))); got != want {
		t.Errorf("ath is %s, want %s", got, want)
	}
}

const exampleUUID = urnUUID + "3978344f-8596-4c3a-a978-8fcaba3903c5"

func exampleProof() Proof {
	return Proof{ID: exampleUUID, Method: "GET", URL: "https://arena.example/r5/avatars/ab0000000000000000000000000000cd", Issued: issuedAt,
		Token: carnet.FingerprintOf([]byte("token"))}
}

func wantProof() ProofExpectation {
	p := exampleProof()
	return ProofExpectation{Method: p.Method, URL: p.URL, Token: p.Token, Now: issuedAt, Skew: 30 * time.Second}
}

func exampleAssertion() Assertion {
	return Assertion{ID: exampleUUID, Audience: "arena", Issued: issuedAt, Expires: issuedAt.Add(AssertionLife),
		Credential: "a.b.c", Mandate: "d.e.f", Thumbprint: carnet.Fingerprint{1, 2, 3}}
}

func wantAssertion() AssertionExpectation {
	return AssertionExpectation{Audience: "arena", Thumbprint: carnet.Fingerprint{1, 2, 3}, Now: issuedAt, Skew: 30 * time.Second}
}

func exampleAccess(t testing.TB) Token {
	return Token{
		ID: exampleUUID, World: "arena", Subject: testKey(t, didVectors[1].seed).Public().(ed25519.PublicKey), Platform: "citadel",
		Scope: "read", Avatar: carnet.AvatarID{0: 0xab, 15: 0xcd}, Purpose: "care", Grant: "g1", GrantVersion: 3, Mandate: exampleUUID,
		Most:  carnet.Clearance{Sensitivity: carnet.Health, Purposes: "care"},
		Until: issuedAt.Add(time.Hour), Thumbprint: carnet.Fingerprint{1, 2, 3}, Issued: issuedAt, Expires: issuedAt.Add(TokenLife),
	}
}

// What the three forms are, byte by byte, by the key of RFC 8037 appendix A.1.
func TestTokensAreWrittenAsDocumented(t *testing.T) {
	key := rfc8037(t)
	const did = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"
	const kid = did + "#z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"
	proof, err := IssueProof(key, exampleProof())
	assertion, err2 := IssueAssertion(key, exampleAssertion())
	access, err3 := IssueToken(key, exampleAccess(t))
	for name, v := range map[string]struct {
		token                string
		err                  error
		header, payload, sum string
	}{
		"proof": {proof, err, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":"` + rfc8037Key + `"}}`,
			`{"jti":"` + exampleUUID + `","htm":"GET","htu":"https://arena.example/r5/avatars/ab0000000000000000000000000000cd","iat":1795348800,` +
				`"ath":"PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A"}`, "ebd735f15dc46f2ec2dc94a642b1a94393fbeb1dff46ec1c4549983df3c11866"},
		"assertion": {assertion, err2, `{"alg":"EdDSA","typ":"carnet-assertion+jwt","kid":"` + kid + `"}`,
			`{"iss":"` + did + `","sub":"` + did + `","aud":"urn:carnet:party:arena","jti":"` + exampleUUID + `","iat":1795348800,"exp":1795348860,` +
				`"credential":"a.b.c","mandate":"d.e.f","cnf":{"jkt":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`, "2c222440a81d47e19a18cff47f634f14ad174e5158b51e6ff762e8df36171493"},
		"access token": {access, err3, `{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `"}`,
			`{"iss":"urn:carnet:party:arena","aud":"urn:carnet:party:arena","sub":"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",` +
				`"client_id":"citadel","act":{"sub":"citadel"},"scope":"read","resource":"urn:carnet:avatar:ab0000000000000000000000000000cd",` +
				`"purpose":"care","grant":"g1","grant_version":3,"mandate":"` + exampleUUID + `",` +
				`"most":{"sensitivity":"health","purposes":["care"],"residency":[]},"until":1795352400,` +
				`"cnf":{"jkt":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"jti":"` + exampleUUID + `","iat":1795348800,"exp":1795349100}`, "249e4ae9d888e2e7a6359e530987d2581bb1d2c44928289efa5a4be4cb428671"},
	} {
		header, payload, err := open(key.Public().(ed25519.PublicKey), v.token)
		if v.err != nil || err != nil {
			t.Fatalf("%s: %v, %v", name, v.err, err)
		}
		if string(header) != v.header {
			t.Errorf("%s: the header is\n%s, want\n%s", name, header, v.header)
		}
		if string(payload) != v.payload {
			t.Errorf("%s: the payload is\n%s, want\n%s", name, payload, v.payload)
		}
		if got := carnet.FingerprintOf([]byte(v.token)).String(); got != v.sum {
			t.Errorf("%s: the whole has the SHA-256 %s, want %s", name, got, v.sum)
		}
	}
	if got, err := VerifyProof(proof, wantProof()); err != nil || got.ID != exampleUUID || !got.Key.Equal(key.Public()) {
		t.Errorf("proof: %+v, %v", got, err)
	}
	if got, err := VerifyAssertion(assertion, wantAssertion()); err != nil || !got.Subject.Equal(key.Public()) || got.Credential != "a.b.c" || got.Mandate != "d.e.f" {
		t.Errorf("assertion: %+v, %v", got, err)
	}
	got, err := VerifyToken(key.Public().(ed25519.PublicKey), "arena", access)
	if again, err2 := IssueToken(key, got); err != nil || err2 != nil || again != access {
		t.Errorf("access token: %+v, %v, %v", got, err, err2)
	}
}

// respelled are the tokens of one kind with one change in their text, signed anew.
type respelled struct{ in, from, to string }

func (c respelled) apply(t *testing.T, name string, key ed25519.PrivateKey, token string) string {
	t.Helper()
	header, payload, err := open(key.Public().(ed25519.PublicKey), token)
	if err != nil {
		t.Fatal(err)
	}
	h, p := string(header), string(payload)
	at := map[string]*string{"header": &h, "payload": &p}[c.in]
	if !strings.Contains(*at, c.from) {
		t.Fatalf("%s: %q isn't there", name, c.from)
	}
	*at = strings.Replace(*at, c.from, c.to, 1)
	return sign(key, []byte(h), []byte(p))
}

func TestProofsThatSayMoreOrLessAreRefused(t *testing.T) {
	key := rfc8037(t)
	token, err := IssueProof(key, exampleProof())
	if err != nil {
		t.Fatal(err)
	}
	other := jwkOf(testKey(t, didVectors[2].seed).Public().(ed25519.PublicKey)).X
	for name, c := range map[string]respelled{
		"algorithm none":         {"header", `EdDSA`, `none`},
		"an HMAC":                {"header", `EdDSA`, `HS256`},
		"another type":           {"header", `dpop+jwt`, `at+jwt`},
		"the type in capitals":   {"header", `dpop+jwt`, `DPOP+JWT`},
		"another key":            {"header", rfc8037Key, other},
		"a private key":          {"header", `"x":`, `"d":"` + rfc8037Seed + `","x":`},
		"a key of another kind":  {"header", `"OKP"`, `"EC"`},
		"another curve":          {"header", `"Ed25519"`, `"X25519"`},
		"a key with padding":     {"header", rfc8037Key, rfc8037Key + "="},
		"a key cut short":        {"header", rfc8037Key, rfc8037Key[:40]},
		"a kid":                  {"header", `"jwk"`, `"kid":"1","jwk"`},
		"a crit":                 {"header", `"jwk"`, `"crit":["b64"],"jwk"`},
		"no key":                 {"header", `,"jwk":{"crv":"Ed25519","kty":"OKP","x":"` + rfc8037Key + `"}`, ``},
		"no method":              {"payload", `"htm":"GET",`, ``},
		"another method":         {"payload", `GET`, `POST`},
		"the method in small":    {"payload", `GET`, `get`},
		"another host":           {"payload", `arena.example`, `clinic.example`},
		"another path":           {"payload", `00cd"`, `00ce"`},
		"a query":                {"payload", `00cd"`, `00cd?x"`},
		"a fragment":             {"payload", `00cd"`, `00cd#x"`},
		"not over TLS":           {"payload", `https`, `http`},
		"with a user":            {"payload", `https://`, `https://u@`},
		"no ath":                 {"payload", `,"ath":"PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A"`, ``},
		"another ath":            {"payload", `"ath":"P`, `"ath":"Q`},
		"an ath cut short":       {"payload", `pBU-A`, `y`},
		"made in the future":     {"payload", `1795348800`, `1795348831`},
		"made long ago":          {"payload", `1795348800`, `1795348710`},
		"made before all time":   {"payload", `1795348800`, `-1`},
		"a jti that is no UUID":  {"payload", exampleUUID, `1`},
		"a jti in capitals":      {"payload", exampleUUID, strings.ToUpper(exampleUUID)},
		"a nonce nobody gave":    {"payload", `{`, `{"nonce":"1",`},
		"the method twice":       {"payload", `{`, `{"htm":"POST",`},
		"the method in capitals": {"payload", `"htm"`, `"HTM"`},
	} {
		if p, err := VerifyProof(c.apply(t, name, key, token), wantProof()); err == nil {
			t.Errorf("%s is taken: %+v", name, p)
		}
	}
	p := exampleProof()
	p.Token = carnet.Fingerprint{}
	bare, err := IssueProof(key, p)
	if err != nil {
		t.Fatal(err)
	}
	want := wantProof()
	want.Token = p.Token
	if _, err := VerifyProof(bare, want); err != nil {
		t.Errorf("without a token: %v", err)
	}
	if _, err := VerifyProof(token, want); err == nil {
		t.Error("a proof with an ath is taken where there is no token")
	}
	if _, err := VerifyProof(token+strings.Repeat("A", maxProof), wantProof()); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("a large one: %v", err)
	}
}

func TestAssertionsThatSayMoreOrLessAreRefused(t *testing.T) {
	key := rfc8037(t)
	token, err := IssueAssertion(key, exampleAssertion())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]respelled{
		"another type":               {"header", `carnet-assertion+jwt`, `JWT`},
		"another key":                {"header", `#z6Mk`, `#z6Mj`},
		"an embedded key":            {"header", `{`, `{"jwk":{},`},
		"another audience":           {"payload", `party:arena`, `party:clinic`},
		"an audience of two":         {"payload", `"urn:carnet:party:arena"`, `["urn:carnet:party:arena","urn:carnet:party:clinic"]`},
		"another issuer":             {"payload", `"iss":"did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"`, `"iss":"` + didVectors[0].did + `"`},
		"a life of 61 s":             {"payload", `1795348860`, `1795348861`},
		"no life":                    {"payload", `1795348860`, `1795348800`},
		"over":                       {"payload", `"iat":1795348800,"exp":1795348860`, `"iat":1795348720,"exp":1795348770`},
		"of the future":              {"payload", `"iat":1795348800,"exp":1795348860`, `"iat":1795348831,"exp":1795348860`},
		"no credential":              {"payload", `"credential":"a.b.c",`, ``},
		"an empty credential":        {"payload", `a.b.c`, ``},
		"an empty mandate":           {"payload", `d.e.f`, ``},
		"the mandate twice":          {"payload", `{`, `{"mandate":"x.y.z",`},
		"no cnf":                     {"payload", `,"cnf":{"jkt":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, ``},
		"another jkt":                {"payload", `"AQID`, `"AQIE`},
		"more in cnf":                {"payload", `{"jkt"`, `{"kid":"1","jkt"`},
		"a claim nobody understands": {"payload", `{`, `{"act":{"sub":"citadel"},`},
		"a jti of another form":      {"payload", urnUUID, ``},
	} {
		if a, err := VerifyAssertion(c.apply(t, name, key, token), wantAssertion()); err == nil {
			t.Errorf("%s is taken: %+v", name, a)
		}
	}
	// Signed by another than it says.
	header, payload, err := open(key.Public().(ed25519.PublicKey), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyAssertion(sign(testKey(t, didVectors[1].seed), header, payload), wantAssertion()); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("signed by another: %v", err)
	}
}

func TestAccessTokensThatSayMoreOrLessAreRefused(t *testing.T) {
	key := rfc8037(t)
	public := key.Public().(ed25519.PublicKey)
	token, err := IssueToken(key, exampleAccess(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]respelled{
		"another type":           {"header", `at+jwt`, `JWT`},
		"algorithm none":         {"header", `EdDSA`, `none`},
		"another issuer":         {"payload", `"iss":"urn:carnet:party:arena"`, `"iss":"urn:carnet:party:clinic"`},
		"another audience":       {"payload", `"aud":"urn:carnet:party:arena"`, `"aud":"urn:carnet:party:clinic"`},
		"another actor":          {"payload", `{"sub":"citadel"}`, `{"sub":"clinic"}`},
		"an actor of an actor":   {"payload", `{"sub":"citadel"}`, `{"sub":"citadel","act":{"sub":"x"}}`},
		"two scopes":             {"payload", `"read"`, `"read move"`},
		"another resource":       {"payload", `urn:carnet:avatar:`, `urn:carnet:thing:`},
		"a resource in capitals": {"payload", `avatar:ab`, `avatar:AB`},
		"a version below zero":   {"payload", `"grant_version":3`, `"grant_version":-3`},
		"a life of 301 s":        {"payload", `1795349100`, `1795349101`},
		"beyond its end":         {"payload", `"until":1795352400`, `"until":1795349099`},
		"no most":                {"payload", `"most":{"sensitivity":"health","purposes":["care"],"residency":[]},`, ``},
		"no places":              {"payload", `,"residency":[]`, ``},
		"a wider most":           {"payload", `"health"`, `"everything"`},
		"the most in capitals":   {"payload", `"most":{"s`, `"most":{"S`},
		"a mandate of no UUID":   {"payload", `"mandate":"urn:uuid:3`, `"mandate":"urn:uuid:G`},
		"more":                   {"payload", `{`, `{"nbf":1795348800,`},
	} {
		if got, err := VerifyToken(public, "arena", c.apply(t, name, key, token)); err == nil {
			t.Errorf("%s is taken: %+v", name, got)
		}
	}
	if _, err := VerifyToken(testKey(t, didVectors[1].seed).Public().(ed25519.PublicKey), "arena", token); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("another world's key: %v", err)
	}
	for at, ok := range map[time.Time]bool{
		issuedAt: true, issuedAt.Add(-1): false, issuedAt.Add(TokenLife - 1): true, issuedAt.Add(TokenLife): false,
	} {
		if err := exampleAccess(t).HoldsAt(at); (err == nil) != ok {
			t.Errorf("at %v: %v", at, err)
		}
	}
}

// No token is taken for one of another kind, whoever signed it.
func TestTokensAreNotTakenForOthers(t *testing.T) {
	key := rfc8037(t)
	public := key.Public().(ed25519.PublicKey)
	proof, err := IssueProof(key, exampleProof())
	assertion, err2 := IssueAssertion(key, exampleAssertion())
	access, err3 := IssueToken(key, exampleAccess(t))
	credential, err4 := IssueCredential(key, exampleCredential(t))
	if err != nil || err2 != nil || err3 != nil || err4 != nil {
		t.Fatal(err, err2, err3, err4)
	}
	taken := map[string]func(string) error{
		proof:      func(s string) error { _, err := VerifyProof(s, wantProof()); return err },
		assertion:  func(s string) error { _, err := VerifyAssertion(s, wantAssertion()); return err },
		access:     func(s string) error { _, err := VerifyToken(public, "arena", s); return err },
		credential: func(s string) error { _, err := VerifyCredential(s, expectation(t)); return err },
	}
	for token := range taken {
		for own, verify := range taken {
			if err := verify(token); (err == nil) != (token == own) {
				t.Errorf("%s taken as %s: %v", token[:40], own[:40], err)
			}
		}
	}
}

// fuzz has what is taken be issued again, and taken again.
func fuzz[T any](f *testing.F, example T, issue func(ed25519.PrivateKey, T) (string, error), verify func(string) (T, error)) {
	key := rfc8037(f)
	token, err := issue(key, example)
	if err != nil {
		f.Fatal(err)
	}
	header, payload, err := open(key.Public().(ed25519.PublicKey), token)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(header, payload)
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		taken, err := verify(sign(key, header, payload))
		if err != nil {
			return
		}
		again, err := issue(key, taken)
		if err != nil {
			t.Fatalf("taken but not issued: %v", err)
		}
		if _, err := verify(again); err != nil {
			t.Fatalf("issued again and not taken: %v", err)
		}
	})
}

func FuzzVerifyProof(f *testing.F) {
	fuzz(f, exampleProof(), IssueProof, func(token string) (Proof, error) { return VerifyProof(token, wantProof()) })
}

func FuzzVerifyAssertion(f *testing.F) {
	fuzz(f, exampleAssertion(), IssueAssertion, func(token string) (Assertion, error) { return VerifyAssertion(token, wantAssertion()) })
}

func FuzzVerifyToken(f *testing.F) {
	key := rfc8037(f).Public().(ed25519.PublicKey)
	fuzz(f, exampleAccess(f), IssueToken, func(token string) (Token, error) { return VerifyToken(key, "arena", token) })
}

func BenchmarkVerifyProof(b *testing.B) {
	token, err := IssueProof(rfc8037(b), exampleProof())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyProof(token, wantProof()); err != nil {
			b.Fatal(err)
		}
	}
}
