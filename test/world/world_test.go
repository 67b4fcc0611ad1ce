// Package world_test runs a world over real stores, with frames made by hand: it
// is stopped at every point, lied to, and read while it compacts.
package world_test

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
	"carnet/revocation"
	"carnet/seal"
	"carnet/senml"
	"carnet/store/postgres"
	"carnet/store/sqlite"

	"github.com/jackc/pgx/v5"
)

var clearance = carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "fitness"}

// world is a world that can be stopped and started again on its stores.
type world struct {
	t     *testing.T
	ctx   context.Context
	store *faulty
	table *keys.Table
	depot *vault
	agent *avatar.Agent
	ahead atomic.Int64 // how far its clock is ahead, ns
	every time.Duration
	hubs  []*hub
	notes *notes

	unknown atomic.Bool // which depot it has

	maxAvatars int                     // of a sender
	neighbours map[carnet.PartyID]bool // which of hubs are worlds that share
	stop       func()
	failed     chan error // what Run returned
}

// eachStore runs a test over SQLite, and over PostgreSQL where there is one.
func eachStore(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, newWorld(t, openSQLite(t)))
	})
	if dsn := os.Getenv("CARNET_PG"); dsn != "" {
		t.Run("postgres", func(t *testing.T) { test(t, newWorld(t, openPostgres(t, dsn))) })
	}
}

func openSQLite(t *testing.T) avatar.Store {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	store, err := db.Worlds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func openPostgres(t *testing.T, dsn string) avatar.Store {
	schema := "world_" + carnet.NewStreamID().String()
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{Schema: schema, Bodies: filepath.Join(t.TempDir(), "stretches")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db.Close()
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), `DROP SCHEMA IF EXISTS `+schema+` CASCADE`); err != nil {
			t.Error(err)
		}
	})
	store, err := db.Worlds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newWorld(t *testing.T, store avatar.Store) *world {
	w := &world{t: t, ctx: context.Background(), store: &faulty{Store: store}, depot: &vault{objects: make(map[carnet.Fingerprint][]byte)}, every: time.Hour, notes: &notes{}}
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "keys.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	rows, err := db.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.table, err = keys.Create(t.Context(), keys.Config{KEK: kek, Store: rows}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []carnet.PartyID{"hub", "mallory"} {
		_, key, _ := ed25519.GenerateKey(nil)
		_, own, _ := ed25519.GenerateKey(nil)
		w.hubs = append(w.hubs, &hub{w: w, name: name, key: key, own: own, sealed: make(map[carnet.Fingerprint]bool)})
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func (w *world) start() {
	w.t.Helper()
	cfg := avatar.Config{
		Party: "arena", Store: w.store, Keys: w.table, Clearance: clearance, Depot: w.depot, Recorded: func() {}, CompactEvery: w.every, MaxAvatars: w.maxAvatars,
		Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }, Log: slog.New(slog.DiscardHandler),
		DID: identity.DID(public(arenaKey)), DepotDID: w.depotDID,
	}
	revocations, err := revocation.New(w.ctx, revocation.Config{Store: w.store})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Revocations = revocations
	for _, h := range w.hubs {
		cfg.Senders = append(cfg.Senders, avatar.Sender{Party: h.name, Key: public(h.key), Self: "arena", Own: h.own, Shares: w.neighbours[h.name]})
	}
	if w.agent, err = avatar.New(w.ctx, cfg); err != nil {
		w.t.Fatal(err)
	}
	w.agent.Connect(w.notes)
	ctx, cancel := context.WithCancel(w.ctx)
	failed := make(chan error, 1)
	go func(a *avatar.Agent) { failed <- a.Run(ctx) }(w.agent)
	w.failed = failed
	w.stop = sync.OnceFunc(func() { cancel(); <-failed })
	for _, h := range w.hubs {
		h.register()
	}
}

// depotDID is what policies call the depot, unless that isn't known.
func (w *world) depotDID() string {
	if w.unknown.Load() {
		return ""
	}
	return identity.DID(public(vaultKey))
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.store.fault.Store(nil)
	w.start()
}

func (w *world) compact() {
	w.t.Helper()
	if err := w.agent.Compact(w.ctx, 1); err != nil {
		w.t.Fatal(err)
	}
}

