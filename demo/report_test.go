package demo

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/audit"
	"carnet/thing"
	"carnet/wire/file"
)

// What a recording loses is in the report, for people and for programs.
func TestWhatIsLeftOutIsSaid(t *testing.T) {
	columns, err := file.ParseColumns("t=time(s),hr=heart_rate[beat/min]")
	if err != nil {
		t.Fatal(err)
	}
	r, err := file.ReadCSV(strings.NewReader("t,hr\n1,60\n2,61\n3,62\nyesterday,63\n4,64\n"), "run.csv", columns)
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Files: 1, Measurements: len(r.Measurements), LeftOut: leftOut([]*file.Recording{r})}
	if len(in.LeftOut) != 1 || in.LeftOut[0] != (LeftOut{"run.csv", 1, "time can't be read in the form s", 5, file.Line}) {
		t.Errorf("for programs: %+v", in.LeftOut)
	}
	var text strings.Builder
	(&Report{Input: in}).Write(&text)
	if !strings.Contains(text.String(), "left out: 1 × time can't be read in the form s, first at line 5\n") {
		t.Errorf("for people:\n%s", text.String())
	}
}

// What doesn't add up by itself is explained: what came again, what somebody else
// sent, which thing an avatar is of.
func TestTheReportAddsUp(t *testing.T) {
	r := &Report{
		Device:        Device{Published: 240, Acknowledged: 240, Measurements: 960},
		Duplicates:    46,
		Refusals:      []Refusals{{Thing: "watch", Code: "wrong_unit", Messages: 9, Reason: "heart_rate is in beat/min"}},
		RefusedOthers: 9,
		Worlds:        []World{{ID: "arena", Thing: "watch"}, {ID: "arena", Thing: "room", Measurements: 1, Properties: []string{"light"}, Batches: 1}},
	}
	var text strings.Builder
	r.Write(&text)
	for _, words := range []string{
		"240 messages acknowledged (960 measurements), 0 refused\n", "46 measurements of these the agent had already",
		"refused of the watch: 9 × wrong_unit", "9 messages refused were not the devices'",
		"arena      of the watch: 0 measurements in 0 batches\n", "arena      of the room: 1 measurement (light) in 1 batch\n",
	} {
		if !strings.Contains(text.String(), words) {
			t.Errorf("no %q in\n%s", words, text.String())
		}
	}
}

// Each kind of what the oracle finds makes a report bad, and is told.
func TestWhatTheOracleFindsIsNotGood(t *testing.T) {
	for what, result := range map[string]audit.Result{
		"1 lost":         {Lost: 1, Examples: audit.Examples{Lost: []string{"it lacks"}}},
		"1 doubled":      {Doubled: 1, Examples: audit.Examples{Doubled: []string{"it lacks"}}},
		"1 too many":     {Extra: 1, Examples: audit.Examples{Extra: []string{"it lacks"}}},
		"1 out of order": {Reordered: 1, Examples: audit.Examples{Reordered: []string{"it lacks"}}},
	} {
		r := &Report{Settled: true, Verified: true}
		if r.add("arena", audit.Result{Expected: 9, Held: 9}); !r.Good() || len(r.Findings) > 0 {
			t.Errorf("nothing was found: %+v", r)
		}
		r.add("arena", result)
		var text strings.Builder
		if r.Write(&text); r.Good() || !slices.Equal(r.Findings, []string{"arena: it lacks"}) || !strings.Contains(text.String(), what) {
			t.Errorf("%s is %+v, and for people\n%s", what, r, text.String())
		}
	}
}

