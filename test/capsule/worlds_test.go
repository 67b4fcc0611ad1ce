package capsule_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
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

// Two worlds have jobs at one DPM, under one id even: to each, the other's isn't there.
// What is answered about another's job is what is answered about none.
func TestTwoWorlds(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4), newCustomer(t, c, "clinic", 4)
	forge.opens("arena", arena.key)
	forge.opens("clinic", clinic.key)
	r := leased(t, arena, forge)
	ctx, a, b := t.Context(), forge.client("arena"), forge.client("clinic")
	must(t, forge.agent.PutPart(ctx, r.got.Ticket, 0, []byte("sealed")))
	id, none := r.order.Job, carnet.NewJobID()
	arenas := withdrawalOf(t, r.draft)
	clinics := func(id carnet.JobID) string {
		d := clinic.draftFor(forge)
		d.order.Job = id
		d.sign()
		return withdrawalOf(t, d)
	}
	for name, ask := range map[string]func(carnet.JobID) error{
		"where it stands": func(id carnet.JobID) error { _, err := b.Status(ctx, id, 0, 0); return err },
		"a part":          func(id carnet.JobID) error { _, err := b.Part(ctx, id, 1, 0); return err },
		"content":         func(id carnet.JobID) error { return b.PutContent(ctx, id, r.contents()[0]) },
		"taken":           func(id carnet.JobID) error { return b.Taken(ctx, id, "") },
	} {
		there, not := ask(id), ask(none)
		blind := func(err error, id carnet.JobID) string {
			return strings.ReplaceAll(err.Error(), id.String(), "ID")
		}
		if carnet.CodeOf(there) != carnet.NotFound || carnet.CodeOf(not) != carnet.NotFound || blind(there, id) != blind(not, none) {
			t.Errorf("the clinic is told of arena's job by %s: %v, and of none: %v", name, there, not)
		}
	}
	// A withdrawal of an id that isn't the clinic's ends nothing of arena's.
	if _, err := b.Withdraw(ctx, id, arenas); err == nil {
		t.Error("the clinic brings arena's withdrawal")
	}
	if _, err := b.Withdraw(ctx, id, clinics(id)); err != nil {
		t.Errorf("the clinic withdraws what never came: %v", err)
	}
	must(t, forge.agent.Renew(ctx, r.got.Ticket, dpm.Progress{}))

	// The clinic's own job of that id is withdrawn; another of its jobs over the same
	// program begins from nothing.
	d := clinic.draftFor(forge)
	_, err := b.Submit(ctx, d.order.Job, d.sign())
	must(t, err)
	s, err := b.Status(ctx, d.order.Job, 0, 0)
	if err != nil || len(s.Lacks) != 2 {
		t.Errorf("of what arena has brought, the clinic's job lacks %v, %v: want both contents", s.Lacks, err)
	}
	for _, content := range d.contents() {
		must(t, b.PutContent(ctx, d.order.Job, content))
	}
	got, err := forge.agent.Lease(ctx, "test-2")
	if err != nil || got.Job != d.order.Job || len(got.Keys) != 1 || got.Keys[0].Path != d.key.Path.String() {
		t.Fatalf("a worker is given %+v, %v: want the clinic's job with its one key", got, err)
	}
	// One attempt isn't the other's.
	if _, err := forge.agent.Content(ctx, got.Ticket, r.order.Task.Inputs[0].Fingerprint); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the clinic's worker is given arena's input: %v", err)
	}
	mixed := got.Ticket
	mixed.Job = id
	if _, err := forge.agent.Content(ctx, mixed, r.order.Task.Inputs[0].Fingerprint); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("by a ticket of the clinic, arena's input: %v", err)
	}

	// What one is told holds nothing of the other: not its name, ids, keys or bytes.
	status, err := json.Marshal(s)
	must(t, err)
	offer, err := b.Offer(ctx)
	must(t, err)
	signed, err := capsule.OpenOffer(offer.Offer, public(forge.key))
	must(t, err)
	said, err := json.Marshal(signed)
	must(t, err)
	for _, secret := range []string{"arena", id.String(), carnet.FingerprintOf([]byte(r.capsule.Order)).String(), arena.epoch.Stream.String()} {
		if bytes.Contains(status, []byte(secret)) || bytes.Contains(said, []byte(secret)) {
			t.Errorf("the clinic is told %s of arena's", secret)
		}
	}
	// Their statements name the one whose job it is.
	if n, m := forge.statements(ledger.JobAccepted, "arena"), forge.statements(ledger.JobAccepted, "clinic"); n != 1 || m != 1 {
		t.Errorf("the DPM stated %d jobs of arena and %d of the clinic", n, m)
	}
	// On disk each has a place of its own; what ends of one leaves the other.
	_, err = a.Withdraw(ctx, id, arenas)
	must(t, err)
	for _, path := range []string{"arena." + id.String(), "clinic." + d.order.Job.String()} {
		_, err := os.Stat(filepath.Join(forge.dir, "jobs", path))
		if strings.HasPrefix(path, "arena") != os.IsNotExist(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(forge.jobKeys()) != 1 {
		t.Errorf("the keys %v are left: want the clinic's one", forge.jobKeys())
	}
	must(t, forge.agent.Renew(ctx, got.Ticket, dpm.Progress{}))
}

// What a DPM offers is of who asks: its jobs that wait and nobody else's, and what it may
// be given. A world orders nothing beyond that.
func TestAnOfferIsOfItsCaller(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2), newCustomer(t, c, "clinic", 2)
	l := &liar{o: forge}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
	clinic.ordersFrom(forge, nil)
	for range 3 {
		arena.order(arena.spec("forge", "script", "count"))
	}
	offered := func(who carnet.PartyID) capsule.Offer {
		said, err := forge.client(who).Offer(t.Context())
		must(t, err)
		o, err := capsule.OpenOffer(said.Offer, public(forge.key))
		must(t, err)
		return o
	}
	wait.Until(t, "three jobs of arena wait", func() bool { return offered("arena").Waiting == 3 })
	if o := offered("clinic"); o.Waiting != 0 || o.Clearance == nil || o.Clearance.Label() != (carnet.Label{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}) {
		t.Errorf("the clinic is offered %+v", o)
	}
	if _, err := forge.client("stranger").Offer(t.Context()); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("somebody that is no peer is offered something: %v", err)
	}
	for _, v := range []struct {
		name      string
		clearance *capsule.Label
		code      carnet.Code
	}{
		{"less than the terms", &capsule.Label{Sensitivity: carnet.Personal, Purposes: []string{"fitness"}}, carnet.Forbidden},
		{"another purpose", &capsule.Label{Sensitivity: carnet.Personal | carnet.Health, Purposes: []string{"care"}}, carnet.Forbidden},
		{"nothing of it", nil, ""},
	} {
		l.tell.offer = func(o *capsule.Offer) { o.Clearance = v.clearance }
		if _, err := arena.agent.Order(t.Context(), arena.spec("forge", "script", "count")); carnet.CodeOf(err) != v.code {
			t.Errorf("an order where the offer says %s: %v", v.name, err)
		}
	}
}

