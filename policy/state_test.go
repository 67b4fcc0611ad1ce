package policy

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"carnet"

	"pgregory.net/rapid"
)

const remembering = `{"properties":{"heart_rate":{"rate":"1s","deadband":2},"steps":{"deadband":3},"position":{"precision_m":1000,"rate":"2s"},"accel":{"rate":"3s"}}}`

// burst draws measurements out of order, most objects whole.
func burst(t *rapid.T) (props []int, ms []carnet.Measurement) {
	at := int64(1_700_000_000_000_000_000)
	for range rapid.IntRange(1, 40).Draw(t, "count") {
		at += rapid.SampledFrom([]int64{-3e9, -1, 0, 1, 4e8, 1e9, 5e9}).Draw(t, "pause")
		for _, prop := range rapid.SampledFrom([][]int{{heartRate}, {steps}, {lat, lon}, {lat}, {lon}, {accelX, accelY, accelZ}, {accelY}}).Draw(t, "properties") {
			props = append(props, prop)
			ms = append(ms, carnet.Measurement{Time: at, Value: carnet.Float(float64(rapid.IntRange(0, 10).Draw(t, "value")))})
		}
	}
	return props, ms
}

// TestRestartChangesNothing restarts before each measurement drawn, from the
// whole State or from deltas alone, and has the same admitted as without.
func TestRestartChangesNothing(t *testing.T) {
	table := compile(t, openDoor, remembering, clinic)
	same := compile(t, openDoor, remembering, clinic)
	rapid.Check(t, func(t *rapid.T) {
		props, ms := burst(t)
		var steady, restarted, durable State
		for i, raw := range ms {
			want, got := raw, raw
			wantVerdict := table.Apply(&steady, props[i], &want)
			if rapid.Bool().Draw(t, "restart") {
				whole, _ := restarted.MarshalBinary()
				fromDeltas, _ := durable.MarshalBinary()
				if !bytes.Equal(whole, fromDeltas) {
					t.Fatalf("the deltas make\n%x, the whole is\n%x", fromDeltas, whole)
				}
				restarted = State{}
				if err := restarted.UnmarshalBinary(whole); err != nil {
					t.Fatal(err)
				}
			}
			gotVerdict := same.Apply(&restarted, props[i], &got)
			if got != want || gotVerdict != wantVerdict {
				t.Fatalf("measurement %d of %s is %v %v, without restarts %v %v", i, watch[props[i]].Name, gotVerdict, got.Value.Num, wantVerdict, want.Value.Num)
			}
			if err := durable.Merge(restarted.AppendDelta(nil)); err != nil {
				t.Fatal(err)
			}
			restarted.ClearDelta()
		}
	})
}

func TestDeltaHoldsWhatChanged(t *testing.T) {
	table := compile(t, openDoor, remembering, clinic)
	var s State
	apply := func(prop int, at int64, v float64) Verdict {
		return table.Apply(&s, prop, &carnet.Measurement{Time: at, Value: carnet.Float(v)})
	}
	empty := s.AppendDelta(nil)
	apply(heartRate, 5e9, 70)
	apply(steps, 5e9, 1)
	if delta := s.AppendDelta(nil); !bytes.Contains(delta, []byte("heart_rate")) || !bytes.Contains(delta, []byte("steps")) {
		t.Errorf("delta %q lacks a property", delta)
	}
	s.ClearDelta()
	if delta := s.AppendDelta(nil); !bytes.Equal(delta, empty) {
		t.Errorf("delta %q after nothing changed", delta)
	}
	if v := apply(heartRate, 5e9+1, 90); v != RateExceeded {
		t.Errorf("second of an interval is %v", v)
	}
	if delta := s.AppendDelta(nil); !bytes.Equal(delta, empty) {
		t.Errorf("delta %q after one was withheld", delta)
	}
	var before State
	before.CopyFrom(&s)
	apply(steps, 6e9, 50)
	if delta := s.AppendDelta(nil); bytes.Contains(delta, []byte("heart_rate")) || !bytes.Contains(delta, []byte("steps")) {
		t.Errorf("delta %q, want steps alone", delta)
	}
	s.ClearDelta()
	apply(lat, 7e9, 59.9)
	apply(lon, 7e9, 10.7)
	if delta, want := s.AppendDelta(nil), append([]byte{1, 1}, "\x08position\x01\x00\x00\x00\x01\xa1\x3b\x86\x00"...); !bytes.Equal(delta, want) {
		t.Errorf("delta %q after a whole position, want %q", delta, want)
	}
	s.CopyFrom(&before)
	if v := apply(steps, 6e9, 3); v != WithinDeadband {
		t.Errorf("after taking back, a small change is %v", v)
	}
}

