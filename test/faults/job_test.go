package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/capsule"
	"carnet/evidence"
	"carnet/identity"
	"carnet/job"
	"carnet/modules/moduletest"
	"carnet/node"
	"carnet/peering"
	"carnet/test/wait"
)

// works is a town with two DPMs, which arena and the clinic may order from, and a watch.
type works struct {
	*town
	forge, lab *party
	watch      *watch
}

// newWorks makes it and starts all of it.
func newWorks(t *testing.T) *works {
	t.Helper()
	w := &works{town: makeTown(t, t.TempDir())}
	w.forge = w.addDPM("forge", "personal+health")
	w.lab = w.addDPM("lab", "personal")
	for _, p := range w.all() {
		p.start(t)
	}
	for _, p := range w.all() {
		w.await(p)
	}
	w.watch = w.addWatch()
	return w
}

func (w *works) all() []*party { return append(w.parties(), w.forge, w.lab) }

// addDPM makes a DPM that isn't running, a peer of both worlds and of the depot.
func (w *works) addDPM(name carnet.PartyID, sensitivity string, stores ...func(*testing.T, *party)) *party {
	t := w.t
	t.Helper()
	p := &party{name: name, role: identity.DPM, config: node.Config{DPM: node.DPMConfig{Sensitivity: sensitivity, Workers: 1}}}
	p.config.Store.Kind = "sqlite"
	for _, store := range stores {
		store(t, p)
	}
	w.make(p)
	for _, world := range w.worlds() {
		o, err := world.config.Offers(peering.R6)
		if err != nil {
			t.Fatal(err)
		}
		i := node.Introduction{Inviter: world.config, Accepter: p.config, Calls: name, Offer: o}
		if err := node.Introduce(t.Context(), i, quietLog()); err != nil {
			t.Fatal(err)
		}
	}
	w.peer(p, w.vault)
	t.Cleanup(func() {
		if p.running() {
			p.kill(t)
		}
		if t.Failed() {
			log := p.log.String()
			t.Logf("the end of the log of %s:\n%s", p.name, log[max(0, len(log)-4000):])
		}
	})
	return p
}

