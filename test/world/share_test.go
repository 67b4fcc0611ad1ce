package world_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/link"
	"carnet/seal"
)

// Who follows an avatar is given each batch of its streams once, in order and byte
// by byte as it was received, wherever it lies and wherever the following begins.
func TestFollowing(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { eachStore(t, func(t *testing.T, w *world) { following(t, w, seed) }) })
	}
}

func following(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	h := w.hubs[0]
	one := h.open(nil)
	sources := map[carnet.StreamID]*source{one.id: one}
	add := func() {
		s := h.open(&one.avatar)
		sources[s.id] = s
	}
	add()
	send := func() {
		var batches [][]byte
		for _, s := range sources {
			n := 1 + rng.IntN(20)
			if rng.IntN(15) == 0 {
				n = 9000 // more than waits in memory, soon
			}
			batches = append(batches, s.run([]carnet.Retention{carnet.Day, carnet.Month}[rng.IntN(2)], time.Now().Add(-time.Hour), n))
		}
		h.send(batches...)
	}
	at := make(map[carnet.StreamID]uint64)
	woken := make(chan struct{}, 1)
	begin := func() *avatar.Following {
		f, err := w.agent.Follow(one.avatar, func(id carnet.StreamID) uint64 { return at[id] }, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := begin()
	take := func(limit int) {
		t.Helper()
		for range limit {
			e, ok, err := f.Take(w.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			b := e.Batch
			if b == nil || !h.sealed[carnet.FingerprintOf(b.Bytes)] {
				t.Fatal("a batch comes that was not sent")
			}
			if b.First != at[b.Stream] || b.End() != b.First+uint64(len(e.Measurements)) || e.Measurements[0].Value.Num != float64(b.First) || b.Sender != "hub" {
				t.Fatalf("measurements %d to %d of stream %s come, with %d; want those from %d on", b.First, b.End(), b.Stream, len(e.Measurements), at[b.Stream])
			}
			at[b.Stream] = b.End()
		}
	}
	for range 60 {
		switch rng.IntN(6) {
		case 0:
			h.heads()
			w.compact()
		case 1:
			if rng.IntN(3) == 0 {
				f.Close()
				f = begin()
			}
		case 2:
			if len(sources) < 5 {
				add()
			}
		default:
			send()
		}
		take(rng.IntN(6))
	}
	h.heads()
	select {
	case <-woken:
	default:
		t.Error("nobody was woken")
	}
	take(1 << 20)
	for id, s := range sources {
		if at[id] != s.first {
			t.Errorf("of stream %s %d measurements came, want %d", id, at[id], s.first)
		}
	}
	f.Close()
}

// Who follows and begins inside a batch is given the rest of its measurements, and
// can tell.
func TestFollowingFromWithin(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		h.send(s.run(carnet.Day, time.Now(), 10))
		h.heads()
		f, err := w.agent.Follow(s.avatar, func(carnet.StreamID) uint64 { return 4 }, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		e, ok, err := f.Take(w.ctx)
		if err != nil || !ok || !slices.Equal(values(e.Measurements), upTo(10)[4:]) || e.Batch.First != 0 || e.Batch.Count != 10 {
			t.Fatalf("%v of a batch with %+v, %v, %v", values(e.Measurements), e.Batch, ok, err)
		}
	})
}

// Somebody who follows and doesn't wait for it keeps nobody from lingering.
func TestFollowingDemands(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		s := w.hubs[0].open(nil)
		f, err := w.agent.Follow(s.avatar, func(carnet.StreamID) uint64 { return 0 }, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if n := w.notes.take(); len(n) != 0 {
			t.Errorf("the sender is told %v of who only follows", n)
		}
		for _, on := range []bool{true, false, true} {
			f.Demand(on)
			want, _ := json.Marshal(carnet.Demand{Stream: s.id, On: on})
			if n := w.notes.take(); len(n) != 1 || n[0].body != string(want) {
				t.Errorf("demand %v is told as %v", on, n)
			}
		}
		f.Close()
		if n := w.notes.take(); len(n) != 1 {
			t.Errorf("the end of a demand is told as %v", n)
		}
	})
}

// neighbour makes mallory a world that shares.
func neighbour(w *world) *hub {
	w.neighbours = map[carnet.PartyID]bool{"mallory": true}
	w.restart()
	return w.hubs[1]
}

// A stream that another world shares is entered for an avatar that is here, opens
// by keys of slots, and takes nothing more when its share ends.
func TestSharedStream(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		hub, from := w.hubs[0], neighbour(w)
		own := hub.open(nil)
		share := avatar.Shared{ID: carnet.NewShareID()}
		s := from.draw(carnet.NewStreamID())
		enter := func() error { return w.agent.Enter(w.ctx, s.id, from.name, own.avatar, share, 0) }
		slot := seal.Entry{Key: s.slot.Key(), Ceiling: carnet.Label{Sensitivity: carnet.Personal}}
		if err := from.grantWith(from.key, seal.Terms{}, slot); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("a key of a stream that isn't entered: %v", err)
		}
		if err := enter(); err != nil {
			t.Fatal(err)
		}
		if err := enter(); err != nil {
			t.Errorf("entered again: %v", err)
		}
		if err := from.grant(s); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("the key of an epoch: %v", err)
		}
		if err := from.grantWith(from.key, seal.Terms{}, slot); err != nil {
			t.Fatal(err)
		}
		check := func(frames int) {
			t.Helper()
			if got, want := len(w.history(own.avatar, avatar.Query{})), 3*frames; got != want {
				t.Errorf("%d measurements are here, want %d", got, want)
			}
		}
		from.send(s.run(carnet.Day, time.Now(), 3))
		from.heads()
		check(1)
		w.restart()
		check(1)
		w.compact()
		check(1)
		from.send(s.run(carnet.Day, time.Now(), 3))
		from.heads()
		check(2)
		onward := func(some, all bool, n int) {
			t.Helper()
			if gotSome, gotAll := w.agent.Onward(own.avatar); gotSome != some || gotAll != all {
				t.Errorf("may some of it be passed on: %v, all: %v", gotSome, gotAll)
			}
			if got := len(w.history(own.avatar, avatar.Query{Onward: true})); got != n {
				t.Errorf("%d measurements may be passed on, want %d", got, n)
			}
			of, err := w.agent.Properties(own.avatar)
			if err != nil || len(of) != 1 {
				t.Fatal(of, err)
			}
			if may, err := w.agent.OnwardOf(w.ctx, own.avatar, of[0].Name); may != (n > 0) || err != nil {
				t.Errorf("may %s be passed on: %v, %v", of[0].Name, may, err)
			}
		}
		onward(true, false, 0)
		sub, err := w.agent.Subscribe(own.avatar, &avatar.Cursor{})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		for _, want := range []bool{true, true, false, true} {
			if want == false {
				hub.send(own.run(carnet.Day, time.Now(), 3))
			}
			e, err := sub.Next(w.ctx)
			if err != nil || e.Inward != want {
				t.Fatalf("an event may be passed on: %v, want %v, %v", !e.Inward, !want, err)
			}
			if want == false {
				onward(true, false, 3)
				from.send(s.run(carnet.Day, time.Now(), 3))
				from.heads()
				onward(true, false, 3) // of what came lately, though not the newest
			}
		}
		check(4)
		if err := w.agent.EndShare(w.ctx, share.ID); err != nil {
			t.Fatal(err)
		}
		from.send(s.run(carnet.Day, time.Now(), 3))
		from.heads()
		check(4)
		w.restart()
		from.send(s.run(carnet.Day, time.Now(), 3))
		from.heads()
		check(4)
		if n := w.agent.Defects(); n != 2 {
			t.Errorf("%d batches are refused after the end, want 2", n)
		}
	})
}

