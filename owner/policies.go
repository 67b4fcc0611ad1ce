package owner

import (
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
)

// Policy is the newest policy that the keystore has signed for an avatar.
type Policy struct {
	World  carnet.PartyID // that has the avatar, as it calls itself
	Said   identity.AvatarPolicy
	Signed string
}

// Policy finds the newest policy of an avatar; carnet.NotFound if none was signed.
func (k *Keystore) Policy(avatar carnet.AvatarID) (Policy, error) {
	p, _, err := k.policy(avatar)
	return p, err
}

// policy finds it with its place.
func (k *Keystore) policy(avatar carnet.AvatarID) (Policy, int, error) {
	for i, signed := range k.inside.Policies {
		said, err := identity.OpenAvatarPolicy(signed)
		if err != nil {
			return Policy{}, -1, err
		}
		if said.Avatar != avatar {
			continue
		}
		p := Policy{Said: said, Signed: signed}
		if w := k.worldOf(said.Owner); w != nil {
			p.World = w.World.Party
		}
		return p, i, nil
	}
	return Policy{}, -1, carnet.Errorf(carnet.NotFound, "the keystore has signed no policy of the avatar %s", avatar).WithFix("sign one: carnet owner policy set %s FILE", avatar)
}

// worldOf finds the world for which the keystore has a key.
func (k *Keystore) worldOf(owner string) *worldKey {
	if i := slices.IndexFunc(k.inside.Keys, func(w worldKey) bool { return w.did() == owner }); i >= 0 {
		return &k.inside.Keys[i]
	}
	return nil
}

// SignPolicy signs a document of bounds for the world that has pinned a key of the
// keystore with an avatar, and returns it once it is on disk. Without a version it is
// the one after the last.
func (k *Keystore) SignPolicy(avatar carnet.AvatarID, document []byte, version uint64, now time.Time) (Policy, error) {
	i := slices.IndexFunc(k.inside.Keys, func(w worldKey) bool { return slices.Contains(w.Avatars, avatar) })
	if i < 0 {
		return Policy{}, carnet.Errorf(carnet.NotFound, "no key of this keystore is pinned with the avatar %s", avatar).
			WithFix("if it is yours, pin one: carnet owner claim THING/WORLD --keystore FILE")
	}
	had, _, err := k.policy(avatar)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return Policy{}, err
	}
	if version == 0 {
		version = had.Said.Version + 1
	}
	if version <= had.Said.Version {
		return Policy{}, carnet.Errorf(carnet.Conflict, "the keystore has signed version %d of the avatar's policy already", had.Said.Version).WithFix("leave --version out, or name a greater one")
	}
	w := k.inside.Keys[i]
	signed, err := identity.SignAvatarPolicy(w.private(), identity.AvatarPolicy{
		Owner: w.did(), World: w.World.Key, Avatar: avatar, Version: version, Made: now.UTC().Truncate(time.Second), Policy: document,
	})
	if err != nil {
		return Policy{}, err
	}
	if err := k.keepPolicy(signed); err != nil {
		return Policy{}, err
	}
	return k.Policy(avatar)
}

// keepPolicy puts a policy in the place of the one before of its avatar.
func (k *Keystore) keepPolicy(signed string) error {
	said, err := identity.OpenAvatarPolicy(signed)
	if err != nil {
		return err
	}
	_, i, err := k.policy(said.Avatar)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	in := k.inside
	in.Policies = slices.Clone(in.Policies)
	if i >= 0 {
		in.Policies[i] = signed
	} else {
		in.Policies = append(in.Policies, signed)
	}
	return k.save(in)
}

// ownsPolicy refuses to order a move under a policy that the owner didn't sign for the
// avatar, or not last.
func (k *Keystore) ownsPolicy(avatar carnet.AvatarID, signed string) error {
	had, _, err := k.policy(avatar)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	var said identity.AvatarPolicy
	if signed != "" {
		if said, err = identity.OpenAvatarPolicy(signed); err != nil {
			return err
		}
		if w := k.worldOf(said.Owner); w == nil || !slices.Contains(w.Avatars, avatar) {
			return carnet.Errorf(carnet.Forbidden, "the request has a policy of the avatar %s that no key of this keystore has signed", avatar).
				WithFix("begin the move anew: carnet avatar move; and see what its world has: carnet owner policy show %s", avatar)
		}
	}
	if said.Version < had.Said.Version {
		return carnet.Errorf(carnet.Conflict, "the request has version %d of the avatar's policy (0: none), and you have signed version %d", said.Version, had.Said.Version).
			WithFix("hand that in, and begin the move anew: carnet owner policy set %s", avatar)
	}
	return nil
}

// keepPolicyOf keeps the policy that the terms of an order have, for the avatar that
// there is to be.
func (k *Keystore) keepPolicyOf(terms []byte) error {
	var t identity.MoveTerms
	if err := json.Unmarshal(terms, &t); err != nil || t.Policy == "" {
		return err
	}
	return k.keepPolicy(t.Policy)
}
