package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"carnet"
)

// RFC 8037 appendix A: the key of A.1 and A.2, the signed text of A.4.
const (
	rfc8037Seed  = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
	rfc8037Key   = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rfc8037Token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
		"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)

func rfc8037(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString(rfc8037Seed)
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func TestRFC8037Vectors(t *testing.T) {
	key := rfc8037(t)
	public := key.Public().(ed25519.PublicKey)
	if got := base64.RawURLEncoding.EncodeToString(public); got != rfc8037Key {
		t.Fatalf("A.2: the public key is %s", got)
	}
	if got := sign(key, []byte(`{"alg":"EdDSA"}`), []byte("Example of Ed25519 signing")); got != rfc8037Token {
		t.Errorf("A.4: the token is %s", got)
	}
	header, payload, err := open(public, rfc8037Token)
	if err != nil || string(header) != `{"alg":"EdDSA"}` || string(payload) != "Example of Ed25519 signing" {
		t.Errorf("A.5: %q %q %v", header, payload, err)
	}
}

func TestEveryBitOfATokenIsSigned(t *testing.T) {
	public := rfc8037(t).Public().(ed25519.PublicKey)
	for i := range len(rfc8037Token) {
		for bit := range 8 {
			spoiled := []byte(rfc8037Token)
			spoiled[i] ^= 1 << bit
			if _, _, err := open(public, string(spoiled)); err == nil {
				t.Fatalf("bit %d of character %d doesn't matter", bit, i)
			}
		}
	}
}

func TestTokensInAnotherFormAreRefused(t *testing.T) {
	public := rfc8037(t).Public().(ed25519.PublicKey)
	header, rest, _ := strings.Cut(rfc8037Token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for name, token := range map[string]string{
		"empty":                  "",
		"two parts":              header + "." + payload,
		"four parts":             rfc8037Token + ".",
		"padding":                rfc8037Token + "==",
		"a line break":           header + "." + payload + "." + signature[:10] + "\n" + signature[10:],
		"a space":                rfc8037Token + " ",
		"the standard alphabet":  strings.NewReplacer("_", "/", "-", "+").Replace(rfc8037Token),
		"bits left over":         rfc8037Token[:len(rfc8037Token)-1] + "h",
		"no signature":           header + "." + payload + ".",
		"a signature cut short":  rfc8037Token[:len(rfc8037Token)-4],
		"JSON instead of base64": `{"alg":"EdDSA"}.` + payload + "." + signature,
	} {
		if _, _, err := open(public, token); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// S + L verifies under a check that doesn't ask S < L (RFC 8032 section 5.1.7):
// another signature for the same text.
func TestOneTextHasOneSignature(t *testing.T) {
	public := rfc8037(t).Public().(ed25519.PublicKey)
	at := strings.LastIndex(rfc8037Token, ".") + 1
	signature, err := decode(rfc8037Token[at:])
	if err != nil {
		t.Fatal(err)
	}
	order, err := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010") // little-endian
	if err != nil {
		t.Fatal(err)
	}
	carry := 0
	for i := range order {
		sum := int(signature[32+i]) + int(order[i]) + carry
		signature[32+i], carry = byte(sum), sum>>8
	}
	_, _, err = open(public, rfc8037Token[:at]+base64.RawURLEncoding.EncodeToString(signature))
	if carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("the other signature: %v", err)
	}
}

func TestMembers(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"a":1,"b":"x"}`:              true,
		` { "b" : "x" , "a" : 1 } `:    true,
		`{"a":1}`:                      false,
		`{"a":1,"b":"x","a":2}`:        false,
		`{"a":1,"b":"x","\u0061":1}`:   false, // the same name, written otherwise
		`{"a":1,"b":"x","A":1}`:        false,
		`{"A":1,"b":"x"}`:              false,
		`{"a":1,"b":"x","crit":["b"]}`: false,
		`{"a":1,"b":null}`:             false,
		`{"a":"1","b":"x"}`:            false,
		`{"a":1.5,"b":"x"}`:            false,
		`{"a":1e30,"b":"x"}`:           false,
		`{"a":1,"b":"x"}{}`:            false,
		`{"a":1,"b":"x"`:               false,
		`{"a":1,"b":"x",}`:             false,
		"{\"a\":1,\"b\":\"\xff\"}":     false,
		`[]`:                           false,
		`null`:                         false,
		``:                             false,
	} {
		var a int64
		var b string
		if err := members("text", []byte(text), map[string]any{"a": &a, "b": &b}); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
