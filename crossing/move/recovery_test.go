package move

import (
	"crypto/ed25519"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

// recovering is a stage on which arena's avatar has a passport, and the registrar waits
// a week.
func recovering(t *testing.T) (*stage, Exported) {
	s := newStage(t)
	s.registrar.recoveryWait = 7 * 24 * time.Hour
	s.cut["recovered"] = carnet.Errorf(carnet.Unavailable, "arena is away")
	return s, s.export(false)
}

func (s *stage) export(farewell bool) Exported {
	s.t.Helper()
	e, err := s.arena.Export(s.t.Context(), Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: farewell})
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (e Exported) brought() Brought {
	return Brought{Word: e.Word, Manifest: e.Manifest, Farewell: e.Farewell, Policy: e.Policy}
}

// bring has citadel make room by a passport; signed is what the owner signs for it.
func (s *stage) bring(e Exported) identity.Recovered {
	s.t.Helper()
	var err error
	if s.crossing, err = s.citadel.BeginRecovery(s.t.Context(), "operator", e.brought()); err != nil {
		s.t.Fatal(err)
	}
	return s.sign(s.owner, func(*identity.RecoveryRequest) {})
}

// sign is what somebody signs for a recovery, once something of it is changed.
func (s *stage) sign(key ed25519.PrivateKey, change func(*identity.RecoveryRequest)) identity.Recovered {
	s.t.Helper()
	r, _, err := identity.ParseRecoveryRequest(s.crossing.Request)
	if err != nil {
		s.t.Fatal(err)
	}
	change(&r)
	recovery, terms, err := r.Sign(key, s.ownThere, time.Now(), 30*24*time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	return identity.Recovered{Recovery: recovery, Terms: terms, Bags: [][]byte{[]byte("keys")}}
}

func (s *stage) takeRecovery(r identity.Recovered) {
	s.t.Helper()
	if _, err := s.citadel.TakeRecovery(s.t.Context(), s.crossing.ID, r); err != nil {
		s.t.Fatal(err)
	}
}

// drive has one world alone do what is due.
func (s *stage) drive(a *Agent) {
	for range 6 {
		for _, d := range a.dueNow() {
			_ = d.drive(s.t.Context()) // what fails is tried again
		}
	}
}

// later lets the registrar's waiting time pass.
func (s *stage) later() {
	s.registrar.now = time.Now().Add(s.registrar.recoveryWait + time.Minute)
	s.drive(s.citadel)
}

func TestARecoveredAvatarHasOneHome(t *testing.T) {
	s, e := recovering(t)
	if v, err := s.stores["arena"].Avatar(s.avatar); err != nil || len(s.stores["arena"].frozen) > 0 {
		t.Errorf("the passport froze it: %+v, %v", v, err)
	}
	s.takeRecovery(s.bring(e))
	s.drive(s.citadel)
	s.want("while the registrar waits", None, Prepared, "arena")
	if p := s.citadel.came(s.crossing.ID).progress; p.SourceUntil.IsZero() || p.Waits == "" {
		t.Errorf("it waits as %+v", p)
	}
	s.start("citadel") // the petition is the registrar's
	s.drive(s.citadel)
	s.later()
	s.want("once arena hasn't shown itself", None, Home, "arena", "citadel") // arena is away
	if p, err := s.citadel.Proof(s.crossing.ID); err != nil || p.Decision == "" {
		t.Errorf("proved by %+v, %v", p, err)
	}

	// Citadel has begun anew meanwhile, and so claimed it: the register's newest word of
	// the home isn't the decision any more.
	s.start("citadel")
	s.citadel.claimAll(t.Context())
	if h, _ := s.citadel.homeOf(s.crossing.To); s.registrar.homes[h.Home].Incarnation < 3 {
		t.Fatalf("citadel hasn't claimed it: %+v", s.registrar.homes)
	}

	// Arena comes back: its claim is refused, and the register says where the home is.
	s.start("arena")
	for _, h := range s.arena.unclaimed() {
		if _, err := s.arena.claim(t.Context(), h.Registrar, h.Home); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("claimed: %v", err)
		}
		if err := s.arena.gone(t.Context(), h.Registered); err != nil {
			t.Error(err)
		}
	}
	s.want("once arena is back", Gone, Home, "citadel")
	if l := s.arena.left(s.crossing.ID); l.Departure != "" {
		t.Error("it is deleted before the new home says that it has it")
	}
	delete(s.cut, "recovered")
	s.goOn()
	if l, there := s.arena.left(s.crossing.ID), s.citadel.came(s.crossing.ID); l.Departure == "" || there.Departure != l.Departure || l.To != "citadel" {
		t.Errorf("in the end arena has %+v, citadel %q", l.AtSource, there.Departure)
	}
}

// A living source that hears of the petition claims, which ends the recovery.
func TestALivingSourceObjects(t *testing.T) {
	s, e := recovering(t)
	s.takeRecovery(s.bring(e))
	s.drive(s.citadel)
	for _, h := range s.arena.watched() {
		if err := s.arena.look(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	s.later()
	s.want("after arena has objected", None, Dropped, "arena")
}

// One that keeps still for a move leaves it to the move's decision.
func TestAMoveThatIsUnderWayDecides(t *testing.T) {
	s, e := recovering(t)
	recovery := s.bring(e)
	recovered := s.crossing
	s.ask()
	s.order(time.Hour)
	s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "cut")
	s.registrar.away = true
	for range 4 { // until it is frozen: claims before the registrar is away
		s.registrar.away = false
		for _, d := range s.citadel.dueNow() {
			if d.id == s.crossing.ID && s.citadel.came(d.id).State == Copying {
				_ = d.drive(t.Context())
			}
		}
	}
	if is, it := s.states(); is != Frozen || it != Prepared {
		t.Fatalf("the move is %s and %s", is, it)
	}
	moved := s.crossing
	s.crossing = recovered
	s.takeRecovery(recovery)
	delete(s.cut, "decided")
	s.goOn()
	if one, two := s.citadel.came(moved.ID).State, s.citadel.came(recovered.ID).State; one != Home || two != Dropped {
		t.Errorf("the move ends %s, the recovery %s", one, two)
	}
	if at := s.lives(); len(at) != 1 || at[0] != "citadel" || len(s.stores["citadel"].avatars) != 1 {
		t.Errorf("it lives in %v", at)
	}
}

// A world that says farewell isn't waited for, and claims the home no more, also after a
// restart; when it hears of the decision the avatar has left.
func TestAFarewell(t *testing.T) {
	s, _ := recovering(t)
	e := s.export(true)
	if len(s.stores["arena"].frozen) != 1 {
		t.Error("it doesn't keep still")
	}
	s.start("arena")
	if all := s.arena.unclaimed(); len(all) > 0 {
		t.Errorf("it would claim %v", all)
	}
	h, _ := s.arena.homeOf(s.avatar)
	if _, err := s.arena.claim(t.Context(), h.Registrar, h.Home); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("claimed after the farewell: %v", err)
	}
	s.takeRecovery(s.bring(e))
	s.drive(s.citadel)
	s.want("at once", None, Home, "arena", "citadel")
	if err := s.arena.look(t.Context(), homeHere{Registered: h}); err != nil {
		t.Fatal(err)
	}
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}

// A farewell whose passport came to nobody is given again, with another passport and
// under the same incarnation; also after a restart. Any of them needs no waiting.
func TestAFarewellIsGivenAgain(t *testing.T) {
	s, _ := recovering(t)
	first := s.export(true)
	still := s.stores["arena"].frozen[s.avatar]
	second := s.export(true)
	s.start("arena")
	third := s.export(true)
	if s.stores["arena"].frozen[s.avatar] != still || still == (carnet.CrossingID{}) {
		t.Errorf("it keeps still for %v, and did for %v", s.stores["arena"].frozen, still)
	}
	incarnations := make(map[uint64]bool)
	manifests := make(map[carnet.Fingerprint]bool)
	for _, e := range []Exported{first, second, third} {
		f, err := identity.OpenFarewell(e.Farewell)
		if err != nil {
			t.Fatal(err)
		}
		incarnations[f.Incarnation], manifests[f.Manifest] = true, true
		if _, _, err := opened(e.brought()); err != nil {
			t.Error(err)
		}
	}
	if len(incarnations) != 1 || len(manifests) != 3 {
		t.Errorf("they are of %d incarnations and %d manifests", len(incarnations), len(manifests))
	}
	if _, err := s.arena.Export(t.Context(), Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey)}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("one that lives: %v", err)
	}
	nothing(t, s.arena, "after a farewell")
	s.takeRecovery(s.bring(third))
	s.drive(s.citadel)
	s.want("at once", None, Home, "arena", "citadel")
	if _, err := s.arena.Export(t.Context(), Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: true}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("once it is elsewhere: %v", err)
	}
}

