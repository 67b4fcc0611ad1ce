package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"time"

	"carnet"
	"carnet/porter"
	"carnet/seal"
)

// ServerConfig makes a Server. Zero durations and sizes take the defaults
// stated; the other fields are required, but for Alarm and Log.
type ServerConfig struct {
	Self        carnet.PartyID
	Certificate tls.Certificate
	// Peer finds the sender whose TLS key has the given pin. It is asked at each
	// connection, from many goroutines.
	Peer func(pin [32]byte) (Peer, bool)
	Sink Sink

	Window       int           // frames taken and not acknowledged, each connection; default 16, at most 1024
	MaxFrame     int           // bytes of a frame; default 4 MiB, at most seal.MaxFrame
	HelloTimeout time.Duration // from accept to Welcome; default 10 s
	IdleTimeout  time.Duration // silence until a connection is given up; default 45 s
	CallTimeout  time.Duration // for one Sink.Call; default 10 s
	MaxPending   int           // connections before Welcome, of one address at most a quarter; default 64

	// Alarm is told what a person must look at: forks, tampered frames, a
	// receiver that was restored from a backup. It must not block.
	Alarm func(party carnet.PartyID, err *carnet.Error)
	Log   *slog.Logger // default: none
}

// Server is the end of links that takes frames.
type Server struct {
	ServerConfig
	codec    codec
	tls      *tls.Config
	pending  *porter.Porter // for connections before Welcome
	checking chan struct{}  // a place for each frame being verified
	arrivals sync.Pool      // of *Arrival

	mu    sync.Mutex
	ports map[carnet.PartyID]*port // owned by mu; one for each peer that ever said Hello
}

// port is where one sender's connections arrive.
type port struct {
	admitting chan struct{} // holds one token: who has it registers

	mu      sync.Mutex
	current *incoming // owned by mu; nil without a registered connection
}

// NewServer checks cfg.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	s := &Server{
		ServerConfig: cfg, codec: codec,
		pending:  porter.New(cfg.MaxPending, max(1, cfg.MaxPending/4)),
		checking: make(chan struct{}, runtime.GOMAXPROCS(0)),
		ports:    make(map[carnet.PartyID]*port),
	}
	s.arrivals.New = func() any { return new(Arrival) }
	s.tls = tlsConfig(cfg.Certificate, func(pin [32]byte) bool { _, ok := cfg.Peer(pin); return ok })
	return s, nil
}

func (cfg *ServerConfig) complete() error {
	if _, err := carnet.ParsePartyID(string(cfg.Self)); err != nil {
		return fmt.Errorf("check link server: %w", err)
	}
	switch {
	case len(cfg.Certificate.Certificate) == 0:
		return errors.New("link server has no TLS certificate")
	case cfg.Peer == nil:
		return errors.New("link server has no peers")
	case cfg.Sink == nil:
		return errors.New("link server has no sink")
	case cfg.Window < 0 || cfg.Window > maxWindow:
		return fmt.Errorf("window %d is not within 1 and %d", cfg.Window, maxWindow)
	case cfg.MaxFrame < 0 || cfg.MaxFrame > seal.MaxFrame:
		return fmt.Errorf("frame size %d is not within 1 and %d", cfg.MaxFrame, seal.MaxFrame)
	}
	setDefault(&cfg.Window, 16)
	setDefault(&cfg.MaxFrame, 4<<20)
	setDefault(&cfg.HelloTimeout, 10*time.Second)
	setDefault(&cfg.IdleTimeout, 45*time.Second)
	setDefault(&cfg.CallTimeout, 10*time.Second)
	setDefault(&cfg.MaxPending, 64)
	if cfg.Alarm == nil {
		cfg.Alarm = func(carnet.PartyID, *carnet.Error) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Serve accepts connections until ctx ends, and returns when all of them have
// ended. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		raw, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				raw.Close()
			}
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept link connections: %w", err)
		case err != nil: // out of descriptors, or gone before it was accepted
			s.Log.Warn("link can't accept a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if place, ok := s.pending.Enter(raw.RemoteAddr(), func() { raw.Close() }); ok {
			connections.Go(func() { s.serve(ctx, raw, place.Leave) })
		} else {
			s.Log.Warn("link has too many connections that didn't say hello", "from", raw.RemoteAddr())
			raw.Close()
		}
	}
}