// statements counts what is stated.
func (w *world) statements() (n int) {
	w.t.Helper()
	all, err := w.store.Statements(w.ctx, 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

// said returns the statements after the first n, opened as the world opens them.
func (w *world) said(n int) (said []ledger.Statement) {
	w.t.Helper()
	sealer := w.rest()
	all, err := w.store.Statements(w.ctx, 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, item := range all[n:] {
		plain, err := sealer.Open(nil, []byte("statement"), item.Statement)
		if err != nil {
			w.t.Fatal(err)
		}
		s, err := ledger.ParseStatement(plain)
		if err != nil {
			w.t.Fatal(err)
		}
		said = append(said, s)
	}
	return said
}

func (w *world) totals() avatar.Totals {
	w.t.Helper()
	n, err := w.agent.Totals(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) history(id carnet.AvatarID, q avatar.Query) []carnet.Measurement {
	w.t.Helper()
	ms, _, err := w.agent.History(w.ctx, id, q)
	if err != nil {
		w.t.Fatal(err)
	}
	return ms
}

// faulty is a store that fails where it is told to, before or after the fact,
// and spoils bodies that it reads.
type faulty struct {
	avatar.Store
	fault    atomic.Pointer[fault]
	spoil    atomic.Pointer[spoiler]
	restored atomic.Int64           // stretches put back
	reading  atomic.Pointer[func()] // called once, when reads comes to 0
	reads    atomic.Int64           // of frames
	listing  atomic.Pointer[func()] // called once, before stretches are listed
	listed   atomic.Pointer[func()] // called once, after
}

// spoiler changes bodies as a disk may.
type spoiler struct {
	frame   func(row *avatar.FrameRow)
	stretch func(id uint64, body []byte) ([]byte, error)
}

func (f *faulty) Frames(ctx context.Context, after uint64, limit int) ([]avatar.FrameRow, error) {
	if f.reads.Add(-1) == 0 {
		(*f.reading.Load())()
	}
	rows, err := f.Store.Frames(ctx, after, limit)
	if s := f.spoil.Load(); s != nil && s.frame != nil {
		for i := range rows {
			s.frame(&rows[i])
		}
	}
	return rows, err
}

func (f *faulty) Stretches(ctx context.Context, id carnet.StreamID, from, to int64) ([]avatar.StretchRow, error) {
	if first := f.listing.Swap(nil); first != nil {
		(*first)()
	}
	rows, err := f.Store.Stretches(ctx, id, from, to)
	if then := f.listed.Swap(nil); then != nil {
		(*then)()
	}
	return rows, err
}

func (f *faulty) StretchBody(ctx context.Context, id uint64) ([]byte, error) {
	body, err := f.Store.StretchBody(ctx, id)
	if s := f.spoil.Load(); s != nil && s.stretch != nil && err == nil {
		return s.stretch(id, body)
	}
	return body, err
}

func (f *faulty) RestoreStretch(ctx context.Context, id uint64, body []byte) error {
	f.restored.Add(1)
	f.spoil.Store(nil)
	return f.Store.RestoreStretch(ctx, id, body)
}

type fault struct {
	at    string        // "put", "compact", "strip", "append", "drop"; "room": at compact and at drop
	spare atomic.Int64  // how many such changes succeed before
	after bool          // the change is made, its answer is lost
	err   error         // default errCrash
	met   chan struct{} // told when it was met, if there is room
}

var errCrash = errors.New("crashed")

func (f *faulty) do(at string, change func() error) error {
	fault := f.fault.Load()
	if fault == nil || fault.at != at && (fault.at != "room" || at != "compact" && at != "drop") || fault.spare.Add(-1) >= 0 {
		return change()
	}
	if fault.after {
		if err := change(); err != nil {
			return err
		}
	}
	select {
	case fault.met <- struct{}{}:
	default:
	}
	if fault.err != nil {
		return fault.err
	}
	return errCrash
}

func (f *faulty) Put(ctx context.Context, d []carnet.Document, s []ledger.Item) error {
	return f.do("put", func() error { return f.Store.Put(ctx, d, s) })
}

func (f *faulty) Compact(ctx context.Context, c avatar.Compaction) error {
	at := "compact"
	if len(c.Strip) > 0 {
		at = "strip"
	}
	return f.do(at, func() error { return f.Store.Compact(ctx, c) })
}

func (f *faulty) DropStretches(ctx context.Context, ids []uint64, d []carnet.Document, s []ledger.Item) error {
	return f.do("drop", func() error { return f.Store.DropStretches(ctx, ids, d, s) })
}

func (f *faulty) Append(ctx context.Context, rows []avatar.FrameRow) error {
	return f.do("append", func() error { return f.Store.Append(ctx, rows) })
}

// vault is a depot in memory, which can be away or slow.
type vault struct {
	mu      sync.Mutex
	away    bool
	takes   time.Duration      // how long it takes to put an object
	keeps   carnet.Fingerprint // an object that it refuses to delete
	objects map[carnet.Fingerprint][]byte
}

var errAway = carnet.Errorf(carnet.Unavailable, "the depot is away")

func (v *vault) Party() carnet.PartyID { return "vault" }

func (v *vault) PutObject(_ context.Context, body []byte, _ carnet.Retention) (f carnet.Fingerprint, err error) {
	v.mu.Lock()
	away, takes := v.away, v.takes
	v.mu.Unlock()
	if away {
		return f, errAway
	}
	time.Sleep(takes)
	v.mu.Lock()
	defer v.mu.Unlock()
	f = carnet.FingerprintOf(body)
	v.objects[f] = slices.Clone(body)
	return f, nil
}

func (v *vault) GetObject(_ context.Context, f carnet.Fingerprint) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away {
		return nil, errAway
	}
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
	if v.away {
		return errAway
	}
	if f == v.keeps {
		return carnet.Errorf(carnet.Forbidden, "the object is kept")
	}
	delete(v.objects, f)
	return nil
}

func (v *vault) set(away bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = away
}

func (v *vault) slow(takes time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.takes = takes
}

func (v *vault) keep(f carnet.Fingerprint) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keeps = f
}

func (v *vault) held() map[carnet.Fingerprint][]byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.objects)
}

