package avatar

import (
	"context"
	"sync"

	"carnet"
)

// turnBytes is how much of one sender's frames may wait to be opened. A byte holds
// eight measurements at most, so a turn has as many as a frame may have.
const turnBytes = maxOfFrame / 8

// turns has senders take turns. Frames are opened one after the other in the order of
// their commits, so order is made before the commit: what a sender has stored and isn't
// opened is one turn at most, and a frame waits for one turn of each other sender,
// however much these have to send.
type turns struct {
	most int // bytes

	mu sync.Mutex
	of map[carnet.PartyID]*turn
}

type turn struct {
	unopened int           // bytes of frames; owner: turns.mu
	ended    chan struct{} // for the one that waits: something of it was opened
}

func newTurns() turns {
	return turns{most: turnBytes, of: make(map[carnet.PartyID]*turn)}
}

// take waits until a sender may store frames of so many bytes. Frames that are more
// than a turn alone are let in when nothing of the sender waits. Of one sender one
// call is under way at a time, as the link's Sink has it.
func (t *turns) take(ctx context.Context, stopped <-chan struct{}, sender carnet.PartyID, bytes int) error {
	for {
		s, ok := t.fits(sender, bytes)
		if ok {
			return nil
		}
		select {
		case <-s.ended:
		case <-stopped:
			return errStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *turns) fits(sender carnet.PartyID, bytes int) (*turn, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.of[sender]
	if s == nil {
		s = &turn{ended: make(chan struct{}, 1)}
		t.of[sender] = s
	}
	if s.unopened > 0 && s.unopened+bytes > t.most {
		return s, false
	}
	s.unopened += bytes
	return s, true
}

// end gives back what take let in: it is opened, or wasn't stored.
func (t *turns) end(sender carnet.PartyID, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.of[sender]
	s.unopened -= bytes
	select {
	case s.ended <- struct{}{}:
	default:
	}
}
