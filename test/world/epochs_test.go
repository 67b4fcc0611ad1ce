package world_test

import (
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/keys"
	"carnet/seal"
	"carnet/test/wait"
)

// turn gives a stream a new epoch, and returns the key of the one before.
func (s *source) turn() keys.ID {
	s.h.w.t.Helper()
	old := s.keyID()
	next := s.h.draw(s.id)
	s.epoch, s.slot = next.epoch, next.slot
	if err := s.h.grant(s); err != nil {
		s.h.w.t.Fatal(err)
	}
	return old
}

func (s *source) keyID() keys.ID {
	return keys.ID{Kind: "epoch", Name: s.id.String() + "/" + s.epoch.Epoch.String()}
}

func (w *world) hasKey(id keys.ID) bool {
	w.t.Helper()
	_, err := w.table.Get(w.ctx, id)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		w.t.Fatal(err)
	}
	return err == nil
}

// The key of an epoch is destroyed when the last stretch under it is dropped and
// nothing can come under it any more, and no sooner; wherever a crash falls.
func TestRetentionDestroysKeys(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		now := time.Now()
		// Keys are kept to the end of an hour: at its beginning, that's well after stretches are.
		full := now.Truncate(time.Hour).Add(time.Hour).Sub(now)
		w.ahead.Store(int64(full))
		w.restart()
		h := w.hubs[0]
		hour, day, mixed, idle, ended := h.open(nil), h.open(nil), h.open(nil), h.open(nil), h.open(nil)
		h.send(hour.run(carnet.Hour, now, 1), mixed.run(carnet.Hour, now, 1), idle.run(carnet.Hour, now, 1), ended.run(carnet.Hour, now, 1))
		h.send(day.run(carnet.Day, now, 1), mixed.run(carnet.Keep, now, 1))
		h.heads()
		w.compact()
		// Of a key that is there and was never noted it isn't known what is under it.
		next := h.draw(idle.id)
		gone := []keys.ID{hour.turn(), ended.keyID(), idle.keyID()}
		idle.epoch, idle.slot = next.epoch, next.slot
		if err := w.table.Put(w.ctx, keys.Entry{ID: idle.keyID(), Secret: idle.epoch.Secret[:]}); err != nil {
			t.Fatal(err)
		}
		if err := h.grant(idle); err != nil {
			t.Fatal(err)
		}
		kept := []keys.ID{idle.turn(), mixed.turn(), day.turn(), hour.keyID(), day.keyID(), mixed.keyID(), idle.keyID()}
		if err := h.call(carnet.CallUnmap, carnet.Unmap{Stream: ended.id}, nil); err != nil {
			t.Fatal(err)
		}
		w.ahead.Store(int64(full + 70*time.Minute))
		wait.Until(t, "the stretches of an hour are dropped", func() bool { return w.totals().Stretches == 2 })
		wait.Until(t, "the depot holds the others", func() bool {
			waits, err := w.store.Unstored(w.ctx, 0, 9)
			doomed, err2 := w.store.DocumentPage(w.ctx, "doomed", "", 9)
			return err == nil && err2 == nil && len(waits)+len(doomed) == 0
		})
		before := w.statements()
		met := make(chan struct{}, 1)
		w.store.fault.Store(&fault{at: "put", err: carnet.Errorf(carnet.NoSpace, "no room"), met: met})
		w.ahead.Store(int64(full + 3*time.Hour))
		<-met // destroyed, and not noted
		w.restart()
		wait.Until(t, "it is stated", func() bool { return w.statements() == before+len(gone) })
		for _, id := range gone {
			if w.hasKey(id) {
				t.Errorf("%s is still there", id)
			}
		}
		for _, id := range kept {
			if !w.hasKey(id) {
				t.Errorf("%s is gone", id)
			}
		}
		if documents, err := w.store.DocumentPage(w.ctx, "epoch", "", 99); err != nil || len(documents) != len(kept) {
			t.Errorf("%d epochs are known, want %d: %v", len(documents), len(kept), err)
		}
		h.send(idle.run(carnet.Keep, now, 1), mixed.run(carnet.Keep, now, 1))
		h.heads()
		if got := values(w.history(idle.avatar, avatar.Query{})); !slices.Equal(got, []float64{1}) || w.agent.Defects() != 0 {
			t.Errorf("what came later: %v, %d defects", got, w.agent.Defects())
		}
		if got := values(w.history(mixed.avatar, avatar.Query{})); !slices.Equal(got, []float64{1, 2}) {
			t.Errorf("what is kept: %v", got)
		}
	})
}

// A clock that is set back doesn't make an older epoch look like the newest.
func TestAClockSetBackKeepsTheKeyInUse(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.ahead.Store(int64(10 * time.Minute)) // at first the clock is fast
		w.restart()
		h := w.hubs[0]
		s := h.open(nil)
		w.ahead.Store(0)
		s.turn()
		inUse := s.keyID()
		free := h.open(nil).turn()
		w.ahead.Store(int64(5 * time.Hour))
		wait.Until(t, "a key that isn't in use is destroyed", func() bool { return !w.hasKey(free) })
		if !w.hasKey(inUse) {
			t.Fatal("the key of the stream's newest epoch is destroyed")
		}
		h.send(s.run(carnet.Hour, time.Now(), 1))
		h.heads()
		if w.agent.Defects() != 0 {
			t.Error("what was acknowledged is refused")
		}
	})
}

