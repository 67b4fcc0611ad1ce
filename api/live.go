package api

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/entity"
	"carnet/senml"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sync/errgroup"
)

// The WebSocket's subprotocols. Without one, frames are JSON.
const (
	protoJSON = "carnet.senml+json"
	protoCBOR = "carnet.senml+cbor"
)

type watchQuery struct {
	OfAvatar
	After       string `query:"after" doc:"Go on after this cursor; empty: from the beginning; left out: from now on." maxLength:"16384"`
	LastEventID string `header:"Last-Event-ID" doc:"The cursor that a reconnecting EventSource had last; it comes before after." maxLength:"16384"`
}

// watch checks what a subscriber asks for. What follows is no single answer, so
// it is written by itself.
func (s *server) watch(_ context.Context, in *watchQuery) (*huma.StreamResponse, error) {
	if _, err := s.world.Avatar(in.ID); err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		at, err := s.placeOf(r)
		if r.Method != http.MethodGet { // net/http takes HEAD for GET; this answer would have no end
			err = problem(http.StatusMethodNotAllowed, carnet.Errorf(carnet.Malformed, "%s is not a method of this path", r.Method).WithFix("use GET"))
		}
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		s.serveLive(w, r, in.ID, at)
	}}, nil
}

// place is where a subscription begins, and what it sees.
type place struct {
	after *avatar.Cursor // nil: from now on
	lens  *entity.Lens   // nil: all of it
	grant string         // of the lens
}

// placeOf finds where a subscriber goes on.
func (s *server) placeOf(r *http.Request) (at place, err error) {
	if at.lens, err = s.lens(r.Context()); err != nil {
		return at, err
	}
	at.grant = admittedIn(r.Context()).Known.Grant
	text, given := r.Header.Get("Last-Event-ID"), true
	if text == "" {
		text, given = r.URL.Query().Get("after"), r.URL.Query().Has("after")
	}
	if !given {
		return at, nil
	}
	if at.lens != nil {
		if text, err = at.lens.Resume(text); err != nil {
			return at, err
		}
	}
	c, err := avatar.ParseCursor(text)
	at.after = &c
	return at, err
}

func (s *server) serveLive(w http.ResponseWriter, r *http.Request, id carnet.AvatarID, at place) {
	leave, err := s.live.enter(caller(r.Context()))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer leave()
	if isWebSocket(r) {
		s.serveWebSocket(w, r, id, at)
		return
	}
	if _, ok := negotiate(r.Header.Get("Accept"), []string{typeEvents}); !ok {
		s.refuse(w, r, notAcceptable([]string{typeEvents, "or a WebSocket"}))
		return
	}
	s.serveEvents(w, r, id, at)
}

// outlet is one subscriber's connection.
type outlet interface {
	// send writes one frame, and fails when the subscriber doesn't take it in time.
	send(ctx context.Context, e event) error
	// begin tells a cursor without an event: where the subscription begins.
	begin(ctx context.Context, cursor string) error
	// ping fails when the subscriber is gone. It waits for no answer.
	ping(ctx context.Context) error
}

// event is what a subscriber is told at once.
type event struct {
	cursor string // go on after it from here
	ms     []carnet.Measurement
}

// Why the party ends a subscription.
var (
	errRevoked = errors.New("the token is no longer valid")
	errOver    = errors.New("the grant is over")
	errFallen  = errors.New("what the call lives by is over: its token, say")
	errUnknown = errors.New("it can't be told at the moment whether it still may be; go on after the last cursor")
	errStopped = errors.New("the party is stopping")
)

// watching is a subscription, and how it is seen.
type watching struct {
	*avatar.Subscription
	place
	release func()
}

func (w *watching) close() {
	w.Close()
	w.release()
}

// open begins a subscription. Its context ends with the grant that it lives by.
func (s *server) open(r *http.Request, id carnet.AvatarID, at place) (context.Context, *watching, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &watching{place: at, release: func() { cancel(nil) }}
	if at.lens != nil {
		release, err := s.entities.Hold(at.grant, func() { cancel(errOver) })
		if err != nil {
			cancel(nil)
			return nil, nil, err
		}
		w.release = func() { release(); cancel(nil) }
	}
	var err error
	switch {
	case at.lens != nil && at.lens.Deadbands():
		w.Subscription, err = s.join(ctx, id, at)
	case at.lens != nil && at.after == nil:
		w.Subscription, err = s.fromNowOn(id, at.lens)
	default:
		w.Subscription, err = s.world.Subscribe(id, at.after)
	}
	if err != nil {
		w.release()
		return nil, nil, err
	}
	return ctx, w, nil
}

