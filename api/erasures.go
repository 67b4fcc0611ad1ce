package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"carnet"
	"carnet/erasure"
	"carnet/evidence"
	"carnet/identity"

	"github.com/danielgtaylor/huma/v2"
)

// erasures is what the handler needs of a world's erasures: a *erasure.Agent.
type erasures interface {
	Ask(ctx context.Context, id carnet.AvatarID, text string) (identity.ErasureRequest, error)
	TakeOrder(ctx context.Context, id carnet.ErasureID, e identity.Erasing) (erasure.Erasure, error)
	All() []erasure.Erasure
}

// OfErasure is the input of what concerns one erasure.
type OfErasure struct {
	ID carnet.ErasureID `path:"id" doc:"The erasure's id." example:"00112233445566778899aabbccddeeff"`
}

func (s *server) erasureRoutes(h huma.API) {
	tags := []string{atR3}
	serving(s, h, huma.Operation{
		OperationID: "list-erasures", Method: http.MethodGet, Path: "/v1/erasures", Tags: tags,
		Summary:     "What was erased here by its owner's order, oldest first: avatars of this world, and what others gave it.",
		Description: "Each says who else had something of it, who has signed that it is deleted, and who couldn't be reached, since when and why.",
	}, func(ctx context.Context, _ *struct{}) (*body[ErasureList], error) {
		return answer(ErasureList{worlds(ctx, func() []Erasure { return s.erased(nil) })}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "begin-erasure", Method: http.MethodPost, Path: "/v1/erasures", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Says what the owner of an avatar is asked to order, so that it is erased.",
		Description: "The answer's member request is the document that the owner approves with carnet owner approve. Nothing is deleted before: only the owner's order erases.",
		RequestBody: example(NewErasure{Avatar: carnet.AvatarID{1}, Text: "You asked for it."}),
	}, func(ctx context.Context, in *struct{ Body NewErasure }) (*body[AskedErasure], error) {
		r, err := s.erasures.Ask(ctx, in.Body.Avatar, in.Body.Text)
		if err != nil {
			return nil, err
		}
		document, err := r.Marshal()
		return answer(AskedErasure{ID: r.Erasure, Request: RequestDocument(document)}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-erasure", Method: http.MethodGet, Path: "/v1/erasures/{id}", Tags: tags,
		Summary: "One erasure: how it stands here, who has signed, and who waits. Several entries, if this world had several things of the avatar.",
	}, func(_ context.Context, in *OfErasure) (*body[ErasureList], error) {
		list := s.erased(&in.ID)
		if len(list) == 0 {
			return nil, carnet.Errorf(carnet.NotFound, "there is no erasure %s", in.ID).WithFix("list them: carnet avatar erase status")
		}
		return answer(ErasureList{list}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "prove-erasure", Method: http.MethodGet, Path: "/v1/erasures/{id}/evidence", Tags: tags,
		Summary: "What proves an erasure of an avatar of this world, for carnet verify: the order, all receipts, and this world's word on who had something.",
	}, func(ctx context.Context, in *OfErasure) (*body[evidence.ErasureBundle], error) {
		return answer(s.proofOf(ctx, in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "order-erasure", Method: http.MethodPut, Path: "/v1/erasures/{id}/order", Tags: tags,
		Summary:     "Hands in the owner's order to erase an avatar.",
		Description: "It proves itself: whoever brings it may hand it in. From then on nobody reads anything of the avatar, and everybody who had something is told. It can't be taken back.",
		RequestBody: example(identity.Erasing{Avatar: carnet.AvatarID{1}, Order: exampleToken}),
	}, func(ctx context.Context, in *struct {
		OfErasure
		Body identity.Erasing
	}) (*body[Erasure], error) {
		e, err := s.erasures.TakeOrder(ctx, in.ID, in.Body)
		return answer(erasureOf(e), err)
	})
}

// proofOf makes what proves an erasure of an avatar of this world.
func (s *server) proofOf(ctx context.Context, id carnet.ErasureID) (evidence.ErasureBundle, error) {
	for _, e := range s.erasures.All() {
		if e.ID != id || e.Role != identity.DeletedAtHome {
			continue
		}
		key, err := s.erasureSigner(ctx)
		if err != nil {
			return evidence.ErasureBundle{}, err
		}
		w := evidence.ErasureWord{World: s.party, Made: s.now(), Parties: []evidence.ErasureParty{}, Waiting: []string{}}
		for _, o := range e.Others {
			w.Parties = append(w.Parties, s.partiesOf(o)...)
		}
		for _, waits := range e.Waits() {
			w.Waiting = append(w.Waiting, fmt.Sprintf("%s, as %s: %s", waits.Party, waits.Role, waits.Why))
		}
		return evidence.SignErasure(key, e.Order, append([]string{}, e.Deletions()...), w)
	}
	return evidence.ErasureBundle{}, carnet.Errorf(carnet.NotFound, "there is no erasure %s of an avatar of this world", id).WithFix("ask the avatar's home")
}

// partiesOf lists somebody who was told, with whom it has told.
func (s *server) partiesOf(o erasure.Other) (all []evidence.ErasureParty) {
	if o.Role == erasure.Registers {
		return nil
	}
	key := ""
	if s.erasureKey != nil {
		key = s.erasureKey(o.Party)
	}
	if len(o.Deletions) == 0 {
		return []evidence.ErasureParty{{Party: o.Party, Key: key, Role: o.Role, Of: o.Of}}
	}
	for _, token := range o.Deletions {
		d, err := identity.OpenDeletion(token)
		if err != nil {
			continue
		}
		p := evidence.ErasureParty{Party: o.Party, Key: d.By, Role: d.Role, Of: d.Of}
		if d.By != key {
			p.Party, p.Through = "", o.Party
		}
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// NewErasure asks for an avatar to be erased.
type NewErasure struct {
	Avatar carnet.AvatarID `json:"avatar" doc:"Of this world." example:"00112233445566778899aabbccddeeff"`
	Text   string          `json:"text,omitempty" doc:"What for, to the owner, on one line." maxLength:"512"`
}

// AskedErasure is what an owner is asked to order.
type AskedErasure struct {
	ID      carnet.ErasureID `json:"id"`
	Request RequestDocument  `json:"request" doc:"What the owner is asked to approve."`
}

// Erasure is an erasure, as one party sees it.
type Erasure struct {
	ID        carnet.ErasureID  `json:"id"`
	State     erasure.State     `json:"state" enum:"ordered,hiding,erased,over,elsewhere"`
	Role      string            `json:"role" enum:"home,former,arriving,share,things,depot" doc:"As what this world had it."`
	Of        string            `json:"of,omitempty" doc:"The share or crossing by which it had it."`
	Avatar    carnet.AvatarID   `json:"avatar" doc:"Of this world; of a share, whose it was here."`
	From      carnet.PartyID    `json:"from,omitempty" doc:"Who told; absent: the owner."`
	Asked     time.Time         `json:"asked"`
	Why       string            `json:"why,omitempty" doc:"It waits here, or wasn't here."`
	Hidden    *time.Time        `json:"hidden,omitempty" doc:"Nobody reads anything of it since then."`
	Cleared   *time.Time        `json:"cleared,omitempty" doc:"Its keys and bytes here are gone since then."`
	Ended     *time.Time        `json:"ended,omitempty" doc:"Everybody has signed since then."`
	Order     string            `json:"order" doc:"The owner's, as a JWS."`
	Deletion  string            `json:"deletion,omitempty" doc:"This world's receipt, as a JWS."`
	Others    []ErasedElsewhere `json:"others" doc:"Who else had something."`
	Waiting   []ErasureWaits    `json:"waiting" doc:"Who hasn't answered, here and further down."`
	Deletions []string          `json:"deletions" doc:"All receipts, as JWS: this world's and the others'."`
}

// ErasedElsewhere is somebody else who had something of what is erased.
type ErasedElsewhere struct {
	Role      string         `json:"role" enum:"former,arriving,share,things,depot,dpm,registrar"`
	Party     carnet.PartyID `json:"party" doc:"As this world calls it."`
	Of        string         `json:"of,omitempty"`
	Key       string         `json:"key,omitempty" doc:"Its did:key, as this world knows it."`
	Heard     *time.Time     `json:"heard,omitempty" doc:"Nothing is left there, or below, since it said so."`
	Since     *time.Time     `json:"since,omitempty" doc:"It hasn't been reached since then."`
	Why       string         `json:"why,omitempty"`
	Deletions []string       `json:"deletions" doc:"Its own and those of whom it told, as JWS."`
}

// ErasureWaits is somebody who hasn't answered.
type ErasureWaits struct {
	Role  string     `json:"role"`
	Party string     `json:"party" doc:"By way of whom."`
	Since *time.Time `json:"since,omitempty"`
	Why   string     `json:"why"`
}

// ErasureList is all erasures of a party.
type ErasureList struct {
	Erasures []Erasure `json:"erasures"`
}

// erased lists the erasures, or those with an id.
func (s *server) erased(id *carnet.ErasureID) []Erasure {
	all := []Erasure{}
	for _, e := range s.erasures.All() {
		if id != nil && e.ID != *id {
			continue
		}
		shown := erasureOf(e)
		for i := range shown.Others {
			if s.erasureKey != nil {
				shown.Others[i].Key = s.erasureKey(shown.Others[i].Party)
			}
		}
		all = append(all, shown)
	}
	return all
}

func erasureOf(e erasure.Erasure) Erasure {
	shown := Erasure{
		ID: e.ID, State: e.State, Role: string(e.Role), Of: e.Of, Avatar: e.Avatar, From: e.From, Asked: e.Asked, Why: e.Why, Hidden: when(e.Hidden), Cleared: when(e.Cleared),
		Ended: when(e.Ended), Order: e.Order, Deletion: e.Deletion, Others: []ErasedElsewhere{}, Waiting: []ErasureWaits{}, Deletions: append([]string{}, e.Deletions()...),
	}
	for _, o := range e.Others {
		shown.Others = append(shown.Others, ErasedElsewhere{
			Role: string(o.Role), Party: o.Party, Of: o.Of, Heard: when(o.Heard), Since: when(o.Since), Why: o.Why, Deletions: append([]string{}, o.Deletions...),
		})
	}
	for _, w := range e.Waits() {
		shown.Waiting = append(shown.Waiting, ErasureWaits{string(w.Role), w.Party, when(w.Since), w.Why})
	}
	return shown
}
