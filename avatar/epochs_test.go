package avatar

import (
	"context"
	"testing"
	"time"

	"carnet"
	"carnet/seal"
)

// watchedStore tells of each page of documents, once it was read.
type watchedStore struct {
	*memoryStore
	paged func(kind string)
}

func (s *watchedStore) DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error) {
	page, err := s.memoryStore.DocumentPage(ctx, kind, after, limit)
	s.paged(kind)
	return page, err
}

// A world may have millions of epochs: who grants keys doesn't wait until all
// are looked at, and what is granted anew meanwhile stays.
func TestGrantWhileEpochsEnd(t *testing.T) {
	w := newProvenWorld(t)
	ctx, now := t.Context(), time.Now()
	w.agent.now = func() time.Time { return now }
	renewed, over := w.epochs[0], w.epochs[1]
	grant := func(key seal.Key) {
		t.Helper()
		if err := w.agent.noteGrant(ctx, "hub", &seal.Bag{NotAfter: now.Add(time.Hour), Entries: []seal.Entry{{Key: key}}}); err != nil {
			t.Fatal(err)
		}
	}
	grant(renewed)
	grant(over)
	now = now.Add(2 * time.Hour)
	w.agent.store = &watchedStore{w.store, func(kind string) {
		if kind != kindEpoch {
			return
		}
		if !w.agent.changeMu.TryLock() {
			t.Fatal("who grants keys waits until all epochs are looked at")
		}
		w.agent.changeMu.Unlock()
		grant(renewed)
	}}
	if err := w.agent.endEpochs(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  seal.Key
		want bool
	}{{"renewed", renewed, true}, {"over", over, false}} {
		_, err := w.agent.keys.Get(ctx, keyID(seal.Path{Level: seal.EpochLevel, Stream: c.key.Stream, Epoch: c.key.Epoch}))
		if err != nil && carnet.CodeOf(err) != carnet.NotFound {
			t.Fatal(err)
		}
		if (err == nil) != c.want {
			t.Errorf("the key whose grant is %s is there: %v", c.name, err == nil)
		}
	}
}
