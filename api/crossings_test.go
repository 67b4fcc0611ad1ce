package api_test

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/register"
)

// homes is a register of homes as arena asks it, in memory: it signs and proves
// nothing, which package register tests.
type homes struct {
	world string // arena, by its key
	mu    sync.Mutex
	all   map[carnet.HomeID]identity.HomeAnswer
}

// registrarKey names it.
var registrarKey = newKey()

func (h *homes) Enrol(_ context.Context, id carnet.HomeID, owner string) (identity.HomeAnswer, register.HomeReply, error) {
	return h.enter(id, h.world, owner), register.HomeReply{}, nil
}

func (h *homes) enter(id carnet.HomeID, world, owner string) identity.HomeAnswer {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[id] = identity.HomeAnswer{Registrar: identity.DID(public(registrarKey)), Home: id, Version: 1, World: world, Owner: owner, Incarnation: 1}
	return h.all[id]
}

func (h *homes) Claim(ctx context.Context, id carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error) {
	return h.Home(ctx, id)
}

func (h *homes) ClaimItem(ctx context.Context, id carnet.HomeID, _ uint64) (identity.HomeAnswer, register.HomeReply, error) {
	return h.Home(ctx, id)
}

func (h *homes) Home(_ context.Context, id carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	is, ok := h.all[id]
	if !ok {
		return is, register.HomeReply{}, carnet.Errorf(carnet.NotFound, "there is no home %s", id)
	}
	return is, register.HomeReply{}, nil
}

func (h *homes) NotAt(context.Context, string, []carnet.HomeID) ([]carnet.HomeID, error) {
	return nil, nil
}

func (h *homes) Decide(context.Context, carnet.CrossingID, register.Petition) (*register.Decided, error) {
	return nil, nil
}

// citadelKey is that of the world that avatars come from.
var citadelKey = newKey()

type neighbours struct{}

func (neighbours) Named(name carnet.PartyID) (move.Peer, error) {
	if name != "citadel" {
		return move.Peer{}, carnet.Errorf(carnet.NotFound, "there is no peer %s", name)
	}
	return move.Peer{Party: name, OwnName: name, Key: public(citadelKey), Clearance: clearance}, nil
}

func (n neighbours) All() []move.Peer {
	peer, _ := n.Named("citadel")
	return []move.Peer{peer}
}

