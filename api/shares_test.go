package api_test

import (
	"context"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/crossing"
	"carnet/identity"
	"carnet/policy"
	"carnet/thing"
)

// elsewhere is the rest of the world: another world that gives, and what shares
// live by.
type elsewhere struct{ answer crossing.Answer }

func (e elsewhere) Ask(context.Context, carnet.PartyID, crossing.Question) (crossing.Answer, error) {
	return e.answer, nil
}
func (elsewhere) Stop(context.Context, carnet.PartyID, crossing.Question) error { return nil }
func (elsewhere) Tells(carnet.PartyID) bool                                     { return true }
func (elsewhere) Still(crossing.Given) error                                    { return nil }
func (elsewhere) End(_ context.Context, put func(carnet.Document) error) error {
	return put(carnet.Document{Kind: "revocation", ID: carnet.NewShareID().String(), Version: 1, Body: []byte{}})
}

// newShares makes the world's shares.
func (s *served) newShares() *crossing.Agent {
	s.t.Helper()
	judge, err := policy.NewJudge(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := crossing.New(s.t.Context(), crossing.Config{
		Party: "arena", World: s.world, Permits: elsewhere{}, Revocations: elsewhere{}, Asker: elsewhere{}, Judge: judge, Log: quiet(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// sharing has a share for an operation about one, and a body for one that asks.
func (s *served) sharing(operation string, m thing.MappingInfo) (id, body string) {
	s.t.Helper()
	n := api.NewShare{World: "citadel", Avatar: carnet.NewAvatarID(), For: m.Avatar, Purpose: "fitness"}
	if operation == "take-share" {
		return "", marshal(s.t, n)
	}
	c, err := s.arena("operator-token").TakeShare(s.t.Context(), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return c.ID.String(), ""
}

// A share is asked for, listed, and stopped over HTTP; by who may govern only.
func TestShares(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	arena := s.arena("operator-token")
	n := api.NewShare{World: "citadel", Avatar: carnet.NewAvatarID(), For: m.Avatar, Purpose: "fitness"}
	c, err := arena.TakeShare(t.Context(), n)
	if err != nil || c.Direction != "taking" || c.State != crossing.Taking || c.Ours != m.Avatar || c.Theirs != n.Avatar || c.View == nil {
		t.Fatalf("%+v, %v", c, err)
	}
	list, err := arena.Shares(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != c.ID {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := s.arena("alice-token").Shares(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a user, whose no share is, lists %+v, %v", list, err)
	}
	if _, err := s.arena("reader-token").StopShare(t.Context(), c.ID); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a reader stops a share: %v", err)
	}
	if _, err := s.arena("reader-token").TakeShare(t.Context(), n); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a reader asks for a share: %v", err)
	}
	if c, err = arena.StopShare(t.Context(), c.ID); err != nil || c.State != crossing.Ended || c.Ended == nil {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := arena.StopShare(t.Context(), carnet.NewShareID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a share that isn't there is stopped: %v", err)
	}
	n.For = carnet.NewAvatarID()
	if _, err := arena.TakeShare(t.Context(), n); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a share for no avatar: %v", err)
	}
}

// Whoever may see an avatar may see who else gets it, and of others' nothing.
func TestWhatIsSharedOfAnAvatar(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	_, other := s.watch("watch-8", `{"properties":{"heart_rate":{}}}`)
	arena, reader := s.arena("operator-token"), s.arena("reader-token")
	p, app := s.application()
	for _, of := range []carnet.AvatarID{m.Avatar, other.Avatar} {
		if _, err := arena.TakeShare(t.Context(), api.NewShare{World: "citadel", Avatar: carnet.NewAvatarID(), For: of, Purpose: "fitness"}); err != nil {
			t.Fatal(err)
		}
		s.give(terms(s, p, of, `{"properties":{"heart_rate":{}}}`, identity.ActionRead))
	}
	shares, err := reader.AvatarShares(t.Context(), m.Avatar)
	if err != nil || len(shares) != 1 || shares[0].Ours != m.Avatar {
		t.Errorf("shares of one: %+v, %v", shares, err)
	}
	grants, err := reader.AvatarGrants(t.Context(), m.Avatar)
	if err != nil || len(grants) != 1 || grants[0].Avatar != m.Avatar {
		t.Errorf("grants of one: %+v, %v", grants, err)
	}
	if _, err := app.AvatarShares(t.Context(), m.Avatar); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("an application under a grant lists shares: %v", err)
	}
	if _, err := app.AvatarGrants(t.Context(), m.Avatar); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("an application under a grant lists grants: %v", err)
	}
	if _, err := reader.AvatarShares(t.Context(), carnet.NewAvatarID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("shares of no avatar: %v", err)
	}
	if _, err := reader.AvatarGrants(t.Context(), carnet.NewAvatarID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("grants of no avatar: %v", err)
	}
}
