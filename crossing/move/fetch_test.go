package move

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"carnet"
	"carnet/avatar"
)

// prover is a target: what is proved is what begins with "whole".
type prover struct{ World }

// shelf is a source of stretches.
type shelf struct {
	Far
	mu     sync.Mutex
	state  map[carnet.StreamID]string // of a stretch: whole, lost, or gone
	asked  map[carnet.StreamID]int
	groups [][]avatar.Proven
}

func (s *shelf) Stretch(_ context.Context, _ Visit, m avatar.MovedStretch, looked bool) (body, proof []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[m.Stream]++
	switch state := s.state[m.Stream]; {
	case state == "gone":
		return nil, nil, carnet.Errorf(carnet.NotFound, "its retention has ended")
	case state == "whole", state == "damaged" && looked: // it had it at the depot
		return []byte("whole"), nil, nil
	}
	return []byte("rotten"), nil, nil
}

func (prover) ProveStretch(_ context.Context, _ carnet.AvatarID, m avatar.MovedStretch, body, _ []byte) (p avatar.Proven, err error) {
	p.MovedStretch = m
	if !bytes.HasPrefix(body, []byte("whole")) {
		err = carnet.Errorf(carnet.Tampered, "it has other bytes")
	}
	return p, err
}

// TestStretchesAreBrought has a source send stretches as it has them: one that isn't
// what it should be is asked for once more, and then looked at first.
func TestStretchesAreBrought(t *testing.T) {
	bring := func(states ...string) (s *shelf, names []carnet.StreamID, err error) {
		s = &shelf{state: make(map[carnet.StreamID]string), asked: make(map[carnet.StreamID]int)}
		var all []avatar.MovedStretch
		for _, state := range states {
			m := avatar.MovedStretch{Stream: carnet.NewStreamID(), Size: 1}
			s.state[m.Stream] = state
			all, names = append(all, m), append(names, m.Stream)
		}
		a := &Agent{}
		a.Far, a.World = s, prover{}
		return s, names, a.bring(t.Context(), atTarget{}, all, func(some []avatar.Proven) error {
			s.groups = append(s.groups, slices.Clone(some))
			return nil
		})
	}
	states := slices.Repeat([]string{"whole", "damaged", "gone", "whole"}, 20)
	s, names, err := bring(states...)
	if err != nil {
		t.Fatal(err)
	}
	came := make(map[carnet.StreamID]int)
	for _, some := range s.groups {
		if len(some) > takeAtOnce {
			t.Errorf("%d stretches are taken at once", len(some))
		}
		for i := range some {
			came[some[i].Stream]++
		}
	}
	for i, name := range names {
		want := map[string][2]int{"whole": {1, 1}, "damaged": {1, 2}, "gone": {0, 1}}[states[i]]
		if got := [2]int{came[name], s.asked[name]}; got != want {
			t.Errorf("a stretch that is %s at the source: taken and asked for %v times, want %v", states[i], got, want)
		}
	}
	if s, names, err = bring("whole", "lost", "whole"); carnet.CodeOf(err) != carnet.Tampered || s.asked[names[1]] != 2 {
		t.Errorf("a stretch that the source lost got %v, asked for %d times", err, s.asked[names[1]])
	}
}
