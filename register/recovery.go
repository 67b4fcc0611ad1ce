package register

import (
	"bytes"
	"cmp"
	"fmt"
	"time"

	"carnet"
	"carnet/identity"
)

// commitRecovery decides on a recovery (docs/design/passport.md): by its owner's word and
// the target's acceptance, without a release by the source; but only once the source
// has said farewell, or hasn't shown itself for the waiting time since the petition
// was recorded. A source that shows itself has claimed the home, which raises its
// incarnation.
func commitRecovery(k Known, q Question, now time.Time) (*identity.Decision, []Home, error) {
	o, a := q.Order, q.Acceptance
	switch {
	case len(o.Homes) != 1:
		return nil, nil, carnet.Errorf(carnet.Malformed, "a recovery is of one home, and this one names %d", len(o.Homes))
	case q.Release != nil:
		return nil, nil, carnet.Errorf(carnet.Malformed, "a recovery has no release")
	case a == nil:
		return nil, nil, carnet.Errorf(carnet.Malformed, "a recovery needs the target's acceptance")
	case a.Target != o.Target || a.Crossing != o.Crossing || a.Order != q.Hash || a.Manifest != o.Recovers.Manifest:
		return nil, nil, carnet.Errorf(carnet.Forbidden, "the acceptance isn't the target's for this recovery and its passport")
	}
	h := k.Homes[o.Homes[0]]
	switch {
	case h.Erased != "":
		return abort(k, q, now, fmt.Sprintf("what the home %s is of is erased", h.ID)), nil, nil
	case h.Erased != "":
		return abort(k, q, now, fmt.Sprintf("what the home %s is of is erased", h.ID)), nil, nil
	case h.World != o.Source:
		return abort(k, q, now, fmt.Sprintf("the home %s isn't at the source", h.ID)), nil, nil
	case h.Incarnation != o.Recovers.Incarnations[0]:
		return abort(k, q, now, fmt.Sprintf("the source has shown itself: it has claimed the home %s since the recovery was ordered", h.ID)), nil, nil
	}
	if f := q.Farewell; f != nil {
		if f.Registrar != k.Registrar || f.Source != o.Source || f.Home != h.ID || f.Incarnation != h.Incarnation || f.Manifest != o.Recovers.Manifest {
			return nil, nil, carnet.Errorf(carnet.Forbidden, "the farewell isn't the source's, of this home as it stands and of this passport")
		}
		d, moved := moves(k, q, now, o.Recovers.Manifest)
		return d, moved, nil
	}
	switch there := h.Recovery; {
	case there.Crossing == o.Crossing && there.Target == o.Target && there.Signed.Equal(o.Made):
		if now.Before(there.Until) {
			return nil, nil, nil
		}
		d, moved := moves(k, q, now, o.Recovers.Manifest)
		return d, moved, nil
	case there != (identity.Petitioned{}) && !later(o, there):
		return abort(k, q, now, "its owner has ordered another recovery of the home since"), nil, nil
	}
	over := now.UTC().Add(k.Wait)
	until := over.Truncate(time.Second)
	if until.Before(over) {
		until = until.Add(time.Second) // never earlier than said
	}
	h.Recovery = identity.Petitioned{Crossing: o.Crossing, Target: o.Target, Signed: o.Made, Asked: now.UTC().Truncate(time.Second), Until: until}
	return nil, []Home{h}, nil
}

// later reports whether an owner signed a recovery after one that was petitioned for.
// Of two in one second the crossing says which.
func later(o *identity.Order, there identity.Petitioned) bool {
	return cmp.Or(o.Made.Compare(there.Signed), bytes.Compare(o.Crossing[:], there.Crossing[:])) > 0
}
