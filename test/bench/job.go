package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"carnet"
	"carnet/api"
	"carnet/capsule"
	"carnet/job"
	"carnet/policy"

	"golang.org/x/sync/errgroup"
)

// jobs is row 15: a module over all that four avatars said, in the world and at a DPM,
// and one job for each of them at DPMs with 1, 2 and 4 workers.
func jobs(ctx context.Context, b *bench) (all []Figure, err error) {
	measurements := uint64(10_000_000)
	if b.short {
		measurements = 400_000
	}
	workers := map[carnet.PartyID]int{"one": 1, "two": 2, "four": 4}
	s, err := b.startCast(ctx, "row15", cast{worlds: []carnet.PartyID{"arena"}, dpms: workers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	r := &jobRow{system: s, bench: b}
	if r.module, err = module(ctx, b.dir, "heartzones"); err != nil {
		return nil, err
	}
	for range 4 {
		id, err := s.history(ctx, 4, measurements/4)
		if err != nil {
			return nil, err
		}
		r.avatars = append(r.avatars, id)
	}
	fmt.Println("  the histories are made: compaction")
	s.compacted(ctx, 10*time.Minute)

	here, err := r.together(ctx, "", r.avatars)
	if err != nil {
		return nil, fmt.Errorf("in the world: %w", err)
	}
	all = append(all, here.figure("in the world"))
	for _, p := range s.dpms {
		if err := p.start(b, "row15"); err != nil {
			return all, err
		}
		if err := p.await(ctx); err != nil {
			return all, err
		}
		if p.name == "one" {
			there, err := r.together(ctx, p.name, r.avatars)
			if err != nil {
				return all, fmt.Errorf("at a DPM: %w", err)
			}
			all = append(all, there.figure("at a DPM"))
			if here.output != there.output {
				return all, fmt.Errorf("the world computes %s, and the DPM %s", here.output, there.output)
			}
		}
		var each [][]carnet.AvatarID
		for _, id := range r.avatars {
			each = append(each, []carnet.AvatarID{id})
		}
		four, err := r.together(ctx, p.name, each...)
		if err != nil {
			return all, fmt.Errorf("four jobs at %s: %w", p.name, err)
		}
		all = append(all, four.figure(fmt.Sprintf("four jobs at a DPM, workers: %d", workers[p.name])))
		if err := p.stop(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// jobRow is row 15 under way.
type jobRow struct {
	*system
	bench   *bench
	module  []byte
	avatars []carnet.AvatarID
}

// ran is what jobs took that were ordered at once.
type ran struct {
	measurements uint64
	ordering     time.Duration // until the last was ordered
	took         time.Duration // until the last had ended
	output       carnet.Fingerprint
	bytes        int64 // of the inputs
}

func (r ran) figure(name string) Figure {
	return Figure{
		Row: 15, Name: "jobs, " + name, Value: float64(r.measurements) / r.took.Seconds(), Unit: "measurements/s",
		Raw:  map[string]float64{"measurements": float64(r.measurements), "s": r.took.Seconds(), "of it ordering, s": r.ordering.Seconds(), "inputs, MB": float64(r.bytes) / 1e6},
		Note: "from the order until the last output is in the world, opened and checked; the module is compiled in it, once at each place.",
	}
}

// together orders a job over each group of avatars, all at once, and waits for them.
func (r *jobRow) together(ctx context.Context, at carnet.PartyID, groups ...[]carnet.AvatarID) (ran, error) {
	world := r.worlds[0].client
	order := func(ctx context.Context, avatars []carnet.AvatarID) (api.Job, error) {
		return world.RunJob(ctx, api.NewJob{
			At: at, Engine: "wasm", Program: r.module, Avatars: avatars, Parameters: json.RawMessage(`{"property":"a"}`),
			Limits: &capsule.Limits{Memory: 256 << 20, Milliseconds: 10 * 60 * 1000}, Within: 20 * 60,
		})
	}
	ordered := make([]api.Job, len(groups))
	begun := time.Now()
	group, ordering := errgroup.WithContext(ctx)
	for i, avatars := range groups {
		group.Go(func() (err error) {
			ordered[i], err = order(ordering, avatars)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return ran{}, fmt.Errorf("order a job: %w", err)
	}
	all := ran{ordering: time.Since(begun)}
	for _, j := range ordered {
		for j.State != job.Ended {
			var err error
			if j, err = world.Job(ctx, j.ID, true); err != nil {
				return all, err
			}
		}
		if j.Outcome != capsule.Done {
			return all, fmt.Errorf("the job is %s: %s", j.Outcome, j.Why)
		}
		for _, in := range j.Task.Inputs {
			all.bytes += in.Size
		}
		all.measurements += j.Output.Measurements
		all.output = j.Output.Fingerprint
	}
	all.took = time.Since(begun)
	return all, nil
}

// history makes an avatar in the first world of so many things, which measure at least
// so often together.
func (s *system) history(ctx context.Context, things int, measurements uint64) (id carnet.AvatarID, err error) {
	view, err := policy.ParseView([]byte(plain.views()["arena"]))
	if err != nil {
		return id, err
	}
	devices := make([]device, things)
	for i := range devices {
		added, err := s.hub.client.AddThing(ctx, api.NewThing{Owner: "owner", Description: api.Description(plain.description())})
		if err != nil {
			return id, fmt.Errorf("add a thing: %w", err)
		}
		mapping := api.NewMapping{World: s.worlds[0].name, View: view}
		if i > 0 { // all of them are one avatar's
			mapping.Avatar = &id
		}
		m, err := s.mapTo(ctx, added.ID, mapping)
		if err != nil {
			return id, fmt.Errorf("map a thing: %w", err)
		}
		id, devices[i] = m.Avatar, device{id: added.ID, password: added.Password}
	}
	l := &load{
		address: s.hub.config.Listen.MQTT, tls: s.hub.trust, devices: devices, window: 4, message: plain.messages(time.Now(), 1000), from: make([]int64, things),
		measure: 300 * time.Millisecond,
	}
	for {
		p, err := l.run(ctx)
		if err != nil {
			return id, err
		}
		if err := s.settle(ctx, 3*time.Minute); err != nil {
			return id, err
		}
		had, err := s.worlds[0].client.Avatar(ctx, id)
		if err != nil {
			return id, err
		}
		if had.Measurements >= measurements {
			return id, nil
		}
		left := float64(measurements - had.Measurements)
		l.measure = time.Duration(min(10, max(0.1, left/1000/max(1, p.rate))) * float64(time.Second))
	}
}

// module builds one of the program's modules, as make modules does.
func module(ctx context.Context, dir, name string) ([]byte, error) {
	out := filepath.Join(dir, name+".wasm")
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-buildmode=c-shared", "-o", out, "carnet/modules/"+name)
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if said, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the module %s: %w\n%s", name, err, said)
	}
	return os.ReadFile(out)
}
