package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/entity"
)

// party answers calls one after the other, the last answer again and again.
type party struct {
	answers []answer
	bodies  []string
	at      []time.Duration // since the first
	began   time.Time
}

type answer struct {
	status int
	after  string // Retry-After
	body   string
}

func (p *party) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	p.bodies, p.at = append(p.bodies, string(body)), append(p.at, time.Since(p.began))
	a := p.answers[min(len(p.at), len(p.answers))-1]
	h := make(http.Header)
	if a.after != "" {
		h.Set("Retry-After", a.after)
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

const (
	tooMuch = `{"code":"unavailable","status":429,"detail":"too much at once"}`
	taken   = `{"id":"00112233445566778899aabbccddeeff","name":"coach"}`
)

// What a party refuses since the caller asks too much at once is asked again when it
// says, with the same body, a few times; anything else isn't.
func TestTooMuchAtOnceIsAskedAgain(t *testing.T) {
	for _, c := range []struct {
		what    string
		answers []answer
		calls   int
		last    time.Duration // when the last was made
		code    carnet.Code   // "": it is taken
	}{
		{"taken at once", []answer{{201, "", taken}}, 1, 0, ""},
		{"taken the third time", []answer{{429, "1", tooMuch}, {429, "3", tooMuch}, {201, "", taken}}, 3, 4 * time.Second, ""},
		{"never taken", []answer{{429, "2", tooMuch}}, 4, 6 * time.Second, carnet.Unavailable},
		{"at most ten seconds", []answer{{429, "10", tooMuch}, {429, "11", tooMuch}}, 2, 10 * time.Second, carnet.Unavailable},
		{"it doesn't say when", []answer{{429, "", tooMuch}}, 1, 0, carnet.Unavailable},
		{"it says a date", []answer{{429, "Mon, 30 Nov 2026 05:00:00 GMT", tooMuch}}, 1, 0, carnet.Unavailable},
		{"the party can't, for now", []answer{{503, "1", tooMuch}}, 1, 0, carnet.Unavailable},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &party{answers: c.answers}
				_, err := (&client.Client{Base: "https://arena.example", HTTP: &http.Client{Transport: p}}).AddPrincipal(t.Context(), entity.NewPrincipal{Name: "coach"})
				if carnet.CodeOf(err) != c.code || c.code == "" && err != nil {
					t.Errorf("it ends with %v", err)
				}
				if n := len(p.at); n != c.calls || p.at[n-1] != c.last {
					t.Errorf("called at %v, want %d calls, the last at %s", p.at, c.calls, c.last)
				}
				for _, body := range p.bodies {
					if body != p.bodies[0] || !strings.Contains(body, "coach") {
						t.Errorf("the bodies are %q", p.bodies)
					}
				}
			})
		})
	}
}

// Who gives up isn't kept waiting.
func TestWhoGivesUpDoesNotAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &party{answers: []answer{{429, "10", tooMuch}}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := (&client.Client{Base: "https://arena.example", HTTP: &http.Client{Transport: p}}).Status(ctx)
		if err == nil || len(p.at) != 1 || time.Since(began) != 3*time.Second {
			t.Errorf("%d calls, and after %s %v", len(p.at), time.Since(began), err)
		}
	})
}
