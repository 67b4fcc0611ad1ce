package capsule_test

import (
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/test/wait"
)

// A job whose content is there is ready, also if that couldn't be stored when the last of it
// came.
func TestAJobIsReadyThoughTheDiskWasFull(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	d, client := arena.draftFor(forge), forge.client("arena")
	_, err := client.Submit(t.Context(), d.order.Job, d.sign())
	must(t, err)
	must(t, client.PutContent(t.Context(), d.order.Job, d.contents()[0]))
	forge.disk.full.Store(1)
	codeIs(t, "the last content, with a full disk", client.PutContent(t.Context(), d.order.Job, d.contents()[1]), carnet.NoSpace)
	wait.Until(t, "it is ready", func() bool { return forge.agent.Counts().Ready == 1 })
}

// A reception key that couldn't be destroyed when it was over is destroyed then.
func TestReceptionKeysEndThoughTheDiskWasFull(t *testing.T) {
	c := &clock{}
	forge := newOffice(t, c, "forge")
	destroys := func() { forge.disk.full.Store(1) }
	draws := func() { forge.disk.hold.Store(&destroys) }
	forge.disk.hold.Store(&draws)
	c.move(3 * 24 * time.Hour)
	wait.Until(t, "a key can't be destroyed", func() bool { return forge.disk.hold.Load() == nil && forge.disk.full.Load() <= 0 })
	wait.Until(t, "the old key is destroyed", func() bool {
		ids, err := forge.table.List(t.Context(), "reception", "")
		must(t, err)
		return len(ids) == 1
	})
}

// An attempt that a worker gives back since it can't go on isn't one that ended its worker.
func TestWhatAWorkerGivesBackIsNotCounted(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	forge.unkept.Store(dpm.MostAttempts + 1)
	j := arena.done(arena.order(arena.spec("forge", "script", "parts")).ID, "one\ntwo\nthree\n")
	if r, err := capsule.OpenResult(j.Stand.Result, public(forge.key)); err != nil || r.Attempt != dpm.MostAttempts+2 {
		t.Errorf("it is attempt %d, %v", r.Attempt, err)
	}
}

// A lease that is renewed while another one is ended goes on.
func TestALeaseThatIsRenewedMeanwhile(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 4)
	forge.opens("arena", arena.key)
	a, b := leased(t, arena, forge), leased(t, arena, forge)
	ends := func() {
		for _, r := range []*run{a, b} {
			if err := forge.agent.Renew(t.Context(), r.got.Ticket, dpm.Progress{}); err != nil {
				t.Error(err)
			}
		}
	}
	forge.disk.hold.Store(&ends)
	c.move(5 * time.Second)
	wait.Until(t, "one is ended", func() bool { return forge.agent.Counts().Ready > 0 })
	time.Sleep(300 * time.Millisecond) // the round may be at the other
	if n := forge.agent.Counts(); n.Ready != 1 || n.Leased != 1 {
		t.Errorf("of two leases that were renewed while the first was ended, %d go on", n.Leased)
	}
}
