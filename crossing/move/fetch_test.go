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
	state  map[carnet.StreamID]string // of a stretch: whole, lost, damaged, or gone
	most   int                        // how many it gives at once
	older  bool                       // it knows no lists
	calls  int
	lists  []int                   // of how many stretches each list that it answered was
	asked  map[carnet.StreamID]int // alone
	groups [][]avatar.Proven
}

func (s *shelf) Stretch(_ context.Context, _ Visit, m avatar.MovedStretch, looked bool) (body, proof []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[m.Stream]++
	s.calls++
	if s.state[m.Stream] == "gone" {
		return nil, nil, carnet.Errorf(carnet.NotFound, "its retention has ended")
	}
	return s.has(m, looked), []byte("proof"), nil
}

func (s *shelf) has(m avatar.MovedStretch, looked bool) []byte {
	if state := s.state[m.Stream]; state == "whole" || state == "damaged" && looked { // it had it at the depot
		return []byte("whole")
	}
	return []byte("rotten")
}

func (s *shelf) Several(_ context.Context, _ Visit, some []avatar.MovedStretch) (given []Piece, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.older {
		return nil, carnet.Errorf(carnet.Malformed, "what is said can't be read")
	}
	s.lists = append(s.lists, len(some))
	for _, m := range some[:min(len(some), s.most)] {
		if s.state[m.Stream] == "gone" {
			given = append(given, Piece{})
		} else {
			given = append(given, Piece{s.has(m, false), []byte("proof")})
		}
	}
	return given, nil
}

func (prover) ProveStretch(_ context.Context, _ carnet.AvatarID, m avatar.MovedStretch, body, _ []byte) (p avatar.Proven, err error) {
	p.MovedStretch = m
	if !bytes.HasPrefix(body, []byte("whole")) {
		err = carnet.Errorf(carnet.Tampered, "it has other bytes")
	}
	return p, err
}

// bringFrom fetches stretches of so many bytes that a source has in these states.
func bringFrom(t *testing.T, s *shelf, size int, states ...string) (names []carnet.StreamID, err error) {
	s.state, s.asked = make(map[carnet.StreamID]string), make(map[carnet.StreamID]int)
	var all []avatar.MovedStretch
	for _, state := range states {
		m := avatar.MovedStretch{Stream: carnet.NewStreamID(), Size: size}
		s.state[m.Stream] = state
		all, names = append(all, m), append(names, m.Stream)
	}
	a := &Agent{}
	a.Far, a.World = s, prover{}
	return names, a.bring(t.Context(), atTarget{}, all, func(some []avatar.Proven) error {
		s.groups = append(s.groups, slices.Clone(some))
		return nil
	})
}

// TestStretchesAreBrought has a source send stretches as it has them: one that isn't
// what it should be is asked for once more, alone, and then looked at first.
func TestStretchesAreBrought(t *testing.T) {
	for name, c := range map[string]struct {
		source *shelf
		whole  int // how often one that is whole is asked for alone
	}{
		"all of a list":     {source: &shelf{most: MaxSeveral}},
		"some of a list":    {source: &shelf{most: 3}},
		"an older source":   {source: &shelf{older: true}, whole: 1},
		"nothing of a list": {source: &shelf{}, whole: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.source
			states := slices.Repeat([]string{"whole", "damaged", "gone", "whole"}, 40)
			names, err := bringFrom(t, s, 1, states...)
			if err != nil {
				t.Fatal(err)
			}
			came := make(map[carnet.StreamID]int)
			for _, some := range s.groups {
				if len(some) >= takeAtOnce+MaxSeveral {
					t.Errorf("%d stretches are taken at once", len(some))
				}
				for i := range some {
					came[some[i].Stream]++
				}
			}
			want := map[string][2]int{"whole": {1, c.whole}, "damaged": {1, 1 + c.whole}, "gone": {0, c.whole}}
			if s.most == 3 { // a list's last is alone when it is the only one that is left
				for _, state := range []string{"whole", "damaged", "gone"} {
					want[state] = [2]int{want[state][0], -1}
				}
			}
			for i, name := range names {
				if want := want[states[i]]; came[name] != want[0] || want[1] >= 0 && s.asked[name] != want[1] {
					t.Errorf("a stretch that is %s at the source: taken %d times and asked for alone %d times, want %v", states[i], came[name], s.asked[name], want)
				}
			}
			if s.older && s.calls-len(names)-40 > fetchAtOnce {
				t.Errorf("%d calls for %d stretches, of which 40 are looked at: a source that knows no lists is asked for them again and again", s.calls, len(names))
			}
		})
	}
	for _, most := range []int{0, MaxSeveral} {
		s := &shelf{most: most}
		if names, err := bringFrom(t, s, 1, "whole", "lost", "whole"); carnet.CodeOf(err) != carnet.Tampered || s.asked[names[1]] != min(2, 2-most/MaxSeveral) {
			t.Errorf("a stretch that the source lost got %v, asked for alone %d times", err, s.asked[names[1]])
		}
	}
}

