package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"
	"carnet/test/wait"
)

// Two worlds as processes: what arena gets of a watch comes live to the clinic's
// avatar, rounded as the grant says, once each, whichever side is killed; and
// nothing more once what the share lives by has ended.
func TestShareAcrossWorlds(t *testing.T) {
	t.Parallel()
	v := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	request := v.ask(identity.ActionSubscribe)
	v.approve(request)
	given := v.give(request, identity.ActionSubscribe, `{"properties": {"heart_rate": {"round": 10}}}`)
	share, err := v.clinic.client.TakeShare(ctx, api.NewShare{World: "arena", Avatar: v.there, For: v.here, Purpose: "care"})
	if err != nil || share.State != crossing.Taking {
		t.Fatalf("%+v, %v", share, err)
	}
	beats := func(p *party, id carnet.AvatarID) (all []carnet.Measurement) {
		wait.Until(t, "the avatar can be read", func() bool {
			var err error
			all, _, err = p.client.History(ctx, id, client.HistoryQuery{Property: "heart_rate"})
			if err != nil && carnet.CodeOf(err) != carnet.Unavailable { // a world that has just started asks its register first
				t.Fatal(err)
			}
			return err == nil
		})
		return all
	}
	arrived := func(when string) {
		t.Helper()
		want := beats(v.arena, v.there)
		for i := range want {
			want[i].Value = carnet.Float(float64(int(want[i].Value.Num+5) / 10 * 10))
		}
		var got []carnet.Measurement
		wait.Until(t, when, func() bool { got = beats(v.clinic, v.here); return len(got) >= len(want) })
		if !slices.Equal(got, want) {
			t.Errorf("%s the clinic has %d of %d measurements, or others: %v, want %v", when, len(got), len(want), got, want)
		}
	}
	v.watch.send(5)
	v.settle()
	arrived("at first")
	nothingCame := v.notPassedOn()
	v.watch.send(5)
	v.settle()
	arrived("beside who may not have it")
	nothingCame()
	for _, killed := range []*party{v.arena, v.clinic, v.arena} {
		v.watch.send(5)
		killed.kill(t)
		v.watch.send(5)
		v.restart(killed)
		v.settle()
		arrived("after a kill of " + string(killed.name))
	}

	// While the peering is suspended nothing comes; then what came meanwhile.
	v.cutAtOnce(v.arena, "clinic", v.arena, v.clinic.config.Listen.Link)
	before := len(beats(v.clinic, v.here))
	v.watch.send(5)
	wait.Until(t, "arena has what came while the peering is suspended", func() bool { return len(beats(v.arena, v.there)) == before+5 })
	time.Sleep(2 * time.Second) // many times as long as a measurement takes
	if n := len(beats(v.clinic, v.here)); n != before {
		t.Errorf("%d measurements came over a suspended peering", n-before)
	}
	if _, err := v.arena.client.ResumePeer(ctx, "clinic"); err != nil {
		t.Fatal(err)
	}
	arrived("after the suspension")
	v.cutAtOnce(v.clinic, "arena", v.arena, v.clinic.config.Listen.Link)
	if _, err := v.clinic.client.ResumePeer(ctx, "arena"); err != nil {
		t.Fatal(err)
	}

	// The grant's end ends it, at both sides.
	revoked := time.Now()
	post[api.NewGrant](v.arena, t, "DELETE", "/v1/grants/"+given.ID, nil)
	ended := func(p *party) bool {
		c, err := p.client.Share(ctx, share.ID)
		return err == nil && c.State == crossing.Ended && c.Ended != nil
	}
	wait.Until(t, "arena has ended the share", func() bool { return ended(v.arena) })
	t.Logf("ended %v after the grant was revoked", time.Since(revoked))
	wait.Until(t, "the clinic has ended the share", func() bool { return ended(v.clinic) })
	before = len(beats(v.clinic, v.here))
	v.watch.send(5)
	wait.Until(t, "arena has the last", func() bool { return len(beats(v.arena, v.there)) == before+5 })
	time.Sleep(2 * time.Second) // many times as long as a measurement takes
	if n := len(beats(v.clinic, v.here)); n != before {
		t.Errorf("%d measurements came after the end", n-before)
	}
	if _, err := v.clinic.client.TakeShare(ctx, api.NewShare{World: "arena", Avatar: v.there, For: v.here, Purpose: "care"}); carnet.CodeOf(err) == "" {
		t.Error("a share is given without a grant")
	}
}

