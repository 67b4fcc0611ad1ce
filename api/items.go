package api

import (
	"context"
	"net/http"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/item"

	"github.com/danielgtaylor/huma/v2"
)

// items is what the handler needs of a world's items: an *item.Book.
type items interface {
	Issuer() string
	Items() []item.Info
	Of(carnet.AvatarID) []item.Info
	Item(carnet.ItemID) (item.Info, error)
	Proof(context.Context, carnet.ItemID) (identity.ItemProof, error)
	Issue(context.Context, item.Draft) (item.Info, error)
	Equip(ctx context.Context, id carnet.ItemID, slot string) (item.Info, error)
	Give(ctx context.Context, gift string) (item.Info, error)
	Retire(context.Context, carnet.ItemID) (item.Info, error)
	Fit(credential string) (identity.Item, item.Looks, error)
	Accept(context.Context, item.Acceptance) error
	Refuse(ctx context.Context, issuer, kind string) (item.Acceptance, error)
	Acceptances() []item.Acceptance
}

// OfItem is the input of what concerns one item. It is exported because huma passes
// over embedded structs that aren't.
type OfItem struct {
	ID carnet.ItemID `path:"id" doc:"The item's id." example:"00112233445566778899aabbccddeeff"`
}

func (s *server) itemRoutes(h huma.API) {
	tags := []string{atR4}
	serving(s, h, huma.Operation{
		OperationID: "list-items", Method: http.MethodGet, Path: "/v1/items", Tags: tags,
		Summary: "All items that this world has or had: its own and others', oldest first.",
	}, func(ctx context.Context, _ *struct{}) (*body[ItemList], error) {
		return answer(s.itemList(worlds(ctx, s.items.Items)), nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "list-avatar-items", Method: http.MethodGet, Path: "/v1/avatars/{id}/items", Tags: tags,
		Summary: "The items that an avatar has here.",
	}, func(_ context.Context, in *OfAvatar) (*body[ItemList], error) {
		if _, err := s.world.Avatar(in.ID); err != nil {
			return nil, err
		}
		return answer(s.itemList(s.items.Of(in.ID)), nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "issue-item", Method: http.MethodPost, Path: "/v1/items", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Issues an item: this world signs once and for all what it is, and an avatar has it.",
		Description: "An owner's key must be pinned with the avatar. The item's home is registered with that key: the register learns a random id, and nothing of the item. " +
			"Its serial is the next of its kind.",
		RequestBody: example(exampleItem()),
	}, func(ctx context.Context, in *struct{ Body NewItem }) (*body[Item], error) {
		i, err := s.items.Issue(ctx, item.Draft{Avatar: in.Body.Avatar, Kind: in.Body.Kind, Title: in.Body.Title, Attributes: in.Body.Attributes})
		return s.shownItem(i, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-item", Method: http.MethodGet, Path: "/v1/items/{id}", Tags: tags,
		Summary: "One item: what its issuer says of it, who has it, and what it counts as here.",
	}, func(_ context.Context, in *OfItem) (*body[Item], error) {
		return s.shownItem(s.items.Item(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-item-proof", Method: http.MethodGet, Path: "/v1/items/{id}/proof", Tags: tags,
		Summary:     "All that proves an item: its credential, and what happened to it since, signed by each world where it was.",
		Description: "carnet verify reads the answer, offline.",
	}, func(ctx context.Context, in *OfItem) (*body[ItemProof], error) {
		p, err := s.items.Proof(ctx, in.ID)
		return answer(ItemProof{item.ProofKind, p.Credential, p.Entries}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "equip-item", Method: http.MethodPut, Path: "/v1/items/{id}/slot", Tags: tags,
		Summary:     "Has the item's avatar put it on, in a slot that must be free.",
		RequestBody: example(Equipped{Slot: "hand"}),
	}, func(ctx context.Context, in *struct {
		OfItem
		Body Equipped
	}) (*body[Item], error) {
		return s.shownItem(s.items.Equip(ctx, in.ID, in.Body.Slot))
	})
	serving(s, h, huma.Operation{
		OperationID: "unequip-item", Method: http.MethodDelete, Path: "/v1/items/{id}/slot", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Has the item's avatar put it off.",
	}, func(ctx context.Context, in *OfItem) (*body[Item], error) {
		return s.shownItem(s.items.Equip(ctx, in.ID, ""))
	})
	serving(s, h, huma.Operation{
		OperationID: "give-item", Method: http.MethodPost, Path: "/v1/items/{id}/gifts", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Hands in the gift that the item's owner signed: another avatar of this world has the item from then on.",
		Description: "It proves itself: whoever brings it may hand it in. Handed in again it is answered the same.",
		RequestBody: example(SignedGift{Gift: exampleToken}),
	}, func(ctx context.Context, in *struct {
		OfItem
		Body SignedGift
	}) (*body[Item], error) {
		if _, err := s.items.Item(in.ID); err != nil {
			return nil, err
		}
		g, err := identity.OpenGift(in.Body.Gift)
		if err == nil && g.Item != in.ID {
			err = carnet.Errorf(carnet.Malformed, "the gift is of the item %s", g.Item)
		}
		if err != nil {
			return nil, err
		}
		return s.shownItem(s.items.Give(ctx, in.Body.Gift))
	})
	serving(s, h, huma.Operation{
		OperationID: "retire-item", Method: http.MethodDelete, Path: "/v1/items/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Ends an item that this world has issued, for ever.",
	}, func(ctx context.Context, in *OfItem) (*body[Item], error) {
		return s.shownItem(s.items.Retire(ctx, in.ID))
	})
	s.acceptanceRoutes(h)
}

// acceptanceRoutes are for what the world takes of others.
func (s *server) acceptanceRoutes(h huma.API) {
	tags := []string{atR3}
	serving(s, h, huma.Operation{
		OperationID: "assess-items", Method: http.MethodPost, Path: "/v1/items/assessments", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Says of items of other worlds whether they are accepted here, as what, or why not.",
		RequestBody: example(Credentials{Credentials: []string{exampleToken}}),
	}, func(_ context.Context, in *struct{ Body Credentials }) (*body[ItemAssessments], error) {
		all := ItemAssessments{Items: []ItemAssessment{}}
		for _, c := range in.Body.Credentials {
			a := ItemAssessment{}
			i, looks, err := s.items.Fit(c)
			if a.ID = i.ID; err != nil {
				a.Why = err.Error()
			} else {
				a.As = &looks
			}
			all.Items = append(all.Items, a)
		}
		return answer(all, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "list-accepted-items", Method: http.MethodGet, Path: "/v1/accepted-items", Tags: tags,
		Summary: "Which items of other issuers this world takes, and as what; and as whom it issues its own.",
	}, func(context.Context, *struct{}) (*body[AcceptedItems], error) {
		all := AcceptedItems{s.items.Issuer(), []ItemAcceptance{}}
		for _, a := range s.items.Acceptances() {
			all.Accepted = append(all.Accepted, ItemAcceptance(a))
		}
		return answer(all, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "accept-items", Method: http.MethodPut, Path: "/v1/accepted-items", Tags: tags,
		Summary:     "Takes items of a kind of another issuer from now on, as a kind of this world's.",
		Description: "What stood for that kind before is replaced. An item keeps its issuer's credential; what it counts as here ends when it moves on.",
		RequestBody: example(exampleAcceptance()),
	}, func(ctx context.Context, in *struct{ Body ItemAcceptance }) (*body[ItemAcceptance], error) {
		return answer(in.Body, s.items.Accept(ctx, item.Acceptance(in.Body)))
	})
	serving(s, h, huma.Operation{
		OperationID: "refuse-items", Method: http.MethodDelete, Path: "/v1/accepted-items", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Takes no more items of a kind of another issuer. Those that are here stay.",
	}, func(ctx context.Context, in *struct {
		Issuer string `query:"issuer" required:"true" doc:"The issuer, as a did:key." maxLength:"64" example:"did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH"`
		Kind   string `query:"kind" required:"true" doc:"The kind, as the issuer calls it." maxLength:"32" example:"sword"`
	}) (*body[ItemAcceptance], error) {
		a, err := s.items.Refuse(ctx, in.Issuer, in.Kind)
		return answer(ItemAcceptance(a), err)
	})
}

// NewItem is an item that is to be issued.
type NewItem struct {
	Avatar     carnet.AvatarID     `json:"avatar" doc:"Who is to have it." example:"00112233445566778899aabbccddeeff"`
	Kind       string              `json:"kind" doc:"One word; with this world's did:key it is nobody else's." example:"sword" minLength:"1" maxLength:"32"`
	Title      string              `json:"title" doc:"What it is called, on one line." example:"Oathkeeper" minLength:"1" maxLength:"200"`
	Attributes identity.Attributes `json:"attributes,omitempty" doc:"At most 32, each a number, a text of at most 256 bytes, or true or false."`
}

func exampleItem() NewItem {
	return NewItem{Avatar: carnet.AvatarID{1}, Kind: "sword", Title: "Oathkeeper", Attributes: identity.Attributes{"damage": 12.0}}
}

func exampleAcceptance() ItemAcceptance {
	most := 50.0
	return ItemAcceptance{
		Issuer: "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH", Kind: "sword", As: "blade",
		Attributes: map[string]item.Attribute{"damage": {As: "power", Max: &most}},
	}
}

// Equipped says where an item is put on.
type Equipped struct {
	Slot string `json:"slot" doc:"One word." example:"hand" minLength:"1" maxLength:"32"`
}

// SignedGift carries what an owner signed.
type SignedGift struct {
	Gift string `json:"gift" doc:"A compact JWS with the type carnet-gift+jwt." minLength:"1" maxLength:"8192"`
}

// Credentials are of items, by their issuers.
type Credentials struct {
	Credentials []string `json:"credentials" doc:"Each a compact JWS." minItems:"1" maxItems:"256"`
}

// ItemAssessment says what an item would be here.
type ItemAssessment struct {
	ID  carnet.ItemID `json:"id"`
	As  *item.Looks   `json:"as,omitempty" doc:"It is accepted, as this."`
	Why string        `json:"why,omitempty" doc:"It isn't, since."`
}

// ItemAssessments are of several items, in the order in which they were asked about.
type ItemAssessments struct {
	Items []ItemAssessment `json:"items"`
}

// AcceptedItems is what a world takes of other issuers.
type AcceptedItems struct {
	Issuer   string           `json:"issuer" doc:"This world's name as an issuer of items, as a did:key."`
	Accepted []ItemAcceptance `json:"accepted"`
}

// ItemAcceptance says which items of another issuer a world takes, and as what.
type ItemAcceptance struct {
	Issuer     string                    `json:"issuer" doc:"The other issuer, as a did:key." maxLength:"64"`
	Kind       string                    `json:"kind" doc:"The issuer's word." example:"sword" minLength:"1" maxLength:"32"`
	As         string                    `json:"as" doc:"What it counts as here." example:"blade" minLength:"1" maxLength:"32"`
	Attributes map[string]item.Attribute `json:"attributes,omitempty" doc:"Those that carry over, by the issuer's name: what each is called here, and within which bounds a number is taken."`
}

// ItemProof is all that proves an item.
type ItemProof struct {
	Kind       string   `json:"kind" doc:"What this document is."`
	Credential string   `json:"credential" doc:"What its issuer says of it, as a JWS."`
	Entries    []string `json:"entries" doc:"What happened to it, each a JWS of the world where it was since."`
}

// Item is an item of a world.
type Item struct {
	ID         carnet.ItemID       `json:"id"`
	State      item.State          `json:"state" enum:"here,gone,retired"`
	Issuer     string              `json:"issuer" doc:"Who issued it, as a did:key."`
	World      carnet.PartyID      `json:"world" doc:"The issuer, as it calls itself."`
	Kind       string              `json:"kind" doc:"Of the issuer's."`
	Title      string              `json:"title"`
	Serial     uint64              `json:"serial"`
	Attributes identity.Attributes `json:"attributes"`
	Issued     time.Time           `json:"issued"`
	Avatar     carnet.AvatarID     `json:"avatar" doc:"Who has it, or had it last; zeros: one that is erased, and nobody knows here which."`
	Since      time.Time           `json:"since"`
	Slot       string              `json:"slot,omitempty" doc:"Where it is put on; absent: it isn't."`
	As         *item.Looks         `json:"as,omitempty" doc:"What it counts as here, by this world's word; absent of its own."`
	Moving     bool                `json:"moving,omitempty" doc:"It keeps still for a crossing."`
	To         carnet.PartyID      `json:"to,omitempty" doc:"Where it has gone."`
	Home       carnet.HomeID       `json:"home" doc:"What the register calls it."`
	Registrar  string              `json:"registrar" doc:"Who keeps the register, as a did:key."`
	Owner      string              `json:"owner" doc:"The owner's key that is registered, as a did:key; empty: the avatar that had it is erased."`
	Entries    int                 `json:"entries" doc:"How many things have happened to it."`
	Last       string              `json:"last" doc:"SHA-256 of the newest entry of its chain."`
	Credential string              `json:"credential" doc:"What its issuer says of it, as a JWS."`
}

// ItemList is a list of items.
type ItemList struct {
	Items []Item `json:"items"`
}

func showItem(i item.Info) Item {
	return Item{
		ID: i.ID, State: i.State, Issuer: i.Issuer, World: i.Item.World, Kind: i.Kind, Title: i.Title, Serial: i.Serial, Attributes: i.Attributes, Issued: i.Issued,
		Avatar: i.Avatar, Since: i.Since, Slot: i.Slot, As: i.Looks, Moving: i.Frozen, To: i.World, Home: i.Home, Registrar: i.Registrar, Owner: i.Owner,
		Entries: i.Entries, Last: i.Last.String(), Credential: i.Credential,
	}
}

func (s *server) shownItem(i item.Info, err error) (*body[Item], error) {
	return answer(showItem(i), err)
}

func (*server) itemList(all []item.Info) ItemList {
	list := ItemList{Items: []Item{}}
	for _, i := range all {
		list.Items = append(list.Items, showItem(i))
	}
	return list
}
