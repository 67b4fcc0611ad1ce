package capsule_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
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

// erasing is an erasure of a world's avatar, by its owner's order.
func (w *customer) erasing() job.Erased {
	t := w.t
	t.Helper()
	owner, made := newKey(), w.clock.now().UTC().Truncate(time.Second)
	e := job.Erased{By: carnet.NewErasureID(), Avatar: w.avatar}
	var err error
	e.Order, err = identity.SignErasure(owner, identity.ErasureOrder{
		Erasure: e.By, Registrar: identity.DID(public(newKey())), Owner: identity.DID(public(owner)), World: identity.DID(public(w.key)), Home: carnet.NewHomeID(),
		Avatar: identity.ErasedMark(e.By, w.avatar), Made: made, Until: made.Add(time.Hour),
	})
	must(t, err)
	return e
}

// erased has the avatar be gone, and its jobs erased.
func (w *customer) erased(e job.Erased, want uint64) {
	w.t.Helper()
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	if n, err := w.agent.Erase(w.t.Context(), e); err != nil || n != want {
		w.t.Fatalf("%d jobs are erased, %v; want %d", n, err, want)
	}
}

// told has a DPM told, and verifies what it signs.
func (w *customer) told(o *office, e job.Erased, want uint64) {
	t := w.t
	t.Helper()
	tokens, of, err := w.agent.TellErased(t.Context(), o.name, e.By)
	if err != nil || len(tokens) != 1 || of[0] != int(want) {
		t.Fatalf("%d deletions of %v jobs, %v", len(tokens), of, err)
	}
	d, err := identity.OpenDeletion(tokens[0])
	must(t, err)
	if d.Erasure != e.By || d.Order != carnet.FingerprintOf([]byte(e.Order)) || d.By != identity.DID(public(o.key)) || d.Role != identity.DeletedAtDPM || d.Jobs != want || d.Unrecoverable.Sub(d.Unreadable) != 30*24*time.Hour {
		t.Errorf("%s signed %+v", o.name, d)
	}
}

// hasNothing fails if a world has a key, a part of an output or a word of its jobs.
func (w *customer) hasNothing(after string) {
	t := w.t
	t.Helper()
	if ids, err := w.table.List(t.Context(), "job", ""); err != nil || len(ids) > 0 {
		t.Errorf("%s %s has the keys %v, %v", after, w.name, ids, err)
	}
	w.hasNoPartial(after)
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, d := range w.documents {
		if id[0] == "job-part" {
			t.Errorf("%s %s has %v", after, w.name, id)
		}
		if id[0] != "job" {
			continue
		}
		var j job.Job
		must(t, json.Unmarshal(d.Body, &j))
		if j.Order != "" || j.Stand.Result != "" || j.Stand.Acceptance != "" || j.Record != "" || j.Output != nil || len(j.Bags)+len(j.Pins)+len(j.Task.Inputs)+len(j.Task.Properties)+len(j.Task.Parameters) > 0 {
			t.Errorf("%s %s keeps of a job %s", after, w.name, d.Body)
		}
	}
}

// hasNothingOf fails if a DPM has a key, a file or a word of jobs.
func (o *office) hasNothingOf(after string, ids ...carnet.JobID) {
	o.t.Helper()
	if left := o.jobKeys(); len(left) > 0 {
		o.t.Errorf("%s %s has the keys %v", after, o.name, left)
	}
	if left := o.kept(); len(left) > 0 {
		o.t.Errorf("%s %s has the files %v", after, o.name, left)
	}
	for _, j := range o.agent.Jobs() {
		if slices.Contains(ids, j.ID) && (j.Order != "" || j.Acceptance != "" || j.Record != "" || j.Output != nil || j.Bag != nil || j.Path != "" || j.Reception != nil || j.Why != "" || j.State != dpm.Ended) {
			o.t.Errorf("%s %s keeps of a job %+v", after, o.name, j)
		}
	}
}

