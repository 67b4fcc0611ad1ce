package ledger

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carnet"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// memoryOutbox is an OutboxStore with what a test wants to know of it.
type memoryOutbox struct {
	mu       sync.Mutex
	items    []Item
	failWith error // by Receipted, once
	read     int   // items handed out
}

func (m *memoryOutbox) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		m.items = append(m.items, Item{ID: uint64(len(m.items)) + 1, Entry: NewSalt()})
	}
}

func (m *memoryOutbox) Pending(_ context.Context, after uint64, limit int) (out []Item, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.items {
		if it.ID > after && it.Receipt == nil && len(out) < limit {
			out = append(out, Item{ID: it.ID, Entry: it.Entry})
		}
	}
	m.read += len(out)
	return out, nil
}

func (m *memoryOutbox) Receipted(_ context.Context, items []Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failWith; err != nil {
		m.failWith = nil
		return err
	}
	for _, it := range items {
		m.items[it.ID-1].Receipt = it.Receipt
	}
	return nil
}

func (m *memoryOutbox) failNext(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failWith = err
}

func (m *memoryOutbox) receipted(i int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.items[i].Receipt != nil
}

func (m *memoryOutbox) pending() int {
	left, _ := m.Pending(context.Background(), 0, 1<<30)
	return len(left)
}

// testDepot receipts each submission after 150 ms, unless answer says otherwise.
type testDepot struct {
	t      *testing.T
	signer *Signer
	answer func(call int, entries []Entry) ([]Receipt, error)

	mu        sync.Mutex
	calls     []time.Time
	submitted map[Entry]int
	hashes    tree
	leaves    map[Entry]int64
}

// tree has the stored hashes of a ledger.
type tree []tlog.Hash

func (h tree) ReadHashes(at []int64) (out []tlog.Hash, err error) {
	for _, i := range at {
		out = append(out, h[i])
	}
	return out, nil
}

func (d *testDepot) Submit(ctx context.Context, entries []Entry) ([]Receipt, error) {
	d.mu.Lock()
	call := len(d.calls)
	d.calls = append(d.calls, time.Now())
	for _, e := range entries {
		d.submitted[e]++
	}
	d.mu.Unlock()
	if d.answer != nil {
		if receipts, err := d.answer(call, entries); receipts != nil || err != nil {
			return receipts, err
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(150 * time.Millisecond):
	}
	return d.grow(entries), nil
}

// grow adds what the ledger hasn't, and receipts all.
func (d *testDepot) grow(entries []Entry) (out []Receipt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaves == nil {
		d.leaves = make(map[Entry]int64)
	}
	must := func(err error) {
		if err != nil {
			d.t.Fatal(err)
		}
	}
	for _, e := range entries {
		if _, known := d.leaves[e]; known {
			continue
		}
		n := int64(len(d.leaves))
		more, err := tlog.StoredHashes(n, e[:], d.hashes)
		must(err)
		d.leaves[e], d.hashes = n, append(d.hashes, more...)
	}
	size := int64(len(d.leaves))
	root, err := tlog.TreeHash(size, d.hashes)
	must(err)
	text := log.Checkpoint{Origin: d.signer.Name(), Size: uint64(size), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, d.signer)
	must(err)
	sig, err := d.signer.SignRoot(root)
	must(err)
	for _, e := range entries {
		r := Receipt{Index: uint64(d.leaves[e]), Checkpoint: signed, Signature: sig}
		path, err := tlog.ProveRecord(size, d.leaves[e], d.hashes)
		must(err)
		for _, p := range path {
			r.Path = append(r.Path, p)
		}
		out = append(out, r)
	}
	return out
}

// receipts are of a ledger that has these entries alone.
func (d *testDepot) receipts(entries []Entry) (out []Receipt) {
	leaves := make([][]byte, len(entries))
	for i := range entries {
		leaves[i] = entries[i][:]
	}
	for i := range entries {
		out = append(out, testReceipt(d.t, d.signer, leaves, i))
	}
	return out
}

// sent returns when each submission came.
func (d *testDepot) sent() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// run starts an outbox in a synctest bubble.
func run(t *testing.T, d *testDepot, store OutboxStore, change func(*OutboxConfig)) (o *Outbox, stop func() error) {
	t.Helper()
	d.t, d.signer, d.submitted = t, testSigner(t, "vault.example/ledger", 1), make(map[Entry]int)
	cfg := OutboxConfig{Store: store, Submitter: d, Key: d.signer.Key(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&cfg)
	}
	o, err := NewOutbox(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	return o, func() error { cancel(); return <-ended }
}

func TestOutboxSendsWhatIsPendingAtTheStartAndWhenWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := &memoryOutbox{}, &testDepot{}
		store.add(3)
		o, stop := run(t, d, store, nil)
		time.Sleep(160 * time.Millisecond)
		if n := store.pending(); n != 0 {
			t.Errorf("%d of the first statements have no receipt", n)
		}
		store.add(2)
		o.Wake()
		time.Sleep(160 * time.Millisecond)
		if n := store.pending(); n != 0 {
			t.Errorf("%d of the later statements have no receipt", n)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		for _, it := range store.items {
			r, err := ParseReceipt(it.Receipt)
			if err == nil {
				err = VerifyReceipt(d.signer.Key(), it.Entry, r)
			}
			if err != nil {
				t.Errorf("statement %d: %v", it.ID, err)
			}
			if d.submitted[it.Entry] != 1 {
				t.Errorf("statement %d was sent %d times", it.ID, d.submitted[it.Entry])
			}
		}
	})
}

