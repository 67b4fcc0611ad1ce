package avatar

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
	"carnet/senml"
)

// memoryStore keeps what the reading of evidence and compaction need.
type memoryStore struct {
	Store
	documents map[string]carnet.Document
	frames    []FrameRow
	stretches []StretchRow

	waiting waiting
}

// waiting is statements without a receipt.
type waiting chan []ledger.Item

func (m *memoryStore) Pending(_ context.Context, after uint64, limit int) (out []ledger.Item, _ error) {
	items := <-m.waiting
	defer func() { m.waiting <- items }()
	for _, item := range items {
		if item.ID > after && len(out) < limit {
			out = append(out, item)
		}
	}
	return out, nil
}

func (m *memoryStore) Links(context.Context) ([]LinkRow, error) { return nil, nil }

func (m *memoryKeys) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (m *memoryStore) Put(_ context.Context, documents []carnet.Document, _ []ledger.Item) error {
	for _, d := range documents {
		m.documents[d.Kind+" "+d.ID] = d
	}
	return nil
}

func (m *memoryStore) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	if d, ok := m.documents[kind+" "+id]; ok && d.Body != nil {
		return d, nil
	}
	return carnet.Document{}, carnet.Errorf(carnet.NotFound, "no document %s %s", kind, id)
}

func (m *memoryStore) DocumentPage(_ context.Context, kind, after string, limit int) (out []carnet.Document, _ error) {
	for _, d := range m.documents {
		if d.Kind == kind && d.ID > after && d.Body != nil {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(p, q carnet.Document) int { return cmp.Compare(p.ID, q.ID) })
	return out[:min(len(out), limit)], nil
}

func (m *memoryStore) Frames(_ context.Context, after uint64, limit int) (out []FrameRow, _ error) {
	for _, f := range m.frames {
		if f.ID > after && f.Body != nil && limit > 0 {
			out, limit = append(out, f), limit-len(f.Body)
		}
	}
	return out, nil
}

func (m *memoryStore) FrameHeaders(_ context.Context, after uint64, limit int) (out []FrameRow, _ error) {
	for _, f := range m.frames {
		if f.Body = nil; f.ID > after && len(out) < limit {
			out = append(out, f)
		}
	}
	return out, nil
}

func (m *memoryStore) Compact(_ context.Context, c Compaction) error {
	for _, s := range c.Strip {
		m.frames[s.Frame-1].Body, m.frames[s.Frame-1].Leaves = nil, s.Leaves
	}
	m.stretches = append(m.stretches, c.Stretches...)
	return nil
}

func (m *memoryStore) Stretches(_ context.Context, id carnet.StreamID, _, _ int64) (out []StretchRow, _ error) {
	for i, s := range m.stretches {
		if s.Stream == id {
			s.ID, s.Body = uint64(i), nil
			out = append(out, s)
		}
	}
	return out, nil
}

func (m *memoryStore) StretchBody(_ context.Context, id uint64) ([]byte, error) {
	return m.stretches[id].Body, nil
}

type memoryKeys struct {
	mu   sync.Mutex
	rows []keys.Row
}

func (m *memoryKeys) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if r.ID == id {
			return r, nil
		}
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "no key %s", id)
}

func (m *memoryKeys) Page(_ context.Context, after keys.ID, limit int) (out []keys.Row, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(m.rows, func(p, q keys.Row) int {
		return cmp.Or(cmp.Compare(p.ID.Kind, q.ID.Kind), cmp.Compare(p.ID.Name, q.ID.Name))
	})
	for _, r := range m.rows {
		if len(out) < limit && cmp.Or(cmp.Compare(r.ID.Kind, after.Kind), cmp.Compare(r.ID.Name, after.Name)) > 0 {
			out = append(out, r)
		}
	}
	return out, nil
}

func (m *memoryKeys) Put(_ context.Context, _ keys.ID, rows []keys.Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range rows {
		m.rows = slices.DeleteFunc(m.rows, func(old keys.Row) bool { return old.ID == r.ID })
		m.rows = append(m.rows, r)
	}
	return nil
}

