package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"carnet"
)

// The signed messages of an erasure (docs/design/erasure.md).

// ErasureOrder is what an owner wants: that nothing of an avatar is left anywhere.
type ErasureOrder struct {
	Erasure   carnet.ErasureID   `json:"erasure"`
	Registrar string             `json:"registrar"`
	Owner     string             `json:"owner"` // whose key signs it: the one registered for the home
	World     string             `json:"world"` // where the avatar lives
	Home      carnet.HomeID      `json:"home"`
	Avatar    carnet.Fingerprint `json:"avatar"` // its mark: ErasedMark
	Made      time.Time          `json:"made"`
	Until     time.Time          `json:"until"` // the home takes it until then
}

// ErasedMark is how an order names an avatar: whoever knows it sees that it is meant,
// and nobody else learns of it.
func ErasedMark(e carnet.ErasureID, avatar carnet.AvatarID) carnet.Fingerprint {
	text := append([]byte("carnet erased avatar\x00"), e[:]...)
	return carnet.FingerprintOf(append(text, avatar[:]...))
}

// ErasedStreams is how a deletion names some streams of a share; zero without any.
func ErasedStreams(ids []carnet.StreamID) (f carnet.Fingerprint) {
	if len(ids) == 0 {
		return f
	}
	sorted := slices.Clone(ids)
	slices.SortFunc(sorted, func(p, q carnet.StreamID) int { return bytes.Compare(p[:], q[:]) })
	text := []byte("carnet erased streams\x00")
	for _, id := range slices.Compact(sorted) {
		text = append(text, id[:]...)
	}
	return carnet.FingerprintOf(text)
}

// About reports whether the order is about an avatar.
func (o ErasureOrder) About(avatar carnet.AvatarID) bool {
	return o.Avatar == ErasedMark(o.Erasure, avatar)
}

// DeletionRole says as what a party had something of an avatar.
type DeletionRole string

// The roles.
const (
	DeletedAtHome  DeletionRole = "home"
	DeletedFormer  DeletionRole = "former"   // it lived there before
	DeletedComing  DeletionRole = "arriving" // it was being copied there, and didn't come
	DeletedShare   DeletionRole = "share"    // it was shared with it
	DeletedThings  DeletionRole = "things"   // it spoke for the avatar
	DeletedAtDepot DeletionRole = "depot"    // it kept objects of one of the others
	DeletedAtDPM   DeletionRole = "dpm"      // it computed over it for one of the others
)

// Deletion is a party's receipt for what it deleted: nobody there can read any of it
// from one time on, and from another on it is in no backup any more.
type Deletion struct {
	Erasure carnet.ErasureID   `json:"erasure"`
	Order   carnet.Fingerprint `json:"order"`
	By      string             `json:"by"` // did:key of who signs
	Role    DeletionRole       `json:"role"`
	// Of is the share, crossing or stream in hexadecimal; nothing of a home, depot or DPM.
	Of string `json:"of,omitempty"`
	// Named are the streams of a share that it is of: ErasedStreams; zero: all of it.
	Named carnet.Fingerprint `json:"named,omitzero"`

	Streams uint64 `json:"streams"`
	Batches uint64 `json:"batches"`
	Objects uint64 `json:"objects"`
	Jobs    uint64 `json:"jobs,omitempty"`  // that were over it; of a DPM: that it was asked for
	Items   uint64 `json:"items,omitempty"` // that it had

	Unreadable    time.Time `json:"unreadable"`
	Unrecoverable time.Time `json:"unrecoverable"`
}

const (
	erasureType  = "carnet-erasure+jwt"
	deletionType = "carnet-deletion+jwt"
)

// SignErasure signs an order with the owner's key that is registered for the home.
func SignErasure(key ed25519.PrivateKey, o ErasureOrder) (string, error) {
	return signAs(key, erasureType, o.Owner, o, o.check())
}

// OpenErasure reads an order, by the owner's key that it names.
func OpenErasure(token string) (ErasureOrder, error) {
	return openAs(token, erasureType, func(o *ErasureOrder) string { return o.Owner }, ErasureOrder.check)
}

// SignDeletion signs a party's receipt.
func SignDeletion(key ed25519.PrivateKey, d Deletion) (string, error) {
	return signAs(key, deletionType, d.By, d, d.check())
}

// OpenDeletion reads a receipt, by the party that it names.
func OpenDeletion(token string) (Deletion, error) {
	return openAs(token, deletionType, func(d *Deletion) string { return d.By }, Deletion.check)
}

func (o ErasureOrder) check() error {
	if !whole(o.Made) || !whole(o.Until) || !o.Made.Before(o.Until) || o.Until.Sub(o.Made) > OrderLife {
		return carnet.Errorf(carnet.Malformed, "the order to erase is made at %v and good until %v: want whole seconds, at most %v apart", o.Made, o.Until, OrderLife)
	}
	return dids(o.Registrar, o.Owner, o.World)
}

