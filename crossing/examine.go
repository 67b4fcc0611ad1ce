package crossing

import (
	"fmt"

	"carnet"
)

// Examine looks for shares that wait: to be given, or to be told that they are over.
func (a *Agent) Examine(e *carnet.Examination) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	e.Saw("shares", len(a.given)+len(a.taken))
	for id, t := range a.taken {
		if t.State == Asked {
			e.Found(carnet.Finding{
				Kind: "share", About: id.String(), Since: t.Asked, Reason: fmt.Sprintf("%s was asked for it, and hasn't said yes or no", t.Giver),
				Fix: "wait, or stop asking ('carnet share stop')",
			})
		}
	}
	for id, g := range a.given {
		if g.End != nil && !g.Told && !g.Erased && a.sources[g.Taker] != nil { // no longer a peer, it is told nothing
			e.Found(carnet.Finding{Kind: "share", About: id.String(), Since: g.End.Time, Reason: fmt.Sprintf("it has ended here, and %s hasn't been told", g.Taker)})
		}
	}
}
