package erasure

import (
	"context"
	"time"

	"carnet"
	"carnet/identity"
)

// Withhold has avatars with an owner's key not be shown until the register has been
// asked whether they are erased: this world's store may be an older copy. It is called
// before anybody can read; Run asks.
func (a *Agent) Withhold() { a.World.Withhold(a.Registered()) }

// askAgainAt is how long at most it is waited until the register is asked again.
const askAgainAt = 5 * time.Second

// askRegister erases what the register says is erased, and then has avatars be shown
// again.
func (a *Agent) askRegister(ctx context.Context) {
	for n := 0; ; n++ {
		err := a.findErased(ctx)
		if err == nil {
			a.World.Withhold(false)
			return
		}
		if ctx.Err() == nil && n == 3 { // at the start its depot isn't connected yet
			a.Log.Warn("whether avatars are erased can't be asked of the register yet; those with an owner's key aren't shown", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(pause(n), askAgainAt)):
		}
	}
}

// asked is an avatar that the register is asked about.
type asked struct {
	id    carnet.AvatarID
	owner string
}

func (a *Agent) findErased(ctx context.Context) error {
	if !a.Registered() {
		return nil
	}
	registrar, did, err := a.Registrar()
	if err != nil {
		return err
	}
	of := make(map[carnet.HomeID]asked)
	var homes []carnet.HomeID
	for _, v := range a.World.Avatars() {
		if len(v.OwnerKey) == 0 {
			continue
		}
		h, err := a.Moves.HomeOf(v.ID)
		if err != nil {
			return err
		}
		if h.Registrar != did {
			continue // another register knows; this one can't be asked for it
		}
		of[h.Home] = asked{v.ID, h.Owner}
		homes = append(homes, h.Home)
	}
	if len(homes) == 0 {
		return nil
	}
	erased, err := registrar.Erased(ctx, homes)
	if err != nil {
		return err
	}
	for _, home := range erased {
		answer, _, err := registrar.Home(ctx, home)
		if err != nil {
			return err
		}
		if err := a.eraseAgain(ctx, home, of[home], answer.Erased); err != nil {
			return err
		}
	}
	return nil
}

// eraseAgain erases an avatar by the order that the register has, if that is its
// owner's.
func (a *Agent) eraseAgain(ctx context.Context, home carnet.HomeID, is asked, token string) error {
	order, err := identity.OpenErasure(token)
	if err != nil || order.Home != home || order.Owner != is.owner || order.World == a.did && !order.About(is.id) {
		a.Log.Error("the register says that an avatar is erased, by an order that isn't its owner's: it isn't believed", "avatar", is.id, "err", err)
		return nil
	}
	a.Log.Warn("the register says that an avatar is erased which is here: this world's store was restored from an older copy, and it is erased again", "avatar", is.id, "erasure", order.Erasure)
	h, err := a.Moves.HomeOf(is.id)
	if err != nil {
		return err
	}
	if err := a.Moves.NoteHome(ctx, h); err != nil {
		return err
	}
	e, err := a.begin(ctx, Erasure{ID: order.Erasure, Order: token, Role: identity.DeletedAtHome, Avatar: is.id})
	if err != nil {
		return err
	}
	if e.State == Ordered {
		if err := a.hide(ctx, e.key()); err != nil {
			return err
		}
	}
	a.rouse()
	return nil
}

// destroyFor is how long it is looked at each start whether keys that were destroyed
// have come back with an older copy of the key table.
const destroyFor = 2

// destroyAgain destroys keys that an older copy of the key table has brought back.
func (a *Agent) destroyAgain(ctx context.Context) {
	for _, e := range a.All() {
		if e.Cleared.IsZero() || a.Now().Sub(e.Cleared) > destroyFor*a.Backups {
			continue
		}
		if err := a.World.DestroyAgain(ctx, e.Names); err != nil && ctx.Err() == nil {
			a.Log.Error("whether keys of an erased avatar have come back couldn't be looked at", "erasure", e.ID, "err", err)
		}
	}
}