// zones is a job of the heart zones of the watch's avatar in a world.
func (w *works) zones(world *party, at carnet.PartyID) api.NewJob {
	w.t.Helper()
	const id = "heartzones@1.0.0"
	if _, err := world.client.Module(w.t.Context(), id); carnet.CodeOf(err) == carnet.NotFound {
		_, err := world.client.AddModule(w.t.Context(), api.NewModule{Program: moduletest.Build(w.t, "heartzones"), Name: "heartzones", Version: "1.0.0", Reads: []string{"heart_rate"}})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return api.NewJob{
		At: at, Module: id, Avatars: []carnet.AvatarID{w.watch.mappings[world.name].Avatar},
		Properties: []string{"heart_rate"}, Parameters: json.RawMessage(`{"max":200}`),
	}
}

// ended waits until a job has ended.
func (w *works) ended(world *party, j api.Job) api.Job {
	w.t.Helper()
	wait.Until(w.t, "the job ends", func() bool {
		var err error
		if j, err = world.client.Job(w.t.Context(), j.ID, false); err != nil {
			w.t.Fatal(err)
		}
		return j.State == job.Ended
	})
	return j
}

// A world has a module run over what its avatar says, at a DPM: the result comes back,
// is the same as what the world computes itself, and both state it with receipts.
func TestJobAtADPM(t *testing.T) {
	t.Parallel()
	w := newWorks(t)
	ctx := t.Context()
	w.watch.send(20)
	w.settle()
	beats, _, err := w.arena.client.History(ctx, w.watch.mappings["arena"].Avatar, historyOf("heart_rate"))
	if err != nil {
		t.Fatal(err)
	}
	j, err := w.arena.client.RunJob(ctx, w.zones(w.arena, "forge"))
	if err != nil {
		t.Fatal(err)
	}
	j = w.ended(w.arena, j)
	if j.Outcome != capsule.Done {
		t.Fatalf("the job is %s: %s", j.Outcome, j.Why)
	}
	out, err := w.arena.client.JobOutput(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	var zones struct {
		Avatar       string
		Measurements int
		Mean         float64
	}
	if err := json.Unmarshal(out, &zones); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	sum := 0.0
	for _, m := range beats {
		sum += m.Value.Num
	}
	if mean := sum / float64(len(beats)); len(beats) < 5 || zones.Avatar != "a1" || zones.Measurements != len(beats) || fmt.Sprintf("%.6f", zones.Mean) != fmt.Sprintf("%.6f", mean) {
		t.Errorf("the module says %s of %d heart rates with the mean %f", out, len(beats), mean)
	}

	// The same in the world itself.
	again, err := w.arena.client.RepeatJob(ctx, j.ID, api.Repetition{})
	if err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the repetition is compared", func() bool {
		again, err = w.arena.client.Job(ctx, again.ID, false)
		return err == nil && (again.Comparison != "" || again.State == job.Ended && again.Outcome != capsule.Done)
	})
	if again.Comparison != job.Same || again.Output.Fingerprint != j.Output.Fingerprint {
		t.Errorf("the repetition is %s (%s), and what was found is %q", again.Outcome, again.Why, again.Comparison)
	}

	// The output is at the depot, and everything stated has its receipt.
	wait.Until(t, "the output is at the depot", func() bool {
		j, err = w.arena.client.Job(ctx, j.ID, false)
		return err == nil && j.Object != ""
	})
	w.settle()

	// A query over the same.
	q, err := w.arena.client.RunJob(ctx, api.NewJob{
		At: "forge", Engine: "sql", Program: []byte("SELECT count(*), avg(value) FROM measurements WHERE property = 'heart_rate'"), Avatars: j.Avatars,
	})
	if err != nil {
		t.Fatal(err)
	}
	if q = w.ended(w.arena, q); q.Outcome != capsule.Done {
		t.Fatalf("the query is %s: %s", q.Outcome, q.Why)
	}
	if rows, err := w.arena.client.JobOutput(ctx, q.ID); err != nil || !strings.Contains(string(rows), fmt.Sprintf("[%d,", len(beats))) {
		t.Errorf("the query says %s, %v, of %d heart rates", rows, err, len(beats))
	}
	// One that may not be is refused before anything leaves; its DPM is unharmed.
	if _, err := w.arena.client.RunJob(ctx, api.NewJob{At: "forge", Engine: "sql", Program: []byte("ATTACH '/etc/passwd' AS p"), Avatars: j.Avatars}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a query that attaches a file: %v", err)
	}

	// Another world's job is its own: the DPM knows it for nobody else.
	if _, err := w.clinic.client.Job(ctx, j.ID, false); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the clinic is told of arena's job: %v", err)
	}
	// The lab isn't cleared for health.
	if _, err := w.arena.client.RunJob(ctx, w.zones(w.arena, "lab")); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("the lab is given health data: %v", err)
	}
	// What nobody signed isn't run where no operator allows it, and what is revoked nowhere.
	if _, err := w.arena.client.RunJob(ctx, api.NewJob{Engine: "wasm", Program: moduletest.Build(t, "heartzones"), Avatars: j.Avatars}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a module that nobody signed: %v", err)
	}
	if m, err := w.arena.client.RevokeModule(ctx, j.Module, api.NewRevocation{Why: "it counts twice"}); err != nil || m.Revoked == nil {
		t.Errorf("the module is revoked: %+v, %v", m, err)
	}
	if _, err := w.arena.client.RunJob(ctx, w.zones(w.arena, "forge")); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a revoked module at the DPM: %v", err)
	}
	if _, err := w.arena.client.RepeatJob(ctx, j.ID, api.Repetition{}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a revoked module, repeated: %v", err)
	}
	w.provesJobs(j.Avatars[0], j.ID, again.ID, q.ID)
	// Nothing that was computed on is left at the DPM.
	if left := w.sealedAt(w.forge); len(left) > 0 {
		t.Errorf("the DPM still has %s", strings.Join(left, ", "))
	}
}

// provesJobs fails if the evidence of arena's avatar doesn't prove jobs, by the keys that
// arena pinned.
func (w *works) provesJobs(id carnet.AvatarID, jobs ...carnet.JobID) {
	w.t.Helper()
	ctx := w.t.Context()
	w.settle()
	trust, err := node.Trust(ctx, w.arena.config)
	if err != nil {
		w.t.Fatal(err)
	}
	var r *evidence.Report
	wait.Until(w.t, "arena has what the DPM stated", func() bool {
		bundles, err := w.arena.client.Evidence(ctx, id, client.EvidenceQuery{}, w.t.TempDir())
		if err == nil && len(bundles) == 1 {
			r, err = evidence.Verify(ctx, bundles[0], &trust, evidence.VerifyOptions{})
		}
		if err != nil || len(bundles) != 1 {
			w.t.Fatalf("%d bundles: %v", len(bundles), err)
		}
		return !strings.Contains(r.Summary(), "has stated on its ledger is missing")
	})
	var proved []carnet.JobID
	for _, j := range r.Jobs {
		if proved = append(proved, j.Job); j.Own != j.Inputs || j.Outcome != capsule.Done {
			w.t.Errorf("evidence has the job as %+v", j)
		}
	}
	if r.Verdict != evidence.True || !slices.Equal(proved, jobs) {
		w.t.Errorf("evidence proves the jobs %s, want %s:\n%s", proved, jobs, r.Summary())
	}
}

// sealedAt lists what a DPM keeps of jobs.
func (w *works) sealedAt(p *party) (left []string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left = filesIn(w.t, p.data()+"/jobs")
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func historyOf(property string) client.HistoryQuery { return client.HistoryQuery{Property: property} }

// filesIn lists the files below a directory.
func filesIn(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