// fromNowOn begins a subscription with what comes, and its lens's memory with what was
// last.
func (s *server) fromNowOn(id carnet.AvatarID, lens *entity.Lens) (*avatar.Subscription, error) {
	sub, err := s.world.Subscribe(id, nil)
	if err != nil {
		return nil, err
	}
	newest, err := s.world.Latest(id)
	if err != nil {
		sub.Close()
		return nil, err
	}
	lens.FromNowOn(newest)
	return sub, nil
}

// join begins a subscription under a grant with deadbands, of which all of the grant's
// have one memory (docs/design/grants.md).
func (s *server) join(ctx context.Context, id carnet.AvatarID, at place) (sub *avatar.Subscription, err error) {
	done := at.lens.Join()
	defer done()
	switch {
	case at.after == nil && at.lens.Begun():
		sub, err = s.upToNow(ctx, id, at.lens)
	case at.after == nil:
		sub, err = s.fromNowOn(id, at.lens)
	default:
		if !at.lens.Begun() && at.after.String() == "" { // what was before isn't shown
			now, err := s.fromNowOn(id, at.lens)
			if err != nil {
				return nil, err
			}
			err = at.lens.Found(now.Cursor().String())
			now.Close()
			if err != nil {
				return nil, err
			}
			at.lens.Forget()
		}
		sub, err = s.world.Subscribe(id, at.after)
	}
	if err != nil {
		return nil, err
	}
	found := sub.Cursor()
	if at.after != nil {
		found = *at.after
	}
	if err := at.lens.Found(found.String()); err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// upToNow goes through what came since somebody under the grant was there, so that the
// memory is what it is for who was there all the time.
func (s *server) upToNow(ctx context.Context, id carnet.AvatarID, lens *entity.Lens) (*avatar.Subscription, error) {
	text, err := lens.Reached()
	if err != nil {
		return nil, err
	}
	from, err := avatar.ParseCursor(text)
	if err != nil {
		return nil, err
	}
	sub, err := s.world.Subscribe(id, &from)
	if err != nil {
		return nil, err
	}
	err = sub.Skip(ctx, func(e avatar.Event) error {
		if e.Inward {
			return nil
		}
		lens.Live(e.Class, e.Measurements)
		return nil
	})
	if err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// cursor is what a subscriber is told of where it is.
func (w *watching) cursor(c avatar.Cursor) (string, error) {
	if w.lens == nil {
		return c.String(), nil
	}
	return w.lens.Cursor(c.String())
}

// next waits for what is to be told.
func (w *watching) next(ctx context.Context) (event, error) {
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return event{}, err
		}
		ms := e.Measurements
		if w.lens != nil && e.Inward {
			continue
		}
		if w.lens != nil {
			if w.lens.Deadbands() {
				if err := w.lens.Pass(e.Cursor.String()); err != nil {
					return event{}, err
				}
			}
			if ms = w.lens.Live(e.Class, ms); len(ms) == 0 {
				continue
			}
		}
		cursor, err := w.cursor(e.Cursor)
		return event{cursor, ms}, err
	}
}

// pump gives a subscriber events until it leaves, ctx ends, its token or grant is
// taken away, or it reads too slowly. The subscription holds nothing that isn't
// stored: whoever comes back with the last cursor goes on after it.
// Who begins from now on is told where that is first: a connection that breaks
// before the first event loses nothing either.
func (s *server) pump(ctx context.Context, r *http.Request, sub *watching, o outlet) error {
	if sub.after == nil {
		cursor, err := sub.cursor(sub.Cursor())
		if err != nil {
			return err
		}
		if err := o.begin(ctx, cursor); err != nil {
			return err
		}
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		for {
			e, err := sub.next(ctx)
			if err != nil {
				return err
			}
			if err := o.send(ctx, e); err != nil {
				return err
			}
			s.went.event(r.Context())
		}
	})
	work.Go(func() error {
		every := time.NewTicker(s.limits.ping)
		defer every.Stop()
		removed := s.removed()
		for {
			ping := false
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-every.C:
				ping = true
			case <-removed:
				removed = s.removed()
			}
			if err := s.recheck(r); err != nil {
				return err
			}
			if !ping {
				continue
			}
			if err := o.ping(ctx); err != nil {
				return err
			}
		}
	})
	return work.Wait()
}

