package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/policy"
)

// bounded is a depot's interface with small limits of bodies.
func bounded(t *testing.T, few limits) (*server, http.Handler) {
	t.Helper()
	s := &server{party: "vault", depot: vault{}, limits: few, guard: watched(t), log: slog.New(slog.DiscardHandler),
		tokens: func(token string) (Principal, bool) { return policy.Bearer(token, policy.Administrator), token != "" }}
	h, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	return s, h
}

func post(h http.Handler, path, token string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, body)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", typeJSON)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Bodies that come slowly are held, and only so many bytes of them: of one caller, and of
// all. What is read has its room again.
func TestOnlySoMuchOfBodies(t *testing.T) {
	few := usual
	few.bodies, few.bodiesOfOne = 300, 200
	s, h := bounded(t, few)
	var coming sync.WaitGroup
	slowly := func(token string, n int) (end func()) {
		t.Helper()
		r, w := io.Pipe()
		coming.Go(func() {
			if a := post(h, "/v1/check", token, r); a.Code == http.StatusTooManyRequests {
				t.Errorf("%s is answered with %d %s", token, a.Code, a.Body)
			}
		})
		w.Write(bytes.Repeat([]byte(" "), n))
		w.Write([]byte(" ")) // so the first has been counted
		return func() { w.Close() }
	}
	refused := func(token string, n int) {
		t.Helper()
		a := post(h, "/v1/check", token, strings.NewReader(strings.Repeat(" ", n)))
		var p Problem
		if err := json.Unmarshal(a.Body.Bytes(), &p); err != nil || a.Code != http.StatusTooManyRequests || p.Code != carnet.Unavailable || p.Fix == "" {
			t.Errorf("%s is answered with %d %s", token, a.Code, a.Body)
		}
	}
	end := slowly("alice", 149)
	refused("alice", 60)
	endToo := slowly("bob", 99)
	refused("carol", 60)
	end()
	endToo()
	coming.Wait()
	if a := post(h, "/v1/check", "carol", strings.NewReader(strings.Repeat(" ", 190))); a.Code != http.StatusBadRequest {
		t.Errorf("with room again it is %d %s", a.Code, a.Body)
	}
	if s.bodies.held != 0 || len(s.bodies.by) != 0 {
		t.Errorf("after all, %d bytes are held, of %v", s.bodies.held, s.bodies.by)
	}
}

// unread fails whoever reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

// What nobody needs a token for has no body that is waited for and held.
func TestNobodysBodyIsLeftUnread(t *testing.T) {
	_, h := bounded(t, usual)
	for _, path := range open {
		r := httptest.NewRequest(http.MethodGet, path, unread{t})
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusOK && w.Code != http.StatusNotFound {
			t.Errorf("%s is answered with %d", path, w.Code)
		}
	}
}

// A body that is announced and never sent holds a connection for as long as a body may
// take, also where nobody here reads it: net/http does, before it answers.
func TestABodyThatNeverComes(t *testing.T) {
	few := usual
	few.body = 100 * time.Millisecond
	_, h := bounded(t, few)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for _, line := range []string{"GET /healthz", "GET /v1/status", "POST /v1/nothing"} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: vault\r\nContent-Length: 100000\r\n\r\n", line)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		var timeout net.Error
		if _, err := io.Copy(io.Discard, c); errors.As(err, &timeout) && timeout.Timeout() { // it isn't closed
			t.Errorf("%s: %v", line, err)
		}
		c.Close()
	}
}

// A program's body is smaller than a passport's; what only begins like a path with large
// bodies has none.
func TestLargestBodies(t *testing.T) {
	for pattern, want := range map[string]int64{
		"POST /v1/jobs": maxProgramBody, "POST /v1/jobs/plans": maxProgramBody, "POST /v1/modules": maxProgramBody,
		"POST /v1/jobs/{id}/repetitions": 0, "POST /v1/modules/{id}/revocations": 0, "POST /v1/check": 0,
		"POST /v1/recoveries": maxLargeBody, "PUT /v1/recoveries/{id}/stretches": maxLargeBody,
	} {
		if got := largest(pattern); got != want {
			t.Errorf("%s takes %d bytes, want %d", pattern, got, want)
		}
	}
}

// A body of very many small pieces takes many times its bytes of memory.
func TestABodyOfTooManyPieces(t *testing.T) {
	body := "[" + strings.Repeat("0,", maxTokens) + "0]"
	if err := eachOnce([]byte(body)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("%d values are %v", maxTokens+1, err)
	}
	if err := eachOnce([]byte("[" + strings.Repeat("0,", maxTokens/2) + "0]")); err != nil {
		t.Errorf("half as many are %v", err)
	}
}

// What can't be read of a query isn't passed over, as net/url does.
func TestQueriesThatCannotBeRead(t *testing.T) {
	_, h := bounded(t, usual)
	for _, query := range []string{"a=%zz", "a=1;b=2", strings.Repeat("a=b&", 20_000)} {
		r := httptest.NewRequest(http.MethodGet, "/v1/status", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer alice")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%.20s is answered with %d %s", query, w.Code, w.Body)
		}
	}
}
