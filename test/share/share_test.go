package share_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/crossing"
)

var (
	public0 = carnet.Label{}
	health  = carnet.Label{Sensitivity: carnet.Health}
	place   = carnet.Label{Sensitivity: carnet.Location}
)

// beat is a heart rate at a second.
func beat(second int, v float64) carnet.Measurement {
	return carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: start.Add(time.Duration(second) * time.Second).UnixNano(), Value: carnet.Float(v)}
}

func steps(second int, v float64) carnet.Measurement {
	return carnet.Measurement{Name: "steps", Time: start.Add(time.Duration(second) * time.Second).UnixNano(), Value: carnet.Float(v)}
}

var start = time.Now().Add(-30 * time.Minute).Truncate(time.Minute)

// What a view shows as it is comes as the batches that hub sealed; what it rounds
// or leaves out comes as batches of a stream of arena's. Nothing else comes, and
// nothing from before the share.
func TestShare(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.hub.send(s.seal(health, beat(0, 60)))
	if _, err := p.arena.agent.Heads(p.theirs); err != nil {
		t.Fatal(err)
	}
	p.eventually("arena has what came before", func() bool { return len(p.here(p.arena, p.theirs)["heart_rate"]) == 1 })
	taken := p.take()
	if taken.State != crossing.Taking || taken.Answer == nil {
		t.Fatalf("the share is %s", taken.State)
	}
	whole := s.seal(health, beat(1, 61), beat(2, 62))
	p.hub.send(whole, s.seal(public0, steps(1, 14), steps(2, 26)))
	p.hub.send(s.seal(health, beat(3, 63), steps(3, 31)), s.seal(public0, carnet.Measurement{Name: "stress", Time: start.UnixNano(), Value: carnet.Float(1)}))
	p.hub.send(s.seal(place, beat(4, 64)))
	p.hub.send(s.seal(health, beat(5, 65)))
	p.eventually("citadel has the last", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) >= 4 })
	got := p.here(p.citadel, p.ours)
	if want := []carnet.Measurement{beat(1, 61), beat(2, 62), beat(3, 63), beat(5, 65)}; !slices.Equal(got["heart_rate"], want) {
		t.Errorf("heart rates %v, want %v", got["heart_rate"], want)
	}
	if want := []carnet.Measurement{steps(1, 10), steps(2, 30), steps(3, 30)}; !slices.Equal(got["steps"], want) {
		t.Errorf("steps %v, want %v", got["steps"], want)
	}
	if len(got) != 2 {
		t.Errorf("more comes than the view shows: %v", got)
	}
	if _, err := os.Stat(p.citadel.file()); err != nil {
		t.Fatal(err)
	}
	heads, err := p.citadel.agent.Heads(p.ours)
	if err != nil {
		t.Fatal(err)
	}
	if heads[s.id] != s.first || len(heads) != 3 {
		t.Errorf("citadel's streams stand at %v: want hub's copied up to %d, one derived, and its own", heads, s.first)
	}
	if n := p.citadel.agent.Defects(); n != 0 {
		t.Errorf("%d batches are refused", n)
	}
}

// Of names of properties that can't be beside each other the first stays, and the taker
// gets nothing of the others.
func TestShareOfOddNames(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "position": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	odd := func(name string) carnet.Measurement {
		return carnet.Measurement{Name: name, Time: start.UnixNano(), Value: carnet.Float(1)}
	}
	p.hub.send(s.seal(public0, odd("position/lat")), s.seal(public0, odd("position")), s.seal(health, beat(1, 61)))
	p.eventually("citadel has the heart rate", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) == 1 })
	if got := p.here(p.citadel, p.ours); len(got) != 2 || len(got["position/lat"]) != 1 {
		t.Errorf("citadel has %v", got)
	}
	if p.arena.shares.Given()[0].End != nil {
		t.Error("the share has ended")
	}
}

