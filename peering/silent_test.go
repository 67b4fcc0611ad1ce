package peering

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet/identity"
)

// deaf is an inviter that takes an acceptance and never answers.
type deaf struct{ called chan struct{} }

// Carry implements Courier.
func (c deaf) Carry(ctx context.Context, _ ReplyTo, _ InvitationID, _, _ string) (string, error) {
	c.called <- struct{}{}
	<-ctx.Done()
	return "", ctx.Err()
}

// An inviter that doesn't answer keeps nobody from hearing what ends beside.
func TestAnEndIsSeenBesideWhileAnInviterIsSilent(t *testing.T) {
	arena, clinic, hub := newParty(t, "arena", identity.World), newParty(t, "clinic", identity.World), newParty(t, "hub", identity.Things)
	silent := deaf{make(chan struct{})}
	hub.courier = silent
	hub.start()
	meet(arena, "watches", hub, "gym", playOffer())
	invitation := clinic.must(clinic.Invite(t.Context(), "watches", playOffer()))
	hub.must(hub.Accept(t.Context(), "clinic", invitation.Invitation))
	beside := *hub
	beside.start()

	heard := make(chan Peering, 1)
	hub.Subscribe(func(p Peering) {
		if p.Name == "gym" {
			heard <- p
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { hub.watch.Run(ctx) })
	work.Go(func() { hub.Run(ctx) })
	defer work.Wait()
	defer cancel()
	<-silent.called
	beside.must(beside.Suspend(ctx, "gym"))
	select {
	case p := <-heard:
		if p.State != Suspended {
			t.Errorf("it hears that the peer is %s", p.State)
		}
	case <-time.After(askLimit / 2):
		t.Fatal("it hears nothing")
	}
}

// Nor does it keep another peering from ending in time.
func TestTimeEndsBesideASilentInviter(t *testing.T) {
	arena, clinic, hub := newParty(t, "arena", identity.World), newParty(t, "clinic", identity.World), newParty(t, "hub", identity.Things)
	silent := deaf{make(chan struct{})}
	hub.courier = silent
	hub.start()
	o := playOffer()
	o.NotAfter = hub.now.Add(48 * time.Hour)
	meet(arena, "watches", hub, "gym", o)
	invitation := clinic.must(clinic.Invite(t.Context(), "watches", playOffer()))
	hub.must(hub.Accept(t.Context(), "clinic", invitation.Invitation))
	heard := make(chan Peering, 1)
	hub.Subscribe(func(p Peering) {
		if p.Name == "gym" {
			heard <- p
		}
	})
	var later atomic.Int64
	began := hub.now
	hub.cfg.Now = func() time.Time { return began.Add(time.Duration(later.Load())) }
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { hub.Run(ctx) })
	defer work.Wait()
	defer cancel()
	<-silent.called // from now on it waits
	later.Store(int64(49 * time.Hour))
	poke(hub.wake)
	select {
	case p := <-heard:
		if p.State != Over {
			t.Errorf("the peer is %s", p.State)
		}
	case <-time.After(askLimit / 2):
		t.Fatal("nothing ends")
	}
}
