package move

import (
	"testing"
	"time"

	"carnet"
	"carnet/item"
)

// What moved since homes were listed is left to its move: the item isn't noted as gone
// before that is heard, and its avatar gets no other meanwhile.
func TestAnItemThatMovesDuringALookIsItsMoves(t *testing.T) {
	s := newStage(t)
	s.takes()
	sword := s.issue("sword")
	s.backAgain()
	listed := s.arena.watched()
	s.asks(s.wanted([]carnet.ItemID{sword.ID}, nil))
	s.order(time.Hour)
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "cut")
	s.drive(s.citadel)
	if is, it := s.states(); is != Frozen || it != Home {
		t.Fatalf("it is %s and %s", is, it)
	}
	for _, h := range listed {
		if h.item == sword.ID {
			if err := s.arena.look(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
	}
	if i, err := s.items["arena"].Item(sword.ID); err != nil || i.State != item.Here || !i.Frozen {
		t.Errorf("before the move is heard the item is %+v, %v", i, err)
	}
	if _, err := s.items["arena"].Issue(t.Context(), item.Draft{Avatar: s.avatar, Kind: "sword", Title: "Late"}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the avatar is issued another: %v", err)
	}
	delete(s.cut, "decided")
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	s.moved(sword.ID)
	nothing(t, s.arena, "in the end")
}
