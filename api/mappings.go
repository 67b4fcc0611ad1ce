package api

import (
	"context"
	"net/http"

	"carnet"
	"carnet/policy"
	"carnet/thing"

	"github.com/danielgtaylor/huma/v2"
)

// OfMapping is the input of what concerns one mapping. It is exported because huma
// passes over embedded structs that aren't.
type OfMapping struct {
	ID carnet.MappingID `path:"id" doc:"The mapping's id." example:"00112233445566778899aabbccddeeff"`
}

func (s *server) mappingRoutes(h huma.API) {
	tags := []string{atR1}
	serving(s, h, huma.Operation{
		OperationID: "add-mapping", Method: http.MethodPost, Path: "/v1/things/{id}/mappings", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Gives the thing an avatar in a world, with what its owner lets the world have.",
		RequestBody: example(NewMapping{World: "arena", Title: "Runner 7", View: exampleView()}),
	}, s.addMapping)
	serving(s, h, huma.Operation{
		OperationID: "get-mapping", Method: http.MethodGet, Path: "/v1/mappings/{id}", Tags: tags,
		Summary: "One mapping: the views in force, and what the world got.",
	}, func(_ context.Context, in *OfMapping) (*body[thing.MappingInfo], error) {
		return answer(s.things.Mapping(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "set-view", Method: http.MethodPut, Path: "/v1/mappings/{id}/view", Tags: tags,
		Summary:     "Changes what the owner lets the world have. It holds for everything that isn't sent yet.",
		RequestBody: example(exampleView()),
	}, s.setView)
	serving(s, h, huma.Operation{
		OperationID: "explain-mapping", Method: http.MethodGet, Path: "/v1/mappings/{id}/explain", Tags: tags,
		Summary: "What the world gets, for people.",
	}, s.explain)
	serving(s, h, huma.Operation{
		OperationID: "list-views", Method: http.MethodGet, Path: "/v1/mappings/{id}/views", Tags: tags,
		Summary: "Every view that was in force, oldest first.",
	}, s.views)
	serving(s, h, huma.Operation{
		OperationID: "stop-mapping", Method: http.MethodDelete, Path: "/v1/mappings/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Ends the mapping. What the world has it keeps, as the view let it.",
	}, s.stop)
	serving(s, h, huma.Operation{
		OperationID: "own-mapping", Method: http.MethodPost, Path: "/v1/mappings/{id}/ownership", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Passes on an owner's signed word that the mapping's avatar is theirs: its world pins the owner's key with it.",
		Description: "The word is a JWS that carnet owner claim signs with a key of the owner's keystore (docs/design/mandate.md). A key is pinned once and for ever: another one is refused, the same one is answered the same.",
		RequestBody: example(NewOwnership{Ownership: exampleToken}),
	}, s.own)
}

// recoveredRoutes serve who tells that an avatar has a new home.
func (s *server) recoveredRoutes(h huma.API) {
	tags := []string{atR1}
	serving(s, h, huma.Operation{
		OperationID: "recover-mappings", Method: http.MethodPost, Path: "/v1/recovered", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Tells that an avatar whose home is gone for good has another one: its things' data goes on there.",
		Description: "It proves itself, by the owner's recovery and the registrar's decision: get-crossing-proof of the new home has them (docs/design/passport.md).",
		RequestBody: example(CrossingProof{Order: exampleToken, Terms: []byte("{}"), Decision: exampleToken}),
	}, func(ctx context.Context, in *struct{ Body CrossingProof }) (*body[MappingList], error) {
		all, err := s.things.Recovered(ctx, in.Body.Order, in.Body.Terms, in.Body.Decision)
		return answer(MappingList{all}, err)
	})
}

// MappingList is what goes on elsewhere.
type MappingList struct {
	Mappings []thing.MappingInfo `json:"mappings"`
}

func (s *server) own(ctx context.Context, in *struct {
	OfMapping
	Body NewOwnership
}) (*body[thing.MappingInfo], error) {
	return answer(s.things.Own(ctx, in.ID, in.Body.Ownership))
}

func noMapping(id string) error {
	return carnet.Errorf(carnet.NotFound, "there is no mapping %s", id).WithFix("list the thing's mappings")
}

func (s *server) addMapping(ctx context.Context, in *struct {
	OfThing
	Body NewMapping
}) (*body[thing.MappingInfo], error) {
	n := in.Body
	if err := s.unmade(n.World); err != nil {
		return nil, err
	}
	return answer(s.things.Map(ctx, caller(ctx).Name, in.ID, n.World, n.Avatar, n.Title, n.View))
}

// unmade refuses a world whose peering is still being made, and says what is to be
// done about it next.
func (s *server) unmade(world carnet.PartyID) error {
	if s.peers == nil {
		return nil
	}
	p, err := s.peers.Named(world)
	if err != nil {
		return nil // the agent says which worlds there are
	}
	if _, made := p.Made(); made || next(p) == "" {
		return nil
	}
	return carnet.Errorf(carnet.Unavailable, "the peering with %s isn't made yet (%s)", world, p.State).WithFix("%s", next(p))
}

func (s *server) setView(ctx context.Context, in *struct {
	OfMapping
	Body policy.View
}) (*body[thing.MappingInfo], error) {
	return answer(s.things.SetView(ctx, caller(ctx).Name, in.ID, in.Body))
}

func (s *server) explain(_ context.Context, in *OfMapping) (*body[Explanation], error) {
	lines, err := s.things.Explain(in.ID)
	return answer(Explanation{lines}, err)
}

func (s *server) views(_ context.Context, in *OfMapping) (*body[ViewList], error) {
	views, err := s.things.Views(in.ID)
	return answer(ViewList{views}, err)
}

func (s *server) stop(ctx context.Context, in *OfMapping) (*body[thing.MappingInfo], error) {
	return answer(s.things.Unmap(ctx, caller(ctx).Name, in.ID))
}
