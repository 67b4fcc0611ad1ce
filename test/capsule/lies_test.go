package capsule_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"strings"
	"sync/atomic"
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

// liar is a DPM that says other things than what it did, with its own key.
type liar struct {
	job.DPM
	o     *office
	honor atomic.Bool // no lies any more
	tell  lie
}

// lie is what is changed; nil: nothing.
type lie struct {
	result func(*capsule.Result) // before it is signed
	signer ed25519.PrivateKey    // of the result; nil: the DPM's
	offer  func(*capsule.Offer)
	part   func([]byte) []byte
	bag    func([]byte) []byte
	output []byte                   // instead of the real one, in one part, with everything else right
	status func(*liar, *dpm.Status) // with all of the above in it
	flood  func(n int) []byte       // what part n has, sealed as it should be
	// record changes what it says that it has stated; recorder signs that, nil: the DPM's key.
	record   func(*capsule.Record)
	recorder ed25519.PrivateKey
	silent   func(call string) bool
	// partial changes what it says of parts while a job runs; unsaid: by which error.
	partial func(*capsule.Partial, *dpm.PartialAnswer)
	unsaid  error
}

func (l *liar) quiet(call string) error {
	if l.tell.silent != nil && l.tell.silent(call) && !l.honor.Load() {
		return carnet.Errorf(carnet.Unavailable, "the DPM cannot be reached: nobody answers")
	}
	return nil
}

func (l *liar) Offer(ctx context.Context) (dpm.Offer, error) {
	said, err := l.DPM.Offer(ctx)
	if err == nil {
		err = l.quiet("offer")
	}
	if err != nil || l.tell.offer == nil || l.honor.Load() {
		return said, err
	}
	o, err := capsule.OpenOffer(said.Offer, public(l.o.key))
	if err != nil {
		return said, err
	}
	l.tell.offer(&o)
	said.Offer, err = o.Sign(l.o.key)
	return said, err
}

func (l *liar) Submit(ctx context.Context, id carnet.JobID, s dpm.Submission) (string, error) {
	if err := l.quiet("submit"); err != nil {
		return "", err
	}
	return l.DPM.Submit(ctx, id, s)
}

func (l *liar) Status(ctx context.Context, id carnet.JobID, seen uint64, wait time.Duration) (dpm.Status, error) {
	if err := l.quiet("status"); err != nil {
		return dpm.Status{}, err
	}
	s, err := l.DPM.Status(ctx, id, seen, wait)
	if err != nil || s.Result == "" || l.honor.Load() {
		return s, err
	}
	r, err := capsule.OpenResult(s.Result, public(l.o.key))
	if err != nil {
		return s, err
	}
	if l.tell.output != nil {
		sealed, err := l.another(id)
		if err != nil {
			return s, err
		}
		r.Output.Parts, r.Output.Size, r.Output.Fingerprint = 1, uint64(len(l.tell.output)), carnet.Fingerprint(sha256.Sum256(l.tell.output))
		r.Output.Sealed = seal.Root([]carnet.Fingerprint{carnet.FingerprintOf(sealed)})
	}
	if l.tell.result != nil {
		l.tell.result(&r)
	}
	if l.tell.bag != nil {
		s.Bag = l.tell.bag(s.Bag)
	}
	key := l.o.key
	if l.tell.signer != nil {
		key = l.tell.signer
	}
	if s.Result, err = r.Sign(key); err == nil && l.tell.status != nil {
		l.tell.status(l, &s)
	}
	return s, err
}

func (l *liar) Partial(ctx context.Context, id carnet.JobID) (dpm.PartialAnswer, error) {
	said, err := l.DPM.Partial(ctx, id)
	if l.tell.unsaid != nil && !l.honor.Load() {
		return dpm.PartialAnswer{}, l.tell.unsaid
	}
	if err != nil || l.tell.partial == nil || l.honor.Load() {
		return said, err
	}
	p, err := capsule.OpenPartial(said.Partial, public(l.o.key))
	if err != nil {
		return said, err
	}
	l.tell.partial(&p, &said)
	key := l.o.key
	if l.tell.signer != nil {
		key = l.tell.signer
	}
	said.Partial, err = p.Sign(key)
	return said, err
}

