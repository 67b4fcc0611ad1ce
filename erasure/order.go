package erasure

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// Ask says what an owner is asked to order, so that an avatar is erased. Nothing
// changes by it but that the avatar's home gets a name.
func (a *Agent) Ask(ctx context.Context, id carnet.AvatarID, text string) (identity.ErasureRequest, error) {
	if _, err := a.World.Avatar(id); err != nil {
		return identity.ErasureRequest{}, err
	}
	h, err := a.Moves.HomeOf(id)
	if err != nil {
		return identity.ErasureRequest{}, err
	}
	if err := a.Moves.NoteHome(ctx, h); err != nil {
		return identity.ErasureRequest{}, err
	}
	r := identity.ErasureRequest{
		Erasure: carnet.NewErasureID(), Registrar: h.Registrar, Home: h.Home, Owner: h.Owner, World: a.Party, WorldKey: a.did, Avatar: id, Text: text,
		Report: a.report(id),
	}
	_, err = r.Marshal()
	return r, err
}

// report says in lines who is known to have something of an avatar.
func (a *Agent) report(id carnet.AvatarID) []string {
	report := []string{}
	add := func(format string, args ...any) {
		if len(report) < 60 {
			report = append(report, fmt.Sprintf(format, args...))
		}
	}
	for _, g := range a.Shares.GivenOf(id) {
		add("%s got something of it by the share %s.", g.Taker, g.ID)
	}
	targets, _ := a.Moves.AtTarget()
	for _, t := range targets {
		if t.To == id && !t.Moving().Alone {
			add("It came from %s by the crossing %s.", t.From, t.ID)
		}
	}
	for _, dpm := range slices.Sorted(maps.Keys(a.Jobs.Over(id))) {
		if n := a.Jobs.Over(id)[dpm]; dpm == "" {
			add("%d of its jobs ran in this world.", n)
		} else {
			add("%s computed over it in %d of its jobs.", dpm, n)
		}
	}
	for _, i := range a.Items.Of(id) {
		add("Its item %q (%s, number %d, by %s) ends with it.", i.Title, i.Kind, i.Serial, i.Item.World)
	}
	if depot := a.Depot.Party(); depot != "" {
		add("%s keeps sealed objects of it.", depot)
	}
	return report
}

// skew is how far ahead of this world's an owner's clock may be.
const skew = 5 * time.Minute

// TakeOrder takes an owner's order, which somebody hands in: from then on the avatar is
// erased, as soon as it doesn't move. Handed in again it is answered the same.
func (a *Agent) TakeOrder(ctx context.Context, id carnet.ErasureID, e identity.Erasing) (Erasure, error) {
	refuse := func(format string, args ...any) (Erasure, error) {
		return Erasure{}, carnet.Errorf(carnet.Forbidden, "the order to erase "+format, args...)
	}
	order, err := identity.OpenErasure(e.Order)
	if err != nil {
		return Erasure{}, err
	}
	had := a.erasure((&Erasure{ID: id, Role: identity.DeletedAtHome}).key())
	if had.State != None && had.Order == e.Order && had.Avatar == e.Avatar {
		return had.Erasure, nil
	}
	if _, err := a.World.Avatar(e.Avatar); err != nil {
		return Erasure{}, err
	}
	h, err := a.Moves.HomeOf(e.Avatar)
	if err != nil {
		return Erasure{}, err
	}
	now := a.Now()
	switch {
	case order.Erasure != id:
		return refuse("is another one")
	case order.World != a.did:
		return refuse("is for another world")
	case order.Home != h.Home || order.Registrar != h.Registrar:
		return refuse("is about another home")
	case order.Owner != h.Owner:
		return refuse("isn't by the avatar's owner")
	case !order.About(e.Avatar):
		return refuse("is about another avatar")
	case order.Made.After(now.Add(skew)):
		return refuse("was made at %s, which is still to come", order.Made.Format(time.RFC3339))
	case !now.Before(order.Until):
		return refuse("was good until %s", order.Until.Format(time.RFC3339))
	case had.State != None:
		return Erasure{}, carnet.Errorf(carnet.Conflict, "the erasure %s is another one", id).WithFix("ask anew: carnet avatar erase")
	}
	if err := a.Moves.NoteHome(ctx, h); err != nil {
		return Erasure{}, err
	}
	made, err := a.begin(ctx, Erasure{ID: id, Order: e.Order, Role: identity.DeletedAtHome, Avatar: e.Avatar})
	if err == nil {
		a.goOn(ctx, made.key())
		made = a.erasure(made.key()).Erasure
	}
	return made, err
}

// begin stores an erasure, if it isn't stored. One of some streams of a share that is
// there is of these, too, from now on.
func (a *Agent) begin(ctx context.Context, e Erasure) (Erasure, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	if had := a.erasure(e.key()); had.State != None {
		if had.Under != nil && e.Under == nil { // who waits for all that there is goes first
			had.Under = nil
			if err := a.keep(ctx, had, nil); err != nil {
				return had.Erasure, err
			}
			had = a.erasure(e.key())
		}
		return a.widen(ctx, had, e.Streams)
	}
	var ok bool
	if e.State, ok = Next(None, Order); !ok {
		return e, carnet.Errorf(carnet.Conflict, "an erasure can't begin")
	}
	e.Asked = a.Now().UTC()
	var statements []ledger.Statement
	if e.Role == identity.DeletedShare { // the others are stated with their tombstones
		statements = append(statements, ledger.Statement{
			Kind: ledger.ErasureOrdered, Time: e.Asked.UnixNano(), Peer: e.From, Avatar: e.Avatar, Object: hashOf(e.Order),
		})
	}
	a.Log.Info("something of an avatar is erased by its owner's order", "erasure", e.ID, "avatar", e.Avatar, "as", e.Role, "told_by", e.From)
	return e, a.keep(ctx, held{Erasure: e}, statements)
}

func hashOf(token string) carnet.Fingerprint { return carnet.FingerprintOf([]byte(token)) }
