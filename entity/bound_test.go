package entity

import (
	"testing"

	"carnet"
)

// TestGrantsOfOneGiver: one giver has so many grants in force as the operator says; what
// another gives isn't counted, and one that is revoked makes room.
func TestGrantsOfOneGiver(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	if a.cfg.GrantsOfGiver != grantsOfGiver {
		t.Errorf("where nothing is configured it is %d", a.cfg.GrantsOfGiver)
	}
	a.cfg.GrantsOfGiver = 2
	terms := offer(t, coach(t, a), `{"properties":{"heart_rate":{}}}`)
	g := give(t, a, terms)
	give(t, a, terms)
	r, err := a.Assess(t.Context(), terms)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Give(t.Context(), "ops", terms, r.Fingerprint); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one more: %v", err)
	}
	if _, err := a.Give(t.Context(), "ann", terms, r.Fingerprint); err != nil {
		t.Errorf("by somebody else: %v", err)
	}
	if _, err := a.Revoke(t.Context(), "ops", g.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Give(t.Context(), "ops", terms, r.Fingerprint); err != nil {
		t.Errorf("after one was revoked: %v", err)
	}
}

// TestGrantsOfOneGiverToOneReceiver: what one giver has given to a receiver keeps nobody
// else from giving it something.
func TestGrantsOfOneGiverToOneReceiver(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, coach(t, a), `{"properties":{"heart_rate":{}}}`)
	g := give(t, a, terms)
	for range maxGrantsOfTo {
		other := g
		other.ID = newID()
		a.grants[other.ID] = &other
	}
	r, err := a.Assess(t.Context(), terms)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Give(t.Context(), "ops", terms, r.Fingerprint); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one more: %v", err)
	}
	if _, err := a.Give(t.Context(), "ann", terms, r.Fingerprint); err != nil {
		t.Errorf("by somebody else: %v", err)
	}
}
