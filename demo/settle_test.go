package demo

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"carnet/api"
	"carnet/crossing"
	"carnet/thing"
)

// What wasn't passed on is said, by whom and to whom; nothing is said of what was.
func TestWhatWaitsIsSaid(t *testing.T) {
	up := thing.LinkStatus{World: "arena", Up: true, Acked: 7}
	behind, down := up, up
	behind.Lag, behind.Waiting = 1, 2
	down.World, down.Up, down.Trouble = "gym", false, "no connection to gym since noon"
	for _, row := range []struct {
		what   string
		status api.Status
		want   []string
	}{
		{"all passed on", api.Status{Things: &api.ThingsStatus{Links: []thing.LinkStatus{up}, Statements: 3, Receipts: 3}, World: &api.WorldStatus{Shares: []crossing.Link{{World: "citadel"}}}}, nil},
		{"no links", api.Status{Things: &api.ThingsStatus{}}, nil},
		{"a link that is behind, and one that is down", api.Status{Things: &api.ThingsStatus{Links: []thing.LinkStatus{behind, down}}}, []string{
			"hub: 1 message not decided for arena yet, 2 frames that arena hasn't acknowledged",
			"hub: the link to gym is down, so whatever has come for it since waits: no connection to gym since noon",
		}},
		{"statements of an agent", api.Status{Things: &api.ThingsStatus{Statements: 3, Receipts: 1}}, []string{"hub: the depot has given no receipt yet for 2 statements"}},
		{"a share, and a statement of a world", api.Status{World: &api.WorldStatus{Shares: []crossing.Link{{World: "citadel", Waiting: true}}, Statements: 1}}, []string{
			"hub: citadel hasn't acknowledged all that is shared with it", "hub: the depot has given no receipt yet for 1 statement",
		}},
	} {
		if got := waitsAt("hub", row.status); !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
	}
}

// A report says what wasn't passed on, for people and for programs.
func TestAReportSaysWhatWaits(t *testing.T) {
	r := &Report{Settled: true, Verified: true}
	r.unsettled(nil)
	if !r.Good() {
		t.Errorf("nothing waits: %+v", r)
	}
	r.unsettled([]string{"hub: the link to gym is down"})
	r.unsettled(nil)
	if r.Good() || r.Settled {
		t.Errorf("something waits: %+v", r)
	}
	const want = "not passed on when the demo ended: hub: the link to gym is down"
	var text strings.Builder
	r.Write(&text)
	if !strings.Contains(text.String(), want+"\n") {
		t.Errorf("for people:\n%s", text.String())
	}
	if data, err := json.Marshal(r); err != nil || !strings.Contains(string(data), `"findings":["`+want) {
		t.Errorf("for programs: %s, %v", data, err)
	}
}
