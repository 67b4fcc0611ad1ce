package erasure

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
)

// answerTime is how long a world that tells waits while something is deleted.
const answerTime = 10 * time.Second

// Handle answers another world's call.
func (a *Agent) Handle(ctx context.Context, world carnet.PartyID, body []byte) ([]byte, error) {
	var t Telling
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "an erasure can't be read: %v", err)
	}
	told, err := a.Told(ctx, world, t)
	if err != nil {
		return nil, err
	}
	return json.Marshal(told)
}

// Told erases what another world has given, by a share or a crossing, since the owner
// of what it is of has ordered it. Told again it answers how that stands by now.
func (a *Agent) Told(ctx context.Context, world carnet.PartyID, t Telling) (Told, error) {
	order, err := identity.OpenErasure(t.Order)
	if err != nil {
		return Told{}, err
	}
	if len(t.Streams) == 0 { // as it is signed for, that is all of it
		t.Streams = nil
	}
	e := Erasure{ID: order.Erasure, Order: t.Order, From: world, Streams: t.Streams, Under: t.Under}
	var none bool
	switch {
	case (t.Share == nil) == (t.Crossing == nil):
		return Told{}, carnet.Errorf(carnet.Malformed, "an erasure is of a share or of a crossing")
	case t.Role != "" && (t.Crossing == nil || t.Role != identity.DeletedFormer && t.Role != identity.DeletedComing):
		return Told{}, carnet.Errorf(carnet.Malformed, "nothing of a crossing is erased as %.20q", t.Role)
	case t.Share != nil:
		none, err = a.toldOfShare(&e, world, *t.Share)
	default:
		none, err = a.toldOfCrossing(ctx, &e, order, world, *t.Crossing, t.Role)
	}
	if err != nil {
		return Told{}, err
	}
	if none {
		deletion, err := a.sign(&e, a.Now())
		return Told{State: Over, Deletions: []string{deletion}}, err
	}
	if had := a.erasure(e.key()); had.State != None && had.Order != t.Order {
		return Told{}, carnet.Errorf(carnet.Conflict, "the erasure %s is another one", e.ID)
	}
	if e, err = a.begin(ctx, e); err != nil {
		return Told{}, err
	}
	a.rouse()
	return a.standing(ctx, e.key(), t)
}