// TestStateBytes pins the form of docs/design/policy.md.
func TestStateBytes(t *testing.T) {
	table := compile(t, openDoor, remembering, clinic)
	var s State
	for prop, v := range map[int]float64{heartRate: 70, lat: 59.9139} {
		table.Apply(&s, prop, &carnet.Measurement{Time: 5e9, Value: carnet.Float(v)})
	}
	want := slices.Concat([]byte{1, 2},
		[]byte("\x0aheart_rate\x03"), []byte{0, 0, 0, 1, 0x2a, 5, 0xf2, 0}, []byte{0x40, 0x51, 0x80, 0, 0, 0, 0, 0},
		[]byte("\x08position\x05"), []byte{0, 0, 0, 1, 0x2a, 5, 0xf2, 0}, []byte{0, 0, 0, 1, 0x2a, 5, 0xf2, 0}, []byte{0x40, 0x4d, 0xf5, 0x32, 0x61, 0x7c, 0x1b, 0xda}, []byte{0, 0, 0, 1})
	got, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("state\n%x, want\n%x", got, want)
	}
	for cut := range got {
		var torn State
		if torn.UnmarshalBinary(got[:cut]) == nil {
			t.Errorf("the first %d bytes of a state are taken for one", cut)
		}
	}
	for i, bad := range [][]byte{nil, {2, 0}, {1, 0, 0}, {1, 0x80, 0x80, 1}, append([]byte{1, 1}, "\x01a\x08"...), append([]byte{1, 2}, "\x01b\x00\x01a\x00"...), append([]byte{1, 2}, "\x01a\x00\x01a\x00"...)} {
		if err := new(State).UnmarshalBinary(bad); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("bad state %d: error %v", i, err)
		}
	}
}

// TestStateFollowsTables changes the view between two measurements.
func TestStateFollowsTables(t *testing.T) {
	const s = int64(1e9)
	tests := []struct {
		name, before, after string
		at                  int64
		value               float64
		want                Verdict
	}{
		{"a longer rate counts what was admitted", `{"rate":"1s"}`, `{"rate":"10s"}`, 108 * s, 1, RateExceeded},
		{"and admits its next interval", `{"rate":"1s"}`, `{"rate":"10s"}`, 110 * s, 1, Admitted},
		{"a shorter rate admits its next interval", `{"rate":"10s"}`, `{"rate":"1s"}`, 106 * s, 1, Admitted},
		{"but not the one admitted", `{"rate":"10s"}`, `{"rate":"1s"}`, 105*s + 1, 1, RateExceeded},
		{"a new rate begins anew", `{}`, `{"rate":"1s"}`, 105 * s, 1, Admitted},
		{"another window", `{}`, `{"windows":{"UTC":["thu 00:00-00:05"]}}`, 105 * s, 1, Admitted},
		{"a wider deadband", `{"deadband":1}`, `{"deadband":10}`, 105 * s, 75, WithinDeadband},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var state State
			for i, view := range []string{tt.before, `{"windows":{"UTC":[]}}`, tt.after} {
				table := compile(t, openDoor, `{"properties":{"heart_rate":`+view+`}}`, clinic)
				m, want := carnet.Measurement{Time: 105 * s, Value: carnet.Float(70)}, Admitted
				if i == 1 {
					want = OutsideWindow
				}
				if i == 2 {
					m, want = carnet.Measurement{Time: tt.at, Value: carnet.Float(tt.value)}, tt.want
				}
				if got := table.Apply(&state, heartRate, &m); got != want {
					t.Fatalf("under %s: %v, want %v", view, got, want)
				}
			}
		})
	}
}

// A delta names what a view has no more beside all that another one has.
func TestADeltaOfAllAndAllThatIsForgotten(t *testing.T) {
	var had, has State
	for i := range maxProperties {
		had.names = append(had.names, fmt.Sprintf("a%04d", i))
		has.names = append(has.names, fmt.Sprintf("b%04d", i))
	}
	had.slots, has.slots, has.forgot = make([]memory, maxProperties), make([]memory, maxProperties), had.names
	for i := range has.slots {
		has.slots[i].has = touched
	}
	if err := had.Merge(has.AppendDelta(nil)); err != nil {
		t.Error(err)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add(append([]byte{1, 1}, "\x05steps\x0200000000"...))
	f.Add(append([]byte{1, 1}, "\x08position\x0500000000000000000000000000000"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s State
		if s.UnmarshalBinary(b) != nil {
			return
		}
		table := compile(t, openDoor, remembering, clinic)
		for prop := range watch {
			table.Apply(&s, prop, &carnet.Measurement{Time: 1, Value: carnet.Float(1)})
		}
		again, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := new(State).UnmarshalBinary(again); err != nil {
			t.Fatalf("state %x is refused: %v", again, err)
		}
	})
}
