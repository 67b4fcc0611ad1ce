package seal

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"fmt"
	"math"
	"time"

	"carnet"
)

// Entry is a key in a bag, with the label that the data under it stays within.
type Entry struct {
	Key     Key
	Ceiling carnet.Label
}

// Terms are what a bag is given under.
type Terms struct {
	Granter   carnet.PartyID
	Grant     [16]byte         // id of the grant
	Purpose   string           // one word; what the reader may use the data for
	Clearance carnet.Clearance // the reader's; checked, not sent
	Time      time.Time        // of granting
	NotAfter  time.Time        // the reader destroys the keys then
}

// Bag is an opened key bag.
type Bag struct {
	Granter   carnet.PartyID
	Signer    carnet.Fingerprint // KeyID of the granter's key
	Reader    carnet.PartyID
	Reception carnet.Fingerprint // id of the reception key it was sealed to
	Grant     [16]byte
	Purpose   string
	Time      time.Time
	NotAfter  time.Time
	Entries   []Entry
}

const (
	bagVersion  = 1
	infoBag     = "carnet/1 key bag\x00"
	maxPurpose  = 64
	maxPartyLen = 32
)

// Grant makes a key bag: the entries' keys under the terms, signed by the
// granter, sealed to the reader's reception key. There is no other way to give
// a key away, so the one rule of information flow is here: it refuses an entry
// whose ceiling exceeds the reader's clearance, and a purpose that the reader
// is not cleared for.
func Grant(signer crypto.Signer, to *Reception, t Terms, entries []Entry) ([]byte, error) {
	if err := checkTerms(to, t); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := checkEntry(e); err != nil {
			return nil, err
		}
		if why := e.Ceiling.Exceeds(t.Clearance); why != "" {
			return nil, carnet.Errorf(carnet.Forbidden, "the key of %s is not granted to %s: %s", e.Key.Path, to.Reader, why).
				WithFix("raise the reader's clearance, or grant a derived stream with a lower label")
		}
	}
	kid, err := signerID(signer)
	if err != nil {
		return nil, err
	}
	b := Bag{Granter: t.Granter, Reader: to.Reader, Reception: to.ID, Grant: t.Grant, Purpose: t.Purpose,
		Time: t.Time, NotAfter: t.NotAfter, Entries: entries}
	plain, _, err := appendSign1(nil, nil, signer, appendProtected(nil, 3, kid, typeBag), b.append(nil))
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(to.public, hpke.HKDFSHA256(), hpke.AES256GCM(), bagInfo(to.ID), plain)
	if err != nil {
		return nil, fmt.Errorf("seal key bag: %w", err)
	}
	out := appendUint(appendArray(nil, 3), bagVersion)
	out = appendBytes(appendBytes(out, to.ID[:]), sealed)
	if len(out) > MaxBag {
		return nil, carnet.Errorf(carnet.TooLarge, "a key bag of %d keys has %d bytes, more than %d", len(entries), len(out), MaxBag).
			WithFix("grant in several bags")
	}
	return out, nil
}

func checkTerms(to *Reception, t Terms) error {
	if _, err := carnet.ParsePartyID(string(t.Granter)); err != nil {
		return err
	}
	for _, at := range []time.Time{t.Time, t.NotAfter} {
		if err := checkTime(at); err != nil {
			return err
		}
	}
	if !t.Time.Before(to.NotAfter) {
		return carnet.Errorf(carnet.TooOld, "the reception key of %s was good until %s", to.Reader, to.NotAfter.UTC().Format(time.RFC3339)).
			WithFix("ask %s for the present one", to.Reader)
	}
	if !t.Time.Before(t.NotAfter) {
		return malformed("the grant would be over before it is given")
	}
	if t.Purpose == "" || len(t.Purpose) > maxPurpose || len(carnet.NewSet(t.Purpose).Words()) != 1 {
		return malformed("purpose %q: want one word of at most %d bytes", t.Purpose, maxPurpose)
	}
	if !t.Clearance.Purposes.Has(t.Purpose) {
		return carnet.Errorf(carnet.Forbidden, "%s is not cleared for the purpose %q", to.Reader, t.Purpose)
	}
	return nil
}

func checkEntry(e Entry) error {
	p := e.Key.Path
	if p.Level < EpochLevel || p.Level > BatchLevel || p.Level < SlotLevel && p.Slot != 0 || p.Level < BatchLevel && p.Number != 0 {
		return malformed("the key of %s has no place in the key tree", p)
	}
	return checkLabel(e.Ceiling)
}

func bagInfo(reception carnet.Fingerprint) []byte { return append([]byte(infoBag), reception[:]...) }

// BagReception returns the id of the reception key that a sealed bag needs.
func BagReception(sealed []byte) (carnet.Fingerprint, error) {
	id, _, err := parseSealedBag(sealed)
	return id, err
}

func parseSealedBag(data []byte) (id carnet.Fingerprint, sealed []byte, err error) {
	if len(data) > MaxBag {
		return id, nil, carnet.Errorf(carnet.TooLarge, "a key bag has %d bytes, more than %d", len(data), MaxBag)
	}
	r := reader{b: data}
	r.array(3)
	version := r.uint(math.MaxUint64)
	r.fixed(id[:])
	sealed = r.bytes(MaxBag)
	if !r.ended() || version != bagVersion {
		return carnet.Fingerprint{}, nil, malformed("a key bag is not in the form of version 1")
	}
	return id, sealed, nil
}