// notes is what the world tells its senders.
type notes struct {
	mu  sync.Mutex
	all []note
}

type note struct {
	party carnet.PartyID
	kind  string
	body  string
}

func (n *notes) Notify(party carnet.PartyID, kind string, body []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, note{party, kind, string(body)})
	return nil
}

func (n *notes) take() []note {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return all
}

// hub is a sender made by hand.
type hub struct {
	w           *world
	name        carnet.PartyID
	key, own    ed25519.PrivateKey
	starts      byte
	incarnation uint64
	last        link.Position
	sealed      map[carnet.Fingerprint]bool // every batch sent
}

func (h *hub) register() {
	h.w.t.Helper()
	h.starts++
	s, err := h.w.agent.Register(h.w.ctx, h.name, link.Nonce{h.starts}, 0)
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.incarnation, h.last = s.Incarnation, s.Last
	h.w.agent.Welcomed(h.name)
}

func (h *hub) call(kind string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		h.w.t.Fatal(err)
	}
	got, err := h.w.agent.Call(h.w.ctx, h.name, kind, body)
	if err == nil && answer != nil {
		err = json.Unmarshal(got, answer)
	}
	return err
}

// heads waits until everything sent is folded, and says where the streams stand.
func (h *hub) heads() map[carnet.StreamID]carnet.StreamHead {
	h.w.t.Helper()
	heads := make(map[carnet.StreamID]carnet.StreamHead)
	var after carnet.StreamID
	for {
		var page carnet.HeadsPage
		if err := h.call(carnet.CallHeads, carnet.HeadsRequest{After: after}, &page); err != nil {
			h.w.t.Fatal(err)
		}
		for _, head := range page.Heads {
			if bytes.Compare(head.Stream[:], after[:]) <= 0 {
				h.w.t.Fatalf("the head of %s comes after that of %s", head.Stream, after)
			}
			heads[head.Stream], after = head, head.Stream
		}
		if !page.More {
			return heads
		}
	}
}

// source is a stream with its key and numbers.
type source struct {
	h            *hub
	id           carnet.StreamID
	avatar       carnet.AvatarID
	epoch        seal.Key
	slot         *seal.Slot
	batch, first uint64
}

// open maps a stream, to an avatar or a new one, and gives its key.
func (h *hub) open(to *carnet.AvatarID) *source {
	h.w.t.Helper()
	s := h.draw(carnet.NewStreamID())
	var answer carnet.MapAnswer
	if err := h.call(carnet.CallMap, carnet.MapRequest{Stream: s.id, Avatar: to}, &answer); err != nil {
		h.w.t.Fatal(err)
	}
	s.avatar = answer.Avatar
	if err := h.grant(s); err != nil {
		h.w.t.Fatal(err)
	}
	return s
}

