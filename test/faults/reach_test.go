package faults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/capsule"
	"carnet/erasure"
	"carnet/identity"
	"carnet/item"
	"carnet/job"
	"carnet/test/wait"
)

// reached is a town in which an avatar of arena's has left something with everybody: the
// clinic takes it by a share, and has computed over it; forge has computed over it for
// arena, and is at it; and it has an item.
type reached struct {
	*shelving
	w          *works
	forge      *party
	done, runs api.Job // of arena's, at forge
	theirs     api.Job // of the clinic's
	sword      api.Item
	clinics    carnet.StreamID // which the watch itself fills; not known on PostgreSQL
}

func newReached(t *testing.T, stores ...func(*testing.T, *party)) *reached {
	n := &reached{shelving: newShelving(t, stores...)}
	if len(stores) == 0 {
		n.v.watch.walks()
		n.v.watch.send(2)
		n.settle()
	}
	for _, p := range n.parties() {
		p.kill(t)
	}
	if len(stores) == 0 {
		n.clinics = n.v.ownStreams()
	}
	n.w = &works{town: n.town, watch: n.v.watch}
	n.forge = n.w.addDPM("forge", "personal+health", stores...)
	for _, p := range append(n.parties(), n.forge) {
		p.start(t)
	}
	for _, p := range append(n.parties(), n.forge) {
		n.await(p)
	}
	ctx := t.Context()
	n.w.watch.send(8)
	n.settle()
	wait.Until(t, "the clinic has it", func() bool { return n.count("heart_rate") > 4 })
	run := func(p *party, j api.NewJob) api.Job {
		t.Helper()
		var made api.Job
		var err error
		wait.Until(t, fmt.Sprintf("%s orders a job", p.name), func() bool { // its DPM may not be connected yet
			made, err = p.client.RunJob(ctx, j)
			return err == nil || carnet.CodeOf(err) != carnet.Unavailable
		})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	zones := n.w.zones(n.arena, "forge")
	zones.Parameters = json.RawMessage(`{"max":199}`)
	n.done = run(n.arena, zones)
	n.theirs = run(n.clinic, api.NewJob{Engine: "sql", Program: []byte("SELECT count(*), avg(value) FROM measurements WHERE property = 'heart_rate'"), Avatars: []carnet.AvatarID{n.here}})
	for p, j := range map[*party]*api.Job{n.arena: &n.done, n.clinic: &n.theirs} {
		wait.Until(t, "the job is done and stored", func() bool {
			var err error
			*j, err = p.client.Job(ctx, j.ID, false)
			if err == nil && j.State == job.Ended && j.Outcome != capsule.Done {
				t.Fatalf("the job is %s: %s", j.Outcome, j.Why)
			}
			return err == nil && j.Object != ""
		})
	}
	long := n.w.long()
	long.Program = []byte(strings.Replace(string(long.Program), "6000000", "600000000", 1)) // for longer than the test
	long.Limits = &capsule.Limits{Milliseconds: (9 * time.Minute).Milliseconds()}
	n.runs = run(n.arena, long)
	n.w.runs(n.runs, 1)
	n.sword = n.v.issue("sword", "Oathkeeper", identity.Attributes{"damage": 12.0})
	n.v.readable()
	for p, id := range n.outputs() {
		if out, err := p.client.JobOutput(ctx, id); err != nil || len(out) == 0 {
			t.Errorf("%s shows no output: %s, %v", p.name, out, err)
		}
	}
	if _, err := n.arena.client.ItemProof(ctx, n.sword.ID); err != nil {
		t.Errorf("arena shows no chain of the item: %v", err)
	}
	return n
}

// shelve stops the clinic, and has arena shelve what it would get.
func (n *reached) shelve() {
	n.t.Helper()
	n.clinic.kill(n.t)
	n.w.watch.send(8)
	n.shelved()
}

// waitsFor reports whether an erasure at arena waits for a party, as what it had something.
func (n *reached) waitsFor(id carnet.ErasureID, party carnet.PartyID, role identity.DeletionRole) bool {
	n.t.Helper()
	e, ok := n.v.erased(id)
	return ok && e.State != erasure.Over && slices.ContainsFunc(e.Waiting, func(w api.ErasureWaits) bool {
		return w.Party == string(party) && w.Role == string(role) && w.Since != nil && w.Why != ""
	})
}

// signed counts who has signed an erasure as what, and adds up of how many jobs and items.
func (n *reached) signed(e api.Erasure) (roles map[identity.DeletionRole]int, jobs, items, objects uint64) {
	n.t.Helper()
	roles = make(map[identity.DeletionRole]int)
	for _, token := range e.Deletions {
		d, err := identity.OpenDeletion(token)
		if err != nil {
			n.t.Fatal(err)
		}
		roles[d.Role]++
		jobs, items, objects = jobs+d.Jobs, items+d.Items, objects+d.Objects
	}
	return roles, jobs, items, objects
}

// everybodySigned checks what was signed, when all is over.
func (n *reached) everybodySigned(e api.Erasure) {
	n.t.Helper()
	roles, jobs, items, _ := n.signed(e)
	want := map[identity.DeletionRole]int{
		identity.DeletedAtHome: 1, identity.DeletedShare: 1, identity.DeletedThings: 1, identity.DeletedAtDepot: 2, identity.DeletedAtDPM: 1,
	}
	// Arena's two jobs are in its own receipt and in forge's; the clinic's in its own.
	if fmt.Sprint(roles) != fmt.Sprint(want) || jobs != 5 || items != 1 {
		n.t.Errorf("signed were %v over %d jobs and %d items, want %v over 5 and 1", roles, jobs, items, want)
	}
}

// outputs are the jobs of which something came out, by the world that has it.
func (n *reached) outputs() map[*party]carnet.JobID {
	return map[*party]carnet.JobID{n.arena: n.done.ID, n.clinic: n.theirs.ID}
}

// nothingOfJobs checks that no output, and no item's owner, is shown.
func (n *reached) nothingOfJobs() {
	n.t.Helper()
	ctx := n.t.Context()
	for p, id := range n.outputs() {
		if out, err := p.client.JobOutput(ctx, id); carnet.CodeOf(err) != carnet.NotFound {
			n.t.Errorf("%s shows the output %s, %v", p.name, out, err)
		}
	}
	if j, err := n.arena.client.Job(ctx, n.runs.ID, false); err != nil || j.State != job.Ended || j.Outcome != capsule.Withdrawn {
		n.t.Errorf("what ran is %+v, %v", j, err)
	}
	if i, err := n.arena.client.Item(ctx, n.sword.ID); err != nil || i.State != item.Retired || i.Avatar != (carnet.AvatarID{}) || i.Owner != "" {
		n.t.Errorf("the item is %+v, %v", i, err)
	}
	if _, err := n.arena.client.ItemProof(ctx, n.sword.ID); carnet.CodeOf(err) != carnet.NotFound {
		n.t.Errorf("of the item's chain arena says %v", err)
	}
}

// An erasure reaches what its avatar left with everybody, as processes: what is shelved
// for who is away, what was computed, here, there and at a DPM that is at it, and its item.
// Who is away is shown, and signs when it is back; then nothing of it is in anybody's files.
func TestErasureReachesAll(t *testing.T) {
	t.Parallel()
	n := newReached(t)
	n.shelve()
	objects, stay := n.v.objectsAt(n.clinics)
	if len(stay) == 0 {
		t.Fatal("the depot has no program, which stays: nothing shows that the search finds anything")
	}
	hidden := []byte(n.runs.ID.String()) // where the DPM's files of it are
	n.forge.kill(t)
	if !slices.ContainsFunc(filesIn(t, n.forge.data()+"/jobs"), func(f string) bool { return bytes.Contains([]byte(f), hidden) }) {
		t.Fatal("forge has no files of what it computes, so the test says nothing")
	}
	ofJobs := func(name string) bool { return strings.HasPrefix(name, "job ") }
	if !slices.ContainsFunc(keyNames(t, n.forge), ofJobs) {
		t.Fatal("forge has no key of a job, so the test says nothing")
	}

	id := n.v.orderErasure()
	n.v.unreadable("once it is ordered")
	wait.Until(t, "forge and the clinic are waited for", func() bool {
		return n.waitsFor(id, "forge", identity.DeletedAtDPM) && n.waitsFor(id, "clinic", identity.DeletedShare)
	})
	wait.Until(t, "arena and the vault have signed", func() bool {
		e, _ := n.v.erased(id)
		roles, _, items, of := n.signed(e)
		return roles[identity.DeletedAtHome] == 1 && roles[identity.DeletedAtDepot] == 1 && items == 1 && of > 1
	})
	n.gone()
	n.restart(n.forge)
	wait.Until(t, "forge isn't waited for any more", func() bool { return !n.waitsFor(id, "forge", identity.DeletedAtDPM) })
	n.restart(n.clinic)
	e := n.v.over(id)
	n.everybodySigned(e)
	n.nothingOfJobs()
	if got := n.v.shared(); len(got) != 0 {
		t.Errorf("the clinic still has %d measurements of it", len(got))
	}
	n.v.proved(id)

	for _, p := range append(n.parties(), n.forge) {
		p.kill(t)
	}
	n.v.nothingLeft(objects, stay, n.clinics)
	for _, p := range []*party{n.arena, n.clinic, n.forge} {
		if names := keyNames(t, p); slices.ContainsFunc(names, ofJobs) {
			t.Errorf("%s has a key of a job among %v", p.name, names)
		}
	}
	if left := filesIn(t, n.forge.data()+"/jobs"); len(left) > 0 {
		t.Errorf("forge has the files %v", left)
	}
}

// Everybody who has a part in an erasure is killed at its rows (erasure.md), one after the
// other in one erasure; then all have signed, once, and nothing is shown.
func TestErasureRows(t *testing.T) {
	t.Parallel()
	n := newReached(t, onPostgres)
	n.shelve()
	n.forge.kill(t) // until it is its turn
	ctx := t.Context()
	asked, err := n.arena.client.BeginErasure(ctx, api.NewErasure{Avatar: n.there})
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.ParseErasureRequest(asked.Request)
	if err != nil {
		t.Fatal(err)
	}
	if report := strings.Join(r.Report, "\n"); !strings.Contains(report, "forge computed over it in 2 of its jobs") || !strings.Contains(report, `"Oathkeeper"`) {
		t.Errorf("the owner is told:\n%s", report)
	}
	order, err := n.v.store.OrderErasure(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	const document = "INSERT INTO world_document"
	arena, gate := n.arena, n.arena.database.gate
	home := asked.ID.String() + "/home"
	handIn := func() chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := n.arena.client.OrderErasure(ctx, asked.ID, order)
			answer <- err
		}()
		return answer
	}
	noted := `SELECT count(*) FROM world_document WHERE kind = 'doomed'`

	row := func(ids string, do func(t *testing.T)) {
		t.Helper()
		if t.Failed() {
			return
		}
		t.Run(ids, func(t *testing.T) { n.t, n.v.t, n.w.t = t, t, t; do(t) })
		n.t, n.v.t, n.w.t = t, t, t
	}
	row("E1: the order came, and isn't stored", func(t *testing.T) {
		at := gate.before(document, "erasure", home)
		answer := handIn()
		n.killAt(arena, at)
		n.unanswered(answer)
		n.restart(arena)
		if list, err := arena.client.Erasures(ctx); err != nil || len(list) != 0 {
			t.Errorf("an order that wasn't acknowledged is there: %+v, %v", list, err)
		}
	})
	row("E2: the order is stored, and the tombstone isn't", func(t *testing.T) {
		at := gate.after(document, "erasure", home)
		answer := handIn()
		n.killAt(arena, at)
		n.unanswered(answer)
	})
	row("E12: the shelf is to go, and is at the depot", func(t *testing.T) {
		n.want(arena, noted, 0)
		n.dieAt(arena, gate.after(document, "share-shelf", "clinic"))
		if got := arena.number(t, noted); got == 0 {
			t.Error("no object is noted")
		}
	})
	row("E13: jobs have ended, and their keys are there", func(t *testing.T) {
		had := arena.number(t, noted)
		n.dieAt(arena, gate.after(document, "job", n.done.ID.String()))
		n.want(arena, noted, had+1) // the output
	})
	row("E3: the tombstone is stored, and that it is hidden isn't", func(t *testing.T) {
		n.dieAt(arena, gate.after(document, "avatar", n.there.String()))
	})
	row("E4: it is hidden, and nothing is deleted", func(t *testing.T) {
		n.dieAt(arena, gate.after(document, "erasure", home))
	})
	row("E14: the item has ended, and nothing is signed", func(t *testing.T) {
		n.dieAt(arena, gate.after(document, "item", n.sword.ID.String()))
	})
	row("E5: all is deleted, and that isn't signed", func(t *testing.T) {
		n.dieAt(arena, gate.before("VACUUM"))
		n.restart(arena)
		n.v.unreadable("in the midst of it", carnet.Unavailable)
	})
	row("the register is told", func(t *testing.T) {
		wait.Until(t, "the register is told", func() bool {
			e, ok := n.v.erased(asked.ID)
			return ok && slices.ContainsFunc(e.Others, func(o api.ErasedElsewhere) bool { return o.Role == string(erasure.Registers) && o.Heard != nil })
		})
	})
	row("E15: the DPM has replaced a job's document, and not done with the others", func(t *testing.T) {
		n.dieAt(n.forge, n.forge.database.gate.after("INSERT INTO dpm_document", "arena."+n.done.ID.String()))
	})
	row("E16: nothing is left at the DPM, and its answer didn't leave", func(t *testing.T) {
		n.dieAt(n.forge, n.forge.database.gate.before("VACUUM dpm_document"))
		if left := filesIn(t, n.forge.data()+"/jobs"); len(left) > 0 {
			t.Errorf("forge has the files %v", left)
		}
		n.restart(n.forge)
		wait.Until(t, "forge has signed", func() bool {
			e, _ := n.v.erased(asked.ID)
			r, _, _, _ := n.signed(e)
			return r[identity.DeletedAtDPM] == 1
		})
	})
	row("E5 and E6: the taker", func(t *testing.T) {
		n.vault.kill(t) // so that it waits for somebody when it has signed
		n.dieAt(n.clinic, n.clinic.database.gate.before("VACUUM"))
		n.restart(n.clinic)
		var signed string
		wait.Until(t, "the clinic has signed", func() bool {
			list, err := n.clinic.client.Erasures(ctx)
			if err != nil || len(list) != 1 || list[0].State != erasure.Erased {
				return false
			}
			signed = list[0].Deletion
			return true
		})
		n.clinic.kill(t)
		n.restart(n.clinic)
		if list, err := n.clinic.client.Erasures(ctx); err != nil || len(list) != 1 || list[0].Deletion != signed {
			t.Errorf("killed after it had signed, the clinic has %+v, %v", list, err)
		}
	})
	row("E7: an answer came, and isn't stored", func(t *testing.T) {
		at := gate.before(document, "erasure", home)
		n.restart(n.vault)
		n.killAt(arena, at)
		n.restart(arena)
	})
	e := n.v.over(asked.ID)
	n.everybodySigned(e)
	n.nothingOfJobs()
	n.v.unreadable("at the end")
	if got := n.v.shared(); len(got) != 0 {
		t.Errorf("the clinic still has %d measurements of it", len(got))
	}
	if got := arena.number(t, noted); got != 0 {
		t.Errorf("%d objects are still to be deleted", got)
	}
	n.w.watch.send(3)
	n.settle()
	n.v.unreadable("after the watch has gone on")
}
