package capsule_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/job"
	"carnet/keys"
	"carnet/ledger"
)

// brittle is what a party's durable steps go through: after one of them, or instead of
// it, the party is lost, until it is started again.
type brittle struct {
	at, done atomic.Int64 // at 0: it lasts
	after    atomic.Bool
	lost     atomic.Bool
	hold     atomic.Pointer[func()] // what the next step waits for
	full     atomic.Int64           // so many of the next steps find no room
	written  atomic.Int64           // how often all that was deleted was overwritten
}

var errLost = errors.New("the party is lost")

func (b *brittle) step(do func() error) error {
	if hold := b.hold.Swap(nil); hold != nil {
		(*hold)()
	}
	if b.lost.Load() {
		return errLost
	}
	if b.full.Load() > 0 && b.full.Add(-1) >= 0 {
		return carnet.Errorf(carnet.NoSpace, "the disk is full")
	}
	if b.done.Add(1) != b.at.Load() {
		return do()
	}
	if b.after.Load() {
		_ = do()
	}
	b.lost.Store(true)
	return errLost
}

// loseAt has the party be lost at its n-th step from now on.
func (b *brittle) loseAt(n int64, after bool) {
	b.done.Store(0)
	b.after.Store(after)
	b.at.Store(n)
}

func (b *brittle) mend() {
	b.at.Store(0)
	b.lost.Store(false)
}

// brittleKeys is the rows of a key table.
type brittleKeys struct {
	keys.Store
	disk *brittle
}

func (k brittleKeys) Put(ctx context.Context, upTo keys.ID, rows []keys.Row) error {
	return k.disk.step(func() error { return k.Store.Put(ctx, upTo, rows) })
}

func (k brittleKeys) Delete(ctx context.Context, upTo keys.ID, ids []keys.ID) error {
	return k.disk.step(func() error { return k.Store.Delete(ctx, upTo, ids) })
}

// brittleStore is a DPM's store.
type brittleStore struct {
	dpm.Store
	disk *brittle
}

func (s brittleStore) Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
	return s.disk.step(func() error { return s.Store.Put(ctx, docs, items) })
}

func (s brittleStore) Overwrite(ctx context.Context) error {
	s.disk.written.Add(1)
	return s.Store.Overwrite(ctx)
}

// At whichever durable step the world or the DPM is lost, a job ends as one does that
// nothing happened to, each end is stated once, and nothing of it is left at the DPM.
func TestJobThroughCrashes(t *testing.T) {
	for _, program := range []string{"count", "slow", "hang"} { // the last is withdrawn
		for _, side := range []string{"world", "DPM"} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, after %t", program, side, after), func(t *testing.T) {
					t.Parallel()
					n := int64(1)
					for crashAt(t, program, side, after, n) {
						n++
					}
					t.Logf("%d durable steps", n-1)
					if n < 5 {
						t.Errorf("the %s has %d durable steps only", side, n-1)
					}
				})
			}
		}
	}
}

// crashAt loses a party at its n-th durable step; false: there are less.
func crashAt(t *testing.T, program, side string, after bool, n int64) (crashed bool) {
	c, withdrawn := &clock{}, program == "hang"
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 3)
	defer arena.stop()
	defer forge.stop()
	arena.ordersFrom(forge, nil)
	disk := map[string]*brittle{"world": &arena.disk, "DPM": &forge.disk}[side]
	disk.loseAt(n, after)
	// until goes on until something is so, and starts again whoever is lost.
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				for _, j := range arena.agent.Jobs() {
					t.Logf("%s: %+v %+v", j.ID, j.Stand.State, j.Progress)
				}
				t.Fatalf("%s lost at step %d: it doesn't come to be that %s", side, n, what)
			}
			if !disk.lost.Load() {
				continue
			}
			crashed = true
			if side == "world" {
				arena.stop()
				disk.mend()
				arena.start()
			} else {
				forge.stop()
				disk.mend()
				forge.start()
			}
		}
	}
	until("a job is ordered", func() bool {
		_, err := arena.agent.Order(t.Context(), arena.spec("forge", "script", program))
		return err == nil
	})
	if withdrawn {
		leased := false
		until("each job that hangs is withdrawn", func() bool {
			ended := true
			for _, j := range arena.agent.Jobs() {
				leased = leased || j.Progress.State == string(dpm.Leased)
				if leased && j.Stand.State != job.Ended && j.Stand.State != job.Withdrawing {
					_, _ = arena.agent.Cancel(t.Context(), j.ID)
				}
				ended = ended && j.Stand.State == job.Ended
			}
			return ended
		})
	}
	until("everything is over", func() bool {
		for _, j := range arena.agent.Jobs() {
			if j.Stand.State != job.Ended || !j.Stand.Told || j.Stand.Outcome == capsule.Done && j.Stored == (carnet.Fingerprint{}) {
				return false
			}
		}
		return len(forge.kept()) == 0 && len(forge.jobKeys()) == 0
	})
	ended := 0
	for _, j := range arena.agent.Jobs() {
		ended++
		switch {
		case withdrawn && j.Stand.Outcome != capsule.Withdrawn:
			t.Errorf("%s lost at step %d: the job is %s: %s", side, n, j.Stand.Outcome, j.Stand.Why)
		case program == "slow":
			arena.done(j.ID, strings.Join(threeParts, ""))
		case !withdrawn:
			arena.done(j.ID, arena.counts())
		}
		if j.Contradiction != nil {
			t.Errorf("%s lost at step %d: the DPM is said to contradict itself: %s", side, n, j.Contradiction.Why)
		}
	}
	arena.hasNoPartial(fmt.Sprintf("%s lost at step %d:", side, n))
	if stated := len(arena.statements(ledger.JobEnded, "")); stated != ended {
		t.Errorf("%s lost at step %d: the world stated %d ends of %d jobs", side, n, stated, ended)
	}
	if accepted, stated := forge.stored(ledger.JobAccepted), forge.stored(ledger.JobEnded); accepted != ended || stated != ended {
		t.Errorf("%s lost at step %d: the DPM stated %d acceptances and %d ends of %d jobs", side, n, accepted, stated, ended)
	}
	return crashed
}

// stored counts the statements of a kind that a DPM has stored.
func (o *office) stored(kind ledger.Kind) (n int) {
	store, err := o.db.DPM(o.t.Context())
	must(o.t, err)
	items, err := store.Statements(o.t.Context(), 0, 1000)
	must(o.t, err)
	for _, item := range items {
		if item.Statement[0] == byte(kind) {
			n++
		}
	}
	return n
}
