package world_test

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/test/wait"
)

// pieces are as many stretches, each of which is added in a transaction of its own.
var pieces = []carnet.Retention{carnet.Day, carnet.Month, carnet.Keep}

// ofPieces sends what becomes these stretches, and returns how many measurements
// that are.
func ofPieces(h *hub, s *source) (n int) {
	const each, batch = 33_000, 11_000 // 8 bytes each
	begun := time.Now().Add(-time.Hour).UnixNano()
	for _, class := range pieces {
		ms := make([]carnet.Measurement, each)
		for i := range ms {
			ms[i] = carnet.Measurement{Name: "steps", Time: begun + int64(n)*1e6, Value: carnet.Float(math.Sqrt(float64(n)))}
			n++
		}
		var batches [][]byte
		for some := range slices.Chunk(ms, batch) {
			batches = append(batches, s.seal(class, nil, some...))
		}
		h.send(batches...)
	}
	h.heads() // everything is folded
	return n
}

// once checks that the store holds each of n measurements once, and history has them.
func (w *world) once(when string, id carnet.AvatarID, n int) {
	w.t.Helper()
	count := make([]int, n)
	if err := w.agent.EachHeld(w.ctx, id, func(h avatar.Held) error { count[h.Number]++; return nil }); err != nil {
		w.t.Errorf("%s: %v", when, err)
	}
	for number, held := range count {
		if held != 1 {
			w.t.Errorf("%s: measurement %d is held %d times", when, number, held)
			break
		}
	}
	w.read(when, id, n)
}

// read checks that history has each of n measurements once.
func (w *world) read(when string, id carnet.AvatarID, n int) {
	w.t.Helper()
	ms := w.history(id, avatar.Query{})
	if len(ms) != n {
		w.t.Errorf("%s: the history has %d measurements, want %d", when, len(ms), n)
		return
	}
	for i := range ms {
		if ms[i].Value.Num != math.Sqrt(float64(i)) {
			w.t.Errorf("%s: measurement %d is %v", when, i, ms[i].Value.Num)
			return
		}
	}
}

// Wherever a compaction is stopped, each measurement is there once afterwards, and
// the world packs anew what it had packed in part.
func TestCrashesBetweenPieces(t *testing.T) {
	for done := range pieces {
		for _, after := range []bool{false, true} {
			t.Run(strconv.Itoa(done)+map[bool]string{true: " and one more, unanswered"}[after], func(t *testing.T) {
				eachStore(t, func(t *testing.T, w *world) {
					h := w.hubs[0]
					s := h.open(nil)
					n := ofPieces(h, s)
					f := &fault{at: "compact", after: after}
					f.spare.Store(int64(done))
					w.store.fault.Store(f)
					if err := w.agent.Compact(w.ctx, 1); err == nil {
						t.Fatal("the compaction did not meet the crash")
					}
					stretches := done
					if after {
						stretches++
					}
					if got := w.totals(); got.Stretches != uint64(stretches) || got.FramesWithBody != uint64(len(pieces)) {
						t.Fatalf("at the crash: %+v", got)
					}
					w.read("at the crash", s.avatar, n)
					w.restart()
					bodies := len(pieces)
					if stretches == len(pieces) { // all are there: only the bodies are to go
						bodies = 0
					} else {
						stretches = 0
					}
					if got := w.totals(); got.Stretches != uint64(stretches) || got.FramesWithBody != uint64(bodies) {
						t.Errorf("after the restart: %+v", got)
					}
					w.once("after the restart", s.avatar, n)
					w.compact()
					if got := w.totals(); got.Stretches != uint64(len(pieces)) || got.FramesWithBody != 0 {
						t.Errorf("after a compaction: %+v", got)
					}
					w.once("after a compaction", s.avatar, n)
				})
			})
		}
	}
}

// A world that is stopped while it undoes half a compaction goes on with that.
func TestCrashWhileUndoing(t *testing.T) {
	for _, at := range []*fault{{at: "drop"}, {at: "drop", after: true}, {at: "put"}, {at: "put", after: true}} {
		t.Run(at.at+map[bool]string{true: ", unanswered"}[at.after], func(t *testing.T) {
			eachStore(t, func(t *testing.T, w *world) {
				h := w.hubs[0]
				s := h.open(nil)
				n := ofPieces(h, s)
				full := &fault{at: "compact", err: carnet.Errorf(carnet.NoSpace, "full")}
				full.spare.Store(2)
				w.store.fault.Store(full)
				if err := w.agent.Compact(w.ctx, 1); carnet.CodeOf(err) != carnet.NoSpace {
					t.Fatal(err)
				}
				w.store.fault.Store(&fault{at: at.at, after: at.after}) // one for each store
				if err := w.agent.Compact(w.ctx, 1); err == nil {
					t.Fatal("the undoing did not meet the crash")
				}
				w.restart()
				w.once("after the restart", s.avatar, n)
				w.compact()
				w.once("after a compaction", s.avatar, n)
			})
		})
	}
}

// While there is no room for the rest of what was packed, nor to undo it, nothing of
// it goes to the depot, and nobody audits it; who reads finds everything once. Once
// there is, all goes on.
func TestHalfACompaction(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = time.Millisecond
		w.restart()
		h := w.hubs[0]
		s := h.open(nil)
		n := ofPieces(h, s)
		full := &fault{at: "room", err: carnet.Errorf(carnet.NoSpace, "full"), met: make(chan struct{}, 4)}
		full.spare.Store(1)
		w.store.fault.Store(full)
		if err := w.agent.Compact(w.ctx, 1); carnet.CodeOf(err) != carnet.NoSpace {
			t.Fatal(err)
		}
		for range cap(full.met) + 2 { // whole rounds of the world's lie between
			<-full.met
		}
		if got := w.totals(); got.Stretches != 1 || len(w.depot.held()) != 0 {
			t.Errorf("without room: %+v, %d objects at the depot", got, len(w.depot.held()))
		}
		if err := w.agent.EachHeld(w.ctx, s.avatar, func(avatar.Held) error { return nil }); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("without room: an audit ends with %v", err)
		}
		w.read("without room", s.avatar, n)
		w.store.fault.Store(nil)
		w.compact()
		w.once("with room again", s.avatar, n)
		wait.Until(t, "the depot has the stretches", func() bool { return len(w.depot.held()) == len(pieces) })
	})
}
