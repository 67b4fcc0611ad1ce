package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
)

func public(t testing.TB, vector int) ed25519.PublicKey {
	return testKey(t, didVectors[vector].seed).Public().(ed25519.PublicKey)
}

// owner is the owner's key for arena in the examples.
func owner(t testing.TB) ed25519.PrivateKey { return rfc8037(t) }

func exampleTerms(t testing.TB) MandateTerms {
	return MandateTerms{
		Audience: "arena", Subject: public(t, 1), Platform: public(t, 2), Avatar: carnet.AvatarID{0: 0xab, 15: 0xcd},
		Actions: []Action{ActionRead, ActionSubscribe}, Purpose: "care",
		Clearance: carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: carnet.NewSet("care"), Residency: carnet.NewSet("eu", "ch")},
	}
}

func exampleMandate(t testing.TB) Mandate {
	return Mandate{
		MandateTerms: exampleTerms(t), ID: "urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5",
		Issued: issuedAt, NotBefore: issuedAt, Expires: issuedAt.Add(MandateLife),
	}
}

func exampleRequest(t testing.TB) MandateRequest {
	return MandateRequest{MandateTerms: exampleTerms(t), Text: "Citadel shows your heart rate to your team."}
}

func exampleWithdrawal(t testing.TB) Withdrawal {
	return Withdrawal{Audience: "arena", Mandate: exampleMandate(t).ID, Issued: issuedAt.Add(time.Hour)}
}

func wantMandate(t testing.TB) MandateExpectation {
	m := exampleTerms(t)
	return MandateExpectation{
		Owner: owner(t).Public().(ed25519.PublicKey), Audience: m.Audience, Subject: m.Subject, Platform: m.Platform, Avatar: m.Avatar,
		Actions: []Action{ActionSubscribe}, Now: issuedAt.Add(time.Hour), Skew: time.Minute,
	}
}

func wantWithdrawal(t testing.TB) WithdrawalExpectation {
	return WithdrawalExpectation{Owner: wantMandate(t).Owner, Audience: "arena", Now: issuedAt.Add(2 * time.Hour), Skew: time.Minute}
}

// The vectors: what is made of the examples with the key of RFC 8037 appendix
// A.1. Ed25519 signatures have no randomness.
const (
	exampleOwner         = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"
	exampleTermsText     = `"aud":"urn:carnet:party:arena","sub":"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG","platform":"did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf","avatar":"ab0000000000000000000000000000cd","actions":["read","subscribe"],"purpose":"care","label":{"sensitivity":"personal+health","purposes":["care"],"residency":["ch","eu"]}`
	exampleMandateText   = `{"iss":"` + exampleOwner + `",` + exampleTermsText + `,"jti":"urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5","iat":1795348800,"nbf":1795348800,"exp":1795435200}`
	exampleRequestText   = `{` + exampleTermsText + `,"text":"Citadel shows your heart rate to your team."}`
	exampleWithdrawnText = `{"iss":"` + exampleOwner + `","aud":"urn:carnet:party:arena","jti":"urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5","iat":1795352400}`
	exampleSignature     = "zCRe4vwVNHmMXXD-Qo_H5XLdf5ReBaxWvoLdzxB6LFzS1M3Tw8v6L7p2BCNYDyrS4JQvOZZ6ic1PuPB6nZg1DA"
	exampleWithdrawnSig  = "lP-SzMW4lnTp5IEoUsl2lBGuqQ5_1N7Ed1tysPfXC9TqpvBqu9XDJf5lE-zv-D0zhm6pZZrT-mz9oDxgntAHCg"
)

func headerText(typ string) string {
	return `{"alg":"EdDSA","typ":"` + typ + `","kid":"` + exampleOwner + `#z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"}`
}

