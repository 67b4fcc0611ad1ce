package erasure

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/identity"
)

// takes has a world that took a share with three streams, and what tells it.
func takes(t *testing.T) (s *stage, tell func(...byte) (Told, Other)) {
	s = newStage(t)
	share := carnet.ShareID{7}
	s.shares.taken[share] = crossing.Taken{Question: crossing.Question{ID: share, For: carnet.AvatarID{2}}, Giver: "there"}
	s.world.shared[share] = []carnet.StreamID{{1}, {2}, {3}}
	order := s.order(there, carnet.HomeID{1}, carnet.AvatarID{9})
	return s, func(streams ...byte) (Told, Other) {
		t.Helper()
		o := Other{Role: identity.DeletedShare, Party: "here", Of: share.String()}
		for _, n := range streams {
			o.Streams = append(o.Streams, carnet.StreamID{n})
		}
		answer, err := s.told("there", Telling{Order: order, Share: &share, Streams: o.Streams})
		if err != nil {
			t.Fatal(err)
		}
		teller := &Agent{Config: Config{Peer: func(carnet.PartyID) string { return did(here) }, Now: s.agent.Now}}
		heard, err := teller.answered(&Erasure{ID: carnet.ErasureID{5}, Order: order}, o, answer)
		if err != nil || heard.Heard.IsZero() {
			t.Errorf("of %v it answers %+v, %v", streams, answer, err)
		}
		return answer, o
	}
}

func (s *stage) wantCleared(when string, want ...byte) {
	s.t.Helper()
	for n := byte(1); n <= 3; n++ {
		if is := s.world.cleared[carnet.StreamID{n}]; is != slices.Contains(want, n) {
			s.t.Errorf("%s: stream %d is cleared: %t", when, n, is)
		}
	}
}

// Told twice of one share, for other streams each time, a world deletes both before it
// signs for them, and signs to each who told for exactly what that named.
func TestAShareIsErasedInParts(t *testing.T) {
	s, tell := takes(t)
	first, _ := tell(1)
	s.wantCleared("told of one", 1)
	tell(2)
	s.wantCleared("told of another", 1, 2)
	again, o := tell(1)
	s.wantCleared("told of the first again", 1, 2)
	teller := &Agent{Config: Config{Peer: func(carnet.PartyID) string { return did(here) }, Now: s.agent.Now}}
	e := &Erasure{ID: carnet.ErasureID{5}, Order: s.order(there, carnet.HomeID{1}, carnet.AvatarID{9})}
	for name, streams := range map[string][]carnet.StreamID{"another": {{2}}, "more": {{1}, {2}}, "all": nil} {
		o.Streams = streams
		for _, told := range []Told{first, again} {
			if heard, err := teller.answered(e, o, told); err == nil || !heard.Heard.IsZero() {
				t.Errorf("its word for one stream is taken for %s", name)
			}
		}
	}
	tell()
	s.wantCleared("told of all", 1, 2, 3)
	tell(3)
	if e := s.agent.Of(e.ID); len(e) != 1 || e[0].State != Over || e[0].Had.Streams != 3 {
		t.Errorf("in the end there is %+v", e)
	}
}

// Told of no streams by an empty list, it deletes all that it signs for.
func TestAShareIsErasedByAnEmptyList(t *testing.T) {
	s, _ := takes(t)
	share := carnet.ShareID{7}
	for range 2 {
		told, err := s.told("there", Telling{Order: s.order(there, carnet.HomeID{1}, carnet.AvatarID{9}), Share: &share, Streams: []carnet.StreamID{}})
		if err != nil || told.State != Over {
			t.Fatalf("it answers %+v, %v", told, err)
		}
		s.wantCleared("told of an empty list", 1, 2, 3)
	}
}

// What is told while the rest is being deleted isn't signed for with that.
func TestAShareIsErasedInPartsAtOnce(t *testing.T) {
	s, tell := takes(t)
	share, order := carnet.ShareID{7}, s.order(there, carnet.HomeID{1}, carnet.AvatarID{9})
	s.world.clearing = func() {
		s.world.clearing = nil
		if _, err := s.agent.begin(t.Context(), Erasure{
			ID: carnet.ErasureID{5}, Order: order, Role: identity.DeletedShare, Of: share.String(), Streams: []carnet.StreamID{{2}},
		}); err != nil {
			t.Error(err)
		}
	}
	tell(1)
	s.wantCleared("in the end", 1, 2)
}

