package faults_test

import (
	"slices"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/test/wait"
)

// begin makes room in the clinic for arena's avatar, with the grant by which the
// clinic may fetch it, and returns the crossing with what the owner is asked.
func (n *neighbours) begin() (api.Crossing, identity.MoveRequest) {
	n.t.Helper()
	traveller, err := n.arena.client.Enrol(n.t.Context(), n.there)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.beginWith(api.NewMove{World: "arena", Traveller: traveller, Text: "The clinic looks after you."})
}

// beginWith does so for what exactly is to move.
func (n *neighbours) beginWith(move api.NewMove) (api.Crossing, identity.MoveRequest) {
	n.t.Helper()
	x, err := n.beginAt(n.t.Context(), n.arena, n.clinic, n.there, move)
	if err != nil {
		n.t.Fatal(err)
	}
	r, _, err := identity.ParseMoveRequest(x.Request)
	if err != nil {
		n.t.Fatal(err)
	}
	return x, r
}

// beats are the heart rates of an avatar.
func beats(t *testing.T, p *party, id carnet.AvatarID) []carnet.Measurement {
	t.Helper()
	all, _, err := p.client.History(t.Context(), id, client.HistoryQuery{Property: "heart_rate"})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// examine wants exactly these findings of a party, by kind, which wait and aren't wrong.
func examine(t *testing.T, p *party, when string, kinds ...string) {
	t.Helper()
	e, err := p.client.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var is []string
	for _, f := range e.Findings {
		is = append(is, f.Kind)
		if f.Wrong {
			t.Errorf("%s: %s found %+v", when, p.name, f)
		}
	}
	if !slices.Equal(is, kinds) {
		t.Errorf("%s: %s found %+v, want %q", when, p.name, e.Findings, kinds)
	}
}

// An avatar moves from arena to the clinic, as processes: history and state are there
// as they were, arena has nothing any more, and what the watch sends goes on there.
func TestMove(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	n.watch.send(20)
	n.settle()
	before := beats(t, n.arena, n.there)
	x, _ := n.begin()
	examine(t, n.clinic, "before the order", "move")
	examine(t, n.arena, "before the order")
	ordered, err := n.sign(x)
	if err != nil {
		t.Fatal(err)
	}
	if x, err = n.clinic.client.OrderCrossing(ctx, x.ID, ordered); err != nil || x.State == move.Asked {
		t.Fatalf("%+v, %v", x, err)
	}
	n.watch.send(5) // while it moves
	wait.Until(t, "it is home in the clinic", func() bool {
		if x, err = n.clinic.client.Crossing(ctx, x.ID); err != nil {
			t.Fatal(err)
		}
		return x.State == move.Home
	})
	after := beats(t, n.clinic, x.Ours)
	if len(after) < len(before) || !slices.Equal(after[:len(before)], before) {
		t.Errorf("the clinic has %v, arena had %v", after, before)
	}
	n.watch.send(5)
	wait.Until(t, "what the watch sends goes on there", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 30 })
	wait.Until(t, "arena has signed that nothing is left", func() bool {
		left, err := n.arena.client.Crossing(ctx, x.ID)
		return err == nil && left.State == move.Gone && left.Departure != ""
	})
	wait.Until(t, "the clinic has arena's word, and has opened everything", func() bool {
		there, err := n.clinic.client.Crossing(ctx, x.ID)
		return err == nil && there.Departure != "" && there.Surveyed && there.Unfit == 0
	})
	if _, err := n.arena.client.Avatar(ctx, n.there); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("arena still has the avatar: %v", err)
	}
	if all := beats(t, n.clinic, x.Ours); len(all) != 30 {
		t.Errorf("%d measurements instead of 30: %v", len(all), all)
	}
	for _, p := range []*party{n.hub, n.arena, n.clinic, n.vault} {
		examine(t, p, "in the end")
	}
}
