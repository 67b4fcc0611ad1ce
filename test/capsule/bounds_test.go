package capsule_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/job"
	"carnet/test/wait"
)

// busy is a DPM that answers otherwise, and counts what it is asked.
type busy struct {
	job.DPM
	status   func(dpm.Status) dpm.Status
	withdraw func(context.Context, carnet.JobID) (string, error)
	asked    atomic.Int32 // for status and withdrawal
	given    atomic.Int32 // content
}

func (b *busy) Status(ctx context.Context, id carnet.JobID, seen uint64, wait time.Duration) (dpm.Status, error) {
	b.asked.Add(1)
	if b.status == nil {
		return b.DPM.Status(ctx, id, seen, wait)
	}
	s, err := b.DPM.Status(ctx, id, 0, 0)
	return b.status(s), err
}

func (b *busy) PutContent(ctx context.Context, id carnet.JobID, content []byte) error {
	b.given.Add(1)
	return b.DPM.PutContent(ctx, id, content)
}

func (b *busy) Withdraw(ctx context.Context, id carnet.JobID, message string) (string, error) {
	b.asked.Add(1)
	if b.withdraw == nil {
		return b.DPM.Withdraw(ctx, id, message)
	}
	return b.withdraw(ctx, id)
}

// in counts what is asked and given in a while.
func (b *busy) in(d time.Duration) (asked, given int) {
	b.asked.Store(0)
	b.given.Store(0)
	time.Sleep(d)
	return int(b.asked.Load()), int(b.given.Load())
}

// A DPM that answers at once, and brings nothing on, doesn't have the world work without
// a pause.
func TestABusyDPMIsAskedWithPauses(t *testing.T) {
	c := &clock{}
	for _, v := range []struct {
		name string
		busy *busy
		most int // in half a second
	}{
		{"by nothing new", &busy{status: func(s dpm.Status) dpm.Status { return s }}, 4},
		{"by nothing new under new numbers", &busy{status: func(s dpm.Status) dpm.Status { s.Serial = uint64(time.Now().UnixNano()); return s }}, 4},
		{"by news without end", &busy{status: func(s dpm.Status) dpm.Status {
			s.Serial, s.Progress.Measurements = uint64(time.Now().UnixNano()), uint64(time.Now().UnixNano())
			return s
		}}, 30},
	} {
		t.Run(v.name, func(t *testing.T) {
			forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { v.busy.DPM = d; return v.busy })
			j := arena.order(arena.spec("forge", "script", "count"))
			arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
			if asked, _ := v.busy.in(500 * time.Millisecond); asked > v.most {
				t.Errorf("it is asked %d times in half a second", asked)
			}
		})
	}
	t.Run("by what it lacks for ever", func(t *testing.T) {
		forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
		program := carnet.FingerprintOf([]byte("count"))
		b := &busy{status: func(s dpm.Status) dpm.Status {
			s.Serial, s.Progress.Measurements, s.Lacks = uint64(time.Now().UnixNano()), uint64(time.Now().UnixNano()), []carnet.Fingerprint{program}
			return s
		}}
		arena.ordersFrom(forge, func(d job.DPM) job.DPM { b.DPM = d; return b })
		j := arena.order(arena.spec("forge", "script", "count"))
		arena.is(j.ID, "accepted", func(i job.Info) bool { return i.Stand.State == job.Accepted })
		wait.Until(t, "it is given something", func() bool { return b.given.Load() > 0 })
		if _, given := b.in(500 * time.Millisecond); given > 2 {
			t.Errorf("it is given the same %d times in half a second", given)
		}
	})
	t.Run("by what it lacks many times in one answer", func(t *testing.T) {
		forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
		program := carnet.FingerprintOf([]byte("count"))
		b := &busy{status: func(s dpm.Status) dpm.Status { s.Lacks = slices.Repeat([]carnet.Fingerprint{program}, 1000); return s }}
		arena.ordersFrom(forge, func(d job.DPM) job.DPM { b.DPM = d; return b })
		arena.order(arena.spec("forge", "script", "count"))
		wait.Until(t, "it is given something", func() bool { return b.given.Load() > 0 })
		if _, given := b.in(500 * time.Millisecond); given > 2 {
			t.Errorf("it is given the same %d times in half a second", given)
		}
	})
	t.Run("by saying of what is withdrawn that it is done", func(t *testing.T) {
		forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
		b := &busy{withdraw: func(_ context.Context, id carnet.JobID) (string, error) {
			i, err := arena.agent.Job(context.Background(), id, false)
			if err != nil {
				return "", err
			}
			return capsule.Result{Job: id, Order: capsule.Fingerprint(i.Order), Outcome: capsule.Done, Attempt: 1, Ended: c.now().UTC().Truncate(time.Second), Output: &capsule.Output{}}.Sign(forge.key)
		}}
		arena.ordersFrom(forge, func(d job.DPM) job.DPM { b.DPM = d; return b })
		j := arena.order(arena.spec("forge", "script", "count"))
		arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
		_, err := arena.agent.Cancel(t.Context(), j.ID)
		must(t, err)
		wait.Until(t, "it is told", func() bool { return b.asked.Load() > 0 })
		if asked, _ := b.in(500 * time.Millisecond); asked > 2 {
			t.Errorf("it is told of a withdrawal %d times in half a second", asked)
		}
		i := arena.is(j.ID, "why it goes on", func(i job.Info) bool { return i.Progress.Trouble != "" })
		if i.Stand.State != job.Withdrawing || !strings.Contains(i.Progress.Trouble, "forge is told that it is withdrawn, and answers that it is done") {
			t.Errorf("the job is %s, with the trouble %q", i.Stand.State, i.Progress.Trouble)
		}
	})
}

