package world_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/link"
	"carnet/seal"
)

func oneOf(a *link.Arrival) []*link.Arrival { return []*link.Arrival{a} }

// A batch that must not be here is recorded, nobody reads it, and what comes with
// it is folded; before and after compaction and restart.
func TestBadBatches(t *testing.T) {
	secret := func(b *seal.Body) { b.Label.Sensitivity = carnet.Health }
	for _, c := range []struct {
		name string
		make func(w *world, s *source) []byte
	}{
		{"a key that nobody gave", func(w *world, s *source) []byte {
			return w.hubs[0].draw(s.id).run(carnet.Day, time.Now(), 1)
		}},
		{"a label above the clearance", func(w *world, s *source) []byte {
			other := *s
			return other.seal(carnet.Day, secret, carnet.Measurement{Name: "steps", Time: 1e18, Value: carnet.Float(-1)})
		}},
		{"a batch number that was used", func(w *world, s *source) []byte {
			other := *s
			other.batch--
			return other.run(carnet.Day, time.Now(), 1)
		}},
		{"measurement numbers that were used", func(w *world, s *source) []byte {
			other := *s
			other.first--
			return other.run(carnet.Day, time.Now(), 1)
		}},
		{"numbers without end", func(w *world, s *source) []byte {
			other := *s
			other.batch = 1 << 63
			return other.run(carnet.Day, time.Now(), 1)
		}},
		{"measurements that nobody could count", func(w *world, s *source) []byte {
			other := *s
			other.first = 1<<64 - 1
			return other.run(carnet.Day, time.Now(), 1)
		}},
		{"another sender's stream", func(w *world, s *source) []byte {
			other := *w.hubs[1].open(nil)
			return other.run(carnet.Day, time.Now(), 1)
		}},
		{"columns that are none", func(w *world, s *source) []byte {
			other := *s
			return other.seal(carnet.Day, func(b *seal.Body) { b.Content = []byte("no columns") })
		}},
		{"another count than it says", func(w *world, s *source) []byte {
			other := *s
			return other.seal(carnet.Day, func(b *seal.Body) { b.Count = 2 }, carnet.Measurement{Name: "steps", Time: 1e18, Value: carnet.Float(-1)})
		}},
		{"nothing in it", func(w *world, s *source) []byte {
			other := *s
			other.batch, other.first = other.batch+1, other.first+2 // as though it came next
			return other.seal(carnet.Day, nil)
		}},
		{"more measurements than a batch may have", func(w *world, s *source) []byte {
			other := *s
			other.batch, other.first = other.batch+1, other.first+2 // as though it came next
			all := make([]carnet.Measurement, 1<<14+1)
			for i := range all {
				all[i] = carnet.Measurement{Name: "b", Time: 1e18, Value: carnet.Value{Kind: carnet.Boolean}}
			}
			return other.seal(carnet.Day, nil, all...)
		}},
		{"a name in several columns", func(w *world, s *source) []byte {
			other := *s
			other.batch, other.first = other.batch+1, other.first+2 // as though it came next
			return other.seal(carnet.Day, nil, carnet.Measurement{Name: "steps", Time: 1e18, Value: carnet.Float(-1)}, carnet.Measurement{Name: "steps", Unit: "m", Time: 1e18, Value: carnet.Float(-1)})
		}},
		{"no batch at all", func(*world, *source) []byte { return []byte("not a batch") }},
	} {
		t.Run(c.name, func(t *testing.T) { eachStore(t, func(t *testing.T, w *world) { badBatch(t, w, c.make) }) })
	}
}

func badBatch(t *testing.T, w *world, bad func(w *world, s *source) []byte) {
	h := w.hubs[0]
	s := h.open(nil)
	start := time.Now().Add(-time.Hour)
	h.send(s.run(carnet.Day, start, 2))
	spoiled := bad(w, s)
	before := w.statements()
	h.send(s.run(carnet.Day, start.Add(time.Minute), 2), spoiled, s.run(carnet.Day, start.Add(2*time.Minute), 2))
	check := func(when string) {
		t.Helper()
		if head := h.heads()[s.id]; head.NextBatch != 3 || head.NextFirst != 6 {
			t.Errorf("%s: head %+v", when, head)
		}
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(6)) {
			t.Errorf("%s: history %v", when, got)
		}
		held := 0
		if err := w.agent.EachHeld(w.ctx, s.avatar, func(avatar.Held) error { held++; return nil }); err != nil || held != 6 {
			t.Errorf("%s: an auditor sees %d measurements, %v", when, held, err)
		}
	}
	check("live")
	if w.agent.Defects() != 1 {
		t.Errorf("%d defects", w.agent.Defects())
	}
	w.restart()
	check("after a restart")
	w.compact()
	check("after a compaction")
	w.restart()
	check("after both")
	if got := w.statements() - before; got != 2 { // the frame's root and the refusal
		t.Errorf("%d statements, want 2", got)
	}
}

