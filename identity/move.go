package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"carnet"
)

// The signed messages of a move (docs/design/crossing.md). Worlds, owners and
// registrars are named by the did:key of their signing key, so each message
// proves itself against whoever it names; what its reader must know from
// elsewhere is which of them to believe.

// HomeAnswer is what the registrar says of a home, to who asked just now.
type HomeAnswer struct {
	Registrar string        `json:"registrar"`
	Home      carnet.HomeID `json:"home"`
	Version   uint64        `json:"version"`
	World     string        `json:"world"`
	Owner     string        `json:"owner"`
	// Incarnation counts the world's claims of the home (docs/design/crossing.md).
	Incarnation uint64 `json:"incarnation"`
	Asked       string `json:"asked"` // the asker's nonce, so that no older answer serves
	// Chain is how many entries the chain of an item has, as its world said last; absent:
	// it said nothing, or the home is an avatar's.
	Chain uint64 `json:"chain,omitempty"`
	// Recovery is what somebody asks for whom its owner ordered to be its home next;
	// absent: nobody does.
	Recovery Petitioned `json:"recovery,omitzero"`
	// Erased is the owner's order to erase what the home is of (ErasureOrder): it
	// never moves again.
	Erased string `json:"erased,omitempty"`
}

// HomesAnswer is what the registrar says of many homes at once, to the world that asked
// just now: all of them are at that world, live, and nobody asks for their recovery, but
// for those in Not, each of which is to be asked about by itself.
type HomesAnswer struct {
	Registrar string             `json:"registrar"`
	World     string             `json:"world"`
	Asked     string             `json:"asked"` // the asker's nonce
	Homes     carnet.Fingerprint `json:"homes"` // HomesHash of those that were asked about
	Not       []carnet.HomeID    `json:"not"`   // in the order in which they were asked about
}

// MostAsked bounds how many homes are asked about at once.
const MostAsked = 512

// HomesHash names a list of homes.
func HomesHash(homes []carnet.HomeID) carnet.Fingerprint {
	var all []byte
	for _, h := range homes {
		all = append(all, h[:]...)
	}
	return carnet.FingerprintOf(all)
}

// Order is what an owner wants: these homes go from one world to another, until a
// time. What the registrar needn't know is in the terms.
type Order struct {
	Crossing  carnet.CrossingID  `json:"crossing"`
	Registrar string             `json:"registrar"`
	Owner     string             `json:"owner"` // whose key signs it
	Source    string             `json:"source"`
	Target    string             `json:"target"`
	Homes     []carnet.HomeID    `json:"homes"` // ascending; the first named in the terms is the avatar's
	Terms     carnet.Fingerprint `json:"terms"`
	Made      time.Time          `json:"made"`
	Until     time.Time          `json:"until"`
	// Recovers makes it a recovery, which is another message: without a release by the
	// source, and of one passport.
	Recovers *Recovers `json:"recovers,omitempty"`
}

// MoveTerms is what source, target and the owner's things agents know of a move
// beside its order.
type MoveTerms struct {
	Avatar carnet.AvatarID `json:"avatar"` // at the source
	Home   carnet.HomeID   `json:"home"`   // its own
	To     carnet.AvatarID `json:"to"`     // at the target
	Owner  string          `json:"owner"`  // the owner's key for the target
	// View is what the things agents may send to the target; absent: what they may
	// send to the source now.
	View json.RawMessage `json:"view,omitempty"`
	// Redact: what is labelled above it is left behind; absent: nothing is.
	Redact *Redaction `json:"redact,omitempty"`
	// Policy is the avatar's policy from its arrival on: as the source has it, signed by
	// the owner's key for the target. Absent: the source has none.
	Policy string `json:"policy,omitempty"`
	// Heads says of a recovery where each stream stands by the passport's manifest: its
	// things agents go on from there.
	Heads []Head `json:"heads,omitempty"`

	Items   []MovingItem `json:"items,omitempty"`   // that go along
	Retired []MovingItem `json:"retired,omitempty"` // that end when the avatar moves
	// Alone: the one item goes to the avatar To, which is at the target already; the
	// home is the item's, Avatar who had it.
	Alone bool `json:"alone,omitempty"`
}

