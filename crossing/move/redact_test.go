package move

import (
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

// located is what citadel may not have.
var located = carnet.Label{Sensitivity: carnet.Location}

// newRedactedStage is a stage on which what citadel may not have is left behind.
func newRedactedStage(t *testing.T) *stage {
	s := newStage(t)
	s.redact = true
	s.stores["arena"].streams = []avatar.MovedStream{hubs}
	s.stores["arena"].ceiling, s.stores["arena"].secret = carnet.Label{Sensitivity: carnet.Health | carnet.Location}, located
	return s
}

// left checks what both say of what was left behind, once the move is over.
func (s *stage) left() {
	s.t.Helper()
	if !s.redact {
		return
	}
	here, there := s.arena.left(s.crossing.ID), s.citadel.came(s.crossing.ID)
	d, err := identity.OpenDeparture(there.Departure)
	if err != nil || d.Left != 2 || here.Amount.LeftMeasurements != 2 || there.Amount.LeftMeasurements != 2 || there.Amount.LeftBatches != 1 {
		s.t.Errorf("left behind: %d by the departure (%v), %+v, %+v", d.Left, err, here.Amount, there.Amount)
	}
}

// Without the owner's consent what the target may not have keeps the avatar where it is,
// and it is said how to leave that behind; with it, what that is is said before and
// afterwards.
func TestARedactedMove(t *testing.T) {
	s := newRedactedStage(t)
	s.redact = false
	d, err := s.arena.Enrol(t.Context(), s.avatar, "citadel")
	if err != nil || len(d.Leaves) != 1 || d.Leaves[0].Measurements != 2 || d.Clearance == nil {
		t.Fatalf("described as %+v, %v", d, err)
	}
	w := Wanted{From: "arena", Home: d.Registered, Title: d.Title, Ceiling: d.Ceiling, Properties: d.Properties}
	if _, err := s.citadel.Ask(t.Context(), "operator", w); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "--redact") {
		t.Errorf("asked for without a redaction: %v", err)
	}
	wide := identity.Redaction{Sensitivity: carnet.AllSensitive, Purposes: "care"}
	w.Redact = &wide
	if _, err := s.citadel.Ask(t.Context(), "operator", w); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("asked for with more than it may have: %v", err)
	}
	narrow := identity.Redaction(*d.Clearance)
	w.Redact, w.View = &narrow, []byte(`{"properties":{"heart_rate":{}}}`)
	if _, err := s.citadel.Ask(t.Context(), "operator", w); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "part of a batch") {
		t.Errorf("asked for with a view: %v", err)
	}
	s.redact = true
	s.ask()
	r, m, err := identity.ParseMoveRequest(s.crossing.Request)
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(append(r.Report, r.Explain(m)...), "\n")
	for _, want := range []string{"2 measurements in 1 batches, labelled location", "2026-11-28 12:00 to 2026-11-28 13:00", "position", "can't be undone", "labelled above: health, for care"} {
		if !strings.Contains(said, want) {
			t.Errorf("the owner isn't told %q:\n%s", want, said)
		}
	}
	s.order(time.Hour)
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	s.left()

	// Nothing is left behind where all may come.
	s = newRedactedStage(t)
	s.stores["arena"].ceiling = carnet.Label{}
	s.ask()
	if r, _, err = identity.ParseMoveRequest(s.crossing.Request); err != nil || r.Redact != nil {
		t.Errorf("something is to be left behind: %+v, %v", r.Redact, err)
	}
}

// A redacted move that is called off leaves everything where it is.
func TestARedactedMoveIsCalledOff(t *testing.T) {
	s := newRedactedStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	if err := s.citadel.Cancel(t.Context(), s.crossing.ID, "operator"); err != nil {
		t.Fatal(err)
	}
	delete(s.cut, "freeze")
	s.goOn()
	s.want("in the end", Kept, Dropped, "arena")
	if len(s.stores["arena"].frozen)+len(s.stores["citadel"].arriving) > 0 {
		t.Error("something is left half-done")
	}
}

// remade has arena release another manifest than it should.
func (s *stage) remade(how func(*avatar.Manifest)) {
	t := s.t
	s.mangle = func(what string, v any) {
		if what != "freeze" && what != "manifest" {
			return
		}
		document, err := s.arena.manifest(t.Context(), s.crossing.ID)
		if err != nil {
			t.Fatal(err)
		}
		m, err := avatar.ParseManifest(document)
		if err != nil {
			t.Fatal(err)
		}
		how(m)
		if document, err = m.Marshal(); err != nil {
			t.Fatal(err)
		}
		if f, is := v.(*Freezing); is {
			r, _ := identity.OpenRelease(f.Release)
			r.Manifest = carnet.FingerprintOf(document)
			if f.Release, err = identity.SignRelease(keyOf("arena"), r); err != nil {
				t.Fatal(err)
			}
		} else {
			*v.(*[]byte) = document
		}
	}
}

