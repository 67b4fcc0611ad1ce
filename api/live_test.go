package api_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/identity"
	"carnet/senml"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"
)

// follow reads n measurements of an avatar and returns them with the last cursor.
func follow(t testing.TB, c *client.Client, id carnet.AvatarID, after *string, n int) (ms []carnet.Measurement, cursor string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for e, err := range c.Watch(ctx, id, after) {
		if err != nil {
			t.Fatalf("after %d of %d measurements: %v", len(ms), n, err)
		}
		cursor = e.Cursor
		if ms = append(ms, e.Measurements...); len(ms) >= n {
			break
		}
	}
	return ms, cursor
}

func rates(ms []carnet.Measurement) (vs []int) {
	for _, m := range ms {
		vs = append(vs, int(m.Value.Num))
	}
	return vs
}

func upTo(from, to int) (vs []int) {
	for i := from; i < to; i++ {
		vs = append(vs, i)
	}
	return vs
}

// Whoever goes on after the cursor of what it had, wherever it stopped, gets
// each measurement once, in order, while more keep coming.
func TestReplayThenLiveLosesAndDoublesNothing(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	const n = 300
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for i := range n {
			if o := d.send(heart(i, float64(i))); o.Refused != nil || o.Retry != nil {
				t.Errorf("measurement %d: %+v", i, o)
				return
			}
		}
	}()
	reader := s.arena("reader-token")
	var all []carnet.Measurement
	cursor := ""
	for len(all) < n {
		part, next := follow(t, reader, m.Avatar, &cursor, min(37, n-len(all)))
		all, cursor = append(all, part...), next
	}
	<-sending
	if !slices.Equal(rates(all), upTo(0, n)) {
		t.Errorf("got %v", rates(all))
	}
	if again, _ := follow(t, reader, m.Avatar, new(string), n); !slices.Equal(again, all) {
		t.Errorf("from the beginning: got %v", rates(again))
	}
}

func TestFromNowOnLeavesOutWhatWas(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 0), heart(1, 1))
	s.arrived(m.Avatar, 2)
	got := make(chan []carnet.Measurement, 1)
	go func() {
		ms, _ := follow(t, s.arena("reader-token"), m.Avatar, nil, 2)
		got <- ms
	}()
	s.eventually("the subscription is open", func() bool {
		st, err := s.arena("operator-token").Status(t.Context())
		return err == nil && st.World.Live == 1 && st.World.Events == 0 // where it begins is none
	})
	d.mustSend(heart(2, 2))
	d.mustSend(heart(3, 3))
	if ms := <-got; !slices.Equal(rates(ms), []int{2, 3}) {
		t.Errorf("got %v", rates(ms))
	}
	follow(t, s.arena("reader-token"), m.Avatar, new(string), 4)
	s.eventually("what was sent is counted, a replay, too", func() bool {
		st, err := s.arena("operator-token").Status(t.Context())
		return err == nil && st.World.Events >= 2 && st.World.Events <= 6
	})
}

