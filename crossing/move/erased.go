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
		if t.To != id || t.Erased {
			continue
		}
		if err := a.dropManifest(ctx, t.ID); err != nil {
			return err
		}
		now := a.came(t.ID)
		now.Erased, now.Request = true, nil
		if err := a.keepTarget(ctx, now); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) dropManifest(ctx context.Context, x carnet.CrossingID) error {
	var m []byte
	version, err := a.World.OneKept(ctx, kindManifest, x.String(), &m)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	return a.World.Keep(ctx, []avatar.Kept{{Kind: kindManifest, ID: x.String(), Version: version + 1}}, nil)
}
