package capsule_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/job"
	"carnet/ledger"
	"carnet/seal"
	"carnet/test/wait"
)

// byHand is a worker: what it puts out, and when, is a test's.
type byHand struct {
	t        *testing.T
	o        *office
	got      *dpm.Assignment
	out      *seal.Slot
	contents []string
	stop     func()
}

// works waits for a job, and has its attempt be a test's to run.
func (o *office) works(t *testing.T) *byHand {
	t.Helper()
	b := &byHand{t: t, o: o}
	wait.Until(t, "a worker is given the job", func() bool { b.got = o.offered(t); return b.got != nil })
	o.outs.Store(b.got.Job, b.got.Out)
	at, err := seal.ParsePath(b.got.Out.Path)
	must(t, err)
	b.out, err = seal.Key{Path: at, Secret: [32]byte(b.got.Out.Secret)}.Slot(at.Slot)
	must(t, err)
	over := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			case <-time.After(500 * time.Millisecond):
				_ = o.agent.Renew(t.Context(), b.got.Ticket, dpm.Progress{Permille: 500})
			}
		}
	}()
	b.stop = func() {
		select {
		case <-over:
		default:
			close(over)
		}
		<-ended
	}
	t.Cleanup(b.stop)
	return b
}

// puts puts out parts.
func (b *byHand) puts(parts ...string) {
	b.t.Helper()
	for _, p := range parts {
		sealed, err := dpm.SealPart(b.out, b.got.Label, len(b.contents), []byte(p))
		must(b.t, err)
		must(b.t, b.o.agent.PutPart(b.t.Context(), b.got.Ticket, len(b.contents), sealed))
		b.contents = append(b.contents, p)
	}
}

// ends says that the attempt is done.
func (b *byHand) ends() {
	b.t.Helper()
	b.stop()
	all := strings.Join(b.contents, "")
	must(b.t, b.o.agent.End(b.t.Context(), b.got.Ticket, dpm.Ran{Outcome: capsule.Done, Fingerprint: carnet.Fingerprint(sha256.Sum256([]byte(all))), Size: uint64(len(all)), Parts: len(b.contents)}))
}

// dies loses the attempt.
func (b *byHand) dies() {
	b.t.Helper()
	b.stop()
	must(b.t, b.o.agent.End(b.t.Context(), b.got.Ticket, dpm.Ran{}))
}

// sofar waits until a world has what a job has put out so far.
func (w *customer) sofar(id carnet.JobID, attempt int, parts ...string) {
	w.t.Helper()
	want := strings.Join(parts, "")
	var p job.PartialOutput
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		p, err = w.agent.PartialOutput(w.t.Context(), id)
		if code := carnet.CodeOf(err); err != nil && code != carnet.Unavailable { // it is being replaced
			w.t.Fatalf("%s can't read what there is so far: %v", w.name, err)
		}
		if err == nil && p.Attempt == attempt && p.Parts == len(parts) && string(p.Content) == want {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s has %d parts of attempt %d, %q; want %d of %d, %q", w.name, p.Parts, p.Attempt, p.Content, len(parts), attempt, want)
		}
	}
}

// hasNoPartial fails if there is anything of a partial output.
func (w *customer) hasNoPartial(after string) {
	w.t.Helper()
	if ids, err := w.table.List(w.t.Context(), "job-partial", ""); err != nil || len(ids) > 0 {
		w.t.Errorf("%s %s has the keys %v, %v", after, w.name, ids, err)
	}
	for _, kind := range []string{"job-partial", "job-partial-part"} {
		if n := w.kept(kind); n > 0 {
			w.t.Errorf("%s %s has %d documents %s", after, w.name, n, kind)
		}
	}
}

// kept counts the documents of a kind.
func (w *customer) kept(kind string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.documents {
		if id[0] == kind {
			n++
		}
	}
	return n
}

