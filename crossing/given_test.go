package crossing

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/policy"
)

// memory is a world that keeps nothing. Its permits, revocations and asker are its
// own, too.
type memory struct {
	World
	keep  func(kept []avatar.Kept) // called before something is kept; nil: nothing
	still func() error
	asked atomic.Int64 // how often Still was

	full bool // nothing can be kept

	bounds atomic.Pointer[policy.Bounds] // of every avatar; nil: there are none
}

func (m *memory) Bounds(carnet.AvatarID) (b policy.Bounds) {
	if set := m.bounds.Load(); set != nil {
		b = *set
	}
	return b
}

func (m *memory) EachKept(context.Context, string, func(string, uint64, func(any) error) error) error {
	return nil
}

func (m *memory) Heads(carnet.AvatarID) (map[carnet.StreamID]uint64, error) { return nil, nil }

func (m *memory) Keep(_ context.Context, kept []avatar.Kept, _ []ledger.Statement, _ ...carnet.Document) error {
	if m.keep != nil {
		m.keep(kept)
	}
	if m.full {
		return carnet.Errorf(carnet.NoSpace, "the disk is full")
	}
	return nil
}

func (m *memory) GivesChanged() uint64 { return 0 }

func (m *memory) Tells(carnet.PartyID) bool { return true }

func (m *memory) Still(Given) error {
	m.asked.Add(1)
	return m.still()
}

func (m *memory) End(_ context.Context, put func(carnet.Document) error) error {
	return put(carnet.Document{})
}

func (m *memory) Ask(context.Context, carnet.PartyID, Question) (Answer, error) { return Answer{}, nil }
func (m *memory) Stop(context.Context, carnet.PartyID, Question) error          { return nil }

func permitted() error { return nil }
func forbidden() error { return carnet.Errorf(carnet.Forbidden, "the grant is over") }

// gives makes a giver of n shares.
func gives(t *testing.T, n int) (*Agent, *memory) {
	t.Helper()
	judge, err := policy.NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{still: permitted}
	a, err := New(t.Context(), Config{
		Party: "arena", World: m, Permits: m, Revocations: m, Asker: m, Judge: judge, Log: slog.New(slog.DiscardHandler),
		SharesOfGrant: max(n, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		q := Question{ID: carnet.NewShareID(), Avatar: carnet.AvatarID{1}, For: carnet.AvatarID{2}, Purpose: "fitness"}
		if _, err := a.Give(t.Context(), q, Permit{Taker: "citadel", Grant: "g", Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	return a, m
}

// flowing counts the shares of which something may be signed.
func (a *Agent) flowing() (n int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, g := range a.given {
		if g.flows() {
			n++
		}
	}
	return n
}

// However many shares a grant's end ends, nothing of any is signed from the moment
// that it is known, long before the last end is durable.
func TestManySharesEndAtOnce(t *testing.T) {
	const n = 3*endAtOnce + 1
	a, m := gives(t, n)
	m.still = forbidden
	var kept []int
	m.keep = func(ends []avatar.Kept) {
		if kept = append(kept, len(ends)); a.flowing() > 0 {
			t.Errorf("%d shares flow while end %d is stored", a.flowing(), len(kept))
		}
	}
	a.look(t.Context(), true)
	if err := a.end(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 4 || len(a.giving()) != 0 {
		t.Errorf("%d shares have not ended; ends were stored in groups of %v", len(a.giving()), kept)
	}
	var at time.Time
	for _, g := range a.Given() {
		if g.End == nil || g.End.Why == "" || !at.IsZero() && !g.End.Time.Equal(at) {
			t.Fatalf("the share ended as %+v", g.End)
		}
		at = g.End.Time
	}
}

// A share that somebody stops stays still while its end is being stored, though
// what it lives by holds.
func TestAnEndUnderWayStays(t *testing.T) {
	a, m := gives(t, 2)
	id := a.Given()[0].ID
	storing, stored := make(chan struct{}), make(chan struct{})
	m.keep = func([]avatar.Kept) { close(storing); <-stored }
	done := make(chan error, 1)
	go func() { done <- a.StopGiving(t.Context(), id, "operator", "enough") }()
	<-storing
	if a.look(t.Context(), true); a.flowing() != 1 {
		t.Errorf("%d shares flow", a.flowing())
	}
	close(stored)
	if err := <-done; err != nil || a.flowing() != 1 {
		t.Errorf("%d shares flow, %v", a.flowing(), err)
	}
}

// What ends while others' ends are being stored ceases as soon: it waits for no store.
func TestAnEndWaitsForNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, m := gives(t, 2)
		var over atomic.Int64 // of so many that are asked about first
		m.still = func() error {
			if over.Add(-1) >= 0 {
				return forbidden()
			}
			return nil
		}
		release := make(chan struct{})
		m.keep = func([]avatar.Kept) { <-release }
		over.Store(1) // the grant ends while it is asked for each share
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(lookEvery / 2)
		if n := a.flowing(); n != 1 {
			t.Errorf("%d shares flow", n)
		}
		over.Store(1)
		a.Recheck()
		time.Sleep(lookEvery / 4)
		if n := a.flowing(); n != 0 || len(a.giving()) != 2 {
			t.Errorf("%d shares flow, and %d haven't ended", n, len(a.giving()))
		}
		close(release)
		time.Sleep(lookEvery)
		synctest.Wait()
		if n := len(a.giving()); n != 0 || len(a.over) != 0 {
			t.Errorf("%d shares haven't ended, %d are to", n, len(a.over))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An end that can't be stored is tried again, and nothing of it is signed meanwhile.
func TestAnEndThatCannotBeStored(t *testing.T) {
	a, m := gives(t, 1)
	m.still, m.full = forbidden, true
	a.look(t.Context(), true)
	if err := a.end(t.Context()); carnet.CodeOf(err) != carnet.NoSpace || a.flowing() != 0 || len(a.giving()) != 1 {
		t.Fatalf("%v: %d flow, %d haven't ended", err, a.flowing(), len(a.giving()))
	}
	m.full, m.still = false, permitted // the grant is there again, and the share's time was over
	a.look(t.Context(), true)
	select {
	case <-a.ending:
	default:
		t.Error("nobody tries again")
	}
	if err := a.end(t.Context()); err != nil || len(a.giving()) != 0 {
		t.Errorf("%v: %d haven't ended", err, len(a.giving()))
	}
}

// It is asked at once after a Recheck, again for who learns of an end a moment later,
// and once a second otherwise.
func TestWhenItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, m := gives(t, 3)
		var known atomic.Bool
		m.still = func() error {
			if known.Load() {
				return forbidden()
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(10 * time.Second)
		before := m.asked.Load()
		time.Sleep(10 * time.Second)
		if n := m.asked.Load() - before; n < 27 || n > 33 {
			t.Errorf("asked %d times in ten seconds for three shares that nothing happens to", n)
		}
		a.Recheck()
		time.Sleep(50 * time.Millisecond) // a grant's end that is read from the store
		known.Store(true)
		time.Sleep(lookEvery)
		synctest.Wait()
		if n := len(a.giving()); n != 0 {
			t.Errorf("%d shares go on", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
