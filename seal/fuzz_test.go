package seal

import (
	"bytes"
	"testing"
)

func FuzzParseHeader(f *testing.F) {
	_, slot := newSlot(f, 1)
	for _, number := range []uint64{0, 24, 1 << 40} {
		f.Add(sealed(f, slot, number, body(f, 10)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, ciphertext, err := ParseHeader(data)
		if err != nil {
			return
		}
		_, protected, _, _ := parseBatch(data)
		again := appendHeaderString([]byte(batchOpen), &h, nonceOf(protected))
		again = appendBytes(append(again, majorMap), ciphertext)
		if !bytes.Equal(again, data) {
			t.Errorf("read from %x, written as %x", data, again)
		}
	})
}

func FuzzParseBody(f *testing.F) {
	f.Add(body(f, 0))
	f.Add(body(f, 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBody(data)
		if err != nil {
			return
		}
		if again, err := AppendBody(nil, b); err != nil || !bytes.Equal(again, data) {
			t.Errorf("read from %x, written as %x, %v", data, again, err)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	_, key := newSigner(f)
	for _, n := range []int{0, 1, 3} {
		f.Add(signedFrame(f, key, someBatches(f, n)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := ParseFrame(data)
		if err != nil {
			return
		}
		if again := frame.AppendWire(nil); !bytes.Equal(again, data) {
			t.Errorf("read from %x, written as %x", data, again)
		}
		s, _ := parseSign1(frame.Sign1, 32)
		if again := frame.Header.append(nil); !bytes.Equal(again, s.protected) {
			t.Errorf("header read from %x, written as %x", s.protected, again)
		}
	})
}

func FuzzBag(f *testing.F) {
	pub, key := newSigner(f)
	b := Bag{Granter: "hub", Reader: "arena", Purpose: "play", Time: now, NotAfter: now, Entries: entriesOfEachLevel(f)}
	plain, _, err := appendSign1(nil, nil, key, appendProtected(nil, 3, KeyID(pub), typeBag), b.append(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, data []byte) {
		parseSealedBag(data)
		b, s, err := parseBag(data)
		if err != nil {
			return
		}
		if again := b.append(nil); !bytes.Equal(again, s.payload) {
			t.Errorf("read from %x, written as %x", s.payload, again)
		}
	})
}

func FuzzParseReception(f *testing.F) {
	p := newParties(f)
	announcement, err := p.reception.Announce(p.reader, "arena", now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(announcement)
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := ParseReception(data, p.readerPub, now); err == nil {
			t.Errorf("accepted %+v, which is over", a)
		}
	})
}