var other = []byte("40 1\n")

// another is a part with the other output.
func (l *liar) another(id carnet.JobID) ([]byte, error) {
	sealed, err := l.seal(id, 0, l.tell.output)
	l.o.forged.Store(id, sealed)
	return sealed, err
}

// seal makes a part by the key of the attempt: the DPM's worker had it.
func (l *liar) seal(id carnet.JobID, n int, content []byte) ([]byte, error) {
	out, _ := l.o.outs.Load(id)
	at, err := seal.ParsePath(out.(dpm.Key).Path)
	if err != nil {
		return nil, err
	}
	slot, err := seal.Key{Path: at, Secret: [32]byte(out.(dpm.Key).Secret)}.Slot(at.Slot)
	if err != nil {
		return nil, err
	}
	return dpm.SealPart(slot, capsule.LabelOf(health), n, content)
}

func (l *liar) Part(ctx context.Context, id carnet.JobID, attempt, n int) ([]byte, error) {
	if err := l.quiet("part"); err != nil {
		return nil, err
	}
	if forged, ok := l.o.forged.Load(id); ok && l.tell.output != nil && !l.honor.Load() {
		return forged.([]byte), nil
	}
	if l.tell.flood != nil && !l.honor.Load() {
		return l.seal(id, n, l.tell.flood(n))
	}
	p, err := l.DPM.Part(ctx, id, attempt, n)
	if err == nil && l.tell.part != nil && !l.honor.Load() {
		if p = l.tell.part(p); p == nil {
			return nil, carnet.Errorf(carnet.NotFound, "it isn't there")
		}
	}
	return p, err
}

