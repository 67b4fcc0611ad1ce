package item

import (
	"fmt"
	"slices"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// maxEntries bounds an item's chain, but for its retirement.
const maxEntries = 256

// ProofKind is what a document with an item's proof calls itself.
const ProofKind = "carnet-item/1"

// History is what an item's chain says of it.
type History struct {
	identity.Item
	Credential carnet.Fingerprint
	Entries    []identity.ItemEntry

	World   string             // did:key of the world where it is
	Avatar  carnet.AvatarID    // that has it there
	Owner   string             // the key that is registered for its home
	Version uint64             // of its home
	Last    carnet.Fingerprint // of the newest entry
	Retired bool
}

// Read verifies an item from its issuer on, with nobody's word but that of who must
// have signed (docs/design/items.md). key is that of the registrar's ledger, by which
// receipts are verified; nil: they aren't, and the registrar's signature stands alone.
// An error names the entry that is wrong. What the chain can't say is whether there is
// more of it: that is the register's to say.
func Read(p identity.ItemProof, key *ledger.Key) (History, error) {
	i, err := identity.OpenItem(p.Credential)
	if err != nil {
		return History{}, fmt.Errorf("the item's credential: %w", err)
	}
	h := History{Item: i, Credential: carnet.FingerprintOf([]byte(p.Credential))}
	h.Last = h.Credential
	if n := len(p.Entries); n == 0 || n > maxEntries+1 {
		return History{}, carnet.Errorf(carnet.Malformed, "the item %s has a chain of %d entries, want 1 to %d, and its retirement", i.ID, n, maxEntries)
	}
	for n, token := range p.Entries {
		if err := h.add(token, key); err != nil {
			return History{}, fmt.Errorf("entry %d of the item %s: %w", n+1, i.ID, err)
		}
	}
	return h, nil
}

// add takes the next entry.
func (h *History) add(token string, key *ledger.Key) error {
	e, err := identity.OpenItemEntry(token)
	if err != nil {
		return err
	}
	switch {
	case h.Retired:
		return broken("follows its retirement")
	case e.Item != h.ID:
		return broken("is about the item %s", e.Item)
	case e.Number != uint64(len(h.Entries))+1 || e.Before != h.Last:
		return broken("doesn't follow what is before it")
	case len(h.Entries) >= maxEntries && e.What != identity.ItemRetired:
		return broken("is one too many, and no retirement")
	}
	switch e.What {
	case identity.ItemIssued:
		err = h.issued(e)
	case identity.ItemGiven:
		err = h.given(e)
	case identity.ItemMoved, identity.ItemRecovered:
		err = h.moved(e)
	case identity.ItemRetired:
		err = h.ended(e)
	}
	if err == nil && e.Proof != nil && key != nil {
		err = onLedger(e, *key)
	}
	if err != nil {
		return err
	}
	h.World, h.Avatar, h.Owner, h.Retired = e.World, e.Avatar, e.Owner, e.What == identity.ItemRetired
	h.Entries, h.Last = append(h.Entries, e), carnet.FingerprintOf([]byte(token))
	return nil
}

func broken(format string, args ...any) error {
	return carnet.Errorf(carnet.Tampered, format, args...)
}

// issued: by the issuer, and the registrar enrolled the home for it and the owner.
func (h *History) issued(e identity.ItemEntry) error {
	a, err := identity.OpenHome(e.Home)
	switch {
	case err != nil:
		return err
	case e.World != h.Issuer:
		return broken("is by %s, and the item's issuer is %s", e.World, h.Issuer)
	case a.Registrar != h.Registrar || a.Home != h.Home:
		return broken("has a registrar's answer about another home, or by another registrar")
	case a.World != h.Issuer || a.Owner != e.Owner || a.Version != 1:
		return broken("has a registrar's answer that doesn't say that the home was enrolled by the issuer for that owner")
	}
	h.Version = 1
	return nil
}

// given: by the world where it is, by the owner's word.
func (h *History) given(e identity.ItemEntry) error {
	g, err := identity.OpenGift(e.Gift)
	switch {
	case err != nil:
		return err
	case e.World != h.World:
		return broken("is by %s, where the item isn't", e.World)
	case g.Owner != h.Owner || e.Owner != h.Owner:
		return broken("has a gift by %s, who isn't the item's owner", g.Owner)
	case g.Item != h.ID || g.World != h.World || g.From != h.Avatar || g.To != e.Avatar || g.After != h.Last:
		return broken("has a gift of something else, or one that was taken before")
	}
	return nil
}

// moved: by the world where it comes to, by the owner's order, or recovery, and the
// registrar's commit of it.
func (h *History) moved(e identity.ItemEntry) error {
	o, d, err := ordered(e)
	if err != nil {
		return err
	}
	if err := h.committed(o, d); err != nil {
		return err
	}
	if r := o.Recovers; r != nil {
		if at := slices.Index(o.Homes, h.Home); at < 0 || r.Chains[at] != uint64(len(h.Entries)) {
			return broken("has a recovery of a chain that doesn't end here")
		}
	}
	if o.Target != e.World || e.Owner != h.Owner {
		return broken("is by %s, and the order names %s", e.World, o.Target)
	}
	if !d.Moves(identity.HomeAt{Home: h.Home, Version: h.Version + 1, World: e.World}) {
		return broken("has a decision by which the item's home isn't at %s in version %d", e.World, h.Version+1)
	}
	h.Version++
	return nil
}

func ordered(e identity.ItemEntry) (o identity.Order, d identity.Decision, err error) {
	read := identity.OpenOrder
	if e.What == identity.ItemRecovered {
		read = identity.OpenRecovery
	}
	if o, err = read(e.Order); err != nil {
		return o, d, err
	}
	if d, err = identity.OpenDecision(e.Decision); err != nil {
		return o, d, err
	}
	if d.Crossing != o.Crossing || d.Of(carnet.FingerprintOf([]byte(e.Order))) != identity.Commit {
		return o, d, broken("has a decision that isn't a commit of its order")
	}
	if r := o.Recovers; r != nil && r.Manifest != *d.Manifest {
		return o, d, broken("has a decision about another passport than its recovery")
	}
	return o, d, nil
}

// committed: the order is the owner's, from where the item is.
func (h *History) committed(o identity.Order, d identity.Decision) error {
	switch {
	case o.Owner != h.Owner:
		return broken("has an order by %s, who isn't the item's owner", o.Owner)
	case o.Source != h.World:
		return broken("has an order from %s, and the item is at %s", o.Source, h.World)
	case o.Registrar != h.Registrar || d.Registrar != h.Registrar:
		return broken("has a decision of another registrar than the item's")
	}
	return nil
}

// ended: by the issuer that has it, or by the owner's order.
func (h *History) ended(e identity.ItemEntry) error {
	if e.World != h.World || e.Owner != h.Owner || e.Avatar != h.Avatar {
		return broken("is by %s, and the item is at %s", e.World, h.World)
	}
	if e.Order == "" {
		if e.World != h.Issuer {
			return broken("retires the item of another world without its owner's order")
		}
		return nil
	}
	o, d, err := ordered(e)
	if err != nil {
		return err
	}
	if err := h.committed(o, d); err != nil {
		return err
	}
	terms, err := identity.ParseMoveTerms(e.Terms, o)
	if err != nil {
		return err
	}
	for _, r := range terms.Retired {
		if r.Item == h.ID && r.Home == h.Home {
			return nil
		}
	}
	return broken("has an order that doesn't retire the item")
}

// onLedger checks that the registrar's word in an entry is on its ledger.
func onLedger(e identity.ItemEntry, key ledger.Key) error {
	signed, kind := e.Decision, ledger.CrossingDecided
	if e.What == identity.ItemIssued {
		signed, kind = e.Home, ledger.HomeEnrolled
	}
	s, err := ledger.ParseStatement(e.Proof.Statement)
	if err != nil {
		return err
	}
	if s.Kind != kind || s.Object != carnet.FingerprintOf([]byte(signed)) {
		return broken("has a statement of the registrar's ledger about something else")
	}
	if len(e.Proof.Salt) != len(ledger.Salt{}) {
		return broken("has a salt of %d bytes", len(e.Proof.Salt))
	}
	receipt, err := ledger.ParseReceipt(e.Proof.Receipt)
	if err != nil {
		return err
	}
	return ledger.VerifyReceipt(key, ledger.EntryOf(ledger.Salt(e.Proof.Salt), e.Proof.Statement), receipt)
}
