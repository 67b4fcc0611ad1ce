package policy

import (
	"testing"

	"carnet"
)

// TestSaw loses a State, takes back what the receiver has, and goes on: what a
// rate had admitted is not admitted again, and a deadband knows what it sent.
func TestSaw(t *testing.T) {
	table := compile(t, openDoor, `{"properties":{"heart_rate":{"rate":"10s"},"steps":{"deadband":5},"position":{"precision_m":1000,"rate":"10s"}}}`, clinic)
	const s = int64(1e9)
	var state State
	saw := func(prop int, at int64, value float64) {
		state.Saw(table, prop, &carnet.Measurement{Time: at, Value: carnet.Float(value)})
	}
	saw(heartRate, 105*s, 60)
	saw(lat, 105*s, 1)
	saw(steps, 90*s, 7)
	for i, tt := range []struct {
		prop  int
		at    int64
		value float64
		want  Verdict
	}{
		{heartRate, 95 * s, 1, RateExceeded}, {heartRate, 109 * s, 1, RateExceeded}, {heartRate, 110 * s, 1, Admitted},
		{lat, 109 * s, 1, RateExceeded}, {lon, 109 * s, 1, RateExceeded}, {lat, 110 * s, 1, Admitted}, {lon, 110 * s, 1, Admitted},
		{steps, 95 * s, 11, WithinDeadband}, {steps, 96 * s, 12, Admitted},
	} {
		if got := table.Apply(&state, tt.prop, &carnet.Measurement{Time: tt.at, Value: carnet.Float(tt.value)}); got != tt.want {
			t.Errorf("measurement %d: %v, want %v", i, got, tt.want)
		}
	}
	saw(heartRate, 50*s, 60) // an earlier time takes nothing back
	if got := table.Apply(&state, heartRate, &carnet.Measurement{Time: 111 * s, Value: carnet.Float(1)}); got != RateExceeded {
		t.Errorf("after an earlier time, %v", got)
	}
}

// TestForgettingGoesIntoDeltas: what a new table makes a State forget is forgotten
// by whoever follows its deltas, too.
func TestForgettingGoesIntoDeltas(t *testing.T) {
	whole := compile(t, openDoor, `{"properties":{"position":{"rate":"10s"},"heart_rate":{"rate":"10s"}}}`, clinic)
	without := compile(t, openDoor, `{"properties":{"position/lat":{"round":1},"position/lon":{"round":1},"heart_rate":{"rate":"10s"}}}`, clinic)
	var state, follower State
	step := func(table *Table, prop int, at int64) Verdict {
		v := table.Apply(&state, prop, &carnet.Measurement{Time: at, Value: carnet.Float(1)})
		if err := follower.Merge(state.AppendDelta(nil)); err != nil {
			t.Fatal(err)
		}
		state.ClearDelta()
		return v
	}
	const s = int64(1e9)
	for i, v := range []Verdict{step(whole, lat, 101*s), step(whole, lon, 101*s), step(without, heartRate, 102*s)} {
		if v != Admitted {
			t.Fatalf("step %d: %v", i, v)
		}
	}
	// The follower never saw the last step: it decides it as the state does.
	got := whole.Apply(&follower, lat, &carnet.Measurement{Time: 103 * s, Value: carnet.Float(1)})
	if want := step(whole, lat, 103*s); got != want || want != Admitted {
		t.Errorf("after forgetting, %v; by deltas, %v; want both admitted", want, got)
	}
}
