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
	case q.Release != nil:
		return nil, nil, carnet.Errorf(carnet.Malformed, "a recovery has no release")
	case len(o.Recovers.Incarnations) != len(o.Homes) || len(o.Recovers.Chains) != len(o.Homes):
		return nil, nil, carnet.Errorf(carnet.Malformed, "a recovery names the incarnation of each of its homes, and the length of its chain")
	case a == nil:
		return nil, nil, carnet.Errorf(carnet.Malformed, "a recovery needs the target's acceptance")
	case a.Target != o.Target || a.Crossing != o.Crossing || a.Order != q.Hash || a.Manifest != o.Recovers.Manifest:
		return nil, nil, carnet.Errorf(carnet.Forbidden, "the acceptance isn't the target's for this recovery and its passport")
	}
	for i, id := range o.Homes {
		switch h := k.Homes[id]; {
		case h.Erased != "":
			return abort(k, q, now, fmt.Sprintf("what the home %s is of is erased", id)), nil, nil
		case h.World != o.Source:
			return abort(k, q, now, fmt.Sprintf("the home %s isn't at the source", id)), nil, nil
		case h.Incarnation != o.Recovers.Incarnations[i]:
			return abort(k, q, now, fmt.Sprintf("the source has shown itself: it has claimed the home %s since the recovery was ordered", id)), nil, nil
		case h.Chain != o.Recovers.Chains[i]:
			return abort(k, q, now, fmt.Sprintf("the item whose home is %s has a chain of %d entries, by its world's word, and the recovery is of one of %d", id, h.Chain, o.Recovers.Chains[i])), nil, nil
		}
	}
	if f := q.Farewell; f != nil {
		if f.Registrar != k.Registrar || f.Source != o.Source || f.Manifest != o.Recovers.Manifest {
			return nil, nil, carnet.Errorf(carnet.Forbidden, "the farewell isn't the source's, of this passport")
		}
		for _, id := range o.Homes {
			if !f.Of(id, k.Homes[id].Incarnation) {
				return nil, nil, carnet.Errorf(carnet.Forbidden, "the farewell isn't of the home %s as it stands", id)
			}
		}
		d, moved := moves(k, q, now, o.Recovers.Manifest)
		return d, moved, nil
	}
	return petitioned(k, q, now)
}

// petitioned records a recovery with the first of its homes that lacks it, or decides on
// it once the waiting time is over at all of them.
func petitioned(k Known, q Question, now time.Time) (*identity.Decision, []Home, error) {
	o, ripe := q.Order, true
	var lacks *Home
	for _, id := range o.Homes {
		h := k.Homes[id]
		switch there := h.Recovery; {
		case there.Crossing == o.Crossing && there.Target == o.Target && there.Signed.Equal(o.Made):
			ripe = ripe && !now.Before(there.Until)
		case there != (identity.Petitioned{}) && !later(o, there):
			return abort(k, q, now, fmt.Sprintf("its owner has ordered another recovery of the home %s since", id)), nil, nil
		case lacks == nil:
			lacks = &h
		}
	}
	switch {
	case lacks != nil:
	case ripe:
		d, moved := moves(k, q, now, o.Recovers.Manifest)
		return d, moved, nil
	default:
		return nil, nil, nil
	}
	over := now.UTC().Add(k.Wait)
	until := over.Truncate(time.Second)
	if until.Before(over) {
		until = until.Add(time.Second) // never earlier than said
	}
	lacks.Recovery = identity.Petitioned{Crossing: o.Crossing, Target: o.Target, Signed: o.Made, Asked: now.UTC().Truncate(time.Second), Until: until}
	return nil, []Home{*lacks}, nil
}

// later reports whether an owner signed a recovery after one that was petitioned for.
// Of two in one second the crossing says which.
func later(o *identity.Order, there identity.Petitioned) bool {
	return cmp.Or(o.Made.Compare(there.Signed), bytes.Compare(o.Crossing[:], there.Crossing[:])) > 0
}
