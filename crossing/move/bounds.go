package move

import (
	"context"

	"carnet"
	"carnet/identity"
	"carnet/policy"
)

// bounded refuses what the policy of an avatar doesn't let go to a world, as a source
// holds it: the world, the time, the history, and the items.
func (a *Agent) bounded(ctx context.Context, to Peer, about carnet.AvatarID, terms identity.MoveTerms) error {
	bound, err := a.World.Policy(about)
	if err != nil {
		return err
	}
	if bound.Signed == "" {
		return nil
	}
	if err := a.within(bound.Bounds, to.DID(), to.Party, terms.Items); err != nil || terms.Alone {
		return err
	}
	ceiling, err := a.World.MovedCeiling(ctx, about)
	if err != nil {
		return err
	}
	return bound.Bounds.MayTakeHistory(remains(ceiling, terms.Redact))
}

// within refuses a world as the next home by an avatar's bounds, now, or an item that
// goes along.
func (a *Agent) within(b policy.Bounds, to string, name carnet.PartyID, along []identity.MovingItem) error {
	if err := b.MayCross(to, name, a.Now()); err != nil {
		return err
	}
	for _, i := range along {
		if err := b.MayTakeItem(i.Item); err != nil {
			return err
		}
	}
	return nil
}

// remains is how sensitive what goes along is.
func remains(ceiling carnet.Label, redact *identity.Redaction) carnet.Sensitivity {
	if redact == nil {
		return ceiling.Sensitivity
	}
	return ceiling.Sensitivity & redact.Sensitivity
}

// stillBounded holds an offered move against the policy as it is now.
func (a *Agent) stillBounded(ctx context.Context, by carnet.PartyID, l atSource) error {
	peer, err := a.Peers.Named(by)
	if err != nil {
		return err
	}
	if err := a.bounded(ctx, peer, l.Avatar, l.Moving()); err != nil {
		return err
	}
	if l.alone() {
		return nil
	}
	return a.takesPolicy(l.Avatar, l.Moving())
}

// takesPolicy refuses terms by which an avatar would live elsewhere under another
// policy than here.
func (a *Agent) takesPolicy(about carnet.AvatarID, terms identity.MoveTerms) error {
	bound, err := a.World.Policy(about)
	if err != nil {
		return err
	}
	if samePolicy(terms.Policy, bound.Signed) {
		return nil
	}
	return carnet.Errorf(carnet.Forbidden, "the order's terms don't have the avatar's policy as it is here, version %d (0: none)", bound.Said.Version).
		WithFix("begin the move anew, so that its request has it: carnet avatar move")
}

// samePolicy reports whether two signed policies say the same, or neither is there.
func samePolicy(p, q string) bool {
	if p == "" || q == "" {
		return p == q
	}
	one, err := identity.OpenAvatarPolicy(p)
	if err != nil {
		return false
	}
	other, err := identity.OpenAvatarPolicy(q)
	return err == nil && one.Same(other)
}

// welcome refuses, as a target, an avatar that its policy doesn't let come here. The
// source does the same with the policy that it has; this says it before anybody orders
// anything.
func (a *Agent) welcome(w Wanted, from Peer) error {
	if w.Policy == "" {
		return nil
	}
	said, err := identity.OpenAvatarPolicy(w.Policy)
	if err != nil {
		return err
	}
	if said.World != from.DID() || said.Avatar != w.Home.Avatar {
		return carnet.Errorf(carnet.Forbidden, "the policy isn't of the avatar %s of %s", w.Home.Avatar, w.From).WithFix("have it described anew by the world where it lives")
	}
	b, err := policy.ParseBounds(said.Policy)
	if err != nil {
		return err
	}
	b.Version = said.Version
	var along []identity.MovingItem
	for _, id := range w.Along {
		along = append(along, identity.MovingItem{Item: id})
	}
	if err := a.within(b, a.did, a.Party, along); err != nil || w.Alone {
		return err
	}
	return b.MayTakeHistory(remains(w.Ceiling, w.Redact))
}
