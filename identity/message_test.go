package identity

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"carnet"
)

type note struct {
	Says string  `json:"says"`
	To   *string `json:"to,omitempty"`
}

const typNote = "carnet-note+jws"

func openNote(token string, key ed25519.PublicKey) (n note, err error) {
	return n, OpenMessage(token, typNote, &n, func() (ed25519.PublicKey, error) { return key, nil })
}

func TestMessagesAreReadInTheirOneFormOnly(t *testing.T) {
	key := testKey(t, didVectors[2].seed)
	public := key.Public().(ed25519.PublicKey)
	token, err := SignMessage(key, typNote, note{Says: "yes"})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := openNote(token, public); err != nil || n.Says != "yes" {
		t.Fatalf("%+v, %v", n, err)
	}
	header := func(typ string) []byte {
		return []byte(`{"alg":"EdDSA","typ":"` + typ + `","kid":"` + KeyID(DID(public)) + `"}`)
	}
	good := header(typNote)
	other := testKey(t, didVectors[3].seed)
	for name, of := range map[string]struct {
		token string
		code  carnet.Code
	}{
		"empty":                  {"", carnet.Malformed},
		"cut short":              {token[:len(token)-1], carnet.Malformed},
		"without a signature":    {token[:strings.LastIndex(token, ".")+1], carnet.Unauthenticated},
		"of another key":         {sign(other, good, []byte(`{"says":"yes"}`)), carnet.Unauthenticated},
		"of another type":        {sign(key, header("JWT"), []byte(`{"says":"yes"}`)), carnet.Malformed},
		"another algorithm":      {sign(key, []byte(strings.Replace(string(good), "EdDSA", "none", 1)), []byte(`{"says":"yes"}`)), carnet.Malformed},
		"an unknown member":      {sign(key, good, []byte(`{"says":"yes","more":1}`)), carnet.Malformed},
		"a member twice":         {sign(key, good, []byte(`{"says":"no","says":"yes"}`)), carnet.Malformed},
		"a member in other case": {sign(key, good, []byte(`{"SAYS":"yes"}`)), carnet.Malformed},
		"a member that is null":  {sign(key, good, []byte(`{"says":"yes","to":null}`)), carnet.Malformed},
		"white space":            {sign(key, good, []byte(`{"says": "yes"}`)), carnet.Malformed},
		"more after it":          {sign(key, good, []byte(`{"says":"yes"}{}`)), carnet.Malformed},
		"a list":                 {sign(key, good, []byte(`["yes"]`)), carnet.Malformed},
		"too large":              {token + strings.Repeat("A", MaxMessage), carnet.TooLarge},
	} {
		if n, err := openNote(of.token, public); carnet.CodeOf(err) != of.code {
			t.Errorf("%s: read %+v, %v, want %s", name, n, err, of.code)
		}
	}
	if _, err := openNote(token, public[:31]); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a signer's key of 31 bytes: %v", err)
	}
	if _, err := SignMessage(key, typNote, note{Says: strings.Repeat("x", MaxMessage)}); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("signed what nobody reads: %v", err)
	}
}

func FuzzOpenMessage(f *testing.F) {
	key := testKey(f, didVectors[2].seed)
	token, err := SignMessage(key, typNote, note{Says: "yes"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("e30.e30.AA")
	f.Fuzz(func(t *testing.T, token string) {
		n, err := openNote(token, key.Public().(ed25519.PublicKey))
		if err != nil {
			return
		}
		if again, err := SignMessage(key, typNote, n); err != nil || again != token {
			t.Fatalf("%q was read, and is written as %q, %v", token, again, err)
		}
	})
}

// What is no message of the kind says so, and what to give instead.
func TestWhatIsNoMessageSaysWhatToGive(t *testing.T) {
	for _, text := range []string{"{}", "a.b.c", "-----BEGIN CERTIFICATE-----", "/w.e30.AA"} {
		var into struct{}
		err := OpenMessage(text, "carnet-invitation+jws", &into, func() (ed25519.PublicKey, error) { return make([]byte, ed25519.PublicKeySize), nil })
		if carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "this is no carnet-invitation+jws: ") || !strings.Contains(err.Error(), "give the file whole") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
