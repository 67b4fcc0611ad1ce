package console

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/access"

	"github.com/coder/websocket"
)

func TestSigningInAndOut(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	c := alice.cookie
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 0 || !c.Expires.IsZero() {
		t.Errorf("the cookie is %v", c)
	}
	a := alice.calls("GET", "/session", "", nil)
	var who person
	if err := json.Unmarshal([]byte(a.body), &who); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want := []reached{{"hub", "things", "owner"}, {"arena", "world", "owner"}, {"gone", "world", "owner"}}
	if who.Name != "alice" || who.Role != "owner" || !reflect.DeepEqual(who.Parties, want) {
		t.Errorf("signed in as %+v", who)
	}
	if strings.Contains(a.body, "token") || strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("the page is told %s", a.body)
	}
	other := w.signsIn("alice")
	if a := alice.calls("DELETE", "/session", "", nil); a.status != http.StatusNoContent || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("signing out answers %d, %v", a.status, a.header)
	}
	if a := alice.calls("GET", "/session", "", nil); a.status != http.StatusUnauthorized || a.problem(t).From != "console" {
		t.Errorf("signed out, and answered %d %s", a.status, a.body)
	}
	third := w.signsIn("alice")
	bob := w.signsIn("bob")
	if a := third.calls("DELETE", "/sessions", "", nil); a.status != http.StatusNoContent {
		t.Errorf("signing out everywhere answers %d", a.status)
	}
	if a := other.calls("GET", "/session", "", nil); a.status != http.StatusUnauthorized {
		t.Errorf("another session of alice's is answered %d", a.status)
	}
	if a := bob.calls("GET", "/session", "", nil); a.status != http.StatusOK {
		t.Errorf("bob is answered %d", a.status)
	}
}

