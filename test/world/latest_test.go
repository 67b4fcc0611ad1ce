package world_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/seal"
	"carnet/test/wait"
)

// saved returns an avatar's state as the store has it, opened, and the version.
func (w *world) saved(id carnet.AvatarID) (text string, version uint64) {
	w.t.Helper()
	d, err := w.store.Document(w.ctx, "state", id.String())
	if err != nil {
		w.t.Fatal(err)
	}
	plain, err := w.rest().Open(nil, []byte("document state "+id.String()), d.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(plain), d.Version
}

func (w *world) rest() *keys.Sealer {
	w.t.Helper()
	sealer, err := w.table.Sealer(w.ctx, keys.ID{Kind: "rest", Name: "world"})
	if err != nil {
		w.t.Fatal(err)
	}
	return sealer
}

// shown returns the names of what an avatar's state shows.
func (w *world) shown(id carnet.AvatarID) (names []string) {
	w.t.Helper()
	ms, err := w.agent.Latest(id)
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := w.agent.Avatar(id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range ms {
		names = append(names, m.Name)
	}
	if !slices.Equal(info.Properties, names) && len(names)+len(info.Properties) > 0 || (info.Latest == nil) != (len(names) == 0) {
		w.t.Errorf("the state shows %v, the avatar has %v, newest of %v", names, info.Properties, info.Latest)
	}
	return names
}

func (s *source) say(class carnet.Retention, name string, at time.Time, v float64) []byte {
	s.h.w.t.Helper()
	return s.seal(class, nil, carnet.Measurement{Name: name, Time: at.UnixNano(), Value: carnet.Float(v)})
}

// What a state shows ends with its retention class, in memory and in the store.
func TestValuesEndWithTheirRetention(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s, ended := h.open(nil), h.open(nil)
		now := time.Now()
		h.send(s.say(carnet.Hour, "pulse", now, 60), s.say(carnet.Keep, "steps", now, 1), s.say(carnet.Day, "weight", now, 80), ended.say(carnet.Hour, "pulse", now, 60))
		h.heads()
		if got := w.shown(s.avatar); !slices.Equal(got, []string{"pulse", "steps", "weight"}) {
			t.Fatalf("at first the state shows %v", got)
		}
		w.compact()
		if err := h.call(carnet.CallUnmap, carnet.Unmap{Stream: ended.id}, nil); err != nil {
			t.Fatal(err)
		}
		w.ahead.Store(int64(time.Hour - time.Minute))
		if got := w.shown(ended.avatar); !slices.Equal(got, []string{"pulse"}) {
			t.Errorf("before its end the state shows %v", got)
		}
		w.ahead.Store(int64(4 * time.Hour))
		check := func() { // nothing has been tidied
			t.Helper()
			if got := w.shown(ended.avatar); len(got) > 0 {
				t.Errorf("an hour later the state shows %v", got)
			}
			if got := w.shown(s.avatar); !slices.Equal(got, []string{"steps", "weight"}) {
				t.Errorf("an hour later the state shows %v", got)
			}
			for id, head := range h.heads() {
				if slices.ContainsFunc(head.Latest, func(m carnet.SeenMeasurement) bool { return m.Name == "pulse" }) {
					t.Errorf("the head of %s has what is over", id)
				}
			}
		}
		check()
		w.restart()
		check()
		w.stop()
		w.every = 5 * time.Millisecond
		w.restart()
		wait.Until(t, "the store has no value that is over", func() bool {
			one, _ := w.saved(ended.avatar)
			other, _ := w.saved(s.avatar)
			return !strings.Contains(one+other, "pulse") && strings.Contains(other, "weight")
		})
		check()
		w.restart()
		check()
		// What is measured earlier and kept is shown instead of what is over.
		w.ahead.Store(int64(40 * time.Hour))
		h.send(s.say(carnet.Day, "weight", now.Add(-time.Hour), 81))
		h.heads()
		if got := w.shown(s.avatar); !slices.Equal(got, []string{"steps", "weight"}) {
			t.Errorf("late, the state shows %v", got)
		}
	})
}

// What a state shows ends with the grant that it came under, wherever a crash falls.
func TestValuesEndWithTheirGrant(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.every = 5 * time.Millisecond
		w.restart()
		h := w.hubs[0]
		s := h.open(nil)
		other := h.open(&s.avatar)
		now := time.Now()
		h.send(other.say(carnet.Keep, "pulse", now, 60), s.say(carnet.Keep, "steps", now, 1))
		h.heads()
		old := s.turn()
		if err := h.grantWith(h.key, seal.Terms{NotAfter: now.Add(200 * time.Hour)}, seal.Entry{Key: s.epoch}); err != nil {
			t.Fatal(err)
		}
		h.send(s.say(carnet.Keep, "weight", now, 80))
		h.heads()
		w.compact()
		met := make(chan struct{}, 1)
		w.store.fault.Store(&fault{at: "put", err: carnet.Errorf(carnet.NoSpace, "no room"), met: met})
		w.ahead.Store(int64(300 * time.Hour))
		<-met
		w.restart()
		wait.Until(t, "the store has no value whose grant is over", func() bool {
			text, _ := w.saved(s.avatar)
			return !strings.Contains(text, "weight") && !w.hasKey(s.keyID())
		})
		if got := w.shown(s.avatar); !slices.Equal(got, []string{"pulse", "steps"}) || !w.hasKey(old) {
			t.Errorf("afterwards the state shows %v; the key before is there: %v", got, w.hasKey(old))
		}
	})
}

// A state that an older program saved doesn't say when its values end: they are
// forgotten.
func TestValuesWithoutAnEndAreForgotten(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		h.send(s.say(carnet.Keep, "pulse", time.Now(), 60))
		h.heads()
		w.compact()
		text, version := w.saved(s.avatar)
		w.stop()
		var doc map[string]any
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		doc["latest"] = []map[string]any{{"n": "pulse", "t": time.Now().UnixNano(), "k": 1, "v": 60}}
		plain, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		body, err := w.rest().Seal(nil, []byte("document state "+s.avatar.String()), plain)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Put(w.ctx, []carnet.Document{{Kind: "state", ID: s.avatar.String(), Version: version + 1, Body: body}}, nil); err != nil {
			t.Fatal(err)
		}
		w.restart()
		if got := w.shown(s.avatar); len(got) > 0 {
			t.Errorf("the state shows %v", got)
		}
		w.compact()
		if text, _ := w.saved(s.avatar); strings.Contains(text, "pulse") {
			t.Errorf("the store still has %s", text)
		}
		h.send(s.say(carnet.Keep, "pulse", time.Now(), 61))
		if head := h.heads()[s.id]; head.NextBatch != 2 || !slices.Equal(w.shown(s.avatar), []string{"pulse"}) {
			t.Errorf("afterwards the stream's next batch is %d, the state shows %v", head.NextBatch, w.shown(s.avatar))
		}
	})
}

// A stream's head says what came by that stream, and nothing that came by others.
func TestHeadsSayWhatCameByTheirStream(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		o := h.open(&s.avatar)
		now := time.Now()
		h.send(s.say(carnet.Keep, "pulse", now, 60), o.say(carnet.Keep, "glucose", now, 5))
		for range 2 {
			heads := h.heads()
			for id, want := range map[carnet.StreamID]string{s.id: "pulse", o.id: "glucose"} {
				if l := heads[id].Latest; len(l) != 1 || l[0].Name != want {
					t.Errorf("the head of %s says %+v, want %s", id, l, want)
				}
			}
			w.restart()
		}
	})
}
