// Package spine_test runs a things agent and a world over a real link and real
// stores, in one process, and stops, restarts and restores them.
package spine_test

import (
	"os"
	"testing"
	"time"

	"carnet"
)

func heart(at time.Time, bpm float64) carnet.Measurement {
	return carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: at.UnixNano(), Value: carnet.Float(bpm)}
}

func TestMeasurementsReachTheWorldAsTheViewAllows(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{"round":5,"rate":"1s"}}}`)
	d := p.device(id, password)
	start := time.Now().Truncate(time.Second).Add(-time.Minute)
	for i := range 20 {
		d.mustSend(heart(start.Add(time.Duration(i)*500*time.Millisecond), 61+float64(i)),
			carnet.Measurement{Name: "steps", Time: start.Add(time.Duration(i) * time.Second).UnixNano(), Value: carnet.Float(float64(i))})
	}
	p.eventually("ten measurements arrive", func() bool { return len(p.held(m.Avatar)) == 10 })
	for i, h := range p.held(m.Avatar) {
		want := []float64{60, 65, 65, 65, 70, 70, 75, 75, 75, 80}[i]
		if h.Measurement.Name != "heart_rate" || h.Measurement.Value != carnet.Float(want) || h.Number != uint64(i) {
			t.Errorf("measurement %d is %+v, want a heart rate of %v", i, h, want)
		}
	}
	info, err := p.agent.Mapping(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Got[0]; got.Property != "heart_rate" || got.Sent != 10 || got.Withheld["rate"] != 10 {
		t.Errorf("the agent counts %+v", got)
	}
}

func TestDuplicatesAreStoredOnce(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{}}}`)
	d := p.device(id, password)
	start := time.Now().Add(-time.Minute)
	for range 3 {
		for i := range 5 {
			d.mustSend(heart(start.Add(time.Duration(i)*time.Second), 60))
		}
	}
	d.mustSend(heart(start.Add(2*time.Second), 99)) // another value at a known time is another measurement
	p.eventually("six measurements arrive", func() bool { return len(p.held(m.Avatar)) >= 6 })
	if n := len(p.held(m.Avatar)); n != 6 {
		t.Errorf("the world holds %d measurements, want 6", n)
	}
}

func TestRestartsLoseAndDoubleNothing(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{}}}`)
	start := time.Now().Add(-time.Hour)
	n := 0
	for round := range 6 {
		d := p.device(id, password)
		for range 50 {
			d.mustSend(heart(start.Add(time.Duration(n)*time.Second), float64(60+n%100)))
			n++
		}
		if round%2 == 0 {
			p.hub.close()
			p.hub.reopen()
			p.startHub()
		} else {
			p.arena.close()
			p.arena.reopen()
			p.startWorld()
		}
	}
	p.eventually("everything arrives", func() bool { return len(p.held(m.Avatar)) >= n })
	checkRun(t, p, m.Avatar, n)
}

// checkRun checks that the world holds n heart rates, a second apart, each once.
func checkRun(t *testing.T, p *pair, id carnet.AvatarID, n int) {
	t.Helper()
	numbers, times := map[uint64]bool{}, map[int64]bool{}
	for _, h := range p.held(id) {
		if numbers[h.Number] || times[h.Measurement.Time] {
			t.Errorf("measurement %d comes twice", h.Number)
		}
		numbers[h.Number], times[h.Measurement.Time] = true, true
	}
	if len(times) != n {
		t.Errorf("the world holds %d measurements, want %d", len(times), n)
	}
}

// copyStore keeps a copy of a stopped party's stores; restore puts it back.
func (p *party) copyStore() (restore func()) {
	files := map[string][]byte{}
	for _, name := range []string{"state.db", "keys.db"} {
		b, err := os.ReadFile(p.path(name))
		if err != nil {
			p.t.Fatal(err)
		}
		files[name] = b
	}
	return func() {
		for name, b := range files {
			for _, suffix := range []string{"-wal", "-shm"} {
				os.Remove(p.path(name + suffix))
			}
			if err := os.WriteFile(p.path(name), b, 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// TestAnAgentRestoredFromAnOlderCopyGoesOn: what the world has stays, what comes
// after the restore arrives, also what came before the world was reached again,
// a rate limit holds, and a statement says what the agent has no record of.
func TestAnAgentRestoredFromAnOlderCopyGoesOn(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{"rate":"10s"}}}`)
	start := time.Now().Add(-time.Hour).Truncate(10 * time.Second)
	n := 0
	send := func(count int) {
		d := p.device(id, password)
		for range count {
			// Two in each interval: the second one is withheld.
			d.mustSend(heart(start.Add(time.Duration(n)*10*time.Second), 60), heart(start.Add(time.Duration(n)*10*time.Second+time.Second), 61))
			n++
		}
	}
	send(20)
	p.eventually("20 arrive", func() bool { return len(p.held(m.Avatar)) == 20 })
	p.hub.close()
	restore := p.hub.copyStore()
	for range 2 { // two more starts that the copy doesn't know
		p.hub.reopen()
		p.startHub()
		send(15)
		p.eventually("15 more arrive", func() bool { return len(p.held(m.Avatar)) == n })
		p.hub.close()
	}
	restore()
	p.arena.close() // the world is away when the restored agent takes its first messages
	p.hub.reopen()
	p.startHub()
	send(10)
	p.arena.reopen()
	p.startWorld()
	send(10)
	p.eventually("all arrive", func() bool { return len(p.held(m.Avatar)) >= n })
	checkRun(t, p, m.Avatar, n)
	status, err := p.agent.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.Links[0].Lag != 0 {
		t.Errorf("the link lags by %d messages", status.Links[0].Lag)
	}
}

func TestAWorldRestoredFromAnOlderCopyGetsItAgain(t *testing.T) {
	p := newPair(t)
	id, password, m := p.watch(`{"properties":{"heart_rate":{}}}`)
	start := time.Now().Add(-time.Hour)
	n := 0
	send := func(count int) {
		d := p.device(id, password)
		for range count {
			d.mustSend(heart(start.Add(time.Duration(n)*time.Second), 60))
			n++
		}
	}
	send(30)
	p.eventually("30 arrive", func() bool { return len(p.held(m.Avatar)) == 30 })
	p.arena.close()
	restore := p.arena.copyStore()
	p.arena.reopen()
	p.startWorld()
	send(30)
	p.eventually("60 arrive", func() bool { return len(p.held(m.Avatar)) == 60 })
	p.arena.close()
	restore()
	p.arena.reopen()
	p.startWorld()
	send(5)
	p.eventually("all arrive again", func() bool { return len(p.held(m.Avatar)) >= n })
	checkRun(t, p, m.Avatar, n)
}