func TestFailuresToSignIn(t *testing.T) {
	w := newTown(t, nil)
	v := visitor{town: w}
	for body, want := range map[string]int{
		`{"name":"alice","password":"wrong-password"}`:    http.StatusUnauthorized,
		`{"name":"nobody","password":"` + password + `"}`: http.StatusUnauthorized,
		`{"name":"alice"}`: http.StatusUnauthorized,
		`{"name":"alice","password":"` + password + `","role":"operator"}`: http.StatusBadRequest,
		`{"name":"alice","password":"` + password + `"}{}`:                 http.StatusBadRequest,
		`{"name":"alice","password":"` + strings.Repeat("x", 8<<10) + `"}`: http.StatusBadRequest,
		`name=alice&password=x`:                                                       http.StatusBadRequest,
		`{"name":["alice"],"password":"` + password + `"}`:                            http.StatusBadRequest,
		`{"name":"` + strings.Repeat("a", 2<<10) + `","password":"` + password + `"}`: http.StatusBadRequest,
	} {
		a := v.calls("POST", "/session", body, nil)
		if a.status != want || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%.60s is answered %d, want %d; %v", body, a.status, want, a.header["Set-Cookie"])
		}
	}
	// A form of another site can send this type without asking first.
	if a := v.calls("POST", "/session", `{"name":"alice","password":"`+password+`"}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("as text: %d", a.status)
	}
	for range 5 {
		v.calls("POST", "/session", `{"name":"bob","password":"wrong-password"}`, nil)
	}
	a := v.calls("POST", "/session", `{"name":"bob","password":"`+password+`"}`, nil)
	if p := a.problem(t); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "30" || p.Fix == "" {
		t.Errorf("after 5 failures the right password is answered %d, %v, %s", a.status, a.header["Retry-After"], a.body)
	}
}

// TestAPlantedSessionIsWorthNothing: somebody who can set a cookie (another port of
// the host) signs in, and plants their session in alice's browser before she does.
// Two programs that read a sign-in must not read two different people: each member is
// there once, in its letters.
func TestASignInSaysEachThingOnce(t *testing.T) {
	w := newTown(t, nil)
	for _, body := range []string{
		`{"name":"bob","name":"alice","password":"PW"}`, `{"name":"alice","password":"x","password":"PW"}`,
		`{"Name":"alice","password":"PW"}`, `{"name":"alice","NAME":"bob","password":"PW"}`, `{"name":"alice","password":"PW","as":"bob"}`,
		`{"name":"alice","password":"PW"} {}`, `["alice","PW"]`, `{"name":["alice"],"password":"PW"}`, `{"name":"alice","password":"PW"`, ``,
	} {
		body = strings.ReplaceAll(body, "PW", password)
		answer, err := http.Post(w.base+"/session", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s is answered with %s", body, answer.Status)
		}
	}
	answer, err := http.Post(w.base+"/session", "application/json", strings.NewReader(`{"password":"`+password+`","name":"alice"}`))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		t.Errorf("a sign-in is answered with %s", answer.Status)
	}
}

func TestAPlantedSessionIsWorthNothing(t *testing.T) {
	w := newTown(t, nil)
	mallory := w.signsIn("bob")
	plant := func(r *http.Request) { r.AddCookie(mallory.cookie); r.Header.Set(keyHeader, mallory.key) }
	alice := w.signsInWith("alice", plant)
	if alice.cookie.Value == mallory.cookie.Value || alice.key == mallory.key {
		t.Error("signing in took over what was planted")
	}
	if a := mallory.calls("GET", "/session", "", nil); a.status != http.StatusUnauthorized {
		t.Errorf("the planted session is still answered %d", a.status)
	}
	// Planted beside the own one.
	a := alice.calls("GET", "/session", "", func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: alice.cookie.Name, Value: "planted"})
	})
	if a.status != http.StatusUnauthorized {
		t.Errorf("of two cookies one is chosen: %d", a.status)
	}
}

// TestAnotherPortOfTheHostGetsTheCookieAndNothingElse: browsers give a host's cookies
// to all its ports.
func TestAnotherPortOfTheHostGetsTheCookieAndNothingElse(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	stolen := visitor{town: w, cookie: alice.cookie}
	for _, path := range []string{"/session", "/api/hub/v1/things"} {
		if a := stolen.calls("GET", path, "", nil); a.status != http.StatusUnauthorized {
			t.Errorf("%s with the cookie alone is answered %d", path, a.status)
		}
		if a := (visitor{town: w, key: alice.key}).calls("GET", path, "", nil); a.status != http.StatusUnauthorized {
			t.Errorf("%s with the key alone is answered %d", path, a.status)
		}
	}
	if len(w.reached()) > 0 {
		t.Error("a party was asked")
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(w.base, "http://"), ":")
	if alice.cookie.Name != "carnet-"+port || alice.cookie.Secure {
		t.Errorf("in the clear the cookie is %v: it should say what port it is of, and promise no more than holds", alice.cookie)
	}
	another := newTown(t, nil)
	if b := another.signsIn("alice"); b.cookie.Name == alice.cookie.Name {
		t.Error("two consoles on one host take each other's cookies")
	}
}

func TestRequestsOfOtherSitesAreRefused(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	from := func(site, origin string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Del("Origin")
			if site != "" {
				r.Header.Set("Sec-Fetch-Site", site)
			}
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
		}
	}
	for name, change := range map[string]func(*http.Request){
		"cross-site":                  from("cross-site", "https://evil.example"),
		"same site, another port":     from("same-site", "http://127.0.0.1:1"),
		"a frame of nobody":           from("cross-site", "null"),
		"an old browser":              from("", "https://evil.example"),
		"an old browser, other port":  from("", "http://127.0.0.1:1"),
		"an old browser, other name":  from("", strings.Replace(w.base, "127.0.0.1", "localhost", 1)),
		"an old browser, by TLS":      from("", strings.Replace(w.base, "http:", "https:", 1)),
		"a null origin":               from("", "null"),
		"an origin with a path":       from("", w.base+"/x"),
		"typed into the address line": from("none", ""),
		"two origins": func(r *http.Request) {
			from("", w.base)(r)
			r.Header.Add("Origin", "https://evil.example")
		},
	} {
		for _, call := range [][2]string{{"POST", "/session"}, {"DELETE", "/session"}, {"DELETE", "/sessions"}, {"GET", "/session"},
			{"GET", "/api/hub/v1/things"}, {"PUT", "/api/hub/v1/mappings/x/view"}, {"DELETE", "/api/hub/v1/mappings/x"}} {
			if name == "typed into the address line" && call[0] != "GET" {
				continue // no browser does
			}
			if a := alice.calls(call[0], call[1], "", change); a.status != http.StatusForbidden {
				t.Errorf("%s: %s %s is answered %d", name, call[0], call[1], a.status)
			}
		}
		a := alice.calls("GET", "/api/hub/v1/avatars/x/live", "", func(r *http.Request) {
			change(r)
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Sec-WebSocket-Version", "13")
			r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
		})
		if a.status != http.StatusForbidden {
			t.Errorf("%s: a WebSocket is answered %d", name, a.status)
		}
	}
	if n := len(w.reached()); n > 0 {
		t.Errorf("%d of them reached a party", n)
	}
	if a := alice.calls("GET", "/session", "", from("", "")); a.status != http.StatusOK {
		t.Errorf("a program without a browser is answered %d", a.status)
	}
}

// TestOtherNamesAreNotThisConsole: a name of somebody else's that points to 127.0.0.1
// would make their page one of the same origin.
func TestOtherNamesAreNotThisConsole(t *testing.T) {
	w := newTown(t, nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(w.base, "http://"), ":")
	for host, want := range map[string]int{
		"evil.example:" + port: http.StatusMisdirectedRequest, "evil.example": http.StatusMisdirectedRequest,
		"127.0.0.1": http.StatusMisdirectedRequest, "localhost.evil.example:" + port: http.StatusMisdirectedRequest,
		"127.0.0.1:1": http.StatusMisdirectedRequest, "LOCALHOST:" + port: http.StatusOK, "localhost:" + port: http.StatusOK, "[::1]:" + port: http.StatusOK,
	} {
		a := visitor{town: w}.calls("GET", "/", "", func(r *http.Request) { r.Host = host })
		if a.status != want {
			t.Errorf("%s is answered %d, want %d", host, a.status, want)
		}
	}
}

func TestUntidyPathsReachNobody(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	w.reached()
	for _, path := range []string{
		"/api/hub/v1/../healthz", "/api/hub/v1/..", "/api/hub/../arena/v1/x", "/api/../v1/x", "/api/hub/v1/%2e%2e/x", "/api/hub/v1/%2E%2e%2fx",
		"/api/hub/v1/a%2fb", "/api/hub/v1/a%5cb", "/api/hub/v1/a\\b", "/api/hub//v1/x", "/api/hub/v1//x", "/api/hub/v1/x/", "/api/hub/v1/./x", "/api/hub/v1/a%00b",
		"/api/hub/v1/a%0d%0ab", "/api/hub/v1/%61bc", "/api/hub/v1/a;b", "/api/hub/v1/a%3bb", "/api/hub/v2/x", "/api/hub/healthz", "/api/hub/openapi.json", "/api/hub", "/api/hub/", "/api/", "/api//v1/x",
		"/api/hub/v1/" + strings.Repeat("x", 2000), "/api/hub/V1/x", "/api/hub/%76%31/x",
	} {
		answer := w.raw("GET " + path + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.base, "http://") + "\r\nSec-Fetch-Site: same-origin\r\nCookie: " +
			alice.cookie.Name + "=" + alice.cookie.Value + "\r\nCarnet-Key: " + alice.key + "\r\nConnection: close\r\n\r\n")
		status, _, _ := strings.Cut(answer, "\r\n")
		if !strings.Contains(status, " 400 ") && !strings.Contains(status, " 404 ") || strings.Contains(answer, "\r\nLocation:") {
			t.Errorf("%s is answered %q", path, status)
		}
	}
	if n := len(w.reached()); n > 0 {
		t.Errorf("%d of them reached a party", n)
	}
	for _, path := range []string{"/v1/things/watch-7", "/v1/owners/Jos%C3%A9%20M", "/v1/avatars/x/history"} {
		if a := alice.calls("GET", "/api/hub"+path, "", nil); a.status != http.StatusOK || !strings.Contains(a.body, `"`+path+`"`) {
			t.Errorf("%s is answered %d %s", path, a.status, a.body)
		}
	}
}

func FuzzCutPath(f *testing.F) {
	for _, seed := range []string{"/api/hub/v1/things", "/api/hub/v1/%2e%2e/x", "/api/hub/v1/Jos%C3%A9", "/api/hub/v1//", "/api/a/b/v1/x"} {
		f.Add(seed)
	}
	simple := regexp.MustCompile(`^/v1(/([A-Za-z0-9._~:@-]|%[0-9A-Fa-f]{2})+)*$`)
	f.Fuzz(func(t *testing.T, path string) {
		party, rest, ok := cutPath(path)
		if !ok {
			return
		}
		if strings.Contains(party, "/") || !simple.MatchString(rest) || apiPath+party+rest != path {
			t.Errorf("%q is cut into %q and %q", path, party, rest)
		}
		for _, segment := range strings.Split(rest, "/")[1:] {
			if segment == "." || segment == ".." || strings.Contains(strings.ToLower(segment), "%2f") || strings.Contains(strings.ToLower(segment), "%2e") {
				t.Errorf("%q passes", path)
			}
		}
	})
}

func TestNothingRedirects(t *testing.T) {
	w := newTown(t, nil)
	for _, path := range []string{"//evil.example", "//evil.example/..", "/\\evil.example", "/%2f%2fevil.example", "/index.html", "/assets", "/assets/", "/assets/../index.html",
		"/session/", "/?next=//evil.example", "/.", "/..//evil.example", "/api/../../evil", "http://evil.example/", "/dist/index.html", "/%2e%2e/console.go"} {
		answer := w.raw("GET " + path + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.base, "http://") + "\r\nConnection: close\r\n\r\n")
		status, _, _ := strings.Cut(answer, "\r\n")
		if strings.Contains(status, " 3") || strings.Contains(strings.ToLower(answer), "\r\nlocation:") {
			t.Errorf("%s is answered %q", path, status)
		}
	}
}

func TestOnlyListedPartiesAreReached(t *testing.T) {
	w := newTown(t, nil)
	alice, bob := w.signsIn("alice"), w.signsIn("bob")
	for _, name := range []string{"vault", "HUB", "127.0.0.1:1", "hub@evil.example", "evil.example", "hub%2e", ".", "..", "%68ub"} {
		if a := alice.calls("GET", "/api/"+name+"/v1/things", "", nil); a.status != http.StatusNotFound && a.status != http.StatusBadRequest {
			t.Errorf("%s is answered %d %s", name, a.status, a.body)
		}
	}
	if a := bob.calls("GET", "/api/arena/v1/avatars", "", nil); a.status != http.StatusForbidden || !strings.Contains(a.problem(t).Detail, "no token of arena for bob") {
		t.Errorf("without a token: %d %s", a.status, a.body)
	}
	if n := len(w.reached()); n > 0 {
		t.Errorf("%d of them reached a party", n)
	}
	a := alice.calls("GET", "/api/gone/v1/avatars", "", nil)
	if p := a.problem(t); a.status != http.StatusBadGateway || p.Code != carnet.Unavailable || p.From != "console" || strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("a party that is gone: %d %s", a.status, a.body)
	}
}

func TestWhatGoesOnAndWhatComesBack(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	w.says(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for name, value := range map[string]string{
			"Content-Type": "application/senml+json", "Carnet-More": "true", "Carnet-Next": "1.5", "Carnet-Withdrawn": "steps", "Retry-After": "3", "Set-Cookie": "carnet-1=x",
			"Content-Security-Policy": "default-src *", "Access-Control-Allow-Origin": "*", "Clear-Site-Data": "*", "Link": "</x>", "Refresh": "0; url=//evil.example",
			"Cache-Control": "public", "Strict-Transport-Security": "max-age=1", "Authorization": "Bearer " + r.Header.Get("Authorization"), "X-Frame-Options": "ALLOWALL",
		} {
			h.Set(name, value)
		}
		w.WriteHeader(http.StatusTooManyRequests)
	})
	a := alice.calls("PUT", "/api/arena/v1/mappings/x/view?a=1&b=%2F", `{"x":1}`, func(r *http.Request) {
		r.Header.Set("Accept", "application/senml+json")
		r.Header.Set("Authorization", "Bearer of-the-page")
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		r.Header.Set("Referer", w.base)
		r.Header.Set("Accept-Language", "de")
	})
	asked := w.reached()
	if len(asked) != 1 {
		t.Fatalf("%d requests reached a party", len(asked))
	}
	r := asked[0]
	got := r.Header.Clone()
	for name, want := range map[string]string{"Authorization": "Bearer alices-owner-token", "Accept": "application/senml+json", "Content-Type": "application/json", "User-Agent": "carnet-console"} {
		if got.Get(name) != want {
			t.Errorf("the party gets %s %q, want %q", name, got.Get(name), want)
		}
		got.Del(name)
	}
	for _, name := range []string{"Content-Length", "Accept-Encoding"} { // the connection's
		got.Del(name)
	}
	if len(got) > 0 {
		t.Errorf("the party gets of the browser %v", got)
	}
	if r.Method != "PUT" || r.URL.String() != "/v1/mappings/x/view?a=1&b=%2F" || strings.Contains(r.Host, strings.TrimPrefix(w.base, "http://")) {
		t.Errorf("the party gets %s %s for %s", r.Method, r.URL, r.Host)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/senml+json", "Carnet-More": "true", "Carnet-Next": "1.5", "Carnet-Withdrawn": "steps", "Retry-After": "3", "Set-Cookie": "",
		"Content-Security-Policy": dataPolicy, "Access-Control-Allow-Origin": "", "Clear-Site-Data": "", "Link": "", "Refresh": "", "Cache-Control": "no-store",
		"Strict-Transport-Security": "", "Authorization": "", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
	} {
		if v := a.header.Values(name); strings.Join(v, ", ") != want {
			t.Errorf("the page gets %s %q, want %q", name, v, want)
		}
	}
	if a.status != http.StatusTooManyRequests {
		t.Errorf("the page gets %d", a.status)
	}
}

// What a party says before and after its answer stays there, and takes nothing of the
// console's away.
func TestWhatIsBeforeAndAfterAnAnswerStaysThere(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	answer := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, `{}`)
	}
	w.says(func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	plain := alice.calls("GET", "/api/hub/v1/things", "", nil)
	w.says(func(w http.ResponseWriter, _ *http.Request) {
		early := http.Header{"Set-Cookie": {"carnet-1=x"}, "Link": {"</x>"}, "Clear-Site-Data": {"*"}, "Content-Security-Policy": {"default-src *"}}
		maps.Copy(w.Header(), early)
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		clear(w.Header())
		w.Header().Set("Trailer", "X-Announced")
		answer(w)
		w.Header().Set("X-Announced", "x")
		w.Header().Set(http.TrailerPrefix+"X-Late", "x")
	})
	var before []int
	got := alice.calls("GET", "/api/hub/v1/things", "", func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { before = append(before, code); return nil },
		}))
	})
	for _, a := range []answered{plain, got} {
		a.header.Del("Date")
	}
	if !reflect.DeepEqual(got.header, plain.header) || got.status != plain.status || got.body != plain.body {
		t.Errorf("the page gets %d %v %q, want %v", got.status, got.header, got.body, plain.header)
	}
	if len(before) > 0 || len(got.trailer) > 0 {
		t.Errorf("it gets %v before and %v after it", before, got.trailer)
	}
}

func TestAPartyThatAnswersNoDataIsNotPassedOn(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	for name, answer := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<script>"))
		},
		"an image": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/svg+xml")
			_, _ = w.Write([]byte("<svg/>"))
		},
		"something": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = w.Write([]byte("<script>"))
		},
		"a redirection": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example", http.StatusFound)
		},
	} {
		w.says(answer)
		a := alice.calls("GET", "/api/hub/v1/things", "", nil)
		if a.status != http.StatusBadGateway || strings.Contains(a.body, "<script>") || a.header.Get("Location") != "" || a.problem(t).From != "console" {
			t.Errorf("%s: %d %s %v", name, a.status, a.body, a.header)
		}
	}
}

// What a job put out is whatever its program put out: it comes back as bytes that no
// browser takes for anything else.
func TestAnOutputComesBackAsBytes(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	w.says(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, "<script>")
	})
	a := alice.calls("GET", "/api/arena/v1/jobs/x/output", "", nil)
	policy := a.header.Get("Content-Security-Policy")
	if a.status != http.StatusOK || a.body != "<script>" || a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(policy, "sandbox") || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("an output comes back as %d %s %v", a.status, a.body, a.header)
	}
}

func TestBodiesAndHeadersAreBounded(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	w.says(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			w.Header().Set("Content-Type", "application/json")
		}
	})
	if a := alice.calls("PUT", "/api/hub/v1/x", `"`+strings.Repeat("x", maxForwarded)+`"`, nil); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit is answered %d", a.status)
	}
	module := `{"program":"` + strings.Repeat("A", 4*maxForwarded) + `"}`
	for _, path := range []string{"/v1/jobs", "/v1/jobs/plans"} {
		if a := alice.calls("POST", "/api/arena"+path, module, nil); a.status != http.StatusOK {
			t.Errorf("a job with a module to %s is answered %d", path, a.status)
		}
		if a := alice.calls("POST", "/api/arena"+path, strings.Repeat(" ", maxJob+1), nil); a.status != http.StatusRequestEntityTooLarge || !strings.Contains(a.body, "more than 25165824 bytes") {
			t.Errorf("a job over the limit to %s is answered %d %s", path, a.status, a.body)
		}
	}
	if a := alice.calls("POST", "/api/arena/v1/jobs/x/repetitions", module, nil); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit is answered %d", a.status)
	}
	for name, header := range map[string]string{"one": "X: " + strings.Repeat("x", 64<<10), "many": strings.Repeat("X: xxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 4000) + "Y: y"} {
		answer := w.raw("GET / HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.base, "http://") + "\r\n" + header + "\r\n\r\n")
		if answer != "" && !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
			t.Errorf("%s: %.60q", name, answer)
		}
	}
}

// A party that takes longer than a body may is waited for all the same.
func TestASlowPartyIsWaitedFor(t *testing.T) {
	body := 50 * time.Millisecond
	w := newTown(t, func(c *Config) { c.limits = limits{body: body, party: time.Minute, answer: time.Minute} })
	alice := w.signsIn("alice")
	later := func(r *http.Request) {
		select {
		case <-r.Context().Done(): // the console has given up
		case <-time.After(4 * body):
		}
	}
	w.says(func(w http.ResponseWriter, r *http.Request) {
		later(r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"half":`)
		_ = http.NewResponseController(w).Flush()
		later(r)
		_, _ = io.WriteString(w, `"whole"}`)
	})
	for method, sent := range map[string]string{"GET": "", "DELETE": "", "PUT": `{}`, "POST": `{}`} {
		if a := alice.calls(method, "/api/hub/v1/things/x", sent, nil); a.status != http.StatusOK || a.body != `{"half":"whole"}` {
			t.Errorf("%s is answered %d %q", method, a.status, a.body)
		}
	}
}

