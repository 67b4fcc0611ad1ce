package api_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/engine/sql"
	"carnet/engine/wasm"
	"carnet/identity"
	"carnet/job"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
)

// forge is a DPM that takes every caller at R6 for arena, with a worker.
type forge struct {
	agent  *dpm.Agent
	own    *party
	server *httptest.Server
}

// roomy is the most that a job may have at forge.
var roomy = capsule.Limits{Memory: 256 << 20, Milliseconds: 60_000, Output: 8 << 20, Parts: 256}

func newForge(s *served) *forge {
	t := s.t
	t.Helper()
	f := &forge{own: newParty(t, "forge")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	store, err := f.own.db.DPM(t.Context())
	must(err)
	rest := keys.ID{Kind: "rest", Name: "own"}
	_, err = f.own.table.Make(t.Context(), rest)
	must(err)
	sealer, err := f.own.table.Sealer(t.Context(), rest)
	must(err)
	f.agent, err = dpm.New(t.Context(), dpm.Config{
		Party: "forge", Key: forgeKey, Store: store, Keys: f.own.table, Sealer: sealer, Dir: f.own.path("jobs"), Most: roomy, Engines: []capsule.EngineOffer{{Name: "sql", Version: "1"}},
		Peer: func(name carnet.PartyID) (dpm.Peer, error) {
			return dpm.Peer{Name: name, OwnName: "arena", Key: public(s.ids.arena.Key), Terms: jobTerms, Given: clearance, Holds: clearance}, nil
		},
		State: func(ledger.Statement) (ledger.Item, error) {
			salt := ledger.NewSalt()
			return ledger.Item{Entry: ledger.NewSalt(), Statement: []byte{1}, Salt: salt[:]}, nil
		},
		Recorded: func() {}, Ledger: shown{}, Log: quiet(),
	})
	must(err)
	f.own.run(f.agent.Run, func(ctx context.Context) error {
		defer f.agent.Enter("w")()
		return (&dpm.Worker{Name: "w", Board: f.agent, Engines: []engine.Engine{sql.Engine{}}, Log: quiet()}).Run(ctx)
	})
	f.server = httptest.NewTLSServer(f.agent.Handler(func(*http.Request) (carnet.PartyID, error) { return "arena", nil }))
	t.Cleanup(func() {
		f.server.Close()
		f.own.close()
	})
	return f
}

func (f *forge) config() api.Config {
	return api.Config{Party: "forge", DPM: f.agent, R6: f.server.URL, Tokens: tokens, Log: quiet()}
}

// What forge signs with, and the terms by which arena orders there.
var (
	forgeKey = newKey()
	jobTerms = carnet.Fingerprint{7}
)

// shown is a ledger that shows everything as stated.
type shown struct{}

func (shown) Name() (carnet.PartyID, string, error) { return "vault", "vault.example/ledger", nil }

func (shown) Proof(context.Context, ledger.Kind, carnet.Fingerprint) (identity.OnLedger, error) {
	return identity.OnLedger{Statement: []byte{1}, Salt: []byte{2}, Receipt: []byte{3}}, nil
}

// desk is arena's way to forge. What is brought by hand stays here; that a result was
// taken isn't told, so that a test may.
type desk struct {
	*dpm.Client
	mu     sync.Mutex
	byHand bool                            // guarded by mu
	has    map[carnet.JobID]dpm.Submission // guarded by mu
}

// Submit implements job.DPM.
func (d *desk) Submit(ctx context.Context, id carnet.JobID, s dpm.Submission) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, kept := d.has[id]; kept || d.byHand {
		d.has[id] = s
		return "", carnet.Errorf(carnet.Unavailable, "it is brought by hand")
	}
	return d.Client.Submit(ctx, id, s)
}

// Taken implements job.DPM.
func (d *desk) Taken(context.Context, carnet.JobID, string) error {
	return carnet.Errorf(carnet.Unavailable, "it is told by hand")
}

