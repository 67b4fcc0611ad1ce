package capsule_test

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/seal"
	"carnet/test/wait"
)

// draft is a capsule in the making: each part of it may be changed before it is signed.
type draft struct {
	w       *customer
	by      ed25519.PrivateKey // signs order and bags
	to      *seal.Reception    // to which bags are sealed
	order   capsule.Order
	terms   seal.Terms
	key     seal.Key
	ceiling carnet.Label
	bags    [][]byte // nil: one, as is said above
	other   [][]byte // brought instead of those that the order names
	spoil   bool     // the order has the signature of another
}

// draftFor is a capsule that a DPM takes.
func (w *customer) draftFor(o *office) *draft {
	t := w.t
	t.Helper()
	offer, err := o.client(w.name).Offer(t.Context())
	must(t, err)
	to, err := seal.ParseReception(offer.Reception, public(o.key), w.clock.now())
	must(t, err)
	made := w.clock.now().UTC().Truncate(time.Second)
	d := &draft{w: w, by: w.key, to: to, ceiling: health}
	program, b := []byte("count"), &building{}
	for _, batch := range w.batches[:2] { // of slot 0
		b.add(batch.Bytes)
	}
	d.order = capsule.Order{
		Job: carnet.NewJobID(), By: w.name, For: o.name, Purpose: "fitness", Terms: terms, Label: capsule.LabelOf(health), Reception: w.reception.ID(), Made: made, Until: made.Add(10 * time.Minute),
		Task: capsule.Task{Engine: "script", Program: capsule.Content{Fingerprint: carnet.FingerprintOf(program), Size: int64(len(program))}, To: 1 << 62, Inputs: []capsule.Input{b.input()}, Limits: roomy},
	}
	d.terms = seal.Terms{
		Granter: w.name, Grant: d.order.Job, Purpose: "fitness", Clearance: carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}, Time: made, NotAfter: d.order.Until,
	}
	slot, err := w.epoch.Slot(0)
	must(t, err)
	d.key = slot.Key()
	return d
}

// contents are what a draft's job needs.
func (d *draft) contents() [][]byte {
	b := &building{}
	for _, batch := range d.w.batches[:2] {
		b.add(batch.Bytes)
	}
	return [][]byte{[]byte("count"), b.data}
}

// building is an input in the making.
type building struct {
	data   []byte
	leaves []carnet.Fingerprint
}

func (b *building) add(batch []byte) {
	n := len(batch)
	b.data = append(append(b.data, byte(n>>24), byte(n>>16), byte(n>>8), byte(n)), batch...)
	b.leaves = append(b.leaves, carnet.FingerprintOf(batch))
}

func (b *building) input() capsule.Input {
	return capsule.Input{Content: capsule.Content{Fingerprint: carnet.FingerprintOf(b.data), Size: int64(len(b.data))}, Avatar: "a1", Batches: len(b.leaves), Root: seal.Root(b.leaves)}
}

// sign makes the capsule of a draft.
func (d *draft) sign() dpm.Submission {
	t := d.w.t
	t.Helper()
	if d.bags == nil {
		bag, err := seal.Grant(d.by, d.to, d.terms, []seal.Entry{{Key: d.key, Ceiling: d.ceiling}})
		must(t, err)
		d.bags = [][]byte{bag}
	}
	d.order.Bags = nil
	for _, b := range d.bags {
		d.order.Bags = append(d.order.Bags, carnet.FingerprintOf(b))
	}
	if d.other != nil {
		d.bags = d.other
	}
	order, err := d.order.Sign(d.by)
	must(t, err)
	if d.spoil {
		another := d.order
		another.Purpose = "care"
		signed, err := another.Sign(d.by)
		must(t, err)
		order = order[:strings.LastIndex(order, ".")] + signed[strings.LastIndex(signed, "."):]
	}
	reception, err := d.w.AnnounceTo(d.w.key, d.w.name)
	must(t, err)
	return dpm.Submission{Order: order, Bags: d.bags, Reception: reception}
}

// opensNothing fails if a DPM has a key of any job, or a job of that id.
func (o *office) opensNothing(after string, who carnet.PartyID, id carnet.JobID) {
	o.t.Helper()
	wait.Until(o.t, after+": "+string(o.name)+" has no key", func() bool { return len(o.jobKeys()) == 0 })
	s, err := o.client(who).Status(o.t.Context(), id, 0, 0)
	if err == nil && s.State != dpm.Ended || err != nil && carnet.CodeOf(err) != carnet.NotFound {
		o.t.Errorf("%s: at %s the job is %+v, %v", after, o.name, s, err)
	}
}

