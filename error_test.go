package carnet_test

import (
	"testing"

	"carnet"
)

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