// An avatar that comes back to the world that said farewell to it is that world's again:
// its home is claimed, it keeps still for a move, and a petition is objected to.
func TestAnAvatarComesBackAfterAFarewell(t *testing.T) {
	for _, how := range []string{"in the end", "after a crash"} {
		t.Run(how, func(t *testing.T) {
			s, _ := recovering(t)
			e := s.export(true)
			said := s.stores["arena"].copied()
			delete(s.cut, "recovered")
			s.takeRecovery(s.bring(e))
			s.goOn()
			s.want("recovered", Gone, Home, "citadel")
			if how == "after a crash" { // between the departure and what follows it
				for at, text := range said.documents {
					if at[0] == kindFarewell {
						s.stores["arena"].documents[at], s.stores["arena"].versions[at] = text, said.versions[at]
					}
				}
				s.start("arena")
			}
			h, _ := s.citadel.homeOf(s.crossing.To)
			back := s.registrar.homes[h.Home]
			back.World, back.Version, back.Incarnation = didOf("arena"), back.Version+1, back.Incarnation+1
			s.registrar.homes[h.Home] = back
			again := Registered{Avatar: carnet.AvatarID{2}, Home: h.Home, Registrar: h.Registrar, Owner: h.Owner}
			s.stores["arena"].avatars[again.Avatar] = avatar.Info{ID: again.Avatar, OwnerKey: s.owner.Public().(ed25519.PublicKey)}
			if err := s.arena.NoteHome(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			s.arena.unclaim([]identity.HomeAt{{Home: h.Home}}) // as it does when it comes
			if n, err := s.arena.claim(t.Context(), h.Registrar, h.Home); err != nil || n <= back.Incarnation {
				t.Errorf("claimed as %d, %v", n, err)
			}
			if err := s.arena.object(t.Context(), again, identity.Petitioned{}); err != nil || s.registrar.homes[h.Home].Incarnation != back.Incarnation+2 {
				t.Errorf("objected: %+v, %v", s.registrar.homes[h.Home], err)
			}
			s.start("arena")
			if all := s.arena.unclaimed(); len(all) != 1 || all[0].Registered != again {
				t.Errorf("after a start it would claim %v", all)
			}
		})
	}
}

// What keeps still for a farewell that was never stored goes on at the start, as nothing
// was signed.
func TestACrashBeforeAFarewellIsStored(t *testing.T) {
	s, _ := recovering(t)
	if err := s.stores["arena"].Freeze(t.Context(), s.avatar, carnet.NewCrossingID()); err != nil {
		t.Fatal(err)
	}
	s.start("arena")
	if still := s.stores["arena"].frozen; len(still) > 0 {
		t.Errorf("it keeps still: %v", still)
	}
	s.export(true)
	s.start("arena")
	if still := s.stores["arena"].frozen; len(still) != 1 {
		t.Error("a farewell that was said is forgotten with a start")
	}
}

// An avatar that keeps still for a farewell can be erased: it goes on for that, or has
// left if it was recovered meanwhile. Nobody but the register can say which.
func TestAFarewellGivesWay(t *testing.T) {
	for _, how := range []string{"it is here", "it is elsewhere"} {
		t.Run(how, func(t *testing.T) {
			s, _ := recovering(t)
			e := s.export(true)
			s.registrar.away = true
			if err := s.arena.LetGo(t.Context(), s.avatar); carnet.CodeOf(err) != carnet.Unavailable || len(s.stores["arena"].frozen) != 1 {
				t.Errorf("the register wasn't asked: %v, %v", err, s.stores["arena"].frozen)
			}
			s.registrar.away = false
			if how == "it is elsewhere" {
				s.takeRecovery(s.bring(e))
				s.drive(s.citadel)
			}
			if err := s.arena.LetGo(t.Context(), s.avatar); err != nil {
				t.Fatal(err)
			}
			_, here := s.stores["arena"].avatars[s.avatar]
			if still := s.stores["arena"].frozen[s.avatar]; here != (how == "it is here") || here && still != (carnet.CrossingID{}) {
				t.Errorf("it is here: %t, and keeps still for %v", here, still)
			}
		})
	}
}

// What isn't the passport of the home as it stands makes no room, with its reason.
func TestPassportsThatAreRefused(t *testing.T) {
	s, e := recovering(t)
	resigned := func(key string, change func(*identity.Passport)) Brought {
		p, err := identity.OpenPassport(e.Word)
		if err != nil {
			t.Fatal(err)
		}
		change(&p)
		b := e.brought()
		if b.Word, err = identity.SignPassport(keyOf(key), p); err != nil {
			t.Fatal(err)
		}
		return b
	}
	changed := e.brought()
	changed.Manifest = append([]byte{}, changed.Manifest...)
	changed.Manifest[len(changed.Manifest)-2] ^= 1
	forged := e.brought()
	forged.Word = forged.Word[:len(forged.Word)-4] + "AAAA"
	farewell := e.brought()
	farewell.Farewell = "farewell"
	for name, c := range map[string]struct {
		b    Brought
		code carnet.Code
	}{
		"forged":                     {forged, carnet.Unauthenticated},
		"another manifest":           {changed, carnet.Tampered},
		"a farewell that isn't one":  {farewell, carnet.Malformed},
		"of another avatar":          {resigned("arena", func(p *identity.Passport) { p.Avatar[0]++ }), carnet.Tampered},
		"of another passport":        {resigned("arena", func(p *identity.Passport) { p.Passport[0]++ }), carnet.Tampered},
		"of another owner":           {resigned("arena", func(p *identity.Passport) { p.Owner = didOf("mallory") }), carnet.Forbidden},
		"of an earlier stay":         {resigned("arena", func(p *identity.Passport) { p.Version++ }), carnet.Conflict},
		"by another world":           {resigned("clinic", func(p *identity.Passport) { p.Source = didOf("clinic") }), carnet.Conflict},
		"by the target":              {resigned("citadel", func(p *identity.Passport) { p.Source = didOf("citadel") }), carnet.Conflict},
		"registered somewhere else":  {resigned("arena", func(p *identity.Passport) { p.Registrar = didOf("shed") }), carnet.Unavailable},
		"of a home that isn't known": {resigned("arena", func(p *identity.Passport) { p.Home[0]++ }), carnet.NotFound},
	} {
		if x, err := s.citadel.BeginRecovery(t.Context(), "operator", c.b); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v; want %s", name, x, err, c.code)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if rooms := s.stores["citadel"].rooms; len(rooms) > 0 {
		t.Errorf("there is room for %v", rooms)
	}

	// After a move the register says that home is elsewhere.
	s.ask()
	s.order(time.Hour)
	s.goOn()
	if _, err := s.citadel.BeginRecovery(t.Context(), "operator", e.brought()); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("after a move: %v", err)
	}
}