// A DPM that signs what isn't so is caught by what it signed, and named; what it says
// next is taken again, and nothing of the lie is left.
func TestLies(t *testing.T) {
	spoil := func(b []byte) []byte {
		b = append([]byte(nil), b...)
		b[len(b)-1] ^= 1
		return b
	}
	ended := func(o capsule.Outcome) func(*capsule.Result) {
		return func(r *capsule.Result) { r.Outcome, r.Output = o, nil }
	}
	withdrawn := func(l *liar, s *dpm.Status) { // by somebody else
		r, err := capsule.OpenResult(s.Result, public(l.o.key))
		must(t, err)
		s.Withdrawal, _ = capsule.Withdrawal{Job: r.Job, Order: r.Order, Made: r.Ended}.Sign(newKey())
	}
	for _, v := range []struct {
		name string
		lie  lie
		says string
	}{
		{"withdrawn, and nobody withdrew it", lie{result: ended(capsule.Withdrawn)}, "this world has never withdrawn it"},
		{"withdrawn by another's word", lie{result: ended(capsule.Withdrawn), status: withdrawn}, "this world has never withdrawn it"},
		{"over before its time", lie{result: ended(capsule.Expired)}, "which is to come"},
		{"over at a time to come", lie{result: func(r *capsule.Result) { ended(capsule.Expired)(r); r.Ended = r.Ended.Add(time.Hour) }}, "which is to come"},
		{"refused without a module", lie{result: ended(capsule.Refused)}, "its order names none"},
		{"taken by another's word", lie{status: func(_ *liar, s *dpm.Status) { s.Taken = "x" }}, "by a word that isn't this world's"},
		{"much more than it signed", lie{result: func(r *capsule.Result) { r.Output.Parts, r.Output.Size = 64, 1 }, flood: func(int) []byte { return make([]byte, 512<<10) }}, "part 0 of its output has 524288 bytes"},
		{"a part as large as it likes", lie{result: func(r *capsule.Result) { r.Output.Size = 1 << 20 }, flood: func(int) []byte { return make([]byte, 600_000) }}, "part 0 of its output has 600000 bytes"},
		{"another program", lie{result: func(r *capsule.Result) { r.Output.Program[0] ^= 1 }}, "it ran the program"},
		{"other inputs", lie{result: func(r *capsule.Result) { r.Output.Inputs[0] ^= 1 }}, "other inputs"},
		{"another fingerprint", lie{result: func(r *capsule.Result) { r.Output.Fingerprint[0] ^= 1 }}, "another fingerprint"},
		{"another size", lie{result: func(r *capsule.Result) { r.Output.Size++ }}, "another fingerprint or size"},
		{"other parts", lie{result: func(r *capsule.Result) { r.Output.Sealed[0] ^= 1 }}, "another fingerprint"},
		{"fewer parts", lie{result: func(r *capsule.Result) { r.Output.Parts = 0 }}, "another fingerprint"},
		{"more parts", lie{result: func(r *capsule.Result) { r.Output.Parts = 2 }}, "part 1 of its output"},
		{"more than the limit", lie{result: func(r *capsule.Result) { r.Output.Size = 1 << 40 }}, "larger than the order's limits"},
		{"more parts than the limit", lie{result: func(r *capsule.Result) { r.Output.Parts = 1 << 30 }}, "larger than the order's limits"},
		{"another bag than it signed", lie{bag: spoil}, "another key bag"},
		{"a part that doesn't open", lie{part: spoil}, "part 0 of its output"},
		{"a part that isn't there", lie{part: func([]byte) []byte { return nil }}, "part 0 of its output isn't there"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge, tell: v.lie}
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			j := arena.ended(arena.order(arena.spec("forge", "script", "count")).ID)
			if j.Stand.Outcome != job.Lied || !strings.Contains(j.Stand.Why, "forge signed a result that isn't so") || !strings.Contains(j.Stand.Why, v.says) {
				t.Errorf("the job is %s: %s; want a lie of forge's with %q", j.Stand.Outcome, j.Stand.Why, v.says)
			}
			if _, err := arena.agent.Output(t.Context(), j.ID); carnet.CodeOf(err) != carnet.NotFound || j.Output != nil {
				t.Errorf("a lie has an output: %v", err)
			}
			// It is stated, and what it signed is kept: that is the proof.
			r, err := capsule.OpenResult(j.Stand.Result, public(forge.key))
			if err != nil || r.Job != j.ID {
				t.Errorf("the lie isn't kept as it was signed: %v", err)
			}
			if s := arena.statements(ledger.JobEnded, string(job.Lied)); len(s) != 1 || s[0].Peer != "forge" || s[0].Object != capsule.Fingerprint(j.Stand.Result) {
				t.Errorf("what is stated of it: %+v", s)
			}
			l.honor.Store(true)
			arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
		})
	}
}

// A result that isn't the DPM's word ends nothing: who forges it is heard by nobody, and
// the real one is taken as soon as it comes. Where it never does, the DPM is named.
func TestForgedResults(t *testing.T) {
	for _, v := range []struct {
		name string
		lie  lie
	}{
		{"by another key", lie{signer: newKey()}},
		{"of another job", lie{result: func(r *capsule.Result) { r.Job = carnet.NewJobID() }}},
		{"of another order", lie{result: func(r *capsule.Result) { r.Order[0] ^= 1 }}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge, tell: v.lie}
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			id := arena.order(arena.spec("forge", "script", "count")).ID
			arena.is(id, "trouble with it", func(i job.Info) bool { return i.Progress.Trouble != "" && i.Stand.State == job.Accepted })
			l.honor.Store(true)
			arena.done(id, arena.counts())

			l.honor.Store(false)
			id = arena.order(arena.spec("forge", "script", "count")).ID
			arena.is(id, "trouble with it", func(i job.Info) bool { return i.Progress.Trouble != "" && i.Stand.State == job.Accepted })
			c.move(11 * time.Minute)
			if j := arena.ended(id); j.Stand.Outcome != job.Silent || !strings.Contains(j.Stand.Why, "forge accepted it and gave no result in its time") {
				t.Errorf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
			}
			l.honor.Store(true)
			arena.done(arena.order(arena.spec("forge", "script", "count")).ID, arena.counts())
		})
	}
}

