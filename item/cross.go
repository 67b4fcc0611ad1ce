package item

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// Leaving are the items of an order, as its source knows them.
type Leaving struct {
	Crossing carnet.CrossingID
	Avatar   carnet.AvatarID // that has them
	Items    []identity.MovingItem
	Retired  []identity.MovingItem
	Alone    bool // the avatar stays
}

// Homes returns the homes of items that are here, as they are registered.
func (b *Book) Homes() (all []Home) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.items {
		if k.State == Here {
			all = append(all, k.home())
		}
	}
	return all
}

// At returns the home of an item that is here, by which it is registered.
func (b *Book) At(home carnet.HomeID) (Home, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	k := b.items[b.homes[home]]
	if k == nil || k.State != Here {
		return Home{}, false
	}
	return k.home(), true
}

// Ending returns the homes of items that have ended, which the register is to be told,
// with the number of entries that it is told.
func (b *Book) Ending() (all []Home) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.items {
		if k.Ending > 0 {
			h := k.home()
			h.Entries = k.Ending
			all = append(all, h)
		}
	}
	return all
}

// Ended notes that the register was told that an item has ended, durably.
func (b *Book) Ended(ctx context.Context, id carnet.ItemID) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	k, err := b.item(id)
	if err != nil || k.Ending == 0 {
		return err
	}
	next := *k
	next.Ending = 0
	var c change
	if err := b.set(&c, next); err != nil {
		return err
	}
	return b.apply(ctx, c)
}

func (k *kept) home() Home {
	return Home{k.item.ID, k.item.Home, k.item.Registrar, k.Owner, k.Avatar, k.Frozen, k.Entries}
}

// Home is where the register has an item.
type Home struct {
	Item      carnet.ItemID
	Home      carnet.HomeID
	Registrar string
	Owner     string
	Avatar    carnet.AvatarID // that has it
	Frozen    carnet.CrossingID
	Entries   int // of its chain
}

// Leaves refuses items that can't leave by an order: each must be the avatar's, under
// the order's owner's key, as the terms say, and not keep still for another crossing;
// and none of an avatar that moves may be left.
func (b *Book) Leaves(l Leaving, owner string) error {
	for _, m := range slices.Concat(l.Items, l.Retired) {
		k, err := b.item(m.Item)
		if err != nil {
			return err
		}
		switch {
		case k.Frozen != (carnet.CrossingID{}) && k.Frozen != l.Crossing:
			return carnet.Errorf(carnet.Unavailable, "the item %s keeps still for the crossing %s", m.Item, k.Frozen)
		case k.State == Gone:
			return carnet.Errorf(carnet.Conflict, "the item %s has gone to %s", m.Item, k.World)
		case k.State == Retired:
			return carnet.Errorf(carnet.Conflict, "the item %s is retired", m.Item)
		case k.Avatar != l.Avatar:
			return carnet.Errorf(carnet.Conflict, "the item %s is another avatar's", m.Item)
		case k.item.Home != m.Home || carnet.FingerprintOf([]byte(k.Credential)) != m.Credential || k.item.Kind != m.Kind || k.item.Title != m.Title:
			return carnet.Errorf(carnet.Forbidden, "the item %s isn't what the order's terms say", m.Item)
		case m.As != "" && k.Owner != owner:
			return carnet.Errorf(carnet.Forbidden, "the item %s is registered for another key of its owner's than the order", m.Item).WithFix("move it on its own: carnet item move")
		case m.As != "" && k.Entries >= maxEntries:
			return carnet.Errorf(carnet.TooLarge, "the item %s has a chain of %d entries, and no more are taken", m.Item, k.Entries)
		}
	}
	if l.Alone {
		return nil
	}
	for _, have := range b.Of(l.Avatar) {
		if !slices.ContainsFunc(slices.Concat(l.Items, l.Retired), func(m identity.MovingItem) bool { return m.Item == have.ID }) {
			return carnet.Errorf(carnet.Conflict, "the avatar has the item %s, which the order says nothing of", have.ID).
				WithFix("give it to another avatar first (carnet item give), or begin the move anew and say what becomes of it: --items, --leave")
		}
	}
	return nil
}

