package r5

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

// player is citadel's avatar.
type player struct{ stage *stage }

func (p player) Key(context.Context) (ed25519.PrivateKey, error)  { return p.stage.avatar, nil }
func (p player) Credential(context.Context) (string, error)       { return p.stage.newCredential(), nil }
func (p player) Mandate(_ context.Context, _ Use) (string, error) { return p.stage.newMandate(), nil }

func (s *stage) client(t testing.TB) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{
		Self: "citadel", Peer: "arena", Base: s.base, Pin: s.pin, Certificate: s.citadel.cert, Now: s.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (s *stage) read(t testing.TB, c *Client) (int, string) {
	t.Helper()
	status, body, err := s.tryRead(c)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func (s *stage) tryRead(c *Client) (int, string, error) {
	r := mustRequest("/r5/avatars/" + s.about.String() + "?x=1")
	answer, err := c.Do(context.Background(), player{s}, Use{Avatar: s.about, Action: identity.ActionRead}, r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// exchanged counts the tokens that were given.
func (s *stage) exchanged() (n int) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	for _, d := range s.world.records {
		if d.Exchange && d.Permitted {
			n++
		}
	}
	return n
}

func TestClientKeepsAndRenewsTokens(t *testing.T) {
	s := newStage(t)
	c := s.client(t)
	read := func(when string, exchanges int) {
		t.Helper()
		if status, body := s.read(t, c); status != 200 || !strings.Contains(body, "for citadel") {
			t.Errorf("%s: %d %s", when, status, body)
		}
		if n := s.exchanged(); n != exchanges {
			t.Errorf("%s: %d tokens were given, want %d", when, n, exchanges)
		}
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if status, _, err := s.tryRead(c); err != nil || status != 200 {
				t.Error(status, err)
			}
		})
	}
	all.Wait()
	read("after many at once", 1)
	s.clock.add(identity.TokenLife - renewBefore - time.Second)
	read("before it must be renewed", 1)
	s.clock.add(time.Second)
	read("shortly before its end", 2)
	grant(func(g *fakeGrant) { g.Version++ })(s)
	read("under another version of the grant", 3)
	s.world.change(func() { s.world.grants = nil })
	if _, _, err := s.tryRead(c); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("without a grant: %v", err)
	}
}

func TestClientSendsBodiesAgain(t *testing.T) {
	s := newStage(t)
	var bodies []string
	s.server.Handle("POST /r5/avatars/{id}/echo", identity.ActionRead, func(w http.ResponseWriter, r *http.Request, _ Call) {
		b, err := io.ReadAll(r.Body)
		bodies = append(bodies, string(b))
		if err != nil {
			t.Error(err)
		}
	})
	c := s.client(t)
	s.read(t, c)
	grant(func(g *fakeGrant) { g.Version++ })(s)
	r, err := http.NewRequest("POST", "/r5/avatars/"+s.about.String()+"/echo", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(t.Context(), player{s}, Use{Avatar: s.about, Action: identity.ActionRead}, r)
	if err != nil || answer.StatusCode != 200 || len(bodies) != 1 || bodies[0] != "hello" {
		t.Errorf("%v %v %q", answer, err, bodies)
	}
	if err == nil {
		answer.Body.Close()
	}
}

// A peer that answers nonsense, too much, or never, is refused or given up, and
// nothing of it is kept.
func TestClientRefusesNonsense(t *testing.T) {
	s := newStage(t)
	long, asked := strings.Repeat("x", maxAnswer), make(chan struct{})
	for name, v := range map[string]struct {
		answer http.HandlerFunc
		code   carnet.Code
	}{
		"nothing":                   {func(http.ResponseWriter, *http.Request) {}, carnet.Malformed},
		"not JSON":                  {say(200, "hello"), carnet.Malformed},
		"too much":                  {say(200, `{"access_token":"`+long+`"}`), carnet.Malformed},
		"a bearer token":            {say(200, `{"access_token":"a.b.c","issued_token_type":"`+AccessType+`","token_type":"Bearer","expires_in":300}`), carnet.Malformed},
		"a token for ever":          {say(200, `{"access_token":"a.b.c","issued_token_type":"`+AccessType+`","token_type":"DPoP","expires_in":301}`), carnet.Malformed},
		"a token with a line break": {say(200, `{"access_token":"a\r\nb","issued_token_type":"`+AccessType+`","token_type":"DPoP","expires_in":300}`), carnet.Malformed},
		"a redirection": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusTemporaryRedirect)
		}, carnet.Malformed},
		"busy":    {say(429, ""), carnet.Unavailable},
		"a proxy": {say(502, "<html>"), carnet.Unavailable},
		"refused": {say(401, Outside), carnet.Unauthenticated},
		"cut off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, carnet.Unavailable},
		"silence": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(asked)
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // what is left of the connection hears nothing either
		}, carnet.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(v.answer)
			defer server.Close()
			c, err := NewClient(ClientConfig{Self: "citadel", Peer: "arena", Base: server.URL, Pin: pinOf(server.Certificate()), Certificate: s.citadel.cert, Now: s.clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if name == "silence" {
				go func() { <-asked; cancel() }()
			}
			_, err = c.Do(ctx, player{s}, Use{Avatar: s.about, Action: identity.ActionRead}, mustRequest("/r5/avatars/x"))
			if carnet.CodeOf(err) != v.code {
				t.Errorf("%v", err)
			}
			for _, k := range c.tokens {
				if k.text != "" {
					t.Errorf("a token is kept: %q", k.text)
				}
			}
		})
	}
}

