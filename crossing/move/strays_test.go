package move

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/register"
)

// claimsAnew has arena claim what is to be claimed anew.
func (s *stage) claimsAnew() (claimed int) {
	s.t.Helper()
	for {
		select {
		case h := <-s.arena.claims:
			if err := s.arena.claimOne(s.t.Context(), h); err != nil {
				s.t.Fatal(err)
			}
			claimed++
		default:
			return claimed
		}
	}
}

// Who owns an item can't have it recovered elsewhere by having its avatar keep still each
// time that its home is looked at: after a move that is aborted the items are claimed, too,
// those that were to end as well.
func TestAnAbortedMoveObjectsForItsItems(t *testing.T) {
	for _, alone := range []bool{false, true} {
		s, _ := recovering(t)
		s.takes()
		sword, hat := s.issue("sword"), s.issue("cap")
		s.backAgain()
		if alone {
			s.asks(s.itself(sword))
		} else {
			s.asks(s.wanted([]carnet.ItemID{sword.ID}, []carnet.ItemID{hat.ID}))
		}
		s.order(time.Hour)
		if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
			t.Fatal(err)
		}
		if is, _ := s.states(); is != Frozen {
			t.Fatalf("it is %s", is)
		}
		_, one := s.alone(sword, 1)
		_, two := s.alone(hat, 1)
		asked := []func() *register.Decided{one}
		if !alone {
			asked = append(asked, two)
		}
		for _, ask := range asked {
			if d := ask(); d != nil {
				t.Fatalf("decided at once: %+v", d)
			}
		}
		s.arena.lookAtHomes(t.Context()) // at which they keep still
		r, err := desk{s.registrar, didOf("arena")}.Decide(t.Context(), s.crossing.ID, register.Petition{Want: register.Abort, Order: s.ordered.Order})
		if err != nil || r.Outcome != identity.Abort {
			t.Fatalf("called off: %+v, %v", r, err)
		}
		if err := s.arena.goOnAtSource(t.Context(), s.crossing.ID); err != nil {
			t.Fatal(err)
		}
		if is, _ := s.states(); is != Kept {
			t.Fatalf("after the abort it is %s", is)
		}
		s.claimsAnew()
		s.weekLater()
		for n, ask := range asked {
			if d := ask(); d == nil || d.Outcome != identity.Abort {
				t.Errorf("alone %t: item %d is recovered elsewhere: %+v", alone, n, d)
			}
		}
	}
}

// A farewell that fails where the store takes nothing more is over once it takes something
// again: avatar and items go on, and object to recoveries. While one is being said nothing
// goes on.
func TestAFarewellThatFailsLeavesNothingStill(t *testing.T) {
	for name, broken := range map[string]func(*store, error){
		"the avatar": func(s *store, err error) { s.failKeep, s.failThaw = err, err },
		"its items": func(s *store, err error) {
			s.failKeep = err
			s.items.Fail(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := recovering(t)
			sword := s.issue("sword")
			s.backAgain()
			arena := s.stores["arena"]
			arena.onPassport = func() { // avatar and item keep still by then
				s.arena.lookAtHomes(t.Context())
				if h, _ := s.arena.Items.At(sword.Home); h.Frozen == (carnet.CrossingID{}) || len(arena.frozen) != 1 {
					t.Error("it goes on while a farewell is being said")
				}
				nothing(t, s.arena, "while a farewell is being said")
				broken(arena, errors.New("the disk takes nothing more"))
			}
			if _, err := s.arena.Export(t.Context(), Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: true}); err == nil {
				t.Fatal("said, and not stored")
			}
			s.arena.lookAtHomes(t.Context()) // which can't be stored, either
			h, _ := s.arena.Items.At(sword.Home)
			if len(arena.frozen) == 0 && h.Frozen == (carnet.CrossingID{}) {
				t.Fatal("all goes on, and nothing can be stored")
			}
			broken(arena, nil)
			_, ask := s.alone(sword, 1)
			ask()
			s.arena.lookAtHomes(t.Context())
			if h, _ := s.arena.Items.At(sword.Home); h.Frozen != (carnet.CrossingID{}) || len(arena.frozen) > 0 {
				t.Errorf("the item keeps still for %v, the avatar for %v", h.Frozen, arena.frozen)
			}
			s.weekLater()
			if d := ask(); d == nil || d.Outcome != identity.Abort {
				t.Errorf("the item is recovered elsewhere: %+v", d)
			}
			nothing(t, s.arena, "in the end")
		})
	}
}