// Freeze has items keep still for a crossing, all or none, durably, and with them the
// avatar, which gets no more; and returns what proves those that move.
func (b *Book) Freeze(ctx context.Context, l Leaving, owner string) ([]identity.ItemProof, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	if err := b.Leaves(l, owner); err != nil {
		return nil, err
	}
	var c change
	for _, m := range slices.Concat(l.Items, l.Retired) {
		k, err := b.item(m.Item)
		if err != nil {
			return nil, err
		}
		if k.Frozen == l.Crossing {
			continue
		}
		next := *k
		next.Frozen = l.Crossing
		if err := b.set(&c, next); err != nil {
			return nil, err
		}
	}
	if len(c.items) > 0 {
		if err := b.apply(ctx, c); err != nil {
			return nil, err
		}
	}
	if !l.Alone {
		b.Still(l.Avatar, l.Crossing)
	}
	var proofs []identity.ItemProof
	for _, m := range l.Items {
		p, err := b.Proof(ctx, m.Item)
		if err != nil {
			return nil, err
		}
		proofs = append(proofs, p)
	}
	return proofs, nil
}

// Passported returns what proves the items that an avatar has under an owner's key at a
// registrar, for its passport: as many as one order can name. With a crossing other than
// zero, which is the passport's, they keep still for it, durably, as far as they don't for
// another, and the avatar gets no more; then none is left out, but more than that are
// refused.
func (b *Book) Passported(ctx context.Context, avatar carnet.AvatarID, registrar, owner string, still carnet.CrossingID) (proofs []identity.ItemProof, err error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	var c change
	for _, have := range b.Of(avatar) {
		k, err := b.item(have.ID)
		if err != nil {
			return nil, err
		}
		if k.Owner != owner || k.item.Registrar != registrar {
			continue // it moves on its own only
		}
		if len(proofs) == MaxOf {
			if still == (carnet.CrossingID{}) {
				continue
			}
			return nil, carnet.Errorf(carnet.TooLarge, "the avatar %s has more than %d items, and its passport %d at most: one of them would be left behind", avatar, MaxOf, MaxOf).
				WithFix("give one to another avatar first, move it, or retire it: carnet item give, move, retire")
		}
		if still != (carnet.CrossingID{}) && k.Frozen != still {
			if k.Frozen != (carnet.CrossingID{}) {
				return nil, carnet.Errorf(carnet.Conflict, "its item %s keeps still for the crossing %s", k.item.ID, k.Frozen).
					WithFix("wait until that is decided: carnet avatar status %s", k.Frozen)
			}
			next := *k
			next.Frozen = still
			if err := b.set(&c, next); err != nil {
				return nil, err
			}
		}
		p, err := b.Proof(ctx, k.item.ID)
		if err != nil {
			return nil, err
		}
		proofs = append(proofs, p)
	}
	if len(c.items) > 0 {
		if err := b.apply(ctx, c); err != nil {
			return nil, err
		}
	}
	if still != (carnet.CrossingID{}) {
		b.Still(avatar, still)
	}
	return proofs, nil
}

// Still has an avatar get no items, since it keeps still for a crossing. It isn't
// durable: who knows says it again after a start.
func (b *Book) Still(avatar carnet.AvatarID, x carnet.CrossingID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.still[avatar] = x
}

func (b *Book) moves(x carnet.CrossingID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for avatar, of := range b.still {
		if of == x {
			delete(b.still, avatar)
		}
	}
}

// Thaw ends what Freeze began for a crossing, durably.
func (b *Book) Thaw(ctx context.Context, x carnet.CrossingID) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	var c change
	for _, k := range b.frozen(x) {
		next := *k
		next.Frozen = carnet.CrossingID{}
		if err := b.set(&c, next); err != nil {
			return err
		}
	}
	if len(c.items) > 0 {
		if err := b.apply(ctx, c); err != nil {
			return err
		}
	}
	b.moves(x)
	return nil
}

