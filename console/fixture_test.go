package console

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"carnet/access"
	"carnet/account"
	"carnet/identity"

	"golang.org/x/crypto/argon2"
)

const password = "a password for tests"

// town is a console with two parties behind it, which answer what a test says.
type town struct {
	t       *testing.T
	console *Console
	base    string
	users   string
	answer  http.HandlerFunc // of both parties

	mu    sync.Mutex
	asked []*http.Request // what reached a party
}

// newTown starts a console. alice has a token at hub, and two at arena, of which one
// is of her role.
func newTown(t *testing.T, change func(*Config)) *town {
	t.Helper()
	w := &town{t: t, answer: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"path":"`+r.URL.EscapedPath()+`"}`)
	}}
	dir := t.TempDir()
	party := func(name string) string {
		s := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			w.asked = append(w.asked, r)
			answer := w.answer
			w.mu.Unlock()
			answer(rw, r)
		}))
		t.Cleanup(s.Close)
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if err := os.WriteFile(filepath.Join(dir, name+".pem"), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		return s.URL
	}
	file := &access.File{
		Version: access.Version,
		Parties: []access.Party{
			{Name: "hub", Role: identity.Things, HTTP: party("hub"), CAFile: filepath.Join(dir, "hub.pem")},
			{Name: "arena", Role: identity.World, HTTP: party("arena"), CAFile: filepath.Join(dir, "arena.pem")},
			{Name: "gone", Role: identity.World, HTTP: "https://127.0.0.1:1"},
		},
		Tokens: []access.Token{
			{Party: "hub", Name: "alice", Role: "owner", Token: "alices-token"},
			{Party: "arena", Name: "alice", Role: "reader", Token: "alices-reader-token"},
			{Party: "arena", Name: "alice", Role: "owner", Token: "alices-owner-token"},
			{Party: "gone", Name: "alice", Role: "owner", Token: "alices-third-token"},
			{Party: "hub", Name: "bob", Role: "operator", Token: "bobs-token"},
		},
	}
	w.users = filepath.Join(dir, "users.json")
	hash := cheap(t)
	if err := account.WriteUsers(w.users, []account.User{{Name: "alice", Role: "owner", Password: hash}, {Name: "bob", Role: "operator", Password: hash}}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	accounts, err := account.New(account.Config{Users: w.users, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Access: file, Accounts: accounts, Listen: "127.0.0.1:0", Log: log}
	if change != nil {
		change(&config)
	}
	if w.console, err = New(config); err != nil {
		t.Fatal(err)
	}
	w.base = w.console.URL()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.console.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("the console ended: %v", err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return w
}

// cheap is the hash of the password with the least that a users file may ask for.
func cheap(t *testing.T) (p account.Password) {
	t.Helper()
	salt, b64 := make([]byte, 16), base64.RawStdEncoding
	hash := argon2.IDKey([]byte(password), salt, 1, 8<<10, 1, 32)
	if err := p.UnmarshalText([]byte("$argon2id$v=19$m=8192,t=1,p=1$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(hash))); err != nil {
		t.Fatal(err)
	}
	return p
}

// says has the parties answer otherwise.
func (w *town) says(answer http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// reached returns what reached the parties since the last call.
func (w *town) reached() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

// visitor is a browser of the console's own page.
type visitor struct {
	*town
	cookie *http.Cookie
	key    string
}

// answered is an answer, read.
type answered struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
}

func (a answered) problem(t *testing.T) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d with %q is no problem document: %v", a.status, a.body, err)
	}
	return p
}

// client follows no redirect and keeps no cookie.
var client = &http.Client{
	Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // the test's own console
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// calls makes a request with the visitor's cookie and key, and headers as the own
// page's, but for what change changes.
func (v visitor) calls(method, path, body string, change func(*http.Request)) answered {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.base+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if method != http.MethodGet {
		r.Header.Set("Origin", v.base)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if v.cookie != nil {
		r.AddCookie(v.cookie)
	}
	if v.key != "" {
		r.Header.Set(keyHeader, v.key)
	}
	if change != nil {
		change(r)
	}
	got, err := client.Do(r)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answered{got.StatusCode, got.Header, string(text), got.Trailer}
}

// signsIn signs a visitor in.
func (w *town) signsIn(name string) visitor {
	w.t.Helper()
	return w.signsInWith(name, nil)
}

func (w *town) signsInWith(name string, change func(*http.Request)) visitor {
	w.t.Helper()
	v := visitor{town: w}
	a := v.calls("POST", "/session", `{"name":"`+name+`","password":"`+password+`"}`, change)
	var in struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(a.body), &in); err != nil || a.status != http.StatusCreated {
		w.t.Fatalf("sign-in answers %d %s", a.status, a.body)
	}
	cookies := (&http.Response{Header: a.header}).Cookies()
	if len(cookies) != 1 {
		w.t.Fatalf("sign-in sets the cookies %v", cookies)
	}
	v.cookie, v.key = cookies[0], in.Key
	return v
}

// raw sends bytes as they are and returns the answer's first line.
func (w *town) raw(request string) string {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return "" // it was cut off meanwhile
	}
	answer, _ := io.ReadAll(conn) // a reset after the answer is one, too
	return string(answer)
}
