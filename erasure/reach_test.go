package erasure

import (
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/crossing/move"
	"carnet/identity"
)

// orderedAlone is a world with an avatar whose owner has ordered that it is erased.
func orderedAlone(t *testing.T) (s *stage, e Erasure) {
	t.Helper()
	s = newStage(t)
	id, home := carnet.AvatarID{1}, carnet.HomeID{2}
	s.world.avatars[id] = avatar.Info{ID: id}
	s.moves.homes = []move.Registered{{Avatar: id, Home: home, Registrar: did(theRegistrar), Owner: did(theOwner)}}
	return s, Erasure{ID: carnet.ErasureID{5}, Order: s.order(here, home, id), Role: identity.DeletedAtHome, Avatar: id}
}

// begins hands the order in.
func (s *stage) begins(e Erasure) Erasure {
	s.t.Helper()
	if _, err := s.agent.TakeOrder(s.t.Context(), e.ID, identity.Erasing{Avatar: e.Avatar, Order: e.Order}); err != nil {
		s.t.Fatal(err)
	}
	s.goOn()
	return s.now(e)
}

func (s *stage) now(e Erasure) Erasure { return s.agent.erasure(e.key()).Erasure }

// again has everything that waits be due.
func (s *stage) again(e Erasure) Erasure {
	s.agent.mu.Lock()
	for _, h := range s.agent.erasures {
		h.tried = make(map[string]*trying)
	}
	s.agent.mu.Unlock()
	s.goOn()
	return s.now(e)
}

// What a DPM signs is believed if it is signed by its key, of this erasure, and of as many
// jobs as it was told; told of more it is asked again.
func TestADPMIsHeardOfAllItsJobs(t *testing.T) {
	s, e := orderedAlone(t)
	s.jobs.at, s.jobs.over = map[carnet.PartyID]int{"there": 2}, 3
	by, signs := byte(elsewhere), uint64(2)
	s.jobs.answer = func(at carnet.PartyID, id carnet.ErasureID) ([]string, []int, error) {
		token, err := identity.SignDeletion(testKey(by), identity.Deletion{
			Erasure: id, Order: hashOf(e.Order), By: did(by), Role: identity.DeletedAtDPM, Jobs: signs, Unreadable: noon, Unrecoverable: noon.Add(time.Hour),
		})
		return []string{token}, []int{s.jobs.at[at]}, err
	}
	is := s.begins(e)
	waits := func(why string) {
		t.Helper()
		if w := is.Waits(); len(w) != 1 || w[0].Role != identity.DeletedAtDPM || w[0].Party != "there" || !strings.Contains(w[0].Why, why) || is.State == Over {
			t.Errorf("the erasure is %s and waits for %+v, want %q", is.State, w, why)
		}
	}
	waits("another key")
	by, signs = there, 1
	is = s.again(e)
	waits("of 1 jobs, and it was asked for 2")
	signs = 2
	if is = s.again(e); is.State != Over || len(is.Waits()) != 0 {
		t.Errorf("the erasure is %s and waits for %+v", is.State, is.Waits())
	}
	if d, err := identity.OpenDeletion(is.Deletion); err != nil || d.Jobs != 3 {
		t.Errorf("the home signed %+v, %v", d, err)
	}
	if of := s.jobs.told[0]; of.Avatar != e.Avatar || of.Order != e.Order || of.By != e.ID || of.Streams != nil {
		t.Errorf("jobs are erased of %+v", of)
	}
	if n := len(is.Deletions()); n != 2 {
		t.Errorf("%d have signed", n)
	}
}

// An item that keeps still is waited for before a home signs, with the reason; shelves are
// withdrawn, and jobs end, before the avatar is hidden.
func TestAnErasureWaitsForItems(t *testing.T) {
	s, e := orderedAlone(t)
	s.jobs.at = map[carnet.PartyID]int{}
	s.items.had, s.items.still = 2, carnet.Errorf(carnet.Conflict, "its item keeps still")
	share := carnet.ShareID{7}
	s.shares.given = []crossing.Given{{ID: share, Taker: "there", Avatar: e.Avatar, End: &crossing.End{}}}
	s.world.hiding = func() { // what ends by itself then isn't signed for
		if len(s.shares.unshelved) == 0 || s.shares.unshelved[0] != share || len(s.jobs.told) == 0 {
			t.Errorf("it is hidden before shelves and jobs have ended: %v, %v", s.shares.unshelved, s.jobs.told)
		}
	}
	is := s.begins(e)
	if is.State != Hiding || !strings.Contains(is.Why, "keeps still") || is.Deletion != "" {
		t.Errorf("with an item that keeps still the erasure is %s: %s, %q", is.State, is.Why, is.Deletion)
	}
	s.items.still = nil
	is = s.again(e)
	d, err := identity.OpenDeletion(is.Deletion)
	if err != nil || d.Items != 2 || is.Why != "" || is.State != Erased || len(s.items.erased) == 0 || s.items.erased[0] != e.Avatar {
		t.Errorf("the erasure is %s: %s; signed %+v, %v; items of %v ended", is.State, is.Why, d, err, s.items.erased)
	}
}

