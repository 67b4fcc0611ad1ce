package thing

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"carnet"
	ident "carnet/identity" // the package has an identity of its own
	"carnet/ledger"
)

// ownerDocument is the owner's key that a mapping's world has pinned with the
// avatar.
type ownerDocument struct {
	Key []byte    `json:"key"`
	At  time.Time `json:"at"`
	// Orders is the owner's key that signs orders to move, where it is another: the
	// register goes on with the first home's.
	Orders []byte `json:"orders,omitempty"`
}

// ownershipSkew is how far an owner's clock may be from this agent's.
const ownershipSkew = 30 * time.Second

// Own passes on an owner's word that the avatar of a mapping is theirs
// (identity.SignOwnership); the world pins its key with the avatar. The agent
// can't say so itself: it has no such key.
func (a *Agent) Own(ctx context.Context, id carnet.MappingID, ownership string) (MappingInfo, error) {
	m, err := a.mapping(id)
	if err != nil {
		return MappingInfo{}, err
	}
	if err := a.sameOwner(m.thing, m.World, m.Avatar); err != nil {
		return MappingInfo{}, err
	}
	s := a.sender(m.World)
	o, key, err := ident.VerifyOwnership(ownership, ident.OwnershipExpectation{Audience: s.peer.OwnName, Now: a.now(), Skew: ownershipSkew})
	if err != nil {
		return MappingInfo{}, err
	}
	if o.Avatar != m.Avatar {
		return MappingInfo{}, carnet.Errorf(carnet.Malformed, "the ownership is of the avatar %s, and the mapping's is %s", o.Avatar, m.Avatar)
	}
	if _, err := s.ask(ctx, carnet.CallOwn, carnet.Own{Ownership: ownership}); err != nil {
		return MappingInfo{}, fmt.Errorf("ask %s to pin the owner's key: %w", m.World, err)
	}
	if err := a.noteOwner(ctx, m, key, ownership); err != nil {
		return MappingInfo{}, err
	}
	return a.info(m), nil
}

// noteOwner keeps the key that the world has pinned, with a statement; once.
func (a *Agent) noteOwner(ctx context.Context, m *Mapping, key ed25519.PublicKey, ownership string) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if key.Equal(a.ownerKey(m)) {
		return nil
	}
	doc := ownerDocument{Key: key, At: a.now().UTC()}
	d, err := a.document(kindOwner, mappingKey(m.Number), a.nextVersion(kindOwner, mappingKey(m.Number)), doc)
	if err != nil {
		return err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.OwnerPinned, Time: a.now().UnixNano(), Peer: m.World, Thing: m.thing.id, Mapping: m.ID, Avatar: m.Avatar,
		Object: carnet.FingerprintOf([]byte(ownership)),
	})
	if err != nil {
		return err
	}
	if err := a.change(ctx, []carnet.Document{d}, []ledger.Item{item}); err != nil {
		return err
	}
	a.stored(d)
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.owners[m.Number] = doc
	return nil
}

// ownerKey is nil where none is known to be pinned.
func (a *Agent) ownerKey(m *Mapping) ed25519.PublicKey {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return a.registry.owners[m.Number].Key
}

// orderKey is the owner's key that signs orders to move the mapping's avatar; nil
// where none is known.
func (a *Agent) orderKey(m *Mapping) ed25519.PublicKey {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	doc := a.registry.owners[m.Number]
	if doc.Orders != nil {
		return doc.Orders
	}
	return doc.Key
}

func (a *Agent) enterOwner(d carnet.Document, v ownerDocument) error {
	number, err := parseMappingKey(d.ID)
	if err != nil {
		return err
	}
	a.registry.versions[kindOwner+"/"+d.ID] = d.Version
	a.registry.owners[number] = v
	return nil
}