// What a world that shares may not do.
func TestSharedStreamRefusals(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		hub, from := w.hubs[0], neighbour(w)
		own := hub.open(nil)
		share := avatar.Shared{ID: carnet.NewShareID()}
		refused := func(what string, want carnet.Code, err error) {
			t.Helper()
			if carnet.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		refused("it asks for an avatar", carnet.Forbidden, from.call(carnet.CallMap, carnet.MapRequest{Stream: carnet.NewStreamID()}, nil))
		refused("it enters another's stream", carnet.Conflict, w.agent.Enter(w.ctx, own.id, from.name, own.avatar, share, 0))
		refused("it enters no stream", carnet.Malformed, w.agent.Enter(w.ctx, carnet.StreamID{}, from.name, own.avatar, share, 0))
		refused("for no avatar", carnet.NotFound, w.agent.Enter(w.ctx, carnet.NewStreamID(), from.name, carnet.NewAvatarID(), share, 0))
		id := carnet.NewStreamID()
		if err := w.agent.Enter(w.ctx, id, from.name, own.avatar, share, 0); err != nil {
			t.Fatal(err)
		}
		refused("for another share", carnet.Conflict, w.agent.Enter(w.ctx, id, from.name, own.avatar, avatar.Shared{ID: carnet.NewShareID()}, 0))
		refused("a slot's key of a stream that isn't shared", carnet.Malformed,
			hub.grantWith(hub.key, seal.Terms{}, seal.Entry{Key: own.slot.Key(), Ceiling: carnet.Label{Sensitivity: carnet.Personal}}))
		if err := w.fail("put", func() error { return w.agent.Enter(w.ctx, carnet.NewStreamID(), from.name, own.avatar, share, 0) }); err == nil {
			t.Error("a stream is entered although the store failed")
		}
		arrival := from.arrival(from.draw(id).run(carnet.Day, time.Now(), 1))
		if verdicts, err := w.agent.Accept(w.ctx, from.name, []*link.Arrival{arrival}); err != nil || !slices.Equal(verdicts, []link.Verdict{link.Next}) {
			t.Fatal(verdicts, err)
		}
		from.heads()
		if n := w.agent.Defects(); n != 1 {
			t.Errorf("%d batches are refused, want the one without a key", n)
		}
	})
}

