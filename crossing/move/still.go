package move

import (
	"context"
	"sync"
	"time"

	"carnet"
)

// maxStill is how many avatars a target has keep still at once. Each of a thousand that
// come together then does so for a moment, and not while all others are asked about.
const maxStill = 16

// places are what so many may have at once.
type places struct {
	free chan struct{} // holds one for each that is taken

	mu    sync.Mutex // guards what follows
	taken map[carnet.CrossingID]bool
}

func newPlaces(n int) *places {
	return &places{free: make(chan struct{}, n), taken: make(map[carnet.CrossingID]bool)}
}

// take waits for a place, unless the move has one, while on says that it is wanted. It
// says whether there is one, and whether it had to wait.
func (p *places) take(ctx context.Context, x carnet.CrossingID, on func() bool) (has, waited bool) {
	p.mu.Lock()
	has = p.taken[x]
	p.mu.Unlock()
	if has {
		return true, false
	}
	select {
	case p.free <- struct{}{}:
	default:
		waited = true
		look := time.NewTicker(time.Second)
		defer look.Stop()
		for {
			select {
			case p.free <- struct{}{}:
			case <-ctx.Done():
				return false, true
			case <-look.C:
				if !on() {
					return false, true
				}
				continue
			}
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[x] = true
	return true, waited
}

// give gives the place back that a move may have.
func (p *places) give(x carnet.CrossingID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[x] {
		delete(p.taken, x)
		<-p.free
	}
}
