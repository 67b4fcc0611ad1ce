package avatar

import (
	"context"
	"crypto/ed25519"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/seal"
)

// announcements are what a world tells its senders of its reception keys.
type announcements struct {
	mu  sync.Mutex
	all [][]byte
}

func (n *announcements) Notify(_ carnet.PartyID, kind string, body []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if kind == carnet.NoticeReception {
		n.all = append(n.all, body)
	}
	return nil
}

func (n *announcements) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.all)
}

// A reception key is announced for a day, replaced an hour before its end, and
// destroyed an hour after it.
func TestReceptionKeysTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newProvenWorld(t)
		told := &announcements{}
		w.agent.Connect(told)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.agent.receptionLoop(ctx) }()
		start := time.Now()
		held := func() (names []string) {
			t.Helper()
			ids, err := w.agent.keys.List(t.Context(), kindReceptionKey, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				names = append(names, id.Name)
			}
			return names
		}
		reach := func(after time.Duration) {
			time.Sleep(after - time.Since(start))
			synctest.Wait()
		}
		first := held()
		bag := w.bag(t, 0)
		for _, c := range []struct {
			after     time.Duration
			keys      int
			announced int
			first     bool // the first key is there, and opens what was sealed to it
		}{
			{22*time.Hour + 59*time.Minute, 1, 0, true},
			{23*time.Hour + time.Minute, 2, 1, true},
			{24*time.Hour + 59*time.Minute, 2, 1, true},
			{25*time.Hour + time.Minute, 1, 1, false},
			{46*time.Hour + time.Minute, 2, 2, false},
			{48*time.Hour + time.Minute, 1, 2, false},
		} {
			reach(c.after)
			names := held()
			if len(names) != c.keys || slices.Contains(names, first[0]) != c.first || told.count() != c.announced {
				t.Errorf("after %v: %d keys, %d announced, the first there: %v", c.after, len(names), told.count(), slices.Contains(names, first[0]))
			}
			_, err := w.agent.Call(ctx, "hub", carnet.CallBag, bag)
			if want := map[bool]carnet.Code{true: "", false: carnet.NotFound}[c.first]; carnet.CodeOf(err) != want {
				t.Errorf("after %v: a bag sealed to the first key: %v", c.after, err)
			}
			present, err := w.agent.Announcement(ctx, "hub")
			if err != nil {
				t.Fatal(err)
			}
			if r, err := seal.ParseReception(present, w.key.Public().(ed25519.PublicKey), time.Now()); err != nil || time.Until(r.NotAfter) < 59*time.Minute {
				t.Errorf("after %v: what is announced: %v", c.after, err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A world that shares may seal to a key for a day more than a things agent, also once
// this one was started again: it is destroyed a day later.
func TestReceptionKeysForWorldsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newProvenWorld(t)
		if err := w.agent.SetSender(Sender{Party: "citadel", Key: w.key.Public().(ed25519.PublicKey), Self: "arena", Own: w.key, Shares: true}); err != nil {
			t.Fatal(err)
		}
		announced, err := w.agent.Announcement(t.Context(), "citadel")
		if err != nil {
			t.Fatal(err)
		}
		to, err := seal.ParseReception(announced, w.key.Public().(ed25519.PublicKey), time.Now())
		if err != nil || time.Until(to.NotAfter) < 47*time.Hour {
			t.Fatalf("it is announced until %v, %v", to.NotAfter, err)
		}
		there := func() bool {
			if err := w.agent.loadReceptions(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := w.agent.keys.Get(t.Context(), receptionID(to.ID))
			return err == nil
		}
		time.Sleep(48*time.Hour + 30*time.Minute)
		if !there() {
			t.Error("it is destroyed before its end")
		}
		time.Sleep(time.Hour)
		if there() {
			t.Error("it is there an hour and a half after its end")
		}
	})
}

// bag makes a key bag for one of the streams.
func (w *provenWorld) bag(t *testing.T, whose int) []byte {
	t.Helper()
	announced, err := w.agent.Announcement(t.Context(), "hub")
	if err != nil {
		t.Fatal(err)
	}
	to, err := seal.ParseReception(announced, w.key.Public().(ed25519.PublicKey), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bag, err := seal.Grant(w.key, to, seal.Terms{
		Granter: "hub", Purpose: "fitness", Clearance: carnet.Clearance{Purposes: "fitness"}, Time: time.Now(), NotAfter: time.Now().Add(100 * time.Hour),
	}, []seal.Entry{{Key: w.epochs[whose]}})
	if err != nil {
		t.Fatal(err)
	}
	return bag
}

// Keys that a crash left in the table beside the document are destroyed at the
// next start, which makes a new one.
func TestStrayReceptionKeysAreDestroyed(t *testing.T) {
	w := newProvenWorld(t)
	stray, err := w.agent.makeReception(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.agent.loadReceptions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.agent.keys.Get(t.Context(), receptionID(stray.ID())); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the stray key is there: %v", err)
	}
	if len(w.agent.announced) != 2 || len(w.agent.receptions) != 2 {
		t.Errorf("%d keys announced, %d held; want the one before and a new one", len(w.agent.announced), len(w.agent.receptions))
	}
}

// A store that was used with another key table is refused, and nothing is made.
func TestForeignKeyTable(t *testing.T) {
	w := newProvenWorld(t)
	if err := w.agent.keys.Destroy(t.Context(), restKey); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Config{Party: "arena", Store: w.store, Keys: w.agent.keys, Depot: noDepot{}, Recorded: func() {}})
	if carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("want a refusal, have %v", err)
	}
	if _, err := w.agent.keys.Get(t.Context(), restKey); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a new key was made: %v", err)
	}
}
