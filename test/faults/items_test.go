package faults_test

import (
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
	keystore "carnet/owner"
	"carnet/test/wait"
)

// ownHere has the owner pin a key with the clinic's avatar, too.
func (n *neighbours) ownHere() {
	t, ctx := n.t, n.t.Context()
	t.Helper()
	accepted, err := n.clinic.client.AcceptedItems(ctx)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.ParseDID(accepted.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	clinic := keystore.World{Party: "clinic", Key: key}
	own, err := n.store.Key(clinic)
	if err != nil {
		t.Fatal(err)
	}
	ownership, err := identity.SignOwnership(own, identity.Ownership{Audience: "clinic", Avatar: n.here, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.hub.client.Own(ctx, n.watch.mappings["clinic"].ID, ownership); err != nil {
		t.Fatal(err)
	}
	if err := n.store.Pinned(clinic, n.here); err != nil {
		t.Fatal(err)
	}
}

// issue has arena issue an item for its avatar.
func (n *neighbours) issue(kind, title string, attributes identity.Attributes) api.Item {
	n.t.Helper()
	return n.issueTo(n.there, kind, title, attributes)
}

// issueTo has arena issue an item for one of its avatars.
func (n *neighbours) issueTo(to carnet.AvatarID, kind, title string, attributes identity.Attributes) api.Item {
	n.t.Helper()
	i, err := n.arena.client.IssueItem(n.t.Context(), api.NewItem{Avatar: to, Kind: kind, Title: title, Attributes: attributes})
	if err != nil {
		n.t.Fatal(err)
	}
	return i
}

// takes has the clinic take arena's swords.
func (n *neighbours) takes() {
	n.t.Helper()
	arena, err := n.arena.client.AcceptedItems(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	most := 50.0
	_, err = n.clinic.client.AcceptItems(n.t.Context(), api.ItemAcceptance{Issuer: arena.Issuer, Kind: "sword", As: "blade", Attributes: map[string]item.Attribute{"damage": {As: "power", Max: &most}}})
	if err != nil {
		n.t.Fatal(err)
	}
}

// order has the owner order a crossing.
func (n *neighbours) order(x api.Crossing, r identity.MoveRequest) {
	n.t.Helper()
	ordered, err := n.store.Order(r, time.Now(), time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.clinic.client.OrderCrossing(n.t.Context(), x.ID, ordered); err != nil {
		n.t.Fatal(err)
	}
}

// ended waits until a crossing is over in the clinic, and, if it was committed, in
// arena, which hears of an abort when it next asks.
func (n *neighbours) ended(x api.Crossing) (at api.Crossing) {
	n.t.Helper()
	wait.Until(n.t, "the crossing is over", func() (over bool) {
		var err error
		if at, err = n.clinic.client.Crossing(n.t.Context(), x.ID); err != nil {
			n.t.Fatal(err)
		}
		if at.State != move.Home {
			return at.State.Over()
		}
		there, err := n.arena.client.Crossing(n.t.Context(), x.ID)
		return err == nil && there.State == move.Gone
	})
	return at
}

// read verifies an item at a world from its issuer on.
func (n *neighbours) read(p *party, id carnet.ItemID) item.History {
	n.t.Helper()
	proof, err := p.client.ItemProof(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	h, err := item.Read(identity.ItemProof{Credential: proof.Credential, Entries: proof.Entries}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return h
}

// An avatar moves with its items, as processes: the sword that the clinic takes is
// there as what the clinic says, with its chain from arena on; the cap, which it
// doesn't take, ends; and arena has neither.
func TestItemsMoveWithTheirAvatar(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	n.watch.send(5)
	n.settle()
	sword := n.issue("sword", "Oathkeeper", identity.Attributes{"damage": 12.0, "rune": "ash"})
	plain := n.issue("cap", "Cap", nil)
	second := n.issue("sword", "Second", identity.Attributes{"damage": 80.0})
	if sword.Serial != 1 || second.Serial != 2 || plain.Serial != 1 {
		t.Errorf("serials %d, %d, %d", sword.Serial, second.Serial, plain.Serial)
	}
	if i, err := n.arena.client.EquipItem(ctx, sword.ID, "hand"); err != nil || i.Slot != "hand" {
		t.Errorf("%+v, %v", i, err)
	}
	traveller, err := n.arena.client.Enrol(ctx, n.there)
	if err != nil || len(traveller.Items) != 3 {
		t.Fatalf("%+v, %v", traveller, err)
	}
	want := api.NewMove{World: "arena", Traveller: traveller, Items: []carnet.ItemID{sword.ID}, Retire: []carnet.ItemID{plain.ID, second.ID}}
	refused := func(what string, m api.NewMove) {
		t.Helper()
		if _, err := n.clinic.client.BeginCrossing(ctx, m); carnet.CodeOf(err) != carnet.Forbidden && carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("the clinic takes nothing so far", want)
	n.takes()
	without, beyond := want, want
	without.Retire = []carnet.ItemID{plain.ID}
	refused("nothing is said of one", without)
	beyond.Items, beyond.Retire = []carnet.ItemID{sword.ID, second.ID}, []carnet.ItemID{plain.ID}
	refused("one is beyond the bounds", beyond)
	x, r := n.beginWith(want)
	n.order(x, r)
	if x = n.ended(x); x.State != move.Home {
		t.Fatalf("%+v", x)
	}
	all, err := n.clinic.client.ItemsOf(ctx, x.Ours)
	if err != nil || len(all) != 1 || all[0].ID != sword.ID || all[0].As == nil || all[0].As.Kind != "blade" || len(all[0].As.Attributes) != 1 || all[0].As.Attributes["power"] != 12.0 || all[0].Slot != "" {
		t.Errorf("the clinic has %+v, %v", all, err)
	}
	h := n.read(n.clinic, sword.ID)
	if len(h.Entries) != 2 || h.Entries[1].What != identity.ItemMoved || h.Avatar != x.Ours || h.Issuer != sword.Issuer || h.Version != 2 {
		t.Errorf("the chain says %+v", h)
	}
	if i, err := n.arena.client.Item(ctx, sword.ID); err != nil || i.State != item.Gone || i.To != "clinic" {
		t.Errorf("arena has %+v, %v", i, err)
	}
	for _, id := range []carnet.ItemID{plain.ID, second.ID} {
		if h := n.read(n.arena, id); !h.Retired {
			t.Errorf("%s isn't retired: %+v", id, h)
		}
	}
}

// An item goes to the avatar that its owner has in the clinic, and back; its avatar
// stays where it is.
func TestAnItemMovesAlone(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	n.watch.send(5)
	n.settle()
	n.ownHere()
	n.takes()
	sword := n.issue("sword", "Oathkeeper", identity.Attributes{"damage": 12.0})
	x, r := n.beginWith(alone(sword, n.here))
	n.order(x, r)
	if x = n.ended(x); x.State != move.Home || x.Ours != n.here || !x.Alone {
		t.Fatalf("%+v", x)
	}
	all, err := n.clinic.client.ItemsOf(ctx, n.here)
	if err != nil || len(all) != 1 || all[0].ID != sword.ID || all[0].As == nil || all[0].As.Kind != "blade" {
		t.Errorf("the clinic has %+v, %v", all, err)
	}
	if h := n.read(n.clinic, sword.ID); len(h.Entries) != 2 || h.Avatar != n.here {
		t.Errorf("the chain says %+v", h)
	}
	if i, err := n.arena.client.Item(ctx, sword.ID); err != nil || i.State != item.Gone {
		t.Errorf("arena has %+v, %v", i, err)
	}
	if _, err := n.arena.client.Avatar(ctx, n.there); err != nil {
		t.Errorf("the avatar is gone, too: %v", err)
	}
}

// alone is the move of an item to an avatar of the clinic's.
func alone(i api.Item, to carnet.AvatarID) api.NewMove {
	return api.NewMove{World: "arena", Alone: true, To: &to, Items: []carnet.ItemID{i.ID}, Traveller: api.Traveller{
		Avatar: i.Avatar, Home: i.Home, Registrar: i.Registrar, Owner: i.Owner, Sensitivity: "public", Properties: []string{},
		Items: []api.CarriedItem{{ID: i.ID, Credential: i.Credential, Owner: i.Owner}},
	}}
}

// The avatar with its sword and the sword alone are ordered to the clinic at once:
// exactly one of the two moves happens, and the sword is there once.
func TestAnItemIsOfferedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	n.watch.send(5)
	n.settle()
	n.ownHere()
	n.takes()
	sword := n.issue("sword", "Oathkeeper", identity.Attributes{"damage": 12.0})
	traveller, err := n.arena.client.Enrol(ctx, n.there)
	if err != nil {
		t.Fatal(err)
	}
	with, r1 := n.beginWith(api.NewMove{World: "arena", Traveller: traveller, Items: []carnet.ItemID{sword.ID}})
	by, r2 := n.beginWith(alone(sword, n.here))
	n.order(with, r1)
	n.order(by, r2)
	with, by = n.ended(with), n.ended(by)
	if (with.State == move.Home) == (by.State == move.Home) {
		t.Fatalf("with its avatar it is %s (%s), alone %s (%s)", with.State, with.Why, by.State, by.Why)
	}
	all, err := n.clinic.client.Items(ctx)
	if err != nil || len(all) != 1 || all[0].State != item.Here {
		t.Errorf("the clinic has %+v, %v", all, err)
	}
	if i, err := n.arena.client.Item(ctx, sword.ID); err != nil || i.State != item.Gone {
		t.Errorf("arena has %+v, %v", i, err)
	}
}