// What an avatar's erasure is to reach of jobs: outputs of the world's own, of a DPM's that
// were taken, what waits there for content, and what never came there. The depot is told
// what it has of them; the DPM signs; and nothing of it comes back.
func TestAnErasureReachesJobs(t *testing.T) {
	c := &clock{}
	forge := newOffice(t, c, "forge").withWorkers(1)
	arena := newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	spec := arena.spec("", "script", "count")
	spec.Parameters = json.RawMessage(`{"resting":48}`)
	here := arena.order(spec).ID
	spec.At = "forge"
	there := arena.order(spec).ID
	stored := func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} && i.Stand.Told }
	arena.done(here, arena.counts())
	arena.done(there, arena.counts())
	objects := []carnet.Fingerprint{arena.is(here, "stored", stored).Stored, arena.is(there, "stored", stored).Stored}
	runs := arena.order(arena.spec("forge", "script", "hang")).ID
	arena.is(runs, "running", func(i job.Info) bool { return i.Progress.State == string(dpm.Leased) && i.Progress.Parts > 0 })
	capsuleOf := arena.agent.Jobs()[2]

	e := arena.erasing()
	arena.erased(e, 3)
	arena.hasNothing("once it is erased")
	for _, f := range objects {
		if _, err := arena.Plain(t.Context(), "doomed", f.String()); err != nil {
			t.Errorf("the depot isn't told to delete %s: %v", f, err)
		}
	}
	if at := arena.agent.ErasedAt(e.By); fmt.Sprint(at) != "map[forge:2]" {
		t.Errorf("%v had jobs", at)
	}
	if i := arena.ended(runs); i.Stand.Outcome != capsule.Withdrawn || i.Order != "" {
		t.Errorf("what ran is %+v", i.Stand)
	}
	wait.Until(t, "the worker is stopped, and the DPM has signed", func() bool {
		_, _, err := arena.agent.TellErased(t.Context(), "forge", e.By)
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	arena.told(forge, e, 2)
	forge.hasNothingOf("once it has signed", there, runs)
	if forge.statements(ledger.Erased, "arena") == 0 || forge.statements(ledger.JobEnded, "arena") != 2 {
		t.Errorf("the DPM states %d erasures and %d ends", forge.statements(ledger.Erased, "arena"), forge.statements(ledger.JobEnded, "arena"))
	}
	// What is brought again isn't taken, also after a restart of both.
	forge.restart()
	arena.stop()
	arena.start()
	arena.hasNothing("after a restart")
	forge.hasNothingOf("after a restart", there, runs)
	_, err := forge.client("arena").Submit(t.Context(), runs, dpm.Submission{Order: capsuleOf.Order, Bags: capsuleOf.Bags, Reception: capsuleOf.Received})
	if carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a capsule that is brought again: %v", err)
	}
	if _, err := forge.client("arena").Record(t.Context(), there); err == nil {
		t.Error("the DPM shows its record of a job that is erased")
	}
	if _, err := arena.agent.Output(t.Context(), there); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the output of a job that is erased: %v", err)
	}
	arena.told(forge, e, 2)
	forge.hasNothingOf("told again", there, runs)
}