// While a job runs at a DPM its world has what came out so far, also after a start and
// while the DPM is away; none of it is an output until the result is there.
func TestPartialOutput(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	id := arena.order(arena.spec("forge", "script", "parts")).ID
	arena.sofar(id, 0)
	if _, err := forge.client("arena").Partial(t.Context(), id); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a DPM says what no attempt has put out: %v", err)
	}
	w := forge.works(t)
	w.puts("one\n")
	arena.sofar(id, 1, "one\n")
	w.puts("two\n", "three\n")
	arena.sofar(id, 1, threeParts...)
	if _, err := forge.client("arena").Partial(t.Context(), carnet.NewJobID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a DPM says what a job that isn't there has put out: %v", err)
	}
	if _, err := forge.client("lab").Partial(t.Context(), id); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a DPM says to another what the job has put out: %v", err)
	}

	// It is no output: not by its kind, its key, at the depot, or to who asks for one.
	if _, err := arena.agent.Output(t.Context(), id); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("an output of a job that runs: %v", err)
	}
	if ids, err := arena.table.List(t.Context(), "job", ""); err != nil || len(ids) > 0 {
		t.Errorf("there are keys of outputs: %v, %v", ids, err)
	}
	if n := arena.kept("job-part"); n > 0 || len(arena.objects) > 0 {
		t.Errorf("%d parts of an output are kept, and %d objects at the depot", n, len(arena.objects))
	}
	if _, err := arena.agent.Repeat(t.Context(), id, "", 0); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a job that runs is repeated: %v", err)
	}
	arena.mu.Lock()
	for at, d := range arena.documents {
		if strings.Contains(string(d.Body), "three") {
			t.Errorf("%v has the output unsealed", at)
		}
	}
	arena.mu.Unlock()

	arena.mu.Lock()
	arena.withheld = true
	arena.mu.Unlock()
	if _, err := arena.agent.PartialOutput(t.Context(), id); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("what there is so far of an avatar that may be erased: %v", err)
	}
	arena.mu.Lock()
	arena.withheld = false
	arena.mu.Unlock()

	forge.stop()
	arena.stop()
	arena.start()
	arena.sofar(id, 1, threeParts...)
	forge.start()
	w.ends()
	j := arena.done(id, "one\ntwo\nthree\n")
	if j.Contradiction != nil || len(arena.statements(ledger.JobCompared, "")) > 0 {
		t.Errorf("an honest DPM is said to contradict itself: %+v", j.Contradiction)
	}
	if _, err := arena.agent.PartialOutput(t.Context(), id); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("what there is so far of a job that is done: %v", err)
	}
	arena.hasNoPartial("after the end")
}

// What the world itself runs shows what it has put out, too.
func TestPartialOutputInTheWorld(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 4)
	id := arena.order(arena.spec("", "script", "slow")).ID
	arena.sofar(id, 1, "one\n")
	arena.is(id, "said to have put out a part", func(i job.Info) bool { return i.Progress.Parts >= 1 && i.Stand.State != job.Ended })
	arena.done(id, "one\ntwo\nthree\n")
	if _, err := arena.agent.PartialOutput(t.Context(), id); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("what there is so far of a job that is done: %v", err)
	}
}

