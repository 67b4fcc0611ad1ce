package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"carnet"

	"github.com/transparency-dev/formats/log"
	"github.com/veraison/go-cose"
	"golang.org/x/mod/sumdb/note"
)

// The reference below is RFC 9162 §2.1 written out, for trees of any leaves.

func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func treeHash(leaves [][]byte) [32]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	default:
		l, r := treeHash(leaves[:split(n)]), treeHash(leaves[split(n):])
		return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
	}
}

func inclusionPath(m int, leaves [][]byte) [][32]byte {
	n := len(leaves)
	if n == 1 {
		return nil
	}
	if k := split(n); m < k {
		return append(inclusionPath(m, leaves[:k]), treeHash(leaves[k:]))
	} else {
		return append(inclusionPath(m-k, leaves[k:]), treeHash(leaves[:k]))
	}
}

func consistencyPath(m int, leaves [][]byte, whole bool) [][32]byte {
	n := len(leaves)
	if m == n {
		if whole {
			return nil
		}
		return [][32]byte{treeHash(leaves)}
	}
	if k := split(n); m <= k {
		return append(consistencyPath(m, leaves[:k], whole), treeHash(leaves[k:]))
	} else {
		return append(consistencyPath(m-k, leaves[k:], false), treeHash(leaves[:k]))
	}
}

// The leaves and roots that implementations of certificate transparency share
// as vectors (trees of the first 1 to 8 leaves).
func TestReferenceTreeHasTheKnownRoots(t *testing.T) {
	var leaves [][]byte
	for _, l := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"} {
		b, _ := hex.DecodeString(l)
		leaves = append(leaves, b)
	}
	for n, want := range []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	} {
		if got := treeHash(leaves[:n]); hex.EncodeToString(got[:]) != want {
			t.Errorf("root of %d leaves: %x, want %s", n, got, want)
		}
	}
}

func testSigner(t testing.TB, origin string, seed byte) *Signer {
	t.Helper()
	s, err := NewSigner(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testLeaves(n int) (leaves [][]byte) {
	for i := range n {
		e := EntryOf(Salt{}, []byte(strconv.Itoa(i)))
		leaves = append(leaves, e[:])
	}
	return leaves
}

func testReceipt(t testing.TB, s *Signer, leaves [][]byte, m int) Receipt {
	t.Helper()
	root := treeHash(leaves)
	text := log.Checkpoint{Origin: s.Name(), Size: uint64(len(leaves)), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, s)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.SignRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	return Receipt{Index: uint64(m), Path: inclusionPath(m, leaves), Checkpoint: signed, Signature: sig}
}

func TestReceiptsOfEveryLeafOfEverySmallTreeHold(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	v := NewVerifier(s.Key())
	all := testLeaves(20)
	for n := 1; n <= len(all); n++ {
		for m := range n {
			r := testReceipt(t, s, all[:n], m)
			if cp, err := v.Verify(Entry(all[m]), r); err != nil || cp.Size != uint64(n) {
				t.Fatalf("leaf %d of %d: %+v, %v", m, n, cp, err)
			}
			if err := VerifyReceipt(s.Key(), Entry(all[(m+1)%len(all)]), r); carnet.CodeOf(err) != carnet.Tampered {
				t.Fatalf("receipt of leaf %d of %d for another entry: %v", m, n, err)
			}
			back, err := ParseReceipt(r.Marshal())
			if err != nil || !bytes.Equal(back.Marshal(), r.Marshal()) {
				t.Fatalf("leaf %d of %d: read back as %+v, %v", m, n, back, err)
			}
		}
	}
}

func TestNoBitOfAReceiptCanChange(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	leaves := testLeaves(11)
	good := testReceipt(t, s, leaves, 5).Marshal()
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			r, err := ParseReceipt(b)
			if err == nil {
				err = VerifyReceipt(s.Key(), Entry(leaves[5]), r)
			}
			if err == nil {
				t.Errorf("bit %d of byte %d changed and the receipt holds", bit, i)
			}
		}
	}
	for n := range good {
		if _, err := ParseReceipt(good[:n]); err == nil {
			t.Errorf("the first %d bytes were read as a receipt", n)
		}
	}
	if _, err := ParseReceipt(append(good, 0)); err == nil {
		t.Error("a receipt with a byte after it was read")
	}
}

