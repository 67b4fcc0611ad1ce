package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/porter"

	"github.com/danielgtaylor/huma/v2"
)

// maxBody bounds a request's body: a description of 1 MiB (td.MaxSize) and what
// stands around it.
const maxBody = 1<<20 + 64<<10

// limits bound what callers may make the party wait for and hold.
type limits struct {
	body   time.Duration // until a request's body is there
	call   time.Duration // for an agent's answer
	answer time.Duration // for everything but live events, until the caller has read it
	ping   time.Duration // between a live subscription's pings
	frame  time.Duration // until a live subscriber has taken one frame

	// How many are served at once, of all callers and of those with one token.
	live, liveOfOne       int // live subscriptions
	queries, queriesOfOne int // of history
	bundles, bundlesOfOne int // of evidence

	// How many bytes of bodies are there at once, likewise.
	bodies, bodiesOfOne           int64
	largeBodies, largeBodiesOfOne int64 // of routes whose bodies may be large
}

var usual = limits{
	body: 10 * time.Second, call: 30 * time.Second, answer: 2 * time.Minute,
	ping: 20 * time.Second, frame: 15 * time.Second,
	live: 4096, liveOfOne: 64, queries: 16, queriesOfOne: 4, bundles: 2, bundlesOfOne: 1,
	bodies: 256 << 20, bodiesOfOne: 64 << 20, largeBodies: 1 << 30, largeBodiesOfOne: 256 << 20,
}

// gate is what every request passes before it is routed.
type gate struct {
	*server
	mux *surface
}

// ServeHTTP checks the request from the cheapest to the dearest: its token, its
// route, whether the caller may (which is recorded), its body.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header(), r.TLS != nil)
	limit := http.NewResponseController(w)
	// A writer without deadlines is a test's; net/http's has them.
	_ = limit.SetWriteDeadline(time.Now().Add(g.limits.answer))
	if r.Body != nil && r.Body != http.NoBody {
		// Also of one that nobody reads here: net/http reads on, so as to answer.
		_ = limit.SetReadDeadline(time.Now().Add(g.limits.body))
	}
	var p Principal
	var err error
	known := !slices.Contains(open, r.URL.Path)
	invited := strings.HasPrefix(r.URL.Path, invitationPaths)
	if known && !invited {
		if p, err = g.authenticate(r); err != nil {
			g.refuse(w, r, err)
			return
		}
		defer porter.Known(r.Context())()
	}
	handler, pattern := g.mux.Handler(r)
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		g.refuse(w, r, carnet.Errorf(carnet.Malformed, "the query can't be read").WithFix("separate its parameters by &, and encode what is neither letter, digit nor -._~"))
		return
	}
	if pattern == "" {
		g.refuseRoute(w, r, handler)
		return
	}
	if known {
		a := admitted{who: p}
		a.call, err = g.callFor(r, p, pattern, g.mux.actions[pattern])
		r = r.WithContext(withAdmitted(r.Context(), admitted{who: p}))
		if err == nil && invited {
			err = g.invited(r)
		}
		if err != nil {
			g.guard.Refuse(r.Context(), a.call, err)
			g.refuse(w, r, err)
			return
		}
		if a.Answer, err = g.guard.Ask(r.Context(), a.call); err != nil {
			g.refuse(w, r, err)
			return
		}
		r = r.WithContext(withAdmitted(r.Context(), a))
	}
	if known { // what anybody may ask for has no body
		leave, err := g.readBody(limit, w, r, pattern)
		defer leave()
		if err != nil {
			g.refuse(w, r, err)
			return
		}
	}
	if isLive(pattern) {
		g.mux.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.limits.call)
	defer cancel()
	g.mux.ServeHTTP(w, r.WithContext(ctx))
}

// readBody reads the body whole, under its own time limit, which must not hold
// for the agent's answer as well. leave is called once it isn't needed any more.
func (g *gate) readBody(limit *http.ResponseController, w http.ResponseWriter, r *http.Request, pattern string) (leave func(), err error) {
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}, nil
	}
	most, within, among := int64(maxBody), g.limits.body, &g.bodies
	if large := largest(pattern); large > 0 {
		most, within, among = large, largeBodyTime, &g.largeBodies
	}
	_ = limit.SetReadDeadline(time.Now().Add(within))
	counted := &countedBody{from: http.MaxBytesReader(w, r.Body, most), in: among, of: platformOf(caller(r.Context()))}
	body, err := io.ReadAll(counted)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return counted.leave, carnet.Errorf(carnet.TooLarge, "the body has more than %d bytes", most).WithFix("send less")
	} else if counted.full != nil {
		return counted.leave, counted.full
	} else if err != nil {
		return counted.leave, carnet.Errorf(carnet.Malformed, "the body did not arrive whole within %s", within).WithFix("send it again")
	}
	_ = limit.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	return counted.leave, nil
}

// refuseRoute answers a request that no route takes: net/http's handler for it
// knows whether the path or the method is wrong.
func (g *gate) refuseRoute(w http.ResponseWriter, r *http.Request, h http.Handler) {
	told := &told{header: http.Header{}}
	h.ServeHTTP(told, r)
	if told.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", told.header.Get("Allow"))
		e := carnet.Errorf(carnet.Malformed, "%s is not a method of this path", r.Method).WithFix("use one of %s", told.header.Get("Allow"))
		g.refuse(w, r, problem(told.status, e))
		return
	}
	g.refuse(w, r, carnet.Errorf(carnet.NotFound, "there is no such path").WithFix("the paths are in /openapi.json"))
}

// told keeps an answer's status and headers.
type told struct {
	header http.Header
	status int
}

func (t *told) Header() http.Header         { return t.header }
func (t *told) Write(b []byte) (int, error) { return len(b), nil }
func (t *told) WriteHeader(status int)      { t.status = status }

// secure sets the headers that every answer has. Nothing here is to be framed,
// cached, sniffed, or to load anything.
func secure(h http.Header, overTLS bool) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	if overTLS {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

const contentPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// accept is huma's first step for every operation: what the caller accepts.
func (s *server) accept(ctx huma.Context, next func(huma.Context)) {
	if serves := servesOf(ctx.Operation()); serves != nil {
		if _, ok := negotiate(ctx.Header("Accept"), serves); !ok {
			s.refuseIn(ctx, notAcceptable(serves))
			return
		}
	}
	next(ctx)
}
