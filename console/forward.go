package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/account"
)

// party is a party that the console reaches.
type party struct {
	name   carnet.PartyID
	role   string
	base   *url.URL
	tokens []access.Token
	way    http.RoundTripper
}

// reach lists the parties of an access file. Each begins its answers within patience.
func reach(f *access.File, patience time.Duration) (all []*party, err error) {
	for _, p := range f.Parties {
		config, err := f.TLS(p)
		if err != nil {
			return nil, err
		}
		base, err := url.Parse(p.HTTP)
		if err != nil {
			return nil, fmt.Errorf("read the address of %s: %w", p.Name, err)
		}
		config.NextProtos = []string{"http/1.1"} // which WebSockets need
		one := &party{name: p.Name, role: string(p.Role), base: base, way: &http.Transport{
			TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: patience,
			IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 16, MaxConnsPerHost: 512, MaxResponseHeaderBytes: 64 << 10,
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		}}
		for _, t := range f.Tokens {
			if t.Party == p.Name {
				one.tokens = append(one.tokens, t)
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// tokenOf finds a user's token and its role: of those under the user's name the one
// with the user's role, else the first.
func (p *party) tokenOf(name, role string) (token, as string) {
	for _, t := range p.tokens {
		if t.Name == name && (token == "" || t.Role == role && as != role) {
			token, as = t.Token, t.Role
		}
	}
	return token, as
}

// Bounds of a body: more than any party takes, and of a job, which has a program in it.
const (
	maxForwarded = 2 << 20
	maxJob       = 24 << 20
)

// mostTo is how large a body may be that goes to a path.
func mostTo(path string) int64 {
	if path == "/v1/jobs" || path == "/v1/jobs/plans" {
		return maxJob
	}
	return maxForwarded
}

// methods are those that go on.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete}

// forward passes a request on to a party, and its answer back.
func (h *handler) forward(w http.ResponseWriter, r *http.Request, s *account.Session) {
	name, path, ok := cutPath(r.URL.EscapedPath())
	if !ok {
		h.refuse(w, r, carnet.Errorf(carnet.Malformed, "the path is not of the form /api/PARTY/v1/…"))
		return
	}
	i := slices.IndexFunc(h.parties, func(p *party) bool { return string(p.name) == name })
	if i < 0 {
		h.refuse(w, r, carnet.Errorf(carnet.NotFound, "the console knows no party %q", name).WithFix("parties are in its access file"))
		return
	}
	p := h.parties[i]
	if !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		h.refuse(w, r, problem(http.StatusMethodNotAllowed, carnet.Errorf(carnet.Malformed, "%s is not a method of this path", r.Method)))
		return
	}
	token, _ := p.tokenOf(s.Name(), s.Role())
	if token == "" {
		h.refuse(w, r, carnet.Errorf(carnet.Forbidden, "the console has no token of %s for %s", p.name, s.Name()).
			WithFix("add the token that the operator of %s gave you to the console's access file, under the name %q", p.name, s.Name()))
		return
	}
	if isWebSocket(r) || strings.HasSuffix(path, "/live") {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	}
	r.Body = http.MaxBytesReader(w, r.Body, mostTo(path))
	proxy := &httputil.ReverseProxy{
		Transport: p.way, FlushInterval: -1, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		Rewrite:        func(out *httputil.ProxyRequest) { p.rewrite(out, path, token) },
		ModifyResponse: func(answer *http.Response) error { return p.accept(answer, w.Header()) },
		ErrorHandler:   func(w http.ResponseWriter, r *http.Request, err error) { h.failed(w, r, p, err) },
	}
	proxy.ServeHTTP(&clean{w, make(http.Header)}, r)
}

// cutPath cuts /api/PARTY/v1/… into the party and the rest from /v1 on. Only plain
// paths are taken: what two parsers could read in two ways is refused.
func cutPath(escaped string) (party, rest string, ok bool) {
	party, rest, ok = strings.Cut(strings.TrimPrefix(escaped, apiPath), "/")
	if !ok || len(rest) > 1024 {
		return "", "", false
	}
	for i, segment := range strings.Split(rest, "/") {
		if i == 0 && segment != "v1" || !plainSegment(segment) {
			return "", "", false
		}
	}
	return party, "/" + rest, true
}

// plainSegment reports whether a segment of a path is one, for everybody: what is
// percent-encoded needs to be, and is no separator, control or dot.
func plainSegment(escaped string) bool {
	text, err := url.PathUnescape(escaped)
	if err != nil || text == "" || text == "." || text == ".." {
		return false
	}
	for i := 0; i < len(escaped); i++ {
		if c := escaped[i]; c == '%' {
			i += 2
		} else if !plainByte(c) {
			return false
		}
	}
	encoded := strings.Count(escaped, "%")
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case plainByte(c):
		case c < ' ', c == 0x7f, c == '/', c == '\\', c == ';':
			return false
		default:
			encoded--
		}
	}
	return encoded == 0
}

func plainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~:@", c) >= 0
}