func (d *desk) hand(by bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byHand = by
}

func (d *desk) capsule(id carnet.JobID) (dpm.Submission, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.has[id]
	return s, ok
}

// newJobs is what arena has computed, in itself or at forge.
func (s *served) newJobs(f *forge) *job.Agent {
	s.t.Helper()
	s.desk = &desk{Client: &dpm.Client{Base: f.server.URL, HTTP: f.server.Client()}, has: map[carnet.JobID]dpm.Submission{}}
	modules, err := wasm.New(s.t.TempDir())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { modules.Close() })
	a, err := job.New(s.t.Context(), job.Config{
		Party: "arena", Key: s.ids.arena.Key, Purpose: "fitness", World: s.world, Keys: s.pair.arena.table, Depot: onlyKeeps{}, Engines: []engine.Engine{sql.Engine{}, modules}, Log: quiet(),
		DPMs: func() []carnet.PartyID { return []carnet.PartyID{"forge"} },
		Peer: func(name carnet.PartyID) (job.Peer, error) {
			if name != "forge" {
				return job.Peer{}, carnet.Errorf(carnet.NotFound, "%s is no DPM", name)
			}
			return job.Peer{Name: name, OwnName: name, Key: public(forgeKey), Terms: jobTerms, Clearance: clearance, DPM: s.desk}, nil
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return a
}

// queryOf is a job over an avatar's heart rates.
func queryOf(at carnet.PartyID, avatar carnet.AvatarID) job.Spec {
	return job.Spec{At: at, Engine: "sql", Program: []byte("SELECT avg(value) AS mean FROM measurements"), Avatars: []carnet.AvatarID{avatar}, Properties: []string{"heart_rate"}, Limits: roomy}
}

// ordered orders a job, and waits until it is as a test needs it.
func (s *served) ordered(spec job.Spec, what string, is func(job.Info) bool) job.Info {
	s.t.Helper()
	i, err := s.jobs.Order(s.t.Context(), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually(what, func() bool {
		if i, err = s.jobs.Job(s.t.Context(), i.ID, false); err != nil {
			s.t.Fatal(err)
		}
		return is(i)
	})
	return i
}

func done(i job.Info) bool { return i.Stand.Outcome == capsule.Done }

// ofJob makes a job for an operation about one, and the body that names an avatar.
func (s *served) ofJob(op string, avatar carnet.AvatarID, example string) (id, body string) {
	s.t.Helper()
	switch op {
	case "list-jobs":
		return "", ""
	case "run-job", "plan-job":
		return "", strings.Replace(example, api.AvatarOfExamples().String(), avatar.String(), 1)
	case "cancel-job", "get-job-partial":
		s.desk.hand(true)
		defer s.desk.hand(false)
		return s.ordered(queryOf("forge", avatar), "a job waits for its DPM", func(i job.Info) bool { _, has := s.desk.capsule(i.ID); return has }).ID.String(), ""
	}
	return s.ordered(queryOf("forge", avatar), "a job is done", done).ID.String(), ""
}

// onlyKeeps takes objects, and forgets them.
type onlyKeeps struct{ noDepot }

func (onlyKeeps) PutObject(_ context.Context, b []byte, _ carnet.Retention) (carnet.Fingerprint, error) {
	return carnet.FingerprintOf(b), nil
}

// module adds one to a party.
func (s *served) module(at *job.Agent, name string) job.Module {
	s.t.Helper()
	m, err := at.AddModule(s.t.Context(), job.NewModule{Program: []byte(api.ModuleOfExamples), Name: name, Version: "1.0.0", Engine: wasm.Name, Reads: []string{"heart_rate"}})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *served) revoked(at *job.Agent, m job.Module) job.Module {
	s.t.Helper()
	m, err := at.RevokeModule(s.t.Context(), m.ID(), "it counts seconds twice", "")
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// ofModule makes what an operation about modules needs, and says which it is about.
func (s *served) ofModule(at *job.Agent, op string) (id, body string) {
	switch op {
	case "list-modules":
		s.revoked(at, s.module(at, "listed"))
		return "", ""
	case "add-module":
		return "", ""
	}
	return s.module(at, strings.ReplaceAll(op, "-module", "")).ID(), ""
}

// atForge makes a job for a call of R6 about one, as its world would.
func (s *served) atForge(q *question, avatar carnet.AvatarID) {
	t := s.t
	t.Helper()
	switch q.op.id {
	case "get-offer":
		return
	case "erase-jobs":
		q.body = marshal(t, dpm.Erasing{Order: s.erasureOrder(), Jobs: []dpm.ErasingJob{{ID: s.ordered(queryOf("forge", avatar), "a job is done", done).ID, Until: time.Now()}}})
		return
	case "list-revoked":
		m := s.revoked(s.jobs, s.module(s.jobs, "asked"))
		q.body = marshal(t, dpm.RevokedAsked{Records: []string{m.Record}})
		return
	case "tell-revocation":
		q.body = marshal(t, dpm.Revoking{Revocation: s.revoked(s.jobs, s.module(s.jobs, "told")).Revocations[0]})
		return
	}
	if q.op.id == "get-part" || q.op.id == "tell-taken" || q.op.id == "get-record" {
		i := s.ordered(queryOf("forge", avatar), "a job is done", done)
		q.path["job"] = i.ID.String()
		if q.op.id == "tell-taken" {
			word, err := capsule.Taken{Job: i.ID, Order: capsule.Fingerprint(i.Order), Result: capsule.Fingerprint(i.Stand.Result)}.Sign(s.ids.arena.Key)
			if err != nil {
				t.Fatal(err)
			}
			q.body = marshal(t, dpm.Taking{Taken: word})
		}
		return
	}
	s.desk.hand(true)
	i := s.ordered(queryOf("forge", avatar), "a job's capsule is made", func(i job.Info) bool { _, has := s.desk.capsule(i.ID); return has })
	s.desk.hand(false)
	brought, _ := s.desk.capsule(i.ID)
	q.path["job"] = i.ID.String()
	if q.op.id == "submit-job" {
		q.body = marshal(t, brought)
		return
	}
	if _, err := s.desk.Client.Submit(t.Context(), i.ID, brought); err != nil {
		t.Fatal(err)
	}
	switch q.op.id {
	case "put-content":
		q.body = string(queryOf("forge", avatar).Program)
		q.path["fingerprint"] = carnet.FingerprintOf([]byte(q.body)).String()
	case "withdraw-job":
		w, err := capsule.Withdrawal{Job: i.ID, Order: capsule.Fingerprint(i.Order), Why: "cancelled", Made: time.Now().UTC().Truncate(time.Second)}.Sign(s.ids.arena.Key)
		if err != nil {
			t.Fatal(err)
		}
		q.body = marshal(t, dpm.Withdrawing{Withdrawal: w})
	}
}

// What a DPM serves at R6 is what its document says, and nothing else.
func TestTheDocumentHasAllOfR6(t *testing.T) {
	s := newServed(t)
	described := map[string]bool{}
	for _, op := range operations(t, s.forgeURL) {
		if strings.HasPrefix(op.path, "/r6/") {
			described[op.method+" "+op.path] = true
		}
	}
	for _, pattern := range dpm.Patterns() {
		if !described[pattern] {
			t.Errorf("%s is served and not described", pattern)
		}
		delete(described, pattern)
	}
	for pattern := range described {
		t.Errorf("%s is described and not served", pattern)
	}
}

// What comes out of a job by its example is what its program puts out, here and at a DPM,
// and the proof is what both signed.
func TestAJobOverHTTP(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}},"purposes":["fitness"],"send":{"UTC":["mon-sun 00:00-24:00"]}}`)
	d.mustSend(heart(0, 72))
	d.mustSend(heart(1, 74))
	s.arrived(m.Avatar, 2)
	for at, by := range map[carnet.PartyID]ed25519.PrivateKey{"": s.ids.arena.Key, "forge": forgeKey} {
		id := s.ordered(queryOf(at, m.Avatar), "a job is done", done).ID
		path := fmt.Sprintf("%s/v1/jobs/%s", s.arenaURL, id)
		if a := ask(t, "GET", path+"/output", "operator-token", ""); a.status != http.StatusOK || a.body != "[\"mean\"]\n[73]\n" {
			t.Errorf("at %q the output is %d %q", at, a.status, a.body)
		}
		proof := parsed(t, ask(t, "GET", path+"/proof", "operator-token", "").body)
		if _, err := capsule.OpenOrder(find(proof, "order").(string), public(s.ids.arena.Key)); err != nil {
			t.Errorf("at %q the order: %v", at, err)
		}
		if r, err := capsule.OpenResult(find(proof, "result").(string), public(by)); err != nil || r.Job != id {
			t.Errorf("at %q the result is of %s: %v", at, r.Job, err)
		}
	}
}

// A module has what is written beside it, or what its record says: not both.
func TestAModuleOverHTTP(t *testing.T) {
	s := newServed(t)
	m, c := s.module(s.jobs, "heartzones"), s.arena("operator-token")
	for what, n := range map[string]api.NewModule{
		"a record and a name":    {Program: []byte(api.ModuleOfExamples), Record: m.Record, Name: "heartzones"},
		"a record and a version": {Program: []byte(api.ModuleOfExamples), Record: m.Record, Version: "1.0.0"},
		"a record and an engine": {Program: []byte(api.ModuleOfExamples), Record: m.Record, Engine: wasm.Name},
		"a record and reads":     {Program: []byte(api.ModuleOfExamples), Record: m.Record, Reads: []string{"heart_rate"}},
		"bytes that don't run":   {Program: []byte("\x00asm\x01\x00\x00\x00"), Name: "heartzones", Version: "2"},
		"no name":                {Program: []byte(api.ModuleOfExamples), Version: "2"},
	} {
		if _, err := c.AddModule(t.Context(), n); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.AddModule(t.Context(), api.NewModule{Program: []byte(api.ModuleOfExamples), Record: m.Record}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the same version again: %v", err)
	}
	signed, err := capsule.Revocation{Module: m.Fingerprint, By: m.By, Why: "it counts twice", Made: time.Now().UTC().Truncate(time.Second)}.Sign(s.ids.arena.Key)
	if err != nil {
		t.Fatal(err)
	}
	for what, n := range map[string]api.NewRevocation{
		"nothing":                {},
		"why and what is signed": {Why: "it counts twice", Revocation: signed},
		"a record":               {Revocation: m.Record},
	} {
		if _, err := c.RevokeModule(t.Context(), m.ID(), n); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("revoked with %s: %v", what, err)
		}
	}
	if got, err := c.Module(t.Context(), m.ID()); err != nil || got.Revoked != nil || got.Record != m.Record {
		t.Errorf("after what was refused it is %+v, %v", got, err)
	}
	if _, err := c.RunJob(t.Context(), api.NewJob{Module: m.ID(), Engine: "sql", Program: []byte("SELECT 1"), Avatars: []carnet.AvatarID{api.AvatarOfExamples()}}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a job of a module and a query: %v", err)
	}
}

// An order that its caller may give, and that is forbidden all the same, is recorded twice:
// that it was let in, and that it was refused, and why.
func TestARefusedOrderIsRecorded(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	d.mustSend(heart(0, 72))
	s.arrived(m.Avatar, 1)
	c := s.arena("operator-token")
	first := s.ordered(job.Spec{Engine: wasm.Name, Program: []byte(api.ModuleOfExamples), Avatars: []carnet.AvatarID{m.Avatar}}, "a job is done here", done)
	for action, order := range map[policy.Action]func() error{
		"run-job": func() error {
			_, err := c.RunJob(t.Context(), api.NewJob{At: "forge", Engine: wasm.Name, Program: []byte(api.ModuleOfExamples), Avatars: []carnet.AvatarID{m.Avatar}, Limits: &roomy})
			return err
		},
		"repeat-job": func() error {
			_, err := c.RepeatJob(t.Context(), first.ID, api.Repetition{At: "forge"})
			return err
		},
	} {
		s.records.take()
		err := order()
		if carnet.CodeOf(err) != carnet.Forbidden {
			t.Fatalf("%s: %v", action, err)
		}
		got := s.records.take()
		if len(got) != 2 || !got[0].Permitted || got[1].Permitted || got[1].Action != action || got[1].Who != got[0].Who || got[1].Resource != got[0].Resource || !strings.Contains(got[1].Why, "forge has no engine") {
			t.Errorf("of %s it is recorded %v", action, got)
		}
	}
}

// A plan says where a job could run, why there, and what would leave.
func TestAPlanSaysWhereWhyAndWhatLeaves(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}},"purposes":["fitness"]}`)
	d.mustSend(heart(0, 72), heart(1, 74), carnet.Measurement{Name: "steps", Time: heart(1, 0).Time, Value: carnet.Float(9)})
	s.arrived(m.Avatar, 3)
	c := s.arena("operator-token")
	want := func(n api.NewJob, can string, figures func(*job.Plan) bool) job.Plan {
		t.Helper()
		p, err := c.PlanJob(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, at := range p.Places {
			got = append(got, fmt.Sprintf("%s %s here %v can %v: %s", at.At, at.Role, at.Here, at.Can, at.Why))
		}
		if text := strings.Join(got, "\n"); text != can {
			t.Errorf("the places are\n%s\nwant\n%s", text, can)
		}
		if !figures(&p) {
			t.Errorf("the plan is %+v", p)
		}
		return p
	}
	n := api.NewJob{Engine: "sql", Program: []byte("SELECT 1"), Avatars: []carnet.AvatarID{m.Avatar}, Properties: []string{"heart_rate"}, Limits: &roomy}
	hub := string(s.world.SendersOf(m.Avatar)[0]) + " things here false can false: a thing's log is its owner's to compute over: the owner may run the same there, under this world's view, and nothing leaves"
	p := want(n, "arena world here true can true: nothing leaves\n"+
		"forge dpm here false can true: it may have the data; workers: 1, jobs of this world's that wait: 0\n"+hub,
		func(p *job.Plan) bool {
			return p.Here && p.Choice == "arena" && p.Why == "2 measurements are few enough for this world itself, and nothing leaves" && p.Measurements == 2 && p.Properties["heart_rate"] == 2 && len(p.Properties) == 1 &&
				p.Batches > 0 && p.Bytes > 0 && p.Keys > 0 && p.Along <= 1 && slices.Equal(p.Label.Purposes, []string{"fitness"})
		})
	// What the plan says leaves is what the order names, and nothing was ordered by it.
	if jobs, err := c.Jobs(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("a plan ordered %d jobs, %v", len(jobs), err)
	}
	n.At = "forge"
	j, err := c.RunJob(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	batches := 0
	for _, in := range j.Task.Inputs {
		batches += in.Batches
	}
	if batches != p.Batches {
		t.Errorf("%d batches leave for forge, and the plan says %d", batches, p.Batches)
	}
	n.At, n.Engine, n.Program = "", wasm.Name, []byte(api.ModuleOfExamples)
	want(n, "arena world here true can true: nothing leaves\n"+
		"forge dpm here false can false: forge has no engine \"wasm\"; choose another: carnet job plan\n"+hub,
		func(p *job.Plan) bool { return p.Here && p.Choice == "arena" })
}