// A source that leaves out what its owner didn't order, or says so by another order, or
// gives keys that open it: the target signs nothing, and the avatar stays.
func TestASourceThatRedactsWrongly(t *testing.T) {
	left := func(how func(*avatar.MovedStream)) func(*stage) {
		return func(s *stage) { s.remade(func(m *avatar.Manifest) { how(&m.Streams[0]) }) }
	}
	for name, c := range map[string]struct {
		lie  func(*stage)
		says string
	}{
		"what may come is left out":        {left(func(s *avatar.MovedStream) { s.Left[0].Runs[0].Sensitivity = carnet.Health }), "which the order doesn't"},
		"by another order":                 {left(func(s *avatar.MovedStream) { s.Left[0].Order[0]++ }), "by another order"},
		"by an order of another time":      {left(func(s *avatar.MovedStream) { s.Left[0].Ordered = noon }), "by another order"},
		"keys are of epochs":               {left(func(s *avatar.MovedStream) { s.Slots, s.Left = false, nil }), "keys of epochs"},
		"something, and nobody ordered it": {func(s *stage) { s.unordered = true; left(func(*avatar.MovedStream) {})(s) }, "without the owner's order"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRedactedStage(t)
			c.lie(s)
			if s.unordered {
				s.redact = false
				s.stores["arena"].ceiling, s.stores["arena"].secret = carnet.Label{}, carnet.Label{}
				left(func(out *avatar.MovedStream) {
					order, err := identity.OpenOrder(s.ordered.Order)
					if err != nil {
						t.Fatal(err)
					}
					out.Slots = true
					out.Left = []avatar.LeftOut{{
						Crossing: s.crossing.ID, Order: carnet.FingerprintOf([]byte(s.ordered.Order)), Ordered: order.Made, World: "arena", Runs: []avatar.LeftRun{{Class: carnet.Keep, Sensitivity: carnet.Location, Batches: 1, Measurements: 2}},
					}}
				})(s)
			}
			s.ask()
			s.order(time.Hour)
			s.goOn()
			there := s.citadel.came(s.crossing.ID)
			if there.State != Dropped || there.Acceptance != "" || !strings.Contains(there.Why, c.says) || !slices.Equal(s.lives(), []carnet.PartyID{"arena"}) {
				t.Errorf("the target is %q (%s; want %s), the avatar lives in %v", there.State, there.Why, c.says, s.lives())
			}
		})
	}
	s := newRedactedStage(t) // as it should be
	left(func(*avatar.MovedStream) {})(s)
	s.ask()
	s.order(time.Hour)
	s.goOn()
	s.want("of a source that doesn't lie", Gone, Home, "citadel")
}

// A target that asks for more than it may have.
func TestATargetThatWantsMoreThanItMay(t *testing.T) {
	s := newRedactedStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["offer"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	for name, redact := range map[string]*identity.Redaction{
		"part of batches": {Sensitivity: carnet.Health, Purposes: "care"},
		"everything":      nil,
		"more by label":   {Sensitivity: carnet.AllSensitive, Purposes: "care"},
		"another purpose": {Sensitivity: carnet.Health, Purposes: "ads"},
		"for any purpose": {Sensitivity: carnet.Health, Residency: "eu"},
	} {
		o, err := identity.OpenOrder(s.ordered.Order)
		if err != nil {
			t.Fatal(err)
		}
		terms, err := identity.ParseMoveTerms(s.ordered.Terms, o)
		if err != nil {
			t.Fatal(err)
		}
		if terms.Redact = redact; name == "part of batches" {
			terms.View = []byte(`{"properties":{"heart_rate":{}}}`)
		}
		text, err := terms.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		o.Terms = carnet.FingerprintOf(text)
		token, err := identity.SignOrder(s.owner, o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.arena.TakeOffer(t.Context(), s.asking("citadel"), s.avatar, s.crossing.ID, SignedOrder{token, text})
		if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "--redact") {
			t.Errorf("%s is offered: %v", name, err)
		}
		if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: token, Terms: text, Mandate: "mandate"}); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("%s is ordered, which wasn't asked for: %v", name, err)
		}
	}
	delete(s.cut, "offer")
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
}
