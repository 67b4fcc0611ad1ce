package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/crossing/r5"
)

// refusing is another world's answer with such a status and body.
func refusing(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", strings.Repeat("very ", 1000)), ContentLength: -1, Body: io.NopCloser(strings.NewReader(body)),
	}
}

// Of what another world says when it refuses little is taken, and nothing that would say
// something of this party.
func TestLittleIsTakenOfARefusal(t *testing.T) {
	said := func(code carnet.Code, detail, fix string) string {
		text, err := json.Marshal(api.ForeignRefusal{Code: code, Detail: detail, Fix: fix})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	long := strings.Repeat("é", 10_000)
	for name, c := range map[string]struct {
		status int
		body   string
		code   carnet.Code
		says   string
	}{
		"a conflict":                  {422, said(carnet.Conflict, "it has moved", "ask there"), carnet.Conflict, "citadel refuses: it has moved; ask there"},
		"not there":                   {422, said(carnet.NotFound, "no such stretch", ""), carnet.NotFound, "citadel refuses: no such stretch; ask the other world's operator"},
		"for the moment":              {503, said(carnet.Unavailable, "later", ""), carnet.Unavailable, "later"},
		"no space there":              {422, said(carnet.NoSpace, "full", ""), carnet.Unavailable, "full"},
		"who calls it isn't proved":   {422, said(carnet.Unauthenticated, "who are you?", ""), carnet.Forbidden, "who are you?"},
		"something here is false":     {422, said(carnet.Tampered, "tampered", ""), carnet.Forbidden, "tampered"},
		"a code that nobody knows":    {422, said("bewitched", "it is bewitched", ""), carnet.Forbidden, "bewitched"},
		"many words":                  {422, said(carnet.Conflict, "it has moved "+long, long), carnet.Conflict, "it has moved é"},
		"more than a refusal's bytes": {422, said(carnet.Conflict, strings.Repeat(long, 4), ""), carnet.Unavailable, "422 very"},
		"no refusal":                  {502, "<html>", carnet.Unavailable, "502 very"},
	} {
		_, err := answered("citadel", refusing(c.status, c.body), maxPiece)
		if err == nil || carnet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 2*maxTold+100 {
			t.Errorf("%s: %.200v (%d bytes), %s, want %s that has %q", name, err, len(fmt.Sprint(err)), carnet.CodeOf(err), c.code, c.says)
		}
	}
	if whole, err := answered("citadel", refusing(200, long), maxPiece); err != nil || string(whole) != long {
		t.Errorf("a long answer: %d bytes, %v", len(whole), err)
	}
	if _, err := answered("citadel", refusing(200, long), 100); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("an answer of more than was asked for: %v", err)
	}
}

// A peering that is suspended at this side, or that is none any more, stops no move for
// good: it may be in force again before the move's time is over.
func TestAMoveWaitsForItsPeering(t *testing.T) {
	a := newAsked(t, aListener, aCaller, func(c Config) string { return c.Listen.R5 }, ofR5)
	if _, err := a.node.peers.Suspend(t.Context(), aCaller.Party); err != nil {
		t.Fatal(err)
	}
	for _, v := range []move.Visit{
		{Source: aCaller.Party, As: carnet.AvatarID{1}, About: carnet.AvatarID{2}},
		{Source: aCaller.Party, As: carnet.AvatarID{1}, About: carnet.AvatarID{2}, Decision: "decided"},
		{Source: "nobody", As: carnet.AvatarID{1}, About: carnet.AvatarID{2}},
	} {
		if _, err := (far{a.node}).Manifest(t.Context(), v); carnet.CodeOf(err) != carnet.Unavailable || err == nil || !strings.Contains(err.Error(), "peer") {
			t.Errorf("%s: %v", v.Source, err)
		}
		_, err := a.node.callAbroad(t.Context(), v.Source, v.As, r5.Use{}, http.MethodGet, "/r5", nil, 1)
		if code := carnet.CodeOf(err); code != carnet.Forbidden && code != carnet.NotFound {
			t.Errorf("any other call: %v", err)
		}
	}
}
