package keys

import (
	"context"
	"crypto/ed25519"

	"carnet"
)

// MakeSigner makes an Ed25519 signing key and stores it, as its 32-byte seed
// (RFC 8032 §5.1.5).
func (t *Table) MakeSigner(ctx context.Context, id ID) (ed25519.PrivateKey, error) {
	made, err := t.Make(ctx, id)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(made[0][:]), nil
}

// Signer returns the signing key that MakeSigner stored.
func (t *Table) Signer(ctx context.Context, id ID) (ed25519.PrivateKey, error) {
	seed, err := t.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, carnet.Errorf(carnet.Malformed, "key %s has %d bytes, want the %d of an Ed25519 seed", id, len(seed), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
