package world_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/test/wait"
)

func decode(s string) string {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Stretches go to the depot when it is there, each once, and what is lost or
// changed here comes back from it.
func TestStretchesComeBack(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.depot.set(true)
		w.restart()
		h := w.hubs[0]
		s := h.open(nil)
		h.send(s.run(carnet.Day, time.Now().Add(-time.Hour), 9))
		h.heads()
		w.compact()
		if len(w.depot.held()) != 0 {
			t.Fatal("a depot that is away holds something")
		}
		w.depot.set(false)
		wait.Until(t, "the stretch is at the depot", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 0 && len(w.depot.held()) == 1
		})
		lost := func(uint64, []byte) ([]byte, error) { return nil, carnet.Errorf(carnet.NotFound, "lost") }
		changed := func(_ uint64, body []byte) ([]byte, error) {
			body = bytes.Clone(body)
			body[len(body)/2] ^= 1
			return body, nil
		}
		for name, spoil := range map[string]func(uint64, []byte) ([]byte, error){"lost": lost, "changed": changed} {
			restored := w.store.restored.Load()
			w.depot.set(true)
			w.store.spoil.Store(&spoiler{stretch: spoil})
			if _, _, err := w.agent.History(w.ctx, s.avatar, avatar.Query{}); carnet.CodeOf(err) != carnet.Unavailable {
				t.Errorf("%s, and the depot is away: %v", name, err)
			}
			w.depot.set(false)
			if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(9)) {
				t.Errorf("%s: %v", name, got)
			}
			if w.store.restored.Load() != restored+1 {
				t.Errorf("%s: it was not put back", name)
			}
		}
		w.depot.mu.Lock()
		for f := range w.depot.objects {
			w.depot.objects[f] = []byte("other bytes")
		}
		w.depot.mu.Unlock()
		w.store.spoil.Store(&spoiler{stretch: changed})
		if _, _, err := w.agent.History(w.ctx, s.avatar, avatar.Query{}); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("a depot that gives other bytes: %v", err)
		}
	})
}

// A damaged stretch that the depot doesn't hold keeps no other from it.
func TestDamagedStretchesHoldNothingUp(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		a, b := h.open(nil), h.open(nil)
		h.send(a.run(carnet.Day, time.Now(), 1), b.run(carnet.Day, time.Now(), 1))
		h.heads()
		w.compact()
		w.store.spoil.Store(&spoiler{stretch: func(id uint64, body []byte) ([]byte, error) {
			if id == 1 {
				return nil, nil
			}
			return body, nil
		}})
		w.every = 5 * time.Millisecond
		w.stop()
		w.start()
		wait.Until(t, "the sound one is stored", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 1 && rows[0].ID == 1
		})
	})
}

// What its retention class has ended is deleted here, and at the depot as soon
// as that is there; few frames don't wait for more.
func TestRetention(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.restart()
		h := w.hubs[0]
		s := h.open(nil)
		now := time.Now()
		h.send(s.run(carnet.Hour, now, 1), s.run(carnet.Day, now, 1), s.run(carnet.Keep, now, 1))
		h.heads()
		w.ahead.Store(int64(10 * time.Minute))
		wait.Until(t, "one frame is compacted when it has waited, and stored", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 0 && len(w.depot.held()) == 3
		})
		w.depot.set(true)
		before := w.statements()
		w.ahead.Store(int64(25 * time.Hour))
		wait.Until(t, "two stretches are dropped", func() bool { return w.totals().Stretches == 1 })
		wait.Until(t, "and it is stated", func() bool { return w.statements() == before+2 })
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, []float64{2}) {
			t.Errorf("history %v", got)
		}
		w.restart() // what the depot is to delete is remembered
		w.depot.set(false)
		wait.Until(t, "the depot has deleted them", func() bool { return len(w.depot.held()) == 1 })
		if got := w.statements(); got != before+2 {
			t.Errorf("%d statements more, want 2", got-before)
		}
		head := h.heads()[s.id]
		if head.NextFirst != 3 {
			t.Errorf("head %+v", head)
		}
	})
}

