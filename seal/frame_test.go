package seal

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"carnet"
)

var frameHeader = FrameHeader{
	Audience: "arena", Incarnation: 1 << 32, Number: 77, Previous: carnet.Fingerprint{1, 2, 3},
	Policy: 5, Time: 1_795_000_000_000_000_000, Covers: [16]byte{9: 9},
}

func newSigner(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pub, key
}

func someBatches(t testing.TB, n int) [][]byte {
	_, s := newSlot(t, 1)
	batches := make([][]byte, n)
	for i := range batches {
		batches[i] = sealed(t, s, uint64(i), body(t, 5))
	}
	return batches
}

func signedFrame(t testing.TB, key crypto.Signer, batches [][]byte) []byte {
	t.Helper()
	wire, err := SignFrame(key, frameHeader, batches)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestFrameRoundTrip(t *testing.T) {
	pub, key := newSigner(t)
	var sent, got Frame // used again for each frame
	for _, n := range []int{3, 0, 1, 256, 2} {
		batches := someBatches(t, n)
		if err := sent.Sign(key, frameHeader, batches); err != nil {
			t.Fatal(err)
		}
		if err := got.Parse(sent.AppendWire(nil)); err != nil {
			t.Fatal(err)
		}
		if err := got.Verify(pub, "arena"); err != nil {
			t.Fatal(err)
		}
		want := frameHeader
		want.Sender, want.Count = KeyID(pub), uint32(n)
		if got.Header != want {
			t.Errorf("header is %+v, want %+v", got.Header, want)
		}
		if got.Hash() != sent.Hash() || got.Hash() != carnet.FingerprintOf(got.Sign1) || got.Root != Root(got.Leaves) {
			t.Error("hash or root differ")
		}
		if len(got.Leaves) != n || len(got.Batches) != n {
			t.Fatalf("%d leaves, %d batches, want %d", len(got.Leaves), len(got.Batches), n)
		}
		for i, b := range batches {
			if !bytes.Equal(got.Batches[i], b) || got.Leaves[i] != carnet.FingerprintOf(b) {
				t.Errorf("batch %d differs", i)
			}
		}
		h, root, err := VerifySign1(got.Sign1, pub)
		if err != nil || h != want || root != got.Root {
			t.Errorf("the signed header alone: %v", err)
		}
	}
}

func TestFrameWithAnyBitFlippedIsRefused(t *testing.T) {
	pub, key := newSigner(t)
	var f Frame
	eachFlip(signedFrame(t, key, someBatches(t, 2)), func(at int, flipped []byte) {
		if f.Parse(flipped) == nil && f.Verify(pub, "arena") == nil {
			t.Errorf("bit %d of byte %d flipped: accepted", at%8, at/8)
		}
	})
}

func TestFrameCutOffOrExtendedIsRefused(t *testing.T) {
	_, key := newSigner(t)
	wire := signedFrame(t, key, someBatches(t, 2))
	for n := range wire {
		if _, err := ParseFrame(wire[:n]); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	if _, err := ParseFrame(append(wire, 0)); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := ParseFrame(make([]byte, MaxFrame+1)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("over the limit: %v", err)
	}
}

func TestFrameOfOthersIsRefused(t *testing.T) {
	pub, key := newSigner(t)
	otherPub, otherKey := newSigner(t)
	batches := someBatches(t, 3)
	var f Frame
	for name, c := range map[string]struct {
		pub      ed25519.PublicKey
		audience carnet.PartyID
		change   func(f *Frame)
		code     carnet.Code
	}{
		"nothing wrong":         {pub, "arena", func(*Frame) {}, ""},
		"other audience":        {pub, "clinic", func(*Frame) {}, carnet.Forbidden},
		"other key":             {otherPub, "arena", func(*Frame) {}, carnet.Tampered},
		"no key":                {nil, "arena", func(*Frame) {}, carnet.Tampered},
		"batches exchanged":     {pub, "arena", func(f *Frame) { f.Batches[0], f.Batches[1] = f.Batches[1], f.Batches[0] }, carnet.Tampered},
		"batch doubled":         {pub, "arena", func(f *Frame) { f.Batches = append(f.Batches, f.Batches[2]) }, carnet.Tampered},
		"batch missing":         {pub, "arena", func(f *Frame) { f.Batches = f.Batches[:2] }, carnet.Tampered},
		"signed by another key": {pub, "arena", func(f *Frame) { signAs(t, f, KeyID(pub), otherKey) }, carnet.Tampered},
		"names another key":     {pub, "arena", func(f *Frame) { signAs(t, f, KeyID(otherPub), key) }, carnet.Tampered},
	} {
		if err := f.Parse(signedFrame(t, key, batches)); err != nil {
			t.Fatal(err)
		}
		c.change(&f)
		if err := f.Verify(c.pub, c.audience); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %q", name, err, c.code)
		}
	}
}

// signAs signs f by key and has it name kid.
func signAs(t *testing.T, f *Frame, kid carnet.Fingerprint, key crypto.Signer) {
	f.Header.Sender = kid
	var err error
	if f.Sign1, _, err = appendSign1(nil, nil, key, f.Header.append(nil), f.Root[:]); err != nil {
		t.Fatal(err)
	}
}

func TestSignRefuses(t *testing.T) {
	_, key := newSigner(t)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big := make([][]byte, MaxFrame/MaxBatch)
	for i := range big {
		big[i] = make([]byte, MaxBatch)
	}
	for name, c := range map[string]struct {
		key      crypto.Signer
		audience carnet.PartyID
		batches  [][]byte
		code     carnet.Code
	}{
		"audience":         {key, "Arena", nil, carnet.Malformed},
		"key type":         {ecKey, "arena", nil, carnet.Malformed},
		"too many batches": {key, "arena", make([][]byte, MaxFrameBatches+1), carnet.TooLarge},
		"empty batch":      {key, "arena", [][]byte{{}}, carnet.TooLarge},
		"too many bytes":   {key, "arena", big, carnet.TooLarge},
		"batch too large":  {key, "arena", [][]byte{make([]byte, MaxBatch+1)}, carnet.TooLarge},
	} {
		h := frameHeader
		h.Audience = c.audience
		if _, err := SignFrame(c.key, h, c.batches); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %s", name, err, c.code)
		}
	}
}

