package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"carnet"
	"carnet/senml"
)

// citadel is another world, of which this one reads.
type citadel struct {
	status      int
	contentType string
	body        []byte
	err         error
	asked       []string
}

func newCitadel(t testing.TB) *citadel {
	body, err := senml.Append(nil, senml.CBOR, []carnet.Measurement{heart(1, 140)})
	if err != nil {
		t.Fatal(err)
	}
	return &citadel{status: 200, contentType: senml.CBOR.ContentType(), body: body}
}

// State implements api.Abroad.
func (c *citadel) State(_ context.Context, as carnet.AvatarID, at carnet.PartyID, about carnet.AvatarID) (*http.Response, error) {
	c.asked = []string{as.String(), string(at), about.String()}
	if c.err != nil {
		return nil, c.err
	}
	return &http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {c.contentType}}, Body: io.NopCloser(bytes.NewReader(c.body))}, nil
}

// What another world answers is read, and believed in no other form.
func TestReadAbroad(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	there := carnet.NewAvatarID()
	read := func() ([]carnet.Measurement, error) {
		return s.arena("operator-token").Abroad(t.Context(), m.Avatar, "citadel", there)
	}
	ms, err := read()
	if err != nil || len(ms) != 1 || ms[0].Name != "heart_rate" || ms[0].Value.Num != 140 {
		t.Fatal(ms, err)
	}
	if want := m.Avatar.String() + " citadel " + there.String(); strings.Join(s.citadel.asked, " ") != want {
		t.Errorf("asked %q", s.citadel.asked)
	}
	good := *s.citadel
	for name, v := range map[string]struct {
		change func(*citadel)
		code   carnet.Code
	}{
		"no token there":  {func(c *citadel) { c.err = carnet.Errorf(carnet.Unauthenticated, "no token") }, carnet.Forbidden},
		"no mandate here": {func(c *citadel) { c.err = carnet.Errorf(carnet.NotFound, "no mandate") }, carnet.NotFound},
		"out of reach":    {func(c *citadel) { c.err = carnet.Errorf(carnet.Unavailable, "away") }, carnet.Unavailable},
		"refused":         {func(c *citadel) { c.status = 401 }, carnet.Forbidden},
		"busy":            {func(c *citadel) { c.status = 429 }, carnet.Unavailable},
		"a redirection":   {func(c *citadel) { c.status = 302 }, carnet.Unavailable},
		"another form":    {func(c *citadel) { c.contentType = "text/html" }, carnet.Unavailable},
		"nonsense":        {func(c *citadel) { c.body = []byte{0xff, 1, 2} }, carnet.Unavailable},
		"cut short":       {func(c *citadel) { c.body = c.body[:len(c.body)-2] }, carnet.Unavailable},
		"far too much":    {func(c *citadel) { c.body = make([]byte, 2<<20) }, carnet.Unavailable},
	} {
		v.change(s.citadel)
		if _, err := read(); carnet.CodeOf(err) != v.code {
			t.Errorf("%s: %v", name, err)
		}
		*s.citadel = good
	}
	if _, err := s.arena("operator-token").Abroad(t.Context(), there, "citadel", there); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("as an avatar that isn't here: %v", err)
	}
}
