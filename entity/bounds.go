package entity

import (
	"carnet"
	"carnet/identity"
)

// bounded refuses terms that the policy of their avatar forbids: to whom, what for, and
// whether it may be passed on. A grant that was given is forbidden for as long as the
// policy says so: it gives nothing meanwhile.
func (a *Agent) bounded(t *Terms) error {
	b := a.cfg.Avatars.Bounds(t.Avatar)
	if b.Version == 0 {
		return nil
	}
	world := ""
	if t.To.Platform != "" {
		world = a.cfg.World(t.To.Platform)
	}
	reads := false
	for _, action := range t.Actions {
		if action != identity.ActionMove {
			reads = true
		} else if err := b.MayMoveTo(world, t.To.Platform); err != nil {
			return err // when it may is seen where it moves: what has begun is carried through
		}
	}
	if !reads {
		return nil
	}
	if err := b.MayUseFor(t.Purpose); err != nil {
		return err
	}
	if t.Onward {
		if err := b.MayPassOn(); err != nil {
			return err
		}
	}
	switch {
	case t.To.Application != "":
		return b.MayGiveApplication(t.To.Application)
	case t.To.Avatar != "":
		return b.MayGiveAvatar(t.To.Avatar)
	}
	return b.MayGiveWorld(world, t.To.Platform)
}

// most is the most sensitive of an avatar that anybody but its world may have now.
func (a *Agent) most(avatar carnet.AvatarID) carnet.Sensitivity {
	return a.cfg.Avatars.Bounds(avatar).Most()
}

// forbidden says why a grant of an action that was given gives nothing: the avatar's
// policy forbids it. nil: there is no such grant. The caller holds mu.
func (a *Agent) forbidden(to To, avatar carnet.AvatarID, action identity.Action) error {
	now := a.cfg.Now()
	for _, g := range a.index[receiver{to, avatar}] {
		if g.holds(now) && (action == "" || g.gives(action)) {
			if err := a.bounded(&g.Terms); err != nil {
				return err
			}
		}
	}
	return nil
}
