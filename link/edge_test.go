package link

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"carnet"
)

func TestWrongKeysAreRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(n *testNet, c *SenderConfig)
		want   string
	}{
		{"the receiver has another key than pinned", func(_ *testNet, c *SenderConfig) { c.Peer.Pin[0] ^= 1 }, "not the one this party is peered with"},
		{"the sender isn't peered", func(n *testNet, c *SenderConfig) { c.Certificate = newParty(t, "hub").cert }, "tls"},
		{"the sender says another name", func(n *testNet, c *SenderConfig) { c.Self = "clinic" }, "not that of the party named in hello"},
		{"the hello is for another party", func(n *testNet, c *SenderConfig) { c.Peer.Party = "clinic" }, "not the party that hello is for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet(t, nil)
			cfg := n.config(newSource(n.hub, n.arena.id, 3, 1))
			c.change(n, &cfg)
			s, err := NewSender(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.connect(t.Context(), 1); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("connect: %v, want %q", err, c.want)
			}
			if n.sink.state != (State{}) {
				t.Errorf("the receiver registered something: %+v", n.sink.state)
			}
		})
	}
}

// raw is a sender of the test's own making, past the TLS handshake.
func (n *testNet) raw(t *testing.T) *conn {
	t.Helper()
	c, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	codec, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	sock := newSocket(c, 10*time.Second)
	return &conn{codec: codec, sock: sock, tls: tls.Client(sock, tlsConfig(n.hub.cert, func(pin [32]byte) bool { return pin == n.arena.pin }))}
}

func (n *testNet) registered(t *testing.T) *conn {
	t.Helper()
	c := n.raw(t)
	var g greeting
	if err := c.expect(kindGreeting, &g); err != nil {
		t.Fatal(err)
	}
	if err := c.write(kindHello, &hello{Version: version, Party: "hub", Audience: "arena", Nonce: Nonce{9, 15: byte(g.Incarnation)}, Seen: g.Incarnation}); err != nil {
		t.Fatal(err)
	}
	var w welcome
	if err := c.expect(kindWelcome, &w); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBadMessagesEndTheConnection(t *testing.T) {
	n := newNet(t, func(c *ServerConfig) { c.MaxFrame = 1000; c.Window = 2 })
	header := func(length uint32, k kind, body ...byte) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, length), byte(k)), body...)
	}
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"unknown type", header(2, 99, 0)},
		{"type 0", header(2, 0, 0)},
		{"length 0", header(0, kindPing)},
		{"frame over the limit", header(1002, kindFrame)},
		{"length of 4 GiB", header(1<<32-1, kindFrame)},
		{"call over the limit", header(2<<20, kindCall)},
		{"a message of the receiver's", header(3, kindAck, 0x81, 1)},
		{"not CBOR", header(3, kindPing, 0xff, 0xff)},
		{"trailing bytes", header(4, kindPing, 0x81, 1, 1)},
		{"a number not in shortest form", header(4, kindPing, 0x81, 0x18, 1)},
		{"too few fields", header(3, kindTrace, 0x81, 1)},
		{"a second hello", header(2, kindHello, 0x80)},
		{"a frame that is garbage", header(4, kindFrame, 1, 2, 3)},
		{"a frame that is empty", header(1, kindFrame)},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := n.registered(t)
			if err := raw.writeRaw(c.data); err != nil {
				t.Fatal(err)
			}
			for {
				k, _, err := raw.read()
				if err != nil {
					break // the receiver closed
				}
				if k != kindRefuse {
					t.Fatalf("the receiver answered with a message of type %d", k)
				}
			}
		})
	}
	source := newSource(n.hub, n.arena.id, 3, 1)
	n.run(t, n.config(source))
	await(t, "an honest sender afterwards", source.done)
	n.exactlyOnce(t, 3)
}

func TestGarbageBeforeHelloDisturbsNobody(t *testing.T) {
	n := newNet(t, nil)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70000), "\x00"} {
		c, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, garbage)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // until the receiver closes
		c.Close()
	}
	source := newSource(n.hub, n.arena.id, 3, 1)
	n.run(t, n.config(source))
	await(t, "an honest sender afterwards", source.done)
}

