package passage_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"

	"golang.org/x/sync/errgroup"
)

// Avatars that have left are cleared with those that wait for it, and what fails for
// several is done for each alone.
func TestThoseWhoLeaveTogetherAreClearedTogether(t *testing.T) {
	for name, failing := range map[string]bool{"well": false, "with a failure": true} {
		t.Run(name, func(t *testing.T) {
			arena := newWorld(t, "arena")
			ctx := t.Context()
			var gone []carnet.AvatarID
			var streams []carnet.StreamID
			for range 8 {
				id, its := life(arena, 3)
				x := carnet.NewCrossingID()
				must(t, arena.agent.Freeze(ctx, id, x))
				must(t, arena.agent.Depart(ctx, id, x, "citadel", carnet.Fingerprint{1}))
				gone, streams = append(gone, id), append(streams, its[0].id, its[1].id)
			}
			var wipes atomic.Int32
			first, others := make(chan struct{}), make(chan struct{})
			asked := func() error {
				switch n := wipes.Add(1); {
				case n == 1: // of the first alone
					close(first)
					<-others
				case n == 2 && failing: // of the others together
					return errors.New("no room for what waits")
				}
				return nil
			}
			arena.wipes.Store(&asked)
			var clearing errgroup.Group
			clearing.Go(func() error { return arena.agent.Clear(ctx, gone[0]) })
			<-first
			var begun sync.WaitGroup
			begun.Add(len(gone) - 1)
			for _, id := range gone[1:] {
				clearing.Go(func() error {
					begun.Done()
					return arena.agent.Clear(ctx, id)
				})
			}
			begun.Wait()
			time.Sleep(200 * time.Millisecond) // so that they wait
			close(others)
			must(t, clearing.Wait())
			if n := wipes.Load(); !failing && n > 3 {
				t.Errorf("%d avatars are cleared in %d times", len(gone), n)
			}
			for _, id := range gone {
				if to, err := arena.agent.Departed(id); err != nil || to.Cleared.IsZero() {
					t.Errorf("the avatar %s isn't cleared: %v", id, err)
				}
			}
			nothingLeft(t, arena, streams...)
		})
	}
}
