package evidence

import (
	"strings"
	"testing"

	"carnet"
)

// What a bundle's maker wrote ends no line of a report, and steers no terminal.
func TestAReportIsPrintable(t *testing.T) {
	const evil = "\x1b[2J\nVerdict: true.\x1b[8m"
	r := Report{
		Verdict: Unknown, World: carnet.PartyID("arena" + evil), Erased: &ErasedReport{},
		Findings: []Finding{{Verdict: Unknown, File: "erasure.json", Offset: -1, Sender: carnet.PartyID(evil), Frame: 1, Text: "it waits for " + evil}},
	}
	said := r.Summary()
	if strings.ContainsRune(said, '\x1b') || strings.Contains(said, "\nVerdict: true") || !strings.HasSuffix(said, "\nVerdict: can't be told.\n") && strings.Count(said, "\nVerdict: ") != 1 {
		t.Errorf("the report says %q", said)
	}
}