// serve owns one connection from accept to close; entered gives back the place of
// one before Welcome.
func (s *Server) serve(ctx context.Context, raw net.Conn, entered func()) {
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	in, welcome, err := s.register(ctx, raw)
	entered()
	if err != nil {
		s.Log.Info("link connection refused", "from", raw.RemoteAddr(), "error", err)
		return
	}
	s.Log.Info("link registered", "peer", in.peer.Party, "incarnation", in.state.Incarnation, "last", in.state.Last.Number)
	err = in.exchange(ctx, welcome)
	s.Log.Info("link connection ended", "peer", in.peer.Party, "incarnation", in.state.Incarnation, "error", err)
}

// register proves both parties' keys, hears Hello and registers the connection.
// The connection is the port's current one when it returns without an error.
func (s *Server) register(ctx context.Context, raw net.Conn) (_ *incoming, w welcome, err error) {
	ctx, done := context.WithTimeout(ctx, s.HelloTimeout)
	defer done()
	unwatch := context.AfterFunc(ctx, func() { raw.Close() })
	defer unwatch()
	sock := newSocket(raw, s.IdleTimeout)
	c := &conn{codec: s.codec, sock: sock, tls: tls.Server(sock, s.tls)}
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return nil, w, fmt.Errorf("greet connection: %w", err)
	}
	peer, ok := s.Peer(PinOf(c.tls.ConnectionState().PeerCertificates[0]))
	if !ok {
		return nil, w, carnet.Errorf(carnet.Unauthenticated, "the peering ended during the handshake")
	}
	st, err := s.Sink.State(ctx, peer.Party)
	if err != nil {
		return nil, w, c.refuse(0, outside(err), err)
	}
	if err := c.write(kindGreeting, &greeting{Version: version, Incarnation: st.Incarnation}); err != nil {
		return nil, w, err
	}
	var h hello
	if err := c.expect(kindHello, &h); err != nil {
		return nil, w, err
	}
	if err := s.addressed(&h, peer); err != nil {
		return nil, w, c.refuse(0, err, err)
	}
	in := newIncoming(s, c, peer)
	if err := s.admit(ctx, in, &h); err != nil {
		return nil, w, c.refuse(0, outside(err), err)
	}
	announcement, err := s.Sink.Announcement(ctx, peer.Party)
	if now, ok := s.Peer(peer.Pin); err == nil && (!ok || now.Party != peer.Party) {
		// What ended meanwhile may have come before the connection could be found.
		err = carnet.Errorf(carnet.Unauthenticated, "the peering ended during the registration")
	}
	if err != nil {
		in.fail(err)
		s.retire(in)
		return nil, w, c.refuse(0, outside(err), err)
	}
	last := in.state.Last
	return in, welcome{
		Incarnation: in.state.Incarnation, Number: last.Number, Hash: last.Hash, Covers: last.Covers,
		MaxFrame: s.MaxFrame, Window: s.Window, Announcement: announcement,
	}, nil
}

func (s *Server) addressed(h *hello, peer Peer) *carnet.Error {
	switch {
	case h.Version != version:
		return carnet.Errorf(carnet.Malformed, "this party speaks version %d of the link, not %d", version, h.Version)
	case h.Party != string(peer.ownName()):
		return carnet.Errorf(carnet.Unauthenticated, "the TLS key is not that of the party named in hello")
	case h.Audience != string(s.Self):
		return carnet.Errorf(carnet.Unauthenticated, "this is not the party that hello is for")
	}
	return nil
}

