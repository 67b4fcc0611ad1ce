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
	"carnet/test/wait"
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
		wait.Until(t, "both are at the depot", func() bool { return len(w.depot.held()) == 2 })
		before := w.statements()
		w.depot.set(true)
		w.bound(s.avatar, 1, `{"store":{"depots":[]}}`)
		time.Sleep(50 * time.Millisecond)
		w.depot.set(false)
		wait.Until(t, "one has left", func() bool { return len(w.depot.held()) == 1 })
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
		wait.Until(t, "all are at the depot", func() bool { return len(w.depot.held()) == 3 })
	})
}

// While a world can't tell which depot it has, policies put nothing there and take
// nothing away, though they may mean another.
func TestAPolicyWaitsForItsDepotToBeKnown(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		w.bound(s.avatar, 1, fmt.Sprintf(`{"store":{"depots":[%q]}}`, identity.DID(public(vaultKey))))
		w.every = 5 * time.Millisecond
		w.restart()
		h.send(s.run(carnet.Day, time.Now().Add(-time.Hour), 9))
		h.heads()
		w.compact()
		wait.Until(t, "it is at the depot", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 0 && len(w.depot.held()) == 1
		})
		w.unknown.Store(true)
		w.restart()
		h.send(s.run(carnet.Day, time.Now().Add(-time.Minute), 2))
		h.heads()
		w.compact()
		before := w.statements()
		time.Sleep(100 * time.Millisecond) // some twenty rounds
		if n := len(w.depot.held()); n != 1 {
			t.Errorf("the depot holds %d", n)
		}
		if rows, err := w.store.Unstored(w.ctx, 0, 10); err != nil || len(rows) != 1 || w.statements() != before {
			t.Errorf("%d are marked as not stored, %v; %d statements more", len(rows), err, w.statements()-before)
		}
		w.unknown.Store(false)
		wait.Until(t, "all are at the depot", func() bool { return len(w.depot.held()) == 2 })
	})
}

// What a policy keeps at home stays there when its avatar has left or is erased, until
// it is deleted.
func TestWhatStayedAtHomeIsntPutAfterwards(t *testing.T) {
	for name, leave := range map[string]func(*world, carnet.AvatarID) error{
		"moved": func(w *world, id carnet.AvatarID) error {
			x := carnet.NewCrossingID()
			if err := w.agent.Freeze(w.ctx, id, x); err != nil {
				return err
			}
			return w.agent.Depart(w.ctx, id, x, "citadel", carnet.Fingerprint{1})
		},
		"erased": func(w *world, id carnet.AvatarID) error {
			return w.agent.Erase(w.ctx, id, carnet.ErasureID{1}, carnet.Fingerprint{1}, "hub")
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, w *world) {
				h := w.hubs[0]
				s, other := h.open(nil), h.open(nil)
				w.bound(s.avatar, 1, `{"store":{"depots":[]}}`)
				w.every = 5 * time.Millisecond
				w.restart()
				h.send(s.run(carnet.Day, time.Now().Add(-time.Hour), 9))
				h.send(other.run(carnet.Day, time.Now().Add(-time.Hour), 3))
				h.heads()
				w.compact()
				wait.Until(t, "the other is at the depot", func() bool { return len(w.depot.held()) == 1 })
				if err := leave(w, s.avatar); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					time.Sleep(100 * time.Millisecond) // some twenty rounds
					if n := len(w.depot.held()); n != 1 {
						t.Errorf("the depot holds %d", n)
					}
					w.restart()
				}
			})
		})
	}
}

// A stretch that can't be brought home, lost here and not given by the depot, holds up no
// other.
func TestAPolicyBringsHomeWhatItCan(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		for i := range 3 {
			h.send(s.run(carnet.Day, time.Now().Add(time.Duration(i-5)*time.Minute), 9))
			h.heads()
			w.compact()
		}
		w.every = 5 * time.Millisecond
		w.restart()
		wait.Until(t, "all are at the depot", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 0 && len(w.depot.held()) == 3
		})
		rows, err := w.store.StretchPage(w.ctx, s.id, 0, 1)
		if err != nil || len(rows) != 1 {
			t.Fatalf("%d stretches, %v", len(rows), err)
		}
		w.store.spoil.Store(&spoiler{stretch: func(id uint64, body []byte) ([]byte, error) {
			if id == rows[0].ID {
				return nil, nil
			}
			return body, nil
		}})
		w.depot.mu.Lock()
		delete(w.depot.objects, rows[0].Fingerprint)
		w.depot.mu.Unlock()
		w.bound(s.avatar, 1, `{"store":{"depots":[]}}`)
		wait.Until(t, "the others have left", func() bool { return len(w.depot.held()) == 0 })
	})
}

// What was to leave the depot by a policy is an erasure's when its avatar is erased: the
// depot is to sign for it.
func TestAnErasureTakesOverWhatWasToLeaveTheDepot(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.restart()
		h := w.hubs[0]
		s := h.open(nil)
		h.send(s.run(carnet.Day, time.Now().Add(-time.Hour), 9))
		h.heads()
		w.compact()
		wait.Until(t, "it is at the depot", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 0 && len(w.depot.held()) == 1
		})
		w.depot.set(true)
		w.bound(s.avatar, 1, `{"store":{"depots":[]}}`)
		wait.Until(t, "it is to leave the depot", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 1
		})
		by := carnet.ErasureID{1}
		if err := w.agent.Erase(w.ctx, s.avatar, by, carnet.Fingerprint{1}, "hub"); err != nil {
			t.Fatal(err)
		}
		if err := w.agent.DeleteDoomed(w.ctx); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("while the depot is away, what it was to delete is gone: %v", err)
		}
		for range 2 {
			if err := w.agent.Clear(w.ctx, s.avatar); err != nil {
				t.Fatal(err)
			}
			objects, err := w.agent.Doomed(w.ctx, by)
			if held := w.depot.held(); err != nil || len(objects) != 1 || held[objects[0]] == nil {
				t.Errorf("the depot is to sign for %v of %d, %v", objects, len(held), err)
			}
			w.restart()
		}
		if err := w.agent.DeleteDoomed(w.ctx); err != nil {
			t.Errorf("what is an erasure's is deleted for nobody's: %v", err)
		}
		gone, err := w.agent.Release(w.ctx, by)
		if err != nil || len(gone) != 1 {
			t.Fatalf("%d are released, %v", len(gone), err)
		}
		if err := w.store.Put(w.ctx, gone, nil); err != nil {
			t.Fatal(err)
		}
		w.depot.set(false)
		wait.Until(t, "what is nobody's again leaves by itself", func() bool { return len(w.depot.held()) == 0 })
	})
}
