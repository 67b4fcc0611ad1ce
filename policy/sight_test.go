package policy

import (
	"slices"
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

// What can't be beside what is known is refused, and changes nothing.
func TestSightStaysAsItWas(t *testing.T) {
	s := sight(t, `{"properties": {"position": {}}}`)
	for _, name := range []string{"position/lat", "position/lon"} {
		if err := s.Learn(Property{Name: name, Kind: carnet.Number, Retention: carnet.Day}); err != nil {
			t.Fatal(err)
		}
	}
	was := s.Known()
	for _, p := range []Property{{Name: "position", Kind: carnet.Number, Retention: carnet.Day}, {Name: "position/alt", Kind: carnet.Number}} {
		if err := s.Learn(p); err == nil {
			t.Errorf("%+v is taken in", p)
		}
	}
	if !slices.Equal(s.Known(), was) || !s.Shows("position/lat") {
		t.Errorf("the sight knows %v, knew %v", s.Known(), was)
	}
}
