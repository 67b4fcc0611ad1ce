package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/crossing/r5"
	"carnet/depot"
	"carnet/dpm"
	"carnet/identity"
	"carnet/keys"
	"carnet/peering"
	"carnet/policy"
	"carnet/register"
)

// recorder takes records in memory, or fails.
type recorder struct {
	mu   sync.Mutex
	all  []activity.Record
	fail error
}

// Add implements activity.Recorder.
func (r *recorder) Add(_ context.Context, record activity.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		r.all = append(r.all, record)
	}
	return r.fail
}

func (r *recorder) take() (all []activity.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, r.all = r.all, nil
	return all
}

func (r *recorder) failWith(err error) { r.mu.Lock(); r.fail = err; r.mu.Unlock() }

// asked is a party that runs, whose records are taken, and the certificate of a peer of it.
type asked struct {
	t       testing.TB
	node    *Node
	base    string
	records *recorder
	self    identity.Local
	peer    identity.Local
	cert    tls.Certificate // that it is asked with
	http    *http.Client    // of one connection
}

// newAsked runs a party with a peer that doesn't run, once others have met it.
func newAsked(t testing.TB, party, peer Config, at func(Config) string, offer peering.Offer, meets ...func(Config)) *asked {
	t.Helper()
	party, peer = made(t, party), made(t, peer)
	introduce(t, peer, party, offer)
	for _, meet := range meets {
		meet(party)
	}
	a := &asked{t: t, base: "https://" + at(party), records: &recorder{}, self: selfOf(t, party), peer: selfOf(t, peer)}
	a.cert = a.peer.Certificate
	var err error
	if a.node, err = New(t.Context(), party, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	a.node.guard.Recorder = a.records
	run, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.node.Run(run) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", party.Party, err)
		}
	})
	a.connect()
	return a
}

// introduce makes peers of two parties that don't run.
func introduce(t testing.TB, peer, party Config, offer peering.Offer) {
	t.Helper()
	if err := Introduce(t.Context(), Introduction{Inviter: peer, Accepter: party, Calls: party.Party, Offer: offer}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

// selfOf is what a party that doesn't run shows its peers.
func selfOf(t testing.TB, c Config) (local identity.Local) {
	t.Helper()
	err := withTable(t.Context(), c, func(table *keys.Table) (err error) {
		local, err = identity.Load(t.Context(), table, self)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return local
}

// connect begins a new connection.
func (a *asked) connect() {
	a.http = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{a.cert}},
	}}
	a.t.Cleanup(a.http.CloseIdleConnections)
}

// ask calls for a pattern, with ids that nobody has.
func (a *asked) ask(pattern, body string) (status int, code carnet.Code) {
	a.t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	id := "00112233445566778899aabbccddeeff"
	path = strings.NewReplacer("{fingerprint}", id+id, "{tile...}", "checkpoint", "{attempt}", "1", "{n}", "0", "{taker}", "did:key:z6Mk").Replace(path)
	for _, name := range []string{"{home}", "{crossing}", "{job}", "{id}", "{share}", "{stream}"} {
		path = strings.ReplaceAll(path, name, id)
	}
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.base+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	answer := a.reach(r, body)
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatalf("%s: %v", pattern, err)
	}
	var p struct{ Code carnet.Code }
	_ = json.Unmarshal(said, &p) // not every answer is a refusal
	return answer.StatusCode, p.Code
}

// reach makes a call. A world that has just started, or whose disk is busy, knows nobody
// for a moment: that leaves a record of its own, which isn't looked at.
func (a *asked) reach(r *http.Request, body string) *http.Response {
	a.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r.Body = io.NopCloser(strings.NewReader(body))
		answer, err := a.http.Do(r)
		if err == nil {
			return answer
		}
		if time.Now().After(end) {
			a.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
		}
		a.records.take()
	}
}

func sensitive(s carnet.Sensitivity) *carnet.Sensitivity { return &s }

var (
	aDPM      = Config{Party: "forge", Role: identity.DPM, Listen: Listen{HTTP: "free", R6: "free"}, DPM: DPMConfig{Sensitivity: "personal", Workers: -1}}
	aListener = Config{Party: "citadel", Role: identity.World, Listen: Listen{HTTP: "free", Link: "free", R5: "free"}, World: WorldConfig{Purpose: "play", Sensitivity: "personal"}}
	aCaller   = Config{Party: "arena", Role: identity.World, Listen: Listen{HTTP: "free", Link: "free", R5: "free"}, World: WorldConfig{Purpose: "play", Sensitivity: "personal"}}
	ofR5      = peering.Offer{Scope: []peering.Scope{peering.R5}, Purposes: []string{"play"}, Sensitivity: sensitive(carnet.AllSensitive)}
	ofR6      = peering.Offer{Scope: []peering.Scope{peering.R6}, Purposes: []string{"play"}, Sensitivity: sensitive(carnet.AllSensitive)}
	ofR2      = peering.Offer{Scope: []peering.Scope{peering.R2}}
)

