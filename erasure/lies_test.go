package erasure

import (
	"crypto/ed25519"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
}

func did(seed byte) string { return identity.DID(testKey(seed).Public().(ed25519.PublicKey)) }

// Whoever answers with something else than its own deletion, for what it was told,
// counts as not reached, and is named.
func TestLiesCountAsNotReached(t *testing.T) {
	const clinic, lab = 1, 2
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	a := &Agent{Config: Config{Peer: func(carnet.PartyID) string { return did(clinic) }, Now: func() time.Time { return now }}}
	share := carnet.ShareID{7}
	e := Erasure{ID: carnet.ErasureID{3}, Order: "order"}
	o := Other{Role: identity.DeletedShare, Party: "clinic", Of: share.String()}
	sign := func(seed byte, change func(*identity.Deletion)) string {
		d := identity.Deletion{
			Erasure: e.ID, Order: hashOf(e.Order), By: did(seed), Role: identity.DeletedShare, Of: share.String(), Unreadable: now, Unrecoverable: now.Add(time.Hour),
		}
		change(&d)
		token, err := identity.SignDeletion(testKey(seed), d)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	as := func(*identity.Deletion) {}
	own := sign(clinic, as)
	heard, err := a.answered(&e, o, Told{State: Over, Deletions: []string{own, sign(lab, as)}})
	if err != nil || heard.Heard.IsZero() || len(heard.Deletions) != 2 {
		t.Fatalf("what is true isn't taken: %+v, %v", heard, err)
	}
	for name, told := range map[string]Told{
		"no deletion":                      {State: Over},
		"another's alone":                  {State: Over, Deletions: []string{sign(lab, as)}},
		"of another share":                 {State: Over, Deletions: []string{sign(clinic, func(d *identity.Deletion) { d.Of = carnet.ShareID{8}.String() })}},
		"as something else":                {State: Over, Deletions: []string{sign(clinic, func(d *identity.Deletion) { d.Role = identity.DeletedFormer })}},
		"of another erasure":               {State: Over, Deletions: []string{sign(clinic, func(d *identity.Deletion) { d.Erasure[0]++ })}},
		"of another order":                 {State: Over, Deletions: []string{sign(clinic, func(d *identity.Deletion) { d.Order[0]++ })}},
		"cut short":                        {State: Over, Deletions: []string{own[:len(own)-4]}},
		"nonsense":                         {State: Over, Deletions: []string{"a.b.c"}},
		"nonsense beside its own":          {State: Over, Deletions: []string{own, "a.b.c"}},
		"another erasure's beside its own": {State: Over, Deletions: []string{own, sign(lab, func(d *identity.Deletion) { d.Erasure[0]++ })}},
		"without end":                      {State: Over, Deletions: make([]string, 2000)},
	} {
		if heard, err := a.answered(&e, o, told); err == nil || !heard.Heard.IsZero() {
			t.Errorf("%s is taken: %+v", name, heard)
		}
	}
	// What is true and not the end isn't the end.
	for name, told := range map[string]Told{
		"it is at it":         {State: Hiding},
		"others wait":         {State: Erased, Deletions: []string{own}, Waiting: []Waiting{{Role: identity.DeletedShare, Party: "lab", Why: "away"}}},
		"over, and one waits": {State: Over, Deletions: []string{own}, Waiting: []Waiting{{Role: identity.DeletedShare, Party: "lab", Why: "away"}}},
	} {
		if heard, err := a.answered(&e, o, told); err != nil || !heard.Heard.IsZero() || heard.Why == "" {
			t.Errorf("%s: %+v, %v", name, heard, err)
		}
	}
}

func TestPausesGrow(t *testing.T) {
	for n := range 40 {
		if p := pause(n); p < shortPause || p > longPause || n > 0 && p < pause(n-1) {
			t.Errorf("after %d failures it rests %v", n, p)
		}
	}
}