// A capsule opens at the DPM that it was made for, in its time, for its world, by its
// order. Each case is the one that succeeds with one thing changed.
func TestOneThingChanged(t *testing.T) {
	c := &clock{}
	forge, lab := newOffice(t, c, "forge"), newOffice(t, c, "lab")
	arena, clinic := newCustomer(t, c, "arena", 4), newCustomer(t, c, "clinic", 4)
	for _, o := range []*office{forge, lab} {
		o.opens("arena", arena.key)
		o.opens("clinic", clinic.key)
	}
	labs, err := lab.client("arena").Offer(t.Context())
	must(t, err)
	labKey, err := seal.ParseReception(labs.Reception, public(lab.key), c.now())
	must(t, err)
	type call struct {
		at   *office
		from carnet.PartyID
		id   carnet.JobID
	}
	for _, v := range []struct {
		name   string
		change func(*draft, *call)
		code   carnet.Code
	}{
		{"nothing", nil, ""},
		{"brought to another DPM", func(_ *draft, c *call) { c.at = lab }, carnet.Forbidden},
		{"for another DPM, with bags for this one", func(d *draft, c *call) { d.order.For, c.at = "lab", lab }, carnet.NotFound},
		{"with a bag that is sealed to another DPM", func(d *draft, _ *call) { d.to = labKey }, carnet.NotFound},
		{"brought by another world", func(_ *draft, c *call) { c.from = "clinic" }, carnet.Malformed},
		{"brought by nobody who is known", func(_ *draft, c *call) { c.from = "citadel" }, carnet.Forbidden},
		{"signed by another world", func(d *draft, _ *call) { d.by = clinic.key }, carnet.Malformed},
		{"with another's signature under it", func(d *draft, _ *call) { d.spoil = true }, carnet.Unauthenticated},
		{"in another world's name", func(d *draft, _ *call) { d.order.By, d.terms.Granter = "clinic", "clinic" }, carnet.Forbidden},
		{"under another id", func(_ *draft, c *call) { c.id = carnet.NewJobID() }, carnet.Forbidden},
		{"by other terms", func(d *draft, _ *call) { d.order.Terms = carnet.Fingerprint{8} }, carnet.Forbidden},
		{"after its time", func(d *draft, _ *call) {
			d.order.Made, d.order.Until = d.order.Made.Add(-time.Hour), d.order.Made.Add(-time.Second)
		}, carnet.TooOld},
		{"before its time", func(d *draft, _ *call) {
			d.order.Made, d.order.Until = d.order.Made.Add(time.Hour), d.order.Made.Add(2*time.Hour)
		}, carnet.TooNew},
		{"with a bag that is over", func(d *draft, _ *call) { d.terms.Time, d.terms.NotAfter = d.terms.Time.Add(-time.Hour), d.terms.Time }, carnet.TooOld},
		{"with a bag that is good for longer", func(d *draft, _ *call) { d.terms.NotAfter = d.terms.NotAfter.Add(time.Second) }, carnet.Forbidden},
		{"with a bag of another job", func(d *draft, _ *call) { d.terms.Grant = carnet.NewJobID() }, carnet.Forbidden},
		{"with a bag for another purpose", func(d *draft, _ *call) { d.terms.Purpose, d.terms.Clearance.Purposes = "care", "care" }, carnet.Forbidden},
		{"with a bag by another world's name", func(d *draft, _ *call) { d.terms.Granter = "clinic" }, carnet.Forbidden},
		{"with another bag than the order names", func(d *draft, _ *call) {
			bag, err := seal.Grant(d.by, d.to, d.terms, []seal.Entry{{Key: d.key, Ceiling: d.ceiling}})
			must(t, err)
			d.other = [][]byte{bag}
		}, carnet.Tampered},
		{"without its bag", func(d *draft, _ *call) { d.other = [][]byte{} }, carnet.Malformed},
		{"for another purpose", func(d *draft, _ *call) { d.order.Purpose = "care" }, carnet.Forbidden},
		{"with the key of a whole epoch", func(d *draft, _ *call) { d.key = arena.epoch }, carnet.Malformed},
		{"with data that the DPM may not have", func(d *draft, _ *call) {
			d.terms.Clearance.Sensitivity |= carnet.Location
			d.ceiling.Sensitivity |= carnet.Location
		}, carnet.Forbidden},
		{"to a reception key that isn't the order's", func(d *draft, _ *call) { d.order.Reception = carnet.Fingerprint{1} }, carnet.Malformed},
		{"for an engine that isn't there", func(d *draft, _ *call) { d.order.Task.Engine = "duckdb" }, carnet.Forbidden},
		{"with more memory than there is", func(d *draft, _ *call) { d.order.Task.Limits.Memory *= 2 }, carnet.TooLarge},
	} {
		d := arena.draftFor(forge)
		call := call{forge, "arena", d.order.Job}
		if v.change != nil {
			v.change(d, &call)
		}
		said, err := call.at.client(call.from).Submit(t.Context(), call.id, d.sign())
		if carnet.CodeOf(err) != v.code || (err == nil) != (v.code == "") {
			t.Errorf("%s: %v (code %q), want %q", v.name, err, carnet.CodeOf(err), v.code)
		}
		if v.code != "" {
			forge.opensNothing(v.name, call.from, call.id)
			lab.opensNothing(v.name, call.from, call.id)
			continue
		}
		if a, err := capsule.OpenAcceptance(said, public(forge.key)); err != nil || a.Job != d.order.Job {
			t.Errorf("%s: %+v, %v", v.name, a, err)
		}
		if len(forge.jobKeys()) != 1 {
			t.Errorf("%s: the DPM has the keys %v", v.name, forge.jobKeys())
		}
		message := withdrawalOf(t, d)
		_, err = forge.client("arena").Withdraw(t.Context(), d.order.Job, message)
		must(t, err)
	}
}

