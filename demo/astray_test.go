package demo

import (
	"context"
	"maps"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/seal"

	"golang.org/x/sync/errgroup"
)

// astray is how parties go astray while an act is told once more.
type astray struct {
	act   act            // that can't be done
	dpm   carnet.PartyID // gives a job next to nothing
	late  carnet.PartyID // isn't there when everything is to have been passed on
	world carnet.PartyID // has a key that belongs to nobody
}

// again starts the parties once more, and tells of them what a story tells of its end: of
// what was passed on, what devices were refused, and what is half done.
func (x *spoiled) again(a astray) {
	x.t.Helper()
	x.party(a.dpm).config.DPM.MaxMemory = 1
	x.keys(a.world, func(ctx context.Context, t *keys.Table) {
		_, err := t.Make(ctx, keys.ID{Kind: "epoch", Name: seal.NewEpoch(carnet.NewStreamID()).Path.String()})
		x.must(err)
	})
	running, stop := context.WithCancel(x.t.Context())
	defer stop()
	parties, running := errgroup.WithContext(running)
	start := func(late bool) {
		for _, p := range x.parties {
			if (p.name == a.late) == late {
				parties.Go(func() error { return p.run(running, "", x.options.Log) })
			}
		}
		for _, p := range x.parties {
			if (p.name == a.late) == late {
				x.must(p.await(running))
			}
		}
	}
	start(false)

	d := &device{sensor: x.sensors[0], options: x.options, packs: []pack{{measurements: []carnet.Measurement{{Name: "mood", Time: time.Now().UnixNano(), Value: carnet.Float(1)}}}}, done: make([]atomic.Bool, 1)}
	sending, cancel := context.WithTimeout(running, 10*time.Second)
	x.must(d.send(sending))
	cancel()
	x.played.device.Published += d.counts().Published
	x.played.device.Refused += d.counts().Refused

	script := *x.script
	script.acts = []act{a.act}
	x.script = &script
	tale := newTale(x.setup, x.options)
	maps.Copy(tale.homes, x.tale.homes)
	x.tale = tale
	tale.tell(running)

	short, cancel := context.WithTimeout(running, time.Second)
	x.played.waits = x.settle(short)
	cancel()
	start(true)
	if waits := x.settle(running); len(waits) > 0 {
		x.t.Errorf("it isn't passed on, either, once %s is there: %q", a.late, waits)
	}
	x.examine(running)
	x.must(running.Err())
	stop()
	_ = parties.Wait() // they were ended
}
