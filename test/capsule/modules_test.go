package capsule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/identity"
	"carnet/job"
	"carnet/keys"
	"carnet/ledger"
	"carnet/test/wait"
)

// add signs a script as version 1 of a module.
func (w *customer) add(name, script string) job.Module {
	w.t.Helper()
	m, err := w.agent.AddModule(w.t.Context(), job.NewModule{Program: []byte(script), Name: name, Version: "1", Engine: "script", Reads: []string{"heart_rate"}})
	must(w.t, err)
	return m
}

// specOf is a job of a module over all that the avatar has.
func (w *customer) specOf(at carnet.PartyID, m job.Module) job.Spec {
	s := w.spec(at, "", "")
	s.Module, s.Program, s.Properties = m.ID(), nil, nil
	return s
}

// revoke revokes a module by the world's own word.
func (w *customer) revoke(m job.Module) job.Module {
	w.t.Helper()
	m, err := w.agent.RevokeModule(w.t.Context(), m.ID(), "it counts twice", "")
	must(w.t, err)
	return m
}

// word is a world's word that a module is to run no more, as it signs it.
func (w *customer) word(m job.Module, why string) string {
	w.t.Helper()
	word, err := capsule.Revocation{Module: m.Fingerprint, By: identity.DID(public(w.key)), Why: why, Made: time.Now().UTC().Truncate(time.Second)}.Sign(w.key)
	must(w.t, err)
	return word
}

// refused waits for the end of a job whose module is revoked.
func (w *customer) refused(id carnet.JobID) {
	w.t.Helper()
	i := w.ended(id)
	if i.Stand.Outcome != job.Refused || i.Stand.Code != carnet.Forbidden || !strings.Contains(i.Stand.Why, "is revoked: it counts twice") || i.Output != nil {
		w.t.Errorf("%s: the job of a revoked module is %s (%s): %s; output %v", w.name, i.Stand.Outcome, i.Stand.Code, i.Stand.Why, i.Output)
	}
}

func codeIs(t *testing.T, what string, err error, want carnet.Code) {
	t.Helper()
	if err == nil || carnet.CodeOf(err) != want {
		t.Errorf("%s: %v (code %q), want %q", what, err, carnet.CodeOf(err), want)
	}
}

// only has everybody run signed modules only.
func only(w *customer, offices ...*office) {
	w.stop()
	w.signed = []string{"script"}
	w.start()
	for _, o := range offices {
		o.signed = true
		o.restart()
	}
}

