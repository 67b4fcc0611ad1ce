package share_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/identity"
)

var owner = ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", 32)))

// owned pins an owner's key with arena's avatar.
func (p *pair) owned() {
	p.t.Helper()
	own, err := identity.SignOwnership(owner, identity.Ownership{Audience: "arena", Avatar: p.theirs, Issued: time.Now()})
	if err != nil {
		p.t.Fatal(err)
	}
	call, err := json.Marshal(carnet.Own{Ownership: own})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.arena.agent.Call(p.t.Context(), "hub", carnet.CallOwn, call); err != nil {
		p.t.Fatal(err)
	}
}

// bound pins an owner's key with arena's avatar, and sets its policy.
func (p *pair) bound(version uint64, document string) {
	p.t.Helper()
	p.owned()
	signed, err := identity.SignAvatarPolicy(owner, identity.AvatarPolicy{
		Owner: identity.DID(public(owner)), World: identity.DID(public(p.arena.id.Key)), Avatar: p.theirs, Version: version,
		Made: time.Now().UTC().Truncate(time.Second), Policy: json.RawMessage(document),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.arena.agent.SetPolicy(p.t.Context(), p.theirs, signed); err != nil {
		p.t.Fatal(err)
	}
}

// A share that has more than the avatar's policy lets others have ends at once; one that
// is asked for then has less.
func TestAPolicyEndsAShare(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)) == 1 })
	set := time.Now()
	p.bound(1, `{"transmit":{"sensitivity":"personal"}}`)
	p.eventually("both sides have ended it", func() bool {
		given, taken := p.arena.shares.Given(), p.citadel.shares.Taken()
		return given[0].End != nil && taken[0].State == crossing.Ended
	})
	end := p.arena.shares.Given()[0].End
	if took := end.Time.Sub(set); took > 5*time.Second || !strings.Contains(end.Why, "transmit.sensitivity") {
		t.Errorf("it ended after %v: %s", took, end.Why)
	}
	again := p.take()
	p.eventually("arena gives again", func() bool {
		return slices.ContainsFunc(p.arena.shares.Given(), func(g crossing.Given) bool {
			if g.ID == again.ID && g.Most.Sensitivity != carnet.Personal {
				t.Fatalf("citadel may have %s", g.Most.Sensitivity)
			}
			return g.ID == again.ID
		})
	})
	p.hub.send(s.seal(health, beat(2, 62)), s.seal(carnet.Label{Sensitivity: carnet.Personal}, steps(2, 12)))
	p.eventually("citadel has what it may", func() bool { return len(p.here(p.citadel, p.ours)["steps"]) == 1 })
	if n := len(p.here(p.citadel, p.ours)["heart_rate"]); n != 1 {
		t.Errorf("citadel has %d heart rates", n)
	}
}

// Nothing that a taker would get is left at a depot that may keep nothing of the avatar,
// what is there goes, and the taker gets it over the link.
func TestAPolicyKeepsTheShelfEmpty(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 3)
	p.has("at first", all)
	p.citadel.stop()
	all = append(all, p.beats(s, 3, 6)...)
	p.shelved()
	p.bound(1, `{"store":{"depots":[]}}`)
	p.gone()
	all = append(all, p.beats(s, 6, 9)...)
	time.Sleep(300 * time.Millisecond) // six times as long as a taker is waited for
	if index, objects := p.vault.holds(); index+objects > 0 {
		t.Errorf("the depot keeps %d and %d", index, objects)
	}
	p.start(p.citadel)
	p.has("over the link", all)
}

// A shelf that a policy lets its depot have isn't withdrawn while the world can't tell
// which depot it has.
func TestAPolicyLeavesAShelfOfAnUnknownDepot(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 3)
	p.has("at first", all)
	p.bound(1, fmt.Sprintf(`{"store":{"depots":[%q]}}`, vaultDID))
	p.citadel.stop()
	all = append(all, p.beats(s, 3, 6)...)
	p.shelved()
	p.vault.unknown.Store(true)
	p.arena.shares.Recheck()
	time.Sleep(300 * time.Millisecond) // many looks
	p.vault.unknown.Store(false)
	time.Sleep(300 * time.Millisecond)
	if index, objects := p.vault.holds(); index == 0 || objects == 0 {
		t.Errorf("the depot keeps %d and %d", index, objects)
	}
	p.start(p.citadel)
	p.has("once it is back", all)
}