func askedDepot(t *testing.T, c Config) *asked {
	return newAsked(t, c, aWorld, func(c Config) string { return c.Listen.R2 }, ofR2)
}

func askedDPM(t *testing.T) *asked {
	return newAsked(t, aDPM, aWorld, func(c Config) string { return c.Listen.R6 }, ofR6)
}

// Every call that a peer can make at R2 and R6, by the lists of those who serve them, is
// decided and recorded once, with the peer as principal, and comes to no handler whose
// record can't be written.
func TestNoCallOfAPeerWithoutADecisionAndARecord(t *testing.T) {
	known := slices.Collect(maps.Keys(peerCalls))
	for _, side := range []struct {
		asked    *asked
		patterns []string
		via      activity.Via
	}{
		{askedDepot(t, aDepot), slices.Concat(depot.Patterns(), depot.ShelfPatterns(), register.Patterns()), activity.R2},
		{askedDPM(t), dpm.Patterns(), activity.R6},
	} {
		a := side.asked
		for _, pattern := range side.patterns {
			known = slices.DeleteFunc(known, func(p string) bool { return p == pattern })
			action := peerCalls[pattern]
			use, there := policy.UseOf(action)
			if !there || use.Group != policy.Between {
				t.Errorf("%s is for %q, which isn't what peers do", pattern, action)
				continue
			}
			a.connect()
			a.records.take()
			status, code := a.ask(pattern, "{}")
			all := a.records.take()
			if len(all) != 1 || all[0].Who != (policy.Principal{Kind: policy.Neighbour, Name: "arena"}) || all[0].Action != action || all[0].Via != side.via ||
				all[0].Resource.Kind != use.Resource || all[0].Resource.ID == "" || !all[0].Permitted || all[0].Rule != "peer-by-its-peering" {
				t.Errorf("%s is %d %s and left %+v", pattern, status, code, all)
			}
			if named := use.Param != "" && !recordedOnce[action] || use.Resource == policy.PartyResource; named == (len(all) == 1 && all[0].Resource.ID == policy.Any) {
				t.Errorf("%s left %+v", pattern, all)
			}
			// On the same connection.
			a.ask(pattern, "{}")
			if again := a.records.take(); (len(again) == 0) != recordedOnce[action] {
				t.Errorf("%s left %+v when it was called again", pattern, again)
			}
			a.connect()
			a.records.failWith(carnet.Errorf(carnet.NoSpace, "the disk is full"))
			if status, code := a.ask(pattern, "{}"); status != http.StatusInsufficientStorage || code != carnet.NoSpace {
				t.Errorf("%s, which could not be recorded, is %d %s", pattern, status, code)
			}
			a.records.failWith(nil)
		}
	}
	if len(known) > 0 {
		t.Errorf("nobody serves %v", known)
	}
}