func (b *Book) frozen(x carnet.CrossingID) (all []*kept) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.items {
		if k.Frozen == x {
			all = append(all, k)
		}
	}
	return all
}

// Committed is a crossing that the registrar has committed.
type Committed struct {
	Order    string
	Terms    []byte
	Decision string
	Proof    identity.OnLedger // of the decision; at the source: not needed
	Homes    []identity.HomeAt // that it moved
}

// Depart notes that a crossing's items have gone to another world, and retires those
// that its order says end, in one transaction. What isn't here, or has come back by a
// later crossing, is passed over: done again it stays done.
func (b *Book) Depart(ctx context.Context, l Leaving, to carnet.PartyID, d Committed) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	var c change
	for _, m := range l.Items {
		k, err := b.item(m.Item)
		at := slices.IndexFunc(d.Homes, func(h identity.HomeAt) bool { return h.Home == m.Home })
		if err != nil || at < 0 || k.State != Here || k.item.Home != m.Home || k.Version >= d.Homes[at].Version {
			continue
		}
		next := *k
		next.State, next.Slot, next.Looks, next.Frozen, next.World, next.Since = Gone, "", nil, carnet.CrossingID{}, to, b.cfg.Now().UTC()
		last := next.Last
		if err := b.setChain(&c, next, []string{}); err != nil { // it goes with the item
			return err
		}
		c.statements = append(c.statements, ledger.Statement{Kind: ledger.ItemDeparted, Peer: to, Avatar: k.Avatar, Object: last})
	}
	for _, m := range l.Retired {
		k, err := b.item(m.Item)
		if err != nil || k.State != Here || k.item.Home != m.Home || k.Avatar != l.Avatar {
			continue
		}
		if err := b.retire(ctx, &c, *k, identity.ItemEntry{Order: d.Order, Terms: d.Terms, Decision: d.Decision}); err != nil {
			return err
		}
	}
	if len(c.items) > 0 {
		if err := b.apply(ctx, c); err != nil {
			return err
		}
	}
	b.moves(l.Crossing)
	return nil
}

// Coming are the items of an order, as its target checks them.
type Coming struct {
	Source string // did:key
	Avatar carnet.AvatarID
	Owner  string // by whose order they come
	Items  []identity.MovingItem
}

// Checked is an item that was checked: what it looks like here, and what the register
// must say of its home.
type Checked struct {
	Looks   Looks
	Home    carnet.HomeID
	Version uint64
	Entries int // of its chain
}