// A module runs in its world and at a DPM as it was signed, and not as anything else.
func TestAModuleIsWhatWasSigned(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4), newCustomer(t, c, "clinic", 2)
	only(arena, forge)
	arena.ordersFrom(forge, nil)
	ctx := t.Context()
	m := arena.add("counter", "count")
	if s := arena.statements(ledger.StoredObject, ""); len(s) != 1 || s[0].Object != m.Program.Fingerprint {
		t.Errorf("its bytes are stated as %+v", s)
	}
	if s := arena.statements(ledger.ModuleAdded, ""); len(s) != 1 || s[0].Object != m.Fingerprint {
		t.Errorf("it is stated as %+v", s)
	}
	first := arena.done(arena.order(arena.specOf("", m)).ID, arena.counts())
	arena.done(arena.order(arena.specOf("forge", m)).ID, arena.counts())
	if len(first.Task.Properties) != 1 || first.Task.Properties[0] != "heart_rate" {
		t.Errorf("a job that names no properties is given %v", first.Task.Properties)
	}
	again, err := arena.agent.Repeat(ctx, first.ID, "forge", time.Minute)
	must(t, err)
	arena.done(again.ID, arena.counts())

	// Nothing is run beside it, and nothing else runs it.
	both, sql := arena.specOf("", m), arena.specOf("", m)
	both.Program, sql.Engine = []byte("parts"), "sql"
	_, err = arena.agent.Order(ctx, both)
	codeIs(t, "a module and a program", err, carnet.Malformed)
	_, err = arena.agent.Order(ctx, sql)
	codeIs(t, "a module on another engine", err, carnet.Malformed)

	// A version is signed once, also after a restart.
	arena.stop()
	arena.start()
	_, err = arena.agent.AddModule(ctx, job.NewModule{Program: []byte("parts"), Name: "counter", Version: "1", Engine: "script"})
	codeIs(t, "the version again, of other bytes", err, carnet.Conflict)
	if _, err := arena.GetObject(ctx, carnet.FingerprintOf([]byte("parts"))); err == nil {
		t.Error("the other bytes of the version are at the depot")
	}

	// Nobody else's record, and no other bytes under it.
	_, err = clinic.agent.AddModule(ctx, job.NewModule{Program: []byte("count"), Record: m.Record})
	codeIs(t, "by a publisher whom nobody named", err, carnet.Forbidden)
	clinic.stop()
	clinic.publishers = []string{m.By}
	clinic.start()
	_, err = clinic.agent.AddModule(ctx, job.NewModule{Program: []byte("parts"), Record: m.Record})
	codeIs(t, "other bytes under a record", err, carnet.Malformed)
	_, err = clinic.agent.AddModule(ctx, job.NewModule{Program: []byte("count"), Record: m.Record[:len(m.Record)-4] + "AAAA"})
	codeIs(t, "a record with another signature", err, carnet.Unauthenticated)
	theirs, err := clinic.agent.AddModule(ctx, job.NewModule{Program: []byte("count"), Record: m.Record})
	must(t, err)
	clinic.done(clinic.order(clinic.specOf("", theirs)).ID, clinic.counts())

	// What a depot changed isn't run.
	other := arena.add("parter", "parts")
	arena.mu.Lock()
	arena.objects[other.Program.Fingerprint] = []byte("count")
	arena.mu.Unlock()
	_, err = arena.agent.Order(ctx, arena.specOf("", other))
	codeIs(t, "bytes that the depot changed", err, carnet.Tampered)

	// What nobody signed runs only where the operators allow it.
	_, err = arena.agent.Order(ctx, arena.spec("", "script", "count"))
	codeIs(t, "a program that nobody signed", err, carnet.Forbidden)
	clinic.ordersFrom(forge, nil)
	_, err = clinic.agent.Order(ctx, clinic.spec("forge", "script", "count"))
	codeIs(t, "a program that nobody signed, at a DPM that runs none", err, carnet.Forbidden)
	plan, err := clinic.agent.Plan(ctx, clinic.spec("forge", "script", "count"))
	must(t, err)
	if p := plan.Places; len(p) != 2 || !p[0].Can || p[1].Can || !strings.Contains(p[1].Why, "forge runs no others") {
		t.Errorf("the places for it are %+v", p)
	}
}