func TestReceiptsSayWhatFails(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	leaves := testLeaves(11)
	good := testReceipt(t, s, leaves, 5)
	older := testReceipt(t, s, leaves[:9], 5)
	for _, c := range []struct {
		what   string
		key    Key
		change func(*Receipt)
		says   string
	}{
		{"another ledger", testSigner(t, "other.example/ledger", 1).Key(), func(*Receipt) {}, "not signed by"},
		{"another key", testSigner(t, "vault.example/ledger", 2).Key(), func(*Receipt) {}, "not signed by"},
		{"leaf beyond the tree", s.Key(), func(r *Receipt) { r.Index = 11 }, "leaf 11 of a ledger of 11"},
		{"another leaf", s.Key(), func(r *Receipt) { r.Index = 4 }, "another root"},
		{"path too short", s.Key(), func(r *Receipt) { r.Path = r.Path[1:] }, "inclusion path"},
		{"path too long", s.Key(), func(r *Receipt) { r.Path = append(r.Path, [32]byte{}) }, "inclusion path"},
		{"signature of another root", s.Key(), func(r *Receipt) { r.Signature = older.Signature }, "COSE signature"},
		{"path in another tree", s.Key(), func(r *Receipt) { r.Checkpoint, r.Signature = older.Checkpoint, older.Signature }, "inclusion path"},
		{"no checkpoint", s.Key(), func(r *Receipt) { r.Checkpoint = nil }, "not signed by"},
		{"no key", Key{Origin: "vault.example/ledger"}, func(*Receipt) {}, "trusted key"},
	} {
		r := good
		r.Path = slices.Clone(good.Path)
		c.change(&r)
		err := VerifyReceipt(c.key, Entry(leaves[5]), r)
		if carnet.CodeOf(err) != carnet.Tampered || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", c.what, err, c.says)
		}
	}
}

func TestCheckpointsHaveOneFormOnly(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	root := make([]byte, 32)
	sign := func(text string, signers ...note.Signer) []byte {
		b, err := note.Sign(&note.Note{Text: text}, signers...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	text := string(log.Checkpoint{Origin: s.Name(), Size: 7, Hash: root}.Marshal())
	good := sign(text, s)
	if cp, err := ParseCheckpoint(s.Key(), good); err != nil || cp != (Checkpoint{Origin: s.Name(), Size: 7}) {
		t.Fatalf("%+v, %v", cp, err)
	}
	// The last character before the padding holds two bits that decode to nothing.
	spelt := bytes.Clone(good)
	at := bytes.LastIndexByte(spelt, '=') - 1
	spelt[at] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", spelt[at])+1]

	for what, b := range map[string][]byte{
		"an extension line":     sign(text+"more\n", s),
		"a second signature":    sign(text, s, testSigner(t, "witness.example", 3)),
		"the same line twice":   append(bytes.Clone(good), good[bytes.Index(good, []byte("\n\n"))+2:]...),
		"other base64":          spelt,
		"a size with a zero":    sign(strings.Replace(text, "\n7\n", "\n07\n", 1), s),
		"a size with a sign":    sign(strings.Replace(text, "\n7\n", "\n+7\n", 1), s),
		"a short root":          sign(s.Name()+"\n7\nAAAA\n", s),
		"another origin inside": sign(strings.Replace(text, "vault", "vauld", 1), s),
		"too much":              sign(text+strings.Repeat("x", maxCheckpoint)+"\n", s),
		"nothing":               nil,
	} {
		if cp, err := ParseCheckpoint(s.Key(), b); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("%s: %+v, %v", what, cp, err)
		}
	}
}

func TestKeysComeBackAsTheyWere(t *testing.T) {
	k := testSigner(t, "vault.example/ledger", 1).Key()
	back, err := ParseKey(k.String())
	if err != nil || back.Origin != k.Origin || !back.Public.Equal(k.Public) {
		t.Errorf("%+v, %v, want %+v", back, err, k)
	}
	for _, s := range []string{"", "x", k.String() + "x", strings.Replace(k.String(), "vault", "vauld", 1), "a b+00000000+AAAA"} {
		if _, err := ParseKey(s); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("key %q: %v", s, err)
		}
	}
}

