package item

import (
	"context"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// Draft is an item that is to be issued.
type Draft struct {
	Avatar     carnet.AvatarID // that is to have it
	Kind       string
	Title      string
	Attributes identity.Attributes
}

// MaxOf bounds the items of one avatar: they move by one order.
const MaxOf = identity.MaxItems

// Issue makes an item for an avatar: its home is registered, then item, serial and
// statement are stored in one transaction.
func (b *Book) Issue(ctx context.Context, n Draft) (Info, error) {
	if n.Attributes == nil {
		n.Attributes = identity.Attributes{}
	}
	// Refused before a home is registered for nothing.
	probe := identity.Item{ID: carnet.NewItemID(), World: b.cfg.Party, Home: carnet.NewHomeID(), Registrar: b.did, Kind: n.Kind, Title: n.Title, Serial: 1, Attributes: n.Attributes, Issued: b.cfg.Now()}
	if _, err := identity.IssueItem(b.cfg.Key, probe); err != nil {
		return Info{}, err
	}
	if err := b.room(n.Avatar); err != nil {
		return Info{}, err
	}
	home, err := b.cfg.Homes.EnrolItem(ctx, n.Avatar)
	if err != nil {
		return Info{}, err
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	if err := b.room(n.Avatar); err != nil {
		return Info{}, err
	}
	b.mu.RLock()
	s := b.serials[n.Kind]
	b.mu.RUnlock()
	s.Serial, s.version = s.Serial+1, s.version+1
	now := b.cfg.Now().UTC().Truncate(time.Second)
	i := identity.Item{
		ID: probe.ID, World: b.cfg.Party, Home: home.Home, Registrar: home.Registrar, Kind: n.Kind, Title: n.Title, Serial: s.Serial, Attributes: n.Attributes, Issued: now,
	}
	k := kept{document: document{State: Here, Avatar: n.Avatar, Owner: home.Owner, Version: 1, Since: now}}
	if k.Credential, err = identity.IssueItem(b.cfg.Key, i); err != nil {
		return Info{}, err
	}
	if k.item, err = identity.OpenItem(k.Credential); err != nil {
		return Info{}, err
	}
	k.Last = carnet.FingerprintOf([]byte(k.Credential))
	token, err := b.entry(&k, identity.ItemEntry{What: identity.ItemIssued, Avatar: n.Avatar, Owner: home.Owner, Home: home.Answer, Proof: &home.Proof})
	if err != nil {
		return Info{}, err
	}
	counted, err := b.document(kindSerial, n.Kind, s.version, s)
	if err != nil {
		return Info{}, err
	}
	var c change
	if err := b.setChain(&c, k, []string{token}); err != nil {
		return Info{}, err
	}
	c.state(ledger.ItemIssued)
	if err := b.apply(ctx, c, counted); err != nil {
		return Info{}, err
	}
	b.mu.Lock()
	b.serials[n.Kind] = s
	b.mu.Unlock()
	return c.items[0].info(), nil
}

// state adds a statement about the newest of a change's items.
func (c *change) state(kind ledger.Kind) {
	k := c.items[len(c.items)-1]
	c.statements = append(c.statements, ledger.Statement{Kind: kind, Avatar: k.Avatar, Object: k.Last})
}

// room refuses an avatar that can't get another item now.
func (b *Book) room(avatar carnet.AvatarID) error {
	b.mu.RLock()
	x, still := b.still[avatar]
	_, erased := b.erased[avatar]
	b.mu.RUnlock()
	if erased {
		return carnet.Errorf(carnet.NotFound, "there is no avatar %s", avatar)
	}
	if still {
		return carnet.Errorf(carnet.Conflict, "the avatar %s keeps still for the crossing %s", avatar, x).WithFix("wait until that is decided: carnet avatar status %s", x)
	}
	has, coming := len(b.Of(avatar)), b.cfg.Homes.Coming(avatar)
	switch {
	case has+coming < MaxOf:
		return nil
	case coming == 0:
		return carnet.Errorf(carnet.TooLarge, "the avatar %s has %d items, and at most so many", avatar, has).WithFix("retire or give some")
	}
	return carnet.Errorf(carnet.TooLarge, "the avatar %s has %d items, and %d are on their way to it: it has %d at most", avatar, has, coming, MaxOf).WithFix("retire or give some, or wait whether those come: carnet avatar status")
}

// Equip has an item's avatar put it on, in a slot, which must be free, or off, where
// slot is empty.
func (b *Book) Equip(ctx context.Context, id carnet.ItemID, slot string) (Info, error) {
	if slot != "" {
		if err := identity.CheckItemWord("slot", slot); err != nil {
			return Info{}, err
		}
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	k, err := b.here(id)
	if err != nil {
		return Info{}, err
	}
	if k.Slot == slot {
		return k.info(), nil
	}
	for _, other := range b.Of(k.Avatar) {
		if slot != "" && other.Slot == slot {
			return Info{}, carnet.Errorf(carnet.Conflict, "the avatar has the item %s in its %s already", other.ID, slot).WithFix("take that off first: carnet item unequip %s", other.ID)
		}
	}
	next := *k
	next.Slot = slot
	var c change
	if err := b.set(&c, next); err != nil {
		return Info{}, err
	}
	reason := slot
	if slot == "" {
		reason = "no longer " + k.Slot
	}
	c.statements = []ledger.Statement{{Kind: ledger.ItemEquipped, Avatar: k.Avatar, Object: k.Last, Reason: reason}}
	if err := b.apply(ctx, c); err != nil {
		return Info{}, err
	}
	return c.items[0].info(), nil
}

// Give takes an owner's gift: another avatar of this world has the item from now on,
// under the same owner's key. Handed in again it is answered the same.
func (b *Book) Give(ctx context.Context, token string) (Info, error) {
	g, err := identity.OpenGift(token)
	if err != nil {
		return Info{}, err
	}
	owner, err := b.cfg.Homes.OwnerOf(ctx, g.To)
	if err != nil {
		return Info{}, err
	}
	// A claim for a gift that isn't taken would make the item's passports worth nothing.
	if k, _, taken, err := b.givable(ctx, g, token, owner); err != nil || taken {
		return infoOf(k), err
	}
	var is Info
	err = b.claimed(ctx, g.Item, func() (err error) {
		is, err = b.give(ctx, g, token, owner)
		return err
	})
	return is, err
}

// give takes a gift, once the item's home is claimed.
func (b *Book) give(ctx context.Context, g identity.Gift, token, owner string) (Info, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	k, entries, taken, err := b.givable(ctx, g, token, owner)
	if err != nil || taken {
		return infoOf(k), err
	}
	entry, err := b.entry(k, identity.ItemEntry{What: identity.ItemGiven, Avatar: g.To, Owner: k.Owner, Gift: token})
	if err != nil {
		return Info{}, err
	}
	next := *k
	next.Avatar, next.Slot, next.Since = g.To, "", b.cfg.Now().UTC().Truncate(time.Second)
	var c change
	if err := b.setChain(&c, next, append(entries, entry)); err != nil {
		return Info{}, err
	}
	c.state(ledger.ItemGiven)
	if err := b.apply(ctx, c); err != nil {
		return Info{}, err
	}
	return c.items[0].info(), nil
}

// givable refuses a gift that can't be taken now; owner is the registered one of who gets
// it. taken: it was before.
func (b *Book) givable(ctx context.Context, g identity.Gift, token, owner string) (k *kept, entries []string, taken bool, err error) {
	if k, err = b.here(g.Item); err != nil {
		return nil, nil, false, err
	}
	if entries, err = b.entries(ctx, g.Item); err != nil {
		return nil, nil, false, err
	}
	if last, err := identity.OpenItemEntry(entries[len(entries)-1]); err == nil && last.Gift == token {
		return k, entries, true, nil
	}
	now := b.cfg.Now()
	switch {
	case g.World != b.did || g.Owner != k.Owner:
		err = carnet.Errorf(carnet.Forbidden, "the gift isn't by the item's owner, for this world").WithFix("give it with the keystore of its owner")
	case g.From != k.Avatar || g.After != k.Last:
		err = carnet.Errorf(carnet.Conflict, "the item has changed hands since the gift was signed").WithFix("sign it anew: carnet item give")
	case now.Add(skew).Before(g.Made) || !now.Before(g.Until):
		err = carnet.Errorf(carnet.Forbidden, "the gift is good from %s until %s", g.Made.Format(time.RFC3339), g.Until.Format(time.RFC3339)).WithFix("sign it anew: carnet item give")
	case owner != k.Owner:
		err = carnet.Errorf(carnet.Forbidden, "the avatar %s is under another owner's key, and the register keeps an item's owner for ever", g.To).
			WithFix("give it to an avatar of the same owner")
	case k.Entries >= maxEntries:
		err = carnet.Errorf(carnet.TooLarge, "the item %s has a chain of %d entries, and no more are taken", g.Item, k.Entries)
	default:
		err = b.room(g.To)
	}
	if err != nil {
		return nil, nil, false, err
	}
	return k, entries, false, nil
}

// infoOf is an item's info; nil: there is none.
func infoOf(k *kept) Info {
	if k == nil {
		return Info{}
	}
	return k.info()
}

// claimed has an item's chain get another entry once the register has it here: this
// world's store may be an older copy, and what has left it since isn't changed any more;
// nor comes an item by a passport that was made before it was changed.
func (b *Book) claimed(ctx context.Context, id carnet.ItemID, change func() error) error {
	k, err := b.here(id)
	if err != nil {
		return err
	}
	return b.cfg.Homes.ChangeItem(ctx, k.item.Registrar, k.item.Home, change)
}

// Retire ends an item of this world's own for ever.
func (b *Book) Retire(ctx context.Context, id carnet.ItemID) (Info, error) {
	k, err := b.item(id)
	switch {
	case err != nil:
		return Info{}, err
	case k.State == Retired:
		return k.info(), nil
	case k.State == Here && k.item.Issuer != b.did:
		return Info{}, carnet.Errorf(carnet.Forbidden, "the item %s was issued by %s, who alone retires it", id, k.item.World).
			WithFix("its owner can have it end when its avatar moves on: carnet avatar move --leave")
	}
	var is Info
	err = b.claimed(ctx, id, func() (err error) {
		is, err = b.retireNow(ctx, id)
		return err
	})
	return is, err
}

// retireNow ends an item, once its home is claimed.
func (b *Book) retireNow(ctx context.Context, id carnet.ItemID) (Info, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	k, err := b.here(id)
	if err != nil {
		return Info{}, err
	}
	var c change
	if err := b.retire(ctx, &c, *k, identity.ItemEntry{}); err != nil {
		return Info{}, err
	}
	if err := b.apply(ctx, c); err != nil {
		return Info{}, err
	}
	return c.items[0].info(), nil
}

// retire adds that an item ends. why has the order by which, if there is one.
func (b *Book) retire(ctx context.Context, c *change, k kept, why identity.ItemEntry) error {
	entries, err := b.entries(ctx, k.item.ID)
	if err != nil {
		return err
	}
	why.What, why.Avatar, why.Owner = identity.ItemRetired, k.Avatar, k.Owner
	entry, err := b.entry(&k, why)
	if err != nil {
		return err
	}
	k.State, k.Slot, k.Frozen, k.Since = Retired, "", carnet.CrossingID{}, b.cfg.Now().UTC().Truncate(time.Second)
	if why.Order != "" { // else it was told before
		k.Ending = len(entries) + 1
	}
	if err := b.setChain(c, k, append(entries, entry)); err != nil {
		return err
	}
	c.state(ledger.ItemRetired)
	return nil
}
