package move

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/policy"
)

// What comes with an avatar by its passport: its items and its policy
// (docs/design/passport.md).

// comingItems says which of a passport's items come along, and why others don't: those
// that have left since, or that this world doesn't accept.
func (a *Agent) comingItems(ctx context.Context, t *AtTarget, m *avatar.Manifest, bounds policy.Bounds) (items []identity.ComingItem, left []string, err error) {
	homes := make(map[carnet.HomeID]bool)
	for n, p := range m.Items {
		one, _, err := a.comingItem(ctx, t, p, bounds)
		if err == nil && homes[one.Home] {
			err = carnet.Errorf(carnet.Malformed, "the passport has it twice")
		}
		if err == nil && len(items) == identity.MaxItems {
			err = carnet.Errorf(carnet.TooLarge, "%d items come along, and no more by one order", len(items))
		}
		switch {
		case err == nil:
			homes[one.Home] = true
			items = append(items, one)
		case !final(err):
			return nil, nil, err
		default:
			left = append(left, leftLine(n, p, err))
		}
	}
	if extra := len(left) - mostLines; extra > 0 {
		left = append(left[:mostLines], fmt.Sprintf("%d more items don't come along.", extra))
	}
	return items, left, nil
}

// leftLine says to the owner why an item doesn't come along.
func leftLine(n int, p identity.ItemProof, why error) string {
	what := fmt.Sprintf("Item %d", n+1)
	if i, err := identity.OpenItem(p.Credential); err == nil {
		what = fmt.Sprintf("The item %s %.80q", i.ID, i.Title)
	}
	reason := why.Error()
	if e, ok := errors.AsType[*carnet.Error](why); ok {
		reason = e.Reason
	}
	line := fmt.Sprintf("%s doesn't come along: %s.", what, reason)
	if len(line) > identity.MaxRequestText {
		line = what + " doesn't come along."
	}
	return line
}

// comingItem holds an item of a passport against what proves it, what is accepted here,
// the avatar's policy, and how the register has its home now. An error that isn't final
// says nothing of the item.
func (a *Agent) comingItem(ctx context.Context, t *AtTarget, p identity.ItemProof, bounds policy.Bounds) (one identity.ComingItem, looks item.Looks, err error) {
	refuse := func(format string, args ...any) (identity.ComingItem, item.Looks, error) {
		return one, looks, carnet.Errorf(carnet.Forbidden, format, args...)
	}
	word, err := identity.OpenPassport(t.Passport)
	if err != nil {
		return one, looks, err
	}
	farewell, err := farewellOf(word, t.Farewell)
	if err != nil {
		return one, looks, err
	}
	i, looks, err := a.Items.Fit(p.Credential)
	if err != nil {
		return one, looks, err
	}
	if i.Registrar != word.Registrar {
		return refuse("its home is registered elsewhere than the avatar's")
	}
	one.MovingItem = identity.MovingItem{
		Item: i.ID, Home: i.Home, Credential: carnet.FingerprintOf([]byte(p.Credential)), Kind: i.Kind, Title: i.Title, As: looks.Kind,
	}
	checked, err := a.Items.CheckOne(item.Coming{Source: word.Source, Avatar: word.Avatar, Owner: word.Owner}, one.MovingItem, p)
	if err != nil {
		return one, looks, err
	}
	if err := bounds.MayTakeItem(i.ID); err != nil {
		return one, looks, err
	}
	registrar, err := a.registrarOf(i.Registrar)
	if err != nil {
		return one, looks, err
	}
	is, _, err := registrar.Home(ctx, i.Home)
	switch {
	case err != nil:
		return one, looks, err
	case is.World != word.Source:
		return refuse("it has left its world since the passport was made, and is at %s", is.World)
	case is.Version != checked.Version:
		return refuse("it has left its world and come back since the passport was made")
	case is.Owner != word.Owner:
		return refuse("the register says that it is another owner's")
	case is.Chain > uint64(checked.Entries):
		return refuse("it was given away, or retired, since the passport was made")
	case is.Chain < uint64(checked.Entries):
		return refuse("its world has told the register of a chain of %d entries, and the passport has %d", is.Chain, checked.Entries)
	}
	one.Incarnation, one.Chain = is.Incarnation, is.Chain
	if farewell != nil && !farewell.Of(i.Home, is.Incarnation) {
		return refuse("its world's farewell isn't of it")
	}
	return one, looks, nil
}

// looksOrdered is what the items that a recovery names look like here; an error if one
// doesn't come any more.
func (a *Agent) looksOrdered(ctx context.Context, t *AtTarget, m *avatar.Manifest, o SignedOrder) (looks []item.Looks, err error) {
	order, err := identity.OpenRecovery(o.Order)
	if err != nil {
		return nil, err
	}
	wanted := o.Moving().Items
	proofs, err := proofsOf(m, wanted)
	if err != nil {
		return nil, err
	}
	for n, want := range wanted {
		is, l, err := a.comingItem(ctx, t, proofs[n], policy.Bounds{})
		at := slices.Index(order.Homes, want.Home)
		if err == nil && (at < 0 || is != identity.ComingItem{MovingItem: want, Incarnation: order.Recovers.Incarnations[at], Chain: order.Recovers.Chains[at]}) {
			err = carnet.Errorf(carnet.Conflict, "its world has shown itself, or it counts as something else here by now")
		}
		if err != nil {
			return nil, fmt.Errorf("the item %s doesn't come any more%s: %w", want.Item, a.resumes(t), err)
		}
		looks = append(looks, l)
	}
	return looks, nil
}

