package identity

import (
	"fmt"
	"slices"
	"strings"

	"carnet"
)

// Redaction is an owner's consent to leave behind for good, when an avatar moves, what
// is labelled above a clearance.
type Redaction struct {
	Sensitivity carnet.Sensitivity `json:"sensitivity"`
	Purposes    carnet.Set         `json:"purposes,omitempty"`
	Residency   carnet.Set         `json:"residency,omitempty"`
}

// Clearance is above which what is left behind is labelled.
func (r Redaction) Clearance() carnet.Clearance { return carnet.Clearance(r) }

// Same reports whether two consents, of which nil is none, are to the same.
func (r *Redaction) Same(o *Redaction) bool {
	return r == nil && o == nil || r != nil && o != nil && *r == *o
}

func (r *Redaction) check() error {
	if r == nil {
		return nil
	}
	for _, set := range []carnet.Set{r.Purposes, r.Residency} {
		if words := set.Words(); !Words(words) || !slices.Equal(carnet.NewSet(words...).Words(), words) {
			return carnet.Errorf(carnet.Malformed, "what is to be left behind has the words %.80q: want words of a-z, 0-9 and '-', in order, each once", set)
		}
	}
	if r.Sensitivity > carnet.AllSensitive {
		return carnet.Errorf(carnet.Malformed, "what is to be left behind has a sensitivity that there isn't")
	}
	return nil
}

// explain says for people what is consented to.
func (r *Redaction) explain(source, target carnet.PartyID) string {
	most := r.Sensitivity.String()
	if words := r.Purposes.Words(); len(words) > 0 {
		most += ", for " + strings.Join(words, " and ")
	}
	if words := r.Residency.Words(); len(words) > 0 {
		most += ", kept in " + strings.Join(words, " and ")
	}
	return fmt.Sprintf("What of its history %s may not have is left behind, and deleted in %s with the rest: nobody has it any more then. That is all that is labelled above: %s. It can't be undone.", target, source, most)
}
