package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"time"

	"carnet"
)

// AvatarPolicy is what an avatar's owner lets be done with it, by one version after the
// other: bounds, signed for the one world that has the avatar
// (docs/design/avatar-policy.md).
type AvatarPolicy struct {
	Owner   string          `json:"owner"` // whose key signs it: the one that the world has pinned
	World   string          `json:"world"` // did:key
	Avatar  carnet.AvatarID `json:"avatar"`
	Version uint64          `json:"version"` // from 1 on
	Made    time.Time       `json:"made"`
	// Policy is the document of bounds, in its one form: package policy reads it.
	Policy json.RawMessage `json:"policy"`
}

const avatarPolicyType = "carnet-avatar-policy+jwt"

// MaxAvatarPolicy bounds a signed policy: its document has 4 KiB at most.
const MaxAvatarPolicy = 8 << 10

// SignAvatarPolicy signs a policy with the owner's key for its world.
func SignAvatarPolicy(key ed25519.PrivateKey, p AvatarPolicy) (string, error) {
	return signAs(key, avatarPolicyType, p.Owner, p, p.check())
}

// OpenAvatarPolicy reads a policy, by the owner's key that it names. Whether that is
// the avatar's owner, and what the document means, is the reader's to see.
func OpenAvatarPolicy(token string) (AvatarPolicy, error) {
	if len(token) > MaxAvatarPolicy {
		return AvatarPolicy{}, carnet.Errorf(carnet.TooLarge, "the avatar policy has %d bytes, at most %d are read", len(token), MaxAvatarPolicy)
	}
	return openAs(token, avatarPolicyType, func(p *AvatarPolicy) string { return p.Owner }, AvatarPolicy.check)
}

func (p AvatarPolicy) check() error {
	if p.Avatar == (carnet.AvatarID{}) || p.Version == 0 || p.Version > 1<<53 || !whole(p.Made) || len(p.Policy) == 0 {
		return carnet.Errorf(carnet.Malformed, "the avatar policy names the avatar %s, version %d, made at %v, and has a document of %d bytes", p.Avatar, p.Version, p.Made, len(p.Policy))
	}
	return dids(p.Owner, p.World)
}

// signedFor signs a policy anew for the world that its avatar moves to, by the owner's
// key for that one: the same bounds, in the same version, made when it was made, so that
// who approves twice signs the same. None stays none.
func signedFor(policy string, key ed25519.PrivateKey, world string, avatar carnet.AvatarID) (string, error) {
	if policy == "" {
		return "", nil
	}
	p, err := OpenAvatarPolicy(policy)
	if err != nil {
		return "", err
	}
	p.Owner, p.World, p.Avatar = DID(key.Public().(ed25519.PublicKey)), world, avatar
	return SignAvatarPolicy(key, p)
}

// Same reports whether two say the same: the same bounds, in the same version.
func (p AvatarPolicy) Same(q AvatarPolicy) bool {
	return p.Version == q.Version && string(p.Policy) == string(q.Policy)
}
