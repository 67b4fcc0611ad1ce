package revocation

import (
	"context"
	"sync/atomic"
	"time"
)

// againAfter is when a reading that failed is tried again.
const againAfter = 100 * time.Millisecond

// Follower has what may have ended read anew whenever the number has changed, and
// again after a reading that failed: until one succeeds, nobody can tell what ended.
type Follower struct {
	changed chan struct{}
	behind  atomic.Bool
}

// Follow makes a Follower of a Watcher.
func Follow(w *Watcher) *Follower {
	f := &Follower{changed: make(chan struct{}, 1)}
	w.Subscribe(func(State) {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	})
	return f
}

// Behind reports whether the last reading failed: what is known may have ended.
func (f *Follower) Behind() bool { return f.behind.Load() }

// Run reads whenever there is reason to, until ctx ends. read says itself what failed.
func (f *Follower) Run(ctx context.Context, read func(context.Context) error) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.changed:
		case <-again:
		}
		err := read(ctx)
		if f.behind.Store(err != nil); err != nil {
			again = time.After(againAfter)
		} else {
			again = nil
		}
	}
}
