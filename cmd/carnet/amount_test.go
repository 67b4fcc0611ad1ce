package main

import (
	"testing"

	"carnet/avatar"
)

// What is seen through a grant isn't said to be nothing.
func TestWhatIsNotCountedIsNotNone(t *testing.T) {
	for want, i := range map[string]avatar.Info{
		"seen through a grant, which doesn't tell how much there is": {Uncounted: true},
		"0 measurements in 0 batches of 1 stream":                    {Streams: 1},
	} {
		if got := amount(i); got != want {
			t.Errorf("%+v: %s", i, got)
		}
	}
}