// A DPM that asks for what no order of it names is given nothing more, and named.
func TestADPMThatAsksForMore(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	b := &busy{status: func(s dpm.Status) dpm.Status { s.Lacks = append(s.Lacks, carnet.Fingerprint{1}); return s }}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { b.DPM = d; return b })
	j := arena.ended(arena.order(arena.spec("forge", "script", "count")).ID)
	if j.Stand.Outcome != capsule.Withdrawn || !strings.Contains(j.Stand.Why, "forge asks for content that its order doesn't name: "+carnet.Fingerprint{1}.String()) {
		t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
	forge.opensNothing("when it has asked for more", "arena", j.ID)
}

// A DPM that gives what it did slowly doesn't hold a job beyond its time.
func TestSlowPartsEndWithTheJobsTime(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	l := &liar{o: forge, tell: lie{
		result: func(r *capsule.Result) { r.Output.Parts, r.Output.Size = 64, 64 },
		flood:  func(int) []byte { time.Sleep(300 * time.Millisecond); return []byte("x") },
	}}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
	s := arena.spec("forge", "script", "count")
	s.Within = 3 * time.Second
	begun := time.Now()
	j := arena.ended(arena.order(s).ID) // all parts take 19 s
	if took := time.Since(begun); took > 16*time.Second || j.Stand.Outcome != job.Silent || !strings.Contains(j.Stand.Why, "forge accepted it and gave no result in its time") {
		t.Errorf("after %s the job is %s: %s", took, j.Stand.Outcome, j.Stand.Why)
	}
}

// Whoever is given the key of a slot may read each batch in it: a DPM that may not have
// one of them is given none, nor asked anything.
func TestASlotOfTwoLabels(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	var calls atomic.Int32
	l := &liar{o: forge, tell: lie{silent: func(string) bool { calls.Add(1); return false }}}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
	if a, b := arena.batches[0].Header.Slot, arena.batches[1].Header.Slot; a != b {
		t.Fatalf("the batches are in the slots %d and %d", a, b)
	}
	arena.batches[1].Label.Sensitivity |= carnet.Location
	refused := func(what string, err error) {
		t.Helper()
		if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "forge may not have the data") {
			t.Errorf("%s: %v", what, err)
		}
		if n := calls.Load(); n > 0 {
			t.Errorf("%s: the DPM is called %d times", what, n)
		}
	}
	_, err := arena.agent.Order(t.Context(), arena.spec("forge", "script", "count"))
	refused("ordered", err)
	here := arena.done(arena.order(arena.spec("", "script", "count")).ID, arena.counts())
	_, err = arena.agent.Repeat(t.Context(), here.ID, "forge", 0)
	refused("repeated", err)
	arena.batches[1].Label = health
	arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
}

