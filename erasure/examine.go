package erasure

import (
	"fmt"

	"carnet"
)

// Examine looks for erasures that aren't over, and for who hasn't signed.
func (a *Agent) Examine(e *carnet.Examination) {
	all := a.All()
	e.Saw("erasures", len(all))
	for _, one := range all {
		if one.State.Ended() {
			continue
		}
		reason := fmt.Sprintf("it is %s here", one.State)
		if one.Why != "" {
			reason += ": " + one.Why
		}
		for _, w := range one.Waits() {
			reason += fmt.Sprintf("; %s (%s) hasn't signed: %s", w.Party, w.Role, w.Why)
		}
		e.Found(carnet.Finding{Kind: "erasure", About: one.ID.String(), Since: one.Asked, Reason: reason})
	}
}