// A world that orders without end doesn't keep another from its turn.
func TestTurns(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2), newCustomer(t, c, "clinic", 2)
	forge.opens("arena", arena.key)
	forge.opens("clinic", clinic.key)
	ctx := t.Context()
	bring := func(w *customer) error {
		d, client := w.draftFor(forge), forge.client(w.name)
		if _, err := client.Submit(ctx, d.order.Job, d.sign()); err != nil {
			return err
		}
		for _, content := range d.contents() {
			must(t, client.PutContent(ctx, d.order.Job, content))
		}
		return nil
	}
	for range 64 {
		must(t, bring(arena))
	}
	if err := bring(arena); carnet.CodeOf(err) != carnet.TooLarge || strings.Contains(err.Error(), "clinic") {
		t.Errorf("arena's 65th job: %v", err)
	}
	must(t, bring(clinic))
	var peers []carnet.PartyID
	for range 2 {
		got, err := forge.agent.Lease(ctx, "test")
		must(t, err)
		peers = append(peers, got.Peer)
	}
	if peers[0] != "arena" || peers[1] != "clinic" {
		t.Errorf("two workers are given jobs of %v: want one of each", peers)
	}
}

// Both worlds' jobs go through at once, and each gets its own.
func TestBothAreServed(t *testing.T) {
	c := &clock{}
	forge, arena, clinic := newOffice(t, c, "forge").withWorkers(2), newCustomer(t, c, "arena", 3), newCustomer(t, c, "clinic", 5)
	arena.ordersFrom(forge, nil)
	clinic.ordersFrom(forge, nil)
	var all []job.Info
	for range 3 {
		all = append(all, arena.order(arena.spec("forge", "script", "count")), clinic.order(clinic.spec("forge", "script", "count")))
	}
	for i, j := range all {
		w := []*customer{arena, clinic}[i%2]
		done := w.done(j.ID, w.counts())
		if got := done.Output.Measurements; int(got) != 10*len(w.batches) {
			t.Errorf("%s: the program was given %d measurements", w.name, got)
		}
	}
	for _, w := range []*customer{arena, clinic} {
		other := map[*customer]*customer{arena: clinic, clinic: arena}[w]
		for _, j := range w.agent.Jobs() {
			if _, err := other.agent.Job(t.Context(), j.ID, false); carnet.CodeOf(err) != carnet.NotFound {
				t.Errorf("%s knows a job of %s: %v", other.name, w.name, err)
			}
		}
	}
	wait.Until(t, "no key is left", func() bool { return len(forge.jobKeys()) == 0 })
}

// What isn't asked as it should be is answered with a reason, and harms nobody.
func TestBadCalls(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	r := leased(t, arena, forge)
	ask := func(method, path, body string) int {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, forge.server.URL+"/r6/"+path, strings.NewReader(body))
		must(t, err)
		resp, err := as("arena").RoundTrip(req)
		must(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	job := "jobs/" + r.order.Job.String()
	for _, v := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", "jobs/x", "{}", 400}, {"PUT", "jobs/" + carnet.NewJobID().String(), "{}", 400}, {"PUT", "jobs/" + carnet.NewJobID().String(), `{"order":"a.b.c","extra":1}`, 400},
		{"PUT", job, `{"order":"another"}`, 409}, {"PUT", job + "/content/" + carnet.Fingerprint{}.String(), "x", 204}, {"PUT", job + "/content/x", "x", 400},
		{"GET", job + "?after=x", "", 400}, {"GET", job + "?wait=-1", "", 400}, {"GET", job + "/parts/1/x", "", 400}, {"GET", job + "/parts/0/0", "", 404}, {"GET", job + "/parts/1/99999999999999999999", "", 400},
		{"POST", job + "/withdrawal", "null", 400}, {"POST", job + "/taken", `{"taken":"x"}`, 400}, {"DELETE", job, "", 405},
	} {
		if got := ask(v.method, v.path, v.body); got != v.want {
			t.Errorf("%s %s %s is answered with %d, want %d", v.method, v.path, v.body, got, v.want)
		}
	}
	must(t, forge.agent.Renew(t.Context(), r.got.Ticket, dpm.Progress{}))
}
