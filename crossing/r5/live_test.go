package r5

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/porter"
)

// streaming is a handler that says when it has begun and why it ended. Between, it
// writes until it can't or its context ends.
type streaming struct {
	began chan Call
	ended chan error
}

func newStreaming() *streaming { return &streaming{make(chan Call, 16), make(chan error, 16)} }

// waiting has nothing to say.
func (s *streaming) waiting(w http.ResponseWriter, r *http.Request, c Call) {
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	s.began <- c
	<-r.Context().Done()
	s.ended <- context.Cause(r.Context())
}

// flooding writes to somebody who doesn't read.
func (s *streaming) flooding(w http.ResponseWriter, r *http.Request, c Call) {
	s.began <- c
	for b := make([]byte, 64<<10); ; {
		if _, err := w.Write(b); err != nil {
			<-r.Context().Done()
			s.ended <- context.Cause(r.Context())
			return
		}
	}
}

// stream makes a live call of what is served at /stream.
func (a *attempt) stream(t *testing.T) *http.Response {
	t.Helper()
	_, token, err := a.exchange()
	if err != nil || token == "" {
		t.Fatal(err)
	}
	about := a.stage.about.String()
	a.calling = swap(about, about+"/stream")
	r := a.callRequest(token)
	r.URL.Path += "/stream"
	answer, err := a.calledBy.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	return answer
}

// run runs the server's other half, as node does.
func (s *stage) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// The connection of a peer's call keeps its place, whoever else comes.
func TestAPeersCallKeepsItsConnection(t *testing.T) {
	s := newStage(t)
	live := newStreaming()
	s.server.Handle("GET /r5/avatars/{id}/stream", identity.ActionRead, live.waiting)
	s.run(t)
	s.listened = porter.New(1, 1).Listen
	s.serve(t)
	answer := s.attempt().stream(t)
	defer answer.Body.Close()
	<-live.began
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("who comes while a peer's call is under way reads %v", err)
	}
	select {
	case err := <-live.ended:
		t.Errorf("the peer's call ends: %v", err)
	default:
	}
}

// Whatever ends what a call lives by ends the call at once, whether its handler
// waits or writes to somebody who doesn't read.
func TestRevocationEndsLiveCalls(t *testing.T) {
	for name, end := range map[string]struct {
		how func(*stage, Call)
		why string
	}{
		"the peering is suspended":  {func(s *stage, _ Call) { s.world.change(func() { delete(s.world.peers, pinOf(s.citadel.cert.Leaf)) }) }, "no peer in force"},
		"the mandate is withdrawn":  {func(s *stage, c Call) { s.world.change(func() { s.world.withdrawn[c.Mandate] = true }) }, "withdrawn"},
		"the grant is revoked":      {func(s *stage, _ Call) { s.world.change(func() { s.world.grants = nil }) }, "no grant"},
		"the grant's label is more": {func(s *stage, _ Call) { grant(func(g *fakeGrant) { g.Label.Sensitivity = carnet.AllSensitive })(s) }, "clearance"},
		"the peering lets flow less": {func(s *stage, _ Call) {
			grant(func(g *fakeGrant) { g.Label.Sensitivity = carnet.Public })(s) // the newest is public, and what was before isn't
			peers(func(p *Peer) { p.Terms.Sensitivity = carnet.Public })(s)
		}, "less may flow"},
		"withdrawals can't be read": {func(s *stage, _ Call) { s.world.change(func() { s.world.unread = true }) }, "nobody can tell"},
		"the store is stale":        {func(s *stage, _ Call) { s.world.change(func() { s.world.stale = true }) }, "for a second"},
	} {
		for _, kind := range []string{"waiting", "flooding", "flooding over HTTP/1.1"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := newStage(t)
				live := newStreaming()
				handler := live.waiting
				if kind != "waiting" {
					handler = live.flooding
				}
				s.server.Handle("GET /r5/avatars/{id}/stream", identity.ActionRead, handler)
				s.run(t)
				a := s.attempt()
				if strings.HasSuffix(kind, "1.1") {
					defer a.byHTTP1()()
				}
				answer := a.stream(t)
				defer answer.Body.Close()
				end.how(s, <-live.began)
				s.server.Recheck()
				if err := <-live.ended; err == nil || !strings.Contains(err.Error(), end.why) {
					t.Errorf("the handler is told %v, want %q", err, end.why)
				}
				if _, err := io.Copy(io.Discard, answer.Body); kind != "waiting" && err == nil {
					t.Error("the caller isn't told that the stream is cut")
				}
			})
		}
	}
}

