package keys

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"carnet"
)

var errCrash = errors.New("crash")

// holds checks that the store opens with kek and has all the keys.
func holds(t *testing.T, what string, kek KEK, store *memory, ids []ID, want [][32]byte) *Table {
	t.Helper()
	table, err := Open(t.Context(), Config{KEK: kek, Store: store})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return nil
	}
	for i, id := range ids {
		if got, err := table.Get(t.Context(), id); err != nil || [32]byte(got) != want[i] {
			t.Errorf("%s: key %s: %v", what, id, err)
			return nil
		}
	}
	return table
}

// TestRotationSurvivesACrashAtEachStep stops a rotation before and after each
// change of the store, as a crash does, and checks what the next process finds.
func TestRotationSurvivesACrashAtEachStep(t *testing.T) {
	ctx, old, fresh := t.Context(), newKEK(t), newKEK(t)
	start := newMemory()
	ids := someIDs(2*listPage + 10) // three pages with the table key
	want, err := create(t, old, start).Make(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	const steps = 6 // table keys, three pages, table keys under the old KEK, the older table key
	for step := range steps {
		for _, applied := range []bool{false, true} {
			for _, recoverWith := range []KEK{old, fresh} {
				what := fmt.Sprintf("crash at step %d, applied %v", step, applied)
				store := start.copy()
				table := holds(t, what, old, store, nil, nil)
				changes := 0
				crash := func() error {
					if changes == step {
						return errCrash
					}
					return nil
				}
				if applied {
					store.after = func() error { err := crash(); changes++; return err }
				} else {
					store.before = func() error { err := crash(); changes++; return err }
				}
				settled := false
				settle := func() error {
					settled = true
					holds(t, what+", settled, old KEK", old, store.copy(), ids, want)
					holds(t, what+", settled, new KEK", fresh, store.copy(), ids, want)
					return nil
				}
				if err := table.Rotate(ctx, fresh, settle); !errors.Is(err, errCrash) {
					t.Fatalf("%s: %v; are there more steps, or fewer?", what, err)
				}

				begun := step > 0 || applied
				given := step > 4 || step == 4 && applied // the old KEK is given up
				ended := step == steps-1 && applied
				if !given {
					holds(t, what+", old KEK", old, store.copy(), ids, want)
				}
				if settled != (step >= 4) {
					t.Errorf("%s: settled is %v", what, settled)
				}
				if begun {
					holds(t, what+", new KEK", fresh, store.copy(), ids, want)
				}
				if given && recoverWith == old || !begun && recoverWith == fresh {
					continue
				}
				again := store.copy()
				table = holds(t, what+", recovering", recoverWith, again, ids, want)
				if table == nil {
					t.FailNow()
				}
				if table.Unfinished() != (begun && !ended) {
					t.Errorf("%s: unfinished is %v", what, table.Unfinished())
				}
				if err := table.Rotate(ctx, fresh, nil); err != nil {
					t.Fatalf("%s, recovering: %v", what, err)
				}
				rotated(t, what, old, fresh, again, ids, want)
			}
		}
	}
}

// rotated checks that a rotation has ended.
func rotated(t *testing.T, what string, old, fresh KEK, store *memory, ids []ID, want [][32]byte) {
	t.Helper()
	if table := holds(t, what+", ended", fresh, store, ids, want); table != nil && table.Unfinished() {
		t.Errorf("%s: unfinished after its end", what)
	}
	if _, err := Open(t.Context(), Config{KEK: old, Store: store}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("%s: the old KEK: %v", what, err)
	}
	tableKeys, generations := 0, map[uint32]bool{}
	for id, wrapped := range store.rows {
		if id.Kind == tableKind {
			tableKeys++
			continue
		}
		generation, _ := rowGeneration(Row{id, wrapped})
		generations[generation] = true
	}
	if tableKeys != 1 || len(generations) > 1 || generations[1] {
		t.Errorf("%s: %d table keys, generations %v", what, tableKeys, generations)
	}
}

// TestRotationThatFailedGoesOn keeps the process alive after a failed step: it
// puts keys meanwhile, and rotates again, to the same KEK or to a third.
func TestRotationThatFailedGoesOn(t *testing.T) {
	ctx, old, fresh, third := t.Context(), newKEK(t), newKEK(t), newKEK(t)
	ids := someIDs(10)
	for step := range 4 {
		for _, applied := range []bool{false, true} {
			for _, to := range []KEK{fresh, third} {
				what := fmt.Sprintf("failure at step %d, applied %v", step, applied)
				store := newMemory()
				table := create(t, old, store)
				want, err := table.Make(ctx, ids...)
				if err != nil {
					t.Fatal(err)
				}
				changes := 0
				fail := func() error {
					if changes++; changes == step+1 {
						return errCrash
					}
					return nil
				}
				if applied {
					store.after = fail
				} else {
					store.before = fail
				}
				if err := table.Rotate(ctx, fresh, nil); !errors.Is(err, errCrash) {
					t.Fatalf("%s: %v", what, err)
				}
				more := ID{"slot", "meanwhile"}
				made, err := table.Make(ctx, more)
				if err != nil {
					t.Fatal(err)
				}
				if err := table.Rotate(ctx, to, nil); err != nil {
					t.Fatalf("%s, again: %v", what, err)
				}
				rotated(t, what, old, to, store, append(ids[:10:10], more), append(want, made[0]))
			}
		}
	}
}

func TestRotateToTheSameKEKReplacesTheTableKey(t *testing.T) {
	ctx, kek, store := t.Context(), newKEK(t), newMemory()
	table := create(t, kek, store)
	ids := someIDs(3)
	want, err := table.Make(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	backup := store.copy()
	if err := table.Rotate(ctx, kek, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, "after", kek, store, ids, want)
	holds(t, "the backup from before", kek, backup, ids, want)
	// A row written since doesn't open under the table key of before.
	backup.rows[ids[0]] = store.rows[ids[0]]
	old, err := Open(ctx, Config{KEK: kek, Store: backup})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Get(ctx, ids[0]); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("a new row under the old table key: %v", err)
	}
}

// TestRotationGivenUpLeavesNoFalseTableKey has the first step done although it
// failed, then a rotation to a third KEK that crashes: who opens with the
// second KEK must find the generation that rows are wrapped under.
func TestRotationGivenUpLeavesNoFalseTableKey(t *testing.T) {
	ctx, old, second, third := t.Context(), newKEK(t), newKEK(t), newKEK(t)
	store, ids := newMemory(), someIDs(5)
	table := create(t, old, store)
	want, err := table.Make(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	store.after = func() error { return errCrash }
	if err := table.Rotate(ctx, second, nil); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	changes := 0
	store.after = func() error {
		if changes++; changes == 2 {
			return errCrash
		}
		return nil
	}
	if err := table.Rotate(ctx, third, nil); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	for _, kek := range []KEK{old, second, third} {
		holds(t, "with "+kek.ID(), kek, store.copy(), ids, want)
	}
}

// TestRotationBesideWriters has keys made, read and destroyed between any two pages of a
// rotation, as far as it has come and beyond.
func TestRotationBesideWriters(t *testing.T) {
	ctx, old, fresh := t.Context(), newKEK(t), newKEK(t)
	store, ids := newMemory(), someIDs(3*listPage)
	table := create(t, old, store)
	want, err := table.Make(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	var made []ID
	var secrets [][32]byte
	destroyed := make(map[ID]bool)
	for page := 0; ; page++ {
		var last ID
		more := true
		if page == 0 {
			err = table.wrapTableKeys(ctx, fresh)
		} else {
			for range page {
				if last, more, err = table.rewrapPage(ctx, last); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
		for _, name := range []string{"!", "~"} { // before and behind all others
			id := ID{"epoch", fmt.Sprint(name, page)}
			got, err := table.Make(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			made, secrets = append(made, id), append(secrets, got[0])
		}
		for _, i := range []int{page, len(ids) - 1 - page} {
			destroyed[ids[i]] = true
			if err := table.Destroy(ctx, ids[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := table.dropTableKeys(ctx, fresh); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		if !destroyed[id] {
			made, secrets = append(made, id), append(secrets, want[i])
		} else if _, there := store.rows[id]; there {
			t.Errorf("%s, which was destroyed, is there", id)
		}
	}
	rotated(t, "beside writers", old, fresh, store, made, secrets)
	if len(made) < 3*listPage || len(destroyed) < 8 {
		t.Errorf("%d keys are left and %d were destroyed: nothing was tried", len(made), len(destroyed))
	}
}

// TestARotationWaitsForReaders has keys read from the store before a rotation, and
// unwrapped when it has dropped all of before that is stored.
func TestARotationWaitsForReaders(t *testing.T) {
	ctx, old, fresh := t.Context(), newKEK(t), newKEK(t)
	store, ids := newMemory(), someIDs(8)
	want, err := create(t, old, store).Make(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(ctx, Config{KEK: old, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	hasRead, goOn, read := make(chan bool), make(chan bool), make(chan error, len(ids))
	store.got = func() { hasRead <- true; <-goOn }
	for i, id := range ids {
		go func() {
			got, err := table.Get(ctx, id)
			if err == nil && !bytes.Equal(got, want[i][:]) {
				err = fmt.Errorf("key %s is another", id)
			}
			read <- err
		}()
	}
	for range ids {
		<-hasRead
	}
	done := make(chan error, 1)
	go func() { done <- table.Rotate(ctx, fresh, nil) }()
	// It waits once nobody else may begin to read.
	for waits := false; !waits; runtime.Gosched() {
		select {
		case err := <-done:
			t.Errorf("it is over while keys of before are read: %v", err)
			done <- err
			waits = true
		default:
			if waits = !table.reading.TryRLock(); !waits {
				table.reading.RUnlock()
			}
		}
	}
	close(goOn)
	for range ids {
		if err := <-read; err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	store.got = nil
	rotated(t, "beside readers", old, fresh, store, ids, want)
}

// TestARowThatChangesUnderARotationStays has another process destroy a key, and put it
// anew, while a page of it is read and not yet written.
func TestARowThatChangesUnderARotationStays(t *testing.T) {
	ctx, old, fresh := t.Context(), newKEK(t), newKEK(t)
	store, ids := newMemory(), someIDs(3)
	table := create(t, old, store)
	if _, err := table.Make(ctx, ids...); err != nil {
		t.Fatal(err)
	}
	if err := table.wrapTableKeys(ctx, fresh); err != nil {
		t.Fatal(err)
	}
	other, err := Open(ctx, Config{KEK: old, Store: store.copy()}) // whose rows come into the store below
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Destroy(ctx, ids[0], ids[1]); err != nil {
		t.Fatal(err)
	}
	again, err := other.Make(ctx, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	store.before = func() error {
		if changes++; changes == 2 { // the first stores the table keys
			store.rows[ids[0]] = other.store.(*memory).rows[ids[0]]
			delete(store.rows, ids[1])
		}
		return nil
	}
	if err := table.Rotate(ctx, fresh, nil); err != nil {
		t.Fatal(err)
	}
	if _, back := store.rows[ids[1]]; back {
		t.Error("a destroyed key is back")
	}
	holds(t, "after", fresh, store, ids[:1], again)
}

// TestAProcessThatMissedARotation goes on with the newer table key as long as its KEK opens
// that. Then it changes nothing any more, and says why.
func TestAProcessThatMissedARotation(t *testing.T) {
	ctx, old, fresh := t.Context(), newKEK(t), newKEK(t)
	for _, whole := range []bool{false, true} {
		store, ids := newMemory(), someIDs(5)
		table := create(t, old, store)
		want, err := table.Make(ctx, ids...)
		if err != nil {
			t.Fatal(err)
		}
		missed := holds(t, "before", old, store, nil, nil)
		if _, err := missed.Get(ctx, ids[0]); err != nil {
			t.Fatal(err)
		}
		if whole {
			err = table.Rotate(ctx, fresh, nil)
		} else {
			err = table.wrapTableKeys(ctx, fresh)
		}
		if err != nil {
			t.Fatal(err)
		}
		newer := ID{"epoch", "newer"}
		if _, err := table.Make(ctx, newer); err != nil {
			t.Fatal(err)
		}
		_, read := missed.Get(ctx, newer)
		if carnet.CodeOf(read) != carnet.Unavailable {
			t.Errorf("whole %v: it read what is under a table key that it doesn't know: %v", whole, read)
		}
		rows := len(store.rows)
		_, made := missed.Make(ctx, ID{"epoch", "late"})
		if !whole {
			_, read = missed.Get(ctx, newer)
			if err := errors.Join(made, read, missed.Destroy(ctx, ids[1])); err != nil {
				t.Errorf("it doesn't go on with a table key that its KEK opens: %v", err)
			}
			if generation, _ := rowGeneration(Row{Wrapped: store.rows[ID{"epoch", "late"}]}); generation != 2 {
				t.Errorf("it put a key under generation %d", generation)
			}
			continue
		}
		for what, err := range map[string]error{"made": made, "destroyed": missed.Destroy(ctx, ids[1]), "read": read} {
			if carnet.CodeOf(err) != carnet.Unavailable || !strings.Contains(err.Error(), "another process") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := missed.Rotate(ctx, newKEK(t), nil); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("rotated: %v", err)
		}
		if len(store.rows) != rows {
			t.Errorf("%d rows, and %d before", len(store.rows), rows)
		}
		holds(t, "after", fresh, store, ids, want)
	}
}

// TestARotationIsOneAtATime begins another while the first settles.
func TestARotationIsOneAtATime(t *testing.T) {
	ctx, store, fresh := t.Context(), newMemory(), newKEK(t)
	old := newKEK(t)
	table := create(t, old, store)
	before := func(want string) {
		t.Helper()
		if got, err := table.Before(ctx); err != nil || got != want {
			t.Errorf("before is %q, %v, want %q", got, err, want)
		}
	}
	before("")
	err := table.Rotate(ctx, fresh, func() error {
		if err := table.Rotate(ctx, newKEK(t), nil); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("another one meanwhile: %v", err)
		}
		before(fresh.ID())
		if table.KEK() != old.ID() {
			t.Errorf("while it settles the table is under %s", table.KEK())
		}
		return errCrash
	})
	if !errors.Is(err, errCrash) || table.KEK() != old.ID() || !table.Unfinished() {
		t.Errorf("it couldn't settle: %v, under %s", err, table.KEK())
	}
	if err := table.Rotate(ctx, fresh, nil); err != nil || table.KEK() != fresh.ID() || table.Unfinished() {
		t.Errorf("again: %v, under %s", err, table.KEK())
	}
	before("")
}
