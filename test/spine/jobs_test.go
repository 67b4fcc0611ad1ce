package spine_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/engine"
	"carnet/engine/sql"
	"carnet/engine/wasm"
	"carnet/job"
	"carnet/job/thinglog"
	"carnet/ledger"
	"carnet/modules/moduletest"
	"carnet/policy"
)

// computing is what a party has computed, while it runs.
type computing struct {
	*pair
	*job.Agent
	stop func()
}

// computes opens the jobs of a party: those of ann at the hub, or arena's own.
func (p *pair) computes(cfg job.Config, engines ...engine.Engine) *computing {
	p.t.Helper()
	cfg.Key, cfg.Depot, cfg.Log, cfg.Engines = ed25519.NewKeyFromSeed(make([]byte, 32)), noDepot{}, quiet(), engines
	a, err := job.New(p.t.Context(), cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(stop)
	return &computing{p, a, stop}
}

func (p *pair) atHub(engines ...engine.Engine) *computing {
	return p.computes(job.Config{Party: "hub", Purpose: "own", Owned: thinglog.Agent{Agent: p.agent}, Keys: p.hub.table}, engines...)
}

// lossy is what a hub's jobs read and keep, until the process is lost: from then on nothing
// is kept any more.
type lossy struct {
	thinglog.Agent
	lost *atomic.Bool
	at   job.State // lost when a job is kept in this state, once it is
}

// Keep implements job.Records.
func (l lossy) Keep(ctx context.Context, kept []carnet.Kept, statements []ledger.Statement, plain ...carnet.Document) error {
	if l.lost.Load() {
		return carnet.Errorf(carnet.Unavailable, "the process is lost")
	}
	err := l.Agent.Keep(ctx, kept, statements, plain...)
	for _, k := range kept {
		if j, ok := k.Body.(job.Job); ok && l.at != "" && j.Stand.State == l.at {
			l.lost.Store(true)
		}
	}
	return err
}

// losing opens the jobs of a hub whose process is to be lost.
func (p *pair) losing(at job.State, engines ...engine.Engine) (c *computing, lost *atomic.Bool) {
	lost = new(atomic.Bool)
	return p.computes(job.Config{Party: "hub", Purpose: "own", Owned: lossy{thinglog.Agent{Agent: p.agent}, lost, at}, Keys: p.hub.table}, engines...), lost
}

// restarted is the hub's next process.
func (p *pair) restarted() {
	p.hub.close()
	p.hub.reopen()
	p.startHub()
}

func (p *pair) inArena(engines ...engine.Engine) *computing {
	return p.computes(job.Config{
		Party: "arena", Purpose: "fitness", World: p.world, Keys: p.arena.table, DPMs: func() []carnet.PartyID { return nil },
		Peer: func(name carnet.PartyID) (job.Peer, error) {
			return job.Peer{}, carnet.Errorf(carnet.NotFound, "%s is no DPM", name)
		},
	}, engines...)
}

// ended orders a job and waits for its end.
func (c *computing) ended(s job.Spec) job.Info {
	c.t.Helper()
	i, err := c.Order(c.t.Context(), s)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.end(i.ID)
}

func (c *computing) end(id carnet.JobID) (i job.Info) {
	c.t.Helper()
	c.eventually("the job ends", func() bool {
		var err error
		if i, err = c.Job(c.t.Context(), id, false); err != nil {
			c.t.Fatal(err)
		}
		return i.Stand.State == job.Ended
	})
	return i
}

// done fails unless a job is done, and returns what came out.
func (c *computing) done(s job.Spec) (job.Info, string) {
	c.t.Helper()
	i := c.ended(s)
	if i.Stand.Outcome != capsule.Done {
		c.t.Fatalf("the job is %s: %s", i.Stand.Outcome, i.Stand.Why)
	}
	out, err := c.Output(c.t.Context(), i.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	return i, string(out)
}

// everything puts out all that a job is given.
const everything = "SELECT * FROM measurements ORDER BY property, time, value"

func query(text string) job.Spec { return job.Spec{Engine: "sql", Program: []byte(text)} }

// of is a job over ann's things.
func of(s job.Spec, things ...carnet.ThingID) job.Spec {
	s.Owner, s.Things = "ann", things
	return s
}

func seen(s job.Spec, by carnet.PartyID) job.Spec {
	s.ViewOf = by
	return s
}

func about(s job.Spec, id carnet.AvatarID) job.Spec {
	s.Avatars = []carnet.AvatarID{id}
	return s
}

// sendWalk sends a walk: heart rates and steps each 250 ms, places each second, some of
// it late.
func (d *device) sendWalk(start time.Time, from, to int) {
	d.t.Helper()
	for i := from; i < to; i++ {
		at := start.Add(time.Duration(i) * 250 * time.Millisecond)
		if i%7 == 3 {
			at = at.Add(-10 * time.Second)
		}
		ms := []carnet.Measurement{
			heart(at, float64(60+i*13%120)), {Name: "steps", Time: at.UnixNano(), Value: carnet.Float(float64(i * 3))},
		}
		if i%4 == 0 {
			ms = append(ms, carnet.Measurement{Name: "position/lat", Unit: "lat", Time: at.UnixNano(), Value: carnet.Float(59.9 + float64(i)/1000)},
				carnet.Measurement{Name: "position/lon", Unit: "lon", Time: at.UnixNano(), Value: carnet.Float(10.7 + float64(i)/1000)})
		}
		d.mustSend(ms...)
	}
}

// settled waits until the world has all that the agent decides for it, and the agent
// knows.
func (p *pair) settled() {
	p.t.Helper()
	p.eventually("everything has arrived", func() bool {
		st, err := p.agent.Status(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		l := st.Links[0]
		return l.Up && l.Lag == 0 && l.Waiting == 0
	})
}

// The same program puts out the same at the things agent, under the world's view, as in
// the world: whatever the views were, over restarts, and when the mapping has ended.
// Without a view it is the log as it is.
func TestAJobAtTheAgentIsTheWorlds(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{"round":5,"rate":"1s"},"steps":{"deadband":20}}}`)
	start := time.Now().Truncate(time.Second).Add(-time.Hour)
	p.device(id, password).sendWalk(start, 0, 80)
	wider, err := policy.ParseView([]byte(`{"properties":{"heart_rate":{"round":2,"rate":"2s"},"position":{"precision_m":1000,"rate":"3s"},"steps":{"deadband":7}},"purposes":["fitness"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.agent.SetView(t.Context(), "ann", m.ID, wider); err != nil {
		t.Fatal(err)
	}
	p.device(id, password).sendWalk(start, 80, 120)
	p.settled() // restarted before, it would decide the last of it under the second view
	p.hub.close()
	p.hub.reopen()
	p.startHub()
	p.device(id, password).sendWalk(start, 120, 200)
	p.settled()

	modules, err := wasm.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer modules.Close()
	hub, arena := p.atHub(sql.Engine{}, modules), p.inArena(sql.Engine{}, modules)
	zones := job.Spec{Engine: "wasm", Program: moduletest.Build(t, "heartzones"), Properties: []string{"heart_rate"}}
	motion := job.Spec{Engine: "wasm", Program: moduletest.Build(t, "motion"), Parameters: json.RawMessage(`{"window":10}`)}
	part := query(everything)
	part.From, part.To, part.Properties = start.Add(7*time.Second), start.Add(30*time.Second), []string{"heart_rate", "position"}
	compare := func(when string) {
		t.Helper()
		for what, s := range map[string]job.Spec{"all": query(everything), "a part": part, "heart zones": zones, "motion": motion} {
			here, out := hub.done(seen(of(s, id), "arena"))
			there, want := arena.done(about(s, m.Avatar))
			if here.Output.Fingerprint != there.Output.Fingerprint || here.Output.Measurements != there.Output.Measurements {
				t.Errorf("%s, %s: at the hub %d measurements and\n%.2000s\nin arena %d and\n%.2000s", when, what, here.Output.Measurements, out, there.Output.Measurements, want)
			}
		}
	}
	compare("after a change of the view and a restart")
	raw, out := hub.done(of(query("SELECT count(*) FROM measurements"), id))
	if out != "[\"count(*)\"]\n[500]\n" || raw.Logs[0].World != "" {
		t.Errorf("of the log as it is %s is said", out)
	}
	if label := raw.Label.Sensitivity; label&carnet.Health == 0 || label&carnet.Location == 0 {
		t.Errorf("what came out of all of it is labelled %s", label)
	}

	// What hasn't reached the world isn't its.
	p.arena.close()
	p.device(id, password).sendWalk(start, 200, 240)
	before := hub.ended(seen(of(query(everything), id), "arena"))
	p.arena.reopen()
	p.startWorld()
	p.settled()
	arena = p.inArena(sql.Engine{}, modules)
	if after := hub.ended(seen(of(query(everything), id), "arena")); before.Output == nil || after.Output.Measurements <= before.Output.Measurements {
		t.Errorf("%+v are given before the world came back, and %d after", before.Output, after.Output.Measurements)
	}
	compare("after the world was away")

	if _, err := p.agent.Unmap(t.Context(), "ann", m.ID); err != nil {
		t.Fatal(err)
	}
	p.device(id, password).sendWalk(start, 240, 260)
	ended := of(query(everything), id)
	if _, err := hub.Order(t.Context(), seen(ended, "arena")); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("under the view of a mapping that has ended: %v", err)
	}
	ended.Mapping = &m.ID
	here, _ := hub.done(ended)
	if there, _ := arena.done(about(query(everything), m.Avatar)); here.Output.Fingerprint != there.Output.Fingerprint {
		t.Errorf("by the ended mapping's id there are %d measurements, in arena %d", here.Output.Measurements, there.Output.Measurements)
	}
}

// A repetition reads the same part of the log, whatever came since, and is compared.
func TestAnOwnJobIsRepeated(t *testing.T) {
	p := newPair(t)
	id, password, _ := p.watch(`{"properties":{"heart_rate":{}}}`)
	start := time.Now().Add(-time.Hour)
	p.device(id, password).sendWalk(start, 0, 20)
	hub := p.atHub(sql.Engine{})
	first, _ := hub.done(of(query("SELECT count(*) FROM measurements"), id))
	p.device(id, password).sendWalk(start, 20, 40)
	again, err := hub.Repeat(t.Context(), first.ID, "", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	hub.eventually("it is compared", func() bool {
		again, err = hub.Job(t.Context(), again.ID, false)
		return err == nil && again.Found != ""
	})
	if again.Found != job.Same || again.Output.Fingerprint != first.Output.Fingerprint {
		t.Errorf("it is found that %s", again.Found)
	}
	if _, err := hub.Repeat(t.Context(), first.ID, "forge", time.Minute); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("repeated at a DPM: %v", err)
	}
}

// Nobody has anything computed over another's thing, and what isn't theirs isn't there.
func TestJobsAreOverOwnThings(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{}}}`)
	p.device(id, password).sendWalk(time.Now().Add(-time.Hour), 0, 4)
	p.settled()
	other, _, om := p.watch(`{"properties":{"heart_rate":{}}}`)
	hub := p.atHub(sql.Engine{})
	with := func(s job.Spec, change func(*job.Spec)) job.Spec {
		change(&s)
		return s
	}
	good := of(query("SELECT 1"), id)
	for what, v := range map[string]struct {
		spec job.Spec
		code carnet.Code
	}{
		"another's thing":             {with(good, func(s *job.Spec) { s.Owner = "bob" }), carnet.NotFound},
		"another's under a view":      {with(good, func(s *job.Spec) { s.Owner, s.ViewOf = "bob", "arena" }), carnet.NotFound},
		"a thing that isn't there":    {with(good, func(s *job.Spec) { s.Things = []carnet.ThingID{"t-none"} }), carnet.NotFound},
		"nobody's":                    {with(good, func(s *job.Spec) { s.Owner = "" }), carnet.Malformed},
		"no thing":                    {with(good, func(s *job.Spec) { s.Things = nil }), carnet.Malformed},
		"a thing twice":               {with(good, func(s *job.Spec) { s.Things = []carnet.ThingID{id, id} }), carnet.Malformed},
		"an avatar":                   {with(good, func(s *job.Spec) { s.Avatars = []carnet.AvatarID{m.Avatar} }), carnet.Malformed},
		"another thing's mapping":     {with(good, func(s *job.Spec) { s.Mapping = &om.ID }), carnet.NotFound},
		"a mapping and a world":       {with(good, func(s *job.Spec) { s.Mapping, s.ViewOf = &m.ID, "arena" }), carnet.Malformed},
		"a mapping of two things":     {with(good, func(s *job.Spec) { s.Mapping, s.Things = &m.ID, []carnet.ThingID{id, other} }), carnet.Malformed},
		"a world that it isn't in":    {with(good, func(s *job.Spec) { s.ViewOf = "clinic" }), carnet.NotFound},
		"another place":               {with(good, func(s *job.Spec) { s.At = "forge" }), carnet.Forbidden},
		"a thing that measured never": {with(good, func(s *job.Spec) { s.Things = []carnet.ThingID{other} }), carnet.NotFound},
		"an engine that isn't there":  {with(good, func(s *job.Spec) { s.Engine = "duckdb" }), carnet.Malformed},
	} {
		if _, err := hub.Order(t.Context(), v.spec); carnet.CodeOf(err) != v.code {
			t.Errorf("%s: %v, want %s", what, err, v.code)
		}
		if _, err := hub.Plan(t.Context(), v.spec); carnet.CodeOf(err) != v.code && what != "another place" {
			t.Errorf("a plan of %s: %v, want %s", what, err, v.code)
		}
	}
	if n := len(hub.Jobs()); n > 0 {
		t.Errorf("%d jobs are there of what was refused", n)
	}
	if _, err := p.agent.Map(t.Context(), "ann", id, "arena", nil, "", policy.View{}); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.Order(t.Context(), seen(good, "arena")); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("under the view of one of two mappings: %v", err)
	}
	if _, err := p.inArena(sql.Engine{}).Order(t.Context(), about(good, m.Avatar)); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a world is named things: %v", err)
	}
}

// A plan names where a job could run and why, and that nothing leaves; a world's names
// the agent that has the log.
func TestPlansNameTheAgent(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{}}}`)
	p.device(id, password).sendWalk(time.Now().Add(-time.Hour), 0, 4)
	p.settled()
	plan, err := p.atHub(sql.Engine{}).Plan(t.Context(), of(query("SELECT 1"), id))
	if err != nil {
		t.Fatal(err)
	}
	if plan.Choice != "hub" || !plan.Here || plan.Batches != 0 || plan.Bytes != 0 || plan.Keys != 0 || plan.Measurements != 10 || len(plan.Places) != 2 ||
		!plan.Places[0].Can || plan.Places[0].Role != "things" || plan.Places[1].At != "arena" || plan.Places[1].Can || plan.Places[1].Why == "" {
		t.Errorf("the hub plans %+v", plan)
	}
	if plan, err = p.inArena(sql.Engine{}).Plan(t.Context(), about(query("SELECT 1"), m.Avatar)); err != nil {
		t.Fatal(err)
	}
	if last := plan.Places[len(plan.Places)-1]; plan.Choice != "arena" || last.At != p.ids.hub.Name || last.Role != "things" || last.Can || !strings.Contains(last.Why, "owner") {
		t.Errorf("arena plans %+v", plan)
	}
}