// Check verifies what proves the items of an order, each from its issuer on, and
// that each is what the terms say, at the source, of the avatar that moves, and under
// the order's owner; and that it is accepted here as the terms say. Whether the
// register says so, too, the caller asks.
func (b *Book) Check(c Coming, proofs []identity.ItemProof) ([]Checked, error) {
	if len(proofs) != len(c.Items) {
		return nil, carnet.Errorf(carnet.Tampered, "the manifest has %d items, and the order %d", len(proofs), len(c.Items))
	}
	all := make([]Checked, 0, len(proofs))
	for n, m := range c.Items {
		one, err := b.check(c, m, proofs[n])
		if err != nil {
			return nil, fmt.Errorf("the item %s is refused: %w", m.Item, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (b *Book) check(c Coming, m identity.MovingItem, p identity.ItemProof) (Checked, error) {
	i, l, err := b.Fit(p.Credential) // before its chain, which may be long
	if err != nil {
		return Checked{}, err
	}
	key, err := b.cfg.Ledger(i.Registrar)
	if err != nil {
		return Checked{}, err
	}
	h, err := Read(p, &key)
	switch {
	case err != nil:
		return Checked{}, err
	case h.ID != m.Item || h.Credential != m.Credential || h.Home != m.Home || h.Kind != m.Kind || h.Title != m.Title:
		return Checked{}, carnet.Errorf(carnet.Forbidden, "it isn't what the order's terms say")
	case h.Retired:
		return Checked{}, carnet.Errorf(carnet.Forbidden, "it is retired")
	case h.World != c.Source:
		return Checked{}, carnet.Errorf(carnet.Forbidden, "its chain ends at %s, and it comes from %s", h.World, c.Source)
	case h.Avatar != c.Avatar:
		return Checked{}, carnet.Errorf(carnet.Forbidden, "by its chain the avatar %s has it, and not %s", h.Avatar, c.Avatar)
	case h.Owner != c.Owner:
		return Checked{}, carnet.Errorf(carnet.Forbidden, "by its chain its owner is %s, and the order is by %s", h.Owner, c.Owner)
	case len(h.Entries) >= maxEntries:
		return Checked{}, carnet.Errorf(carnet.TooLarge, "its chain has %d entries, and no more are taken", len(h.Entries))
	}
	if l.Kind != m.As {
		return Checked{}, carnet.Errorf(carnet.Forbidden, "it counts as %s here, and the order says %s", l.Kind, m.As)
	}
	return Checked{l, h.Home, h.Version, len(h.Entries)}, nil
}

// CheckOne is Check of one item.
func (b *Book) CheckOne(c Coming, m identity.MovingItem, p identity.ItemProof) (Checked, error) {
	return b.check(c, m, p)
}

// Landing are a committed crossing's items, at its target.
type Landing struct {
	From   carnet.PartyID
	Avatar carnet.AvatarID // that has them here
	Proofs []identity.ItemProof
	Looks  []Looks // of each, as Check said
	// Recovered: by a passport; the order is the owner's recovery.
	Recovered bool
	Committed
}

// Land makes items that came ones of this world's, all in one transaction. What has
// landed already is passed over.
func (b *Book) Land(ctx context.Context, l Landing) error {
	what := identity.ItemMoved
	if l.Recovered {
		what = identity.ItemRecovered
	}
	if len(l.Looks) != len(l.Proofs) {
		return fmt.Errorf("land %d items, of which %d were looked at", len(l.Proofs), len(l.Looks))
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	var c change
	for n, p := range l.Proofs {
		h, err := Read(p, nil)
		if err != nil {
			return err
		}
		next := kept{item: h.Item}
		if had, err := b.item(h.ID); err == nil {
			if had.Version > h.Version {
				continue
			}
			next.version, next.chained = had.version, had.chained
		}
		now := b.cfg.Now().UTC()
		next.document = document{
			Credential: p.Credential, State: Here, Avatar: l.Avatar, Owner: h.Owner, Version: h.Version + 1, Entries: len(p.Entries), Last: h.Last, Since: now,
		}
		if h.Issuer != b.did {
			next.Looks = &l.Looks[n]
		}
		entry, err := b.entry(&next, identity.ItemEntry{What: what, Avatar: l.Avatar, Owner: h.Owner, Order: l.Order, Decision: l.Decision, Proof: &l.Proof})
		if err != nil {
			return err
		}
		if err := b.setChain(&c, next, append(slices.Clone(p.Entries), entry)); err != nil {
			return err
		}
		k := c.items[len(c.items)-1]
		c.statements = append(c.statements, ledger.Statement{Kind: ledger.ItemArrived, Peer: l.From, Avatar: l.Avatar, Object: k.Last})
	}
	b.mu.RLock()
	by, erased := b.erased[l.Avatar]
	b.mu.RUnlock()
	if len(c.items) > 0 {
		if err := b.apply(ctx, c); err != nil {
			return err
		}
	}
	if !erased {
		return nil
	}
	_, err := b.erase(ctx, l.Avatar, by) // it came to an avatar that was erased meanwhile, now or before a crash
	return err
}

// Issuer is this world's name as an issuer.
func (b *Book) Issuer() string { return identity.DID(b.cfg.Key.Public().(ed25519.PublicKey)) }
