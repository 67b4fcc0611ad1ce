package capsule_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/job"
	"carnet/ledger"
	"carnet/test/wait"
)

// A job that ends its worker is tried three times, then parked with the reason; others
// go on, and so does the next of the same world.
func TestPoison(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "die"))
	died := 0
	for ; died < 5; died++ {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		done := make(chan struct{})
		go func() { defer close(done); forge.work(ctx, "mortal") }() // it leaves as it dies
		select {
		case <-done:
		case <-ctx.Done():
		}
		lives := ctx.Err() != nil
		cancel()
		<-done
		if lives {
			break // there is no such job any more
		}
	}
	j = arena.ended(j.ID)
	if died != dpm.MostAttempts || j.Stand.Outcome != capsule.Parked || !strings.Contains(j.Stand.Why, "ended the worker that ran it three times") {
		t.Errorf("after %d dead workers the job is %s: %s", died, j.Stand.Outcome, j.Stand.Why)
	}
	if n := forge.agent.Counts().Parked; n != 1 {
		t.Errorf("the DPM counts %d parked jobs", n)
	}
	wait.Until(t, "no key of it is left", func() bool { return len(forge.jobKeys()) == 0 })
	if s := arena.statements(ledger.JobEnded, string(capsule.Parked)); len(s) != 1 || s[0].Peer != "forge" {
		t.Errorf("what is stated: %+v", s)
	}
	forge.withWorkers(1)
	arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
}

// A worker that hangs is noticed by its lease, and the job goes on with another.
func TestSilentWorker(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "parts"))
	var got *dpm.Assignment
	wait.Until(t, "a worker is given it", func() bool { got = forge.offered(t); return got != nil })
	must(t, forge.agent.PutPart(t.Context(), got.Ticket, 0, []byte("of the one that hangs")))
	begun := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go forge.work(ctx, "another-one")
	j = arena.done(j.ID, "one\ntwo\nthree\n")
	if took := time.Since(begun); took > 30*time.Second || took < time.Second { // it never ends otherwise
		t.Errorf("it took %s: a lease is good for 4 s", took)
	}
	if r, err := capsule.OpenResult(j.Stand.Result, public(forge.key)); err != nil || r.Attempt != 2 {
		t.Errorf("it is attempt %d, %v", r.Attempt, err)
	}
	// What the first says now is of an attempt that isn't the job's.
	if err := forge.agent.End(t.Context(), got.Ticket, dpm.Ran{Outcome: capsule.Done}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the one that hung ends the job: %v", err)
	}
}

// Content that is damaged on the DPM's disk is asked for again, and isn't computed on.
func TestDamagedContent(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "count"))
	wait.Until(t, "it is ready", func() bool { return forge.agent.Counts().Ready == 1 })
	spoilt, gone := 0, 0
	for i, name := range forge.kept() {
		path, err := filepath.Glob(filepath.Join(forge.dir, "jobs", "*", name))
		must(t, err)
		data, err := os.ReadFile(path[0])
		must(t, err)
		if i == 0 {
			must(t, os.Remove(path[0]))
			gone++
			continue
		}
		data[len(data)/2] ^= 1
		must(t, os.WriteFile(path[0], data, 0o600))
		spoilt++
	}
	if spoilt == 0 || gone == 0 {
		t.Fatalf("there was %v", forge.kept())
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go forge.work(ctx, "worker")
	arena.done(j.ID, arena.counts())
}

