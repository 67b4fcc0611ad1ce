package faults_test

import (
	"fmt"
	"strings"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/identity"
	"carnet/node"
	"carnet/peering"
	"carnet/td"
	"carnet/test/wait"
)

// TestPeeringRows kills inviter and accepter at the rows of peering.md: arena invites,
// hub accepts. One exchange goes through all of them; then they are peers, over a
// suspension, until hub removes arena.
func TestPeeringRows(t *testing.T) {
	t.Parallel()
	v := &town{
		t: t, dir: t.TempDir(),
		arena: &party{name: "arena", role: identity.World, config: node.Config{World: node.WorldConfig{Purpose: "fitness", Sensitivity: "personal+health"}}},
		hub:   &party{name: "hub", role: identity.Things},
	}
	for _, p := range []*party{v.arena, v.hub} {
		onPostgres(t, p)
		v.make(p)
		p.start(t)
		t.Cleanup(func() { v.showEnd(p) })
	}
	n := &named{town: v}
	for _, row := range []struct {
		ids string
		do  func(*named)
	}{
		{"P1: an invitation is stored", (*named).invited},
		{"P2: some keys for the inviter, and all", (*named).keysMade},
		{"P3: an acceptance is stored; P4: it came", (*named).accepted},
		{"P5: the inviter's side is active; P6: the confirmation came", (*named).confirmed},
		{"P7: the end is stored", (*named).suspended},
		{"P8: the removal is stored", (*named).removed},
	} {
		if !t.Run(row.ids, func(t *testing.T) { v.t = t; row.do(n) }) {
			break
		}
	}
	v.t = t
}

const (
	arenasPeerings = `SELECT count(*) FROM world_document WHERE kind = 'peering'`
	hubsPeerings   = `SELECT count(*) FROM thing_document WHERE kind = 'peering'`
	keysForGym     = `SELECT count(*) FROM key_row WHERE name = 'gym' AND kind IN ('alias', 'tls', 'sign')`
)

// peer is a party's side of the one peering: arena calls hub watches, and hub arena gym.
func (n *named) peer(p *party) api.Peer {
	n.t.Helper()
	peer, err := p.client.Peer(n.t.Context(), map[*party]carnet.PartyID{n.arena: "watches", n.hub: "gym"}[p])
	if err != nil {
		n.t.Fatal(err)
	}
	return peer
}

func (n *named) wantState(p *party, want peering.State) {
	n.t.Helper()
	if got := n.peer(p).State; got != want {
		n.t.Errorf("the peering is %s at %s, want %s", got, p.name, want)
	}
}

func (n *named) becomesState(p *party, want peering.State) {
	n.t.Helper()
	wait.Until(n.t, fmt.Sprintf("the peering is %s at %s", want, p.name), func() bool { return n.peer(p).State == want })
}

// diesAsked has a party asked for something, and kills it where it is held.
func (n *named) diesAsked(p *party, h *hold, ask func() (api.Peer, error)) {
	n.t.Helper()
	answer := make(chan error, 1)
	go func() {
		_, err := ask()
		answer <- err
	}()
	n.killAt(p, h)
	if err := <-answer; err == nil {
		n.t.Errorf("%s answers, and is dead", p.name)
	}
}

func (n *named) invited() {
	n.await(n.arena)
	invite := func() (api.Peer, error) {
		return n.arena.client.Invite(n.t.Context(), api.NewPeer{Name: "watches", Scope: []peering.Scope{peering.R1}, Purposes: []string{"fitness"}, Sensitivity: "personal+health"})
	}
	n.diesAsked(n.arena, n.arena.database.gate.after(document, "peering"), invite)
	n.want(n.arena, arenasPeerings, 1)
	n.restart(n.arena)
	n.wantState(n.arena, peering.Invited)
	if n.peer(n.arena).Invitation == "" {
		n.t.Error("the invitation isn't shown again")
	}
}

// accept has hub accept what arena shows.
func (n *named) accept() (api.Peer, error) {
	return n.hub.client.AcceptInvitation(n.t.Context(), "gym", n.peer(n.arena).Invitation)
}

