package node

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/keys"
	"carnet/peering"
)

// A party that invites isn't known yet: it may answer nonsense, too much, or never,
// and may not be who the invitation says.
func TestACourierStandsWhateverTheInviterAnswers(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	refusal, err := json.Marshal(api.Problem{Title: "Conflict", Status: 409, Detail: "it was accepted before", Code: carnet.Conflict, Fix: "ask"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		code   carnet.Code
		says   string
	}{
		"confirmed":            {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"confirmation":"signed"}`) }, "", "signed"},
		"not yet":              {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"confirmation":""}`) }, "", ""},
		"refused":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(409); w.Write(refusal) }, carnet.Conflict, "it was accepted before; ask"},
		"nonsense":             {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, carnet.Unavailable, "can't be read"},
		"a refusal that isn't": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, "<html>") }, carnet.Unavailable, "status 500"},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"confirmation":"`+strings.Repeat("x", courierMost))
		}, carnet.Unavailable, "more than"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, "{")
		}, carnet.Unavailable, "cut off"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.org/", http.StatusTemporaryRedirect)
		}, carnet.Unavailable, "status 307"},
		"bit by bit, without an end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		}, carnet.Unavailable, "cut off"},
		"never": {func(http.ResponseWriter, *http.Request) { <-hang }, carnet.Unavailable, "can't be posted"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := make(chan *http.Request, 1)
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- r
				if name == "never" {
					cancel() // whoever waits has waited long enough
				}
				c.answer(w, r)
			}))
			t.Cleanup(server.CloseClientConnections)
			to := peering.ReplyTo{URL: server.URL, Pin: keys.Pin(server.Certificate())}
			var by courier
			if name == "bit by bit, without an end" {
				by.limit = 200 * time.Millisecond
			}
			message, err := by.Carry(ctx, to, peering.InvitationID{1}, "secret", "accepted")
			if carnet.CodeOf(err) != c.code || c.code != "" && !strings.Contains(err.Error(), c.says) || c.code == "" && message != c.says {
				t.Errorf("%q, %v; want %q %q", message, err, c.code, c.says)
			}
			select {
			case got := <-asked:
				if got.URL.Path != "/v1/peerings/01000000000000000000000000000000" || got.Header.Get("Authorization") != "Bearer secret" {
					t.Errorf("it asked %+v", got)
				}
			default:
				t.Error("it asked nothing")
			}
			to.Pin[0]++
			_, err = courier{}.Carry(t.Context(), to, peering.InvitationID{1}, "secret", "accepted")
			if carnet.CodeOf(err) != carnet.Unavailable || len(asked) > 0 {
				t.Errorf("somebody else was told %d times, %v", len(asked), err)
			}
		})
	}
}
