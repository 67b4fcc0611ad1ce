// Package passage_test moves an avatar between two real worlds over real stores,
// without what decides that it moves: copied, held still, checked, landed and
// released, stopped at every durable step, and lied to.
package passage_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/link"
	"carnet/node"
	"carnet/passport"
	"carnet/seal"
	"carnet/senml"
	"carnet/store/sqlite"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func draw() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	return key
}

// book is a depot's ledger in memory.
type book struct {
	t       testing.TB
	signer  *ledger.Signer
	entries []carnet.Fingerprint
}

func newBook(t testing.TB, name string) *book {
	signer, err := ledger.NewSigner(name, draw())
	if err != nil {
		t.Fatal(err)
	}
	return &book{t: t, signer: signer}
}

// receipt gives every statement of a store that has none its receipt.
func (b *book) receipt(store avatar.Store) {
	b.t.Helper()
	waiting, err := store.Pending(context.Background(), 0, 100_000)
	if err != nil {
		b.t.Fatal(err)
	}
	first := len(b.entries)
	for i := range waiting {
		b.entries = append(b.entries, carnet.Fingerprint(waiting[i].Entry))
	}
	root := seal.Root(b.entries)
	text := log.Checkpoint{Origin: b.signer.Name(), Size: uint64(len(b.entries)), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, b.signer)
	if err != nil {
		b.t.Fatal(err)
	}
	sig, err := b.signer.SignRoot(root)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range waiting {
		r := ledger.Receipt{Index: uint64(first + i), Checkpoint: signed, Signature: sig}
		for _, p := range seal.Proof(b.entries, first+i) {
			r.Path = append(r.Path, p)
		}
		waiting[i].Receipt = r.Marshal()
	}
	if err := store.Receipted(context.Background(), waiting); err != nil {
		b.t.Fatal(err)
	}
}

// vault is a depot's objects in memory.
type vault struct {
	mu      sync.Mutex
	objects map[carnet.Fingerprint][]byte
}

func (v *vault) Party() carnet.PartyID { return "vault" }

func (v *vault) PutObject(_ context.Context, body []byte, _ carnet.Retention) (carnet.Fingerprint, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := carnet.FingerprintOf(body)
	v.objects[f] = slices.Clone(body)
	return f, nil
}

func (v *vault) GetObject(_ context.Context, f carnet.Fingerprint) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b, ok := v.objects[f]; ok {
		return b, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "no object %s", f)
}

// Objects lists everything at once.
func (v *vault) Objects(_ context.Context, after carnet.Fingerprint) ([]carnet.Fingerprint, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.SortedFunc(maps.Keys(v.objects), func(p, q carnet.Fingerprint) int { return bytes.Compare(p[:], q[:]) })
	return slices.DeleteFunc(all, func(f carnet.Fingerprint) bool { return bytes.Compare(f[:], after[:]) <= 0 }), nil
}

func (v *vault) DeleteObject(_ context.Context, f carnet.Fingerprint) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.objects, f)
	return nil
}

// disk counts the durable changes of a world, of store and key table, and loses the
// process at one of them: before or after it is made. Nothing is changed any more
// then.
type disk struct {
	at    atomic.Int64 // changes until then; 0: never
	after atomic.Bool
	gone  atomic.Bool
}

var errCrash = errors.New("crashed")

func (d *disk) change(do func() error) error {
	if d.gone.Load() {
		return errCrash
	}
	if d.at.Load() == 0 || d.at.Add(-1) != 0 {
		return do()
	}
	if d.after.Load() {
		if err := do(); err != nil {
			return err
		}
	}
	d.gone.Store(true)
	return errCrash
}

type store struct {
	avatar.Store
	disk *disk
	// meanwhile, if there is any, happens once before a compaction is stored.
	meanwhile *func()
	// listed, if there is any, happens once after epochs were listed.
	listed *atomic.Pointer[func()]
	// wipes, if there is any, is asked before what rows left is overwritten.
	wipes *atomic.Pointer[func() error]
}

func (s store) DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error) {
	page, err := s.Store.DocumentPage(ctx, kind, after, limit)
	if kind == "epoch" {
		if do := s.listed.Swap(nil); do != nil {
			(*do)()
		}
	}
	return page, err
}

func (s store) Put(ctx context.Context, d []carnet.Document, i []ledger.Item) error {
	return s.disk.change(func() error { return s.Store.Put(ctx, d, i) })
}

