package demo

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/demo/demotest"
	"carnet/thing"
)

// What the demo itself cuts off as it ends is no party's silence.
func TestACutQuestionIsntShown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 16)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer slow.Close()
	looks := &client.Client{Base: slow.URL, HTTP: slow.Client()}
	w := watch()
	w.mappings = map[carnet.PartyID]thing.MappingInfo{"arena": {}}
	s := &setup{script: &script{worlds: []carnet.PartyID{"arena"}}, parties: []*party{{name: "hub", looks: looks}, {name: "arena", looks: looks}}, sensors: []*sensor{w}}
	var text strings.Builder
	v := &screen{to: &text, terminal: true, size: func() (int, int) { return 0, 0 }, begun: time.Now()}
	ended := make(chan struct{})
	go func() { defer close(ended); v.follow(ctx, s) }()
	<-asked
	cancel()
	<-ended
	if text.Len() > 0 {
		t.Errorf("it shows %q", text.String())
	}
}

// A terminal ends with the lines to paste, whole, and the progress above them changes.
func TestAScreenEndsWithTheLinesToPaste(t *testing.T) {
	long := "  mosquitto_pub " + strings.Repeat("x", 60)
	progress := func(n int) []string {
		return []string{strings.Repeat("1", n) + strings.Repeat("-", 40), "arena", "clinic"}
	}
	for _, row := range []struct {
		what          string
		columns, rows int
		want          []string // after the second progress
	}{
		{"wide", 200, 24, []string{"It begins", "11" + strings.Repeat("-", 40), "arena", "clinic", "", "Send:", long, "Prove:", "  carnet verify proof"}},
		{"narrow", 40, 24, []string{"It begins", "11" + strings.Repeat("-", 37) + "…", "arena", "clinic", "", "Send:", long[:40], long[40:], "Prove:", "  carnet verify proof"}},
		{"as wide as a line", 42, 24, []string{"It begins", "11" + strings.Repeat("-", 40), "arena", "clinic", "", "Send:", long[:42], long[42:], "Prove:", "  carnet verify proof"}},
		{"high enough", 200, 9, []string{"11" + strings.Repeat("-", 40), "arena", "clinic", "", "Send:", long, "Prove:", "  carnet verify proof"}},
		{"too low: the progress stands under them", 200, 8, []string{"Send:", long, "Prove:", "  carnet verify proof", "11" + strings.Repeat("-", 40), "arena", "clinic"}},
		{"lower", 200, 6, []string{"Prove:", "  carnet verify proof", "11" + strings.Repeat("-", 40), "arena", "clinic"}},
	} {
		at := &demotest.Terminal{Columns: row.columns, Rows: row.rows}
		v := &screen{to: at, terminal: true, size: func() (int, int) { return row.columns, row.rows }}
		v.say("It begins")
		v.paste = []string{"", "Send:", long, "Prove:", "  carnet verify proof"}
		v.draw(nil)
		v.draw(progress(1))
		if v.draw(progress(2)); !slices.Equal(at.Screen(), row.want) {
			t.Errorf("%s: the screen is\n%s\nwant\n%s", row.what, strings.Join(at.Screen(), "\n"), strings.Join(row.want, "\n"))
		}
		// Something is said above them, and other progress has another number of lines.
		v.say("the recordings have ended")
		v.draw(progress(2)[:1])
		v.draw(progress(2)[:2])
		all := at.All()
		said := slices.Index(all, "the recordings have ended")
		if text := strings.Join(all[said+1:], "\n"); said < 0 || strings.Contains(text, "clinic") || strings.Count(text, "arena") > 1 || !strings.Contains(text, "11-") ||
			strings.Count(strings.Join(all, "\n"), "carnet verify") != 1 {
			t.Errorf("%s: after something was said it is\n%s", row.what, strings.Join(all, "\n"))
		}
		if at.Screen()[len(at.Screen())-1] != row.want[len(row.want)-1] && row.rows > 8 {
			t.Errorf("%s: the screen ends with\n%s", row.what, strings.Join(at.Screen(), "\n"))
		}
		v.say("ending")
		if all = at.All(); all[len(all)-1] != "ending" || slices.Contains(all[said:], "arena") {
			t.Errorf("%s: at its end it is\n%s", row.what, strings.Join(all, "\n"))
		}
	}
}

