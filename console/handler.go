package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/account"
	"carnet/porter"
)

// handler answers a console's requests. Its fields don't change.
type handler struct {
	accounts *account.Accounts
	parties  []*party
	files    map[string]file
	hosts    map[string]bool // values of Host that mean this console
	secure   bool            // over TLS
	cookie   string          // the session cookie's name
	limits   limits
	log      *slog.Logger
}

// routes is the whole surface. It is no ServeMux, which would redirect a path that it
// finds untidy: here such a path isn't one.
func (h *handler) routes() http.Handler {
	surface := map[string]map[string]http.Handler{
		"/session":  {"POST": http.HandlerFunc(h.signIn), "GET": h.signedIn(h.who), "DELETE": h.signedIn(h.signOut)},
		"/sessions": {"DELETE": h.signedIn(h.signOutEverywhere)},
	}
	for path := range h.files {
		surface[path] = map[string]http.Handler{"GET": http.HandlerFunc(h.page), "HEAD": http.HandlerFunc(h.page)}
	}
	forward := h.signedIn(h.forward)
	route := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods, ok := surface[r.URL.Path]
		do := methods[r.Method]
		switch {
		case strings.HasPrefix(r.URL.EscapedPath(), apiPath):
			forward.ServeHTTP(w, r)
		case !ok:
			h.refuse(w, r, carnet.Errorf(carnet.NotFound, "there is no such page").WithFix("open /"))
		case do == nil:
			w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(methods)), ", "))
			h.refuse(w, r, problem(http.StatusMethodNotAllowed, carnet.Errorf(carnet.Malformed, "%s is not a method of this path", r.Method)))
		default:
			do.ServeHTTP(w, r)
		}
	})
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.refuse(w, r, errForeign()) }))
	return h.guard(cross.Handler(route))
}

// apiPath is where the parties are found.
const apiPath = "/api/"

// limits are how long a request may take.
type limits struct {
	body   time.Duration // until its body is there
	party  time.Duration // until a party begins to answer
	answer time.Duration // until the browser has taken the answer
}

var usual = limits{body: 10 * time.Second, party: time.Minute, answer: 2 * time.Minute}

// guard is what every request passes first: its headers, its host, its origin.
func (h *handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, file := h.files[r.URL.Path]
		data := !file
		secure(w.Header(), data, h.secure)
		if !h.hosts[strings.ToLower(r.Host)] {
			h.refuse(w, r, problem(http.StatusMisdirectedRequest, carnet.Errorf(carnet.NotFound, "the console is not called %q", r.Host).
				WithFix("use the address that it prints at its start, or name this one with --host")))
			return
		}
		if data && !h.ofOwnPage(r) {
			h.refuse(w, r, errForeign())
			return
		}
		porter.BodyWithin(w, r, h.limits.body)
		// A writer without deadlines is a test's; net/http's has them.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.limits.answer))
		next.ServeHTTP(w, r)
	})
}

func errForeign() error {
	return carnet.Errorf(carnet.Forbidden, "the request comes from another site's page").WithFix("open the console by itself")
}

// ofOwnPage reports whether a request for data comes from the console's own page, or
// from no browser. CrossOriginProtection lets a GET pass, and a WebSocket is one.
func (h *handler) ofOwnPage(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := r.Header.Values("Origin")
	if len(origin) == 0 {
		return !isWebSocket(r)
	}
	if len(origin) > 1 {
		return false
	}
	u, err := url.Parse(origin[0])
	return err == nil && u.Scheme == h.scheme() && u.Path == "" && strings.EqualFold(u.Host, r.Host)
}

func (h *handler) scheme() string {
	if h.secure {
		return "https"
	}
	return "http"
}

// What the page may do: run its own scripts and styles, show its own images and
// font, and ask its own origin. Data may do nothing.
const (
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
	dataPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)

// secure sets the headers that every answer has.
func secure(header http.Header, data, overTLS bool) {
	header.Set("Content-Security-Policy", pagePolicy)
	header.Set("Cache-Control", "no-cache")
	if data {
		header.Set("Content-Security-Policy", dataPolicy)
		header.Set("Cache-Control", "no-store")
	}
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Embedder-Policy", "require-corp")
	header.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), clipboard-read=(), display-capture=()")
	if overTLS {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// page serves the page's files.
func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	f := h.files[r.URL.Path]
	if f.fixed {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(f.body)))
	if _, err := w.Write(f.body); err != nil {
		h.log.Debug("a page wasn't taken", "err", err)
	}
}

// Problem is a refusal (RFC 9457), in the form of the parties' (docs/design/api.md).
type Problem struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Code   carnet.Code `json:"code"`
	Fix    string      `json:"fix,omitempty"`
	From   string      `json:"from"` // always "console": no party said it
}

// withStatus is an error that has a status of its own.
type withStatus struct {
	error
	status int
}

func (e *withStatus) Unwrap() error { return e.error }

func problem(status int, err error) error { return &withStatus{err, status} }

// statuses are the answers to codes.
var statuses = map[carnet.Code]int{
	carnet.Malformed: http.StatusBadRequest, carnet.Unauthenticated: http.StatusUnauthorized, carnet.Forbidden: http.StatusForbidden,
	carnet.NotFound: http.StatusNotFound, carnet.TooLarge: http.StatusRequestEntityTooLarge, carnet.Unavailable: http.StatusBadGateway,
}