// Homes are the homes that the order must name, ascending.
func (t MoveTerms) Homes() []carnet.HomeID { return homesOf(t.Home, t.Items, t.Alone) }

// Release is the source's word that it keeps still: exactly this moves. It holds
// under these incarnations of the order's homes, in their order.
type Release struct {
	Crossing     carnet.CrossingID  `json:"crossing"`
	Source       string             `json:"source"`
	Order        carnet.Fingerprint `json:"order"`
	Manifest     carnet.Fingerprint `json:"manifest"`
	Incarnations []uint64           `json:"incarnations"`
}

// Acceptance is the target's word that it has what the manifest says, whole and
// checked.
type Acceptance struct {
	Crossing carnet.CrossingID  `json:"crossing"`
	Target   string             `json:"target"`
	Order    carnet.Fingerprint `json:"order"`
	Manifest carnet.Fingerprint `json:"manifest"`
}

// Outcome is how a crossing was decided.
type Outcome string

// The outcomes.
const (
	Commit Outcome = "commit"
	Abort  Outcome = "abort"
)

// Decision is the registrar's, once for each crossing.
type Decision struct {
	Registrar string              `json:"registrar"`
	Crossing  carnet.CrossingID   `json:"crossing"`
	Order     carnet.Fingerprint  `json:"order"`
	Outcome   Outcome             `json:"outcome"`
	Manifest  *carnet.Fingerprint `json:"manifest,omitempty"` // of a commit
	Why       string              `json:"why,omitempty"`      // of an abort
	Homes     []HomeAt            `json:"homes"`              // since a commit
	Time      time.Time           `json:"time"`
}

// Of says what the decision means for an order. A crossing is decided once, so one
// that was decided by another order has ended for this one.
func (d Decision) Of(order carnet.Fingerprint) Outcome {
	if d.Order != order {
		return Abort
	}
	return d.Outcome
}

// Moves reports whether a home is there since the decision.
func (d Decision) Moves(h HomeAt) bool { return slices.Contains(d.Homes, h) }

// HomeAt is where a home is.
type HomeAt struct {
	Home    carnet.HomeID `json:"home"`
	Version uint64        `json:"version"`
	World   string        `json:"world"`
}

// Departure is the source's receipt for what it deleted after a commit: what it
// had is unreadable since one time, and in no backup any more from another on.
type Departure struct {
	Crossing      carnet.CrossingID  `json:"crossing"`
	Source        string             `json:"source"`
	Manifest      carnet.Fingerprint `json:"manifest"`
	Unreadable    time.Time          `json:"unreadable"`
	Unrecoverable time.Time          `json:"unrecoverable"`
	// Left is how many measurements of it were left out of what moved, by the owner's
	// order.
	Left uint64 `json:"left,omitempty"`
}

// The types in the messages' headers.
const (
	homeType       = "carnet-home+jwt"
	homesType      = "carnet-homes+jwt"
	orderType      = "carnet-order+jwt"
	releaseType    = "carnet-release+jwt"
	acceptanceType = "carnet-acceptance+jwt"
	decisionType   = "carnet-decision+jwt"
	departureType  = "carnet-departure+jwt"
)

// OrderLife is how long an order can be carried out at most.
const OrderLife = 24 * time.Hour

// maxHomes bounds what moves by one order. Order and decision name all of it, and are in
// the next entry of each item's chain, which none may be too large for.
const maxHomes = 64

// MaxItems is how many items go along with an avatar by one order at most.
const MaxItems = maxHomes - 1

// maxEnding bounds terms by which items end: the last entry of each of these has them.
const maxEnding = 16 << 10