// A DPM takes an order with the record that it names, for the bytes that were signed.
func TestAnOrderNamesItsModule(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	forge.signed = true
	forge.restart()
	m, other, twin := arena.add("counter", "count"), arena.add("parter", "parts"), arena.add("twin", "count")
	for _, v := range []struct {
		name   string
		change func(*draft, *dpm.Submission)
		code   carnet.Code
	}{
		{"nothing", func(*draft, *dpm.Submission) {}, ""},
		{"no module", func(d *draft, s *dpm.Submission) { d.order.Module, s.Record = carnet.Fingerprint{}, "" }, carnet.Forbidden},
		{"a record that the order doesn't name", func(d *draft, _ *dpm.Submission) { d.order.Module = carnet.Fingerprint{} }, carnet.Malformed},
		{"no record", func(_ *draft, s *dpm.Submission) { s.Record = "" }, carnet.Tampered},
		{"another record", func(_ *draft, s *dpm.Submission) { s.Record = other.Record }, carnet.Tampered},
		{"another record of the same program", func(_ *draft, s *dpm.Submission) { s.Record = twin.Record }, carnet.Tampered},
		{"another module than the program", func(d *draft, s *dpm.Submission) { d.order.Module, s.Record = other.Fingerprint, other.Record }, carnet.Tampered},
		{"another engine", func(d *draft, _ *dpm.Submission) { d.order.Task.Engine = "sql" }, carnet.Tampered},
		{"a record that nobody signed", func(d *draft, s *dpm.Submission) {
			s.Record = m.Record[:len(m.Record)-4] + "AAAA"
			d.order.Module = capsule.Fingerprint(s.Record)
		}, carnet.Unauthenticated},
	} {
		d := arena.draftFor(forge)
		d.order.Module = m.Fingerprint
		s := dpm.Submission{Record: m.Record}
		v.change(d, &s)
		signed := d.sign()
		signed.Record = s.Record
		_, err := forge.client("arena").Submit(t.Context(), d.order.Job, signed)
		if carnet.CodeOf(err) != v.code || (err == nil) != (v.code == "") {
			t.Errorf("%s: %v (code %q), want %q", v.name, err, carnet.CodeOf(err), v.code)
		}
		if v.code != "" {
			forge.opensNothing(v.name, "arena", d.order.Job)
		} else if _, err := forge.client("arena").Withdraw(t.Context(), d.order.Job, withdrawalOf(t, d)); err != nil {
			t.Error(err)
		}
	}
}

// A revoked module begins nowhere in its world, and what is under way ends as refused.
func TestARevokedModuleRunsNotInTheWorld(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 4)
	ctx := t.Context()
	counter, endless := arena.add("counter", "count"), arena.add("endless", "hang")
	done := arena.order(arena.specOf("", counter)).ID
	arena.done(done, arena.counts())
	runs := arena.order(arena.specOf("", endless)).ID
	arena.is(runs, "that it runs", func(i job.Info) bool { return i.Stand.Attempts == 1 })
	waits := arena.order(arena.specOf("", counter)).ID // one runs at once

	revoked := arena.revoke(counter)
	if s := arena.statements(ledger.ModuleRevoked, ""); len(s) != 1 || s[0].Object != capsule.Fingerprint(revoked.Revocations[0]) {
		t.Errorf("it is stated as %+v", s)
	}
	arena.refused(waits)
	if i, _ := arena.agent.Job(ctx, waits, false); i.Stand.Attempts != 0 {
		t.Error("it ran after it was revoked")
	}
	if i, _ := arena.agent.Job(ctx, runs, false); i.Stand.State == job.Ended {
		t.Errorf("the job of another module has ended: %s", i.Stand.Why)
	}
	arena.revoke(endless)
	arena.refused(runs)

	for restarted := range 2 {
		_, err := arena.agent.Order(ctx, arena.specOf("", counter))
		codeIs(t, "ordered", err, carnet.Forbidden)
		_, err = arena.agent.Plan(ctx, arena.specOf("", counter))
		codeIs(t, "planned", err, carnet.Forbidden)
		_, err = arena.agent.Repeat(ctx, done, "", time.Minute)
		codeIs(t, "repeated", err, carnet.Forbidden)
		_, err = arena.agent.RevokeModule(ctx, counter.ID(), "again", "")
		codeIs(t, "revoked again", err, carnet.Conflict)
		_, err = arena.agent.AddModule(ctx, job.NewModule{Program: []byte("count"), Name: "counter", Version: "1", Engine: "script"})
		codeIs(t, "added again", err, carnet.Conflict)
		if restarted == 0 {
			arena.stop()
			arena.start()
		}
	}
	if out, err := arena.agent.Output(ctx, done); err != nil || string(out) != arena.counts() {
		t.Errorf("what came out before is %q, %v", out, err)
	}
}

