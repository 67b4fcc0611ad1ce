package r5

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
)

// registry is what is open: connections and calls, by the pin of the peer's TLS
// key. Neither outlives what it lives by.
type registry struct {
	maxConns, maxCalls int // of one peer

	mu    sync.Mutex
	peers map[carnet.Fingerprint]*opened
}

type opened struct {
	conns map[net.Conn]struct{}
	taken map[net.Conn]struct{} // by their calls' handlers: WebSockets; they count as calls alone
	calls map[*liveCall]struct{}
	asked int // questions for tokens, under way
}

func newRegistry(conns, calls int) *registry {
	return &registry{maxConns: conns, maxCalls: calls, peers: make(map[carnet.Fingerprint]*opened)}
}

// of returns what a peer has open; the caller holds mu.
func (g *registry) of(pin carnet.Fingerprint) *opened {
	o := g.peers[pin]
	if o == nil {
		o = &opened{conns: make(map[net.Conn]struct{}), taken: make(map[net.Conn]struct{}), calls: make(map[*liveCall]struct{})}
		g.peers[pin] = o
	}
	return o
}

// tidy forgets a peer that has nothing open; the caller holds mu.
func (g *registry) tidy(pin carnet.Fingerprint) {
	if o := g.peers[pin]; o != nil && len(o.conns)+len(o.taken)+len(o.calls)+o.asked == 0 {
		delete(g.peers, pin)
	}
}

// connected reports whether a connection is entered.
func (g *registry) connected(pin carnet.Fingerprint, c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.peers[pin]
	if o == nil {
		return false
	}
	_, in := o.conns[c]
	return in
}

// connect enters a connection; false: the peer has as many as it may.
func (g *registry) connect(pin carnet.Fingerprint, c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.of(pin)
	if len(o.conns) >= g.maxConns {
		return false
	}
	o.conns[c] = struct{}{}
	return true
}

func (g *registry) disconnect(pin carnet.Fingerprint, c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.peers[pin]; o != nil {
		delete(o.conns, c)
		g.tidy(pin)
	}
}

// take has a connection that a call's handler takes over stay the peer's until the call
// leaves.
func (g *registry) take(pin carnet.Fingerprint, c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.peers[pin]; o != nil {
		delete(o.conns, c)
		o.taken[c] = struct{}{}
	}
}

func (g *registry) busy() error {
	return carnet.Errorf(carnet.Unavailable, "the peer has %d calls under way, which is all it may have", g.maxCalls)
}

// begin counts a question for a token.
func (g *registry) begin(pin carnet.Fingerprint) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.of(pin)
	if len(o.calls)+o.asked >= g.maxCalls {
		return nil, g.busy()
	}
	o.asked++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		o.asked--
		g.tidy(pin)
	}, nil
}

// enter enters a call.
func (g *registry) enter(w http.ResponseWriter, r *http.Request, c Call) (*liveCall, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.of(c.Pin)
	if len(o.calls)+o.asked >= g.maxCalls {
		return nil, g.busy()
	}
	l := &liveCall{conn: connOf(r.Context()), call: c, registry: g, writer: http.NewResponseController(w)}
	l.ctx, l.cancel = context.WithCancelCause(r.Context())
	o.calls[l] = struct{}{}
	return l, nil
}

// all lists what is open.
func (g *registry) all() (pins []carnet.Fingerprint, calls []*liveCall) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for pin, o := range g.peers {
		pins = append(pins, pin)
		for l := range o.calls {
			calls = append(calls, l)
		}
	}
	return pins, calls
}

// drop closes all connections of a peer.
func (g *registry) drop(pin carnet.Fingerprint) {
	g.mu.Lock()
	var conns []net.Conn
	if o := g.peers[pin]; o != nil {
		conns = slices.AppendSeq(slices.Collect(maps.Keys(o.conns)), maps.Keys(o.taken))
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// liveCall is a call whose handler runs.
type liveCall struct {
	conn     net.Conn
	call     Call
	registry *registry
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer // owner: the handler's goroutine

	mu       sync.Mutex // guards what follows
	writer   *http.ResponseController
	admitted bool
	most     carnet.Clearance // that may flow, as it was when the call was admitted
	left     bool
}

// admit begins the call, to which so much may flow, unless what it lives by has ended since it was entered:
// then it says why, and is still to be refused like any other.
func (l *liveCall) admit(most carnet.Clearance) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.admitted, l.most = true, most
	return nil
}

// within says why the call can't go on, if less may flow than when it began: its
// caller may call again.
func (l *liveCall) within(now carnet.Clearance) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.admitted && !l.most.Within(now) {
		return refusal(LabelRule, carnet.Errorf(carnet.Forbidden, "less may flow to the caller than when it called").WithFix("call again"))
	}
	return nil
}

// after ends the call when its token does.
func (l *liveCall) after(d time.Duration) {
	l.timer = time.AfterFunc(d, func() {
		l.end(carnet.Errorf(carnet.Unauthenticated, "the access token has ended").WithFix("call again with a new one"))
	})
}

// end ends the call: its context is cancelled, and what it reads or writes fails.
func (l *liveCall) end(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel(why)
	if !l.admitted || l.left {
		return
	}
	past := time.Unix(1, 0)
	_ = l.writer.SetWriteDeadline(past) // where there is no deadline nothing waits
	_ = l.writer.SetReadDeadline(past)
}

// leave is called when the handler has returned.
func (l *liveCall) leave() {
	l.cancel(context.Canceled)
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Lock()
	l.left = true
	l.mu.Unlock()
	g := l.registry
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.peers[l.call.Pin]; o != nil {
		delete(o.calls, l)
		delete(o.taken, l.conn)
		g.tidy(l.call.Pin)
	}
}

// Disconnect closes a peer's connections: they are closed when it returns. What was
// called for over them ends with them.
func (s *Server) Disconnect(pin carnet.Fingerprint) { s.live.drop(pin) }

// Recheck has what is open asked anew what it lives by, at once: something was
// ended. It doesn't wait.
func (s *Server) Recheck() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}

// recheckEvery is how often it is asked without being told.
const recheckEvery = 100 * time.Millisecond

// Run ends what doesn't stand any more, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(recheckEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-s.recheck:
		}
		s.endFallen(ctx)
	}
}

// standsBy is what calls may have in common.
type standsBy struct {
	grant   string
	version uint64
	mandate string
	action  identity.Action // by which the grant is asked again
	pin     carnet.Fingerprint
}

// stands is whether they do, and how much may flow to them then.
type stands struct {
	most carnet.Clearance
	err  error
}

// endFallen ends connections and calls whose peering, mandate or grant is over, or of which
// that can't be told in time: what ends calls waits for no store.
func (s *Server) endFallen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, recheckEvery)
	defer cancel()
	pins, calls := s.live.all()
	fresh := s.fresh()
	asked := make(map[standsBy]stands)
	for _, l := range calls {
		c := l.call
		by := standsBy{c.Grant.ID, c.Grant.Version, c.Mandate, c.Action, c.Pin}
		now, done := asked[by]
		if !done {
			now.most, now.err = s.standing(ctx, c)
			asked[by] = now
		}
		err := now.err
		if err == nil {
			err = l.within(now.most)
		}
		if err != nil {
			s.cfg.Log.Info("a call between worlds is ended", "peer", c.Platform, "avatar", c.Avatar, "err", err)
			l.end(err)
		}
	}
	for _, pin := range pins {
		if _, err := s.cfg.Peers.ByPin(pin); err != nil || fresh != nil {
			s.live.drop(pin)
		}
	}
}
