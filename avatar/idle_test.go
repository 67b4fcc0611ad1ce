package avatar

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"time"

	"carnet"
)

// pagedStore has documents in order of their ids.
type pagedStore struct {
	memoryStore
	pages map[string][]carnet.Document
}

func (s *pagedStore) DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error) {
	all, ok := s.pages[kind]
	if !ok {
		return s.memoryStore.DocumentPage(ctx, kind, after, limit)
	}
	i, found := slices.BinarySearchFunc(all, after, func(d carnet.Document, id string) int { return cmp.Compare(d.ID, id) })
	if found {
		i++
	}
	return all[i:min(i+limit, len(all))], nil
}

// idleBytes loads n avatars, each with one stream and two properties, and
// returns how much memory one takes.
func idleBytes(tb testing.TB, n int) float64 {
	w := newProvenWorld(tb)
	store := &pagedStore{memoryStore: *w.store, pages: make(map[string][]carnet.Document)}
	for range n {
		id, stream := carnet.NewAvatarID(), carnet.NewStreamID()
		a, err := w.agent.document(kindAvatar, id.String(), 1, avatarDocument{
			Title: "a watch", Created: time.Now().UTC(), Key: make([]byte, ed25519.PublicKeySize), Streams: []streamDocument{{ID: stream, Sender: "hub"}},
		})
		s, failed := w.agent.document(kindState, id.String(), 1, stateDocument{
			Latest: []savedValue{
				{Name: "heart_rate", Unit: "beat/min", Time: 1e18, Num: 60, Epoch: carnet.NewEpochID()},
				{Name: "position/latitude", Unit: "lat", Time: 1e18, Num: 49, Epoch: carnet.NewEpochID()},
			},
			Streams: []savedStream{{Stream: stream, NextBatch: 3, NextFirst: 9, Measurements: 9, Batches: 3}},
		})
		if err := errors.Join(err, failed); err != nil {
			tb.Fatal(err)
		}
		store.pages[kindAvatar], store.pages[kindState] = append(store.pages[kindAvatar], a), append(store.pages[kindState], s)
	}
	for _, documents := range store.pages {
		slices.SortFunc(documents, func(p, q carnet.Document) int { return cmp.Compare(p.ID, q.ID) })
	}
	before := heap()
	agent, err := New(tb.Context(), Config{Party: "arena", Store: store, Keys: w.agent.keys, Depot: noDepot{}, Recorded: func() {}, Log: slog.New(slog.DiscardHandler),
		Senders: []Sender{{Party: "hub", Key: w.key.Public().(ed25519.PublicKey), Self: "arena", Own: w.key}}})
	if err != nil {
		tb.Fatal(err)
	}
	after := heap()
	if len(agent.avatars) != n || len(agent.streams) != n {
		tb.Fatalf("%d avatars and %d streams are loaded, want %d", len(agent.avatars), len(agent.streams), n)
	}
	runtime.KeepAlive(store)
	return float64(after-before) / float64(n)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one's finalizers held
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkIdleAvatars measures what an idle avatar takes, over 200,000.
func BenchmarkIdleAvatars(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(idleBytes(b, 200_000), "B/avatar")
	}
}

// What an idle avatar takes decides how many a world can have (world.md).
func TestIdleAvatarsAreSmall(t *testing.T) {
	if bytes := idleBytes(t, 50_000); bytes > 512 {
		t.Errorf("an idle avatar takes %.0f bytes", bytes)
	}
}
