// Package item owns a world's items: those that it issued or that came to it, which
// avatar has each, and which items of other issuers it accepts and as what. It also
// reads what proves an item, offline (Read).
//
// An item is here, then gone to another world, or retired; from the freeze of a
// crossing until its decision it keeps still. docs/design/items.md has the forms, the
// durable states and the recovery rule for a crash at each point.
//
// The package must not know how items and avatars move (crossing/move), what an avatar
// is beyond its id, nor how the register is asked.
package item

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
)

// Store keeps items: a world's store is one. Every method is one transaction, durable
// on return.
type Store interface {
	// Put stores documents (nil Body: delete) and statements, all or nothing; a
	// document whose stored version isn't Version-1 fails the whole with
	// carnet.Conflict.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error
	// Document returns one document; carnet.NotFound if there is none.
	Document(ctx context.Context, kind, id string) (carnet.Document, error)
	// DocumentPage returns documents of a kind with id > after, in the byte order
	// of their ids, at most limit.
	DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error)
}

// Homes registers the homes of items. It may be called concurrently; what needs the
// register is carnet.Unavailable while that can't be asked.
type Homes interface {
	// EnrolItem registers a new home for an item of an avatar that is here, with the
	// owner's key that is registered for the avatar's own home.
	EnrolItem(ctx context.Context, avatar carnet.AvatarID) (Enrolled, error)
	// OwnerOf returns the key that is registered for the home of an avatar that is
	// here, as a did:key.
	OwnerOf(ctx context.Context, avatar carnet.AvatarID) (string, error)
	// ChangeItem has the chain of an item get an entry, one after the other: it makes sure
	// that its home is at this world, carnet.Conflict if it is elsewhere by now, and says
	// there that the chain is to have one more; then it calls change. If the chain doesn't
	// have it then, it says that, too, as soon as it can.
	ChangeItem(ctx context.Context, registrar string, home carnet.HomeID, change func() error) error
	// Coming counts the items that are on their way to an avatar that is here, beside those
	// that it has: they come, unless the register decides otherwise.
	Coming(avatar carnet.AvatarID) int
	// ItemsEnd says that items have ended, of which the register is to be told
	// (Book.Ending). It must not block.
	ItemsEnd()
}

// Enrolled is a home that the register has enrolled.
type Enrolled struct {
	Home      carnet.HomeID
	Registrar string
	Owner     string
	Answer    string // the registrar's, that is on its ledger
	Proof     identity.OnLedger
}

// Config makes a Book. Every field without a stated default is required.
type Config struct {
	Party carnet.PartyID // the world, as it calls itself
	Key   ed25519.PrivateKey
	Store Store
	Keys  *keys.Table // has the key under which all of it rests; it is made at the first start
	Homes Homes
	// Ledger returns the key of a registrar's ledger, by which what it said is verified.
	Ledger func(registrar string) (ledger.Key, error)
	// State makes the outbox item of a statement by this world.
	State func(ledger.Statement) (ledger.Item, error)
	// Recorded is called after a change that left a statement. It must not block.
	Recorded func()

	Now func() time.Time // default time.Now
}

// Book is what a world knows of items. It may be used by many goroutines.
type Book struct {
	cfg    Config
	did    string
	sealer *keys.Sealer

	changing sync.Mutex // held while something is stored; before mu

	mu       sync.RWMutex // guards what follows
	items    map[carnet.ItemID]*kept
	homes    map[carnet.HomeID]carnet.ItemID
	serials  map[string]serial
	accepted map[string]accepted
	still    map[carnet.AvatarID]carnet.CrossingID // avatars that keep still
	erased   map[carnet.AvatarID]carnet.ErasureID  // avatars that are erased
}

// State is where an item is, seen from here.
type State string

// The states of an item.
const (
	Here    State = "here"
	Gone    State = "gone" // to another world
	Retired State = "retired"
)