// admit decides on a hello and, if it is admitted, ends the sender's connection
// before it, registers durably and makes in the port's current connection.
func (s *Server) admit(ctx context.Context, in *incoming, m *hello) error {
	h := Hello{Nonce: m.Nonce, Seen: m.Seen, Own: m.Own, Known: m.Known, Number: m.Number}
	p := s.port(in.peer.Party)
	select {
	case p.admitting <- struct{}{}:
		defer func() { <-p.admitting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Twice: a hello that isn't admitted must not disturb the current connection,
	// and what that one does until it has ended counts.
	if _, err := s.judgeHello(ctx, in.peer.Party, h); err != nil {
		return err
	}
	if err := p.clear(ctx); err != nil {
		return err
	}
	above, err := s.judgeHello(ctx, in.peer.Party, h)
	if err != nil {
		return err
	}
	in.state, err = s.Sink.Register(ctx, in.peer.Party, h.Nonce, above)
	if err != nil {
		return fmt.Errorf("register %s: %w", in.peer.Party, err)
	}
	if last := in.state.Last.Number; h.Number > last {
		s.alarm(in.peer.Party, carnet.Errorf(carnet.Conflict, "%s knows frame %d to be acknowledged, and the last one here is %d: this party's store is older than that", in.peer.Party, h.Number, last).
			WithFix("if the store was restored from a backup, nothing: the sender sends again what it still has and records a gap for the rest"))
	}
	p.mu.Lock()
	p.current = in
	p.mu.Unlock()
	return nil
}

func (s *Server) judgeHello(ctx context.Context, party carnet.PartyID, h Hello) (above uint64, err error) {
	st, err := s.Sink.State(ctx, party)
	if err != nil {
		return 0, fmt.Errorf("read state of %s: %w", party, err)
	}
	switch answer, above := st.Admit(h); answer {
	case Admitted:
		return above, nil
	case Dead:
		return 0, carnet.Errorf(carnet.Fenced, "incarnation %d of %s is over: incarnation %d was registered since", h.Own, party, st.Incarnation).
			WithFix("stop this process if a newer one runs, else start it again")
	default:
		return 0, carnet.Errorf(carnet.Conflict, "another connection of %s was registered meanwhile", party)
	}
}

func (s *Server) port(party carnet.PartyID) *port {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.ports[party]
	if !ok {
		p = &port{admitting: make(chan struct{}, 1)}
		s.ports[party] = p
	}
	return p
}

// clear ends the current connection and waits until it has left the Sink.
func (p *port) clear(ctx context.Context) error {
	p.mu.Lock()
	old := p.current
	p.mu.Unlock()
	if old == nil {
		return nil
	}
	old.fail(carnet.Errorf(carnet.Conflict, "a newer connection of the sender took over"))
	select {
	case <-old.left:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the connection before: %w", ctx.Err())
	}
}

// retire takes a connection that has left the Sink off its port.
func (s *Server) retire(in *incoming) {
	close(in.left)
	p := s.port(in.peer.Party)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == in {
		p.current = nil
	}
}

// Notify tells a connected sender something, and fails with carnet.Unavailable
// when it isn't connected: what must reach it is told again when it is
// (Sink.Welcomed). Notify doesn't wait for the sender to read.
func (s *Server) Notify(party carnet.PartyID, kind string, body []byte) error {
	if len(kind) == 0 || len(kind) > maxKind || len(body) > maxNotice {
		return carnet.Errorf(carnet.TooLarge, "notice %q of %d bytes is over the limits of a link", clip(kind, maxKind), len(body))
	}
	in := s.connected(party)
	if in == nil || !in.welcomed.Load() {
		return carnet.Errorf(carnet.Unavailable, "%s is not connected", party)
	}
	return in.out.message(kindNotify, &notify{Kind: kind, Body: body})
}

// Connected reports whether a sender has a registered connection.
func (s *Server) Connected(party carnet.PartyID) bool { return s.connected(party) != nil }

// Disconnect ends a sender's connection, as when its peering ends; whether it may
// come back is Peer's to say.
func (s *Server) Disconnect(party carnet.PartyID) {
	if in := s.connected(party); in != nil {
		in.fail(carnet.Errorf(carnet.Unavailable, "disconnected by this party"))
		in.conn.sock.Close() // at once: there is nothing to tell
	}
}

func (s *Server) connected(party carnet.PartyID) *incoming {
	p := s.port(party)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

func (s *Server) alarm(party carnet.PartyID, err *carnet.Error) {
	s.Log.Error("link alarm", "peer", party, "code", err.Code, "error", err)
	s.Alarm(party, err)
}

// outside is what a sender hears of an error: a carnet.Error as it is, of any
// other nothing but that it should try again.
func outside(err error) *carnet.Error {
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		return e
	}
	return carnet.Errorf(carnet.Unavailable, "the receiver can't do that at the moment")
}

// refuse writes a refusal and returns why, for the log.
func (c *conn) refuse(number uint64, told *carnet.Error, why error) error {
	if err := c.write(kindRefuse, newRefuse(number, told)); err != nil {
		return fmt.Errorf("%w (and the sender could not be told: %v)", why, err)
	}
	c.tls.CloseWrite()
	return why
}
