package mqtt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"carnet"
)

// TestAnswersAreLegal checks the table against the reason codes that the
// specification admits in each packet (§3.2.2.2, §3.4.2.1, §3.9.3, §3.14.2.1).
func TestAnswersAreLegal(t *testing.T) {
	codes := []carnet.Code{"", carnet.Malformed, carnet.UnknownProperty, carnet.WrongType, carnet.WrongUnit, carnet.OutOfRange,
		carnet.Incomplete, carnet.TooOld, carnet.TooNew, carnet.TooLarge, carnet.Unauthenticated, carnet.Forbidden, carnet.NotFound,
		carnet.Conflict, carnet.Unavailable, carnet.NoSpace, carnet.Fenced, carnet.Forked, carnet.Tampered}
	connack := []byte{0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F}
	puback := []byte{0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
	suback := []byte{0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}
	disconnect := []byte{0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2}
	for _, code := range codes {
		a, known := answers[code]
		if !known {
			t.Errorf("%q has no answer", code)
		}
		for place, ok := range map[string]bool{
			"CONNACK":          slices.Contains(connack, byte(a.connack)),
			"CONNACK of 3.1.1": a.connack311 >= 2 && a.connack311 <= 5,
			"PUBACK":           slices.Contains(puback, byte(a.puback)),
			"SUBACK":           slices.Contains(suback, byte(a.suback)),
			"DISCONNECT":       slices.Contains(disconnect, byte(a.disconnect)),
		} {
			if !ok {
				t.Errorf("%q has no legal answer in %s: %+v", code, place, a)
			}
		}
	}
	if len(answers) != len(codes) {
		t.Errorf("%d answers for %d codes", len(answers), len(codes))
	}
}

func TestHiddenAndAbsentLookTheSame(t *testing.T) {
	hidden, absent := answers[carnet.Forbidden], answers[carnet.NotFound]
	if hidden.suback != absent.suback || hidden.connack != absent.connack || hidden.connack311 != absent.connack311 {
		t.Errorf("forbidden is answered %+v, absent %+v", hidden, absent)
	}
}

func TestAnswerTextIsOnlyOurs(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("pq: password authentication failed"), ""},
		{carnet.Errorf("no such code", "secret"), ""},
		{(*carnet.Error)(nil), ""},
		{fmt.Errorf("open store: %w", carnet.Errorf(carnet.Unavailable, "the store is busy")), "the store is busy"},
	} {
		if _, text := answerTo(c.err); text != c.want {
			t.Errorf("%v is told as %q, want %q", c.err, text, c.want)
		}
	}
	if text := shown(strings.Repeat("é", 400)); len(text) > 512 || !utf8.ValidString(text) {
		t.Errorf("a long text is cut to %d bytes, %q", len(text), text[len(text)-4:])
	}
}
