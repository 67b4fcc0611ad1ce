package thing

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/keys"
)

// slowKeys is a store of keys whose writes wait to be let through.
type slowKeys struct {
	keyMemory
	put     chan int // how many keys a write has
	through chan error
}

func (s *slowKeys) Put(ctx context.Context, _ keys.ID, rows []keys.Row) error {
	if s.put != nil {
		s.put <- len(rows)
		if err := <-s.through; err != nil {
			return err
		}
	}
	return s.keyMemory.Put(ctx, keys.ID{}, rows)
}

// stuckKeys is a store of keys in which one is found only when that is let through.
type stuckKeys struct {
	keyMemory
	stuck   keys.ID
	asked   chan struct{}
	through chan struct{}
}

func (s *stuckKeys) Get(ctx context.Context, id keys.ID) (keys.Row, error) {
	if id == s.stuck {
		s.asked <- struct{}{}
		<-s.through
	}
	return s.keyMemory.Get(ctx, id)
}

// A key that is held is there while another is being read.
func TestAKeyIsReadWithoutHoldingOthersUp(t *testing.T) {
	kek, err := keys.CreateFile(t.TempDir() + "/kek")
	if err != nil {
		t.Fatal(err)
	}
	old, held := dayKeyID{1, 19_000}, dayKeyID{2, 20_000}
	store := &stuckKeys{keyMemory: keyMemory{rows: map[keys.ID]keys.Row{}}, stuck: old.key(), asked: make(chan struct{}), through: make(chan struct{})}
	table, err := keys.Create(t.Context(), keys.Config{KEK: kek, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	var days dayKeys
	days.init(table)
	if _, err := days.make(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := days.get(t.Context(), old)
		read <- err
	}()
	<-store.asked
	if _, err := days.get(t.Context(), held); err != nil {
		t.Error(err)
	}
	close(store.through)
	if err := <-read; carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a key that was never made: %v", err)
	}
}

// TestKeysOfTheDayAreStoredTogether has many things want a key while one is being
// stored: the others share the next write, and its failure.
func TestKeysOfTheDayAreStoredTogether(t *testing.T) {
	kek, err := keys.CreateFile(t.TempDir() + "/kek")
	if err != nil {
		t.Fatal(err)
	}
	store := &slowKeys{keyMemory: keyMemory{rows: map[keys.ID]keys.Row{}}}
	table, err := keys.Create(t.Context(), keys.Config{KEK: kek, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	store.put, store.through = make(chan int), make(chan error)
	var days dayKeys
	days.init(table)
	const things = 100
	want := func(from, to uint32, failed *int) *sync.WaitGroup {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for n := from; n < to; n++ {
			wg.Go(func() {
				k, err := days.make(t.Context(), dayKeyID{n, 20_000})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					*failed++
					return
				}
				kept, err := table.Get(t.Context(), dayKeyID{n, 20_000}.key())
				if err != nil {
					t.Errorf("key %d is not in the table: %v", n, err)
					return
				}
				again, err := newDayKey(kept)
				if err != nil {
					t.Error(err)
					return
				}
				if plain, err := again.Open(nil, nil, k.Seal(nil, nil, []byte("x"))); err != nil || string(plain) != "x" {
					t.Errorf("key %d is another one than the table's", n)
				}
			})
		}
		return &wg
	}
	// in waits until a round holds n ids.
	in := func(n int) {
		for {
			days.mu.Lock()
			r := days.round
			held := r != nil && len(r.ids) == n
			days.mu.Unlock()
			if held {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	var failed int
	first := want(0, 1, &failed)
	if n := <-store.put; n != 1 {
		t.Errorf("the first write has %d keys", n)
	}
	rest := want(1, things, &failed)
	in(things - 1)
	store.through <- nil
	if n := <-store.put; n != things-1 {
		t.Errorf("the second write has %d keys, want %d", n, things-1)
	}
	store.through <- errors.New("broken")
	first.Wait()
	rest.Wait()
	if failed != things-1 {
		t.Errorf("%d of %d keys that could not be stored were refused", failed, things-1)
	}
	rest = want(1, 2, &failed)
	<-store.put
	store.through <- nil
	rest.Wait()
	if failed != things-1 {
		t.Error("a key isn't made after a failure")
	}
}
