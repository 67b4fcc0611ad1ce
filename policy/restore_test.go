package policy

import (
	"testing"

	"carnet"
)

// TestUseUntil loses a State and goes on: what a rate had admitted is not
// admitted again. A deadband has forgotten what it sent.
func TestUseUntil(t *testing.T) {
	table := compile(t, openDoor, `{"properties":{"heart_rate":{"rate":"10s"},"steps":{"deadband":5},"position":{"precision_m":1000,"rate":"10s"}}}`, clinic)
	const s = int64(1e9)
	var state State
	state.UseUntil(table, 105*s)
	for i, tt := range []struct {
		prop int
		at   int64
		want Verdict
	}{
		{heartRate, 95 * s, RateExceeded}, {heartRate, 109 * s, RateExceeded}, {heartRate, 110 * s, Admitted},
		{lat, 109 * s, RateExceeded}, {lon, 109 * s, RateExceeded}, {lat, 110 * s, Admitted}, {lon, 110 * s, Admitted},
		{steps, 95 * s, Admitted}, {steps, 96 * s, WithinDeadband},
	} {
		if got := table.Apply(&state, tt.prop, &carnet.Measurement{Time: tt.at, Value: carnet.Float(1)}); got != tt.want {
			t.Errorf("measurement %d: %v, want %v", i, got, tt.want)
		}
	}
	state.UseUntil(table, 50*s) // an earlier time takes nothing back
	if got := table.Apply(&state, heartRate, &carnet.Measurement{Time: 111 * s, Value: carnet.Float(1)}); got != RateExceeded {
		t.Errorf("after an earlier time, %v", got)
	}
}