func (s store) Compact(ctx context.Context, c avatar.Compaction) error {
	if do := *s.meanwhile; do != nil {
		*s.meanwhile = nil
		do()
	}
	return s.disk.change(func() error { return s.Store.Compact(ctx, c) })
}

func (s store) DropStretches(ctx context.Context, ids []uint64, d []carnet.Document, i []ledger.Item) error {
	return s.disk.change(func() error { return s.Store.DropStretches(ctx, ids, d, i) })
}

func (s store) Overwrite(ctx context.Context) error {
	if do := s.wipes.Load(); do != nil {
		if err := (*do)(); err != nil {
			return err
		}
	}
	return s.Store.Overwrite(ctx)
}

type keyStore struct {
	keys.Store
	disk *disk
}

func (s keyStore) Put(ctx context.Context, upTo keys.ID, rows []keys.Row) error {
	return s.disk.change(func() error { return s.Store.Put(ctx, upTo, rows) })
}

func (s keyStore) Delete(ctx context.Context, upTo keys.ID, ids []keys.ID) error {
	return s.disk.change(func() error { return s.Store.Delete(ctx, upTo, ids) })
}

// world is one of the two: it can be stopped and started again on its directory.
type world struct {
	t         *testing.T
	name      carnet.PartyID
	dir       string
	clearance carnet.Clearance
	self      ed25519.PrivateKey // it shows to other worlds
	book      *book
	vault     *vault
	hub       *hub
	ahead     atomic.Int64
	every     time.Duration // between rounds of the agent's

	disk      *disk
	meanwhile func()
	listed    atomic.Pointer[func()]
	wipes     atomic.Pointer[func() error]
	kek       keys.KEK
	dbs       []*sqlite.DB
	table     *keys.Table
	store     avatar.Store
	agent     *avatar.Agent
	stop      func()
}

var clearance = carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}

func newWorld(t *testing.T, name carnet.PartyID) *world { return newWorldFor(t, name, clearance) }

