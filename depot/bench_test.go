package depot

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/bodies"
	"carnet/ledger"
)

// benchOutbox is an OutboxStore that measures how long receipts take.
type benchOutbox struct {
	mu      sync.Mutex
	next    uint64
	pending []ledger.Item
	made    map[uint64]time.Time
	took    []time.Duration
}

func (o *benchOutbox) add() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.pending = append(o.pending, ledger.Item{ID: o.next, Entry: ledger.NewSalt()})
	o.made[o.next] = time.Now()
}

func (o *benchOutbox) Pending(_ context.Context, after uint64, limit int) ([]ledger.Item, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	from, _ := slices.BinarySearchFunc(o.pending, after+1, func(it ledger.Item, id uint64) int { return cmp.Compare(it.ID, id) })
	rest := o.pending[from:]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

func (o *benchOutbox) Receipted(_ context.Context, items []ledger.Item) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	done := make(map[uint64]bool, len(items))
	for _, it := range items {
		done[it.ID] = true
		o.took = append(o.took, time.Since(o.made[it.ID]))
		delete(o.made, it.ID)
	}
	o.pending = slices.DeleteFunc(o.pending, func(it ledger.Item) bool { return done[it.ID] })
	return nil
}

// BenchmarkReceipts is the whole way of a statement at 300 a second: outbox,
// HTTP/2 over TLS, ledger with fsync, index (in memory), receipt, verified.
func BenchmarkReceipts(b *testing.B) {
	a, client := serve(b, bodies.Disk{})
	store := &benchOutbox{made: make(map[uint64]time.Time)}
	outbox, err := ledger.NewOutbox(ledger.OutboxConfig{Store: store, Submitter: client("hub"), Key: a.Key()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- outbox.Run(ctx) }()
	next := time.Now()
	for b.Loop() {
		next = next.Add(time.Duration(rand.ExpFloat64() * float64(time.Second) / 300))
		time.Sleep(time.Until(next))
		store.add()
		outbox.Wake()
	}
	for {
		store.mu.Lock()
		left := len(store.pending)
		store.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	slices.Sort(store.took)
	ms := func(q float64) float64 {
		return float64(store.took[int(q*float64(len(store.took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(ms(1), "max-ms")
}

// BenchmarkSubmit is how many entries the ledger takes: 16 callers with 1,000
// entries each time.
func BenchmarkSubmit(b *testing.B) {
	a, _ := start(b, testConfig(b, b.TempDir(), newStore()), bodies.Disk{})
	const callers, each = 16, 1000
	for b.Loop() {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				entries := make([]ledger.Entry, each)
				for i := range entries {
					entries[i] = ledger.NewSalt()
				}
				if _, err := a.Submit(b.Context(), "clinic", entries); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.N*callers*each)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkPutObject is one caller with 256 KiB objects.
func BenchmarkPutObject(b *testing.B) {
	_, client := serve(b, bodies.Disk{})
	body := make([]byte, 256<<10)
	b.SetBytes(int64(len(body)))
	hub := client("hub")
	for n := uint64(0); b.Loop(); n++ {
		body[0], body[1], body[2], body[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
		if _, err := hub.PutObject(b.Context(), body, carnet.Month); err != nil {
			b.Fatal(err)
		}
	}
}
