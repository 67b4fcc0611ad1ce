package faults_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/capsule"
	"carnet/test/wait"
)

// TestJobRows kills arena and its DPM at the rows of capsule.md: a job for each row,
// which ends with what the first one put out, and of which nothing is left at the DPM.
func TestJobRows(t *testing.T) {
	t.Parallel()
	w := &works{town: makeTown(t, t.TempDir(), onPostgres)}
	w.forge = w.addDPM("forge", "personal+health", onPostgres)
	for _, p := range append(w.parties(), w.forge) {
		p.start(t)
	}
	for _, p := range append(w.parties(), w.forge) {
		w.await(p)
	}
	w.watch = w.addWatch()
	w.watch.send(20)
	w.settle()
	n := &capsules{named: &named{town: w.town}, w: w}
	n.first = n.done(n.run())
	arena, forge := w.arena, w.forge
	for _, row := range []struct {
		id        string
		victim    *party
		statement string
		nth       int // that concerns the job
		after     bool
		is        atBoth // more than before
	}{
		{"J1", arena, document, 1, false, atBoth{}},
		{"J2", arena, document, 1, true, atBoth{world: 1}},
		{"J3", forge, dpmDocument, 1, false, atBoth{world: 1, keys: 1}},
		{"J4", forge, dpmDocument, 1, true, atBoth{world: 1, dpm: 1, keys: 1}},
		{"J7", forge, dpmDocument, 3, true, atBoth{world: 2, dpm: 3, keys: 1}},
		{"J10", forge, dpmDocument, 4, false, atBoth{world: 2, dpm: 3, keys: 1}},
		{"J11", forge, dpmDocument, 4, true, atBoth{world: 2, dpm: 4, keys: 1}},
		{"J12", arena, output, 1, false, atBoth{world: 2, dpm: 5}},
		{"J13", arena, output, 1, true, atBoth{world: 3, dpm: 5}},
		{"J14", forge, dpmDocument, 6, true, atBoth{world: 3, dpm: 6}},
	} {
		if !t.Run(row.id, func(t *testing.T) { w.t = t; n.killed(row.victim, row.statement, row.nth, row.after, row.is) }) {
			break
		}
	}
	w.t = t
	n.stable(time.Second)
	n.want(forge, dpmKeys, 0)
	if left := w.sealedAt(forge); len(left) > 0 {
		t.Errorf("the DPM still has %s", strings.Join(left, ", "))
	}
}

// capsules is the town of TestJobRows.
type capsules struct {
	*named
	w     *works
	first api.Job
}

const (
	dpmDocument = "INSERT INTO dpm_document"
	output      = "" // the document of a part
	dpmKeys     = `SELECT count(*) FROM key_row WHERE kind = 'job'`
)

// atBoth are versions of jobs' documents, and keys at the DPM.
type atBoth struct{ world, dpm, keys int64 }

func (n *capsules) stored() atBoth {
	t := n.t
	t.Helper()
	return atBoth{
		n.arena.number(t, `SELECT coalesce(sum(version), 0)::bigint FROM world_document WHERE kind = 'job'`),
		n.w.forge.number(t, `SELECT coalesce(sum(version), 0)::bigint FROM dpm_document WHERE kind = 'job'`),
		n.w.forge.number(t, dpmKeys),
	}
}

// stable waits until nothing is written of jobs for a time.
func (n *capsules) stable(long time.Duration) (at atBoth) {
	n.t.Helper()
	since := time.Now()
	wait.Until(n.t, "nothing is written of jobs", func() bool {
		if is := n.stored(); is != at {
			at, since = is, time.Now()
		}
		return time.Since(since) > long
	})
	return at
}

func (n *capsules) run() api.Job {
	n.t.Helper()
	var j api.Job
	var err error
	wait.Until(n.t, "arena orders a job", func() bool { // its DPM may not be connected yet
		j, err = n.order()
		return err == nil || carnet.CodeOf(err) != carnet.Unavailable
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return j
}

func (n *capsules) order() (api.Job, error) {
	return n.arena.client.RunJob(n.t.Context(), api.NewJob{
		At: "forge", Engine: "sql", Program: []byte("SELECT count(*), avg(value) FROM measurements WHERE property = 'heart_rate'"),
		Avatars: []carnet.AvatarID{n.w.watch.mappings["arena"].Avatar},
	})
}

// done waits until a job has ended, and what came out is at the depot.
func (n *capsules) done(j api.Job) api.Job {
	t := n.t
	t.Helper()
	wait.Until(t, "the job is done and stored", func() bool {
		now, err := n.arena.client.Job(t.Context(), j.ID, false)
		if err == nil {
			j = now
		}
		if err == nil && j.Outcome != "" && j.Outcome != capsule.Done {
			t.Fatalf("the job is %s: %s", j.Outcome, j.Why)
		}
		return err == nil && j.Object != ""
	})
	return j
}

// killed orders a job, and kills a party at the nth statement that concerns it.
func (n *capsules) killed(victim *party, statement string, nth int, after bool, want atBoth) {
	t := n.t
	long := 300 * time.Millisecond
	if statement == document {
		long = 2500 * time.Millisecond // arena asks for the record of the job before each second
	}
	had := n.stable(long)
	before, err := n.arena.client.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hold := func(i int) *hold {
		of := "job"
		if statement == output {
			statement, of = document, "\x00\x00\x00\x08job-part" // with its length: it isn't job-partial
		}
		if i == nth && after {
			return victim.database.gate.after(statement, of)
		}
		return victim.database.gate.before(statement, of)
	}
	h := hold(1)
	answer := make(chan error, 1)
	go func() {
		_, err := n.order()
		answer <- err
	}()
	for i := 2; i <= nth; i++ {
		h.await(t)
		next := hold(i)
		h.pass()
		h = next
	}
	h.await(t)
	is := n.stored()
	for end := time.Now().Add(30 * time.Second); is.dpm < had.dpm+want.dpm && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		is = n.stored() // who isn't held goes on
	}
	n.killAt(victim, h)
	if is.keys > had.keys {
		is.keys = had.keys + 1 // however many the content has
	}
	more := atBoth{is.world - had.world, is.dpm - had.dpm, is.keys - had.keys}
	exact := more
	if victim != n.arena { // who isn't held may have gone on, if the machine is slow
		exact.world = min(exact.world, want.world)
	}
	if exact != want {
		t.Errorf("of the job there is %+v, want %+v", more, want)
	}
	n.restart(victim)
	<-answer
	all, err := n.arena.client.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(j api.Job) bool {
		return slices.ContainsFunc(before, func(k api.Job) bool { return k.ID == j.ID })
	})
	if want == (atBoth{}) {
		if len(all) > 0 {
			t.Errorf("jobs that aren't stored are there: %+v", all)
		}
		return
	}
	if len(all) != 1 {
		t.Fatalf("there are %d jobs more", len(all))
	}
	if j := n.done(all[0]); j.Output.Fingerprint != n.first.Output.Fingerprint {
		t.Errorf("the job put out %+v, the first %+v", j.Output, n.first.Output)
	}
}
