package identity

import (
	"crypto/ed25519"
	"slices"
	"time"

	"carnet"
)

// The signed messages of a recovery (docs/design/passport.md): an avatar whose home
// is gone for good gets another one by its owner's word and a passport.

// Recovers says of a recovery what it brings back.
type Recovers struct {
	Manifest carnet.Fingerprint `json:"manifest"` // of the passport
	// Incarnations are those of the homes, in their order, as the registrar said before
	// it was signed: a source that shows itself since then raises its.
	Incarnations []uint64 `json:"incarnations"`
	// Chains are how many entries the chains of the homes' items have, likewise, of which
	// the next is by this recovery; 0: it is the avatar's home.
	Chains []uint64 `json:"chains"`
}

// Head is where a stream stands.
type Head struct {
	Stream    carnet.StreamID `json:"stream"`
	NextBatch uint64          `json:"next_batch"`
	NextFirst uint64          `json:"next_measurement"`
}

// Petitioned is a recovery that the registrar was asked for, and carries out once its
// time has come.
type Petitioned struct {
	Crossing carnet.CrossingID `json:"crossing"`
	Target   string            `json:"target"` // did:key
	Signed   time.Time         `json:"signed"` // when the recovery was made
	Asked    time.Time         `json:"asked"`
	Until    time.Time         `json:"until"` // from then on it is carried out
}

// Passport ties a bundle to the home that the register knows: by the world's key
// there it says which key signs the bundle, and what is in it.
type Passport struct {
	Passport  carnet.CrossingID  `json:"passport"` // its id: the crossing that its manifest names
	Source    string             `json:"source"`
	World     carnet.PartyID     `json:"world"`  // the source, as it calls itself
	Signer    string             `json:"signer"` // did:key of the key that signs its head
	Registrar string             `json:"registrar"`
	Home      carnet.HomeID      `json:"home"`
	Version   uint64             `json:"version"` // of the home
	Owner     string             `json:"owner"`   // the key that is registered for it
	Pinned    string             `json:"pinned"`  // the owner's key for this world, by which the avatar's policy is
	Avatar    carnet.AvatarID    `json:"avatar"`
	Key       string             `json:"key"` // the avatar's did:key
	Manifest  carnet.Fingerprint `json:"manifest"`
	Made      time.Time          `json:"made"`
}

// Farewell is a source's word that it acts as a home no more under an incarnation,
// nor as those of the avatar's items, and that a manifest is the last of it.
type Farewell struct {
	Registrar   string             `json:"registrar"`
	Source      string             `json:"source"`
	Home        carnet.HomeID      `json:"home"`
	Incarnation uint64             `json:"incarnation"`
	Items       []Incarnate        `json:"items,omitempty"` // their homes, ascending
	Manifest    carnet.Fingerprint `json:"manifest"`
	Made        time.Time          `json:"made"`
}

// Incarnate is a home in an incarnation.
type Incarnate struct {
	Home        carnet.HomeID `json:"home"`
	Incarnation uint64        `json:"incarnation"`
}

// Of reports whether the farewell is to a home in an incarnation.
func (f Farewell) Of(home carnet.HomeID, incarnation uint64) bool {
	return f.Home == home && f.Incarnation == incarnation || slices.Contains(f.Items, Incarnate{home, incarnation})
}

const (
	recoveryType = "carnet-recovery+jwt"
	passportType = "carnet-passport+jwt"
	farewellType = "carnet-farewell+jwt"
)

// RecoveryLife is how long a recovery can be carried out at most.
const RecoveryLife = 60 * 24 * time.Hour

// maxHeads bounds the streams that terms name.
const maxHeads = 1024

func (o Order) life() time.Duration {
	if o.Recovers != nil {
		return RecoveryLife
	}
	return OrderLife
}

// checkMove refuses what isn't the order of a move.
func (o Order) checkMove() error {
	if o.Recovers != nil {
		return carnet.Errorf(carnet.Malformed, "the order of a move says that it is a recovery")
	}
	return o.Check()
}

