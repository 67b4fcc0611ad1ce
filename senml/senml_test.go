package senml_test

import (
	"math"
	"slices"
	"testing"

	"carnet"
	"carnet/senml"

	"pgregory.net/rapid"
)

// TestFormsCarryTheSame: every content comes back from every form, bit for bit,
// and is written the same way again.
func TestFormsCarryTheSame(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	rapid.Check(t, func(t *rapid.T) {
		ms := drawMeasurements(t)
		for _, f := range formats {
			pack, err := senml.Append([]byte("x"), f, ms)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			pack = pack[1:]
			got, err := d.Decode(nil, f, pack, now)
			if err != nil {
				t.Fatalf("%s: %v in %q", f, err, pack)
			}
			want := ms
			if f == senml.Columns {
				want = grouped(ms)
			}
			if !same(got, want) {
				t.Fatalf("%s: got %v, want %v from %q", f, got, want, pack)
			}
			if again, _ := senml.Append(nil, f, got); string(again) != string(pack) {
				t.Fatalf("%s: %x was written as %x again", f, pack, again)
			}
			if f != senml.Columns {
				if guess, err := senml.FormatOf("", pack[0]); err != nil || len(ms) < 24 && guess != f {
					t.Fatalf("%s looks like %s (%v)", f, guess, err)
				}
			}
		}
	})
}

// same compares the bits of numbers, which == doesn't.
func same(a, b []carnet.Measurement) bool {
	return slices.EqualFunc(a, b, func(a, b carnet.Measurement) bool {
		return a == b && math.Float64bits(a.Value.Num) == math.Float64bits(b.Value.Num)
	})
}

func drawMeasurements(t *rapid.T) []carnet.Measurement {
	names := rapid.SliceOfN(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9:._/-]{0,12}`), 1, 5).Draw(t, "names")
	name := rapid.SampledFrom(names)
	unit := rapid.SampledFrom([]string{"", "m/s", "beat/min", "°C", "Cel", "a&<\"\\>b", "lon"})
	const start = 1 << 28 * int64(1e9)
	times := rapid.OneOf(
		rapid.Int64Range(start, math.MaxInt64),
		rapid.Map(rapid.Int64Range(0, 100), func(s int64) int64 { return now + s*1e9 }),
		rapid.Map(rapid.Int64Range(-50, 50), func(ms int64) int64 { return now + ms*1e6 }),
		rapid.SampledFrom([]int64{start, math.MaxInt64, now}),
	)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) carnet.Measurement {
		return carnet.Measurement{Name: name.Draw(t, "name"), Unit: unit.Draw(t, "unit"), Time: times.Draw(t, "time"), Value: drawValue(t)}
	}), 0, 40).Draw(t, "measurements")
}

func drawValue(t *rapid.T) carnet.Value {
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return carnet.Bool(rapid.Bool().Draw(t, "bool"))
	case 1:
		return carnet.String(rapid.String().Draw(t, "text"))
	case 2:
		return carnet.Bytes(rapid.SliceOf(rapid.Byte()).Draw(t, "data"))
	case 3:
		return carnet.Float(float64(rapid.Float32Range(-math.MaxFloat32, math.MaxFloat32).Draw(t, "float32")))
	case 4:
		places := rapid.IntRange(0, 15).Draw(t, "places")
		return carnet.Float(float64(rapid.Int64Range(-1e15, 1e15).Draw(t, "decimal")) / math.Pow10(places))
	}
	return carnet.Float(rapid.OneOf(
		rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64),
		rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 5e-324, math.MaxFloat64, 1 << 53, 1<<53 + 2, 1e15, 1e21, 1e22, 1e23, 65504, 6e-8}),
	).Draw(t, "float64"))
}
