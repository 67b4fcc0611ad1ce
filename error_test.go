package carnet_test

import (
	"testing"

	"carnet"
)

func TestUnreachedIsInPlainWords(t *testing.T) {
	for why, want := range map[string]string{
		`failed to WebSocket dial: failed to send handshake request: Get "https://localhost:1/v1": dial tcp 127.0.0.1:1: connect: connection refused`: "nothing listens there (connection refused)",
		"read from peer: remote error: tls: bad certificate": "it doesn't take this side's key",
		"dial tcp: lookup hub.example.org: no such host":     "there is no host of that name",
		"read tcp 127.0.0.1:1->127.0.0.1:2: i/o timeout":     "no answer came in time",
		"failed to get reader: failed to read frame: EOF":    "the connection was closed",
		"the world is full": "the world is full",
	} {
		if got := carnet.Unreached(why); got != want {
			t.Errorf("of %q it says %q, want %q", why, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"abé", 3, "ab"}, {"abé", 4, "abé"}, {"\xffabc", 4, "abc"}} {
		if got := carnet.Shorten(c.text, c.most); got != c.want {
			t.Errorf("Shorten(%q, %d) = %q, want %q", c.text, c.most, got, c.want)
		}
	}
}
