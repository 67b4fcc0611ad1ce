package move

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

// A source that gives its target anything but what it should: the target signs
// nothing, the registrar decides abort, and the avatar stays where it was.
func TestASourceThatLies(t *testing.T) {
	change := func(what string, how func(s *stage, v any)) func(*stage) {
		return func(s *stage) {
			s.mangle = func(is string, v any) {
				if is == what {
					how(s, v)
				}
			}
		}
	}
	release := func(by ed25519.PrivateKey, how func(*identity.Release)) func(*stage, any) {
		return func(s *stage, v any) {
			f := v.(*Freezing)
			r, err := identity.OpenRelease(f.Release)
			if err != nil {
				t.Fatal(err)
			}
			r.Source = identity.DID(by.Public().(ed25519.PublicKey))
			how(&r)
			if f.Release, err = identity.SignRelease(by, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	same := func(*identity.Release) {}
	for name, c := range map[string]struct {
		lie  func(*stage)
		says string
	}{
		"a release by somebody else":       {change("freeze", release(keyOf("mallory"), same)), "a release that isn't its own"},
		"a release for another manifest":   {change("freeze", release(keyOf("arena"), func(r *identity.Release) { r.Manifest[0]++ })), "a release that isn't its own"},
		"a release for another order":      {change("freeze", release(keyOf("arena"), func(r *identity.Release) { r.Order[0]++ })), "a release that isn't its own"},
		"a release for another crossing":   {change("freeze", release(keyOf("arena"), func(r *identity.Release) { r.Crossing[0]++ })), "a release that isn't its own"},
		"a release that isn't one":         {change("freeze", func(_ *stage, v any) { v.(*Freezing).Release = "e30.e30.AA" }), "is not in its one form"},
		"keys that aren't any":             {change("freeze", func(_ *stage, v any) { v.(*Freezing).Bags[0] = []byte("junk") }), "these are no keys"},
		"a manifest of no size":            {change("freeze", func(_ *stage, v any) { v.(*Freezing).Size = 0 }), "a manifest of 0 bytes"},
		"a manifest that isn't its own":    {change("manifest", func(_ *stage, v any) { b := v.(*[]byte); (*b)[len(*b)-3] ^= 1 }), "a release that isn't its own"},
		"a title that is too long":         {func(s *stage) { s.stores["arena"].title = string(make([]byte, 4096)) }, "a title of 4096 bytes"},
		"the manifest of another crossing": {func(s *stage) { s.remade(func(m *avatar.Manifest) { m.Crossing[0]++ }) }, "the manifest of something else"},
		"the manifest of another avatar":   {func(s *stage) { s.remade(func(m *avatar.Manifest) { m.Avatar[0]++ }) }, "the manifest of something else"},
		"history that doesn't check":       {func(s *stage) { s.stores["citadel"].failCheck = carnet.Errorf(carnet.Tampered, "it isn't whole") }, "it isn't whole"},
		"no as the answer to an offer":     {func(s *stage) { s.cut["offer"] = carnet.Errorf(carnet.Forbidden, "no") }, "no"},
		"nothing, until the time is over":  {func(s *stage) { s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers") }, "nobody answers"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.ask()
			s.order(time.Minute)
			c.lie(s)
			s.goOn()
			if name == "nothing, until the time is over" {
				s.citadel.Now = func() time.Time { return time.Now().Add(time.Hour) }
				s.arena.Now = s.citadel.Now
				s.registrar.decided[s.crossing.ID] = &identity.Decision{
					Registrar: s.registrar.did(), Crossing: s.crossing.ID, Order: carnet.FingerprintOf([]byte(s.ordered.Order)), Outcome: identity.Abort,
					Why: "its time is over", Homes: []identity.HomeAt{}, Time: noon,
				}
				s.goOn()
			}
			_, target := s.states()
			if target != Dropped || len(s.lives()) != 1 || s.lives()[0] != "arena" {
				t.Errorf("the target is %q, the avatar lives in %v", target, s.lives())
			}
			if there := s.citadel.came(s.crossing.ID); there.Acceptance != "" || !strings.Contains(there.Why, c.says) {
				t.Errorf("accepted %q, since %q; want %q", there.Acceptance, there.Why, c.says)
			}
			if len(s.stores["citadel"].arriving)+len(s.stores["arena"].frozen) > 0 {
				t.Errorf("something is left half-done: %v, %v", s.stores["citadel"].arriving, s.stores["arena"].frozen)
			}
		})
	}
}

// A target that brings its source an order that isn't the owner's for this, or asks
// for what was never offered.
func TestATargetThatLies(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["offer"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	signed := func(by ed25519.PrivateKey, change func(*identity.Order, *identity.MoveTerms)) SignedOrder {
		o, err := identity.OpenOrder(s.ordered.Order)
		if err != nil {
			t.Fatal(err)
		}
		terms, err := identity.ParseMoveTerms(s.ordered.Terms, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Owner = identity.DID(by.Public().(ed25519.PublicKey))
		change(&o, &terms)
		text, err := terms.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		o.Terms = carnet.FingerprintOf(text)
		token, err := identity.SignOrder(by, o)
		if err != nil {
			t.Fatal(err)
		}
		return SignedOrder{token, text}
	}
	for name, o := range map[string]SignedOrder{
		"by somebody else":        signed(keyOf("mallory"), func(*identity.Order, *identity.MoveTerms) {}),
		"for another crossing":    signed(s.owner, func(o *identity.Order, _ *identity.MoveTerms) { o.Crossing[0]++ }),
		"to another world":        signed(s.owner, func(o *identity.Order, _ *identity.MoveTerms) { o.Target = didOf("mallory") }),
		"from another world":      signed(s.owner, func(o *identity.Order, _ *identity.MoveTerms) { o.Source = didOf("mallory") }),
		"for another register":    signed(s.owner, func(o *identity.Order, _ *identity.MoveTerms) { o.Registrar = didOf("mallory") }),
		"of another home":         signed(s.owner, func(o *identity.Order, m *identity.MoveTerms) { o.Homes[0][0]++; m.Home = o.Homes[0] }),
		"of another avatar":       signed(s.owner, func(_ *identity.Order, m *identity.MoveTerms) { m.Avatar[0]++ }),
		"of more than the avatar": signed(s.owner, func(o *identity.Order, _ *identity.MoveTerms) { o.Homes = append(o.Homes, carnet.HomeID{0xff, 0xff}) }),
		"that is over": signed(s.owner, func(o *identity.Order, _ *identity.MoveTerms) {
			o.Made, o.Until = noon.Add(-2*time.Hour), noon.Add(-time.Hour)
		}),
		"with terms of another":  {s.ordered.Order, []byte(`{}`)},
		"that isn't one":         {"e30.e30.AA", s.ordered.Terms},
		"without anything in it": {},
	} {
		if _, err := s.arena.TakeOffer(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, o); !final(err) {
			t.Errorf("an order %s was taken: %v", name, err)
		}
	}
	s.want("after all that", None, Copying, "arena")

	right := SignedOrder{s.ordered.Order, s.ordered.Terms}
	if _, err := s.arena.TakeOffer(t.Context(), s.asking("clinic"), s.avatar, s.crossing.ID, right); !final(err) {
		t.Errorf("another world offered citadel's order: %v", err)
	}
	if _, err := s.arena.Stretches(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, avatar.Place{}); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("what was never offered is listed: %v", err)
	}
	s.stores["arena"].ceiling = carnet.Label{Sensitivity: carnet.Health | carnet.Location}
	if _, err := s.arena.TakeOffer(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, right); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("what exceeds the target's clearance may move: %v", err)
	}
	less := carnet.Personal
	s.stores["arena"].ceiling, s.most = carnet.Label{Sensitivity: carnet.Health}, &less
	if _, err := s.arena.TakeOffer(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, right); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("what exceeds the mandate or the grant may move: %v", err)
	}
	s.most = nil
	s.stores["arena"].ceiling = carnet.Label{}
	if _, err := s.arena.TakeOffer(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, right); err != nil {
		t.Fatal(err)
	}
	s.stores["arena"].ceiling = carnet.Label{Sensitivity: carnet.Location} // by what came since
	announcement, err := s.citadel.Announce()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.arena.Freeze(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, announcement); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("what came since the offer may move: %v", err)
	}
	s.stores["arena"].ceiling = carnet.Label{}
	for name, who := range map[string]struct {
		by    carnet.PartyID
		about carnet.AvatarID
	}{"another world": {"clinic", s.avatar}, "another avatar": {"citadel", carnet.AvatarID{9}}} {
		if _, err := s.arena.ManifestFor(t.Context(), who.by, who.about, s.crossing.ID); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s reads what is citadel's: %v", name, err)
		}
	}
}

