// Package share_test has two real worlds share an avatar's data over a real link,
// while either is stopped, restored and cut off.
package share_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/link"
	"carnet/policy"
	"carnet/revocation"
	"carnet/seal"
	"carnet/senml"
	"carnet/store/sqlite"
	"carnet/test/wait"
)

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func quiet() *slog.Logger {
	if os.Getenv("CARNET_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// world is one of the two: it can be stopped and started again on its directory.
type world struct {
	t         *testing.T
	name      carnet.PartyID
	dir       string
	clearance carnet.Clearance
	table     *keys.Table
	tableDB   *sqlite.DB
	id        identity.Local

	refuse atomic.Pointer[func(carnet.Document) bool] // documents that can't be stored now
	lost   atomic.Uint64                              // the stretch that isn't there, by its id in the store; 0: none

	db     *sqlite.DB
	agent  *avatar.Agent
	shares *crossing.Agent
	stop   func()
}

func newWorld(t *testing.T, name carnet.PartyID, clearance carnet.Clearance) *world {
	w := &world{t: t, name: name, dir: t.TempDir(), clearance: clearance}
	kek, err := keys.CreateFile(filepath.Join(w.dir, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	if w.tableDB, err = sqlite.Open(t.Context(), filepath.Join(w.dir, "keys.db"), sqlite.Options{}); err != nil {
		t.Fatal(err)
	}
	rows, err := w.tableDB.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.table, err = keys.Create(t.Context(), keys.Config{KEK: kek, Store: rows}); err != nil {
		t.Fatal(err)
	}
	if w.id, err = identity.Make(t.Context(), w.table, "self", name, time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) file() string { return filepath.Join(w.dir, "state.db") }

// run starts parts; end stops them and closes the store.
func (w *world) run(parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, part := range parts {
		wg.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				w.t.Errorf("%s: %v", w.name, err)
			}
		})
	}
	w.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := w.db.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

// pair is arena, which gives, and citadel, which takes; hub sends to arena.
type pair struct {
	t              *testing.T
	arena, citadel *world
	hub            *hub
	proxy          *proxy
	sender         *link.Sender // arena's link to citadel
	address        string
	permits        permits
	vault          *vault                        // arena's and citadel's depot
	instead        func(crossing.Sink) link.Sink // citadel's end of links; nil: as it is
	theirs, ours   carnet.AvatarID               // arena's, citadel's
}

// permits is what shares live by: it says no, or doesn't know, when it is told to.
type permits struct {
	err     atomic.Pointer[error]
	removed atomic.Bool // the taker is no peer any more, though its link is up
}

func (p *permits) Still(crossing.Given) error {
	if err := p.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *permits) Tells(carnet.PartyID) bool { return !p.removed.Load() }

// asker puts citadel's questions to arena without R5, which has tests of its own.
type asker struct {
	p    *pair
	view policy.View
	most carnet.Clearance
	// until is the same for each question, as a mandate's end is: a question that is asked
	// twice at once changes nothing.
	until time.Time
	lose  atomic.Int32           // answers to lose
	deny  atomic.Int32           // questions to say no to, as a giver does that has just started
	hang  atomic.Pointer[func()] // called before a question is answered
}

func (a *asker) Ask(ctx context.Context, giver carnet.PartyID, q crossing.Question) (crossing.Answer, error) {
	if hang := a.hang.Load(); hang != nil {
		(*hang)()
	}
	if a.deny.Add(-1) >= 0 {
		return crossing.Answer{}, carnet.Errorf(carnet.Forbidden, "not yet")
	}
	if err := a.p.permits.Still(crossing.Given{}); err != nil {
		return crossing.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // a world that is stopped meanwhile doesn't answer
	defer cancel()
	answer, err := a.p.arena.shares.Give(ctx, q, crossing.Permit{
		Taker: "citadel", Grant: "g", GrantVersion: 1, View: a.view, Mandate: "m", Most: a.most, Until: a.until,
	})
	if ctx.Err() != nil {
		return crossing.Answer{}, carnet.Errorf(carnet.Unavailable, "nobody answers")
	}
	if a.lose.Add(-1) >= 0 {
		return crossing.Answer{}, carnet.Errorf(carnet.Unavailable, "the answer was lost")
	}
	return answer, err
}

func (a *asker) Stop(ctx context.Context, giver carnet.PartyID, q crossing.Question) error {
	return a.p.arena.shares.StopTaken(ctx, q.ID, "citadel")
}

func newPair(t *testing.T, view string) *pair {
	clearance := carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}
	p := &pair{t: t, arena: newWorld(t, "arena", clearance), citadel: newWorld(t, "citadel", clearance)}
	_, key, _ := ed25519.GenerateKey(nil)
	p.vault = &vault{objects: make(map[carnet.Fingerprint][]byte)}
	p.hub = &hub{p: p, key: key, nonce: byte(1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	l.Close()
	p.proxy = newProxy(t, p.address)
	v, err := policy.ParseView([]byte(view))
	if err != nil {
		t.Fatal(err)
	}
	ask := &asker{p: p, view: v, most: clearance, until: time.Now().Add(time.Hour)}
	p.startArena(ask)
	p.startCitadel(ask)
	t.Cleanup(func() {
		p.citadel.stop()
		p.arena.stop()
		p.citadel.tableDB.Close()
		p.arena.tableDB.Close()
	})
	p.theirs = p.hub.open(p.arena, nil).avatar
	p.ours = p.avatarAt(p.citadel)
	return p
}

// brittle is a world's store that fails to store some documents.
type brittle struct {
	avatar.Store
	w *world
}

func (b brittle) Put(ctx context.Context, documents []carnet.Document, items []ledger.Item) error {
	if refuse := b.w.refuse.Load(); refuse != nil && slices.ContainsFunc(documents, *refuse) {
		return errors.New("the disk is full")
	}
	return b.Store.Put(ctx, documents, items)
}

func (b brittle) StretchBody(ctx context.Context, id uint64) ([]byte, error) {
	if id == b.w.lost.Load() {
		return nil, carnet.Errorf(carnet.NotFound, "the stretch is lost")
	}
	return b.Store.StretchBody(ctx, id)
}

// begin opens a world's agents on its store.
func (w *world) begin(ask crossing.Asker, permits crossing.Permits, v *vault, senders ...avatar.Sender) *revocation.Watcher {
	w.t.Helper()
	ctx := w.t.Context()
	var err error
	if w.db, err = sqlite.Open(ctx, w.file(), sqlite.Options{}); err != nil {
		w.t.Fatal(err)
	}
	worlds, err := w.db.Worlds(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	store := brittle{worlds, w}
	ends, err := revocation.New(ctx, revocation.Config{Store: store})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.agent, err = avatar.New(ctx, avatar.Config{
		Party: w.name, Store: store, Keys: w.table, Clearance: w.clearance, Depot: noDepot{}, Recorded: func() {}, CompactEvery: time.Hour,
		Log: quiet(), Senders: senders, DID: identity.DID(public(w.id.Key)), Revocations: ends,
	}); err != nil {
		w.t.Fatal(err)
	}
	judge, err := policy.NewJudge(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.shares, err = crossing.New(ctx, crossing.Config{
		Party: w.name, World: w.agent, Permits: permits, Revocations: ends, Asker: ask, Judge: judge, AskPause: 20 * time.Millisecond, Log: quiet(),
		Depot: func() (crossing.Depot, error) { return v, nil }, ShelfAt: v.at,
		ShelveAfter: 50 * time.Millisecond, ShelveEach: 10 * time.Millisecond, ReadEvery: 10 * time.Millisecond,
	}); err != nil {
		w.t.Fatal(err)
	}
	ends.Subscribe(func(revocation.State) { w.shares.Recheck() })
	return ends
}

func (p *pair) startArena(ask crossing.Asker) {
	w := p.arena
	ends := w.begin(ask, &p.permits, p.vault, avatar.Sender{Party: "hub", Key: public(p.hub.key), Self: "arena", Own: w.id.Key})
	source, err := w.shares.Source(p.t.Context(), crossing.Neighbour{
		Party: "citadel", OwnName: "citadel", Self: "arena", Key: w.id.Key, WorldKey: public(p.citadel.id.Key), Clearance: p.citadel.clearance,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	sender, err := link.NewSender(link.SenderConfig{
		Self: "arena", Certificate: w.id.Certificate, Source: source, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Log: quiet(),
		Peer: link.Peer{Party: "citadel", Address: p.proxy.address, Pin: keys.Pin(p.citadel.id.Certificate.Leaf)},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.sender = sender
	source.Connect(sender)
	w.agent.Connect(deaf{})
	w.run(w.agent.Run, w.shares.Run, source.Run, sender.Run, ends.Run)
	p.hub.register()
	p.hub.rewind()
}

func (p *pair) startCitadel(ask crossing.Asker) {
	w := p.citadel
	ends := w.begin(ask, &p.permits, p.vault,
		avatar.Sender{Party: "arena", Key: public(p.arena.id.Key), Self: "citadel", Own: w.id.Key, Shares: true},
		avatar.Sender{Party: "hub", Key: public(p.hub.key), Self: "citadel", Own: w.id.Key})
	peer := link.Peer{Party: "arena", Pin: keys.Pin(p.arena.id.Certificate.Leaf), Key: public(p.arena.id.Key)}
	var sink link.Sink = crossing.Sink{Sink: w.agent, Shares: w.shares}
	if p.instead != nil {
		sink = p.instead(sink.(crossing.Sink))
	}
	server, err := link.NewServer(link.ServerConfig{
		Self: "citadel", Certificate: w.id.Certificate, Sink: sink, Log: quiet(),
		Peer: func(pin [32]byte) (link.Peer, bool) { return peer, pin == peer.Pin },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	w.agent.Connect(server)
	var l net.Listener
	p.eventually("listen", func() bool {
		l, err = net.Listen("tcp", p.address)
		return err == nil
	})
	w.run(w.agent.Run, w.shares.Run, ends.Run, func(ctx context.Context) error { return server.Serve(ctx, l) }, func(ctx context.Context) error {
		return w.shares.Read(ctx, crossing.Reading{
			Giver: peer, Self: public(w.id.Key), Receiver: server, Sink: sink,
			Depot: func(context.Context, crossing.ShelfAt) (crossing.ShelfReader, carnet.PartyID, error) {
				return p.vault, "vault", nil
			},
		})
	})
}

func (p *pair) ask() crossing.Asker { return p.arena.shares.Config.Asker }

func (p *pair) restart(w *world) {
	w.stop()
	p.start(w)
}

// copied keeps what a world has on disk, as a backup would; back has the world
// begin anew with it.
func (p *pair) copied(w *world) (back func()) {
	p.t.Helper()
	w.stop()
	// The log, too: it is there after a stop if who read when it stopped held it.
	files := []string{w.file(), w.file() + "-wal", w.file() + "-shm"}
	kept := make([][]byte, len(files))
	for i, f := range files {
		var err error
		if kept[i], err = os.ReadFile(f); err != nil && (i == 0 || !os.IsNotExist(err)) {
			p.t.Fatal(err)
		}
	}
	p.start(w)
	return func() {
		p.t.Helper()
		w.stop()
		for i, f := range files {
			err := os.Remove(f)
			if err == nil || os.IsNotExist(err) {
				err = nil
				if kept[i] != nil {
					err = os.WriteFile(f, kept[i], 0o600)
				}
			}
			if err != nil {
				p.t.Fatal(err)
			}
		}
		p.start(w)
	}
}

func (p *pair) start(w *world) {
	if w == p.arena {
		p.startArena(p.ask())
	} else {
		p.startCitadel(p.ask())
	}
}

// avatarAt makes an avatar of a thing that nothing is said of.
func (p *pair) avatarAt(w *world) carnet.AvatarID {
	p.t.Helper()
	if _, err := w.agent.Register(p.t.Context(), "hub", link.Nonce{1}, 0); err != nil {
		p.t.Fatal(err)
	}
	body, _ := json.Marshal(carnet.MapRequest{Stream: carnet.NewStreamID()})
	got, err := w.agent.Call(p.t.Context(), "hub", carnet.CallMap, body)
	if err != nil {
		p.t.Fatal(err)
	}
	var answer carnet.MapAnswer
	if err := json.Unmarshal(got, &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer.Avatar
}

// take has citadel ask for arena's avatar.
func (p *pair) take() crossing.Taken {
	p.t.Helper()
	t, err := p.citadel.shares.Take(p.t.Context(), "arena", p.theirs, p.ours, "fitness")
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

func (p *pair) eventually(what string, ok func() bool) {
	p.t.Helper()
	wait.Until(p.t, what, ok)
}

// here is what an avatar's history has, by name, in order of time.
func (p *pair) here(w *world, id carnet.AvatarID) map[string][]carnet.Measurement {
	p.t.Helper()
	ms, more, err := w.agent.History(p.t.Context(), id, avatar.Query{})
	if err != nil || more {
		p.t.Fatal(err, more)
	}
	by := make(map[string][]carnet.Measurement)
	for _, m := range ms {
		by[m.Name] = append(by[m.Name], m)
	}
	return by
}

// hub is a things agent made by hand.
type hub struct {
	p           *pair
	key         ed25519.PrivateKey
	nonce       byte
	incarnation uint64
	last        link.Position
	streams     []*stream
}

func (h *hub) register() {
	h.p.t.Helper()
	h.nonce++
	w := h.p.arena
	s, err := crossing.Sink{Sink: w.agent, Shares: w.shares}.Register(h.p.t.Context(), "hub", link.Nonce{h.nonce}, h.incarnation)
	if err != nil {
		h.p.t.Fatal(err)
	}
	h.incarnation, h.last = s.Incarnation, s.Last
}

// stream is one of hub's, with its key and numbers.
type stream struct {
	h            *hub
	id           carnet.StreamID
	avatar       carnet.AvatarID
	slots        map[carnet.Label]*seal.Slot
	epoch        seal.Key
	batch, first uint64
	said         []said // by its number
}

// said is a measurement that a stream holds.
type said struct {
	label carnet.Label
	carnet.Measurement
}

// rewind goes back to where a restored arena stands, as a things agent does, and
// sends it what it lacks: the same measurements with the same numbers, in one batch
// where they were many.
func (h *hub) rewind() {
	t := h.p.t
	t.Helper()
	answer, err := h.p.arena.agent.Call(t.Context(), "hub", carnet.CallHeads, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	var page carnet.HeadsPage
	if err := json.Unmarshal(answer, &page); err != nil || page.More {
		t.Fatal(err, page.More)
	}
	for _, head := range page.Heads {
		for _, s := range h.streams {
			if s.id != head.Stream || head.NextFirst == s.first {
				continue
			}
			lacks := s.said[head.NextFirst:]
			s.batch, s.first, s.said = head.NextBatch, head.NextFirst, s.said[:head.NextFirst]
			ms := make([]carnet.Measurement, len(lacks))
			for i := range lacks {
				ms[i] = lacks[i].Measurement
			}
			h.send(s.seal(lacks[0].label, ms...))
		}
	}
}

func (h *hub) open(w *world, to *carnet.AvatarID) *stream {
	t := h.p.t
	t.Helper()
	s := &stream{h: h, id: carnet.NewStreamID(), slots: make(map[carnet.Label]*seal.Slot)}
	s.epoch = seal.NewEpoch(s.id)
	body, _ := json.Marshal(carnet.MapRequest{Stream: s.id, Avatar: to})
	got, err := w.agent.Call(t.Context(), "hub", carnet.CallMap, body)
	if err != nil {
		t.Fatal(err)
	}
	var answer carnet.MapAnswer
	if err := json.Unmarshal(got, &answer); err != nil {
		t.Fatal(err)
	}
	s.avatar = answer.Avatar
	announced, err := w.agent.Announcement(t.Context(), "hub")
	if err != nil {
		t.Fatal(err)
	}
	reception, err := seal.ParseReception(announced, public(w.id.Key), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bag, err := seal.Grant(h.key, reception, seal.Terms{
		Granter: "hub", Purpose: "fitness", Clearance: w.clearance, Time: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}, []seal.Entry{{Key: s.epoch, Ceiling: carnet.Label{Sensitivity: w.clearance.Sensitivity}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.agent.Call(t.Context(), "hub", carnet.CallBag, bag); err != nil {
		t.Fatal(err)
	}
	h.streams = append(h.streams, s)
	return s
}

// seal makes the stream's next batch.
func (s *stream) seal(label carnet.Label, ms ...carnet.Measurement) []byte {
	t := s.h.p.t
	t.Helper()
	slot := s.slots[label]
	if slot == nil {
		var err error
		if slot, err = s.epoch.Slot(uint32(len(s.slots))); err != nil {
			t.Fatal(err)
		}
		s.slots[label] = slot
	}
	batch := sealed(t, slot, s.batch, s.first, label, ms)
	s.batch++
	s.first += uint64(len(ms))
	for _, m := range ms {
		s.said = append(s.said, said{label, m})
	}
	return batch
}

// sealed makes a batch.
func sealed(t *testing.T, slot *seal.Slot, number, first uint64, label carnet.Label, ms []carnet.Measurement) []byte {
	t.Helper()
	plain, err := seal.AppendBody(nil, seal.Body{
		Label: label, Retention: carnet.Day, Hour: uint32(time.Now().Unix() / 3600), First: first, Count: uint32(len(ms)), Content: senml.AppendColumns(nil, ms),
	})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := slot.Seal(nil, number, plain)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// send has arena store a frame.
func (h *hub) send(batches ...[]byte) {
	t := h.p.t
	t.Helper()
	var f seal.Frame
	if err := f.Sign(h.key, seal.FrameHeader{
		Audience: "arena", Incarnation: h.incarnation, Number: h.last.Number + 1, Previous: h.last.Hash, Time: time.Now().UnixNano(),
		Covers: [16]byte{1}, // a things agent's
	}, batches); err != nil {
		t.Fatal(err)
	}
	a := &link.Arrival{Bytes: f.AppendWire(nil)}
	if err := errors.Join(a.Frame.Parse(a.Bytes), a.Frame.Verify(public(h.key), "arena")); err != nil {
		t.Fatal(err)
	}
	a.Hash = a.Frame.Hash()
	h.last = link.Position{Number: h.last.Number + 1, Hash: a.Hash}
	verdicts, err := h.p.arena.agent.Accept(t.Context(), "hub", []*link.Arrival{a})
	if err != nil || len(verdicts) != 1 || verdicts[0] != link.Next {
		t.Fatal(verdicts, err)
	}
}

// proxy is the network between the worlds: it can be cut.
type proxy struct {
	address string
	cut     atomic.Bool
	slow    atomic.Bool // byte by byte
	mu      sync.Mutex
	open    map[net.Conn]bool
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String(), open: make(map[net.Conn]bool)}
	t.Cleanup(func() { l.Close(); p.drop() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil || p.cut.Load() {
				in.Close()
				if err == nil {
					out.Close()
				}
				continue
			}
			p.mu.Lock()
			p.open[in], p.open[out] = true, true
			p.mu.Unlock()
			through := func(dst, src net.Conn) {
				p.copy(dst, src)
				dst.Close()
				src.Close()
				p.mu.Lock()
				delete(p.open, src)
				p.mu.Unlock()
			}
			go through(in, out)
			go through(out, in)
		}
	}()
	return p
}

// copy hands on what comes until either side ends.
func (p *proxy) copy(dst, src net.Conn) {
	all := make([]byte, 32<<10)
	for {
		piece := all
		if p.slow.Load() {
			piece = all[:1]
			time.Sleep(100 * time.Microsecond)
		}
		n, err := src.Read(piece)
		if n > 0 {
			if _, err := dst.Write(piece[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// drop ends every connection.
func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

// deaf is a hub that is told nothing.
type deaf struct{}

func (deaf) Notify(carnet.PartyID, string, []byte) error { return nil }

// noDepot keeps nothing: what is tested here needs no depot.
type noDepot struct{}

func (noDepot) Party() carnet.PartyID { return "vault" }
func (noDepot) PutObject(context.Context, []byte, carnet.Retention) (carnet.Fingerprint, error) {
	return carnet.Fingerprint{}, carnet.Errorf(carnet.Unavailable, "there is no depot")
}
func (noDepot) GetObject(context.Context, carnet.Fingerprint) ([]byte, error) {
	return nil, carnet.Errorf(carnet.Unavailable, "there is no depot")
}
func (noDepot) DeleteObject(context.Context, carnet.Fingerprint) error {
	return carnet.Errorf(carnet.Unavailable, "there is no depot")
}
func (noDepot) Objects(context.Context, carnet.Fingerprint) ([]carnet.Fingerprint, error) {
	return nil, carnet.Errorf(carnet.Unavailable, "there is no depot")
}