// A suspended peering closes connections, busy and idle; another peer's stay.
func TestSuspensionClosesConnections(t *testing.T) {
	s := newStage(t)
	s.run(t)
	s.succeeds(t, "before")
	dial := func(cert tls.Certificate) net.Conn {
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.base, "https://"), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c net.Conn) {
		if _, err := io.WriteString(c, "GET /r5/nothing HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || answer.StatusCode != 401 {
			t.Fatal(answer, err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
	}
	theirs, others := dial(s.citadel.cert), dial(s.clinic.cert)
	ask(theirs)
	ask(others)
	s.world.change(func() { delete(s.world.peers, pinOf(s.citadel.cert.Leaf)) })
	s.server.Recheck()
	if _, err := theirs.Read(make([]byte, 1)); err == nil {
		t.Error("the idle connection of a suspended peer goes on")
	}
	ask(others)
}

// A call ends with its token.
func TestCallEndsWithItsToken(t *testing.T) {
	s := newStage(t)
	live := newStreaming()
	s.server.Handle("GET /r5/avatars/{id}/stream", identity.ActionRead, live.waiting)
	a := s.attempt()
	_, token, err := a.exchange()
	if err != nil {
		t.Fatal(err)
	}
	s.clock.add(identity.TokenLife - 300*time.Millisecond)
	a.calling = swap(s.about.String(), s.about.String()+"/stream")
	r := a.callRequest(token)
	r.URL.Path += "/stream"
	answer, err := a.calledBy.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	defer answer.Body.Close()
	c := <-live.began
	if !c.TokenEnd.Equal(begin.Add(time.Minute + identity.TokenLife)) {
		t.Errorf("the token ends at %v", c.TokenEnd)
	}
	if !c.Until.Equal(begin.Add(time.Minute + time.Hour)) { // mandate and credential
		t.Errorf("what the call lives by ends at %v", c.Until)
	}
	if err := <-live.ended; err == nil || !strings.Contains(err.Error(), "token has ended") {
		t.Errorf("the handler is told %v", err)
	}
}

// After a restart what was shown before can't be shown again; tokens hold on, and
// what they live by is asked anew (row M5 of docs/design/r5.md).
func TestRestart(t *testing.T) {
	s := newStage(t)
	token := s.succeeds(t, "before")
	a := s.attempt()
	asked := a.request()
	if got, err := do(s.http, asked.Clone(t.Context())); err != nil || got.status != 200 {
		t.Fatal(got, err)
	}
	_, own, err := a.exchange()
	if err != nil {
		t.Fatal(err)
	}
	called := a.callRequest(own)
	if got, err := do(s.http, called.Clone(t.Context())); err != nil || got.status != 200 {
		t.Fatal(got, err)
	}
	// The clock of this peer is ahead by 20 s.
	ahead := s.attempt()
	ahead.asking, ahead.assertion = shifted(20*time.Second, "iat"), shifted(20*time.Second, "iat", "exp")
	early := ahead.request()
	if got, err := do(s.http, early.Clone(t.Context())); err != nil || got.status != 200 {
		t.Fatal(got, err)
	}

	s.clock.add(2 * time.Second)
	s.restart(t)
	s.clock.add(2 * time.Second)
	for name, r := range map[string]*http.Request{"a question for a token": asked, "a call": called, "a question by a clock that is ahead": early} {
		if r.GetBody != nil {
			r.Body, _ = r.GetBody()
		}
		got, err := do(s.http, r)
		if err != nil || got.status != 401 || !strings.Contains(s.world.last().Reason, "can't tell what was shown before") {
			t.Errorf("%s is taken again: %d %v %+v", name, got.status, err, s.world.last())
		}
	}
	// Until the horizon is past nothing is taken, of anybody.
	if got, _, err := s.attempt().exchange(); err != nil || got.status != 401 {
		t.Errorf("before the horizon: %d %v", got.status, err)
	}
	s.clock.add(30 * time.Second)
	s.succeeds(t, "after the restart")
	if got, err := a.use(own); err != nil || got.status != 200 {
		t.Errorf("a token from before: %d %v %+v", got.status, err, s.world.last())
	}
	s.world.change(func() { s.world.grants = nil })
	if got, err := a.use(own); err != nil || got.status != 401 || s.world.last().Rule != GrantRule {
		t.Errorf("a token whose grant was revoked: %d %v %+v", got.status, err, s.world.last())
	}
	_ = token
}

// Without clocks that are ahead nothing waits after a restart but the one second
// of the start.
func TestRestartIsQuick(t *testing.T) {
	s := newStage(t)
	s.succeeds(t, "before")
	s.restart(t)
	s.clock.add(time.Second)
	s.succeeds(t, "after")
	if !s.world.newest.IsZero() {
		t.Errorf("a horizon was stored: %v", s.world.newest)
	}
}

func TestLimits(t *testing.T) {
	s := newStage(t)
	s.server = s.newServer(t, Limits{Connections: 2, Calls: 1, Remembered: 4, Refusals: 3})
	release := make(chan struct{})
	s.server.Handle("GET /r5/avatars/{id}/stream", identity.ActionRead, func(w http.ResponseWriter, _ *http.Request, _ Call) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	s.serve(t)
	overloaded := func(when string, got said, err error) {
		t.Helper()
		if err != nil || got.status != 429 || got.body != tooMany || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %+v %v", when, got, err)
		}
		if d := s.world.last(); d.Rule != OverloadRule || d.Peer != "citadel" {
			t.Errorf("%s is recorded as %+v", when, d)
		}
	}
	s.clock.add(2 * time.Second)

	// One call at once.
	a := s.attempt()
	_, token, err := a.exchange() // remembers two
	if err != nil || token == "" {
		t.Fatal(err, s.world.last())
	}
	a.calling = swap(s.about.String(), s.about.String()+"/stream")
	r := a.callRequest(token)
	r.URL.Path += "/stream"
	answer, err := a.calledBy.Do(r) // three
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	a.calling = nil
	got, err := a.use(token) // four
	overloaded("a second call", got, err)
	got, _, err = s.attempt().exchange()
	overloaded("a second question", got, err)
	close(release)
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()

	// Four assertions and proofs.
	got, err = a.use(token)
	overloaded("a fifth showing", got, err)

	// Refusals are recorded one by one until there are too many; then they count.
	had := s.world.count()
	for range 5 {
		if got, err := do(s.http, mustRequest(s.base+"/r5/nothing")); err != nil || got.status != 401 {
			t.Fatal(got, err)
		}
	}
	if n := s.world.count() - had; n != 3 { // those without a peer have a budget of their own
		t.Errorf("%d are recorded", n)
	}
	s.clock.add(time.Minute)
	if got, err := do(s.http, mustRequest(s.base+"/r5/nothing")); err != nil || got.status != 401 || s.world.last().More != 2 {
		t.Errorf("%+v %v %+v", got, err, s.world.last())
	}

	// Two connections.
	s.clock.add(2 * time.Minute)
	s.http.CloseIdleConnections()
	third := func() error {
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.base, "https://"), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{s.clinic.cert}, NextProtos: []string{"http/1.1"}})
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, "GET /r5/nothing HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		return err
	}
	if err := errors.Join(third(), third()); err != nil {
		t.Fatal(err)
	}
	if third() == nil {
		t.Error("a third connection is served")
	}
	s.succeeds(t, "another peer")
}

