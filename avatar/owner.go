package avatar

import (
	"context"
	"crypto/ed25519"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// ownershipSkew is how far an owner's clock may be from this world's.
const ownershipSkew = 30 * time.Second

// pinOwner pins an owner's key with an avatar that the sender speaks about. What
// is pinned is never changed: whoever could change it would be the owner.
func (a *Agent) pinOwner(ctx context.Context, from Sender, token string) error {
	o, key, err := identity.VerifyOwnership(token, identity.OwnershipExpectation{Audience: from.Self, Now: a.now(), Skew: ownershipSkew})
	if err != nil {
		return err
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(o.Avatar)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(v.streams, func(s *stream) bool { return s.sender == from.Party && !s.ended }) {
		return carnet.Errorf(carnet.NotFound, "there is no avatar %s", o.Avatar).WithFix("map the thing first")
	}
	if have := v.ownerKey(); have != nil {
		if have.Equal(key) {
			return nil
		}
		return carnet.Errorf(carnet.Conflict, "the avatar has an owner's key already, and it isn't this one").
			WithFix("use the keystore that %s is of; a pinned key is never changed", identity.DID(have))
	}
	if err := a.changeable(v); err != nil {
		return err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.OwnerPinned, Time: a.now().UnixNano(), Peer: from.Party, Avatar: v.id, Object: carnet.FingerprintOf([]byte(token)),
	})
	if err != nil {
		return err
	}
	if err := a.saveOwned(ctx, v, key, v.streams, nil, item); err != nil {
		return err
	}
	a.mu.Lock()
	v.owner = (*[ed25519.PublicKeySize]byte)(key)
	a.mu.Unlock()
	a.recorded()
	return nil
}

// ownerKey is nil while none is pinned. The caller holds Agent.mu or changeMu.
func (v *Avatar) ownerKey() ed25519.PublicKey {
	if v.owner == nil {
		return nil
	}
	return v.owner[:]
}

func (a *Agent) ownerOf(v *Avatar) ed25519.PublicKey {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return v.ownerKey()
}

// PublicKey returns an avatar's own key, also of one that is to come;
// carnet.NotFound if there is none.
func (a *Agent) PublicKey(id carnet.AvatarID) (ed25519.PublicKey, error) {
	if r, err := a.arrival(id); err == nil {
		return r.key[:], nil
	}
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	return v.key[:], nil
}

// Owner returns the owner's key that is pinned with an avatar: carnet.NotFound
// where there is no such avatar, or none has been pinned.
func (a *Agent) Owner(id carnet.AvatarID) (ed25519.PublicKey, error) {
	a.mu.RLock()
	v := a.departed[id] // its new home still speaks of it
	a.mu.RUnlock()
	if v == nil {
		var err error
		if v, err = a.avatar(id); err != nil {
			return nil, err
		}
	}
	if key := a.ownerOf(v); key != nil {
		return key, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "no owner's key is pinned with the avatar %s", id).
		WithFix("its owner adds one: carnet owner claim")
}
