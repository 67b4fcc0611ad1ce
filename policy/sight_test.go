package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"carnet"
)

func sight(t *testing.T, view string) *Sight {
	t.Helper()
	v, err := ParseView([]byte(view))
	if err != nil {
		t.Fatal(err)
	}
	judge, err := NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSight(judge, v, Reader{Party: "arena", Clearance: carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "fitness"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A sight shows what it was told of, under the label that it was told last; rates
// go on over what it learns.
func TestSight(t *testing.T) {
	s := sight(t, `{"properties": {"speed": {"rate": "1s"}, "steps": {}}}`)
	var memory State
	apply := func(name string, at int64) Verdict {
		return s.Apply(&memory, &carnet.Measurement{Name: name, Time: at, Value: carnet.Float(1)})
	}
	learn := func(p Property) {
		t.Helper()
		p.Kind, p.Retention = carnet.Number, carnet.Day
		if err := s.Learn(p); err != nil {
			t.Fatal(err)
		}
	}
	if v := apply("speed", 0); v != NotInView {
		t.Errorf("what isn't known is %s", v)
	}
	learn(Property{Name: "speed"})
	if first, second := apply("speed", 0), apply("speed", 5e8); first != Admitted || second != RateExceeded {
		t.Errorf("speed is %s, then %s", first, second)
	}
	learn(Property{Name: "steps"})
	if v := apply("speed", 6e8); v != RateExceeded {
		t.Errorf("once the sight has learned of another property, speed is %s", v)
	}
	learn(Property{Name: "steps", Label: carnet.Label{Sensitivity: carnet.Health}})
	if v := apply("steps", 0); v != ExceedsClearance || s.Shows("steps") || !s.Shows("speed") {
		t.Errorf("steps are %s under a label above the clearance", v)
	}
	learn(Property{Name: "mood"})
	if s.Knows("mood") || s.Shows("mood") {
		t.Error("the sight remembers what the view doesn't name")
	}
}

// What can't be beside what is known is left out, and changes nothing.
func TestSightStaysAsItWas(t *testing.T) {
	s := sight(t, `{"properties": {"position": {}}}`)
	lat := Property{Name: "position/lat", Kind: carnet.Number, Retention: carnet.Day}
	lon := Property{Name: "position/lon", Kind: carnet.Number, Retention: carnet.Day}
	for _, p := range []Property{lat, {Name: "position", Kind: carnet.Number, Retention: carnet.Day}, lon, {Name: "position/alt", Kind: carnet.Number}} {
		fits := s.Fits(p)
		if err := s.Learn(p); err != nil {
			t.Fatal(err)
		}
		if s.Has(p) != (fits == nil) {
			t.Errorf("of %+v it is said that %v, and it is known: %v", p, fits, s.Has(p))
		}
	}
	if !slices.Equal(s.Known(), []Property{lat, lon}) || !s.Shows("position/lat") {
		t.Errorf("the sight knows %v", s.Known())
	}
}

// A sight is made of what can stand beside what came before it, and is asked about
// nothing else: neither what the view doesn't name nor of another kind than the view
// is for keeps it from being made.
func TestSightOfWhatCantStandTogether(t *testing.T) {
	v, err := ParseView([]byte(`{"properties": {"heart_rate": {"round": 5}, "steps": {"round": 10}}}`))
	if err != nil {
		t.Fatal(err)
	}
	judge, err := NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string, k carnet.Kind) Property { return Property{Name: name, Kind: k, Retention: carnet.Day} }
	s, err := NewSight(judge, v, Reader{Party: "arena"}, 1, of("heart_rate", carnet.Number), of("heart_rate/x", carnet.Number), of("x", carnet.Number), of("x/y", carnet.Number), of("steps", carnet.Text))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Shows("heart_rate") || s.Knows("heart_rate/x") || s.Knows("steps") || s.Knows("x") {
		t.Errorf("the sight knows %v", s.Known())
	}
	if err := s.Learn(of("steps", carnet.Number)); err != nil || !s.Shows("steps") {
		t.Errorf("steps are a number again: %v, %v", s.Known(), err)
	}
}

// The judge is asked once about what is told twice, and properties are told together.
func TestSightLearnsAtOnce(t *testing.T) {
	var names []string
	for o := range 31 {
		names = append(names, fmt.Sprintf(`"o%d":{}`, o))
	}
	s := sight(t, `{"properties": {`+strings.Join(names, ",")+`}}`)
	learn := func(unit string) int {
		var all []Property
		for o := range 31 {
			for f := range 32 {
				all = append(all, Property{Name: fmt.Sprintf("o%d/f%d", o, f), Unit: unit, Kind: carnet.Number, Retention: carnet.Day})
			}
		}
		before := s.table
		if err := s.Learn(all...); err != nil || s.table == before && unit != "" {
			t.Fatal(err)
		}
		return len(s.compiler.decided)
	}
	if first, second, again := learn("m"), learn("km"), learn("m"); first != 992 || second != 2*992 || again != second {
		t.Errorf("the judge was asked %d, %d and %d times in all", first, second, again)
	}
}

// A memory goes from one table of a view to another, and nothing is forgotten on the
// way: two writers of one avatar, of which each has shown something else.
func TestAMemoryOfTwoSights(t *testing.T) {
	view := `{"properties": {"speed": {"rate": "1m"}, "steps": {"rate": "1m"}}}`
	one, two := sight(t, view), sight(t, view)
	var memory State
	for _, c := range []struct {
		s    *Sight
		name string
		want Verdict
	}{{one, "speed", Admitted}, {two, "steps", Admitted}, {one, "speed", RateExceeded}, {two, "steps", RateExceeded}} {
		if err := c.s.Learn(Property{Name: c.name, Kind: carnet.Number, Retention: carnet.Day}); err != nil {
			t.Fatal(err)
		}
		if v := c.s.Apply(&memory, &carnet.Measurement{Name: c.name, Time: 1e9, Value: carnet.Float(1)}); v != c.want {
			t.Errorf("%s is %s, want %s", c.name, v, c.want)
		}
	}
}
