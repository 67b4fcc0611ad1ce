package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/evidence"
	"carnet/identity"
	"carnet/item"
	"carnet/node"
	keystore "carnet/owner"
	"carnet/passport"
	"carnet/test/wait"
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
	x, err := n.clinic.client.BeginRecovery(ctx, api.NewRecovery{Passport: p.Head.Word, Farewell: p.Head.Farewell, Policy: p.Head.Policy}, p.Document)
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
	signed, err := n.store.Recover(r, keystore.Passported{Bags: bags, Policy: p.Head.Policy}, time.Now(), time.Hour)
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
	for _, moves := range []int{0, 2} { // to the clinic, and back: its streams there and in arena have ended
		t.Run(fmt.Sprintf("after %d moves", moves), func(t *testing.T) {
			t.Parallel()
			isRecovered(t, moves)
		})
	}
}

func isRecovered(t *testing.T, moves int) {
	n := recovering(t, 3*time.Second)
	ctx := t.Context()
	n.watch.send(20)
	n.settle()
	v := &traveller{neighbours: n, watch: n.watch, at: n.arena, id: n.there}
	for r := random(t); len(v.trail) < moves; {
		if _, err := v.move(ctx, r); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "its thing's data goes where the avatar lives", func() bool { return v.goesOn(ctx) == nil })
	}
	n.there = v.id
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
	wait.Until(t, "it is home in the clinic", func() bool { return n.crossing(x).State == move.Home })
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
	wait.Until(t, "what the agent has is there", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 30 })
	n.watch.send(5)
	wait.Until(t, "what the watch sends goes on there", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 35 })
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
			wait.Until(t, "the register waits", func() bool {
				p := n.crossing(x).Progress
				return p != nil && !p.SourceUntil.IsZero()
			})
			n.restart(n.arena)
		}
		wait.Until(t, "the recovery ends", func() bool { return n.crossing(x).State == move.Dropped })
		t.Log(n.crossing(x).Why)
		wait.Until(t, "arena shows its avatar", func() bool { // once it has asked the register after its start
			_, err := n.arena.client.Avatar(ctx, n.there)
			if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
				t.Fatalf("arena has its avatar no more: %v", err)
			}
			return err == nil
		})
	}
	n.watch.send(5)
	wait.Until(t, "arena goes on", func() bool { return len(beats(t, n.arena, n.there)) == 15 })
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
	wait.Until(t, "it is home in the clinic", func() bool { return n.crossing(x).State == move.Home })
	n.restart(n.arena)
	wait.Until(t, "arena shows it no more", func() bool {
		_, err := n.arena.client.Avatar(ctx, n.there)
		return carnet.CodeOf(err) == carnet.NotFound
	})
	wait.Until(t, "arena has signed that nothing is left", func() bool {
		left, err := n.arena.client.Crossing(ctx, x.ID)
		return err == nil && left.State == move.Gone && left.Departure != ""
	})
	wait.Until(t, "the clinic has arena's word", func() bool { return n.crossing(x).Departure != "" })
	n.watch.send(5) // nobody has told the agent but arena, which was told
	wait.Until(t, "what the watch sends goes on in the clinic", func() bool { return len(beats(t, n.clinic, x.Ours)) >= 15 })
	if all := beats(t, n.clinic, x.Ours); len(all) != 15 {
		t.Errorf("%d measurements instead of 15: %v", len(all), all)
	}
}

// A recovered avatar has its sword and its policy, whatever is killed while it is
// recovered; what was given away since its passport was made stays where it was given. The
// old home comes back, and shows neither avatar nor sword any more.
func TestARecoveredAvatarHasItsItems(t *testing.T) {
	t.Parallel()
	n := recovering(t, 4*time.Second)
	ctx := t.Context()
	n.watch.send(10)
	n.settle()
	n.takes()
	sword := n.issue("sword", "Oathkeeper", identity.Attributes{"damage": 12.0})
	retired := n.issue("sword", "Second", identity.Attributes{"damage": 7.0})
	policy, err := n.store.SignPolicy(n.there, []byte(`{"use":{"purposes":["care"]}}`), 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.arena.client.SetAvatarPolicy(ctx, n.there, policy.Signed); err != nil {
		t.Fatal(err)
	}
	dir := n.export()
	r, err := passport.Verify(ctx, dir, nil)
	if err != nil || r.Verdict != evidence.True || len(r.Passport.Items) != 2 || !r.Passport.Items[0].Receipts || r.Passport.Policy != 1 {
		t.Errorf("the passport proves %+v, %v", r.Passport, err)
	}
	if _, err := n.arena.client.RetireItem(ctx, retired.ID); err != nil {
		t.Fatal(err)
	}
	n.arena.kill(t)
	p, x := n.bring(dir)
	if len(x.Items) != 1 || x.Items[0].ID != sword.ID || x.Items[0].As != "blade" {
		t.Errorf("asked for %+v", x.Items)
	}
	asked, _, err := identity.ParseRecoveryRequest(x.Request)
	if err != nil || !slices.ContainsFunc(asked.Report, func(line string) bool { return strings.Contains(line, retired.ID.String()) }) {
		t.Errorf("the owner is told %q, %v", asked.Report, err)
	}
	if _, err := n.clinic.client.OrderRecovery(ctx, x.ID, n.recover(p, x)); err != nil {
		t.Fatal(err)
	}
	n.clinic.kill(t)
	n.restart(n.clinic)
	wait.Until(t, "the register waits", func() bool {
		p := n.crossing(x).Progress
		return p != nil && !p.SourceUntil.IsZero()
	})
	n.vault.kill(t)
	n.restart(n.vault)
	n.clinic.kill(t)
	n.restart(n.clinic)
	wait.Until(t, "it is home in the clinic", func() bool { return n.crossing(x).State == move.Home })
	n.clinic.kill(t)
	n.restart(n.clinic)
	has := func() {
		t.Helper()
		all, err := n.clinic.client.ItemsOf(ctx, x.Ours)
		if err != nil || len(all) != 1 || all[0].ID != sword.ID || all[0].As == nil || all[0].As.Kind != "blade" {
			t.Errorf("the clinic has %+v, %v", all, err)
		}
	}
	has()
	if h := n.read(n.clinic, sword.ID); len(h.Entries) != 2 || h.Entries[1].What != identity.ItemRecovered || h.Avatar != x.Ours || h.Version != 2 {
		t.Errorf("the chain says %+v", h)
	}
	if is, err := n.clinic.client.AvatarPolicy(ctx, x.Ours); err != nil || is.Version != 1 {
		t.Errorf("the clinic has the policy %+v, %v", is, err)
	}
	n.restart(n.arena)
	wait.Until(t, "arena shows neither avatar nor sword", func() bool {
		_, err := n.arena.client.Avatar(ctx, n.there)
		i, failed := n.arena.client.Item(ctx, sword.ID)
		return carnet.CodeOf(err) == carnet.NotFound && failed == nil && i.State == item.Gone
	})
	wait.Until(t, "arena has signed that nothing is left", func() bool { return n.crossing(x).Departure != "" })
	has()
	if _, err := n.clinic.client.EquipItem(ctx, sword.ID, "hand"); err != nil {
		t.Errorf("in the clinic it isn't put on: %v", err)
	}
	if i, err := n.arena.client.Item(ctx, retired.ID); err != nil || i.State != item.Retired {
		t.Errorf("what was retired is %+v, %v", i, err)
	}
}
