package move

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"sync"
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

// An avatar that moved on is cleared at once, and its key stays until its former home has
// signed its departure, which is asked for with it: seven days at most.
func TestAKeyStaysUntilTheFormerHomeHasSigned(t *testing.T) {
	for _, how := range []string{"signed", "never signed"} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t)
			s.ask()
			s.order(time.Hour)
			s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
			s.goOn()
			s.want("without the former home's word", Gone, Home, "citadel")
			there, store, now := s.citadel.came(s.crossing.ID), s.stores["citadel"], time.Now()
			s.citadel.Now = func() time.Time { return now }

			// It moves on, before it was surveyed.
			there.Surveyed = false
			s.citadel.targets[there.ID] = &there
			x := carnet.NewCrossingID()
			delete(store.avatars, there.To)
			store.gone[there.To] = avatar.Destination{Crossing: x, World: "clinic"}
			s.citadel.sources[x] = &atSource{AtSource: AtSource{ID: x, Avatar: there.To, State: Gone, Heard: true, Ended: now}}
			s.goOn()
			if on := s.citadel.left(x); on.Departure == "" || store.gone[there.To].Cleared.IsZero() {
				t.Errorf("it isn't cleared: %+v", on.AtSource)
			}
			if !s.citadel.came(there.ID).Surveyed {
				t.Error("it is to be surveyed where it isn't any more")
			}
			if s.citadel.left(x).Silent || store.silent[there.To] {
				t.Error("its key is gone before its former home has signed")
			}
			s.start("citadel")
			s.citadel.Now = func() time.Time { return now }
			s.goOn()
			if !s.citadel.sources[x].open() || store.silent[there.To] {
				t.Error("its key is forgotten with a start")
			}
			if how == "signed" {
				s.cut["decided"] = nil
			} else {
				now = now.Add(keepFor)
			}
			s.goOn()
			if !store.silent[there.To] || s.citadel.sources[x].open() {
				t.Error("its key stays for ever")
			}
			if was := s.citadel.came(there.ID); how == "signed" && (was.Departure == "" || was.open(s.citadel.known()) || !was.Surveyed) {
				t.Errorf("the move by which it came isn't over: %+v", was.AtTarget)
			}
		})
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
	for _, stage := range []func(*testing.T) *stage{newStage, newRedactedStage} {
		breakEach(t, stage)
	}
}

func breakEach(t *testing.T, staged func(*testing.T) *stage) {
	gone := carnet.Errorf(carnet.Unavailable, "nobody answers")
	for _, call := range []string{"offer", "freeze", "manifest", "decided"} {
		for name, breaks := range map[string]func(*stage) map[string]error{
			"cut": func(s *stage) map[string]error { return s.cut }, "answer lost": func(s *stage) map[string]error { return s.lost },
		} {
			for _, restarted := range []carnet.PartyID{"arena", "citadel"} {
				t.Run(call+" "+name+", "+string(restarted)+" begins anew", func(t *testing.T) {
					s := staged(t)
					s.ask()
					s.order(time.Hour)
					breaks(s)[call] = gone
					s.goOn()
					s.start(restarted)
					s.goOn()
					delete(breaks(s), call)
					s.goOn()
					s.want("in the end", Gone, Home, "citadel")
					s.left()
				})
			}
		}
	}
}

