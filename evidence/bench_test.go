package evidence

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// benchBundle makes a bundle of at least total batches, width of them in a frame.
func benchBundle(b *testing.B, total, width, measurements int, noise bool) (string, Counts) {
	s := newStage(b)
	s.size, s.noise = measurements, noise
	watch := s.course(s.hub, true)
	frame := make([]*course, width)
	for i := range frame {
		frame[i] = watch
	}
	for range (total + width - 1) / width {
		s.send(frame...)
	}
	s.receipts()
	dir := filepath.Join(b.TempDir(), "bundle")
	counts, err := Write(context.Background(), dir, s, s.options())
	if err != nil {
		b.Fatal(err)
	}
	return dir, counts
}

// BenchmarkVerify reports, beside the time, the processor time and what two
// processors of one's own would reach with it, since others may share them.
func BenchmarkVerify(b *testing.B) {
	for _, c := range []struct {
		total, width, measurements int
		noise                      bool
	}{
		{4096, 1, 100, false}, {8192, 8, 100, false}, {8192, 8, 100, true}, {1024, 8, 10000, true},
		{4096, 1, 1, false}, {32768, 8, 1, false}, {65536, 64, 1, false}, {32768, 64, 10, false},
	} {
		name := fmt.Sprintf("batches=%d/frame=%d/measurements=%d", c.total, c.width, c.measurements)
		if c.noise {
			name += "/noise"
		}
		b.Run(name, func(b *testing.B) {
			dir, counts := benchBundle(b, c.total, c.width, c.measurements, c.noise)
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				r, err := Verify(context.Background(), dir, nil, VerifyOptions{})
				if err != nil || r.Verdict != True {
					b.Fatal(err, r)
				}
			}
			per := (processorTime(b) - before).Seconds() / float64(b.N)
			b.ReportMetric(2*float64(counts.Bytes)/per/1e6, "MB/s:2cpu")
			b.ReportMetric(2*float64(counts.Batches)/per, "batches/s:2cpu")
			b.ReportMetric(2*float64(counts.Measurements)/per, "measurements/s:2cpu")
			b.ReportMetric(1e6*per/float64(counts.Batches), "cpu-µs/batch")
			b.ReportMetric(float64(counts.Batches)/(b.Elapsed().Seconds()/float64(b.N)), "batches/s")
			b.ReportMetric(float64(counts.Bytes)/float64(counts.Batches), "B/batch")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
