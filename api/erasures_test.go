package api_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/erasure"
	"carnet/identity"
	"carnet/register"
	"carnet/thing"
)

// erasureOrder is an owner's order to erase some avatar.
func (s *served) erasureOrder() string {
	s.t.Helper()
	e, now := carnet.NewErasureID(), time.Now().UTC().Truncate(time.Second)
	order, err := identity.SignErasure(ownerKey(1), identity.ErasureOrder{
		Erasure: e, Registrar: identity.DID(public(registrarKey)), Owner: identity.DID(public(ownerKey(1))), World: identity.DID(public(s.ids.arena.Key)), Home: carnet.NewHomeID(),
		Avatar: identity.ErasedMark(e, carnet.NewAvatarID()), Made: now, Until: now.Add(time.Hour),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return order
}

func (h *homes) Erase(ctx context.Context, id carnet.HomeID, order string) (identity.HomeAnswer, register.HomeReply, error) {
	h.mu.Lock()
	is := h.all[id]
	is.Erased = order
	h.all[id] = is
	h.mu.Unlock()
	return h.Home(ctx, id)
}

func (h *homes) Erased(context.Context, []carnet.HomeID) ([]carnet.HomeID, error) { return nil, nil }

// noDepotErases is a world without a depot.
type noDepotErases struct{ erasure.Depot }

func (noDepotErases) Party() carnet.PartyID { return "" }

// newErasing makes arena's side of erasures. It isn't run: what its owner orders is done
// when it is handed in.
func (s *served) newErasing(moves *move.Agent) *erasure.Agent {
	a, err := erasure.New(s.t.Context(), erasure.Config{
		Party: "arena", Key: s.ids.arena.Key, World: s.world, Shares: s.shares, Moves: moves, Jobs: s.jobs, Items: s.items, Depot: noDepotErases{},
		Registrar:  func() (erasure.Registrar, string, error) { return s.homes, identity.DID(public(registrarKey)), nil },
		Registered: func() bool { return false },
		Peer:       func(carnet.PartyID) string { return "" },
		Tell: func(context.Context, carnet.PartyID, string, []byte) ([]byte, error) {
			return nil, carnet.Errorf(carnet.Unavailable, "nobody answers")
		},
		Revoke: func(context.Context, carnet.AvatarID) error { return nil }, Log: quiet(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// another is an avatar of a watch of its own, whose owner's key is ownerKey(1).
func (s *served) another() thing.MappingInfo {
	s.t.Helper()
	d, m := s.watch(carnet.ThingID("watch-"+carnet.NewAvatarID().String()[:6]), `{"properties":{"heart_rate":{}},"purposes":["fitness"],"send":{"UTC":["mon-sun 00:00-24:00"]}}`)
	d.mustSend(heart(0, 72))
	s.arrived(m.Avatar, 1)
	s.pinned(m)
	return m
}

// erases is what a call about an erasure needs: which it is about, and its body.
func (s *served) erases(op string) (id, body string) {
	t := s.t
	t.Helper()
	c := s.arena("operator-token")
	m := s.another()
	if op == "begin-erasure" {
		return "", marshal(t, api.NewErasure{Avatar: m.Avatar, Text: "You asked for it."})
	}
	asked, err := c.BeginErasure(t.Context(), api.NewErasure{Avatar: m.Avatar, Text: "You asked for it."})
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.ParseErasureRequest(asked.Request)
	if err != nil {
		t.Fatal(err)
	}
	order, err := r.Sign(ownerKey(1), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if op == "order-erasure" {
		return asked.ID.String(), marshal(t, order)
	}
	if _, err := c.OrderErasure(t.Context(), asked.ID, order); err != nil {
		t.Fatal(err)
	}
	if op == "list-erasures" {
		return "", ""
	}
	return asked.ID.String(), ""
}

// exports is arena's way to make passports. Nothing that it received is on a ledger here, so
// there is nothing to prove them by.
type exports struct {
	*served
	moves *move.Agent
}

// Passport implements api.Passports.
func (p exports) Passport(_ context.Context, id carnet.AvatarID, _ api.NewPassport) (func(io.Writer) error, error) {
	if _, err := p.world.Avatar(id); err != nil {
		return nil, err
	}
	return nil, carnet.Errorf(carnet.Unavailable, "nothing is proved here")
}

// Announce implements api.Passports.
func (p exports) Announce() ([]byte, error) { return p.moves.Announce() }

// brought is the passport of an avatar of citadel, of which nothing was ever said.
func (s *served) brought() string {
	t := s.t
	t.Helper()
	home, owner, made := carnet.NewHomeID(), identity.DID(public(ownerKey(1))), time.Now().UTC().Truncate(time.Second)
	s.homes.enter(home, identity.DID(public(citadelKey)), owner)
	m := avatar.Manifest{
		Version: 1, Crossing: carnet.NewCrossingID(), Avatar: carnet.NewAvatarID(), Title: "Runner", Created: made,
		Streams: []avatar.MovedStream{}, Stretches: []avatar.MovedStretch{}, Keys: []avatar.MovedKey{}, State: []avatar.MovedValue{},
	}
	manifest, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	word, err := identity.SignPassport(citadelKey, identity.Passport{
		Passport: m.Crossing, Source: identity.DID(public(citadelKey)), World: "citadel", Signer: identity.DID(public(newKey())), Registrar: identity.DID(public(registrarKey)),
		Home: home, Version: 1, Owner: owner, Pinned: owner, Avatar: m.Avatar, Key: identity.DID(public(newKey())), Manifest: carnet.FingerprintOf(manifest), Made: made,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(api.Framed([]byte(marshal(t, api.NewRecovery{Passport: word})), manifest))
}

// recovers is what a call about a recovery needs.
func (s *served) recovers(op string) (id, body string) {
	t := s.t
	t.Helper()
	if op == "begin-recovery" {
		return "", s.brought()
	}
	a := s.handIn("POST", "/v1/recoveries", s.brought())
	var c api.Crossing
	if err := json.Unmarshal([]byte(a.body), &c); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	id = c.ID.String()
	switch op {
	case "put-stretch":
		return id, string(api.Framed([]byte(marshal(t, avatar.MovedStretch{Class: carnet.Keep})), nil, nil))
	case "put-bags":
		return id, marshal(t, api.Bags{Bags: [][]byte{}})
	case "order-recovery":
		r, _, err := identity.ParseRecoveryRequest(c.Request)
		if err != nil {
			t.Fatal(err)
		}
		recovery, terms, err := r.Sign(ownerKey(1), newKey(), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return id, marshal(t, identity.Recovered{Recovery: recovery, Terms: terms, Bags: [][]byte{}})
	}
	return id, ""
}

// handIn hands octets in at arena.
func (s *served) handIn(method, path, body string) answered {
	s.t.Helper()
	q := question{op: operation{method: method, path: path, id: path}, base: s.arenaURL, header: http.Header{"Content-Type": {"application/octet-stream"}}, body: body}
	return (&review{served: s}).put(q)
}

// An avatar that is erased over HTTP is so for everybody, and is proved to be.
func TestAnErasureOverHTTP(t *testing.T) {
	s := newServed(t)
	ops, reader := s.arena("operator-token"), s.arena("reader-token")
	m := s.another()
	asked, err := ops.BeginErasure(t.Context(), api.NewErasure{Avatar: m.Avatar})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.BeginErasure(t.Context(), api.NewErasure{Avatar: m.Avatar}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a reader asks for an erasure: %v", err)
	}
	if _, err := ops.Avatar(t.Context(), m.Avatar); err != nil {
		t.Errorf("what its owner is asked changes something: %v", err)
	}
	r, err := identity.ParseErasureRequest(asked.Request)
	if err != nil {
		t.Fatal(err)
	}
	wrong := r
	wrong.Owner = identity.DID(public(ownerKey(2)))
	forged, err := wrong.Sign(ownerKey(2), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.OrderErasure(t.Context(), asked.ID, forged); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("an order by another than the owner: %v", err)
	}
	order, err := r.Sign(ownerKey(1), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e, err := ops.OrderErasure(t.Context(), asked.ID, order)
	if err != nil || e.Hidden == nil {
		t.Fatalf("ordered: %+v, %v", e, err)
	}
	if _, err := ops.Avatar(t.Context(), m.Avatar); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("it is shown: %v", err)
	}
	bundle, err := ops.ErasureEvidence(t.Context(), asked.ID)
	if err != nil || len(bundle.Deletions) == 0 || bundle.Order != order.Order {
		t.Errorf("proved by %+v, %v", bundle, err)
	}
}