// newWorldFor makes a world with a clearance.
func newWorldFor(t *testing.T, name carnet.PartyID, clearance carnet.Clearance) *world {
	w := &world{t: t, name: name, dir: t.TempDir(), clearance: clearance, self: draw(), book: newBook(t, "ledger."+string(name)), vault: &vault{objects: make(map[carnet.Fingerprint][]byte)}, every: time.Hour}
	var err error
	if w.kek, err = keys.CreateFile(filepath.Join(w.dir, "kek")); err != nil {
		t.Fatal(err)
	}
	w.hub = &hub{w: w, key: draw(), own: draw()}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) open(file string) *sqlite.DB {
	w.t.Helper()
	db, err := sqlite.Open(context.Background(), filepath.Join(w.dir, file), sqlite.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.dbs = append(w.dbs, db)
	return db
}

func (w *world) start() {
	w.t.Helper()
	ctx := context.Background()
	w.disk, w.dbs = &disk{}, nil
	rows, err := w.open("keys.db").Keys(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := keys.Config{KEK: w.kek, Store: keyStore{rows, w.disk}}
	if w.table, err = keys.Open(ctx, cfg); err != nil {
		if w.table, err = keys.Create(ctx, cfg); err != nil {
			w.t.Fatal(err)
		}
	}
	worlds, err := w.open("state.db").Worlds(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = store{worlds, w.disk, &w.meanwhile, &w.listed, &w.wipes}
	out := slog.New(slog.DiscardHandler)
	if os.Getenv("CARNET_TEST_LOG") != "" {
		out = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	w.agent, err = avatar.New(ctx, avatar.Config{
		Party: w.name, Store: w.store, Keys: w.table, Clearance: w.clearance, Depot: w.vault, Recorded: func() {}, CompactEvery: w.every, Log: out,
		Now:     func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
		Senders: []avatar.Sender{{Party: "hub", Key: public(w.hub.key), Self: w.name, Own: w.hub.own}},
		Vouched: passport.Vouched,
		Origin: func(sender carnet.PartyID) (avatar.Origin, error) {
			return avatar.Origin{World: w.name, Ledger: "vault", LedgerKey: w.book.signer.Key().String(), Sender: sender, Audience: w.name, Key: public(w.hub.key)}, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent.Receive(w)
	run, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func(a *avatar.Agent) { defer close(ended); a.Run(run) }(w.agent)
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		for _, db := range w.dbs {
			if err := db.Close(); err != nil {
				w.t.Error(err)
			}
		}
	})
	w.hub.register()
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

func (w *world) history(id carnet.AvatarID) []carnet.Measurement {
	w.t.Helper()
	ms, _, err := w.agent.History(w.t.Context(), id, avatar.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	return ms
}

// prover writes the world's evidence.
func (w *world) prover() node.Prover {
	return node.Prover{World: w.agent, Party: w.name, UpTo: avatar.AllFolded, Peers: map[carnet.PartyID]identity.Peer{
		"hub": {Role: identity.Things, Key: public(w.hub.key)}, "vault": {Role: identity.Depot, Ledger: w.book.signer.Key().String()},
	}}
}

func (w *world) vouch(_ carnet.AvatarID, s avatar.MovedStream) ([]byte, error) {
	return w.prover().Vouch(context.Background(), s)
}

// redaction leaves out what is labelled above a clearance.
func (w *world) redaction(c carnet.Clearance) *avatar.Redaction {
	return &avatar.Redaction{Clearance: c, Order: carnet.Fingerprint{7}, Ordered: time.Unix(1_790_000_000, 0).UTC(), Sign: func(s avatar.MovedStream, l avatar.LeftOut) ([]byte, error) {
		return w.prover().VouchLeft(context.Background(), s, l)
	}}
}

// bundle writes an avatar's evidence.
func (w *world) bundle(id carnet.AvatarID) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "bundle")
	if err := w.prover().Write(context.Background(), id, dir); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// hub sends to a world.
type hub struct {
	w           *world
	key, own    ed25519.PrivateKey
	starts      byte
	incarnation uint64
	last        link.Position
}

func (h *hub) register() {
	h.w.t.Helper()
	h.starts++
	s, err := h.w.agent.Register(context.Background(), "hub", link.Nonce{h.starts}, 0)
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.incarnation, h.last = s.Incarnation, s.Last
}

func (h *hub) call(kind string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		h.w.t.Fatal(err)
	}
	got, err := h.w.agent.Call(context.Background(), "hub", kind, body)
	if err == nil && answer != nil {
		err = json.Unmarshal(got, answer)
	}
	return err
}

// Onward implements avatar.Arrivals: whoever shows an order goes on with what it names.
func (w *world) Onward(_ context.Context, r carnet.MapRequest) (answer carnet.MapAnswer, err error) {
	return answer, answer.Avatar.UnmarshalText([]byte(r.Order))
}

// settle waits until everything sent is folded.
func (h *hub) settle() {
	h.w.t.Helper()
	if err := h.call(carnet.CallHeads, carnet.HeadsRequest{}, nil); err != nil {
		h.w.t.Fatal(err)
	}
}

// source is a stream with its key and numbers.
type source struct {
	h            *hub
	id           carnet.StreamID
	avatar       carnet.AvatarID
	epoch        seal.Key
	ceiling      carnet.Label
	slots        map[slotOf]*seal.Slot
	batch, first uint64
}

// slotOf is what a slot is of.
type slotOf struct {
	class carnet.Retention
	label carnet.Label
}

// healthy is the label of what isn't said to be of another.
var healthy = carnet.Label{Sensitivity: carnet.Health}

// stream maps a stream to an avatar, or a new one, and gives its key.
func (h *hub) stream(to *carnet.AvatarID) *source {
	return h.mapped(carnet.MapRequest{Avatar: to, Title: "a watch"})
}

// follow maps a stream to an avatar that has come.
func (h *hub) follow(to carnet.AvatarID) *source {
	return h.mapped(carnet.MapRequest{Order: to.String(), Title: "a watch"})
}

func (h *hub) mapped(r carnet.MapRequest) *source {
	h.w.t.Helper()
	s := &source{h: h, id: carnet.NewStreamID(), ceiling: carnet.Label{Sensitivity: carnet.Health & h.w.clearance.Sensitivity}}
	var answer carnet.MapAnswer
	r.Stream = s.id
	if err := h.call(carnet.CallMap, r, &answer); err != nil {
		h.w.t.Fatal(err)
	}
	s.avatar = answer.Avatar
	s.turn()
	return s
}

// turn begins another epoch.
func (s *source) turn() {
	s.h.w.t.Helper()
	s.epoch, s.slots = seal.NewEpoch(s.id), make(map[slotOf]*seal.Slot)
	announcement, err := s.h.w.agent.Announcement(context.Background(), "hub")
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	now := time.Now()
	to, err := seal.ParseReception(announcement, public(s.h.own), now)
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	bag, err := seal.Grant(s.h.key, to, seal.Terms{Granter: "hub", Purpose: "fitness", Clearance: clearance, Time: now, NotAfter: now.Add(400 * 24 * time.Hour)},
		[]seal.Entry{{Key: s.epoch, Ceiling: s.ceiling}})
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	if _, err := s.h.w.agent.Call(context.Background(), "hub", carnet.CallBag, bag); err != nil {
		s.h.w.t.Fatal(err)
	}
}

var begun = time.Now().Add(-24 * time.Hour).Truncate(time.Minute)

// seal makes a batch of n measurements of a property, whose values are their
// numbers in the stream.
func (s *source) seal(class carnet.Retention, name string, n int) []byte {
	s.h.w.t.Helper()
	return s.labelled(class, healthy, name, n)
}

func (s *source) labelled(class carnet.Retention, label carnet.Label, name string, n int) []byte {
	s.h.w.t.Helper()
	ms := make([]carnet.Measurement, n)
	for i := range ms {
		ms[i] = carnet.Measurement{Name: name, Time: begun.Add(time.Duration(s.first+uint64(i)) * time.Second).UnixNano(), Value: carnet.Float(float64(s.first) + float64(i))}
	}
	plain, err := seal.AppendBody(nil, seal.Body{Label: label, Retention: class, First: s.first, Count: uint32(n), Content: senml.AppendColumns(nil, ms)})
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	slot := s.slots[slotOf{class, label}]
	if slot == nil {
		if slot, err = s.epoch.Slot(uint32(len(s.slots))); err != nil {
			s.h.w.t.Fatal(err)
		}
		s.slots[slotOf{class, label}] = slot
	}
	batch, err := slot.Seal(nil, s.batch, plain)
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	s.batch++
	s.first += uint64(n)
	return batch
}

// send sends a frame and waits for its acknowledgement.
func (h *hub) send(batches ...[]byte) {
	h.w.t.Helper()
	var f seal.Frame
	err := f.Sign(h.key, seal.FrameHeader{
		Audience: h.w.name, Incarnation: h.incarnation, Number: h.last.Number + 1, Previous: h.last.Hash, Time: time.Now().UnixNano(),
		Covers: [16]byte{1}, // a things agent's
	}, batches)
	if err != nil {
		h.w.t.Fatal(err)
	}
	a := &link.Arrival{Bytes: f.AppendWire(nil)}
	if err := errors.Join(a.Frame.Parse(a.Bytes), a.Frame.Verify(public(h.key), h.w.name)); err != nil {
		h.w.t.Fatal(err)
	}
	a.Hash = a.Frame.Hash()
	h.last = link.Position{Number: h.last.Number + 1, Hash: a.Hash}
	verdicts, err := h.w.agent.Accept(context.Background(), "hub", []*link.Arrival{a})
	if err != nil || !slices.Equal(verdicts, []link.Verdict{link.Next}) {
		h.w.t.Fatalf("verdicts %v, error %v", verdicts, err)
	}
}

func epochKey(s *source) keys.ID {
	return keys.ID{Kind: "epoch", Name: seal.Path{Level: seal.EpochLevel, Stream: s.id, Epoch: s.epoch.Epoch}.String()}
}

// junk gives a key of nothing for the first that a manifest names.
func (p *passage) junk(m *avatar.Manifest, want seal.Expected) error {
	announced, err := p.to.agent.AnnounceTo(p.to.self, p.to.name)
	if err != nil {
		return err
	}
	reception, err := seal.ParseReception(announced, public(p.to.self), time.Now())
	if err != nil {
		return err
	}
	key := seal.Key{Path: seal.Path{Level: seal.EpochLevel, Stream: m.Keys[0].Stream, Epoch: m.Keys[0].Epoch}, Secret: [32]byte{1}}
	bag, err := seal.Grant(p.from.self, reception, seal.Terms{Granter: p.from.name, Purpose: "fitness", Clearance: p.to.clearance, Time: time.Now(), NotAfter: time.Now().Add(time.Hour)},
		[]seal.Entry{{Key: key, Ceiling: carnet.Label{Sensitivity: carnet.Health}}})
	if err != nil {
		return err
	}
	return p.to.agent.TakeKeys(context.Background(), p.target, bag, want)
}
