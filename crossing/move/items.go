package move

import (
	"context"
	"fmt"
	"slices"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
)

// assessed is what becomes of an avatar's items, as its owner is asked to order it.
type assessed struct {
	items, retired []identity.MovingItem
	report         []string
}

// assessItems says what each item of an avatar would be here, and refuses a move that
// leaves one behind, brings one that isn't accepted, or one that its order can't name.
func (a *Agent) assessItems(w Wanted) (s assessed, err error) {
	for _, has := range w.Has {
		i, looks, unfit := a.Items.Fit(has.Credential)
		if i.ID == (carnet.ItemID{}) { // it can't be read
			return s, unfit
		}
		m := identity.MovingItem{Item: i.ID, Home: i.Home, Credential: carnet.FingerprintOf([]byte(has.Credential)), Kind: i.Kind, Title: i.Title}
		along, ends := slices.Contains(w.Along, i.ID), slices.Contains(w.End, i.ID)
		if unfit == nil && (has.Owner != w.Home.Owner || i.Registrar != w.Home.Registrar) {
			unfit = carnet.Errorf(carnet.Forbidden, "it is registered for another key of its owner's, or elsewhere, and one order is by one key").WithFix("move it on its own: carnet item move")
		}
		switch {
		case along && ends:
			return s, carnet.Errorf(carnet.Malformed, "the item %s is to go along and to end", i.ID)
		case along && unfit != nil:
			return s, fmt.Errorf("the item %s can't come: %w", i.ID, unfit)
		case along:
			m.As = looks.Kind
			s.items = append(s.items, m)
			s.report = append(s.report, itemLine(i, looks))
		case ends:
			s.retired = append(s.retired, m)
		case unfit != nil:
			return s, carnet.Errorf(carnet.Conflict, "the avatar has the item %s, which can't come: %v", i.ID, unfit).
				WithFix("give it to another avatar first (carnet item give), or have it end: --leave")
		default:
			return s, carnet.Errorf(carnet.Conflict, "the avatar has the item %s, and nothing is said of what becomes of it", i.ID).
				WithFix("take it along (--items), give it to another avatar first (carnet item give), or have it end: --leave")
		}
	}
	if n := len(w.Along) + len(w.End); n != len(s.items)+len(s.retired) {
		return s, carnet.Errorf(carnet.NotFound, "of %d items that are named, the avatar has %d", n, len(s.items)+len(s.retired)).WithFix("list them: carnet item list")
	}
	if w.Alone && (len(s.items) != 1 || len(s.retired) > 0 || s.items[0].Home != w.Home.Home) {
		return s, carnet.Errorf(carnet.Malformed, "without the avatar, one item moves at a time")
	}
	if extra := len(s.report) - mostLines; extra > 0 {
		s.report = append(s.report[:mostLines], fmt.Sprintf("%d more items come.", extra))
	}
	return s, nil
}

// mostLines bounds what a report says of items.
const mostLines = 48

// itemLine says to the owner what an item would be here.
func itemLine(i identity.Item, l item.Looks) string {
	line := fmt.Sprintf("The item %s %.80q comes as %s", i.ID, i.Title, l.Kind)
	for n, name := range attributeNames(l.Attributes) {
		if n == 8 {
			line += " …"
			break
		}
		line += fmt.Sprintf(", %s %.32v", name, l.Attributes[name])
	}
	if over := len(i.Attributes) - len(l.Attributes); over > 0 {
		line += fmt.Sprintf("; %d of its attributes mean nothing here", over)
	}
	return line + "."
}

func attributeNames(a identity.Attributes) []string {
	names := make([]string, 0, len(a))
	for name := range a {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Moving is what moves, also before its owner ordered it.
func (t *AtTarget) Moving() identity.MoveTerms {
	if t.Order != "" {
		return t.SignedOrder.Moving()
	}
	if t.recovers() {
		asked, word, _ := identity.ParseRecoveryRequest(t.Request) // it was written here
		return identity.MoveTerms{Home: word.Home, Items: asked.Moving()}
	}
	asked, _, _ := identity.ParseMoveRequest(t.Request)
	return identity.MoveTerms{Home: asked.Home, Items: asked.Items, Retired: asked.Retired, Alone: asked.Alone}
}

// checkItems verifies the items of a manifest: what proves them, what the order says,
// what is accepted here, and that the register has each at the source, in the version
// that its chain says.
func (a *Agent) checkItems(ctx context.Context, t atTarget, peer Peer, m *avatar.Manifest, gone bool) ([]item.Looks, error) {
	order, err := identity.OpenOrder(t.Order)
	if err != nil {
		return nil, err
	}
	terms, err := identity.ParseMoveTerms(t.Terms, order)
	if err != nil {
		return nil, err
	}
	checked, err := a.Items.Check(item.Coming{Source: peer.DID(), Avatar: t.Avatar, Owner: order.Owner, Items: terms.Items}, m.Items)
	if err != nil {
		return nil, err
	}
	var looks []item.Looks
	for n, c := range checked {
		registrar, err := a.registrarOf(order.Registrar)
		if err != nil {
			return nil, err
		}
		is, _, err := registrar.Home(ctx, c.Home)
		if err != nil {
			return nil, err
		}
		if came := is.World == a.did && is.Version == c.Version+1; gone && came && is.Owner == order.Owner {
			looks = append(looks, c.Looks) // it is decided, and fetched again
			continue
		}
		if is.World != peer.DID() || is.Owner != order.Owner || is.Version != c.Version {
			return nil, carnet.Errorf(carnet.Forbidden, "the item %s is refused: its chain ends in version %d of its home at %s, and the register has it at %s in version %d", terms.Items[n].Item, c.Version, peer.DID(), is.World, is.Version)
		}
		looks = append(looks, c.Looks)
	}
	return looks, nil
}