// A sender that falls silent at any step is given up, and its places are free.
func TestSilentSenderIsGivenUp(t *testing.T) {
	n := newNet(t, func(c *ServerConfig) {
		c.HelloTimeout, c.IdleTimeout, c.MaxPending = 300*time.Millisecond, 200*time.Millisecond, 1
	})
	for name, connect := range map[string]func() net.Conn{
		"before the handshake": func() net.Conn {
			c, err := net.Dial("tcp", n.address)
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		"before hello": func() net.Conn {
			c := n.raw(t)
			if err := c.tls.Handshake(); err != nil {
				t.Fatal(err)
			}
			return c.sock
		},
		"after welcome": func() net.Conn { return n.registered(t).sock },
		"within a message": func() net.Conn {
			c := n.registered(t)
			c.writeRaw([]byte{0, 0, 1})
			return c.sock
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect()
			ended := make(chan struct{})
			go func() { io.Copy(io.Discard, c); close(ended) }()
			await(t, "the receiver to close", ended)
			c.Close()
		})
	}
	source := newSource(n.hub, n.arena.id, 3, 1)
	cfg := n.config(source)
	cfg.IdleTimeout = 150 * time.Millisecond
	n.run(t, cfg)
	await(t, "an honest sender afterwards", source.done)
}

// A receiver that falls silent at any step is given up and dialled again.
func TestSilentReceiverIsGivenUp(t *testing.T) {
	arena := newParty(t, "arena")
	hub := newParty(t, "hub")
	codec, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	for name, serve := range map[string]func(c *conn){
		"before the handshake": func(*conn) {},
		"before greeting":      func(c *conn) { c.tls.Handshake() },
		"before welcome":       func(c *conn) { c.write(kindGreeting, &greeting{Version: version}) },
		"after welcome": func(c *conn) {
			c.write(kindGreeting, &greeting{Version: version})
			c.read()
			c.write(kindWelcome, &welcome{Incarnation: 1, MaxFrame: 1000, Window: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s, err := NewSender(SenderConfig{
				Self: hub.id, Certificate: hub.cert, Source: newSource(hub, arena.id, 3, 1),
				Peer:         Peer{Party: arena.id, Address: l.Addr().String(), Pin: arena.pin},
				HelloTimeout: 100 * time.Millisecond, IdleTimeout: 100 * time.Millisecond,
				MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); s.Run(ctx) }()
			for range 2 {
				raw, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				sock := newSocket(raw, 10*time.Second)
				serve(&conn{codec: codec, sock: sock, tls: tls.Server(sock, tlsConfig(arena.cert, func([32]byte) bool { return true }))})
			}
			cancel()
			<-ended
		})
	}
}

// A sender that doesn't read can't make the receiver wait or grow.
func TestSenderThatDoesNotReadIsDropped(t *testing.T) {
	n := newNet(t, nil)
	n.registered(t)
	var err error
	for range 10_000 {
		if err = n.server.Notify("hub", "demand", make([]byte, 60<<10)); err != nil {
			break
		}
	}
	if carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("600 MB were queued for a sender that doesn't read: %v", err)
	}
}

func TestNewerConnectionTakesOverAtOnce(t *testing.T) {
	n := newNet(t, nil)
	first := n.registered(t)
	second := n.registered(t)
	for {
		if _, _, err := first.read(); err != nil {
			break
		}
	}
	if err := second.write(kindPing, &ping{N: 7}); err != nil {
		t.Fatal(err)
	}
	var p ping
	if err := second.expect(kindPong, &p); err != nil || p.N != 7 {
		t.Errorf("the newer connection: %v %v", p, err)
	}
}

func TestKeyExchangeIsHybrid(t *testing.T) {
	n := newNet(t, nil)
	c := n.raw(t)
	if err := c.tls.Handshake(); err != nil {
		t.Fatal(err)
	}
	if st := c.tls.ConnectionState(); st.CurveID != tls.X25519MLKEM768 || st.Version != tls.VersionTLS13 || st.DidResume {
		t.Errorf("curve %v, version %x, resumed %v", st.CurveID, st.Version, st.DidResume)
	}
}

// A sender that doesn't wait is ended at the first frame, or call, beyond what it may have
// without an answer: the rest would be memory of the receiver's.
func TestWhoSendsMoreThanItMayIsEnded(t *testing.T) {
	const window = 3
	for name, c := range map[string]struct {
		frames, calls int // sent while the first call is handled
		want          int // of them are handled
	}{
		"frames": {window + 1, 1, window + 1},
		"calls":  {0, maxCalls + 1, maxCalls},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet(t, func(c *ServerConfig) { c.Window = window })
			handled, release := make(chan struct{}, 100), make(chan struct{})
			n.sink.onCall = func(string, []byte) ([]byte, error) {
				handled <- struct{}{}
				<-release
				return nil, nil
			}
			s := n.registered(t)
			source := newSource(n.hub, n.arena.id, uint64(c.frames), 1)
			source.incarnation = 1
			for i := range c.calls {
				if err := s.write(kindCall, &call{ID: uint64(i + 1), Kind: "bag", Body: []byte{1}}); err != nil {
					t.Fatal(err)
				}
			}
			await(t, "the first call", handled)
			for range c.frames {
				f, err := source.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := s.writeFrame(f.Bytes); err != nil {
					t.Fatal(err)
				}
			}
			in := n.server.connected("hub")
			for end := time.Now().Add(20 * time.Second); int(in.frames.Load()) < c.frames || int(in.calls.Load()) < c.calls; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("not everything is read within 20 s")
				}
			}
			close(release)
			for err := error(nil); err == nil; {
				_, _, err = s.read()
			}
			n.sink.mu.Lock()
			defer n.sink.mu.Unlock()
			if len(n.sink.events) != c.want {
				t.Errorf("%d frames and calls are handled, want %d: %v", len(n.sink.events), c.want, n.sink.events)
			}
		})
	}
}