// An attempt that is lost and begun anew replaces the parts, and the key. One that puts out
// something else than the one before is taken, since it is signed; the DPM is named.
func TestAPartialOutputIsReplaced(t *testing.T) {
	for _, v := range []struct {
		name   string
		second []string
		seen   bool // before it ends
		says   string
	}{
		{"by the same", threeParts, true, ""},
		{"by less, so far", []string{"one\n"}, true, "forge put out something else in attempt 1"},
		{"by something else", []string{"another\n"}, true, "forge put out something else in attempt 1"},
		{"by something else that nobody saw", []string{"another\n", "two\n", "three\n"}, false, "forge put out something else in attempt 1"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
			arena.ordersFrom(forge, nil)
			id := arena.order(arena.spec("forge", "script", "parts")).ID
			w := forge.works(t)
			w.puts("one\n", "two\n")
			arena.sofar(id, 1, "one\n", "two\n")
			before, err := arena.table.List(t.Context(), "job-partial", "")
			must(t, err)
			w.dies()
			w = forge.works(t)
			if v.seen {
				w.puts(v.second[:1]...)
				arena.sofar(id, 2, v.second[:1]...)
				if n := arena.kept("job-partial-part"); n != 1 {
					t.Errorf("%d parts are kept, of one", n)
				}
				wait.Until(t, "the key of the attempt before is destroyed", func() bool {
					ids, err := arena.table.List(t.Context(), "job-partial", "")
					return err == nil && len(ids) == 1 && ids[0] != before[0]
				})
				w.puts(v.second[1:]...)
			} else {
				w.puts(v.second...)
			}
			w.ends()
			j := arena.done(id, strings.Join(v.second, ""))
			arena.hasNoPartial("after the end")
			said := arena.statements(ledger.JobCompared, "")
			if v.says == "" {
				if j.Contradiction != nil || len(said) > 0 {
					t.Errorf("an honest DPM is said to contradict itself: %+v", j.Contradiction)
				}
				return
			}
			if j.Contradiction == nil || !strings.Contains(j.Contradiction.Why, v.says) {
				t.Fatalf("it is found that %+v", j.Contradiction)
			}
			if p, err := capsule.OpenPartial(j.Contradiction.Partial, public(forge.key)); err != nil || p.Attempt != 1 || p.Parts != 2 || p.Job != id {
				t.Errorf("the DPM's word of before is %+v, %v", p, err)
			}
			if len(said) != 1 || said[0].Peer != "forge" || said[0].Object != capsule.Fingerprint(j.Stand.Result) || !strings.Contains(said[0].Reason, v.says) {
				t.Errorf("what is stated of it: %+v", said)
			}
		})
	}
}

// A DPM that signs a result of other parts than it signed while the attempt ran is named,
// and its two words are the proof.
func TestAResultOfOtherParts(t *testing.T) {
	for _, v := range []struct {
		name   string
		output []byte
	}{{"another output", other}, {"less", []byte("one\n")}} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge, tell: lie{output: v.output}}
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			id := arena.order(arena.spec("forge", "script", "parts")).ID
			w := forge.works(t)
			w.puts("one\n", "two\n")
			arena.sofar(id, 1, "one\n", "two\n")
			w.ends()
			j := arena.ended(id)
			if j.Stand.Outcome != job.Lied || !strings.Contains(j.Stand.Why, "forge signed a result that isn't so: while attempt 1 ran it signed other parts") || j.Contradiction == nil {
				t.Fatalf("the job is %s: %s, %+v", j.Stand.Outcome, j.Stand.Why, j.Contradiction)
			}
			p, err := capsule.OpenPartial(j.Contradiction.Partial, public(forge.key))
			must(t, err)
			r, err := capsule.OpenResult(j.Stand.Result, public(forge.key))
			must(t, err)
			if p.Bag != r.Output.Bag || p.Order != r.Order || seal.Root(j.Contradiction.Sealed) != r.Output.Sealed || len(j.Contradiction.Sealed) >= p.Parts && seal.Root(j.Contradiction.Sealed[:p.Parts]) == p.Sealed {
				t.Errorf("the two words prove nothing: %+v and %+v of %v", p, r.Output, j.Contradiction.Sealed)
			}
			if s := arena.statements(ledger.JobEnded, string(job.Lied)); len(s) != 1 || s[0].Peer != "forge" {
				t.Errorf("what is stated of it: %+v", s)
			}
			if _, err := arena.agent.Output(t.Context(), id); carnet.CodeOf(err) != carnet.NotFound {
				t.Errorf("a lie has an output: %v", err)
			}
			arena.hasNoPartial("after the lie")
		})
	}
}

