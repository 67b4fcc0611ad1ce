package api_test

import (
	"context"
	"time"

	"carnet"
	"carnet/api"
	"carnet/identity"
	"carnet/item"
	"carnet/item/itemtest"
	"carnet/ledger"
)

// registrar enrols the homes of items of arena's.
type registrar struct {
	*served
	ledger *itemtest.Ledger
}

func (r registrar) EnrolItem(_ context.Context, avatar carnet.AvatarID) (item.Enrolled, error) {
	owner, err := r.OwnerOf(context.Background(), avatar)
	if err != nil {
		return item.Enrolled{}, err
	}
	e := item.Enrolled{Home: carnet.NewHomeID(), Registrar: itemtest.DID("vault"), Owner: owner}
	e.Answer, err = identity.SignHome(itemtest.Key("vault"), identity.HomeAnswer{
		Registrar: e.Registrar, Home: e.Home, Version: 1, World: itemtest.DID("arena"), Owner: owner, Incarnation: 1, Asked: identity.NewNonce(),
	})
	if err == nil {
		e.Proof = r.ledger.State(ledger.HomeEnrolled, e.Answer)
	}
	return e, err
}

func (r registrar) OwnerOf(_ context.Context, avatar carnet.AvatarID) (string, error) {
	if avatar != companion {
		if _, err := r.world.Avatar(avatar); err != nil {
			return "", err
		}
	}
	return itemtest.DID("owner"), nil
}

func (registrar) ChangeItem(_ context.Context, _ string, _ carnet.HomeID, change func() error) error {
	return change()
}

func (registrar) Coming(carnet.AvatarID) int { return 0 }

func (registrar) ItemsEnd() {}

// companion is an avatar that gets gifts.
var companion = carnet.AvatarID{0xc0}

// ofItem makes an item for an operation about one, and the body that somebody must make.
func (s *served) ofItem(op string, avatar carnet.AvatarID) (id, body string) {
	s.t.Helper()
	switch op {
	case "issue-item":
		return "", marshal(s.t, api.NewItem{Avatar: avatar, Kind: "sword", Title: "Oathkeeper", Attributes: identity.Attributes{"damage": 12.0}})
	case "list-items":
		return "", ""
	}
	i, err := s.items.Issue(s.t.Context(), item.Draft{Avatar: avatar, Kind: "sword", Title: "Oathkeeper", Attributes: identity.Attributes{"damage": 12.0}})
	if err != nil {
		s.t.Fatal(err)
	}
	switch op {
	case "assess-items":
		return "", marshal(s.t, api.Credentials{Credentials: []string{i.Credential}})
	case "give-item":
		now := time.Now().UTC().Truncate(time.Second)
		gift, err := identity.SignGift(itemtest.Key("owner"), identity.Gift{
			Item: i.ID, Owner: i.Owner, World: i.Issuer, From: avatar, To: companion, After: i.Last, Made: now, Until: now.Add(time.Hour),
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return i.ID.String(), marshal(s.t, api.SignedGift{Gift: gift})
	}
	return i.ID.String(), ""
}

// newItems is arena's book of items.
func (s *served) newItems() *item.Book {
	store := itemtest.NewMemory()
	r := registrar{s, itemtest.NewLedger(s.t, "vault")}
	b, err := item.New(s.t.Context(), item.Config{
		Party: "arena", Key: itemtest.Key("arena"), Store: store, Keys: store.Table(s.t), Homes: r,
		Ledger: func(string) (ledger.Key, error) { return r.ledger.Key(), nil }, State: s.world.Statement, Recorded: func() {},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}
