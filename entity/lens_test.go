package entity

import (
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/policy"
)

// said is an avatar that has shown these properties, in this order.
type said struct {
	watch
	props []policy.Property
}

func (s said) Properties(carnet.AvatarID) ([]policy.Property, error) {
	return slices.Clone(s.props), nil
}

func named(name string, k carnet.Kind) policy.Property {
	return policy.Property{Name: name, Unit: "beat/min", Kind: k, Label: carnet.Label{Sensitivity: carnet.Personal}, Retention: carnet.Day}
}

// read is what a lens reads of a batch that is labelled so.
func read(l *Lens, label carnet.Label, ms []carnet.Measurement) (all []carnet.Measurement) {
	for _, m := range ms {
		if l.Reads(policy.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Label: label, Retention: carnet.Day}) {
			all = append(all, m)
		}
	}
	return all
}

// The judge is asked about each label that an avatar has a property by, whichever is the
// newest: health isn't for coaching, though the coach is cleared for it.
func TestTheJudgeIsAskedAboutEachLabel(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	class := func(s carnet.Sensitivity) policy.Class {
		return policy.Class{Label: carnet.Label{Sensitivity: s}, Retention: carnet.Day}
	}
	plain, health := class(carnet.Personal), class(carnet.Personal|carnet.Health)
	at := int64(1_800_000_000_000_000_000)
	ms := []carnet.Measurement{{Name: "heart_rate", Unit: "beat/min", Time: at, Value: carnet.Float(60)}}
	for name, newest := range map[string]policy.Class{"plain": plain, "health": health} {
		p := named("heart_rate", carnet.Number)
		p.Label = newest.Label
		a.cfg.Avatars = said{watch{some: true, all: true}, []policy.Property{p}}
		who, _, err := a.AddPrincipal(t.Context(), "ops", NewPrincipal{Kind: KindApplication, Name: "cleared " + name, Purpose: "coaching", Clearance: Clearance{Sensitivity: carnet.AllSensitive}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := a.Lens(give(t, a, offer(t, who, `{"properties":{"heart_rate":{}}}`)).ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for want, class := range []policy.Class{health, plain} {
				if live := l.Live(class, ms); len(live) != want {
					t.Errorf("the newest is %s: live shows %v of what is %s", name, live, class.Label.Sensitivity)
				}
				l.Restart()
				if past := l.History(read(l, class.Label, ms), at); len(past) != want {
					t.Errorf("the newest is %s: a history shows %v of what is %s", name, past, class.Label.Sensitivity)
				}
			}
		}
	}
}

// A name that can't be beside what was shown before is left out: of history and live,
// whether the avatar is known to have shown it or not, and of assessments.
func TestANameBesideAnother(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	at := int64(1_800_000_000_000_000_000)
	ms := []carnet.Measurement{
		{Name: "heart_rate/x", Time: at - 1, Value: carnet.Float(1)},
		{Name: "heart_rate", Unit: "beat/min", Time: at, Value: carnet.Float(61)},
		{Name: "steps", Time: at, Value: carnet.Value{Kind: carnet.Text, Str: "many"}},
		{Name: "steps", Time: at + 1, Value: carnet.Float(10)},
	}
	for name, props := range map[string][]policy.Property{
		"new":   {named("heart_rate", carnet.Number)},
		"known": {named("heart_rate", carnet.Number), named("heart_rate/x", carnet.Number), named("steps", carnet.Text)},
	} {
		a.cfg.Avatars = said{watch{some: true, all: true}, props}
		terms := offer(t, coach(t, a), `{"properties":{"heart_rate":{"round":5},"steps":{"round":10}}}`)
		r, err := a.Assess(t.Context(), terms)
		if err != nil || r.Shown != 1 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if left := slices.ContainsFunc(r.Lines, func(l Line) bool { return l.Kind == Denied && strings.Contains(l.Text, "heart_rate/x is withheld") }); left != (name == "known") {
			t.Errorf("%s: it says %+v", name, r.Lines)
		}
		g := give(t, a, terms)
		personal := carnet.Label{Sensitivity: carnet.Personal}
		for what, show := range map[string]func(l *Lens) []carnet.Measurement{
			"history": func(l *Lens) []carnet.Measurement { return l.History(read(l, personal, ms), at-10) },
			"live": func(l *Lens) []carnet.Measurement {
				return l.Live(policy.Class{Label: personal, Retention: carnet.Day}, ms)
			},
		} {
			l, err := a.Lens(g.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			shown := show(l)
			if !slices.ContainsFunc(shown, func(m carnet.Measurement) bool { return m.Name == "heart_rate" && m.Value.Num == 60 }) ||
				slices.ContainsFunc(shown, func(m carnet.Measurement) bool { return m.Name == "heart_rate/x" || m.Value.Kind == carnet.Text }) {
				t.Errorf("%s: %s shows %v", name, what, shown)
			}
		}
	}
}

// Whatever the rates of a view are, stepping the beginning of a question forward shows
// one measurement of each interval.
func TestTwoRatesOfOneView(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	const s = int64(1e9)
	base := int64(1_800_000_000) * s
	g := give(t, a, offer(t, coach(t, a), `{"properties":{"heart_rate":{"rate":"59s"},"temperature":{"rate":"60s"}}}`))
	seen := map[int64]int64{}
	for from := base; from < base+600*s; from += s {
		l, err := a.Lens(g.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		var ms []carnet.Measurement
		for at := l.Begin(from); at < base+600*s; at += s {
			ms = append(ms, carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: at, Value: carnet.Float(60)})
		}
		for _, m := range l.History(read(l, carnet.Label{Sensitivity: carnet.Personal}, ms), from) {
			interval := m.Time / (59 * s)
			if had, ok := seen[interval]; ok && had != m.Time {
				t.Fatalf("one interval shows %d and %d", had, m.Time)
			}
			seen[interval] = m.Time
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d intervals show anything", len(seen))
	}
}
