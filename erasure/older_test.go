package erasure

import (
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
)

// An order for a world is no order for another one to which the avatar has moved since:
// the former home can't have it erased there, by a crossing that nobody knows. It can
// once the register says that the avatar lived at that world, or is erased by this order.
func TestAnOrderForAFormerHomeErasesNothingThatLives(t *testing.T) {
	home, id, x := carnet.HomeID{1}, carnet.AvatarID{2}, carnet.CrossingID{3}
	for name, c := range map[string]struct {
		change func(*stage, string)
		by     carnet.PartyID
		code   carnet.Code // "": it is erased
	}{
		"it lives here":                             {func(s *stage, _ string) { s.desk.is.World = did(here) }, "there", carnet.Forbidden},
		"it lives with a third":                     {func(s *stage, _ string) { s.desk.is.World = did(elsewhere) }, "there", carnet.Forbidden},
		"it lives there, and a third tells":         {func(s *stage, _ string) { s.desk.is.World = did(there) }, "elsewhere", carnet.Forbidden},
		"erased by another order":                   {func(s *stage, _ string) { s.desk.is.World, s.desk.is.Erased = did(there), "another" }, "there", carnet.Forbidden},
		"the register is away":                      {func(s *stage, _ string) { s.desk.away = true }, "there", carnet.Unavailable},
		"it lives there, and this is an older copy": {func(s *stage, _ string) { s.desk.is.World = did(there) }, "there", ""},
		"it is erased, and a third tells":           {func(s *stage, order string) { s.desk.is.World, s.desk.is.Erased = did(there), order }, "elsewhere", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.world.avatars[id] = avatar.Info{ID: id}
			s.moves.homes = []move.Registered{{Avatar: id, Home: home, Registrar: did(theRegistrar), Owner: did(theOwner)}}
			order := s.order(there, home, carnet.AvatarID{9})
			c.change(s, order)
			if _, err := s.told(c.by, Telling{Order: order, Crossing: &x}); carnet.CodeOf(err) != c.code {
				t.Errorf("told: %v, want %q", err, c.code)
			}
			if _, err := s.world.Avatar(id); (err == nil) != (c.code != "") {
				t.Errorf("in the end: %v", err)
			}
			if e := s.agent.Of(carnet.ErasureID{5}); (len(e) == 0) != (c.code != "") || len(e) == 1 && e[0].Role != identity.DeletedFormer {
				t.Errorf("in the end there is %+v", e)
			}
		})
	}
}

// An avatar that keeps still for a farewell is erased once that lets go of it.
func TestAFarewellIsErased(t *testing.T) {
	s := newStage(t)
	home, id := carnet.HomeID{1}, carnet.AvatarID{2}
	s.world.avatars[id], s.world.frozen[id] = avatar.Info{ID: id}, true
	s.moves.homes = []move.Registered{{Avatar: id, Home: home, Registrar: did(theRegistrar), Owner: did(theOwner)}}
	s.moves.farewell = carnet.Errorf(carnet.Unavailable, "the register is away")
	order := s.order(here, home, id)
	e, err := s.agent.TakeOrder(t.Context(), carnet.ErasureID{5}, identity.Erasing{Avatar: id, Order: order})
	if err != nil || e.State != Ordered || e.Why == "" {
		t.Fatalf("while nobody can say where it lives: %+v, %v", e, err)
	}
	s.moves.farewell = nil
	s.goOn()
	if e := s.agent.Of(carnet.ErasureID{5}); len(e) != 1 || e[0].Cleared.IsZero() {
		t.Errorf("in the end there is %+v", e)
	}
}
