package keys

import (
	"errors"
	"fmt"
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
	const steps = 5 // table keys, three pages, old table keys
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
				if err := table.Rotate(ctx, fresh); !errors.Is(err, errCrash) {
					t.Fatalf("%s: %v; are there more steps, or fewer?", what, err)
				}

				begun := step > 0 || applied
				ended := step == steps-1 && applied
				if !ended {
					holds(t, what+", old KEK", old, store.copy(), ids, want)
				}
				if begun {
					holds(t, what+", new KEK", fresh, store.copy(), ids, want)
				}
				if ended && recoverWith == old || !begun && recoverWith == fresh {
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
				if err := table.Rotate(ctx, fresh); err != nil {
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
	for step := range 3 {
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
				if err := table.Rotate(ctx, fresh); !errors.Is(err, errCrash) {
					t.Fatalf("%s: %v", what, err)
				}
				more := ID{"slot", "meanwhile"}
				made, err := table.Make(ctx, more)
				if err != nil {
					t.Fatal(err)
				}
				if err := table.Rotate(ctx, to); err != nil {
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
	if err := table.Rotate(ctx, kek); err != nil {
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
	if _, err := old.Get(ctx, ids[0]); carnet.CodeOf(err) != carnet.Tampered {
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
	if err := table.Rotate(ctx, second); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	changes := 0
	store.after = func() error {
		if changes++; changes == 2 {
			return errCrash
		}
		return nil
	}
	if err := table.Rotate(ctx, third); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	for _, kek := range []KEK{old, second, third} {
		holds(t, "with "+kek.ID(), kek, store.copy(), ids, want)
	}
}
