package seal

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"carnet"
)

// body returns the bytes of a body with n bytes of content.
func body(t testing.TB, n int) []byte {
	t.Helper()
	b, err := AppendBody(nil, Body{
		Label:     carnet.Label{Sensitivity: carnet.Health, Purposes: carnet.NewSet("care", "play")},
		Retention: carnet.Month, Hour: 490_000, First: 1 << 33, Count: 7,
		Content: bytes.Repeat([]byte{0xc5}, n),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newSlot returns slot n of a fresh epoch of a fresh stream.
func newSlot(t testing.TB, n uint32) (Key, *Slot) {
	t.Helper()
	k := NewEpoch(carnet.NewStreamID())
	s, err := k.Slot(n)
	if err != nil {
		t.Fatal(err)
	}
	return k, s
}

func sealed(t testing.TB, s *Slot, number uint64, body []byte) []byte {
	t.Helper()
	batch, err := s.Seal(nil, number, body)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func TestBatchOpensWithKeysOfEachLevel(t *testing.T) {
	epoch, slot := newSlot(t, 3)
	plain := body(t, 200)
	batch := sealed(t, slot, 1<<40, plain)
	h, _, err := ParseHeader(batch)
	if err != nil {
		t.Fatal(err)
	}
	if h.Stream != epoch.Stream || h.Epoch != epoch.Epoch || h.Slot != 3 || h.Number != 1<<40 {
		t.Errorf("header is %+v", h)
	}
	for _, k := range []Key{epoch, slot.Key(), slot.BatchKey(h)} {
		got, err := OpenWith(k, []byte("before"), batch)
		if err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
			t.Errorf("with %s: %v", k, err)
		}
	}
}

// A batch's own secret opens it, and the header is told even when it doesn't.
func TestBatchOpensWithItsSecret(t *testing.T) {
	_, slot := newSlot(t, 3)
	plain := body(t, 200)
	batch := sealed(t, slot, 9, plain)
	is, _, err := ParseHeader(batch)
	if err != nil {
		t.Fatal(err)
	}
	key := slot.BatchKey(is)
	if h, got, err := OpenBatch(&key.Secret, []byte("before"), batch); err != nil || h != is || !bytes.Equal(got, append([]byte("before"), plain...)) {
		t.Errorf("header %+v, %v", h, err)
	}
	key.Secret[7] ^= 1
	if h, got, err := OpenBatch(&key.Secret, nil, batch); carnet.CodeOf(err) != carnet.Tampered || h != is || got != nil {
		t.Errorf("with another secret: header %+v, %d bytes, %v", h, len(got), err)
	}
	if h, _, err := OpenBatch(&key.Secret, nil, batch[:50]); carnet.CodeOf(err) != carnet.Malformed || h != (Header{}) {
		t.Errorf("cut off: header %+v, %v", h, err)
	}
}

func TestBatchHidesAllButItsHeader(t *testing.T) {
	_, slot := newSlot(t, 1)
	a := sealed(t, slot, 1, body(t, 100))
	if bytes.Contains(a, bytes.Repeat([]byte{0xc5}, 4)) || bytes.Contains(a, []byte("care")) {
		t.Error("content or label is in the clear")
	}
	if b := sealed(t, slot, 1, body(t, 100)); bytes.Equal(a[len(a)-64:], b[len(b)-64:]) {
		t.Error("the same body sealed twice has the same ciphertext")
	}
	for n := range 40 { // bodies that differ by less than the padding have one length
		if got := len(sealed(t, slot, 1, body(t, 80+n))) % 64; got != len(a)%64 {
			t.Errorf("content of %d bytes gives a batch of %d bytes beyond a multiple of 64", 80+n, got)
		}
	}
}

func TestBatchWithAnyBitFlippedIsRefused(t *testing.T) {
	epoch, slot := newSlot(t, 300)
	batch := sealed(t, slot, 1<<20, body(t, 64))
	eachFlip(batch, func(at int, flipped []byte) {
		if _, err := OpenWith(epoch, nil, flipped); err == nil {
			t.Errorf("bit %d of byte %d flipped: opened", at%8, at/8)
		}
		if _, err := slot.Open(nil, flipped); err == nil {
			t.Errorf("bit %d of byte %d flipped: the slot opened it", at%8, at/8)
		}
	})
}

// eachFlip gives data with one bit flipped, for each bit.
func eachFlip(data []byte, f func(at int, flipped []byte)) {
	flipped := bytes.Clone(data)
	for at := range len(data) * 8 {
		flipped[at/8] ^= 1 << (at % 8)
		f(at, flipped)
		flipped[at/8] ^= 1 << (at % 8)
	}
}

func TestBatchCutOffOrExtendedIsRefused(t *testing.T) {
	epoch, slot := newSlot(t, 1)
	batch := sealed(t, slot, 1, body(t, 64))
	for n := range batch {
		if _, err := OpenWith(epoch, nil, batch[:n]); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	if _, err := OpenWith(epoch, nil, append(batch, 0)); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a byte more: %v", err)
	}
	if _, _, err := ParseHeader(make([]byte, MaxBatch+1)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("over the limit: %v", err)
	}
}

// TestBatchInOtherEncodingIsRefused re-encodes a batch so that it has the same
// meaning in CBOR and other bytes.
func TestBatchInOtherEncodingIsRefused(t *testing.T) {
	_, slot := newSlot(t, 7)
	batch := sealed(t, slot, 9, body(t, 64))
	// Where the parts of a batch with slot and number below 24 begin.
	const protected, header, alg, nonce, own, array = 2, 4, 5, 7, 21, 26
	const slotAt, numberAt = array + 2 + 17 + 9, array + 2 + 17 + 9 + 1
	if batch[slotAt] != 7 || batch[numberAt] != 9 {
		t.Fatal("the layout of batches has changed: adapt this test")
	}
	unprotected := protected + 2 + int(batch[protected+1])
	for name, edit := range map[string]func(b []byte) []byte{
		"ciphertext not padded":  func(b []byte) []byte { b[unprotected+2]--; return b[:len(b)-1] },
		"ciphertext empty":       func(b []byte) []byte { return append(b[:unprotected+1], 0x40) },
		"no tag":                 func(b []byte) []byte { return b[1:] },
		"tag of two bytes":       func(b []byte) []byte { return splice(b, 0, 1, 0xd8, 16) },
		"other tag":              func(b []byte) []byte { return splice(b, 0, 1, 0xd1) },
		"indefinite array":       func(b []byte) []byte { return append(splice(b, 1, 1, 0x9f), 0xff) },
		"array head long":        func(b []byte) []byte { return splice(b, 1, 1, 0x98, 3) },
		"protected head long":    func(b []byte) []byte { return splice(b, protected, 2, 0x59, 0, b[protected+1]) },
		"unprotected nonce":      func(b []byte) []byte { return splice(b, unprotected, 1, 0xa1, 5, 0x41, 0) },
		"unprotected indefinite": func(b []byte) []byte { return splice(b, unprotected, 1, 0xbf, 0xff) },
		"slot number long":       inHeader(func(b []byte) []byte { return splice(b, slotAt, 1, 0x18, 7) }),
		"batch number long":      inHeader(func(b []byte) []byte { return splice(b, numberAt, 1, 0x1b, 0, 0, 0, 0, 0, 0, 0, 9) }),
		"suite 2":                inHeader(func(b []byte) []byte { return splice(b, array+1, 1, 2) }),
		"suite long":             inHeader(func(b []byte) []byte { return splice(b, array+1, 1, 0x18, 1) }),
		"map indefinite":         inHeader(func(b []byte) []byte { return splice(b, header, 1, 0xbf) }),
		"map of four":            inHeader(func(b []byte) []byte { return splice(b, header, 1, 0xa4) }),
		"parameters swapped": inHeader(func(b []byte) []byte {
			iv := bytes.Clone(b[nonce+1 : own])
			return append(append(bytes.Clone(b[:alg]), append([]byte{5}, iv...)...), append([]byte{1, 3}, b[own:]...)...)
		}),
	} {
		changed := edit(bytes.Clone(batch))
		if bytes.Equal(changed, batch) {
			t.Errorf("%s: nothing changed", name)
		}
		if _, _, err := ParseHeader(changed); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// splice replaces n bytes of b at i.
func splice(b []byte, i, n int, with ...byte) []byte {
	return append(append(bytes.Clone(b[:i]), with...), b[i+n:]...)
}

// inHeader edits the protected header and sets its length anew.
func inHeader(edit func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		changed := edit(b)
		changed[3] += byte(len(changed) - len(b))
		return changed
	}
}

func TestKeyOpensNothingOutsideItsPath(t *testing.T) {
	epoch, one := newSlot(t, 1)
	two, err := epoch.Slot(2)
	if err != nil {
		t.Fatal(err)
	}
	plain := body(t, 10)
	first := sealed(t, one, 1, plain)
	h, _, _ := ParseHeader(first)
	otherEpoch := NewEpoch(epoch.Stream)
	otherSlot, _ := otherEpoch.Slot(1)
	sameNumber := sealed(t, one, 1, plain) // other salt: the same place, another key
	for name, c := range map[string]struct {
		key   Key
		batch []byte
		code  carnet.Code
	}{
		"batch key, next batch":     {one.BatchKey(h), sealed(t, one, 2, plain), carnet.Forbidden},
		"batch key, same number":    {one.BatchKey(h), sameNumber, carnet.Tampered},
		"batch key, other slot":     {one.BatchKey(h), sealed(t, two, 1, plain), carnet.Forbidden},
		"slot key, other slot":      {one.Key(), sealed(t, two, 1, plain), carnet.Forbidden},
		"slot key, other epoch":     {one.Key(), sealed(t, otherSlot, 1, plain), carnet.Forbidden},
		"epoch key, other epoch":    {epoch, sealed(t, otherSlot, 1, plain), carnet.Forbidden},
		"wrong key at the path":     {Key{Path: epoch.Path, Secret: otherEpoch.Secret}, first, carnet.Tampered},
		"key of no level":           {Key{Path: Path{Stream: epoch.Stream, Epoch: epoch.Epoch}, Secret: epoch.Secret}, first, carnet.Forbidden},
		"secret moved down a level": {Key{Path: one.Key().Path, Secret: epoch.Secret}, first, carnet.Tampered},
	} {
		if _, err := OpenWith(c.key, nil, c.batch); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %s", name, err, c.code)
		}
	}
	if _, err := one.Open(nil, sealed(t, two, 1, plain)); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("slot 1 opens a batch of slot 2: %v", err)
	}
	if _, err := one.Key().Slot(2); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("slot 2 from the key of slot 1: %v", err)
	}
}

func TestPathAsText(t *testing.T) {
	for _, e := range entriesOfEachLevel(t) {
		p := e.Key.Path
		if got, err := ParsePath(p.String()); err != nil || got != p {
			t.Errorf("%s is read as %s, %v", p, got, err)
		}
		for _, bad := range []string{p.String() + "/", p.String() + "/01", "/" + p.String(), strings.ToUpper(p.String()) + "A", p.Stream.String()} {
			if _, err := ParsePath(bad); carnet.CodeOf(err) != carnet.Malformed {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
	long := Path{Level: SlotLevel}.String() + "4294967295" // 2^32 and more
	if _, err := ParsePath(long); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("%q: %v", long, err)
	}
}

func TestOpenerInManyGoroutines(t *testing.T) {
	epoch, _ := newSlot(t, 0)
	plain := body(t, 10)
	var batches [][]byte
	for n := range uint32(8) {
		s, err := epoch.Slot(n)
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, sealed(t, s, uint64(n), plain))
	}
	o, err := NewOpener(3, func(Header) (Key, bool) { return epoch, true })
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				for _, batch := range batches {
					if _, got, err := o.Open(nil, batch); err != nil || !bytes.Equal(got, plain) {
						t.Errorf("open: %v", err)
					}
				}
				o.Forget(epoch.Stream)
			}
		})
	}
	wg.Wait()
}