// A statement must not wait for the receipts of those before it.
func TestOutboxKeepsSeveralBatchesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := &memoryOutbox{}, &testDepot{}
		o, stop := run(t, d, store, nil)
		var slow atomic.Int64
		for i := range 100 { // 300 a second
			store.add(1)
			o.Wake()
			go func() {
				for waited := time.Duration(0); !store.receipted(i); waited += time.Millisecond {
					if waited > 260*time.Millisecond {
						slow.Add(1)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			time.Sleep(3333 * time.Microsecond)
		}
		time.Sleep(time.Second)
		if n := store.pending(); n != 0 {
			t.Errorf("%d statements have no receipt", n)
		}
		if n := slow.Load(); n != 0 {
			t.Errorf("%d receipts took more than 260ms where the depot takes 150ms and is asked each 100ms", n)
		}
		if n := len(d.sent()); n > 8 {
			t.Errorf("%d submissions for 100 statements in 333ms", n)
		}
		stop()
	})
}

// However many wait, the store hands out each once: also those that are sent
// again.
func TestOutboxReadsEachStatementOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		store, d := &memoryOutbox{}, &testDepot{}
		d.answer = func(call int, _ []Entry) ([]Receipt, error) {
			if call == 2 || call == 4 {
				return nil, carnet.Errorf(carnet.Unavailable, "away")
			}
			return nil, nil
		}
		store.add(n)
		_, stop := run(t, d, store, nil)
		time.Sleep(10 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if store.read != n {
			t.Errorf("%d statements were read for %d", store.read, n)
		}
		if left := store.pending(); left != 0 {
			t.Errorf("%d statements have no receipt", left)
		}
	})
}

func TestADepotThatIsAwayDelaysAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memoryOutbox{}
		store.add(1000)
		back := time.Now().Add(time.Minute)
		d := &testDepot{answer: func(int, []Entry) ([]Receipt, error) {
			if time.Now().Before(back) {
				return nil, carnet.Errorf(carnet.Unavailable, "away")
			}
			return nil, nil
		}}
		begun := time.Now()
		o, stop := run(t, d, store, func(c *OutboxConfig) { c.Flights = 1 })
		time.Sleep(time.Until(back))
		if away := o.Away(); away == nil || !away.Since.Equal(begun) || !strings.Contains(away.Why, "away") {
			t.Errorf("it is said to be away %+v, since %v", away, begun)
		}
		var waits []time.Duration
		calls := d.sent()
		for i := 1; i < len(calls); i++ {
			waits = append(waits, calls[i].Sub(calls[i-1]))
		}
		if len(waits) < 5 || !slices.IsSorted(waits) || waits[0] != 200*time.Millisecond || waits[len(waits)-1] > 30*time.Second {
			t.Errorf("waits %v, want 200ms, doubled up to 30s", waits)
		}
		time.Sleep(time.Minute)
		if n := store.pending(); n != 0 {
			t.Errorf("%d statements have no receipt", n)
		}
		stop()
	})
}

