package erasure

import (
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
)

// A former home that learnt by another crossing that the avatar has left, and hasn't
// deleted all of it yet, signs no deletion of nothing for the one by which it went.
func TestAFormerHomeThatLeftByAnotherCrossing(t *testing.T) {
	home, id, x := carnet.HomeID{1}, carnet.AvatarID{2}, carnet.CrossingID{3}
	for name, source := range map[string]move.AtSource{
		"another crossing, of which the register told": {ID: carnet.CrossingID{4}, To: "elsewhere", Avatar: id, State: move.Gone},
		"a recovery elsewhere":                         {ID: x, To: move.Elsewhere, Avatar: id, State: move.Gone},
	} {
		for _, cleared := range []bool{false, true} {
			s := newStage(t)
			at := avatar.Destination{Crossing: source.ID}
			if cleared {
				at.Cleared = noon.Add(-time.Hour)
			}
			s.world.gone[id] = at
			s.moves.homes = []move.Registered{{Avatar: id, Home: home, Registrar: did(theRegistrar), Owner: did(theOwner)}}
			s.moves.sources = []move.AtSource{source}
			s.desk.is = identity.HomeAnswer{Home: home, World: did(there)}
			answer, err := s.told("there", Telling{Order: s.order(there, home, carnet.AvatarID{9}), Crossing: &x, Role: identity.DeletedFormer})
			if err != nil || answer.State != Over || len(answer.Deletions) != 1 {
				t.Fatalf("%s, cleared %t: %+v, %v", name, cleared, answer, err)
			}
			begun := s.agent.All()
			if cleared && len(begun) > 0 {
				t.Errorf("%s: of nothing it erases %+v", name, begun)
			}
			if erased := s.world.gone[id].Erasure != (carnet.ErasureID{}); !cleared && (len(begun) != 1 || begun[0].Avatar != id || !erased) {
				t.Errorf("%s: it signs, and what it has isn't erased (%t): %+v", name, erased, begun)
			}
		}
	}
}

// Who isn't the owner of what is to come calls nothing off.
func TestWhatComesIsItsOwnersToErase(t *testing.T) {
	home, x := carnet.HomeID{1}, carnet.CrossingID{3}
	s := newStage(t)
	s.moves.targets = []move.AtTarget{{ID: x, From: "there", State: move.Copying, Home: move.Registered{Home: home, Owner: did(elsewhere)}}}
	telling := Telling{Order: s.order(there, home, carnet.AvatarID{9}), Crossing: &x, Role: identity.DeletedComing}
	if _, err := s.told("there", telling); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("by another key: %v", err)
	}
	s.moves.targets[0].Home.Owner = did(theOwner)
	if _, err := s.told("there", telling); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("by its owner: %v", err)
	}
}
