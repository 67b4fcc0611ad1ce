package entity

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/policy"
)

// bound sets the avatar's policy, as a world does: with the next revocation number.
func (p process) bound(t *testing.T, version uint64, document string) {
	t.Helper()
	b, err := policy.ParseBounds([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	b.Version = version
	err = p.revocations.End(t.Context(), func(number carnet.Document) error {
		p.bounds.Store(&b)
		return p.cfg.Store.Put(t.Context(), []carnet.Document{number}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A grant that the avatar's policy forbids isn't given, and the refusal names the member.
func TestAGrantThatThePolicyForbids(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	app := coach(t, a)
	other := strings.Repeat("0", 32)
	toApp := offer(t, app, `{"properties":{"heart_rate":{}}}`)
	onward := toApp
	onward.Onward = true
	abroad, moving := toApp, toApp
	abroad.To = To{Platform: "citadel", DID: worldKey("somebody")}
	abroad.Ceiling = &Clearance{Sensitivity: carnet.Personal}
	moving = abroad
	moving.Actions = []identity.Action{identity.ActionMove}
	citadel, clinic := worldKey("citadel"), worldKey("clinic")
	for _, c := range []struct {
		member, document string
		terms            Terms
	}{
		{"use.purposes", `{"use":{"purposes":["care"]}}`, toApp},
		{"", `{"use":{"purposes":["coaching"]}}`, toApp},
		{"transmit.applications", `{"transmit":{"applications":[]}}`, toApp},
		{"transmit.applications", fmt.Sprintf(`{"transmit":{"applications":[%q]}}`, other), toApp},
		{"", fmt.Sprintf(`{"transmit":{"applications":[%q],"worlds":[],"avatars":[]}}`, app.ID), toApp},
		{"transmit.onward", `{"transmit":{"onward":false}}`, onward},
		{"", `{"transmit":{"onward":false}}`, toApp},
		{"transmit.worlds", `{"transmit":{"worlds":[]}}`, abroad},
		{"transmit.worlds", fmt.Sprintf(`{"transmit":{"worlds":[%q]}}`, clinic), abroad},
		{"", fmt.Sprintf(`{"transmit":{"worlds":[%q],"applications":[]}}`, citadel), abroad},
		{"cross.worlds", `{"cross":{"worlds":[]}}`, moving},
		{"", `{"transmit":{"worlds":[]},"use":{"purposes":[]}}`, moving},
		{"", fmt.Sprintf(`{"cross":{"worlds":[%q]}}`, citadel), moving},
		{"", `{"cross":{"worlds":[]}}`, abroad},
	} {
		a.bound(t, 4, c.document)
		_, err := a.Assess(t.Context(), c.terms)
		if c.member == "" {
			if err != nil {
				t.Errorf("%s: %v", c.document, err)
			}
			continue
		}
		if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), c.member) || !strings.Contains(err.Error(), "version 4") {
			t.Errorf("%s: %v, want %s", c.document, err, c.member)
		}
	}
	a.bound(t, 5, `{"transmit":{"sensitivity":"public"}}`)
	r, err := a.Assess(t.Context(), toApp)
	if err != nil || r.Shown != 0 || !strings.Contains(fmt.Sprint(r.Lines), "transmit.sensitivity") {
		t.Errorf("with less than it has: %+v, %v", r, err)
	}
}

// A grant that was given gives nothing once the policy forbids it, and what lives by it
// ends within 250 ms; it gives again when the policy lets it.
func TestAPolicyEndsWhatItForbids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, table := fresh(t)
		a := start(t, m, table)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		a.run(ctx)
		app := coach(t, a)
		g := give(t, a, offer(t, app, `{"properties":{"heart_rate":{}}}`))
		ended := make(chan time.Time, 1)
		if _, err := a.Hold(g.ID, func() { ended <- time.Now() }); err != nil {
			t.Fatal(err)
		}
		a.bound(t, 1, `{"transmit":{"applications":["`+app.ID+`"]}}`)
		time.Sleep(time.Second)
		if len(ended) > 0 {
			t.Fatal("it has ended, and the policy permits it")
		}
		set := time.Now()
		a.bound(t, 2, `{"transmit":{"applications":[]}}`)
		if took := (<-ended).Sub(set); took > 250*time.Millisecond {
			t.Errorf("it ended after %v", took)
		}
		who := policy.Principal{Kind: policy.Application, Name: app.ID}
		known, err := a.Know(who, "watch-avatar", avatarID)
		if err != nil || known.Facts.Granted || !known.Visible || !strings.Contains(known.Why, "transmit.applications") {
			t.Errorf("the guard knows %+v, %v", known, err)
		}
		if len(a.Visible(who)) > 0 {
			t.Error("the avatar is listed")
		}
		for name, use := range map[string]func() error{
			"hold":  func() error { _, err := a.Hold(g.ID, func() {}); return err },
			"holds": func() error { _, err := a.Holds(g.ID, g.Version); return err },
			"lens":  func() error { _, err := a.Lens(g.ID, nil); return err },
		} {
			if err := use(); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "transmit.applications") {
				t.Errorf("%s: %v", name, err)
			}
		}
		a.bound(t, 3, `{}`)
		if known, err = a.Know(who, "watch-avatar", avatarID); err != nil || !known.Facts.Granted {
			t.Errorf("once it is permitted again: %+v, %v", known, err)
		}
		stop()
		synctest.Wait()
	})
}

// What the policy withholds isn't shown to who reads already.
func TestAPolicyNarrowsWhatIsOpen(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	l, err := a.Lens(give(t, a, offer(t, coach(t, a), `{"properties":{"heart_rate":{}}}`)).ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	shows := func() int {
		t.Helper()
		return len(l.Live(policy.Class{Label: carnet.Label{Sensitivity: carnet.Personal}, Retention: carnet.Day}, []carnet.Measurement{{Name: "heart_rate", Unit: "beat/min", Time: 1, Value: carnet.Float(60)}}))
	}
	if n := shows(); n != 1 {
		t.Fatalf("before: %d", n)
	}
	a.bound(t, 1, `{"transmit":{"sensitivity":"health"}}`)
	if n := shows(); n != 0 || l.Clearance().Sensitivity != carnet.Public {
		t.Errorf("%d are shown, and %s may come", n, l.Clearance().Sensitivity)
	}
	a.bound(t, 2, `{"transmit":{"sensitivity":"personal"}}`)
	if n := shows(); n != 1 {
		t.Errorf("afterwards: %d", n)
	}
}