// standing waits a moment for what is being deleted, and says how it stands, to who told
// of some streams of a share, or of all of it. Those whom this world has told are waited
// for by who told first; who tells besides, since it was told itself by a share, may be one
// of them.
func (a *Agent) standing(ctx context.Context, key string, t Telling) (Told, error) {
	named := t.Streams
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for {
		h := a.erasure(key)
		if h.State == Erased && !h.under(t.Under) {
			deletions, err := a.deletionsOf(&h.Erasure, named)
			return Told{State: Over, Deletions: deletions}, err
		}
		if h.State == Over || ctx.Err() != nil {
			deletions, err := a.deletionsOf(&h.Erasure, named)
			told := Told{State: h.State, Deletions: deletions, Waiting: h.Waits()}
			if h.Why != "" {
				told.Waiting = append(told.Waiting, Waiting{Role: h.Role, Party: "itself", Why: h.Why})
			}
			return told, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// under reports whether one who was told by a share itself is who told first, or is to
// hear of all: one who tells by the owner's order, or by a move.
func (e *Erasure) under(teller *carnet.ShareID) bool {
	return teller == nil || e.Role != identity.DeletedShare || e.Under != nil && *e.Under == *teller
}

// toldOfShare fills in what is erased of a share that a giver names; none: nothing of
// it is here. The giver's word is enough: it is what it gave.
func (a *Agent) toldOfShare(e *Erasure, giver carnet.PartyID, id carnet.ShareID) (none bool, err error) {
	e.Role, e.Of = identity.DeletedShare, id.String()
	taken, known := a.Shares.TakenAs(id)
	if known && taken.Giver != giver {
		return false, carnet.Errorf(carnet.NotFound, "there is no share %s", id)
	}
	e.Avatar = taken.For
	return !known, nil
}

// toldOfCrossing fills in what is erased of a move; none: nothing of it is here. role is
// as what this world had it, as the one who tells knows it: what isn't known here, since
// this store is an older copy, is signed for as that.
func (a *Agent) toldOfCrossing(ctx context.Context, e *Erasure, order identity.ErasureOrder, world carnet.PartyID, x carnet.CrossingID, role identity.DeletionRole) (none bool, err error) {
	e.Of = x.String()
	targets, _ := a.Moves.AtTarget()
	if i := slices.IndexFunc(targets, func(t move.AtTarget) bool { return t.ID == x && t.From == world }); i >= 0 {
		e.Role = identity.DeletedComing
		if targets[i].Moving().Alone { // no avatar comes by it
			return true, nil
		}
		return true, a.notArriving(ctx, order, &targets[i])
	}
	for _, l := range a.Moves.AtSource() {
		if l.ID == x && l.To == world && l.State == move.Gone {
			e.Role, e.Avatar = identity.DeletedFormer, l.Avatar
			if l.Moving().Alone { // the avatar whose item it was stayed
				return true, nil
			}
			return false, a.isOwners(order, l.Avatar)
		}
	}
	if role == identity.DeletedComing { // nothing came
		e.Role = role
		return true, nil
	}
	// This store may be an older copy, from before the crossing: the register says whether
	// what is here under that home is a copy, or lives.
	for _, h := range a.Moves.ByHome(order.Home) {
		_, err := a.World.Avatar(h.Avatar)
		if err != nil { // it may have left by another crossing, and not all of it be deleted yet
			var left avatar.Destination
			if left, err = a.World.Departed(h.Avatar); err == nil && !left.Cleared.IsZero() {
				continue
			}
		}
		if err == nil && order.World != a.did {
			e.Role, e.Avatar = identity.DeletedFormer, h.Avatar
			if err := a.isOwners(order, h.Avatar); err != nil {
				return false, err
			}
			return false, a.livesThere(ctx, e.Order, order, world)
		}
	}
	if order.World == a.did {
		return false, carnet.Errorf(carnet.Malformed, "the order is for this world, which tells others")
	}
	e.Role = identity.DeletedFormer
	return true, nil
}

// notArriving reports that nothing comes by a move, and calls it off if it still may.
func (a *Agent) notArriving(ctx context.Context, order identity.ErasureOrder, t *move.AtTarget) error {
	switch t.State {
	case move.Dropped:
		return nil
	case move.Home:
		return carnet.Errorf(carnet.Conflict, "the avatar has arrived by the crossing %s, and its owner orders its erasure here", t.ID)
	}
	if order.Owner != t.Home.Owner || order.Home != t.Home.Home {
		return carnet.Errorf(carnet.Forbidden, "the order to erase isn't by the owner of what was to come")
	}
	if err := a.Moves.Cancel(ctx, t.ID, "its owner, who has it erased"); err != nil && carnet.CodeOf(err) != carnet.Conflict {
		return err
	}
	return carnet.Errorf(carnet.Unavailable, "the crossing %s is being called off", t.ID)
}

// isOwners refuses an order that isn't by the owner of an avatar that was here.
func (a *Agent) isOwners(order identity.ErasureOrder, id carnet.AvatarID) error {
	h, err := a.Moves.HomeOf(id)
	if err != nil {
		return err
	}
	if order.Owner != h.Owner || order.Home != h.Home {
		return carnet.Errorf(carnet.Forbidden, "the order to erase isn't by the owner of what was here")
	}
	return nil
}

// livesThere refuses an order for a world where its home isn't: what is here may live. The
// one who tells is that world, or the register has the order.
func (a *Agent) livesThere(ctx context.Context, token string, order identity.ErasureOrder, world carnet.PartyID) error {
	registrar, did, err := a.Registrar()
	if err != nil {
		return err
	}
	if did != order.Registrar {
		return carnet.Errorf(carnet.Unavailable, "the order to erase names the register %s, which is not the one that this world asks", order.Registrar).
			WithFix("peer this world with the depot that keeps it")
	}
	is, _, err := registrar.Home(ctx, order.Home)
	if err != nil {
		return err
	}
	if is.Erased == token || is.Erased == "" && is.World == order.World && order.World == a.Peer(world) {
		return nil
	}
	return carnet.Errorf(carnet.Forbidden, "the order to erase is for another world than where the register has the home now: %s", is.World).
		WithFix("its owner orders it there")
}