// Connections that say nothing don't keep a sender of another address out, however many
// addresses they come from.
func TestSilenceElsewhereKeepsNobodyOut(t *testing.T) {
	n := newNet(t, func(c *ServerConfig) { c.MaxPending = 8 })
	for i := range 16 { // of four addresses, each with as many as it may have
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}}
		c, err := d.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	n.registered(t)
}

// stuck is a source that waits for what its receiver doesn't answer.
type stuck struct{ *memSource }

func (s stuck) Resume(ctx context.Context, _ Resume) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A receiver that tells much before it lets the source begin is left: what it tells is kept
// until then.
func TestReceiverThatTellsTooMuchAtFirst(t *testing.T) {
	arena, hub := newParty(t, "arena"), newParty(t, "hub")
	codec, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := NewSender(SenderConfig{
		Self: hub.id, Certificate: hub.cert, Source: stuck{newSource(hub, arena.id, 3, 1)},
		Peer: Peer{Party: arena.id, Address: l.Addr().String(), Pin: arena.pin}, MinBackoff: time.Hour, MaxBackoff: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	sock := newSocket(raw, 10*time.Second)
	c := &conn{codec: codec, sock: sock, tls: tls.Server(sock, tlsConfig(arena.cert, func([32]byte) bool { return true }))}
	for _, say := range []func() error{
		c.tls.Handshake,
		func() error { return c.write(kindGreeting, &greeting{Version: version}) },
		func() error { _, _, err := c.read(); return err },
		func() error { return c.write(kindWelcome, &welcome{Incarnation: 1, MaxFrame: 1000, Window: 1}) },
	} {
		if err := say(); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	for ; told < 100 && s.Status().LastError == ""; told++ {
		if err := c.write(kindNotify, &notify{Kind: "demand", Body: make([]byte, 100_000)}); err != nil {
			break
		}
	}
	await := func() bool { return strings.Contains(s.Status().LastError, "bytes at the beginning of the connection") }
	for until := time.Now().Add(10 * time.Second); !await() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if !await() {
		t.Errorf("after %d times 100 kB the sender says %q", told, s.Status().LastError)
	}
}

// A receiver that makes a source ask without an end is left.
func TestReceiverThatAnswersNothingAtFirst(t *testing.T) {
	n := newNet(t, nil)
	c := n.config(nil)
	c.Source, c.ResumeTimeout, c.MinBackoff, c.MaxBackoff = stuck{newSource(n.hub, n.arena.id, 3, 1)}, 50*time.Millisecond, time.Hour, time.Hour
	s, _, _ := n.run(t, c)
	for until := time.Now().Add(10 * time.Second); s.Status().LastError == "" && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if why := s.Status().LastError; !strings.Contains(why, "made resuming at frame 0 take more than 50ms") {
		t.Errorf("it ends with %q", why)
	}
}

// lasting is a source that goes on with the context that it was resumed with.
type lasting struct {
	*memSource
	resumed context.Context
}

func (l *lasting) Resume(ctx context.Context, r Resume) error {
	l.resumed = ctx
	return l.memSource.Resume(ctx, r)
}

func (l *lasting) Next(ctx context.Context) (Frame, error) {
	if err := l.resumed.Err(); err != nil {
		return Frame{}, err
	}
	return l.memSource.Next(ctx)
}

// What a source was resumed with lasts as long as the connection, however long that is.
func TestResumingInTimeEndsNothing(t *testing.T) {
	n := newNet(t, nil)
	source := &lasting{memSource: newSource(n.hub, n.arena.id, 300, 1)}
	c := n.config(nil)
	c.Source, c.ResumeTimeout = source, 20*time.Millisecond
	s, _, _ := n.run(t, c)
	time.Sleep(60 * time.Millisecond)
	await(t, "the last acknowledgement", source.done)
	if st := s.Status(); !st.Connected || source.resumed.Err() != nil {
		t.Errorf("%+v, %v", st, source.resumed.Err())
	}
}
