package evidence

import (
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

// The home's receipt is by the key of the trusted world, and by no other that an order
// may name.
func TestAnErasureIsTheTrustedHomes(t *testing.T) {
	did := func(b byte) string { return identity.DID(seed(b).Public().(ed25519.PublicKey)) }
	const evidenceKey, home, stranger, owner = 1, 2, 3, 4
	pinned := func(party carnet.PartyID, key byte, register string) *Trust {
		return &Trust{Version: 1, Worlds: []World{{Party: party, Key: PublicKey(seed(key).Public().(ed25519.PublicKey)), Register: register}}}
	}
	for _, c := range []struct {
		name    string
		home    byte // that the order names, and that signs
		trust   *Trust
		verdict Verdict
		says    string
	}{
		{"the trusted world", home, pinned("arena", evidenceKey, did(home)), True, ""},
		{"anybody, without keys from outside", stranger, nil, True, ""},
		{"another key than the trusted world's", stranger, pinned("arena", evidenceKey, did(home)), False, "the order is for the home"},
		{"a file that doesn't say the key", home, pinned("arena", evidenceKey, ""), Unknown, "by which key arena signs"},
		{"another world's word", home, pinned("arena", stranger, did(home)), False, "isn't among those trusted"},
		{"another world's name", home, pinned("clinic", evidenceKey, did(home)), False, "isn't among those trusted of arena"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now().UTC().Truncate(time.Second)
			id := carnet.ErasureID{1}
			order, err := identity.SignErasure(seed(owner), identity.ErasureOrder{Erasure: id, Registrar: did(5), Owner: did(owner), World: did(c.home), Made: now, Until: now.Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			receipt, err := identity.SignDeletion(seed(c.home), identity.Deletion{
				Erasure: id, Order: carnet.FingerprintOf([]byte(order)), By: did(c.home), Role: identity.DeletedAtHome, Unreadable: now, Unrecoverable: now.Add(time.Hour),
			})
			if err != nil {
				t.Fatal(err)
			}
			e, err := SignErasure(seed(evidenceKey), order, []string{receipt}, ErasureWord{World: "arena", Made: now})
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), ErasureFile)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := VerifyErasure(path, c.trust)
			if err != nil {
				t.Fatal(err)
			}
			want(t, r, c.verdict, c.says)
		})
	}
}