// A store that fails before any of its writes: the write is done again at the next
// start, and nothing was said that isn't stored.
func TestAMoveGoesOnAfterAnyFailedWrite(t *testing.T) {
	for i, world := range []carnet.PartyID{"arena", "citadel", "arena", "citadel"} {
		s := newStage(t)
		if i > 1 {
			s = newRedactedStage(t)
		}
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
		s.left()
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
	d, err := s.arena.Enrol(t.Context(), s.avatar, "")
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
	s.stores["arena"].streams = []avatar.MovedStream{hubs}
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
	s.told = nil
	if err := s.citadel.tellSource(t.Context(), there); err != nil {
		t.Fatal(err)
	}
	s.want("once it was told again", Gone, Home, "citadel")
	// By the target's word things agents are told what the older copy doesn't know.
	told := slices.Concat(s.told...)
	if len(told) != 1 || told[0].Stream != hubs.Stream || told[0].NextFirst != hubs.NextFirst || told[0].Decision != there.Decision {
		t.Errorf("things agents are told of %d", len(told))
	}
}

// A source that was restored from before the offer hears from the register first that
// the avatar has gone, and by which order from the target: then all ends as it should.
func TestASourceHearsFromTheRegisterFirst(t *testing.T) {
	s := newStage(t)
	s.stores["arena"].streams = []avatar.MovedStream{hubs}
	s.ask()
	older := s.stores["arena"].copied()
	s.order(time.Hour)
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	s.stores["arena"] = older
	s.start("arena")
	s.arena.claimAll(t.Context())
	if l := s.arena.left(s.crossing.ID); l.State != Gone || l.Order != "" {
		t.Fatalf("by the register alone it is %+v", l.AtSource)
	}
	s.told, s.cut["decided"] = nil, nil
	s.start("arena")
	s.goOn()
	s.want("once it was told", Gone, Home, "citadel")
	there, l := s.citadel.came(s.crossing.ID), s.arena.left(s.crossing.ID)
	if there.Departure == "" || l.Order != there.Order || l.To != "citadel" || !l.Heard || !l.Silent {
		t.Errorf("the target has the departure %q, and the source %+v", there.Departure, l.AtSource)
	}
	if told := slices.Concat(s.told...); len(told) != 1 || told[0].Order != there.Order || told[0].NextFirst != hubs.NextFirst || told[0].Decision != there.Decision {
		t.Errorf("things agents are told %+v", told)
	}
	s.start("arena")
	if again := s.arena.left(s.crossing.ID); again.Order != there.Order {
		t.Error("by which order it went is forgotten with a start")
	}
}

// A source whose store is from before its avatar was registered derives the same home
// again: it learns that the avatar has left, from its target and from the register.
func TestASourceIsRestoredFromBeforeItWasRegistered(t *testing.T) {
	for _, how := range []string{"the target tells", "the register tells"} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t)
			older := s.stores["arena"].copied()
			s.ask()
			s.order(time.Hour)
			s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
			s.goOn()
			s.want("before", Gone, Home, "citadel")
			s.stores["arena"] = older
			s.start("arena")
			if how == "the register tells" {
				s.arena.claimAll(t.Context())
				s.want("once it has asked", Gone, Home, "citadel")
			}
			delete(s.cut, "decided")
			s.goOn()
			s.want("in the end", Gone, Home, "citadel")
			if l, there := s.arena.left(s.crossing.ID), s.citadel.came(s.crossing.ID); l.Departure == "" || l.Departure != there.Departure {
				t.Errorf("arena has %+v, citadel the departure %q", l.AtSource, there.Departure)
			}
			s.start("arena")
			if h, known := s.arena.homeOf(s.avatar); !known || h.Home != s.crossing.Home.Home {
				t.Errorf("it has forgotten under which home it was here: %+v", h)
			}
		})
	}
}

// An avatar that was never registered isn't asked for twice, and its owner's order for
// it is the only one that is taken.
func TestAnAvatarThatIsNotRegistered(t *testing.T) {
	s := newStage(t)
	s.arena.claimAll(t.Context())
	if _, known := s.arena.homeOf(s.avatar); known {
		t.Error("it is said to be registered")
	}
	h, err := s.arena.HomeOf(s.avatar)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.arena.NoteHome(t.Context(), h); err != nil { // as a request to erase it does
		t.Fatal(err)
	}
	s.start("arena")
	s.arena.claimAll(t.Context()) // ends
	if _, err := s.arena.World.Avatar(s.avatar); err != nil {
		t.Error(err)
	}
}