// Whatever is stopped, cut or lost meanwhile, the taker has what the view admits,
// once and in order.
func TestShareThroughFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10, "rate": "4s"}}}`)
			throughFaults(t, p, rand.New(rand.NewPCG(seed, 5)))
		})
	}
}

func throughFaults(t *testing.T, p *pair, rng *rand.Rand) {
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	var beats, all []carnet.Measurement
	second := 0
	for range 120 {
		switch rng.IntN(12) {
		case 0:
			p.restart(p.arena)
		case 1:
			p.restart(p.citadel)
		case 2, 3:
			p.proxy.drop()
		case 4:
			if err := []*world{p.arena, p.citadel}[rng.IntN(2)].agent.Compact(t.Context(), 1); err != nil && carnet.CodeOf(err) == "" {
				t.Fatal(err)
			}
		case 5:
			time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
		}
		var batches [][]byte
		for range 1 + rng.IntN(3) {
			var ms []carnet.Measurement
			for range 1 + rng.IntN(6) {
				second++
				if rng.IntN(2) == 0 {
					ms = append(ms, beat(second, float64(60+second%50)))
					beats = append(beats, ms[len(ms)-1])
				}
				if rng.IntN(3) > 0 {
					ms = append(ms, steps(second, float64(second)))
					all = append(all, ms[len(ms)-1])
				}
			}
			if len(ms) > 0 {
				batches = append(batches, s.seal(health, ms...))
			}
		}
		if len(batches) > 0 {
			p.hub.send(batches...)
		}
	}
	want := every(4*time.Second, all)
	p.eventually("citadel has everything", func() bool {
		got := p.here(p.citadel, p.ours)
		return len(got["heart_rate"]) >= len(beats) && len(got["steps"]) >= len(want)
	})
	got := p.here(p.citadel, p.ours)
	if !slices.Equal(got["heart_rate"], beats) {
		t.Errorf("%d heart rates, want %d: from the first difference on %v, want %v", len(got["heart_rate"]), len(beats),
			differ(got["heart_rate"], beats), differ(beats, got["heart_rate"]))
	}
	if !slices.Equal(got["steps"], want) {
		t.Errorf("%d steps, want %d: from the first difference on %v, want %v", len(got["steps"]), len(want), differ(got["steps"], want), differ(want, got["steps"]))
	}
	if n := p.citadel.agent.Defects(); n != 0 {
		t.Errorf("%d batches are refused", n)
	}
}

// every is the first of each interval, to the nearest ten.
func every(rate time.Duration, ms []carnet.Measurement) (out []carnet.Measurement) {
	last := int64(math.MinInt64)
	for _, m := range ms {
		if interval := m.Time / int64(rate); interval > last {
			last = interval
			m.Value.Num = math.Round(m.Value.Num/10) * 10
			out = append(out, m)
		}
	}
	return out
}

func differ(p, q []carnet.Measurement) []carnet.Measurement {
	i := 0
	for i < len(p) && i < len(q) && p[i] == q[i] {
		i++
	}
	return p[i:min(len(p), i+3)]
}

// An end at the giver is told to the taker, once it can be: nothing that the giver
// gets afterwards comes, however the worlds are stopped meanwhile.
func TestShareEnds(t *testing.T) {
	for name, end := range map[string]func(*pair, crossing.Taken) error{
		"by the giver": func(p *pair, s crossing.Taken) error {
			return p.arena.shares.StopGiving(p.t.Context(), s.ID, "operator", "enough")
		},
		"by the taker": func(p *pair, s crossing.Taken) error {
			return p.citadel.shares.StopTaking(p.t.Context(), s.ID, "operator", "enough")
		},
		"with what it lives by": func(p *pair, s crossing.Taken) error { p.permits.set(carnet.Forbidden); return nil },
		"while citadel is stopped": func(p *pair, s crossing.Taken) error {
			p.citadel.stop()
			err := p.arena.shares.StopGiving(p.t.Context(), s.ID, "operator", "enough")
			p.start(p.citadel)
			return err
		},
		"and arena is stopped then": func(p *pair, s crossing.Taken) error {
			p.proxy.cut.Store(true)
			p.proxy.drop()
			err := p.arena.shares.StopGiving(p.t.Context(), s.ID, "operator", "enough")
			p.restart(p.arena)
			p.proxy.cut.Store(false)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10}}}`)
			s := p.hub.open(p.arena, &p.theirs)
			share := p.take()
			p.hub.send(s.seal(health, beat(1, 61)), s.seal(health, steps(1, 11)))
			p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)) == 2 })
			if err := end(p, share); err != nil {
				t.Fatal(err)
			}
			p.eventually("both sides have ended it", func() bool {
				given, taken := p.arena.shares.Given(), p.citadel.shares.Taken()
				return len(given) == 1 && given[0].End != nil && taken[0].State == crossing.Ended && taken[0].End != nil && taken[0].End.Why != ""
			})
			p.hub.send(s.seal(health, beat(2, 62)), s.seal(health, steps(2, 12)))
			p.eventually("arena has the second", func() bool { return len(p.here(p.arena, p.theirs)["heart_rate"]) == 2 })
			p.restart(p.arena)
			p.permits.err.Store(nil)
			again := p.take() // a new share goes on from now
			p.hub.send(s.seal(health, beat(3, 63)))
			p.eventually("citadel has the third", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) >= 2 })
			if got, want := p.here(p.citadel, p.ours)["heart_rate"], []carnet.Measurement{beat(1, 61), beat(3, 63)}; !slices.Equal(got, want) {
				t.Errorf("heart rates %v, want %v", got, want)
			}
			if again.ID == share.ID {
				t.Error("a share that has ended is given again")
			}
		})
	}
}

