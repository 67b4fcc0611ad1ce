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

// lister is a source that lists stretches in pages.
type lister struct {
	Far
	pages [][]avatar.MovedStretch
	asked []avatar.Place
}

// full is a target that has everything.
type full struct {
	World
	seen int
}

func (l *lister) Stretches(_ context.Context, _ Visit, from avatar.Place) (page []avatar.MovedStretch, err error) {
	if l.asked = append(l.asked, from); len(l.asked) <= len(l.pages) {
		page = l.pages[len(l.asked)-1]
	}
	return page, nil
}

func (f *full) Missing(_ context.Context, _ carnet.AvatarID, listed []avatar.MovedStretch) ([]avatar.MovedStretch, error) {
	f.seen += len(listed)
	return nil, nil
}

// TestStretchesAreListed has a source list the stretches of several streams: in one
// listing, which goes on where a page ended, and doesn't go back.
func TestStretchesAreListed(t *testing.T) {
	p, q, r, later := carnet.StreamID{9}, carnet.StreamID{3}, carnet.StreamID{5}, carnet.StreamID{1}
	type at = avatar.Place
	on := func(s carnet.StreamID, batch uint64) at { return at{Stream: s, Batch: batch} }
	page := func(all ...at) (page []avatar.MovedStretch) {
		for _, one := range all {
			page = append(page, avatar.MovedStretch{Stream: one.Stream, First: one.Batch, Size: 1})
		}
		return page
	}
	for name, c := range map[string]struct {
		pages [][]avatar.MovedStretch
		asked []at
		seen  int
		code  carnet.Code
	}{
		"nothing":                   {asked: []at{{}}},
		"one page of three streams": {pages: [][]avatar.MovedStretch{page(on(p, 0), on(p, 7), on(q, 0), on(r, 4))}, asked: []at{{}, on(r, 5)}, seen: 4},
		"a stream over two pages":   {pages: [][]avatar.MovedStretch{page(on(p, 0), on(q, 3)), page(on(q, 4), on(r, 0))}, asked: []at{{}, on(q, 4), on(r, 1)}, seen: 4},
		"a stream that is new":      {pages: [][]avatar.MovedStretch{page(on(p, 0), on(r, 3), on(later, 0))}, asked: []at{{}}, seen: 2},
		"a stream before another":   {pages: [][]avatar.MovedStretch{page(on(q, 0), on(p, 0))}, asked: []at{{}}, code: carnet.Malformed},
		"a page of before":          {pages: [][]avatar.MovedStretch{page(on(q, 0)), page(on(p, 0))}, asked: []at{{}, on(q, 1)}, seen: 1, code: carnet.Malformed},
		"the same batch":            {pages: [][]avatar.MovedStretch{page(on(q, 0), on(q, 0))}, asked: []at{{}}, code: carnet.Malformed},
		"the same page for ever":    {pages: [][]avatar.MovedStretch{page(on(p, 2)), page(on(p, 2))}, asked: []at{{}, on(p, 3)}, seen: 1, code: carnet.Malformed},
	} {
		l, f := &lister{pages: c.pages}, &full{}
		a := &Agent{}
		a.Far, a.World = l, f
		_, err := a.copyListed(t.Context(), atTarget{}, []avatar.MovedStream{{Stream: p}, {Stream: q}, {Stream: r}})
		if carnet.CodeOf(err) != c.code || !slices.Equal(l.asked, c.asked) || f.seen != c.seen {
			t.Errorf("%s: it is asked for %v, %d are looked at, %v; want %v, %d", name, l.asked, f.seen, err, c.asked, c.seen)
		}
	}
}
