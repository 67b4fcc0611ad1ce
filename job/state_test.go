package job

import (
	"testing"

	"carnet/capsule"
)

// A DPM's word that a job was withdrawn counts with the world's own, which it may bring.
func TestNextBelievesNoWithdrawalThatNobodyMade(t *testing.T) {
	said := Event{Kind: Resulted, Outcome: capsule.Withdrawn, Result: "r"}
	shown := said
	shown.Withdrawal = "w"
	for _, v := range []struct {
		was     Stand
		e       Event
		outcome capsule.Outcome
		word    string
	}{
		{Stand{State: Accepted}, said, Lied, ""},
		{Stand{State: Accepted}, shown, capsule.Withdrawn, "w"},
		{Stand{State: Withdrawing, Withdrawal: "own"}, said, capsule.Withdrawn, "own"},
		{Stand{State: Withdrawing, Withdrawal: "own"}, shown, capsule.Withdrawn, "own"},
	} {
		if got, err := Next(v.was, v.e); err != nil || got.Outcome != v.outcome || got.Withdrawal != v.word || got.Result != "r" {
			t.Errorf("%+v by %+v becomes %+v, %v; want %s with %q", v.was, v.e, got, err, v.outcome, v.word)
		}
	}
}