// Where the log doesn't reach back to where a mapping begins, what a rate remembered is
// known from the next interval on, and what a deadband did isn't.
func TestALogThatWasTrimmed(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{"rate":"1s"},"steps":{"deadband":20},"position":{"precision_m":1000}}}`)
	// What is received now is measured 5 minutes ahead at most.
	start := time.Now()
	d := p.device(id, password)
	d.sendWalk(start, 0, 30)
	p.settled()
	hub, arena := p.atHub(sql.Engine{}), p.inArena(sql.Engine{})

	ahead := start.Add(10 * time.Minute)
	before, _ := hub.done(seen(of(query(everything), id), "arena"))
	store, err := p.hub.db.Things(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := store.LogIndex(t.Context(), 15, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.TrimLog(t.Context(), rows[0].Received); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	d.sendWalk(time.Now().Add(5*time.Minute-11*time.Second), 0, 40) // on both sides of what is known
	p.settled()

	if _, err := hub.Repeat(t.Context(), before.ID, "", time.Minute); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a job is repeated over what was trimmed: %v", err)
	}
	reading := func(property string) job.Spec {
		s := query(everything)
		s.Properties, s.To = []string{property}, ahead
		return s
	}
	if _, err := hub.Order(t.Context(), seen(of(reading("steps"), id), "arena")); carnet.CodeOf(err) != carnet.TooOld {
		t.Errorf("over a deadband: %v", err)
	}
	rated := reading("heart_rate")
	_, err = hub.Order(t.Context(), seen(of(rated, id), "arena"))
	if carnet.CodeOf(err) != carnet.TooOld {
		t.Fatalf("over a rate: %v", err)
	}
	fix := err.(*carnet.Error).Fix
	from, err := time.Parse(time.RFC3339, fix[strings.LastIndex(fix, " ")+1:])
	if err != nil {
		t.Fatal(err)
	}
	rated.From = from
	here, out := hub.done(seen(of(rated, id), "arena"))
	there, want := arena.done(about(rated, m.Avatar))
	if here.Output.Fingerprint != there.Output.Fingerprint || here.Output.Measurements == 0 {
		t.Errorf("from %s on the hub says\n%s\nand arena\n%s", from, out, want)
	}
	if latest := start.Add(5*time.Minute + 10*time.Second); from.After(latest) {
		t.Errorf("what a rate remembered is known from %s on, want %s at most", from, latest)
	}
	hub.done(seen(of(reading("position"), id), "arena")) // which needs no memory
}

// waiting is an engine whose runs wait until they are let go.
type waiting struct {
	began chan struct{}
	letGo chan struct{}
}

func newWaiting() *waiting { return &waiting{make(chan struct{}, 100), make(chan struct{})} }

func (*waiting) Name() string                        { return "wait" }
func (*waiting) Version() string                     { return "1" }
func (*waiting) Check(context.Context, []byte) error { return nil }
func (w *waiting) Run(ctx context.Context, r engine.Run) error {
	n := 0
	err := r.Each(func(_ string, ms []carnet.Measurement) error { n += len(ms); return nil })
	if err != nil {
		return err
	}
	w.began <- struct{}{}
	select {
	case <-w.letGo:
		return r.Part(fmt.Appendf(nil, "%d", n))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A job that is under way when the agent ends runs anew at the next start, from nothing;
// one that ends the agent three times is parked, with the reason, and the next one runs.
func TestOwnJobsThroughCrashes(t *testing.T) {
	p := newPair(t)
	id, password, _ := p.watch(`{"properties":{"heart_rate":{}}}`)
	p.device(id, password).sendWalk(time.Now().Add(-time.Hour), 0, 4)
	spec := of(job.Spec{Engine: "wait", Program: []byte("x"), Within: time.Hour}, id)
	var ids []carnet.JobID
	for start := 1; start <= 4; start++ {
		w := newWaiting()
		hub, lost := p.losing("", w)
		order := func() {
			i, err := hub.Order(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, i.ID)
		}
		if start == 1 {
			order()
			if i, err := hub.Order(t.Context(), spec); err != nil {
				t.Fatal(err)
			} else if i, err = hub.Cancel(t.Context(), i.ID); err != nil || i.Stand.Outcome != capsule.Withdrawn {
				t.Fatalf("cancelled before it ran it is %+v, %v", i.Stand, err)
			} else {
				ids = append(ids, i.ID)
			}
		}
		if start == 4 {
			close(w.letGo)
		} else {
			<-w.began
			if start == 3 {
				order() // now, so that it is the first that ends the agent each time
			}
			attempts := 0
			for _, id := range slices.Concat(ids[:1], ids[2:]) {
				i, err := hub.Job(t.Context(), id, false)
				if err != nil || i.Stand.State != job.Ordered {
					t.Fatalf("at start %d a job is %+v, %v", start, i.Stand, err)
				}
				attempts += i.Stand.Attempts
			}
			if attempts != start {
				t.Errorf("at start %d there were %d attempts: one at once", start, attempts)
			}
		}
		if start == 4 {
			outcomes := map[capsule.Outcome]int{}
			for _, id := range ids {
				i := hub.end(id)
				outcomes[i.Stand.Outcome]++
				switch i.Stand.Outcome {
				case capsule.Done:
					if out, err := hub.Output(t.Context(), id); err != nil || string(out) != "10" {
						t.Errorf("what came out is %q, %v", out, err)
					}
				case capsule.Parked:
					r, err := capsule.OpenResult(i.Stand.Result, public(ed25519.NewKeyFromSeed(make([]byte, 32))))
					if err != nil || !strings.Contains(r.Why, "hub ended three times while it ran") || r.Attempt != 3 {
						t.Errorf("the parked job's result is %+v, %v", r, err)
					}
				}
			}
			if outcomes[capsule.Withdrawn] != 1 || outcomes[capsule.Done] != 1 || outcomes[capsule.Parked] != 1 {
				t.Errorf("the jobs ended as %v", outcomes)
			}
			return
		}
		lost.Store(true)
		hub.stop()
		p.restarted()
	}
}

// An agent that is stopped while a job runs doesn't count that against the job; one that is
// lost as a job has just ended takes up what is left to do about it, and compares a
// repetition.
func TestOwnJobsGoOnWhereTheyWere(t *testing.T) {
	p := newPair(t)
	id, password, _ := p.watch(`{"properties":{"heart_rate":{}}}`)
	p.device(id, password).sendWalk(time.Now().Add(-time.Hour), 0, 4)
	w := newWaiting()
	hub := p.atHub(w)
	i, err := hub.Order(t.Context(), of(job.Spec{Engine: "wait", Program: []byte("x")}, id))
	if err != nil {
		t.Fatal(err)
	}
	<-w.began
	hub.stop()
	p.restarted()
	w = newWaiting()
	close(w.letGo)
	hub, lost := p.losing(job.Ended, w)
	hub.eventually("the process is lost as the job ends", lost.Load)
	hub.stop()
	p.restarted()
	hub = p.atHub(w)
	hub.eventually("nobody is to be told", func() bool {
		i, err = hub.Job(t.Context(), i.ID, false)
		return err == nil && i.Stand.Told
	})
	if i.Stand.Outcome != capsule.Done || i.Stand.Attempts != 1 { // the one that was stopped was taken back
		t.Errorf("the job is %+v", i.Stand)
	}
	hub.stop()
	hub, lost = p.losing(job.Ended, w)
	again, err := hub.Repeat(t.Context(), i.ID, "", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	hub.eventually("the process is lost as the repetition ends", lost.Load)
	hub.stop()
	p.restarted()
	hub = p.atHub(w)
	hub.eventually("the repetition is compared", func() bool {
		again, err = hub.Job(t.Context(), again.ID, false)
		return err == nil && again.Found == job.Same
	})
}

// One job runs at once, an owner has so many that wait, and devices are acknowledged all
// the while.
func TestOwnJobsHoldUpNoIntake(t *testing.T) {
	p := newPair(t)
	id, password, _ := p.watch(`{"properties":{"heart_rate":{}}}`)
	d := p.device(id, password)
	start := time.Now().Add(-time.Hour)
	d.sendWalk(start, 0, 8)
	hub := p.computes(job.Config{Party: "hub", Purpose: "own", Owned: thinglog.Agent{Agent: p.agent}, Keys: p.hub.table, OfOwner: 3, Most: capsule.Limits{Memory: 128 << 20, Milliseconds: 60_000, Output: 8 << 20, Parts: 256}}, sql.Engine{})
	busy := of(query("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < 100000000) SELECT max(i) FROM n"), id)
	busy.Limits.Milliseconds = 60_000
	var all []job.Info
	for range 3 {
		i, err := hub.Order(t.Context(), busy)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	if _, err := hub.Order(t.Context(), busy); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("a fourth job of one owner: %v", err)
	}
	greedy := busy
	greedy.Limits.Memory = 256 << 20
	if _, err := hub.Order(t.Context(), greedy); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "128 MiB") {
		t.Errorf("a job that wants more memory than there is: %v", err)
	}
	running := func() (n int) {
		t.Helper()
		for _, i := range all {
			if i, err := hub.Job(t.Context(), i.ID, false); err != nil || i.Stand.State != job.Ordered {
				t.Errorf("a job is %+v, %v", i.Stand, err)
			} else if i.Stand.Attempts > 0 {
				n++
			}
		}
		return n
	}
	hub.eventually("a job runs", func() bool { return running() > 0 })
	longest, n := time.Duration(0), 0
	for end := time.Now().Add(40 * time.Second); n < 20 && time.Now().Before(end); n++ { // a job takes 60 s
		began := time.Now()
		d.sendWalk(start, 8+n, 9+n)
		longest = max(longest, time.Since(began))
	}
	t.Logf("%d messages, the longest took %s", n, longest)
	if longest > 10*time.Second || n < 20 {
		t.Errorf("while a job ran %d messages were acknowledged, one after %s", n, longest)
	}
	if n := running(); n != 1 {
		t.Errorf("%d jobs run at once", n)
	}
	for _, i := range all {
		began := time.Now()
		if i, err := hub.Cancel(t.Context(), i.ID); err != nil || i.Stand.Outcome != capsule.Withdrawn {
			t.Errorf("cancelled it is %+v, %v", i.Stand, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s to cancel it", took)
		}
	}
	if i := hub.ended(of(query("SELECT 1"), id)); i.Stand.Outcome != capsule.Done {
		t.Errorf("a job after those that were cancelled is %+v", i.Stand)
	}
	over := busy
	over.Limits.Milliseconds = 200
	if i := hub.ended(over); i.Stand.Outcome != capsule.Failed || i.Stand.Code != carnet.TooLarge {
		t.Errorf("a job beyond its time is %+v", i.Stand)
	}
}