// Who watches from now on hears first where that is, and goes on from there after
// a break that came before any event: of an avatar that has told something, and of
// one that hasn't.
func TestABreakBeforeTheFirstEventLosesNothing(t *testing.T) {
	s := newServed(t)
	for i, thing := range []carnet.ThingID{"watch-7", "watch-8"} {
		d, m := s.watch(thing, `{"properties":{"heart_rate":{}}}`)
		for n := range i {
			d.mustSend(heart(n, float64(n)))
			s.arrived(m.Avatar, uint64(n+1))
		}
		c := s.arena("reader-token")
		begun, cursor := follow(t, c, m.Avatar, nil, 0)
		event := firstEvent(t, s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/live")
		if len(begun) > 0 || cursor == "" || event != "id: "+cursor {
			t.Errorf("%s begins with %v, cursor %q; as events with %q", thing, begun, cursor, event)
		}
		d.mustSend(heart(5, 5))
		s.arrived(m.Avatar, uint64(i+1))
		d.mustSend(heart(6, 6))
		if ms, _ := follow(t, c, m.Avatar, &cursor, 2); !slices.Equal(rates(ms), []int{5, 6}) {
			t.Errorf("%s goes on with %v", thing, rates(ms))
		}
	}
}

// firstEvent is the first server-sent event from now on, with its lines.
func firstEvent(t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer reader-token")
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	var event []string
	for lines := bufio.NewScanner(a.Body); lines.Scan(); {
		switch line := lines.Text(); {
		case line == "" && len(event) > 0:
			return strings.Join(event, "\n")
		case line != "" && !strings.HasPrefix(line, "retry:"):
			event = append(event, line)
		}
	}
	t.Fatal("the events ended")
	return ""
}

func TestTheSameInCBOR(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 60), heart(1, 61))
	s.arrived(m.Avatar, 2)
	want, cursor := follow(t, s.arena("reader-token"), m.Avatar, new(string), 2)
	// As a browser: the token among the subprotocols, from the party's own origin.
	conn, answer, err := websocket.Dial(t.Context(), s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/live?after=", &websocket.DialOptions{
		Subprotocols: []string{"bearer.reader-token", "carnet.senml+cbor"}, HTTPHeader: http.Header{"Origin": {s.arenaURL}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if p := answer.Header.Get("Sec-WebSocket-Protocol"); p != "carnet.senml+cbor" {
		t.Errorf("the subprotocol is %q", p)
	}
	kind, b, err := conn.Read(t.Context())
	if err != nil || kind != websocket.MessageBinary {
		t.Fatalf("a frame of kind %v, %v", kind, err)
	}
	var frame struct {
		Cursor string          `cbor:"cursor"`
		Pack   cbor.RawMessage `cbor:"pack"`
	}
	if err := cbor.Unmarshal(b, &frame); err != nil {
		t.Fatal(err)
	}
	ms, err := senml.NewDecoder(senml.Limits{}).Decode(nil, senml.CBOR, frame.Pack, 0)
	if err != nil || !slices.Equal(ms, want) || frame.Cursor != cursor {
		t.Errorf("CBOR has %+v after %q, %v; JSON %+v after %q", ms, frame.Cursor, err, want, cursor)
	}
}

func TestServerSentEvents(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 60))
	d.mustSend(heart(1, 61))
	s.arrived(m.Avatar, 2)
	read := func(header string, n int) (ms []carnet.Measurement, id string) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		address := s.arenaURL + "/v1/avatars/" + m.Avatar.String() + "/live?after="
		r, err := http.NewRequestWithContext(ctx, "GET", address, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Authorization", "Bearer reader-token")
		if header != "" {
			r.Header.Set("Last-Event-ID", header)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if a.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("the answer is %d %s", a.StatusCode, a.Header.Get("Content-Type"))
		}
		lines := bufio.NewScanner(a.Body)
		for len(ms) < n && lines.Scan() {
			if after, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = after
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if ms, err = senml.NewDecoder(senml.Limits{}).Decode(ms, senml.JSON, []byte(data), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		return ms, id
	}
	all, last := read("", 2)
	if !slices.Equal(rates(all), []int{60, 61}) {
		t.Fatalf("got %v", rates(all))
	}
	d.mustSend(heart(2, 62))
	if rest, _ := read(last, 1); !slices.Equal(rates(rest), []int{62}) {
		t.Errorf("after the last id: got %v", rates(rest))
	}
}

// Server-sent events end with the party's reason.
func TestEventsSayWhyTheyEnd(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	p, _ := s.application()
	g := s.give(terms(s, p, m.Avatar, `{"properties":{"heart_rate":{}}}`, identity.ActionSubscribe))
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer "+p.Token)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if _, err := s.arena("operator-token").Revoke(t.Context(), g.ID); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(a.Body); err != nil || !strings.HasSuffix(string(all), "event: end\ndata: the grant is over\n\n") {
		t.Errorf("the stream ends with %q, %v", all, err)
	}
}