// Who waits for what never comes is told so: an answer of nothing would say that all is
// well.
func TestWhatNeverComesIsToldSo(t *testing.T) {
	w := newTown(t, func(c *Config) {
		c.limits = limits{body: 50 * time.Millisecond, party: 200 * time.Millisecond, answer: time.Minute}
	})
	alice := w.signsIn("alice")
	w.says(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	for method, sent := range map[string]string{"GET": "", "DELETE": "", "POST": `{}`} {
		a := alice.calls(method, "/api/hub/v1/things/x", sent, nil)
		if p := a.problem(t); a.status != http.StatusBadGateway || p.Code != carnet.Unavailable || p.From != "console" {
			t.Errorf("%s to a party that doesn't answer is answered %d %q", method, a.status, a.body)
		}
	}
	never, end := io.Pipe()
	defer end.Close()
	a := alice.calls("POST", "/api/hub/v1/things", `{}`, func(r *http.Request) { r.Body, r.ContentLength = never, 10 })
	if p := a.problem(t); a.status != http.StatusRequestTimeout || p.Code != carnet.Malformed || p.From != "console" {
		t.Errorf("a body that doesn't come is answered %d %q", a.status, a.body)
	}
}

func TestMethods(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	for _, call := range [][2]string{{"PATCH", "/api/hub/v1/things"}, {"OPTIONS", "/api/hub/v1/things"}, {"HEAD", "/api/hub/v1/things"}, {"PROPFIND", "/api/hub/v1/things"}, {"POST", "/"}, {"PUT", "/session"}, {"GET", "/sessions"}} {
		if a := alice.calls(call[0], call[1], "", nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
			t.Errorf("%s %s is answered %d, allowing %q", call[0], call[1], a.status, a.header.Get("Allow"))
		}
	}
	if len(w.reached()) > 0 {
		t.Error("a party was asked")
	}
}

// TestLivePassesThroughAsLongAsTheSession holds a WebSocket open over the console.
func TestLivePassesThroughAsLongAsTheSession(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	offered := make(chan string, 1)
	w.says(func(rw http.ResponseWriter, r *http.Request) {
		offered <- r.Header.Get("Sec-WebSocket-Protocol") + r.Header.Get("Origin")
		conn, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{"carnet.senml+json"}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := conn.CloseRead(r.Context())
		for _, text := range []string{"one", "two"} {
			if conn.Write(ctx, websocket.MessageText, []byte(text)) != nil {
				return
			}
		}
		<-ctx.Done()
	})
	conn, _, err := websocket.Dial(t.Context(), w.base+"/api/arena/v1/avatars/x/live?after=", &websocket.DialOptions{
		HTTPHeader:   http.Header{"Cookie": {alice.cookie.Name + "=" + alice.cookie.Value}, "Origin": {w.base}},
		Subprotocols: []string{"carnet.senml+json", keyProtocol + alice.key, "bearer.stolen"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if got := <-offered; got != "carnet.senml+json" {
		t.Errorf("the party is offered %q: the key, another token or the origin went on", got)
	}
	if conn.Subprotocol() != "carnet.senml+json" {
		t.Errorf("the page speaks %q", conn.Subprotocol())
	}
	for _, want := range []string{"one", "two"} {
		if _, text, err := conn.Read(t.Context()); err != nil || string(text) != want {
			t.Fatalf("read %q, %v, want %q", text, err, want)
		}
	}
	if a := w.signsIn("alice").calls("DELETE", "/sessions", "", nil); a.status != http.StatusNoContent {
		t.Fatal(a)
	}
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("live goes on after signing out everywhere")
	}
}

func TestEventsPassThrough(t *testing.T) {
	w := newTown(t, nil)
	alice := w.signsIn("alice")
	var last string
	w.says(func(w http.ResponseWriter, r *http.Request) {
		last = r.Header.Get("Last-Event-ID")
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("id: 8\ndata: []\n\n"))
	})
	a := alice.calls("GET", "/api/arena/v1/avatars/x/live", "", func(r *http.Request) { r.Header.Set("Last-Event-ID", "7") })
	if a.body != "id: 8\ndata: []\n\n" || a.header.Get("Content-Type") != "text/event-stream" || last != "7" {
		t.Errorf("%d %q, after %q", a.status, a.body, last)
	}
}

func TestThePageAndItsHeaders(t *testing.T) {
	w := newTown(t, nil)
	v := visitor{town: w}
	a := v.calls("GET", "/", "", nil)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	policy := a.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "data:") {
		t.Errorf("the policy is %q", policy)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache",
	} {
		if a.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, a.header.Get(name), want)
		}
	}
	if regexp.MustCompile(`(?i)<style|style=|\son\w+=|javascript:|<script[^>]*>[^<]|https?://`).MatchString(a.body) {
		t.Errorf("the page has something inline or from elsewhere:\n%s", a.body)
	}
	assets := regexp.MustCompile(`"(/[^"]+)"`).FindAllStringSubmatch(a.body, -1)
	if len(assets) < 3 {
		t.Fatalf("the page names %v", assets)
	}
	for _, m := range assets {
		f := v.calls("GET", m[1], "", nil)
		if f.status != http.StatusOK || f.body == "" || strings.HasPrefix(m[1], "/assets/") != strings.Contains(f.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", m[1], f.status, f.header)
		}
	}
	if a := v.calls("GET", "/session", "", nil); a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Security-Policy") != dataPolicy {
		t.Errorf("data has the headers %v", a.header)
	}
}

