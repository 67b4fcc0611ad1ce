package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing"
	"carnet/item"
	"carnet/job"
	"carnet/policy"
	"carnet/thing"
)

// principals are the tests' tokens.
var principals = map[string]api.Principal{
	"operator-token": policy.Bearer("ops", policy.Administrator),
	"alice-token":    policy.Bearer("alice", policy.User),
	"bob-token":      policy.Bearer("bob", policy.User),
	"nameless-token": policy.Bearer("", policy.User),
	"maker-token":    policy.Bearer("maker", policy.Creator),
	"auditor-token":  policy.Bearer("audrey", policy.Auditor),
	"reader-token":   policy.Bearer("app", policy.Service),
	"odd-token":      policy.Bearer("odd", "admin"),
}

// tokens are those, and the world's entities'.
func (s *served) tokens(token string) (api.Principal, bool) {
	if p, ok := principals[token]; ok {
		return p, true
	}
	return s.entities.Authenticate(token)
}

func tokens(token string) (api.Principal, bool) {
	p, ok := principals[token]
	return p, ok
}

// served is a pair of parties with their APIs.
type served struct {
	citadel *citadel
	*pair
	hubURL, arenaURL string
	forgeURL         string                  // of a DPM
	jobs             *job.Agent              // arena's
	own              *job.Agent              // owners', at hub
	desk             *desk                   // its way to forge
	shares           *crossing.Agent         // arena's
	homes            *homes                  // as arena asks for them
	items            *item.Book              // likewise
	r5               net.Listener            // arena's; nobody serves there unless a test does
	records          *records                // of both
	handlers         map[string]http.Handler // by URL
}

// records is an activity log in memory.
type records struct {
	mu   sync.Mutex
	all  []activity.Record
	fail error
}

// Add implements activity.Recorder.
func (r *records) Add(_ context.Context, one activity.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.all = append(r.all, one)
	return nil
}

// take returns what was recorded since the last time.
func (r *records) take() []activity.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

func (r *records) failWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// guard decides by the built-in roles.
func guard(t testing.TB, r activity.Recorder) *activity.Guard {
	t.Helper()
	a, err := policy.NewAuthorizer(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return &activity.Guard{Authorizer: a, Recorder: r, Log: quiet()}
}

func newServed(t *testing.T) *served {
	s := &served{pair: newPair(t), records: new(records), citadel: newCitadel(t), handlers: map[string]http.Handler{}}
	s.own = s.newOwnJobs()
	s.hubURL = s.serve(api.Config{Party: "hub", MQTT: "localhost:8883", Things: s.agent, Jobs: s.own, Recoveries: true, Tokens: tokens, Log: quiet()})
	var err error
	if s.r5, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.r5.Close() })
	s.shares = s.newShares()
	s.items = s.newItems()
	forge := newForge(s)
	s.forgeURL, s.jobs = s.serve(forge.config()), s.newJobs(forge)
	moves := s.newMoves()
	erasures := s.newErasing(moves)
	s.arenaURL = s.serve(api.Config{Party: "arena", Erasures: erasures, ErasureKey: erasures.Peer, ErasureSigner: s.world.EvidenceSigner, Passports: exports{s, moves}, R5: "https://" + s.r5.Addr().String(), World: s.world, Peers: registry{}, Proofs: proofs{s.world, s.ids.arena}, Mandates: s.mandates, Abroad: s.citadel, Shares: s.shares, Items: s.items, Jobs: s.jobs, Moves: moves, Entities: s.entities, Activity: s.activity,
		Tokens: s.tokens, Log: quiet()})
	return s
}

func (s *served) serve(cfg api.Config) string {
	s.t.Helper()
	if cfg.Guard == nil {
		cfg.Guard = guard(s.t, s.records)
	}
	cfg.Examine = func(ctx context.Context) (carnet.Examination, error) {
		e := carnet.Examination{Findings: []carnet.Finding{}}
		e.Saw("peers", 0)
		if cfg.Things != nil {
			cfg.Things.Examine(&e)
		}
		if cfg.World == nil {
			return e, nil
		}
		return e, cfg.World.Examine(ctx, &e)
	}
	h, err := api.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewServer(h)
	s.t.Cleanup(server.Close)
	s.handlers[server.URL] = h
	return server.URL
}

func (s *served) hub(token string) *client.Client {
	return &client.Client{Base: s.hubURL, Token: token}
}
func (s *served) arena(token string) *client.Client {
	return &client.Client{Base: s.arenaURL, Token: token}
}

func view(t testing.TB, text string) policy.View {
	t.Helper()
	v, err := policy.ParseView([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// watchDescription is a watch whose properties are numbers, and sent at once.
const watchDescription = `{
	"@context": ["https://www.w3.org/2022/wot/td/v1.1", {"carnet": "urn:carnet:td#"}],
	"title": "Watch", "securityDefinitions": {"none": {"scheme": "nosec"}}, "security": "none",
	"properties": {
		"heart_rate": {"type": "number", "unit": "beat/min", "carnet:sensitivity": "public", "carnet:linger": "PT0S", "forms": [{"href": "a"}]},
		"steps": {"type": "number", "carnet:sensitivity": "public", "carnet:linger": "PT0S", "forms": [{"href": "b"}]},
		"stress": {"type": "number", "carnet:sensitivity": "public", "carnet:linger": "PT0S", "forms": [{"href": "c"}]},
		"position": {"type": "object", "carnet:sensitivity": "public", "carnet:linger": "PT0S", "forms": [{"href": "d"}],
			"properties": {"lat": {"type": "number", "unit": "lat"}, "lon": {"type": "number", "unit": "lon"}}}
	}
}`

// watch adds a watch of alice's through the API, and maps it to the arena.
func (s *served) watch(id carnet.ThingID, text string) (*device, thing.MappingInfo) {
	s.t.Helper()
	ops := s.hub("operator-token")
	added, err := ops.AddThing(s.t.Context(), api.NewThing{ID: id, Owner: "alice", Description: api.Description(watchDescription)})
	if err != nil {
		s.t.Fatal(err)
	}
	var m thing.MappingInfo
	s.eventually("map the watch", func() bool {
		m, err = s.hub("alice-token").Map(s.t.Context(), added.ID, api.NewMapping{World: "arena", Title: "Runner 7", View: view(s.t, text)})
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			s.t.Fatal(err)
		}
		return err == nil
	})
	return s.device(added.ID, added.Password), m
}

var start = time.Now().Add(-time.Hour).Truncate(time.Second)

func heart(second int, bpm float64) carnet.Measurement {
	return carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: start.Add(time.Duration(second) * time.Second).UnixNano(), Value: carnet.Float(bpm)}
}

// arrived waits until the world has n measurements of an avatar.
func (s *served) arrived(id carnet.AvatarID, n uint64) {
	s.t.Helper()
	s.eventually("measurements arrive", func() bool {
		info, err := s.world.Avatar(id)
		return err == nil && info.Measurements >= n
	})
}

// answered is an HTTP answer, read.
type answered struct {
	status int
	header http.Header
	body   string
}

// ask makes a call as it is on the wire. header is "Name: value" each.
func ask(t testing.TB, method, url, token, body string, header ...string) answered {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	a, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{a.StatusCode, a.Header, string(b)}
}

func compact(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// neutral is an error without the names in it.
func neutral(err error, names ...string) string {
	text := err.Error()
	for _, n := range names {
		text = strings.ReplaceAll(text, n, "…")
	}
	return text
}