func (m *memoryKeys) Delete(_ context.Context, _ keys.ID, ids []keys.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows = slices.DeleteFunc(m.rows, func(r keys.Row) bool { return slices.Contains(ids, r.ID) })
	return nil
}

type noDepot struct{ Depot }

// provenWorld is a world with one sender that speaks about two avatars.
type provenWorld struct {
	t       testing.TB
	agent   *Agent
	store   *memoryStore
	key     ed25519.PrivateKey
	avatars []carnet.AvatarID
	epochs  []seal.Key
	next    []uint64
	sent    map[carnet.Fingerprint]int // every batch, by whose it is
}

func newProvenWorld(t testing.TB) *provenWorld {
	t.Helper()
	ctx := t.Context()
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := keys.Create(ctx, keys.Config{KEK: kek, Store: &memoryKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	w := &provenWorld{t: t, store: &memoryStore{documents: make(map[string]carnet.Document)}, sent: make(map[carnet.Fingerprint]int)}
	var pub ed25519.PublicKey
	if pub, w.key, err = ed25519.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	w.agent, err = New(ctx, Config{Party: "arena", Store: w.store, Keys: table, Depot: noDepot{}, Recorded: func() {},
		Clearance: carnet.Clearance{Purposes: "fitness"}, Senders: []Sender{{Party: "hub", Key: pub, Self: "arena", Own: w.key}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		id := carnet.NewStreamID()
		body, err := json.Marshal(carnet.MapRequest{Stream: id})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := w.agent.Call(ctx, "hub", carnet.CallMap, body)
		if err != nil {
			t.Fatal(err)
		}
		var a carnet.MapAnswer
		if err := json.Unmarshal(answer, &a); err != nil {
			t.Fatal(err)
		}
		epoch := seal.NewEpoch(id)
		if err := table.Put(ctx, keys.Entry{ID: keyID(seal.Path{Level: seal.EpochLevel, Stream: id, Epoch: epoch.Epoch}), Secret: epoch.Secret[:]}); err != nil {
			t.Fatal(err)
		}
		w.avatars, w.epochs, w.next = append(w.avatars, a.Avatar), append(w.epochs, epoch), append(w.next, 0)
	}
	return w
}

// receive stores a frame with a batch for each of whose and folds it.
func (w *provenWorld) receive(whose ...int) {
	w.t.Helper()
	var batches [][]byte
	var body []byte
	for _, i := range whose {
		slot, err := w.epochs[i].Slot(1)
		if err != nil {
			w.t.Fatal(err)
		}
		columns := senml.AppendColumns(nil, []carnet.Measurement{{Name: "steps", Time: 1e18 + int64(w.next[i])*3600e9, Value: carnet.Float(float64(w.next[i]))}})
		plain, err := seal.AppendBody(nil, seal.Body{Retention: carnet.Keep, First: w.next[i], Count: 1, Content: columns})
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := slot.Seal(nil, w.next[i], plain)
		if err != nil {
			w.t.Fatal(err)
		}
		w.next[i]++
		w.sent[carnet.FingerprintOf(b)] = i
		batches = append(batches, b)
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(b))), b...)
	}
	var f seal.Frame
	number := uint64(len(w.store.frames) + 1)
	if err := f.Sign(w.key, seal.FrameHeader{Audience: "arena", Number: number}, batches); err != nil {
		w.t.Fatal(err)
	}
	item, err := w.agent.Statement(ledger.Statement{Kind: ledger.ReceivedRoot, Time: 1, Peer: "hub", Frame: number, Root: f.Root, Header: f.Hash()})
	if err != nil {
		w.t.Fatal(err)
	}
	item.Receipt = []byte{byte(number)}
	w.store.frames = append(w.store.frames, FrameRow{ID: number, Sender: "hub", Number: number, Hash: f.Hash(), Received: 1,
		Batches: uint32(len(batches)), Header: bytes.Clone(f.Sign1), Body: body, Statement: item})
	o := newOpening()
	if err := w.agent.foldFrame(w.t.Context(), &o, &w.store.frames[number-1], true); err != nil {
		w.t.Fatal(err)
	}
}

// collect reads an avatar's evidence and checks every frame of it; between is
// called after each.
func (w *provenWorld) collect(whose int, between func(n int)) (numbers []uint64) {
	w.t.Helper()
	next := uint64(0)
	err := w.agent.Proven(w.t.Context(), w.avatars[whose], AllFolded, func(f *ProvenFrame) error {
		h, root, err := seal.VerifySign1(f.Sign1, w.key.Public().(ed25519.PublicKey))
		if err != nil {
			return err
		}
		if f.Sender != "hub" || root != seal.Root(f.Leaves) || int(h.Count) != len(f.Leaves) || !bytes.Equal(f.Receipt, []byte{byte(h.Number)}) {
			w.t.Errorf("frame %d: sender %s, %d leaves, receipt %x", h.Number, f.Sender, len(f.Leaves), f.Receipt)
		}
		if ledger.EntryOf(f.Salt, f.Statement) != w.store.frames[h.Number-1].Statement.Entry {
			w.t.Errorf("frame %d: statement and salt are not those of its entry", h.Number)
		}
		for i, b := range f.Batches {
			fp := carnet.FingerprintOf(b)
			if f.Leaves[f.Own[i]] != fp || w.sent[fp] != whose {
				w.t.Errorf("frame %d: batch %d is not leaf %d of this avatar", h.Number, i, f.Own[i])
			}
			bh, _, err := seal.ParseHeader(b)
			if err != nil {
				return err
			}
			if bh.Number != next || f.Keys[i].Level != seal.BatchLevel {
				w.t.Errorf("frame %d: batch %d with %s, want batch %d with a key of its own", h.Number, bh.Number, f.Keys[i], next)
			}
			if _, err := seal.OpenWith(f.Keys[i], nil, b); err != nil {
				w.t.Errorf("frame %d: %v", h.Number, err)
			}
			next++
		}
		numbers = append(numbers, h.Number)
		between(len(numbers))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if next != w.next[whose] {
		w.t.Errorf("%d batches of %d", next, w.next[whose])
	}
	return numbers
}

// Evidence has every frame with batches of the avatar once and in order,
// whether compacted before, after, or while it is read.
func TestProven(t *testing.T) {
	compact := func(w *provenWorld) {
		t.Helper()
		if err := w.agent.Compact(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name            string
		before, halfway bool
		during          bool
	}{{name: "nothing is compacted"}, {name: "some is", halfway: true}, {name: "all is", before: true}, {name: "it is meanwhile", during: true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newProvenWorld(t)
			w.receive(0, 1)
			w.receive(1)
			w.receive(0, 1, 0)
			if c.halfway {
				compact(w)
			}
			w.receive(1, 0)
			w.receive(0)
			if c.before {
				compact(w)
			}
			got := w.collect(0, func(n int) {
				if c.during && n == 2 {
					compact(w)
				}
			})
			if !slices.Equal(got, []uint64{1, 3, 4, 5}) {
				t.Errorf("frames %v", got)
			}
			if got := w.collect(1, func(int) {}); !slices.Equal(got, []uint64{1, 2, 3, 4}) {
				t.Errorf("the other avatar's frames %v", got)
			}
		})
	}
}

// Who waits for receipts waits for those of what there is, not for those of what
// comes meanwhile, and is given no frame that came meanwhile.
func TestSettleWhileMoreComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newProvenWorld(t)
		w.receive(0, 1)
		w.store.waiting = make(waiting, 1)
		var last uint64
		more := func(items []ledger.Item, n int) {
			for range n {
				last++
				items = append(items, ledger.Item{ID: last})
			}
			w.store.waiting <- items
		}
		more(nil, 2*settlePage)
		settled := make(chan uint64)
		go func() {
			upTo, err := w.agent.Settle(t.Context())
			if err != nil {
				t.Error(err)
			}
			settled <- upTo
		}()
		synctest.Wait()
		w.receive(0)
		half := func() { more((<-w.store.waiting)[settlePage/2:], settlePage/2) }
		for range 3 {
			half()
			select {
			case upTo := <-settled:
				t.Fatalf("settled up to %d while statements wait", upTo)
			case <-time.After(time.Second):
			}
		}
		half()
		upTo := <-settled
		var numbers []uint64
		err := w.agent.Proven(t.Context(), w.avatars[0], upTo, func(f *ProvenFrame) error {
			numbers = append(numbers, uint64(f.Receipt[0]))
			return nil
		})
		if err != nil || !slices.Equal(numbers, []uint64{1}) {
			t.Errorf("frames %v, %v", numbers, err)
		}
	})
}