// document is an item as it is stored, but for its chain.
type document struct {
	Credential string             `json:"credential"`
	State      State              `json:"state"`
	Avatar     carnet.AvatarID    `json:"avatar"`  // that has it, or had it last
	Owner      string             `json:"owner"`   // the key that is registered for its home
	Version    uint64             `json:"version"` // of its home
	Entries    int                `json:"entries"`
	Last       carnet.Fingerprint `json:"last"` // the newest entry
	Since      time.Time          `json:"since"`
	Slot       string             `json:"slot,omitempty"`
	Looks      *Looks             `json:"looks,omitempty"` // of a foreign item
	Frozen     carnet.CrossingID  `json:"frozen,omitzero"`
	World      carnet.PartyID     `json:"world,omitempty"` // where it went
	// Erasure is by which the avatar that had it last is erased: nothing here says any more
	// which that was, or whose.
	Erasure carnet.ErasureID `json:"erasure,omitzero"`
	// Ending: it has ended, and the register is to be told that its chain has so many
	// entries, so that no passport of before brings it anywhere. 0: it was told.
	Ending int `json:"ending,omitempty"`
}

// chain is an item's entries. It is stored with each change of them.
type chain struct {
	Entries []string `json:"entries"`
}

type kept struct {
	document
	item    identity.Item
	version uint64 // of the document
	chained uint64 // of the chain's
}

type serial struct {
	Serial  uint64 `json:"serial"`
	version uint64
}

type accepted struct {
	Acceptance
	version uint64
}

const (
	kindItem     = "item"
	kindChain    = "item-chain"
	kindSerial   = "item-kind"
	kindAccepted = "item-accepted"

	skew     = 30 * time.Second // how far clocks may differ
	pageSize = 512
)

var restKey = keys.ID{Kind: "rest", Name: "items"}

// New loads what is stored.
func New(ctx context.Context, cfg Config) (*Book, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Homes == nil || cfg.Ledger == nil || cfg.State == nil || cfg.Recorded == nil || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, carnet.Errorf(carnet.Malformed, "a book of items needs a store, keys, a register and a way to state")
	}
	if _, err := carnet.ParsePartyID(string(cfg.Party)); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Book{
		cfg: cfg, did: identity.DID(cfg.Key.Public().(ed25519.PublicKey)), items: make(map[carnet.ItemID]*kept), homes: make(map[carnet.HomeID]carnet.ItemID), serials: make(map[string]serial),
		accepted: make(map[string]accepted), still: make(map[carnet.AvatarID]carnet.CrossingID),
		erased: make(map[carnet.AvatarID]carnet.ErasureID),
	}
	if err := b.unseal(ctx); err != nil {
		return nil, err
	}
	return b, b.load(ctx)
}

// unseal takes the key under which documents rest. It is made at the first start only:
// a store that was used with another key table is refused.
func (b *Book) unseal(ctx context.Context) (err error) {
	if b.sealer, err = b.cfg.Keys.Sealer(ctx, restKey); carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	for _, kind := range []string{kindItem, kindAccepted} {
		if some, err := b.cfg.Store.DocumentPage(ctx, kind, "", 1); err != nil {
			return err
		} else if len(some) > 0 {
			return carnet.Errorf(carnet.Tampered, "the key table doesn't have the key that this world's items are sealed under").
				WithFix("give the key table that belongs to the store")
		}
	}
	if _, err = b.cfg.Keys.Make(ctx, restKey); err != nil {
		return err
	}
	b.sealer, err = b.cfg.Keys.Sealer(ctx, restKey)
	return err
}

