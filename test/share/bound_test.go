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
	var last carnet.ShareID
	for n := 1; n < most; n++ {
		id, err := ask()
		if err != nil {
			t.Fatalf("share %d: %v", n+1, err)
		}
		last = id
	}
	if _, err := ask(); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one more than %d: %v", most, err)
	}
	again := crossing.Question{ID: last, Avatar: p.theirs, For: p.ours, Purpose: share.Purpose}
	if _, err := p.ask().Ask(t.Context(), "arena", again); err != nil {
		t.Errorf("one that is there, asked for again: %v", err)
	}
	// One that ends makes room, so often and no more.
	ended := 0
	for ; ended < 2*most; ended++ {
		if err := p.arena.shares.StopTaken(t.Context(), last, "citadel"); err != nil {
			t.Fatal(err)
		}
		id, err := ask()
		if err != nil {
			if carnet.CodeOf(err) != carnet.TooLarge {
				t.Error(err)
			}
			break
		}
		last = id
	}
	over := 0 // citadel may have ended some that it doesn't know, too
	for _, g := range p.arena.shares.Given() {
		if g.End != nil {
			over++
		}
	}
	if over != most {
		t.Errorf("%d shares are ended, %d of them here, and then no other is given; want %d", over, ended+1, most)
	}
	p.hub.send(s.seal(health, beat(2, 62)))
	p.eventually("what flows goes on", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) > 0 })
}