// What isn't the recovery that was asked for is refused, and leaves it as it is.
func TestRecoveriesThatAreRefused(t *testing.T) {
	s, e := recovering(t)
	good := s.bring(e)
	again := s.export(false) // another passport of the same avatar
	junk := good
	junk.Bags = [][]byte{[]byte("junk")}
	asMove := good
	order, err := identity.OpenRecovery(good.Recovery)
	if err != nil {
		t.Fatal(err)
	}
	order.Recovers, order.Until = nil, order.Made.Add(time.Hour)
	if asMove.Recovery, err = identity.SignOrder(s.owner, order); err != nil {
		t.Fatal(err)
	}
	s.stores["citadel"].failCheck = carnet.Errorf(carnet.NotFound, "a stretch isn't here")
	if _, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, good); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("unchecked: %v", err)
	}
	s.stores["citadel"].failCheck = nil
	for name, c := range map[string]struct {
		r    identity.Recovered
		code carnet.Code
	}{
		"the order of a move":      {asMove, carnet.Malformed},
		"keys that are junk":       {junk, carnet.Tampered},
		"for another passport":     {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.Passport = again.Word }), carnet.Forbidden},
		"to another world":         {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.TargetKey = didOf("clinic") }), carnet.Forbidden},
		"of another crossing":      {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.Recovery[0]++ }), carnet.Forbidden},
		"for another avatar there": {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.To[0]++ }), carnet.Forbidden},
		"of another incarnation":   {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.Incarnation++ }), carnet.Forbidden},
		"with other streams":       {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.Heads = []identity.Head{{NextBatch: 7}} }), carnet.Forbidden},
		"with another view":        {s.sign(s.owner, func(r *identity.RecoveryRequest) { r.View = []byte(`{"properties":{}}`) }), carnet.Forbidden},
	} {
		if x, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, c.r); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v; want %s", name, x, err, c.code)
		}
	}
	// A recovery isn't the order of a move.
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: good.Recovery, Terms: good.Terms, Mandate: "mandate"}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("taken as a move's: %v", err)
	}
	if _, err := s.arena.TakeOffer(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, SignedOrder{good.Recovery, good.Terms}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("offered as a move's: %v", err)
	}
	s.want("after all that", None, Asked, "arena")
	s.takeRecovery(good)
	s.takeRecovery(good) // again
}