// fail has the store fail once at a change.
func (w *world) fail(at string, do func() error) error {
	w.store.fault.Store(&fault{at: at, met: make(chan struct{}, 1)})
	defer w.store.fault.Store(nil)
	return do()
}

// That streams of a share are erased is stored before it counts, also if it couldn't be at
// first: after a start nobody reads them.
func TestAnErasureOfAShareIsStored(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		hub, from := w.hubs[0], neighbour(w)
		own := hub.open(nil)
		share := avatar.Shared{ID: carnet.NewShareID()}
		s := from.draw(carnet.NewStreamID())
		if err := w.agent.Enter(w.ctx, s.id, from.name, own.avatar, share, 0); err != nil {
			t.Fatal(err)
		}
		if err := from.grantWith(from.key, seal.Terms{}, seal.Entry{Key: s.slot.Key(), Ceiling: carnet.Label{Sensitivity: carnet.Personal}}); err != nil {
			t.Fatal(err)
		}
		from.send(s.run(carnet.Day, time.Now(), 3))
		from.heads()
		w.compact()
		by := carnet.ErasureID{1}
		erase := func() error { _, err := w.agent.EraseShared(w.ctx, share.ID, nil, by); return err }
		if err := w.fail("put", erase); err == nil {
			t.Fatal("nothing fails, so the test says nothing")
		}
		if n := len(w.history(own.avatar, avatar.Query{})); n > 0 {
			t.Errorf("while it isn't stored, %d measurements are read", n)
		}
		if err := erase(); err != nil {
			t.Fatal(err)
		}
		w.restart()
		if n := len(w.history(own.avatar, avatar.Query{})); n > 0 {
			t.Errorf("after a start %d measurements are read", n)
		}
	})
}
