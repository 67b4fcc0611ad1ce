package move

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

// What an erasure asks of moves (docs/design/erasure.md).

// homeFor is what the register is to call an avatar of this world: made of its id and
// this world's key, so that a world which was restored to a time from before it was
// registered makes the same.
func (a *Agent) homeFor(id carnet.AvatarID) (home carnet.HomeID) {
	h := hmac.New(sha256.New, a.Key.Seed())
	h.Write([]byte("carnet home\x00"))
	h.Write(id[:])
	copy(home[:], h.Sum(nil))
	return home
}

// HomeOf returns what is known of the home of an avatar that is or was here. One that
// isn't known yet is as it would be registered, if an owner's key is pinned.
func (a *Agent) HomeOf(id carnet.AvatarID) (Registered, error) {
	if h, known := a.homeOf(id); known {
		return h, nil
	}
	v, err := a.World.Avatar(id)
	if err != nil {
		return Registered{}, err
	}
	_, did, err := a.Registrar()
	if err != nil {
		return Registered{}, err
	}
	if len(v.OwnerKey) != ed25519.PublicKeySize {
		return Registered{}, carnet.Errorf(carnet.Forbidden, "no owner's key is pinned with the avatar, so nobody can order anything of it").
			WithFix("its owner pins one: carnet owner claim THING/WORLD --keystore FILE")
	}
	return Registered{Avatar: id, Home: a.homeFor(id), Registrar: did, Owner: identity.DID(v.OwnerKey)}, nil
}

// NoteHome stores what an avatar's home is registered as, or is to be, if it isn't
// stored. Nothing is asked of the register.
func (a *Agent) NoteHome(ctx context.Context, h Registered) error {
	defer a.changing.of(h.Avatar)()
	return a.noteHome(ctx, h)
}

// noteHome is NoteHome for who has the avatar's turn.
func (a *Agent) noteHome(ctx context.Context, h Registered) error {
	if _, known := a.homeOf(h.Avatar); known {
		return nil
	}
	return a.keepHome(ctx, knownHome{Registered: h})
}

// noteHomeOf notes the home of an avatar by which somebody has proved something of it.
// The caller has the avatar's turn.
func (a *Agent) noteHomeOf(ctx context.Context, id carnet.AvatarID) error {
	h, err := a.HomeOf(id)
	if err != nil {
		return err
	}
	return a.noteHome(ctx, h)
}

// ByHome lists the avatars that are or were here under a home, also one of which it isn't
// known yet that it was registered.
func (a *Agent) ByHome(home carnet.HomeID) (all []Registered) {
	here := a.World.Avatars()
	a.mu.RLock()
	for _, h := range a.homes {
		if h.Home == home {
			all = append(all, h.Registered)
		}
	}
	a.mu.RUnlock()
	for _, v := range here {
		if _, known := a.homeOf(v.ID); known || a.homeFor(v.ID) != home {
			continue
		}
		if h, err := a.HomeOf(v.ID); err == nil {
			all = append(all, h)
		}
	}
	return all
}

// alike lists the avatars that are, were, or are to be here under a home.
func (a *Agent) alike(home carnet.HomeID) (all []carnet.AvatarID) {
	for _, h := range a.ByHome(home) {
		all = append(all, h.Avatar)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.Home.Home == home && !t.alone() {
			all = append(all, t.To)
		}
	}
	return all
}

// Forget forgets what is remembered of the moves of an avatar that is erased, but for
// their ids and what was signed of them: manifests, which name what it had, and what its
// owner was asked.
func (a *Agent) Forget(ctx context.Context, id carnet.AvatarID) error {
	defer a.changing.of(id)()
	if err := a.forgetFarewell(ctx, id); err != nil {
		return err
	}
	if err := a.forgetBackup(ctx, id); err != nil {
		return err
	}
	for _, l := range a.AtSource() {
		if l.Avatar == id && l.State.Over() {
			if err := a.dropManifest(ctx, l.ID); err != nil {
				return err
			}
		}
	}
	targets, _ := a.AtTarget()
	for _, t := range targets {
		if t.To != id || t.Erased || !t.State.Over() { // an item that is on its way is told of first
			continue
		}
		if err := a.forgetTarget(ctx, a.came(t.ID)); err != nil {
			return err
		}
	}
	return nil
}

