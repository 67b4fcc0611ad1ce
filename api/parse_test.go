package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/depot"
	"carnet/ledger"
	"carnet/policy"
)

func TestTimesAreRead(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "1": 1e9, "1.5": 15e8, "1700000000.000000001": 1_700_000_000_000_000_001,
		"1970-01-01T00:00:01Z": 1e9, "1970-01-01t00:00:01.25z": 125e7, "1970-01-01T01:00:00+01:00": 0,
	} {
		if got, err := parseTime("from", text); err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
	}
}

func FuzzTimes(f *testing.F) {
	for _, seed := range []string{"", "1", "1.5", "-1", "1e9", "2026-11-01T10:00:00Z", "2026-11-01T10:00:00.123+02:00", "99999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ns, err := parseTime("from", text)
		if err != nil {
			if carnet.CodeOf(err) != carnet.Malformed {
				t.Errorf("%q fails with %v", text, err)
			}
			return
		}
		if ns < 0 && !strings.ContainsAny(text, "Tt") {
			t.Errorf("%q is before 1970: %d", text, ns)
		}
		again := time.Unix(0, ns).UTC()
		if back, err := parseTime("from", again.Format(time.RFC3339Nano)); again.Year() >= 1970 && (err != nil || back != ns) {
			t.Errorf("%q is %d, written and read again %d, %v", text, ns, back, err)
		}
	})
}

func FuzzAccept(f *testing.F) {
	for _, seed := range []string{"", "*/*", "application/senml+cbor;q=0.5, */*;q=0.1", ";q=", ",,", "application/*;q=NaN"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		got, ok := negotiate(accept, packs)
		if ok == (got == "") {
			t.Errorf("%q is answered with %q, %v", accept, got, ok)
		}
	})
}

// Names that encoding/json and huma take for one are one.
func TestNamesThatFoldToOneStandTwice(t *testing.T) {
	type body struct{ Slot, Kind string }
	for _, b := range []string{`{"slot":"a","Slot":"b"}`, `{"slot":"a","\u017flot":"b"}`, `{"kind":"a","\u212aind":"b"}`, `{"ſlot":"a","SLOT":"b"}`} {
		if err := unmarshal([]byte(b), new(body)); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: %v", b, err)
		}
	}
	if err := unmarshal([]byte(`{"slot":"a","ſlots":"b","kind":"c"}`), new(body)); err != nil {
		t.Error(err)
	}
}

// What eachOnce lets pass, every object in it has each name once.
func FuzzEachOnce(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"b":[{"a":2}]}`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"x":{"a":1,"A":2}}`, `[`, `}`, `]`, `1 2`, strings.Repeat("[", 50)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if eachOnce(b) != nil || !json.Valid(b) {
			return
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(string(b)))
		stand := 0
		for {
			if _, err := d.Token(); err != nil {
				break
			}
			stand++
		}
		if tokens(v) != stand {
			t.Errorf("%s has %d tokens, as it is read %d: a name stands twice", b, stand, tokens(v))
		}
	})
}

// tokens counts a value's tokens as json.Decoder does.
func tokens(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			n += 1 + tokens(e)
		}
		n++
	case []any:
		for _, e := range v {
			n += tokens(e)
		}
		n++
	}
	return n
}

// vault is a depot that counts, or fails.
type vault struct{ err error }

func (v vault) Totals(context.Context, carnet.PartyID) (depot.Totals, error) {
	return depot.Totals{Objects: 3, Bytes: 700}, v.err
}
func (vault) Checkpoint() (ledger.Checkpoint, []byte) { return ledger.Checkpoint{Size: 42}, nil }

func operator(string) (Principal, bool) { return policy.Bearer("ops", policy.Administrator), true }

// unrecorded takes records and forgets them.
type unrecorded struct{}

func (unrecorded) Add(context.Context, activity.Record) error { return nil }

func watched(t *testing.T) *activity.Guard {
	t.Helper()
	a, err := policy.NewAuthorizer(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return &activity.Guard{Authorizer: a, Recorder: unrecorded{}, Log: slog.New(slog.DiscardHandler)}
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer x")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestADepotTellsItsStatus(t *testing.T) {
	h, err := (&server{party: "vault", depot: vault{}, tokens: operator, guard: watched(t), limits: usual, log: slog.New(slog.DiscardHandler)}).handler()
	if err != nil {
		t.Fatal(err)
	}
	var st Status
	if w := get(t, h, "/v1/status"); json.Unmarshal(w.Body.Bytes(), &st) != nil || st.Party != "vault" || st.World != nil || st.Things != nil ||
		st.Depot == nil || *st.Depot != (DepotStatus{3, 700, 42}) {
		t.Errorf("the status is %d %s", w.Code, w.Body)
	}
}

// An error without a code, or with one that is nobody's business, shows nothing.
func TestFailuresShowNothing(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   carnet.Code
		shows  bool
	}{
		{errors.New("secret: disk 7 at /srv"), 500, carnet.Unavailable, false},
		{carnet.Errorf(carnet.Forked, "secret"), 500, carnet.Unavailable, false},
		{carnet.Errorf(carnet.Tampered, "secret"), 500, carnet.Tampered, true},
		{carnet.Errorf(carnet.NoSpace, "secret"), 507, carnet.NoSpace, true},
		{carnet.Errorf(carnet.Unavailable, "secret"), 503, carnet.Unavailable, true},
		{context.DeadlineExceeded, 503, carnet.Unavailable, false},
	} {
		h, err := (&server{party: "vault", depot: vault{c.err}, tokens: operator, guard: watched(t), limits: usual, log: slog.New(slog.DiscardHandler)}).handler()
		if err != nil {
			t.Fatal(err)
		}
		w := get(t, h, "/v1/status")
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != c.status || p.Code != c.code || strings.Contains(w.Body.String(), "secret") != c.shows {
			t.Errorf("%v is answered with %d %s", c.err, w.Code, w.Body)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (c.status == 503 || c.status == 507) {
			t.Errorf("%v is answered with Retry-After %q", c.err, retry)
		}
	}
}

func TestAHandlerNeedsAPartyAnAgentAndTokens(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Party: "vault", Tokens: operator},
		{Party: "vault", Depot: new(depot.Agent)},
		{Party: "Vault 7", Depot: new(depot.Agent), Tokens: operator},
	} {
		if _, err := New(cfg); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%+v is %v", cfg, err)
		}
	}
}

// What stands twice is told with where it is.
func TestWhatStandsTwiceIsToldWithItsPlace(t *testing.T) {
	for b, want := range map[string]string{
		`{"a":1,"A":2}`: `"A" stands twice`, `{"description":{"x":[{"b":1}],"definitions":{"basic":1,"basic":2}}}`: `"description/definitions/basic" stands twice`,
		`{"list":[{"b":1,"b":2}]}`: `"list//b" stands twice`,
	} {
		if err := eachOnce([]byte(b)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", b, err)
		}
	}
}