func TestReceiptsThatDoNotHoldAreNotStored(t *testing.T) {
	for name, lie := range map[string]func(d *testDepot, entries []Entry) []Receipt{
		"of others":      func(d *testDepot, entries []Entry) []Receipt { return d.receipts(make([]Entry, len(entries))) },
		"in other order": func(d *testDepot, entries []Entry) []Receipt { r := d.receipts(entries); slices.Reverse(r); return r },
		"too few":        func(d *testDepot, entries []Entry) []Receipt { return d.receipts(entries)[1:] },
		"by another key": func(d *testDepot, entries []Entry) []Receipt {
			other := &testDepot{t: d.t, signer: testSigner(d.t, "vault.example/ledger", 9)}
			return other.receipts(entries)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, d := &memoryOutbox{}, &testDepot{}
				d.answer = func(call int, entries []Entry) ([]Receipt, error) {
					if call == 0 {
						return lie(d, entries), nil
					}
					return nil, nil
				}
				store.add(2)
				_, stop := run(t, d, store, nil)
				synctest.Wait()
				if n := store.pending(); n != 2 {
					t.Errorf("%d statements are pending, want 2", n)
				}
				time.Sleep(time.Second)
				if n := store.pending(); n != 0 {
					t.Errorf("%d statements are pending after an honest answer", n)
				}
				stop()
			})
		})
	}
}

// Of two ledgers of one size one isn't the depot's: its receipts aren't stored.
func TestADepotWithTwoLedgersIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := &memoryOutbox{}, &testDepot{}
		d.answer = func(call int, entries []Entry) ([]Receipt, error) {
			if call == 1 {
				return d.receipts(entries), nil // as many as the ledger had before
			}
			return nil, nil
		}
		store.add(2)
		o, stop := run(t, d, store, func(c *OutboxConfig) { c.Backoff = time.Minute })
		time.Sleep(time.Second)
		store.add(2)
		o.Wake()
		time.Sleep(time.Second)
		if away := o.Away(); store.pending() != 2 || away == nil || !strings.Contains(away.Why, "two ledgers of 2 entries") {
			t.Errorf("%d statements are pending, want 2; it is away: %+v", store.pending(), away)
		}
		time.Sleep(time.Minute)
		if n := store.pending(); n != 0 || o.Away() != nil {
			t.Errorf("%d statements are pending after an honest answer", n)
		}
		stop()
	})
}

// A depot that shows less than before is said to, once, and its receipts hold.
func TestADepotThatWasRestoredIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := &memoryOutbox{}, &testDepot{}
		store.add(5)
		var said strings.Builder
		o, stop := run(t, d, store, func(c *OutboxConfig) { c.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		time.Sleep(time.Second)
		d.mu.Lock()
		d.hashes, d.leaves = nil, nil
		d.mu.Unlock()
		for _, want := range []int{1, 1, 1} {
			store.add(1)
			o.Wake()
			time.Sleep(time.Second)
			synctest.Wait()
			if n := strings.Count(said.String(), "shows an older ledger"); n != want || store.pending() != 0 {
				t.Errorf("it was said %d times, want %d; %d statements are pending", n, want, store.pending())
			}
		}
		stop()
	})
}

func TestOutboxBearsAFullStoreAndEndsWithABrokenOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := &memoryOutbox{failWith: carnet.Errorf(carnet.NoSpace, "full")}, &testDepot{}
		store.add(1)
		o, stop := run(t, d, store, nil)
		time.Sleep(time.Second)
		if n := store.pending(); n != 0 {
			t.Errorf("%d statements are pending after the store had room again", n)
		}
		broken := errors.New("fsync")
		store.failNext(broken)
		store.add(1)
		o.Wake()
		time.Sleep(time.Second)
		if err := stop(); !errors.Is(err, broken) {
			t.Errorf("run ended with %v, want %v", err, broken)
		}
	})
}

func TestOutboxConfigIsChecked(t *testing.T) {
	key := testSigner(t, "vault.example/ledger", 1).Key()
	for name, cfg := range map[string]OutboxConfig{
		"no store":     {Submitter: &testDepot{}, Key: key},
		"no submitter": {Store: &memoryOutbox{}, Key: key},
		"no key":       {Store: &memoryOutbox{}, Submitter: &testDepot{}},
		"below zero":   {Store: &memoryOutbox{}, Submitter: &testDepot{}, Key: key, Gap: -1},
	} {
		if _, err := NewOutbox(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