// At a DPM a revoked module is neither accepted nor given to a worker, and its jobs end
// as refused, signed by the DPM: those that wait, and those under way.
func TestARevokedModuleRunsNotAtADPM(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	ctx := t.Context()
	counter, endless := arena.add("counter", "count"), arena.add("endless", "hang")
	runs := arena.order(arena.specOf("forge", endless)).ID
	arena.is(runs, "that it runs there", func(i job.Info) bool { return i.Progress.State == string(dpm.Leased) })
	waits := arena.order(arena.specOf("forge", counter)).ID // the only worker is busy
	arena.is(waits, "that it waits there", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	for _, v := range []struct {
		id carnet.JobID
		m  job.Module
	}{{waits, counter}, {runs, endless}} {
		arena.revoke(v.m)
		arena.refused(v.id)
		s := forge.endsAs(t, "arena", v.id, capsule.Refused)
		if i, _ := arena.agent.Job(ctx, v.id, false); i.Stand.Result != s.Result {
			t.Error("the world ended it by another word than the DPM's")
		}
	}
	forge.opensNothing("revoked", "arena", waits)
	forge.opensNothing("revoked", "arena", runs)
	for restarted := range 2 {
		d := arena.draftFor(forge)
		d.order.Module = counter.Fingerprint
		s := d.sign()
		s.Record = counter.Record
		_, err := forge.client("arena").Submit(ctx, d.order.Job, s)
		codeIs(t, "brought", err, carnet.Forbidden)
		forge.opensNothing("brought", "arena", d.order.Job)
		if restarted == 0 {
			forge.restart()
		}
	}
	if n := forge.statements(ledger.ModuleRevoked, "arena"); n != 2 {
		t.Errorf("the DPM stated %d revocations", n)
	}
}

// A DPM that ended between storing a revocation and ending its jobs ends them at its next
// start, and gives none of them to a worker before.
func TestARevocationOutlivesTheDPM(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	ctx := t.Context()
	for name, asked := range map[string]bool{"before-a-worker-asks": true, "with-no-worker": false} {
		m := arena.add(name, "count")
		client, d := forge.client("arena"), arena.draftFor(forge)
		d.order.Module = m.Fingerprint
		s := d.sign()
		s.Record = m.Record
		_, err := client.Submit(ctx, d.order.Job, s)
		must(t, err)
		for _, content := range d.contents() {
			must(t, client.PutContent(ctx, d.order.Job, content))
		}
		forge.noted("arena", arena.revoke(m).Revocations[0])
		forge.restart()
		if asked {
			if got := forge.offered(t); got != nil {
				t.Errorf("a worker is given %s, whose module is revoked", got.Job)
			}
		}
		forge.endsAs(t, "arena", d.order.Job, capsule.Refused)
		forge.opensNothing(name, "arena", d.order.Job)
	}
}

// When a DPM has answered a revocation, no job that it counts for is under way.
func TestARevocationIsAnsweredWhenJobsHaveEnded(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	m := arena.add("counter", "count")
	d := arena.draftFor(forge)
	d.order.Module = m.Fingerprint
	s := d.sign()
	s.Record = m.Record
	client := forge.client("arena")
	_, err := client.Submit(t.Context(), d.order.Job, s)
	must(t, err)
	must(t, client.Revoke(t.Context(), arena.revoke(m).Revocations[0]))
	if s, err := client.Status(t.Context(), d.order.Job, 0, 0); err != nil || s.State != dpm.Ended || len(forge.jobKeys()) > 0 {
		t.Errorf("the job is %+v, %v, and the DPM has the keys %v", s, err, forge.jobKeys())
	}
}

// noted stores a revocation by who signed it, as a DPM has it that did no more.
func (o *office) noted(by carnet.PartyID, revocation string) {
	t := o.t
	t.Helper()
	id := string(by) + "." + capsule.Fingerprint(revocation).String()
	plain, err := json.Marshal(map[string]any{"revocation": revocation, "from": by, "own": true})
	must(t, err)
	sealer, err := o.table.Sealer(t.Context(), keys.ID{Kind: "rest", Name: "own"})
	must(t, err)
	body, err := sealer.Seal(nil, []byte("revocation "+id), plain)
	must(t, err)
	store, err := o.db.DPM(t.Context())
	must(t, err)
	must(t, store.Put(t.Context(), []carnet.Document{{Kind: "revocation", ID: id, Version: 1, Body: body}}, nil))
}

// What a DPM did before it heard of the revocation isn't taken after it.
func TestARevokedModulesResultIsNotTaken(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
	l := &liar{o: forge, tell: lie{silent: func(call string) bool { return call == "status" }}}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM {
		l.DPM = d
		return l
	})
	m := arena.add("counter", "count")
	id := arena.order(arena.specOf("forge", m)).ID
	arena.is(id, "that it is accepted", func(i job.Info) bool { return i.Stand.State == job.Accepted })
	b := &building{}
	for _, batch := range arena.batches {
		b.add(batch.Bytes)
	}
	for _, content := range [][]byte{[]byte("count"), b.data} {
		must(t, forge.client("arena").PutContent(t.Context(), id, content))
	}
	forge.endsAs(t, "arena", id, capsule.Done)
	arena.revoke(m)
	l.honor.Store(true)
	arena.refused(id)
}

