package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"

	"carnet/evidence"
	"carnet/ledger"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// receipts has a bundle's receipts written, and reads them back as anybody does who knows
// RFC 9942 and the ledger's key, and nothing of ours: each leads from the entry in its
// name to a root that the ledger has signed.
func (u user) receipts(bundle string) {
	u.t.Helper()
	u.sees([]string{"Verdict: true"}, "verify", bundle, "--trust="+bundle+"/trust.json", "--receipts=receipts")
	frames := reads[[]struct{ Counts evidence.Counts }](u, "verify", bundle)[0].Counts.Frames
	trust, err := evidence.ReadTrust(filepath.Join(u.dir, bundle, "trust.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	key, err := ledger.ParseKey(trust.Ledgers[0].Key)
	if err != nil {
		u.t.Fatal(err)
	}
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, key.Public)
	if err != nil {
		u.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(u.dir, "receipts", "*.cose"))
	if err != nil || uint64(len(files)) != frames || frames == 0 {
		u.t.Fatalf("%d receipts of %d frames: %v", len(files), frames, err)
	}
	for _, file := range files {
		name := strings.Split(strings.TrimSuffix(filepath.Base(file), ".cose"), "-")
		entry, err := hex.DecodeString(name[len(name)-1])
		if err != nil || len(entry) != 32 {
			u.t.Fatalf("%s names no entry", file)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			u.t.Fatal(err)
		}
		var m cose.Sign1Message
		if err := m.UnmarshalCBOR(text); err != nil || m.Payload != nil || m.Headers.Protected[int64(395)] != int64(1) {
			u.t.Fatalf("%s is no receipt of RFC9162_SHA256 with a detached payload: %+v, %v", file, m, err)
		}
		proofs := m.Headers.Unprotected[int64(396)].(map[any]any)[int64(-1)].([]any)
		var proof struct {
			_           struct{} `cbor:",toarray"`
			Size, Index uint64
			Path        [][]byte
		}
		if err := cbor.Unmarshal(proofs[0].([]byte), &proof); err != nil || len(proofs) != 1 {
			u.t.Fatalf("%s: %v", file, err)
		}
		m.Payload = rootOf(entry, proof.Index, proof.Size, proof.Path)
		if err := m.Verify(nil, verifier); err != nil {
			u.t.Errorf("%s: %v", file, err)
		}
		m.Payload = rootOf(append([]byte{entry[0] ^ 1}, entry[1:]...), proof.Index, proof.Size, proof.Path)
		if m.Verify(nil, verifier) == nil {
			u.t.Errorf("%s proves another entry, too", file)
		}
	}
	if r := u.try("", "verify", bundle, "--receipts=receipts"); r.code == 0 || !strings.Contains(r.err, "is there already") {
		u.t.Errorf("into a directory that is there: %+v", r)
	}
}

// rootOf is RFC 9162 section 2.1.3.2.
func rootOf(leaf []byte, index, size uint64, path [][]byte) []byte {
	sum := sha256.Sum256(append([]byte{0}, leaf...))
	r, fn, sn := sum[:], index, size-1
	node := func(left, right []byte) {
		sum := sha256.Sum256(append(append([]byte{1}, left...), right...))
		r = sum[:]
	}
	for _, p := range path {
		if fn&1 == 1 || fn == sn {
			node(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			node(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	return r
}
