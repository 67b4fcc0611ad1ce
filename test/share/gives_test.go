package share_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"carnet"
	"carnet/policy"
)

// gives tells a world what a stream of hub gives.
func (h *hub) gives(w *world, s *stream, names ...string) {
	h.p.t.Helper()
	body, err := json.Marshal(carnet.Gives{Streams: []carnet.StreamGives{{Stream: s.id, Properties: append([]string{}, names...)}}})
	if err != nil {
		h.p.t.Fatal(err)
	}
	if _, err := w.agent.Call(h.p.t.Context(), "hub", carnet.CallGives, body); err != nil {
		h.p.t.Fatal(err)
	}
}

// What the giver's avatar isn't given any more the taker hears: as soon as it is so, and
// once both can speak with each other again; it knows it after a restart. The end of the
// share ends all of it.
func TestWhatAShareGivesNoMore(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10}, "stress": {}}}`)
	s, own := p.hub.streams[0], p.hub.open(p.citadel, nil)
	p.ours = own.avatar
	share := p.take()
	p.hub.send(s.seal(health, beat(0, 60), steps(0, 10)))
	p.eventually("both are there", func() bool { return len(p.here(p.citadel, p.ours)) == 2 })
	p.hub.gives(p.citadel, own)
	is := func(when string, want ...string) {
		t.Helper()
		var got []string
		defer func() {
			if t.Failed() {
				t.Logf("%s %v are withdrawn, want %v", when, got, want)
			}
		}()
		p.eventually("what is withdrawn "+when, func() bool {
			info, err := p.citadel.agent.Avatar(p.ours)
			if err != nil {
				t.Fatal(err)
			}
			got = info.Withdrawn
			return slices.Equal(got, want)
		})
	}
	known := func(when, want string) {
		t.Helper()
		p.eventually("what the share gives "+when, func() bool {
			names, known := p.citadel.agent.ShareGave(p.ours, share.ID)
			return fmt.Sprint(names, known) == want
		})
	}
	known("while arena doesn't know", "[] false")
	is("while arena doesn't know")
	p.hub.gives(p.arena, s, "heart_rate", "steps", "speed")
	known("then", "[heart_rate steps] true")
	is("then")
	p.hub.gives(p.arena, s, "heart_rate")
	is("without steps", "steps")
	info, err := p.arena.agent.Avatar(p.theirs)
	if err != nil || !slices.Equal(info.Withdrawn, []string{"steps"}) {
		t.Errorf("in arena %v are withdrawn, %v", info.Withdrawn, err)
	}
	p.restart(p.citadel)
	is("after the taker's restart", "steps")
	back := p.copied(p.citadel)
	p.hub.gives(p.arena, s, "heart_rate", "steps")
	is("with steps again")
	back()
	is("once a taker that is an older copy is told")
	p.citadel.stop()
	p.hub.gives(p.arena, s, "steps")
	p.start(p.citadel)
	is("after the taker was away", "heart_rate")
	p.restart(p.arena)
	p.hub.gives(p.arena, s, "steps", "heart_rate")
	is("after the giver's restart")
	// A stream of which the giver isn't told makes it unknown, here as there.
	p.hub.open(p.arena, &p.theirs)
	known("while arena isn't told of another stream", "[] false")
	if _, known := p.arena.agent.Gives(p.theirs, policy.View{}); known {
		t.Error("arena knows what a stream gives of which it isn't told")
	}
	p.hub.gives(p.arena, p.hub.streams[len(p.hub.streams)-1])
	known("once it is told", "[heart_rate steps] true")
	// Another share is told of each stream that the taker enters.
	other := p.hub.open(p.citadel, nil)
	second, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, other.avatar, "fitness")
	if err != nil {
		t.Fatal(err)
	}
	p.hub.send(s.seal(health, beat(9, 69), steps(9, 90)))
	p.eventually("what the second share gives", func() bool {
		names, known := p.citadel.agent.ShareGave(other.avatar, second.ID)
		return known && slices.Equal(names, []string{"heart_rate", "steps"})
	})
	// Of what the share has never shown it isn't told, though the view names it; then it is.
	p.hub.gives(p.arena, s, "heart_rate", "steps", "stress", "speed")
	p.hub.gives(p.arena, s, "heart_rate", "stress")
	known("before any stress came", "[heart_rate] true")
	p.hub.send(s.seal(public0, carnet.Measurement{Name: "stress", Time: start.UnixNano(), Value: carnet.Float(1)}))
	known("once it came", "[heart_rate stress] true")
	if err := p.arena.shares.StopGiving(t.Context(), share.ID, "operator", "enough"); err != nil {
		t.Fatal(err)
	}
	is("after its end", "heart_rate", "steps", "stress")
}

// Of what its taker may not have, the giver doesn't say that it gives it.
func TestAShareGivesNothingAboveItsTakersClearance(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {}, "stress": {}}}`)
	s := p.hub.streams[0]
	p.ask().(*asker).most.Sensitivity = carnet.Personal
	p.take()
	p.hub.gives(p.arena, s, "heart_rate", "steps", "stress")
	p.hub.send(s.seal(health, beat(0, 60)), s.seal(public0, steps(0, 10)))
	given := p.arena.shares.Given()
	p.eventually("heart rates aren't given", func() bool {
		names, known := p.arena.shares.Gives(&given[0])
		return known && slices.Equal(names, []string{"steps", "stress"}) // stress hasn't come
	})
}
