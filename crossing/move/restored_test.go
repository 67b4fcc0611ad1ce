package move

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
)

// A target whose store is restored from before it had everything fetches it again from
// the source, which gives it until it hears that the avatar is there; whatever the target
// wants by then, since the registrar has decided.
func TestATargetIsRestored(t *testing.T) {
	for name, c := range map[string]struct {
		then   func(*stage)
		heard  bool
		target State
	}{
		"while it copied":                      {func(*stage) {}, false, Home},
		"and the move is called off":           {func(s *stage) { _ = s.citadel.Cancel(s.t.Context(), s.crossing.ID, "operator") }, false, Home},
		"when the source has deleted it":       {func(*stage) {}, true, Leaving},
		"from before the order, handed in now": {func(s *stage) { s.take() }, false, Home},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.ask()
			older := s.stores["citadel"].copied()
			s.order(time.Hour)
			if name != "from before the order, handed in now" {
				older = s.stores["citadel"].copied()
			}
			if !c.heard {
				s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
			}
			s.goOn()
			s.want("before", Gone, Home, "citadel")
			s.stores["citadel"] = older
			s.start("citadel")
			c.then(s)
			s.goOn()
			delete(s.cut, "decided")
			s.goOn()
			if c.target != Home {
				s.want("in the end", Gone, c.target)
				if waits := s.citadel.came(s.crossing.ID).progress.Waits; !strings.Contains(waits, "what it had isn't") {
					t.Errorf("it says %q", waits)
				}
				return
			}
			s.want("in the end", Gone, Home, "citadel")
			if l := s.arena.left(s.crossing.ID); l.Departure == "" {
				t.Error("the source never hears of it")
			}
		})
	}
}

// What a source keeps for seven days can be had as long, though the mandate was over after
// one: the registrar's decision proves what is asked for.
func TestWhatHasMovedNeedsNoMandate(t *testing.T) {
	for name, c := range map[string]struct {
		asked bool // the copy is from before the order
		then  func(*stage)
	}{
		"while it copied":                                  {then: func(*stage) {}},
		"while it copied, and its time is over":            {then: func(s *stage) { s.tomorrow() }},
		"from before the order":                            {asked: true, then: func(s *stage) { s.tomorrow(); s.take() }},
		"from before the order, which nobody has any more": {asked: true, then: func(s *stage) { s.tomorrow() }},
		"from before the order, in its time":               {asked: true, then: func(s *stage) { s.take() }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.stores["arena"].streams = []avatar.MovedStream{hubs}
			s.ask()
			older := s.stores["citadel"].copied()
			s.order(24 * time.Hour)
			if !c.asked {
				older = s.stores["citadel"].copied()
			}
			s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
			s.goOn()
			s.want("before", Gone, Home, "citadel")
			s.stores["citadel"] = older
			s.start("citadel")
			s.ended = true
			c.then(s)
			s.goOn()
			s.want("without a mandate", Gone, Home, "citadel")
			delete(s.cut, "decided")
			s.goOn()
			if there := s.citadel.came(s.crossing.ID); there.Departure == "" || there.Departure != s.arena.left(s.crossing.ID).Departure {
				t.Errorf("the departure isn't had: %+v", there.AtTarget)
			}
		})
	}
}

// An item that the registrar has moved here comes, though this store is from before its
// order: also if the avatar that it comes to has no room for another by now, keeps still,
// or has said farewell. Before it was decided all of that refuses it.
func TestACommittedItemComesToWhoeverItWasOrderedTo(t *testing.T) {
	there := carnet.AvatarID{0xcc}
	for name, then := range map[string]func(*stage){
		"which is full": func(s *stage) {
			for range item.MaxOf {
				if _, err := s.items["citadel"].Issue(s.t.Context(), item.Draft{Avatar: there, Kind: "cap", Title: "Cap"}); err != nil {
					s.t.Fatal(err)
				}
			}
		},
		"which keeps still": func(s *stage) { s.stores["citadel"].frozen[there] = carnet.CrossingID{7} },
		"which has said farewell": func(s *stage) {
			v := s.stores["citadel"].avatars[there]
			v.Key = keyOf("there").Public().(ed25519.PublicKey)
			s.stores["citadel"].avatars[there] = v
			wish := Wish{Avatar: there, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: true}
			if _, err := s.citadel.Export(s.t.Context(), wish); err != nil {
				s.t.Fatal(err)
			}
		},
		"which isn't here any more": func(s *stage) { delete(s.stores["citadel"].avatars, there) },
	} {
		for _, c := range []struct{ asked, hand bool }{{true, false}, {true, true}, {false, false}} {
			s := newStage(t)
			s.ownThere = s.owner
			s.takes()
			sword := s.issue("sword")
			s.asks(s.itself(sword))
			then(s)
			r, _, err := identity.ParseMoveRequest(s.crossing.Request)
			if err != nil {
				t.Fatal(err)
			}
			order, terms, err := r.Sign(s.owner, s.ownThere, time.Now(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: order, Terms: terms, Mandate: "mandate"}); err == nil {
				t.Errorf("it is ordered to an avatar %s", name)
			}

			s = newStage(t)
			s.ownThere = s.owner
			s.takes()
			sword = s.issue("sword")
			s.asks(s.itself(sword))
			older := s.stores["citadel"].copied()
			s.order(time.Hour)
			if !c.asked {
				older = s.stores["citadel"].copied()
			}
			s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
			s.goOn()
			s.moved(sword.ID)
			s.stores["citadel"] = older
			s.start("citadel")
			if at := s.is(sword.ID); at != "" {
				t.Fatalf("%s: after the restore the item is in %q", name, at)
			}
			then(s)
			if c.hand {
				s.take()
			}
			s.goOn()
			if _, it := s.states(); it != Home {
				t.Errorf("%s, %+v: it is %s at the target: %s", name, c, it, s.citadel.came(s.crossing.ID).progress.Waits)
			} else {
				s.moved(sword.ID)
			}
			if name != "which is full" || s.is(sword.ID) != "citadel" {
				continue
			}
			// Its farewell would leave one behind, and isn't said.
			v := s.stores["citadel"].avatars[there]
			v.Key = keyOf("there").Public().(ed25519.PublicKey)
			s.stores["citadel"].avatars[there] = v
			wish := Wish{Avatar: there, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: true}
			if _, err := s.citadel.Export(t.Context(), wish); carnet.CodeOf(err) != carnet.TooLarge || len(s.stores["citadel"].frozen) > 0 {
				t.Errorf("a farewell with an item too many: %v; it keeps still for %v", err, s.stores["citadel"].frozen)
			}
		}
	}
}

