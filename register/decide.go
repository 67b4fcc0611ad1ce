package register

import (
	"fmt"
	"time"

	"carnet"
	"carnet/identity"
)

// Home is where an avatar or item is home, and by whose order it moves.
type Home struct {
	ID      carnet.HomeID `json:"home"`
	Version uint64        `json:"version"` // 1 when it is enrolled; one more with each move
	World   string        `json:"world"`   // did:key
	Owner   string        `json:"owner"`   // did:key; never changes
	// Incarnation counts claims and moves: it never comes again.
	Incarnation uint64 `json:"incarnation"`
	// Chain is how many entries the chain of an item has, as its world said last; absent:
	// it said nothing, or the home is an avatar's.
	Chain uint64 `json:"chain,omitempty"`
	// Recovery is what was petitioned for and is carried out once its time has come;
	// absent: nothing is.
	Recovery identity.Petitioned `json:"recovery,omitzero"`
	// Erased is the order by which what it is the home of was erased; empty: it
	// wasn't. It never changes again then.
	Erased string `json:"erased,omitempty"`
	// Moved is the number of the change that moved it to where it is; absent: none did,
	// or a register from before this was written down did.
	Moved uint64 `json:"moved,omitempty"`
}

// Want is what somebody asks a registrar to do about a crossing.
type Want string

// The wants.
const (
	Commit Want = "commit"
	Abort  Want = "abort"
	Ask    Want = "ask" // only what was decided; once the order's time is over, that it be decided
)

// Question is what is asked about a crossing. Who signed its messages was checked
// before (identity.OpenOrder and the others): each is by who it names.
type Question struct {
	By       string // did:key of who asks, as mutual TLS proved it
	Crossing carnet.CrossingID
	Want     Want

	Order      *identity.Order // of a move, or a recovery; nil: only what was decided can be answered
	Hash       carnet.Fingerprint
	Release    *identity.Release    // nil: none
	Acceptance *identity.Acceptance // nil: none
	Farewell   *identity.Farewell   // nil: none
}

// Known is what the register holds that bears on a question.
type Known struct {
	Registrar string                 // did:key of this registrar
	Decision  *identity.Decision     // about the crossing; nil: there is none
	Homes     map[carnet.HomeID]Home // of those that the order names, as far as they are enrolled
	Wait      time.Duration          // how long a source is given to show itself before a recovery
}

// Decide is the one rule of a register: what follows from a question. It returns
// the decision (that in k, if there is one: the first stands) and the homes that
// change with it, all or none; nil without an error while nothing is decided. Homes
// without a decision have a petition now, which is recorded. An error refuses the
// question, and decides nothing.
func Decide(k Known, q Question, now time.Time) (*identity.Decision, []Home, error) {
	if k.Decision != nil {
		return k.Decision, nil, nil
	}
	if q.Order == nil {
		if q.Want == Ask {
			return nil, nil, nil
		}
		return nil, nil, carnet.Errorf(carnet.Malformed, "nothing is decided about the crossing without its order")
	}
	if err := owned(k, q); err != nil {
		return nil, nil, err
	}
	if !now.Before(q.Order.Until) {
		return abort(k, q, now, "the time of its order is over"), nil, nil
	}
	switch q.Want {
	case Ask:
		return nil, nil, nil
	case Abort:
		switch q.By {
		case q.Order.Source:
			return abort(k, q, now, "the source asked for it"), nil, nil
		case q.Order.Target:
			return abort(k, q, now, "the target asked for it"), nil, nil
		}
		return nil, nil, carnet.Errorf(carnet.Forbidden, "before its time is over, only source and target may end a crossing")
	case Commit:
		if q.Order.Recovers != nil {
			return commitRecovery(k, q, now)
		}
		return commit(k, q, now)
	}
	return nil, nil, carnet.Errorf(carnet.Malformed, "a registrar can't be asked to %.20q", q.Want)
}

// owned refuses an order that isn't for this registrar and crossing, or not by the
// owner of all that it names. A home that isn't enrolled looks like somebody else's.
func owned(k Known, q Question) error {
	if q.Order.Registrar != k.Registrar {
		return carnet.Errorf(carnet.Forbidden, "the order is for another registrar")
	}
	if q.Order.Crossing != q.Crossing {
		return carnet.Errorf(carnet.Malformed, "the order is for another crossing")
	}
	for _, id := range q.Order.Homes {
		if h, ok := k.Homes[id]; !ok || h.Owner != q.Order.Owner {
			return carnet.Errorf(carnet.Forbidden, "the order isn't by the owner of every home that it names")
		}
	}
	return nil
}

