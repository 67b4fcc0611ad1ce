package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"testing"
	"time"

	"carnet"
)

var now = time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)

// parties are a granter and a reader with a reception key.
type parties struct {
	granter, reader       ed25519.PrivateKey
	granterPub, readerPub ed25519.PublicKey
	reception             *ReceptionKey
	announced             *Reception
}

func newParties(t testing.TB) *parties {
	t.Helper()
	p := new(parties)
	p.granterPub, p.granter = newSigner(t)
	p.readerPub, p.reader = newSigner(t)
	var err error
	if p.reception, err = NewReceptionKey(); err != nil {
		t.Fatal(err)
	}
	announcement, err := p.reception.Announce(p.reader, "arena", now.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if p.announced, err = ParseReception(announcement, p.readerPub, now); err != nil {
		t.Fatal(err)
	}
	return p
}

func terms() Terms {
	return Terms{
		Granter: "hub", Grant: [16]byte{7}, Purpose: "play", Time: now, NotAfter: now.Add(time.Hour),
		Clearance: carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: carnet.NewSet("play"), Residency: carnet.NewSet("eu")},
	}
}

func (p *parties) expected() Expected {
	return Expected{Granter: "hub", Signer: p.granterPub, Reader: "arena", Now: now}
}

func entriesOfEachLevel(t testing.TB) []Entry {
	epoch, slot := newSlot(t, 2)
	h, _, err := ParseHeader(sealed(t, slot, 9, body(t, 1)))
	if err != nil {
		t.Fatal(err)
	}
	label := carnet.Label{Sensitivity: carnet.Health, Purposes: carnet.NewSet("play", "care")}
	return []Entry{{epoch, label}, {slot.Key(), carnet.Label{}}, {slot.BatchKey(h), label}}
}

