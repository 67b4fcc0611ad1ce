package faults_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/capsule"
	"carnet/job"
	"carnet/ledger"
	"carnet/modules/moduletest"
	"carnet/node"
	"carnet/test/wait"
)

// owns gives the watch's owner a token at the hub, and returns the way there.
func (v *town) owns() *client.Client {
	t := v.t
	t.Helper()
	v.hub.kill(t)
	token, kept := node.NewToken(owner, "user")
	v.hub.config.Tokens = append(v.hub.config.Tokens, kept)
	if err := errors.Join(os.Remove(v.hub.file()), v.hub.config.Write(v.hub.file())); err != nil {
		t.Fatal(err)
	}
	v.restart(v.hub)
	return &client.Client{Base: v.hub.client.Base, Token: token, HTTP: v.hub.client.HTTP}
}

// endedAt waits until a job has ended, over restarts of its party.
func endedAt(t *testing.T, c *client.Client, id carnet.JobID) (j api.Job) {
	t.Helper()
	wait.Until(t, "the job ends", func() bool {
		var err error
		j, err = c.Job(t.Context(), id, false)
		return err == nil && j.State == job.Ended
	})
	return j
}

// The same module over the same measurements gives the same output at the things agent,
// under the world's view, in the world, and at a DPM: by its hash. Nobody but the owner
// reads it, the agent states it with receipts, and the agent may be killed meanwhile.
func TestJobAtTheThingsAgent(t *testing.T) {
	t.Parallel()
	w := newWorks(t)
	ctx := t.Context()
	own := w.owns()
	w.watch.send(40)
	w.settle()

	program := moduletest.Build(t, "heartzones")
	if _, err := w.hub.client.AddModule(ctx, api.NewModule{Program: program, Name: "heartzones", Version: "1.0.0", Reads: []string{"heart_rate"}}); err != nil {
		t.Fatal(err)
	}
	here := api.NewJob{Module: "heartzones@1.0.0", Things: []carnet.ThingID{w.watch.id}, ViewOf: "arena", Parameters: json.RawMessage(`{"max":200}`)}
	if _, err := own.RunJob(ctx, api.NewJob{Engine: "wasm", Program: program, Things: here.Things}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a module that nobody signed: %v", err)
	}
	if _, err := w.hub.client.RunJob(ctx, here); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the operator orders over what isn't theirs: %v", err)
	}
	plan, err := own.PlanJob(ctx, here)
	if err != nil || plan.Choice != "hub" || plan.Batches+plan.Keys != 0 || len(plan.Places) != 3 || plan.Places[1].At != "arena" || plan.Places[2].At != "clinic" {
		t.Errorf("the plan is %+v, %v", plan, err)
	}
	first, err := own.RunJob(ctx, here)
	if err != nil {
		t.Fatal(err)
	}
	if first = endedAt(t, own, first.ID); first.Outcome != capsule.Done {
		t.Fatalf("at the hub the job is %s: %s", first.Outcome, first.Why)
	}
	for _, at := range []carnet.PartyID{"", "forge"} {
		j, err := w.arena.client.RunJob(ctx, w.zones(w.arena, at))
		if err != nil {
			t.Fatal(err)
		}
		if j = w.ended(w.arena, j); j.Outcome != capsule.Done || j.Output.Fingerprint != first.Output.Fingerprint || j.Output.Measurements != first.Output.Measurements || j.Output.Program != first.Output.Program {
			t.Errorf("at %q in arena the job is %s %s with the output %+v, at the hub it is %+v", at, j.Outcome, j.Why, j.Output, first.Output)
		}
	}
	raw := here
	raw.ViewOf = ""
	whole, err := own.RunJob(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if whole = endedAt(t, own, whole.ID); whole.Outcome != capsule.Done || whole.Output.Measurements != 40 || whole.Output.Fingerprint == first.Output.Fingerprint {
		t.Errorf("over the log as it is the job is %s %s with %+v", whole.Outcome, whole.Why, whole.Output)
	}

	// A world's plan names the agent, which it can't order at.
	if plan, err := w.arena.client.PlanJob(ctx, w.zones(w.arena, "")); err != nil || !strings.Contains(string(marshal(t, plan)), `"role":"things"`) {
		t.Errorf("arena plans %+v, %v", plan, err)
	}
	out, err := own.JobOutput(ctx, first.ID)
	if err != nil || !strings.Contains(string(out), `"avatar":"a1"`) {
		t.Errorf("the owner reads %s, %v", out, err)
	}
	if _, err := w.hub.client.JobOutput(ctx, first.ID); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("the operator reads it: %v", err)
	}
	wait.Until(t, "the output is at the depot", func() bool {
		first, err = own.Job(ctx, first.ID, false)
		return err == nil && first.Object != ""
	})
	w.settle()
	proof, err := own.JobProof(ctx, first.ID)
	if err != nil {
		t.Fatal(err)
	}

	// The agent is killed while a job runs: it runs anew. Devices are acknowledged.
	long := api.NewJob{Engine: "sql", Program: w.long().Program, Things: here.Things}
	running, err := own.RunJob(ctx, long)
	if err != nil {
		t.Fatal(err)
	}
	attempt := func(n int) {
		t.Helper()
		wait.Until(t, "an attempt runs", func() bool {
			j, err := own.Job(ctx, running.ID, false)
			if err == nil && j.State == job.Ended {
				t.Fatalf("the job has ended before attempt %d: it is %s: %s", n, j.Outcome, j.Why)
			}
			return err == nil && j.Progress != nil && j.Progress.Attempt == n
		})
	}
	attempt(1)
	w.hub.kill(t)
	if kinds := w.statedAt(w.hub, capsule.Fingerprint(proof.Order), capsule.Fingerprint(proof.Result)); kinds[ledger.JobOrdered] != 1 || kinds[ledger.JobEnded] != 1 {
		t.Errorf("the hub has stated %v of the job, with receipts", kinds)
	}
	w.restart(w.hub)
	attempt(2)
	w.watch.send(8)
	if running = endedAt(t, own, running.ID); running.Outcome != capsule.Done {
		t.Errorf("after a kill the job is %s: %s", running.Outcome, running.Why)
	}

	// One that the agent ends with three times is parked, and says so.
	if running, err = own.RunJob(ctx, long); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		attempt(n)
		w.hub.kill(t)
		w.restart(w.hub)
	}
	if running = endedAt(t, own, running.ID); running.Outcome != capsule.Parked || !strings.Contains(running.Why, "ended three times") {
		t.Errorf("after three kills the job is %s: %s", running.Outcome, running.Why)
	}
	again, err := own.RepeatJob(ctx, first.ID, api.Repetition{})
	if err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the repetition is compared", func() bool {
		again, err = own.Job(ctx, again.ID, false)
		return err == nil && again.Comparison != ""
	})
	if again.Comparison != job.Same || again.Output.Fingerprint != first.Output.Fingerprint {
		t.Errorf("the repetition finds that %s", again.Comparison)
	}
}