func (b *Book) load(ctx context.Context) error {
	chained := make(map[string]uint64)
	err := each(ctx, b, kindChain, func(d carnet.Document, _ chain) error { chained[d.ID] = d.Version; return nil })
	if err != nil {
		return err
	}
	err = each(ctx, b, kindItem, func(d carnet.Document, doc document) error {
		i, err := identity.OpenItem(doc.Credential)
		if err != nil {
			return err
		}
		b.items[i.ID] = &kept{document: doc, item: i, version: d.Version, chained: chained[d.ID]}
		b.homes[i.Home] = i.ID
		return nil
	})
	if err != nil {
		return err
	}
	err = each(ctx, b, kindSerial, func(d carnet.Document, s serial) error {
		s.version = d.Version
		b.serials[d.ID] = s
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, b, kindAccepted, func(d carnet.Document, a Acceptance) error {
		b.accepted[d.ID] = accepted{a, d.Version}
		return nil
	})
}

// each hands over the documents of a kind, opened.
func each[T any](ctx context.Context, b *Book, kind string, do func(carnet.Document, T) error) error {
	for after := ""; ; {
		page, err := b.cfg.Store.DocumentPage(ctx, kind, after, pageSize)
		if err != nil {
			return err
		}
		for _, d := range page {
			var v T
			if err := b.open(d, &v); err != nil {
				return err
			}
			if err := do(d, v); err != nil {
				return err
			}
			after = d.ID
		}
		if len(page) < pageSize {
			return nil
		}
	}
}

func aad(kind, id string) []byte { return []byte("document " + kind + " " + id) }

func (b *Book) open(d carnet.Document, into any) error {
	plain, err := b.sealer.Open(nil, aad(d.Kind, d.ID), d.Body)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(bytes.NewReader(plain)).Decode(into); err != nil {
		return carnet.Errorf(carnet.Tampered, "the %s %s can't be read: %v", d.Kind, d.ID, err)
	}
	return nil
}

func (b *Book) document(kind, id string, version uint64, v any) (carnet.Document, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return carnet.Document{}, err
	}
	body, err := b.sealer.Seal(nil, aad(kind, id), plain)
	return carnet.Document{Kind: kind, ID: id, Version: version, Body: body}, err
}

// put stores documents with statements about them. The caller holds changing.
func (b *Book) put(ctx context.Context, documents []carnet.Document, statements ...ledger.Statement) error {
	var items []ledger.Item
	for _, s := range statements {
		s.Time = b.cfg.Now().UnixNano()
		i, err := b.cfg.State(s)
		if err != nil {
			return err
		}
		items = append(items, i)
	}
	if err := b.cfg.Store.Put(ctx, documents, items); err != nil {
		return err
	}
	if len(items) > 0 {
		b.cfg.Recorded()
	}
	return nil
}

// change is a set of items' next documents, which are stored together.
type change struct {
	items      []*kept
	documents  []carnet.Document
	statements []ledger.Statement
}

// set adds an item's next document.
func (b *Book) set(c *change, k kept) error {
	k.version++
	d, err := b.document(kindItem, k.item.ID.String(), k.version, k.document)
	c.items, c.documents = append(c.items, &k), append(c.documents, d)
	return err
}

// setChain adds an item's next document with its chain.
func (b *Book) setChain(c *change, k kept, entries []string) error {
	if len(entries) > 0 {
		k.Last = carnet.FingerprintOf([]byte(entries[len(entries)-1]))
	}
	k.Entries = len(entries)
	k.chained++
	d, err := b.document(kindChain, k.item.ID.String(), k.chained, chain{entries})
	if err != nil {
		return err
	}
	c.documents = append(c.documents, d)
	return b.set(c, k)
}

// apply stores a change and takes it up. The caller holds changing.
func (b *Book) apply(ctx context.Context, c change, more ...carnet.Document) error {
	if err := b.put(ctx, append(c.documents, more...), c.statements...); err != nil {
		return err
	}
	ending := false
	b.mu.Lock()
	for _, k := range c.items {
		b.items[k.item.ID], b.homes[k.item.Home] = k, k.item.ID
		ending = ending || k.Ending > 0
	}
	b.mu.Unlock()
	if ending {
		b.cfg.Homes.ItemsEnd()
	}
	return nil
}

// entry signs the next entry of an item's chain.
func (b *Book) entry(k *kept, e identity.ItemEntry) (string, error) {
	if k.Entries >= maxEntries && e.What != identity.ItemRetired {
		return "", carnet.Errorf(carnet.TooLarge, "the item %s has a chain of %d entries, and no more are taken", k.item.ID, k.Entries)
	}
	e.Item, e.Number, e.Before, e.World, e.Time = k.item.ID, uint64(k.Entries)+1, k.Last, b.did, b.cfg.Now().UTC().Truncate(time.Second)
	return identity.SignItemEntry(b.cfg.Key, e)
}

