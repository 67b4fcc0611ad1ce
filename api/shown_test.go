package api

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/identity"
	"carnet/peering"
	"carnet/policy"
)

// troubled are peers, of which gym is suspended and pool can't be reached.
type troubled struct{ Peers }

func (troubled) All() (all []peering.Peering) {
	for name, state := range map[carnet.PartyID]peering.State{"gym": peering.Suspended, "pool": peering.Active, "old": peering.Removed} {
		all = append(all, peering.Peering{Name: name, State: state, Terms: peering.Terms{
			Inviter: identity.Peer{Party: name, Role: identity.World, Key: make(ed25519.PublicKey, ed25519.PublicKeySize)},
		}})
	}
	return all
}

func (p troubled) Named(name carnet.PartyID) (peering.Peering, error) {
	all := p.All()
	return all[slices.IndexFunc(all, func(p peering.Peering) bool { return p.Name == name })], nil
}

func (troubled) Trouble(carnet.PartyID) string { return "it can't be reached since yesterday" }

// sharesOf are the shares of two avatars, and counts how many are shown.
type sharesOf struct {
	shares
	given []crossing.Given
	shown *int
}

func (s sharesOf) Given() []crossing.Given                { return s.given }
func (s sharesOf) Taken() []crossing.Taken                { return nil }
func (s sharesOf) Waits(carnet.ShareID) bool              { *s.shown++; return false }
func (s sharesOf) Aside(carnet.ShareID) string            { return "" }
func (s sharesOf) Gives(*crossing.Given) ([]string, bool) { return nil, false }
func (s sharesOf) Reach(carnet.PartyID, bool) (bool, *crossing.Storage) {
	return false, nil
}

// one is a world with any avatar.
type one struct{ world }

func (one) Avatar(id carnet.AvatarID) (avatar.Info, error) { return avatar.Info{ID: id}, nil }

// Only who sees all peerings is told their trouble, and of peers that are none now; and of
// shares no more are made than are shown.
func TestOnlyWhoSeesPeeringsHearsOfTheirTrouble(t *testing.T) {
	shown := 0
	of := carnet.AvatarID{1}
	all := sharesOf{shown: &shown, given: []crossing.Given{
		{ID: carnet.ShareID{1}, Taker: "gym", Avatar: of}, {ID: carnet.ShareID{2}, Taker: "pool", Avatar: of}, {ID: carnet.ShareID{3}, Taker: "pool", Avatar: carnet.AvatarID{2}},
	}}
	s := &server{party: "arena", world: one{}, peers: troubled{}, shares: all, limits: usual, guard: watched(t), log: slog.New(slog.DiscardHandler),
		tokens: func(token string) (Principal, bool) { return policy.Bearer(token, policy.Role(token)), true }}
	h, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	for role, sees := range map[policy.Role]bool{policy.Administrator: true, policy.Service: false} {
		ctx := withAdmitted(context.Background(), admitted{who: policy.Bearer("x", role)})
		var names []string
		for _, k := range s.nameable(ctx) {
			names = append(names, string(k.Name))
		}
		if want := map[bool]string{true: "gym old pool", false: "pool"}[sees]; strings.Join(names, " ") != want {
			t.Errorf("%s may name %v, want %s", role, names, want)
		}
		ask := func(path string, made int) string {
			t.Helper()
			shown = 0
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Authorization", "Bearer "+string(role))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if shown != made {
				t.Errorf("for %s, for which %s is answered %d %s, %d shares are made, want %d", role, path, w.Code, w.Body, shown, made)
			}
			return w.Body.String()
		}
		text := ask("/v1/avatars/"+of.String()+"/shares", 2)
		if !strings.Contains(text, "suspended here") || strings.Contains(text, "since yesterday") != sees || strings.Contains(text, "pool can't be reached") == sees || strings.Count(text, `"held"`) != 2 {
			t.Errorf("%s is told %s", role, text)
		}
		if sees {
			ask("/v1/shares", 3)
			ask("/v1/shares/"+carnet.ShareID{2}.String(), 1)
		}
	}
	shown = 0
	r := httptest.NewRequest(http.MethodGet, "/v1/shares", nil)
	r.Header.Set("Authorization", "Bearer "+string(policy.User))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusOK || shown != 0 {
		t.Errorf("for a user, answered %d %s, %d shares are made", w.Code, w.Body, shown)
	}
}