// tomorrow is when orders and mandates of today are over.
func (s *stage) tomorrow() {
	later := func() time.Time { return time.Now().Add(25 * time.Hour) }
	s.citadel.Now, s.registrar.now = later, later()
}

// A move that waits for its order isn't dropped, by a person, an hour or another order,
// when it has come: this store is from before its order came.
func TestWhatHasComeIsNotDropped(t *testing.T) {
	s := newStage(t)
	s.ask()
	older := s.stores["citadel"].copied()
	s.order(time.Hour)
	first := s.ordered
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	s.want("before", Gone, Home, "citadel")
	s.stores["citadel"] = older
	s.start("citadel")
	s.cut["ordered"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	if err := s.citadel.Cancel(t.Context(), s.crossing.ID, "operator"); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("called off: %v", err)
	}
	s.citadel.Now = func() time.Time { return time.Now().Add(orderedWithin + time.Minute) }
	s.goOn()
	s.want("after its time", Gone, Asked)
	if waits := s.citadel.came(s.crossing.ID).progress.Waits; !strings.Contains(waits, "before its order came") {
		t.Errorf("it says %q", waits)
	}
	s.citadel.Now = time.Now
	r, _, err := identity.ParseMoveRequest(s.crossing.Request)
	if err != nil {
		t.Fatal(err)
	}
	order, terms, err := r.Sign(s.owner, s.ownThere, time.Now().Add(time.Second), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: order, Terms: terms, Mandate: "mandate"}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("another order is taken: %v", err)
	}
	s.registrar.away = true
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, first); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("while nobody can say what was decided: %v", err)
	}
	s.registrar.away = false
	s.ordered = first
	s.take()
	delete(s.cut, "decided")
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	s.take() // again
}

// Without a token a source serves what has gone, to whom it has gone; and believes the
// owner and the registrar alone.
func TestWithoutATokenNothingElseIsServed(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	refused := func(when string, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) {
		t.Helper()
		if err := s.arena.DecidedTo(by, about, x); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("unknown", "citadel", s.avatar, s.crossing.ID)
	if _, err := s.Offer(t.Context(), visitOf(s.citadel.came(s.crossing.ID)), SignedOrder{s.ordered.Order, s.ordered.Terms}); err != nil {
		t.Fatal(err)
	}
	refused("offered", "citadel", s.avatar, s.crossing.ID)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	refused("frozen", "citadel", s.avatar, s.crossing.ID)
	there := s.citadel.came(s.crossing.ID)
	forged, err := identity.SignDecision(keyOf("mallory"), identity.Decision{
		Registrar: didOf("mallory"), Crossing: there.ID, Order: carnet.FingerprintOf([]byte(there.Order)), Outcome: identity.Commit, Manifest: &there.Manifest,
		Homes: []identity.HomeAt{{Home: there.Home.Home, Version: 2, World: didOf("citadel")}}, Time: noon,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.arena.OrderOf("citadel", s.avatar, there.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("its order is given: %v", err)
	}
	if _, err := s.arena.TakeDecided(t.Context(), s.asking("citadel"), s.avatar, there.ID, Decided{SignedOrder: there.SignedOrder, Decision: forged}); !final(err) {
		t.Errorf("by a forged decision: %v", err)
	}
	s.want("after that", Frozen, Prepared, "arena")
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	s.want("decided", Gone, Home, "citadel")
	if err := s.arena.DecidedTo("citadel", s.avatar, there.ID); err != nil {
		t.Error(err)
	}
	refused("another world", "clinic", s.avatar, there.ID)
	refused("another avatar", "citadel", carnet.AvatarID{9}, there.ID)
	delete(s.cut, "decided")
	s.goOn()
	if _, err := s.arena.Stretches(t.Context(), s.asking("citadel"), s.avatar, there.ID, avatar.Place{}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("what the target has is still given: %v", err)
	}
}

// A target that is restored while the source hasn't heard of the commit yet, and still
// keeps still, believes the registrar.
func TestATargetIsRestoredBeforeTheSourceHears(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	older := s.stores["citadel"].copied()
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	goesOn := func() {
		for range 12 {
			for _, d := range s.citadel.dueNow() {
				_ = d.drive(t.Context())
			}
		}
	}
	goesOn()
	if source, target := s.states(); source != Frozen || target != Home {
		t.Fatalf("before, the source is %s and the target %s", source, target)
	}
	s.stores["citadel"] = older
	s.start("citadel")
	goesOn()
	if at := s.citadel.came(s.crossing.ID); at.State != Home {
		t.Fatalf("it is %s: %s", at.State, at.progress.Waits)
	}
	delete(s.cut, "decided")
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}