// removed is closed when somebody's token may have been taken away.
func (s *server) removed() <-chan struct{} {
	if s.entities == nil {
		return nil
	}
	return s.entities.Removed()
}

// recheck asks again what let a subscription in: its token, and the guard. Only
// another answer is recorded.
func (s *server) recheck(r *http.Request) error {
	a := admittedIn(r.Context())
	if p, err := s.authenticate(r); err != nil || p != a.who {
		return errors.Join(untold(err, errRevoked), err)
	}
	_, refused, err := s.guard.Judge(r.Context(), a.call)
	if err != nil {
		return errors.Join(errUnknown, err)
	}
	if refused != nil {
		_, refused = s.guard.Ask(r.Context(), a.call)
	}
	if refused != nil {
		return errors.Join(untold(refused, errRevoked), refused)
	}
	return nil
}

// untold is errUnknown for an error that is for the moment, and otherwise over.
func untold(err, over error) error {
	if carnet.CodeOf(err) == carnet.Unavailable {
		return errUnknown
	}
	return over
}

// grantEnded is why what lived by a grant was ended: it is over, or nobody could tell.
func (s *server) grantEnded(id string) error {
	g, err := s.entities.Grant(id)
	if err == nil && g.Revoked == nil && time.Now().Before(g.Expires) {
		if _, err = s.entities.Holds(id, g.Version); err == nil { // by now it is known again
			return errUnknown
		}
	}
	return untold(err, errOver)
}

// fallen is why a call between worlds was ended by what serves these, whose reasons aren't
// the caller's to know; nil: it wasn't.
func fallen(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, proven := provenIn(ctx); !proven || carnet.CodeOf(cause) == "" {
		return nil
	}
	return untold(cause, errFallen)
}

func isWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// subprotocols lists what a WebSocket offers to speak (RFC 6455 §11.3.4).
func subprotocols(r *http.Request) (all []string) {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(p))
		}
	}
	return all
}

// serveWebSocket speaks to a WebSocket. Accept refuses browsers of other origins.
func (s *server) serveWebSocket(w http.ResponseWriter, r *http.Request, id carnet.AvatarID, at place) {
	ctx, sub, err := s.open(r, id, at)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer sub.close()
	own := &ownAnswer{ResponseWriter: w}
	conn, err := websocket.Accept(own, r, &websocket.AcceptOptions{Subprotocols: []string{protoJSON, protoCBOR}})
	if err != nil {
		s.refuse(w, r, own.problem(err))
		return
	}
	defer conn.CloseNow()
	o := &webSocket{conn: conn, cbor: conn.Subprotocol() == protoCBOR, patience: s.limits.frame, pong: make(chan error, 1)}
	o.pong <- nil
	// The end of a grant ends the pump, and leaves the connection to say so; and so does a
	// subscriber that leaves, or says anything. (The library's CloseRead waits for itself
	// then, for 15 s.)
	pumping, stop := context.WithCancel(r.Context())
	defer stop()
	var spoke atomic.Bool
	go func() { // it ends with the connection
		defer stop()
		_, _, err := conn.Reader(r.Context())
		spoke.Store(err == nil)
	}()
	defer context.AfterFunc(ctx, stop)()
	err = s.pump(pumping, r, sub, o)
	switch why := s.whyEnded(ctx, r, at, err); {
	case why == errStopped:
		conn.Close(websocket.StatusGoingAway, why.Error())
	case why == errUnknown:
		conn.Close(websocket.StatusTryAgainLater, why.Error())
	case why != nil:
		conn.Close(websocket.StatusPolicyViolation, why.Error())
	case spoke.Load():
		conn.Close(websocket.StatusPolicyViolation, "a subscriber says nothing; go on after the last cursor")
	case errors.Is(err, context.Canceled): // the subscriber left
	default:
		s.log.Info("a live subscription ended", "party", s.party, "caller", caller(r.Context()).Name, "err", err)
		conn.Close(websocket.StatusInternalError, "go on after the last cursor")
	}
}

// whyEnded is why the party ended a subscription whose pump ended with err; nil: it
// didn't, or something failed.
func (s *server) whyEnded(ctx context.Context, r *http.Request, at place, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errOver):
		return s.grantEnded(at.grant)
	case errors.Is(err, errRevoked):
		return errRevoked
	case r.Context().Err() != nil:
		return cmp.Or(fallen(r.Context()), errStopped)
	case errors.Is(err, errUnknown):
		return errUnknown
	}
	return nil
}

// ownAnswer holds back the text with which a handshake is refused, to answer it
// like everything else.
type ownAnswer struct {
	http.ResponseWriter
	refused int // the status of the refusal
}

