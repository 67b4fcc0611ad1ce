package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/seal"
)

// testParty has the keys of one party.
type testParty struct {
	id   carnet.PartyID
	cert tls.Certificate
	pin  [32]byte
	key  ed25519.PrivateKey
}

func newParty(t testing.TB, id carnet.PartyID) testParty {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return testParty{id, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, PinOf(leaf), signer}
}

func (p testParty) public() ed25519.PublicKey { return p.key.Public().(ed25519.PublicKey) }

// memSink is a Sink whose memory outlives servers.
type memSink struct {
	mu       sync.Mutex
	state    State
	frames   []Position
	items    []uint64 // the log positions stored, in order
	events   []string // calls and frames in the order handled
	refuse   error    // what Accept answers, if set
	onAccept func()
	onCall   func(kind string, body []byte) ([]byte, error)

	onAnnounce, onWelcome func(carnet.PartyID)
}

func (m *memSink) State(context.Context, carnet.PartyID) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, nil
}

func (m *memSink) Register(_ context.Context, _ carnet.PartyID, n Nonce, above uint64) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = m.state.Register(n, above)
	return m.state, nil
}

func (m *memSink) known(number uint64) (carnet.Fingerprint, bool) {
	if number < 1 || number > uint64(len(m.frames)) {
		return carnet.Fingerprint{}, false
	}
	return m.frames[number-1].Hash, true
}

func (m *memSink) Accept(_ context.Context, _ carnet.PartyID, run []*Arrival) ([]Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onAccept != nil {
		m.onAccept()
	}
	if m.refuse != nil {
		return nil, m.refuse
	}
	var verdicts []Verdict
	for _, a := range run {
		st, v := m.state.Judge(a.Head(), m.known)
		verdicts = append(verdicts, v)
		if v != Next && v != Again {
			break
		}
		if v == Next {
			m.state, m.frames = st, append(m.frames, st.Last)
			m.events = append(m.events, "frame")
			for _, b := range a.Frame.Batches {
				m.items = append(m.items, binary.BigEndian.Uint64(b))
			}
		}
		a.Release()
	}
	return verdicts, nil
}

func (m *memSink) Frame(_ context.Context, _ carnet.PartyID, number uint64) (Position, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.known(number); !ok {
		return Position{}, false, nil
	}
	return m.frames[number-1], true, nil
}

func (m *memSink) Call(_ context.Context, _ carnet.PartyID, kind string, body []byte) ([]byte, error) {
	m.mu.Lock()
	m.events = append(m.events, "call "+kind)
	on := m.onCall
	m.mu.Unlock()
	if on != nil {
		return on(kind, body)
	}
	return body, nil
}

func (m *memSink) Announcement(_ context.Context, party carnet.PartyID) ([]byte, error) {
	if m.onAnnounce != nil {
		m.onAnnounce(party)
	}
	return []byte("reception key"), nil
}

func (m *memSink) Welcomed(party carnet.PartyID) {
	if m.onWelcome != nil {
		m.onWelcome(party)
	}
}

// memSource sends its log, the numbers from 1 to total, some in each frame.
type memSource struct {
	party    testParty
	audience carnet.PartyID
	perFrame int
	total    uint64
	pad      int // bytes of each batch beyond its number

	mu          sync.Mutex
	incarnation uint64
	last        Position
	cursor      uint64
	acked       uint64
	resumed     int
	notices     []string
	announced   string
	onNext      func(number uint64) error
	onResume    func()
	done        chan struct{} // closed when everything is acknowledged
	final       uint64        // number of the frame that ends the log
}

func newSource(p testParty, audience carnet.PartyID, total uint64, perFrame int) *memSource {
	return &memSource{party: p, audience: audience, total: total, perFrame: perFrame, done: make(chan struct{})}
}

func (m *memSource) Known(context.Context) (Known, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Known{m.incarnation, m.acked}, nil
}

func (m *memSource) Resume(_ context.Context, r Resume) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resumed++
	if m.onResume != nil {
		m.onResume()
	}
	m.incarnation, m.last, m.announced = r.Incarnation, r.Last, string(r.Announcement)
	m.cursor = binary.BigEndian.Uint64(r.Last.Covers[8:])
	m.progress(r.Last.Number)
	return nil
}