// A job that is ordered while the avatar is erased, over what was chosen before, isn't
// ordered; one that its DPM never heard of doesn't come there any more.
func TestAJobAfterAnErasure(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	d := arena.draftFor(forge)
	never := d.sign()
	e := arena.erasing()
	if _, err := arena.agent.Erase(t.Context(), e); err != nil { // the avatar can still be read, as by what began before
		t.Fatal(err)
	}
	if _, err := arena.agent.Order(t.Context(), arena.spec("", "script", "count")); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a job over what is erased: %v", err)
	}
	client := forge.client("arena")
	said, err := client.Erase(t.Context(), dpm.Erasing{Order: e.Order, Jobs: []dpm.ErasingJob{{ID: d.order.Job, Until: d.order.Until}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := identity.OpenDeletion(said); err != nil || got.Jobs != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	forge.restart()
	if _, err := forge.client("arena").Submit(t.Context(), d.order.Job, never); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a capsule that comes after its erasure: %v", err)
	}
	forge.opensNothing("after its erasure", "arena", d.order.Job)
	for what, q := range map[string]dpm.Erasing{
		"no order":  {Order: "x.y.z", Jobs: []dpm.ErasingJob{{ID: d.order.Job}}},
		"no jobs":   {Order: e.Order},
		"too many":  {Order: e.Order, Jobs: make([]dpm.ErasingJob, dpm.MaxErasing+1)},
		"of nobody": {Order: strings.Replace(e.Order, ".", ".x", 1), Jobs: []dpm.ErasingJob{{ID: d.order.Job}}},
	} {
		if _, err := forge.client("arena").Erase(t.Context(), q); err == nil {
			t.Errorf("with %s a DPM signs", what)
		}
	}
	if _, err := forge.client("citadel").Erase(t.Context(), dpm.Erasing{Order: e.Order, Jobs: []dpm.ErasingJob{{ID: d.order.Job}}}); err == nil {
		t.Error("a DPM signs for who is no peer")
	}
}

// Another world's jobs under the same ids stay, and so do those over other streams.
func TestAnErasureReachesItsJobsOnly(t *testing.T) {
	c := &clock{}
	forge := newOffice(t, c, "forge").withWorkers(1)
	arena, clinic := newCustomer(t, c, "arena", 4), newCustomer(t, c, "clinic", 4)
	arena.ordersFrom(forge, nil)
	clinic.ordersFrom(forge, nil)
	mine := arena.order(arena.spec("forge", "script", "count")).ID
	theirs := clinic.order(clinic.spec("forge", "script", "count")).ID
	arena.done(mine, arena.counts())
	clinic.done(theirs, clinic.counts())
	_, err := forge.client("arena").Erase(t.Context(), dpm.Erasing{Order: arena.erasing().Order, Jobs: []dpm.ErasingJob{{ID: theirs, Until: time.Now().Add(time.Minute)}}})
	must(t, err)
	if s, err := forge.client("clinic").Status(t.Context(), theirs, 0, 0); err != nil || s.Result == "" {
		t.Errorf("another world erased a job of the clinic: %+v, %v", s, err)
	}
	e := arena.erasing()
	e.Streams = []carnet.StreamID{carnet.NewStreamID()}
	if n, err := arena.agent.Erase(t.Context(), e); err != nil || n != 0 {
		t.Errorf("an erasure of another stream reaches %d jobs, %v", n, err)
	}
	arena.done(mine, arena.counts())
	e = arena.erasing()
	e.Streams = []carnet.StreamID{arena.batches[0].Stream}
	if n, err := arena.agent.Erase(t.Context(), e); err != nil || n != 1 {
		t.Errorf("an erasure of its stream reaches %d jobs, %v", n, err)
	}
	if _, err := arena.agent.Output(t.Context(), mine); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the output is there: %v", err)
	}
	if i := arena.ended(mine); i.Order == "" || i.Stand.Result == "" {
		t.Error("the avatar is here still, and what proves its job isn't")
	}
}

// Of a job over two avatars each erasure tells the DPM, which may not have heard of the
// first; what was ordered goes with the last.
func TestErasuresOfTwoAvatarsOfAJob(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	arena.beside = carnet.NewAvatarID()
	arena.ordersFrom(forge, nil)
	spec := arena.spec("forge", "script", "count")
	spec.Avatars = append(spec.Avatars, arena.beside)
	id := arena.order(spec).ID
	arena.is(id, "at the DPM", func(i job.Info) bool { return i.Progress.State != "" })
	first, second := arena.erasing(), arena.erasing()
	second.Avatar = arena.beside
	arena.erased(first, 1)
	if i := arena.ended(id); i.Order == "" {
		t.Error("the other avatar is here still, and the order of its job isn't")
	}
	for range 2 {
		arena.mu.Lock()
		arena.beside = carnet.AvatarID{}
		arena.mu.Unlock()
		arena.erased(second, 1)
		if i := arena.ended(id); i.Order != "" || len(i.Pins) > 0 {
			t.Error("neither avatar is here, and the order of their job is")
		}
		for _, e := range []job.Erased{first, second} {
			if at := arena.agent.ErasedAt(e.By); fmt.Sprint(at) != "map[forge:1]" {
				t.Errorf("%v had jobs", at)
			}
		}
		arena.stop()
		arena.start()
	}
	for _, e := range []job.Erased{second, first} { // it may be at it: since the start it is told of both besides
		wait.Until(t, "the DPM signs", func() bool { _, _, err := arena.agent.TellErased(t.Context(), "forge", e.By); return err == nil })
	}
	arena.told(forge, second, 1)
	forge.hasNothingOf("once it has signed for the second", id)
	arena.told(forge, first, 1)
	arena.hasNothing("once both are erased")
}