// passedOn are the headers of a request that go on.
var passedOn = []string{"Accept", "Content-Type", "Last-Event-Id", "Connection", "Upgrade",
	"Sec-Websocket-Key", "Sec-Websocket-Version"}

// rewrite makes the request that the party gets: nothing of the browser but what is
// asked.
func (p *party) rewrite(out *httputil.ProxyRequest, path, token string) {
	header := make(http.Header)
	for _, name := range passedOn {
		if v := out.Out.Header.Get(name); v != "" {
			header.Set(name, v)
		}
	}
	if isWebSocket(out.In) {
		var rest []string
		for _, s := range subprotocols(out.In) {
			if strings.HasPrefix(s, "carnet.") { // the page's key goes no further, nor a token that is none
				rest = append(rest, s)
			}
		}
		if len(rest) > 0 {
			header.Set("Sec-Websocket-Protocol", strings.Join(rest, ", "))
		}
	}
	header.Set("Authorization", "Bearer "+token)
	header.Set("User-Agent", "carnet-console")
	out.Out.Header = header
	out.Out.Host = p.base.Host
	out.Out.URL = &url.URL{Scheme: p.base.Scheme, Host: p.base.Host, RawQuery: out.In.URL.RawQuery}
	out.Out.URL.Path, _ = url.PathUnescape(path) // it could be when it was cut
	out.Out.URL.RawPath = path
}

// comeBack are the headers of an answer that come back.
var comeBack = []string{"Content-Type", "Content-Length", "Carnet-More", "Carnet-Next", "Carnet-Withdrawn", "Retry-After", "Allow",
	"Connection", "Upgrade", "Sec-Websocket-Accept", "Sec-Websocket-Protocol"}

// data are the content types that a party may answer with.
var data = []string{"application/json", "application/problem+json", "application/td+json", "application/did+json", "application/did", "application/cbor",
	"application/cose", "application/senml+json", "application/senml+cbor", "application/senml+xml", "application/xml", "application/jwt", "application/vc+jwt",
	"text/event-stream", "application/octet-stream"}

// errStrange says that a party answered what no party answers.
type errStrange struct{ what string }

func (e errStrange) Error() string { return e.what }

// accept takes of an answer what is data, with the console's own headers, and refuses the
// rest.
func (p *party) accept(r *http.Response, own http.Header) error {
	if r.StatusCode >= 300 && r.StatusCode < 400 {
		return errStrange{"it answered with a redirect"}
	}
	if kind := r.Header.Get("Content-Type"); kind != "" {
		media, _, err := mime.ParseMediaType(kind)
		if err != nil || !slices.Contains(data, media) {
			return errStrange{fmt.Sprintf("it answered with the content type %q, which is no data", kind)}
		}
	} else if r.StatusCode != http.StatusNoContent && r.StatusCode != http.StatusSwitchingProtocols && r.ContentLength != 0 {
		return errStrange{"it answered without a content type"}
	}
	header := own.Clone()
	for _, name := range comeBack {
		if v, ok := r.Header[name]; ok {
			header[name] = v
		}
	}
	r.Header, r.Trailer = header, nil
	return nil
}

// failed answers for a party that didn't.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, p *party, err error) {
	if bound, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		h.refuse(w, r, carnet.Errorf(carnet.TooLarge, "the body has more than %d bytes", bound.Limit))
		return
	}
	if cause := context.Cause(r.Context()); carnet.CodeOf(cause) == carnet.Unauthenticated {
		h.refuse(w, r, cause) // signed out meanwhile
		return
	}
	if r.Context().Err() != nil { // net/http's: the browser has gone, or its body took too long
		h.refuse(w, r, problem(http.StatusRequestTimeout, carnet.Errorf(carnet.Malformed, "the request did not arrive whole within %s", h.limits.body).WithFix("send it again")))
		return
	}
	h.log.Warn("a party can't be asked", "party", p.name, "err", err)
	if strange, ok := errors.AsType[errStrange](err); ok {
		h.refuse(w, r, carnet.Errorf(carnet.Unavailable, "%s can't be understood: %s", p.name, strange.what).
			WithFix("see whether the access file names the right address for it"))
		return
	}
	h.refuse(w, r, carnet.Errorf(carnet.Unavailable, "%s does not answer", p.name).
		WithFix("see whether it runs; the console's log says what failed"))
}

// clean takes one answer of a party, and keeps the console's headers from the proxy: it
// writes a party's into them and clears them with each answer before the last (1xx), and
// adds what follows the body.
type clean struct {
	http.ResponseWriter
	header http.Header // the proxy's
}

// Header implements http.ResponseWriter.
func (c *clean) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter. What is before the answer stays here; a
// change of protocols doesn't come by this way.
func (c *clean) WriteHeader(status int) {
	if status < http.StatusOK {
		return
	}
	maps.Copy(c.ResponseWriter.Header(), c.header)
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what can flush and be hijacked.
func (c *clean) Unwrap() http.ResponseWriter { return c.ResponseWriter }

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
