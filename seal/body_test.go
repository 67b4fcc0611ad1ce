package seal

import (
	"bytes"
	"testing"

	"carnet"
)

func TestBodyRoundTrip(t *testing.T) {
	for n := range 200 {
		want := Body{
			Label:     carnet.Label{Sensitivity: carnet.Location, Purposes: carnet.NewSet("b", "a"), Residency: carnet.NewSet("eu")},
			Retention: carnet.Keep, Hour: uint32(n), First: 1<<64 - 1, Count: 1<<32 - 1, Content: bytes.Repeat([]byte{1}, n),
		}
		data, err := AppendBody([]byte("x"), want)
		if err != nil {
			t.Fatal(err)
		}
		data = data[1:]
		got, err := ParseBody(data)
		if err != nil || len(data)%64 != 0 || !bytes.Equal(got.Content, want.Content) {
			t.Fatalf("content of %d bytes: %d bytes, %v", n, len(data), err)
		}
		got.Content, want.Content = nil, nil
		if got.Label != want.Label || got.Retention != want.Retention || got.First != want.First || got.Count != want.Count || got.Hour != want.Hour {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

func TestBodyNotInItsOneFormIsRefused(t *testing.T) {
	good := body(t, 20)
	end := len(bytes.TrimRight(good, "\x00"))
	if end == len(good) {
		t.Fatal("want a body with padding")
	}
	for name, data := range map[string][]byte{
		"padding not zero":        splice(good, len(good)-1, 1, 1),
		"padding not zero, first": splice(good, end, 1, 1),
		"padding missing":         good[:end],
		"padding of 64 more":      append(bytes.Clone(good), make([]byte, 64)...),
		"padding one short":       good[:len(good)-1],
		"version 2":               splice(good, 1, 1, 2),
		"array of 6":              splice(good, 0, 1, 0x86),
		"empty":                   nil,
		"zeros":                   make([]byte, 64),
	} {
		if _, err := ParseBody(data); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, purposes := range []carnet.Set{"b,a", "a,a", ",a", "a,", ",", "a,,b"} {
		b := Body{Retention: carnet.Day, Label: carnet.Label{Purposes: purposes}}
		if _, err := AppendBody(nil, b); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("written with the purposes %q: %v", purposes, err)
		}
		b.Label.Purposes = carnet.Set(bytes.Repeat([]byte("z"), len(purposes)))
		data, err := AppendBody(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.Replace(data, []byte(b.Label.Purposes), []byte(purposes), 1)
		if _, err := ParseBody(data); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("read with the purposes %q: %v", purposes, err)
		}
	}
	for _, bad := range []Body{{}, {Retention: carnet.Keep + 1}, {Retention: carnet.Day, Label: carnet.Label{Sensitivity: 8}}} {
		if _, err := AppendBody(nil, bad); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