// A worker that has a job's keys is waited for before a DPM signs, also one whose attempt was
// over just before.
func TestADPMSignsOnceItsWorkersHaveStopped(t *testing.T) {
	for _, v := range []struct {
		name   string
		before func(*testing.T, *clock, *office, *run)
	}{
		{"while it runs", nil},
		{"withdrawn", func(t *testing.T, _ *clock, forge *office, r *run) {
			_, err := forge.client("arena").Withdraw(t.Context(), r.order.Job, withdrawalOf(t, r.draft))
			must(t, err)
		}},
		{"when its lease ran out", func(t *testing.T, c *clock, forge *office, _ *run) {
			c.move(5 * time.Second)
			wait.Until(t, "it is ready again", func() bool { return forge.agent.Counts().Ready == 1 })
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := &clock{}
			forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
			arena.ordersFrom(forge, nil)
			leave := forge.agent.Enter("test")
			r := leased(t, arena, forge)
			if v.before != nil {
				v.before(t, c, forge, r)
			}
			q := dpm.Erasing{Order: arena.erasing().Order, Jobs: []dpm.ErasingJob{{ID: r.order.Job, Until: r.order.Until}}}
			for range 2 {
				if _, err := forge.client("arena").Erase(t.Context(), q); carnet.CodeOf(err) != carnet.Unavailable {
					t.Errorf("with a worker at it a DPM signs: %v", err)
				}
			}
			r.refusesAll(t, forge, "after the erasure")
			leave()
			if _, err := forge.client("arena").Erase(t.Context(), q); err != nil {
				t.Error(err)
			}
		})
	}
}

// A DPM that is told again of what it has erased signs, and does nothing else; so it does of
// what never came and can't any more.
func TestADPMThatIsToldWithoutEnd(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	r, order := leased(t, arena, forge), arena.erasing().Order
	tell := func(j dpm.ErasingJob, stated int) {
		t.Helper()
		before := forge.disk.written.Load()
		for range 3 {
			said, err := forge.client("arena").Erase(t.Context(), dpm.Erasing{Order: order, Jobs: []dpm.ErasingJob{j}})
			must(t, err)
			if d, err := identity.OpenDeletion(said); err != nil || d.Jobs != 1 {
				t.Errorf("it signs %+v, %v", d, err)
			}
		}
		if n, over := forge.stored(ledger.Erased), forge.disk.written.Load()-before; n != stated || over != min(int64(stated), 1) {
			t.Errorf("told three times it has stated %d erasures, want %d, and overwritten its store %d times", n, stated, over)
		}
	}
	tell(dpm.ErasingJob{ID: carnet.NewJobID(), Until: c.now().Add(-time.Hour)}, 0)
	tell(dpm.ErasingJob{ID: r.order.Job, Until: r.order.Until}, 1)
	forge.restart() // what it was overwriting may have been cut off
	tell(dpm.ErasingJob{ID: r.order.Job, Until: r.order.Until}, 2)
}

// A DPM that is restored from before an erasure is told again, and has nothing then.
func TestADPMRestoredFromBeforeAnErasure(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	id := arena.order(arena.spec("forge", "script", "count")).ID
	arena.is(id, "at the DPM", func(i job.Info) bool { return i.Progress.State != "" })
	wait.Until(t, "it has the keys and the content", func() bool { return len(forge.jobKeys()) > 0 && len(forge.kept()) == 2 })
	old := t.TempDir() + "/old"
	forge.stop()
	copyTo(t, forge.dir, old)
	forge.start()
	e := arena.erasing()
	arena.erased(e, 1)
	arena.told(forge, e, 1)
	forge.hasNothingOf("once it has signed", id)
	time.Sleep(6 * time.Second) // until it has been told as the process that it is
	forge.stop()
	copyTo(t, old, forge.dir)
	forge.start()
	if len(forge.jobKeys()) == 0 {
		t.Fatal("the copy has no keys, so the test says nothing")
	}
	wait.Until(t, "the restored DPM has no key", func() bool { return len(forge.jobKeys()) == 0 && len(forge.kept()) == 0 })
	forge.hasNothingOf("restored, and told again", id)
}

