package move

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/policy"
)

// bound has the owner set a policy of arena's avatar.
func (s *stage) bound(version uint64, document string) {
	s.t.Helper()
	b, err := policy.ParseBounds([]byte(document))
	if err != nil {
		s.t.Fatal(err)
	}
	if document, err := b.Document(); err == nil {
		b.Version = version
		said := identity.AvatarPolicy{Owner: didOf("owner"), World: didOf("arena"), Avatar: s.avatar, Version: version, Made: noon, Policy: document}
		signed, err := identity.SignAvatarPolicy(s.owner, said)
		if err != nil {
			s.t.Fatal(err)
		}
		s.stores["arena"].policies[s.avatar] = avatar.Policy{Signed: signed, Said: said, Bounds: b}
	}
}

// traveller is arena's avatar, as citadel asks for it.
func (s *stage) traveller() Wanted {
	s.t.Helper()
	d, err := s.arena.Enrol(s.t.Context(), s.avatar, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return Wanted{From: "arena", Home: d.Registered, Title: d.Title, Ceiling: d.Ceiling, Properties: d.Properties, Policy: d.Policy}
}

// What an avatar's policy forbids is refused when its target makes room, with the
// member that says so, and by its source, whatever the target says.
func TestAMoveThatThePolicyForbids(t *testing.T) {
	past, coming := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct{ member, forbids, permits string }{
		{"cross.worlds", `{"cross":{"worlds":[]}}`, fmt.Sprintf(`{"cross":{"worlds":[%q]}}`, didOf("citadel"))},
		{"cross.worlds", fmt.Sprintf(`{"cross":{"worlds":[%q]}}`, didOf("clinic")), `{"cross":{}}`},
		{"cross.from", fmt.Sprintf(`{"cross":{"from":%q}}`, coming), fmt.Sprintf(`{"cross":{"from":%q}}`, past)},
		{"cross.until", fmt.Sprintf(`{"cross":{"until":%q}}`, past), fmt.Sprintf(`{"cross":{"until":%q}}`, coming)},
		{"cross.sensitivity", `{"cross":{"sensitivity":"personal"}}`, `{"cross":{"sensitivity":"health"}}`},
	} {
		s := newStage(t)
		s.stores["arena"].ceiling = carnet.Label{Sensitivity: carnet.Health}
		s.bound(3, c.forbids)
		_, err := s.citadel.Ask(t.Context(), "operator", s.traveller())
		if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), c.member) || !strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), "carnet owner policy set") {
			t.Errorf("%s: citadel makes room: %v", c.forbids, err)
		}
		if n := len(s.stores["citadel"].arriving); n > 0 {
			t.Errorf("%s: there is room for %d", c.forbids, n)
		}

		// The policy is set once the owner has ordered it: the source takes no order.
		s.bound(3, c.permits)
		s.ask()
		s.order(time.Hour)
		s.bound(4, c.forbids)
		s.goOn()
		s.want(c.forbids+", set after the order", None, Dropped, "arena")
		if why := s.citadel.came(s.crossing.ID).Why; !strings.Contains(why, "policy") {
			t.Errorf("%s: citadel says %q", c.forbids, why)
		}

		s = newStage(t)
		s.stores["arena"].ceiling = carnet.Label{Sensitivity: carnet.Health}
		s.bound(3, c.permits)
		s.ask()
		s.order(time.Hour)
		s.goOn()
		s.want(c.permits, Gone, Home, "citadel")
	}
}

// A source holds an order against the policy itself: a target that leaves the policy out,
// or has it ordered with another, gets nothing.
func TestASourceHoldsThePolicy(t *testing.T) {
	for name, lie := range map[string]func(*stage, *Wanted){
		"left out":     func(_ *stage, w *Wanted) { w.Policy = "" },
		"an older one": func(s *stage, _ *Wanted) { s.bound(8, `{"store":{"depots":[]}}`) },
	} {
		s := newStage(t)
		s.bound(7, `{"transmit":{"worlds":[]}}`)
		w := s.traveller()
		lie(s, &w)
		var err error
		if s.crossing, err = s.citadel.Ask(t.Context(), "operator", w); err != nil {
			t.Fatal(name, err)
		}
		s.order(time.Hour)
		s.goOn()
		s.want(name, None, Dropped, "arena")
		if why := s.citadel.came(s.crossing.ID).Why; !strings.Contains(why, "don't have the avatar's policy") {
			t.Errorf("%s: citadel says %q", name, why)
		}
	}
}