func TestConsistencyBetweenCheckpoints(t *testing.T) {
	leaves := testLeaves(20)
	cp := func(n int) Checkpoint { return Checkpoint{"o", uint64(n), treeHash(leaves[:n])} }
	for n := 1; n <= len(leaves); n++ {
		for m := 1; m <= n; m++ {
			path := consistencyPath(m, leaves[:n], true)
			if err := VerifyConsistency(cp(m), cp(n), path); err != nil {
				t.Fatalf("%d to %d: %v", m, n, err)
			}
			forked := cp(m)
			forked.Root[0] ^= 1
			if err := VerifyConsistency(forked, cp(n), path); carnet.CodeOf(err) != carnet.Tampered {
				t.Fatalf("%d to %d from another past: %v", m, n, err)
			}
		}
	}
	other := cp(5)
	other.Origin = "p"
	if err := VerifyConsistency(cp(5), other, nil); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("two ledgers: %v", err)
	}
	if err := VerifyConsistency(cp(7), cp(5), nil); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("a ledger that shrank: %v", err)
	}
}

func TestCOSEReceiptIsOneForAnotherImplementation(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	leaves := testLeaves(11)
	r := testReceipt(t, s, leaves, 5)
	b, err := r.COSE()
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyCOSE(s.Key(), Entry(leaves[5]), b); err != nil {
		t.Fatal(err)
	}
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(b); err != nil {
		t.Fatal(err)
	}
	if m.Payload != nil {
		t.Fatal("the payload is not detached")
	}
	if alg, err := m.Headers.Protected.Algorithm(); err != nil || alg != cose.AlgorithmEdDSA {
		t.Errorf("algorithm %v, %v", alg, err)
	}
	if vds := m.Headers.Protected[int64(395)]; vds != int64(1) {
		t.Errorf("verifiable data structure %v, want 1", vds)
	}
	id := s.Key().ID()
	if kid := m.Headers.Protected[cose.HeaderLabelKeyID]; !bytes.Equal(kid.([]byte), id[:]) {
		t.Errorf("kid %x, want %x", kid, id)
	}
	proofs := m.Headers.Unprotected[int64(396)].(map[any]any)[int64(-1)].([]any)
	if want := inclusionProof(11, 5, r.Path); len(proofs) != 1 || !bytes.Equal(proofs[0].([]byte), want) {
		t.Errorf("proofs %x, want %x", proofs, want)
	}
	root := treeHash(leaves)
	m.Payload = root[:]
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, s.Key().Public)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(nil, verifier); err != nil {
		t.Error(err)
	}
}

func TestNoBitOfACOSEReceiptCanChange(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	leaves := testLeaves(11)
	good, err := testReceipt(t, s, leaves, 5).COSE()
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			err := VerifyCOSE(s.Key(), Entry(leaves[5]), b)
			if err == nil && provesTheSame(good, b) {
				continue
			}
			if err == nil {
				t.Errorf("bit %d of byte %d changed and the receipt holds: %x", bit, i, b)
			}
		}
	}
	if err := VerifyCOSE(s.Key(), Entry(leaves[5]), append(good, 0)); err == nil {
		t.Error("a receipt with a byte after it holds")
	}
	if err := VerifyCOSE(s.Key(), Entry(leaves[4]), good); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("for another entry: %v", err)
	}
	if err := VerifyCOSE(Key{}, Entry(leaves[5]), good); err == nil {
		t.Error("holds without a key")
	}
}

// provesTheSame: RFC 9942 signs the root only, so a tree size that gives the
// path the same shape can't be told from the right one; which is why a Receipt
// carries the checkpoint.
func provesTheSame(a, b []byte) bool {
	size := bytes.Index(a, []byte{0x83, 11, 5}) + 1 // [11, 5, path]
	b = bytes.Clone(b)
	b[size] = 11
	return bytes.Equal(a, b)
}

