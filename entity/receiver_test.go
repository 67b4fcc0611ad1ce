package entity

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"testing"

	"carnet"
	"carnet/identity"
	"carnet/policy"
)

// By a call from another world no more flows than its world, the peering and the
// mandate let, whatever the grant's ceiling is, and by that one grant only.
func TestACallIsBoundedByMoreThanItsGrant(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, Principal{}, `{"properties":{"heart_rate":{}}}`)
	terms.To = To{Platform: "citadel", DID: identity.DID(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))}
	terms.Ceiling = &Clearance{Sensitivity: carnet.AllSensitive, Residency: []string{"eu"}}
	g := give(t, a, terms)
	terms.Purpose = "games"
	newer := give(t, a, terms)

	at := func(places ...string) carnet.Clearance {
		return carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "coaching", Residency: carnet.NewSet(places...)}
	}
	most := at("eu")
	l, err := a.Lens(g.ID, &most)
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[carnet.Label]int{
		{Sensitivity: carnet.Personal}: 1, {Sensitivity: carnet.Health}: 0, {Residency: "eu"}: 1, {Residency: "us"}: 0, {Purposes: "games"}: 0,
	} {
		ms := []carnet.Measurement{{Name: "heart_rate", Unit: "beat/min", Time: 1, Value: carnet.Float(70)}}
		if ms := l.Live(policy.Class{Label: label, Retention: carnet.Day}, ms); len(ms) != want {
			t.Errorf("labelled %+v it shows %+v", label, ms)
		}
	}
	elsewhere := at("eu", "us")
	for name, c := range map[string]struct {
		grant string
		most  carnet.Clearance
	}{"to a world that keeps it elsewhere, too": {g.ID, elsewhere}, "for another purpose": {newer.ID, most}} {
		if _, err := a.Lens(c.grant, &c.most); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}

	known, err := a.KnowBy(g.ID, g.Version, "watch-avatar", g.Avatar)
	if err != nil || !known.Facts.Granted || known.Grant != g.ID || known.Facts.Purpose != "coaching" {
		t.Errorf("by its grant a caller is known as %+v, %v", known, err)
	}
	for name, c := range map[string]struct {
		version uint64
		action  policy.Action
		avatar  carnet.AvatarID
	}{
		"another version": {g.Version + 1, "watch-avatar", g.Avatar}, "what it doesn't give": {g.Version, "get-state", g.Avatar},
		"another avatar": {g.Version, "watch-avatar", carnet.NewAvatarID()},
	} {
		if known, err := a.KnowBy(g.ID, c.version, c.action, c.avatar); err != nil || known.Facts.Granted {
			t.Errorf("%s: %+v, %v", name, known, err)
		}
	}
}

// What another world may not be given by its peering, no grant to it shows, and the
// assessment says so.
func TestAGrantAbroadIsHeldAgainstThePeering(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, Principal{}, `{"properties":{"heart_rate":{}}}`)
	terms.To = To{Platform: "citadel", DID: worldKey("somebody")}
	terms.Ceiling = &Clearance{Sensitivity: carnet.AllSensitive}
	for _, c := range []struct {
		most  carnet.Sensitivity
		known bool
		shown int
		kind  string
	}{{carnet.AllSensitive, true, 1, Matches}, {carnet.Public, true, 0, Labelled}, {carnet.Public, false, 1, Matches}} {
		a.cfg.Receives = func(world carnet.PartyID) (carnet.Clearance, bool) {
			return carnet.Clearance{Sensitivity: c.most, Purposes: carnet.NewSet(terms.Purpose)}, c.known && world == "citadel"
		}
		is, err := a.Assess(t.Context(), terms)
		if err != nil || is.Shown != c.shown || !slices.ContainsFunc(is.Lines, func(l Line) bool { return l.Property == "heart_rate" && l.Kind == c.kind }) {
			t.Errorf("to who may have what is %s (known: %t): %+v, %v", c.most, c.known, is, err)
		}
		l, err := a.Lens(give(t, a, terms).ID, nil)
		if err != nil || l.Shows("heart_rate") != (c.shown == 1) {
			t.Errorf("to who may have what is %s (known: %t) a grant shows it: %t, %v", c.most, c.known, l.Shows("heart_rate"), err)
		}
	}
	for _, most := range []carnet.Clearance{
		{Sensitivity: carnet.AllSensitive, Purposes: "games"}, {Sensitivity: carnet.AllSensitive, Purposes: carnet.NewSet(terms.Purpose), Residency: "us"},
	} {
		a.cfg.Receives = func(carnet.PartyID) (carnet.Clearance, bool) { return most, true }
		terms.Ceiling.Residency = []string{"eu"}
		if is, err := a.Assess(t.Context(), terms); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("to who may have %+v: %+v, %v", most, is, err)
		}
	}
}

// What is bound to a place goes to who keeps data there and nowhere else, and says so:
// neither a ceiling nor another program of the same avatar makes more of it flow.
func TestWhereAReceiverKeepsData(t *testing.T) {
	is := func(places ...string) Clearance { return Clearance{carnet.AllSensitive, places} }
	german := policy.Class{Label: carnet.Label{Sensitivity: carnet.Personal, Residency: "de"}, Retention: carnet.Day}
	ms := []carnet.Measurement{{Name: "heart_rate", Unit: "beat/min", Time: 1, Value: carnet.Float(60)}}
	for n, c := range []struct {
		keep    []Clearance // of each program
		ceiling *Clearance
		want    carnet.Code // of the grant
		shown   int         // of what is bound to de
	}{
		{[]Clearance{is()}, nil, "", 0},
		{[]Clearance{is("de")}, nil, "", 1},
		{[]Clearance{is("de", "us")}, nil, "", 0},
		{[]Clearance{is()}, new(is("de")), carnet.Forbidden, 0},
		{[]Clearance{is("de", "us")}, new(is("de")), carnet.Forbidden, 0},
		{[]Clearance{is("de")}, new(is("de", "fr")), "", 1},
		{[]Clearance{is("de")}, new(is()), "", 1},
		{[]Clearance{is("de"), is("de")}, nil, "", 1},
		{[]Clearance{is("de"), is("de", "us")}, nil, "", 0},
		{[]Clearance{is("de"), is()}, nil, "", 0},
		{[]Clearance{is("de"), is("fr"), is("de")}, nil, "", 0},
	} {
		m, table := fresh(t)
		a := start(t, m, table)
		self := avatarID
		for i, keeps := range c.keep {
			if _, _, err := a.AddPrincipal(t.Context(), "ops", NewPrincipal{Kind: KindAvatar, Avatar: &self, Name: fmt.Sprintf("program %d of %d", i, n), Purpose: "coaching", Clearance: keeps}); err != nil {
				t.Fatal(err)
			}
		}
		terms := offer(t, Principal{}, `{"properties":{"heart_rate":{}}}`)
		terms.To, terms.Ceiling = To{Avatar: self.String()}, c.ceiling
		if r, err := a.Assess(t.Context(), terms); carnet.CodeOf(err) != c.want {
			t.Errorf("%+v: %+v, %v", c, r, err)
		}
		if c.want != "" {
			continue
		}
		l, err := a.Lens(give(t, a, terms).ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if shown := l.Live(german, ms); len(shown) != c.shown {
			t.Errorf("%+v: it shows %v", c, shown)
		}
	}
}
