package policy

import (
	"strings"
	"testing"

	"carnet"
)

func TestCompileRefuses(t *testing.T) {
	tests := []struct {
		name, view string
		code       carnet.Code
	}{
		{"rounding a text", `{"properties":{"note":{"round":5}}}`, carnet.WrongType},
		{"deadband of a text", `{"properties":{"note":{"deadband":5}}}`, carnet.WrongType},
		{"precision of a text", `{"properties":{"note":{"precision_m":5}}}`, carnet.WrongType},
		{"deadband of an object", `{"properties":{"accel":{"deadband":5}}}`, carnet.WrongType},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tryCompile(t, openDoor, tt.view, clinic); carnet.CodeOf(err) != tt.code {
				t.Errorf("error %v, want code %s", err, tt.code)
			}
		})
	}
	j, err := NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]Property{
		"twice":             {watch[0], watch[0]},
		"object and field":  {{Name: "p", Kind: carnet.Number, Retention: carnet.Day}, {Name: "p/x", Kind: carnet.Number, Retention: carnet.Day}},
		"field and object":  {{Name: "p/x", Kind: carnet.Number, Retention: carnet.Day}, {Name: "p", Kind: carnet.Number, Retention: carnet.Day}},
		"without kind":      {{Name: "p", Retention: carnet.Day}},
		"without retention": {{Name: "p", Kind: carnet.Number}},
		"bad name":          {{Name: "p/x/y", Kind: carnet.Number, Retention: carnet.Day}},
	}
	for name, props := range bad {
		if _, err := Compile(j, props, View{}, clinic, 1); err == nil {
			t.Errorf("properties %s compile", name)
		}
	}
	for name, v := range map[string]View{
		"round":       {Properties: map[string]PropertyView{"steps": {Round: -1}}},
		"precision":   {Properties: map[string]PropertyView{"steps": {PrecisionM: -1}}},
		"rate":        {Properties: map[string]PropertyView{"steps": {Rate: -1}}},
		"retention":   {Retention: 9},
		"store":       {Store: "cloud"},
		"object both": {Properties: map[string]PropertyView{"accel": {}, "accel/x": {}}},
	} {
		if _, err := Compile(j, watch, v, clinic, 1); err == nil {
			t.Errorf("a view with a bad %s compiles", name)
		}
	}
}

func TestClearanceHoldsBelowCedar(t *testing.T) {
	tests := []struct {
		name, view string
		clearance  carnet.Clearance
		sentence   string
	}{
		{"sensitivity", `{"properties":{"heart_rate":{}}}`, carnet.Clearance{Sensitivity: carnet.Location}, "the data is health and the reader is cleared for location"},
		{"the view's purposes", `{"properties":{"heart_rate":{}},"purposes":["care"]}`, carnet.Clearance{Sensitivity: carnet.Health, Purposes: "ads,care"}, "bound to purpose care"},
		{"no purposes", `{"properties":{"heart_rate":{}},"purposes":[]}`, carnet.Clearance{Sensitivity: carnet.Health, Purposes: "care"}, "the data is bound to no purpose at all, or to some that have none in common"},
		{"the view's residency", `{"properties":{"heart_rate":{}},"residency":["eu"]}`, carnet.Clearance{Sensitivity: carnet.Health}, "bound to residency eu"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := compile(t, openDoor, tt.view, Reader{"arena", tt.clearance}).Result(heartRate)
			if r.Admit || r.Reason != ExceedsClearance || !strings.Contains(r.Decision.Sentence, tt.sentence) {
				t.Errorf("%+v, want it withheld with %q", r, tt.sentence)
			}
		})
	}
}