// refuse answers err. What has no code is logged and shows nothing.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := Problem{Status: http.StatusInternalServerError, Detail: "the console failed; its log says why", From: "console"}
	if e, ok := errors.AsType[*carnet.Error](err); ok && statuses[e.Code] != 0 {
		p.Status, p.Detail, p.Code, p.Fix = statuses[e.Code], e.Reason, e.Code, e.Fix
	} else if r.Context().Err() == nil {
		h.log.Error("a request failed", "path", r.URL.Path, "err", err)
	}
	if e, ok := errors.AsType[*withStatus](err); ok {
		p.Status = e.status
	}
	if wait := account.Wait(err); wait > 0 {
		p.Status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	h.write(w, p.Status, p)
}

func (h *handler) write(w http.ResponseWriter, status int, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.log.Debug("an answer wasn't taken", "err", err)
	}
}

// maxSignIn bounds the body of a sign-in.
const maxSignIn = 4 << 10

// credentials are what somebody signs in with.
type credentials struct{ Name, Password string }

// read takes an object with these members, each once at most and in these letters.
func (c *credentials) read(r io.Reader) error {
	d := json.NewDecoder(r)
	members := map[any]*string{"name": &c.Name, "password": &c.Password}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(err, errors.New("it isn't an object"))
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		member, ok := members[name]
		if !ok {
			return fmt.Errorf("it has %q, or has it twice", name)
		}
		delete(members, name)
		if err := d.Decode(member); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows")
	}
	return nil
}

func (h *handler) signIn(w http.ResponseWriter, r *http.Request) {
	var c credentials
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		h.refuse(w, r, problem(http.StatusUnsupportedMediaType, carnet.Errorf(carnet.Malformed, "a sign-in is JSON")))
		return
	}
	if err := c.read(http.MaxBytesReader(w, r.Body, maxSignIn)); err != nil || len(c.Name) > maxSignIn/4 {
		h.refuse(w, r, carnet.Errorf(carnet.Malformed, "a sign-in is {\"name\": …, \"password\": …} and nothing more"))
		return
	}
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	s, secrets, err := h.accounts.SignIn(r.Context(), c.Name, c.Password, from)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	if before := h.session(r); before != nil {
		h.accounts.SignOut(before)
	}
	http.SetCookie(w, h.cookieOf(secrets.ID))
	h.write(w, http.StatusCreated, struct {
		Key string `json:"key"`
		person
	}{secrets.Key, h.person(s)})
}

// cookieName is honest: the prefix promises what only holds over TLS, and cookies
// in the clear are shared between the ports of a host.
func cookieName(secure bool, port string) string {
	if secure {
		return "__Host-carnet"
	}
	return "carnet-" + port
}

func (h *handler) cookieOf(id string) *http.Cookie {
	return &http.Cookie{Name: h.cookie, Value: id, Path: "/", HttpOnly: true, Secure: h.secure, SameSite: http.SameSiteStrictMode}
}

// keyHeader is where the page shows its key; a WebSocket, which can't set headers,
// offers it as a subprotocol, which goes no further.
const (
	keyHeader   = "Carnet-Key"
	keyProtocol = "key."
)

// shown are the secrets that a request brings. A name that stands twice counts for
// none: somebody planted one.
func (h *handler) shown(r *http.Request) account.Secrets {
	var s account.Secrets
	if found := r.CookiesNamed(h.cookie); len(found) == 1 {
		s.ID = found[0].Value
	}
	if keys := r.Header.Values(keyHeader); len(keys) == 1 {
		s.Key = keys[0]
	} else if isWebSocket(r) {
		for _, p := range subprotocols(r) {
			if key, ok := strings.CutPrefix(p, keyProtocol); ok {
				s.Key = key
			}
		}
	}
	return s
}

// session is whose request it is; nil: nobody's.
func (h *handler) session(r *http.Request) *account.Session {
	s, err := h.accounts.Session(h.shown(r))
	if err != nil {
		return nil
	}
	return s
}

// signedIn serves who is signed in, as long as they are.
func (h *handler) signedIn(do func(http.ResponseWriter, *http.Request, *account.Session)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := h.accounts.Session(h.shown(r))
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		defer porter.Known(r.Context())()
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		defer context.AfterFunc(s.Done(), func() { cancel(context.Cause(s.Done())) })()
		do(w, r.WithContext(ctx), s)
	})
}

// person says who is signed in.
type person struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Idles   time.Time `json:"idle_ends"`
	Ends    time.Time `json:"ends"`
	Parties []reached `json:"parties"`
}

// reached is a party, and as what the user acts there; empty: the access file has
// no token of theirs.
type reached struct {
	Name carnet.PartyID `json:"name"`
	Role string         `json:"role"`
	As   string         `json:"as,omitempty"`
}

func (h *handler) person(s *account.Session) person {
	ends, idles := s.Ends()
	i := person{Name: s.Name(), Role: s.Role(), Ends: ends, Idles: idles, Parties: []reached{}}
	for _, p := range h.parties {
		_, as := p.tokenOf(s.Name(), s.Role())
		i.Parties = append(i.Parties, reached{p.name, p.role, as})
	}
	return i
}

func (h *handler) who(w http.ResponseWriter, _ *http.Request, s *account.Session) {
	h.write(w, http.StatusOK, h.person(s))
}

func (h *handler) signOut(w http.ResponseWriter, _ *http.Request, s *account.Session) {
	h.accounts.SignOut(s)
	h.leave(w)
}

func (h *handler) signOutEverywhere(w http.ResponseWriter, _ *http.Request, s *account.Session) {
	h.accounts.SignOutEverywhere(s.Name())
	h.leave(w)
}

// leave has the browser forget the cookie and what it kept.
func (h *handler) leave(w http.ResponseWriter) {
	c := h.cookieOf("")
	c.MaxAge = -1
	http.SetCookie(w, c)
	w.WriteHeader(http.StatusNoContent)
}