// What a depot or DPM serves and nobody has said what it is, is refused to everybody.
func TestAPatternForNothingIsRefused(t *testing.T) {
	records := &recorder{}
	roles, err := policy.NewAuthorizer(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{guard: &activity.Guard{Authorizer: roles, Recorder: records, Log: slog.New(slog.DiscardHandler)}, party: "vault", via: activity.R2, now: time.Now,
		caller: func(*http.Request) (carnet.PartyID, error) { return "arena", nil }}
	mux, reached := http.NewServeMux(), false
	g.let(mux, []string{"POST /r2/new"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	w := statusOf(mux, "POST", "/r2/new")
	if all := records.take(); reached || w != http.StatusForbidden || len(all) != 1 || all[0].Permitted || all[0].Who.Name != "arena" {
		t.Errorf("reached %v, answered %d, recorded %+v", reached, w, all)
	}
	// Who is no peer any more is nobody.
	g.caller = func(*http.Request) (carnet.PartyID, error) {
		return "", carnet.Errorf(carnet.Unauthenticated, "the caller is not a peer")
	}
	g.let(mux, []string{"DELETE /r2/objects/{fingerprint}"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	w = statusOf(mux, "DELETE", "/r2/objects/x")
	if all := records.take(); reached || w != http.StatusUnauthorized || len(all) != 1 || all[0].Permitted || all[0].Who.Kind != policy.Nobody || all[0].Action != "delete-object" {
		t.Errorf("reached %v, answered %d, recorded %+v", reached, w, all)
	}
}

// What isn't recorded isn't done, and what is done stands in the log with what it was of.
func TestADepotsDeletionsAreInItsLog(t *testing.T) {
	a := askedDepot(t, aDepot)
	body := "sealed bytes"
	f := carnet.FingerprintOf([]byte(body))
	do := func(method string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, a.base+"/r2/objects/"+f.String(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Carnet-Retention", "keep")
		answer, err := a.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	full := carnet.Errorf(carnet.NoSpace, "the disk is full")
	a.records.failWith(full)
	if got := do("PUT"); got != http.StatusInsufficientStorage {
		t.Errorf("put unrecorded: %d", got)
	}
	a.records.failWith(nil)
	if got := do("GET"); got != http.StatusNotFound {
		t.Errorf("what was put unrecorded is %d", got)
	}
	if got := do("PUT"); got != http.StatusNoContent {
		t.Fatalf("put: %d", got)
	}
	a.records.failWith(full)
	if got := do("DELETE"); got != http.StatusInsufficientStorage {
		t.Errorf("deleted unrecorded: %d", got)
	}
	if got := do("PUT"); got != http.StatusNoContent {
		t.Errorf("put on a connection of which a put is recorded: %d", got)
	}
	a.records.failWith(nil)
	if got := do("GET"); got != http.StatusOK {
		t.Errorf("what wasn't deleted is %d", got)
	}
	a.records.take()
	if got := do("DELETE"); got != http.StatusNoContent {
		t.Errorf("deleted: %d", got)
	}
	all := a.records.take()
	if len(all) != 1 || all[0].Action != "delete-object" || all[0].Resource != (policy.Resource{Kind: policy.ObjectResource, ID: f.String()}) || all[0].Who.Name != "arena" || !all[0].Permitted {
		t.Errorf("the deletion left %+v", all)
	}
}

// An operator's own policy counts for peers, too.
func TestAPolicyForbidsAPeer(t *testing.T) {
	c := aDepot
	c.Roles.Policies = []string{filepath.Join(t.TempDir(), "house.cedar")}
	text := `@id("arena-deletes-nothing") forbid (principal == Peer::"arena", action == Action::"delete-object", resource);`
	if err := os.WriteFile(c.Roles.Policies[0], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := askedDepot(t, c)
	status, _ := a.ask("DELETE /r2/objects/{fingerprint}", "")
	if all := a.records.take(); status != http.StatusForbidden || len(all) != 1 || all[0].Permitted || all[0].Rule != "arena-deletes-nothing" {
		t.Errorf("deleting is %d and left %+v", status, all)
	}
	if status, _ := a.ask("GET /r2/objects", ""); status != http.StatusOK {
		t.Errorf("listing is %d", status)
	}
}

// Every call at R5, with and without a token that would do, is recorded before it is
// answered; and none is served whose record can't be written. No call here proves
// anything but its TLS key.
func TestNoCallBetweenWorldsWithoutARecord(t *testing.T) {
	a := newAsked(t, aListener, aCaller, func(c Config) string { return c.Listen.R5 }, ofR5)
	tokenless := 0
	patterns := map[string]policy.Action{"POST " + r5.TokenPath: "call-token", "POST " + recoveredPath: "tell-recovered"}
	for pattern, route := range a.node.callRoutes(nil) {
		patterns[pattern] = "call-" + policy.Action(route.action)
		if route.records == recordsMoves {
			patterns[pattern] = followDecided
		}
	}
	for pattern, action := range patterns {
		a.records.take()
		status, _ := a.ask(pattern, "{}")
		all := a.records.take()
		if len(all) != 1 || all[0].Permitted || all[0].Action != action || all[0].Via != activity.R5 || !strings.HasPrefix(all[0].Who.Name, "arena") || all[0].Why == "" {
			t.Errorf("%s is %d and left %+v", pattern, status, all)
			continue
		}
		if use, is := policy.UseOf(action); is {
			tokenless++
			if use.Group != policy.Between || all[0].Who.Kind != policy.Neighbour || status != http.StatusUnprocessableEntity {
				t.Errorf("%s is %d, for %+v, and left %+v", pattern, status, use, all)
			}
			continue
		}
		if status != http.StatusUnauthorized {
			t.Errorf("%s is %d", pattern, status)
		}
		a.records.failWith(carnet.Errorf(carnet.NoSpace, "the disk is full"))
		if status, _ := a.ask(pattern, "{}"); status != http.StatusServiceUnavailable {
			t.Errorf("%s, which could not be recorded, is %d", pattern, status)
		}
		a.records.failWith(nil)
	}
	if tokenless < 8 {
		t.Errorf("there are %d calls without a token", tokenless)
	}
}

// statusOf is the status of a handler's answer.
func statusOf(h http.Handler, method, path string) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code
}

// BenchmarkPut is what a small object costs at a depot whose log is on disk: as it is,
// with a put's record for its connection, and with one for each.
func BenchmarkPut(b *testing.B) {
	for _, once := range []bool{true, false} {
		b.Run(fmt.Sprintf("once=%v", once), func(b *testing.B) {
			recordedOnce["put-object"] = once
			defer func() { recordedOnce["put-object"] = true }()
			a := newAsked(b, aDepot, aWorld, func(c Config) string { return c.Listen.R2 }, ofR2)
			a.node.guard.Recorder = a.node.activity
			for i := 0; b.Loop(); i++ {
				body := fmt.Sprintf("sealed bytes %d", i)
				r, err := http.NewRequestWithContext(b.Context(), "PUT", a.base+"/r2/objects/"+carnet.FingerprintOf([]byte(body)).String(), strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Carnet-Retention", "keep")
				answer, err := a.http.Do(r)
				if err != nil || answer.StatusCode != http.StatusNoContent {
					b.Fatalf("%v, %v", answer, err)
				}
				answer.Body.Close()
			}
		})
	}
}
