package thing

import (
	"context"
	"errors"

	"carnet"
	ident "carnet/identity"
)

// Recovered follows an avatar whose home is gone for good, and which has another one by
// its owner's recovery and the registrar's decision: what its things sent there goes on
// at the new home, from where the owner says that each stream stands. Whoever brings
// these may; they prove themselves. Told again it changes nothing. It returns what goes
// on, and what does so already. Streams of homes that the avatar left before have ended,
// and stay so.
//
// The former world isn't told, for it doesn't answer. If it comes back, it is told when
// it says where the avatar went.
func (a *Agent) Recovered(ctx context.Context, recovery string, terms []byte, decision string) ([]MappingInfo, error) {
	order, err := ident.OpenRecovery(recovery)
	if err != nil {
		return nil, err
	}
	says, err := ident.ParseMoveTerms(terms, order)
	if err != nil {
		return nil, err
	}
	followed := []MappingInfo{}
	for _, at := range says.Heads {
		m := a.mappingByStream(at.Stream)
		if m == nil {
			continue // another agent's
		}
		if a.movedBefore(m, order.Crossing) {
			continue
		}
		s := a.sender(m.World)
		if s == nil {
			return nil, carnet.Errorf(carnet.NotFound, "the world %s isn't known here any more", m.World)
		}
		told := carnet.Moved{Stream: at.Stream, Order: recovery, Terms: terms, Decision: decision, NextBatch: at.NextBatch, NextFirst: at.NextFirst}
		err := a.followMove(ctx, s, tidings{mapping: m, moved: told})
		if why, refused := errors.AsType[notAMove](err); refused {
			return nil, why.error
		} else if err != nil {
			return nil, err
		}
		followed = append(followed, a.goesOn(m, order.Crossing))
	}
	if len(followed) == 0 {
		return nil, carnet.Errorf(carnet.NotFound, "nothing here was sent to the avatar that was recovered").WithFix("tell the things agent whose things it stands for")
	}
	return followed, nil
}

// movedBefore reports whether a mapping's avatar left its world by another crossing.
func (a *Agent) movedBefore(m *Mapping, x carnet.CrossingID) bool {
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	return m.moved != nil && m.moved.Crossing != x
}

// goesOn is what goes on in the place of a mapping: one that waits, or is there.
func (a *Agent) goesOn(m *Mapping, x carnet.CrossingID) MappingInfo {
	for _, p := range a.allPending() {
		if doc := a.waits(p); doc.Former == m.Number && doc.Crossing == x {
			return a.pendingInfo(p)
		}
	}
	a.registryMu.RLock()
	next := m // its owner has ended it, if nothing follows
	for _, other := range a.registry.mappings {
		if f := other.follows; f != nil && f.Mapping == m.Number && f.Crossing == x {
			next = other
		}
	}
	a.registryMu.RUnlock()
	return a.info(next)
}