// TestSign1IsThatOfGoCOSE has veraison/go-cose verify our signatures, sign the
// same content itself, and compares: Ed25519 is deterministic.
func TestSign1IsThatOfGoCOSE(t *testing.T) {
	pub, key := newSigner(t)
	var f Frame
	if err := f.Sign(key, frameHeader, someBatches(t, 3)); err != nil {
		t.Fatal(err)
	}
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, pub)
	if err != nil {
		t.Fatal(err)
	}
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(f.Sign1); err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(nil, verifier); err != nil {
		t.Errorf("go-cose refuses our signature: %v", err)
	}
	if !bytes.Equal(m.Payload, f.Root[:]) {
		t.Error("go-cose reads another payload")
	}

	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	if err != nil {
		t.Fatal(err)
	}
	h := f.Header
	theirs := cose.Sign1Message{
		Headers: cose.Headers{Protected: cose.ProtectedHeader{
			cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA,
			cose.HeaderLabelKeyID:     h.Sender[:],
			int64(16):                 typeFrame,
			int64(-65537): []any{1, string(h.Audience), h.Incarnation, h.Number, h.Previous[:],
				h.Count, h.Policy, h.Time, h.Covers[:]},
		}},
		Payload: f.Root[:],
	}
	if err := theirs.Sign(rand.Reader, nil, signer); err != nil {
		t.Fatal(err)
	}
	data, err := theirs.MarshalCBOR()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, f.Sign1) {
		t.Errorf("go-cose writes\n%x, we\n%x", data, f.Sign1)
	}
	if got, _, err := VerifySign1(data, pub); err != nil || got != h {
		t.Errorf("we refuse the signature of go-cose: %v", err)
	}
}

// TestFormatsAreDeterministicCBOR has fxamacker/cbor decode what we write and
// encode it again by RFC 8949 §4.2.1.
func TestFormatsAreDeterministicCBOR(t *testing.T) {
	_, key := newSigner(t)
	em, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	batches := someBatches(t, 1)
	var f Frame
	if err := f.Sign(key, frameHeader, batches); err != nil {
		t.Fatal(err)
	}
	_, protected, _, err := parseBatch(batches[0])
	if err != nil {
		t.Fatal(err)
	}
	s, _ := parseSign1(f.Sign1, 32)
	bag := Bag{Granter: "hub", Reader: "arena", Purpose: "play", Time: now, NotAfter: now, Entries: entriesOfEachLevel(t)}
	for name, data := range map[string][]byte{
		"batch": batches[0], "batch header": protected[2:], "frame": f.Sign1, "frame header": s.protected,
		"bag": bag.append(nil), "body": bytes.TrimRight(body(t, 3), "\x00"),
	} {
		var content any
		if err := cbor.Unmarshal(data, &content); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := em.Marshal(content); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: encoded again as %x, want %x (%v)", name, again, data, err)
		}
	}
}
