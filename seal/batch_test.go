package seal

import (
	"bytes"
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
