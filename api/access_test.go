package api_test

import (
	"context"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/erasure"
	"carnet/identity"
	"carnet/item"
)

// erasing is arena that erases one avatar.
type erasing struct{ *avatar.Agent }

func (erasing) EachKept(_ context.Context, _ string, do func(string, uint64, func(any) error) error) error {
	return do("", 1, func(v any) error {
		*v.(*erasure.Erasure) = erasure.Erasure{ID: carnet.NewErasureID(), Role: identity.DeletedAtHome, Avatar: carnet.NewAvatarID(), State: erasure.Hiding, Asked: time.Now()}
		return nil
	})
}

// newErasures is arena's side of an erasure. It tells nobody: it isn't run.
func (s *served) newErasures() *erasure.Agent {
	s.t.Helper()
	a, err := erasure.New(s.t.Context(), erasure.Config{
		Party: "arena", Key: s.ids.arena.Key, World: erasing{s.world}, Shares: s.shares, Moves: struct{ *move.Agent }{}, Jobs: s.jobs, Items: s.items, Depot: struct{ erasure.Depot }{},
		Registrar:  func() (erasure.Registrar, string, error) { return nil, "", carnet.Errorf(carnet.Unavailable, "away") },
		Registered: func() bool { return false },
		Peer:       func(carnet.PartyID) string { return "" },
		Tell:       func(context.Context, carnet.PartyID, string, []byte) ([]byte, error) { return nil, nil },
		Revoke:     func(context.Context, carnet.AvatarID) error { return nil },
		Log:        quiet(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// What is the world's own is listed to who may see all of it. Who may see their own only
// is listed none of it: it is nobody's.
func TestAWorldsOwnIsListedToNoUser(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	d.mustSend(heart(0, 72))
	s.arrived(m.Avatar, 1)
	if _, err := s.jobs.Order(t.Context(), queryOf("forge", m.Avatar)); err != nil {
		t.Fatal(err)
	}
	s.module(s.jobs, "heartzones")
	s.comes()
	s.sharing("", m)
	s.application()
	if _, err := s.items.Issue(t.Context(), item.Draft{Avatar: m.Avatar, Kind: "sword", Title: "Oathkeeper"}); err != nil {
		t.Fatal(err)
	}
	erases := s.serve(api.Config{Party: "arena", World: s.world, Erasures: s.newErasures(), Entities: s.entities, Activity: s.activity, Tokens: s.tokens, Log: quiet()})
	for what, count := range map[string]func(token string) (int, error){
		"shares":     func(token string) (int, error) { return counted(s.arena(token).Shares(t.Context())) },
		"crossings":  func(token string) (int, error) { return counted(s.arena(token).Crossings(t.Context())) },
		"jobs":       func(token string) (int, error) { return counted(s.arena(token).Jobs(t.Context())) },
		"items":      func(token string) (int, error) { return counted(s.arena(token).Items(t.Context())) },
		"principals": func(token string) (int, error) { return counted(s.arena(token).Principals(t.Context())) },
		"modules":    func(token string) (int, error) { return counted(s.arena(token).Modules(t.Context())) },
		"erasures": func(token string) (int, error) {
			return counted((&client.Client{Base: erases, Token: token}).Erasures(t.Context()))
		},
	} {
		for token, want := range map[string]int{"operator-token": 1, "auditor-token": 1, "alice-token": 0, "maker-token": 0} {
			if what == "items" && token == "maker-token" {
				want = 1 // who makes things sees all of them
			}
			if n, err := count(token); err != nil || (n > 0) != (want > 0) {
				t.Errorf("%s: with %s %d are listed, want %d: %v", what, token, n, want, err)
			}
		}
	}
}

func counted[T any](list []T, err error) (int, error) { return len(list), err }
