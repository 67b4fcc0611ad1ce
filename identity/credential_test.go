package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
)

var issuedAt = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func exampleCredential(t testing.TB) Credential {
	return Credential{
		ID: "urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5", World: "arena", Avatar: carnet.AvatarID{0: 0xab, 15: 0xcd},
		Subject: testKey(t, didVectors[1].seed).Public().(ed25519.PublicKey),
		Issued:  issuedAt, NotBefore: issuedAt, Expires: issuedAt.Add(24 * time.Hour),
	}
}

func arena(t testing.TB) ed25519.PrivateKey { return rfc8037(t) }

func expectation(t testing.TB) Expectation {
	return Expectation{Issuer: arena(t).Public().(ed25519.PublicKey), World: "arena", Now: issuedAt.Add(time.Hour), Skew: time.Minute}
}

// exampleToken is what IssueCredential makes of exampleCredential with the key
// of RFC 8037 appendix A.1: Ed25519 signatures have no randomness.
const exampleToken = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6ImRpZDprZXk6ejZNa3R3dXBkbUxYVlZxVHpDdzRpNDZyNHVHeW9zR1hSblIzWGpONF" +
	"pxN29NTXN3I3o2TWt0d3VwZG1MWFZWcVR6Q3c0aTQ2cjR1R3lvc0dYUm5SM1hqTjRacTdvTU1zdyJ9.eyJpc3MiOiJkaWQ6a2V5Ono2TWt0d3V" +
	"wZG1MWFZWcVR6Q3c0aTQ2cjR1R3lvc0dYUm5SM1hqTjRacTdvTU1zdyIsInN1YiI6ImRpZDprZXk6ejZNa2pjaGhmVXNENm1tdm5pOG1DZFhId" +
	"zIxNlhybTliUWUybUJIMVA1UkRqVkpHIiwianRpIjoidXJuOnV1aWQ6Mzk3ODM0NGYtODU5Ni00YzNhLWE5NzgtOGZjYWJhMzkwM2M1IiwiaWF" +
	"0IjoxNzk1MzQ4ODAwLCJuYmYiOjE3OTUzNDg4MDAsImV4cCI6MTc5NTQzNTIwMCwidmMiOnsiQGNvbnRleHQiOlsiaHR0cHM6Ly93d3cudzMub" +
	"3JnLzIwMTgvY3JlZGVudGlhbHMvdjEiXSwidHlwZSI6WyJWZXJpZmlhYmxlQ3JlZGVudGlhbCIsIkF2YXRhckNyZWRlbnRpYWwiXSwiY3JlZGV" +
	"udGlhbFN1YmplY3QiOnsiYXZhdGFyIjoiYWIwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwY2QiLCJ3b3JsZCI6ImFyZW5hIn19fQ.IZ3NnQ" +
	"utGuh8TuJHwk3oAVpmHex_RXxk0NAO4jwBKvrI9e-rrm8lAy4aRmlI4UvTulpa9mgHd8IxB2aceecJCg"

func TestCredentialIsWrittenAsDocumented(t *testing.T) {
	token, err := IssueCredential(arena(t), exampleCredential(t))
	if err != nil || token != exampleToken {
		t.Fatalf("%s, %v", token, err)
	}
	header, payload, err := open(expectation(t).Issuer, token)
	if err != nil {
		t.Fatal(err)
	}
	const issuer = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"
	if want := `{"alg":"EdDSA","typ":"JWT","kid":"` + issuer + `#z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"}`; string(header) != want {
		t.Errorf("the header is %s, want %s", header, want)
	}
	want := `{"iss":"` + issuer + `","sub":"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",` +
		`"jti":"urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5","iat":1795348800,"nbf":1795348800,"exp":1795435200,` +
		`"vc":{"@context":["https://www.w3.org/2018/credentials/v1"],"type":["VerifiableCredential","AvatarCredential"],` +
		`"credentialSubject":{"avatar":"ab0000000000000000000000000000cd","world":"arena"}}}`
	if string(payload) != want {
		t.Errorf("the payload is\n%s, want\n%s", payload, want)
	}
	got, err := VerifyCredential(token, expectation(t))
	if err != nil || !got.Subject.Equal(exampleCredential(t).Subject) {
		t.Fatalf("%+v, %v", got, err)
	}
	same, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := json.Marshal(exampleCredential(t)); string(same) != string(want) {
		t.Errorf("got back %s, want %s", same, want)
	}
}

