package thing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/link"
	"carnet/policy"
	"carnet/seal"
	"carnet/senml"
	"carnet/td"
)

var clearance = carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: "fitness"}

// hub is an agent on a store that outlives it, with one world.
type hub struct {
	tb    testing.TB
	store *memory
	table *keys.Table
	key   ed25519.PrivateKey
	world *world
	agent *Agent
	now   func() time.Time
	more  []carnet.PartyID // worlds that give avatars and are never connected
	next  *world           // to which avatars move; nil: there is none
	unmet bool             // next isn't a peer
	ended bool             // the peering with the world was removed

	keepLog time.Duration
	bounds  Bounds
	end     func()
	err     error // of Run
}

func newHub(tb testing.TB) *hub {
	h := &hub{tb: tb, store: newMemory()}
	path := tb.TempDir() + "/kek"
	kek, err := keys.CreateFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if h.table, err = keys.Create(tb.Context(), keys.Config{KEK: kek, Store: &keyMemory{rows: map[keys.ID]keys.Row{}}}); err != nil {
		tb.Fatal(err)
	}
	_, h.key, _ = ed25519.GenerateKey(nil)
	h.world = newWorld(tb, h.key.Public().(ed25519.PublicKey))
	h.start()
	tb.Cleanup(func() { h.world.disconnect(); h.stop() })
	return h
}