// A DPM states each revocation that it takes, once, and takes so many of one peer.
func TestADPMTakesSoManyRevocations(t *testing.T) {
	c := &clock{}
	forge, arena, abbey := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4), newCustomer(t, c, "abbey", 4) // whose revocations are read before arena's
	forge.opens("arena", arena.key)
	forge.opens("abbey", abbey.key)
	ctx := t.Context()
	store, err := forge.db.DPM(ctx)
	must(t, err)
	stated := func() int {
		t.Helper()
		items, err := store.Pending(ctx, 0, 100)
		must(t, err)
		return len(items)
	}
	many := make([]carnet.Document, 4095)
	for i := range many {
		many[i] = carnet.Document{Kind: "revocation", ID: fmt.Sprintf("arena.%064x", i), Version: 1, Body: []byte{0}}
	}
	must(t, store.Put(ctx, many, nil))
	last, over := arena.revoke(arena.add("last", "count")).Revocations[0], arena.revoke(arena.add("over", "count")).Revocations[0]
	before := stated()
	for range 2 {
		must(t, forge.client("arena").Revoke(ctx, last))
	}
	codeIs(t, "one more than are taken", forge.client("arena").Revoke(ctx, over), carnet.TooLarge)
	must(t, forge.client("arena").Revoke(ctx, last))
	if n := stated() - before; n != 1 {
		t.Errorf("one revocation, told three times, is stated %d times", n)
	}
	must(t, forge.client("abbey").Revoke(ctx, over))
}

// deaf is a DPM that takes no word of modules, or is told none but about a job.
type deaf struct {
	job.DPM
	away, refuses atomic.Bool
	told          atomic.Int32 // revocations
}

func (d *deaf) Offer(ctx context.Context) (dpm.Offer, error) {
	if d.away.Load() {
		return dpm.Offer{}, carnet.Errorf(carnet.Unavailable, "nobody answers")
	}
	return d.DPM.Offer(ctx)
}

func (d *deaf) Revoke(ctx context.Context, message string) error {
	if d.refuses.Load() {
		return carnet.Errorf(carnet.TooLarge, "no more are taken")
	}
	d.told.Add(1)
	return d.DPM.Revoke(ctx, message)
}

// A DPM without a job of the module is told of each revocation, and of all again when it
// has begun anew: it may have been restored from an older copy.
func TestDPMsAreToldOfRevocations(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	d := &deaf{}
	arena.ordersFrom(forge, func(to job.DPM) job.DPM {
		d.DPM = to
		return d
	})
	for n, name := range []string{"first", "second"} {
		arena.revoke(arena.add(name, "count"))
		wait.Until(t, "that the DPM is told of the "+name, func() bool { return forge.statements(ledger.ModuleRevoked, "arena") == n+1 })
	}
	forge.restart()
	before := d.told.Load()
	wait.Until(t, "that a DPM that began anew is told again", func() bool { return d.told.Load() >= before+2 })
}