// Whoever tells a source that its avatar was recovered must bring what proves it.
func TestASourceBelievesTheRegistrarAndTheOwner(t *testing.T) {
	s, e := recovering(t)
	good := s.bring(e)
	s.takeRecovery(good)
	s.drive(s.citadel)
	s.later()
	p, err := s.citadel.Proof(s.crossing.ID)
	if err != nil {
		t.Fatal(err)
	}
	decision, err := identity.OpenDecision(p.Decision)
	if err != nil {
		t.Fatal(err)
	}
	decision.Registrar = didOf("shed")
	elsewhere, err := identity.SignDecision(keyOf("shed"), decision)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		by carnet.PartyID
		d  Decided
	}{
		"another world":        {"clinic", Decided{SignedOrder: p.SignedOrder, Decision: p.Decision}},
		"another registrar":    {"citadel", Decided{SignedOrder: p.SignedOrder, Decision: elsewhere}},
		"no decision":          {"citadel", Decided{SignedOrder: p.SignedOrder, Decision: ""}},
		"other terms":          {"citadel", Decided{SignedOrder: SignedOrder{p.Order, []byte("{}")}, Decision: p.Decision}},
		"another owner's word": {"citadel", Decided{SignedOrder: SignedOrder{s.signedBy("mallory", e), p.Terms}, Decision: p.Decision}},
	} {
		if left, err := s.arena.HearRecovered(t.Context(), c.by, c.d); err == nil || left.State != None {
			t.Errorf("%s: %+v, %v", name, left, err)
		}
	}
	if _, err := s.arena.World.Avatar(s.avatar); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if left, err := s.arena.HearRecovered(t.Context(), "citadel", Decided{SignedOrder: p.SignedOrder, Decision: p.Decision}); err != nil || left.Departure == "" {
		t.Errorf("told truly: %+v, %v", left, err)
	}
}