// The same with the hub's store on PostgreSQL; then the hub is killed at the rows of
// own-jobs.md.
func TestOwnJobsOnPostgres(t *testing.T) {
	t.Parallel()
	v := newTown(t, func(t *testing.T, p *party) {
		if p.name == "hub" {
			onPostgres(t, p)
		}
	})
	own, watch := v.owns(), v.addWatch()
	watch.send(20)
	v.settle()
	query := api.NewJob{Engine: "sql", Program: []byte("SELECT * FROM measurements ORDER BY property, time"), Things: []carnet.ThingID{watch.id}, ViewOf: "arena"}
	here, err := own.RunJob(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	v.hub.kill(t)
	v.restart(v.hub)
	query.Things, query.ViewOf, query.Avatars = nil, "", []carnet.AvatarID{watch.mappings["arena"].Avatar}
	there, err := v.arena.client.RunJob(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	here, there = endedAt(t, own, here.ID), endedAt(t, v.arena.client, there.ID)
	if here.Outcome != capsule.Done || there.Output == nil || here.Output.Fingerprint != there.Output.Fingerprint {
		t.Errorf("at the hub it is %s %s with %+v, in arena %+v", here.Outcome, here.Why, here.Output, there.Output)
	}
	query.Things, query.ViewOf, query.Avatars = []carnet.ThingID{watch.id}, "arena", nil
	wait.Until(t, "the output is at the depot", func() bool {
		here, err = own.Job(t.Context(), here.ID, false)
		return err == nil && here.Object != ""
	})
	n := &ordering{named: &named{town: v}, own: own, first: here}
	run := func() (api.Job, error) { return own.RunJob(t.Context(), query) }
	repeat := func() (api.Job, error) { return own.RepeatJob(t.Context(), here.ID, api.Repetition{}) }
	gate := v.hub.database.gate
	n.notOrdered(run)
	for _, row := range []struct {
		id    string
		order func() (api.Job, error)
		at    func() *hold
		is    orderedJob // what the store has of it then
	}{
		{"O2", run, func() *hold { return gate.before(thingWrite, "job") }, orderedJob{version: 1}},
		{"O3", run, func() *hold { return gate.after(thingWrite, "job") }, orderedJob{version: 2}},
		{"O4", run, func() *hold { return gate.after("INSERT INTO key_row", "job") }, orderedJob{version: 2, keys: 1}},
		{"O5", run, func() *hold { return gate.after(thingWrite, "job-part") }, orderedJob{version: 3, keys: 1, parts: 1}},
		{"O6", repeat, func() *hold { return gate.after(thingWrite, "job-part") }, orderedJob{version: 3, keys: 1, parts: 1}},
	} {
		n.killed(row.id, row.order, row.at, row.is)
	}
}

// ordering is a town whose hub is killed while a job of its owner's is at it.
type ordering struct {
	*named
	own   *client.Client
	first api.Job // ended before, over the same
}

// orderedJob is what hub's store has of jobs.
type orderedJob struct{ version, keys, parts int64 }

func (n *ordering) stored() orderedJob {
	n.t.Helper()
	return orderedJob{
		n.hub.number(n.t, `SELECT sum(version)::bigint FROM thing_document WHERE kind = 'job'`),
		n.hub.number(n.t, `SELECT count(*) FROM key_row WHERE kind = 'job'`),
		n.hub.number(n.t, `SELECT count(*) FROM thing_document WHERE kind = 'job-part'`),
	}
}

// stable waits until nothing is written of jobs any more.
func (n *ordering) stable() (at orderedJob) {
	n.t.Helper()
	since := time.Now()
	wait.Until(n.t, "nothing is written of jobs", func() bool {
		if is := n.stored(); is != at {
			at, since = is, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return at
}

// notOrdered is row O1.
func (n *ordering) notOrdered(order func() (api.Job, error)) {
	n.t.Helper()
	had := n.stable()
	h := n.hub.database.gate.before(thingWrite, "job")
	answer := make(chan error, 1)
	go func() {
		_, err := order()
		answer <- err
	}()
	n.killAt(n.hub, h)
	if err := <-answer; err == nil {
		n.t.Error("O1: the hub answers, and is dead")
	}
	if is := n.stored(); is != had {
		n.t.Errorf("O1: the store has %+v, had %+v", is, had)
	}
	n.restart(n.hub)
}

// killed kills the hub at a point after a job is ordered, and wants it to end with
// what the first put out.
func (n *ordering) killed(row string, order func() (api.Job, error), at func() *hold, want orderedJob) {
	n.t.Helper()
	had := n.stable()
	before, err := n.own.Jobs(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	h := n.hub.database.gate.before(thingWrite, "job")
	go order() // its answer may be lost
	h.await(n.t)
	then := at()
	h.pass()
	n.killAt(n.hub, then)
	if is := n.stored(); is != (orderedJob{had.version + want.version, had.keys + want.keys, had.parts + want.parts}) {
		n.t.Errorf("%s: the store has %+v, had %+v; want %+v more", row, is, had, want)
	}
	n.restart(n.hub)
	after, err := n.own.Jobs(n.t.Context())
	if err != nil || len(after) != len(before)+1 {
		n.t.Fatalf("%s: %d jobs, were %d, %v", row, len(after), len(before), err)
	}
	id := after[slices.IndexFunc(after, func(j api.Job) bool {
		return !slices.ContainsFunc(before, func(k api.Job) bool { return k.ID == j.ID })
	})].ID
	j := endedAt(n.t, n.own, id)
	wait.Until(n.t, row+": the output is at the depot, and compared", func() bool {
		j, err = n.own.Job(n.t.Context(), id, false)
		return err == nil && (j.Object != "" || j.Outcome != capsule.Done) && (j.Repeats == nil || j.Comparison != "")
	})
	if j.Outcome != capsule.Done || j.Output == nil || j.Output.Fingerprint != n.first.Output.Fingerprint || j.Comparison != "" && j.Comparison != job.Same {
		n.t.Errorf("%s: the job is %s %s with %+v and %q, the first put out %+v", row, j.Outcome, j.Why, j.Output, j.Comparison, n.first.Output)
	}
}

// statedAt counts what a party that doesn't run has stated about objects, with receipts,
// by kind.
func (v *town) statedAt(p *party, objects ...carnet.Fingerprint) map[ledger.Kind]int {
	v.t.Helper()
	i := v.inspect(p)
	defer i.Close()
	key, err := ledger.ParseKey(i.Peers["vault"].Ledger)
	if err != nil {
		v.t.Fatal(err)
	}
	all, err := i.Stated(v.t.Context(), key)
	if err != nil {
		v.t.Fatal(err)
	}
	kinds := make(map[ledger.Kind]int)
	for _, s := range all {
		if s.Receipted && slices.Contains(objects, s.Object) {
			kinds[s.Kind]++
		}
	}
	return kinds
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