// A DPM that looks at a job long after its time destroys its keys before it forgets it.
func TestForgottenWithItsKeys(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	r := leased(t, arena, forge)
	c.move(26 * time.Hour)
	wait.Until(t, "it is forgotten", func() bool { return len(forge.agent.Jobs()) == 0 })
	if keys, files := forge.jobKeys(), forge.kept(); len(keys) > 0 || len(files) > 0 {
		t.Errorf("of the job %s that is forgotten the keys %v and the files %v are left", r.order.Job, keys, files)
	}
}

// What came out of a job is deleted by the word of its world alone, for this result.
func TestOnlyItsWorldsWordDeletesAResult(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	ctx, client := t.Context(), forge.client("arena")
	r := leased(t, arena, forge)
	must(t, forge.agent.PutPart(ctx, r.got.Ticket, 0, []byte("sealed")))
	must(t, forge.agent.End(ctx, r.got.Ticket, dpm.Ran{Outcome: capsule.Done, Parts: 1}))
	s := forge.endsAs(t, "arena", r.order.Job, capsule.Done)
	word := capsule.Taken{Job: r.order.Job, Order: capsule.Fingerprint(r.capsule.Order), Result: capsule.Fingerprint(s.Result)}
	other := word
	other.Result[0]++
	says := func(w capsule.Taken, err error) string {
		must(t, err)
		m, err := w.Sign(arena.key)
		must(t, err)
		return m
	}
	forged, err := word.Sign(newKey())
	must(t, err)
	codeIs(t, "by another key", client.Taken(ctx, r.order.Job, forged), carnet.Malformed)
	codeIs(t, "of another result", client.Taken(ctx, r.order.Job, says(other, nil)), carnet.Conflict)
	if _, err := client.Part(ctx, r.order.Job, 1, 0); err != nil {
		t.Errorf("the part isn't there any more: %v", err)
	}
	must(t, client.Taken(ctx, r.order.Job, says(word, nil)))
	if _, err := client.Part(ctx, r.order.Job, 1, 0); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the part can still be had: %v", err)
	}
	forge.restart()
	if s := forge.endsAs(t, "arena", r.order.Job, capsule.Done); s.Taken != says(word, nil) {
		t.Errorf("it doesn't show by which word it was taken: %q", s.Taken)
	}
}

