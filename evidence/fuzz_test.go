package evidence

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"carnet"
	"carnet/seal"
)

func FuzzManifest(f *testing.F) {
	m := manifest{Version: manifestVersion, World: "arena", Made: made, Streams: []streamEntry{{}}}
	for _, name := range dataFiles {
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
	f.Add(signed[:manifestLeast])
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

func FuzzProof(f *testing.F) {
	p := proof{sign1: []byte("header"), statement: []byte("statement"), receipt: []byte("receipt"), path: []carnet.Fingerprint{{1}, {2}}}
	f.Add(p.append(nil))
	f.Add(make([]byte, 38))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p proof
		if p.parse(data) && !bytes.Equal(p.append(nil), data) {
			t.Errorf("%x is read as %x", data, p.append(nil))
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

// The joint path of any leaves leads to the root that package seal computes, and
// no shorter or longer or other path does.
func FuzzJointPath(f *testing.F) {
	f.Add(uint16(7), []byte{0, 3, 4})
	f.Add(uint16(1), []byte{0})
	f.Add(uint16(100), []byte{99, 1, 2, 3, 64})
	f.Fuzz(func(t *testing.T, n uint16, picks []byte) {
		leaves := make([]carnet.Fingerprint, n%300)
		for i := range leaves {
			leaves[i] = carnet.FingerprintOf([]byte{byte(i), byte(i >> 8)})
		}
		var own []int
		for _, p := range picks {
			if int(p) < len(leaves) {
				own = append(own, int(p))
			}
		}
		slices.Sort(own)
		if own = slices.Compact(own); len(own) == 0 {
			return
		}
		var j joint
		path := j.prove(leaves, own)
		leads := func(path []carnet.Fingerprint) bool {
			j.begin()
			for _, at := range own {
				j.add(at, leaves[at])
			}
			root, ok := j.root(len(leaves), path)
			return ok && root == seal.Root(leaves)
		}
		if !leads(path) {
			t.Fatalf("the joint path of %v of %d leaves doesn't lead to the root", own, len(leaves))
		}
		if len(own) == 1 && !seal.VerifyProof(leaves[own[0]], own[0], len(leaves), path, seal.Root(leaves)) {
			t.Error("the path of one leaf is no inclusion proof")
		}
		if leads(append(slices.Clone(path), carnet.Fingerprint{})) || len(path) > 0 && leads(path[1:]) {
			t.Error("a path with a hash more or less leads to the root, too")
		}
		for i := range path {
			other := slices.Clone(path)
			if other[i][0]++; leads(other) {
				t.Error("another path leads to the root, too")
			}
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
