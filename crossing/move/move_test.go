package move

import (
	"errors"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

func (s *stage) want(when string, source, target State, lives ...carnet.PartyID) {
	s.t.Helper()
	if is, it := s.states(); is != source || it != target {
		s.t.Errorf("%s: the source is %q and the target %q; want %q and %q (%s)", when, is, it, source, target, s.citadel.came(s.crossing.ID).progress.Waits)
	}
	if at := s.lives(); !slices.Equal(at, lives) {
		s.t.Errorf("%s: the avatar lives in %v, want %v", when, at, lives)
	}
}

func TestAnAvatarMoves(t *testing.T) {
	s := newStage(t)
	s.stores["citadel"].unfit = 2
	s.ask()
	s.want("before its owner ordered it", None, Asked, "arena")
	s.order(time.Hour)
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	there := s.citadel.came(s.crossing.ID)
	if d, err := identity.OpenDeparture(there.Departure); err != nil || d.Manifest != there.Manifest || d.Unrecoverable.Sub(d.Unreadable) != 30*24*time.Hour {
		t.Errorf("the departure is %+v, %v", d, err)
	}
	v, err := s.stores["citadel"].Avatar(s.crossing.To)
	if err != nil || v.Title != "Runner" || identity.DID(v.OwnerKey) != didOf("owner at citadel") {
		t.Errorf("citadel has %+v, %v", v, err)
	}
	if !there.Surveyed || there.Unfit != 2 {
		t.Errorf("surveyed %t, and found %d batches", there.Surveyed, there.Unfit)
	}
	was := func(steps []Step) (states []State) {
		for _, one := range steps {
			states = append(states, one.State)
		}
		return states
	}
	here := s.arena.left(s.crossing.ID)
	if at, is := was(there.Steps), was(here.Steps); !slices.Equal(at, []State{Asked, Copying, Prepared, Home}) || !slices.Equal(is, []State{Offered, Frozen, Gone}) {
		t.Errorf("the target's steps are %v and the source's %v", at, is)
	}
	if len(s.told) != 1 {
		t.Errorf("things agents were told %d times", len(s.told))
	}
	if h, known := s.citadel.homeOf(s.crossing.To); !known || h.Owner != didOf("owner") {
		t.Errorf("citadel knows of the home: %+v, %v", h, known)
	}
}

func TestAmountIsWhatTheManifestLists(t *testing.T) {
	m := &avatar.Manifest{
		Streams: make([]avatar.MovedStream, 2), Keys: make([]avatar.MovedKey, 3), State: make([]avatar.MovedValue, 5),
		Stretches: []avatar.MovedStretch{{Size: 1000, Batches: 7, Measurements: 70}, {Size: 24, Batches: 4, Measurements: 30}},
	}
	if got, want := amountOf(m), (Amount{Streams: 2, Stretches: 2, Batches: 11, Measurements: 100, Bytes: 1024, Keys: 3, Properties: 5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Whatever is cut or lost, at whichever call, once: it goes on and ends, and the
// avatar lives once. Each world begins anew in between.
func TestAMoveGoesOnAfterAnyBreak(t *testing.T) {
	gone := carnet.Errorf(carnet.Unavailable, "nobody answers")
	for _, call := range []string{"offer", "freeze", "manifest", "decided"} {
		for name, breaks := range map[string]func(*stage) map[string]error{
			"cut": func(s *stage) map[string]error { return s.cut }, "answer lost": func(s *stage) map[string]error { return s.lost },
		} {
			for _, restarted := range []carnet.PartyID{"arena", "citadel"} {
				t.Run(call+" "+name+", "+string(restarted)+" begins anew", func(t *testing.T) {
					s := newStage(t)
					s.ask()
					s.order(time.Hour)
					breaks(s)[call] = gone
					s.goOn()
					s.start(restarted)
					s.goOn()
					delete(breaks(s), call)
					s.goOn()
					s.want("in the end", Gone, Home, "citadel")
				})
			}
		}
	}
}

// A store that fails before any of its writes: the write is done again at the next
// start, and nothing was said that isn't stored.
func TestAMoveGoesOnAfterAnyFailedWrite(t *testing.T) {
	for _, world := range []carnet.PartyID{"arena", "citadel"} {
		s := newStage(t)
		s.ask()
		s.order(time.Hour)
		for range 6 {
			s.stores[world].failKeep = errors.New("the disk is gone")
			s.goOn()
			s.stores[world].failKeep = nil
			s.start(world)
			for _, a := range []*Agent{s.citadel, s.arena} {
				for _, d := range a.dueNow() {
					_ = d.drive(t.Context())
				}
			}
		}
		s.goOn()
		s.want("in the end", Gone, Home, "citadel")
	}
}

func TestTheRegistrarAloneEndsWhatIsSigned(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.registrar.away = true
	s.goOn() // the source can't claim
	s.want("while the registrar is away", Offered, Copying, "arena")
	s.registrar.away = false
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	s.registrar.away = true
	s.goOn()
	s.want("once both have signed", Frozen, Prepared, "arena")
	for name, a := range map[string]*Agent{"source": s.arena, "target": s.citadel} {
		if err := a.Cancel(t.Context(), s.crossing.ID, "operator"); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("the %s was called off: %v", name, err)
		}
	}
	s.want("after somebody wanted to call it off", Frozen, Prepared, "arena")
	s.registrar.away = false
	s.goOn()
	s.want("once the registrar answers", Gone, Home, "citadel")
}

func TestAMoveIsCalledOff(t *testing.T) {
	for name, c := range map[string]struct {
		by             func(*stage) *Agent
		source, target State
	}{
		"at the target": {func(s *stage) *Agent { return s.citadel }, Kept, Dropped},
		"at the source": {func(s *stage) *Agent { return s.arena }, Kept, Dropped},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.ask()
			s.order(time.Hour)
			s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
			s.goOn()
			s.want("while it is copied", Offered, Copying, "arena")
			if err := c.by(s).Cancel(t.Context(), s.crossing.ID, "operator"); err != nil {
				t.Fatal(err)
			}
			delete(s.cut, "freeze")
			s.goOn()
			s.want("in the end", c.source, c.target, "arena")
			if len(s.stores["arena"].frozen)+len(s.stores["citadel"].arriving) > 0 {
				t.Error("something is left half-done")
			}
		})
	}
	s := newStage(t)
	s.ask()
	if err := s.citadel.Cancel(t.Context(), s.crossing.ID, "operator"); err != nil {
		t.Fatal(err)
	}
	s.want("called off before it was ordered", None, Dropped, "arena")
}

// What a source released before it began anew is worth nothing once it has claimed its
// homes; nothing of a target that doesn't answer is deleted meanwhile.
func TestAnOlderReleaseIsWorthNothing(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	older := s.stores["arena"].copied()
	delete(s.cut, "freeze")
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	s.want("once both have signed", Frozen, Prepared, "arena")
	s.stores["arena"] = older
	s.start("arena")
	s.arena.claimAll(t.Context())
	s.goOn()
	s.want("in the end", Kept, Dropped, "arena")
}

// A source keeps what has moved until its target says that it has it.
func TestASourceWaitsForItsTarget(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	s.want("while the target can't say that it has it", Gone, Home, "citadel")
	if l := s.arena.left(s.crossing.ID); l.Departure != "" || !s.stores["arena"].gone[s.avatar].Cleared.IsZero() {
		t.Errorf("it is deleted already: %+v", l)
	}
	s.arena.Now = func() time.Time { return time.Now().Add(keepFor + time.Hour) }
	s.goOn()
	if l := s.arena.left(s.crossing.ID); l.Departure == "" {
		t.Error("it is never deleted")
	}
	delete(s.cut, "decided")
	s.goOn()
	if there := s.citadel.came(s.crossing.ID); there.Departure == "" {
		t.Error("the target has no departure")
	}
}

// Rooms that a crash left by no move are deleted at the start.
func TestRoomsOfNoMoveAreDeleted(t *testing.T) {
	s := newStage(t)
	if _, err := s.stores["citadel"].Expect(t.Context(), carnet.NewCrossingID(), "nobody"); err != nil {
		t.Fatal(err)
	}
	s.ask()
	s.start("citadel")
	if n := len(s.stores["citadel"].arriving); n != 1 {
		t.Errorf("%d rooms, want that of the move", n)
	}
}

// What the register doesn't say isn't believed.
func TestAHomeThatTheRegisterDoesNotKnow(t *testing.T) {
	s := newStage(t)
	d, err := s.arena.Enrol(t.Context(), s.avatar)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Registered){
		"another home":     func(r *Registered) { r.Home[0]++ },
		"another owner":    func(r *Registered) { r.Owner = didOf("mallory") },
		"another register": func(r *Registered) { r.Registrar = didOf("mallory") },
	} {
		home := d.Registered
		change(&home)
		if _, err := s.citadel.Ask(t.Context(), "operator", Wanted{From: "arena", Home: home, Properties: d.Properties}); err == nil {
			t.Errorf("room was made for %s", name)
		}
	}
	if n := len(s.stores["citadel"].arriving); n != 0 {
		t.Errorf("%d rooms are left", n)
	}
}

// A source whose store is restored from before it released: what it released then is
// worth nothing once it has gone on, and if it was used, the register knows.
func TestASourceIsRestored(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	older := s.stores["arena"].copied()
	delete(s.cut, "freeze")
	s.registrar.away = false
	s.goOn()
	s.want("before", Gone, Home, "citadel")
	s.stores["arena"] = older
	s.start("arena")
	h, _ := s.arena.homeOf(s.avatar)
	if _, err := s.arena.claim(t.Context(), h.Registrar, h.Home); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the restored source claims to be home: %v", err)
	}
	there := s.citadel.came(s.crossing.ID)
	if _, err := s.Decided(t.Context(), there.visit(), Decided{there.SignedOrder, there.Decision}); err != nil {
		t.Fatal(err)
	}
	s.want("once it was told again", Gone, Home, "citadel")
}
