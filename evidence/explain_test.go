package evidence

import (
	"strings"
	"testing"
)

// The first line of a report says "Verified" only of what is proved with somebody's own keys.
func TestTheFirstLineDoesntSayTooMuch(t *testing.T) {
	for _, row := range []struct {
		verdict Verdict
		pinned  bool
		want    string
	}{
		{True, true, "Verified with the keys given with --trust."},
		{Unknown, true, "Checked with the keys given with --trust, and not all of it is proved: see the verdict."},
		{False, true, "Checked with the keys given with --trust, and not all of it is proved: see the verdict."},
		{True, false, "Checked with the bundle's own keys: "},
	} {
		first, _, _ := strings.Cut((&Report{Verdict: row.verdict, Pinned: row.pinned}).Summary(), "\n")
		if !strings.HasPrefix(first, row.want) {
			t.Errorf("%v, pinned %t: %q", row.verdict, row.pinned, first)
		}
	}
}
