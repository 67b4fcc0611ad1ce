package erasure

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
)

// ordered is what moves by the terms of an order.
func ordered(t *testing.T, terms identity.MoveTerms) move.SignedOrder {
	t.Helper()
	text, err := json.Marshal(terms)
	if err != nil {
		t.Fatal(err)
	}
	return move.SignedOrder{Order: "order", Terms: text}
}

// An item that came or went alone brought nothing of the avatar: whose it was is told
// nothing, and nobody waits for it.
func TestAnItemsWorldIsNotTold(t *testing.T) {
	s := newStage(t)
	home, id := carnet.HomeID{1}, carnet.AvatarID{2}
	s.world.avatars[id] = avatar.Info{ID: id}
	s.moves.homes = []move.Registered{{Avatar: id, Home: home, Registrar: did(theRegistrar), Owner: did(theOwner)}}
	alone := ordered(t, identity.MoveTerms{Alone: true})
	s.moves.targets = []move.AtTarget{{ID: carnet.CrossingID{3}, From: "there", To: id, State: move.Home, SignedOrder: alone}}
	s.moves.sources = []move.AtSource{{ID: carnet.CrossingID{4}, To: "there", Avatar: id, State: move.Kept, SignedOrder: alone}}
	e, err := s.agent.TakeOrder(t.Context(), carnet.ErasureID{5}, identity.Erasing{Avatar: id, Order: s.order(here, home, id)})
	if err != nil {
		t.Fatal(err)
	}
	s.goOn()
	e = s.agent.Of(e.ID)[0]
	if len(e.Others) != 1 || e.Others[0].Role != Registers || e.State != Over {
		t.Errorf("it is %s, and told are %+v", e.State, e.Others)
	}
	for _, line := range s.agent.report(id) {
		if strings.Contains(line, "It came from") {
			t.Errorf("the owner reads: %s", line)
		}
	}
	// A move of the avatar is told as before.
	s = newStage(t)
	whole := ordered(t, identity.MoveTerms{})
	s.moves.targets = []move.AtTarget{{ID: carnet.CrossingID{3}, From: "there", To: id, State: move.Home, SignedOrder: whole}}
	s.moves.sources = []move.AtSource{{ID: carnet.CrossingID{4}, To: "there", Avatar: id, State: move.Kept, SignedOrder: whole}}
	if all, err := s.agent.others(t.Context(), &Erasure{Avatar: id, Role: identity.DeletedFormer}); err != nil || len(all) != 2 {
		t.Errorf("told are %+v, %v", all, err)
	}
}

// Who is told of a crossing by which an item went alone has nothing of the avatar, and
// says so: the one that had the item lives on.
func TestAnItemsWorldIsToldAllTheSame(t *testing.T) {
	home, id, x := carnet.HomeID{1}, carnet.AvatarID{2}, carnet.CrossingID{3}
	for role, know := range map[identity.DeletionRole]func(*moves, move.SignedOrder){
		identity.DeletedFormer: func(m *moves, o move.SignedOrder) {
			m.sources = []move.AtSource{{ID: x, To: "there", Avatar: id, State: move.Gone, SignedOrder: o}}
		},
		identity.DeletedComing: func(m *moves, o move.SignedOrder) {
			m.targets = []move.AtTarget{{ID: x, From: "there", To: id, State: move.Home, SignedOrder: o}}
		},
	} {
		s := newStage(t)
		s.world.avatars[id] = avatar.Info{ID: id}
		know(s.moves, ordered(t, identity.MoveTerms{Alone: true}))
		answer, err := s.told("there", Telling{Order: s.order(there, home, carnet.AvatarID{9}), Crossing: &x, Role: role})
		if err != nil || answer.State != Over {
			t.Errorf("told as %s it answers %+v, %v", role, answer, err)
			continue
		}
		if _, err := s.world.Avatar(id); err != nil {
			t.Errorf("as %s: %v", role, err)
		}
	}
}

// A world whose store is from before a crossing signs as what it was told that it had
// something by it, so that whoever told it takes what it signs.
func TestWhatIsNotKnownIsSignedForAsTold(t *testing.T) {
	x := carnet.CrossingID{3}
	for told, want := range map[identity.DeletionRole]identity.DeletionRole{
		identity.DeletedComing: identity.DeletedComing, identity.DeletedFormer: identity.DeletedFormer, "": identity.DeletedFormer,
	} {
		s := newStage(t)
		order := s.order(there, carnet.HomeID{1}, carnet.AvatarID{9})
		answer, err := s.told("there", Telling{Order: order, Crossing: &x, Role: told})
		if err != nil {
			t.Fatal(err)
		}
		teller := &Agent{Config: Config{Peer: func(carnet.PartyID) string { return did(here) }, Now: s.agent.Now}}
		o := Other{Role: want, Party: "here", Of: x.String()}
		if heard, err := teller.answered(&Erasure{ID: carnet.ErasureID{5}, Order: order}, o, answer); err != nil || heard.Heard.IsZero() {
			t.Errorf("told as %q it isn't believed: %+v, %v", told, answer, err)
		}
	}
	s := newStage(t)
	var telling Telling
	s.agent.Tell = func(_ context.Context, _ carnet.PartyID, _ string, body []byte) ([]byte, error) {
		return nil, json.Unmarshal(body, &telling)
	}
	if _, err := s.agent.tellWorld(t.Context(), &Erasure{Order: "order"}, Other{Role: identity.DeletedComing, Party: "there", Of: x.String()}); err == nil || telling.Role != identity.DeletedComing || *telling.Crossing != x {
		t.Errorf("tells %+v, %v", telling, err)
	}
	for _, role := range []identity.DeletionRole{identity.DeletedAtHome, identity.DeletedShare, "nobody"} {
		if _, err := s.told("there", Telling{Order: s.order(there, carnet.HomeID{1}, carnet.AvatarID{9}), Crossing: &x, Role: role}); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("told as %s: %v", role, err)
		}
	}
}
