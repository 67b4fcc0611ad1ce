package avatar

import (
	"fmt"
	"testing"

	"carnet"
	"carnet/seal"
	"carnet/senml"
)

// BenchmarkFold opens and folds frames of 64 batches, without store and link:
// what the opener's one goroutine does for each measurement.
func BenchmarkFold(b *testing.B) {
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("%d per batch", size), func(b *testing.B) { benchmarkFold(b, size) })
	}
}

func benchmarkFold(b *testing.B, size int) {
	const batches = 64
	w := newProvenWorld(b)
	row := FrameRow{Sender: "hub", Received: 1, Batches: batches}
	for i := range batches {
		slot, err := w.epochs[i%2].Slot(uint32(1))
		if err != nil {
			b.Fatal(err)
		}
		ms := make([]carnet.Measurement, size)
		for j := range ms {
			name := []string{"heart_rate", "position/lat", "position/lon", "steps"}[j*4/size]
			ms[j] = carnet.Measurement{Name: name, Time: 1e18 + int64(j)*1e9, Value: carnet.Float(float64(60 + j%7))}
		}
		plain, err := seal.AppendBody(nil, seal.Body{Retention: carnet.Keep, First: uint64(i / 2 * size), Count: uint32(size), Content: senml.AppendColumns(nil, ms)})
		if err != nil {
			b.Fatal(err)
		}
		batch, err := slot.Seal(nil, uint64(i/2), plain)
		if err != nil {
			b.Fatal(err)
		}
		row.Body = appendPart(row.Body, batch)
	}
	o := newOpening()
	b.ReportAllocs()
	for b.Loop() {
		row.ID++
		if err := w.agent.foldFrame(b.Context(), &o, &row, true); err != nil {
			b.Fatal(err)
		}
		b.StopTimer() // the same numbers again
		if w.agent.defects > 0 {
			b.Fatal("batches are refused")
		}
		for _, s := range w.agent.streams {
			s.nextBatch, s.nextFirst = 0, 0
		}
		for _, s := range w.agent.tail.streams {
			s.tail = nil
		}
		w.agent.tail = newTail()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batches*size), "ns/measurement")
}