// A world hears from its DPM what a module's publisher said to it, and what it said itself
// before it was restored from an older copy; and not what another says for itself.
func TestWorldsHearOfRevocations(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4), newCustomer(t, c, "clinic", 4)
	ctx := t.Context()
	clinic.publishers = []string{identity.DID(public(arena.key))}
	for _, w := range []*customer{arena, clinic} {
		w.ordersFrom(forge, nil)
		w.stop()
		w.start()
	}
	endless, lasting := arena.add("endless", "hang"), arena.add("lasting", "count")
	for _, m := range []job.Module{endless, lasting} {
		_, err := clinic.agent.AddModule(ctx, job.NewModule{Program: []byte(map[string]string{"endless": "hang", "lasting": "count"}[m.Name]), Record: m.Record})
		must(t, err)
	}
	running := clinic.order(clinic.specOf("", endless)).ID
	clinic.is(running, "that it runs in the clinic", func(i job.Info) bool { return i.Progress.State == "running" })

	// The clinic's word for itself is shown to the clinic, the publisher's to both.
	must(t, forge.client("clinic").Revoke(ctx, clinic.word(lasting, "it counts what isn't ours")))
	arena.revoke(endless)
	clinic.refused(running)
	wait.Until(t, "the clinic knows its own word again", func() bool { m, err := clinic.agent.Module(lasting.ID()); return err == nil && m.Revoked != nil })
	for who, want := range map[carnet.PartyID]int{"arena": 1, "clinic": 2} {
		words, err := forge.client(who).Revoked(ctx, []string{endless.Record, lasting.Record})
		if err != nil || len(words) != want {
			t.Errorf("%s is told of %d revocations, %v", who, len(words), err)
		}
	}
	if m, err := arena.agent.Module(lasting.ID()); err != nil || m.Revoked != nil {
		t.Errorf("arena's module is revoked by the clinic's word for itself: %v, %v", m.Revoked, err)
	}
	if words, err := forge.client("arena").Revoked(ctx, nil); err != nil || len(words) > 0 {
		t.Errorf("who asks about nothing is told %v, %v", words, err)
	}
}

// tattler is a DPM that tells of more revocations than it knows.
type tattler struct {
	job.DPM
	before []string
	asked  atomic.Int32
}

func (d *tattler) Revoked(ctx context.Context, records []string) ([]string, error) {
	words, err := d.DPM.Revoked(ctx, records)
	d.asked.Add(1)
	return append(slices.Clone(d.before), words...), err
}

// lines is a log.
type lines struct {
	mu  sync.Mutex
	all []byte // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, p...)
	return len(p), nil
}

// What a DPM tells of revocations that are none keeps those that are from nobody, and is
// said once; one that tells of more than there can be isn't listened to.
func TestADPMThatTellsOfRevocationsThatAreNone(t *testing.T) {
	c := &clock{}
	for _, nothings := range []int{1, 300} {
		forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
		d, log := &tattler{before: slices.Repeat([]string{"", "a.b.c"}, nothings)[:nothings]}, &lines{}
		arena.ordersFrom(forge, func(to job.DPM) job.DPM { d.DPM = to; return d })
		m := arena.add("counts", "count")
		must(t, forge.client("arena").Revoke(t.Context(), arena.word(m, "it counts what isn't ours")))
		arena.log = slog.New(slog.NewTextHandler(log, nil))
		arena.stop()
		arena.start()
		if nothings == 1 {
			wait.Until(t, "what is one counts", func() bool { m, err := arena.agent.Module(m.ID()); return err == nil && m.Revoked != nil })
			continue
		}
		wait.Until(t, "it is asked", func() bool { return d.asked.Load() > 0 })
		wait.Until(t, "it is said", func() bool { log.mu.Lock(); defer log.mu.Unlock(); return len(log.all) > 0 })
		log.mu.Lock()
		if n := len(log.all); n > 1000 || !strings.Contains(string(log.all), "forge tells of 301 revocations, and of 1 modules there can be 2") {
			t.Errorf("of %d words that are none %d bytes are logged: %.500s", nothings, n, log.all)
		}
		log.mu.Unlock()
	}
}

