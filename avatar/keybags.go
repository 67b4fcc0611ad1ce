package avatar

import (
	"context"
	"crypto"
	"slices"
	"time"

	"carnet"
	"carnet/seal"
)

// KeyTerms are what keys are given under to another world.
type KeyTerms struct {
	Granter   carnet.PartyID // this world, as it calls itself to the other
	Signer    crypto.Signer
	Reception *seal.Reception  // the other's
	Clearance carnet.Clearance // the other's
	Purpose   string
	// Owner: the reader is the avatar's owner, who may have all of it: the clearance is
	// that of each key's label, for what that lets it be used for.
	Owner bool
}

// ownPurpose is what owners are given keys for that are bound to no purpose.
const ownPurpose = "own"

// of are the terms for keys with a label.
func (t KeyTerms) of(label carnet.Label) KeyTerms {
	if !t.Owner {
		return t
	}
	t.Clearance, t.Purpose = carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: label.Purposes, Residency: label.Residency}, ownPurpose
	if words := label.Purposes.Words(); len(words) > 0 {
		t.Purpose = words[0]
	}
	t.Clearance.Purposes = carnet.NewSet(t.Purpose)
	return t
}

// keysAtOnce is how many keys a bag has at most.
const keysAtOnce = 2048

// KeyBags gives the keys that a manifest names to another world: as many bags as it
// takes, anew with each call. A key under which more may be than the other is
// cleared for fails the whole with carnet.Forbidden.
func (a *Agent) KeyBags(ctx context.Context, m *Manifest, t KeyTerms) (bags [][]byte, err error) {
	return a.keyBags(ctx, m, t, nil)
}

// keyBags is KeyBags where it is known of slots what is under them.
func (a *Agent) keyBags(ctx context.Context, m *Manifest, t KeyTerms, slots map[seal.Path]carnet.Label) (bags [][]byte, err error) {
	now := a.now()
	var entries []seal.Entry
	var until time.Time
	for i := range m.Keys {
		k := &m.Keys[i]
		if !k.Ended.IsZero() || !now.Before(k.NotAfter) {
			continue
		}
		entry, err := a.keyEntry(ctx, k.path(), slots)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // nothing is kept under it any more
		} else if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
		if k.NotAfter.After(until) {
			until = k.NotAfter
		}
	}
	alike := map[carnet.Label][]seal.Entry{}
	var labels []carnet.Label
	for _, e := range entries {
		label := carnet.Label{}
		if t.Owner {
			label = e.Ceiling
		}
		if alike[label] == nil {
			labels = append(labels, label)
		}
		alike[label] = append(alike[label], e)
	}
	for _, label := range labels {
		t := t.of(label)
		for some := range slices.Chunk(alike[label], keysAtOnce) {
			bag, err := seal.Grant(t.Signer, t.Reception, seal.Terms{
				Granter: t.Granter, Grant: m.Crossing, Purpose: t.Purpose, Clearance: t.Clearance, Time: now, NotAfter: until,
			}, some)
			if err != nil {
				return nil, err
			}
			bags = append(bags, bag)
		}
	}
	return bags, nil
}

// keyEntry is a key to be given, with what everything under it that moves stays within.
func (a *Agent) keyEntry(ctx context.Context, at seal.Path, slots map[seal.Path]carnet.Label) (e seal.Entry, err error) {
	key, err := a.epochs.get(ctx, at)
	if at.Level == seal.SlotLevel && carnet.CodeOf(err) == carnet.NotFound {
		key, err = a.epochs.get(ctx, seal.Path{Level: seal.EpochLevel, Stream: at.Stream, Epoch: at.Epoch})
		if err == nil {
			var slot *seal.Slot
			if slot, err = key.Slot(at.Slot); err == nil {
				key = slot.Key()
			}
		}
	}
	if err != nil {
		return e, err
	}
	if ceiling, known := slots[at]; known {
		return seal.Entry{Key: key, Ceiling: ceiling}, nil
	}
	doc, _, err := loadOne[epochDocument](ctx, a, kindEpoch, keyID(at).Name)
	return seal.Entry{Key: key, Ceiling: doc.ceiling()}, err
}
