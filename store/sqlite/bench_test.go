package sqlite_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/thing"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// latencies reports the median and the 99th percentile beside the mean.
type latencies []time.Duration

func (l *latencies) time(do func() error) error {
	start := time.Now()
	err := do()
	*l = append(*l, time.Since(start))
	return err
}

func (l latencies) report(b *testing.B) {
	slices.Sort(l)
	if n := len(l); n > 0 {
		b.ReportMetric(float64(l[n/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(l[n*99/100].Microseconds()), "p99-µs")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

// BenchmarkDisk is what the disk can do: appending to a file, with fsync.
func BenchmarkDisk(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "file"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			data := noise(size)
			var l latencies
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := l.time(func() error { f.Write(data); return f.Sync() }); err != nil {
					b.Fatal(err)
				}
			}
			l.report(b)
		})
	}
}

// BenchmarkCommit is the things agent's hot path: a row of the log and two
// frames sent, each with a statement.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "store.db"))
			defer db.Close()
			s, err := db.Things(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			body, leaves := noise(size), noise(32*256)
			var l latencies
			b.SetBytes(int64(size))
			position := uint64(0)
			for b.Loop() {
				n := position/400 + 1
				entry := carnet.FingerprintOf(fmt.Append(nil, n))
				sent := thing.SentRow{Link: "arena", Number: n, Batches: 256, Header: leaves[:300], Leaves: leaves, State: leaves[:500],
					Statement: ledger.Item{Entry: entry, Statement: leaves[:200], Salt: entry[:]}}
				other := sent
				other.Link = "clinic"
				g := &thing.Group{Log: &thing.LogRow{First: position, Count: 400, Index: leaves[:200], Body: body}, Sent: []thing.SentRow{sent, other}}
				if err := l.time(func() error { return s.Commit(b.Context(), g) }); err != nil {
					b.Fatal(err)
				}
				position += 400
			}
			l.report(b)
		})
	}
}

// BenchmarkAppend is the avatar agent's hot path: frames of 100 KB.
func BenchmarkAppend(b *testing.B) {
	for _, group := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("%dframes", group), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "store.db"))
			defer db.Close()
			s, err := db.Worlds(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			link, err := s.Register(b.Context(), "hub", [16]byte{1}, 0)
			if err != nil {
				b.Fatal(err)
			}
			body := noise(100_000)
			var l latencies
			b.SetBytes(int64(group * len(body)))
			for b.Loop() {
				frames := make([]avatar.FrameRow, group)
				for i := range frames {
					hash := carnet.FingerprintOf(fmt.Append(nil, link.Number))
					frames[i] = avatar.FrameRow{Sender: "hub", Incarnation: 1, Number: link.Number + 1, Parent: link.Hash, Hash: hash, Batches: 256,
						Header: body[:300], Body: body, Statement: ledger.Item{Entry: hash, Statement: body[:200], Salt: hash[:]}}
					link.Number, link.Hash = link.Number+1, hash
				}
				if err := l.time(func() error { return s.Append(b.Context(), frames) }); err != nil {
					b.Fatal(err)
				}
			}
			l.report(b)
			b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}

// BenchmarkCompact moves 1,000 batches of 265 bytes out of 4 frames into 100
// stretches.
func BenchmarkCompact(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "store.db"))
	defer db.Close()
	s, err := db.Worlds(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Register(b.Context(), "hub", [16]byte{1}, 0); err != nil {
		b.Fatal(err)
	}
	batches, leaves := noise(265*250), noise(32*250)
	var l latencies
	number := uint64(0)
	for b.Loop() {
		b.StopTimer()
		c := avatar.Compaction{}
		for range 4 {
			f := []avatar.FrameRow{{Sender: "hub", Incarnation: 1, Number: number + 1, Body: batches}}
			if err := s.Append(b.Context(), f); err != nil {
				b.Fatal(err)
			}
			number++
			c.Strip = append(c.Strip, avatar.Strip{Frame: f[0].ID, Leaves: leaves})
		}
		for i := range 100 {
			c.Stretches = append(c.Stretches, avatar.StretchRow{Stream: carnet.StreamID{byte(i)}, Class: carnet.Day, FirstBatch: number * 10, Batches: 10,
				Fingerprint: carnet.FingerprintOf(fmt.Append(nil, number, i)), Origins: leaves[:400], Body: bytes.Clone(batches[:2650])})
		}
		b.StartTimer()
		if err := l.time(func() error { return s.Compact(b.Context(), c) }); err != nil {
			b.Fatal(err)
		}
	}
	l.report(b)
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "batches/s")
}
