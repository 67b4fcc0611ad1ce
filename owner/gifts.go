package owner

import (
	"slices"
	"time"

	"carnet"
	"carnet/identity"
)

// Give signs a gift with the key that the item is registered for, from now on for a
// time.
func (k *Keystore) Give(g identity.Gift, now time.Time, life time.Duration) (string, error) {
	i := slices.IndexFunc(k.inside.Keys, func(w worldKey) bool { return w.did() == g.Owner })
	if i < 0 {
		return "", carnet.Errorf(carnet.NotFound, "the item is registered for the key %s, which this keystore doesn't have", g.Owner).
			WithFix("use the keystore with which its avatar was claimed")
	}
	g.Made = now.UTC().Truncate(time.Second)
	g.Until = g.Made.Add(life.Truncate(time.Second))
	return identity.SignGift(k.inside.Keys[i].private(), g)
}
