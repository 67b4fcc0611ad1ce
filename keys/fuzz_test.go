package keys

import (
	"bytes"
	"testing"
)

func FuzzParseCertificate(f *testing.F) {
	store := newMemory()
	kek := &FileKEK{id: "fuzz"}
	var err error
	if kek.aead, err = newAEAD(make([]byte, 32)); err != nil {
		f.Fatal(err)
	}
	table, err := Create(f.Context(), Config{KEK: kek, Store: store})
	if err != nil {
		f.Fatal(err)
	}
	for _, kind := range []KeyType{Ed25519, P256} {
		id := ID{"tls", string('a' + rune(kind))}
		if _, err := table.MakeCertificate(f.Context(), id, certificate(kind)); err != nil {
			f.Fatal(err)
		}
		secret, err := table.Get(f.Context(), id)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(secret)
	}
	f.Fuzz(func(t *testing.T, secret []byte) {
		c, err := parseCertificate(ID{"tls", "x"}, secret)
		if err == nil && (len(c.Certificate) != 1 || c.PrivateKey == nil || !bytes.HasSuffix(secret, c.Certificate[0])) {
			t.Errorf("read %+v from %x", c, secret)
		}
	})
}

// FuzzStored has the table and a sealer read bytes that they never wrote.
func FuzzStored(f *testing.F) {
	kek := &FileKEK{id: "fuzz"}
	var err error
	if kek.aead, err = newAEAD(make([]byte, 32)); err != nil {
		f.Fatal(err)
	}
	id := ID{"column", "1"}
	store := newMemory()
	table, err := Create(f.Context(), Config{KEK: kek, Store: store})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := table.Make(f.Context(), id); err != nil {
		f.Fatal(err)
	}
	sealer, err := table.Sealer(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := sealer.Seal(nil, []byte("here"), []byte("value"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(store.rows[id])
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := sealer.Open(nil, []byte("there"), data); err == nil {
			t.Errorf("opened %x", data)
		}
		if _, err := table.unwrap(Row{ID{"column", "2"}, data}); err == nil {
			t.Errorf("unwrapped %x", data)
		}
	})
}
