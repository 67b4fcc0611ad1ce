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
	tags := []string{atR1}
	serving(s, h, huma.Operation{
		OperationID: "list-things", Method: http.MethodGet, Path: "/v1/things", Tags: tags,
		Summary: "The things that the caller may see, in order of their ids.",
	}, func(ctx context.Context, _ *struct{}) (*body[ThingList], error) {
		all, err := s.seen(ctx)
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
		return answer(s.things.Thing(ctx, in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-description", Method: http.MethodGet, Path: "/v1/things/{id}/description", Tags: tags,
		Summary:   "The thing's description, byte by byte as it was given.",
		Metadata:  map[string]any{servesKey: []string{typeTD, typeJSON}},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{typeTD: {Schema: descriptionSchema()}}}},
	}, s.description)
	serving(s, h, huma.Operation{
		OperationID: "renew-password", Method: http.MethodPost, Path: "/v1/things/{id}/password", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Gives the thing another password, and cuts off who is connected by the one before, which counts no more. The answer has it, once.",
	}, func(ctx context.Context, in *OfThing) (*body[RenewedPassword], error) {
		password, err := s.things.RenewPassword(ctx, in.ID)
		return answer(RenewedPassword{in.ID, password}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "list-refusals", Method: http.MethodGet, Path: "/v1/things/{id}/refusals", Tags: tags,
		Summary: "The thing's newest messages that were refused for good, newest first, with reasons.",
	}, s.refusals)
	serving(s, h, huma.Operation{
		OperationID: "get-owner", Method: http.MethodGet, Path: "/v1/owners/{name}", Tags: tags,
		Summary: "Who got what of an owner's things, what was withheld and why, since when, under which policy version.",
	}, s.owner)
}

// seen lists the things that the caller may see: all of them, or its own.
func (s *server) seen(ctx context.Context) ([]thing.Info, error) {
	if a := admittedIn(ctx); !a.All {
		return s.thingsOf(ctx, a.who.Name)
	}
	return s.things.Things(ctx, "")
}

// thingsOf lists an owner's things. An owner without a name has none.
func (s *server) thingsOf(ctx context.Context, owner string) ([]thing.Info, error) {
	if owner == "" {
		return []thing.Info{}, nil
	}
	return s.things.Things(ctx, owner)
}

func noThing(id string) error {
	return carnet.Errorf(carnet.NotFound, "there is no thing %q", id).WithFix("list the things, or add it with a description")
}

func noOwner(name string) error {
	return carnet.Errorf(carnet.NotFound, "there is no owner %q", name).WithFix("list the things: each has its owner")
}

func (s *server) addThing(ctx context.Context, in *struct{ Body NewThing }) (*body[AddedThing], error) {
	if a := admittedIn(ctx); !a.All && (a.who.Name == "" || in.Body.Owner != a.who.Name) {
		return nil, carnet.Errorf(carnet.Forbidden, "%s adds things of its own only: %s", a.who, a.Decision.Sentence).WithFix("leave the owner to be %q", a.who.Name)
	}
	if len(in.Body.Owner) > maxID {
		return nil, carnet.Errorf(carnet.Malformed, "the owner's name has %d bytes", len(in.Body.Owner)).WithFix("take one of at most %d", maxID)
	}
	id, password, err := s.things.AddThing(ctx, in.Body.ID, in.Body.Owner, in.Body.Description)
	if err != nil {
		return nil, err
	}
	added := AddedThing{ID: id, Password: password}
	if info, err := s.things.Thing(ctx, id); err == nil { // nothing may lose the password
		added.Unmeasured = info.Unmeasured
	}
	return &body[AddedThing]{added}, nil
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
	text, err := s.things.Description(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	served, _ := negotiate(in.Accept, []string{typeTD, typeJSON}) // accept has seen that there is one
	return &raw{served, text}, nil
}

func (s *server) refusals(ctx context.Context, in *struct {
	OfThing
	Limit int `query:"limit" doc:"At most this many." default:"50" minimum:"1" maximum:"1000"`
}) (*body[RefusalList], error) {
	found, err := s.things.Refusals(ctx, in.ID, in.Limit)
	return answer(RefusalList{found}, err)
}

func (s *server) owner(ctx context.Context, in *struct {
	Name string `path:"name" doc:"The owner's name." example:"alice" maxLength:"200"`
}) (*body[OwnerReport], error) {
	name := in.Name
	own, err := s.thingsOf(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(own) == 0 && admittedIn(ctx).All { // who asks about itself is there, without things
		return nil, noOwner(name)
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
	o := OwnedThing{ID: t.ID, Title: t.Title, Added: t.Added, Refused: t.Refused, Denied: t.Denied, Worlds: []Share{}, Waiting: t.Waiting}
	for _, m := range t.Mappings {
		views, err := s.things.Views(m.ID)
		if err != nil {
			return o, err
		}
		share := Share{
			World: m.World, Mapping: m.ID, Avatar: m.Avatar, PolicyVersion: m.PolicyVersion, Stopped: m.Stopped, View: m.View, Got: m.Got,
			Uncounted: m.Uncounted, Moved: m.Moved, RefusedMove: m.Refused,
		}
		if n := len(views); n > 0 {
			share.Since, share.Decided, share.By = views[0].Time, views[n-1].Time, views[n-1].By
		}
		o.Worlds = append(o.Worlds, share)
	}
	return o, nil
}
