package main

import (
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
)

// A person who looks after a move sees how far it is, how long it will take, what it waits
// for, and who hasn't deleted what moved.
func TestACrossingIsShown(t *testing.T) {
	theirs := carnet.AvatarID{1}
	copying := move.Progress{Stretches: 3, Of: 4, Bytes: 30_000_000, OfBytes: 40_000_000, Fetched: 20_000_000, Since: time.Now().Add(-10 * time.Second)}
	waiting := copying
	waiting.Fetched, waiting.Waits = 0, "arena can't be reached"
	for name, c := range map[string]struct {
		x       api.Crossing
		shows   []string
		without string
	}{
		"copying": {
			x:       api.Crossing{State: move.Copying, World: "arena", Theirs: &theirs, Progress: &copying},
			shows:   []string{"3 of 4 stretches, 30000000 of 40000000 bytes, 2.0 MB/s, 5s left as far as is known\n"},
			without: "hasn't signed",
		},
		"waiting": {
			x:       api.Crossing{State: move.Copying, World: "arena", Theirs: &theirs, Progress: &waiting},
			shows:   []string{"30000000 of 40000000 bytes\n", "it waits, and is tried again: arena can't be reached\n"},
			without: "MB/s",
		},
		"home, and its source says nothing": {
			x:     api.Crossing{State: move.Home, World: "arena", Theirs: &theirs},
			shows: []string{"arena hasn't signed yet that it has deleted what moved"},
		},
		"home by a recovery, of a world that is gone": {
			x:       api.Crossing{State: move.Home, World: "arena", Theirs: &theirs, Recovery: true},
			without: "hasn't signed",
		},
		"it leaves with a backup": {
			x:       api.Crossing{State: move.Offered, World: "citadel", Backup: &move.Backup{Made: time.Now(), Measurements: 7}},
			shows:   []string{"backup: the passport of", "with 7 measurements and keys for its owner"},
			without: "no backup",
		},
		"it leaves without a backup": {
			x:     api.Crossing{State: move.Frozen, World: "citadel"},
			shows: []string{"no backup: no passport with keys for its owner was given out before"},
		},
		"gone": {
			x:       api.Crossing{State: move.Gone, World: "arena"},
			without: "hasn't signed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := writeCrossing(streams{out: &out}, crossingOf{"citadel", c.x}); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.shows {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it shows\n%s\nwithout %q", &out, want)
				}
			}
			if c.without != "" && strings.Contains(out.String(), c.without) {
				t.Errorf("it shows\n%s\nwith %q", &out, c.without)
			}
		})
	}
}
