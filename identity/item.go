package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"carnet"
)

// Item is what a world says, once and for all, of an item that it issues
// (docs/design/items.md).
type Item struct {
	ID         carnet.ItemID
	Issuer     string         // did:key; IssueItem fills it in
	World      carnet.PartyID // as the issuer calls itself
	Home       carnet.HomeID
	Registrar  string // did:key
	Kind       string // a word; with the issuer's did:key it is nobody else's
	Title      string
	Serial     uint64
	Attributes Attributes
	Issued     time.Time // whole seconds
}

// FullKind is the item's kind with who alone may issue it.
func (i Item) FullKind() string { return i.Issuer + "/" + i.Kind }

// Attributes are an item's: numbers (float64), texts and booleans, by word.
type Attributes map[string]any

// Bounds of an item.
const (
	MaxItem          = 8 << 10 // bytes of a credential
	MaxItemTitle     = 200
	maxAttributes    = 32
	maxAttributeText = 256
	maxItemWord      = 32
	// maxItemEntry bounds an entry of an item's chain, which has order and decision of all
	// that moved with it, each of at most MaxMessage, in it.
	maxItemEntry = 64 << 10
)

var itemType = []string{"VerifiableCredential", "ItemCredential"}

const urnItem = "urn:carnet:item:"

// itemClaims is a credential's payload: VC Data Model 1.1 section 6.3.1.
type itemClaims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	ID        string `json:"jti"`
	Issued    int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	VC        struct {
		Context []string    `json:"@context"`
		Type    []string    `json:"type"`
		Subject itemSubject `json:"credentialSubject"`
	} `json:"vc"`
}

type itemSubject struct {
	Item       carnet.ItemID  `json:"item"`
	Home       carnet.HomeID  `json:"home"`
	Registrar  string         `json:"registrar"`
	World      carnet.PartyID `json:"world"`
	Kind       string         `json:"kind"`
	Title      string         `json:"title"`
	Serial     uint64         `json:"serial"`
	Attributes Attributes     `json:"attributes"`
}

// IssueItem signs what a world says of an item, with the world's key.
func IssueItem(key ed25519.PrivateKey, i Item) (string, error) {
	i.Issuer = DID(key.Public().(ed25519.PublicKey))
	if i.Attributes == nil {
		i.Attributes = Attributes{}
	}
	c := itemClaims{Issuer: i.Issuer, Subject: urnItem + i.ID.String(), ID: urnUUID + newUUID(), Issued: i.Issued.Unix(), NotBefore: i.Issued.Unix()}
	c.VC.Context, c.VC.Type = credentialContext, itemType
	c.VC.Subject = itemSubject{i.ID, i.Home, i.Registrar, i.World, i.Kind, i.Title, i.Serial, i.Attributes}
	if err := c.check(); err != nil {
		return "", err
	}
	token, err := SignMessage(key, credentialJWT, c)
	if err == nil && len(token) > MaxItem {
		err = carnet.Errorf(carnet.TooLarge, "the item's credential has %d bytes, at most %d are taken", len(token), MaxItem).WithFix("give it less, or shorter, attributes")
	}
	return token, err
}

// OpenItem reads an item's credential, by the issuer that it names: which issuer to
// believe for what, the reader knows.
func OpenItem(token string) (Item, error) {
	if len(token) > MaxItem {
		return Item{}, carnet.Errorf(carnet.TooLarge, "the item's credential has %d bytes, at most %d are read", len(token), MaxItem)
	}
	c, err := openAs(token, credentialJWT, func(c *itemClaims) string { return c.Issuer }, itemClaims.check)
	if err != nil {
		return Item{}, err
	}
	s := c.VC.Subject
	return Item{
		ID: s.Item, Issuer: c.Issuer, World: s.World, Home: s.Home, Registrar: s.Registrar, Kind: s.Kind, Title: s.Title, Serial: s.Serial,
		Attributes: s.Attributes, Issued: time.Unix(c.Issued, 0).UTC(),
	}, nil
}

func (c itemClaims) check() error {
	s := c.VC.Subject
	bad := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the item's credential "+format, args...)
	}
	switch {
	case !slices.Equal(c.VC.Context, credentialContext) || !slices.Equal(c.VC.Type, itemType):
		return bad("is of the type %.100q", c.VC.Type)
	case c.Subject != urnItem+s.Item.String() || s.Item == (carnet.ItemID{}) || s.Home == (carnet.HomeID{}):
		return bad("names another item in its subject, or none")
	case !isURN(c.ID):
		return bad("has the id %.60q, want a UUID", c.ID)
	case c.Issued <= 0 || c.NotBefore != c.Issued:
		return bad("was issued at %d and holds from %d on", c.Issued, c.NotBefore)
	case s.Serial == 0 || s.Serial > 1<<53:
		return bad("has the serial %d", s.Serial)
	}
	if _, err := carnet.ParsePartyID(string(s.World)); err != nil {
		return err
	}
	if err := CheckItemWord("kind", s.Kind); err != nil {
		return err
	}
	if err := checkShown("item's title", s.Title, MaxItemTitle); err != nil {
		return err
	}
	if err := s.Attributes.Check(); err != nil {
		return err
	}
	return dids(c.Issuer, s.Registrar)
}

