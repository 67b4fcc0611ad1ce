package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"sync"
	"time"

	"carnet"
)

// SenderConfig makes a Sender. Zero durations and sizes take the defaults
// stated; the other fields are required, but for Dial and Log.
type SenderConfig struct {
	Self        carnet.PartyID
	Peer        Peer // Party, Address and Pin; Key isn't used
	Certificate tls.Certificate
	Source      Source

	Window       int           // frames sent and not acknowledged; default 16, at most 1024; the receiver may want fewer
	HelloTimeout time.Duration // from dialling to Welcome; default 10 s
	IdleTimeout  time.Duration // silence until a connection is given up; default 30 s
	// ResumeTimeout is how long the source may ask the receiver before it is resumed; default
	// two minutes.
	ResumeTimeout time.Duration
	MinBackoff    time.Duration // before the second attempt; default 100 ms
	MaxBackoff    time.Duration // default 15 s

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // default: net.Dialer
	Log  *slog.Logger                                                         // default: none
}

// Status is a sender's state for status pages.
type Status struct {
	Connected   bool // registered, and the source has been resumed or is about to be
	Incarnation uint64
	Acked       uint64    // greatest acknowledged number
	InFlight    int       // frames sent and not acknowledged
	Connections uint64    // begun since the start
	LastError   string    // why the last connection ended or could not be made
	Down        time.Time // since when there is none, and LastError stands; zero: there is one, or none was tried
}

// Sender is the end of a link that has frames. Make one for each peer and
// process; Run it once.
type Sender struct {
	SenderConfig
	codec   codec
	tls     *tls.Config
	process Process

	mu      sync.Mutex
	status  Status    // owned by mu
	current *outgoing // owned by mu; nil when not registered
	own     uint64    // owned by Run: the last incarnation given to this process
}

// NewSender checks cfg and draws the process's nonce.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	s := &Sender{SenderConfig: cfg, codec: codec}
	rand.Read(s.process[:])
	s.tls = tlsConfig(cfg.Certificate, func(pin [32]byte) bool { return pin == cfg.Peer.Pin })
	return s, nil
}