// Whom the share was passed on to is told of the new streams, too, and waited for.
func TestWhatWasPassedOnGrows(t *testing.T) {
	s, _ := takes(t)
	share := carnet.ShareID{7}
	is := s.shares.taken[share]
	is.Answer = &crossing.Answer{Onward: true}
	s.shares.taken[share] = is
	s.shares.given = []crossing.Given{{ID: carnet.ShareID{8}, Taker: "elsewhere"}}
	tell := func(n byte) Other {
		s.world.shared[share] = []carnet.StreamID{{1}, {2}, {3}}
		e, err := s.agent.begin(t.Context(), Erasure{ID: carnet.ErasureID{5}, Order: "order", Role: identity.DeletedShare, Of: share.String(), Streams: []carnet.StreamID{{n}}})
		if err != nil {
			t.Fatal(err)
		}
		s.goOn()
		h := s.agent.erasure(e.key())
		if len(h.Others) != 1 {
			t.Fatalf("told are %+v", h.Others)
		}
		return h.Others[0]
	}
	first := tell(1)
	first.Heard = noon
	if err := s.agent.heard(t.Context(), s.agent.All()[0].key(), first); err != nil {
		t.Fatal(err)
	}
	s.goOn()
	if e := s.agent.All()[0]; e.State != Over {
		t.Fatalf("when the next one has answered it is %s", e.State)
	}
	if o := tell(2); !slices.Equal(o.Streams, []carnet.StreamID{{1}, {2}}) || !o.Heard.IsZero() {
		t.Errorf("the next one is told %+v", o)
	}
	if e := s.agent.All()[0]; e.State != Erased {
		t.Errorf("while the next one hasn't answered it is %s", e.State)
	}
}

// Two worlds that share on what they have of each other tell each other, and wait for each
// other no longer than until both have deleted it.
func TestARingOfShares(t *testing.T) {
	a, e := orderedAlone(t)
	b := newStageOf(t, "there", there)
	x, y := carnet.ShareID{7}, carnet.ShareID{8}
	onward := func(id carnet.ShareID, avatar byte, giver carnet.PartyID) map[carnet.ShareID]crossing.Taken {
		return map[carnet.ShareID]crossing.Taken{id: {Question: crossing.Question{ID: id, For: carnet.AvatarID{avatar}}, Giver: giver, Answer: &crossing.Answer{Onward: true}}}
	}
	a.shares.given = []crossing.Given{{ID: x, Taker: "there", Avatar: e.Avatar, End: &crossing.End{}}}
	a.shares.taken, a.world.shared[y] = onward(y, 1, "there"), []carnet.StreamID{{1}, {2}} // one came back
	b.shares.given = []crossing.Given{{ID: y, Taker: "here", Avatar: carnet.AvatarID{2}, End: &crossing.End{}}}
	b.shares.taken, b.world.shared[x] = onward(x, 2, "here"), []carnet.StreamID{{1}, {2}}
	begun := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for from, to := range map[*stage]*stage{a: b, b: a} {
		from.agent.Now = func() time.Time { return noon.Add(time.Since(begun)) }
		from.agent.Tell = func(ctx context.Context, _ carnet.PartyID, _ string, body []byte) ([]byte, error) {
			return to.agent.Handle(ctx, from.agent.Party, body)
		}
	}
	if _, err := a.agent.TakeOrder(t.Context(), e.ID, identity.Erasing{Avatar: e.Avatar, Order: e.Order}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*stage{a, b} {
		work.Go(func() {
			var busy sync.Map
			for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
				for _, key := range s.agent.due() {
					if _, is := busy.LoadOrStore(key, true); !is {
						work.Go(func() { s.agent.goOn(ctx, key); busy.Delete(key) })
					}
				}
			}
		})
	}
	defer work.Wait()
	defer cancel()
	over := func() bool {
		all := slices.Concat(a.agent.All(), b.agent.All())
		return len(all) == 3 && !slices.ContainsFunc(all, func(e Erasure) bool { return e.State != Over })
	}
	for end := time.Now().Add(20 * time.Second); !over(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			for _, e := range slices.Concat(a.agent.All(), b.agent.All()) {
				t.Errorf("%s %s is %s, and waits for %+v", e.Role, e.Of, e.State, e.Waits())
			}
			return
		}
	}
	is := a.now(e)
	if n := len(is.Deletions()); n < 3 {
		t.Errorf("at the home there are %d deletions, want its own, the taker's, and its own as one to whom that passed it on", n)
	}
	a.wantCleared("at the home", 1, 2)
	b.wantCleared("at the taker", 1, 2)
}
