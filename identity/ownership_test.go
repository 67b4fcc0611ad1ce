package identity

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
)

func exampleOwnership() Ownership {
	return Ownership{Audience: "arena", Avatar: carnet.AvatarID{0: 0xab, 15: 0xcd}, Issued: issuedAt}
}

func wantOwnership() OwnershipExpectation {
	return OwnershipExpectation{Audience: "arena", Now: issuedAt.Add(time.Minute), Skew: time.Minute}
}

const (
	exampleOwnershipText      = `{"iss":"` + exampleOwner + `","aud":"urn:carnet:party:arena","avatar":"ab0000000000000000000000000000cd","iat":1795348800}`
	exampleOwnershipSignature = "l02GqHp2ySwHgCNAidopAAa1kqHI7o_YumSJDmLx3a1Lk13BZ9UBuTqEsK6zlbH0ptwF_olJvrsmz6nKrcNPAg"
)

func TestOwnershipIsWrittenAsDocumented(t *testing.T) {
	token, err := SignOwnership(owner(t), exampleOwnership())
	if err != nil {
		t.Fatal(err)
	}
	key := owner(t).Public().(ed25519.PublicKey)
	header, payload, err := open(key, token)
	if err != nil || string(header) != headerText("carnet-ownership+jwt") || string(payload) != exampleOwnershipText {
		t.Errorf("%s\n%s\n%v", header, payload, err)
	}
	if got := token[strings.LastIndex(token, ".")+1:]; got != exampleOwnershipSignature {
		t.Errorf("the signature is %s, want %s", got, exampleOwnershipSignature)
	}
	o, by, err := VerifyOwnership(token, wantOwnership())
	if err != nil || o != exampleOwnership() || !by.Equal(key) {
		t.Errorf("got back %+v by %x, %v", o, by, err)
	}
}

func TestOwnershipIsHandedInSoon(t *testing.T) {
	token, err := SignOwnership(owner(t), exampleOwnership())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		now  time.Time
		skew time.Duration
		ok   bool
	}{
		{issuedAt, 0, true},
		{issuedAt.Add(-1), 0, false},
		{issuedAt.Add(-time.Minute), time.Minute, true},
		{issuedAt.Add(5*time.Minute - 1), 0, true},
		{issuedAt.Add(5 * time.Minute), 0, false},
		{issuedAt.Add(6*time.Minute - 1), time.Minute, true},
		{issuedAt.Add(6 * time.Minute), time.Minute, false},
		{issuedAt, -1, false},
		{issuedAt, 6 * time.Minute, false},
		{time.Time{}, 0, false},
	} {
		if _, by, err := VerifyOwnership(token, OwnershipExpectation{"arena", test.now, test.skew}); (err == nil) != test.ok || (by == nil) == test.ok {
			t.Errorf("at %v with a skew of %v: %v", test.now, test.skew, err)
		}
	}
}

func TestOwnershipsThatSayMoreOrLessAreRefused(t *testing.T) {
	changes{
		"algorithm none":         {"header", `EdDSA`, `none`},
		"a mandate":              {"header", `carnet-ownership+jwt`, `carnet-mandate+jwt`},
		"a crit":                 {"header", `{`, `{"crit":["iat"],`},
		"another key's word":     {"payload", exampleOwner, "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"},
		"an issuer that is none": {"payload", exampleOwner, "did:web:example.org"},
		"no issuer":              {"payload", `"iss":"` + exampleOwner + `",`, ``},
		"another audience":       {"payload", `party:arena`, `party:clinic`},
		"an audience of no form": {"payload", `urn:carnet:party:arena`, `arena`},
		"no avatar":              {"payload", `ab0000000000000000000000000000cd`, `00000000000000000000000000000000`},
		"an avatar in capitals":  {"payload", `ab0000`, `AB0000`},
		"no time":                {"payload", `,"iat":1795348800`, ``},
		"before all time":        {"payload", `1795348800`, `-1`},
		"long ago":               {"payload", `1795348800`, `1795348000`},
		"to come":                {"payload", `1795348800`, `1795349000`},
		"more":                   {"payload", `{`, `{"exp":1795435200,`},
		"white space":            {"payload", `}`, ` }`},
		"too much":               {"payload", `{`, `{` + strings.Repeat(" ", maxMandate)},
	}.refused(t, headerText(ownershipType), exampleOwnershipText, func(token string) error {
		_, _, err := VerifyOwnership(token, wantOwnership())
		return err
	})
	for name, spoil := range map[string]func(*Ownership){
		"no audience": func(o *Ownership) { o.Audience = "" },
		"no avatar":   func(o *Ownership) { o.Avatar = carnet.AvatarID{} },
		"no time":     func(o *Ownership) { o.Issued = time.Time{} },
	} {
		o := exampleOwnership()
		spoil(&o)
		if _, err := SignOwnership(owner(t), o); err == nil {
			t.Errorf("an ownership with %s is signed", name)
		}
	}
}

func FuzzVerifyOwnership(f *testing.F) {
	f.Add([]byte(headerText(ownershipType)), []byte(exampleOwnershipText))
	f.Add([]byte(`{"alg":"none"}`), []byte(`{"iss":null}`))
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		token := sign(owner(t), header, payload)
		o, _, err := VerifyOwnership(token, wantOwnership())
		if err != nil {
			return
		}
		if again, err := SignOwnership(owner(t), o); err != nil || again != token {
			t.Fatalf("taken as %s, signed again as %s, %v", token, again, err)
		}
	})
}