// Evidence of some measurements has the batches that hold them, wherever they
// lie, and no other of their frames.
func TestProvenOf(t *testing.T) {
	const hour = 3600e9
	for _, compacted := range []bool{false, true} {
		w := newProvenWorld(t)
		w.receive(0, 1, 0)
		w.receive(0)
		if compacted {
			if err := w.agent.Compact(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			query Query
			want  []uint64
		}{
			{Query{From: 1e18 + hour, To: 1e18 + hour + 1}, []uint64{1}},
			{Query{From: 1e18 + hour}, []uint64{1, 2}},
			{Query{To: 1e18 + hour, Property: "steps"}, []uint64{0}},
			{Query{From: 1e18 + 1, To: 1e18 + hour}, nil},
			{Query{Property: "step"}, nil},
			{Query{Property: "steps"}, []uint64{0, 1, 2}},
		} {
			var got []uint64
			err := w.agent.ProvenOf(t.Context(), w.avatars[0], AllFolded, c.query, func(f *ProvenFrame) error {
				if len(f.Own) != len(f.Batches) || len(f.Keys) != len(f.Batches) {
					t.Errorf("%d places, %d batches, %d keys", len(f.Own), len(f.Batches), len(f.Keys))
				}
				for i, b := range f.Batches {
					h, _, err := seal.ParseHeader(b)
					if err != nil || f.Leaves[f.Own[i]] != carnet.FingerprintOf(b) || !f.Keys[i].Covers(h) {
						t.Errorf("batch %d of %+v is not leaf %d, or has the key of another: %v", h.Number, c.query, f.Own[i], err)
					}
					got = append(got, h.Number)
				}
				return nil
			})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%+v, compacted %t: batches %v, want %v: %v", c.query, compacted, got, c.want, err)
			}
		}
	}
}

func TestProvenWithoutKey(t *testing.T) {
	w := newProvenWorld(t)
	w.receive(0)
	if err := w.agent.keys.Destroy(t.Context(), keyID(seal.Path{Level: seal.EpochLevel, Stream: w.epochs[0].Stream, Epoch: w.epochs[0].Epoch})); err != nil {
		t.Fatal(err)
	}
	frames := 0
	err := w.agent.Proven(t.Context(), w.avatars[0], AllFolded, func(f *ProvenFrame) error {
		frames++
		if (f.Keys[0] != seal.Key{}) {
			t.Error("a key that was destroyed is handed over")
		}
		return nil
	})
	if err != nil || frames != 1 {
		t.Fatalf("%d frames are handed over without their key, want 1: %v", frames, err)
	}
	if err := w.agent.Proven(t.Context(), carnet.NewAvatarID(), AllFolded, nil); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("an avatar that isn't there: %v", err)
	}
}

func TestEvidenceSignerStays(t *testing.T) {
	w := newProvenWorld(t)
	first, err := w.agent.EvidenceSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.agent.EvidenceSigner(t.Context()); err != nil || !first.Equal(again) {
		t.Errorf("another key at the second time: %v", err)
	}
}
