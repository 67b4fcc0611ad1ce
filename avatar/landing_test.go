package avatar

import (
	"testing"
	"time"

	"carnet"
)

// A key that comes with a move, and is here already for a share, is kept for both.
func TestAKeyOfAMoveAndAShare(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	health := savedLabel{Sensitivity: carnet.Health}
	personal := savedLabel{Sensitivity: carnet.Personal}
	both := savedLabel{Sensitivity: carnet.Health | carnet.Personal}
	for name, c := range map[string]struct{ came, had, want epochDocument }{
		"the share's is longer": {
			epochDocument{Given: day(9), NotAfter: day(12), Until: day(10), Granter: "arena", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(25), Until: day(20), Granter: "clinic", Ceiling: &health},
			epochDocument{Given: day(1), NotAfter: day(25), Until: day(20), Granter: "clinic", Ceiling: &both},
		},
		"the move's is longer": {
			epochDocument{Given: day(9), NotAfter: day(26), Until: day(21), Granter: "arena", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(25), Until: day(20), Granter: "clinic", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(26), Until: day(21), Granter: "arena", Ceiling: &personal},
		},
		"something of the share is kept for good, and the source had no key any more": {
			epochDocument{Given: day(9), NotAfter: day(12), Ended: day(8), Granter: "arena", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(25), Keep: true, Granter: "clinic", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(25), Keep: true, Granter: "clinic", Ceiling: &personal},
		},
		"neither has it": {
			epochDocument{Given: day(9), NotAfter: day(12), Ended: day(8), Granter: "arena", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(11), Ended: day(7), Granter: "clinic", Ceiling: &personal},
			epochDocument{Given: day(1), NotAfter: day(12), Ended: day(8), Granter: "arena", Ceiling: &personal},
		},
	} {
		got := c.came
		got.join(&c.had)
		ceiling, want := *got.Ceiling, *c.want.Ceiling
		got.Ceiling, c.want.Ceiling = nil, nil
		if got != c.want || ceiling != want {
			t.Errorf("%s: %+v within %+v, want %+v within %+v", name, got, ceiling, c.want, want)
		}
	}
}
