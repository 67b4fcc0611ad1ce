package faults_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/capsule"
	"carnet/job"
	"carnet/ledger"
	"carnet/modules/moduletest"
	"carnet/node"
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
	eventually(t, "the job ends", func() bool {
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
	eventually(t, "the output is at the depot", func() bool {
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
		eventually(t, "an attempt runs", func() bool {
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
	eventually(t, "the repetition is compared", func() bool {
		again, err = own.Job(ctx, again.ID, false)
		return err == nil && again.Comparison != ""
	})
	if again.Comparison != job.Same || again.Output.Fingerprint != first.Output.Fingerprint {
		t.Errorf("the repetition finds that %s", again.Comparison)
	}
}

// The same with the hub's store on PostgreSQL.
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
