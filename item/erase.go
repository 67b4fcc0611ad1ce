package item

import (
	"context"

	"carnet"
	"carnet/ledger"
)

// Erase ends the items of an avatar that is erased, for ever, and has nothing here say any
// more which items that avatar had last, or whose they were: those that have left, or were
// retired before, too. Their chains, which say it, are deleted; what an item is, and that
// it was issued here, stays. On return that is durable, and the avatar gets no items any
// more. One that keeps still for a crossing is carnet.Conflict, until that is decided. It
// says how many the avatar had here; done again it stays done.
func (b *Book) Erase(ctx context.Context, avatar carnet.AvatarID, by carnet.ErasureID) (had uint64, err error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	return b.erase(ctx, avatar, by)
}

// Erased has an avatar get no items, since it is erased. It isn't durable: who knows says
// it again after a start.
func (b *Book) Erased(avatar carnet.AvatarID, by carnet.ErasureID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erased[avatar] = by
}

// Untold counts the items that ended with an avatar which is erased, of whose end the
// register hasn't been told yet: until it is, an older chain of theirs might bring them back.
func (b *Book) Untold(by carnet.ErasureID) (n int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.items {
		if k.Erasure == by && k.Ending > 0 {
			n++
		}
	}
	return n
}

// erase is Erase; the caller holds changing.
func (b *Book) erase(ctx context.Context, avatar carnet.AvatarID, by carnet.ErasureID) (had uint64, err error) {
	b.Erased(avatar, by)
	b.mu.RLock()
	var its []*kept
	for _, k := range b.items {
		if k.Avatar == avatar && k.Erasure == (carnet.ErasureID{}) {
			its = append(its, k)
		} else if k.Erasure == by && k.World == "" {
			had++
		}
	}
	b.mu.RUnlock()
	var c change
	for _, k := range its {
		if k.Frozen != (carnet.CrossingID{}) {
			return had, carnet.Errorf(carnet.Conflict, "its item %s keeps still for the crossing %s", k.item.ID, k.Frozen).
				WithFix("wait until that is decided: carnet avatar status %s", k.Frozen)
		}
		if err := b.forget(&c, *k, by); err != nil {
			return had, err
		}
		if k.State != Gone {
			had++
		}
	}
	if len(c.items) == 0 {
		return had, nil
	}
	return had, b.apply(ctx, c)
}

// forget adds that an item is without its tie to who had it last.
func (b *Book) forget(c *change, k kept, by carnet.ErasureID) error {
	if k.State == Here {
		c.statements = append(c.statements, ledger.Statement{Kind: ledger.ItemRetired, Avatar: k.Avatar, Object: k.Last})
		k.State, k.Since = Retired, b.cfg.Now().UTC()
		k.Ending = k.Entries + 1 // which nobody ever has
	}
	k.Avatar, k.Owner, k.Slot, k.Looks, k.Erasure = carnet.AvatarID{}, "", "", nil, by
	if k.chained == 0 {
		return b.set(c, k)
	}
	k.chained++
	c.documents = append(c.documents, carnet.Document{Kind: kindChain, ID: k.item.ID.String(), Version: k.chained})
	k.chained = 0
	return b.set(c, k)
}
