package senml_test

import (
	"fmt"
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
