package avatar

import (
	"testing"
	"time"
)

// A few frames wait for others, but not for ever: nor when the clock is set back.
func TestCompactableWhenTheClockIsSetBack(t *testing.T) {
	now := time.Now().UnixNano()
	for _, c := range []struct {
		received time.Duration
		want     int
	}{{0, 0}, {1 - maxWait, 0}, {-maxWait, 1}, {time.Hour, 1}} {
		index := newTail()
		index.frames = []tailFrame{{id: 1, received: now + int64(c.received)}}
		if got := len(index.compactable(minFrames, now)); got != c.want {
			t.Errorf("a frame received at %v: %d are compacted, want %d", c.received, got, c.want)
		}
	}
}
