package thing

import (
	"fmt"
	"testing"
	"time"

	"carnet"
	"carnet/link"
	"carnet/senml"
)

// counter takes outcomes without a word.
type counter struct{ done chan struct{} }

func (c counter) Done(uint64, Outcome) { c.done <- struct{}{} }
func (counter) Flush()                 {}

// BenchmarkSubmit is one message from its bytes to the group that it joins; the
// store keeps nothing.
func BenchmarkSubmit(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHub(b)
			d := h.add(quick())
			h.store.failing(func(g *Group) error { g.Log = nil; return nil })
			sink := counter{make(chan struct{}, 1<<20)}
			at := time.Now().Add(-time.Hour).UnixNano()
			var payload []byte
			ms := make([]carnet.Measurement, n)
			b.ReportAllocs()
			for i := range b.N {
				b.StopTimer()
				for k := range ms {
					ms[k] = heart(time.Unix(0, at+int64(i*n+k)*1000), float64(60+k%100))
				}
				payload, _ = senml.Append(payload[:0], senml.JSON, ms)
				b.StartTimer()
				d.session.Submit(senml.JSON, payload, sink, 0)
			}
			for range b.N {
				<-sink.done
			}
		})
	}
}

// BenchmarkBuild is lanes made into signed frames, per measurement.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHub(b)
			d := h.add(quick())
			const streams = 64
			for range streams {
				h.mapTo(d, `{"properties":{"heart_rate":{"rate":"1ns"}}}`)
			}
			r := newRun(b.Context(), h.agent.sender("arena"), link.Resume{MaxFrame: 4 << 20})
			r.notice()
			p, _ := d.session.thing.description.Lookup("heart_rate")
			samples := make([]sample, n)
			at := time.Now().UnixNano()
			b.ReportAllocs()
			b.ResetTimer()
			count := 0
			for position := uint64(1); count < b.N; position++ {
				for k := range samples {
					at += 1000
					samples[k] = sample{time: at, number: 60, property: uint16(p.Index), kind: carnet.Number}
				}
				r.take(position, hourOf(at), d.session.thing, samples, nil)
				if f, err := r.build(time.Now()); err != nil || f.row.Batches != streams {
					b.Fatalf("frame %+v, %v", f, err)
				}
				count += streams * n
			}
		})
	}
}
