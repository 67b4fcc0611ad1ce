package share_test

import (
	"strings"
	"testing"

	"carnet"
)

// A share whose avatar can't be read holds up no other share to its taker: it waits, says
// why, and goes on where it stood once the avatar can be read.
func TestAShareThatCantBeRead(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	bad, well := p.hub.open(p.arena, &p.theirs), p.hub.open(p.arena, nil)
	share := p.take()
	ours := p.avatarAt(p.citadel)
	if _, err := p.citadel.shares.Take(t.Context(), "arena", well.avatar, ours, "fitness"); err != nil {
		t.Fatal(err)
	}
	all := p.beats(bad, 0, 1)
	p.has("at first", all)
	p.vault.away.Store(true) // so that nothing is shelved
	p.proxy.cut.Store(true)
	p.proxy.drop()
	p.eventually("they part", func() bool { return !p.sender.Status().Connected })
	all = append(all, p.beats(bad, 1, 3)...)
	p.eventually("arena has it", func() bool { return len(p.here(p.arena, p.theirs)["heart_rate"]) == len(all) })
	if err := p.arena.agent.Compact(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	p.arena.lost.Store(p.stretch(p.arena, bad.id))
	others := p.beats(well, 0, 3)
	p.proxy.cut.Store(false)
	p.eventually("the other share comes", func() bool { return len(p.here(p.citadel, ours)["heart_rate"]) == len(others) })
	p.eventually("it is said why the share waits", func() bool { return p.arena.shares.Aside(share.ID) != "" })
	if why := p.arena.shares.Aside(share.ID); !strings.Contains(why, "lost here") {
		t.Errorf("the share waits since %s", why)
	}
	if links := p.arena.shares.Links(); len(links) != 1 || !links[0].Waiting {
		t.Errorf("arena says %+v", links)
	}
	begun := p.sender.Status().Connections
	others = append(others, p.beats(well, 3, 4)...)
	p.eventually("the other share goes on", func() bool { return len(p.here(p.citadel, ours)["heart_rate"]) == len(others) })
	p.has("while the avatar can't be read", all[:1])
	p.arena.lost.Store(0)
	p.has("once it can be read", all)
	if now := p.sender.Status().Connections; now != begun {
		t.Errorf("it took %d connections more", now-begun)
	}
	if why := p.arena.shares.Aside(share.ID); why != "" {
		t.Errorf("the share waits still: %s", why)
	}
}

// stretch is the last of a stream's at a world, by its id in the store.
func (p *pair) stretch(w *world, stream carnet.StreamID) uint64 {
	p.t.Helper()
	worlds, err := w.db.Worlds(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	rows, err := worlds.StretchPage(p.t.Context(), stream, 0, 100)
	if err != nil || len(rows) == 0 {
		p.t.Fatal(rows, err)
	}
	return rows[len(rows)-1].ID
}

// The same holds of a share that can't even begin, since nobody can tell yet whether its
// avatar is erased.
func TestAShareOfAnAvatarThatIsWithheld(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.owned()
	well := p.hub.open(p.arena, nil)
	p.arena.agent.Withhold(true)
	share := p.take()
	ours := p.avatarAt(p.citadel)
	if _, err := p.citadel.shares.Take(t.Context(), "arena", well.avatar, ours, "fitness"); err != nil {
		t.Fatal(err)
	}
	all, others := p.beats(s, 0, 2), p.beats(well, 0, 2)
	p.eventually("the other share comes", func() bool { return len(p.here(p.citadel, ours)["heart_rate"]) == len(others) })
	if why := p.arena.shares.Aside(share.ID); !strings.Contains(why, "ask the register") {
		t.Errorf("the share waits since %q", why)
	}
	p.arena.agent.Withhold(false)
	p.has("once it can be read", all)
}