// An output that another program made is sealed, signed and of one piece: only who
// computes it again finds out. A repetition in the world names the DPM that lied.
func TestAnotherOutput(t *testing.T) {
	c := &clock{}
	forge, lab, arena := newOffice(t, c, "forge").withWorkers(1), newOffice(t, c, "lab").withWorkers(1), newCustomer(t, c, "arena", 4)
	// While it runs nothing is said of it: parts of the real output would tell.
	l := &liar{o: forge, tell: lie{output: other, unsaid: carnet.Errorf(carnet.NotFound, "nothing has come out yet")}}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
	arena.ordersFrom(lab, nil)
	j := arena.done(arena.order(arena.spec("forge", "script", "count")).ID, string(other))
	repeat := func(of carnet.JobID, at carnet.PartyID) job.Info {
		again, err := arena.agent.Repeat(t.Context(), of, at, 0)
		must(t, err)
		return arena.is(again.ID, "a comparison", func(i job.Info) bool { return i.Found != "" })
	}
	if k := repeat(j.ID, "lab"); !strings.Contains(k.Found, "forge or lab lied") {
		t.Errorf("between two DPMs it is found that %s", k.Found)
	}
	here := repeat(j.ID, "")
	if !strings.Contains(here.Found, "forge lied in the job "+j.ID.String()) {
		t.Errorf("in the world it is found that %s", here.Found)
	}
	if s := arena.statements(ledger.JobCompared, "forge lied"); len(s) != 1 || s[0].Peer != "forge" || s[0].Object != capsule.Fingerprint(j.Stand.Result) {
		t.Errorf("what is stated of it: %+v", s)
	}
	// The other way round: a repetition at the liar of what the world computed.
	if k := repeat(here.ID, "forge"); !strings.Contains(k.Found, "forge lied in the job "+k.ID.String()) {
		t.Errorf("of the world's own job it is found that %s", k.Found)
	}
	if k := repeat(here.ID, "lab"); k.Found != job.Same {
		t.Errorf("of the lab it is found that %s", k.Found)
	}
	l.honor.Store(true)
	if k := repeat(here.ID, "forge"); k.Found != job.Same {
		t.Errorf("of forge, honest, it is found that %s", k.Found)
	}
}

// A DPM that signs of a program that it fails, and it doesn't, is named by a repetition in
// the world; as is one that signs so of what the world has an output of. What fails there,
// too, and what went over a limit that is measured, names nobody.
func TestAFailureThatIsNone(t *testing.T) {
	for _, v := range []struct {
		name, program string
		says          func(*capsule.Result) // nil: the truth
		found, last   string                // of the repetition here, and of one there of that
	}{
		{"a failure that is none", "count", failsAs(carnet.Conflict), "forge lied in the job", "forge lied in the job"},
		{"a time that may have been over", "count", failsAs(carnet.TooLarge), "a limit that is measured", "a limit that is measured"},
		{"a failure", "fail", nil, job.SameFault, ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge, tell: lie{result: v.says}}
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			j := arena.ended(arena.order(arena.spec("forge", "script", v.program)).ID)
			if j.Stand.Outcome != capsule.Failed {
				t.Fatalf("the job is %s: %s", j.Stand.Outcome, j.Stand.Why)
			}
			repeat := func(of job.Info, at carnet.PartyID) job.Info {
				t.Helper()
				again, err := arena.agent.Repeat(t.Context(), of.ID, at, 0)
				must(t, err)
				return arena.is(again.ID, "a comparison", func(i job.Info) bool { return i.Found != "" })
			}
			here := repeat(j, "")
			if !strings.Contains(here.Found, v.found) || v.found == "forge lied in the job" && !strings.Contains(here.Found, j.ID.String()) {
				t.Errorf("it is found that %s", here.Found)
			}
			if s := arena.statements(ledger.JobCompared, here.Found); len(s) != 1 || s[0].Peer != "forge" || s[0].Object != capsule.Fingerprint(j.Stand.Result) {
				t.Errorf("what is stated of it: %+v", s)
			}
			if v.last == "" { // what failed in the world itself isn't repeated
				if _, err := arena.agent.Repeat(t.Context(), here.ID, "forge", 0); carnet.CodeOf(err) != carnet.Conflict {
					t.Errorf("what failed in the world is repeated: %v", err)
				}
				return
			}
			if k := repeat(here, "forge"); !strings.Contains(k.Found, v.last) || v.last == "forge lied in the job" && !strings.Contains(k.Found, k.ID.String()) {
				t.Errorf("of the world's own output it is found that %s", k.Found)
			}
		})
	}
}