// draw makes a stream with a key that nobody was given.
func (h *hub) draw(id carnet.StreamID) *source {
	s := &source{h: h, id: id, epoch: seal.NewEpoch(id)}
	var err error
	if s.slot, err = s.epoch.Slot(0); err != nil {
		h.w.t.Fatal(err)
	}
	return s
}

func (h *hub) grant(s *source) error {
	return h.grantWith(h.key, seal.Terms{}, seal.Entry{Key: s.epoch, Ceiling: carnet.Label{Sensitivity: carnet.Personal}})
}

func (h *hub) grantWith(key ed25519.PrivateKey, t seal.Terms, e seal.Entry) error {
	announced, err := h.w.agent.Announcement(h.w.ctx, h.name)
	if err != nil {
		return err
	}
	to, err := seal.ParseReception(announced, public(h.own), time.Now())
	if err != nil {
		return err
	}
	t.Granter, t.Time = h.name, time.Now()
	if t.NotAfter.IsZero() {
		t.NotAfter = t.Time.AddDate(10, 0, 0)
	}
	if t.Purpose == "" {
		t.Purpose = "fitness"
	}
	t.Clearance = carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: carnet.NewSet("fitness", t.Purpose)}
	bag, err := seal.Grant(key, to, t, []seal.Entry{e})
	if err != nil {
		h.w.t.Fatal(err)
	}
	_, err = h.w.agent.Call(h.w.ctx, h.name, carnet.CallBag, bag)
	return err
}

// seal makes the stream's next batch; change may spoil its body.
func (s *source) seal(class carnet.Retention, change func(*seal.Body), ms ...carnet.Measurement) []byte {
	s.h.w.t.Helper()
	b := seal.Body{Retention: class, First: s.first, Count: uint32(len(ms)), Content: senml.AppendColumns(nil, ms)}
	if change != nil {
		change(&b)
	}
	plain, err := seal.AppendBody(nil, b)
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	batch, err := s.slot.Seal(nil, s.batch, plain)
	if err != nil {
		s.h.w.t.Fatal(err)
	}
	s.h.sealed[carnet.FingerprintOf(batch)] = true
	s.batch++
	s.first += uint64(len(ms))
	return batch
}

// run makes a batch of n measurements, a second apart, whose values are their
// numbers in the stream.
func (s *source) run(class carnet.Retention, from time.Time, n int) []byte {
	s.h.w.t.Helper()
	ms := make([]carnet.Measurement, n)
	for i := range ms {
		ms[i] = carnet.Measurement{Name: "steps", Time: from.Add(time.Duration(i) * time.Second).UnixNano(), Value: carnet.Float(float64(s.first) + float64(i))}
	}
	return s.seal(class, nil, ms...)
}

// arrival signs the hub's next frame, as the link hands it over.
func (h *hub) arrival(batches ...[]byte) *link.Arrival {
	h.w.t.Helper()
	var f seal.Frame
	err := f.Sign(h.key, seal.FrameHeader{
		Audience: "arena", Incarnation: h.incarnation, Number: h.last.Number + 1, Previous: h.last.Hash, Time: time.Now().UnixNano(),
		Covers: [16]byte{1}, // a things agent's
	}, batches)
	if err != nil {
		h.w.t.Fatal(err)
	}
	a := &link.Arrival{Bytes: f.AppendWire(nil)}
	if err := errors.Join(a.Frame.Parse(a.Bytes), a.Frame.Verify(public(h.key), "arena")); err != nil {
		h.w.t.Fatal(err)
	}
	a.Hash = a.Frame.Hash()
	h.last = link.Position{Number: h.last.Number + 1, Hash: a.Hash}
	return a
}

// send sends a frame and waits for its acknowledgement.
func (h *hub) send(batches ...[]byte) {
	h.w.t.Helper()
	verdicts, err := h.w.agent.Accept(h.w.ctx, h.name, []*link.Arrival{h.arrival(batches...)})
	if err != nil || !slices.Equal(verdicts, []link.Verdict{link.Next}) {
		h.w.t.Fatalf("verdicts %v, error %v", verdicts, err)
	}
}

func values(ms []carnet.Measurement) (v []float64) {
	for _, m := range ms {
		v = append(v, m.Value.Num)
	}
	return v
}

// upTo is 0, 1, … n-1.
func upTo(n int) (v []float64) {
	for i := range n {
		v = append(v, float64(i))
	}
	return v
}
