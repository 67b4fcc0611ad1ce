package thing

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/senml"
	"carnet/td"
)

func TestRefusals(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	now := time.Now()
	at := func(m carnet.Measurement, by time.Duration) carnet.Measurement {
		m.Time = now.Add(by).UnixNano()
		return m
	}
	good := heart(now.Add(-time.Second), 60)
	for _, row := range []struct {
		code carnet.Code
		says string
		ms   []carnet.Measurement
	}{
		{carnet.UnknownProperty, "pulse", []carnet.Measurement{{Name: "pulse", Time: now.UnixNano(), Value: carnet.Float(1)}}},
		{carnet.WrongType, "heart_rate", []carnet.Measurement{{Name: "heart_rate", Time: now.UnixNano(), Value: carnet.String("60")}}},
		{carnet.WrongUnit, "beat/min", []carnet.Measurement{{Name: "heart_rate", Unit: "Hz", Time: now.UnixNano(), Value: carnet.Float(1)}}},
		{carnet.OutOfRange, "254", []carnet.Measurement{heart(now, 255)}},
		{carnet.Incomplete, "position", []carnet.Measurement{{Name: "position/lat", Unit: "lat", Time: now.UnixNano(), Value: carnet.Float(1)}}},
		{carnet.TooOld, "at most 30 days", []carnet.Measurement{at(good, -31*24*time.Hour)}},
		{carnet.TooNew, "clock", []carnet.Measurement{at(good, 6*time.Minute)}},
	} {
		d.submit(append([]carnet.Measurement{good}, row.ms...)...)
		o := d.outcome()
		if o.Refused == nil || o.Retry != nil || o.Refused.Code != row.code || !strings.Contains(o.Refused.Error(), row.says) {
			t.Errorf("%s: outcome %v, %v; want it to say %q", row.code, o.Refused, o.Retry, row.says)
		}
		refusals, err := h.agent.Refusals(t.Context(), d.id, 1)
		if err != nil || len(refusals) != 1 || refusals[0].Code != row.code || refusals[0].Reason != o.Refused.Reason || !strings.Contains(refusals[0].Sent, "heart_rate") {
			t.Errorf("%s is recorded as %+v, %v", row.code, refusals, err)
		}
	}
	for payload, code := range map[string]carnet.Code{"[{": carnet.Malformed, strings.Repeat(" ", 300<<10): carnet.TooLarge} {
		d.session.Submit(senml.JSON, []byte(payload), d, 0)
		if o := d.outcome(); o.Refused == nil || o.Refused.Code != code {
			t.Errorf("%.5q: outcome %v", payload, o.Refused)
		}
	}
	if logged := h.logged(d.id); len(logged) != 0 {
		t.Errorf("of refused messages the log holds %+v", logged)
	}
	d.send(good) // what came in a refused message is no duplicate
	if logged := h.logged(d.id); len(logged) != 1 {
		t.Errorf("the log holds %d measurements, want 1", len(logged))
	}
}

func TestDuplicates(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	start := time.Now().Add(-time.Hour)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }
	count := func(what string, want int) {
		t.Helper()
		if n := len(h.logged(d.id)); n != want {
			t.Errorf("%s: the log holds %d measurements, want %d", what, n, want)
		}
	}
	d.send(heart(at(1), 60), heart(at(2), 61))
	d.send(heart(at(1), 60), heart(at(2), 61))
	count("the same message again", 2)
	d.send(heart(at(2), 61), heart(at(3), 62))
	count("half of it again", 3)
	d.send(heart(at(3), 99))
	count("another value at the newest time", 4)
	d.send(heart(at(3), 99), heart(at(3), 98), heart(at(3), 98))
	count("twice in one message", 5)
	d.send(heart(at(-3600), 50))
	d.send(heart(at(-3600), 50))
	count("late data", 6)
	d.send(steps(at(3), 99))
	count("another property", 7)
	for i := range maxSets + 2 { // more late buckets than are held
		d.send(heart(at(-10_000-1000*i), 50))
	}
	for i := range maxSets + 2 {
		d.again().send(heart(at(-10_000-1000*i), 50))
	}
	count("many buckets", 7+maxSets+2)
	h.restart()
	d = d.again()
	d.send(heart(at(1), 60), heart(at(3), 98), heart(at(-3600), 50), steps(at(3), 99))
	count("after a restart", 7+maxSets+2)
	h.stop()
	h.store.failing(nil)
	if d := h.store.documents[kindSeen+"/"+allSeen]; d.Version == 0 {
		t.Error("the high-water times are not saved at the end")
	}
}