// CheckItemWord refuses what can't be a kind, a slot or an attribute's name.
func CheckItemWord(what, s string) error {
	if s == "" || len(s) > maxItemWord || s[0] == '-' || s[0] == '_' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return carnet.Errorf(carnet.Malformed, "the %s %.60q isn't a word of a-z, 0-9, '-' and '_', at most %d", what, s, maxItemWord).WithFix("such as sword, or left-hand")
	}
	return nil
}

// checkShown refuses what isn't one line that a terminal can show as it is.
func checkShown(what, s string, most int) error {
	bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if s == "" || len(s) > most || !utf8.ValidString(s) || strings.ContainsFunc(s, bad) {
		return carnet.Errorf(carnet.Malformed, "the %s is not one line of 1 to %d bytes that can all be shown", what, most)
	}
	return nil
}

// Check refuses attributes that an item can't have.
func (a Attributes) Check() error {
	if a == nil || len(a) > maxAttributes {
		return carnet.Errorf(carnet.TooLarge, "an item has %d attributes, want at most %d", len(a), maxAttributes)
	}
	for name, v := range a {
		if err := CheckItemWord("attribute's name", name); err != nil {
			return err
		}
		switch v := v.(type) {
		case bool:
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return carnet.Errorf(carnet.Malformed, "the attribute %s is no finite number", name)
			}
		case string:
			if err := checkShown("attribute "+name, v, maxAttributeText); err != nil {
				return err
			}
		default:
			return carnet.Errorf(carnet.Malformed, "the attribute %s is neither a number, a text nor true or false", name)
		}
	}
	return nil
}

// ItemEvent is what happened to an item.
type ItemEvent string

// The events of an item's chain.
const (
	ItemIssued ItemEvent = "issued"
	ItemGiven  ItemEvent = "given"
	ItemMoved  ItemEvent = "moved"
	// ItemRecovered: by a passport, since the world where it was is gone.
	ItemRecovered ItemEvent = "recovered"
	ItemRetired   ItemEvent = "retired"
)

// ItemEntry is one link of an item's chain, signed by the world where the item is
// since.
type ItemEntry struct {
	Item   carnet.ItemID      `json:"item"`
	Number uint64             `json:"number"` // 1: the issue
	Before carnet.Fingerprint `json:"before"` // of the entry before, or of the credential
	What   ItemEvent          `json:"what"`
	World  string             `json:"world"` // did:key of who signs
	Avatar carnet.AvatarID    `json:"avatar"`
	Owner  string             `json:"owner"` // the key that is registered for its home
	Time   time.Time          `json:"time"`

	Home     string    `json:"home,omitempty"`     // of an issue: the registrar's answer at the enrolment
	Gift     string    `json:"gift,omitempty"`     // of a gift: the owner's
	Order    string    `json:"order,omitempty"`    // of a move, or of a retirement with one: the owner's; of a recovery: that
	Terms    []byte    `json:"terms,omitempty"`    // of a retirement with a move: the order's
	Decision string    `json:"decision,omitempty"` // the registrar's about the order
	Proof    *OnLedger `json:"proof,omitempty"`    // that the answer or decision is on the registrar's ledger
}

// OnLedger is what proves that a registrar's word is on its depot's ledger.
type OnLedger struct {
	Statement []byte `json:"statement"` // ledger.Statement
	Salt      []byte `json:"salt"`
	Receipt   []byte `json:"receipt"` // ledger.Receipt
}

// Gift is an owner's word that another avatar of the same world is to have an item.
type Gift struct {
	Item  carnet.ItemID      `json:"item"`
	Owner string             `json:"owner"` // whose key signs it
	World string             `json:"world"` // did:key
	From  carnet.AvatarID    `json:"from"`
	To    carnet.AvatarID    `json:"to"`
	After carnet.Fingerprint `json:"after"` // the newest entry of the item's chain: a gift is taken once
	Made  time.Time          `json:"made"`
	Until time.Time          `json:"until"`
}

const (
	itemEntryType = "carnet-item+jwt"
	giftType      = "carnet-gift+jwt"
)

// SignItemEntry signs a link with the key of the world that it names.
func SignItemEntry(key ed25519.PrivateKey, e ItemEntry) (string, error) {
	return signAsWithin(maxItemEntry, key, itemEntryType, e.World, e, e.check())
}

