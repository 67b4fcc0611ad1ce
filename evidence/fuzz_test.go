package evidence

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func FuzzManifest(f *testing.F) {
	m := manifest{Version: manifestVersion, World: "arena", Made: made, Streams: []streamEntry{{}}}
	for _, name := range append(dataFiles[:], FileJobs) {
		m.Files = append(m.Files, fileEntry{Name: name})
	}
	signed, err := m.sign(seed(1))
	if err != nil {
		f.Fatal(err)
	}
	if m, err := parseManifest(signed); err != nil || !m.verify(PublicKey(seed(1).Public().(ed25519.PublicKey))) {
		f.Fatal("the manifest doesn't hold", err)
	}
	f.Add(signed)
	f.Add(signed[:len(signed)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		if m.verify(PublicKey(seed(1).Public().(ed25519.PublicKey))) && !bytes.Equal(data, signed) {
			t.Errorf("a signature of the world holds for %x", data)
		}
	})
}

func FuzzTrust(f *testing.F) {
	trust := scene(f).trust()
	text, err := trust.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"worlds":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseTrust(data)
		if err != nil {
			return
		}
		again, err := got.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseTrust(again); err != nil {
			t.Errorf("what was read can't be read again: %v\n%s", err, again)
		}
	})
}

func FuzzRecords(f *testing.F) {
	frame := frameRecord{1, 2, 3, 4, 5, 6}
	batch := batchRecord{1, 2, 3, -4, 5, 6, 7, 8, 9}
	f.Add(frame.append(nil))
	f.Add(batch.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var frame frameRecord
		if frame.parse(data) && !bytes.Equal(frame.append(nil), data) {
			t.Errorf("frame record %x is read as %x", data, frame.append(nil))
		}
		var batch batchRecord
		if batch.parse(data) && !bytes.Equal(batch.append(nil), data) {
			t.Errorf("batch record %x is read as %x", data, batch.append(nil))
		}
	})
}

// Whatever is written over a part of a bundle, Verify ends, and says that it is
// false.
func FuzzVerify(f *testing.F) {
	s := sceneOf(f, 1)
	dir := s.write(s.options())
	names := append(dataFiles[:], FileManifest)
	whole := make(map[string][]byte)
	for i, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		whole[name] = data
		f.Add(uint8(i), uint32(len(data)/2), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint16(0))
		f.Add(uint8(i), uint32(0), []byte{}, uint16(40))
	}
	f.Fuzz(func(t *testing.T, file uint8, at uint32, with []byte, gone uint16) {
		name := names[int(file)%len(names)]
		data := whole[name]
		from := int(at) % (len(data) + 1)
		to := min(from+int(gone), len(data))
		changed := slices.Concat(data[:from], with, data[to:])
		copied := t.TempDir()
		for n, d := range whole {
			if n == name {
				d = changed
			}
			if err := os.WriteFile(filepath.Join(copied, n), d, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		v := True
		if !bytes.Equal(changed, data) {
			v = False
		}
		want(t, verify(t, copied, nil), v)
	})
}