func TestInTheClearOnlyOnLoopback(t *testing.T) {
	w := newTown(t, nil)
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.org:0", "127.0.0.1"} {
		c, err := New(Config{Access: &access.File{Version: access.Version}, Accounts: w.console.accounts, Listen: address})
		if err == nil {
			c.listener.Close()
			t.Errorf("%s is listened on in the clear", address)
		}
		if address != "127.0.0.1" && (carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "certificate")) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestOverTLSTheCookieIsTheHostsOwn(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	w := newTown(t, func(c *Config) { c.Certificate = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key} })
	alice := w.signsIn("alice")
	if alice.cookie.Name != "__Host-carnet" || !alice.cookie.Secure || !alice.cookie.HttpOnly {
		t.Errorf("the cookie is %v", alice.cookie)
	}
	if a := alice.calls("GET", "/session", "", nil); a.status != http.StatusOK || a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// One address takes no more than a quarter of a console's places, but where all who come
// have one.
func TestPlacesOfOneAddress(t *testing.T) {
	for host, want := range map[string]int{"127.0.0.1": connections, "localhost": connections, "": connections / 4, "192.0.2.1": connections / 4} {
		p, inside := places(host), 0
		for range connections + 1 {
			if place, ok := p.Enter(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, nil); ok {
				place.Keep()
				inside++
			}
		}
		if inside != want {
			t.Errorf("on %q %d of one address are inside, want %d", host, inside, want)
		}
	}
}

// Those who say nothing, even if they come from the same address, keep nobody from
// signing in, and don't cut off who watches.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	w := newTown(t, nil)
	// Not kept, as it would be cut off, too.
	alice := w.signsInWith("alice", func(r *http.Request) { r.Close = true })
	w.says(func(rw http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		if _, text, err := conn.Read(r.Context()); err == nil {
			_ = conn.Write(r.Context(), websocket.MessageText, text)
		}
	})
	conn, _, err := websocket.Dial(t.Context(), w.base+"/api/arena/v1/avatars/x/live?after=", &websocket.DialOptions{
		HTTPHeader:   http.Header{"Cookie": {alice.cookie.Name + "=" + alice.cookie.Value}, "Origin": {w.base}},
		Subprotocols: []string{keyProtocol + alice.key},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for range connections + 8 {
		silent, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	w.signsIn("bob")
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("still there")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.Read(t.Context()); err != nil || string(text) != "still there" {
		t.Errorf("who watches reads %q, %v", text, err)
	}
}
