package node

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/peering"
	"carnet/revocation"
)

// watched is what lives by peerings in a test: what happened, in order.
type watched struct {
	*lives
	mu     sync.Mutex
	fresh  bool
	events []string
}

func (w *watched) note(e string) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() }

func (w *watched) setFresh(is bool) {
	w.mu.Lock()
	w.fresh = is
	w.mu.Unlock()
	w.freshness(revocation.State{Fresh: is})
}

func (w *watched) want(t *testing.T, events ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.events) // of several peers in any order
	slices.Sort(events)
	if !slices.Equal(w.events, events) {
		t.Fatalf("happened %q, want %q", w.events, events)
	}
	w.events = nil
}

func newWatched() *watched {
	w := &watched{fresh: true}
	w.lives = &lives{
		work: func(ctx context.Context, p peering.Peering) error {
			w.note("begins " + string(p.Name))
			<-ctx.Done()
			w.note("ends " + string(p.Name))
			return nil
		},
		cut:     func(name carnet.PartyID) { w.note("cut " + string(name)) },
		gone:    func(_ context.Context, name carnet.PartyID) error { w.note("gone " + string(name)); return nil },
		fresh:   func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.fresh },
		keepers: make(map[carnet.PartyID]*keeper),
	}
	return w
}

func TestWorkBeginsAndEndsWithAPeering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		is := func(s peering.State) peering.Peering { return peering.Peering{Name: "arena", State: s} }
		go func() {
			done <- w.run(ctx, []peering.Peering{is(peering.Active), {Name: "old", State: peering.Removed}})
		}()
		w.want(t, "begins arena", "cut old", "gone old")

		w.follow(is(peering.Active)) // something else of it has changed
		w.want(t)
		w.follow(is(peering.Suspended))
		w.want(t, "cut arena", "ends arena")
		w.follow(is(peering.Suspended))
		w.follow(is(peering.Active))
		w.want(t, "cut arena", "begins arena")

		w.setFresh(false)
		w.want(t, "cut old", "cut arena", "ends arena", "gone old")
		w.setFresh(true)
		w.want(t, "cut old", "begins arena", "gone old")

		w.follow(peering.Peering{Name: "clinic", State: peering.Active}) // a new one
		w.want(t, "begins clinic")
		w.follow(is(peering.Removed))
		w.want(t, "cut arena", "ends arena", "gone arena")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.want(t, "ends clinic")
	})
}

func TestConnectionsOfAPeerAreCut(t *testing.T) {
	i := inbound{conns: make(map[net.Conn]carnet.PartyID)}
	closed := func(c net.Conn) bool { return c.SetDeadline(time.Time{}) != nil }
	one, _ := net.Pipe()
	other, _ := net.Pipe()
	gone, _ := net.Pipe()
	i.add(one, "arena")
	i.add(other, "clinic")
	i.add(gone, "arena")
	i.drop(gone)
	i.cut("arena")
	if !closed(one) || closed(other) || closed(gone) || len(i.conns) != 1 {
		t.Errorf("arena's %v, clinic's %v, dropped %v; %d are left", closed(one), closed(other), closed(gone), len(i.conns))
	}
}