// forgetTarget notes that what came by a move is erased. The caller has the avatar's turn.
func (a *Agent) forgetTarget(ctx context.Context, t atTarget) error {
	without, err := a.withoutManifest(ctx, t.ID)
	if err != nil {
		return err
	}
	t.Erased, t.Request = true, nil
	return a.keepTarget(ctx, t, without...)
}

// forgetLate forgets what is remembered of an item's move to an avatar that has been
// erased meanwhile, once its source has heard of it.
func (a *Agent) forgetLate(ctx context.Context, x carnet.CrossingID) error {
	t := a.came(x)
	defer a.changing.of(t.To)()
	t = a.came(x)
	if t.State != Home || t.Erased || t.Departure == "" || !t.alone() {
		return nil
	}
	if gone, err := a.World.Departed(t.To); err != nil || gone.Erasure == (carnet.ErasureID{}) {
		return nil
	}
	return a.forgetTarget(ctx, t)
}

func (a *Agent) dropManifest(ctx context.Context, x carnet.CrossingID) error {
	without, err := a.withoutManifest(ctx, x)
	if err != nil || len(without) == 0 {
		return err
	}
	return a.World.Keep(ctx, without, nil)
}

// withoutManifest is what deletes the manifest of a move, if there is one.
func (a *Agent) withoutManifest(ctx context.Context, x carnet.CrossingID) ([]avatar.Kept, error) {
	var m []byte
	version, err := a.World.OneKept(ctx, kindManifest, x.String(), &m)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return []avatar.Kept{{Kind: kindManifest, ID: x.String(), Version: version + 1}}, nil
}

// neededNoMore is what deletes the manifest of a move away from here that nobody may ask
// for any more: it was kept, or its target has said that it has what moved, of which
// nothing is left here.
func (a *Agent) neededNoMore(ctx context.Context, l atSource) ([]avatar.Kept, error) {
	if l.State != Kept && !(l.State == Gone && l.Heard && l.Departure != "") {
		return nil, nil
	}
	return a.withoutManifest(ctx, l.ID)
}

// forgetOver deletes the manifests that were kept beyond their need: by a process of
// before that was done with the change that ends it, or that ended before.
func (a *Agent) forgetOver(ctx context.Context) {
	forget := func(of carnet.AvatarID, do func() error) {
		defer a.changing.of(of)()
		if err := do(); err != nil && ctx.Err() == nil {
			a.Log.Warn("a manifest of a move that is over isn't deleted; it is tried at the next start", "avatar", of, "err", err)
		}
	}
	for _, l := range a.AtSource() {
		forget(l.Avatar, func() error {
			without, err := a.neededNoMore(ctx, a.left(l.ID))
			if err != nil || len(without) == 0 {
				return err
			}
			return a.World.Keep(ctx, without, nil)
		})
	}
	targets, _ := a.AtTarget()
	for _, t := range targets {
		switch {
		case t.State == Home && t.alone():
			if err := a.forgetLate(ctx, t.ID); err != nil && ctx.Err() == nil {
				a.Log.Warn("an item's move to an avatar that is erased isn't forgotten; it is tried at the next start", "crossing", t.ID, "err", err)
			}
		case t.State == Dropped:
			forget(t.To, func() error {
				now := a.came(t.ID)
				without, err := a.withoutManifest(ctx, t.ID)
				if err != nil || len(without) == 0 && (now.Request == nil || now.Moving().Alone) {
					return err
				}
				if !now.Moving().Alone {
					now.Request = nil
				}
				return a.keepTarget(ctx, now, without...)
			})
		}
	}
}
