package api_test

import (
	"testing"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/entity"
	"carnet/identity"
)

// What a world gives is counted by the reference point that it goes over: to people and
// programs (R4), to another of its avatars under a grant (R3), to a DPM and back (R6).
func TestWhatGoesOverEachReferencePointIsCounted(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	_, other := s.watch("watch-8", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	d.mustSend(heart(0, 72), heart(1, 73))
	s.arrived(m.Avatar, 2)
	ops := s.arena("operator-token")
	status := func() api.WorldStatus {
		t.Helper()
		st, err := ops.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return *st.World
	}
	before := status()
	if before.Reads != 0 || before.Events != 0 || before.Exchanged != 0 {
		t.Fatalf("before anything is read: %+v", before)
	}
	rises := func(what string, reads, events, exchanged uint64) {
		t.Helper()
		now := status()
		if r, e, x := now.Reads-before.Reads, now.Events-before.Events, now.Exchanged-before.Exchanged; r != reads || e != events || x != exchanged {
			t.Errorf("%s: %d reads, %d events, %d exchanged, want %d, %d, %d", what, r, e, x, reads, events, exchanged)
		}
		before = now
	}

	// The world's own people and programs, and an application under a grant.
	app, coach := s.application()
	s.give(terms(s, app, m.Avatar, `{"properties":{"heart_rate":{}}}`, identity.ActionRead, identity.ActionSubscribe))
	rises("what isn't reading", 0, 0, 0)
	for _, c := range []struct {
		what string
		read func() error
	}{
		{"the state", func() error { _, err := s.arena("reader-token").State(t.Context(), m.Avatar); return err }},
		{"the history", func() error {
			_, _, err := s.arena("reader-token").History(t.Context(), m.Avatar, client.HistoryQuery{})
			return err
		}},
		{"the state, by an application", func() error { _, err := coach.State(t.Context(), m.Avatar); return err }},
	} {
		if err := c.read(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		rises(c.what, 1, 0, 0)
	}
	if _, err := s.arena("reader-token").State(t.Context(), carnet.NewAvatarID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Fatal(err)
	}
	rises("what isn't there", 0, 0, 0)

	// Another avatar of the world: what is its own is R4, what it is granted R3.
	p, err := ops.AddPrincipal(t.Context(), entity.NewPrincipal{Kind: entity.KindAvatar, Name: "player", Avatar: &other.Avatar, Purpose: "fitness", Clearance: entity.Clearance{Sensitivity: carnet.Personal}})
	if err != nil {
		t.Fatal(err)
	}
	player, g := s.arena(p.Token), terms(s, p, m.Avatar, `{"properties":{"heart_rate":{}}}`, identity.ActionRead, identity.ActionSubscribe)
	g.To = entity.To{Avatar: other.Avatar.String()}
	s.give(g)
	if _, err := player.State(t.Context(), other.Avatar); err != nil {
		t.Fatal(err)
	}
	rises("an avatar's own state", 1, 0, 0)
	if _, err := player.State(t.Context(), m.Avatar); err != nil {
		t.Fatal(err)
	}
	if _, _, err := player.History(t.Context(), m.Avatar, client.HistoryQuery{}); err != nil {
		t.Fatal(err)
	}
	rises("another avatar's state and history", 0, 0, 2)
	if ms, _ := follow(t, player, m.Avatar, new(string), 2); len(ms) != 2 {
		t.Fatalf("followed %v", ms)
	}
	s.eventually("the exchange is counted", func() bool { return status().Exchanged > before.Exchanged })
	if now := status(); now.Events != before.Events {
		t.Errorf("an avatar that follows another counts as R4: %+v", now)
	}
	before = status()
	follow(t, coach, m.Avatar, new(string), 2)
	s.eventually("what an application follows is counted", func() bool { return status().Events > before.Events })
	if now := status(); now.Exchanged != before.Exchanged {
		t.Errorf("an application that follows an avatar counts as R3: %+v", now)
	}

	// A job at a DPM: the capsule and its contents go there, the parts come back.
	line := func() api.WorldStatus {
		now := status()
		if len(now.DPMs) != 1 || now.DPMs[0].DPM != "forge" {
			t.Fatalf("the DPMs are %+v", now.DPMs)
		}
		return now
	}
	if l := line().DPMs[0]; l.Handed != 0 || l.Returned != 0 || l.Running != 0 {
		t.Errorf("before any job: %+v", l)
	}
	i := s.ordered(queryOf("forge", m.Avatar), "the job is done", done)
	if l := line().DPMs[0]; l.Handed < 3 || l.Returned < 1 || l.Running != 0 {
		t.Errorf("after the job %s: %+v", i.ID, l)
	}
	had := line().DPMs[0]
	s.ordered(queryOf("", m.Avatar), "the job here is done", done)
	if l := line().DPMs[0]; l != had {
		t.Errorf("a job in the world itself counts as R6: %+v", l)
	}
}
