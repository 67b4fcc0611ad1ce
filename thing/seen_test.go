package thing

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/td"
)

// onReading has do called before each reading of the log, from now on.
func (h *hub) onReading(do func()) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	h.store.reading = do
}

// A message whose late measurements go back and forth over many stretches of time
// reads no part of the log twice, and what of it is new is told as always.
func TestManyLateStretches(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	start := time.Now().Add(-20 * 24 * time.Hour)
	at := func(bucket, i int) time.Time {
		return start.Add(time.Duration(bucket)*time.Duration(bucketSpan) + time.Duration(i)*time.Second)
	}
	const buckets = 60
	for b := range buckets {
		d.send(heart(at(b, 0), 60), heart(at(b, 2), 61))
	}
	d.send(heart(time.Now(), 70))
	var all []carnet.Measurement
	for i := range 4 {
		for b := range buckets {
			all = append(all, heart(at(b, i), 60+float64(i/2)))
		}
	}
	h.restart() // nothing is held as a set
	d = d.again()
	h.logged(d.id) // waits for what is being committed
	readings := 0
	h.onReading(func() { readings++ })
	d.send(slices.Concat(all, all)...)
	h.onReading(nil)
	if readings > 3 {
		t.Errorf("the log is read %d times for one message", readings)
	}
	if n := len(h.logged(d.id)); n != 4*buckets+1 {
		t.Errorf("the log holds %d measurements, want %d", n, 4*buckets+1)
	}
}

// Whatever comes in whatever order, each measurement is stored once.
func TestDuplicatesAgreeWithTheModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	h := newHub(t)
	d := h.add(td.Watch())
	start := time.Now().Add(-10 * 24 * time.Hour)
	want := make(map[int64]bool)
	for range 60 {
		var ms []carnet.Measurement
		spread := 1 + r.IntN(3*maxSets)
		for range 1 + r.IntN(60) {
			m := heart(start.Add(time.Duration(r.IntN(spread))*time.Duration(bucketSpan)+time.Duration(r.IntN(20))*time.Second), 60)
			ms = append(ms, m)
			want[m.Time] = true
		}
		d.send(ms...)
		if r.IntN(10) == 0 {
			h.restart()
			d = d.again()
		}
	}
	got := make(map[int64]int)
	for _, m := range h.logged(d.id) {
		got[m.Time]++
	}
	for at, n := range got {
		if n != 1 || !want[at] {
			t.Errorf("a measurement of %d is stored %d times", at, n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d measurements are stored, want %d", len(got), len(want))
	}
}

// The agent's end doesn't wait for a look-up: the message is to be sent again.
func TestTheEndEndsALookUp(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	old := time.Now().Add(-24 * time.Hour)
	d.send(heart(old, 60))
	d.send(heart(time.Now(), 60))
	h.restart()
	d = d.again()
	var once sync.Once
	h.onReading(func() {
		once.Do(func() {
			go h.stop()
			<-h.agent.life.Done()
		})
	})
	d.submit(heart(old, 61))
	if o := d.outcome(); o.Retry == nil || o.Retry.Code != carnet.Unavailable {
		t.Errorf("outcome %+v", o)
	}
	h.stop()
	h.onReading(nil)
	h.start()
	d = d.again()
	d.send(heart(old, 61))
	if n := len(h.logged(d.id)); n != 3 {
		t.Errorf("the log holds %d measurements, want 3", n)
	}
}

// held is what a device's thing holds to know duplicates by, in bytes.
func (d *device) held() int {
	t := d.session.thing
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.held
}

// latePage is how many measurements a page of late ones has.
const latePage = 2000

// latePages makes late measurements of one stretch of time: each page has others.
func latePages() func(page int) []carnet.Measurement {
	begin := time.Now().Add(-24 * time.Hour).Truncate(time.Duration(bucketSpan))
	return func(page int) (ms []carnet.Measurement) {
		for i := range latePage {
			ms = append(ms, heart(begin.Add(time.Duration(latePage*page+i)*time.Microsecond), 60))
		}
		return ms
	}
}

// However many late measurements a device sends of one stretch of time, what the agent
// holds of them is bounded, and duplicates are known all the same.
func TestLateMeasurementsTakeBoundedMemory(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	d.send(heart(time.Now(), 60))
	const pages = maxHeld/identityBytes/latePage + 5
	late, most := latePages(), 0
	for page := range pages {
		d.send(late(page)...)
		most = max(most, d.held())
	}
	if most < maxHeld/2 || most > maxHeld || h.agent.held.Load() != int64(d.held()) {
		t.Errorf("the thing held %d bytes, all together hold %d", most, h.agent.held.Load())
	}
	for _, page := range []int{0, pages - 1} {
		d.send(late(page)...)
	}
	if _, err := h.agent.loadBucket(t.Context(), d.session.thing, bucketOf(late(0)[0].Time), maxHeld); err != errCrowded {
		t.Errorf("reading more than may be held: %v", err)
	}
	if n := len(h.logged(d.id)); n != latePage*pages+1 {
		t.Errorf("the log holds %d measurements, want %d", n, latePage*pages+1)
	}
}

// The same of all things together: then all let go what they hold.
func TestLateMeasurementsOfAllThingsTakeBoundedMemory(t *testing.T) {
	h := newHub(t)
	d, other, late := h.add(td.Watch()), h.add(td.Watch()), latePages()
	d.send(heart(time.Now(), 60))
	d.send(late(0)...)
	if d.held() == 0 {
		t.Error("nothing is held of late measurements")
	}
	h.agent.held.Add(maxHeldOfAll)
	other.send(heart(time.Now(), 60))
	if d.held() != 0 || h.agent.held.Load() != maxHeldOfAll {
		t.Errorf("%d bytes are held of what all together may not have", d.held())
	}
	d.send(late(0)...)
	if n := len(h.logged(d.id)); n != latePage+1 {
		t.Errorf("the log holds %d measurements, want %d", n, latePage+1)
	}
}

// A text counts as what it takes.
func TestLateTextsTakeBoundedMemory(t *testing.T) {
	const text = 1 << 20
	var all atomic.Int64
	s := newSeen(1, &all)
	s.raise([]int64{100})
	for i := range 10 {
		m := carnet.Measurement{Time: int64(i), Value: carnet.String(strings.Repeat("x", text))}
		_, err := s.admit(0, &m, func(bucket int64) error {
			s.keep(bucket, make(map[identity]struct{}))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.looked()
		if set := s.sets[0]; set != nil && len(set.has)*text > maxHeld || all.Load() != int64(s.held) {
			t.Errorf("%d texts are held of %d MiB, as %d bytes", len(set.has), i+1, s.held)
		}
	}
}