// What a DPM gives of an output so far and doesn't hold together isn't shown, and what was
// there before stays; the job goes on.
func TestPartsThatDontHold(t *testing.T) {
	for _, v := range []struct {
		name  string
		lie   lie
		quiet bool // it may be so of an honest one
	}{
		{"by another key", lie{partial: func(*capsule.Partial, *dpm.PartialAnswer) {}, signer: newKey()}, false},
		{"of another job", lie{partial: func(p *capsule.Partial, _ *dpm.PartialAnswer) { p.Job = carnet.NewJobID() }}, false},
		{"of another order", lie{partial: func(p *capsule.Partial, _ *dpm.PartialAnswer) { p.Order[0] ^= 1 }}, false},
		{"of another bag", lie{partial: func(p *capsule.Partial, _ *dpm.PartialAnswer) { p.Bag[0] ^= 1 }}, false},
		{"with a bag that doesn't open", lie{partial: func(p *capsule.Partial, a *dpm.PartialAnswer) {
			a.Bag = append([]byte(nil), a.Bag...)
			a.Bag[len(a.Bag)-1] ^= 1
			p.Bag = carnet.FingerprintOf(a.Bag)
		}}, false},
		{"of more parts than there are", lie{partial: func(p *capsule.Partial, _ *dpm.PartialAnswer) { p.Parts++ }}, true},
		{"of more parts than the limit", lie{partial: func(p *capsule.Partial, _ *dpm.PartialAnswer) { p.Parts = 1 << 20 }}, false},
		{"with another root", lie{partial: func(p *capsule.Partial, _ *dpm.PartialAnswer) { p.Sealed[0] ^= 1 }}, false},
		{"parts that don't open", lie{part: func(b []byte) []byte { return b[:len(b)-1] }}, false},
		{"more than the order lets", lie{flood: func(int) []byte { return make([]byte, 600_000) }}, false},
		{"by a DPM of before", lie{unsaid: carnet.Errorf(carnet.NotFound, "404 page not found")}, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge, tell: v.lie}
			l.honor.Store(true)
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			id := arena.order(arena.spec("forge", "script", "parts")).ID
			w := forge.works(t)
			w.puts("one\n")
			arena.sofar(id, 1, "one\n")
			l.honor.Store(false)
			w.puts("two\n")
			if v.quiet {
				time.Sleep(1500 * time.Millisecond)
			} else {
				trouble := ""
				arena.is(id, "trouble with what there is so far", func(i job.Info) bool {
					trouble = i.Progress.Trouble
					return strings.Contains(trouble, "put out so far")
				})
			}
			arena.sofar(id, 1, "one\n")
			l.honor.Store(true)
			w.puts("three\n")
			arena.sofar(id, 1, threeParts...)
			w.ends()
			arena.done(id, "one\ntwo\nthree\n")
			arena.hasNoPartial("after the end")
		})
	}
}

// However a job ends that was running, nothing is left of what it had put out.
func TestPartialOutputsGoWithTheirJobs(t *testing.T) {
	for _, v := range []struct {
		name string
		end  func(*testing.T, *clock, *office, *customer, *byHand)
	}{
		{"cancelled", func(t *testing.T, _ *clock, _ *office, a *customer, w *byHand) {
			_, err := a.agent.Cancel(t.Context(), w.got.Job)
			must(t, err)
		}},
		{"cancelled, while the DPM is away", func(t *testing.T, _ *clock, o *office, a *customer, w *byHand) {
			o.stop()
			_, err := a.agent.Cancel(t.Context(), w.got.Job)
			must(t, err)
			a.hasNoPartial("once it is being withdrawn")
			o.start()
		}},
		{"failed", func(t *testing.T, _ *clock, o *office, _ *customer, w *byHand) {
			w.stop()
			must(t, o.agent.End(t.Context(), w.got.Ticket, dpm.Ran{Outcome: capsule.Failed, Code: carnet.Conflict, Why: "it can't"}))
		}},
		{"over its time", func(_ *testing.T, c *clock, _ *office, _ *customer, _ *byHand) { c.move(11 * time.Minute) }},
		{"without a peering", func(_ *testing.T, _ *clock, _ *office, a *customer, w *byHand) {
			a.mu.Lock()
			defer a.mu.Unlock()
			delete(a.dpms, "forge")
			w.stop()
		}},
		{"erased", func(t *testing.T, _ *clock, _ *office, a *customer, _ *byHand) {
			a.erased(a.erasing(), 1)
			a.hasNothing("after the erasure")
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
			arena.ordersFrom(forge, nil)
			id := arena.order(arena.spec("forge", "script", "parts")).ID
			w := forge.works(t)
			w.puts("one\n")
			arena.sofar(id, 1, "one\n")
			v.end(t, c, forge, arena, w)
			if v.name == "without a peering" { // it is looked at when something changes
				arena.stop()
				arena.start()
			}
			if j := arena.ended(id); j.Stand.Outcome == capsule.Done {
				t.Errorf("it is done")
			}
			arena.hasNoPartial("after the end")
			if _, err := arena.agent.PartialOutput(t.Context(), id); carnet.CodeOf(err) != carnet.Conflict {
				t.Errorf("what there is so far of a job that has ended: %v", err)
			}
		})
	}
}

