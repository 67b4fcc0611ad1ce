package link

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"carnet"
	"carnet/seal"
)

// nullSink takes frames and keeps nothing but the state.
type nullSink struct {
	memSink
	commits int
}

func (n *nullSink) Accept(_ context.Context, _ carnet.PartyID, run []*Arrival) ([]Verdict, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.commits++
	verdicts := make([]Verdict, 0, len(run))
	for _, a := range run {
		st, v := n.state.Judge(a.Head(), n.known)
		n.state = st
		verdicts = append(verdicts, v)
		a.Release()
	}
	return verdicts, nil
}

// benchSource signs the same batches in every frame.
type benchSource struct {
	party   testParty
	batches [][]byte
	frames  int

	r     Resume
	last  Position
	frame seal.Frame
	wire  []byte
	once  sync.Once
	done  chan struct{}
}

func (b *benchSource) Known(context.Context) (Known, error) { return Known{}, nil }
func (b *benchSource) Resume(_ context.Context, r Resume) error {
	b.r, b.last = r, r.Last
	return nil
}

func (b *benchSource) Next(ctx context.Context) (Frame, error) {
	if b.last.Number == uint64(b.frames) {
		<-ctx.Done()
		return Frame{}, ctx.Err()
	}
	h := seal.FrameHeader{Audience: "arena", Incarnation: b.r.Incarnation, Number: b.last.Number + 1, Previous: b.last.Hash}
	binary.BigEndian.PutUint64(b.batches[0], h.Number)
	if err := b.frame.Sign(b.party.key, h, b.batches); err != nil {
		return Frame{}, err
	}
	b.last = Position{h.Number, b.frame.Hash(), h.Covers}
	b.wire = b.frame.AppendWire(b.wire[:0])
	return Frame{h.Number, b.wire}, nil
}

func (b *benchSource) Acked(number uint64) {
	if number == uint64(b.frames) {
		b.once.Do(func() { close(b.done) })
	}
}
func (b *benchSource) Notice(string, []byte) {}

// BenchmarkLink moves frames over loopback TLS, both ends in one process:
// signing, framing, TLS, verification; no store.
func BenchmarkLink(b *testing.B) {
	for _, c := range []struct{ batches, size int }{{256, 300}, {256, 1200}, {16, 300}, {1, 100}} {
		b.Run(fmt.Sprintf("%dx%dB", c.batches, c.size), func(b *testing.B) {
			n := &testNet{hub: newParty(b, "hub"), arena: newParty(b, "arena"), sink: &memSink{}}
			sink := &nullSink{}
			n.serve(b, func(cfg *ServerConfig) { cfg.Sink = sink })
			source := &benchSource{party: n.hub, frames: b.N, done: make(chan struct{})}
			for range c.batches {
				source.batches = append(source.batches, make([]byte, c.size))
			}
			b.SetBytes(int64(c.batches * c.size))
			b.ReportAllocs()
			b.ResetTimer()
			n.run(b, n.config(source))
			<-source.done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
			b.ReportMetric(float64(b.N)/float64(sink.commits), "frames/commit")
		})
	}
}