// NewNonce draws what a HomeAnswer is asked with.
func NewNonce() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// signAs signs a message by the key that it names as its author.
func signAs(key ed25519.PrivateKey, typ, author string, message any, check error) (string, error) {
	return signAsWithin(MaxMessage, key, typ, author, message, check)
}

func signAsWithin(most int, key ed25519.PrivateKey, typ, author string, message any, check error) (string, error) {
	if check != nil {
		return "", check
	}
	if author != DID(key.Public().(ed25519.PublicKey)) {
		return "", carnet.Errorf(carnet.Malformed, "the %s is by %s, and another key signs it", typ, author)
	}
	return signWithin(most, key, typ, message)
}

// openAs reads a message that is signed by the key that it names as its author.
func openAs[T any](token, typ string, author func(*T) string, check func(T) error) (m T, err error) {
	return openAsWithin(MaxMessage, token, typ, author, check)
}

func openAsWithin[T any](most int, token, typ string, author func(*T) string, check func(T) error) (m T, err error) {
	err = openWithin(most, token, typ, &m, func() (ed25519.PublicKey, error) { return ParseDID(author(&m)) })
	if err == nil {
		err = check(m)
	}
	if err != nil {
		var none T
		return none, err
	}
	return m, nil
}

// SignHome signs a registrar's answer about a home.
func SignHome(key ed25519.PrivateKey, h HomeAnswer) (string, error) {
	return signAs(key, homeType, h.Registrar, h, h.check())
}

// OpenHome reads an answer about a home, by the registrar that it names.
func OpenHome(token string) (HomeAnswer, error) {
	return openAs(token, homeType, func(h *HomeAnswer) string { return h.Registrar }, HomeAnswer.check)
}

// SignHomes signs a registrar's answer about many homes.
func SignHomes(key ed25519.PrivateKey, h HomesAnswer) (string, error) {
	return signAs(key, homesType, h.Registrar, h, h.check())
}

// OpenHomes reads an answer about many homes, by the registrar that it names.
func OpenHomes(token string) (HomesAnswer, error) {
	return openAs(token, homesType, func(h *HomesAnswer) string { return h.Registrar }, HomesAnswer.check)
}

// SignOrder signs an order with the owner's key that is registered for its homes.
func SignOrder(key ed25519.PrivateKey, o Order) (string, error) {
	return signAs(key, orderType, o.Owner, o, o.checkMove())
}

// OpenOrder reads the order of a move, by the owner's key that it names.
func OpenOrder(token string) (Order, error) {
	return openAs(token, orderType, func(o *Order) string { return o.Owner }, Order.checkMove)
}

// SignRelease signs the source's release.
func SignRelease(key ed25519.PrivateKey, r Release) (string, error) {
	return signAs(key, releaseType, r.Source, r, r.check())
}

// OpenRelease reads a release, by the world that it names.
func OpenRelease(token string) (Release, error) {
	return openAs(token, releaseType, func(r *Release) string { return r.Source }, Release.check)
}

// SignAcceptance signs the target's acceptance.
func SignAcceptance(key ed25519.PrivateKey, a Acceptance) (string, error) {
	return signAs(key, acceptanceType, a.Target, a, nil)
}

// OpenAcceptance reads an acceptance, by the world that it names.
func OpenAcceptance(token string) (Acceptance, error) {
	return openAs(token, acceptanceType, func(a *Acceptance) string { return a.Target }, func(Acceptance) error { return nil })
}

// SignDecision signs a registrar's decision.
func SignDecision(key ed25519.PrivateKey, d Decision) (string, error) {
	return signAs(key, decisionType, d.Registrar, d, d.check())
}

// OpenDecision reads a decision, by the registrar that it names.
func OpenDecision(token string) (Decision, error) {
	return openAs(token, decisionType, func(d *Decision) string { return d.Registrar }, Decision.check)
}

