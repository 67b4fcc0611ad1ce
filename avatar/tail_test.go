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
		if got := len(index.compactable(minFrames, 1, now)); got != c.want {
			t.Errorf("a frame received at %v: %d are compacted, want %d", c.received, got, c.want)
		}
	}
}

// What came after a compaction began is the next one's, which makes larger
// stretches of it.
func TestCompactableUpTo(t *testing.T) {
	index := newTail()
	for id := uint64(1); id <= 3; id++ {
		index.frames = append(index.frames, tailFrame{id: id})
	}
	if got := len(index.compactable(1, 2, 0)); got != 2 {
		t.Errorf("%d frames up to the second", got)
	}
}

func TestFrameSet(t *testing.T) {
	var s frameSet
	for _, id := range []uint64{3, 4, 5, 9, 11, 12} {
		s.add(id)
	}
	if len(s) != 3 {
		t.Errorf("ranges %v", s)
	}
	for id := range uint64(14) {
		if want := id >= 3 && id <= 5 || id == 9 || id == 11 || id == 12; s.has(id) != want {
			t.Errorf("has(%d) = %t", id, !want)
		}
	}
}
