package thing

import (
	"cmp"
	"slices"

	"carnet"
)

// sameOwner refuses an avatar that isn't of the thing's owner. A world knows this
// agent and none of its users, so nobody but the agent can tell them apart: to it,
// whoever speaks by this agent's link speaks for all of its owners. That there is no
// such avatar, and that it is another owner's, is one answer.
func (a *Agent) sameOwner(t *Thing, world carnet.PartyID, avatar carnet.AvatarID) error {
	if first := a.firstMapping(world, avatar); first == nil || first.thing.owner != t.owner {
		return carnet.Errorf(carnet.NotFound, "%s has no avatar %s of a thing of %s", world, avatar, t.owner).
			WithFix("name an avatar of another thing of %s's, or none: then there will be a new one", t.owner)
	}
	return nil
}

// firstMapping is the mapping by which a world gave an avatar, or by which it came
// there with a move: whose thing that has is the avatar's owner. It may have ended,
// since an avatar can be gone on with. Nil: this agent knows of none.
func (a *Agent) firstMapping(world carnet.PartyID, avatar carnet.AvatarID) *Mapping {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	var all []*Mapping
	for _, m := range a.registry.mappings {
		if m.World == world && m.Avatar == avatar {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(p, q *Mapping) int { return cmp.Compare(a.origin(p), a.origin(q)) })
}

// origin is the number of the mapping that one follows, over all moves. The caller
// holds registryMu.
func (a *Agent) origin(m *Mapping) uint32 {
	for m.follows != nil && a.registry.mappings[m.follows.Mapping] != nil {
		m = a.registry.mappings[m.follows.Mapping]
	}
	return m.Number
}