// A policy that is set while the avatar is copied counts: it isn't frozen.
func TestAPolicyThatComesBeforeTheFreeze(t *testing.T) {
	s := newStage(t)
	s.ask()
	s.order(time.Hour)
	s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	s.want("before", Offered, Copying, "arena")
	s.bound(1, `{"cross":{"worlds":[]}}`)
	delete(s.cut, "freeze")
	s.goOn()
	s.want("in the end", Kept, Dropped, "arena")

	// At the last moment, while the source asks the register whether it is home.
	for name, document := range map[string]string{"that forbids it": `{"cross":{"worlds":[]}}`, "of which the order knows nothing": `{"transmit":{"onward":false}}`} {
		s = newStage(t)
		s.ask()
		s.order(time.Hour)
		s.registrar.waiting = map[carnet.HomeID]func(){s.crossing.Home.Home: func() { s.bound(1, document) }}
		s.goOn()
		s.want("a policy "+name, Kept, Dropped, "arena")
		if len(s.stores["arena"].frozen) > 0 {
			t.Errorf("a policy %s: the avatar keeps still", name)
		}
	}
}

// The policy goes along: the same document in the same version, signed for the target
// by the owner's key for it. What the owner orders is held against what was asked for.
func TestAPolicyGoesAlong(t *testing.T) {
	s := newStage(t)
	const document = `{"use":{"purposes":["care"]},"transmit":{"onward":false}}`
	s.bound(5, document)
	s.ask()
	r, _, err := identity.ParseMoveRequest(s.crossing.Request)
	if err != nil {
		t.Fatal(err)
	}
	without := r
	without.Policy = ""
	order, terms, err := without.Sign(s.owner, s.ownThere, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.citadel.TakeOrder(t.Context(), s.crossing.ID, identity.Ordered{Order: order, Terms: terms, Mandate: "mandate"}); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "policy") {
		t.Errorf("ordered without the policy: %v", err)
	}
	s.order(time.Hour)
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	p := s.stores["citadel"].policies[s.crossing.To]
	if string(p.Said.Policy) != document || p.Said.Version != 5 || p.Said.Owner != didOf("owner at citadel") || p.Said.World != didOf("citadel") || p.Said.Avatar != s.crossing.To {
		t.Errorf("at citadel the policy is %+v", p.Said)
	}
	if len(s.stores["arena"].policies) > 0 {
		t.Error("arena has kept it")
	}
}

// A source goes by its own clock, whatever its target's says.
func TestASourceHoldsTheTimeOfAPolicy(t *testing.T) {
	s := newStage(t)
	s.bound(1, fmt.Sprintf(`{"cross":{"until":%q}}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
	s.ask()
	s.order(10 * time.Hour)
	s.arena.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	s.goOn()
	s.want("in the end", None, Dropped, "arena")
	if why := s.citadel.came(s.crossing.ID).Why; !strings.Contains(why, "cross.until") {
		t.Errorf("citadel says %q", why)
	}
}

// An item that the policy doesn't let leave its world stays, with the avatar and without.
func TestAPolicyHoldsItems(t *testing.T) {
	for name, document := range map[string]string{"no item": `{"cross":{"items":[]}}`, "no world": `{"cross":{"worlds":[]}}`} {
		s := newStage(t)
		s.takes()
		sword := s.issue("sword")
		alone := s.itself(sword)
		s.asks(alone)
		s.order(time.Hour)
		s.bound(1, document) // the source refuses the order
		s.goOn()
		if at := s.is(sword.ID); at != "arena" {
			t.Errorf("%s: alone, the item is in %q", name, at)
		}
		if why := s.citadel.came(s.crossing.ID).Why; !strings.Contains(why, "the avatar's policy, version 1, forbids it") {
			t.Errorf("%s: citadel says %q", name, why)
		}
		with := s.wanted([]carnet.ItemID{sword.ID}, nil)
		with.Policy = s.traveller().Policy
		if _, err := s.citadel.Ask(t.Context(), "operator", with); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "cross.") {
			t.Errorf("%s: citadel makes room for both: %v", name, err)
		}
	}
}