// failsAs has a DPM sign that a job's program failed.
func failsAs(code carnet.Code) func(*capsule.Result) {
	return func(r *capsule.Result) { r.Outcome, r.Code, r.Why, r.Output = capsule.Failed, code, "it fails", nil }
}

// A DPM that promises more than it has, or answers nothing, is named, and the job ends by
// its time at the latest.
func TestEmptyPromises(t *testing.T) {
	for _, v := range []struct {
		name    string
		lie     lie
		engine  string
		memory  uint64
		workers int
		outcome capsule.Outcome
		says    string
	}{
		{"an engine that it hasn't", lie{offer: func(o *capsule.Offer) { o.Engines[0].Name = "duckdb" }}, "duckdb", 64 << 20, 1, job.Refused, `forge doesn't take it: this DPM has no engine "duckdb"`},
		{"memory that it hasn't", lie{offer: func(o *capsule.Offer) { o.Most.Memory = 1 << 30 }}, "sql", 1 << 30, 1, job.Refused, "forge doesn't take it: the order's limits"},
		{"workers that it hasn't", lie{offer: func(o *capsule.Offer) { o.Workers = 8 }}, "sql", 64 << 20, 0, capsule.Expired, "forge didn't finish it in its time"},
		{"nothing, and doesn't take it", lie{silent: func(call string) bool { return call != "offer" }}, "sql", 64 << 20, 1, job.Silent, "forge never accepted it"},
		{"nothing once it has it", lie{silent: func(call string) bool { return call == "status" }}, "sql", 64 << 20, 1, job.Silent, "forge accepted it and gave no result in its time"},
		{"no part of what it did", lie{silent: func(call string) bool { return call == "part" }}, "sql", 64 << 20, 1, job.Silent, "forge accepted it and gave no result in its time"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge").withWorkers(v.workers), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge, tell: v.lie}
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			s := arena.spec("forge", v.engine, "SELECT count(*) FROM measurements")
			s.Limits.Memory = v.memory
			j := arena.order(s)
			if v.outcome != job.Refused {
				time.Sleep(300 * time.Millisecond) // it is asked, and doesn't answer
				c.move(11 * time.Minute)
			}
			// Who answers at its end and who asks then race: both name the DPM.
			if j = arena.ended(j.ID); j.Stand.Outcome == job.Silent && v.outcome == capsule.Expired {
				v.outcome, v.says = job.Silent, "forge accepted it and gave no result in its time"
			}
			if j.Stand.Outcome != v.outcome || !strings.Contains(j.Stand.Why, v.says) {
				t.Errorf("the job is %s: %s; want %s with %q", j.Stand.Outcome, j.Stand.Why, v.outcome, v.says)
			}
			wait.Until(t, "the DPM has no key of it", func() bool { return len(forge.jobKeys()) == 0 })
			l.honor.Store(true)
			forge.withWorkers(1)
			arena.done(arena.order(arena.spec("forge", "sql", "SELECT count(*) AS n FROM measurements")).ID, "[\"n\"]\n[40]\n")
		})
	}
	t.Run("an offer by another", func(t *testing.T) {
		c := &clock{}
		forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
		l := &liar{o: forge, tell: lie{offer: func(o *capsule.Offer) { o.By = "lab" }}}
		arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
		if _, err := arena.agent.Order(t.Context(), arena.spec("forge", "sql", "SELECT 1")); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "forge shows the offer of lab") {
			t.Errorf("an offer by another: %v", err)
		}
		if n := len(arena.agent.Jobs()); n != 0 {
			t.Errorf("%d jobs are there", n)
		}
	})
}