// An erasure is over once the register knows that each item has ended: until then it says
// what it waits for.
func TestAnErasureWaitsUntilTheRegisterKnowsOfItems(t *testing.T) {
	s, e := orderedAlone(t)
	s.jobs.at = map[carnet.PartyID]int{}
	s.items.had, s.items.untold = 2, 2
	is := s.begins(e)
	if is.State != Erased || !strings.Contains(is.Why, "the end of 2 items") || len(is.Waits()) > 0 {
		t.Errorf("before the register knows, the erasure is %s: %s; it waits for %+v", is.State, is.Why, is.Waits())
	}
	s.items.untold = 0
	if is = s.again(e); is.State != Over || is.Why != "" {
		t.Errorf("once it knows, the erasure is %s: %s", is.State, is.Why)
	}
}

// While an avatar keeps still for a move nothing of it is touched; if it moves, what was to
// be deleted at the depot is so for nobody's erasure.
func TestAnErasureThatWaitsForAMoveTouchesNothing(t *testing.T) {
	s, e := orderedAlone(t)
	s.world.moving = true
	s.shares.given = []crossing.Given{{ID: carnet.ShareID{7}, Taker: "there", Avatar: e.Avatar}}
	is := s.begins(e)
	if is.State != Ordered || is.Why == "" || len(s.jobs.told) > 0 || len(s.shares.unshelved) > 0 {
		t.Errorf("the erasure is %s: %q; of jobs %v are erased, of shelves %v", is.State, is.Why, s.jobs.told, s.shares.unshelved)
	}
	object := carnet.Fingerprint{9}
	s.world.doomed[e.ID] = []carnet.Fingerprint{object} // it froze just as it was about to be hidden
	s.world.moving = false
	delete(s.world.avatars, e.Avatar)
	s.world.gone[e.Avatar] = avatar.Destination{Crossing: carnet.CrossingID{3}, World: "there"}
	is = s.again(e)
	if is.State != Elsewhere || len(s.world.doomed[e.ID]) > 0 || len(s.world.doomed[carnet.ErasureID{}]) != 1 {
		t.Errorf("the erasure is %s; the depot is to delete %v", is.State, s.world.doomed)
	}
}

// A depot isn't asked to sign while it has something that it was to delete before.
func TestADepotSignsOnceNothingIsLeftOfBefore(t *testing.T) {
	s, e := orderedAlone(t)
	v := &vault{}
	s.agent.Depot = v
	s.world.undeleted = carnet.Errorf(carnet.Unavailable, "it doesn't delete this object")
	is := s.begins(e)
	waits := func(why string) {
		t.Helper()
		if w := is.Waits(); len(w) != 1 || w[0].Role != identity.DeletedAtDepot || !strings.Contains(w[0].Why, why) || len(v.asked) > 0 {
			t.Errorf("the erasure is %s and waits for %+v, want %q; the depot was asked %v", is.State, w, why, v.asked)
		}
	}
	waits("this object")
	s.world.undeleted = nil
	earlier := Erasure{ID: carnet.ErasureID{4}, Role: identity.DeletedAtHome, Avatar: carnet.AvatarID{8}, State: Erased, Hidden: noon.Add(-time.Minute)}
	s.agent.erasures[earlier.key()] = &held{Erasure: earlier, tried: make(map[string]*trying), notTill: noon.Add(time.Hour)}
	v.refuses, s.world.doomed[earlier.ID], s.world.doomed[e.ID] = earlier.ID, []carnet.Fingerprint{{9}}, []carnet.Fingerprint{{8}}
	is = s.again(e)
	waits("of the erasure")
	v.refuses = carnet.ErasureID{}
	if is = s.again(e); is.State != Over || len(v.asked) != 2 || v.asked[0].Erasure != earlier.ID || len(v.asked[1].Objects) != 1 {
		t.Errorf("the erasure is %s and waits for %+v; the depot was asked %v", is.State, is.Waits(), v.asked)
	}
}

// Two who tell a depot at once, the one that the order came to again and the one that goes
// on, don't write into each other's answers.
func TestADepotIsToldTwiceAtOnce(t *testing.T) {
	s, e := orderedAlone(t)
	s.agent.Depot = &vault{}
	o := Other{Role: identity.DeletedAtDepot, Party: "there", Deletions: append(make([]string, 0, 8), "one of before")}
	tell := func(objects ...carnet.Fingerprint) []string {
		t.Helper()
		s.world.doomed[e.ID] = objects
		answered, _, err := s.agent.tellDepot(t.Context(), &e, o)
		if err != nil || len(answered.Deletions) != 2 {
			t.Fatalf("told of %d objects: %d deletions, %v", len(objects), len(answered.Deletions), err)
		}
		return answered.Deletions
	}
	first := tell(carnet.Fingerprint{1})
	before := slices.Clone(first)
	tell(carnet.Fingerprint{1}, carnet.Fingerprint{2})
	if !slices.Equal(first, before) {
		t.Error("the answer of one is the other's")
	}
}