func TestBagCarriesKeysToTheReader(t *testing.T) {
	p, entries := newParties(t), entriesOfEachLevel(t)
	sealed, err := Grant(p.granter, p.announced, terms(), entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if bytes.Contains(sealed, e.Key.Secret[:]) || bytes.Contains(sealed, e.Key.Stream[:]) {
			t.Error("the sealed bag shows a key or a stream")
		}
	}
	if id, err := BagReception(sealed); err != nil || id != p.reception.ID() {
		t.Errorf("names reception key %s, %v", id, err)
	}
	private, err := p.reception.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := ParseReceptionKey(private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := kept.OpenBag(sealed, p.expected())
	if err != nil {
		t.Fatal(err)
	}
	if b.Granter != "hub" || b.Reader != "arena" || b.Grant != terms().Grant || b.Purpose != "play" ||
		!b.Time.Equal(now) || !b.NotAfter.Equal(terms().NotAfter) || b.Signer != KeyID(p.granterPub) || len(b.Entries) != 3 {
		t.Errorf("bag is %+v", b)
	}
	for i := range entries {
		if b.Entries[i] != entries[i] {
			t.Errorf("entry %d is of %s with %+v", i, b.Entries[i].Key.Path, b.Entries[i].Ceiling)
		}
	}
}

func TestBagForOneBatchOpensNoOther(t *testing.T) {
	p := newParties(t)
	_, slot := newSlot(t, 1)
	plain := body(t, 30)
	var batches [][]byte
	for n := range uint64(20) {
		batches = append(batches, sealed(t, slot, n, plain))
	}
	h, _, _ := ParseHeader(batches[7])
	bag, err := Grant(p.granter, p.announced, terms(), []Entry{{Key: slot.BatchKey(h)}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.reception.OpenBag(bag, p.expected())
	if err != nil {
		t.Fatal(err)
	}
	for n, batch := range batches {
		k := b.Entries[0].Key
		_, err := OpenWith(k, nil, batch)
		k.Path.Number = uint64(n) // a reader who claims more than was given
		_, errClaimed := OpenWith(k, nil, batch)
		if opened := err == nil || errClaimed == nil; opened != (n == 7) {
			t.Errorf("batch %d: opened is %v", n, opened)
		}
	}
}

func TestGrantRefuses(t *testing.T) {
	p := newParties(t)
	key, _ := newSlot(t, 1)
	for name, c := range map[string]struct {
		ceiling carnet.Label
		change  func(*Terms, *Key)
		code    carnet.Code
	}{
		"nothing wrong":          {carnet.Label{Sensitivity: carnet.Health}, nil, ""},
		"label: sensitivity":     {carnet.Label{Sensitivity: carnet.Location}, nil, carnet.Forbidden},
		"label: purpose":         {carnet.Label{Purposes: carnet.NewSet("care")}, nil, carnet.Forbidden},
		"label: residency":       {carnet.Label{Residency: carnet.NewSet("us")}, nil, carnet.Forbidden},
		"label: nowhere":         {carnet.Label{Purposes: "a"}.Join(carnet.Label{Purposes: "b"}), nil, carnet.Forbidden},
		"label: malformed":       {carnet.Label{Purposes: "play,"}, nil, carnet.Malformed},
		"purpose not cleared":    {carnet.Label{}, func(t *Terms, _ *Key) { t.Purpose = "care" }, carnet.Forbidden},
		"cleared for no purpose": {carnet.Label{}, func(t *Terms, _ *Key) { t.Clearance.Purposes = "" }, carnet.Forbidden},
		"no purpose":             {carnet.Label{}, func(t *Terms, _ *Key) { t.Purpose = "" }, carnet.Malformed},
		"two purposes":           {carnet.Label{}, func(t *Terms, _ *Key) { t.Purpose = "care,play" }, carnet.Malformed},
		"over before it begins":  {carnet.Label{}, func(t *Terms, _ *Key) { t.NotAfter = now }, carnet.Malformed},
		"no time":                {carnet.Label{}, func(t *Terms, _ *Key) { t.Time = time.Time{} }, carnet.Malformed},
		"time beyond counting":   {carnet.Label{}, func(t *Terms, _ *Key) { t.NotAfter = now.AddDate(500, 0, 0) }, carnet.Malformed},
		"reception key over":     {carnet.Label{}, func(t *Terms, _ *Key) { t.Time, t.NotAfter = now.AddDate(0, 0, 1), now.AddDate(0, 0, 2) }, carnet.TooOld},
		"granter":                {carnet.Label{}, func(t *Terms, _ *Key) { t.Granter = "" }, carnet.Malformed},
		"key of no level":        {carnet.Label{}, func(_ *Terms, k *Key) { k.Level = 1 }, carnet.Malformed},
		"epoch key with a slot":  {carnet.Label{}, func(_ *Terms, k *Key) { k.Path.Slot = 1 }, carnet.Malformed},
		"epoch key with a batch": {carnet.Label{}, func(_ *Terms, k *Key) { k.Path.Number = 1 }, carnet.Malformed},
	} {
		terms, k := terms(), key
		if c.change != nil {
			c.change(&terms, &k)
		}
		// A good entry first: one bad entry refuses the bag.
		bag, err := Grant(p.granter, p.announced, terms, []Entry{{Key: key}, {k, c.ceiling}})
		if carnet.CodeOf(err) != c.code || (bag == nil) != (c.code != "") {
			t.Errorf("%s: %v, want code %q", name, err, c.code)
		}
	}
	many := make([]Entry, 20_000)
	for i := range many {
		many[i].Key = key
	}
	if _, err := Grant(p.granter, p.announced, terms(), many); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too many keys: %v", err)
	}
}

func TestBagOfOthersIsRefused(t *testing.T) {
	p, other := newParties(t), newParties(t)
	bag, err := Grant(p.granter, p.announced, terms(), entriesOfEachLevel(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key    *ReceptionKey
		change func(*Expected)
		code   carnet.Code
	}{
		"nothing wrong":  {p.reception, func(*Expected) {}, ""},
		"reception key":  {other.reception, func(*Expected) {}, carnet.NotFound},
		"granter's key":  {p.reception, func(e *Expected) { e.Signer = other.granterPub }, carnet.Tampered},
		"no key":         {p.reception, func(e *Expected) { e.Signer = nil }, carnet.Tampered},
		"granter":        {p.reception, func(e *Expected) { e.Granter = "clinic" }, carnet.Forbidden},
		"reader":         {p.reception, func(e *Expected) { e.Reader = "clinic" }, carnet.Forbidden},
		"expired":        {p.reception, func(e *Expected) { e.Now = terms().NotAfter }, carnet.TooOld},
		"a moment early": {p.reception, func(e *Expected) { e.Now = terms().NotAfter.Add(-1) }, ""},
	} {
		want := p.expected()
		c.change(&want)
		if b, err := c.key.OpenBag(bag, want); carnet.CodeOf(err) != c.code || (b == nil) != (c.code != "") {
			t.Errorf("%s: %v, want code %q", name, err, c.code)
		}
	}
}

func TestBagWithAnyBitFlippedIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("opens an HPKE ciphertext for each bit")
	}
	p := newParties(t)
	key, _ := newSlot(t, 1)
	bag, err := Grant(p.granter, p.announced, terms(), []Entry{{Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	eachFlip(bag, func(at int, flipped []byte) {
		if _, err := p.reception.OpenBag(flipped, p.expected()); err == nil {
			t.Errorf("bit %d of byte %d flipped: opened", at%8, at/8)
		}
	})
	for n := range bag {
		if _, err := p.reception.OpenBag(bag[:n], p.expected()); err == nil {
			t.Errorf("first %d bytes: opened", n)
		}
	}
	if _, err := p.reception.OpenBag(append(bag, 0), p.expected()); err == nil {
		t.Error("a byte more: opened")
	}
}

// TestSignedBagWithAnyBitFlippedIsRefused is the same inside the seal, where a
// reader who re-seals a bag could change it.
func TestSignedBagWithAnyBitFlippedIsRefused(t *testing.T) {
	pub, key := newSigner(t)
	b := Bag{Granter: "hub", Reader: "arena", Purpose: "play", Time: now, NotAfter: now, Entries: entriesOfEachLevel(t)}
	plain, _, err := appendSign1(nil, nil, key, appendProtected(nil, 3, KeyID(pub), typeBag), b.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	check := func(data []byte) bool {
		got, s, err := parseBag(data)
		if err != nil {
			return false
		}
		ok, _ := s.verify(nil, pub)
		return ok && got.Signer == KeyID(pub)
	}
	if !check(plain) {
		t.Fatal("the signed bag is refused as it is")
	}
	eachFlip(plain, func(at int, flipped []byte) {
		if check(flipped) {
			t.Errorf("bit %d of byte %d flipped: accepted", at%8, at/8)
		}
	})
	for n := range plain {
		if check(plain[:n]) {
			t.Errorf("first %d bytes: accepted", n)
		}
	}
}

func TestReceptionIsRefused(t *testing.T) {
	p := newParties(t)
	other, _ := newSigner(t)
	announcement, err := p.reception.Announce(p.reader, "arena", now)
	if err != nil {
		t.Fatal(err)
	}
	before := now.Add(-1)
	if _, err := ParseReception(announcement, p.readerPub, before); err != nil {
		t.Errorf("nothing wrong: %v", err)
	}
	if _, err := ParseReception(announcement, p.readerPub, now); carnet.CodeOf(err) != carnet.TooOld {
		t.Errorf("over: %v", err)
	}
	if _, err := ParseReception(announcement, other, before); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("other key: %v", err)
	}
	eachFlip(announcement, func(at int, flipped []byte) {
		if at/8%16 != 0 && at/8 > 100 && at/8 < len(announcement)-80 {
			return // a public key is long: one byte of sixteen is enough
		}
		if _, err := ParseReception(flipped, p.readerPub, before); err == nil {
			t.Errorf("bit %d of byte %d flipped: accepted", at%8, at/8)
		}
	})
}

// TestOneSignatureDoesNotPassForAnother exchanges what one key has signed.
func TestOneSignatureDoesNotPassForAnother(t *testing.T) {
	p := newParties(t)
	announcement, err := p.reception.Announce(p.granter, "hub", now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var f Frame
	if err := f.Sign(p.granter, frameHeader, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReception(f.Sign1, p.granterPub, now); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("frame as announcement: %v", err)
	}
	if _, _, err := VerifySign1(announcement, p.granterPub); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("announcement as frame: %v", err)
	}
	for typ, code := range map[string]carnet.Code{
		typeBag: "", "application/vnd.carnet.BAG+cose": carnet.Malformed, "": carnet.Malformed, typeFrame: carnet.Malformed,
	} {
		b := Bag{Granter: "hub", Reader: "arena", Purpose: "play", Reception: p.reception.ID(), Time: now, NotAfter: terms().NotAfter}
		bag := p.sealAs(t, b, KeyID(p.granterPub), typ)
		if _, err := p.reception.OpenBag(bag, p.expected()); carnet.CodeOf(err) != code {
			t.Errorf("a bag of type %q: %v, want code %q", typ, err, code)
		}
	}
}

// sealAs seals a bag signed by the granter, with any key id and type.
func (p *parties) sealAs(t *testing.T, b Bag, kid carnet.Fingerprint, typ string) []byte {
	t.Helper()
	plain, _, err := appendSign1(nil, nil, p.granter, appendProtected(nil, 3, kid, typ), b.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hpke.Seal(p.announced.public, hpke.HKDFSHA256(), hpke.AES256GCM(), bagInfo(p.announced.ID), plain)
	if err != nil {
		t.Fatal(err)
	}
	id := p.announced.ID
	return appendBytes(appendBytes(appendUint(appendArray(nil, 3), bagVersion), id[:]), sealed)
}

// TestBagSealedOnwardIsRefused has another reader seal a bag that was meant for
// it, or a granter sign what contradicts the seal.
func TestBagSealedOnwardIsRefused(t *testing.T) {
	p := newParties(t)
	good := Bag{Granter: "hub", Reader: "arena", Purpose: "play", Reception: p.reception.ID(), Time: now, NotAfter: terms().NotAfter}
	other := good
	other.Reception = carnet.Fingerprint{1}
	if _, err := p.reception.OpenBag(p.sealAs(t, other, KeyID(p.granterPub), typeBag), p.expected()); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("signed for another reception key: %v", err)
	}
	if _, err := p.reception.OpenBag(p.sealAs(t, good, KeyID(p.readerPub), typeBag), p.expected()); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("names another signing key: %v", err)
	}
}