// OpenItemEntry reads a link, by the world that it names.
func OpenItemEntry(token string) (ItemEntry, error) {
	return openAsWithin(maxItemEntry, token, itemEntryType, func(e *ItemEntry) string { return e.World }, ItemEntry.check)
}

func (e ItemEntry) check() error {
	has := func(home, gift, order, terms, decision bool) bool {
		return (e.Home != "") == home && (e.Gift != "") == gift && (e.Order != "") == order && (e.Terms != nil) == terms && (e.Decision != "") == decision
	}
	var right bool
	switch e.What {
	case ItemIssued:
		right = has(true, false, false, false, false) && e.Number == 1 && e.Proof != nil
	case ItemGiven:
		right = has(false, true, false, false, false) && e.Proof == nil
	case ItemMoved, ItemRecovered:
		right = has(false, false, true, false, true) && e.Proof != nil
	case ItemRetired:
		right = (has(false, false, true, true, true) || has(false, false, false, false, false)) && e.Proof == nil
	}
	if !right || e.Number == 0 || (e.Number == 1) != (e.What == ItemIssued) || e.Avatar == (carnet.AvatarID{}) || !whole(e.Time) {
		return carnet.Errorf(carnet.Malformed, "the entry %d of an item's chain, %.20q, has other members than such entries have", e.Number, e.What)
	}
	return dids(e.World, e.Owner)
}

// SignGift signs a gift with the owner's key that it names.
func SignGift(key ed25519.PrivateKey, g Gift) (string, error) {
	return signAs(key, giftType, g.Owner, g, g.check())
}

// OpenGift reads a gift, by the owner that it names.
func OpenGift(token string) (Gift, error) {
	return openAs(token, giftType, func(g *Gift) string { return g.Owner }, Gift.check)
}

func (g Gift) check() error {
	if g.From == g.To || !whole(g.Made) || !whole(g.Until) || !g.Made.Before(g.Until) || g.Until.Sub(g.Made) > OrderLife {
		return carnet.Errorf(carnet.Malformed, "the gift goes from %s to %s, made at %v and good until %v: want two avatars, and whole seconds at most %v apart", g.From, g.To, g.Made, g.Until, OrderLife)
	}
	return dids(g.Owner, g.World)
}

// MovingItem is an item as an order's terms name it.
type MovingItem struct {
	Item       carnet.ItemID      `json:"item"`
	Home       carnet.HomeID      `json:"home"`
	Credential carnet.Fingerprint `json:"credential"`
	Kind       string             `json:"kind"`
	Title      string             `json:"title"`
	As         string             `json:"as,omitempty"` // what it counts as at the target; empty: it doesn't go there
}

// ItemProof is all that proves an item: its credential, and its chain.
type ItemProof struct {
	Credential string   `json:"credential"`
	Entries    []string `json:"entries"`
}

func checkMoving(items, retired []MovingItem, alone bool) error {
	seen := make(map[carnet.ItemID]bool)
	for i, m := range slices.Concat(items, retired) {
		if seen[m.Item] || (m.As != "") != (i < len(items)) {
			return carnet.Errorf(carnet.Malformed, "the item %s moves twice, or as nothing", m.Item)
		}
		seen[m.Item] = true
		if err := checkShown("item's title", m.Title, MaxItemTitle); err != nil {
			return err
		}
		for _, w := range []string{m.Kind, m.As} {
			if w == "" && w == m.As {
				continue
			}
			if err := CheckItemWord("kind", w); err != nil {
				return err
			}
		}
	}
	if len(items) > MaxItems || len(retired) > MaxItems {
		return carnet.Errorf(carnet.TooLarge, "%d items would move and %d end, at most %d of each by one order", len(items), len(retired), MaxItems).
			WithFix("give some to another avatar first (carnet item give), or move them on their own (carnet item move)")
	}
	if alone && (len(items) != 1 || len(retired) != 0) {
		return carnet.Errorf(carnet.Malformed, "without an avatar, one item moves by an order")
	}
	return nil
}

// homesOf are the homes of an avatar and its items, as an order names them.
func homesOf(home carnet.HomeID, items []MovingItem, alone bool) (homes []carnet.HomeID) {
	if !alone {
		homes = append(homes, home)
	}
	for _, m := range items {
		homes = append(homes, m.Home)
	}
	slices.SortFunc(homes, func(p, q carnet.HomeID) int { return slices.Compare(p[:], q[:]) })
	return slices.Compact(homes)
}

// MarshalJSON writes the attributes in the order of their names.
func (a Attributes) MarshalJSON() ([]byte, error) {
	if a == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]any(a))
}