// Results that nobody takes fill a DPM's disk up to a bound, of each world by itself.
func TestUntakenResultsAreBounded(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2), newCustomer(t, c, "clinic", 2)
	forge.most.Output = engine.MostOutput
	forge.opens("arena", arena.key)
	forge.opens("clinic", clinic.key)
	forge.restart()
	ctx := t.Context()
	submit := func(w *customer) (*draft, dpm.Submission, error) {
		d := w.draftFor(forge)
		d.order.Task.Limits.Output, d.order.Task.Limits.Parts = engine.MostOutput, 1
		s := d.sign()
		_, err := forge.client(w.name).Submit(ctx, d.order.Job, s)
		return d, s, err
	}
	var words []func() error
	var full error
	for len(words) < 100 {
		d, s, err := submit(arena)
		if full = err; err != nil {
			break
		}
		client := forge.client("arena")
		for _, content := range d.contents() {
			must(t, client.PutContent(ctx, d.order.Job, content))
		}
		got, err := forge.agent.Lease(ctx, "test")
		must(t, err)
		must(t, forge.agent.PutPart(ctx, got.Ticket, 0, []byte("sealed")))
		must(t, forge.agent.End(ctx, got.Ticket, dpm.Ran{Outcome: capsule.Done, Parts: 1, Size: engine.MostOutput}))
		result := forge.endsAs(t, "arena", d.order.Job, capsule.Done).Result
		words = append(words, func() error {
			word, err := capsule.Taken{Job: d.order.Job, Order: capsule.Fingerprint(s.Order), Result: capsule.Fingerprint(result)}.Sign(arena.key)
			must(t, err)
			return client.Taken(ctx, d.order.Job, word)
		})
		if len(words) == 1 {
			defer func(id string) {
				if !strings.Contains(full.Error(), id) {
					t.Errorf("the refusal doesn't name the oldest result, %s: %v", id, full)
				}
			}(d.order.Job.String())
		}
	}
	if n := len(words); carnet.CodeOf(full) != carnet.TooLarge || n < 50 || n > 64 {
		t.Fatalf("after %d results of %d bytes that aren't taken: %v", n, engine.MostOutput, full)
	}
	if _, _, err := submit(clinic); err != nil {
		t.Errorf("another world's job: %v", err)
	}
	must(t, words[0]())
	if _, _, err := submit(arena); err != nil {
		t.Errorf("when one is taken: %v", err)
	}
}

// A world that is restored from a copy of before a withdrawal is shown it, and calls
// nobody a liar.
func TestRestoredWorldFromBeforeAWithdrawal(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "count"))
	arena.is(j.ID, "at the DPM", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	arena.mu.Lock()
	before := make(map[[2]string]carnet.Document)
	for at, d := range arena.documents {
		d.Body = slices.Clone(d.Body)
		before[at] = d
	}
	arena.mu.Unlock()
	_, err := arena.agent.Cancel(t.Context(), j.ID)
	must(t, err)
	withdrawn := arena.ended(j.ID)
	arena.stop()
	arena.documents = before
	arena.start()
	if j = arena.ended(j.ID); j.Stand.Outcome != capsule.Withdrawn || j.Stand.Why != "cancelled" || j.Stand.Withdrawal != withdrawn.Stand.Withdrawal {
		t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
}

// Whoever asks for a job while it is being stored is told all that it lacks.
func TestAJobIsAskedForWhileItIsStored(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	d := arena.draftFor(forge)
	s := d.sign()
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asks := func() {
		for ctx.Err() == nil {
			if s, err := forge.agent.Status(ctx, "arena", d.order.Job, 0); err != nil || len(s.Lacks) != 2 {
				t.Errorf("it is %s and lacks %v, %v", s.State, s.Lacks, err)
				return
			}
		}
	}
	document := func() { time.Sleep(100 * time.Millisecond) }
	keys := func() {
		forge.disk.hold.Store(&document)
		asking.Go(asks)
		time.Sleep(100 * time.Millisecond)
	}
	forge.disk.hold.Store(&keys)
	_, err := forge.client("arena").Submit(ctx, d.order.Job, s)
	stop()
	asking.Wait()
	must(t, err)
}

// The bound of a world's jobs is one also for those that come at once.
func TestJobsThatComeAtOnceAreBounded(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	var taken, refused atomic.Int32
	var coming sync.WaitGroup
	forge.mu.Lock() // what is admitted waits for its statement
	for range 80 {
		d := arena.draftFor(forge)
		s := d.sign()
		coming.Go(func() {
			switch _, err := forge.client("arena").Submit(t.Context(), d.order.Job, s); carnet.CodeOf(err) {
			case "":
				taken.Add(1)
			case carnet.TooLarge:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	time.Sleep(time.Second) // until they are all there, or most of them
	forge.mu.Unlock()
	coming.Wait()
	if taken.Load() != 64 || refused.Load() != 16 {
		t.Errorf("%d are taken, %d refused; want 64 and 16", taken.Load(), refused.Load())
	}
}
