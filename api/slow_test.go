package api_test

import (
	"context"
	"encoding/json"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/policy"

	"github.com/coder/websocket"
)

// pipes is a listener whose connections hold nothing between their ends: a
// reader that stops is felt at once.
type pipes struct {
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.connections:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.connections <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// limited serves the world with small limits, over pipes.
func (s *served) limited(tokens api.Authenticator, ping, frame time.Duration, live, liveOfOne int) *client.Client {
	s.t.Helper()
	h, err := api.NewHasty(api.Config{Party: "arena", World: s.world, Tokens: tokens, Guard: guard(s.t, s.records), Live: live, LiveOfToken: liveOfOne, Log: quiet()}, ping, frame)
	if err != nil {
		s.t.Fatal(err)
	}
	p := &pipes{connections: make(chan net.Conn), closed: make(chan struct{})}
	server := &httptest.Server{Listener: p, Config: &http.Server{Handler: h}}
	server.Start()
	s.t.Cleanup(server.Close)
	transport := &http.Transport{DialContext: p.dial}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &client.Client{Base: "http://arena.example", Token: "reader-token", HTTP: &http.Client{Transport: transport}}
}

func TestASlowReaderIsDisconnectedAndLosesNothing(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	const n = 60
	for i := range n { // one by one, so that each is an event
		d.mustSend(heart(i, float64(i)))
		s.arrived(m.Avatar, uint64(i+1))
	}
	c := s.limited(tokens, time.Hour, 20*time.Millisecond, 1, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all []carnet.Measurement
	cursor, cuts := "", 0
	for len(all) < n {
		conn, _, err := websocket.Dial(ctx, "http://arena.example/v1/avatars/"+m.Avatar.String()+"/live?after="+cursor, &websocket.DialOptions{
			HTTPClient: c.HTTP, HTTPHeader: http.Header{"Authorization": {"Bearer reader-token"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		// Read a few frames, then nothing until the world has given up: its one
		// place for subscriptions is free again.
		for range min(20, n-len(all)) {
			_, frame, err := conn.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var e client.Event
			e, err = client.ParseFrame(frame)
			if err != nil {
				t.Fatal(err)
			}
			all, cursor = append(all, e.Measurements...), e.Cursor
		}
		s.eventually("the world disconnects the reader", func() bool {
			if len(all) == n {
				conn.CloseNow() // there is nothing more that it could be slow to read
			}
			c.Token = "operator-token"
			st, err := c.Status(t.Context())
			return err == nil && st.World.Live == 0
		})
		conn.CloseNow()
		cuts++
	}
	if !slices.Equal(rates(all), upTo(0, n)) || cuts != 3 {
		t.Errorf("after %d cuts: got %v", cuts, rates(all))
	}
}

func TestATokenTakenAwayEndsItsSubscriptions(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 0))
	s.arrived(m.Avatar, 1)
	var revoked atomic.Bool
	c := s.limited(func(token string) (api.Principal, bool) {
		p, ok := tokens(token)
		return p, ok && !revoked.Load()
	}, 5*time.Millisecond, time.Second, 1, 1)
	events := 0
	for _, err := range c.Watch(t.Context(), m.Avatar, new(string)) {
		if err != nil {
			if carnet.CodeOf(err) != carnet.Unavailable || !strings.Contains(err.Error(), "token") {
				t.Errorf("the subscription ended with %v", err)
			}
			break
		}
		events++
		revoked.Store(true)
	}
	if events != 1 {
		t.Errorf("%d events", events)
	}
}

// refusal is how a subscription that is not to be is answered.
func refusal(t *testing.T, c *client.Client, id carnet.AvatarID, header http.Header) (status int, retry string, p api.Problem) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Base+"/v1/avatars/"+id.String()+"/live?after=", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header.Clone()
	r.Header.Set("Authorization", "Bearer "+c.Token)
	a, err := c.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode < http.StatusBadRequest { // it is one after all, and has no end
		return a.StatusCode, "", p
	}
	if err := json.NewDecoder(a.Body).Decode(&p); err != nil {
		t.Error(err)
	}
	return a.StatusCode, a.Header.Get("Retry-After"), p
}

// The limits of subscriptions are the operator's; without a word there are 64 with
// a token, and a token never has more than there are.
func TestLimitsOfSubscriptions(t *testing.T) {
	s := newServed(t)
	for _, c := range []struct {
		live, ofToken int
		says          string // in the interface's description; empty: refused
	}{
		{0, 0, "At most 4096 subscriptions are open at once, and 64 with one token"},
		{10, 0, "At most 10 subscriptions are open at once, and 10 with one token"},
		{0, 500, "At most 4096 subscriptions are open at once, and 500 with one token"},
		{10, 3, "At most 10 subscriptions are open at once, and 3 with one token"},
		{10, 11, ""}, {-1, 0, ""}, {0, -1, ""}, {0, 4097, ""},
	} {
		h, err := api.New(api.Config{Party: "arena", World: s.world, Tokens: tokens, Guard: guard(t, s.records), Live: c.live, LiveOfToken: c.ofToken, Log: quiet()})
		if c.says == "" {
			if carnet.CodeOf(err) != carnet.Malformed {
				t.Errorf("%d and %d: %v", c.live, c.ofToken, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
		if !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%d and %d: the description doesn't say %q", c.live, c.ofToken, c.says)
		}
	}
}

// Only so many subscriptions are open: with one token, and at all. A place is free
// again when its subscription ends.
func TestOnlySoManySubscriptions(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 0))
	s.arrived(m.Avatar, 1)
	c := s.limited(func(token string) (api.Principal, bool) { return policy.Bearer(token, policy.Administrator), true }, time.Hour, time.Second, 3, 2)
	as := func(token string) *client.Client {
		other := *c
		other.Token = token
		return &other
	}
	open := func(token string) (leave func()) {
		t.Helper()
		next, stop := iter.Pull2(as(token).Watch(t.Context(), m.Avatar, new(string)))
		if _, err, ok := next(); err != nil || !ok {
			t.Fatalf("%s can't subscribe: %v", token, err)
		}
		return stop
	}
	refused := func(token, why string) {
		t.Helper()
		for _, err := range as(token).Watch(t.Context(), m.Avatar, new(string)) {
			if carnet.CodeOf(err) != carnet.Unavailable || !strings.Contains(err.Error(), why) {
				t.Errorf("%s has another subscription, which ends with %v", token, err)
			}
		}
		for _, h := range []http.Header{
			{"Accept": {"text/event-stream"}},
			{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}},
		} {
			status, retry, p := refusal(t, as(token), m.Avatar, h)
			if status != http.StatusTooManyRequests || retry != "1" || !strings.Contains(p.Detail, why) || !strings.Contains(p.Fix, "end one") {
				t.Errorf("%s with %v is answered with %d, Retry-After %q, %+v", token, h, status, retry, p)
			}
		}
	}
	one, two := open("alice"), open("alice")
	refused("alice", "2 live subscriptions of yours")
	three := open("bob")
	refused("bob", "3 live subscriptions are open")
	refused("carol", "3 live subscriptions are open")
	one()
	s.eventually("a place is free again", func() bool {
		st, err := c.Status(t.Context())
		return err == nil && st.World.Live == 2
	})
	open("carol")()
	two()
	three()
	s.eventually("all are free again", func() bool {
		st, err := c.Status(t.Context())
		return err == nil && st.World.Live == 0
	})
	follow(t, c, m.Avatar, new(string), 1)
}

// Who lets pings wait isn't looked at any later for that: its subscription ends with its
// token.
func TestATokenTakenAwayFromWhoAnswersNoPing(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 0))
	s.arrived(m.Avatar, 1)
	var revoked atomic.Bool
	valid := func(token string) (api.Principal, bool) {
		p, ok := tokens(token)
		return p, ok && (!revoked.Load() || token != "reader-token")
	}
	h, err := api.NewHasty(api.Config{Party: "arena", World: s.world, Tokens: valid, Guard: guard(t, s.records), Live: 1, LiveOfToken: 1, Log: quiet()}, 5*time.Millisecond, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h) // whose sockets hold pings
	defer server.Close()
	conn, _, err := websocket.Dial(t.Context(), server.URL+"/v1/avatars/"+m.Avatar.String()+"/live?after=", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer reader-token"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // a ping is out by now, and nobody answers it
	revoked.Store(true)
	s.eventually("the subscription ends", func() bool {
		st, err := (&client.Client{Base: server.URL, Token: "operator-token", HTTP: server.Client()}).Status(t.Context())
		return err == nil && st.World.Live == 0
	})
}
