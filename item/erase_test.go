package item

import (
	"bytes"
	"sync"
	"testing"

	"carnet"
	"carnet/identity"
	"carnet/item/itemtest"
)

// untied wants nothing at a world to say who had an item last.
func (s *stage) untied(when, world string, id carnet.ItemID) {
	s.t.Helper()
	b := s.start(world) // what is stored counts
	i, err := b.Item(id)
	if err != nil || i.State == Here || i.Avatar != (carnet.AvatarID{}) || i.Owner != "" || i.Slot != "" || i.Looks != nil {
		s.t.Errorf("%s %s has %+v, %v", when, world, i, err)
	}
	if _, err := b.Proof(s.t.Context(), id); err == nil {
		s.t.Errorf("%s %s shows the item's chain", when, world)
	}
	if _, err := s.stores[world].Document(s.t.Context(), kindChain, id.String()); carnet.CodeOf(err) != carnet.NotFound {
		s.t.Errorf("%s %s has the item's chain: %v", when, world, err)
	}
	if i.Kind == "" || i.Serial == 0 {
		s.t.Errorf("%s %s doesn't know what the item is: %+v", when, world, i)
	}
}

// The items of an avatar that is erased end with it, its own and a foreign one; nothing
// says any more that they were its, nor of those that had left it or were retired before;
// it gets no more; and those of another avatar stay.
func TestItemsEndWithAnErasedAvatar(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	s.accepts()
	went, cap := s.issue("sword", identity.Attributes{"damage": 12.0}), s.issue("cap", nil)
	s.moves([]Info{went}, []Info{cap})
	worn, bobs := s.issue("ring", nil), s.issue("sword", nil)
	if _, err := s.books["arena"].Equip(ctx, worn.ID, "hand"); err != nil {
		t.Fatal(err)
	}
	bobs, err := s.books["arena"].Give(ctx, s.gift(bobs, bob, "owner"))
	if err != nil {
		t.Fatal(err)
	}
	by := carnet.NewErasureID()
	for range 2 { // done again it stays done, and says the same
		if n, err := s.books["arena"].Erase(ctx, alice, by); err != nil || n != 2 {
			t.Fatalf("%d items end, %v; want the ring, and the cap that had ended", n, err)
		}
	}
	for _, i := range []Info{went, cap, worn} {
		s.untied("once it is erased", "arena", i.ID)
	}
	if n := s.books["arena"].Untold(by); n != 2 || s.ended < 2 {
		t.Errorf("of %d items the register isn't told that they ended; it was said %d times", n, s.ended)
	}
	for _, h := range s.books["arena"].Ending() {
		if err := s.books["arena"].Ended(ctx, h.Item); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.books["arena"].Untold(by); n != 0 {
		t.Errorf("once it is told, it isn't of %d", n)
	}
	if is, err := s.books["arena"].Item(worn.ID); err != nil || is.State != Retired || is.Last != worn.Last {
		t.Errorf("the ring is %+v, %v", is, err)
	}
	if is, err := s.books["arena"].Item(went.ID); err != nil || is.State != Gone || is.World != "citadel" {
		t.Errorf("what went is %+v, %v", is, err)
	}
	if is, err := s.books["arena"].Item(bobs.ID); err != nil || is.State != Here || is.Avatar != bob {
		t.Errorf("another avatar's is %+v, %v", is, err)
	}
	key := s.ledger.Key()
	if h, err := Read(s.proof("arena", bobs.ID), &key); err != nil || h.Avatar != bob {
		t.Errorf("another avatar's chain says %+v, %v", h, err)
	}
	s.books["arena"].Erased(alice, by) // as who knows says after a start
	if _, err := s.books["arena"].Issue(ctx, Draft{Avatar: alice, Kind: "cap", Title: "Cap"}); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("an avatar that is erased gets an item: %v", err)
	}
	if _, err := s.books["arena"].Give(ctx, s.gift(bobs, alice, "owner")); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("an avatar that is erased is given an item: %v", err)
	}
	if _, err := s.books["arena"].Retire(ctx, worn.ID); err != nil { // it is
		t.Error(err)
	}
	// A foreign one ends likewise where it is.
	foreign := carnet.NewErasureID()
	if n, err := s.books["citadel"].Erase(ctx, bob, foreign); err != nil || n != 1 {
		t.Errorf("%d items end, %v", n, err)
	}
	s.untied("once it is erased", "citadel", went.ID)
	for world, store := range s.stores {
		page, err := store.DocumentPage(ctx, kindChain, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			if world == "citadel" || d.ID != bobs.ID.String() {
				t.Errorf("%s keeps the chain %s", world, d.ID)
			}
		}
	}
}