// A property and a view that leave each other no purpose, or no place, say which.
func TestNothingInCommonIsNamed(t *testing.T) {
	j, err := NewJudge(map[string][]byte{"test.cedar": []byte(openDoor)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		view, want string
		label      carnet.Label
	}{
		{`"purposes":["coaching"]`, "arena may not receive steps: the data may be used for care, sport only, and by the view coaching: they have none in common", carnet.Label{Purposes: "care,sport"}},
		{`"residency":["us"]`, "arena may not receive steps: the data may be kept in eu only, and by the view us: they have none in common", carnet.Label{Residency: "eu"}},
		{`"purposes":["coaching"]`, "arena may not receive steps: the data is health and the reader is cleared for public", carnet.Label{Sensitivity: carnet.Health, Purposes: "care"}},
	} {
		v, err := ParseView([]byte(`{"properties":{"steps":{}},` + tt.view + `}`))
		if err != nil {
			t.Fatal(err)
		}
		table, err := Compile(j, []Property{{Name: "steps", Kind: carnet.Number, Label: tt.label, Retention: carnet.Day}}, v, Reader{"arena", carnet.Clearance{Purposes: "coaching", Residency: "us"}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if r := table.Result(0); r.Admit || r.Decision.Sentence != tt.want {
			t.Errorf("%+v, want %q", r, tt.want)
		}
	}
}

func TestResults(t *testing.T) {
	table := compile(t, openDoor, `{"properties":{"heart_rate":{},"note":{},"steps":{},"position":{}},"purposes":["care"],"retention":"month"}`, clinic)
	care := func(s carnet.Sensitivity) carnet.Label { return carnet.Label{Sensitivity: s, Purposes: "care"} }
	want := []Class{{care(carnet.Health), carnet.Month}, {care(carnet.Public), carnet.Month}, {care(carnet.Location), carnet.Day}}
	for prop, class := range map[int]int{heartRate: 0, steps: 1, note: 1, lat: 2, lon: 2} {
		r := table.Result(prop)
		if !r.Admit || r.Class != class || (Class{r.Label, r.Retention}) != want[class] || table.Classes()[class] != want[class] {
			t.Errorf("%s: %+v, want class %d: %+v", watch[prop].Name, r, class, want[class])
		}
	}
	if r := table.Result(accelX); r.Class != -1 || r.Admit || r.Label != (carnet.Label{}) {
		t.Errorf("a withheld property has %+v", r)
	}
	if len(table.Classes()) != len(want) || table.Version() != 1 {
		t.Errorf("%d classes, version %d", len(table.Classes()), table.Version())
	}
	m := carnet.Measurement{Value: carnet.String("hello")}
	if v := table.Apply(new(State), note, &m); v != Admitted || m.Value.Str != "hello" {
		t.Errorf("a text is %v, %q", v, m.Value.Str)
	}
	if v := table.Apply(new(State), heartRate, &m); v != WrongKind {
		t.Errorf("a text for a number is %v", v)
	}
}

func TestObjectsAreWhole(t *testing.T) {
	j, err := NewJudge(map[string][]byte{"test.cedar": []byte(openDoor + `@id("no-z") forbid (principal, action, resource == Property::"accel/z");`)})
	if err != nil {
		t.Fatal(err)
	}
	props := append([]Property{{"position/alt", "m", carnet.Number, carnet.Label{Sensitivity: carnet.Personal}, carnet.Hour}}, watch...)
	v := View{Properties: map[string]PropertyView{"accel": {}, "position": {PrecisionM: 1000}}}
	table, err := Compile(j, props, v, clinic, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{accelX, accelY} {
		if r := table.Result(1 + i); r.Admit || r.Reason != Incomplete || r.Decision.Policy != "no-z" {
			t.Errorf("%s beside a forbidden field: %+v", props[1+i].Name, r)
		}
	}
	if r := table.Result(1 + accelZ); r.Reason != DeniedByPolicy {
		t.Errorf("accel/z: %+v", r)
	}
	if r := table.Result(0); r.Reason != Incomplete || !strings.Contains(r.Decision.Sentence, "lat and lon") {
		t.Errorf("position/alt on a grid: %+v", r)
	}
	for _, i := range []int{lat, lon} {
		if r := table.Result(1 + i); !r.Admit || r.Retention != carnet.Hour || r.Label.Sensitivity != carnet.Personal|carnet.Location {
			t.Errorf("%s does not share its object's label and retention: %+v", props[1+i].Name, r)
		}
	}
	v = View{Properties: map[string]PropertyView{"position/lat": {PrecisionM: 1000}, "accel/x": {}}}
	if table, err = Compile(j, props, v, clinic, 1); err != nil {
		t.Fatal(err)
	}
	if r := table.Result(1 + lat); r.Reason != Incomplete {
		t.Errorf("position/lat alone on a grid: %+v", r)
	}
	if r := table.Result(1 + accelX); !r.Admit {
		t.Errorf("accel/x named alone: %+v", r)
	}
}