// What isn't known to hold is not sent, and goes on where it stood when it is known
// again.
func TestShareWaitsForRevocations(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)) == 1 })
	p.permits.set(carnet.Unavailable)
	p.eventually("the share waits", func() bool { return p.arena.shares.Waits(p.arena.shares.Given()[0].ID) })
	p.hub.send(s.seal(health, beat(2, 62)))
	p.eventually("arena has the second", func() bool { return len(p.here(p.arena, p.theirs)["heart_rate"]) == 2 })
	time.Sleep(time.Second) // many times as long as a measurement takes
	if n := len(p.here(p.citadel, p.ours)["heart_rate"]); n != 1 {
		t.Errorf("%d measurements came", n)
	}
	p.permits.err.Store(nil)
	p.eventually("citadel has the second", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) == 2 })
}

// A question whose answer is lost is put again; it is one share.
// A giver that has just started says no to everybody for a moment; that ends nothing.
func TestShareAskedAgain(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.ask().(*asker).lose.Store(1 << 30)
	if share := p.take(); share.State != crossing.Asked {
		t.Errorf("the share is %s without an answer", share.State)
	}
	p.restart(p.citadel)
	p.ask().(*asker).deny.Store(2)
	p.ask().(*asker).lose.Store(0)
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("the share is taken", func() bool { return p.citadel.shares.Taken()[0].State == crossing.Taking })
	p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)) == 1 })
	if n := len(p.arena.shares.Given()); n != 1 {
		t.Errorf("%d shares are given", n)
	}
}

// A giver is believed that says no so often, as one process: what those before have said
// ends nothing.
func TestAShareOutlivesAGiverThatStartsOverAndOver(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	ask := p.ask().(*asker)
	ask.lose.Store(1 << 30)
	p.take()
	for range 3 {
		const all = 1 << 20
		ask.deny.Store(all)
		p.eventually("arena says no", func() bool { return ask.deny.Load() < all-5 })
		again := make(chan struct{})
		hang := func() { <-again }
		ask.hang.Store(&hang)
		p.restart(p.arena)
		p.eventually("arena is connected", func() bool { return p.sender.Status().Connected })
		ask.hang.Store(nil)
		close(again)
	}
	if share := p.citadel.shares.Taken()[0]; share.State != crossing.Asked {
		t.Fatalf("the share is %+v", share)
	}
	p.eventually("it is believed", func() bool { return p.citadel.shares.Taken()[0].State == crossing.Ended })
}

// What is refused for good ends the share at the taker, with the giver's reason.
func TestShareRefused(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	p.permits.set(carnet.Forbidden)
	share, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, p.ours, "fitness")
	if carnet.CodeOf(err) != carnet.Forbidden || share.State != crossing.Ended || share.End == nil {
		t.Errorf("%+v, %v", share, err)
	}
	if _, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, carnet.NewAvatarID(), "fitness"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a share for no avatar: %v", err)
	}
	p.permits.err.Store(nil)
	q := crossing.Question{ID: carnet.NewShareID(), Avatar: carnet.NewAvatarID(), For: p.ours, Purpose: "fitness"}
	if _, err := p.ask().Ask(t.Context(), "arena", q); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a share of no avatar: %v", err)
	}
	q.Avatar = p.theirs
	if _, err := p.ask().Ask(t.Context(), "arena", q); err != nil {
		t.Fatal(err)
	}
	q.Purpose = "care"
	if _, err := p.ask().Ask(t.Context(), "arena", q); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the same share for something else: %v", err)
	}
	// The giver has a share that the taker doesn't know: it ends when there is
	// something to send.
	s := p.hub.open(p.arena, &p.theirs)
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("the giver has ended it", func() bool { return p.arena.shares.Given()[0].End != nil })
	if n := len(p.here(p.citadel, p.ours)); n != 0 {
		t.Errorf("%d properties came", n)
	}
}

