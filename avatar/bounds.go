package avatar

import (
	"context"
	"crypto/ed25519"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
	"carnet/policy"
)

// Revocations writes the party's revocation number with what ends: a
// *revocation.Watcher.
type Revocations interface {
	// End has put store the change and the number in one transaction; put may be called
	// again. Whoever lives by something was told when it returns.
	End(ctx context.Context, put func(carnet.Document) error) error
}

// policyDocument is an avatar's policy as it is kept; its document's id is the avatar's.
type policyDocument struct {
	Signed string `json:"signed"`
}

// bounding is an avatar's policy, read. Nobody changes one.
type bounding struct {
	signed  string
	said    identity.AvatarPolicy
	bounds  policy.Bounds
	version uint64 // of its document
}

// readPolicy reads a policy that an avatar's owner signed for this world.
func (a *Agent) readPolicy(id carnet.AvatarID, owner ed25519.PublicKey, signed string) (*bounding, error) {
	said, err := identity.OpenAvatarPolicy(signed)
	if err != nil {
		return nil, err
	}
	refuse := func(format string, args ...any) (*bounding, error) {
		return nil, carnet.Errorf(carnet.Unauthenticated, "the avatar policy "+format, args...).WithFix("have its owner sign one for this avatar: carnet owner policy set %s FILE", id)
	}
	switch {
	case said.Owner != identity.DID(owner):
		return refuse("isn't by the owner's key that is pinned with the avatar")
	case said.World != a.did:
		return refuse("is for another world, %s", said.World)
	case said.Avatar != id:
		return refuse("is of another avatar, %s", said.Avatar)
	}
	bounds, err := readBounds(said)
	return &bounding{signed: signed, said: said, bounds: bounds}, err
}

// readBounds reads the document of a policy, in its one form.
func readBounds(said identity.AvatarPolicy) (policy.Bounds, error) {
	bounds, err := policy.ParseBounds(said.Policy)
	if err != nil {
		return policy.Bounds{}, err
	}
	if again, err := bounds.Document(); err != nil || string(again) != string(said.Policy) {
		return policy.Bounds{}, carnet.Errorf(carnet.Malformed, "the document of the avatar policy isn't in its one form").WithFix("sign it with carnet owner policy set")
	}
	bounds.Version = said.Version
	return bounds, nil
}

// Policy is an avatar's policy, as its owner signed it; empty: it has none.
type Policy struct {
	Signed string
	Said   identity.AvatarPolicy
	Bounds policy.Bounds
}

// Policy returns the policy of an avatar that is here.
func (a *Agent) Policy(id carnet.AvatarID) (Policy, error) {
	if _, err := a.avatar(id); err != nil {
		return Policy{}, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if b := a.policies[id]; b != nil {
		return Policy{b.signed, b.said, b.bounds}, nil
	}
	return Policy{}, nil
}

// Bounds are what an avatar's owner lets be done with it: from memory. They bound
// nothing where there is no policy, or no such avatar.
func (a *Agent) Bounds(id carnet.AvatarID) policy.Bounds {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if b := a.policies[id]; b != nil {
		return b.bounds
	}
	return policy.Bounds{}
}

// SetPolicy takes an avatar's policy from whoever brings it. On return it is on disk
// and in force, with the next revocation number. The one that is there is answered
// the same; a version that isn't newer is carnet.Conflict.
func (a *Agent) SetPolicy(ctx context.Context, id carnet.AvatarID, signed string) (Policy, error) {
	if a.revocations == nil || a.did == "" {
		return Policy{}, carnet.Errorf(carnet.Unavailable, "this world takes no avatar policies: it has no revocation number, or no key of its own")
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(id)
	if err != nil {
		return Policy{}, err
	}
	owner := a.ownerOf(v)
	if owner == nil {
		return Policy{}, carnet.Errorf(carnet.Forbidden, "no owner's key is pinned with the avatar, so nobody can sign its policy").
			WithFix("its owner pins one: carnet owner claim THING/WORLD --keystore FILE")
	}
	next, err := a.readPolicy(id, owner, signed)
	if err != nil {
		return Policy{}, err
	}
	a.mu.RLock()
	had := a.policies[id]
	a.mu.RUnlock()
	switch {
	case had == nil:
	case had.signed == signed:
		return Policy{had.signed, had.said, had.bounds}, nil
	case next.said.Version <= had.said.Version:
		return Policy{}, carnet.Errorf(carnet.Conflict, "the avatar's policy has version %d already, and this one has %d: an older one isn't put back", had.said.Version, next.said.Version).
			WithFix("sign a newer version: carnet owner policy set %s FILE --version %d", id, had.said.Version+1)
	default:
		next.version = had.version
	}
	if err := a.changeable(v); err != nil {
		return Policy{}, err
	}
	next.version++
	d, item, err := a.policyKept(id, next)
	if err != nil {
		return Policy{}, err
	}
	err = a.revocations.End(ctx, func(number carnet.Document) error {
		if err := a.store.Put(ctx, []carnet.Document{d, number}, []ledger.Item{item}); err != nil {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.policies[id] = next
		return nil
	})
	if err != nil {
		return Policy{}, err
	}
	a.recorded()
	a.compactSoon() // what the depot may not keep any more goes
	return Policy{next.signed, next.said, next.bounds}, nil
}

// policyKept makes the document of a policy, and the statement of it.
func (a *Agent) policyKept(id carnet.AvatarID, b *bounding) (d carnet.Document, item ledger.Item, err error) {
	if d, err = a.document(kindPolicy, id.String(), b.version, policyDocument{b.signed}); err != nil {
		return d, item, err
	}
	item, err = a.Statement(ledger.Statement{
		Kind: ledger.AvatarPolicySet, Time: a.now().UnixNano(), Avatar: id, PolicyVersion: b.said.Version, Object: carnet.FingerprintOf([]byte(b.signed)),
	})
	return d, item, err
}

// loadPolicies takes in the policies of the avatars that are here. It comes after these.
func (a *Agent) loadPolicies(ctx context.Context) error {
	return a.eachDocument(ctx, kindPolicy, func(d carnet.Document) error {
		var doc policyDocument
		if err := a.openDocument(d, &doc); err != nil {
			return err
		}
		id, err := carnet.ParseAvatarID(d.ID)
		if err != nil {
			return err
		}
		v, err := a.avatar(id)
		if err != nil {
			return carnet.Errorf(carnet.Tampered, "there is a policy of the avatar %s, which isn't here: %v", id, err)
		}
		b, err := a.readPolicy(id, a.ownerOf(v), doc.Signed)
		if err != nil {
			return carnet.Errorf(carnet.Tampered, "the policy of the avatar %s can't be read: %v", id, err)
		}
		b.version = d.Version
		a.policies[id] = b
		return nil
	})
}

// withoutPolicy deletes an avatar's policy with the avatar. The caller forgets it once
// that is stored.
func (a *Agent) withoutPolicy(id carnet.AvatarID) []carnet.Document {
	a.mu.RLock()
	defer a.mu.RUnlock()
	b := a.policies[id]
	if b == nil {
		return nil
	}
	return []carnet.Document{{Kind: kindPolicy, ID: id.String(), Version: b.version + 1}}
}
