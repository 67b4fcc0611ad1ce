package thing

import (
	"fmt"

	"carnet"
)

// Examine looks for mappings that wait to go on, or of which a world told something that
// was refused, and for worlds that are behind and can't be reached.
func (a *Agent) Examine(e *carnet.Examination) {
	a.registryMu.RLock()
	mappings := len(a.registry.mappings)
	a.registryMu.RUnlock()
	pending := a.allPending()
	e.Saw("things", len(a.allThings()))
	e.Saw("mappings", mappings+len(pending))
	for _, p := range pending {
		w, doc := a.waiting(p), a.waits(p)
		e.Found(carnet.Finding{
			Kind: "mapping", About: doc.ID.String(), Since: doc.Made, Fix: w.Fix,
			Reason: fmt.Sprintf("it is to go on where the avatar has moved by crossing %s, and waits: %s", w.Crossing, w.For),
		})
	}
	for _, t := range a.allThings() {
		for _, m := range a.thingInfo(t, nil).Mappings {
			if r := m.Refused; r != nil && !m.Stopped {
				e.Found(carnet.Finding{
					Kind: "mapping", About: m.ID.String(), Since: r.At, Wrong: true, Reason: fmt.Sprintf("%s told of a move of its avatar, and that was refused: %s", m.World, r.Why),
					Fix: "see 'carnet thing show'; where the avatar lives elsewhere by now, end the mapping and map the thing to it there",
				})
			}
		}
	}
}
