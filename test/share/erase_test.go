package share_test

import (
	"slices"
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