// withdrawalOf withdraws a draft's order.
func withdrawalOf(t *testing.T, d *draft) string {
	t.Helper()
	order, err := d.order.Sign(d.by)
	must(t, err)
	message, err := (capsule.Withdrawal{Job: d.order.Job, Order: capsule.Fingerprint(order), Why: "test", Made: d.order.Made}).Sign(d.by)
	must(t, err)
	return message
}

// run is a job that a DPM has, whole, and whose worker is the test itself.
type run struct {
	*draft
	capsule dpm.Submission
	got     *dpm.Assignment
}

// leased brings a capsule with its content, and has it leased.
func leased(t *testing.T, w *customer, o *office) *run {
	t.Helper()
	r := &run{draft: w.draftFor(o)}
	r.capsule = r.sign()
	c := o.client(w.name)
	_, err := c.Submit(t.Context(), r.order.Job, r.capsule)
	must(t, err)
	for _, content := range r.contents() {
		must(t, c.PutContent(t.Context(), r.order.Job, content))
	}
	r.got, err = o.agent.Lease(t.Context(), "test")
	must(t, err)
	if r.got.Job != r.order.Job || len(r.got.Keys) != 1 {
		t.Fatalf("the worker is given %+v", r.got)
	}
	return r
}

// refusesAll fails if anything of a job that has ended can still be had or done.
func (r *run) refusesAll(t *testing.T, o *office, after string) {
	t.Helper()
	ctx, c := t.Context(), o.client(r.w.name)
	o.opensNothing(after, r.w.name, r.order.Job)
	if err := o.agent.Renew(ctx, r.got.Ticket, dpm.Progress{}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("%s a worker renews its lease: %v", after, err)
	}
	if _, err := o.agent.Content(ctx, r.got.Ticket, r.order.Task.Program.Fingerprint); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("%s a worker is given content: %v", after, err)
	}
	if err := o.agent.PutPart(ctx, r.got.Ticket, 0, []byte("x")); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("%s a worker puts a part: %v", after, err)
	}
	if err := o.agent.End(ctx, r.got.Ticket, dpm.Ran{Outcome: capsule.Done}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("%s an attempt ends as done: %v", after, err)
	}
	if err := c.PutContent(ctx, r.order.Job, r.contents()[0]); err == nil {
		t.Errorf("%s content is taken", after)
	}
	wait.Until(t, after+" nothing is kept", func() bool { return len(o.kept()) == 0 })
	// The capsule, brought again, is answered and opens nothing.
	_, err := c.Submit(ctx, r.order.Job, r.capsule)
	if code := carnet.CodeOf(err); err != nil && code != carnet.Conflict && code != carnet.TooOld {
		t.Errorf("%s the capsule, brought again: %v", after, err)
	}
	o.opensNothing(after+" and brought again", r.w.name, r.order.Job)
	if got := o.offered(t); got != nil {
		t.Errorf("%s a worker is given the job %s", after, got.Job)
	}
}

// offered is what a worker gets that asks now.
func (o *office) offered(t *testing.T) *dpm.Assignment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	got, err := o.agent.Lease(ctx, "another")
	must(t, err)
	return got
}

// After its time a capsule opens nothing: not what runs, not what waits, not brought
// again, and not after a restart.
func TestAfterItsTime(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	r := leased(t, arena, forge)
	if err := forge.agent.Renew(t.Context(), r.got.Ticket, dpm.Progress{}); err != nil {
		t.Fatal(err)
	}
	c.move(10 * time.Minute)
	s := forge.endsAs(t, "arena", r.order.Job, capsule.Expired)
	r.refusesAll(t, forge, "after its time")
	forge.restart()
	r.refusesAll(t, forge, "after its time and a restart")
	if again := forge.endsAs(t, "arena", r.order.Job, capsule.Expired); again.Result != s.Result {
		t.Error("the result is another after a restart")
	}
	c.move(25 * time.Hour) // it is forgotten, and its order is still over
	wait.Until(t, "it is forgotten", func() bool { return forge.agent.Counts().Ended == 0 })
	r.refusesAll(t, forge, "when it is forgotten")
}

