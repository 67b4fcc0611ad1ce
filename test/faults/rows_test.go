package faults_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/policy"
	"carnet/test/wait"
	"carnet/thing"
)

// TestRows brings the parties to the rows of the tables of durable states in
// docs/design, one after the other, kills there, and judges once at the end.
func TestRows(t *testing.T) {
	t.Parallel()
	tool(t, "strace", "-f", "-qq", "-o", "/dev/null", "true")
	v := newTown(t)
	w := v.addWatch()
	w.prompt = true
	w.send(8)
	for _, row := range []struct {
		ids string
		do  func(*testing.T, *town, *watch)
	}{
		{"T1: read, not committed", rowRead},
		{"T2: committed, not acknowledged", rowCommitted},
		{"T3: acknowledged, no frame's record", rowAcknowledged},
		{"T4 L4 L10: a frame recorded, and nobody has it", rowRecorded},
		{"T5 L5 L6: the world has a frame, its Ack is lost with the agent", rowUnheard},
		{"L11: the world has a frame, and both are killed", rowBoth},
		{"T6 L9: a key bag handled, no frame", rowKeyBag},
		{"T8: a view stored, not answered", rowView},
		{"outbox: statements pending and in flight", rowPending},
		{"outbox: in the ledger, no receipt stored", rowSequenced},
	} {
		// The rows share a town: what one leaves behind is the next one's past.
		if !t.Run(row.ids, func(t *testing.T) { v.t = t; row.do(t, v, w) }) {
			break
		}
	}
	v.t = t
	w.send(8)
	c := v.judge(w)
	if want := measurements(w); c.logged != want {
		t.Errorf("hub's log has %d measurements, want %d", c.logged, want)
	}
}

