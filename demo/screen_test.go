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
		{"low", 200, 8, []string{"11" + strings.Repeat("-", 40), "arena", "", "Send:", long, "Prove:", "  carnet verify proof"}},
		{"lowest", 200, 7, []string{"11" + strings.Repeat("-", 40), "", "Send:", long, "Prove:", "  carnet verify proof"}},
		{"too low: the progress stands under them", 200, 6, []string{"Prove:", "  carnet verify proof", "11" + strings.Repeat("-", 40), "arena", "clinic"}},
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
		if at.Screen()[len(at.Screen())-1] != row.want[len(row.want)-1] && row.rows > 6 {
			t.Errorf("%s: the screen ends with\n%s", row.what, strings.Join(at.Screen(), "\n"))
		}
		v.say("ending")
		if all = at.All(); all[len(all)-1] != "ending" || slices.Contains(all[said:], "arena") {
			t.Errorf("%s: at its end it is\n%s", row.what, strings.Join(all, "\n"))
		}
	}
}

// A terminal that has become another is drawn on anew.
func TestAScreenThatChangesItsSize(t *testing.T) {
	at := &demotest.Terminal{Columns: 80, Rows: 24}
	columns := 80
	v := &screen{to: at, terminal: true, size: func() (int, int) { return columns, 24 }, paste: []string{"  carnet verify"}}
	v.draw([]string{"one"})
	columns = 60
	v.draw([]string{"two"})
	v.draw([]string{"three"})
	if want := []string{"one", "  carnet verify", "three", "  carnet verify"}; !slices.Equal(at.All(), want) {
		t.Errorf("it is %q, want %q", at.All(), want)
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
