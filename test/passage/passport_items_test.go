package passage_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
	"carnet/item/itemtest"
	"carnet/ledger"
	"carnet/passport"
)

// sword is what proves an item of a passport's avatar, once something of its first entry is
// changed; its registrar is that of the passport's word.
func (p *passported) sword(t *testing.T, l *itemtest.Ledger, change func(*identity.ItemEntry)) identity.ItemProof {
	t.Helper()
	m, err := avatar.ParseManifest(p.options.Manifest)
	must(t, err)
	did, home := identity.DID(public(p.world.self)), carnet.NewHomeID()
	credential, err := identity.IssueItem(p.world.self, identity.Item{
		ID: carnet.NewItemID(), World: p.world.name, Home: home, Registrar: did, Kind: "sword", Title: "Oathkeeper", Serial: 1, Attributes: identity.Attributes{"damage": 12.0}, Issued: time.Now(),
	})
	must(t, err)
	answer, err := identity.SignHome(p.world.self, identity.HomeAnswer{Registrar: did, Home: home, Version: 1, World: did, Owner: did, Incarnation: 1, Asked: identity.NewNonce()})
	must(t, err)
	i, err := identity.OpenItem(credential)
	must(t, err)
	proof := l.State(ledger.HomeEnrolled, answer)
	e := identity.ItemEntry{
		Item: i.ID, Number: 1, Before: carnet.FingerprintOf([]byte(credential)), What: identity.ItemIssued, World: did, Avatar: m.Avatar, Owner: did,
		Time: time.Now().UTC().Truncate(time.Second), Home: answer, Proof: &proof,
	}
	change(&e)
	entry, err := identity.SignItemEntry(p.world.self, e)
	must(t, err)
	return identity.ItemProof{Credential: credential, Entries: []string{entry}}
}

// with is the passport written anew with items.
func (p *passported) with(t *testing.T, items ...identity.ItemProof) string {
	t.Helper()
	m, err := avatar.ParseManifest(p.options.Manifest)
	must(t, err)
	m.Items = items
	again := *p
	again.options.Manifest, err = m.Marshal()
	must(t, err)
	again.options.Word = again.word(t, func(*identity.Passport) {})
	again.dir = filepath.Join(t.TempDir(), "passport")
	must(t, passport.Write(t.Context(), again.dir, p.world.agent, again.options))
	return again.dir
}

// A passport's items are verified from their issuer on, as this avatar's at this world; its
// policy and its grants are in it, and every bit of them counts.
func TestAPassportProvesItsItems(t *testing.T) {
	w, id := aHistory(t)
	p := newPassported(t, w, id)
	l := itemtest.NewLedger(t, "elsewhere")
	right := func(*identity.ItemEntry) {}
	did := identity.DID(public(w.self))
	policy, err := identity.SignAvatarPolicy(w.self, identity.AvatarPolicy{Owner: did, World: did, Avatar: id, Version: 4, Made: time.Now().UTC().Truncate(time.Second), Policy: []byte(`{}`)})
	must(t, err)
	p.options.Policy = policy
	p.options.Grants = []passport.Granted{{To: "application 1", Actions: []identity.Action{identity.ActionRead}, Purpose: "coaching", Expires: time.Unix(2e9, 0).UTC(), View: []byte(`{"properties":{}}`)}}
	dir := p.with(t, p.sword(t, l, right), p.sword(t, l, right))
	r := verifyPassport(t, dir)
	if r.Verdict != evidence.True || len(r.Passport.Items) != 2 || r.Passport.Items[0].Title != "Oathkeeper" || r.Passport.Items[0].Receipts || r.Passport.Policy != 4 || r.Passport.Grants != 1 {
		t.Fatalf("%+v, %+v", r.Passport, r.Findings)
	}
	if text := r.Summary(); !strings.Contains(text, "Oathkeeper") || !strings.Contains(text, "version 4") || !strings.Contains(text, "1 grant") {
		t.Errorf("explained as %s", text)
	}
	opened, err := passport.Open(dir)
	must(t, err)
	if all, err := opened.Grants(); err != nil || len(all) != 1 || all[0].Purpose != "coaching" {
		t.Errorf("its grants are %+v, %v", all, err)
	}
	trust := r.Trust
	if r, err := passport.Verify(t.Context(), dir, &trust); err != nil || r.Verdict != evidence.Unknown {
		t.Errorf("with a ledger that isn't trusted: %v, %+v, %v", r.Verdict, r.Findings, err)
	}
	trust.Ledgers = append(trust.Ledgers, evidence.Ledger{Party: "elsewhere", Key: l.Key().String()})
	if r, err := passport.Verify(t.Context(), dir, &trust); err != nil || r.Verdict != evidence.True || !r.Passport.Items[1].Receipts {
		t.Errorf("with its ledger: %v, %+v, %v", r.Verdict, r.Findings, err)
	}

	named := func(what, dir, file string) {
		t.Helper()
		r := verifyPassport(t, dir)
		for _, f := range r.Findings {
			if f.File == file && f.Verdict == evidence.False {
				return
			}
		}
		t.Errorf("%s: %v, %+v", what, r.Verdict, r.Findings)
	}
	for name, change := range map[string]func(*identity.ItemEntry){
		"another avatar's":    func(e *identity.ItemEntry) { e.Avatar[0]++ },
		"out of its order":    func(e *identity.ItemEntry) { e.Before[0]++ },
		"under another owner": func(e *identity.ItemEntry) { e.Owner = itemtest.DID("mallory") },
	} {
		named(name, p.with(t, p.sword(t, l, right), p.sword(t, l, change)), passport.FileItems)
	}
	for _, file := range []string{passport.FileItems, passport.FileGrants} {
		path := filepath.Join(dir, file)
		whole := must1(os.ReadFile(path))
		for at := 0; at < len(whole); at += max(1, len(whole)/100) {
			damaged := append([]byte{}, whole...)
			damaged[at] ^= 1 << (at % 8)
			must(t, os.WriteFile(path, damaged, 0o600))
			named("a flipped bit", dir, file)
		}
		must(t, os.Remove(path))
		named("missing", dir, file)
		must(t, os.WriteFile(path, whole, 0o600))
	}
	bare := p.with(t)
	must(t, os.Remove(filepath.Join(bare, passport.FileGrants)))
	named("without its grants", bare, passport.FileGrants)
	p.options.Grants = nil
	bare = p.with(t)
	must(t, os.WriteFile(filepath.Join(bare, passport.FileGrants), []byte("[]"), 0o600))
	named("with grants that it doesn't name", bare, passport.FileGrants)
	for what, change := range map[string]func(*identity.AvatarPolicy){
		"another avatar's policy": func(p *identity.AvatarPolicy) { p.Avatar[0]++ },
		"a policy for elsewhere":  func(p *identity.AvatarPolicy) { p.World = itemtest.DID("elsewhere") },
		"a stranger's policy":     func(p *identity.AvatarPolicy) { p.Owner = itemtest.DID("stranger") },
	} {
		said, err := identity.OpenAvatarPolicy(policy)
		must(t, err)
		change(&said)
		o, by := p.options, w.self
		if said.Owner != did {
			by = itemtest.Key("stranger")
		}
		o.Policy, err = identity.SignAvatarPolicy(by, said)
		must(t, err)
		if err := passport.Write(t.Context(), filepath.Join(t.TempDir(), "passport"), w.agent, o); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("%s: %v", what, err)
		}
	}
}
