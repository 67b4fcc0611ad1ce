package world_test

import (
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
)

// Whatever is stopped around a compaction, the state is the same afterwards, and
// what was refused is stated once.
func TestCrashesAroundCompaction(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault *fault
	}{
		{"none", nil},
		{"before the states are saved", &fault{at: "put"}},
		{"after the states are saved", &fault{at: "put", after: true}},
		{"before frames become stretches", &fault{at: "compact"}},
		{"after frames became stretches", &fault{at: "compact", after: true}},
		{"before frames lose their bodies", &fault{at: "strip"}},
		{"after frames lost their bodies", &fault{at: "strip", after: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, w *world) { crashAroundCompaction(t, w, c.fault) })
		})
	}
}

func crashAroundCompaction(t *testing.T, w *world, f *fault) {
	h := w.hubs[0]
	s := h.open(nil)
	start := time.Now().Add(-time.Hour).Truncate(time.Minute)
	n := 0
	more := func() {
		t.Helper()
		for _, class := range []carnet.Retention{carnet.Day, carnet.Keep, carnet.Day} {
			h.send(s.run(class, start.Add(time.Duration(n)*time.Second), 5))
			n += 5
		}
	}
	check := func(when string) {
		t.Helper()
		head := h.heads()[s.id]
		if head.NextBatch != uint64(s.batch) || head.NextFirst != uint64(n) || len(head.Latest) != 1 || head.Latest[0].Value != float64(n-1) {
			t.Errorf("%s: head %+v, want batch %d, measurement %d", when, head, s.batch, n)
		}
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(n)) {
			t.Errorf("%s: history %v", when, got)
		}
		info, err := w.agent.Avatar(s.avatar)
		if err != nil || info.Measurements != uint64(n) || info.Batches != s.batch {
			t.Errorf("%s: %+v, %v", when, info, err)
		}
	}
	more()
	again := s.slot
	bad, err := again.Seal(nil, 0, make([]byte, 64)) // its body is nothing
	if err != nil {
		t.Fatal(err)
	}
	h.send(bad)
	check("before")
	before := w.statements()

	w.store.fault.Store(f)
	if err := w.agent.Compact(w.ctx, 1); (err != nil) != (f != nil) {
		t.Fatal(err)
	}
	w.restart()
	check("after the restart")
	more()
	check("and more")
	w.compact()
	check("after a compaction")
	w.restart()
	check("after another restart")
	// Three more frames, and the refusal once.
	if got := w.statements(); got != before+3+1 {
		t.Errorf("%d statements more, want 4", got-before)
	}
	if n := w.totals(); n.FramesWithBody != 0 || n.Frames != 7 {
		t.Errorf("totals %+v", n)
	}
}

// What has gone into stretches and is in its frames, too, is nowhere twice: neither
// while a world goes on without room to take it off its frames, nor after a restart.
func TestMovedFramesCountOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		start := time.Now().Add(-time.Hour)
		n := 0
		for range 3 {
			h.send(s.run(carnet.Day, start.Add(time.Duration(n)*time.Second), 2))
			n += 2
		}
		h.heads() // everything is folded
		check := func(when string, bodies uint64) {
			t.Helper()
			h.heads()
			held := 0
			if err := w.agent.EachHeld(w.ctx, s.avatar, func(avatar.Held) error { held++; return nil }); err != nil || held != n {
				t.Errorf("%s: the store holds %d measurements, want %d: %v", when, held, n, err)
			}
			if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(n)) {
				t.Errorf("%s: history %v", when, got)
			}
			if got := w.totals().FramesWithBody; got != bodies {
				t.Errorf("%s: %d frames with bodies, want %d", when, got, bodies)
			}
		}
		full := &fault{at: "strip", err: carnet.Errorf(carnet.NoSpace, "full")}
		w.store.fault.Store(full)
		if err := w.agent.Compact(w.ctx, 1); carnet.CodeOf(err) != carnet.NoSpace {
			t.Fatal(err)
		}
		check("without room", 3)
		h.send(s.run(carnet.Day, start.Add(time.Duration(n)*time.Second), 1))
		n++
		check("with another frame", 4)
		w.store.fault.Store(nil)
		w.restart()
		check("after a restart", 1)
		w.store.fault.Store(full)
		if err := w.agent.Compact(w.ctx, 1); carnet.CodeOf(err) != carnet.NoSpace {
			t.Fatal(err)
		}
		w.store.fault.Store(nil)
		w.compact()
		check("after a compaction", 0)
	})
}

// A stream that begins after the states were saved has its place after a restart.
func TestStreamsAfterTheSavedState(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		one := h.open(nil)
		start := time.Now().Add(-time.Hour)
		h.send(one.run(carnet.Day, start, 3))
		w.compact()
		two := h.open(&one.avatar)
		h.send(two.run(carnet.Day, start.Add(time.Minute), 2))
		w.restart()
		h.send(two.run(carnet.Day, start.Add(2*time.Minute), 2), one.run(carnet.Day, start.Add(3*time.Minute), 1))
		heads := h.heads()
		if heads[one.id].NextFirst != 4 || heads[two.id].NextFirst != 4 || w.agent.Defects() != 0 {
			t.Errorf("heads %+v, %d defects", heads, w.agent.Defects())
		}
		if got := values(w.history(one.avatar, avatar.Query{})); !slices.Equal(got, []float64{0, 1, 2, 0, 1, 2, 3, 3}) {
			t.Errorf("history %v", got)
		}
	})
}

// What waits for the committer when a world stops is told so.
func TestStoppingAnswersEverybody(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		a := h.arrival(s.run(carnet.Day, time.Now(), 1))
		w.stop()
		if _, err := w.agent.Accept(w.ctx, h.name, oneOf(a)); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("a stopped world says %v", err)
		}
		if err := h.call(carnet.CallHeads, carnet.HeadsRequest{}, nil); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("a stopped world says %v", err)
		}
	})
}

// A store that failed to make frames durable ends the world; one that has no
// room, or is away, doesn't.
func TestFailedCommits(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		a := h.arrival(s.run(carnet.Day, time.Now(), 1))
		for _, code := range []carnet.Code{carnet.NoSpace, carnet.Unavailable} {
			w.store.fault.Store(&fault{at: "append", err: carnet.Errorf(code, "not now")})
			if _, err := w.agent.Accept(w.ctx, h.name, oneOf(a)); carnet.CodeOf(err) != code {
				t.Errorf("want %s, have %v", code, err)
			}
		}
		w.store.fault.Store(nil)
		if _, err := w.agent.Accept(w.ctx, h.name, oneOf(a)); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
		w.store.fault.Store(&fault{at: "append"})
		if _, err := w.agent.Accept(w.ctx, h.name, oneOf(h.arrival())); err == nil {
			t.Error("a frame that may not be durable was accepted")
		}
		if err := <-w.failed; err == nil {
			t.Error("the world goes on")
		}
		w.stop = func() {}
	})
}