// A move that nobody orders is called off by itself, and nothing of it is left.
func TestAMoveThatNobodyOrders(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.goOn()
	s.want("soon after", None, Asked, "arena")
	s.start("citadel")
	s.goOn()
	s.want("after a start", None, Asked, "arena")
	if due := s.citadel.dueNow(); len(due) > 0 {
		t.Errorf("the registrar is asked about it for ever")
	}
	s.citadel.Now = func() time.Time { return time.Now().Add(orderedWithin + time.Minute) }
	s.goOn()
	s.want("in the end", None, Dropped, "arena")
	if n := len(s.stores["citadel"].arriving); n != 0 {
		t.Errorf("%d rooms are left", n)
	}
}

// While one avatar's move waits for the registrar, others go on.
func TestAMoveHoldsUpNoOther(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	first, held := s.crossing, make(chan struct{})
	waits := s.registrar.wait(first.Home.Home, held)
	frozen := make(chan error, 1)
	go func() { frozen <- s.citadel.copy(t.Context(), s.citadel.came(first.ID)) }()
	<-waits
	release := sync.OnceFunc(func() { close(held) })
	time.AfterFunc(10*time.Second, release)
	s.avatar = carnet.AvatarID{2}
	s.stores["arena"].avatars[s.avatar] = avatar.Info{ID: s.avatar, Title: "Runner", OwnerKey: s.owner.Public().(ed25519.PublicKey), Properties: []string{"heart_rate"}}
	s.ask()
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Error(err)
	}
	select {
	case <-held:
		t.Error("it waited for the other avatar's move")
	default:
		release()
	}
	if err := <-frozen; err != nil {
		t.Error(err)
	}
}

// A move that is ordered while another one isn't decided waits for that, and the
// registrar is asked of it at once.
func TestAMoveWaitsForAnother(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	s.want("once both have signed", Frozen, Prepared, "arena")
	first := s.arena.left(s.crossing.ID)
	s.registrar.decided[first.ID] = &identity.Decision{
		Registrar: s.registrar.did(), Crossing: first.ID, Order: carnet.FingerprintOf([]byte(first.Order)), Outcome: identity.Abort, Why: "it was called off", Time: time.Now().UTC().Truncate(time.Second),
	}
	if first.failed++; first.failed > 0 {
		first.notTill = time.Now().Add(longPause) // it was asked often
	}
	s.arena.sources[first.ID] = &first
	s.ask()
	s.order(time.Hour)
	second := s.crossing.ID
	_ = s.citadel.goOnAtTarget(t.Context(), second)
	if state := s.citadel.came(second).State; state != Copying {
		t.Errorf("the second move is %s: %s", state, s.citadel.came(second).Why)
	}
	due := s.arena.due()
	if !slices.ContainsFunc(due, func(d driven) bool { return d.id == first.ID }) {
		t.Error("nobody asks of the first")
	}
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}

// A move that waits for somebody is gone on with within seconds once there is an order,
// however often that failed; what only tells and deletes, once it is decided, takes a
// minute.
func TestAnOrderedMoveIsTriedOften(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	id := s.crossing.ID
	rest := func(state State) time.Duration {
		t.Helper()
		if is := s.citadel.came(id); is.State != state {
			t.Fatalf("it is %s: %s", is.State, is.Why)
		}
		return s.citadel.came(id).notTill.Sub(s.citadel.Now())
	}
	away := carnet.Errorf(carnet.Unavailable, "nobody answers")
	fails := func() {
		t.Helper()
		for range 12 {
			if err := s.citadel.goOnAtTarget(t.Context(), id); err == nil {
				t.Fatal("nothing fails")
			}
		}
	}
	s.cut["offer"] = away
	fails()
	if r := rest(Copying); r < time.Second || r > 10*time.Second {
		t.Errorf("it rests %s", r)
	}
	s.cut["offer"] = nil
	if err := s.citadel.copy(t.Context(), s.citadel.came(id)); err != nil {
		t.Fatal(err)
	}
	s.registrar.away = true
	fails()
	if r := rest(Prepared); r < time.Second || r > 10*time.Second {
		t.Errorf("ready, it rests %s", r)
	}
	for range 12 {
		_ = s.arena.goOnAtSource(t.Context(), id)
	}
	if l := s.arena.left(id); l.State != Frozen || l.notTill.Sub(s.arena.Now()) > 10*time.Second {
		t.Errorf("where it is %s it rests %s", l.State, l.notTill.Sub(s.arena.Now()))
	}
	s.registrar.away = false
	if err := s.citadel.goOnAtTarget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.cut["decided"] = away
	fails()
	if r := rest(Home); r <= 10*time.Second {
		t.Errorf("at home it rests %s only", r)
	}
}