func TestLiveIsRefused(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	path := "/v1/avatars/" + m.Avatar.String() + "/live"
	upgrade := []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	for _, c := range []struct {
		what, path, token string
		header            []string
		status            int
	}{
		{"a foreign origin", path, "reader-token", append([]string{"Origin: https://evil.example"}, upgrade...), 403},
		{"another version of WebSocket", path, "reader-token", []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8"}, 400},
		{"no token", path, "", upgrade, 401},
		{"a wrong token among the subprotocols", path, "", append([]string{"Sec-WebSocket-Protocol: bearer.guess"}, upgrade...), 401},
		{"a token among the subprotocols of a plain call", path, "", []string{"Sec-WebSocket-Protocol: bearer.reader-token"}, 401},
		{"a token in the URL", path + "?token=reader-token", "", upgrade, 401},
		{"a user, who has no avatar here", path, "alice-token", upgrade, 404},
		{"an unknown avatar", "/v1/avatars/" + carnet.NewAvatarID().String() + "/live", "reader-token", upgrade, 404},
		{"a cursor that is none", path + "?after=%21", "reader-token", upgrade, 400},
		{"a cursor beyond what there is", path + "?after=AQ", "reader-token", upgrade, 400},
		{"a cursor that is cut", path + "?after=gA", "reader-token", upgrade, 400},
		{"an unknown parameter", path + "?before=1", "reader-token", upgrade, 422},
		{"neither WebSocket nor events", path, "reader-token", []string{"Accept: application/json"}, 406},
	} {
		a := ask(t, "GET", s.arenaURL+c.path, c.token, "", c.header...)
		if a.status != c.status {
			t.Errorf("%s is answered with %d %s", c.what, a.status, a.body)
		}
		if p := problemIn(t, a); a.status == 400 && p.Fix == "" {
			t.Errorf("%s: %+v doesn't say what to do", c.what, p)
		}
	}
	if a := ask(t, "HEAD", s.arenaURL+path, "reader-token", ""); a.status != 405 {
		t.Errorf("HEAD is answered with %d", a.status)
	}
	unknown := carnet.NewAvatarID()
	for _, err := range s.arena("reader-token").Watch(t.Context(), unknown, nil) {
		if carnet.CodeOf(err) != carnet.NotFound || !strings.Contains(err.Error(), fmt.Sprint(unknown)) {
			t.Errorf("watching an unknown avatar ends with %v", err)
		}
	}
}

// A subscriber says nothing: whatever it says, in whatever form, ends its subscription,
// and nothing of what it says is heard. Who only answers pings goes on.
func TestASubscriberWhoSpeaksIsEnded(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 60))
	s.arrived(m.Avatar, 1)
	sent := 0
	for name, say := range map[string]struct {
		kind websocket.MessageType
		what []byte
	}{
		"a text":            {websocket.MessageText, []byte(`{"subscribe":"more"}`)},
		"bytes":             {websocket.MessageBinary, []byte{0xa0}},
		"a text of nothing": {websocket.MessageText, nil},
		"a large text":      {websocket.MessageText, bytes.Repeat([]byte("x"), 1<<16)},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			dial := func() *websocket.Conn {
				t.Helper()
				conn, _, err := websocket.Dial(ctx, s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/live?after=", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer reader-token"}}})
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := conn.Read(ctx); err != nil {
					t.Fatal(err)
				}
				return conn
			}
			quiet, speaks := dial(), dial()
			defer quiet.CloseNow()
			defer speaks.CloseNow()
			if err := speaks.Write(ctx, say.kind, say.what); err != nil {
				t.Fatal(err)
			}
			for {
				if _, _, err := speaks.Read(ctx); err != nil {
					if ctx.Err() != nil {
						t.Fatal("it goes on")
					}
					if why, _ := errors.AsType[websocket.CloseError](err); !strings.Contains(why.Reason, "a subscriber says nothing") {
						t.Errorf("it ends with %v", err)
					}
					break
				}
			}
			s.eventually("one subscription is left", func() bool {
				st, err := s.arena("operator-token").Status(t.Context())
				return err == nil && st.World.Live == 1
			})
			sent++
			d.mustSend(heart(sent, 61))
			if _, _, err := quiet.Read(ctx); err != nil {
				t.Errorf("who said nothing: %v", err)
			}
			quiet.CloseNow()
			s.eventually("none is left", func() bool {
				st, err := s.arena("operator-token").Status(t.Context())
				return err == nil && st.World.Live == 0
			})
		})
	}
}
