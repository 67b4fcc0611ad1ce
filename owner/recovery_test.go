package owner

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/seal"
)

func private(b byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = b
	return ed25519.NewKeyFromSeed(seed)
}

func did(b byte) string { return identity.DID(public(b)) }

// lost is what citadel asks the owner of runner, whose home arena is gone; sealed are keys
// of a history that is so sensitive.
func lost(t *testing.T, k *Keystore, ceiling carnet.Sensitivity) (r identity.RecoveryRequest, sealed [][]byte) {
	t.Helper()
	owner := identity.DID(key(t, k, arena()).Public().(ed25519.PublicKey))
	word, err := identity.SignPassport(private(1), identity.Passport{
		Passport: carnet.CrossingID{7}, Source: did(1), World: "arena", Signer: did(1), Registrar: did(6), Home: carnet.HomeID{1}, Version: 1, Owner: owner, Pinned: owner,
		Avatar: runner, Key: did(4), Manifest: carnet.Fingerprint{5}, Made: at.UTC().Truncate(time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	reception, err := seal.NewReceptionKey()
	if err != nil {
		t.Fatal(err)
	}
	announced, err := reception.Announce(private(5), "citadel", at.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	r = identity.RecoveryRequest{
		Recovery: carnet.CrossingID{8}, Passport: word, Target: "citadel", TargetKey: did(5), To: carnet.AvatarID{8}, Incarnation: 3, Heads: []identity.Head{},
		Reception: announced, Purpose: "care", Sensitivity: carnet.AllSensitive.String(), Report: []string{},
	}
	own, err := k.Reception("arena", at)
	if err != nil {
		t.Fatal(err)
	}
	to, err := seal.ParseReception(own, key(t, k, arena()).Public().(ed25519.PublicKey), at)
	if err != nil {
		t.Fatal(err)
	}
	bag, err := seal.Grant(private(1), to, seal.Terms{
		Granter: "arena", Grant: carnet.CrossingID{7}, Purpose: "care", Clearance: carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: carnet.NewSet("care")}, Time: at, NotAfter: at.Add(24 * time.Hour),
	}, []seal.Entry{{Key: seal.Key{Path: seal.Path{Level: seal.EpochLevel, Stream: carnet.StreamID{1}, Epoch: carnet.EpochID{1}}}, Ceiling: carnet.Label{Sensitivity: ceiling}}})
	if err != nil {
		t.Fatal(err)
	}
	return r, [][]byte{bag}
}

// The policy that the owner signed last goes along, whatever the request has; and it binds
// the recovery as it would a move.
func TestARecoveryUnderAPolicy(t *testing.T) {
	_, k := pinned(t)
	r, bags := lost(t, k, carnet.Health)
	passported := ""
	carries := func(what string, version uint64) {
		t.Helper()
		signed, err := k.Recover(r, Passported{bags, passported}, at, time.Hour)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		var terms identity.MoveTerms
		if err := json.Unmarshal(signed.Terms, &terms); err != nil {
			t.Fatal(err)
		}
		said, err := terms.AvatarPolicy()
		if err != nil || said.Version != version || version > 0 && (said.World != did(5) || said.Avatar != r.To || said.Owner != terms.Owner) {
			t.Errorf("%s: it carries %+v, %v", what, said, err)
		}
	}
	refused := func(member string) {
		t.Helper()
		if _, err := k.Recover(r, Passported{bags, passported}, at, time.Hour); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), member) || !strings.Contains(err.Error(), "newer policy") {
			t.Errorf("%s: %v", member, err)
		}
	}
	sign := func(document string) string {
		t.Helper()
		p, err := k.SignPolicy(runner, []byte(document), 0, at)
		if err != nil {
			t.Fatal(err)
		}
		return p.Signed
	}
	carries("none", 0)
	r.Policy = sign(`{"use":{"purposes":["care"]}}`)
	carries("as it was asked for", 1)
	sign(`{}`)
	carries("a newer one than was asked for", 2)
	r.Policy = ""
	carries("one that wasn't asked for", 2)
	sign(`{"cross":{"worlds":[]}}`)
	refused("cross.worlds")
	sign(`{"cross":{"sensitivity":"personal"}}`)
	refused("cross.sensitivity")
	sign(`{"cross":{"items":[]}}`)
	carries("without items", 5)
	r.Items = []identity.ComingItem{{MovingItem: identity.MovingItem{Item: carnet.ItemID{1}, Home: carnet.HomeID{2}, Kind: "sword", Title: "Oathkeeper", As: "blade"}, Incarnation: 1, Chain: 1}}
	refused("cross.items")

	// The passport has a newer one than this copy of the keystore, and the request has none,
	// or an older one: it is the passport's that goes along, and binds.
	own := func(version uint64, document string) string {
		p, err := identity.SignAvatarPolicy(key(t, k, arena()), identity.AvatarPolicy{
			Owner: identity.DID(key(t, k, arena()).Public().(ed25519.PublicKey)), World: did(1), Avatar: runner, Version: version, Made: at.UTC().Truncate(time.Second), Policy: []byte(document),
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	r.Items, r.Policy, passported = nil, "", own(9, `{}`)
	carries("a newer one of the passport's", 9)
	r.Policy = own(8, `{"cross":{"worlds":[]}}`)
	carries("and an older one of the request's", 9)
	r.Policy, passported = passported, own(9, `{"cross":{"worlds":[]}}`)
	if _, err := k.Recover(r, Passported{bags, passported}, at, time.Hour); carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), "--policy") {
		t.Errorf("of two that differ: %v", err)
	}
	r.Policy, passported = own(8, `{}`), own(10, `{"cross":{"worlds":[]}}`)
	refused("cross.worlds")
	passported = ""

	stranger, err := identity.SignAvatarPolicy(private(9), identity.AvatarPolicy{Owner: did(9), World: did(1), Avatar: runner, Version: 9, Made: at.UTC().Truncate(time.Second), Policy: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []func(){func() { r.Policy = stranger }, func() { r.Policy, passported = "", stranger }} {
		in()
		if _, err := k.Recover(r, Passported{bags, passported}, at, time.Hour); err == nil {
			t.Error("signed by somebody else's policy")
		}
	}
}

// What a target says of itself is in the one form that the owner is shown: an empty
// sensitivity would be all of it.
func TestWhatATargetIsClearedForIsAsItIsShown(t *testing.T) {
	_, k := pinned(t)
	for what, change := range map[string]func(*identity.RecoveryRequest){
		"no sensitivity":         func(r *identity.RecoveryRequest) { r.Sensitivity = "" },
		"another order of it":    func(r *identity.RecoveryRequest) { r.Sensitivity = "location+health+personal" },
		"a purpose of sentences": func(r *identity.RecoveryRequest) { r.Purpose = "nothing, and may hold public" },
		"no purpose":             func(r *identity.RecoveryRequest) { r.Purpose = "" },
		"a place of sentences":   func(r *identity.RecoveryRequest) { r.Residency = []string{"at home"} },
		"":                       func(r *identity.RecoveryRequest) { r.Residency = []string{"de"} },
	} {
		r, _ := lost(t, k, carnet.Health)
		change(&r)
		if _, err := r.Marshal(); (err == nil) != (what == "") {
			t.Errorf("%q: %v", what, err)
		}
	}
}