// A freeze that fails half-way leaves nothing that another move would take for a reason
// to end.
func TestAFreezeThatFailsEndsNoOtherMove(t *testing.T) {
	broken := carnet.Errorf(carnet.Unavailable, "the disk is gone")
	for _, how := range []string{"it goes on", "that fails, too"} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t)
			s.ask()
			s.order(time.Hour)
			first, store := s.crossing.ID, s.stores["arena"]
			store.failFix = broken
			if how == "that fails, too" {
				store.failThaw = broken
			}
			if err := s.citadel.copy(t.Context(), s.citadel.came(first)); carnet.CodeOf(err) != carnet.Unavailable {
				t.Fatal(err)
			}
			if still := len(store.frozen); still != 0 && store.failThaw == nil {
				t.Error("it keeps still for nothing")
			}
			s.ask()
			s.order(time.Hour)
			_ = s.citadel.goOnAtTarget(t.Context(), s.crossing.ID)
			if it := s.citadel.came(s.crossing.ID); it.State != Copying && it.State != Prepared {
				t.Errorf("the other is %s, since %s", it.State, it.Why)
			}
			store.failThaw = nil
			s.start("arena")
			s.goOn()
			ended := []State{s.citadel.came(first).State, s.citadel.came(s.crossing.ID).State}
			if slices.Sort(ended); !slices.Equal(ended, []State{Dropped, Home}) {
				t.Errorf("in the end they are %v: %+v", ended, s.citadel.came(first).progress)
			}
		})
	}
}