func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestClientKnowsItsPeerByTheKeyAlone(t *testing.T) {
	s := newStage(t)
	c, err := NewClient(ClientConfig{Self: "citadel", Peer: "arena", Base: s.base, Pin: carnet.Fingerprint{1}, Certificate: s.citadel.cert, Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := s.tryRead(c); carnet.CodeOf(err) != carnet.Unavailable || !strings.Contains(err.Error(), "not that of arena") {
		t.Errorf("%v", err)
	}
}

func TestConfigurationsThatLackSomething(t *testing.T) {
	s := newStage(t)
	for name, spoil := range map[string]func(*Config){
		"no party":       func(c *Config) { c.Party = "" },
		"no base":        func(c *Config) { c.Base = "" },
		"a base of HTTP": func(c *Config) { c.Base = "http://arena:1" },
		"a base's path":  func(c *Config) { c.Base += "/" },
		"no key":         func(c *Config) { c.Key = nil },
		"no peers":       func(c *Config) { c.Peers = nil },
		"no record":      func(c *Config) { c.Activity = nil },
		"no horizon":     func(c *Config) { c.Horizon = nil },
		"a limit":        func(c *Config) { c.Limits.Calls = -1 },
		"lost store":     func(c *Config) { c.Horizon = lostHorizon{} },
	} {
		c := s.server.cfg
		spoil(&c)
		if _, err := New(t.Context(), c); err == nil {
			t.Errorf("%s: it begins", name)
		}
	}
	for name, spoil := range map[string]func(*ClientConfig){
		"no self":        func(c *ClientConfig) { c.Self = "" },
		"no peer":        func(c *ClientConfig) { c.Peer = "Arena" },
		"no pin":         func(c *ClientConfig) { c.Pin = carnet.Fingerprint{} },
		"no certificate": func(c *ClientConfig) { c.Certificate.Certificate = nil },
		"a base's query": func(c *ClientConfig) { c.Base += "?x" },
	} {
		c := ClientConfig{Self: "citadel", Peer: "arena", Base: s.base, Pin: s.pin, Certificate: s.citadel.cert}
		spoil(&c)
		if _, err := NewClient(c); err == nil {
			t.Errorf("%s: a client begins", name)
		}
	}
}

type lostHorizon struct{}

func (lostHorizon) Newest(context.Context) (time.Time, error) { return time.Time{}, errors.New("lost") }
func (lostHorizon) Raise(context.Context, time.Time) error    { return errors.New("lost") }

// Why a world can't be called is told in words.
func TestAWorldThatIsAwayIsToldInWords(t *testing.T) {
	c := &Client{cfg: ClientConfig{Peer: "arena"}}
	err := c.unreachable(errors.New("dial tcp 127.0.0.1:1: connect: connection refused"))
	if carnet.CodeOf(err) != carnet.Unavailable || err.Error() != "arena can't be reached for calls: nothing listens there (connection refused)" {
		t.Errorf("it says %v", err)
	}
}