// notPassedOn has an application of the clinic under a grant: it sees nothing of what
// came by the share, which doesn't say that it may be passed on, and is told so. It follows
// it live from then on until what is returned is called.
func (v *neighbours) notPassedOn() (nothingCame func()) {
	v.t.Helper()
	ctx, most := v.t.Context(), entity.Clearance{Sensitivity: mostAbroad}
	app, err := v.clinic.client.AddPrincipal(ctx, entity.NewPrincipal{Kind: entity.KindApplication, Name: "Diary", Purpose: "care", Clearance: most})
	if err != nil {
		v.t.Fatal(err)
	}
	view, err := policy.ParseView([]byte(`{"properties": {"heart_rate": {}}}`))
	if err != nil {
		v.t.Fatal(err)
	}
	terms := entity.Terms{
		Avatar: v.here, To: entity.To{Application: app.ID}, Actions: []identity.Action{identity.ActionRead, identity.ActionSubscribe},
		View: view, Purpose: "care", Ceiling: &most, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	report, err := v.clinic.client.Assess(ctx, terms)
	if err != nil {
		v.t.Fatal(err)
	}
	if last := report.Lines[len(report.Lines)-1]; last.Kind != entity.Denied || !strings.Contains(last.Text, "passed on") {
		v.t.Errorf("the assessment ends with %+v", last)
	}
	if _, err := v.clinic.client.Give(ctx, api.NewGrant{Terms: terms, Assessment: report.Fingerprint}); err != nil {
		v.t.Fatal(err)
	}
	as := *v.clinic.client
	as.Token = app.Token
	if ms, _, err := as.History(ctx, v.here, client.HistoryQuery{}); err != nil || len(ms) != 0 {
		v.t.Errorf("its history: %v, %v", ms, err)
	}
	if ms, err := as.State(ctx, v.here); err != nil || len(ms) != 0 {
		v.t.Errorf("its state: %v, %v", ms, err)
	}
	checked, err := as.Check(ctx, api.Check{Action: "get-state", Resource: policy.Resource{Kind: policy.AvatarResource, ID: v.here.String()}})
	if err != nil || !strings.Contains(checked.Why, "is left out") {
		v.t.Errorf("asked why: %+v, %v", checked, err)
	}
	live, leave := context.WithCancel(ctx)
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		begin := sync.OnceFunc(func() { close(begun) }) // the first event says where it begins
		defer begin()
		for e, err := range as.Watch(live, v.here, nil) {
			if err != nil {
				ended <- err
				return
			}
			if len(e.Measurements) > 0 {
				v.t.Errorf("it comes live: %v", e.Measurements)
			}
			begin()
		}
	}()
	<-begun
	return func() {
		v.t.Helper()
		time.Sleep(time.Second) // longer than what came takes
		select {
		case err := <-ended:
			v.t.Errorf("it doesn't follow the avatar any more: %v", err)
		default:
			leave()
			<-ended
		}
	}
}

// cutAtOnce suspends a peering over which there are connections: none of them is left
// when the call returns.
func (v *neighbours) cutAtOnce(by *party, peer carnet.PartyID, from *party, to string) {
	v.t.Helper()
	var live map[string]bool
	wait.Until(v.t, fmt.Sprintf("%s is connected to %s", from.name, to), func() bool { live = from.established(v.t, to); return len(live) > 0 })
	if _, err := by.client.SuspendPeer(v.t.Context(), peer); err != nil {
		v.t.Fatal(err)
	}
	if still := from.established(v.t, to); !disjoint(live, still) {
		v.t.Errorf("%s has suspended %s, and of the connections %v from %s there are %v", by.name, peer, live, from.name, still)
	}
}

// A peer that is removed is told nothing: what it gave or got ends at once where it was
// removed, also over a kill right after, and at its own side once it has removed the
// peering, too. What came stays.
func TestARemovedPeerEndsShares(t *testing.T) {
	t.Parallel()
	v := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	request := v.ask(identity.ActionSubscribe)
	v.approve(request)
	v.give(request, identity.ActionSubscribe, `{"properties": {"heart_rate": {}}}`)
	share, err := v.clinic.client.TakeShare(ctx, api.NewShare{World: "arena", Avatar: v.there, For: v.here, Purpose: "care"})
	if err != nil || share.State != crossing.Taking {
		t.Fatalf("%+v, %v", share, err)
	}
	v.watch.send(3)
	v.settle()
	beats := func() int {
		ms, _, err := v.clinic.client.History(ctx, v.here, client.HistoryQuery{Property: "heart_rate"})
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			t.Fatal(err)
		}
		return len(ms)
	}
	wait.Until(t, "the clinic has what came", func() bool { return beats() == 3 })
	is := func(p *party) crossing.State {
		c, err := p.client.Share(ctx, share.ID)
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			t.Fatal(err)
		}
		return c.State
	}
	removes := func(p *party, peer carnet.PartyID) {
		t.Helper()
		if _, err := p.client.RemovePeer(ctx, peer); err != nil {
			t.Fatal(err)
		}
		p.kill(t)
		v.restart(p)
		wait.Until(t, fmt.Sprintf("%s has ended the share", p.name), func() bool { return is(p) == crossing.Ended })
		c, err := p.client.Share(ctx, share.ID)
		if err != nil || c.Ended == nil || !strings.Contains(c.Ended.Why, "peering with "+string(peer)) {
			t.Errorf("%s shows the share as %+v, %v", p.name, c, err)
		}
		st, err := p.client.Status(ctx)
		if err != nil || slices.ContainsFunc(st.World.Shares, func(l crossing.Link) bool { return l.World == peer }) {
			t.Errorf("%s still lists %s: %+v, %v", p.name, peer, st.World, err)
		}
		e, err := p.client.Examine(ctx)
		if err != nil || slices.ContainsFunc(e.Findings, func(f carnet.Finding) bool { return f.Kind == "share" }) {
			t.Errorf("%s finds %+v, %v", p.name, e.Findings, err)
		}
	}
	removes(v.arena, "clinic")
	if is(v.clinic) != crossing.Taking {
		t.Errorf("the clinic was told: %s", is(v.clinic))
	}
	v.watch.send(3)
	wait.Until(t, "arena has the last", func() bool {
		ms, _, err := v.arena.client.History(ctx, v.there, client.HistoryQuery{Property: "heart_rate"})
		return err == nil && len(ms) == 6
	})
	removes(v.clinic, "arena")
	if n := beats(); n != 3 {
		t.Errorf("the clinic has %d", n)
	}
}
