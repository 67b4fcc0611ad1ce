package share_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"carnet"
)

// A share has one memory of its rates, whatever number of streams have a property: its
// taker gets one measurement of each interval, also when the giver, the taker or the
// connection between them is gone in the midst.
func TestARateOfSeveralStreams(t *testing.T) {
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 11))
		p := newPair(t, `{"properties": {"heart_rate": {"rate": "10s"}, "steps": {"rate": "10s"}}}`)
		var streams []*stream
		for range 3 {
			streams = append(streams, p.hub.open(p.arena, &p.theirs))
		}
		p.take()
		for i := range 60 {
			var batches [][]byte
			for k := range streams {
				ms := []carnet.Measurement{beat(i*4+k, float64(100*k+i))}
				if k == 1 { // not all say all
					ms = append(ms, steps(i*4+k, float64(i)))
				}
				batches = append(batches, streams[k].seal(health, ms...))
			}
			rng.Shuffle(len(batches), func(a, b int) { batches[a], batches[b] = batches[b], batches[a] })
			p.hub.send(batches...)
			switch rng.IntN(12) {
			case 0:
				p.restart(p.arena)
			case 1:
				p.restart(p.citadel)
			case 2:
				p.proxy.drop()
			case 3:
				if err := p.arena.agent.Compact(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
			case 4:
				time.Sleep(1200 * time.Millisecond) // what is remembered is kept
			}
		}
		p.hub.send(streams[1].seal(health, steps(3600, 1)))
		p.eventually("the last comes", func() bool {
			all := p.here(p.citadel, p.ours)["steps"]
			return len(all) > 0 && all[len(all)-1].Time == steps(3600, 1).Time
		})
		for name, all := range p.here(p.citadel, p.ours) {
			used := make(map[int64]bool)
			for _, m := range all {
				if interval := m.Time / 10e9; used[interval] {
					t.Errorf("seed %d: %s has two of one interval: %v", seed, name, m)
				} else {
					used[interval] = true
				}
			}
			if len(used) < 20 {
				t.Errorf("seed %d: of 24 intervals %s has %d", seed, name, len(used))
			}
		}
	}
}