// Decisions that the registrar never made change nothing.
func TestForgedDecisions(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	s.want("before", Frozen, Prepared, "arena")
	there := s.citadel.came(s.crossing.ID)
	decision := func(by ed25519.PrivateKey, change func(*identity.Decision)) string {
		d := identity.Decision{
			Registrar: identity.DID(by.Public().(ed25519.PublicKey)), Crossing: s.crossing.ID, Order: carnet.FingerprintOf([]byte(s.ordered.Order)),
			Outcome: identity.Commit, Manifest: &there.Manifest, Homes: []identity.HomeAt{{Home: there.Home.Home, Version: 2, World: didOf("citadel")}}, Time: noon,
		}
		change(&d)
		token, err := identity.SignDecision(by, d)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for name, token := range map[string]string{
		"by another registrar":   decision(keyOf("mallory"), func(*identity.Decision) {}),
		"about another crossing": decision(keyOf("vault"), func(d *identity.Decision) { d.Crossing[0]++ }),
		"that isn't one":         "e30.e30.AA",
	} {
		if _, err := s.Decided(t.Context(), there.visit(), Decided{SignedOrder: there.SignedOrder, Decision: token}); !final(err) {
			t.Errorf("a decision %s was heard: %v", name, err)
		}
	}
	s.want("after all that", Frozen, Prepared, "arena")

	// An order and a decision that the target made itself: by a key that it calls owner
	// and registrar.
	o, err := identity.OpenOrder(s.ordered.Order)
	if err != nil {
		t.Fatal(err)
	}
	o.Owner, o.Registrar = didOf("mallory"), didOf("mallory")
	forged, err := identity.SignOrder(keyOf("mallory"), o)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]Decided{
		"a commit of its own order": {SignedOrder: SignedOrder{forged, s.ordered.Terms}, Decision: decision(keyOf("mallory"), func(d *identity.Decision) {
			d.Order = carnet.FingerprintOf([]byte(forged))
		})},
		"an abort of its own order": {SignedOrder: SignedOrder{forged, s.ordered.Terms}, Decision: decision(keyOf("mallory"), func(d *identity.Decision) {
			d.Order, d.Outcome, d.Manifest, d.Homes, d.Why = carnet.FingerprintOf([]byte(forged)), identity.Abort, nil, []identity.HomeAt{}, "no"
		})},
		"a commit of another home":  {SignedOrder: there.SignedOrder, Decision: decision(keyOf("vault"), func(d *identity.Decision) { d.Homes[0].Home[0]++ })},
		"a commit to another world": {SignedOrder: there.SignedOrder, Decision: decision(keyOf("vault"), func(d *identity.Decision) { d.Homes[0].World = didOf("mallory") })},
	} {
		if _, err := s.Decided(t.Context(), there.visit(), d); !final(err) {
			t.Errorf("%s was heard: %v", name, err)
		}
		s.want("after "+name, Frozen, Prepared, "arena")
		// A source that doesn't know of the move believes it no more.
		known := s.arena.sources[s.crossing.ID]
		delete(s.arena.sources, s.crossing.ID)
		if _, err := s.Decided(t.Context(), there.visit(), d); !final(err) {
			t.Errorf("%s was heard by a source that knows nothing: %v", name, err)
		}
		s.want("after "+name, None, Prepared, "arena")
		s.arena.sources[s.crossing.ID] = known
	}
	other := Decided{SignedOrder: there.SignedOrder, Decision: decision(keyOf("vault"), func(d *identity.Decision) { d.Manifest = &carnet.Fingerprint{9} })}
	if _, err := s.Decided(t.Context(), there.visit(), other); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("a commit of something else than was released was heard: %v", err)
	}
	s.want("after all that", Frozen, Prepared, "arena")
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}