// The lines to paste go on from the demo's directory; each can be pasted again.
func TestTheLinesToPaste(t *testing.T) {
	w := watch()
	w.id, w.password, w.address = "t-1", "secret", "localhost:8883"
	w.mappings = map[carnet.PartyID]thing.MappingInfo{"arena": {}, "clinic": {}}
	s := &setup{dir: "/tmp/carnet-demo-1", script: plain, sensors: []*sensor{w}}
	text := s.paste()
	watching, sending := strings.Index(text, "avatar watch"), strings.Index(text, "mosquitto_pub")
	// Where to paste, and five lines, each of which does one thing.
	if n := strings.Count(text, "\n  "); n != 1+5 {
		t.Errorf("%d lines to paste:\n%s", n, text)
	}
	for _, does := range []string{"avatar watch", "mosquitto_pub", "curl -sSK arena.curl; curl -sSK clinic.curl", "thing view set t-1/arena", "verify $D"} {
		if strings.Count(text, does) != 1 {
			t.Errorf("the lines to paste do %q %d times:\n%s", does, strings.Count(text, does), text)
		}
	}
	if watching < 0 || sending < watching || strings.Count(text, s.dir) != 1 || !strings.Contains(text, "--out $D") {
		t.Errorf("the lines are\n%s", text)
	}
	for _, row := range []struct {
		options Options
		says    string
	}{
		{Options{Stay: true}, "Ctrl-C ends it, and checks what each world holds; then the directory is removed (--keep keeps it)."},
		{Options{Stay: true, Keep: true}, "holds; the directory stays."},
		{Options{For: time.Minute, Data: "d"}, "It ends by itself after 1m0s, or with Ctrl-C"},
	} {
		if end := s.howToEnd(row.options); !strings.Contains(end, row.says) {
			t.Errorf("%+v ends with %q", row.options, end)
		}
	}
}

// A story isn't begun over recordings that lack what it tells of: it would wait for that.
func TestAStoryNeedsWhatItTellsOf(t *testing.T) {
	columns, err := file.ParseColumns("t=time(s),hr=heart_rate[beat/min],v=speed[m/s],c=cadence[1/min],n=steps")
	if err != nil {
		t.Fatal(err)
	}
	r, err := file.ReadCSV(strings.NewReader("t,hr,v,c,n\n1,60,2,80,5\n2,61,2,80,7\n"), "run.csv", columns)
	if err != nil {
		t.Fatal(err)
	}
	err = watchStory.suits([]*file.Recording{r})
	if carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "stress, position/lat, position/lon") || strings.Contains(err.Error(), "steps") {
		t.Errorf("the watch's story takes it: %v", err)
	}
	if err := plain.suits([]*file.Recording{r}); err != nil {
		t.Errorf("the demo without a story doesn't take it: %v", err)
	}
}

// What each world gets of the demo's watch is what the README tells of it.
func TestWhatTheWatchGives(t *testing.T) {
	type gives struct {
		Round     float64 `json:"round"`
		Rate      string  `json:"rate"`
		Precision float64 `json:"precision_m"`
	}
	want := map[carnet.PartyID]map[string]gives{
		"arena":   {"heart_rate": {Round: 5, Rate: "1s"}, "speed": {Rate: "1s"}},
		"clinic":  {"heart_rate": {}, "stress": {}, "position": {Precision: 1000}},
		"citadel": {"steps": {}},
	}
	views := watch().views
	if len(views) != len(want) {
		t.Errorf("%d worlds get something, want %d", len(views), len(want))
	}
	for world, view := range views {
		var has struct{ Properties map[string]gives }
		if err := json.Unmarshal([]byte(view), &has); err != nil || !maps.Equal(has.Properties, want[world]) {
			t.Errorf("%s gets %+v, %v; want %+v", world, has.Properties, err, want[world])
		}
	}
}

// Worlds call a thing's avatars differently: one name would link them.
func TestTitlesDontLink(t *testing.T) {
	for _, kind := range []*sensor{watch(), room()} {
		seen := make(map[string]bool)
		for _, world := range kind.in() {
			title := titles[world][kind.name]
			if title == "" || seen[title] {
				t.Errorf("the %s is %q in %s", kind.name, title, world)
			}
			seen[title] = true
		}
	}
}