func (cfg *SenderConfig) complete() error {
	if _, err := carnet.ParsePartyID(string(cfg.Self)); err != nil {
		return fmt.Errorf("check link sender: %w", err)
	}
	if _, err := carnet.ParsePartyID(string(cfg.Peer.Party)); err != nil {
		return fmt.Errorf("check link peer: %w", err)
	}
	if _, _, err := net.SplitHostPort(cfg.Peer.Address); err != nil {
		return fmt.Errorf("check address of peer %s: %w", cfg.Peer.Party, err)
	}
	switch {
	case cfg.Peer.Pin == [32]byte{}:
		return fmt.Errorf("peer %s has no TLS pin", cfg.Peer.Party)
	case len(cfg.Certificate.Certificate) == 0:
		return errors.New("link sender has no TLS certificate")
	case cfg.Source == nil:
		return errors.New("link sender has no source")
	case cfg.Window < 0 || cfg.Window > maxWindow:
		return fmt.Errorf("window %d is not within 1 and %d", cfg.Window, maxWindow)
	}
	setDefault(&cfg.Window, 16)
	setDefault(&cfg.HelloTimeout, 10*time.Second)
	setDefault(&cfg.IdleTimeout, 30*time.Second)
	setDefault(&cfg.ResumeTimeout, 2*time.Minute)
	setDefault(&cfg.MinBackoff, 100*time.Millisecond)
	setDefault(&cfg.MaxBackoff, 15*time.Second)
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// maxWindow is the greatest window, for either side.
const maxWindow = 1024

func setDefault[T int | time.Duration](v *T, standard T) {
	if *v <= 0 {
		*v = standard
	}
}

// Run keeps the link up until ctx ends, the source fails, or the receiver says
// that this process may not send any more: then its error has code
// carnet.Fenced or carnet.Forked, and the process must not run another Sender
// for this peer.
func (s *Sender) Run(ctx context.Context) error {
	backoff := s.MinBackoff
	for connection := uint64(1); ; connection++ {
		began, acked := time.Now(), s.Status().Acked
		err := s.connect(ctx, connection)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final(err) {
			s.note(err)
			s.Log.Error("link stopped for good", "peer", s.Peer.Party, "error", err)
			return err
		}
		s.note(err)
		if s.Status().Acked > acked || time.Since(began) > s.MaxBackoff {
			backoff = s.MinBackoff
		}
		s.Log.Info("link will connect again", "peer", s.Peer.Party, "after", backoff, "error", err)
		// Half of it is jitter, so that senders don't come back all at once.
		wait := backoff/2 + mathrand.N(backoff/2+1)
		if !errors.Is(err, ErrAnew) {
			backoff = min(2*backoff, s.MaxBackoff)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// ErrAnew is what a Source's Next returns where it wants the link to begin anew. It
// is no failure: the link does so without waiting longer from time to time.
var ErrAnew = carnet.Errorf(carnet.Unavailable, "the link begins anew")

// sourceError marks an error of the Source: it ends Run, unless it says that it
// is for the moment.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

func final(err error) bool {
	code := carnet.CodeOf(err)
	if _, own := errors.AsType[sourceError](err); own {
		return code != carnet.Unavailable && code != carnet.NoSpace
	}
	return code == carnet.Fenced || code == carnet.Forked
}

func (s *Sender) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.LastError = err.Error()
	if s.status.Down.IsZero() {
		s.status.Down = time.Now()
	}
}

// Status returns the link's state.
func (s *Sender) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	if s.current != nil {
		st.InFlight = len(s.current.slots)
	}
	return st
}

// connect makes one connection and exchanges on it until it fails.
func (s *Sender) connect(ctx context.Context, connection uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.status.Connections = connection
	s.mu.Unlock()

	c, w, err := s.register(ctx, connection)
	if err != nil {
		return err
	}
	o := newOutgoing(s, c, w, cancel)
	s.mu.Lock()
	s.current, s.status.Connected, s.status.Incarnation, s.status.Acked, s.status.Down = o, true, w.Incarnation, w.Number, time.Time{}
	s.mu.Unlock()
	s.Log.Info("link registered", "peer", s.Peer.Party, "incarnation", w.Incarnation, "last", w.Number)

	err = o.exchange(ctx, w)

	s.mu.Lock()
	s.current, s.status.Connected = nil, false
	s.mu.Unlock()
	if source, ok := s.Source.(Parting); ok {
		source.Parted()
	}
	return err
}

// register dials, proves both parties' keys and says Hello.
func (s *Sender) register(ctx context.Context, connection uint64) (_ *conn, w welcome, err error) {
	hctx, done := context.WithTimeout(ctx, s.HelloTimeout)
	defer done()
	raw, err := s.Dial(hctx, "tcp", s.Peer.Address)
	if err != nil {
		return nil, w, fmt.Errorf("dial peer %s: %w", s.Peer.Party, err)
	}
	unwatch := context.AfterFunc(hctx, func() { raw.Close() })
	defer func() {
		if !unwatch() && err == nil {
			err = fmt.Errorf("greet peer %s: %w", s.Peer.Party, hctx.Err())
		}
		if err != nil {
			raw.Close()
		}
	}()
	sock := newSocket(raw, s.IdleTimeout)
	c := &conn{codec: s.codec, sock: sock, tls: tls.Client(sock, s.tls)}
	if err := c.tls.HandshakeContext(hctx); err != nil {
		return nil, w, fmt.Errorf("greet peer %s: %w", s.Peer.Party, err)
	}
	var g greeting
	if err := c.expect(kindGreeting, &g); err != nil {
		return nil, w, err
	}
	if g.Version != version {
		return nil, w, carnet.Errorf(carnet.Malformed, "peer %s speaks version %d of the link, this party version %d", s.Peer.Party, g.Version, version)
	}
	known, err := s.Source.Known(hctx)
	if err != nil {
		return nil, w, sourceError{fmt.Errorf("ask source what it knows: %w", err)}
	}
	if err := c.write(kindHello, &hello{
		Version: version, Party: string(s.Self), Audience: string(s.Peer.ownName()),
		Nonce: s.process.nonce(connection), Seen: g.Incarnation, Own: s.own, Known: known.Incarnation, Number: known.Number,
	}); err != nil {
		return nil, w, err
	}
	if err := c.expect(kindWelcome, &w); err != nil {
		return nil, w, err
	}
	if w.Incarnation <= max(g.Incarnation, s.own, known.Incarnation) || w.Incarnation > maxNumber || w.Number > maxNumber || w.Window < 1 || w.MaxFrame < 1 {
		return nil, w, carnet.Errorf(carnet.Malformed, "peer %s gave incarnation %d, frame %d, window %d, frame size %d", s.Peer.Party, w.Incarnation, w.Number, w.Window, w.MaxFrame)
	}
	s.own = w.Incarnation
	return c, w, nil
}

// Call sends a request to the receiver and waits for its answer: what the
// receiver's Sink returns. The receiver handles it before any frame that is sent
// after Call was entered by the same goroutine. Without a connection, or when it
// breaks meanwhile, the error has code carnet.Unavailable and whether the request
// was handled is not known.
func (s *Sender) Call(ctx context.Context, name string, body []byte) ([]byte, error) {
	if len(name) == 0 || len(name) > maxKind || len(body) > maxBody {
		return nil, carnet.Errorf(carnet.TooLarge, "call %q of %d bytes is over the limits of a link", clip(name, maxKind), len(body))
	}
	answer, err := s.ask(ctx, func(id uint64) (kind, any) {
		return kindCall, &call{ID: id, Kind: name, Body: body}
	})
	return answer.body, err
}

// Trace asks what the receiver has with a frame number: ok is false where it
// keeps no such frame.
func (s *Sender) Trace(ctx context.Context, number uint64) (p Position, ok bool, err error) {
	answer, err := s.ask(ctx, func(id uint64) (kind, any) {
		return kindTrace, &trace{ID: id, Number: number}
	})
	return answer.position, answer.kept, err
}

func (s *Sender) ask(ctx context.Context, message func(id uint64) (kind, any)) (answer, error) {
	s.mu.Lock()
	o := s.current
	s.mu.Unlock()
	if o == nil {
		return answer{}, carnet.Errorf(carnet.Unavailable, "no connection to peer %s", s.Peer.Party)
	}
	return o.ask(ctx, message)
}