func (n *named) keysMade() {
	n.await(n.hub)
	hub, gate := n.hub, n.hub.database.gate
	made := `SELECT sum(xmin::text::bigint)::bigint FROM key_row WHERE name = 'gym'`
	n.diesAsked(hub, gate.before("INSERT INTO key_row", "sign"), n.accept)
	n.want(hub, keysForGym, 2) // of three
	half := hub.number(n.t, made)
	n.restart(hub)
	n.diesAsked(hub, gate.before(thingWrite, "peering"), n.accept)
	n.want(hub, keysForGym, 3)
	n.want(hub, hubsPeerings, 0)
	whole := hub.number(n.t, made)
	if whole == half {
		n.t.Error("half of the keys was used")
	}
	n.restart(hub)
	n.diesAsked(hub, gate.after(thingWrite, "peering"), n.accept)
	n.want(hub, hubsPeerings, 1)
	n.want(hub, made, whole)
}

// accepted begins where keysMade ends: hub died when it had stored that it has
// accepted.
func (n *named) accepted() {
	n.wantState(n.arena, peering.Invited) // nothing was posted
	h := n.arena.database.gate.after(document, "peering")
	n.restart(n.hub)
	posted := n.peer(n.hub).Acceptance
	n.killAt(n.arena, h)
	wait.Until(n.t, "hub has no answer", func() bool { return n.peer(n.hub).Trouble != "" })
	n.wantState(n.hub, peering.Accepted)
	n.restart(n.arena)
	n.wantState(n.arena, peering.Answered)
	wait.Until(n.t, "hub is answered", func() bool { return n.peer(n.hub).Trouble == "" })
	if again, at := n.peer(n.hub).Acceptance, n.peer(n.arena); again != posted || at.Trouble != "" {
		n.t.Errorf("hub posts another acceptance: %v; arena says %+v", again != posted, at)
	}
	n.wantState(n.arena, peering.Answered)
}

func (n *named) confirmed() {
	ctx := n.t.Context()
	arena, hub := n.arena, n.hub
	if _, err := hub.client.CompareWords(ctx, "gym", n.peer(arena).Words); err != nil {
		n.t.Fatal(err)
	}
	n.wantState(hub, peering.Accepted)
	h := arena.database.gate.after(document, "peering")
	n.diesAsked(arena, h, func() (api.Peer, error) { return arena.client.CompareWords(ctx, "watches", n.peer(hub).Words) })
	n.wantState(hub, peering.Accepted)
	came := hub.database.gate.before(thingWrite, "peering")
	n.restart(arena)
	n.wantState(arena, peering.Active)
	n.killAt(hub, came)
	n.restart(hub)
	n.becomesState(hub, peering.Active)
	n.linked()
}

func (n *named) suspended() {
	arena := n.arena
	h := arena.database.gate.after(document, "peering")
	n.diesAsked(arena, h, func() (api.Peer, error) { return arena.client.SuspendPeer(n.t.Context(), "watches") })
	n.restart(arena)
	n.wantState(arena, peering.Suspended)
	wait.Until(n.t, "hub is told that it is refused", func() bool { return strings.Contains(n.peer(n.hub).Trouble, "refuses this party") })
	if n.things().Links[0].Up {
		n.t.Error("the link is up")
	}
	if _, err := arena.client.ResumePeer(n.t.Context(), "watches"); err != nil {
		n.t.Fatal(err)
	}
	n.linked()
}

func (n *named) removed() {
	hub := n.hub
	w := &watch{town: n.town}
	added, err := hub.client.AddThing(n.t.Context(), api.NewThing{Owner: owner, Description: api.Description(td.Band())})
	if err != nil {
		n.t.Fatal(err)
	}
	w.id = added.ID
	m := w.mapTo(n.t.Context(), "gym", `{"properties": {"body_temperature": {}}, "purposes": ["fitness"]}`)
	h := hub.database.gate.after(thingWrite, "peering")
	n.diesAsked(hub, h, func() (api.Peer, error) { return hub.client.RemovePeer(n.t.Context(), "gym") })
	n.want(hub, keysForGym, 3)
	n.restart(hub)
	n.wantState(hub, peering.Removed)
	n.want(hub, keysForGym, 0)
	wait.Until(n.t, "the mapping has ended", func() bool {
		m, err := hub.client.Mapping(n.t.Context(), m.ID)
		return err == nil && m.Stopped
	})
}
