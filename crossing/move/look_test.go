package move

import (
	"testing"
	"time"

	"carnet"
	"carnet/item"
)

// A look at many homes asks about many at once, and by itself about the one of which the
// register says something else; where the registrar doesn't answer, it stops.
func TestALookAtManyHomesIsFewQuestions(t *testing.T) {
	s, _ := recovering(t)
	var one item.Info
	owned := s.stores["arena"].avatars[s.avatar]
	for n := range byte(11) {
		s.avatar = carnet.AvatarID{0xee, n}
		owned.ID = s.avatar
		s.stores["arena"].avatars[s.avatar] = owned
		for range 50 {
			one = s.issue("sword")
		}
	}
	questions := func(do func()) int {
		before := s.registrar.asked
		do()
		return s.registrar.asked - before
	}
	look := func() { s.arena.lookAtHomes(t.Context()) }
	s.backAgain()
	if n := questions(look); n != 2 {
		t.Errorf("of 562 homes it asks in %d questions", n)
	}
	_, ask := s.alone(one, 1)
	ask()
	before := s.registrar.homes[one.Home].Incarnation
	if n := questions(look); n != 4 || s.registrar.homes[one.Home].Incarnation != before+1 {
		t.Errorf("it objects to a recovery in %d questions: %+v", n, s.registrar.homes[one.Home])
	}
	s.registrar.away = true
	if n := questions(look); n != 1 {
		t.Errorf("while the registrar is away it asks %d times", n)
	}
	s.start("arena")
	left := 0
	if n := questions(func() { left = s.arena.claimRest(t.Context()) }); n != 4 || left != 562 {
		t.Errorf("while the registrar is away it claims %d times, and %d are left", n, left)
	}
	s.registrar.away = false
	if s.arena.claimRest(t.Context()) != 0 || questions(look) != 2 {
		t.Error("once it is back, not all is claimed")
	}
	// One that fails by itself holds up no other.
	for id := range s.registrar.homes {
		delete(s.arena.claimed, id)
		if id != one.Home {
			s.registrar.lost[id] = 1
		}
	}
	if left := s.arena.claimRest(t.Context()); left != 561 || s.arena.claimed[one.Home] == 0 {
		t.Errorf("of homes whose claims fail one by one %d are left", left)
	}
}

// Where the register doesn't say all at once how homes stand, a look asks about each, and
// objects to a recovery; where this world isn't its peer at the moment, it stops.
func TestALookAsksAboutEachWhereItMust(t *testing.T) {
	for _, c := range []struct {
		failed  error
		objects bool
	}{
		{carnet.Errorf(carnet.NotFound, "there is no such path"), true},
		{carnet.Errorf(carnet.Forbidden, "no rule permits ask-homes"), true},
		{carnet.Errorf(carnet.Tampered, "a record is damaged"), true},
		{carnet.Errorf(carnet.Unauthenticated, "the peering is suspended"), false},
		{carnet.Errorf(carnet.Unavailable, "nobody answers"), false},
	} {
		s, _ := recovering(t)
		sword := s.issue("sword")
		s.backAgain()
		s.arena.lookAtHomes(t.Context())
		_, ask := s.alone(sword, 1)
		ask()
		before := s.registrar.homes[sword.Home].Incarnation
		s.registrar.refuses = map[string]error{"not-at": c.failed}
		s.arena.lookAtHomes(t.Context())
		if objects := s.registrar.homes[sword.Home].Incarnation > before; objects != c.objects {
			t.Errorf("with %v it objects: %v", c.failed, objects)
		}
	}
}

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