// Orders that aren't what the target asked for.
func TestOrdersThatWereNotAskedFor(t *testing.T) {
	s := newStage(t)
	s.ask()
	r, _, err := identity.ParseMoveRequest(s.crossing.Request)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*identity.MoveRequest){
		"for another crossing":  func(r *identity.MoveRequest) { r.Crossing[0]++ },
		"for another avatar":    func(r *identity.MoveRequest) { r.To[0]++ },
		"of another home":       func(r *identity.MoveRequest) { r.Home[0]++ },
		"from another world":    func(r *identity.MoveRequest) { r.Source = didOf("mallory") },
		"for another registrar": func(r *identity.MoveRequest) { r.Registrar = didOf("mallory") },
		"with another view":     func(r *identity.MoveRequest) { r.View = []byte(`{"properties":{"x":{}}}`) },
		"by another owner":      func(r *identity.MoveRequest) { r.Owner = didOf("mallory") },
	} {
		other := r
		change(&other)
		key := s.owner
		if name == "by another owner" {
			key = keyOf("mallory")
		}
		order, terms, err := other.Sign(key, s.ownThere, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: order, Terms: terms, Mandate: "mandate"}); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("an order %s was taken: %v", name, err)
		}
	}
	good, terms, err := r.Sign(s.owner, s.ownThere, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: good, Terms: terms, Mandate: anotherMandate}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("an order beside the mandate for another request was taken: %v", err)
	}
	s.order(time.Hour)
	first := s.ordered
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, first); err != nil {
		t.Errorf("handed in again: %v", err)
	}
	order, terms, err := r.Sign(s.owner, s.ownThere, time.Now().Add(time.Second), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: order, Terms: terms, Mandate: "mandate"}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a second order was taken: %v", err)
	}
}
