package evidence

import (
	"testing"

	"carnet"
	"carnet/capsule"
	"carnet/ledger"
)

// Two receipts that each hold, and are of ledgers that can't both be, are false.
func TestALedgerHasOneHistory(t *testing.T) {
	for name, c := range map[string]struct {
		again   func(s *stage) // what the ledger is when all but the first get their receipts
		verdict Verdict
		says    string
	}{
		"it grew": {func(s *stage) { s.entries = append(s.entries, carnet.Fingerprint(ledger.NewSalt())) }, True, ""},
		"another of the same size": {func(s *stage) {
			n := len(s.entries)
			s.entries[n-2], s.entries[n-1] = s.entries[n-1], s.entries[n-2]
		}, False, "has signed two of 12 entries"},
		"another entry at the same place": {func(s *stage) {
			s.entries[0], s.entries[1] = s.entries[1], s.entries[0]
			s.entries = append(s.entries, carnet.Fingerprint(ledger.NewSalt()))
		}, False, "has signed two that differ in entry 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := scene(t)
			first := s.frames[0].Receipt
			c.again(s)
			s.receipts()
			s.frames[0].Receipt = first
			want(t, verify(t, s.write(s.options()), nil), c.verdict, c.says)
		})
	}
}

// A job's statements are on the same ledger as the frames.
func TestAJobsLedgerHasOneHistory(t *testing.T) {
	s := newJobScene(t, false)
	j := s.job
	s.entries = s.entries[1:]
	j.Ordered = s.says(ledger.Statement{Kind: ledger.JobOrdered, Who: s.name, Peer: "forge", Object: capsule.Fingerprint(j.Order)})
	want(t, verify(t, s.write(s.withJobs(j)), nil), False, "was ordered: its receipt is of another ledger")
}