// An avatar that went around often has many small stretches, and each call costs both
// worlds a proof of who calls, a record and a commit.
func TestManySmallStretchesAreFewCalls(t *testing.T) {
	for name, c := range map[string]struct {
		size, many   int
		calls, takes int // at most
		list         int // at most
	}{
		"small":                 {size: 800, many: 256, calls: 4, takes: 4, list: MaxSeveral},
		"as large as a list is": {size: askBytes, many: 9, calls: 9, takes: 9, list: 1},
		"larger":                {size: askBytes + 1, many: 9, calls: 9, takes: 9, list: 1},
		"three in a list":       {size: askBytes / 3, many: 9, calls: 3, takes: 3, list: 3},
	} {
		s := &shelf{most: MaxSeveral}
		if _, err := bringFrom(t, s, c.size, slices.Repeat([]string{"whole"}, c.many)...); err != nil {
			t.Fatal(err)
		}
		if s.calls > c.calls || len(s.groups) > c.takes {
			t.Errorf("%s: %d stretches came with %d calls and were taken in %d commits, at most %d and %d are wanted", name, c.many, s.calls, len(s.groups), c.calls, c.takes)
		}
		for _, n := range s.lists {
			if n > c.list {
				t.Errorf("%s: %d stretches of %d bytes are asked for at once", name, n, c.size)
			}
		}
	}
}

// gives is a source's world: what it has of each stretch, by its first batch.
type gives struct {
	World
	sizes []int // of a stretch; 0: it is gone, less: it has no receipt yet
}

func (g *gives) StoredBytes(_ context.Context, _ carnet.AvatarID, m avatar.MovedStretch) ([]byte, error) {
	n := g.sizes[m.First]
	if n == 0 {
		return nil, carnet.Errorf(carnet.NotFound, "its retention has ended")
	}
	return make([]byte, max(n, 1)), nil
}

func (g *gives) ProofOf(_ context.Context, _ carnet.AvatarID, m avatar.MovedStretch) ([]byte, error) {
	if g.sizes[m.First] < 0 {
		return nil, carnet.Errorf(carnet.Unavailable, "a frame has no receipt yet")
	}
	return []byte("proof"), nil
}

// A source gives the first of some stretches, as many as fit into an answer, up to one
// that it can't give now.
func TestSeveralStretchesAreGiven(t *testing.T) {
	x, about := carnet.NewCrossingID(), carnet.NewAvatarID()
	for name, c := range map[string]struct {
		sizes []int
		given []int
		code  carnet.Code
	}{
		"all":                       {sizes: []int{7, 8, 9}, given: []int{7, 8, 9}},
		"one that is gone":          {sizes: []int{7, 0, 9}, given: []int{7, 0, 9}},
		"gone":                      {sizes: []int{0}, given: []int{0}},
		"one without receipt":       {sizes: []int{7, -1, 9}, given: []int{7}},
		"the first without receipt": {sizes: []int{-1, 8, 9}, code: carnet.Unavailable},
		"more than an answer has":   {sizes: []int{7, answerBytes - 30, 9, 10}, given: []int{7, answerBytes - 30}},
		"a large one":               {sizes: []int{answerBytes + 1, 8}, given: []int{answerBytes + 1}},
		"a large one later":         {sizes: []int{7, answerBytes + 1, 8}, given: []int{7}},
		"as many as may be":         {sizes: slices.Repeat([]int{1}, MaxSeveral), given: slices.Repeat([]int{1}, MaxSeveral)},
		"more":                      {sizes: slices.Repeat([]int{1}, MaxSeveral+1), code: carnet.Malformed},
		"none":                      {code: carnet.Malformed},
	} {
		a := &Agent{sources: map[carnet.CrossingID]*atSource{x: {AtSource: AtSource{ID: x, Avatar: about, To: "citadel", State: Frozen}}}}
		a.World = &gives{sizes: c.sizes}
		var some []avatar.MovedStretch
		for i := range c.sizes {
			some = append(some, avatar.MovedStretch{First: uint64(i)})
		}
		given, err := a.Several(t.Context(), "citadel", about, x, some)
		var sizes []int
		for i := range given {
			if sizes = append(sizes, len(given[i].Body)); given[i].gone() != (len(given[i].Body) == 0) {
				t.Errorf("%s: a stretch without bytes, or a proof without a stretch", name)
			}
		}
		if carnet.CodeOf(err) != c.code || !slices.Equal(sizes, c.given) {
			t.Errorf("%s: got %v, %v; want %v and code %q", name, sizes, err, c.given, c.code)
		}
		if given, err := a.Several(t.Context(), "clinic", about, x, append(some, avatar.MovedStretch{})[:1]); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s: a world that the avatar doesn't move to got %d stretches, %v", name, len(given), err)
		}
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
		_, err := a.copyListed(t.Context(), atTarget{}, []avatar.MovedStream{{Stream: p}, {Stream: q}, {Stream: r}}, true)
		if carnet.CodeOf(err) != c.code || !slices.Equal(l.asked, c.asked) || f.seen != c.seen {
			t.Errorf("%s: it is asked for %v, %d are looked at, %v; want %v, %d", name, l.asked, f.seen, err, c.asked, c.seen)
		}
	}
}
