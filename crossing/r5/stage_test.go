package r5

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

// stage is arena with its R5 listener, before whom citadel and clinic play. Both
// are arena's peers; citadel's avatar has a mandate and a grant for arena's.
type stage struct {
	server *Server
	base   string
	pin    carnet.Fingerprint
	clock  *clock

	listener net.Listener
	listened func(net.Listener) net.Listener // nil: as it is
	cert     tls.Certificate
	stop     func()

	world *world // what arena's other parts know

	arena, owner     ed25519.PrivateKey // arena's key for tokens; the owner's for arena
	citadel, clinic  platform
	avatar           ed25519.PrivateKey // citadel's avatar
	about            carnet.AvatarID    // arena's
	http, httpClinic *http.Client
}

type platform struct {
	name carnet.PartyID
	key  ed25519.PrivateKey
	cert tls.Certificate
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is what arena's other parts know: peers, owners, grants and so on.
type world struct {
	mu        sync.Mutex
	peers     map[carnet.Fingerprint]Peer
	owners    map[carnet.AvatarID]ed25519.PublicKey
	withdrawn map[string]bool
	grants    []fakeGrant
	stale     bool
	unread    bool // what owners withdrew can't be read
	records   []Decision
	failing   error // of recording
	newest    time.Time
	slow      string   // a purpose: of its grants nobody can tell whether they still hold
	asked     []string // what was asked, in order
}

type fakeGrant struct {
	Grant
	to carnet.PartyID
	of carnet.AvatarID
	by string // did
	ok identity.Action
	on string // purpose
}

func (w *world) change(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func (w *world) ask(what string) func() {
	w.mu.Lock()
	w.asked = append(w.asked, what)
	return w.mu.Unlock
}

func (w *world) ByPin(pin carnet.Fingerprint) (Peer, error) {
	defer w.ask("peer")()
	p, ok := w.peers[pin]
	if !ok {
		return Peer{}, carnet.Errorf(carnet.Unauthenticated, "no peer in force shows this TLS key")
	}
	return p, nil
}

func (w *world) Owner(id carnet.AvatarID) (ed25519.PublicKey, error) {
	defer w.ask("owner")()
	if k, ok := w.owners[id]; ok {
		return k, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
}

func (w *world) Stands(_ ed25519.PublicKey, id string) error {
	defer w.ask("withdrawn")()
	switch {
	case w.withdrawn[id]:
		return carnet.Errorf(carnet.Unauthenticated, "the owner has withdrawn the mandate %s", id)
	case w.unread:
		return carnet.Errorf(carnet.Unavailable, "nobody can tell whether the owner has withdrawn the mandate %s", id)
	}
	return nil
}

func (w *world) Find(_ context.Context, a Ask) (Grant, error) {
	defer w.ask("grant")()
	for _, g := range w.grants {
		if g.to == a.Platform && g.of == a.Avatar && g.by == a.DID() && g.ok == a.Action && g.on == a.Purpose {
			return g.Grant, nil
		}
	}
	return Grant{}, carnet.Errorf(carnet.Forbidden, "there is no grant for %s to %s", a.Purpose, a.Action)
}

func (w *world) Still(ctx context.Context, a Ask, id string, version uint64) (Grant, error) {
	w.mu.Lock()
	slow := w.slow != "" && w.slow == a.Purpose
	w.mu.Unlock()
	if slow {
		<-ctx.Done()
		return Grant{}, carnet.Errorf(carnet.Unavailable, "the store doesn't answer")
	}
	g, err := w.Find(context.Background(), a)
	if err == nil && (g.ID != id || g.Version != version) {
		return Grant{}, carnet.Errorf(carnet.Forbidden, "the grant has another version, %d", g.Version)
	}
	return g, err
}

func (w *world) Fresh() bool { defer w.ask("fresh")(); return !w.stale }

func (w *world) Record(_ context.Context, d Decision) error {
	defer w.ask("record")()
	if w.failing != nil {
		return w.failing
	}
	w.records = append(w.records, d)
	return nil
}

func (w *world) Newest(context.Context) (time.Time, error) { return w.newest, nil }
func (w *world) Raise(_ context.Context, t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.newest = t
	return nil
}

func (w *world) last() Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) == 0 {
		return Decision{}
	}
	return w.records[len(w.records)-1]
}

func (w *world) count() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.records) }

func newKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func newCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	key := newKey()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newPlatform(t testing.TB, name carnet.PartyID) platform {
	return platform{name, newKey(), newCertificate(t)}
}

var begin = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// newStage makes a stage and opens its listener.
func newStage(t testing.TB) *stage {
	t.Helper()
	s := &stage{
		clock: &clock{now: begin}, arena: newKey(), owner: newKey(), avatar: newKey(), about: carnet.NewAvatarID(),
		citadel: newPlatform(t, "citadel"), clinic: newPlatform(t, "clinic"),
	}
	s.world = &world{
		peers: map[carnet.Fingerprint]Peer{}, owners: map[carnet.AvatarID]ed25519.PublicKey{s.about: public(s.owner)},
		withdrawn: map[string]bool{},
	}
	for _, p := range []platform{s.citadel, s.clinic} {
		s.world.peers[pinOf(p.cert.Leaf)] = Peer{
			Name: p.name, OwnName: p.name, Key: public(p.key), Until: begin.Add(24 * time.Hour),
			Clearance: carnet.Clearance{Sensitivity: carnet.Health | carnet.Personal, Purposes: "care", Residency: "eu"},
			Terms:     carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: "care,play", Residency: "eu,us"},
		}
	}
	s.world.grants = []fakeGrant{{
		Grant: Grant{ID: "g1", Version: 1, Until: begin.Add(24 * time.Hour), Label: carnet.Label{Sensitivity: carnet.Health, Purposes: "care", Residency: "eu"}},
		to:    "citadel", of: s.about, by: identity.DID(public(s.avatar)), ok: identity.ActionRead, on: "care",
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.base = "https://" + l.Addr().String()
	s.server = s.newServer(t, Limits{})
	s.listener = l
	s.http, s.httpClinic = s.dialer(s.citadel.cert), s.dialer(s.clinic.cert)
	s.cert = newCertificate(t)
	s.pin = pinOf(s.cert.Leaf)
	s.serve(t)
	t.Cleanup(func() { s.stop() })
	s.clock.add(time.Minute) // what is made from now on was made after the start
	return s
}

// serve has the stage's server take connections, instead of the one before.
func (s *stage) serve(t testing.TB) {
	t.Helper()
	l := s.listener
	if s.stop != nil {
		s.stop()
		var err error
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // a call of another test may have the port
			if l, err = net.Listen("tcp", s.listener.Addr().String()); err == nil {
				break
			} else if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	if s.listened != nil {
		l = s.listened(l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	server, cert := s.server, s.cert
	go func() { ended <- server.Serve(ctx, l, cert) }()
	s.stop = sync.OnceFunc(func() {
		for _, c := range []*http.Client{s.http, s.httpClinic} {
			c.CloseIdleConnections()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// restart ends the server and begins another on what is durable.
func (s *stage) restart(t testing.TB) {
	t.Helper()
	s.server = s.newServer(t, Limits{})
	s.serve(t)
}

// newServer makes a Server on the stage's world, as a restart does.
func (s *stage) newServer(t testing.TB, l Limits) *Server {
	t.Helper()
	server, err := New(context.Background(), Config{
		Party: "arena", Base: s.base, Key: s.arena, Peers: s.world, Avatars: s.world, Mandates: s.world, Grants: s.world,
		Revocations: s.world, Activity: s.world, Horizon: s.world, Now: s.clock.Now, Limits: l, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Handle("GET /r5/avatars/{id}", identity.ActionRead, func(w http.ResponseWriter, r *http.Request, c Call) {
		_, _ = io.WriteString(w, "state of "+c.Avatar.String()+" for "+string(c.Platform))
	})
	server.Handle("GET /r5/avatars/{id}/live", identity.ActionSubscribe, func(http.ResponseWriter, *http.Request, Call) {})
	return server
}

// dialer is a client that shows a certificate and believes any server.
func (s *stage) dialer(certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: certs, MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2: true,
	}}
}

// text is a token that can be changed: what is signed, and by whom.
type text struct {
	header, payload string
	key             ed25519.PrivateKey
	cut             func(string) string // the last change, of the whole
}

func textOf(token string, key ed25519.PrivateKey) *text {
	parts := strings.Split(token, ".")
	h, err := base64.RawURLEncoding.DecodeString(parts[0])
	p, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || err2 != nil {
		panic("a token that isn't one")
	}
	return &text{header: string(h), payload: string(p), key: key}
}

func (x *text) sign() string {
	input := base64.RawURLEncoding.EncodeToString([]byte(x.header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(x.payload))
	token := input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(x.key, []byte(input)))
	if x.cut != nil {
		token = x.cut(token)
	}
	return token
}

// attempt is a question for a token and a call with it, of which anything can be
// changed before it is made.
type attempt struct {
	stage      *stage
	askedBy    *http.Client
	calledBy   *http.Client
	credential func(*text)
	mandate    func(*text)
	assertion  func(*text)
	asking     func(*text) // the exchange's proof
	token      func(*text)
	calling    func(*text) // the call's proof
	form       func(string) string
	ask        func(*http.Request)
	call       func(*http.Request)
	proofKey   ed25519.PrivateKey
	askKey     ed25519.PrivateKey // what the exchange's proof is by, if not proofKey
	callKey    ed25519.PrivateKey // the call's
}

func (s *stage) attempt() *attempt {
	return &attempt{stage: s, askedBy: s.http, calledBy: s.http, proofKey: newKey()}
}

// byHTTP1 has an attempt's calls go over HTTP/1.1; done closes its connections.
func (a *attempt) byHTTP1() (done func()) {
	transport := a.stage.http.Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2, transport.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
	a.calledBy = &http.Client{Transport: transport}
	return transport.CloseIdleConnections
}

func must(token string, err error) string {
	if err != nil {
		panic(err)
	}
	return token
}

func change(x *text, f func(*text)) string {
	if f != nil {
		f(x)
	}
	return x.sign()
}

func (s *stage) newCredential() string {
	now := s.clock.Now()
	return must(identity.IssueCredential(s.citadel.key, identity.Credential{
		World: "citadel", Avatar: carnet.AvatarID{1}, Subject: public(s.avatar), Issued: now, NotBefore: now, Expires: now.Add(time.Hour),
	}))
}

func (s *stage) newMandate() string {
	now := s.clock.Now()
	return must(identity.SignMandate(s.owner, identity.Mandate{
		MandateTerms: identity.MandateTerms{
			Audience: "arena", Subject: public(s.avatar), Platform: public(s.citadel.key), Avatar: s.about,
			Actions: []identity.Action{identity.ActionRead}, Purpose: "care",
			Clearance: carnet.Clearance{Sensitivity: carnet.Health | carnet.Location, Purposes: "care", Residency: "eu"},
		},
		Issued: now, NotBefore: now, Expires: now.Add(time.Hour),
	}))
}

// request makes the question for a token.
func (a *attempt) request() *http.Request {
	s, now := a.stage, a.stage.clock.Now()
	credential := change(textOf(s.newCredential(), s.citadel.key), a.credential)
	mandate := change(textOf(s.newMandate(), s.owner), a.mandate)
	assertion := change(textOf(must(identity.IssueAssertion(s.avatar, identity.Assertion{
		Audience: "arena", Issued: now, Expires: now.Add(time.Minute), Credential: credential, Mandate: mandate,
		Thumbprint: identity.Thumbprint(public(a.proofKey)),
	})), s.avatar), a.assertion)
	key := a.proofKey
	if a.askKey != nil {
		key = a.askKey
	}
	proof := change(textOf(must(identity.IssueProof(key, identity.Proof{Method: "POST", URL: s.base + TokenPath, Issued: now})), key), a.asking)
	form := url.Values{
		"grant_type": {ExchangeGrant}, "client_id": {"urn:carnet:party:citadel"}, "subject_token": {assertion}, "subject_token_type": {JWTType},
		"requested_token_type": {AccessType}, "resource": {identity.AvatarURN(s.about)}, "scope": {"read"},
	}.Encode()
	if a.form != nil {
		form = a.form(form)
	}
	r, err := http.NewRequest("POST", s.base+TokenPath, strings.NewReader(form))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", FormType)
	r.Header["Dpop"] = []string{proof}
	if a.ask != nil {
		a.ask(r)
	}
	return r
}

// said is an answer.
type said struct {
	status int
	header http.Header
	body   string
}

func do(c *http.Client, r *http.Request) (said, error) {
	answer, err := c.Do(r)
	if err != nil {
		return said{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	answer.Header.Del("Date")
	return said{answer.StatusCode, answer.Header, string(body)}, err
}

// exchange asks for a token.
func (a *attempt) exchange() (said, string, error) {
	got, err := do(a.askedBy, a.request())
	if err != nil || got.status != 200 {
		return got, "", err
	}
	var body TokenAnswer
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		return got, "", err
	}
	return got, body.Token, nil
}

// use makes a call with a token.
func (a *attempt) use(token string) (said, error) { return do(a.calledBy, a.callRequest(token)) }

func (a *attempt) callRequest(token string) *http.Request {
	s := a.stage
	token = change(textOf(token, s.arena), a.token)
	key := a.proofKey
	if a.callKey != nil {
		key = a.callKey
	}
	path := "/r5/avatars/" + s.about.String()
	proof := change(textOf(must(identity.IssueProof(key, identity.Proof{
		Method: "GET", URL: s.base + path, Issued: s.clock.Now(), Token: carnet.FingerprintOf([]byte(token)),
	})), key), a.calling)
	r, err := http.NewRequest("GET", s.base+path, nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header["Dpop"] = []string{proof}
	if a.call != nil {
		a.call(r)
	}
	return r
}

// succeeds shows that what isn't changed is taken.
func (s *stage) succeeds(t testing.TB, when string) string {
	t.Helper()
	a := s.attempt()
	got, token, err := a.exchange()
	if err != nil || token == "" {
		t.Fatalf("%s: no token: %d %s %v (%+v)", when, got.status, got.body, err, s.world.last())
	}
	got, err = a.use(token)
	if want := "state of " + s.about.String() + " for citadel"; err != nil || got.status != 200 || got.body != want {
		t.Fatalf("%s: the call: %d %s %v (%+v)", when, got.status, got.body, err, s.world.last())
	}
	if d := s.world.last(); !d.Permitted || d.Peer != "citadel" || d.Avatar == nil || *d.Avatar != s.about || d.Grant != "g1" || d.Purpose != "care" {
		t.Fatalf("%s: recorded as %+v", when, d)
	}
	return token
}

// probeCall calls about an avatar that the token isn't for, and says what was asked.
func (s *stage) probeCall(t *testing.T, about carnet.AvatarID) (said, []string) {
	t.Helper()
	a := s.attempt()
	_, token, err := a.exchange()
	if err != nil {
		t.Fatal(err)
	}
	path := "/r5/avatars/" + about.String()
	a.calling = func(x *text) { x.payload = strings.Replace(x.payload, s.about.String(), about.String(), 1) }
	a.call = func(r *http.Request) { r.URL.Path = path }
	s.world.change(func() { s.world.asked = nil })
	got, err := a.use(token)
	if err != nil {
		t.Fatal(err)
	}
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return got, append([]string{}, s.world.asked...)
}

// certificates is what citadel shows.
func certificates(s *stage) []*x509.Certificate { return []*x509.Certificate{s.citadel.cert.Leaf} }
