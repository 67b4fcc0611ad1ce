package capsule_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/job"
	"carnet/test/wait"
)

// soon fails unless something returns, while what it needn't wait for hangs.
func soon(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits for what hangs", what)
	}
}

// A job in the world that can't be run now is run when it can: that isn't counted among
// the ends of its process, of which it may have three.
func TestPassingFailuresAreNoAttempts(t *testing.T) {
	c := &clock{}
	for _, v := range []struct {
		name string
		fail func(*customer)
	}{
		{"its inputs can't be read", func(w *customer) { w.unread.Store(4) }},
		{"its keys can't be had", func(w *customer) { w.keyless.Store(4) }},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			arena := newCustomer(t, c, "arena", 2)
			v.fail(arena)
			arena.done(arena.order(arena.spec("", "script", "count")).ID, arena.counts())
		})
	}
	t.Run("it is stopped", func(t *testing.T) {
		t.Parallel()
		arena := newCustomer(t, c, "arena", 2)
		j := arena.order(arena.spec("", "script", "hang"))
		for range 4 {
			arena.is(j.ID, "that it runs", func(i job.Info) bool { return i.Progress.Parts == 1 || i.Progress.State == "running" })
			arena.stop()
			arena.start()
		}
		if i, err := arena.agent.Job(t.Context(), j.ID, false); err != nil || i.Stand.State == job.Ended {
			t.Errorf("after four stops the job is %s: %s", i.Stand.Outcome, i.Stand.Why)
		}
	})
	t.Run("its process ends", func(t *testing.T) {
		t.Parallel()
		arena := newCustomer(t, c, "arena", 2)
		j := arena.order(arena.spec("", "script", "hang"))
		for range dpm.MostAttempts {
			arena.is(j.ID, "that it runs", func(i job.Info) bool { return i.Progress.State == "running" })
			arena.disk.lost.Store(true)
			arena.stop()
			arena.disk.mend()
			arena.start()
		}
		if i := arena.ended(j.ID); i.Stand.Outcome != capsule.Parked || !strings.Contains(i.Stand.Why, "arena ended three times while it ran") {
			t.Errorf("the job is %s: %s", i.Stand.Outcome, i.Stand.Why)
		}
	})
}

// While nobody can tell whether an avatar is erased, what was computed of it isn't shown,
// and it isn't destroyed.
func TestOutputsOfAWithheldAvatar(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	j := arena.done(arena.order(arena.spec("", "script", "count")).ID, arena.counts())
	withhold := func(is bool) {
		arena.mu.Lock()
		defer arena.mu.Unlock()
		arena.withheld = is
	}
	withhold(true)
	_, err := arena.agent.Output(t.Context(), j.ID)
	codeIs(t, "the output, while it is withheld", err, carnet.Unavailable)
	withhold(false)
	arena.done(j.ID, arena.counts())
}

// A DPM that takes its time over a withdrawal is let to answer, though the avatar is gone
// meanwhile at each look.
func TestAvatarGoneAtASlowDPM(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	var told atomic.Int32
	var message atomic.Value
	b := &busy{}
	b.withdraw = func(ctx context.Context, id carnet.JobID) (string, error) {
		told.Add(1)
		select {
		case <-time.After(5 * time.Second):
			return b.DPM.Withdraw(ctx, id, message.Load().(string))
		case <-ctx.Done():
			return "", carnet.Errorf(carnet.Unavailable, "the DPM cannot be reached: %v", ctx.Err())
		}
	}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { b.DPM = d; return b })
	j := arena.order(arena.spec("forge", "script", "hang"))
	arena.is(j.ID, "that it runs", func(i job.Info) bool { return i.Progress.Parts == 1 })
	arena.mu.Lock()
	arena.gone = true
	arena.mu.Unlock()
	message.Store(arena.is(j.ID, "a withdrawal", func(i job.Info) bool { return i.Stand.Withdrawal != "" }).Stand.Withdrawal)
	if i := arena.ended(j.ID); i.Stand.Outcome != capsule.Withdrawn || i.Stand.Result == "" || told.Load() != 1 {
		t.Errorf("the job is %s, by a result: %t; the DPM is told %d times", i.Stand.Outcome, i.Stand.Result != "", told.Load())
	}
}

// An output that reaches the depot when its avatar is gone doesn't stay there.
func TestAnOutputComesTooLateToTheDepot(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	came, free := arena.holds(&arena.put)
	defer free()
	j := arena.done(arena.order(arena.spec("", "script", "count")).ID, arena.counts())
	<-came
	arena.mu.Lock()
	arena.gone = true
	arena.mu.Unlock()
	arena.is(j.ID, "that its output is destroyed", func(i job.Info) bool { return i.Output == nil })
	var deleted atomic.Bool
	arena.mu.Lock()
	arena.delete = func() { deleted.Store(true) }
	arena.mu.Unlock()
	free()
	wait.Until(t, "the copy is deleted", func() bool {
		arena.mu.Lock()
		defer arena.mu.Unlock()
		return deleted.Load() && len(arena.objects) == 0
	})
}

