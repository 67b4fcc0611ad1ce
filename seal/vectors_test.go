package seal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"carnet"
)

// The published vectors were written once, by go test -update, with the fixed
// randomness of vectorSource. Ever after, sealing must give the same bytes and
// opening the same contents.
var update = flag.Bool("update", false, "write testdata anew; that breaks compatibility")

type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }
func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func vectorSource() *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte([]byte("carnet/1 published test vectors.")))
}

// loadVectors reads testdata/name, or writes made there first with -update.
func loadVectors[T any](t *testing.T, name string, made func() []T) []T {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		data, err := json.MarshalIndent(made(), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []T
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil || len(list) == 0 {
		t.Fatalf("%s: %d vectors, %v", path, len(list), err)
	}
	return list
}

type batchVector struct {
	EpochKey    hexBytes           `json:"epoch_key"`
	Stream      carnet.StreamID    `json:"stream"`
	Epoch       carnet.EpochID     `json:"epoch"`
	Slot        uint32             `json:"slot"`
	Number      uint64             `json:"number"`
	Salt        hexBytes           `json:"salt"`
	Nonce       hexBytes           `json:"nonce"`
	SlotKey     hexBytes           `json:"slot_key"`
	BatchKey    hexBytes           `json:"batch_key"`
	ContentKey  hexBytes           `json:"content_key"`
	Commitment  hexBytes           `json:"commitment"`
	Sensitivity carnet.Sensitivity `json:"sensitivity"`
	Purposes    carnet.Set         `json:"purposes"`
	Residency   carnet.Set         `json:"residency"`
	Retention   carnet.Retention   `json:"retention"`
	Hour        uint32             `json:"hour"`
	First       uint64             `json:"first"`
	Count       uint32             `json:"count"`
	Content     hexBytes           `json:"content"`
	Body        hexBytes           `json:"body"`
	Batch       hexBytes           `json:"batch"`
	Fingerprint carnet.Fingerprint `json:"fingerprint"`
}

func (v *batchVector) body() Body {
	return Body{carnet.Label{Sensitivity: v.Sensitivity, Purposes: v.Purposes, Residency: v.Residency}, v.Retention, v.Hour, v.First, v.Count, v.Content}
}

// compute fills in every field that follows from the others.
func (v *batchVector) compute(t *testing.T) {
	t.Helper()
	epoch := Key{Path{Level: EpochLevel, Stream: v.Stream, Epoch: v.Epoch}, [32]byte(v.EpochKey)}
	slot, err := epoch.Slot(v.Slot)
	if err != nil {
		t.Fatal(err)
	}
	batchKey := slot.BatchKey(Header{Number: v.Number, Salt: [16]byte(v.Salt)})
	content, commitment := contentKey(&batchKey.Secret)
	v.SlotKey, v.BatchKey = slot.key.Secret[:], batchKey.Secret[:]
	v.ContentKey, v.Commitment = content[:], commitment[:]
	if v.Body, err = AppendBody(nil, v.body()); err != nil {
		t.Fatal(err)
	}
	random := [28]byte(append(bytes.Clone(v.Salt), v.Nonce...))
	if v.Batch, err = slot.seal(nil, v.Number, v.Body, &random); err != nil {
		t.Fatal(err)
	}
	v.Fingerprint = carnet.FingerprintOf(v.Batch)
}

func makeBatchVectors(t *testing.T) []batchVector {
	r := vectorSource()
	draw := func(n int) hexBytes { b := make([]byte, n); r.Read(b); return b }
	var list []batchVector
	for i, number := range []uint64{0, 23, 24, 255, 256, 65_535, 65_536, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
		v := batchVector{
			EpochKey: draw(32), Stream: carnet.StreamID(draw(16)), Epoch: carnet.EpochID(draw(8)),
			Slot: uint32(min(number, 1<<32-1)), Number: number, Salt: draw(16), Nonce: draw(12),
			Sensitivity: carnet.Sensitivity(i % 8), Retention: carnet.Retention(i%5 + 1),
			Hour: uint32(498_000 + i), First: number, Count: uint32(i), Content: draw(i * 13),
		}
		if i%2 == 1 {
			v.Purposes, v.Residency = carnet.NewSet("play", "care"), carnet.NewSet("eu")
		}
		v.compute(t)
		list = append(list, v)
	}
	return list
}

func TestBatchVectors(t *testing.T) {
	for i, v := range loadVectors(t, "batch.json", func() []batchVector { return makeBatchVectors(t) }) {
		again := v
		again.compute(t)
		if a, b := mustJSON(t, again), mustJSON(t, v); a != b {
			t.Errorf("vector %d: sealed is\n%s, want\n%s", i, a, b)
		}
		path := Path{Level: EpochLevel, Stream: v.Stream, Epoch: v.Epoch}
		keys := []Key{{path, [32]byte(v.EpochKey)}}
		path.Level, path.Slot = SlotLevel, v.Slot
		keys = append(keys, Key{path, [32]byte(v.SlotKey)})
		path.Level, path.Number = BatchLevel, v.Number
		keys = append(keys, Key{path, [32]byte(v.BatchKey)})
		for _, k := range keys {
			got, err := OpenWith(k, nil, v.Batch)
			if err != nil || !bytes.Equal(got, v.Body) {
				t.Errorf("vector %d: with %s: %v", i, k, err)
			}
		}
		b, err := ParseBody(v.Body)
		if err != nil || mustJSON(t, b) != mustJSON(t, v.body()) {
			t.Errorf("vector %d: body is %+v, %v", i, b, err)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

type frameVector struct {
	Seed        hexBytes             `json:"seed"` // of the Ed25519 key (RFC 8032)
	Audience    carnet.PartyID       `json:"audience"`
	Sender      carnet.Fingerprint   `json:"sender"`
	Incarnation uint64               `json:"incarnation"`
	Number      uint64               `json:"number"`
	Previous    carnet.Fingerprint   `json:"previous"`
	Policy      uint64               `json:"policy"`
	Time        int64                `json:"time"`
	Covers      hexBytes             `json:"covers"`
	Batches     []hexBytes           `json:"batches"`
	Leaves      []carnet.Fingerprint `json:"leaves"`
	Root        carnet.Fingerprint   `json:"root"`
	Sign1       hexBytes             `json:"sign1"`
	Hash        carnet.Fingerprint   `json:"hash"`
	Wire        hexBytes             `json:"wire"`
}

func (v *frameVector) header() FrameHeader {
	return FrameHeader{v.Audience, v.Sender, v.Incarnation, v.Number, v.Previous, uint32(len(v.Batches)), v.Policy, v.Time, [16]byte(v.Covers)}
}

func (v *frameVector) compute(t *testing.T) {
	t.Helper()
	var batches [][]byte
	for _, b := range v.Batches {
		batches = append(batches, b)
	}
	var f Frame
	if err := f.Sign(ed25519.NewKeyFromSeed(v.Seed), v.header(), batches); err != nil {
		t.Fatal(err)
	}
	v.Sender, v.Root, v.Leaves = f.Header.Sender, f.Root, f.Leaves
	v.Sign1, v.Hash, v.Wire = f.Sign1, f.Hash(), f.AppendWire(nil)
}

func makeFrameVectors(t *testing.T) []frameVector {
	r := vectorSource()
	draw := func(n int) hexBytes { b := make([]byte, n); r.Read(b); return b }
	batches := makeBatchVectors(t)
	var list []frameVector
	for _, n := range []int{0, 1, 2, 5} {
		v := frameVector{
			Seed: draw(32), Audience: "arena", Incarnation: uint64(n) << 40, Number: uint64(n) * 300,
			Previous: carnet.Fingerprint(draw(32)), Policy: uint64(n), Time: int64(n-1) * 1_795_000_000_000_000_000, Covers: draw(16),
		}
		for _, b := range batches[:n] {
			v.Batches = append(v.Batches, b.Batch)
		}
		v.compute(t)
		list = append(list, v)
	}
	return list
}

func TestFrameVectors(t *testing.T) {
	for i, v := range loadVectors(t, "frame.json", func() []frameVector { return makeFrameVectors(t) }) {
		again := v
		again.compute(t)
		if a, b := mustJSON(t, again), mustJSON(t, v); a != b {
			t.Errorf("vector %d: signed is\n%s, want\n%s", i, a, b)
		}
		f, err := ParseFrame(v.Wire)
		if err != nil {
			t.Fatalf("vector %d: %v", i, err)
		}
		pub := ed25519.NewKeyFromSeed(v.Seed).Public().(ed25519.PublicKey)
		if err := f.Verify(pub, v.Audience); err != nil || f.Header != v.header() || f.Root != v.Root {
			t.Errorf("vector %d: header %+v, root %s, %v", i, f.Header, f.Root, err)
		}
	}
}

type entryVector struct {
	Level       Level              `json:"level"`
	Stream      carnet.StreamID    `json:"stream"`
	Epoch       carnet.EpochID     `json:"epoch"`
	Slot        uint32             `json:"slot"`
	Number      uint64             `json:"number"`
	Key         hexBytes           `json:"key"`
	Sensitivity carnet.Sensitivity `json:"sensitivity"`
	Purposes    carnet.Set         `json:"purposes"`
	Residency   carnet.Set         `json:"residency"`
}

// bagVector's signed bag and announcement are computed again; the sealed bag is
// only opened, since HPKE draws its own randomness.
type bagVector struct {
	GranterSeed  hexBytes       `json:"granter_seed"`
	ReaderSeed   hexBytes       `json:"reader_seed"`
	Reception    hexBytes       `json:"reception_key"` // private, 32 bytes (X-Wing)
	Granter      carnet.PartyID `json:"granter"`
	Reader       carnet.PartyID `json:"reader"`
	Grant        hexBytes       `json:"grant"`
	Purpose      string         `json:"purpose"`
	Time         int64          `json:"time"`
	NotAfter     int64          `json:"not_after"`
	Entries      []entryVector  `json:"entries"`
	Announcement hexBytes       `json:"announcement"`
	Signed       hexBytes       `json:"signed"`
	Sealed       hexBytes       `json:"sealed"`
}

func (v *bagVector) parties(t *testing.T) (granter, reader ed25519.PrivateKey, reception *ReceptionKey) {
	t.Helper()
	reception, err := ParseReceptionKey(v.Reception)
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(v.GranterSeed), ed25519.NewKeyFromSeed(v.ReaderSeed), reception
}

func (v *bagVector) entries() (list []Entry) {
	for _, e := range v.Entries {
		list = append(list, Entry{
			Key{Path{e.Level, e.Stream, e.Epoch, e.Slot, e.Number}, [32]byte(e.Key)},
			carnet.Label{Sensitivity: e.Sensitivity, Purposes: e.Purposes, Residency: e.Residency},
		})
	}
	return list
}

func (v *bagVector) compute(t *testing.T) {
	t.Helper()
	granter, reader, reception := v.parties(t)
	var err error
	if v.Announcement, err = reception.Announce(reader, v.Reader, time.Unix(0, v.NotAfter)); err != nil {
		t.Fatal(err)
	}
	kid, _ := signerID(granter)
	b := Bag{Granter: v.Granter, Reader: v.Reader, Reception: reception.ID(), Grant: [16]byte(v.Grant), Purpose: v.Purpose,
		Time: time.Unix(0, v.Time), NotAfter: time.Unix(0, v.NotAfter), Entries: v.entries()}
	if v.Signed, _, err = appendSign1(nil, nil, granter, appendProtected(nil, 3, kid, typeBag), b.append(nil)); err != nil {
		t.Fatal(err)
	}
}

func makeBagVectors(t *testing.T) []bagVector {
	r := vectorSource()
	draw := func(n int) hexBytes { b := make([]byte, n); r.Read(b); return b }
	v := bagVector{
		GranterSeed: draw(32), ReaderSeed: draw(32), Reception: draw(32), Granter: "hub", Reader: "arena",
		Grant: draw(16), Purpose: "play", Time: now.UnixNano(), NotAfter: now.Add(time.Hour).UnixNano(),
	}
	for level := EpochLevel; level <= BatchLevel; level++ {
		e := entryVector{Level: level, Stream: carnet.StreamID(draw(16)), Epoch: carnet.EpochID(draw(8)), Key: draw(32),
			Sensitivity: carnet.Health, Purposes: carnet.NewSet("play", "care")}
		if level >= SlotLevel {
			e.Slot = 1000
		}
		if level == BatchLevel {
			e.Number = binary.BigEndian.Uint64(draw(8))
		}
		v.Entries = append(v.Entries, e)
	}
	v.compute(t)
	granter, reader, _ := v.parties(t)
	to, err := ParseReception(v.Announcement, reader.Public().(ed25519.PublicKey), now)
	if err != nil {
		t.Fatal(err)
	}
	v.Sealed, err = Grant(granter, to, Terms{Granter: v.Granter, Grant: [16]byte(v.Grant), Purpose: v.Purpose,
		Clearance: carnet.Clearance{Sensitivity: carnet.Health, Purposes: carnet.NewSet("play")},
		Time:      time.Unix(0, v.Time), NotAfter: time.Unix(0, v.NotAfter)}, v.entries())
	if err != nil {
		t.Fatal(err)
	}
	return []bagVector{v}
}

func TestBagVectors(t *testing.T) {
	for i, v := range loadVectors(t, "bag.json", func() []bagVector { return makeBagVectors(t) }) {
		again := v
		again.compute(t)
		if a, b := mustJSON(t, again), mustJSON(t, v); a != b {
			t.Errorf("vector %d: signed is\n%s, want\n%s", i, a, b)
		}
		granter, reader, reception := v.parties(t)
		if _, err := ParseReception(v.Announcement, reader.Public().(ed25519.PublicKey), now); err != nil {
			t.Errorf("vector %d: %v", i, err)
		}
		b, err := reception.OpenBag(v.Sealed, Expected{v.Granter, granter.Public().(ed25519.PublicKey), v.Reader, now})
		if err != nil {
			t.Fatalf("vector %d: %v", i, err)
		}
		if b.Purpose != v.Purpose || b.Grant != [16]byte(v.Grant) || b.Time.UnixNano() != v.Time || b.NotAfter.UnixNano() != v.NotAfter {
			t.Errorf("vector %d: bag is %+v", i, b)
		}
		for j, e := range v.entries() {
			if j >= len(b.Entries) || b.Entries[j] != e {
				t.Errorf("vector %d: entry %d differs", i, j)
			}
		}
	}
}