// Many refused batches of a frame are stated once.
func TestManyBadBatches(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		before := w.statements()
		var batches [][]byte
		for range 300 {
			batches = append(batches, h.draw(s.id).run(carnet.Day, time.Now(), 1))
		}
		h.send(append(batches, s.run(carnet.Day, time.Now(), 2))...)
		h.heads()
		w.restart()
		w.compact()
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(2)) {
			t.Errorf("history %v", got)
		}
		said := w.said(before)
		if len(said) != 2 || said[1].Kind != ledger.RefusedBatch || said[1].Object != carnet.FingerprintOf(batches[0]) ||
			!strings.HasSuffix(said[1].Reason, "; 299 more of the frame are refused") || !strings.Contains(said[1].Reason, "key") {
			t.Errorf("stated: %+v", said)
		}
	})
}

func TestMapping(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h, other := w.hubs[0], w.hubs[1]
		s := h.open(nil)
		for range 2 {
			var answer carnet.MapAnswer
			if err := h.call(carnet.CallMap, carnet.MapRequest{Stream: s.id, Title: "again"}, &answer); err != nil || answer.Avatar != s.avatar {
				t.Errorf("asked again: %v, %v", answer, err)
			}
			w.restart()
		}
		unknown := carnet.NewAvatarID()
		for _, c := range []struct {
			who  *hub
			r    carnet.MapRequest
			want carnet.Code
		}{
			{other, carnet.MapRequest{Stream: s.id}, carnet.Conflict},
			{other, carnet.MapRequest{Stream: carnet.NewStreamID(), Avatar: &s.avatar}, carnet.NotFound},
			{h, carnet.MapRequest{Stream: carnet.NewStreamID(), Avatar: &unknown}, carnet.NotFound},
			{h, carnet.MapRequest{}, carnet.Malformed},
			{h, carnet.MapRequest{Stream: carnet.NewStreamID(), Title: strings.Repeat("x", 201)}, carnet.TooLarge},
		} {
			if err := c.who.call(carnet.CallMap, c.r, nil); carnet.CodeOf(err) != c.want {
				t.Errorf("%s maps %+v: %v, want %s", c.who.name, c.r, err, c.want)
			}
		}
		if n := len(w.agent.Avatars()); n != 1 {
			t.Errorf("%d avatars", n)
		}
		if err := other.call(carnet.CallUnmap, carnet.Unmap{Stream: s.id}, nil); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("another's stream ends: %v", err)
		}
		if err := h.call(carnet.CallUnmap, carnet.Unmap{Stream: s.id}, nil); err != nil {
			t.Error(err)
		}
	})
}

// A sender that asks for avatars again and again, and ends their streams, can't fill
// the world; others, and what it has, go on.
func TestAvatarsOfOneSenderAreBounded(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.maxAvatars = 2
		w.restart()
		h, other := w.hubs[0], w.hubs[1]
		first := h.open(nil)
		if err := h.call(carnet.CallUnmap, carnet.Unmap{Stream: h.open(nil).id}, nil); err != nil {
			t.Fatal(err)
		}
		full := func() {
			t.Helper()
			err := h.call(carnet.CallMap, carnet.MapRequest{Stream: carnet.NewStreamID()}, nil)
			if carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "limits.avatars_of_sender") {
				t.Errorf("a third avatar: %v", err)
			}
		}
		full()
		w.restart()
		full()
		h.open(&first.avatar)
		other.open(nil)
		x := carnet.NewCrossingID()
		if err := w.agent.Freeze(w.ctx, first.avatar, x); err != nil {
			t.Fatal(err)
		}
		if err := w.agent.Depart(w.ctx, first.avatar, x, "citadel", carnet.Fingerprint{1}); err != nil {
			t.Fatal(err)
		}
		h.open(nil) // one has gone
		full()
		w.restart()
		full()
	})
}