// WriteHeader implements http.ResponseWriter.
func (o *ownAnswer) WriteHeader(status int) {
	if o.refused = status; status == http.StatusSwitchingProtocols {
		o.refused = 0
		o.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (o *ownAnswer) Write(b []byte) (int, error) {
	if o.refused != 0 {
		return len(b), nil
	}
	return o.ResponseWriter.Write(b)
}

// Unwrap gives way to the connection.
func (o *ownAnswer) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (o *ownAnswer) problem(err error) error {
	switch o.refused {
	case 0:
		return err
	case http.StatusForbidden:
		return carnet.Errorf(carnet.Forbidden, "a page of another origin can't subscribe").
			WithFix("open it on the party's own host, or subscribe from elsewhere than a browser")
	}
	return problem(o.refused, carnet.Errorf(carnet.Malformed, "%v", err).WithFix("do the handshake of RFC 6455, version 13"))
}

type webSocket struct {
	conn     *websocket.Conn
	cbor     bool
	patience time.Duration
	frame    []byte     // send's
	pong     chan error // what came of the last ping, once that is known; as if one had been answered before the first
}

func (o *webSocket) send(ctx context.Context, e event) (err error) {
	kind := websocket.MessageText
	if o.cbor {
		kind = websocket.MessageBinary
		o.frame, err = appendFrameCBOR(o.frame[:0], e)
	} else {
		o.frame, err = appendFrameJSON(o.frame[:0], e)
	}
	if err != nil {
		return err
	}
	// A write that is broken off closes the connection: one that is under way as the
	// subscription ends has a moment, so that it can be said why.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastMoment, cancel) })()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return o.conn.Write(writing, kind, o.frame)
}

// lastMoment is how long the frame may still take that is under way as a subscription
// ends.
const lastMoment = 100 * time.Millisecond

// begin is a frame whose pack is empty.
func (o *webSocket) begin(ctx context.Context, cursor string) error {
	return o.send(ctx, event{cursor: cursor})
}

// ping fails if there was no answer to the one before.
func (o *webSocket) ping(ctx context.Context) error {
	select {
	case err := <-o.pong:
		if err != nil {
			return err
		}
	default:
		return nil // its answer is waited for yet
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.patience)
	go func() { // it ends with the connection at the latest
		defer cancel()
		o.pong <- o.conn.Ping(ctx)
	}()
	return nil
}

// appendFrameJSON appends {"cursor": …, "pack": [SenML]}. A cursor is base64url,
// which needs no escapes.
func appendFrameJSON(b []byte, e event) ([]byte, error) {
	b = append(b, `{"cursor":"`...)
	b = append(b, e.cursor...)
	b = append(b, `","pack":`...)
	b, err := senml.Append(b, senml.JSON, e.ms)
	return append(b, '}'), err
}

// appendFrameCBOR appends the same in CBOR (RFC 8949): a map of two, with text
// keys.
func appendFrameCBOR(b []byte, e event) ([]byte, error) {
	text := func(s string) {
		switch n := len(s); {
		case n < 24:
			b = append(b, 0x60|byte(n))
		case n < 1<<8:
			b = append(b, 0x78, byte(n))
		default:
			b = binary.BigEndian.AppendUint16(append(b, 0x79), uint16(n)) // a cursor has at most 1,024 numbers, or 16 KiB
		}
		b = append(b, s...)
	}
	b = append(b, 0xa2)
	text("cursor")
	text(e.cursor)
	text("pack")
	return senml.Append(b, senml.CBOR, e.ms)
}

// serveEvents speaks to an EventSource (WHATWG HTML §9.2).
func (s *server) serveEvents(w http.ResponseWriter, r *http.Request, id carnet.AvatarID, at place) {
	ctx, sub, err := s.open(r, id, at)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer sub.close()
	o := &events{w: w, limit: http.NewResponseController(w), patience: s.limits.frame, fallen: func() error { return fallen(r.Context()) }}
	w.Header().Set("Content-Type", typeEvents)
	w.WriteHeader(http.StatusOK)
	if err := o.write([]byte("retry: 1000\n\n")); err != nil {
		return
	}
	err = s.pump(ctx, r, sub, o)
	if why := s.whyEnded(ctx, r, at, err); why != nil {
		_ = o.end(why) // it may be gone
	}
	if r.Context().Err() == nil {
		s.log.Info("a live subscription ended", "party", s.party, "caller", caller(r.Context()).Name, "err", err)
	}
}