// A frame that isn't compacted keeps the keys of its batches.
func TestWaitingFramesKeepTheirKeys(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.restart()
		h := w.hubs[0]
		s, other := h.open(nil), h.open(nil)
		now := time.Now()
		h.send(s.run(carnet.Hour, now, 1), other.run(carnet.Hour, now, 1))
		h.heads()
		w.compact()
		w.store.fault.Store(&fault{at: "compact", err: carnet.Errorf(carnet.NoSpace, "no room")})
		h.send(s.run(carnet.Hour, now, 1))
		h.heads()
		waits, free := s.turn(), other.turn()
		w.ahead.Store(int64(4 * time.Hour))
		wait.Until(t, "a key under which nothing waits is destroyed", func() bool { return !w.hasKey(free) })
		if !w.hasKey(waits) {
			t.Fatal("the key of a frame that waits is destroyed")
		}
		w.store.fault.Store(nil)
		wait.Until(t, "the frame is compacted, and dropped", func() bool { n := w.totals(); return n.FramesWithBody == 0 && n.Stretches == 0 })
		w.ahead.Store(int64(5 * time.Hour))
		wait.Until(t, "its key is destroyed", func() bool { return !w.hasKey(waits) })
	})
}

// So it does when the clock was set back between the key and the frame.
func TestWaitingFramesKeepTheirKeysThoughTheClockIsSetBack(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.ahead.Store(int64(2 * time.Hour)) // at first the clock is fast
		w.restart()
		h := w.hubs[0]
		s, other := h.open(nil), h.open(nil)
		w.ahead.Store(0)
		w.store.fault.Store(&fault{at: "compact", err: carnet.Errorf(carnet.NoSpace, "no room")})
		h.send(s.run(carnet.Keep, time.Now(), 1))
		h.heads()
		w.ahead.Store(int64(2*time.Hour + time.Minute))
		waits, free := s.turn(), other.turn()
		w.ahead.Store(int64(5 * time.Hour))
		wait.Until(t, "a key under which nothing waits is destroyed", func() bool { return !w.hasKey(free) })
		if !w.hasKey(waits) {
			t.Fatal("the key of a frame that waits is destroyed")
		}
		w.store.fault.Store(nil)
		wait.Until(t, "the frame is compacted", func() bool { return w.totals().FramesWithBody == 0 })
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(1)) {
			t.Errorf("what was acknowledged: %v", got)
		}
	})
}

// A grant ends: the keys are destroyed then, and who reads is told why, until
// there is a new one.
func TestGrantsEnd(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.restart()
		h := w.hubs[0]
		s, other := h.open(nil), h.open(nil)
		grant := func(until time.Duration) {
			t.Helper()
			if err := h.grantWith(h.key, seal.Terms{NotAfter: time.Now().Add(until)}, seal.Entry{Key: s.epoch}); err != nil {
				t.Fatal(err)
			}
		}
		grant(2 * time.Hour) // what was given last holds
		h.send(s.run(carnet.Keep, time.Now(), 2), other.run(carnet.Keep, time.Now(), 1))
		h.heads()
		w.compact()
		wait.Until(t, "the stretches are at the depot", func() bool {
			rows, err := w.store.Unstored(w.ctx, 0, 10)
			return err == nil && len(rows) == 0
		})
		w.ahead.Store(int64(time.Hour))
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(2)) {
			t.Errorf("before its end: %v", got)
		}
		before := w.statements()
		w.ahead.Store(int64(3 * time.Hour))
		wait.Until(t, "the end is stated", func() bool { return w.statements() == before+1 })
		if w.hasKey(s.keyID()) || !w.hasKey(other.keyID()) {
			t.Errorf("there are keys of the grant that ended: %v, of the other: %v", w.hasKey(s.keyID()), w.hasKey(other.keyID()))
		}
		ended := func() {
			t.Helper()
			if _, _, err := w.agent.History(w.ctx, s.avatar, avatar.Query{}); carnet.CodeOf(err) != carnet.TooOld {
				t.Errorf("who reads is told: %v", err)
			}
			if err := w.agent.EachHeld(w.ctx, s.avatar, func(avatar.Held) error { t.Error("something is held"); return nil }); err != nil {
				t.Errorf("who audits is told: %v", err)
			}
		}
		ended()
		w.stop()
		if err := w.table.Put(w.ctx, keys.Entry{ID: s.keyID(), Secret: s.epoch.Secret[:]}); err != nil {
			t.Fatal(err)
		}
		w.restart() // the key table was an older copy
		wait.Until(t, "the key is destroyed again", func() bool { return !w.hasKey(s.keyID()) })
		ended()
		if w.statements() != before+1 {
			t.Errorf("%d statements more, want 1", w.statements()-before)
		}
		grant(200 * time.Hour)
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(2)) {
			t.Errorf("after a new grant: %v", got)
		}
	})
}