// An item that keeps still isn't ended before that is decided; one that arrives at an
// avatar which is erased meanwhile ends as it lands.
func TestItemsThatMoveWhileTheirAvatarIsErased(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	s.accepts()
	i := s.issue("sword", identity.Attributes{"damage": 12.0})
	l, d := s.ordered("arena", "citadel", 2, []Info{i}, nil)
	l.Alone = true
	proofs, err := s.books["arena"].Freeze(ctx, l, itemtest.DID("owner"))
	if err != nil {
		t.Fatal(err)
	}
	by := carnet.NewErasureID()
	if _, err := s.books["arena"].Erase(ctx, alice, by); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("an item that keeps still ends: %v", err)
	}
	if is, err := s.books["arena"].Item(i.ID); err != nil || is.State != Here || !is.Frozen {
		t.Errorf("it is %+v, %v", is, err)
	}
	if _, err := s.books["citadel"].Erase(ctx, bob, by); err != nil {
		t.Fatal(err)
	}
	checked, err := s.books["citadel"].Check(Coming{Source: itemtest.DID("arena"), Avatar: alice, Owner: itemtest.DID("owner"), Items: l.Items}, proofs)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.books["citadel"].Land(ctx, Landing{From: "arena", Avatar: bob, Proofs: proofs, Looks: []Looks{checked[0].Looks}, Committed: d}); err != nil {
		t.Fatal(err)
	}
	s.untied("landed at an avatar that is erased", "citadel", i.ID)
	if err := s.books["arena"].Depart(ctx, l, "citadel", d); err != nil {
		t.Fatal(err)
	}
	if _, err := s.books["arena"].Erase(ctx, alice, by); err != nil {
		t.Fatal(err)
	}
	s.untied("once that is decided", "arena", i.ID)
}

// One that has landed at an avatar which is erased, and whose world ended before its tie
// was cut, loses it as it lands again.
func TestAnItemThatLandsTwiceAtAnErasedAvatar(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	s.accepts()
	i := s.issue("sword", identity.Attributes{"damage": 12.0})
	l, d := s.ordered("arena", "citadel", 2, []Info{i}, nil)
	proofs, err := s.books["arena"].Freeze(ctx, l, itemtest.DID("owner"))
	if err != nil {
		t.Fatal(err)
	}
	checked, err := s.books["citadel"].Check(Coming{Source: itemtest.DID("arena"), Avatar: alice, Owner: itemtest.DID("owner"), Items: l.Items}, proofs)
	if err != nil {
		t.Fatal(err)
	}
	landing := Landing{From: "arena", Avatar: bob, Proofs: proofs, Looks: []Looks{checked[0].Looks}, Committed: d}
	by := carnet.NewErasureID()
	s.books["citadel"].Erased(landing.Avatar, by)
	s.stores["citadel"].Lose(carnet.Errorf(carnet.Unavailable, "the process ends here"))
	if err := s.books["citadel"].Land(ctx, landing); err == nil {
		t.Fatal("nothing fails, so the test says nothing")
	}
	s.stores["citadel"].Lose(nil)
	s.start("citadel").Erased(landing.Avatar, by)
	if is, err := s.books["citadel"].Item(i.ID); err != nil || is.State != Here {
		t.Fatalf("it is %+v, %v", is, err)
	}
	if err := s.books["citadel"].Land(ctx, landing); err != nil {
		t.Fatal(err)
	}
	s.untied("landed again", "citadel", i.ID)
}

// What fails leaves an item as it is, or ended whole.
func TestItemsEndWholly(t *testing.T) {
	s := newStage(t)
	i := s.issue("ring", nil)
	before, err := s.stores["arena"].Document(t.Context(), kindItem, i.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	s.stores["arena"].Fail(carnet.Errorf(carnet.NoSpace, "no space"))
	if _, err := s.books["arena"].Erase(t.Context(), alice, carnet.NewErasureID()); carnet.CodeOf(err) != carnet.NoSpace {
		t.Errorf("without space: %v", err)
	}
	s.stores["arena"].Fail(nil)
	after, err := s.stores["arena"].Document(t.Context(), kindItem, i.ID.String())
	if err != nil || !bytes.Equal(before.Body, after.Body) {
		t.Errorf("a failed change left another document, %v", err)
	}
	if is, err := s.books["arena"].Item(i.ID); err != nil || is.State != Here {
		t.Errorf("it is %+v, %v", is, err)
	}
}

// An item that its owner has given to two avatars goes to one of them, whoever is first:
// both gifts follow the same entry.
func TestAnItemIsGivenToTwoAtOnce(t *testing.T) {
	for range 20 {
		s := newStage(t)
		i := s.issue("ring", nil)
		gifts := []string{s.gift(i, bob, "owner"), s.gift(i, carol, "owner")}
		var took [2]error
		var both sync.WaitGroup
		for n := range gifts {
			both.Go(func() { _, took[n] = s.books["arena"].Give(t.Context(), gifts[n]) })
		}
		both.Wait()
		is, err := s.books["arena"].Item(i.ID)
		if err != nil || is.Entries != 2 {
			t.Fatalf("it is %+v, %v", is, err)
		}
		for n, to := range []carnet.AvatarID{bob, carol} {
			if got := is.Avatar == to; got != (took[n] == nil) || !got && carnet.CodeOf(took[n]) != carnet.Conflict {
				t.Errorf("avatar %s has it: %t; its gift: %v", to, got, took[n])
			}
		}
		key := s.ledger.Key()
		if h, err := Read(s.proof("arena", i.ID), &key); err != nil || h.Avatar != is.Avatar {
			t.Errorf("its chain says %+v, %v", h, err)
		}
	}
}
