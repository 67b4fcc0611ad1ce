package avatar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/link"
	"carnet/seal"
	"carnet/senml"
)

// BenchmarkReceive takes frames of 500 batches of 1,000 streams through a world,
// over a store in memory: judged, stated, appended, opened, folded, and compacted
// in the end. That is what the receiving end does but for the link and the disk.
func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("%d per batch", size), func(b *testing.B) { benchmarkReceive(b, size) })
	}
}

const (
	benchStreams = 1000
	benchFrame   = 500 // batches
	benchRound   = 20  // frames
)

// passingStore keeps only what isn't compacted.
type passingStore struct {
	memoryStore
	last uint64
}

func (s *passingStore) Append(_ context.Context, rows []FrameRow) error {
	for i := range rows {
		s.last++
		rows[i].ID = s.last
		s.frames = append(s.frames, rows[i])
	}
	return nil
}

func (s *passingStore) Compact(_ context.Context, c Compaction) error {
	s.frames = s.frames[len(c.Strip):]
	return nil
}

func benchmarkReceive(b *testing.B, size int) {
	w := newProvenWorld(b)
	a, store := w.agent, &passingStore{memoryStore: *w.store}
	a.store = store
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(a.commitLoop(ctx)) }()
	go a.openLoop(ctx)
	defer func() { cancel(); <-ended }()
	round := benchFrames(b, w, size)
	b.ReportAllocs()
	for b.Loop() {
		for _, arrival := range round {
			if verdicts, err := a.Accept(ctx, "hub", []*link.Arrival{arrival}); err != nil || verdicts[0] != link.Next {
				b.Fatal(verdicts, err)
			}
		}
		if err := a.settled(ctx); err != nil {
			b.Fatal(err)
		}
		a.tail.bytes += tailBytes // without rests
		if err := a.Compact(ctx, 1); err != nil {
			b.Fatal(err)
		}
		a.tail.bytes -= tailBytes
		b.StopTimer() // the same numbers again
		if a.defects > 0 || len(store.frames) > 0 {
			b.Fatalf("%d batches are refused, %d frames are not compacted", a.defects, len(store.frames))
		}
		for _, s := range a.streams {
			s.nextBatch, s.nextFirst = 0, 0
		}
		a.links["hub"] = link.State{}
		b.StartTimer()
	}
	batches := float64(b.N * benchRound * benchFrame)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/batches, "ns/batch")
}

// benchFrames makes the frames of one round, with the streams that they are of.
func benchFrames(b *testing.B, w *provenWorld, size int) (round []*link.Arrival) {
	var slots []*seal.Slot
	for i := range benchStreams {
		id := carnet.NewStreamID()
		body, err := json.Marshal(carnet.MapRequest{Stream: id})
		if err == nil {
			_, err = w.agent.Call(b.Context(), "hub", carnet.CallMap, body)
		}
		epoch := seal.NewEpoch(id)
		slot, failed := epoch.Slot(uint32(i % 4))
		err = errors.Join(err, failed, w.agent.keys.Put(b.Context(), keys.Entry{ID: keyID(seal.Path{Level: seal.EpochLevel, Stream: id, Epoch: epoch.Epoch}), Secret: epoch.Secret[:]}))
		if err != nil {
			b.Fatal(err)
		}
		slots = append(slots, slot)
	}
	last := link.Position{}
	for n := range benchRound {
		var batches [][]byte
		for i := range benchFrame {
			number := uint64(n * benchFrame / benchStreams)
			batches = append(batches, benchBatch(b, slots[(n*benchFrame+i)%benchStreams], number, size))
		}
		arrival := arrivalOf(b, w, last, batches)
		last = link.Position{Number: last.Number + 1, Hash: arrival.Hash}
		round = append(round, arrival)
	}
	return round
}

// arrivalOf makes the frame of batches that follows another.
func arrivalOf(tb testing.TB, w *provenWorld, last link.Position, batches [][]byte) *link.Arrival {
	tb.Helper()
	var f seal.Frame
	if err := f.Sign(w.key, seal.FrameHeader{Audience: "arena", Number: last.Number + 1, Previous: last.Hash, Time: time.Now().UnixNano()}, batches); err != nil {
		tb.Fatal(err)
	}
	arrival := &link.Arrival{Bytes: f.AppendWire(nil)}
	if err := arrival.Frame.Parse(arrival.Bytes); err != nil {
		tb.Fatal(err)
	}
	arrival.Frame.Root, arrival.Hash = f.Root, f.Hash()
	return arrival
}

func benchBatch(b testing.TB, slot *seal.Slot, number uint64, size int) []byte {
	ms := make([]carnet.Measurement, size)
	for j := range ms {
		name := []string{"heart_rate", "position/lat", "position/lon", "steps"}[j*4/size]
		ms[j] = carnet.Measurement{Name: name, Time: 1e18 + int64(number)*1e11 + int64(j)*1e9, Value: carnet.Float(float64(60 + j%7))}
	}
	plain, err := seal.AppendBody(nil, seal.Body{Retention: carnet.Keep, First: number * uint64(size), Count: uint32(size), Content: senml.AppendColumns(nil, ms)})
	if err != nil {
		b.Fatal(err)
	}
	batch, err := slot.Seal(nil, number, plain)
	if err != nil {
		b.Fatal(err)
	}
	return batch
}