// checkRecovery refuses what isn't a recovery.
func (o Order) checkRecovery() error {
	r := o.Recovers
	if r == nil || len(r.Incarnations) != len(o.Homes) || len(r.Chains) != len(o.Homes) || slices.Contains(r.Incarnations, 0) || r.Manifest == (carnet.Fingerprint{}) {
		return carnet.Errorf(carnet.Malformed, "a recovery names a manifest, and of each home an incarnation, from 1 on, and the length of a chain")
	}
	return o.Check()
}

// SignRecovery signs a recovery with the owner's key that is registered for its homes.
func SignRecovery(key ed25519.PrivateKey, o Order) (string, error) {
	return signAs(key, recoveryType, o.Owner, o, o.checkRecovery())
}

// OpenRecovery reads a recovery, by the owner's key that it names.
func OpenRecovery(token string) (Order, error) {
	return openAs(token, recoveryType, func(o *Order) string { return o.Owner }, Order.checkRecovery)
}

// OpenWish reads an order of a move, or a recovery: what an owner wants of a home.
// Recovers tells which it is.
func OpenWish(token string) (Order, error) {
	o, err := OpenOrder(token)
	if err == nil {
		return o, nil
	}
	if o, also := OpenRecovery(token); also == nil {
		return o, nil
	}
	return Order{}, err
}

// SignPassport signs a passport's word by the source's key in the register.
func SignPassport(key ed25519.PrivateKey, p Passport) (string, error) {
	return signAs(key, passportType, p.Source, p, p.check())
}

// OpenPassport reads a passport's word, by the world that it names.
func OpenPassport(token string) (Passport, error) {
	return openAs(token, passportType, func(p *Passport) string { return p.Source }, Passport.check)
}

// SignFarewell signs a source's farewell.
func SignFarewell(key ed25519.PrivateKey, f Farewell) (string, error) {
	return signAs(key, farewellType, f.Source, f, f.check())
}

// OpenFarewell reads a farewell, by the world that it names.
func OpenFarewell(token string) (Farewell, error) {
	return openAs(token, farewellType, func(f *Farewell) string { return f.Source }, Farewell.check)
}

func (p Passport) check() error {
	if p.Version == 0 || !whole(p.Made) || p.Passport == (carnet.CrossingID{}) {
		return carnet.Errorf(carnet.Malformed, "a passport is of the version %d of a home, and made at %v: want one from 1 on, and whole seconds", p.Version, p.Made)
	}
	if _, err := carnet.ParsePartyID(string(p.World)); err != nil {
		return err
	}
	return dids(p.Signer, p.Registrar, p.Owner, p.Pinned, p.Key)
}

func (f Farewell) check() error {
	if f.Incarnation == 0 || !whole(f.Made) {
		return carnet.Errorf(carnet.Malformed, "a farewell names the incarnation %d, and is made at %v: want one from 1 on, and whole seconds", f.Incarnation, f.Made)
	}
	homes := make([]carnet.HomeID, 0, len(f.Items))
	for _, i := range f.Items {
		homes = append(homes, i.Home)
	}
	if len(homes) >= maxHomes || !ascending(homes) || slices.Contains(homes, f.Home) || slices.ContainsFunc(f.Items, func(i Incarnate) bool { return i.Incarnation == 0 }) {
		return carnet.Errorf(carnet.Malformed, "a farewell names %d homes of items: want each once, ascending, with its incarnation", len(homes))
	}
	return dids(f.Registrar)
}

func (p Petitioned) check() error {
	if p == (Petitioned{}) {
		return nil
	}
	if !whole(p.Signed) || !whole(p.Asked) || !whole(p.Until) || p.Until.Before(p.Asked) {
		return carnet.Errorf(carnet.Malformed, "a recovery was asked for at %v, to be carried out at %v: want whole seconds", p.Asked, p.Until)
	}
	return dids(p.Target)
}
