package share_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
)

// unshelves has a share's shelf be withdrawn by an erasure, and returns what the depot had
// of it.
func (p *pair) unshelves(share carnet.ShareID, by carnet.ErasureID) (objects []carnet.Fingerprint) {
	t := p.t
	t.Helper()
	p.vault.mu.Lock()
	for f := range p.vault.objects {
		objects = append(objects, f)
	}
	p.vault.mu.Unlock()
	for range 2 { // done again it stays done
		if err := p.arena.shares.Unshelve(t.Context(), []carnet.ShareID{share}, by); err != nil {
			t.Fatal(err)
		}
	}
	return objects
}

// doomed wants arena to have the depot sign for these objects, and for no others.
func (p *pair) doomed(by carnet.ErasureID, want []carnet.Fingerprint) {
	t := p.t
	t.Helper()
	got, err := p.arena.agent.Doomed(t.Context(), by)
	if err != nil || len(got) != len(want) || slices.ContainsFunc(want, func(f carnet.Fingerprint) bool { return !slices.Contains(got, f) }) {
		t.Errorf("the depot is to sign for %d objects, %v; want these %d", len(got), err, len(want))
	}
}

// What a giver has shelved of an avatar that is erased is withdrawn, while its depot is
// away as soon as that is back, also by another process; the depot is to sign for each
// object. The share goes on where it isn't ended: over the link, and not by a shelf.
func TestAnErasureWithdrawsAShelf(t *testing.T) {
	for name, restart := range map[string]bool{"at once": false, "by another process": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, `{"properties": {"heart_rate": {}}}`)
			s := p.hub.open(p.arena, &p.theirs)
			taken := p.take()
			all := p.beats(s, 0, 2)
			p.has("at first", all)
			p.citadel.stop()
			all = append(all, p.beats(s, 2, 6)...)
			p.shelved()
			if index, _ := p.vault.holds(); index == 0 {
				t.Fatal("nothing is on the shelf")
			}
			p.vault.away.Store(true)
			by := carnet.NewErasureID()
			objects := p.unshelves(taken.ID, by)
			if err := p.arena.shares.Withdrawn(t.Context(), by); carnet.CodeOf(err) != carnet.Unavailable {
				t.Errorf("with the depot away the shelf is withdrawn: %v", err)
			}
			all = append(all, p.beats(s, 6, 8)...)
			if restart {
				p.restart(p.arena)
			}
			p.doomed(by, objects)
			p.vault.away.Store(false)
			if err := p.arena.shares.Withdrawn(t.Context(), by); err != nil {
				t.Error(err)
			}
			time.Sleep(300 * time.Millisecond) // nothing more is shelved
			if index, objects := p.vault.holds(); index+objects != 0 {
				t.Errorf("the depot has an index of %d and %d objects", index, objects)
			}
			p.doomed(by, objects)
			p.start(p.citadel)
			p.has("over the link", all)
		})
	}
}

// A giver that is restored from an older copy doesn't know all that is on its shelf: what
// the depot has beside it is withdrawn, too, and signed for.
func TestAnErasureWithdrawsWhatARestoredGiverShelved(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	taken := p.take()
	p.has("at first", p.beats(s, 0, 2))
	p.citadel.stop()
	p.beats(s, 2, 4)
	p.shelved()
	back := p.copied(p.arena)
	p.beats(s, 4, 8)
	p.shelved()
	p.arena.stop()
	p.vault.away.Store(true) // so that the older copy finds nothing out by itself
	back()
	by := carnet.NewErasureID()
	objects := p.unshelves(taken.ID, by)
	known, err := p.arena.agent.Doomed(t.Context(), by)
	if err != nil || len(known) == 0 || len(known) >= len(objects) {
		t.Fatalf("the older copy knows of %d objects of %d, %v: the test says nothing", len(known), len(objects), err)
	}
	p.vault.away.Store(false)
	if err := p.arena.shares.Withdrawn(t.Context(), by); err != nil {
		t.Error(err)
	}
	p.gone()
	p.doomed(by, objects)
}

// What the rates of an avatar's shares remember goes with it, also if that fails at
// first, after the shares were forgotten.
func TestAnErasureForgetsWhatRatesRemember(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		p := newPair(t, `{"properties": {"heart_rate": {"rate": "10s"}}}`)
		s := p.hub.open(p.arena, &p.theirs)
		taken := p.take()
		remembered := func() (n int) {
			if err := p.arena.agent.EachKept(t.Context(), "share-at", func(string, uint64, func(any) error) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for second := 0; remembered() == 0; second += 30 {
			p.hub.send(s.seal(health, beat(second, 61)))
			time.Sleep(50 * time.Millisecond)
		}
		if err := p.arena.shares.StopGiving(t.Context(), taken.ID, "its owner", "the avatar is erased"); err != nil {
			t.Fatal(err)
		}
		full := func(d carnet.Document) bool { return d.Kind == "share-at" }
		p.arena.refuse.Store(&full)
		if err := p.arena.shares.ForgetGiven(t.Context(), p.theirs); err == nil {
			t.Fatal("nothing fails, so the test says nothing")
		}
		p.arena.refuse.Store(nil)
		if restarts {
			p.restart(p.arena)
		}
		for range 2 {
			if err := p.arena.shares.ForgetGiven(t.Context(), p.theirs); err != nil {
				t.Fatal(err)
			}
			if n := remembered(); n > 0 {
				t.Errorf("%d shares remember", n)
			}
		}
	}
}

// Whoever asks a taker while a shelf is made for it asks over the link, and hears why
// that can't be.
func TestATakerIsAskedWhileAShelfIsMade(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	p.has("at first", p.beats(s, 0, 3))
	p.citadel.stop()
	p.beats(s, 3, 6)
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			_, err := p.arena.shares.Tell(ctx, "citadel", "erase", nil)
			if err == nil || strings.Contains(err.Error(), "begins anew") {
				t.Errorf("a taker that is away is asked: %v", err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	p.shelved()
	cancel()
	asking.Wait()
}
