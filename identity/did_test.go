package identity

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"testing"

	"carnet"
)

// didVectors are of the did:key specification (ed25519-x25519.json in
// w3c-ccg/did-key-spec): the key of the seed, and its name.
var didVectors = []struct{ seed, did string }{
	{"0000000000000000000000000000000000000000000000000000000000000000", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"},
	{"0000000000000000000000000000000000000000000000000000000000000001", "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"},
	{"0000000000000000000000000000000000000000000000000000000000000002", "did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf"},
	{"0000000000000000000000000000000000000000000000000000000000000003", "did:key:z6MkvqoYXQfDDJRv8L4wKzxYeuKyVZBfi9Qo6Ro8MiLH3kDQ"},
	{"0000000000000000000000000000000000000000000000000000000000000005", "did:key:z6MkwYMhwTvsq376YBAcJHy3vyRWzBgn5vKfVqqDCgm7XVKU"},
}

func testKey(t testing.TB, seed string) ed25519.PrivateKey {
	t.Helper()
	raw, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(raw)
}

func TestDIDsAreThoseOfTheSpecification(t *testing.T) {
	for _, v := range didVectors {
		key := testKey(t, v.seed).Public().(ed25519.PublicKey)
		if got := DID(key); got != v.did {
			t.Errorf("seed %s: %s, want %s", v.seed, got, v.did)
		}
		if got, err := ParseDID(v.did); err != nil || !got.Equal(key) {
			t.Errorf("%s names %x (%v), want %x", v.did, got, err, key)
		}
	}
}

func TestOtherIdentifiersAreRefused(t *testing.T) {
	const good = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
	for name, did := range map[string]string{
		"empty":                 "",
		"another method":        "did:web:arena.example",
		"another base":          "did:key:f" + good[9:],
		"a digit not in base58": good[:20] + "0" + good[21:],
		"too short":             good[:len(good)-1],
		"too long":              good + "1",
		"a leading one":         "did:key:z1" + good[9:],
		"a fragment":            KeyID(good),
		"an X25519 key":         "did:key:z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW",
		"a secp256k1 key":       "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
		"above every key":       "did:key:z" + "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
	} {
		if key, err := ParseDID(did); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: key %x, error %v", name, key, err)
		}
	}
}

func TestDocument(t *testing.T) {
	got, err := json.Marshal(DocumentFor(testKey(t, didVectors[0].seed).Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/suites/ed25519-2020/v1"],` +
		`"id":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",` +
		`"verificationMethod":[{"id":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp#z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",` +
		`"type":"Ed25519VerificationKey2020","controller":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",` +
		`"publicKeyMultibase":"z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"}],` +
		`"authentication":["did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp#z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"],` +
		`"assertionMethod":["did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp#z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"]}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