func TestSealRefusesUnpaddedBodies(t *testing.T) {
	_, slot := newSlot(t, 1)
	for _, n := range []int{0, 1, 63, 65, MaxBatch} {
		if got, err := slot.Seal([]byte("kept"), 1, make([]byte, n)); err == nil || string(got) != "kept" {
			t.Errorf("body of %d bytes: %q, %v", n, got, err)
		}
	}
}

func TestPrintingAKeyShowsNoSecret(t *testing.T) {
	k := NewEpoch(carnet.NewStreamID())
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "key", k)
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "key", k, "in", []Key{k})
	fmt.Fprintf(&log, "%v %+v %#v %x %s %d", k, k, k, k, k, k)
	for _, form := range []string{fmt.Sprintf("%x", k.Secret[:8]), fmt.Sprintf("%d", k.Secret[0:4]), string(k.Secret[:8])} {
		if strings.Contains(log.String(), strings.Trim(form, "[]")) {
			t.Errorf("the secret shows as %q in %q", form, log.String())
		}
	}
	if !strings.Contains(log.String(), k.Path.String()) {
		t.Error("the path doesn't show")
	}
}

func TestOpener(t *testing.T) {
	epoch, one := newSlot(t, 1)
	other, far := newSlot(t, 1)
	plain := body(t, 10)
	batch := sealed(t, one, 5, plain)
	h, _, _ := ParseHeader(batch)
	keys := map[carnet.StreamID]Key{epoch.Stream: epoch}
	asked := 0
	o, err := NewOpener(2, func(h Header) (Key, bool) { asked++; k, ok := keys[h.Stream]; return k, ok })
	if err != nil {
		t.Fatal(err)
	}
	opens := func(batch []byte, want carnet.Code) {
		t.Helper()
		_, got, err := o.Open(nil, batch)
		if carnet.CodeOf(err) != want || err == nil && !bytes.Equal(got, plain) {
			t.Errorf("opened with %v, want code %q", err, want)
		}
	}
	opens(batch, "")
	opens(batch, "")
	if asked != 1 {
		t.Errorf("looked the key up %d times for one slot", asked)
	}
	opens(sealed(t, far, 1, plain), carnet.NotFound)
	keys[other.Stream] = epoch // a lookup that answers wrongly
	opens(sealed(t, far, 1, plain), carnet.Forbidden)

	for n := range uint32(5) { // more slots than it keeps
		s, _ := epoch.Slot(n)
		opens(sealed(t, s, 1, plain), "")
	}
	if len(o.slots) != 2 {
		t.Errorf("keeps %d slots, want 2", len(o.slots))
	}
	delete(keys, epoch.Stream)
	o.Forget(epoch.Stream)
	opens(batch, carnet.NotFound)

	keys[epoch.Stream] = one.BatchKey(h)
	opens(batch, "")
	opens(sealed(t, one, 6, plain), carnet.Forbidden)
}
