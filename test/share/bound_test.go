package share_test

import (
	"testing"

	"carnet"
	"carnet/crossing"
)

// TestATakerThatDrawsIDs: one grant gives so many shares and no more, however many ids a
// taker draws, and whether it keeps them or ends them; what flows goes on.
func TestATakerThatDrawsIDs(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.hub.send(s.seal(health, beat(1, 61)))
	share := p.take()
	most := p.arena.shares.SharesOfGrant
	ask := func() (carnet.ShareID, error) {
		q := crossing.Question{ID: carnet.NewShareID(), Avatar: p.theirs, For: p.ours, Purpose: share.Purpose}
		_, err := p.ask().Ask(t.Context(), "arena", q)
		return q.ID, err
	}
	in := func() (force, over int) {
		for _, g := range p.arena.shares.Given() {
			if g.End == nil {
				force++
			} else {
				over++
			}
		}
		return force, over
	}
	// Citadel, which doesn't know of them, ends some: each makes room for one.
	draw := func(each func(carnet.ShareID)) {
		t.Helper()
		for range 2*most + 1 {
			id, err := ask()
			if err == nil {
				each(id)
				continue
			}
			if carnet.CodeOf(err) != carnet.TooLarge {
				t.Fatal(err)
			}
			return
		}
		t.Fatalf("there is no end: %d shares are drawn", 2*most+1)
	}
	var last carnet.ShareID
	draw(func(id carnet.ShareID) { last = id })
	if force, over := in(); force > most || force+over < most {
		t.Errorf("%d shares are in force, and %d ended, and then no other is given; want %d", force, over, most)
	}
	again := crossing.Question{ID: last, Avatar: p.theirs, For: p.ours, Purpose: share.Purpose}
	if _, err := p.ask().Ask(t.Context(), "arena", again); err != nil && carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("one that is there, asked for again: %v", err)
	}
	// One that ends makes room, so often and no more.
	end := func(id carnet.ShareID) {
		if err := p.arena.shares.StopTaken(t.Context(), id, "citadel"); err != nil {
			t.Fatal(err)
		}
	}
	end(last)
	draw(end)
	if force, over := in(); force >= most || over < most {
		t.Errorf("%d shares are in force, and %d ended, and then no other is given; want %d ended", force, over, most)
	}
	p.hub.send(s.seal(health, beat(2, 62)))
	p.eventually("what flows goes on", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) > 0 })
}