func (m *memSource) Next(ctx context.Context) (Frame, error) {
	number := m.last.Number + 1
	if m.onNext != nil {
		if err := m.onNext(number); err != nil {
			return Frame{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cursor == m.total {
		m.final = m.last.Number
		m.progress(m.acked)
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return Frame{}, ctx.Err()
	}
	var batches [][]byte
	for len(batches) < m.perFrame && m.cursor < m.total {
		m.cursor++
		batches = append(batches, binary.BigEndian.AppendUint64(make([]byte, 0, 8+m.pad), m.cursor)[:8+m.pad])
	}
	h := seal.FrameHeader{Audience: m.audience, Incarnation: m.incarnation, Number: number, Previous: m.last.Hash, Time: 1}
	binary.BigEndian.PutUint64(h.Covers[8:], m.cursor)
	var f seal.Frame
	if err := f.Sign(m.party.key, h, batches); err != nil {
		return Frame{}, err
	}
	m.last = Position{number, f.Hash(), h.Covers}
	return Frame{number, f.AppendWire(nil)}, nil
}

// progress closes done when the last frame is acknowledged. The caller holds mu.
func (m *memSource) progress(acked uint64) {
	m.acked = max(m.acked, acked)
	if m.cursor == m.total && m.final > 0 && m.acked >= m.final {
		select {
		case <-m.done:
		default:
			close(m.done)
		}
	}
}

func (m *memSource) Acked(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress(number)
}

func (m *memSource) Notice(kind string, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notices = append(m.notices, kind+" "+string(body))
}

// testNet is a hub and a world that peer with each other over loopback.
type testNet struct {
	hub, arena testParty
	sink       *memSink

	mu      sync.Mutex
	address string // owned by mu
	server  *Server
	stop    func()
}

func newNet(t testing.TB, change func(*ServerConfig)) *testNet {
	t.Helper()
	n := &testNet{hub: newParty(t, "hub"), arena: newParty(t, "arena"), sink: &memSink{}}
	n.serve(t, change)
	return n
}

// serve starts a server for the net's sink; it ends with the test.
func (n *testNet) serve(t testing.TB, change func(*ServerConfig)) {
	t.Helper()
	cfg := ServerConfig{
		Self: n.arena.id, Certificate: n.arena.cert, Sink: n.sink,
		Peer: func(pin [32]byte) (Peer, bool) {
			return Peer{Party: n.hub.id, Pin: n.hub.pin, Key: n.hub.public()}, pin == n.hub.pin
		},
	}
	if change != nil {
		change(&cfg)
	}
	server, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.address, n.server = l.Addr().String(), server
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); server.Serve(ctx, l) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(n.stop)
}

func (n *testNet) config(source Source) SenderConfig {
	return SenderConfig{
		Self: n.hub.id, Certificate: n.hub.cert, Source: source,
		Peer:       Peer{Party: n.arena.id, Address: n.address, Pin: n.arena.pin},
		MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	}
}

// run starts a sender; the returned channel brings what Run returned.
func (n *testNet) run(t testing.TB, cfg SenderConfig) (*Sender, chan error, context.CancelFunc) {
	t.Helper()
	s, err := NewSender(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	joined := make(chan struct{})
	go func() { defer close(joined); ended <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-joined })
	return s, ended, cancel
}

// await fails the test if ch brings nothing for a long time.
func await[T any](t testing.TB, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited 30 s for %s", what)
	}
	return v
}

// exactlyOnce checks that the sink has 1..total in order.
func (n *testNet) exactlyOnce(t testing.TB, total uint64) {
	t.Helper()
	n.sink.mu.Lock()
	defer n.sink.mu.Unlock()
	if uint64(len(n.sink.items)) != total {
		t.Errorf("stored %d items, want %d", len(n.sink.items), total)
	}
	for i, item := range n.sink.items {
		if item != uint64(i)+1 {
			t.Fatalf("item %d stored where %d belongs", item, i+1)
		}
	}
}
