package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet/modules/guest"
	"carnet/modules/moduletest"
)

// minute is a minute in which a watch measured the same all the time, each ten seconds;
// less than 0: not at all.
func minute(n int, heart, speed, cadence float64) (ms []guest.Measurement) {
	for i := range 6 {
		at := time.Duration(n)*time.Minute + time.Duration(i)*10*time.Second
		for name, v := range map[string]float64{"heart_rate": heart, "speed": speed, "cadence": cadence} {
			if v >= 0 {
				ms = append(ms, moduletest.Number(name, at, v, ""))
			}
		}
	}
	return ms
}

// Each kind is told by what makes it, and by nothing else.
func TestKinds(t *testing.T) {
	const none = -1
	for _, c := range []struct {
		heart, speed, cadence float64
		kind                  string
	}{
		{150, 3, 80, "running"}, {none, none, 65, "running"}, {150, 4.5, 85, "running"},
		{100, 1.4, 55, "walking"}, {none, none, 20, "walking"}, {100, 3.9, 60, "walking"},
		{130, 7, 0, "cycling"}, {130, 7, none, "cycling"}, {none, 7, 40, "cycling"}, {90, 4, 64, "cycling"},
		{80, 20, none, "riding"}, {none, 2.5, 0, "riding"},
		{130, 0, 0, "working"}, {112, none, none, "working"},
		{70, 0, 0, "still"}, {111, none, none, "still"}, {none, 2.4, 19, "still"},
	} {
		out, err := moduletest.Run(t, &motion{}, "", moduletest.Said{Avatar: "a1", Measurements: minute(0, c.heart, c.speed, c.cadence)})
		if err != nil || !strings.HasPrefix(out, `{"avatar":"a1","seconds":{"`+c.kind+`":60},"stretches":1}`+"\n") {
			t.Errorf("heart %g, speed %g, cadence %g: %s, %v, want %s", c.heart, c.speed, c.cadence, out, err, c.kind)
		}
	}
}

func TestStretches(t *testing.T) {
	var ms []guest.Measurement
	for n, m := range [][3]float64{{70, 0, 0}, {100, 1.5, 50}, {104, 1.5, 52}, {160, 3, 85}} {
		ms = append(ms, minute(n, m[0], m[1], m[2])...)
	}
	ms = append(ms, minute(9, 160, 3, 85)...) // after a gap
	slices.Reverse(ms)
	want := `{"avatar":"a1","seconds":{"running":120,"still":60,"walking":120},"stretches":4}
{"avatar":"a1","kind":"still","from":"1970-01-01T00:00:00Z","to":"1970-01-01T00:01:00Z","heart_rate":70,"speed":0,"steps":0}
{"avatar":"a1","kind":"walking","from":"1970-01-01T00:01:00Z","to":"1970-01-01T00:03:00Z","heart_rate":102,"speed":1.5,"steps":102}
{"avatar":"a1","kind":"running","from":"1970-01-01T00:03:00Z","to":"1970-01-01T00:04:00Z","heart_rate":160,"speed":3,"steps":170}
{"avatar":"a1","kind":"running","from":"1970-01-01T00:09:00Z","to":"1970-01-01T00:10:00Z","heart_rate":160,"speed":3,"steps":170}
`
	if got, err := moduletest.Run(t, &motion{}, "", moduletest.Said{Avatar: "a1", Measurements: ms}); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// A watch that only counts steps tells as much, from one count to the next.
func TestCounts(t *testing.T) {
	var ms []guest.Measurement
	for i, steps := range []float64{0, 50, 100, 185, 270, 270, 3} { // one in each window; the last after midnight
		ms = append(ms, moduletest.Number("steps", time.Duration(i)*30*time.Second, steps, "count"))
	}
	out, err := moduletest.Run(t, &motion{}, "", moduletest.Said{Avatar: "a1", Measurements: ms})
	if err != nil || !strings.HasPrefix(out, `{"avatar":"a1","seconds":{"running":60,"still":90,"walking":60},"stretches":4}`+"\n") {
		t.Errorf("%s, %v", out, err)
	}
}

// A long output comes in parts that an engine takes, and in few.
func TestManyStretches(t *testing.T) {
	var ms []guest.Measurement
	for n := range 5000 {
		ms = append(ms, minute(2*n, 70, 0, float64(n%2)*60)...)
	}
	parts, lines := 0, 0
	guest.Part = func(b []byte) error {
		if parts++; len(b) > 512<<10 {
			t.Errorf("a part has %d bytes", len(b))
		}
		lines += strings.Count(string(b), "\n")
		return nil
	}
	p := &motion{}
	if err := p.Open([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := p.Take("a1", ms); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil || lines != 5001 || parts > 20 {
		t.Errorf("%d lines in %d parts, %v", lines, parts, err)
	}
}

func TestParameters(t *testing.T) {
	for _, wrong := range []string{`{"per":0}`, `{"rest":0}`, `{"max":50}`, `{"window":0}`, `{"window":3601}`, `{"window":1.5}`, `"x"`} {
		if _, err := moduletest.Run(t, &motion{}, wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
	out, err := moduletest.Run(t, &motion{}, `{"heart_rate":"pulse","rest":40,"max":140,"window":10}`, moduletest.Said{Avatar: "a1", Measurements: []guest.Measurement{moduletest.Number("pulse", 0, 80, "")}})
	var first struct{ Seconds map[string]int }
	if err != nil || json.NewDecoder(strings.NewReader(out)).Decode(&first) != nil || first.Seconds["working"] != 10 {
		t.Errorf("%s, %v", out, err)
	}
}
