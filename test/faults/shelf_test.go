package faults_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing"
	"carnet/identity"
	"carnet/node"
	"carnet/test/wait"
)

// shelving is a town in which arena shares a watch with the clinic, and shelves soon.
type shelving struct {
	*sharing
	v         *neighbours
	grant     string
	withdrawn int // shelves, as far as gone has seen
}

func newShelving(t *testing.T, stores ...func(*testing.T, *party)) *shelving {
	v := newNeighbours(t, ownView, append(stores, func(_ *testing.T, p *party) {
		if p.role == identity.World {
			p.config.World.ShelveAfter = node.Duration(500 * time.Millisecond)
		}
	})...)
	n := &shelving{sharing: &sharing{named: &named{town: v.town, w: v.watch}, there: v.there, here: v.here}, v: v}
	request := v.ask(identity.ActionSubscribe)
	v.approve(request)
	n.grant = v.give(request, identity.ActionSubscribe, `{"properties": {"heart_rate": {}, "speed": {"round": 3, "rate": "1s"}}}`).ID
	if _, err := v.clinic.client.TakeShare(t.Context(), api.NewShare{World: "arena", Avatar: v.there, For: v.here, Purpose: "care"}); err != nil {
		t.Fatal(err)
	}
	n.becomesShared()
	n.flows()
	return n
}

// storage is what a world says of the share's way through the depot.
func (n *shelving) storage(p *party) *crossing.Storage {
	n.t.Helper()
	c, err := p.client.Share(n.t.Context(), n.share)
	if err != nil {
		n.t.Fatal(err)
	}
	if c.Storage == nil {
		return &crossing.Storage{}
	}
	return c.Storage
}

// shelved waits until arena has put all that the clinic would get.
func (n *shelving) shelved() {
	n.t.Helper()
	n.quietAt(n.arena)
	last := uint64(0)
	wait.Until(n.t, "arena has shelved what the clinic would get", func() bool {
		now := n.storage(n.arena).Frame
		same := now > 0 && now == last
		if last = now; !same {
			time.Sleep(1500 * time.Millisecond)
		}
		return same
	})
}

// gone waits until arena has had the depot delete a shelf, since it was waited for last.
func (n *shelving) gone() {
	n.t.Helper()
	wait.Until(n.t, "the shelf is gone", func() bool {
		now := strings.Count(n.arena.log.String(), "a shelf is withdrawn")
		more := now > n.withdrawn
		n.withdrawn = now
		return more
	})
}

// count is how many measurements of a name the clinic has.
func (n *shelving) count(name string) int {
	n.t.Helper()
	got, _, err := n.clinic.client.History(n.t.Context(), n.here, client.HistoryQuery{Property: name})
	if err != nil {
		n.t.Fatal(err)
	}
	return len(got)
}

// TestShareThroughStorage stops the clinic while arena shares with it, then kills
// arena: the clinic reads what came meanwhile from the depot, and the rest comes when
// arena is back.
func TestShareThroughStorage(t *testing.T) {
	t.Parallel()
	n := newShelving(t)
	if code := n.clinic.end(t); code != 0 {
		t.Fatalf("the clinic ended with %d", code)
	}
	n.w.send(8)
	n.shelved()
	n.w.send(8)
	n.shelved()
	n.arena.kill(t)
	n.restart(n.clinic)
	n.arrived()
	if s := n.storage(n.clinic); s.Frame == 0 || s.Depot != "vault" || s.Why != "" {
		t.Errorf("the clinic says %+v", s)
	}
	ms, err := n.clinic.client.State(t.Context(), n.here)
	if err != nil || !slices.ContainsFunc(ms, func(m carnet.Measurement) bool { return m.Name == "heart_rate" }) {
		t.Errorf("the clinic's state is %v, %v", ms, err)
	}
	n.w.send(8)
	n.restart(n.arena)
	n.arrived()
	n.gone()
	n.w.send(8)
	n.judgeShares()
}

// TestShelfEndsWithItsGrant revokes the grant while something is on the shelf: it is
// deleted at once, and the clinic gets nothing of after, whatever is up.
func TestShelfEndsWithItsGrant(t *testing.T) {
	t.Parallel()
	n := newShelving(t)
	n.clinic.kill(t)
	n.w.send(8)
	n.shelved()
	post[api.NewGrant](n.arena, t, "DELETE", "/v1/grants/"+n.grant, nil)
	n.over()
	revoked := time.Now()
	n.gone()
	t.Logf("the shelf is gone %v after the grant was revoked", time.Since(revoked))
	n.w.send(8)
	n.quietAt(n.arena)
	n.arena.kill(t)
	n.restart(n.clinic)
	wait.Until(t, "the clinic finds no shelf", func() bool { return n.storage(n.clinic).Why != "" })
	if got := n.count("heart_rate"); got != 4 {
		t.Errorf("the clinic has %d heart rates, 4 were shared while it was up", got)
	}
	n.restart(n.arena)
	wait.Until(t, "the clinic has ended the share", func() bool {
		c, err := n.clinic.client.Share(t.Context(), n.share)
		return err == nil && c.State == crossing.Ended
	})
	if got := n.count("heart_rate"); got != 4 {
		t.Errorf("the clinic has %d heart rates, 4 were shared while it was up", got)
	}
}