// What was dropped is stated once and deleted at the depot, wherever a crash
// falls (W14, W15), and what the depot won't delete now holds up nothing else.
func TestDroppedStretchesLeaveTheDepot(t *testing.T) {
	for name, after := range map[string]bool{"before the transaction": false, "after the transaction": true} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, w *world) {
				w.every = 5 * time.Millisecond
				w.restart()
				h := w.hubs[0]
				s, other := h.open(nil), h.open(nil)
				h.send(s.run(carnet.Day, time.Now(), 1), other.run(carnet.Day, time.Now(), 1), s.run(carnet.Keep, time.Now(), 1))
				h.heads()
				w.compact()
				wait.Until(t, "the stretches are at the depot", func() bool {
					rows, err := w.store.Unstored(w.ctx, 0, 10)
					return err == nil && len(rows) == 0 && len(w.depot.held()) == 3
				})
				day, err := w.store.Expired(w.ctx, carnet.Day, 1<<62, 9)
				if err != nil || len(day) != 2 {
					t.Fatalf("%d stretches of a day: %v", len(day), err)
				}
				before := w.statements()
				w.depot.set(true)
				tried := make(chan struct{}, 1)
				w.store.fault.Store(&fault{at: "drop", after: after, met: tried})
				w.ahead.Store(int64(25 * time.Hour))
				<-tried
				w.stop()
				if left := map[bool]uint64{false: 3, true: 1}[after]; w.totals().Stretches != left {
					t.Errorf("%d stretches are left, want %d", w.totals().Stretches, left)
				}
				if n := len(w.depot.held()); n != 3 {
					t.Errorf("the depot holds %d objects before it was told, want 3", n)
				}
				w.depot.keep(day[0].Fingerprint)
				w.depot.set(false)
				w.restart()
				wait.Until(t, "what the depot deletes is gone", func() bool { return len(w.depot.held()) == 2 })
				w.depot.keep(carnet.Fingerprint{})
				wait.Until(t, "and so is the rest", func() bool { return len(w.depot.held()) == 1 })
				if got := w.statements(); got != before+2 {
					t.Errorf("%d statements more, want 2", got-before)
				}
			})
		})
	}
}

// Many stretches that wait for a slow depot leave it, and this world, time for the
// rest: what is received is compacted, what is over is dropped. What has waited
// long doesn't wait for that.
func TestStoringManyStretchesHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, openSQLite(t))
		h := w.hubs[0]
		const streams = 300
		brief := h.open(nil)
		batches := [][]byte{brief.run(carnet.Hour, time.Now(), 1)}
		for range streams {
			batches = append(batches, h.open(nil).run(carnet.Month, time.Now(), 1))
		}
		h.send(batches...)
		h.heads()
		w.compact()
		w.depot.slow(100 * time.Millisecond)
		w.every = time.Second
		w.restart()
		time.Sleep(10 * time.Second)
		// A pass of a second, four of rest.
		if n := len(w.depot.held()); n < 15 || n > 25 {
			t.Errorf("after 10 s the depot holds %d stretches", n)
		}
		for range 20 {
			h.send(brief.run(carnet.Month, time.Now(), 1))
		}
		time.Sleep(3 * time.Second)
		if n := w.totals(); n.FramesWithBody != 0 {
			t.Errorf("%d frames wait to be compacted", n.FramesWithBody)
		}
		w.ahead.Store(int64(2 * time.Hour))
		time.Sleep(3 * time.Second)
		if n := w.totals().Stretches; n != streams+1 {
			t.Errorf("%d stretches; what is over isn't dropped", n)
		}
		if n := len(w.depot.held()); n > 100 {
			t.Fatalf("the depot holds %d stretches already: this shows nothing", n)
		}
		time.Sleep(streams * 100 * time.Millisecond)
		if n := len(w.depot.held()); n != streams+1 {
			t.Errorf("the depot holds %d stretches of %d", n, streams+1)
		}
	})
}