// commit decides on release and acceptance. Those of others, and for other orders,
// are refused: whoever sends them can't end what goes on between the two worlds.
func commit(k Known, q Question, now time.Time) (*identity.Decision, []Home, error) {
	o, r, a := q.Order, q.Release, q.Acceptance
	switch {
	case r == nil || a == nil:
		return nil, nil, carnet.Errorf(carnet.Malformed, "a commit needs the source's release and the target's acceptance")
	case r.Source != o.Source || r.Crossing != o.Crossing || r.Order != q.Hash || len(r.Incarnations) != len(o.Homes):
		return nil, nil, carnet.Errorf(carnet.Forbidden, "the release isn't the source's for this order")
	case a.Target != o.Target || a.Crossing != o.Crossing || a.Order != q.Hash:
		return nil, nil, carnet.Errorf(carnet.Forbidden, "the acceptance isn't the target's for this order")
	case r.Manifest != a.Manifest:
		return abort(k, q, now, "the target accepted something else than the source released"), nil, nil
	}
	for i, id := range o.Homes {
		h := k.Homes[id]
		if h.Erased != "" {
			return abort(k, q, now, fmt.Sprintf("what the home %s is of is erased", id)), nil, nil
		}
		if h.World != o.Source {
			return abort(k, q, now, fmt.Sprintf("the home %s isn't at the source", id)), nil, nil
		}
		if h.Incarnation != r.Incarnations[i] {
			return abort(k, q, now, fmt.Sprintf("the source has claimed the home %s again since it released it", id)), nil, nil
		}
	}
	d, moved := moves(k, q, now, r.Manifest)
	return d, moved, nil
}

// moves has all homes of an order go to its target.
func moves(k Known, q Question, now time.Time, manifest carnet.Fingerprint) (*identity.Decision, []Home) {
	d := decided(k, q, now, identity.Commit)
	d.Manifest = &manifest
	moved := make([]Home, 0, len(q.Order.Homes))
	for _, id := range q.Order.Homes {
		h := k.Homes[id]
		h.Version, h.World, h.Incarnation, h.Recovery = h.Version+1, q.Order.Target, h.Incarnation+1, identity.Petitioned{}
		moved, d.Homes = append(moved, h), append(d.Homes, identity.HomeAt{Home: id, Version: h.Version, World: h.World})
	}
	return d, moved
}

func abort(k Known, q Question, now time.Time, why string) *identity.Decision {
	d := decided(k, q, now, identity.Abort)
	d.Why = why
	return d
}

func decided(k Known, q Question, now time.Time, outcome identity.Outcome) *identity.Decision {
	return &identity.Decision{
		Registrar: k.Registrar, Crossing: q.Crossing, Order: q.Hash, Outcome: outcome,
		Homes: []identity.HomeAt{}, Time: now.UTC().Truncate(time.Second),
	}
}

// Enrol is the rule for a home that a world wants registered: of its own drawing,
// with the owner's key that is pinned with the avatar. known is what the register
// has of it, nil if nothing. The same again changes nothing.
func Enrol(known *Home, id carnet.HomeID, by, owner string) (h Home, changed bool, err error) {
	switch {
	case known == nil:
		return Home{ID: id, Version: 1, World: by, Owner: owner, Incarnation: 1}, true, nil
	case known.World != by || known.Owner != owner:
		return Home{}, false, carnet.Errorf(carnet.Conflict, "the home %s is enrolled already, at another world or for another owner", id)
	}
	return *known, false, nil
}

// Claim is the rule for a world that begins anew to act as home: releases from before
// are worth nothing any more, and neither are recoveries. A home that isn't enrolled looks
// like one elsewhere. One that is erased is answered as it is: the world learns it so.
func Claim(known *Home, id carnet.HomeID, by string) (Home, error) {
	if known == nil || known.World != by {
		return Home{}, carnet.Errorf(carnet.Forbidden, "the home %s isn't at this world", id)
	}
	h := *known
	if h.Erased == "" {
		h.Incarnation++
		h.Recovery = identity.Petitioned{} // whose source has shown itself
	}
	return h, nil
}

// ClaimItem is Claim of an item's home, by which its world says how many entries the
// item's chain has, or is to have: an older chain proves nothing any more then. 0: it
// says nothing.
func ClaimItem(known *Home, id carnet.HomeID, by string, chain uint64) (Home, error) {
	h, err := Claim(known, id, by)
	if err == nil && chain > 0 && h.Erased == "" {
		h.Chain = chain
	}
	return h, err
}

// Erase is the rule for a world that has its owner's order to erase what a home of
// it is of. The first order stands. The order is one that is signed by who it names,
// and token its exact form.
func Erase(known *Home, registrar, by string, o identity.ErasureOrder, token string) (h Home, changed bool, err error) {
	switch {
	case o.Registrar != registrar:
		return Home{}, false, carnet.Errorf(carnet.Forbidden, "the order to erase is for another registrar")
	case known == nil || known.World != by || known.ID != o.Home:
		return Home{}, false, carnet.Errorf(carnet.Forbidden, "the home %s isn't at this world", o.Home)
	case o.World != by:
		return Home{}, false, carnet.Errorf(carnet.Forbidden, "the order to erase is for another world")
	case o.Owner != known.Owner:
		return Home{}, false, carnet.Errorf(carnet.Forbidden, "the order to erase isn't by the home's owner")
	}
	h = *known
	if h.Erased != "" {
		return h, false, nil
	}
	h.Erased, h.Recovery = token, identity.Petitioned{}
	return h, true, nil
}
