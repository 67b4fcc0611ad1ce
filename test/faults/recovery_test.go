package faults_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/evidence"
	"carnet/identity"
	"carnet/node"
	"carnet/passport"
)

// recovering are neighbours of which arena is lost one day: its depot waits so long for
// it.
func recovering(t *testing.T, wait time.Duration) *neighbours {
	t.Helper()
	return newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`, func(_ *testing.T, p *party) {
		switch p.role {
		case identity.Depot:
			p.config.Depot.RecoveryWait = node.Duration(wait)
		case identity.World:
			p.config.World.HomeCheck = node.Duration(time.Second)
		}
	})
}

// export makes the passport of arena's avatar, with keys for its owner.
func (n *neighbours) export() string {
	n.t.Helper()
	reception, err := n.store.Reception("arena", time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	dir, err := n.arena.client.Passport(n.t.Context(), n.there, api.NewPassport{For: [][]byte{reception}}, n.t.TempDir())
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := passport.Verify(n.t.Context(), dir, nil)
	if err != nil || r.Verdict != evidence.True || r.Passport.Bags == 0 {
		n.t.Fatalf("the passport: %+v, %v", r, err)
	}
	return dir
}

// bring has the clinic take a passport; order has the owner order it.
func (n *neighbours) bring(dir string) (*passport.Passport, api.Crossing) {
	t, ctx := n.t, n.t.Context()
	t.Helper()
	p, err := passport.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	x, err := n.clinic.client.BeginRecovery(ctx, api.NewRecovery{Passport: p.Head.Word, Farewell: p.Head.Farewell}, p.Document)
	if err != nil {
		t.Fatal(err)
	}
	n.handIn(p, x)
	return p, x
}

func (n *neighbours) handIn(p *passport.Passport, x api.Crossing) {
	n.t.Helper()
	err := p.Pieces(func(m avatar.MovedStretch, body, proof []byte) error {
		return n.clinic.client.PutStretch(n.t.Context(), x.ID, m, body, proof)
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *neighbours) recover(p *passport.Passport, x api.Crossing) identity.Recovered {
	n.t.Helper()
	r, _, err := identity.ParseRecoveryRequest(x.Request)
	if err != nil {
		n.t.Fatal(err)
	}
	bags, err := p.Bags()
	if err != nil {
		n.t.Fatal(err)
	}
	signed, err := n.store.Recover(r, bags, time.Now(), time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	return signed
}

func (n *neighbours) crossing(x api.Crossing) api.Crossing {
	n.t.Helper()
	is, err := n.clinic.client.Crossing(n.t.Context(), x.ID)
	if err != nil {
		n.t.Fatal(err)
	}
	return is
}

// A world is lost for good, with its directory: by the passport, the owner's word and
// the register its avatar gets a new home, what the thing's agent still has goes there,
// and it goes on.
func TestAnAvatarIsRecovered(t *testing.T) {
	t.Parallel()
	n := recovering(t, 3*time.Second)
	ctx := t.Context()
	n.watch.send(20)
	n.settle()
	dir := n.export()
	n.watch.send(5) // after the passport was made
	n.settle()
	before := beats(t, n.arena, n.there)
	n.arena.kill(t)
	if err := os.RemoveAll(n.arena.dir); err != nil {
		t.Fatal(err)
	}
	n.watch.send(5) // nobody takes it
	p, x := n.bring(dir)
	signed := n.recover(p, x)
	asked := time.Now()
	if x, err := n.clinic.client.OrderRecovery(ctx, x.ID, signed); err != nil || !x.Recovery || x.State == move.Asked {
		t.Fatalf("%+v, %v", x, err)
	}
	eventually(t, "it is home in the clinic", func() bool { return n.crossing(x).State == move.Home })
	if took := time.Since(asked); took < 3*time.Second {
		t.Errorf("the register waited %v only", took)
	}
	if got := beats(t, n.clinic, x.Ours); !slices.Equal(got, before[:20]) {
		t.Errorf("the clinic has %v, arena had %v", got, before)
	}
	proof, err := n.clinic.client.CrossingProof(ctx, x.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // told again, it is the same
		if all, err := n.hub.client.TellRecovered(ctx, proof); err != nil || len(all) != 1 || all[0].Avatar != x.Ours {
			t.Fatalf("told: %+v, %v", all, err)
		}
	}
	eventually(t, "what the agent has is there", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 30 })
	n.watch.send(5)
	eventually(t, "what the watch sends goes on there", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 35 })
	after := beats(t, n.clinic, x.Ours)
	if len(after) != 35 || !slices.Equal(after[:25], before) {
		t.Errorf("the clinic has %d measurements, %v; arena had %v", len(after), after, before)
	}
	n.verified(x.Ours)
}

// verified has the clinic's evidence of an avatar verified.
func (n *neighbours) verified(id carnet.AvatarID) {
	n.t.Helper()
	bundles, err := n.clinic.client.Evidence(n.t.Context(), id, client.EvidenceQuery{}, n.t.TempDir())
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := evidence.Verify(n.t.Context(), bundles[0], nil, evidence.VerifyOptions{})
	if err != nil || r.Verdict != evidence.True {
		n.t.Errorf("the evidence in %s: %+v, %v", filepath.Base(bundles[0]), r, err)
	}
}

// A world that shows itself in time keeps its avatar; one that is known to go on
// objects by itself.
func TestAWorldThatShowsItselfKeepsItsAvatar(t *testing.T) {
	t.Parallel()
	n := recovering(t, 20*time.Second)
	ctx := t.Context()
	n.watch.send(10)
	n.settle()
	dir := n.export()
	for _, away := range []bool{false, true} {
		if away {
			n.arena.kill(t)
		}
		p, x := n.bring(dir)
		if _, err := n.clinic.client.OrderRecovery(ctx, x.ID, n.recover(p, x)); err != nil {
			t.Fatal(err)
		}
		if away {
			eventually(t, "the register waits", func() bool {
				p := n.crossing(x).Progress
				return p != nil && !p.SourceUntil.IsZero()
			})
			n.restart(n.arena)
		}
		eventually(t, "the recovery ends", func() bool { return n.crossing(x).State == move.Dropped })
		t.Log(n.crossing(x).Why)
		if _, err := n.arena.client.Avatar(ctx, n.there); err != nil {
			t.Errorf("arena has its avatar no more: %v", err)
		}
	}
	n.watch.send(5)
	eventually(t, "arena goes on", func() bool { return len(beats(t, n.arena, n.there)) == 15 })
}

// A world that comes back too late shows the avatar no more, reports it, and deletes it
// once the new home has told it.
func TestAWorldThatComesBackTooLate(t *testing.T) {
	t.Parallel()
	n := recovering(t, time.Second)
	ctx := t.Context()
	n.watch.send(10)
	n.settle()
	dir := n.export()
	n.arena.kill(t)
	p, x := n.bring(dir)
	if _, err := n.clinic.client.OrderRecovery(ctx, x.ID, n.recover(p, x)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is home in the clinic", func() bool { return n.crossing(x).State == move.Home })
	n.restart(n.arena)
	eventually(t, "arena shows it no more", func() bool {
		_, err := n.arena.client.Avatar(ctx, n.there)
		return carnet.CodeOf(err) == carnet.NotFound
	})
	eventually(t, "arena has signed that nothing is left", func() bool {
		left, err := n.arena.client.Crossing(ctx, x.ID)
		return err == nil && left.State == move.Gone && left.Departure != ""
	})
	eventually(t, "the clinic has arena's word", func() bool { return n.crossing(x).Departure != "" })
	n.watch.send(5) // nobody has told the agent but arena, which was told
	eventually(t, "what the watch sends goes on in the clinic", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 15 })
	if all := beats(t, n.clinic, x.Ours); len(all) != 15 {
		t.Errorf("%d measurements instead of 15: %v", len(all), all)
	}
}
