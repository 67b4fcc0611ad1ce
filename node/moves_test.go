package node

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
)

// Several stretches are read as they were written, and what breaks off isn't.
func TestPiecesAreReadAsTheyWereWritten(t *testing.T) {
	given := []move.Piece{
		{Body: []byte("stretch"), Proof: []byte("its proof")}, {}, {Body: []byte("another"), Proof: []byte("p")}, {Body: []byte("without proof")},
	}
	var written []byte
	for _, part := range piecesOut(given) {
		written = append(written, part...)
	}
	ends := []int{0} // where pieces end
	for _, p := range given {
		ends = append(ends, ends[len(ends)-1]+8+len(p.Body)+len(p.Proof))
	}
	for n := range len(written) + 1 {
		read, ok := piecesIn(written[:n:n])
		whole, is := slices.BinarySearch(ends, n)
		if ok != is {
			t.Errorf("%d bytes of %d are read: %t", n, len(written), ok)
		}
		if ok && !slices.EqualFunc(read, given[:whole], func(p, q move.Piece) bool { return bytes.Equal(p.Body, q.Body) && bytes.Equal(p.Proof, q.Proof) }) {
			t.Errorf("%d bytes are %q, want %q", n, read, given[:whole])
		}
	}
	if read, ok := piecesIn([]byte("\xff\xff\xff\xff\xff\xff\xff\xffstretch")); ok {
		t.Errorf("a piece of 4 GiB that isn't there is %v", read)
	}
}

// A target asks for one stretch or for a list, of which few bytes never become many; a
// source that an older program runs reads one stretch, and refuses a list.
func TestATargetAsksForOneStretchOrSeveral(t *testing.T) {
	one, err := json.Marshal(avatar.MovedStretch{Class: carnet.Keep, First: 3, Last: 5})
	if err != nil {
		t.Fatal(err)
	}
	list := func(n int) string { return "[" + strings.Join(slices.Repeat([]string{string(one)}, n), ",") + "]" }
	for name, c := range map[string]struct {
		body    string
		several int // -1: it is one
		refused bool
	}{
		"one":               {body: string(one), several: -1},
		"none":              {body: "[]"},
		"two":               {body: " " + list(2), several: 2},
		"as many as may be": {body: list(move.MaxSeveral), several: move.MaxSeveral},
		"more":              {body: list(move.MaxSeveral + 1), refused: true},
		"many of nothing":   {body: "[" + strings.Repeat("{},", 50_000) + "{}]", refused: true},
		"unknown members":   {body: `{"place": 3}`, refused: true},
		"unknown in a list": {body: `[{"place": 3}]`, refused: true},
		"a list of numbers": {body: `[3]`, refused: true},
		"a number":          {body: "3", refused: true},
		"one and more":      {body: string(one) + "{}", refused: true},
		"one and rubbish":   {body: string(one) + " x", refused: true},
	} {
		var asked stretchesAsked
		err := strictBody(httptest.NewRequest("POST", "/", strings.NewReader(c.body)), &asked, maxMoveBody)
		if c.refused != (err != nil) {
			t.Errorf("%s: got %v", name, err)
		}
		if c.refused {
			continue
		}
		if one := asked.several == nil; one != (c.several < 0) || !one && len(asked.several) != c.several || one && asked.one.Last != 5 {
			t.Errorf("%s: read as %+v", name, asked)
		}
		var older avatar.MovedStretch
		if err := strictBody(httptest.NewRequest("POST", "/", strings.NewReader(c.body)), &older, maxMoveBody); (err != nil) != (c.several >= 0) {
			t.Errorf("%s: an older source got %v", name, err)
		}
	}
}