// entries reads an item's chain.
func (b *Book) entries(ctx context.Context, id carnet.ItemID) ([]string, error) {
	d, err := b.cfg.Store.Document(ctx, kindChain, id.String())
	if err != nil {
		return nil, err
	}
	var c chain
	return c.Entries, b.open(d, &c)
}

// Info is an item as it is here.
type Info struct {
	identity.Item
	State   State
	Avatar  carnet.AvatarID
	Owner   string
	Since   time.Time
	Slot    string // empty: it isn't equipped
	Looks   *Looks // nil: it is one of this world's own
	Frozen  bool   // it keeps still for a crossing
	World   carnet.PartyID
	Last    carnet.Fingerprint
	Entries int

	Credential string
}

func (k *kept) info() Info {
	return Info{
		Item: k.item, State: k.State, Avatar: k.Avatar, Owner: k.Owner, Since: k.Since, Slot: k.Slot, Looks: k.Looks,
		Frozen: k.Frozen != (carnet.CrossingID{}), World: k.World, Last: k.Last, Entries: k.Entries, Credential: k.Credential,
	}
}

func (b *Book) item(id carnet.ItemID) (*kept, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if k := b.items[id]; k != nil {
		return k, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no item %s", id).WithFix("list them: carnet item list")
}

// here returns an item that is here and may be changed.
func (b *Book) here(id carnet.ItemID) (*kept, error) {
	k, err := b.item(id)
	switch {
	case err != nil:
		return nil, err
	case k.State == Gone:
		return nil, carnet.Errorf(carnet.Conflict, "the item %s has gone to %s", id, k.World).WithFix("ask there for it")
	case k.State == Retired:
		return nil, carnet.Errorf(carnet.Conflict, "the item %s is retired", id)
	case k.Frozen != (carnet.CrossingID{}):
		return nil, carnet.Errorf(carnet.Conflict, "the item %s keeps still for the crossing %s", id, k.Frozen).WithFix("wait until that is decided: carnet avatar status %s", k.Frozen)
	}
	return k, nil
}

// Item returns one item, also one that has gone or is retired.
func (b *Book) Item(id carnet.ItemID) (Info, error) {
	k, err := b.item(id)
	if err != nil {
		return Info{}, err
	}
	return k.info(), nil
}

// Items lists all items, those that have gone or are retired included, by when each
// came to who has it.
func (b *Book) Items() []Info {
	return b.list(func(*kept) bool { return true })
}

// Of lists the items that an avatar has here.
func (b *Book) Of(avatar carnet.AvatarID) []Info {
	return b.list(func(k *kept) bool { return k.State == Here && k.Avatar == avatar })
}

func (b *Book) list(want func(*kept) bool) []Info {
	b.mu.RLock()
	all := []Info{}
	for _, k := range b.items {
		if want(k) {
			all = append(all, k.info())
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(p, q Info) int {
		return cmp.Or(p.Since.Compare(q.Since), slices.Compare(p.ID[:], q.ID[:]))
	})
	return all
}

// Proof returns all that proves an item that is here or retired.
func (b *Book) Proof(ctx context.Context, id carnet.ItemID) (identity.ItemProof, error) {
	k, err := b.item(id)
	if err != nil {
		return identity.ItemProof{}, err
	}
	if k.Erasure != (carnet.ErasureID{}) {
		return identity.ItemProof{}, carnet.Errorf(carnet.NotFound, "the avatar that had the item %s last is erased, and its chain with it", id)
	}
	if k.State == Gone {
		return identity.ItemProof{}, carnet.Errorf(carnet.Conflict, "the item %s has gone to %s, and its chain with it", id, k.World).WithFix("ask there for it")
	}
	entries, err := b.entries(ctx, id)
	return identity.ItemProof{Credential: k.Credential, Entries: entries}, err
}
