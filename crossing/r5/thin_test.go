package r5

import "testing"

func TestExchangeAndCall(t *testing.T) {
	s := newStage(t)
	s.succeeds(t, "at first")
	s.succeeds(t, "again")
}