// A recovery from a world that is no peer is over once it is here: nobody is told, and
// nothing is found, until there is a peering with that world.
func TestARecoveryFromAStrangerIsOver(t *testing.T) {
	s, e := recovering(t)
	s.strangers = true
	s.takeRecovery(s.bring(e))
	s.drive(s.citadel)
	s.later()
	s.want("recovered", None, Home, "arena", "citadel")
	for range 2 {
		if due := s.citadel.dueNow(); len(due) > 0 {
			t.Errorf("%d moves are to be gone on with", len(due))
		}
		nothing(t, s.citadel, "without a peering")
		s.start("citadel")
	}
	it := s.citadel.came(s.crossing.ID)
	it.Surveyed = false
	if !it.open(s.citadel.known()) {
		t.Error("it is never surveyed")
	}
	s.strangers, s.cut["recovered"] = false, nil
	if due := s.citadel.dueNow(); len(due) != 1 {
		t.Errorf("once it is a peer, %d are", len(due))
	}
}

// A source that was restored from before its avatar was registered hears of a recovery
// as one that knew of it.
func TestAnOlderSourceHearsOfARecovery(t *testing.T) {
	s := newStage(t)
	older := s.stores["arena"].copied()
	s.registrar.recoveryWait = 7 * 24 * time.Hour
	s.cut["recovered"] = carnet.Errorf(carnet.Unavailable, "arena is away")
	s.takeRecovery(s.bring(s.export(false)))
	s.drive(s.citadel)
	s.later()
	s.stores["arena"] = older
	s.start("arena")
	delete(s.cut, "recovered")
	s.goOn()
	s.want("once it was told", Gone, Home, "citadel")
}