func TestCredentialTellsTheOwner(t *testing.T) {
	c := exampleCredential(t)
	c.Owner = testKey(t, didVectors[3].seed).Public().(ed25519.PublicKey)
	token, err := IssueCredential(arena(t), c)
	if err != nil {
		t.Fatal(err)
	}
	_, payload, err := open(expectation(t).Issuer, token)
	if want := `"world":"arena","owner":"` + didVectors[3].did + `"}`; err != nil || !strings.Contains(string(payload), want) {
		t.Errorf("the payload is %s, %v", payload, err)
	}
	got, err := VerifyCredential(token, expectation(t))
	if err != nil || !got.Owner.Equal(c.Owner) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, owner := range []string{`""`, `null`, `"did:web:example.org"`, `1`, `"` + didVectors[3].did + `","owner":"` + didVectors[3].did + `"`} {
		changed := strings.Replace(string(payload), `"`+didVectors[3].did+`"}`, owner+`}`, 1)
		spoiled := sign(arena(t), headerBytes(t, token), []byte(changed))
		if _, err := VerifyCredential(spoiled, expectation(t)); err == nil {
			t.Errorf("the owner %s is taken", owner)
		}
	}
	c.Owner = c.Owner[:31]
	if _, err := IssueCredential(arena(t), c); err == nil {
		t.Error("half an owner is told")
	}
}

func headerBytes(t *testing.T, token string) []byte {
	t.Helper()
	header, _, err := open(expectation(t).Issuer, token)
	if err != nil {
		t.Fatal(err)
	}
	return header
}

