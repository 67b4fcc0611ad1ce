package senml_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"carnet"
	"carnet/senml"
)

func BenchmarkDecode(b *testing.B) { benchmark(b, true) }
func BenchmarkAppend(b *testing.B) { benchmark(b, false) }

// benchmark reports bytes and nanoseconds per measurement.
func benchmark(b *testing.B, decode bool) {
	for _, f := range formats {
		for _, n := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("%s/%d", f, n), func(b *testing.B) {
				ms := watch(n)
				pack, err := senml.Append(nil, f, ms)
				if err != nil {
					b.Fatal(err)
				}
				d := senml.NewDecoder(senml.Limits{})
				out := make([]carnet.Measurement, 0, n)
				b.ReportAllocs()
				for b.Loop() {
					if decode {
						out, err = d.Decode(out[:0], f, pack, now)
					} else {
						pack, err = senml.Append(pack[:0], f, ms)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(pack))/float64(n), "B/measurement")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/measurement")
			})
		}
	}
}

// BenchmarkColumns is the column form of a batch whose numbers and times need all
// their bits, and of one of a single property with a value each second.
func BenchmarkColumns(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 10, 100, 1000} {
		wide, plain := make([]carnet.Measurement, n), make([]carnet.Measurement, n)
		for i := range n {
			t := now + int64(i)*1e9
			plain[i] = num("heart_rate", "beat/min", t, float64(60+i*7%90))
			wide[i] = num("heart_rate", "beat/min", t+random.Int64N(1e9), random.NormFloat64())
		}
		for name, ms := range map[string][]carnet.Measurement{"wide": wide, "plain": plain} {
			pack := senml.AppendColumns(nil, ms)
			d := senml.NewDecoder(senml.Limits{})
			var out []carnet.Measurement
			for what, do := range map[string]func() error{
				"append": func() error { pack = senml.AppendColumns(pack[:0], ms); return nil },
				"check":  func() error { _, _, _, err := d.CheckColumns(pack); return err },
				"decode": func() (err error) { out, err = d.Decode(out[:0], senml.Columns, pack, 0); return err },
			} {
				b.Run(fmt.Sprintf("%s/%s/%d", name, what, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := do(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/measurement")
				})
			}
		}
	}
}

// BenchmarkDecodeDevice reads the pack that a device sends: one record of JSON.
func BenchmarkDecodeDevice(b *testing.B) {
	pack := []byte(`[{"n":"heart_rate","u":"beat/min","t":1767225600.123,"v":61.5}]`)
	d := senml.NewDecoder(senml.Limits{})
	var out []carnet.Measurement
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = d.Decode(out[:0], senml.JSON, pack, now); err != nil {
			b.Fatal(err)
		}
	}
}