// A source that hears of the end of a move that was only offered doesn't claim the
// avatar's home for it: that would void what it has released for another one meanwhile.
func TestAnAbortVoidsNoOtherRelease(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	first := s.crossing.ID
	s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	_ = s.citadel.goOnAtTarget(t.Context(), first)
	s.want("at first", Offered, Copying, "arena")
	if err := s.citadel.Cancel(t.Context(), first, "operator"); err != nil {
		t.Fatal(err)
	}
	if err := s.citadel.goOnAtTarget(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	s.cut["freeze"] = nil
	s.ask()
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	s.want("once both have signed", Frozen, Prepared, "arena")
	if err := s.arena.goOnAtSource(t.Context(), first); err != nil || s.arena.left(first).State != Kept {
		t.Errorf("the first move is %s at its source: %v", s.arena.left(first).State, err)
	}
	for len(s.arena.claims) > 0 { // as watchHomes does
		h := <-s.arena.claims
		if _, err := s.arena.claim(t.Context(), h.Registrar, h.Home); err != nil {
			t.Error(err)
		}
	}
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}

// A home that comes back has another incarnation than the one that was claimed when it was
// here before: what named that would be worth nothing.
func TestAHomeThatComesBackIsClaimedAnew(t *testing.T) {
	s := newStage(t)
	s.ask()
	home := s.crossing.Home
	s.citadel.claimed[home.Home] = 77 // it was here before, since the start
	s.order(time.Hour)
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	incarnation, err := s.citadel.claim(t.Context(), home.Registrar, home.Home)
	if is := s.registrar.homes[home.Home].Incarnation; err != nil || incarnation != is {
		t.Errorf("incarnation %d is claimed, %v, and the register has %d", incarnation, err, is)
	}
}

// A passport claims the home that it is of, which isn't done while that is released.
func TestNoPassportVoidsARelease(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	s.start("arena")
	if _, err := s.arena.Export(t.Context(), Wish{Avatar: s.avatar, Signer: s.owner.Public().(ed25519.PublicKey)}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a passport of an avatar that keeps still: %v", err)
	}
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}

// hubs is a stream of hub's that arena has received.
var hubs = avatar.MovedStream{Stream: carnet.StreamID{1}, NextBatch: 3, NextFirst: 7, Here: true, Origin: avatar.Origin{
	World: "arena", Ledger: "vault", LedgerKey: "key", Sender: "hub", Audience: "arena", Key: keyOf("hub").Public().(ed25519.PublicKey),
}}

// A things agent that comes for an avatar after that has moved on is told where it went,
// and nobody else is; who sent to a former home of it isn't told again.
func TestAThingsAgentThatComesLate(t *testing.T) {
	s := newStage(t)
	own, former := hubs, avatar.MovedStream{Stream: carnet.StreamID{2}, Origin: hubs.Origin}
	s.stores["arena"].streams = []avatar.MovedStream{own, former}
	s.ask()
	s.order(time.Hour)
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	if len(s.told) != 1 || len(s.told[0]) != 1 || s.told[0][0].Stream != own.Stream || s.told[0][0].NextFirst != own.NextFirst {
		t.Errorf("things agents are told of %d", len(s.told))
	}
	asks := func(by string) (carnet.MapAnswer, error) {
		word, err := identity.SignOnward(keyOf(by), identity.Onward{Crossing: s.crossing.ID, Sender: didOf(by), Target: didOf("citadel"), Former: own.Stream, Stream: carnet.StreamID{9}})
		if err != nil {
			t.Fatal(err)
		}
		return s.citadel.Onward(t.Context(), carnet.MapRequest{Stream: carnet.StreamID{9}, Order: s.ordered.Order, Terms: s.ordered.Terms, Onward: word})
	}
	if answer, err := asks("hub"); err != nil || answer.Avatar != s.crossing.To || answer.Moved != nil {
		t.Errorf("at its home it is %+v, %v", answer, err)
	}
	// Neither is an item told of that left it alone.
	item := atSource{AtSource: AtSource{ID: carnet.NewCrossingID(), Avatar: s.crossing.To, State: Gone, SignedOrder: SignedOrder{"order", []byte(`{"alone":true}`)}, Decision: "decision"}}
	s.citadel.sources[item.ID] = &item
	if answer, err := asks("hub"); err != nil || answer.Avatar != s.crossing.To || answer.Moved != nil {
		t.Errorf("once an item of it has left alone it is %+v, %v", answer, err)
	}
	s.stores["citadel"].gone[s.crossing.To] = avatar.Destination{}
	if answer, err := asks("hub"); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("while it isn't known where it went it is %+v, %v", answer, err)
	}
	on := atSource{AtSource: AtSource{ID: carnet.NewCrossingID(), Avatar: s.crossing.To, State: Gone, SignedOrder: SignedOrder{"order", []byte("terms")}, Decision: "decision"}}
	s.citadel.sources[on.ID] = &on
	answer, err := asks("hub")
	if err != nil || answer.Moved == nil || answer.Moved.Order != on.Order || answer.Moved.Decision != on.Decision || answer.Moved.Stream != (carnet.StreamID{9}) {
		t.Errorf("once it has moved on it is %+v, %v", answer, err)
	}
	if answer, err := asks("mallory"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("mallory is told %+v, %v", answer, err)
	}
}

// A home that is claimed after the start, while it is about to be released, is claimed
// once: otherwise the release would be worth nothing.
func TestAHomeIsClaimedOnce(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.start("arena")
	over := make(chan struct{})
	home := s.crossing.Home.Home
	waits := s.registrar.wait(home, over)
	all := make(chan struct{})
	go func() { defer close(all); s.arena.claimAll(t.Context()) }()
	<-waits
	s.registrar.mu.Lock()
	s.registrar.waiting = nil
	s.registrar.mu.Unlock()
	copied := make(chan error, 1)
	go func() { copied <- s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)) }()
	time.Sleep(50 * time.Millisecond) // it is at the claim by then, or has passed it
	close(over)
	<-all
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}

func visitOf(t atTarget) Visit { return t.visit() }
