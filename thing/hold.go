package thing

import (
	"context"
	"time"
)

// holdFor is how long a change of a mapping waits, at most, until what was decided
// under the view before has left.
const holdFor = time.Second

// hold keeps a mapping's measurements out of new frames, and waits until the
// frames that have some of it are on their way. A change that comes then has
// nothing to take back, and other mappings' frames don't notice it. Several
// changes of one mapping wait together. letGo ends it.
func (a *Agent) hold(ctx context.Context, m *Mapping) error {
	a.policyMu.Lock()
	m.held++
	a.policyMu.Unlock()
	enough := time.After(holdFor)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for a.underWay(m) != nil {
		select {
		case <-ctx.Done():
			a.letGo(m)
			return ctx.Err()
		case <-enough: // they are recalled
			return nil
		case <-tick.C:
		}
	}
	return nil
}

func (a *Agent) letGo(m *Mapping) {
	a.policyMu.Lock()
	defer a.policyMu.Unlock()
	m.held--
	m.turn.Add(1)
	a.tellRuns(m.World)
}

// underWay is the run that has built a frame with something of the mapping which
// has not left yet; nil for none.
func (a *Agent) underWay(m *Mapping) *run {
	r := a.sender(m.World).current()
	if r == nil || r.ctx.Err() != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.courses[m.Number]; c == nil || c.frame <= r.gone.Load() {
		return nil
	}
	return r
}

// recall takes back the frames with something of a mapping that were built and
// have not left: it was decided under the policy before. Their run ends, and the
// link begins anew from what the world has. The caller holds the policy lock.
func (a *Agent) recall(m *Mapping) {
	if r := a.underWay(m); r != nil {
		r.cancel(errAnew)
	}
}