// What a restored world loses and what comes of its shares: rows H11 of share.md.
// Each case has a copy made at some moment, and gives it back at another.

// restored is a share through which a beat and a step come each second; of steps,
// which are rounded, the first of two seconds.
type restored struct {
	*pair
	s      *stream
	beats  []carnet.Measurement
	counts []carnet.Measurement
}

func newRestored(t *testing.T) *restored {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10, "rate": "2s"}}}`)
	return &restored{pair: p, s: p.hub.open(p.arena, &p.theirs)}
}

// say has hub send seconds of the thing, each in two batches.
func (r *restored) say(n int) {
	r.t.Helper()
	for range n {
		second := len(r.beats) + 1
		r.beats = append(r.beats, beat(second, float64(60+second)))
		r.counts = append(r.counts, steps(second, float64(second)))
		r.hub.send(r.s.seal(health, r.beats[second-1]), r.s.seal(health, r.counts[second-1]))
	}
}

// arrived waits until citadel has it all, and wants it once.
func (r *restored) arrived() {
	r.t.Helper()
	r.eventually("citadel has it", func() bool { return len(r.here(r.citadel, r.ours)["heart_rate"]) >= len(r.beats) })
	if got := r.here(r.citadel, r.ours)["heart_rate"]; !slices.Equal(got, r.beats) {
		r.t.Errorf("%d heart rates, want %d: from the first difference on %v, want %v", len(got), len(r.beats), differ(got, r.beats), differ(r.beats, got))
	}
	if n := r.citadel.agent.Defects(); n != 0 {
		r.t.Errorf("%d batches are refused", n)
	}
}

// stepsAreExact wants all steps that the view admits, once.
func (r *restored) stepsAreExact() {
	r.t.Helper()
	want := every(2*time.Second, r.counts)
	r.eventually("citadel has the steps", func() bool { return len(r.here(r.citadel, r.ours)["steps"]) >= len(want) })
	if got := r.here(r.citadel, r.ours)["steps"]; !slices.Equal(got, want) {
		r.t.Errorf("%d steps, want %d: from the first difference on %v, want %v", len(got), len(want), differ(got, want), differ(want, got))
	}
}

// stepsAreBound wants steps, and no two in one interval.
func (r *restored) stepsAreBound() {
	r.t.Helper()
	got := r.here(r.citadel, r.ours)["steps"]
	if len(got) < len(r.counts)/3 { // every second would be all
		r.t.Errorf("citadel has steps in %d intervals of %d seconds", len(got), len(r.counts))
	}
	for i, m := range got {
		if i > 0 && m.Time/int64(2*time.Second) == got[i-1].Time/int64(2*time.Second) {
			r.t.Errorf("two steps in one interval: %v, %v", got[i-1], m)
		}
	}
}

// givenEnds waits until a side has ended the share.
func (r *restored) givenEnds() {
	r.t.Helper()
	r.eventually("arena has ended the share", func() bool {
		all := r.arena.shares.Given()
		return len(all) == 1 && all[0].End != nil
	})
}

func (r *restored) takenEnds() {
	r.t.Helper()
	r.eventually("citadel has ended the share", func() bool {
		all := r.citadel.shares.Taken()
		return len(all) == 1 && all[0].State == crossing.Ended
	})
}

func TestShareWithARestoredTaker(t *testing.T) {
	t.Run("taking", func(t *testing.T) {
		r := newRestored(t)
		r.take()
		r.say(5)
		r.arrived()
		back := r.copied(r.citadel)
		r.say(5)
		r.arrived()
		back()
		r.say(5)
		r.arrived()
		r.stepsAreBound()
	})
	t.Run("before it asked", func(t *testing.T) {
		r := newRestored(t)
		back := r.copied(r.citadel)
		r.take()
		r.say(5)
		r.arrived()
		back()
		r.say(5)
		r.givenEnds()
		if got := r.here(r.citadel, r.ours); len(got) != 0 || len(r.citadel.shares.Taken()) != 0 {
			t.Errorf("citadel has %v of a share that it doesn't know", got)
		}
	})
	t.Run("before the answer", func(t *testing.T) {
		r := newRestored(t)
		r.ask().(*asker).lose.Store(1 << 30)
		asked := r.take()
		back := r.copied(r.citadel)
		r.ask().(*asker).lose.Store(0)
		r.eventually("citadel takes", func() bool { return r.citadel.shares.Taken()[0].State == crossing.Taking })
		r.say(5)
		r.arrived()
		back()
		r.say(5)
		r.arrived()
		if all := r.citadel.shares.Taken(); len(all) != 1 || all[0].State != crossing.Taking || all[0].ID != asked.ID {
			t.Errorf("citadel takes %+v", all)
		}
		r.stepsAreBound()
	})
	t.Run("before the end", func(t *testing.T) {
		r := newRestored(t)
		share := r.take()
		r.say(5)
		r.arrived()
		back := r.copied(r.citadel)
		if err := r.arena.shares.StopGiving(t.Context(), share.ID, "operator", "enough"); err != nil {
			t.Fatal(err)
		}
		r.takenEnds()
		back()
		r.takenEnds() // it asks again, and hears no
	})
}

func TestShareWithARestoredGiver(t *testing.T) {
	// Citadel lacks the last that arena had; hub sends it again in the batch of what
	// citadel has.
	backWithin := func(r *restored, back func()) {
		r.proxy.cut.Store(true)
		r.proxy.drop()
		r.say(3)
		back()
		r.proxy.cut.Store(false)
		r.arrived()
		r.say(30) // until batches have numbers that are new to citadel, too
		r.arrived()
		r.stepsAreExact()
	}
	t.Run("giving", func(t *testing.T) {
		r := newRestored(t)
		r.take()
		r.say(5)
		r.arrived()
		back := r.copied(r.arena)
		r.say(5)
		r.arrived()
		backWithin(r, back)
		heads, err := r.citadel.agent.Heads(r.ours)
		if err != nil {
			t.Fatal(err)
		}
		if heads[r.s.id] < uint64(2*len(r.beats)-1) {
			t.Errorf("citadel's copy of the stream stands at %d of %d: nothing is copied any more", heads[r.s.id], 2*len(r.beats))
		}
	})
	t.Run("before anything was derived", func(t *testing.T) {
		r := newRestored(t)
		r.take()
		back := r.copied(r.arena)
		r.say(5)
		r.arrived()
		backWithin(r, back)
	})
	t.Run("twice", func(t *testing.T) {
		r := newRestored(t)
		r.take()
		r.say(5)
		r.arrived()
		back := r.copied(r.arena)
		r.say(5)
		r.arrived()
		backWithin(r, back)
		r.restart(r.arena)
		r.say(5)
		r.arrived()
		backWithin(r, back)
	})
	t.Run("before the share", func(t *testing.T) {
		r := newRestored(t)
		back := r.copied(r.arena)
		share := r.take()
		r.say(5)
		r.arrived()
		back()
		r.eventually("arena has the share", func() bool { return len(r.arena.shares.Given()) == 1 })
		r.say(5)
		r.arrived()
		r.stepsAreBound()
		if all := r.arena.shares.Given(); all[0].ID != share.ID || all[0].End != nil {
			t.Errorf("arena gives %+v", all)
		}
	})
	t.Run("before the end", func(t *testing.T) {
		r := newRestored(t)
		share := r.take()
		r.say(5)
		r.arrived()
		back := r.copied(r.arena)
		if err := r.arena.shares.StopGiving(t.Context(), share.ID, "operator", "enough"); err != nil {
			t.Fatal(err)
		}
		r.takenEnds()
		back()
		r.hub.send(r.s.seal(health, beat(99, 99)))
		r.givenEnds()
		r.arrived() // and nothing more
	})
}

func (p *permits) set(code carnet.Code) {
	var err error = carnet.Errorf(code, "it doesn't hold")
	p.err.Store(&err)
}