func TestSessionsOfOneThingStoreOnce(t *testing.T) {
	h := newHub(t)
	first := h.add(td.Watch())
	start := time.Now().Add(-time.Hour)
	var wg sync.WaitGroup
	for range 4 {
		d := first.again()
		wg.Go(func() {
			for i := range 300 {
				d.submit(heart(start.Add(time.Duration(i^5)*time.Second), float64(i%200)))
				if o := <-d.done; o != (Outcome{}) {
					t.Errorf("outcome %+v", o)
				}
			}
		})
	}
	wg.Wait()
	if n := len(h.logged(first.id)); n != 300 {
		t.Errorf("the log holds %d measurements, want 300", n)
	}
}

func TestNothingIsAcknowledgedBeforeItIsOnDisk(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	proceed, reached := make(chan struct{}), make(chan struct{}, 100)
	h.store.failing(func(g *Group) error {
		if g.Log != nil || len(g.Refusals) > 0 {
			reached <- struct{}{}
			<-proceed
		}
		return nil
	})
	now := time.Now()
	for i := range 5 {
		d.submit(heart(now.Add(time.Duration(i-10)*time.Second), 60))
	}
	d.submit(heart(now, 255))
	<-reached
	if len(d.done) != 0 {
		t.Fatal("a message is acknowledged before its group is on disk")
	}
	close(proceed)
	for range 6 {
		d.outcome()
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if rows := len(h.store.log); rows > 3 {
		t.Errorf("5 messages make %d rows", rows)
	}
}

// TestNoSpace has sessions at work, late data among it, when the store becomes
// full: nobody is stuck, nothing counts as stored that isn't.
func TestNoSpace(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	start := time.Now().Add(-time.Hour)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }
	d.send(heart(at(0), 60))
	full := carnet.Errorf(carnet.NoSpace, "full")
	entered, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.store.failing(func(*Group) error {
		once.Do(func() { close(entered); <-proceed })
		return full
	})
	d.submit(heart(at(1), 61))
	<-entered
	// A look-up for the same thing now waits for a group behind the one that fails.
	late := d.again()
	waiting := make(chan struct{})
	go func() { close(waiting); late.submit(heart(at(-1), 59)) }()
	<-waiting
	for h.agent.thing1(t, d.id).mu.TryLock() {
		h.agent.thing1(t, d.id).mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	close(proceed)
	for _, d := range []*device{d, late} {
		if o := d.outcome(); o.Retry == nil || o.Retry.Code != carnet.NoSpace && o.Retry.Code != carnet.Unavailable {
			t.Errorf("outcome %+v without space", o)
		}
	}
	d.submit(heart(at(2), 62))
	if o := d.outcome(); o.Retry == nil || o.Retry.Code != carnet.NoSpace {
		t.Errorf("outcome %+v without space", o)
	}
	h.store.failing(nil)
	for i := -1; i <= 2; i++ {
		for {
			d.submit(heart(at(i), float64(60+i)))
			if o := d.outcome(); o.Retry == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if n := len(h.logged(d.id)); n != 4 {
		t.Errorf("the log holds %d measurements, want 4", n)
	}
}

func (a *Agent) thing1(t *testing.T, id carnet.ThingID) *Thing {
	found, err := a.thing(id)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEveryMessageHasAnOutcome: when the agent ends, and when its store fails.
func TestEveryMessageHasAnOutcome(t *testing.T) {
	for name, fails := range map[string]bool{"stop": false, "failure": true} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			d := h.add(td.Watch())
			entered, proceed := make(chan struct{}), make(chan struct{})
			var once sync.Once
			h.store.failing(func(*Group) error {
				once.Do(func() { close(entered); <-proceed })
				if fails {
					return carnet.Errorf(carnet.Unavailable, "the disk is gone")
				}
				return nil
			})
			start := time.Now().Add(-time.Hour)
			d.submit(heart(start, 60))
			<-entered
			for i := range 10 {
				d.submit(heart(start.Add(time.Duration(i+1)*time.Second), 60))
			}
			close(proceed)
			h.stop()
			for range 11 {
				if o := d.outcome(); (o.Retry != nil) != fails {
					t.Errorf("outcome %+v", o)
				}
			}
			d.submit(heart(start.Add(time.Minute), 60))
			if o := d.outcome(); o.Retry == nil {
				t.Error("a message is taken after the end")
			}
			if (h.err != nil) != fails {
				t.Errorf("Run ends with %v", h.err)
			}
			if len(d.done) > 0 {
				t.Error("a message has two outcomes")
			}
		})
	}
}

func TestAChangeThatConflictsHarmsNobodyElse(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	foreign := carnet.Document{Kind: kindThing, ID: string(d.id), Version: 7}
	proceed := make(chan struct{})
	var once sync.Once
	h.store.failing(func(*Group) error { once.Do(func() { <-proceed }); return nil })
	d.submit(heart(time.Now(), 60))
	answer := make(chan error)
	go func() { answer <- h.agent.change(t.Context(), []carnet.Document{foreign}, nil) }()
	d.submit(heart(time.Now(), 61))
	close(proceed)
	if err := <-answer; carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the change ends with %v", err)
	}
	for range 2 {
		if o := d.outcome(); o != (Outcome{}) {
			t.Errorf("outcome %+v", o)
		}
	}
}