// An erasure of something else that comes while a partial output is being stored doesn't
// take its key.
func TestAnErasureDuringAPartialOutput(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	id := arena.order(arena.spec("forge", "script", "parts")).ID
	w := forge.works(t)
	arena.is(id, "that it runs", func(i job.Info) bool { return i.Progress.State == string(dpm.Leased) })
	e := arena.erasing()
	e.Avatar = carnet.NewAvatarID()
	erased := make(chan error, 1)
	stores := func() {
		_, err := arena.agent.Erase(context.Background(), e)
		erased <- err
	}
	puts := func() { arena.disk.hold.Store(&stores) }
	arena.disk.hold.Store(&puts)
	w.puts("one\n")
	must(t, <-erased)
	arena.sofar(id, 1, "one\n")
	w.puts("two\n", "three\n")
	w.ends()
	arena.done(id, strings.Join(threeParts, ""))
	arena.hasNoPartial("after the end")
}

// A DPM that begins anew for ever has three attempts shown.
func TestSoManyAttemptsAreShown(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	l := &liar{o: forge}
	runs := 0
	fresh := func(id carnet.JobID) (p capsule.Partial, bag []byte) {
		slot, err := seal.NewEpoch(carnet.NewStreamID()).Slot(0)
		must(t, err)
		to, err := seal.ParseReception(arenaAnnouncement(t, arena), public(arena.key), c.now())
		must(t, err)
		bag, err = seal.Grant(forge.key, to, seal.Terms{
			Granter: "forge", Grant: id, Purpose: "fitness", Clearance: carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}, Time: c.now(), NotAfter: c.now().Add(time.Hour),
		}, []seal.Entry{{Key: slot.Key(), Ceiling: health}})
		must(t, err)
		runs++
		out, err := dpm.SealPart(slot, capsule.LabelOf(health), 0, fmt.Appendf(nil, "run %d\n", runs))
		must(t, err)
		l.o.forged.Store(id, out)
		return capsule.Partial{Sealed: seal.Root([]carnet.Fingerprint{carnet.FingerprintOf(out)}), Bag: carnet.FingerprintOf(bag)}, bag
	}
	l.tell = lie{output: other, partial: func(p *capsule.Partial, a *dpm.PartialAnswer) {
		made, bag := fresh(p.Job)
		p.Parts, p.Sealed, p.Bag, a.Bag = 1, made.Sealed, made.Bag, bag
	}}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
	id := arena.order(arena.spec("forge", "script", "parts")).ID
	w := forge.works(t)
	for range 5 {
		w.puts("x\n")
		time.Sleep(1300 * time.Millisecond)
	}
	arena.sofar(id, 1, "run 3\n")
	if runs < 4 {
		t.Errorf("it was asked %d times only", runs)
	}
}

func arenaAnnouncement(t *testing.T, w *customer) []byte {
	b, err := w.AnnounceTo(w.key, w.name)
	must(t, err)
	return b
}