func TestKeyBags(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h, other := w.hubs[0], w.hubs[1]
		s := h.open(nil)
		slot := s.slot.Key()
		personal := carnet.Label{Sensitivity: carnet.Personal}
		fresh := func(id carnet.StreamID) seal.Key { return seal.NewEpoch(id) }
		for _, c := range []struct {
			name string
			give func() error
			want carnet.Code
		}{
			{"signed by another", func() error {
				return h.grantWith(other.key, seal.Terms{}, seal.Entry{Key: fresh(s.id), Ceiling: personal})
			}, carnet.Tampered},
			{"another's stream", func() error {
				return other.grantWith(other.key, seal.Terms{}, seal.Entry{Key: fresh(s.id), Ceiling: personal})
			}, carnet.Forbidden},
			{"a stream of no avatar", func() error {
				return h.grantWith(h.key, seal.Terms{}, seal.Entry{Key: fresh(carnet.NewStreamID()), Ceiling: personal})
			}, carnet.Forbidden},
			{"a label above the clearance", func() error {
				return h.grantWith(h.key, seal.Terms{}, seal.Entry{Key: fresh(s.id), Ceiling: carnet.Label{Sensitivity: carnet.Health}})
			}, carnet.Forbidden},
			{"another purpose", func() error {
				return h.grantWith(h.key, seal.Terms{Purpose: "research"}, seal.Entry{Key: fresh(s.id), Ceiling: personal})
			}, carnet.Forbidden},
			{"a slot's key", func() error {
				return h.grantWith(h.key, seal.Terms{}, seal.Entry{Key: slot, Ceiling: personal})
			}, carnet.Malformed},
			{"another key for the epoch", func() error {
				k := s.epoch
				k.Secret[0]++
				return h.grantWith(h.key, seal.Terms{}, seal.Entry{Key: k, Ceiling: personal})
			}, carnet.Conflict},
			{"the same again", func() error { return h.grant(s) }, ""},
		} {
			if err := c.give(); carnet.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
		}
	})
}

// A frame that comes twice is acknowledged again and stored once, also within one
// run; another with a known number is refused.
func TestFramesTwice(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		one, two := h.arrival(s.run(carnet.Day, time.Now(), 1)), h.arrival(s.run(carnet.Day, time.Now(), 1))
		verdicts, err := w.agent.Accept(w.ctx, h.name, []*link.Arrival{one, two, one, two, one})
		if want := []link.Verdict{link.Next, link.Next, link.Again, link.Again, link.Again}; err != nil || !slices.Equal(verdicts, want) {
			t.Errorf("verdicts %v, %v", verdicts, err)
		}
		h.last = link.Position{}
		forged := h.arrival()
		verdicts, err = w.agent.Accept(w.ctx, h.name, []*link.Arrival{one, forged, two})
		if want := []link.Verdict{link.Again, link.Forked}; err != nil || !slices.Equal(verdicts, want) {
			t.Errorf("verdicts %v, %v", verdicts, err)
		}
		if n := w.totals(); n.Frames != 2 {
			t.Errorf("%d frames", n.Frames)
		}
	})
}

// TestLabelsOfOneSenderAreBound: one that sends ever new labels is refused, and what
// another sends under a new label has it.
func TestLabelsOfOneSenderAreBound(t *testing.T) {
	w := newWorld(t, openSQLite(t))
	hub, mallory := w.hubs[0], w.hubs[1]
	watch, evil := hub.open(nil), mallory.open(nil)
	one := carnet.Measurement{Name: "b", Time: 1e18, Value: carnet.Float(1)}
	var all [][]byte
	for n := range 1100 {
		all = append(all, evil.seal(carnet.Hour, func(b *seal.Body) { b.Label.Purposes = carnet.NewSet("fitness", fmt.Sprintf("p%d", n)) }, one))
	}
	mallory.send(all...)
	mallory.heads()
	if n := w.agent.Defects(); n != 1100-1024 {
		t.Errorf("%d batches are refused, want those beyond 1,024 labels", n)
	}
	label := carnet.Label{Sensitivity: carnet.Personal, Purposes: carnet.NewSet("fitness")}
	hub.send(watch.seal(carnet.Year, func(b *seal.Body) { b.Label = label }, carnet.Measurement{Name: "steps", Time: time.Now().UnixNano(), Value: carnet.Float(1)}))
	hub.heads()
	if ps, err := w.agent.Properties(watch.avatar); err != nil || len(ps) != 1 || ps[0].Label != label {
		t.Errorf("hub's steps are labelled %+v, %v", ps, err)
	}
}
