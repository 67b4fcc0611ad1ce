package move

import (
	"context"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
)

// manifests counts those that a world has stored.
func (s *store) manifests() (n int) {
	defer s.lock()()
	for at := range s.documents {
		if at[0] == kindManifest {
			n++
		}
	}
	return n
}

// A manifest, which says what an avatar has and when it was measured, is stored as long as
// somebody may need it: after an abort at neither world, after a departure at the target.
func TestManifestsAreKeptWhileTheyAreNeeded(t *testing.T) {
	prepared := func() *stage {
		s := newStage(t)
		s.ask()
		s.order(time.Hour)
		if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
			t.Fatal(err)
		}
		if from, to := s.stores["arena"].manifests(), s.stores["citadel"].manifests(); from != 1 || to != 1 {
			t.Fatalf("prepared, the source has %d manifests and the target %d", from, to)
		}
		return s
	}
	s := prepared()
	older := map[carnet.PartyID]*store{"arena": s.stores["arena"].copied(), "citadel": s.stores["citadel"].copied()}
	s.tomorrow()
	s.goOn()
	s.want("aborted", Kept, Dropped, "arena")
	gone := func(when string) {
		t.Helper()
		if from, to := s.stores["arena"].manifests(), s.stores["citadel"].manifests(); from != 0 || to != 0 {
			t.Errorf("%s, the source has %d manifests and the target %d", when, from, to)
		}
		if is := s.citadel.came(s.crossing.ID); is.Request != nil {
			t.Errorf("%s, the target has the request still", when)
		}
	}
	gone("aborted")
	// A process of before left them.
	at := [2]string{kindManifest, s.crossing.ID.String()}
	for name, had := range older {
		s.stores[name].documents[at], s.stores[name].versions[at] = had.documents[at], 1
	}
	again := s.citadel.came(s.crossing.ID)
	again.Request = s.crossing.Request
	if err := s.citadel.keepTarget(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	s.arena.forgetOver(t.Context())
	s.citadel.forgetOver(t.Context())
	gone("looked at after a start")
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, s.ordered); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("ordered again once it is dropped: %v", err)
	}

	s = prepared()
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	if from := s.stores["arena"].manifests(); from != 1 {
		t.Errorf("a source that hasn't heard of its target has %d manifests", from)
	}
	delete(s.cut, "decided")
	s.goOn()
	s.want("moved", Gone, Home, "citadel")
	if from, to := s.stores["arena"].manifests(), s.stores["citadel"].manifests(); from != 0 || to != 1 {
		t.Errorf("moved and departed, the source has %d manifests and the target %d", from, to)
	}
}

// An item on its way to an avatar that is erased comes home, and its source hears of it,
// before that is forgotten.
func TestAnItemComesToAnErasedAvatar(t *testing.T) {
	s := newStage(t)
	s.ownThere = s.owner
	s.takes()
	sword := s.issue("sword")
	s.asks(s.itself(sword))
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	to := s.crossing.To
	store := s.stores["citadel"]
	delete(store.avatars, to)
	store.gone[to] = avatar.Destination{Erasure: carnet.ErasureID{1}}
	if err := s.citadel.Forget(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if is := s.citadel.came(s.crossing.ID); is.Erased || store.manifests() != 1 {
		t.Errorf("before it is decided it is forgotten: %t, and there are %d manifests", is.Erased, store.manifests())
	}
	s.goOn()
	if source, target := s.states(); source != Gone || target != Home || !s.arena.left(s.crossing.ID).Heard {
		t.Fatalf("the source is %s, the target %s: %s", source, target, s.citadel.came(s.crossing.ID).progress.Waits)
	}
	if is := s.citadel.came(s.crossing.ID); !is.Erased || is.Request != nil || store.manifests() != 0 {
		t.Errorf("in the end it is forgotten: %t, and there are %d manifests", is.Erased, store.manifests())
	}
}

// endless lists stretches for ever.
type endless struct {
	Far
	n     uint64
	at    int // how many at once
	after func(n uint64)
}

func (e *endless) Stretches(context.Context, Visit, avatar.Place) (page []avatar.MovedStretch, err error) {
	for range e.at {
		page = append(page, avatar.MovedStretch{Stream: carnet.StreamID{1}, First: e.n, Last: e.n})
		e.n++
	}
	e.after(e.n)
	return page, nil
}

// A source that lists stretches without end, of which none has to be fetched, holds up
// neither the calling off of its move nor the end of the order's time.
func TestAListWithoutEnd(t *testing.T) {
	id := carnet.CrossingID{1}
	lists := func(at int, change func(*Agent)) error {
		a := &Agent{targets: map[carnet.CrossingID]*atTarget{id: {AtTarget: AtTarget{ID: id, State: Copying, Until: noon.Add(time.Hour)}}}}
		a.Now = func() time.Time { return noon }
		a.World = &full{}
		a.Far = &endless{at: at, after: func(n uint64) {
			if n == 6 {
				change(a)
			} else if n > 6*pageOfStretches {
				panic("it reads on")
			}
		}}
		_, err := a.copyListed(t.Context(), a.came(id), []avatar.MovedStream{{Stream: carnet.StreamID{1}}}, false)
		return err
	}
	for name, change := range map[string]func(*Agent){
		"called off": func(a *Agent) { a.targets[id] = &atTarget{AtTarget: AtTarget{ID: id, State: Leaving}} },
		"too late":   func(a *Agent) { a.Now = func() time.Time { return noon.Add(time.Hour) } },
	} {
		if err := lists(2, change); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := lists(pageOfStretches+1, nil); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a page of too many: %v", err)
	}
}

// What was or is to be here under a home is the same avatar as what comes by it.
func TestWhatIsAlikeHasOneHome(t *testing.T) {
	s := newStage(t)
	s.ask()
	home := s.crossing.Home.Home
	if all := s.citadel.alike(home); !slices.Equal(all, []carnet.AvatarID{s.crossing.To}) {
		t.Errorf("while it is to come it is %v", all)
	}
	s.order(time.Hour)
	s.goOn()
	s.want("moved", Gone, Home, "citadel")
	if all := s.arena.alike(home); !slices.Equal(all, []carnet.AvatarID{s.avatar}) {
		t.Errorf("where it left it is %v", all)
	}
	if all := s.citadel.alike(home); !slices.Contains(all, s.crossing.To) {
		t.Errorf("where it came it is %v", all)
	}
	if all := s.citadel.alike(carnet.HomeID{9}); len(all) > 0 {
		t.Errorf("under another home it is %v", all)
	}
}
