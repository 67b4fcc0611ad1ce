// Package wait has tests wait for what comes by itself: how often they look, and when
// they give up.
package wait

import (
	"testing"
	"time"
)

const (
	// limit is so long because it is only reached when a test fails, and a machine may
	// have much else to do.
	limit = 3 * time.Minute
	// seldom is how often is looked at least: each look takes time from what is waited for.
	seldom = 100 * time.Millisecond
)

// Until waits until something is so, and fails the test if that doesn't come to be. It
// looks at once, and then the less often the longer it takes.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	pause := time.Millisecond
	for end := time.Now().Add(limit); !is(); time.Sleep(pause) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		pause = min(pause+pause/8+time.Microsecond, seldom)
	}
}