// SignDeparture signs the source's receipt for what it deleted.
func SignDeparture(key ed25519.PrivateKey, d Departure) (string, error) {
	return signAs(key, departureType, d.Source, d, d.check())
}

// OpenDeparture reads a departure, by the world that it names.
func OpenDeparture(token string) (Departure, error) {
	return openAs(token, departureType, func(d *Departure) string { return d.Source }, Departure.check)
}

func (h HomeAnswer) check() error {
	if nonce, err := hex.DecodeString(h.Asked); err != nil || len(nonce) != 16 || h.Version == 0 || h.Incarnation == 0 {
		return carnet.Errorf(carnet.Malformed, "the answer about a home has the version %d and incarnation %d, and answers %.40q", h.Version, h.Incarnation, h.Asked)
	}
	if err := h.Recovery.check(); err != nil {
		return err
	}
	return dids(h.World, h.Owner)
}

func (h HomesAnswer) check() error {
	if nonce, err := hex.DecodeString(h.Asked); err != nil || len(nonce) != 16 || len(h.Not) > MostAsked {
		return carnet.Errorf(carnet.Malformed, "the answer about homes names %d of them, and answers %.40q", len(h.Not), h.Asked)
	}
	return dids(h.World)
}

// Check refuses an order that can't be one.
func (o Order) Check() error {
	switch {
	case o.Source == o.Target:
		return carnet.Errorf(carnet.Malformed, "the order goes from a world to itself")
	case len(o.Homes) == 0 || len(o.Homes) > maxHomes:
		return carnet.Errorf(carnet.Malformed, "the order names %d homes, want 1 to %d", len(o.Homes), maxHomes)
	case !ascending(o.Homes):
		return carnet.Errorf(carnet.Malformed, "the order's homes don't ascend")
	case !whole(o.Made) || !whole(o.Until) || !o.Made.Before(o.Until) || o.Until.Sub(o.Made) > o.life():
		return carnet.Errorf(carnet.Malformed, "the order is made at %v and good until %v: want whole seconds, at most %v apart", o.Made, o.Until, o.life())
	}
	return dids(o.Registrar, o.Owner, o.Source, o.Target)
}

func (r Release) check() error {
	if len(r.Incarnations) == 0 || len(r.Incarnations) > maxHomes || slices.Contains(r.Incarnations, 0) {
		return carnet.Errorf(carnet.Malformed, "the release names the incarnations %v: want one of each home, from 1 on", r.Incarnations)
	}
	return nil
}

func (d Decision) check() error {
	switch {
	case d.Outcome != Commit && d.Outcome != Abort:
		return carnet.Errorf(carnet.Malformed, "a crossing is decided as %.20q", d.Outcome)
	case (d.Outcome == Commit) != (d.Manifest != nil) || (d.Outcome == Commit) != (len(d.Homes) > 0) || (d.Outcome == Commit) != (d.Why == ""):
		return carnet.Errorf(carnet.Malformed, "a commit has a manifest and homes, and an abort its reason; this %s has others", d.Outcome)
	case !whole(d.Time):
		return carnet.Errorf(carnet.Malformed, "the decision was made at %v: want whole seconds", d.Time)
	}
	for _, h := range d.Homes {
		if err := dids(h.World); err != nil {
			return err
		}
	}
	return nil
}

func (d Departure) check() error {
	if !whole(d.Unreadable) || !whole(d.Unrecoverable) || d.Unrecoverable.Before(d.Unreadable) {
		return carnet.Errorf(carnet.Malformed, "a departure is unrecoverable from %v on, and unreadable from %v on", d.Unrecoverable, d.Unreadable)
	}
	return nil
}

