package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/senml"
)

// decode reads a pack by its content type.
func decode(t testing.TB, a answered) []carnet.Measurement {
	t.Helper()
	if a.status != 200 {
		t.Fatalf("the answer is %d: %s", a.status, a.body)
	}
	form, err := senml.FormatOf(a.header.Get("Content-Type"), 0)
	if err != nil {
		t.Fatal(err)
	}
	ms, err := senml.NewDecoder(senml.Limits{Bytes: 64 << 20, Records: 1 << 20}).Decode(nil, form, []byte(a.body), 0)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func TestMeasurementsAreTheSameInEveryForm(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}}}`)
	sent := []carnet.Measurement{heart(0, 72.125), heart(1, 73), heart(2, 1e-3)}
	d.mustSend(sent...)
	d.mustSend(carnet.Measurement{Name: "steps", Time: heart(1, 0).Time + 1, Value: carnet.Float(17)})
	s.arrived(m.Avatar, 4)
	base := s.arenaURL + "/v1/avatars/" + m.Avatar.String()
	history := decode(t, ask(t, "GET", base+"/history", "reader-token", ""))
	if len(history) != 4 || history[0] != sent[0] || history[3] != sent[2] {
		t.Fatalf("the history is %+v", history)
	}
	state := decode(t, ask(t, "GET", base+"/state", "reader-token", ""))
	if len(state) != 2 || state[0] != sent[2] || state[1].Name != "steps" {
		t.Fatalf("the state is %+v", state)
	}
	for _, c := range []struct{ accept, form string }{
		{"", "application/senml+json"},
		{"*/*", "application/senml+json"},
		{"application/*", "application/senml+json"},
		{"application/senml+cbor", "application/senml+cbor"},
		{"APPLICATION/SENML+XML", "application/senml+xml"},
		{"application/senml+json;q=0.2, application/senml+cbor;q=0.8", "application/senml+cbor"},
		{"application/senml+json;q=0.5, */*;q=0.1, application/senml+xml;q=0.6", "application/senml+xml"},
		{"application/*;q=0.5, application/senml+json;q=0", "application/senml+cbor"},
		{"image/png, application/senml+cbor;q=0.001", "application/senml+cbor"},
	} {
		for path, want := range map[string][]carnet.Measurement{"/history": history, "/state": state} {
			a := ask(t, "GET", base+path, "reader-token", "", "Accept: "+c.accept)
			if a.header.Get("Content-Type") != c.form {
				t.Errorf("%s with Accept %q is %s, want %s", path, c.accept, a.header.Get("Content-Type"), c.form)
			} else if got := decode(t, a); !slices.Equal(got, want) {
				t.Errorf("%s as %s is %+v, want %+v", path, c.form, got, want)
			}
		}
	}
	for _, accept := range []string{"image/png", "application/senml+json;q=0", "application/senml+json;q=2", "application/senml+json;q=x", "*/*;q=0", "text/*"} {
		if a := ask(t, "GET", base+"/state", "reader-token", "", "Accept: "+accept); a.status != 406 || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("Accept %q is answered with %d %s", accept, a.status, a.body)
		}
	}
}

func TestHistoryPagesLoseAndDoubleNothing(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{},"stress":{}}}`)
	var sent uint64
	for i := range 40 {
		at := heart(i, 0).Time + int64(i)
		ms := []carnet.Measurement{
			{Name: "heart_rate", Unit: "beat/min", Time: at, Value: carnet.Float(60 + float64(i))},
			{Name: "steps", Time: at, Value: carnet.Float(float64(i))},
			{Name: "stress", Time: at, Value: carnet.Float(float64(i))},
		}
		d.mustSend(ms...)
		sent += uint64(len(ms))
	}
	s.arrived(m.Avatar, sent)
	reader := s.arena("reader-token")
	whole, next, err := reader.History(t.Context(), m.Avatar, client.HistoryQuery{})
	if err != nil || next != nil || uint64(len(whole)) != sent {
		t.Fatalf("the whole history has %d of %d, next %v, %v", len(whole), sent, next, err)
	}
	for _, limit := range []int{1, 2, 3, 4, 7, 119, 120, 121} {
		var all []carnet.Measurement
		q := client.HistoryQuery{Limit: limit}
		for pages := 0; ; pages++ {
			page, next, err := reader.History(t.Context(), m.Avatar, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > max(limit, 3) || pages > 200 {
				t.Fatalf("page %d has %d with limit %d", pages, len(page), limit)
			}
			if all = append(all, page...); next == nil {
				break
			}
			q.From = *next
		}
		if !slices.Equal(all, whole) {
			t.Errorf("pages of %d give %d measurements, want %d", limit, len(all), len(whole))
		}
	}
	// The Link is the same way on.
	a := ask(t, "GET", s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/history?limit=30&property=steps&to="+url.QueryEscape(start.Add(35*time.Second).Format(time.RFC3339)), "reader-token", "")
	if a.header.Get("Carnet-More") != "true" || len(decode(t, a)) != 30 {
		t.Fatalf("the first page of steps is %d, %v", len(decode(t, a)), a.header)
	}
	link, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	a = ask(t, "GET", s.arenaURL+link, "reader-token", "")
	if rest := decode(t, a); len(rest) != 5 || rest[0].Value != carnet.Float(30) || a.header.Get("Carnet-More") != "" {
		t.Errorf("the page after is %+v, %v", rest, a.header)
	}
}

func TestHistoryByTimeAndProperty(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"position":{}}}`)
	for i := range 5 {
		at := heart(i, 0).Time
		d.mustSend(heart(i, float64(60+i)),
			carnet.Measurement{Name: "position/lat", Unit: "lat", Time: at, Value: carnet.Float(50)},
			carnet.Measurement{Name: "position/lon", Unit: "lon", Time: at, Value: carnet.Float(8)})
	}
	s.arrived(m.Avatar, 15)
	second := func(i int) string { return fmt.Sprint(start.Unix() + int64(i)) }
	for _, c := range []struct {
		query string
		want  int
	}{
		{"", 15},
		{"from=" + second(0), 15},
		{"from=" + second(1), 12},
		{"from=" + second(1) + ".000000001", 9},
		{"to=" + second(4), 12},
		{"from=" + second(1) + "&to=" + second(2), 3},
		{"from=" + url.QueryEscape(start.Add(time.Second).Format(time.RFC3339)) + "&property=position", 8},
		{"property=position/lat", 5},
		{"property=heart_rate", 5},
		{"property=heart", 0},
		{"property=nothing", 0},
		{"from=4000000000", 0},
	} {
		if got := decode(t, ask(t, "GET", s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/history?"+c.query, "reader-token", "")); len(got) != c.want {
			t.Errorf("history?%s has %d measurements, want %d", c.query, len(got), c.want)
		}
	}
	base := s.arenaURL + "/v1/avatars/" + m.Avatar.String() + "/history?"
	for _, query := range []string{
		"from=yesterday", "from=-1", "from=1e9", "from=1.", "from=.5", "from=1.0000000001", "from=99999999999999999999",
		"from=2026-11-01", "from=2026-11-01T10:00:00", "from=1969-01-01T00:00:00Z", "to=2300-01-01T00:00:00Z",
		"from=2&to=1", "from=1&to=1", "to=0", "limit=0", "limit=-1", "limit=50001", "limit=x", "form=1",
		"property=" + strings.Repeat("a", 129),
	} {
		a := ask(t, "GET", base+query, "reader-token", "")
		if a.status != 400 && a.status != 422 || !strings.Contains(a.body, `"code":"malformed"`) || !strings.Contains(a.body, `"fix":`) {
			t.Errorf("history?%s is answered with %d %s", query, a.status, a.body)
		}
	}
	avatars, err := s.arena("reader-token").Avatars(t.Context())
	if err != nil || len(avatars) != 1 || avatars[0].Title != "Runner 7" || avatars[0].Measurements != 15 {
		t.Errorf("the avatars are %+v, %v", avatars, err)
	}
	if one, err := s.arena("reader-token").Avatar(t.Context(), m.Avatar); err != nil || one.ID != m.Avatar || len(one.Key) != 32 {
		t.Errorf("the avatar is %+v, %v", one, err)
	}
	if state, err := s.arena("reader-token").State(t.Context(), m.Avatar); err != nil || len(state) != 3 {
		t.Errorf("the state is %+v, %v", state, err)
	}
}