// endsAs waits for a job's end.
func (o *office) endsAs(t *testing.T, who carnet.PartyID, id carnet.JobID, want capsule.Outcome) dpm.Status {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s, err := o.client(who).Status(t.Context(), id, 0, 0)
		must(t, err)
		if s.State == dpm.Ended {
			r, err := capsule.OpenResult(s.Result, public(o.key))
			if err != nil || r.Outcome != want || r.Job != id {
				t.Fatalf("the result is %+v, %v; want %s", r, err, want)
			}
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("the job is %+v; want %s", s, want)
		}
	}
}

// After a withdrawal a capsule opens nothing, wherever the job stood, also if the DPM
// hears of the withdrawal first.
func TestAfterAWithdrawal(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	ctx, client := t.Context(), forge.client("arena")
	t.Run("while it runs", func(t *testing.T) {
		r := leased(t, arena, forge)
		_, err := client.Withdraw(ctx, r.order.Job, withdrawalOf(t, r.draft))
		must(t, err)
		if len(forge.jobKeys()) > 0 { // at once: the answer says so
			t.Errorf("the keys are still there when the withdrawal is answered: %v", forge.jobKeys())
		}
		forge.endsAs(t, "arena", r.order.Job, capsule.Withdrawn)
		r.refusesAll(t, forge, "after the withdrawal")
		forge.restart()
		client = forge.client("arena")
		r.refusesAll(t, forge, "after the withdrawal and a restart")
	})
	t.Run("when it is done", func(t *testing.T) {
		r := leased(t, arena, forge)
		must(t, forge.agent.PutPart(ctx, r.got.Ticket, 0, []byte("sealed")))
		must(t, forge.agent.End(ctx, r.got.Ticket, dpm.Ran{Outcome: capsule.Done, Parts: 1}))
		forge.endsAs(t, "arena", r.order.Job, capsule.Done)
		if _, err := client.Part(ctx, r.order.Job, 1, 0); err != nil {
			t.Fatalf("the part isn't there: %v", err)
		}
		_, err := client.Withdraw(ctx, r.order.Job, withdrawalOf(t, r.draft))
		must(t, err)
		forge.endsAs(t, "arena", r.order.Job, capsule.Withdrawn)
		if _, err := client.Part(ctx, r.order.Job, 1, 0); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("the part can still be had: %v", err)
		}
		r.refusesAll(t, forge, "after the withdrawal")
	})
	t.Run("before it came", func(t *testing.T) {
		d := arena.draftFor(forge)
		s := d.sign()
		_, err := client.Withdraw(ctx, d.order.Job, withdrawalOf(t, d))
		must(t, err)
		forge.restart()
		client = forge.client("arena")
		if _, err := client.Submit(ctx, d.order.Job, s); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("a capsule that was withdrawn before it came: %v", err)
		}
		forge.opensNothing("withdrawn before it came", "arena", d.order.Job)
	})
	t.Run("by whom, and of what", func(t *testing.T) {
		r := leased(t, arena, forge)
		other := arena.draftFor(forge)
		forged := withdrawalOf(t, &draft{by: newKey(), order: r.order})
		if _, err := client.Withdraw(ctx, r.order.Job, forged); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("a withdrawal by another key: %v", err)
		}
		other.sign()
		if _, err := client.Withdraw(ctx, r.order.Job, withdrawalOf(t, other)); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("a withdrawal of another job: %v", err)
		}
		changed := *r.draft
		changed.order.Purpose = "care"
		if _, err := client.Withdraw(ctx, r.order.Job, withdrawalOf(t, &changed)); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("a withdrawal of another order: %v", err)
		}
		if err := forge.agent.Renew(ctx, r.got.Ticket, dpm.Progress{}); err != nil {
			t.Errorf("a withdrawal that isn't its own ended the job: %v", err)
		}
		_, err := client.Withdraw(ctx, r.order.Job, withdrawalOf(t, r.draft))
		must(t, err)
	})
}

// The keys with which bags open are drawn anew, and an old one is destroyed when no job
// can need it any more: a capsule of then opens nothing, whoever has the disk.
func TestReceptionKeysEnd(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	d := arena.draftFor(forge)
	s := d.sign()
	forge.restart() // the key of before is still there
	if _, err := forge.client("arena").Submit(t.Context(), d.order.Job, s); err != nil {
		t.Errorf("a capsule for the reception key of before: %v", err)
	}
	c.move(3 * 24 * time.Hour)
	forge.restart()
	ids, err := forge.table.List(t.Context(), "reception", "")
	must(t, err)
	if len(ids) != 1 {
		t.Errorf("after three days the DPM has the reception keys %v", ids)
	}
}