// What can't be recorded isn't served, and isn't answered with the one answer: it
// isn't the caller's fault.
func TestUnrecordedIsNotServed(t *testing.T) {
	s := newStage(t)
	a := s.attempt()
	_, token, err := a.exchange()
	if err != nil {
		t.Fatal(err)
	}
	s.world.change(func() { s.world.failing = errors.New("no space") })
	for _, try := range []func() (said, error){
		func() (said, error) { return a.use(token) },
		func() (said, error) { got, _, err := a.exchange(); return got, err },
		func() (said, error) { return do(s.http, mustRequest(s.base+"/r5/nothing")) },
	} {
		if got, err := try(); err != nil || got.status != 503 || got.body != notNow || got.header.Get("Retry-After") == "" {
			t.Errorf("%+v %v", got, err)
		}
	}
	s.world.change(func() { s.world.failing = nil })
	s.succeeds(t, "after")
}

func mustRequest(url string) *http.Request {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// meanwhile does something once, while the record of a permitted call is made.
type meanwhile struct {
	Activity
	do func()
}

func (m *meanwhile) Record(ctx context.Context, d Decision) error {
	if err := m.Activity.Record(ctx, d); err != nil {
		return err
	}
	if do := m.do; d.Permitted && do != nil {
		m.do = nil
		do()
	}
	return nil
}

// What a call lives by may end while the call is let in: it is refused then, and
// not broken off.
func TestACallThatEndsBeforeItBeginsIsRefused(t *testing.T) {
	s := newStage(t)
	a := s.attempt()
	_, token, err := a.exchange()
	if err != nil {
		t.Fatal(err)
	}
	s.server.cfg.Activity = &meanwhile{s.server.cfg.Activity, func() {
		s.world.change(func() { s.world.grants = nil })
		s.server.endFallen(t.Context())
	}}
	if got, err := a.use(token); err != nil || got.status != 401 || got.body != Outside {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of calls by one grant and mandate each stands or falls by its own action.
func TestLiveCallsStandByTheirAction(t *testing.T) {
	s := newStage(t)
	for range 20 { // in whichever order they are asked
		open := make(map[identity.Action]*liveCall)
		for _, action := range []identity.Action{identity.ActionRead, identity.ActionMove} {
			l, err := s.server.live.enter(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), Call{
				Ask: Ask{Platform: "citadel", Subject: public(s.avatar), Avatar: s.about, Action: action, Purpose: "care"},
				Pin: pinOf(s.citadel.cert.Leaf), Grant: Grant{ID: "g1", Version: 1}, Mandate: "m",
				mandated: carnet.Clearance{Sensitivity: carnet.Health, Purposes: "care", Residency: "eu"},
			})
			if err != nil {
				t.Fatal(err)
			}
			open[action] = l
		}
		s.server.endFallen(t.Context())
		if err := context.Cause(open[identity.ActionRead].ctx); err != nil {
			t.Fatalf("a call that may go on is ended: %v", err)
		}
		if err := context.Cause(open[identity.ActionMove].ctx); err == nil || !strings.Contains(err.Error(), "no grant") {
			t.Fatalf("a call of another action goes on: %v", err)
		}
		for _, l := range open {
			l.leave()
		}
	}
}

// A grant of which nobody can tell whether it still holds ends its own call, and holds up no
// other's end.
func TestWhatEndsCallsWaitsForNobody(t *testing.T) {
	s := newStage(t)
	enter := func(purpose, mandate string) *liveCall {
		l, err := s.server.live.enter(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), Call{
			Ask: Ask{Platform: "citadel", Subject: public(s.avatar), Avatar: s.about, Action: identity.ActionRead, Purpose: purpose},
			Pin: pinOf(s.citadel.cert.Leaf), Grant: Grant{ID: "g1", Version: 1}, Mandate: mandate,
			mandated: carnet.Clearance{Sensitivity: carnet.Health, Purposes: "care", Residency: "eu"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	s.world.change(func() { s.world.slow, s.world.withdrawn["taken back"] = "play", true })
	goesOn := enter("care", "holds")
	for range 10 { // in whichever order they are asked
		over, unknown := enter("care", "taken back"), enter("play", "another")
		done := make(chan struct{})
		go func() { defer close(done); s.server.endFallen(t.Context()) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("it waits for a grant")
		}
		for l, want := range map[*liveCall]string{over: "withdrawn", unknown: "doesn't answer"} {
			if err := context.Cause(l.ctx); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("a call is ended by %v, want %q", err, want)
			}
			l.leave()
		}
		if err := context.Cause(goesOn.ctx); err != nil {
			t.Fatalf("a call that may go on is ended: %v", err)
		}
	}
	goesOn.leave()
}

// A connection that a call has taken over, as a WebSocket does, is closed with its peer's
// others, and forgotten with its call.
func TestATakenConnectionIsClosedWithItsPeering(t *testing.T) {
	s := newStage(t)
	took, left := make(chan net.Conn, 1), make(chan struct{})
	s.server.Handle("GET /r5/avatars/{id}/stream", identity.ActionRead, func(w http.ResponseWriter, r *http.Request, _ Call) {
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = both.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
		_ = both.Flush()
		took <- conn
		<-left
	})
	a := s.attempt()
	defer a.byHTTP1()()
	answer := a.stream(t)
	defer answer.Body.Close()
	conn := <-took
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	s.server.Disconnect(pinOf(s.citadel.cert.Leaf))
	if err := conn.SetDeadline(time.Time{}); err == nil {
		t.Error("it is open when the call has returned that ends its peering")
	}
	close(left)
	for { // until the call has left
		s.server.live.mu.Lock()
		o := s.server.live.peers[pinOf(s.citadel.cert.Leaf)]
		over := o == nil || len(o.calls)+len(o.taken) == 0
		s.server.live.mu.Unlock()
		if over {
			break
		}
		time.Sleep(time.Millisecond)
	}
}