// testdata/receipt.txt is published: key, entry, receipt and COSE form.
func TestPublishedReceiptVector(t *testing.T) {
	raw, err := os.ReadFile("testdata/receipt.txt")
	if err != nil {
		t.Fatal(err)
	}
	field := make(map[string]string)
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			field[name] = value
		}
	}
	unhex := func(name string) []byte {
		b, err := hex.DecodeString(field[name])
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		return b
	}
	key, err := ParseKey(field["key"])
	if err != nil {
		t.Fatal(err)
	}
	entry := Entry(unhex("entry"))
	r, err := ParseReceipt(unhex("receipt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyReceipt(key, entry, r); err != nil {
		t.Error(err)
	}
	if b, err := r.COSE(); err != nil || !bytes.Equal(b, unhex("cose")) {
		t.Errorf("COSE form %x, %v, want %s", b, err, field["cose"])
	}
	if err := VerifyCOSE(key, entry, unhex("cose")); err != nil {
		t.Error(err)
	}
}

func TestExchangeLists(t *testing.T) {
	s := testSigner(t, "vault.example/ledger", 1)
	leaves := testLeaves(3)
	receipts := []Receipt{testReceipt(t, s, leaves, 0), testReceipt(t, s, leaves, 2)}
	back, err := ParseReceipts(MarshalReceipts(receipts))
	if err != nil || len(back) != 2 || !bytes.Equal(back[1].Marshal(), receipts[1].Marshal()) {
		t.Errorf("%+v, %v", back, err)
	}
	entries := []Entry{Entry(leaves[0]), Entry(leaves[1])}
	if got, err := ParseEntries(MarshalEntries(entries)); err != nil || !slices.Equal(got, entries) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := ParseEntries(MarshalEntries(make([]Entry, MaxEntries+1))); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too many entries: %v", err)
	}
	for _, in := range []string{"", "81", "8141", "81581f" + strings.Repeat("00", 31), "80" + "00", "9fff", "9bffffffffffffffff"} {
		b, _ := hex.DecodeString(in)
		if _, err := ParseEntries(b); err == nil {
			t.Errorf("%s was read as entries", in)
		}
		if _, err := ParseReceipts(b); err == nil {
			t.Errorf("%s was read as receipts", in)
		}
	}
}

func FuzzReceipt(f *testing.F) {
	s := testSigner(f, "vault.example/ledger", 1)
	leaves := testLeaves(11)
	r := testReceipt(f, s, leaves, 5)
	cose, err := r.COSE()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Marshal())
	f.Add(cose)
	f.Add(MarshalReceipts([]Receipt{r, r}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseReceipt(b); err == nil {
			if !bytes.Equal(r.Marshal(), b) {
				t.Fatalf("%x was read and written as %x", b, r.Marshal())
			}
			_, _ = r.COSE()
			_ = VerifyReceipt(s.Key(), Entry{}, r)
		}
		if rs, err := ParseReceipts(b); err == nil && !bytes.Equal(MarshalReceipts(rs), b) {
			t.Fatalf("%x was read and written as %x", b, MarshalReceipts(rs))
		}
		if es, err := ParseEntries(b); err == nil && !bytes.Equal(MarshalEntries(es), b) {
			t.Fatalf("%x was read and written as %x", b, MarshalEntries(es))
		}
		_ = VerifyCOSE(s.Key(), Entry{}, b)
	})
}

func BenchmarkVerifyReceipt(b *testing.B) {
	s := testSigner(b, "vault.example/ledger", 1)
	leaves := testLeaves(1000)
	r := testReceipt(b, s, leaves, 500)
	b.Run("first of a checkpoint", func(b *testing.B) {
		for b.Loop() {
			if err := VerifyReceipt(s.Key(), Entry(leaves[500]), r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("another of it", func(b *testing.B) {
		v := NewVerifier(s.Key())
		for b.Loop() {
			if _, err := v.Verify(Entry(leaves[500]), r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStatement(b *testing.B) {
	s := everyKind()[0]
	for b.Loop() {
		m, err := s.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		EntryOf(Salt{}, m)
	}
}
