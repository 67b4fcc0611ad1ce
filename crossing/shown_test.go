package crossing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/policy"
)

// showing makes what applies a view to a stream.
func showing(t *testing.T, view string) *shown {
	t.Helper()
	v, err := policy.ParseView([]byte(view))
	if err != nil {
		t.Fatal(err)
	}
	j, err := policy.NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &shown{memory: new(remembered), share: &Given{View: v, Most: carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "fitness"}, Taker: "citadel", GrantVersion: 1}}
	if err := s.see(j); err != nil {
		t.Fatal(err)
	}
	return s
}

var personal = &avatar.Batch{Label: carnet.Label{Sensitivity: carnet.Personal}, Retention: carnet.Day}

// Of a name that a batch has several columns of nothing is shown, and the rest is.
func TestANameInSeveralColumns(t *testing.T) {
	s := showing(t, `{"properties":{"heart_rate":{},"steps":{}}}`)
	one := func(name, unit string, at int64) carnet.Measurement {
		return carnet.Measurement{Name: name, Unit: unit, Time: at, Value: carnet.Float(1)}
	}
	now := time.Unix(1_800_000_000, 0)
	out, whole := s.batch(personal, []carnet.Measurement{one("heart_rate", "a", 1), one("steps", "", 2), one("heart_rate", "b", 3)}, now)
	if len(out) != 1 || out[0].Name != "steps" || whole {
		t.Errorf("it shows %v, all: %v", out, whole)
	}
	if out, whole = s.batch(personal, []carnet.Measurement{one("heart_rate", "a", 4), one("steps", "", 5)}, now); len(out) != 2 || !whole {
		t.Errorf("then it shows %v, all: %v", out, whole)
	}
}

// A stream that changes its properties all the time is shown as far as it may, and
// goes on when time has passed. What was admitted under another label isn't.
func TestAStreamThatChangesAllTheTime(t *testing.T) {
	var names []string
	for o := range 31 {
		names = append(names, fmt.Sprintf(`"o%d":{}`, o))
	}
	s := showing(t, `{"properties":{`+strings.Join(names, ",")+`}}`)
	say := func(unit string) (ms []carnet.Measurement) {
		for o := range 31 {
			for f := range 32 {
				ms = append(ms, carnet.Measurement{Name: fmt.Sprintf("o%d/f%d", o, f), Unit: unit, Time: 1, Value: carnet.Float(1)})
			}
		}
		return ms
	}
	now, begun := time.Unix(1_800_000_000, 0), time.Now()
	shows := func(want int, b *avatar.Batch, unit string) {
		t.Helper()
		if out, _ := s.batch(b, say(unit), now); len(out) != want {
			t.Errorf("in %s it shows %d, want %d", unit, len(out), want)
		}
	}
	shows(992, personal, "m")
	shows(992, personal, "km")
	health := &avatar.Batch{Label: carnet.Label{Sensitivity: carnet.Health}, Retention: carnet.Day}
	shows(0, health, "km")     // for 64 of them it is known why, of the others it isn't
	shows(0, personal, "mm")   // none left
	shows(928, personal, "km") // as it is known, but for the 64
	now = now.Add(time.Minute)
	shows(992-64+64, personal, "km")
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
