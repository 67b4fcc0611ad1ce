package audit_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/audit"
	"carnet/policy"
)

// story is a sender's: "view …" puts a view in force, "decide N" sends what
// waits in the lane of N ms, and anything else is a message "time name=value …".
type story []string

func (y story) tell(t *testing.T, s *sender) {
	t.Helper()
	for _, line := range y {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "view":
			if !s.setView(t, []byte(`{"properties":{`+rest+`}}`), false, true) {
				t.Fatalf("the engine refuses %s", rest)
			}
		case "stop":
			s.setView(t, s.views[len(s.views)-1].View, true, true)
		case "decide":
			var lane int64
			fmt.Sscan(rest, &lane)
			s.decide(t, lane)
		case "arrive":
			s.arrive()
		case "lose":
			s.lose()
		default:
			s.receive(message(t, line))
		}
	}
}

func message(t *testing.T, line string) (ms []carnet.Measurement) {
	t.Helper()
	words := strings.Fields(line)
	var seconds float64
	if _, err := fmt.Sscan(words[0], &seconds); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		m := carnet.Measurement{Name: name, Time: int64(seconds * 1e9)}
		var v float64
		if _, err := fmt.Sscan(value, &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		m.Value = carnet.Float(v)
		ms = append(ms, m)
	}
	return ms
}