// On a terminal that has become another what was drawn is wiped, however the terminal has
// broken it anew, and what was said before stays.
func TestAScreenThatChangesItsSize(t *testing.T) {
	at := &demotest.Terminal{Columns: 80, Rows: 24}
	v := &screen{to: at, terminal: true, size: func() (int, int) { return at.Columns, at.Rows }, paste: []string{"  carnet verify " + strings.Repeat("x", 50)}}
	v.say("said")
	v.draw([]string{strings.Repeat("1", 70), "one"})
	for _, size := range [][2]int{{30, 24}, {80, 24}, {200, 50}, {100, 12}, {40, 12}, {80, 24}} {
		at.Resize(size[0], size[1])
		v.draw([]string{strings.Repeat("2", 70), "two"})
		v.draw([]string{strings.Repeat("3", 70), "three"})
		all := strings.Join(at.All(), "\n")
		if strings.Count(all, "said") != 1 || strings.Contains(all, "1") || strings.Contains(all, "2") || strings.Count(all, "three") != 1 || strings.Count(all, "carnet verify") != 1 {
			t.Errorf("at %d by %d it is\n%s", size[0], size[1], all)
		}
	}
}

// On a usual terminal the demo's own lines to paste and the progress of all its worlds
// are there.
func TestAUsualTerminalHasAllProgress(t *testing.T) {
	at := &demotest.Terminal{Columns: 80, Rows: 24}
	v := &screen{to: at, terminal: true, size: func() (int, int) { return 80, 24 }}
	for range 7 {
		v.paste = append(v.paste, "What it does:", "  "+strings.Repeat("x", 150))
	}
	v.draw(nil)
	v.draw([]string{"devices", "arena", "clinic", "citadel"})
	screen := at.Screen()
	if n := len(screen); n < 4 || !slices.Equal(screen[n-4:], []string{"devices", "arena", "clinic", "citadel"}) {
		t.Errorf("the screen ends with\n%s", strings.Join(screen, "\n"))
	}
	if all := strings.Join(at.All(), "\n"); strings.Count(all, "What it does:") != 7 {
		t.Errorf("the lines to paste are\n%s", all)
	}
}

// A slow recording has a rate, too, and a value that came long before the others says so.
func TestWhatAScreenSaysOfFewAndOld(t *testing.T) {
	for rate, want := range map[float64]string{0.2: "0.2 measurements/s", 1: "1 measurement/s", 1.26: "1.3 measurements/s", 9.96: "10 measurements/s", 412.4: "412 measurements/s"} {
		if got := perSecond(rate); got != want {
			t.Errorf("%v is %q, want %q", rate, got, want)
		}
	}
	second := int64(time.Second)
	state := []carnet.Measurement{{Name: "heart_rate", Unit: "beat/min", Time: 2000 * second, Value: carnet.Float(70)}, {Name: "speed", Unit: "m/s", Time: 900 * second, Value: carnet.Float(2)}}
	if got, want := shown(state, []string{"speed"}), "heart_rate 70 beat/min, no longer given: speed"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
	if got, want := shown(state, nil), "heart_rate 70 beat/min, speed 2 m/s (18 min before)"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}

// Whoever publishes as the demo's things and is refused finds that on the screen; what
// devices may not know yet isn't counted.
func TestOthersRefusalsAreShown(t *testing.T) {
	w := watch()
	w.id = "t-1"
	refused := `{}`
	hub := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Write([]byte(`{"id":"t-1","refused":` + refused + `}`))
	}))
	defer hub.Close()
	d := &device{}
	s := &setup{
		script: plain, parties: []*party{{name: "hub", looks: &client.Client{Base: hub.URL, HTTP: hub.Client()}}}, sensors: []*sensor{w}, devices: []*device{d},
		refusedBefore: map[string]map[carnet.Code]uint64{"watch": {carnet.Malformed: 4}},
	}
	for _, row := range []struct {
		refused                 string
		published, acknowledged int64
		want                    string
	}{
		{`{"malformed":4}`, 0, 0, ""},
		{`{"malformed":5}`, 0, 0, "hub refused 1 message that the devices didn't send: carnet thing refusals t-1"},
		{`{"malformed":5,"wrong_unit":2}`, 10, 9, "hub refused 2 messages that the devices didn't send: carnet thing refusals t-1"},
		{`{"malformed":6}`, 10, 8, ""},
	} {
		refused = row.refused
		d.published.Store(row.published)
		d.acknowledged.Store(row.acknowledged)
		if got := strings.TrimSpace(strings.Join(s.refusedOthers(t.Context()), "\n")); got != row.want {
			t.Errorf("of %s, with %d of %d acknowledged: %q, want %q", row.refused, row.acknowledged, row.published, got, row.want)
		}
	}
}