func TestMandatesAreWrittenAsDocumented(t *testing.T) {
	mandate, err := SignMandate(owner(t), exampleMandate(t))
	if err != nil {
		t.Fatal(err)
	}
	withdrawal, err := SignWithdrawal(owner(t), exampleWithdrawal(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ token, header, payload, signature string }{
		{mandate, headerText("carnet-mandate+jwt"), exampleMandateText, exampleSignature},
		{withdrawal, headerText("carnet-withdrawal+jwt"), exampleWithdrawnText, exampleWithdrawnSig},
	} {
		header, payload, err := open(wantMandate(t).Owner, v.token)
		if err != nil || string(header) != v.header || string(payload) != v.payload {
			t.Errorf("%v: header\n%s, want\n%s; payload\n%s, want\n%s", err, header, v.header, payload, v.payload)
		}
		if got := v.token[strings.LastIndex(v.token, ".")+1:]; got != v.signature {
			t.Errorf("the signature is %s, want %s", got, v.signature)
		}
	}
	request, err := exampleRequest(t).Marshal()
	if err != nil || string(request) != exampleRequestText {
		t.Errorf("the request is %s, %v, want %s", request, err, exampleRequestText)
	}
}

func TestMandatesComeBackAsTheyWere(t *testing.T) {
	token, err := SignMandate(owner(t), exampleMandate(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := VerifyMandate(token, wantMandate(t))
	same(t, m, exampleMandate(t), err)
	m, by, err := ReadMandate(token)
	same(t, m, exampleMandate(t), err)
	if !by.Equal(wantMandate(t).Owner) {
		t.Errorf("read as %x's", by)
	}
	token, err = SignWithdrawal(owner(t), exampleWithdrawal(t))
	if err != nil {
		t.Fatal(err)
	}
	w, err := VerifyWithdrawal(token, wantWithdrawal(t))
	same(t, w, exampleWithdrawal(t), err)
	if !w.Ends().Equal(issuedAt.Add(25 * time.Hour)) {
		t.Errorf("the withdrawal matters until %v", w.Ends())
	}
	r, err := ParseMandateRequest([]byte(exampleRequestText))
	same(t, r, exampleRequest(t), err)
}

func same(t *testing.T, got, want any, err error) {
	t.Helper()
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if err != nil || string(a) != string(b) {
		t.Errorf("got back %s, %v, want %s", a, err, b)
	}
}

func TestMandateHoldsForItsTime(t *testing.T) {
	m := exampleMandate(t)
	m.NotBefore = issuedAt.Add(time.Hour)
	token, err := SignMandate(owner(t), m)
	if err != nil {
		t.Fatal(err)
	}
	start, end := m.NotBefore, m.Expires
	for _, test := range []struct {
		now  time.Time
		skew time.Duration
		ok   bool
	}{
		{start, 0, true},
		{start.Add(-1), 0, false},
		{start.Add(-time.Minute), time.Minute, true},
		{start.Add(-time.Minute - 1), time.Minute, false},
		{end.Add(-1), 0, true},
		{end, 0, false},
		{end.Add(time.Minute - 1), time.Minute, true},
		{end.Add(time.Minute), time.Minute, false},
		{issuedAt.Add(-time.Hour), 5 * time.Minute, false},
		{start, -1, false},
		{start, 5*time.Minute + 1, false},
		{time.Time{}, 0, false},
	} {
		want := wantMandate(t)
		want.Now, want.Skew = test.now, test.skew
		if _, err := VerifyMandate(token, want); (err == nil) != test.ok {
			t.Errorf("at %v with a skew of %v: %v", test.now, test.skew, err)
		}
	}
}

func TestMandateIsForExactlyWhatIsAskedFor(t *testing.T) {
	token, err := SignMandate(owner(t), exampleMandate(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*MandateExpectation){
		"another owner":            func(e *MandateExpectation) { e.Owner = public(t, 3) },
		"another audience":         func(e *MandateExpectation) { e.Audience = "clinic" },
		"another avatar acts":      func(e *MandateExpectation) { e.Subject = public(t, 3) },
		"another platform":         func(e *MandateExpectation) { e.Platform = public(t, 3) },
		"avatar and platform":      func(e *MandateExpectation) { e.Subject, e.Platform = e.Platform, e.Subject },
		"another avatar":           func(e *MandateExpectation) { e.Avatar[3] = 1 },
		"an action that isn't in":  func(e *MandateExpectation) { e.Actions = []Action{ActionMove} },
		"one of two actions isn't": func(e *MandateExpectation) { e.Actions = []Action{ActionRead, ActionMove} },
		"no owner":                 func(e *MandateExpectation) { e.Owner = nil },
		"no avatar acts":           func(e *MandateExpectation) { e.Subject = nil },
		"no platform":              func(e *MandateExpectation) { e.Platform = nil },
		"no action":                func(e *MandateExpectation) { e.Actions = nil },
	} {
		want := wantMandate(t)
		change(&want)
		if _, err := VerifyMandate(token, want); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	want := wantMandate(t)
	want.Actions = []Action{ActionRead, ActionSubscribe}
	if _, err := VerifyMandate(token, want); err != nil {
		t.Errorf("both actions: %v", err)
	}
}

// changes are made to the text of a token that holds. Each is signed by the
// owner, so that the signature is never why it is refused.
type changes map[string]struct{ in, from, to string }

func (c changes) refused(t *testing.T, header, payload string, take func(token string) error) {
	t.Helper()
	if err := take(sign(owner(t), []byte(header), []byte(payload))); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for name, change := range c {
		h, p := header, payload
		at := map[string]*string{"header": &h, "payload": &p}[change.in]
		if !strings.Contains(*at, change.from) {
			t.Fatalf("%s: %q isn't there", name, change.from)
		}
		*at = strings.Replace(*at, change.from, change.to, 1)
		switch err := take(sign(owner(t), []byte(h), []byte(p))); carnet.CodeOf(err) {
		case carnet.Malformed, carnet.Unauthenticated, carnet.TooLarge:
		default:
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMandatesThatSayMoreOrLessAreRefused(t *testing.T) {
	changes{
		"no algorithm":                 {"header", `"alg":"EdDSA",`, ``},
		"algorithm none":               {"header", `EdDSA`, `none`},
		"another type":                 {"header", `carnet-mandate+jwt`, `JWT`},
		"a withdrawal":                 {"header", `carnet-mandate+jwt`, `carnet-withdrawal+jwt`},
		"a type in capitals":           {"header", `carnet-mandate+jwt`, `Carnet-Mandate+JWT`},
		"no type":                      {"header", `"typ":"carnet-mandate+jwt",`, ``},
		"another key":                  {"header", `#z6Mk`, `#z6Mj`},
		"a crit":                       {"header", `{`, `{"crit":["exp"],`},
		"an embedded key":              {"header", `{`, `{"jwk":{"kty":"OKP"},`},
		"another issuer":               {"payload", exampleOwner, "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"},
		"no issuer":                    {"payload", `"iss":"` + exampleOwner + `",`, ``},
		"the issuer twice":             {"payload", `{`, `{"iss":"` + exampleOwner + `",`},
		"another audience":             {"payload", `party:arena`, `party:clinic`},
		"an audience that is no party": {"payload", `urn:carnet:party:arena`, `arena`},
		"two audiences":                {"payload", `"urn:carnet:party:arena"`, `["urn:carnet:party:arena","urn:carnet:party:clinic"]`},
		"no audience":                  {"payload", `"aud":"urn:carnet:party:arena",`, ``},
		"another avatar acts":          {"payload", `z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG`, `z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw`},
		"who acts is no key":           {"payload", `"sub":"did:key:`, `"sub":"did:web:`},
		"another platform":             {"payload", `z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf`, `z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw`},
		"no platform":                  {"payload", `"platform":"did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",`, ``},
		"another avatar":               {"payload", `ab0000`, `ac0000`},
		"no avatar":                    {"payload", `ab0000000000000000000000000000cd`, `00000000000000000000000000000000`},
		"an avatar in capitals":        {"payload", `ab0000`, `AB0000`},
		"another action":               {"payload", `subscribe`, `write`},
		"fewer actions":                {"payload", `["read","subscribe"]`, `["read"]`},
		"no action":                    {"payload", `["read","subscribe"]`, `[]`},
		"an action twice":              {"payload", `["read",`, `["read","read",`},
		"actions out of order":         {"payload", `["read","subscribe"]`, `["subscribe","read"]`},
		"an action that is nothing":    {"payload", `["read",`, `[null,"read",`},
		"two words of purpose":         {"payload", `"care"`, `"care research"`},
		"no purpose":                   {"payload", `"purpose":"care"`, `"purpose":""`},
		"no label":                     {"payload", `"label":{"sensitivity":"personal+health","purposes":["care"],"residency":["ch","eu"]},`, ``},
		"a label with more":            {"payload", `"label":{`, `"label":{"view":"all",`},
		"a label with less":            {"payload", `"sensitivity":"personal+health",`, ``},
		"sensitivity left out":         {"payload", `personal+health`, ``},
		"sensitivity out of order":     {"payload", `personal+health`, `health+personal`},
		"unknown sensitivity":          {"payload", `personal+health`, `secret`},
		"purposes that are nothing":    {"payload", `"purposes":["care"]`, `"purposes":null`},
		"places out of order":          {"payload", `["ch","eu"]`, `["eu","ch"]`},
		"a place twice":                {"payload", `["ch","eu"]`, `["ch","ch","eu"]`},
		"a place with a comma":         {"payload", `["ch","eu"]`, `["ch,eu"]`},
		"no id":                        {"payload", `"jti":"urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5",`, ``},
		"an id of another form":        {"payload", `urn:uuid:3978344f`, `urn:uuid:3978344F`},
		"no end":                       {"payload", `,"exp":1795435200`, ``},
		"an end in text":               {"payload", `1795435200`, `"1795435200"`},
		"a fraction":                   {"payload", `1795435200`, `1795435200.0`},
		"an exponent":                  {"payload", `1795435200`, `17954352e2`},
		"a second too long":            {"payload", `1795435200`, `1795435201`},
		"a day from its beginning on":  {"payload", `"nbf":1795348800,"exp":1795435200`, `"nbf":1795352400,"exp":1795438800`},
		"an end before the start":      {"payload", `1795435200`, `1795348800`},
		"holds before it was signed":   {"payload", `"nbf":1795348800`, `"nbf":1795348799`},
		"holds from later on":          {"payload", `"nbf":1795348800`, `"nbf":1795352461`},
		"signed later":                 {"payload", `"iat":1795348800,"nbf":1795348800`, `"iat":1795352461,"nbf":1795352461`},
		"signed before all time":       {"payload", `"iat":1795348800`, `"iat":-1`},
		"ended":                        {"payload", `1795435200`, `1795352340`},
		"more":                         {"payload", `{`, `{"scope":"all",`},
		"another order":                {"payload", `"aud":"urn:carnet:party:arena","sub":"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"`, `"sub":"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG","aud":"urn:carnet:party:arena"`},
		"white space":                  {"payload", `{`, `{ `},
		"an escape":                    {"payload", `"care"`, `"\u0063are"`},
		"cut short":                    {"payload", `}`, ``},
		"too much":                     {"payload", `{`, `{` + strings.Repeat(" ", maxMandate)},
	}.refused(t, headerText(mandateType), exampleMandateText, func(token string) error {
		want := wantMandate(t)
		want.Actions = []Action{ActionRead, ActionSubscribe}
		_, err := VerifyMandate(token, want)
		return err
	})
}

func TestWithdrawalsThatSayMoreOrLessAreRefused(t *testing.T) {
	changes{
		"algorithm none":         {"header", `EdDSA`, `none`},
		"a mandate":              {"header", `carnet-withdrawal+jwt`, `carnet-mandate+jwt`},
		"a crit":                 {"header", `{`, `{"crit":["iat"],`},
		"another issuer":         {"payload", exampleOwner, "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"},
		"no issuer":              {"payload", `"iss":"` + exampleOwner + `",`, ``},
		"another audience":       {"payload", `party:arena`, `party:clinic`},
		"an audience of no form": {"payload", `urn:carnet:party:arena`, `urn:carnet:party:Arena`},
		"no audience":            {"payload", `"aud":"urn:carnet:party:arena",`, ``},
		"no mandate":             {"payload", `"jti":"urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5",`, ``},
		"a mandate of no form":   {"payload", `urn:uuid:3978344f`, `urn:uuid:3978344F`},
		"no time":                {"payload", `,"iat":1795352400`, ``},
		"before all time":        {"payload", `1795352400`, `-1`},
		"beyond all time":        {"payload", `1795352400`, `1099511627777`},
		"signed in the future":   {"payload", `1795352400`, `1795356061`},
		"more":                   {"payload", `{`, `{"exp":1795435200,`},
		"white space":            {"payload", `}`, ` }`},
		"too much":               {"payload", `{`, `{` + strings.Repeat(" ", maxMandate)},
	}.refused(t, headerText(withdrawalType), exampleWithdrawnText, func(token string) error {
		_, err := VerifyWithdrawal(token, wantWithdrawal(t))
		return err
	})
}

func TestOnlyTheOwnersWordIsTaken(t *testing.T) {
	other := testKey(t, didVectors[1].seed)
	mandate, err := SignMandate(other, exampleMandate(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyMandate(mandate, wantMandate(t)); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("a mandate by another key: %v", err)
	}
	posing := sign(other, []byte(headerText(mandateType)), []byte(exampleMandateText))
	if _, _, err := ReadMandate(posing); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("a mandate that another key signed in the owner's name: %v", err)
	}
	withdrawal, err := SignWithdrawal(other, exampleWithdrawal(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyWithdrawal(withdrawal, wantWithdrawal(t)); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("a withdrawal by another key: %v", err)
	}
	for name, spoil := range map[string]func(*WithdrawalExpectation){
		"no owner":      func(e *WithdrawalExpectation) { e.Owner = nil },
		"no time":       func(e *WithdrawalExpectation) { e.Now = time.Time{} },
		"skew below 0":  func(e *WithdrawalExpectation) { e.Skew = -1 },
		"too much skew": func(e *WithdrawalExpectation) { e.Skew = 6 * time.Minute },
	} {
		token, err := SignWithdrawal(owner(t), exampleWithdrawal(t))
		if err != nil {
			t.Fatal(err)
		}
		want := wantWithdrawal(t)
		spoil(&want)
		if _, err := VerifyWithdrawal(token, want); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMandatesThatNobodyWouldTakeAreNotSigned(t *testing.T) {
	for name, spoil := range map[string]func(*Mandate){
		"no audience":          func(m *Mandate) { m.Audience = "" },
		"no avatar":            func(m *Mandate) { m.Avatar = carnet.AvatarID{} },
		"nobody acts":          func(m *Mandate) { m.Subject = nil },
		"no platform":          func(m *Mandate) { m.Platform = nil },
		"no action":            func(m *Mandate) { m.Actions = nil },
		"actions out of order": func(m *Mandate) { m.Actions = []Action{ActionSubscribe, ActionRead} },
		"an unknown action":    func(m *Mandate) { m.Actions = []Action{"write"} },
		"no purpose":           func(m *Mandate) { m.Purpose = "" },
		"a place in capitals":  func(m *Mandate) { m.Clearance.Residency = "EU" },
		"a bad id":             func(m *Mandate) { m.ID = "1" },
		"more than a day":      func(m *Mandate) { m.Expires = m.Expires.Add(time.Second) },
		"holds before":         func(m *Mandate) { m.NotBefore = m.NotBefore.Add(-time.Second) },
		"no time":              func(m *Mandate) { m.Expires = m.NotBefore },
	} {
		m := exampleMandate(t)
		spoil(&m)
		if _, err := SignMandate(owner(t), m); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	for name, spoil := range map[string]func(*Withdrawal){
		"no audience": func(w *Withdrawal) { w.Audience = "" },
		"no mandate":  func(w *Withdrawal) { w.Mandate = "" },
		"no time":     func(w *Withdrawal) { w.Issued = time.Time{} },
	} {
		w := exampleWithdrawal(t)
		spoil(&w)
		if _, err := SignWithdrawal(owner(t), w); err == nil {
			t.Errorf("a withdrawal with %s is signed", name)
		}
	}
}

func TestRequestsThatSayMoreOrLessAreRefused(t *testing.T) {
	for name, change := range map[string]struct{ from, to string }{
		"an issuer":            {`{`, `{"iss":"` + exampleOwner + `",`},
		"an end":               {`{`, `{"exp":1795435200,`},
		"no text":              {`,"text":"Citadel shows your heart rate to your team."`, ``},
		"an empty text":        {`Citadel shows your heart rate to your team.`, ``},
		"two lines":            {`Citadel`, `Citadel\n`},
		"a terminal's command": {`Citadel`, `\u001b[2JCitadel`},
		"text turned around":   {`Citadel`, `\u202eCitadel`},
		"text of no width":     {`Citadel`, `Cita\u200bdel`},
		"no UTF-8":             {`Citadel`, "Cit\xffadel"},
		"half a character":     {`Citadel`, `\ud800`},
		"a long text":          {`Citadel`, strings.Repeat("x", MaxRequestText)},
		"an unknown action":    {`subscribe`, `write`},
		"no label":             {`"label"`, `"labels"`},
		"too much":             {`{`, `{` + strings.Repeat(" ", maxMandate)},
		"a second document":    {`team."}`, `team."}{}`},
	} {
		text := strings.Replace(exampleRequestText, change.from, change.to, 1)
		if text == exampleRequestText {
			t.Fatalf("%s: %q isn't there", name, change.from)
		}
		if _, err := ParseMandateRequest([]byte(text)); carnet.CodeOf(err) != carnet.Malformed && carnet.CodeOf(err) != carnet.TooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := exampleRequest(t)
	r.Text = ""
	if _, err := r.Marshal(); err == nil {
		t.Error("a request without text is written")
	}
}

// What is taken has one form: signed again, it is the same token.
func FuzzVerifyMandate(f *testing.F) {
	f.Add([]byte(headerText(mandateType)), []byte(exampleMandateText))
	f.Add([]byte(headerText(withdrawalType)), []byte(exampleWithdrawnText))
	f.Add([]byte(`{"alg":"none"}`), []byte(`{"iss":null}`))
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		token := sign(owner(t), header, payload)
		if m, err := VerifyMandate(token, wantMandate(t)); err == nil {
			if again, err := SignMandate(owner(t), m); err != nil || again != token {
				t.Fatalf("taken as %s, signed again as %s, %v", token, again, err)
			}
		}
		if w, err := VerifyWithdrawal(token, wantWithdrawal(t)); err == nil {
			if again, err := SignWithdrawal(owner(t), w); err != nil || again != token {
				t.Fatalf("taken as %s, signed again as %s, %v", token, again, err)
			}
		}
	})
}

func FuzzParseMandateRequest(f *testing.F) {
	f.Add([]byte(exampleRequestText))
	f.Add([]byte(`{"aud":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseMandateRequest(data)
		if err != nil {
			return
		}
		text, err := r.Marshal()
		if err != nil {
			t.Fatalf("taken but not written: %v", err)
		}
		if _, err := ParseMandateRequest(text); err != nil {
			t.Fatalf("written and not taken: %v", err)
		}
	})
}

func TestTermsAreExplained(t *testing.T) {
	terms := exampleTerms(t)
	got := strings.Join(terms.Explain(), "\n")
	for _, want := range []string{
		"About your avatar ab0000000000000000000000000000cd in arena: an avatar of another world may read its state and its history, and follow it live.",
		"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG; it acts through the world whose key is did:key:z6MknGc3",
		"The purpose is care.", "this may flow and nothing else: personal, health.", "used for all of these: care.", "kept in all of these: ch, eu.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	terms.Clearance, terms.Actions = carnet.Clearance{}, []Action{ActionMove}
	got = strings.Join(terms.Explain(), "\n")
	for _, want := range []string{"may take it to another world.", "No data that is personal", "bound to purposes may not flow.", "bound to places may not flow."} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