// At whichever durable step the world or the DPM is lost while jobs are erased, asking
// again leaves nothing.
func TestErasureOfJobsThroughCrashes(t *testing.T) {
	for _, side := range []string{"world", "DPM"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after %t", side, after), func(t *testing.T) {
				t.Parallel()
				n := int64(1)
				for eraseCrashes(t, side, after, n) {
					n++
				}
				t.Logf("%d durable steps", n-1)
				if n < 4 {
					t.Errorf("the %s has %d durable steps only", side, n-1)
				}
			})
		}
	}
}

// eraseCrashes loses a side at the n-th durable step of an erasure; false: there are fewer.
func eraseCrashes(t *testing.T, side string, after bool, n int64) (lost bool) {
	c := &clock{}
	forge := newOffice(t, c, "forge").withWorkers(1)
	arena := newCustomer(t, c, "arena", 4)
	arena.ordersFrom(forge, nil)
	done := arena.order(arena.spec("forge", "script", "count")).ID
	arena.done(done, arena.counts())
	arena.is(done, "told and stored", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
	forge.workers = 0
	forge.restart()
	waits := arena.order(arena.spec("forge", "script", "count")).ID
	arena.is(waits, "ready", func(i job.Info) bool { return i.Progress.State == string(dpm.Ready) })
	e := arena.erasing()
	arena.mu.Lock()
	arena.gone = true
	arena.mu.Unlock()
	restart := sync.OnceFunc(func() {
		if side == "world" {
			lost = arena.disk.lost.Load()
			arena.stop()
			arena.disk.mend()
			arena.start()
		} else {
			lost = forge.disk.lost.Load()
			forge.stop()
			forge.disk.mend()
			forge.start()
		}
	})
	if side == "world" {
		arena.disk.loseAt(n, after)
		_, err := arena.agent.Erase(t.Context(), e)
		if (err != nil) != arena.disk.lost.Load() {
			t.Fatalf("step %d: %v", n, err)
		}
		restart()
	}
	arena.erased(e, 2)
	if side == "DPM" {
		forge.disk.loseAt(n, after)
		_, _, err := arena.agent.TellErased(t.Context(), "forge", e.By)
		if err == nil && forge.disk.lost.Load() {
			t.Fatalf("step %d: the DPM signs what it couldn't store", n)
		}
		restart()
	}
	wait.Until(t, "the DPM has signed", func() bool {
		_, _, err := arena.agent.TellErased(t.Context(), "forge", e.By)
		return err == nil
	})
	arena.hasNothing(fmt.Sprintf("step %d:", n))
	forge.hasNothingOf(fmt.Sprintf("step %d:", n), done, waits)
	forge.restart()
	forge.hasNothingOf(fmt.Sprintf("step %d, after a restart:", n), done, waits)
	arena.stop()
	forge.stop()
	return lost
}

// Keys of outputs that no job has, as a crash may leave them, are destroyed at a start.
func TestKeysOfNoJobAreDestroyed(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 4)
	kept := arena.order(arena.spec("", "script", "count")).ID
	arena.done(kept, arena.counts())
	must(t, arena.table.Put(t.Context(), keys.Entry{ID: keys.ID{Kind: "job", Name: carnet.NewJobID().String()}, Secret: make([]byte, 32)}))
	arena.stop()
	arena.start()
	if ids, err := arena.table.List(t.Context(), "job", ""); err != nil || len(ids) != 1 {
		t.Errorf("after a start there are the keys %v, %v", ids, err)
	}
	arena.done(kept, arena.counts())
}