func TestCredentialHasAnIDOfItsOwn(t *testing.T) {
	c := exampleCredential(t)
	c.ID = ""
	seen := make(map[string]bool)
	for range 100 {
		token, err := IssueCredential(arena(t), c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyCredential(token, expectation(t))
		if err != nil || seen[got.ID] || got.ID[23] != '4' {
			t.Fatalf("%q, %v", got.ID, err)
		}
		seen[got.ID] = true
	}
}

func TestCredentialHoldsForItsTime(t *testing.T) {
	token, err := IssueCredential(arena(t), exampleCredential(t))
	if err != nil {
		t.Fatal(err)
	}
	end := issuedAt.Add(24 * time.Hour)
	for _, test := range []struct {
		now  time.Time
		skew time.Duration
		ok   bool
	}{
		{issuedAt, 0, true},
		{issuedAt.Add(-1), 0, false},
		{issuedAt.Add(-time.Minute), time.Minute, true},
		{issuedAt.Add(-time.Minute - 1), time.Minute, false},
		{end.Add(-1), 0, true},
		{end, 0, false},
		{end.Add(time.Minute - 1), time.Minute, true},
		{end.Add(time.Minute), time.Minute, false},
		{issuedAt, -1, false},
		{issuedAt, 5*time.Minute + 1, false},
	} {
		want := expectation(t)
		want.Now, want.Skew = test.now, test.skew
		if _, err := VerifyCredential(token, want); (err == nil) != test.ok {
			t.Errorf("at %v with a skew of %v: %v", test.now, test.skew, err)
		}
	}
}

func TestOnlyTheExpectedWorldsWordIsTaken(t *testing.T) {
	other := testKey(t, didVectors[2].seed)
	c := exampleCredential(t)
	theirs, err := IssueCredential(other, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyCredential(theirs, expectation(t)); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("another key: %v", err)
	}
	c.World = "clinic"
	clinic, err := IssueCredential(arena(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyCredential(clinic, expectation(t)); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("another world: %v", err)
	}
	want := expectation(t)
	want.Issuer = nil
	if _, err := VerifyCredential(exampleToken, want); err == nil {
		t.Error("without an issuer anything is taken")
	}
}

func TestCredentialsThatSayMoreOrLessAreRefused(t *testing.T) {
	header, payload, err := open(expectation(t).Issuer, exampleToken)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]struct{ in, from, to string }{
		"no algorithm":               {"header", `"alg":"EdDSA",`, ``},
		"algorithm none":             {"header", `EdDSA`, `none`},
		"algorithm in small letters": {"header", `EdDSA`, `eddsa`},
		"algorithm by its new name":  {"header", `EdDSA`, `Ed25519`},
		"an HMAC":                    {"header", `EdDSA`, `HS256`},
		"another type":               {"header", `"JWT"`, `"at+jwt"`},
		"no type":                    {"header", `"typ":"JWT",`, ``},
		"another key":                {"header", `#z6Mk`, `#z6Mj`},
		"a crit":                     {"header", `{`, `{"crit":["exp"],`},
		"an unknown crit":            {"header", `{`, `{"crit":["b64"],"b64":false,`},
		"an embedded key":            {"header", `{`, `{"jwk":{"kty":"OKP"},`},
		"the algorithm twice":        {"header", `{`, `{"alg":"none",`},
		"another issuer":             {"payload", `"iss":"did:key:z6Mkt`, `"iss":"did:key:z6Mku`},
		"the issuer twice":           {"payload", `{`, `{"iss":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",`},
		"the issuer in capitals":     {"payload", `{`, `{"ISS":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",`},
		"no subject":                 {"payload", `"sub":"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",`, ``},
		"a subject that is no key":   {"payload", `"sub":"did:key:`, `"sub":"did:web:`},
		"an audience":                {"payload", `{`, `{"aud":"clinic",`},
		"no id":                      {"payload", `"jti":"urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5",`, ``},
		"an id of another form":      {"payload", `urn:uuid:3978344f`, `urn:uuid:3978344F`},
		"no end":                     {"payload", `"exp":1795435200,`, ``},
		"an end that is text":        {"payload", `1795435200`, `"1795435200"`},
		"an end that is no number":   {"payload", `1795435200`, `1e400`},
		"a fraction":                 {"payload", `1795435200`, `1795435200.5`},
		"an end before the start":    {"payload", `1795435200`, `1795348800`},
		"an end beyond all time":     {"payload", `1795435200`, `9223372036854775807`},
		"a start before all time":    {"payload", `"nbf":1795348800`, `"nbf":-9223372036854775808`},
		"issued before all time":     {"payload", `"iat":1795348800`, `"iat":-1`},
		"holds from tomorrow on":     {"payload", `"nbf":1795348800`, `"nbf":1795430000`},
		"a life of two years":        {"payload", `1795435200`, `1858420800`},
		"issued in the future":       {"payload", `"iat":1795348800`, `"iat":1795352461`},
		"no vc":                      {"payload", `"vc"`, `"vp"`},
		"another kind of credential": {"payload", `AvatarCredential`, `OwnerCredential`},
		"another context":            {"payload", `2018/credentials/v1`, `ns/credentials/v2`},
		"a subject with more":        {"payload", `"world"`, `"name":"x","world"`},
		"an avatar cut short":        {"payload", `ab0000`, `ab00`},
		"no avatar":                  {"payload", `ab0000000000000000000000000000cd`, `00000000000000000000000000000000`},
		"a world that is no name":    {"payload", `"arena"`, `"Arena"`},
		"white space after the end":  {"payload", `}}}`, `}}} x`},
		"not JSON":                   {"payload", `{"iss"`, `{iss`},
		"too much":                   {"payload", `{`, `{` + strings.Repeat(" ", maxCredential)},
	} {
		h, p := string(header), string(payload)
		at := map[string]*string{"header": &h, "payload": &p}[change.in]
		if !strings.Contains(*at, change.from) {
			t.Fatalf("%s: %q isn't there", name, change.from)
		}
		*at = strings.Replace(*at, change.from, change.to, 1)
		if c, err := VerifyCredential(sign(arena(t), []byte(h), []byte(p)), expectation(t)); err == nil {
			t.Errorf("%s is taken: %+v", name, c)
		}
	}
}

func TestCredentialsThatNobodyWouldTakeAreNotIssued(t *testing.T) {
	for name, spoil := range map[string]func(*Credential){
		"no avatar":     func(c *Credential) { c.Avatar = carnet.AvatarID{} },
		"no world":      func(c *Credential) { c.World = "" },
		"no subject":    func(c *Credential) { c.Subject = nil },
		"a bad id":      func(c *Credential) { c.ID = "1" },
		"no end":        func(c *Credential) { c.Expires = time.Time{} },
		"a long life":   func(c *Credential) { c.Expires = c.NotBefore.Add(367 * 24 * time.Hour) },
		"issued late":   func(c *Credential) { c.Issued = c.Expires },
		"in far future": func(c *Credential) { c.NotBefore, c.Expires = time.Unix(1<<41, 0), time.Unix(1<<41+60, 0) },
		"ends at start": func(c *Credential) { c.Expires = c.NotBefore },
	} {
		c := exampleCredential(t)
		spoil(&c)
		if _, err := IssueCredential(arena(t), c); err == nil {
			t.Errorf("%s is issued", name)
		}
	}
}

// What is taken is said by the one who signed it: a second issue of the same
// credential gives the same token.
func FuzzVerifyCredential(f *testing.F) {
	header, payload, err := open(expectation(f).Issuer, exampleToken)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(header, payload)
	f.Add([]byte(`{"alg":"none"}`), payload)
	f.Add(header, []byte(`{"iss":null}`))
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		c, err := VerifyCredential(sign(arena(t), header, payload), expectation(t))
		if err != nil {
			return
		}
		token, err := IssueCredential(arena(t), c)
		if err != nil {
			t.Fatalf("taken but not issued: %v", err)
		}
		if _, err := VerifyCredential(token, expectation(t)); err != nil {
			t.Fatalf("issued again and not taken: %v", err)
		}
	})
}

func FuzzParseDID(f *testing.F) {
	for _, v := range didVectors {
		f.Add(v.did)
	}
	f.Add("did:key:z")
	f.Fuzz(func(t *testing.T, did string) {
		if key, err := ParseDID(did); err == nil && DID(key) != did {
			t.Fatalf("%q and %q name one key", did, DID(key))
		}
	})
}
