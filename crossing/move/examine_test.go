package move

import (
	"strings"
	"testing"
	"time"

	"carnet"
)

// found examines a world, and lists what it finds: "kind reason", with "!" where it is
// wrong.
func found(t *testing.T, a *Agent) (all []string) {
	t.Helper()
	var e carnet.Examination
	if err := a.Examine(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	for _, f := range e.Findings {
		line := f.Kind + " " + f.Reason
		if f.Wrong {
			line = "!" + line
		}
		all = append(all, line)
	}
	return all
}

// one wants exactly one finding, with what says so.
func one(t *testing.T, a *Agent, when string, words ...string) {
	t.Helper()
	all := found(t, a)
	if len(all) != 1 {
		t.Errorf("%s: found %q, want one finding", when, all)
		return
	}
	for _, w := range words {
		if !strings.Contains(all[0], w) {
			t.Errorf("%s: found %q, want %q in it", when, all[0], w)
		}
	}
}

func nothing(t *testing.T, a *Agent, when string) {
	t.Helper()
	if all := found(t, a); len(all) > 0 {
		t.Errorf("%s: found %q, want nothing", when, all)
	}
}

func TestAMoveIsFoundUntilItIsOver(t *testing.T) {
	s := newStage(t)
	nothing(t, s.arena, "before")
	s.ask()
	one(t, s.citadel, "asked", "move", "asked here")
	nothing(t, s.arena, "asked")
	s.order(time.Hour)
	s.registrar.away = true
	s.goOn()
	one(t, s.citadel, "before the register answers", "move", "copying here")
	if all := found(t, s.arena); len(all) == 0 || !strings.HasPrefix(all[0], "move ") {
		t.Errorf("at the source found %q", all)
	}
	s.registrar.away = false
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	nothing(t, s.citadel, "in the end")
	nothing(t, s.arena, "in the end")
}

// Who keeps what it should delete, or doesn't say that it has, is named.
func TestAMissingDeletionIsFound(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	if is := s.citadel.came(s.crossing.ID); is.State != Home || is.Departure != "" {
		t.Fatalf("it is %s, and its departure %q", is.State, is.Departure)
	}
	one(t, s.citadel, "while the source says nothing", "lives here", "arena, where it lived before, hasn't signed yet that it has deleted", "nobody answers")
	s.start("arena")
	s.arena.claimAll(t.Context())
	s.goOn()
	one(t, s.arena, "while the target says nothing", "gone here", "citadel hasn't said that it has it", "is deleted at")
	s.cut["decided"] = nil
	s.goOn()
	nothing(t, s.citadel, "once it has signed")
	nothing(t, s.arena, "once the target has said so")
}

func TestWhatIsLeftOfNoMoveIsFound(t *testing.T) {
	still, room := carnet.CrossingID{7}, carnet.AvatarID{8}
	s := newStage(t)
	s.stores["arena"].frozen[s.avatar] = still
	one(t, s.arena, "an avatar keeps still for nothing", "!avatar", "keeps still for the crossing "+still.String())
	delete(s.stores["arena"].frozen, s.avatar)

	s.stores["arena"].rooms[room] = still
	one(t, s.arena, "there is room for nobody", "!avatar", "there is room")
	s.start("arena") // which deletes it
	nothing(t, s.arena, "after a start")
}

func TestAHomeThatIsElsewhereIsFound(t *testing.T) {
	s := newStage(t)
	h, err := s.arena.Enrol(t.Context(), s.avatar, "")
	if err != nil {
		t.Fatal(err)
	}
	nothing(t, s.arena, "at home")

	known := s.registrar.homes[h.Home]
	there := known
	there.World = didOf("citadel")
	s.registrar.homes[h.Home] = there
	one(t, s.arena, "the register has it elsewhere", "!avatar", "its home is "+didOf("citadel"))

	s.registrar.homes[h.Home] = known
	v := s.stores["arena"].avatars[s.avatar]
	delete(s.stores["arena"].avatars, s.avatar)
	one(t, s.arena, "an avatar that is nowhere", "!avatar", "its home is here, and it isn't")
	s.stores["arena"].avatars[s.avatar] = v

	s.registrar.away = true
	one(t, s.arena, "the register is away", "register", "couldn't be asked")
	s.registrar.away = false
	delete(s.registrar.homes, h.Home)
	nothing(t, s.arena, "a home that was never enrolled")
}

func TestAnItemOfNobodyIsFound(t *testing.T) {
	s := newStage(t)
	i := s.issue("sword")
	nothing(t, s.arena, "an item of an avatar")
	v := s.stores["arena"].avatars[s.avatar]
	delete(s.stores["arena"].avatars, s.avatar)
	all := strings.Join(found(t, s.arena), "\n")
	if !strings.Contains(all, "!item the avatar "+s.avatar.String()+" that has it isn't here") {
		t.Errorf("found %s", all)
	}
	s.stores["arena"].avatars[s.avatar] = v

	held := s.registrar.homes[i.Home]
	held.World = didOf("citadel")
	s.registrar.homes[i.Home] = held
	one(t, s.arena, "an item that the register has elsewhere", "!item", "its home is")
}
