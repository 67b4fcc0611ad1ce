package policy

import (
	"testing"
	"time"

	"carnet"
)

// paths are the kinds of decision that the hot path makes.
var paths = []struct {
	name, view string
	props      []int
	step       time.Duration // measured time from one round of props to the next
}{
	{"exact", `{"properties":{"heart_rate":{}}}`, []int{heartRate}, time.Second},
	{"withheld", `{"properties":{}}`, []int{heartRate}, time.Second},
	{"round", `{"properties":{"heart_rate":{"round":5}}}`, []int{heartRate}, time.Second},
	{"round, rate admits", `{"properties":{"heart_rate":{"round":5,"rate":"1s"}}}`, []int{heartRate}, time.Second},
	{"round, rate mostly withholds", `{"properties":{"heart_rate":{"round":5,"rate":"1s"}}}`, []int{heartRate}, time.Millisecond},
	{"everything", `{"properties":{"heart_rate":{"round":5,"rate":"1s","deadband":1,"windows":{"Europe/Oslo":["daily 06:00-22:00"]}}}}`, []int{heartRate}, time.Second},
	{"position", `{"properties":{"position":{"precision_m":1000,"rate":"1s"}}}`, []int{lat, lon}, time.Second},
	{"object", `{"properties":{"accel":{"rate":"1s"}}}`, []int{accelX, accelY, accelZ}, time.Second},
}

func BenchmarkApply(b *testing.B) {
	for _, p := range paths {
		b.Run(p.name, func(b *testing.B) {
			table := compile(b, openDoor, p.view, clinic)
			var state State
			at, n := int64(1_700_000_000_000_000_000), 0
			b.ReportAllocs()
			for b.Loop() {
				m := carnet.Measurement{Time: at, Value: carnet.Float(float64(60 + n%64))}
				table.Apply(&state, p.props[n%len(p.props)], &m)
				if n++; n%len(p.props) == 0 {
					at += int64(p.step)
				}
			}
		})
	}
}

func TestApplyDoesNotAllocate(t *testing.T) {
	for _, p := range paths {
		table := compile(t, openDoor, p.view, clinic)
		var state State
		at, n := int64(1_700_000_000_000_000_000), 0
		delta := make([]byte, 0, 256)
		allocs := testing.AllocsPerRun(1000, func() {
			m := carnet.Measurement{Time: at, Value: carnet.Float(float64(60 + n%64))}
			table.Apply(&state, p.props[n%len(p.props)], &m)
			if n++; n%len(p.props) == 0 {
				at += int64(p.step)
				delta = state.AppendDelta(delta[:0])
				state.ClearDelta()
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations per measurement", p.name, allocs)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	j, err := NewJudge(nil)
	if err != nil {
		b.Fatal(err)
	}
	v, err := ParseView([]byte(`{"properties":{"heart_rate":{"round":5,"rate":"1s"},"position":{"precision_m":1000},"steps":{}}}`))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(j, watch, v, clinic, 1); err != nil {
			b.Fatal(err)
		}
	}
}