// Expected is what a reader knows of a bag before it opens it.
type Expected struct {
	Granter carnet.PartyID
	Signer  ed25519.PublicKey // the granter's signing key
	Reader  carnet.PartyID    // who opens it
	Now     time.Time
}

// OpenBag opens a sealed bag, and refuses one that is not by and for whom is
// expected, or is over.
func (k *ReceptionKey) OpenBag(sealed []byte, want Expected) (*Bag, error) {
	id, ciphertext, err := parseSealedBag(sealed)
	if err != nil {
		return nil, err
	}
	if id != k.id {
		return nil, carnet.Errorf(carnet.NotFound, "the key bag is sealed to reception key %s, which is not at hand", id).
			WithFix("ask the granter for a new one")
	}
	plain, err := hpke.Open(k.private, hpke.HKDFSHA256(), hpke.AES256GCM(), bagInfo(id), ciphertext)
	if err != nil {
		return nil, tampered("the key bag does not open with its reception key")
	}
	b, s, err := parseBag(plain)
	if err != nil {
		return nil, err
	}
	if ok, _ := s.verify(nil, want.Signer); !ok || KeyID(want.Signer) != b.Signer {
		return nil, tampered("the key bag is not signed by %s", want.Granter)
	}
	if b.Granter != want.Granter || b.Reader != want.Reader || b.Reception != id {
		return nil, carnet.Errorf(carnet.Forbidden, "the key bag is from %s for %s, not from %s for %s", b.Granter, b.Reader, want.Granter, want.Reader)
	}
	if !want.Now.Before(b.NotAfter) {
		return nil, carnet.Errorf(carnet.TooOld, "the grant was good until %s", b.NotAfter.UTC().Format(time.RFC3339))
	}
	return b, nil
}

// append writes the payload of a bag:
//
//	[version 1, granter, reader, reception key id, grant, purpose, time (ns),
//	 not after (ns), [entry, …]]
//	entry = [path, key, label]; path = [stream, epoch, ? slot, ? number]
func (b *Bag) append(dst []byte) []byte {
	dst = appendUint(appendArray(dst, 9), bagVersion)
	dst = appendText(appendText(dst, string(b.Granter)), string(b.Reader))
	dst = appendBytes(dst, b.Reception[:])
	dst = appendBytes(dst, b.Grant[:])
	dst = appendText(dst, b.Purpose)
	dst = appendTime(appendTime(dst, b.Time), b.NotAfter)
	dst = appendArray(dst, len(b.Entries))
	for _, e := range b.Entries {
		dst = appendPath(appendArray(dst, 3), e.Key.Path)
		dst = appendBytes(dst, e.Key.Secret[:])
		dst = appendLabel(dst, e.Ceiling)
	}
	return dst
}

func appendPath(dst []byte, p Path) []byte {
	dst = appendArray(dst, int(p.Level))
	dst = appendBytes(appendBytes(dst, p.Stream[:]), p.Epoch[:])
	if p.Level >= SlotLevel {
		dst = appendUint(dst, uint64(p.Slot))
	}
	if p.Level >= BatchLevel {
		dst = appendUint(dst, p.Number)
	}
	return dst
}

func (r *reader) path() (p Path) {
	p.Level = Level(min(r.head(majorArray), math.MaxUint8))
	if p.Level < EpochLevel || p.Level > BatchLevel {
		r.fail()
	}
	r.fixed(p.Stream[:])
	r.fixed(p.Epoch[:])
	if p.Level >= SlotLevel {
		p.Slot = uint32(r.uint(math.MaxUint32))
	}
	if p.Level >= BatchLevel {
		p.Number = r.uint(math.MaxUint64)
	}
	return p
}

func parseBag(plain []byte) (*Bag, signed, error) {
	s, ok := parseSign1(plain, MaxBag)
	header, r := reader{b: s.protected}, reader{b: s.payload}
	b := &Bag{Signer: header.protected(3, typeBag)}
	r.array(9)
	version := r.uint(math.MaxUint64)
	granter, errGranter := carnet.ParsePartyID(string(r.text(maxPartyLen)))
	party, errReader := carnet.ParsePartyID(string(r.text(maxPartyLen)))
	b.Granter, b.Reader = granter, party
	r.fixed(b.Reception[:])
	r.fixed(b.Grant[:])
	b.Purpose = string(r.text(maxPurpose))
	b.Time, b.NotAfter = r.time(), r.time()
	for n := r.head(majorArray); n > 0 && !r.bad; n-- {
		r.array(3)
		e := Entry{Key: Key{Path: r.path()}}
		r.fixed(e.Key.Secret[:])
		e.Ceiling = r.label()
		b.Entries = append(b.Entries, e)
	}
	if !ok || errGranter != nil || errReader != nil || !header.ended() || !r.ended() || version != bagVersion {
		return nil, signed{}, malformed("a key bag is not in the form of version 1")
	}
	return b, s, nil
}
