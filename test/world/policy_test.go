package world_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/ledger"
)

func keyOf(name string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((name + strings.Repeat(".", 32))[:32]))
}

var arenaKey, vaultKey, ownerKey = keyOf("arena"), keyOf("vault"), keyOf("owner")

// bound pins an owner's key with an avatar, and sets its policy.
func (w *world) bound(id carnet.AvatarID, version uint64, document string) {
	w.t.Helper()
	own, err := identity.SignOwnership(ownerKey, identity.Ownership{Audience: "arena", Avatar: id, Issued: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	call, err := json.Marshal(carnet.Own{Ownership: own})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.agent.Call(w.ctx, "hub", carnet.CallOwn, call); err != nil {
		w.t.Fatal(err)
	}
	signed, err := identity.SignAvatarPolicy(ownerKey, identity.AvatarPolicy{
		Owner: identity.DID(public(ownerKey)), World: identity.DID(public(arenaKey)), Avatar: id, Version: version,
		Made: time.Now().UTC().Truncate(time.Second), Policy: json.RawMessage(document),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.agent.SetPolicy(w.ctx, id, signed); err != nil {
		w.t.Fatal(err)
	}
}

// What an avatar's policy lets no depot keep leaves the depot, however long that is away,
// and isn't put there; all of it stays at home, and other avatars' stays at the depot.
func TestAPolicyKeepsStretchesHome(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.restart()
		h := w.hubs[0]
		s, other := h.open(nil), h.open(nil)
		h.send(s.run(carnet.Day, time.Now().Add(-time.Hour), 9))
		h.send(other.run(carnet.Day, time.Now().Add(-time.Hour), 3))
		h.heads()
		w.compact()
		eventually(t, "both are at the depot", func() bool { return len(w.depot.held()) == 2 })
		before := w.statements()
		w.depot.set(true)
		w.bound(s.avatar, 1, `{"store":{"depots":[]}}`)
		time.Sleep(50 * time.Millisecond)
		w.depot.set(false)
		eventually(t, "one has left", func() bool { return len(w.depot.held()) == 1 })
		deleted := 0
		for _, one := range w.said(before) {
			if one.Kind == ledger.Deleted && strings.Contains(one.Reason, "policy") {
				deleted++
			}
		}
		if deleted != 1 {
			t.Errorf("%d deletions are stated", deleted)
		}
		h.send(s.run(carnet.Day, time.Now().Add(-time.Minute), 2))
		h.heads()
		w.compact()
		w.restart()
		time.Sleep(100 * time.Millisecond) // some twenty rounds
		if n := len(w.depot.held()); n != 1 {
			t.Errorf("the depot holds %d", n)
		}
		if got := len(values(w.history(s.avatar, avatar.Query{}))); got != 11 {
			t.Errorf("at home are %d measurements", got)
		}
		if rows, err := w.store.Unstored(w.ctx, 0, 10); err != nil || len(rows) != 2 || slices.ContainsFunc(rows, func(r avatar.StretchRow) bool { return r.Stored }) {
			t.Errorf("not at the depot are %d, %v", len(rows), err)
		}
		w.bound(s.avatar, 2, fmt.Sprintf(`{"store":{"depots":[%q]}}`, identity.DID(public(vaultKey))))
		eventually(t, "all are at the depot", func() bool { return len(w.depot.held()) == 3 })
	})
}