// A world tells the DPM that has a job of the module before it lets go of it, and
// withdraws the job from one that takes no such word.
func TestAWorldEndsTheJobsOfARevokedModule(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
	d := &deaf{}
	arena.ordersFrom(forge, func(to job.DPM) job.DPM {
		d.DPM = to
		return d
	})
	for name, refuses := range map[string]bool{"told": false, "not-told": true} {
		m := arena.add(name, "hang")
		id := arena.order(arena.specOf("forge", m)).ID
		arena.is(id, "that it runs there", func(i job.Info) bool { return i.Progress.State == string(dpm.Leased) })
		d.away.Store(true) // who tells DPMs of all revocations asks for the offer first
		d.refuses.Store(refuses)
		arena.revoke(m)
		if refuses {
			if i := arena.ended(id); i.Stand.Outcome != capsule.Withdrawn || i.Output != nil {
				t.Errorf("at a DPM that takes no revocation the job is %s: %s", i.Stand.Outcome, i.Stand.Why)
			}
			forge.endsAs(t, "arena", id, capsule.Withdrawn)
		} else {
			arena.refused(id)
			forge.endsAs(t, "arena", id, capsule.Refused)
		}
		forge.opensNothing(name, "arena", id)
		d.away.Store(false)
	}
}

// A publisher's revocation counts for every world's jobs, whoever tells of it; a world's
// own for its own.
func TestForWhomARevocationCounts(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge").withWorkers(2), newCustomer(t, c, "arena", 4), newCustomer(t, c, "clinic", 4)
	arena.ordersFrom(forge, nil)
	clinic.ordersFrom(forge, nil)
	ctx := t.Context()
	clinic.stop()
	clinic.publishers = []string{identity.DID(public(arena.key))}
	clinic.start()
	take := func(m job.Module) job.Module {
		theirs, err := clinic.agent.AddModule(ctx, job.NewModule{Program: []byte("hang"), Record: m.Record})
		must(t, err)
		return theirs
	}
	order := func(w *customer, m job.Module) carnet.JobID {
		id := w.order(w.specOf("forge", m)).ID
		w.is(id, "that it runs there", func(i job.Info) bool { return i.Progress.State == string(dpm.Leased) })
		return id
	}
	m := arena.add("endless", "hang")
	theirs := take(m)
	a, b := order(arena, m), order(clinic, theirs)
	own := clinic.revoke(theirs)
	clinic.refused(b)
	_, err := arena.agent.RevokeModule(ctx, m.ID(), "", own.Revocations[0])
	codeIs(t, "another world's revocation", err, carnet.Forbidden)
	must(t, forge.client("arena").Revoke(ctx, own.Revocations[0]))
	if s, err := forge.client("arena").Status(ctx, a, 0, 0); err != nil || s.State != dpm.Leased {
		t.Errorf("the clinic's word for itself ended arena's job: %+v, %v", s, err)
	}
	ended := arena.revoke(m)
	arena.refused(a)

	other, err := arena.agent.AddModule(ctx, job.NewModule{Program: []byte("hang"), Name: "endless", Version: "2", Engine: "script"})
	must(t, err)
	_, err = arena.agent.RevokeModule(ctx, other.ID(), "", ended.Revocations[0])
	codeIs(t, "the revocation of another version", err, carnet.Forbidden)
	b = order(clinic, take(other))
	word := arena.revoke(other).Revocations[0] // arena has no job of it: it tells its DPMs
	clinic.refused(b)
	if _, err := clinic.agent.RevokeModule(ctx, other.ID(), "", word); err != nil {
		t.Errorf("the publisher's revocation, brought to the clinic: %v", err)
	}
	_, err = clinic.agent.Order(ctx, clinic.specOf("", other))
	codeIs(t, "ordered in the clinic", err, carnet.Forbidden)
}
