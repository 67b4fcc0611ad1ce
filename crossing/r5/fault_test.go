package r5

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"carnet"
)

func (s *stage) dial(t *testing.T) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{s.citadel.cert}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A peer that sends nonsense or too much gets an answer of HTTP or none, and the
// next one is served.
func TestNonsenseOnTheWire(t *testing.T) {
	s := newStage(t)
	for name, v := range map[string]struct {
		send   string
		status int // 0: the connection ends
	}{
		"nonsense":              {"\x00\x01\x02 hello\r\n\r\n", 400},
		"huge headers":          {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431},
		"a request in two ways": {"POST /r5/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 401},
		"two lengths":           {"POST /r5/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400},
		"half a chunk":          {"POST /r5/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 401},
		"a tunnel":              {"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 401},
		"everything":            {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200}, // net/http's own answer
		"an absolute URL":       {"GET https://elsewhere/r5/token HTTP/1.1\r\nHost: x\r\n\r\n", 401},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.dial(t)
			if _, err := io.WriteString(c, v.send); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != v.status || v.status == 401 && string(body) != Outside {
				t.Errorf("the answer is %d %s", answer.StatusCode, body)
			}
		})
	}
	s.succeeds(t, "after")
}

// A body without end is read as far as parameters go, and no further.
func TestEndlessBody(t *testing.T) {
	s := newStage(t)
	c := s.dial(t)
	if _, err := io.WriteString(c, "POST /r5/token HTTP/1.1\r\nHost: x\r\nContent-Type: "+FormType+"\r\nContent-Length: 1000000000\r\n\r\n"+strings.Repeat("x", maxForm+1)); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || answer.StatusCode != 401 || !answer.Close {
		t.Fatalf("%+v %v", answer, err)
	}
	if d := s.world.last(); d.Rule != FormRule || !strings.Contains(d.Reason, "more than 16384") {
		t.Errorf("recorded as %+v", d)
	}
	s.succeeds(t, "after")
}

// Who takes too long to say what is wanted is cut off: the limits are set.
func TestSlowCallersAreLimited(t *testing.T) {
	s := newStage(t)
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := s.attempt().request()
	r.TLS = &tls.ConnectionState{PeerCertificates: certificates(s)}
	r.Body = slow{r.Body}
	s.server.ServeHTTP(w, r)
	if w.read.IsZero() || time.Until(w.read) > bodyTime {
		t.Errorf("a body may take until %v", w.read)
	}
	if w.Code != 401 || s.world.last().Rule != FormRule || !strings.Contains(s.world.last().Reason, "didn't arrive") {
		t.Errorf("%d %+v", w.Code, s.world.last())
	}
}

type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = t; return nil }

// slow is a body whose time is over.
type slow struct{ io.ReadCloser }

func (slow) Read([]byte) (int, error) { return 0, carnet.Errorf(carnet.Unavailable, "i/o timeout") }

// Whatever is sent to the endpoint, the answer is a token for what would have got
// one anyway, or the one answer.
func FuzzEndpoint(f *testing.F) {
	s := newStage(f)
	a := s.attempt()
	good := a.request()
	body, err := io.ReadAll(good.Body)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/r5/token", FormType, good.Header.Get("Dpop"), "", body)
	f.Add("POST", "/r5/token?x", FormType, "a.b.c", "DPoP x", []byte("grant_type=x&scope=read"))
	f.Add("GET", "/r5/avatars/"+s.about.String(), "", good.Header.Get("Dpop"), "DPoP a.b.c", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path, contentType, proof, authorization string, body []byte) {
		r, err := http.NewRequest(method, s.base+path, strings.NewReader(string(body)))
		if err != nil {
			return
		}
		r.TLS = &tls.ConnectionState{PeerCertificates: certificates(s)}
		r.Header["Content-Type"], r.Header["Dpop"] = []string{contentType}, []string{proof}
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		if w.Code == 200 {
			if d := s.world.last(); !d.Permitted || !d.Exchange {
				t.Fatalf("answered and recorded as %+v", d)
			}
			return
		}
		got := said{w.Code, w.Header(), w.Body.String()}
		if !reflect.DeepEqual(got, oneAnswer) {
			t.Fatalf("the answer is %+v", got)
		}
	})
}