// outcome writes what the oracle admits the way messages are written.
func outcome(t *testing.T, s *sender, from uint64) (lines []string) {
	t.Helper()
	err := s.oracle(t, from, nil).Recompute(context.Background(), s.messages, func(a audit.Admitted) error {
		m := a.Measurement
		lines = append(lines, fmt.Sprintf("%g %s=%g", float64(m.Time)/1e9, m.Name, m.Value.Num))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func watch() (d []policy.Property, lingers []time.Duration) {
	d = []policy.Property{
		property("heart_rate", carnet.Number, carnet.Health), property("steps", carnet.Number, 0),
		property("position/lat", carnet.Number, carnet.Location), property("position/lon", carnet.Number, carnet.Location),
		property("position/alt", carnet.Number, carnet.Location),
	}
	return d, []time.Duration{0, 0, time.Second, time.Second, time.Second}
}

// decided ends a story: nothing waits any more.
var decided = story{"decide 0", "decide 1000"}

func TestMemory(t *testing.T) {
	const whole, byField, none = `view "position":{"rate":"10s"},"steps":{"round":1}`, `view "position/lat":{},"position/lon":{},"position/alt":{},"steps":{"round":1}`, `view "steps":{"round":1}`
	for name, test := range map[string]struct {
		story story
		want  []string
	}{
		"a rate goes by intervals of measured time, whatever comes late": {
			story{`view "heart_rate":{"rate":"10s"}`, "-1 heart_rate=1", "0 heart_rate=2", "9 heart_rate=3", "19 heart_rate=4", "10 heart_rate=5", "5 heart_rate=6", "20 heart_rate=7"},
			[]string{"-1 heart_rate=1", "0 heart_rate=2", "19 heart_rate=4", "20 heart_rate=7"},
		},
		"the last interval counts under another rate, and over a view without": {
			story{`view "heart_rate":{"rate":"10s"}`, "9 heart_rate=1", "decide 0", `view "heart_rate":{}`, "10 heart_rate=2", "decide 0",
				`view "heart_rate":{"rate":"8s"}`, "12 heart_rate=3", "15 heart_rate=4", "16 heart_rate=5"},
			[]string{"9 heart_rate=1", "10 heart_rate=2", "16 heart_rate=5"},
		},
		"a deadband goes on from the last one that it let through, at least its width away": {
			story{`view "heart_rate":{"deadband":5}`, "1 heart_rate=10", "2 heart_rate=14.9", "3 heart_rate=15", "decide 0", `view "heart_rate":{}`, "4 heart_rate=100", "decide 0",
				`view "heart_rate":{"deadband":5}`, "5 heart_rate=19", "6 heart_rate=20"},
			[]string{"1 heart_rate=10", "3 heart_rate=15", "4 heart_rate=100", "6 heart_rate=20"},
		},
		"what the deadband withholds uses up no interval": {
			story{`view "heart_rate":{"deadband":5,"rate":"10s"}`, "1 heart_rate=10", "11 heart_rate=11", "12 heart_rate=20"},
			[]string{"1 heart_rate=10", "12 heart_rate=20"},
		},
		"an object is shown whole, and once in each interval": {
			story{whole, "1 position/lat=1 position/lon=2 position/alt=3", "2 position/lat=4 position/lon=5 position/alt=6", "1 position/alt=7", "11 position/lat=1 position/lon=2"},
			[]string{"1 position/lat=1", "1 position/lon=2", "1 position/alt=3", "11 position/lat=1", "11 position/lon=2"},
		},
		"a view that names fields forgets the object once it asks any memory, in any lane": {
			story{whole, "1 position/lat=1 position/lon=2 position/alt=3", "decide 1000", byField, "2 steps=1", "decide 0", whole, "3 position/lat=4 position/lon=5 position/alt=6"},
			[]string{"1 position/lat=1", "1 position/lon=2", "1 position/alt=3", "2 steps=1", "3 position/lat=4", "3 position/lon=5", "3 position/alt=6"},
		},
		"a view that asks no memory forgets nothing": {
			story{whole, "1 position/lat=1 position/lon=2 position/alt=3", "decide 1000", strings.Replace(byField, `{"round":1}`, "{}", 1), "2 steps=1", "decide 0", whole, "3 position/lat=4 position/lon=5 position/alt=6"},
			[]string{"1 position/lat=1", "1 position/lon=2", "1 position/alt=3", "2 steps=1"},
		},
		"a view that decides nothing forgets nothing": {
			story{whole, "1 position/lat=1 position/lon=2 position/alt=3", "decide 0", "decide 1000", byField, whole, "3 position/lat=4 position/lon=5 position/alt=6", "3 steps=1"},
			[]string{"1 position/lat=1", "1 position/lon=2", "1 position/alt=3", "3 steps=1"},
		},
		"a view that names some of the fields forgets nothing": {
			story{whole, "1 position/lat=1 position/lon=2 position/alt=3", "decide 1000", `view "position/lat":{},"steps":{"round":1}`, "2 steps=1", "decide 0", "decide 1000", whole, "3 position/lat=4 position/lon=5 position/alt=6"},
			[]string{"1 position/lat=1", "1 position/lon=2", "1 position/alt=3", "2 steps=1"},
		},
		"a view that doesn't name the object at all forgets nothing": {
			story{whole, "1 position/lat=1 position/lon=2 position/alt=3", "decide 1000", none, "2 steps=1", "decide 0", "decide 1000", whole, "3 position/lat=4 position/lon=5 position/alt=6"},
			[]string{"1 position/lat=1", "1 position/lon=2", "1 position/alt=3", "2 steps=1"},
		},
		"a lane that is ahead hears of a view before one that is behind": {
			story{whole, "1 steps=1", "2 position/lat=1 position/lon=2 position/alt=3", "decide 0", byField, "3 steps=2", "decide 0", whole, "4 steps=3 position/lat=4"},
			[]string{"1 steps=1", "2 position/lat=1", "2 position/lon=2", "2 position/alt=3", "3 steps=2", "4 steps=3"},
		},
		"a lon needs its lat, and a lat that the rate withholds closes": {
			story{`view "position":{"precision_m":100000,"rate":"10s"}`, "1 position/lon=10.75", "1 position/lat=59.9139", "1 position/alt=5", "2 position/lat=10", "1 position/lon=10.7522", "11 position/lat=59.9139 position/lon=10.7522"},
			[]string{"1 position/lat=59.7", "11 position/lat=59.7", "11 position/lon=10.85"},
		},
		"a lat that is no latitude closes": {
			story{`view "position":{"precision_m":100000}`, "1 position/lat=59.9139", "1 position/lat=91", "1 position/lon=10.7522"},
			[]string{"1 position/lat=59.7"},
		},
		"a lat outside the windows doesn't close": {
			story{`view "position":{"precision_m":100000,"windows":{"UTC":["daily 00:00-00:01"]}}`, "1 position/lat=59.9139", "61 position/lat=1", "1 position/lon=10.7522"},
			[]string{"1 position/lat=59.7", "1 position/lon=10.85"},
		},
		"a lon takes its row from the lat before it was rounded": {
			story{`view "position":{"precision_m":25000,"round":30}`, "1 position/lat=74.9 position/lon=10.7522"},
			[]string{"1 position/lat=60", "1 position/lon=0"},
		},
		"a whole position closes, so that a field that appears later doesn't follow": {
			story{`view "position":{"precision_m":100000,"rate":"10s"}`, "1 position/lat=59.9139 position/lon=10.7522", "decide 1000", `view "position":{"rate":"10s"}`, "1 position/alt=5"},
			[]string{"1 position/lat=59.7", "1 position/lon=10.85"},
		},
		"nothing while stopped, and the memory stays": {
			story{`view "heart_rate":{"rate":"10s"}`, "1 heart_rate=1", "decide 0", "stop", "11 heart_rate=2"},
			[]string{"1 heart_rate=1"},
		},
		"what came while stopped is decided by the view that starts it again": {
			story{`view "heart_rate":{"rate":"10s"}`, "1 heart_rate=1", "decide 0", "stop", "2 heart_rate=2", "11 heart_rate=3", `view "heart_rate":{"rate":"10s"}`, "12 heart_rate=4"},
			[]string{"1 heart_rate=1", "11 heart_rate=3"},
		},
		"what didn't arrive is decided again, under the view then in force": {
			story{`view "heart_rate":{"rate":"10s"}`, "1 heart_rate=1", "decide 0", "arrive", "2 heart_rate=2", "11 heart_rate=3", "decide 0", `view "heart_rate":{"round":10,"rate":"2s"}`, "lose", "12 heart_rate=24"},
			[]string{"1 heart_rate=1", "2 heart_rate=0", "11 heart_rate=0", "12 heart_rate=20"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, lingers := watch()
			s := newSender(t, d, lingers, openDoor, everything)
			test.story.tell(t, s)
			if got := outcome(t, s, 1); !s.stopped && !slices.Equal(got, test.want) {
				t.Errorf("the oracle admits %q, want %q", got, test.want)
			}
			decided.tell(t, s)
			if s.stopped {
				if got := outcome(t, s, 1); !slices.Equal(got, test.want) {
					t.Errorf("the oracle admits %q, want %q", got, test.want)
				}
			}
			requireSame(t, s.oracle(t, 1, nil), s.messages, s.now.sent)
		})
	}
}

func TestWhatWasSentBeforeTheMappingIsNoneOfIts(t *testing.T) {
	d, lingers := watch()
	s := newSender(t, d, lingers, openDoor, everything)
	s.setView(t, []byte(`{"properties":{"heart_rate":{"rate":"10s"}}}`), false, true)
	story{"1 heart_rate=1", "2 heart_rate=2", "11 heart_rate=3"}.tell(t, s)
	if got, want := outcome(t, s, 2), []string{"2 heart_rate=2", "11 heart_rate=3"}; !slices.Equal(got, want) {
		t.Errorf("from position 2 the oracle admits %q, want %q", got, want)
	}
}