// signedBy is the recovery of a passport as somebody else signs it.
func (s *stage) signedBy(name string, e Exported) string {
	s.t.Helper()
	r, word, err := identity.ParseRecoveryRequest(s.crossing.Request)
	if err != nil {
		s.t.Fatal(err)
	}
	word.Owner = didOf(name)
	if r.Passport, err = identity.SignPassport(keyOf("arena"), word); err != nil {
		s.t.Fatal(err)
	}
	recovery, _, err := r.Sign(keyOf(name), s.ownThere, time.Now(), time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	return recovery
}

// Writes that fail and restarts of the target, at each step: it goes on and ends.
func TestARecoveryGoesOnAfterAnyFailedWrite(t *testing.T) {
	s, e := recovering(t)
	good := s.bring(e)
	gone := carnet.Errorf(carnet.Unavailable, "the disk is gone")
	s.stores["citadel"].failKeep = gone
	if _, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, good); err == nil {
		t.Fatal("taken, and not stored")
	}
	s.stores["citadel"].failKeep = nil
	s.start("citadel")
	s.want("before it is stored", None, Asked, "arena")
	s.takeRecovery(good)
	for range 4 {
		s.stores["citadel"].failKeep = gone
		s.drive(s.citadel)
		s.stores["citadel"].failKeep = nil
		s.start("citadel")
		for _, d := range s.citadel.dueNow() {
			_ = d.drive(t.Context())
		}
	}
	s.later()
	if it := s.citadel.came(s.crossing.ID).State; it != Home {
		t.Errorf("it ends %s", it)
	}
}