func TestTrimming(t *testing.T) {
	h := newHub(t)
	h.stop()
	var ahead atomic.Int64 // of the real clock
	h.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	h.start()
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	for day := range 5 {
		d.send(heart(h.now(), float64(60+day)))
		ahead.Add(int64(24 * time.Hour))
	}
	h.world.untilHolds(5)
	h.world.disconnect()
	d.send(heart(h.now(), 70)) // the world is away
	ahead.Add(int64(100 * 24 * time.Hour))
	if err := h.agent.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(h.logged(d.id)); n != 1 {
		t.Errorf("the log holds %d measurements, want the one that the world lacks", n)
	}
	for k, s := range h.agent.index.buckets {
		if s.first < 6 {
			t.Errorf("the index holds %v for %v, which is trimmed", s, k)
		}
	}
	h.restart()
	h.connect()
	h.world.untilHolds(6)
	if got := h.world.values(m.Stream, "heart_rate"); len(got) != 6 {
		t.Errorf("the world holds %d", len(got))
	}
	h.world.disconnect() // for ever
	d = d.again()
	d.send(heart(h.now(), 80))
	if _, err := h.agent.Unmap(t.Context(), "ann", m.ID); err != nil {
		t.Fatal(err)
	}
	stopped, err := h.agent.Views(m.ID)
	if err != nil || stopped[len(stopped)-1].By != "ann" {
		t.Fatal(stopped, err)
	}
	if info, err := h.agent.Unmap(t.Context(), "bob", m.ID); err != nil || !info.Stopped {
		t.Errorf("stopped again: %+v, %v", info, err)
	}
	if again, err := h.agent.Views(m.ID); err != nil || len(again) != len(stopped) {
		t.Errorf("stopped again, the views are %+v, %v", again, err)
	}
	ahead.Add(int64(100 * 24 * time.Hour))
	if err := h.agent.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(h.logged(d.id)); n != 0 {
		t.Errorf("the log holds %d measurements for a world that gets nothing more", n)
	}
	h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect() // it came back all the same
	d.send(heart(h.now(), 81))
	h.world.untilHolds(7)
}

func TestConfigIsChecked(t *testing.T) {
	h := newHub(t)
	judge := h.agent.judge
	_, err := New(t.Context(), Config{Party: "hub", Store: newMemory(), Keys: h.table, Judge: judge, Recorded: func() {}, KeepLog: 24 * time.Hour})
	if carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a log kept for a day: %v", err)
	}
}

// TestTimesThatWereNotSavedAreSavedLater: a start must not take for saved what
// was not.
func TestTimesThatWereNotSavedAreSavedLater(t *testing.T) {
	h := newHub(t)
	a, b := h.add(td.Watch()), h.add(td.Watch())
	at := time.Now().Add(-time.Minute)
	a.send(heart(at, 60))
	h.store.failing(func(g *Group) error {
		if len(g.Documents) > 0 {
			return carnet.Errorf(carnet.Conflict, "not now")
		}
		return nil
	})
	if err := h.agent.saveSeen(t.Context()); err == nil {
		t.Fatal("the times are saved by a store that refuses them")
	}
	h.store.failing(nil)
	b.send(heart(at, 60))
	h.restart()
	a.again().send(heart(at, 60))
	if n := len(h.logged(a.id)); n != 1 {
		t.Errorf("the log holds %d measurements, want 1", n)
	}
}