func (h *hub) start() {
	judge, err := policy.NewJudge(nil)
	if err != nil {
		h.tb.Fatal(err)
	}
	var worlds []World
	for _, name := range append(h.more, "arena") {
		w := h.peer(name, h.world)
		if h.ended && name == "arena" {
			w.Ended, w.Key = true, nil
		}
		worlds = append(worlds, w)
	}
	if h.next != nil && !h.unmet {
		worlds = append(worlds, h.peer(h.next.name, h.next))
	}
	h.agent, err = New(h.tb.Context(), Config{
		Party: "hub", Store: h.store, Keys: h.table, Judge: judge, Recorded: func() {}, Log: slog.New(slog.DiscardHandler), Now: h.now, KeepLog: h.keepLog, Bounds: h.bounds,
		Worlds: worlds,
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	for _, w := range worlds {
		if h.next != nil && w.Party == h.next.name {
			h.agent.Connect(w.Party, h.next)
		} else {
			h.agent.Connect(w.Party, h.world)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.err = h.agent.Run(ctx) }()
	h.end = sync.OnceFunc(func() { cancel(); <-done })
}

// peer is a world as the agent knows it.
func (h *hub) peer(name carnet.PartyID, w *world) World {
	return World{Party: name, Self: "h-1", Key: h.key, WorldKey: w.key.Public().(ed25519.PublicKey), Purpose: "fitness", Clearance: clearance}
}

func (h *hub) stop() { h.end() }

func (h *hub) connect() {
	source, err := h.agent.Source("arena")
	if err != nil {
		h.tb.Fatal(err)
	}
	h.world.connect(source)
}

// restart is a new process on the store.
func (h *hub) restart() {
	h.world.disconnect()
	if h.next != nil {
		h.next.disconnect()
	}
	h.stop()
	h.start()
}

func (h *hub) add(description []byte) *device {
	id, password, err := h.agent.AddThing(h.tb.Context(), "", "ann", description)
	if err != nil {
		h.tb.Fatal(err)
	}
	return h.session(id, password)
}

func (h *hub) session(id carnet.ThingID, password string) *device {
	s, err := h.agent.Authenticate(string(id), []byte(password))
	if err != nil {
		h.tb.Fatal(err)
	}
	return &device{tb: h.tb, hub: h, id: id, password: password, session: s, done: make(chan Outcome, 1000)}
}

func view(tb testing.TB, text string) policy.View {
	v, err := policy.ParseView([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func (h *hub) mapTo(d *device, text string) MappingInfo {
	m, err := h.agent.Map(h.tb.Context(), "ann", d.id, "arena", nil, "", view(h.tb, text))
	if err != nil {
		h.tb.Fatal(err)
	}
	return m
}

// device sends and waits for what became of it.
type device struct {
	tb       testing.TB
	hub      *hub
	id       carnet.ThingID
	password string
	session  *Session
	done     chan Outcome
}

func (d *device) Done(_ uint64, o Outcome) { d.done <- o }
func (d *device) Flush()                   {}

func (d *device) again() *device { return d.hub.session(d.id, d.password) }

func (d *device) submit(ms ...carnet.Measurement) {
	d.tb.Helper()
	payload, err := senml.Append(nil, senml.JSON, ms)
	if err != nil {
		d.tb.Fatal(err)
	}
	d.session.Submit(senml.JSON, payload, d, 0)
}

func (d *device) outcome() Outcome {
	d.tb.Helper()
	select {
	case o := <-d.done:
		return o
	case <-time.After(20 * time.Second):
		d.tb.Fatal("no outcome of a message")
		return Outcome{}
	}
}

func (d *device) send(ms ...carnet.Measurement) {
	d.tb.Helper()
	d.submit(ms...)
	if o := d.outcome(); o != (Outcome{}) {
		d.tb.Fatalf("refused %v, retry %v", o.Refused, o.Retry)
	}
}

func heart(at time.Time, bpm float64) carnet.Measurement {
	return carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: at.UnixNano(), Value: carnet.Float(bpm)}
}

func steps(at time.Time, n float64) carnet.Measurement {
	return carnet.Measurement{Name: "steps", Unit: "count", Time: at.UnixNano(), Value: carnet.Float(n)}
}

// logged is everything that the log holds of a thing.
func (h *hub) logged(id carnet.ThingID) (all []carnet.Measurement) {
	err := h.agent.EachMessage(h.tb.Context(), 1, func(m Message) error {
		if m.Thing == id {
			all = append(all, m.Measurements...)
		}
		return nil
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	return all
}

// got is a measurement that the world holds.
type got struct {
	stream carnet.StreamID
	number uint64
	carnet.Measurement
}

// world stores and opens frames as a world does, and answers the agent.
type world struct {
	tb        testing.TB
	name      carnet.PartyID
	pub       ed25519.PublicKey // the agent's
	key       ed25519.PrivateKey
	reception *seal.ReceptionKey
	announced []byte
	maxFrame  int

	mu     sync.Mutex
	cond   *sync.Cond
	state  link.State
	frames []*seal.Frame
	sizes  []int
	at     []link.Position
	keys   map[carnet.EpochID]seal.Key
	grants map[carnet.StreamID]time.Time // when the last grant for a stream ends
	heads  map[carnet.StreamID]*carnet.StreamHead
	got    []got
	avatar *carnet.AvatarID
	takes  int  // frames it takes before the connection breaks
	loses  bool // the frame that breaks it: stored, or lost
	calls  map[string]int
	asked  []carnet.StreamID // for avatars
	mute   bool              // answers no question for an avatar
	maps   []carnet.MapRequest
	moved  *carnet.Moved // what it answers: the avatar has moved on
	ended  []carnet.StreamID
	gives  map[carnet.StreamID][]string // as it was told
	old    bool                         // it doesn't know that call

	end func()
}

func newWorld(tb testing.TB, pub ed25519.PublicKey) *world { return newWorldNamed(tb, "arena", pub) }

func newWorldNamed(tb testing.TB, name carnet.PartyID, pub ed25519.PublicKey) *world {
	w := &world{tb: tb, name: name, pub: pub, maxFrame: 4 << 20, keys: map[carnet.EpochID]seal.Key{}, grants: map[carnet.StreamID]time.Time{}, heads: map[carnet.StreamID]*carnet.StreamHead{}, calls: map[string]int{}, takes: math.MaxInt}
	w.cond = sync.NewCond(&w.mu)
	_, w.key, _ = ed25519.GenerateKey(nil)
	var err error
	if w.reception, err = seal.NewReceptionKey(); err != nil {
		tb.Fatal(err)
	}
	if w.announced, err = w.reception.Announce(w.key, name, time.Now().Add(365*24*time.Hour)); err != nil {
		tb.Fatal(err)
	}
	return w
}

// Call implements Caller.
func (w *world) Call(_ context.Context, kind string, body []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[kind]++
	switch kind {
	case carnet.CallMap:
		var request carnet.MapRequest
		if err := json.Unmarshal(body, &request); err != nil {
			return nil, err
		}
		w.asked, w.maps = append(w.asked, request.Stream), append(w.maps, request)
		if w.mute {
			return nil, carnet.Errorf(carnet.Unavailable, "the link broke")
		}
		a := carnet.NewAvatarID()
		if w.avatar != nil {
			a = *w.avatar
		}
		return json.Marshal(carnet.MapAnswer{Avatar: a, Moved: w.moved})
	case carnet.CallUnmap:
		var r carnet.Unmap
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		w.ended = append(w.ended, r.Stream)
		w.cond.Broadcast()
	case carnet.CallGives:
		var r carnet.Gives
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		defer w.cond.Broadcast()
		if w.old {
			return nil, carnet.Errorf(carnet.Malformed, "a world has no call %q", kind)
		}
		if w.gives == nil {
			w.gives = make(map[carnet.StreamID][]string)
		}
		for _, s := range r.Streams {
			w.gives[s.Stream] = s.Properties
		}
	case carnet.CallBag:
		bag, err := w.reception.OpenBag(body, seal.Expected{Granter: "h-1", Signer: w.pub, Reader: w.name, Now: time.Now()})
		if err != nil {
			w.tb.Errorf("open bag: %v", err)
			return nil, err
		}
		for _, e := range bag.Entries {
			w.keys[e.Key.Epoch] = e.Key
			w.grants[e.Key.Stream] = bag.NotAfter
		}
	case carnet.CallHeads:
		var r carnet.HeadsRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		page := carnet.HeadsPage{Heads: []carnet.StreamHead{}}
		for _, h := range w.heads {
			if bytes.Compare(h.Stream[:], r.After[:]) > 0 {
				page.Heads = append(page.Heads, *h)
			}
		}
		slices.SortFunc(page.Heads, func(p, q carnet.StreamHead) int { return bytes.Compare(p.Stream[:], q.Stream[:]) })
		if len(page.Heads) > 1 { // a page has one
			page.Heads, page.More = page.Heads[:1], true
		}
		return json.Marshal(page)
	}
	return nil, nil
}

// Trace implements Caller.
func (w *world) Trace(_ context.Context, number uint64) (link.Position, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number == 0 || number > uint64(len(w.at)) {
		return link.Position{}, false, nil
	}
	return w.at[number-1], true, nil
}

// connect runs one connection after the other, as a link does, until disconnect.
func (w *world) connect(source link.Source) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := w.exchange(ctx, source); err != nil && ctx.Err() == nil && carnet.CodeOf(err) != carnet.Unavailable && carnet.CodeOf(err) != carnet.NoSpace {
				w.tb.Errorf("the link ends: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	w.end = func() { cancel(); <-done }
}

func (w *world) disconnect() {
	if w.end != nil {
		w.end()
		w.end = nil
	}
}

func (w *world) exchange(ctx context.Context, source link.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	known, err := source.Known(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.state.Incarnation = max(w.state.Incarnation, known.Incarnation) + 1
	at := link.Resume{Incarnation: w.state.Incarnation, Last: w.state.Last, MaxFrame: w.maxFrame, Announcement: w.announced}
	w.mu.Unlock()
	if err := source.Resume(ctx, at); err != nil {
		return err
	}
	for {
		f, err := source.Next(ctx)
		if err != nil {
			return err
		}
		if !w.accept(f.Bytes) {
			return nil
		}
		source.Acked(f.Number)
	}
}

// accept checks and stores one frame.
func (w *world) accept(wire []byte) (goOn bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.cond.Broadcast()
	w.takes--
	if w.takes < 0 {
		w.takes = math.MaxInt
		if w.loses {
			return false
		}
		defer func() { goOn = false }()
	}
	f, err := seal.ParseFrame(append([]byte(nil), wire...))
	if err == nil {
		err = f.Verify(w.pub, w.name)
	}
	if err != nil || len(wire) > w.maxFrame {
		w.tb.Errorf("a frame of %d bytes: %v", len(wire), err)
		return false
	}
	head := link.Head{Incarnation: f.Header.Incarnation, Number: f.Header.Number, Parent: f.Header.Previous, Hash: f.Hash(), Covers: f.Header.Covers}
	state, verdict := w.state.Judge(head, func(uint64) (carnet.Fingerprint, bool) { return carnet.Fingerprint{}, false })
	if verdict != link.Next {
		w.tb.Errorf("frame %d after %d: verdict %d", head.Number, w.state.Last.Number, verdict)
		return false
	}
	w.state, w.frames, w.at, w.sizes = state, append(w.frames, f), append(w.at, state.Last), append(w.sizes, len(wire))
	for _, b := range f.Batches {
		w.open(b)
	}
	return true
}

func (w *world) open(batch []byte) {
	header, _, err := seal.ParseHeader(batch)
	if err != nil {
		w.tb.Error(err)
		return
	}
	head := w.heads[header.Stream]
	if head == nil {
		head = &carnet.StreamHead{Stream: header.Stream}
		w.heads[header.Stream] = head
	}
	plain, err := seal.OpenWith(w.keys[header.Epoch], nil, batch)
	if err != nil {
		w.tb.Errorf("batch %d: %v", header.Number, err)
		return
	}
	body, err := seal.ParseBody(plain)
	if err != nil {
		w.tb.Error(err)
		return
	}
	ms, err := senml.NewDecoder(senml.Limits{Bytes: seal.MaxBatch, Records: 1 << 20}).Decode(nil, senml.Columns, body.Content, 0)
	if err != nil || len(ms) != int(body.Count) || header.Number != head.NextBatch || body.First != head.NextFirst {
		w.tb.Errorf("batch %d with %d measurements from %d: want batch %d from %d: %v", header.Number, len(ms), body.First, head.NextBatch, head.NextFirst, err)
	}
	head.NextBatch, head.NextFirst = header.Number+1, body.First+uint64(body.Count)
	for i, m := range ms {
		w.got = append(w.got, got{header.Stream, body.First + uint64(i), m})
		saw := carnet.SeenMeasurement{Name: m.Name, Time: m.Time, Value: m.Value.Num}
		at := -1
		for k := range head.Latest {
			if head.Latest[k].Name == m.Name {
				at = k
			}
		}
		if at < 0 {
			head.Latest = append(head.Latest, saw)
		} else if head.Latest[at].Time <= m.Time {
			head.Latest[at] = saw
		}
	}
}

// until waits until what the world holds satisfies ok.
func (w *world) until(what string, ok func() bool) {
	w.tb.Helper()
	late := false
	timer := time.AfterFunc(20*time.Second, func() { w.mu.Lock(); late = true; w.cond.Broadcast(); w.mu.Unlock() })
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !ok() {
		if late {
			w.tb.Fatalf("not within 20 s: %s; the world holds %d measurements in %d frames", what, len(w.got), len(w.frames))
		}
		w.cond.Wait()
	}
}

func (w *world) untilHolds(n int) {
	w.tb.Helper()
	w.until("enough measurements", func() bool { return len(w.got) >= n })
}

// values lists what the world holds of one stream and property, as (time, value).
func (w *world) values(stream carnet.StreamID, property string) (all []carnet.Measurement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.got {
		if g.stream == stream && g.Name == property {
			all = append(all, g.Measurement)
		}
	}
	return all
}

// quick is the description of a thing whose data hardly lingers.
func quick() []byte {
	var d map[string]any
	if err := json.Unmarshal(td.Watch(), &d); err != nil {
		panic(err) // the example is a valid description
	}
	for name, p := range d["properties"].(map[string]any) {
		p.(map[string]any)["carnet:linger"] = map[string]string{"steps": "PT0.03S"}[name]
		if name != "steps" {
			p.(map[string]any)["carnet:linger"] = "PT0S"
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return b
}