// cancel withdraws: the DPM's keys are gone, its worker stops, and no result is taken,
// whichever state the job is in.
func TestCancel(t *testing.T) {
	for _, v := range []struct {
		name    string
		workers int
		until   func(job.Info) bool
	}{
		{"while it waits", 0, func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) }},
		{"while it runs", 1, func(i job.Info) bool { return i.Progress.Parts == 1 }},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := &clock{}
			forge, arena := newOffice(t, c, "forge").withWorkers(v.workers), newCustomer(t, c, "arena", 2)
			arena.ordersFrom(forge, nil)
			j := arena.order(arena.spec("forge", "script", "hang"))
			arena.is(j.ID, v.name, v.until)
			_, err := arena.agent.Cancel(t.Context(), j.ID)
			must(t, err)
			j = arena.ended(j.ID)
			if j.Stand.Outcome != capsule.Withdrawn || j.Stand.Why != "cancelled" || j.Output != nil {
				t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
			}
			r, err := capsule.OpenResult(j.Stand.Result, public(forge.key))
			if err != nil || r.Outcome != capsule.Withdrawn {
				t.Errorf("the DPM's word that no key is left: %+v, %v", r, err)
			}
			if len(forge.jobKeys()) > 0 {
				t.Errorf("it says so and has the keys %v", forge.jobKeys())
			}
			if s := arena.statements(ledger.JobWithdrawn, ""); len(s) != 1 || s[0].Peer != "forge" {
				t.Errorf("what is stated of the withdrawal: %+v", s)
			}
			if _, err := arena.agent.Cancel(t.Context(), j.ID); carnet.CodeOf(err) != carnet.Conflict {
				t.Errorf("cancelled twice: %v", err)
			}
			forge.withWorkers(1)
			arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
		})
	}
	t.Run("while the DPM is away", func(t *testing.T) {
		c := &clock{}
		forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
		arena.ordersFrom(forge, nil)
		j := arena.order(arena.spec("forge", "script", "count"))
		arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
		forge.stop()
		_, err := arena.agent.Cancel(t.Context(), j.ID)
		must(t, err)
		arena.stop() // and the world ends, too
		arena.start()
		if i := arena.is(j.ID, "a withdrawal", func(i job.Info) bool { return i.Stand.State == job.Withdrawing }); i.Stand.Withdrawal == "" {
			t.Error("the withdrawal isn't kept")
		}
		forge.workers = 1
		forge.start()
		if j = arena.ended(j.ID); j.Stand.Outcome != capsule.Withdrawn && j.Stand.Outcome != capsule.Done || j.Output != nil {
			t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
		}
		forge.opensNothing("after the withdrawal", "arena", j.ID)
	})
}

// An avatar that isn't here any more withdraws its jobs, and what came out of others is
// destroyed.
func TestAvatarGone(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	done := arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
	arena.is(done.ID, "a copy at the depot", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
	runs := arena.order(arena.spec("forge", "script", "hang"))
	arena.is(runs.ID, "that it runs", func(i job.Info) bool { return i.Progress.Parts == 1 })
	arena.mu.Lock()
	arena.gone = true
	arena.mu.Unlock()
	if j := arena.ended(runs.ID); j.Stand.Outcome != capsule.Withdrawn {
		t.Errorf("what ran is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
	arena.is(done.ID, "that its output is destroyed", func(i job.Info) bool { return i.Output == nil })
	forge.opensNothing("when the avatar is gone", "arena", runs.ID)
	arena.mu.Lock()
	defer arena.mu.Unlock()
	for at := range arena.documents {
		if at[0] == "job-part" {
			t.Errorf("%s is left", at[1])
		}
	}
	if len(arena.objects) > 0 {
		t.Errorf("%d objects are left at the depot", len(arena.objects))
	}
}

// A DPM that is restored from a copy of before a withdrawal is told of it again: it has
// the keys once more, for seconds.
func TestRestoredFromBeforeAWithdrawal(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "count"))
	arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	forge.stop()
	before := t.TempDir()
	copyTo(t, forge.dir, before)
	forge.start()
	_, err := arena.agent.Cancel(t.Context(), j.ID)
	must(t, err)
	arena.ended(j.ID)
	forge.opensNothing("after the withdrawal", "arena", j.ID)
	forge.stop()
	copyTo(t, before, forge.dir)
	forge.start()
	if len(forge.jobKeys()) == 0 {
		t.Fatal("the copy has no keys: there is nothing to be seen")
	}
	forge.opensNothing("when it is restored", "arena", j.ID)
	if got := forge.offered(t); got != nil {
		t.Errorf("a worker is given the job %s", got.Job)
	}
}

// A DPM that is restored from a copy of before the order is brought it again.
func TestRestoredFromBeforeAnOrder(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	forge.stop()
	before := t.TempDir()
	copyTo(t, forge.dir, before)
	forge.start()
	// The reception key of now isn't in the copy: what is ordered now doesn't open there.
	lost := arena.order(arena.spec("forge", "script", "count"))
	arena.is(lost.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	forge.stop()
	copyTo(t, before, forge.dir)
	forge.workers = 1
	forge.start()
	if j := arena.ended(lost.ID); j.Stand.Outcome != job.Refused || !strings.Contains(j.Stand.Why, "forge has lost it, and doesn't take it again") {
		t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
	arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
}

// A world that is restored from a copy of before it took a result asks for it again: the
// DPM has deleted it, says so, and isn't called a liar for that.
func TestRestoredWorld(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "count"))
	arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	arena.mu.Lock()
	before := maps.Clone(arena.documents)
	arena.mu.Unlock()
	forge.withWorkers(1)
	arena.done(j.ID, arena.counts())
	arena.is(j.ID, "that the DPM knows", func(i job.Info) bool { return i.Stand.Told })
	arena.stop()
	arena.documents = before
	arena.start()
	if j = arena.ended(j.ID); j.Stand.Outcome != job.Silent || !strings.Contains(j.Stand.Why, "forge has deleted the output, since this world had taken it before") {
		t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
	arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
}