// things asks hub how it is.
func (v *town) things() *api.ThingsStatus {
	v.t.Helper()
	st, err := v.hub.client.Status(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	return st.Things
}

// received asks a world how many frames it has.
func (v *town) received(world *party) uint64 {
	v.t.Helper()
	st, err := world.client.Status(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	return st.World.Frames
}

// linked waits until the agent's links are up.
func (v *town) linked() {
	v.t.Helper()
	wait.Until(v.t, "the links are up", func() bool {
		for _, l := range v.things().Links {
			if !l.Up {
				return false
			}
		}
		return true
	})
}

// quiet waits until nothing is under way, so that the next change is the one
// that a test makes.
func (v *town) quiet() {
	v.t.Helper()
	v.linked()
	v.settle()
}

// throw publishes messages and doesn't wait for what becomes of them.
func (w *watch) throw(n int) (hangUp func()) {
	w.town.t.Helper()
	c, err := w.dial(w.town.t.Context(), w.hear)
	if err != nil {
		w.town.t.Fatal(err)
	}
	for range n {
		if err := w.publish(c, w.next()); err != nil {
			w.town.t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		w.town.t.Fatal(err)
	}
	return func() { c.Close() }
}

// rowRead kills the agent before the first page of a group's commit is written.
func rowRead(t *testing.T, v *town, w *watch) {
	v.quiet()
	messages := v.things().Messages
	v.hub.killBefore(t, writes, 1, v.hub.state()...)
	defer w.throw(5)()
	if !v.hub.dies(20 * time.Second) {
		t.Fatal("hub writes nothing")
	}
	v.restart(v.hub)
	if got := v.things().Messages; got != messages || len(w.unacknowledged()) != 5 {
		t.Errorf("hub has %d messages, had %d; %d aren't acknowledged, want 5", got, messages, len(w.unacknowledged()))
	}
	w.send(1)
}

// rowCommitted kills the agent when the commit is in the file, and nobody was
// told: the file is synced, or as good as that for a process that dies.
func rowCommitted(t *testing.T, v *town, w *watch) {
	v.quiet()
	messages := v.things().Messages
	v.hub.killBefore(t, syncs, 1, v.hub.state()...)
	defer w.throw(5)()
	if !v.hub.dies(20 * time.Second) {
		t.Fatal("hub syncs nothing")
	}
	v.restart(v.hub)
	stored := v.things().Messages - messages
	if stored == 0 || len(w.unacknowledged()) != 5 {
		t.Errorf("hub has stored %d; %d aren't acknowledged, want 5", stored, len(w.unacknowledged()))
	}
	w.send(1)
	if got := v.things().Messages - messages; got != 6 {
		t.Errorf("published again, hub has %d messages more, want 6: duplicates are found", got)
	}
}

func rowAcknowledged(t *testing.T, v *town, w *watch) {
	v.arena.kill(t)
	v.clinic.kill(t)
	w.send(20)
	v.hub.kill(t)
	for _, p := range []*party{v.hub, v.arena, v.clinic} {
		v.restart(p)
	}
}

// sentUnread has the agent record and send frames that the frozen worlds don't
// read, and returns how many frames arena had.
func sentUnread(t *testing.T, v *town, w *watch) (arena uint64) {
	t.Helper()
	w.send(4) // so that the keys of the epoch are given
	v.quiet()
	arena = v.received(v.arena)
	v.arena.freeze(t)
	v.clinic.freeze(t)
	sent := v.things().SentFrames
	w.send(20)
	wait.Until(t, "a frame for each world is recorded", func() bool {
		st := v.things()
		return st.SentFrames >= sent+2 && !slices.ContainsFunc(st.Links, func(l thing.LinkStatus) bool { return l.Lag > 0 || l.Waiting == 0 })
	})
	time.Sleep(200 * time.Millisecond) // and have left, as far as the worlds let them
	return arena
}

func rowRecorded(t *testing.T, v *town, w *watch) {
	had := sentUnread(t, v, w)
	v.arena.kill(t)
	v.clinic.kill(t)
	v.hub.kill(t)
	v.restart(v.arena)
	if got := v.received(v.arena); got != had {
		t.Errorf("arena has %d frames, want %d: the frame was never read", got, had)
	}
	v.restart(v.clinic)
	v.restart(v.hub)
}

func rowUnheard(t *testing.T, v *town, w *watch) {
	had := sentUnread(t, v, w)
	v.hub.freeze(t)
	v.arena.thaw(t)
	v.clinic.thaw(t)
	wait.Until(t, "arena has the frame", func() bool { return v.received(v.arena) > had })
	v.hub.kill(t)
	v.restart(v.hub)
}

func rowBoth(t *testing.T, v *town, w *watch) {
	had := sentUnread(t, v, w)
	v.hub.freeze(t)
	v.arena.thaw(t)
	v.clinic.thaw(t)
	wait.Until(t, "arena has the frame", func() bool { return v.received(v.arena) > had })
	v.arena.kill(t)
	v.clinic.kill(t)
	v.hub.kill(t)
	for _, p := range []*party{v.hub, v.clinic, v.arena} {
		v.restart(p)
	}
}

// rowKeyBag lets a world handle the first key bag of an epoch, and kills the
// agent, which has heard nothing of it; then again, killing the world.
func rowKeyBag(t *testing.T, v *town, w *watch) {
	for _, both := range []bool{false, true} {
		v.quiet()
		v.hub.kill(t)
		v.restart(v.hub) // its epochs are new, and their keys not given yet
		v.linked()
		v.arena.freeze(t)
		w.send(4)
		time.Sleep(1500 * time.Millisecond) // over the linger interval the bag is on its way
		v.hub.freeze(t)
		v.arena.thaw(t)
		v.await(v.arena)
		if both {
			v.arena.kill(t)
		}
		v.hub.kill(t)
		if both {
			v.restart(v.arena)
		}
		v.restart(v.hub)
	}
}

// rowView kills the agent before and after a view's commit.
func rowView(t *testing.T, v *town, w *watch) {
	id := w.mappings["arena"].ID
	for n, calls := range []string{writes, syncs} {
		v.quiet()
		view, err := policy.ParseView(fmt.Appendf(nil, `{"properties": {"heart_rate": {"round": %d, "rate": "1s"}, "speed": {"rate": "1s"}}, "purposes": ["fitness"]}`, 7+n))
		if err != nil {
			t.Fatal(err)
		}
		was, err := v.hub.client.Mapping(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		v.hub.killBefore(t, calls, 1, v.hub.state()...)
		if _, err := v.hub.client.SetView(t.Context(), id, view); err == nil || !v.hub.dies(20*time.Second) {
			t.Fatalf("hub answers though it should have died before %s", calls)
		}
		v.restart(v.hub)
		is, err := v.hub.client.Mapping(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if changed := is.PolicyVersion > was.PolicyVersion; changed != (calls == syncs) {
			t.Errorf("killed before %s: the policy's version was %d and is %d", calls, was.PolicyVersion, is.PolicyVersion)
		}
		w.send(8)
		v.linked()
		if _, err := v.hub.client.SetView(t.Context(), id, view); err != nil && carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("the command given again: %v", err)
		}
		w.send(8)
	}
}

// rowPending kills parties whose statements the depot hasn't taken.
func rowPending(t *testing.T, v *town, w *watch) {
	v.quiet()
	v.vault.freeze(t)
	w.send(20)
	wait.Until(t, "statements are pending", func() bool {
		st, err := v.arena.client.Status(t.Context())
		return err == nil && st.World.Statements > st.World.Receipts
	})
	for _, p := range []*party{v.hub, v.arena, v.vault} {
		p.kill(t)
	}
	for _, p := range []*party{v.arena, v.hub, v.vault} {
		v.restart(p)
	}
}

// rowSequenced lets the depot take statements of parties that don't live to hear
// its receipts.
func rowSequenced(t *testing.T, v *town, w *watch) {
	v.quiet()
	st, err := v.vault.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries := st.Depot.Entries
	v.vault.freeze(t)
	w.send(20)
	wait.Until(t, "statements are pending", func() bool {
		st, err := v.arena.client.Status(t.Context())
		return err == nil && st.World.Statements > st.World.Receipts
	})
	time.Sleep(500 * time.Millisecond) // what is pending is sent within a tenth of a second
	for _, p := range []*party{v.hub, v.arena, v.clinic} {
		p.freeze(t)
	}
	v.vault.thaw(t)
	wait.Until(t, "the ledger has grown", func() bool {
		st, err := v.vault.client.Status(t.Context())
		return err == nil && st.Depot.Entries > entries
	})
	for _, p := range []*party{v.hub, v.arena, v.clinic} {
		p.kill(t)
	}
	for _, p := range []*party{v.arena, v.clinic, v.hub} {
		v.restart(p)
	}
}

// TestEachCall kills each party right before one of its first system calls of
// each kind that matters, while a watch publishes and worlds compact: between
// them lie the steps of every commit, file and answer. An agent and a world are
// also killed in the midst of making their link.
func TestEachCall(t *testing.T) {
	t.Parallel()
	tool(t, "strace", "-f", "-qq", "-o", "/dev/null", "true")
	v := newTown(t)
	w := v.addWatch()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- w.run(ctx, 10*time.Millisecond) }()

	killed := 0
	for _, nth := range []int{1, 4} {
		for _, p := range v.parties() {
			for _, calls := range []string{writes, syncs, renames, sends} {
				if calls == renames && p != v.vault {
					continue // only the depot has files beside its store
				}
				tr := p.killBefore(t, calls, nth)
				if p.dies(3 * time.Second) {
					killed++
					v.restart(p)
				} else {
					t.Logf("%s makes no %d. call of %s on one thread", p.name, nth, calls)
				}
				tr.detach()
			}
		}
	}
	for _, nth := range []int{1, 3} {
		for _, calls := range []string{writes, syncs} {
			killed += v.killLinking(calls, nth)
		}
	}
	t.Logf("killed %d times", killed)
	if killed < 15 {
		t.Errorf("only %d of the kills took place", killed)
	}
	stop()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	c := v.judge(w)
	if want := measurements(w); c.logged != want {
		t.Errorf("hub's log has %d measurements, want %d", c.logged, want)
	}
}

// killLinking kills the agent before a call since its start, and a world before
// a call since the agent's start: rows L1 to L3, L7 and L8.
func (v *town) killLinking(calls string, nth int) (killed int) {
	v.hub.kill(v.t)
	// -D: the party is this program's child, strace its own grandchild.
	v.hub.start(v.t, "strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+calls, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, nth))
	if v.hub.dies(3 * time.Second) {
		killed++
	} else {
		_ = v.hub.process.cmd.Process.Kill() // it may have died by now
		<-v.hub.process.ended
	}
	tr := v.arena.killBefore(v.t, calls, nth)
	v.hub.start(v.t)
	if v.arena.dies(3 * time.Second) {
		killed++
		v.restart(v.arena)
	}
	tr.detach()
	v.await(v.hub)
	return killed
}
