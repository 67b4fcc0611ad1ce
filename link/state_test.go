package link

import (
	"context"
	"testing"

	"carnet"
)

// What a sender says of incarnations is bounded before anything is done with it: a store
// can't go beyond, so such a hello could be said again and again.
func TestIncarnationsBeyondAllAreNotAdmitted(t *testing.T) {
	at := State{Incarnation: 3}
	for _, h := range []Hello{{Seen: 3, Known: 1<<63 - 1}, {Seen: 3, Known: 1<<64 - 1}, {Seen: 3, Own: 1<<62 + 1}} {
		if answer, _ := at.Admit(h); answer == Admitted {
			t.Errorf("%+v is admitted", h)
		}
	}
	if answer, above := at.Admit(Hello{Seen: 3, Known: 9}); answer != Admitted || above != 9 {
		t.Errorf("an honest hello: %v above %d", answer, above)
	}
}

// The same the other way round: a receiver's last frame is where the sender's numbers go
// on from, and what comes after it would be refused by a store that all links share.
func TestReceiversBeyondAllNumbersAreLeft(t *testing.T) {
	for _, has := range []State{
		{Last: Position{Number: 1<<64 - 1}}, {Last: Position{Number: 1<<63 - 1}}, {Last: Position{Number: 1<<62 + 1}},
		{Incarnation: 1 << 62},
	} {
		n := newNet(t, nil)
		n.sink.state = has
		source := newSource(n.hub, n.arena.id, 3, 1)
		s, err := NewSender(n.config(source))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		source.onResume = cancel
		if err := s.connect(ctx, 1); carnet.CodeOf(err) != carnet.Malformed || final(err) {
			t.Errorf("frame %d and incarnation %d: %v, want a malformed message, and to try again", has.Last.Number, has.Incarnation, err)
		}
		if source.resumed > 0 {
			t.Errorf("frame %d and incarnation %d: the source went on from there", has.Last.Number, has.Incarnation)
		}
	}
}