// A depot that hangs keeps nobody from revoking a module, nor from asking for a job's end.
func TestADepotThatHangs(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	bad := arena.add("bad", "count")
	came, free := arena.holds(&arena.put)
	defer free()
	added := make(chan error, 1)
	go func() {
		_, err := arena.agent.AddModule(context.Background(), job.NewModule{Program: []byte("parts"), Name: "good", Version: "1", Engine: "script"})
		added <- err
	}()
	<-came
	soon(t, "a revocation", func() { arena.revoke(bad) })
	free()
	must(t, <-added)
	arena.mu.Lock()
	arena.put = nil
	arena.mu.Unlock()

	j := arena.done(arena.order(arena.spec("", "script", "count")).ID, arena.counts())
	arena.is(j.ID, "a copy at the depot", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
	came, free = arena.holds(&arena.delete)
	defer free()
	arena.mu.Lock()
	arena.gone = true
	arena.mu.Unlock()
	<-came
	soon(t, "a job's end", func() {
		if _, err := arena.agent.Cancel(context.Background(), j.ID); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("what is done is cancelled: %v", err)
		}
	})
	free()
	arena.is(j.ID, "that its output is destroyed", func(i job.Info) bool { return i.Output == nil })
}

// A depot that hangs over what it may not keep doesn't keep a job going that the policy
// forbids.
func TestAPolicyEndsJobsWhileADepotHangs(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	old := arena.done(arena.order(arena.spec("", "script", "count")).ID, arena.counts())
	arena.is(old.ID, "a copy at the depot", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
	runs := arena.order(arena.spec("forge", "script", "hang"))
	arena.is(runs.ID, "that it runs", func(i job.Info) bool { return i.Progress.Parts == 1 })
	came, free := arena.holds(&arena.delete)
	defer free()
	arena.bound(1, `{"store":{"depots":[]}}`)
	<-came
	arena.bound(2, `{"store":{"depots":[]},"use":{"dpms":[]}}`)
	if i := arena.ended(runs.ID); i.Stand.Outcome != capsule.Withdrawn || !strings.Contains(i.Stand.Why, "use.dpms") {
		t.Errorf("the job is %s: %s", i.Stand.Outcome, i.Stand.Why)
	}
	free()
	arena.is(old.ID, "that its copy has left", func(i job.Info) bool { return i.Stored == carnet.Fingerprint{} })
}

// Two first jobs of one program that are ordered at once are both ordered.
func TestTwoFirstOrdersOfAProgram(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	came, free := arena.holds(&arena.program)
	defer free()
	ordered := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := arena.agent.Order(context.Background(), arena.spec("", "script", "count"))
			ordered <- err
		}()
	}
	<-came // one has seen that it isn't there, and the other waits for it
	free()
	for range 2 {
		if err := <-ordered; err != nil {
			t.Errorf("of two first orders at once, one fails: %v", err)
		}
	}
	for _, j := range arena.agent.Jobs() {
		arena.done(j.ID, arena.counts())
	}
}

// The key of an output that wasn't taken after all isn't kept.
func TestAnOutputThatIsNotTakenLeavesNoKey(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "count"))
	arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	arena.disk.loseAt(2, false) // when its key is stored, and the job's end isn't
	forge.withWorkers(1)
	wait.Until(t, "the world is lost", arena.disk.lost.Load)
	arena.stop()
	keys, err := arena.table.List(t.Context(), "job", "")
	if err != nil || len(keys) != 1 {
		t.Fatalf("the keys of outputs are %v, %v", keys, err)
	}
	c.move(11 * time.Minute)
	arena.disk.mend()
	arena.start()
	if i := arena.ended(j.ID); i.Stand.Outcome != job.Silent || i.Output != nil {
		t.Errorf("the job is %s: %s", i.Stand.Outcome, i.Stand.Why)
	}
	if keys, err = arena.table.List(t.Context(), "job", ""); err != nil || len(keys) > 0 {
		t.Errorf("the keys of outputs are %v, %v", keys, err)
	}
}

// While a DPM stores that a job which never came is withdrawn, it takes others.
func TestAnOrderComesDuringABurial(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	never, other := arena.draftFor(forge), arena.draftFor(forge)
	never.sign()
	came, free := make(chan struct{}), make(chan struct{})
	hold := func() { close(came); <-free }
	forge.disk.hold.Store(&hold)
	buried := make(chan error, 1)
	go func() {
		_, err := forge.client("arena").Withdraw(context.Background(), never.order.Job, withdrawalOf(t, never))
		buried <- err
	}()
	<-came
	if _, err := forge.client("arena").Submit(t.Context(), other.order.Job, other.sign()); err != nil {
		t.Errorf("another order meanwhile: %v", err)
	}
	close(free)
	must(t, <-buried)
}
