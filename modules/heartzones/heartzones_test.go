package main

import (
	"strings"
	"testing"
	"time"

	"carnet/modules/guest"
	"carnet/modules/moduletest"
)

func beats(rates ...float64) (ms []guest.Measurement) {
	for i, r := range rates {
		ms = append(ms, moduletest.Number("heart_rate", time.Duration(i)*time.Second, r, "beat/min"))
	}
	return ms
}

func TestHeartZones(t *testing.T) {
	for _, c := range []struct {
		name, parameters string
		said             []moduletest.Said
		want             string
	}{
		{"zones by parts of the most", `{"max":200,"zones":[0.5,0.6]}`, []moduletest.Said{{Avatar: "a1", Measurements: beats(99, 100, 119, 120)}},
			`{"avatar":"a1","measurements":4,"least":99,"mean":109.5,"greatest":120,"seconds":[1,2,10]}`},
		{"the order of coming doesn't matter", `{"max":200,"zones":[0.5]}`, []moduletest.Said{{Avatar: "a1", Measurements: beats(150, 50)[1:]}, {Avatar: "a1", Measurements: beats(150)}},
			`{"avatar":"a1","measurements":2,"least":50,"mean":100,"greatest":150,"seconds":[10,1]}`},
		{"another property, and other kinds", `{"property":"pulse","zones":[0.5]}`, []moduletest.Said{{Avatar: "a1", Measurements: append(beats(99), guest.Measurement{Name: "pulse", Kind: guest.Text, Text: "x"})}},
			`{"avatar":"a1","measurements":0,"least":0,"mean":0,"greatest":0,"seconds":[0,0]}`},
	} {
		if got, err := moduletest.Run(t, &heart{}, c.parameters, c.said...); err != nil || got != c.want+"\n" {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	for _, wrong := range []string{`{"max":0}`, `{"zones":[]}`, `{"zones":[0.9,0.5]}`, `{"zones":[0]}`, `[]`} {
		if _, err := moduletest.Run(t, &heart{}, wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

// Two runs of one program don't know of each other.
func TestNothingStays(t *testing.T) {
	h := &heart{}
	if _, err := moduletest.Run(t, h, "", moduletest.Said{Avatar: "a1", Measurements: beats(99)}); err != nil {
		t.Fatal(err)
	}
	if got, err := moduletest.Run(t, h, "", moduletest.Said{Avatar: "a2", Measurements: beats(99)}); err != nil || strings.Contains(got, "a1") {
		t.Errorf("the second run says %s, %v", got, err)
	}
}
