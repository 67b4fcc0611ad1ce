package evidence

import (
	"bytes"
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
	did := func(b byte) string { return didOf(seed(b)) }
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
			e := erased(t, seed(evidenceKey), seed(c.home), seed(owner))
			r, err := VerifyErasure(filepath.Dir(erasureIn(t, e)), c.trust)
			if err != nil {
				t.Fatal(err)
			}
			want(t, r, c.verdict, c.says)
		})
	}
}

// erased is what proves an erasure at a home that nobody had anything from.
func erased(t *testing.T, evidenceKey, home, owner ed25519.PrivateKey) ErasureBundle {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	id := carnet.ErasureID{1}
	order, err := identity.SignErasure(owner, identity.ErasureOrder{Erasure: id, Registrar: didOf(seed(5)), Owner: didOf(owner), World: didOf(home), Made: now, Until: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := identity.SignDeletion(home, identity.Deletion{
		Erasure: id, Order: carnet.FingerprintOf([]byte(order)), By: didOf(home), Role: identity.DeletedAtHome, Unreadable: now, Unrecoverable: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := SignErasure(evidenceKey, order, []string{receipt}, ErasureWord{World: "arena", Made: now})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func didOf(k ed25519.PrivateKey) string { return identity.DID(k.Public().(ed25519.PublicKey)) }

// erasureIn writes a bundle into a directory of its own.
func erasureIn(t *testing.T, e ErasureBundle) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), ErasureFile)
	if err := e.Write(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// No bit of an erasure's file can change unnoticed, and nothing be behind its end.
func TestAnErasuresFileIsAsItWasWritten(t *testing.T) {
	path := erasureIn(t, erased(t, seed(1), seed(2), seed(4)))
	judged := func(data []byte) Verdict {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyErasure(filepath.Dir(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.Verdict
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e ErasureBundle
	if err := json.Unmarshal(written, &e); err != nil {
		t.Fatal(err)
	}
	answered, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{"as it is written": written, "as a world answers": answered} {
		if v := judged(data); v != True {
			t.Errorf("%s: %s", what, v)
		}
		for at := range data {
			for _, bit := range []int{5, at % 5} { // 5 is between small and capital letters
				flipped := bytes.Clone(data)
				flipped[at] ^= 1 << bit
				if v := judged(flipped); v != False {
					t.Fatalf("%s, bit %d of byte %d flipped: %s", what, bit, at, v)
				}
			}
		}
		for _, behind := range []string{" ", "{}", "\n\n"} {
			if v := judged(append(bytes.Clone(data), behind...)); v != False {
				t.Errorf("%s, and %q behind its end: %s", what, behind, v)
			}
		}
	}
	if v := judged(bytes.Replace(written, []byte("{"), []byte(`{"version": 1,`), 1)); v != False {
		t.Errorf("with its version twice: %s", v)
	}
}

// What else is in the directory isn't covered by anything of an erasure.
func TestNothingIsBesideAnErasure(t *testing.T) {
	s := scene(t)
	dir := s.write(s.options())
	if err := erased(t, s.world, seed(2), seed(4)).Write(filepath.Join(dir, ErasureFile)); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyErasure(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, False, FileBatches, "doesn't belong to the bundle")
}