// Marshal writes terms in the one form whose hash an order names.
func (t MoveTerms) Marshal() ([]byte, error) {
	if err := dids(t.Owner); err != nil {
		return nil, err
	}
	if len(t.Heads) > maxHeads {
		return nil, carnet.Errorf(carnet.TooLarge, "the terms name %d streams, at most %d are taken", len(t.Heads), maxHeads)
	}
	if err := checkMoving(t.Items, t.Retired, t.Alone); err != nil {
		return nil, err
	}
	if err := t.Redact.check(); err != nil {
		return nil, err
	}
	if t.Policy != "" {
		p, err := t.AvatarPolicy()
		if err != nil {
			return nil, err
		}
		if t.Alone || p.Owner != t.Owner || p.Avatar != t.To {
			return nil, carnet.Errorf(carnet.Malformed, "the terms have a policy that isn't of the avatar that moves, by its owner's key for the target")
		}
	}
	if t.Redact != nil && t.Alone {
		return nil, carnet.Errorf(carnet.Malformed, "an item that moves alone leaves nothing behind")
	}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return text, t.ends(len(text))
}

// ends refuses terms of so many bytes that are too large for the entries of what ends.
func (t MoveTerms) ends(size int) error {
	if len(t.Retired) == 0 || size <= maxEnding {
		return nil
	}
	return carnet.Errorf(carnet.TooLarge, "the terms by which items end have %d bytes, at most %d are taken", size, maxEnding).
		WithFix("have fewer items end, or go along, by one order: give them to another avatar first (carnet item give)")
}

// AvatarPolicy reads the policy in the terms; zero: there is none.
func (t MoveTerms) AvatarPolicy() (AvatarPolicy, error) {
	if t.Policy == "" {
		return AvatarPolicy{}, nil
	}
	return OpenAvatarPolicy(t.Policy)
}

// ParseMoveTerms reads what Marshal writes, and holds it against the order.
func ParseMoveTerms(data []byte, o Order) (t MoveTerms, err error) {
	if carnet.FingerprintOf(data) != o.Terms {
		return t, carnet.Errorf(carnet.Unauthenticated, "these aren't the terms that the order names")
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, carnet.Errorf(carnet.Malformed, "the terms can't be read: %v", err)
	}
	if again, err := t.Marshal(); err != nil || string(again) != string(data) {
		return t, carnet.Errorf(carnet.Malformed, "the terms aren't in the one form that terms have")
	}
	if !slices.Contains(o.Homes, t.Home) {
		return t, carnet.Errorf(carnet.Malformed, "the order doesn't name the avatar's home")
	}
	if o.Recovers != nil && (t.Alone || len(t.Retired) > 0) {
		return t, carnet.Errorf(carnet.Malformed, "a recovery is of an avatar, and ends none of its items")
	}
	if t.Redact != nil && o.Recovers != nil {
		return t, carnet.Errorf(carnet.Malformed, "a recovery brings what its passport has, and leaves nothing behind")
	}
	if len(t.Heads) > 0 && o.Recovers == nil {
		return t, carnet.Errorf(carnet.Malformed, "the terms of a move say where streams stand, which its manifest does")
	}
	if p, err := t.AvatarPolicy(); err != nil || t.Policy != "" && p.World != o.Target {
		return t, carnet.Errorf(carnet.Malformed, "the terms have a policy that isn't for the target of the order")
	}
	if !slices.Equal(o.Homes, t.Homes()) {
		return t, carnet.Errorf(carnet.Malformed, "the order names other homes than those of the avatar and the items in its terms")
	}
	return t, nil
}

func ascending(homes []carnet.HomeID) bool {
	for i := 1; i < len(homes); i++ {
		if slices.Compare(homes[i-1][:], homes[i][:]) >= 0 {
			return false
		}
	}
	return true
}

// whole reports whether a time is in whole seconds of UTC.
func whole(t time.Time) bool { return t.Nanosecond() == 0 && t.Location() == time.UTC && t.Unix() > 0 }

func dids(all ...string) error {
	for _, d := range all {
		if _, err := ParseDID(d); err != nil {
			return err
		}
	}
	return nil
}
