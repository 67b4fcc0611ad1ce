// Package shelf owns the form in which the rest of a connection is kept at a
// depot while its receiver can't be reached: a list of objects, and the giver's
// signed index of it, which says whose they are, for whom, and until when.
//
// An index is one of a row: its serial grows by one each time. A depot takes the
// next one only (Follows); a taker uses one that is for it, of the connection that
// it knows last, and not over (Judge). docs/design/share.md, Through storage, has
// the messages and the recovery rules.
//
// The package must not know what the objects hold (link has their form), how they
// come to the depot, nor what permits a share.
package shelf

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"

	"carnet"
	"carnet/identity"
)

// Limits of a shelf.
const (
	MaxObjects = 4096
	MaxBytes   = 256 << 20 // of all objects
	// MaxObject is what an object has at most: it is ended at 1 MiB, and the messages
	// that it ends with are large at most.
	MaxObject = 24 << 20
	// MaxSigned bounds an index with its list, as JSON.
	MaxSigned = 1 << 20
)

const (
	typ     = "carnet-shelf+jwt"
	version = 1
)

// Index is what a giver signs.
type Index struct {
	Version     int                `json:"v"`
	Giver       string             `json:"giver"` // did:key of the key that signs
	Taker       string             `json:"taker"` // did:key
	Incarnation uint64             `json:"incarnation"`
	Serial      uint64             `json:"serial"`
	First       uint64             `json:"first"` // frame
	Last        uint64             `json:"last"`
	Objects     int                `json:"objects"`
	List        carnet.Fingerprint `json:"list"`
	Time        int64              `json:"time"`  // s since 1970
	Until       int64              `json:"until"` // likewise; nobody uses it from then on
}

// Object is one of a shelf's.
type Object struct {
	Fingerprint carnet.Fingerprint `json:"fingerprint"`
	Last        uint64             `json:"last"` // the number of its last frame
}

// Signed is an index with its list.
type Signed struct {
	Index   string   `json:"index"` // a compact JWS
	Objects []Object `json:"objects"`
}

// Name is what a giver or a taker is called: the did:key of the key that it shows its
// peers.
func Name(key ed25519.PublicKey) string { return identity.DID(key) }

// fingerprint is of a list: for each object the number of its last frame, then its
// fingerprint.
func fingerprint(objects []Object) carnet.Fingerprint {
	b := make([]byte, 0, len(objects)*(8+len(carnet.Fingerprint{})))
	for _, o := range objects {
		b = append(binary.BigEndian.AppendUint64(b, o.Last), o.Fingerprint[:]...)
	}
	return carnet.FingerprintOf(b)
}

// Sign makes the index of a list. It fills in what follows from the key and the
// list.
func Sign(key ed25519.PrivateKey, i Index, objects []Object) (Signed, error) {
	i.Version, i.Giver, i.Objects, i.List = version, Name(key.Public().(ed25519.PublicKey)), len(objects), fingerprint(objects)
	if len(objects) > 0 {
		i.Last = objects[len(objects)-1].Last
	}
	if err := i.check(objects); err != nil {
		return Signed{}, err
	}
	token, err := identity.SignMessage(key, typ, i)
	return Signed{token, objects}, err
}

// Open reads an index of a giver for a taker, both named by their did:key, with its
// list.
func (s Signed) Open(giver, taker string) (i Index, err error) {
	err = identity.OpenMessage(s.Index, typ, &i, func() (ed25519.PublicKey, error) { return identity.ParseDID(giver) })
	if err != nil {
		return i, err
	}
	if i.Giver != giver || i.Taker != taker {
		return i, carnet.Errorf(carnet.Forbidden, "the shelf is of %s for %s, not of %s for %s", i.Giver, i.Taker, giver, taker)
	}
	return i, i.check(s.Objects)
}

func (i *Index) check(objects []Object) error {
	switch {
	case i.Version != version:
		return carnet.Errorf(carnet.Malformed, "the shelf has version %d, this party knows version %d", i.Version, version)
	case len(objects) == 0 || len(objects) > MaxObjects:
		return carnet.Errorf(carnet.TooLarge, "the shelf has %d objects, want 1 to %d", len(objects), MaxObjects)
	case i.Objects != len(objects) || i.List != fingerprint(objects):
		return carnet.Errorf(carnet.Tampered, "the shelf's list of objects isn't the one that its giver signed")
	case i.Incarnation == 0 || i.Serial == 0 || i.Time <= 0 || i.Until <= i.Time:
		return carnet.Errorf(carnet.Malformed, "the shelf names no connection, no serial, or no time")
	}
	if _, err := identity.ParseDID(i.Taker); err != nil {
		return err
	}
	before := i.First
	for n, o := range objects {
		if o.Last < before || n == 0 && i.First == 0 {
			return carnet.Errorf(carnet.Malformed, "the shelf's objects aren't in the order of their frames")
		}
		before = o.Last + 1
	}
	if i.Last != objects[len(objects)-1].Last {
		return carnet.Errorf(carnet.Malformed, "the shelf's last object ends with another frame than its index")
	}
	return nil
}

// Follows says whether an index may stand in the place of one that is there, or of
// none: nil. The same again is fine: who put it may not have heard.
func (i Index) Follows(before *Index) error {
	switch {
	case before == nil || *before == i:
		return nil
	case i.Incarnation < before.Incarnation, i.Incarnation == before.Incarnation && i.Serial <= before.Serial:
		return carnet.Errorf(carnet.Conflict, "the shelf has index %d of connection %d, which %d of %d doesn't follow",
			before.Serial, before.Incarnation, i.Serial, i.Incarnation)
	}
	return nil
}

// Known is what a taker knows of a giver's connection.
type Known struct {
	Incarnation uint64 // the giver's last here
	Last        uint64 // the number of the last frame that is stored
	Serial      uint64 // the greatest that was seen of an index of this incarnation
}

// Use is what a taker does with an index that is rightly signed.
type Use uint8

const (
	Read       Use = iota + 1 // it has frames that aren't here
	Nothing                   // everything on it is here
	Superseded                // the giver has connected since: the link goes on
	Unheard                   // of a connection that isn't known here: this store was restored
	Older                     // the depot has given a newer one before
	Over                      // its time has passed
)

// Judge says what a taker does with an index.
func (i Index) Judge(k Known, now time.Time) Use {
	switch {
	case now.Unix() >= i.Until:
		return Over
	case i.Incarnation < k.Incarnation:
		return Superseded
	case i.Incarnation > k.Incarnation:
		return Unheard
	case i.Serial < k.Serial:
		return Older
	case i.Last <= k.Last:
		return Nothing
	}
	return Read
}

// Standing is what a giver's new process does with a shelf that its document tells
// of, after it has asked the depot.
type Standing uint8

const (
	GoOn     Standing = iota + 1 // the depot has what the document says
	PutAgain                     // it has the one before: the put never came
	Withdraw                     // it has another, or none: one of the two was restored
)

// Stands compares the index that the document says was put last with the depot's;
// nil: the depot has none.
func (i Index) Stands(atDepot *Index) Standing {
	switch {
	case atDepot == nil && i.Serial == 1:
		return PutAgain
	case atDepot == nil:
		return Withdraw
	case *atDepot == i:
		return GoOn
	case atDepot.Incarnation == i.Incarnation && atDepot.Serial+1 == i.Serial && atDepot.Last < i.Last:
		return PutAgain
	}
	return Withdraw
}
