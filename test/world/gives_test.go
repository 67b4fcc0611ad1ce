package world_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/policy"
)

// gives tells the world what streams give.
func (h *hub) gives(s *source, names ...string) error {
	return h.call(carnet.CallGives, carnet.Gives{Streams: []carnet.StreamGives{{Stream: s.id, Properties: append([]string{}, names...)}}}, nil)
}

// withdrawn checks which of an avatar's properties nothing gives any more.
func (w *world) withdrawn(when string, id carnet.AvatarID, want ...string) {
	w.t.Helper()
	info, err := w.agent.Avatar(id)
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(info.Withdrawn, want) {
		w.t.Errorf("%s %v are withdrawn, want %v", when, info.Withdrawn, want)
	}
}

// What nothing gives any more is named once it is known of every stream of the avatar,
// also after a restart; who sends isn't believed of others' streams.
func TestWithdrawn(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h, from := w.hubs[0], neighbour(w)
		s := h.open(nil)
		now := time.Now()
		h.send(s.say(carnet.Day, "pulse", now, 60), s.say(carnet.Day, "steps", now, 1), s.say(carnet.Day, "place/lat", now, 1))
		h.heads()
		w.withdrawn("while nobody has said it", s.avatar)
		tell := func(names ...string) {
			t.Helper()
			if err := h.gives(s, names...); err != nil {
				t.Fatal(err)
			}
		}
		tell("steps", "place/lat", "pulse")
		w.withdrawn("under the first view", s.avatar)
		changed := w.agent.GivesChanged()
		tell("pulse", "place/lat", "weight", "steps", "steps")
		tell("pulse", "place/lon")
		w.withdrawn("under the next", s.avatar, "place/lat", "steps")
		if w.agent.GivesChanged() < changed+2 {
			t.Error("nobody can tell that it has changed")
		}
		w.restart()
		w.withdrawn("after a restart", s.avatar, "place/lat", "steps")
		w.compact()
		w.restart()
		w.withdrawn("after a compaction", s.avatar, "place/lat", "steps")
		// Another stream gives it again.
		other := h.open(&s.avatar)
		w.withdrawn("while it isn't known of another stream", s.avatar)
		if err := h.gives(other, "steps"); err != nil {
			t.Fatal(err)
		}
		w.withdrawn("under both", s.avatar, "place/lat")
		// By a share comes what its giver says.
		share := avatar.Shared{ID: carnet.NewShareID()}
		shared := from.draw(carnet.NewStreamID())
		if err := w.agent.Enter(w.ctx, shared.id, from.name, s.avatar, share, 0); err != nil {
			t.Fatal(err)
		}
		w.withdrawn("while it isn't known of the share", s.avatar)
		if err := from.gives(shared, "place/lat"); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("a world that shares speaks as a things agent does: %v", err)
		}
		told := []string{"place/lat"}
		if err := w.agent.ShareGives(w.ctx, s.avatar, share.ID, &told); err != nil {
			t.Fatal(err)
		}
		w.withdrawn("under the share", s.avatar)
		if got, known := w.agent.ShareGave(s.avatar, share.ID); !known || !slices.Equal(got, told) {
			t.Errorf("the share gives %v, %v", got, known)
		}
		of := policy.View{Properties: map[string]policy.PropertyView{"pulse": {}, "place": {}, "steps": {}, "weight": {}}}
		if got, known := w.agent.Gives(s.avatar, of); !known || !slices.Equal(got, []string{"place/lon", "pulse", "steps"}) {
			t.Errorf("of what may be passed on are given %v, %v", got, known)
		}
		w.restart()
		w.withdrawn("under the share, after a restart", s.avatar)
		if err := w.agent.EndShare(w.ctx, share.ID); err != nil {
			t.Fatal(err)
		}
		w.withdrawn("after the share's end", s.avatar, "place/lat")
		// What is no name is refused, as is too much; what isn't the sender's is passed over.
		for what, names := range map[string][]string{"nothing": {""}, "a break": {"pulse\nsteps"}, "a long one": {strings.Repeat("x", 129)}} {
			if err := h.gives(s, names...); carnet.CodeOf(err) != carnet.Malformed {
				t.Errorf("%s as a name: %v", what, err)
			}
		}
		if err := w.hubs[0].call(carnet.CallGives, carnet.Gives{Streams: []carnet.StreamGives{{Stream: shared.id}, {Stream: carnet.NewStreamID()}}}, nil); err != nil {
			t.Errorf("streams that aren't its own: %v", err)
		}
		w.withdrawn("whatever was refused", s.avatar, "place/lat")
		// A stream that has ended gives nothing.
		for _, x := range []*source{s, other} {
			if err := h.call(carnet.CallUnmap, carnet.Unmap{Stream: x.id}, nil); err != nil {
				t.Fatal(err)
			}
		}
		w.withdrawn("once all has ended", s.avatar, "place/lat", "pulse", "steps")
		w.restart()
		w.withdrawn("then, after a restart", s.avatar, "place/lat", "pulse", "steps")
	})
}
