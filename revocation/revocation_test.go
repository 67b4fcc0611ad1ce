package revocation_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/revocation"
)

// memory is a store of documents, for several processes.
type memory struct {
	mu    sync.Mutex
	docs  map[string]carnet.Document
	fail  error
	block chan struct{} // nil: answers at once
}

func newMemory() *memory { return &memory{docs: make(map[string]carnet.Document)} }

func (m *memory) Document(ctx context.Context, kind, id string) (carnet.Document, error) {
	m.mu.Lock()
	block := m.block
	m.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return carnet.Document{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return carnet.Document{}, m.fail
	}
	d, ok := m.docs[kind+" "+id]
	if !ok {
		return d, carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
	}
	return d, nil
}

// put stores documents all or nothing.
func (m *memory) put(docs ...carnet.Document) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range docs {
		if m.docs[d.Kind+" "+d.ID].Version+1 != d.Version {
			return carnet.Errorf(carnet.Conflict, "%s %q has another version", d.Kind, d.ID)
		}
	}
	for _, d := range docs {
		m.docs[d.Kind+" "+d.ID] = d
	}
	return nil
}

func (m *memory) set(change func(*memory)) { m.mu.Lock(); change(m); m.mu.Unlock() }

// heard collects what a subscriber is told.
type heard struct {
	mu     sync.Mutex
	states []revocation.State
}

func (h *heard) hear(s revocation.State) { h.mu.Lock(); h.states = append(h.states, s); h.mu.Unlock() }

func (h *heard) last() revocation.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[len(h.states)-1]
}

func (h *heard) want(t *testing.T, want ...revocation.State) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.states, want) {
		t.Fatalf("told %v, want %v", h.states, want)
	}
}

func watch(t *testing.T, store revocation.Store) (*revocation.Watcher, *heard) {
	t.Helper()
	w, err := revocation.New(t.Context(), revocation.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	h := new(heard)
	w.Subscribe(h.hear)
	return w, h
}

// run runs a watcher until the test's end, within its bubble.
func run(t *testing.T, w *revocation.Watcher) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAnEndCountsAtOnceHereAndWithinATenthOfASecondBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		here, heardHere := watch(t, store)
		beside, heardBeside := watch(t, store)
		defer run(t, here)()
		defer run(t, beside)()
		synctest.Wait()
		start := time.Now()
		if err := here.End(t.Context(), func(d carnet.Document) error {
			return store.put(carnet.Document{Kind: "peering", ID: "arena", Version: 1, Body: []byte("suspended")}, d)
		}); err != nil {
			t.Fatal(err)
		}
		heardHere.want(t, revocation.State{Number: 1, Fresh: true})
		heardBeside.want(t)
		if here.Number() != 1 {
			t.Fatalf("the number is %d after an end", here.Number())
		}
		for beside.Number() == 0 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > 101*time.Millisecond {
			t.Fatalf("a process beside heard of it after %v", took)
		}
		heardBeside.want(t, revocation.State{Number: 1, Fresh: true})
	})
}

func TestAnEndThatIsNotStoredIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := watch(t, newMemory())
		broken := errors.New("no room")
		if err := w.End(t.Context(), func(carnet.Document) error { return broken }); !errors.Is(err, broken) {
			t.Fatalf("error %v", err)
		}
		if w.Number() != 0 {
			t.Fatalf("number %d", w.Number())
		}
		h.want(t)
	})
}

func TestTwoProcessesEndAtOnce(t *testing.T) {
	store := newMemory()
	one, _ := watch(t, store)
	other, _ := watch(t, store)
	const each = 200
	var both sync.WaitGroup
	for _, w := range []*revocation.Watcher{one, other} {
		for range 2 {
			both.Go(func() {
				for range each {
					if err := w.End(t.Context(), func(d carnet.Document) error { return store.put(d) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	both.Wait()
	if n := max(one.Number(), other.Number()); n != 4*each {
		t.Fatalf("the number is %d after %d ends", n, 4*each)
	}
}

func TestAConflictAboutSomethingElseIsToldOnce(t *testing.T) {
	w, _ := watch(t, newMemory())
	calls := 0
	err := w.End(t.Context(), func(carnet.Document) error {
		calls++
		return carnet.Errorf(carnet.Conflict, "the peering has changed meanwhile")
	})
	if carnet.CodeOf(err) != carnet.Conflict || calls != 1 {
		t.Fatalf("error %v after %d calls", err, calls)
	}
}

func TestNoAnswerForASecondIsStaleAndComesBack(t *testing.T) {
	for name, stop := range map[string]func(*memory) (again func(*memory)){
		"fails": func(m *memory) func(*memory) {
			m.fail = errors.New("no connection")
			return func(m *memory) { m.fail = nil }
		},
		"silent": func(m *memory) func(*memory) {
			b := make(chan struct{})
			m.block = b
			return func(m *memory) { m.block = nil; close(b) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemory()
				w, h := watch(t, store)
				defer run(t, w)()
				time.Sleep(time.Second + 50*time.Millisecond)
				synctest.Wait()
				var again func(*memory)
				store.set(func(m *memory) { again = stop(m) })
				time.Sleep(900 * time.Millisecond)
				synctest.Wait()
				if !w.Fresh() {
					t.Fatal("stale after 0.9 s")
				}
				h.want(t)
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				if w.Fresh() {
					t.Fatal("fresh after 1.1 s without an answer")
				}
				h.want(t, revocation.State{Fresh: false})
				store.set(func(m *memory) {
					m.docs[revocation.Kind+" "+revocation.ID] = carnet.Document{Kind: revocation.Kind, ID: revocation.ID, Version: 7}
					again(m)
				})
				time.Sleep(110 * time.Millisecond)
				synctest.Wait()
				if !w.Fresh() || w.Number() != 7 {
					t.Fatalf("after the store came back: fresh %v, number %d", w.Fresh(), w.Number())
				}
				// An answer that took more than a second brings its number and isn't fresh itself.
				if got := h.last(); got != (revocation.State{Number: 7, Fresh: true}) {
					t.Fatalf("told %v last", got)
				}
			})
		})
	}
}

func TestWithoutRunItGoesStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := watch(t, newMemory())
		if time.Sleep(time.Second); !w.Fresh() {
			t.Fatal("stale at one second")
		}
		if time.Sleep(time.Millisecond); w.Fresh() {
			t.Fatal("fresh beyond one second")
		}
	})
}

func TestAStoreThatCannotBeReadStopsTheStart(t *testing.T) {
	store := newMemory()
	store.fail = errors.New("no connection")
	if _, err := revocation.New(t.Context(), revocation.Config{Store: store}); err == nil {
		t.Fatal("made on a store that can't be read")
	}
	if _, err := revocation.New(t.Context(), revocation.Config{}); carnet.CodeOf(err) != carnet.Malformed {
		t.Fatalf("made without a store: %v", err)
	}
}

func TestWhoWasRefusedUnnoticedHearsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := watch(t, newMemory())
		time.Sleep(2 * time.Second) // such as from the making to the start
		if w.Fresh() {
			t.Fatal("fresh after two seconds")
		}
		defer run(t, w)()
		time.Sleep(110 * time.Millisecond)
		synctest.Wait()
		h.want(t, revocation.State{Fresh: true})
	})
}