// newMoves makes arena's side of moves. It asks no other world: it isn't run.
func (s *served) newMoves() *move.Agent {
	s.homes = &homes{world: identity.DID(public(s.ids.arena.Key)), all: make(map[carnet.HomeID]identity.HomeAnswer)}
	a, err := move.New(s.t.Context(), move.Config{
		Party: "arena", Key: s.ids.arena.Key, World: s.world, Items: s.items, Peers: neighbours{}, Far: struct{ move.Far }{}, Mandates: s.mandates, Clearance: clearance,
		Registrar: func() (move.Registrar, string, error) { return s.homes, identity.DID(public(registrarKey)), nil },
		Announce:  func() ([]byte, error) { return s.world.AnnounceTo(s.ids.arena.Key, "arena") },
		Moved:     func([]carnet.Moved) {},
		Vouch:     func(carnet.AvatarID, avatar.MovedStream) ([]byte, error) { return []byte("passage"), nil },
		VouchLeft: func(avatar.MovedStream, avatar.LeftOut) ([]byte, error) { return []byte("left"), nil },
		Log:       quiet(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// traveller is an avatar of citadel, whose owner's key is ownerKey(1).
func (s *served) traveller() api.Traveller {
	t := api.Traveller{
		Avatar: carnet.NewAvatarID(), Home: carnet.NewHomeID(), Registrar: identity.DID(public(registrarKey)), Owner: identity.DID(public(ownerKey(1))),
		Title: "Runner", Sensitivity: "health", Properties: []string{"heart-rate"},
	}
	s.homes.enter(t.Home, identity.DID(public(citadelKey)), t.Owner)
	return t
}

// comes asks for an avatar of citadel to come.
func (s *served) comes() api.Crossing {
	s.t.Helper()
	c, err := s.arena("operator-token").BeginCrossing(s.t.Context(), api.NewMove{World: "citadel", Traveller: s.traveller(), Text: "Your player comes to arena."})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// ordered is what the owner signs for a move that was asked for.
func ordered(t testing.TB, c api.Crossing) identity.Ordered {
	t.Helper()
	request, asked, err := identity.ParseMoveRequest(c.Request)
	if err != nil {
		t.Fatal(err)
	}
	order, terms, err := request.Sign(ownerKey(1), newKey(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	mandate, err := identity.SignMandate(ownerKey(1), identity.Mandate{MandateTerms: asked.MandateTerms, Issued: now, NotBefore: now, Expires: now.Add(2 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return identity.Ordered{Order: order, Terms: terms, Mandate: mandate}
}

// moving is the request of a call about moves: which crossing, and its body.
func (s *served) moving(operation string) (id, body string) {
	switch operation {
	case "begin-crossing":
		return "", marshal(s.t, api.NewMove{World: "citadel", Traveller: s.traveller(), Text: "Your player comes to arena."})
	case "order-crossing":
		c := s.comes()
		return c.ID.String(), marshal(s.t, ordered(s.t, c))
	case "get-crossing", "cancel-crossing":
		return s.comes().ID.String(), ""
	}
	return "", ""
}

func TestAMoveIsAskedForOrderedAndCalledOffOverHTTP(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	ops, reader := s.arena("operator-token"), s.arena("reader-token")
	if _, err := ops.Enrol(t.Context(), m.Avatar); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("an avatar of no known owner is enrolled: %v", err)
	}
	s.pinned(m)
	described, err := ops.Enrol(t.Context(), m.Avatar)
	if err != nil || described.Avatar != m.Avatar || described.Owner != identity.DID(public(ownerKey(1))) {
		t.Errorf("enrolled: %+v, %v", described, err)
	}
	if again, err := ops.Enrol(t.Context(), m.Avatar); err != nil || again.Home != described.Home {
		t.Errorf("enrolled again: %+v, %v", again, err)
	}

	c := s.comes()
	if c.State != move.Asked || c.Direction != "arriving" || c.World != "citadel" || len(c.Request) == 0 || len(c.Steps) != 1 {
		t.Errorf("asked: %s %s from %s, with %d steps", c.Direction, c.State, c.World, len(c.Steps))
	}
	if _, err := reader.CancelCrossing(t.Context(), c.ID); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a reader calls a move off: %v", err)
	}
	wrong := ordered(t, s.comes())
	if _, err := ops.OrderCrossing(t.Context(), c.ID, wrong); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("the order of another crossing: %v", err)
	}
	right := ordered(t, c)
	if is, err := ops.OrderCrossing(t.Context(), c.ID, right); err != nil || is.State != move.Copying || is.Until == nil {
		t.Errorf("ordered: %+v, %v", is, err)
	}
	if is, err := ops.OrderCrossing(t.Context(), c.ID, right); err != nil || is.State != move.Copying {
		t.Errorf("handed in again: %+v, %v", is, err)
	}
	if is, err := ops.CancelCrossing(t.Context(), c.ID); err != nil || is.State != move.Leaving || is.Why != "called off by ops" {
		t.Errorf("called off: %+v, %v", is, err)
	}
	all, err := ops.Crossings(t.Context())
	states := make(map[carnet.CrossingID]move.State)
	for _, one := range all {
		states[one.ID] = one.State
	}
	if want := map[carnet.CrossingID]move.State{c.ID: move.Leaving, all[len(all)-1].ID: move.Asked}; err != nil || !maps.Equal(states, want) {
		t.Errorf("listed: %v, %v", states, err)
	}

	t.Run("what isn't a move", func(t *testing.T) {
		lie := s.traveller()
		lie.Owner = identity.DID(public(ownerKey(2)))
		secret := s.traveller()
		secret.Residency = []string{"nowhere"}
		unknown := s.traveller()
		unknown.Sensitivity = "top"
		for what, n := range map[string]struct {
			api.NewMove
			code carnet.Code
		}{
			"another owner than the register's":    {api.NewMove{World: "citadel", Traveller: lie}, carnet.Forbidden},
			"from a world that isn't a peer":       {api.NewMove{World: "gym", Traveller: s.traveller()}, carnet.NotFound},
			"of what this world may not hold":      {api.NewMove{World: "citadel", Traveller: secret}, carnet.Forbidden},
			"with a sensitivity that isn't one":    {api.NewMove{World: "citadel", Traveller: unknown}, carnet.Malformed},
			"with a text of more than one line":    {api.NewMove{World: "citadel", Traveller: s.traveller(), Text: "a\nb"}, carnet.Malformed},
			"of a home that isn't at the register": {api.NewMove{World: "citadel", Traveller: func() api.Traveller { t := s.traveller(); t.Home = carnet.NewHomeID(); return t }()}, carnet.NotFound},
		} {
			if _, err := ops.BeginCrossing(t.Context(), n.NewMove); carnet.CodeOf(err) != n.code {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := ops.OrderCrossing(t.Context(), carnet.NewCrossingID(), identity.Ordered{Order: "a.b.c", Terms: json.RawMessage(`{}`), Mandate: "a.b.c"}); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("an order of no crossing: %v", err)
		}
	})
}
