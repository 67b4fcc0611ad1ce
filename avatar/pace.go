package avatar

import (
	"context"
	"time"
)

// How slowly frames are compacted while there is room for more of them: what
// compaction takes of processors and disk at once, who waits for an
// acknowledgement or an event waits for.
const (
	paceRest = 3                      // how much longer than a piece the rest after it is
	maxRest  = 100 * time.Millisecond // and how long at most
)

// pace has a compaction rest after each piece. Owner: who compacts.
type pace struct {
	agent *Agent
	begun time.Time // of the piece
}

func (a *Agent) newPace() *pace { return &pace{a, a.now()} }

// rest waits after a piece, unless too much waits to be compacted, or somebody waits
// for it. It fails when ctx ends meanwhile. Nil rests never.
func (p *pace) rest(ctx context.Context) error {
	if p == nil {
		return ctx.Err()
	}
	took := p.agent.now().Sub(p.begun)
	if took > 0 && !p.agent.presses() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(paceRest*took, maxRest)):
		}
	}
	p.begun = p.agent.now()
	return nil
}

// presses reports whether so much waits that it is to be compacted at once, or
// an avatar keeps still until it is.
func (a *Agent) presses() bool {
	if a.hurry.Load() > 0 {
		return true
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.tail.bytes > tailBytes || len(a.tail.refused) >= maxRefused
}
