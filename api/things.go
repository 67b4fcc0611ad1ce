package api

import (
	"context"
	"net/http"

	"carnet"
	"carnet/thing"

	"github.com/danielgtaylor/huma/v2"
)

// OfThing is the input of what concerns one thing. It is exported because huma
// passes over embedded structs that aren't.
type OfThing struct {
	ID carnet.ThingID `path:"id" doc:"The thing's id." example:"watch-7" maxLength:"64"`
}

const typeTD = "application/td+json" // WoT Thing Description 1.1 §10.1

func (s *server) thingRoutes(h huma.API) {
	tags := []string{"things"}
	serving(s, h, huma.Operation{
		OperationID: "list-things", Method: http.MethodGet, Path: "/v1/things", Tags: tags,
		Summary: "The things that the caller may see, in order of their ids.",
	}, func(ctx context.Context, _ *struct{}) (*body[ThingList], error) {
		all, err := s.ownThings(ctx, caller(ctx))
		return answer(ThingList{all}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "add-thing", Method: http.MethodPost, Path: "/v1/things", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Adds a thing by its description. The answer has its password, once.",
		RequestBody: example(NewThing{ID: "watch-8", Owner: "alice", Description: exampleDescription}),
	}, s.addThing)
	serving(s, h, huma.Operation{
		OperationID: "get-thing", Method: http.MethodGet, Path: "/v1/things/{id}", Tags: tags,
		Summary: "One thing, with its mappings and what became of its data.",
	}, func(ctx context.Context, in *OfThing) (*body[thing.Info], error) {
		return answer(s.visible(ctx, in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-description", Method: http.MethodGet, Path: "/v1/things/{id}/description", Tags: tags,
		Summary:   "The thing's description, byte by byte as it was given.",
		Metadata:  map[string]any{servesKey: []string{typeTD, typeJSON}},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{typeTD: {Schema: descriptionSchema()}}}},
	}, s.description)
	serving(s, h, huma.Operation{
		OperationID: "list-refusals", Method: http.MethodGet, Path: "/v1/things/{id}/refusals", Tags: tags,
		Summary: "The thing's newest messages that were refused for good, newest first, with reasons.",
	}, s.refusals)
	serving(s, h, huma.Operation{
		OperationID: "get-owner", Method: http.MethodGet, Path: "/v1/owners/{name}", Tags: []string{"owners"},
		Summary: "Who got what of an owner's things, what was withheld and why, since when, under which policy version.",
	}, s.owner)
}

// visible returns a thing if the caller may see it. For an owner the same work
// is done for a thing of somebody else as for none.
func (s *server) visible(ctx context.Context, id carnet.ThingID) (thing.Info, error) {
	p := caller(ctx)
	if p.Role == Operator {
		return s.things.Thing(ctx, id)
	}
	own, err := s.ownThings(ctx, p)
	if err != nil {
		return thing.Info{}, err
	}
	for i := range own {
		if own[i].ID == id {
			return own[i], nil
		}
	}
	return thing.Info{}, carnet.Errorf(carnet.NotFound, "there is no thing %q", id).WithFix("list the things, or add it with a description")
}

// ownThings lists the things that a principal may see: an operator all of them,
// an owner its own. An owner without a name has none.
func (s *server) ownThings(ctx context.Context, p Principal) ([]thing.Info, error) {
	switch {
	case p.Role == Operator:
		return s.things.Things(ctx, "")
	case p.Name == "":
		return []thing.Info{}, nil
	}
	return s.things.Things(ctx, p.Name)
}

func (s *server) addThing(ctx context.Context, in *struct{ Body NewThing }) (*body[AddedThing], error) {
	id, password, err := s.things.AddThing(ctx, in.Body.ID, in.Body.Owner, in.Body.Description)
	return answer(AddedThing{id, password}, err)
}

// raw is an answer of given bytes.
type raw struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *server) description(ctx context.Context, in *struct {
	OfThing
	Accepts
}) (*raw, error) {
	t, err := s.visible(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	served, _ := negotiate(in.Accept, []string{typeTD, typeJSON}) // authorize has seen that there is one
	return &raw{served, t.Description}, nil
}

func (s *server) refusals(ctx context.Context, in *struct {
	OfThing
	Limit int `query:"limit" doc:"At most this many." default:"50" minimum:"1" maximum:"1000"`
}) (*body[RefusalList], error) {
	if _, err := s.visible(ctx, in.ID); err != nil {
		return nil, err
	}
	found, err := s.things.Refusals(ctx, in.ID, in.Limit)
	return answer(RefusalList{found}, err)
}

func (s *server) owner(ctx context.Context, in *struct {
	Name string `path:"name" doc:"The owner's name." example:"alice" maxLength:"200"`
}) (*body[OwnerReport], error) {
	p, name := caller(ctx), in.Name
	own := []thing.Info{}
	if p.Role == Operator || name == p.Name {
		var err error
		if own, err = s.ownThings(ctx, Principal{name, Owner}); err != nil {
			return nil, err
		}
	}
	if len(own) == 0 && (p.Role == Operator || name != p.Name) {
		return nil, carnet.Errorf(carnet.NotFound, "there is no owner %q", name).WithFix("list the things: each has its owner")
	}
	report := OwnerReport{Owner: name, Things: []OwnedThing{}}
	for _, t := range own {
		o, err := s.owned(t)
		if err != nil {
			return nil, err
		}
		report.Things = append(report.Things, o)
	}
	return answer(report, nil)
}

func (s *server) owned(t thing.Info) (OwnedThing, error) {
	o := OwnedThing{ID: t.ID, Title: t.Title, Added: t.Added, Refused: t.Refused, Worlds: []Share{}}
	for _, m := range t.Mappings {
		views, err := s.things.Views(m.ID)
		if err != nil {
			return o, err
		}
		share := Share{
			World: m.World, Mapping: m.ID, Avatar: m.Avatar, PolicyVersion: m.PolicyVersion, Stopped: m.Stopped, View: m.View, Got: m.Got,
		}
		if n := len(views); n > 0 {
			share.Since, share.Decided, share.By = views[0].Time, views[n-1].Time, views[n-1].By
		}
		o.Worlds = append(o.Worlds, share)
	}
	return o, nil
}