func (d Deletion) check() error {
	of, err := hex.DecodeString(d.Of)
	switch d.Role {
	case DeletedAtHome, DeletedAtDepot, DeletedAtDPM:
		if d.Of != "" {
			return carnet.Errorf(carnet.Malformed, "a deletion as %s is of nothing else, and this one is of %.40q", d.Role, d.Of)
		}
	case DeletedFormer, DeletedComing, DeletedShare, DeletedThings:
		if err != nil || len(of) != 16 || hex.EncodeToString(of) != d.Of {
			return carnet.Errorf(carnet.Malformed, "a deletion as %s is of %.40q: want 32 hexadecimal digits", d.Role, d.Of)
		}
	default:
		return carnet.Errorf(carnet.Malformed, "nobody deletes as %.20q", d.Role)
	}
	if d.Named != (carnet.Fingerprint{}) && d.Role != DeletedShare {
		return carnet.Errorf(carnet.Malformed, "a deletion as %s names streams, and only one of a share does", d.Role)
	}
	if !whole(d.Unreadable) || !whole(d.Unrecoverable) || d.Unrecoverable.Before(d.Unreadable) {
		return carnet.Errorf(carnet.Malformed, "a deletion is unrecoverable from %v on, and unreadable from %v on", d.Unrecoverable, d.Unreadable)
	}
	return nil
}

// Counts says for people how much there was.
func (d Deletion) Counts() string {
	text := fmt.Sprintf("%d streams, %d batches, %d objects", d.Streams, d.Batches, d.Objects)
	if d.Jobs > 0 {
		text += fmt.Sprintf(", %d jobs", d.Jobs)
	}
	if d.Items > 0 {
		text += fmt.Sprintf(", %d items", d.Items)
	}
	return text
}

// ErasureRequest is what a world asks an owner to order: that one of its avatars is
// erased.
type ErasureRequest struct {
	Erasure   carnet.ErasureID `json:"erasure"`
	Registrar string           `json:"registrar"`
	Home      carnet.HomeID    `json:"home"`
	Owner     string           `json:"owner"` // the key that is registered for the home
	World     carnet.PartyID   `json:"world"` // as it calls itself
	WorldKey  string           `json:"world_key"`
	Avatar    carnet.AvatarID  `json:"erase"`
	Text      string           `json:"text,omitempty"` // what for, on one line
	// Report is who is known to have something of it.
	Report []string `json:"report"`
}

// Erasing is what an owner signed for an ErasureRequest.
type Erasing struct {
	Avatar carnet.AvatarID `json:"avatar"`
	Order  string          `json:"order"`
}

// Marshal writes the request as the JSON document that ParseErasureRequest reads.
func (r ErasureRequest) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// ParseErasureRequest reads a request strictly. Nobody signed it.
func ParseErasureRequest(data []byte) (r ErasureRequest, err error) {
	err = readRequest("request to erase", data, MaxMessage, &r, func() error { return r.check() })
	return r, err
}

// IsErasureRequest reports whether a document is meant as a request to erase.
func IsErasureRequest(data []byte) bool {
	var has struct {
		Erasure json.RawMessage `json:"erasure"`
	}
	return json.Unmarshal(data, &has) == nil && has.Erasure != nil
}

func (r ErasureRequest) check() error {
	if err := dids(r.Registrar, r.Owner, r.WorldKey); err != nil {
		return err
	}
	if _, err := carnet.ParsePartyID(string(r.World)); err != nil {
		return err
	}
	if len(r.Report) > maxReport {
		return carnet.Errorf(carnet.TooLarge, "the report of the request to erase has %d lines, at most %d are read", len(r.Report), maxReport)
	}
	for _, line := range append([]string{r.Text}, r.Report...) {
		if line == "" {
			continue
		}
		if err := checkText(line); err != nil {
			return err
		}
	}
	return nil
}

// Sign makes the order, with the owner's key that is registered for the home.
func (r ErasureRequest) Sign(owner ed25519.PrivateKey, now time.Time) (Erasing, error) {
	if err := r.check(); err != nil {
		return Erasing{}, err
	}
	now = now.UTC().Truncate(time.Second)
	order, err := SignErasure(owner, ErasureOrder{
		Erasure: r.Erasure, Registrar: r.Registrar, Owner: r.Owner, World: r.WorldKey, Home: r.Home, Avatar: ErasedMark(r.Erasure, r.Avatar),
		Made: now, Until: now.Add(OrderLife),
	})
	return Erasing{Avatar: r.Avatar, Order: order}, err
}

// Explain says for people what ordering would do.
func (r ErasureRequest) Explain() []string {
	return []string{
		fmt.Sprintf("Your avatar %s of %s, whose key is %s, is erased: its history, its state, and the keys to both.", r.Avatar, r.World, r.WorldKey),
		"So is what it gave to others: worlds that it was shared with, and those that they passed it on to; worlds where it lived before; their depots; DPMs that computed over it.",
		"Its items end with it. What you want to keep of them you give to another avatar, or move, before.",
		"What your things send is sent there no more. What they said stays in their own log.",
		"Nobody can take this back. What somebody has read, they may have copied.",
	}
}