// resumes says how the request for a recovery is written anew, as long as it can be.
func (a *Agent) resumes(t *AtTarget) string {
	if t.State != Asked {
		return ""
	}
	return fmt.Sprintf(" (carnet avatar import DIR --to %s --resume %s writes the request anew)", a.Party, t.ID)
}

// looksOf is what items look like here that an order has brought, if that isn't known any
// more: this store is an older copy. What isn't accepted any more is what its owner was
// told.
func (a *Agent) looksOf(items []identity.MovingItem, proofs []identity.ItemProof) []item.Looks {
	looks := make([]item.Looks, len(items))
	for n := range items {
		_, l, err := a.Items.Fit(proofs[n].Credential)
		if err != nil {
			l = item.Looks{Kind: items[n].As, Attributes: identity.Attributes{}}
		}
		looks[n] = l
	}
	return looks
}

// proofsOf are what proves some items, of those in a manifest.
func proofsOf(m *avatar.Manifest, items []identity.MovingItem) ([]identity.ItemProof, error) {
	of := make(map[carnet.Fingerprint]identity.ItemProof)
	for _, p := range m.Items {
		of[carnet.FingerprintOf([]byte(p.Credential))] = p
	}
	proofs := make([]identity.ItemProof, 0, len(items))
	for _, i := range items {
		p, has := of[i.Credential]
		if !has {
			return nil, carnet.Errorf(carnet.Tampered, "the manifest doesn't have the item %s", i.Item)
		}
		proofs = append(proofs, p)
	}
	return proofs, nil
}

// bounding reads the policy that comes with a passport, and refuses to make room for an
// avatar that it doesn't let come here. Its owner's order doesn't pass over it: both are
// the owner's word, and a newer policy says so.
func (a *Agent) bounding(word identity.Passport, signed string) (policy.Bounds, error) {
	if signed == "" {
		return policy.Bounds{}, nil
	}
	said, err := identity.OpenAvatarPolicy(signed)
	if err != nil {
		return policy.Bounds{}, err
	}
	if said.World != word.Source || said.Avatar != word.Avatar {
		return policy.Bounds{}, carnet.Errorf(carnet.Forbidden, "the policy isn't of the avatar %s of %s", word.Avatar, word.World)
	}
	if said.Owner != word.Pinned {
		return policy.Bounds{}, newerPolicy(carnet.Errorf(carnet.Forbidden, "the policy is signed by %s, and the avatar's owner is %s to %s", said.Owner, word.Pinned, word.World), word.Avatar)
	}
	b, err := policy.ParseBounds(said.Policy)
	if err != nil {
		return policy.Bounds{}, err
	}
	b.Version = said.Version
	return b, newerPolicy(b.MayCross(a.did, a.Party, a.Now()), word.Avatar)
}

// newerPolicy says what an owner does about a policy that forbids a recovery.
func newerPolicy(err error, id carnet.AvatarID) error {
	e, ok := errors.AsType[*carnet.Error](err)
	if !ok {
		return err
	}
	return e.WithFix("its owner signs a newer policy that lets it (carnet owner policy set %s FILE, though its world doesn't answer), writes it out (carnet owner policy signed %s --out FILE), and the passport is imported with that: --policy FILE", id, id)
}

// boundsOf reads the policy in a recovery's terms, and holds it against this world, now,
// and the items that come along.
func (a *Agent) boundsOf(terms identity.MoveTerms) (b policy.Bounds, err error) {
	said, err := terms.AvatarPolicy()
	if err != nil || said.Version == 0 {
		return b, err
	}
	if b, err = policy.ParseBounds(said.Policy); err != nil {
		return b, err
	}
	b.Version = said.Version
	return b, newerPolicy(a.within(b, a.did, a.Party, terms.Items), terms.Avatar)
}

// followsPolicy reports whether a policy is the one that was asked for, or a newer one.
func followsPolicy(signed, asked string) bool {
	if samePolicy(signed, asked) {
		return true
	}
	one, err := identity.OpenAvatarPolicy(signed)
	if err != nil {
		return false
	}
	if asked == "" {
		return true
	}
	other, err := identity.OpenAvatarPolicy(asked)
	return err == nil && one.Version > other.Version
}

// mayTakeHistory refuses a history that the avatar's policy doesn't let cross, by the
// ceilings of its keys.
func (a *Agent) mayTakeHistory(ctx context.Context, id carnet.AvatarID, b policy.Bounds) error {
	if b.Version == 0 {
		return nil
	}
	ceiling, err := a.World.ComingCeiling(ctx, id)
	if err != nil {
		return err
	}
	if s := ceiling.Sensitivity; s&^b.MostHistory() != 0 {
		return carnet.Errorf(carnet.Forbidden, "the avatar's policy, version %d, forbids it: what crosses is %s at most, and its history is %s (cross.sensitivity)", b.Version, b.MostHistory(), s).
			WithFix("its owner signs a newer policy that lets it, or recovers it where it may be: a recovery leaves nothing behind")
	}
	return nil
}
