package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// PrincipalInfo is an application, or who acts as an avatar.
type PrincipalInfo struct {
	ID        string           `json:"id"`
	Kind      string           `json:"kind" enum:"application,avatar"`
	Name      string           `json:"name"`
	Avatar    *carnet.AvatarID `json:"avatar,omitempty"`
	Purpose   string           `json:"purpose"`
	Clearance entity.Clearance `json:"clearance"`
	Created   time.Time        `json:"created"`
	By        string           `json:"by"`
}

func infoOf(p entity.Principal) PrincipalInfo {
	return PrincipalInfo{p.ID, p.Kind, p.Name, p.Avatar, p.Purpose, p.Clearance, p.Created, p.By}
}

// PrincipalList is all of them, oldest first.
type PrincipalList struct {
	Principals []PrincipalInfo `json:"principals"`
}

// AddedPrincipal is the answer to entity.NewPrincipal. The token is not shown
// again.
type AddedPrincipal struct {
	PrincipalInfo
	Token string `json:"token" doc:"The bearer token: shown now and never again."`
}

// GrantList is grants, oldest first.
type GrantList struct {
	Grants []entity.Grant `json:"grants"`
}

// NewGrant gives a grant, of which an assessment was read.
type NewGrant struct {
	entity.Terms
	Assessment string `json:"assessment" doc:"The fingerprint of the assessment that was read." minLength:"64" maxLength:"64"`
}

// OfID is the input of what concerns one grant or principal. It is exported
// because huma passes over embedded structs that aren't.
type OfID struct {
	ID string `path:"id" doc:"Its id." example:"00112233445566778899aabbccddeeff" maxLength:"64"`
}

func exampleTerms() entity.Terms {
	return entity.Terms{
		Avatar: carnet.AvatarID{1}, To: entity.To{Application: "00112233445566778899aabbccddeeff"}, Actions: []identity.Action{identity.ActionRead, identity.ActionSubscribe},
		View: exampleView(), Purpose: "coaching", Expires: time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC),
	}
}

func (s *server) grantRoutes(h huma.API) {
	tags, entities := []string{atR3}, []string{atR4}
	serving(s, h, huma.Operation{
		OperationID: "list-principals", Method: http.MethodGet, Path: "/v1/principals", Tags: entities,
		Summary: "The applications, and who acts as avatars.",
	}, func(ctx context.Context, _ *struct{}) (*body[PrincipalList], error) {
		return answer(PrincipalList{showEach(worlds(ctx, s.entities.Principals), infoOf)}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "add-principal", Method: http.MethodPost, Path: "/v1/principals", Tags: entities, DefaultStatus: http.StatusCreated,
		Summary:     "Adds an application, or who acts as an avatar. The answer has its token, once. It may read nothing yet but itself.",
		RequestBody: example(entity.NewPrincipal{Kind: entity.KindApplication, Name: "Coach", Purpose: "coaching", Clearance: entity.Clearance{Sensitivity: carnet.Personal | carnet.Health}}),
	}, func(ctx context.Context, in *struct{ Body entity.NewPrincipal }) (*body[AddedPrincipal], error) {
		p, token, err := s.entities.AddPrincipal(ctx, caller(ctx).Name, in.Body)
		return answer(AddedPrincipal{infoOf(p), token}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "remove-principal", Method: http.MethodDelete, Path: "/v1/principals/{id}", Tags: entities, DefaultStatus: http.StatusOK,
		Summary: "Takes a principal's token away, and ends all that it has open.",
	}, func(ctx context.Context, in *OfID) (*body[PrincipalInfo], error) {
		p, err := s.entities.RemovePrincipal(ctx, in.ID)
		return answer(infoOf(p), err)
	})
	serving(s, h, huma.Operation{
		OperationID: "assess-grant", Method: http.MethodPost, Path: "/v1/assessments", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Says what a grant would give, before it is given: what matches, converts and would be lost, and labels against clearance.",
		Description: "It is one of the queries that may run at once, like a history.", Responses: limitedTo(map[string]*huma.Response{}),
		RequestBody: example(exampleTerms()),
	}, func(ctx context.Context, in *struct{ Body entity.Terms }) (*body[entity.Assessment], error) {
		if err := s.mayGive(ctx, in.Body); err != nil {
			return nil, err
		}
		leave, err := s.queries.enter(platformOf(caller(ctx)))
		if err != nil {
			return nil, err
		}
		defer leave()
		return answer(s.entities.Assess(ctx, in.Body))
	})
	serving(s, h, huma.Operation{
		OperationID: "give-grant", Method: http.MethodPost, Path: "/v1/grants", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Gives a grant whose assessment was read.",
		Description: "It is assessed once more, and is one of the queries that may run at once.", Responses: limitedTo(map[string]*huma.Response{}),
		RequestBody: example(NewGrant{exampleTerms(), "0000000000000000000000000000000000000000000000000000000000000000"}),
	}, func(ctx context.Context, in *struct{ Body NewGrant }) (*body[entity.Grant], error) {
		if err := s.mayGive(ctx, in.Body.Terms); err != nil {
			return nil, err
		}
		leave, err := s.queries.enter(platformOf(caller(ctx)))
		if err != nil {
			return nil, err
		}
		defer leave()
		return answer(s.entities.Give(ctx, caller(ctx).Name, in.Body.Terms, in.Body.Assessment))
	})
	serving(s, h, huma.Operation{
		OperationID: "list-grants", Method: http.MethodGet, Path: "/v1/grants", Tags: tags,
		Summary: "The grants that the caller may see, oldest first, those that are over among them.",
	}, func(ctx context.Context, _ *struct{}) (*body[GrantList], error) {
		a := admittedIn(ctx)
		if a.All {
			return answer(GrantList{s.entities.Grants(nil)}, nil)
		}
		return answer(GrantList{s.entities.Grants(&a.who)}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "list-avatar-grants", Method: http.MethodGet, Path: "/v1/avatars/{id}/grants", Tags: tags,
		Summary: "The grants about an avatar, oldest first, those that are over among them: who may read it.",
	}, func(_ context.Context, in *OfAvatar) (*body[GrantList], error) {
		if _, err := s.world.Avatar(in.ID); err != nil {
			return nil, err
		}
		about := slices.DeleteFunc(s.entities.Grants(nil), func(g entity.Grant) bool { return g.Avatar != in.ID })
		return answer(GrantList{about}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-grant", Method: http.MethodGet, Path: "/v1/grants/{id}", Tags: tags,
		Summary: "One grant.",
	}, func(_ context.Context, in *OfID) (*body[entity.Grant], error) { return answer(s.entities.Grant(in.ID)) })
	serving(s, h, huma.Operation{
		OperationID: "revoke-grant", Method: http.MethodDelete, Path: "/v1/grants/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Ends a grant at once, and what lives by it.",
	}, func(ctx context.Context, in *OfID) (*body[entity.Grant], error) {
		return answer(s.entities.Revoke(ctx, caller(ctx).Name, in.ID))
	})
}

// mayGive refuses who may give grants about its own avatar only, and names
// another's: as though it weren't there.
func (s *server) mayGive(ctx context.Context, t entity.Terms) error {
	if a := admittedIn(ctx); a.All || a.who.Kind == policy.AvatarSelf && a.who.Name == t.Avatar.String() {
		return nil
	}
	return carnet.Errorf(carnet.NotFound, "there is no avatar %s", t.Avatar).WithFix("list the avatars")
}

// lens is what a call is to be seen through: nil for all of it.
func (s *server) lens(ctx context.Context) (*entity.Lens, error) {
	a := admittedIn(ctx)
	switch {
	case a.All || a.Known.Facts.Own:
		return nil, nil
	case a.Known.Grant == "":
		return nil, carnet.Errorf(carnet.Forbidden, "there is no grant to see the avatar through")
	}
	if p, ok := provenIn(ctx); ok {
		return s.entities.Lens(a.Known.Grant, &p.Most)
	}
	return s.entities.Lens(a.Known.Grant, nil)
}

// shownThrough is what of an avatar's description is seen through a lens.
func shownThrough(l *entity.Lens, i avatar.Info) avatar.Info {
	shown := avatar.Info{ID: i.ID, Title: i.Title, Created: i.Created, Key: i.Key, Uncounted: true, Properties: []string{}}
	for _, name := range i.Properties {
		if l.Shows(name) {
			shown.Properties = append(shown.Properties, name)
		}
	}
	for _, name := range i.Withdrawn {
		if l.Shows(name) {
			shown.Withdrawn = append(shown.Withdrawn, name)
		}
	}
	return shown
}

// avatarsOf lists the avatars that a caller may see, as it may.
func (s *server) avatarsOf(ctx context.Context) ([]avatar.Info, error) {
	a := admittedIn(ctx)
	if a.All {
		return s.world.Avatars(), nil
	}
	list := []avatar.Info{}
	if s.entities == nil {
		return list, nil
	}
	visible := s.entities.Visible(a.who)
	for _, i := range s.world.Avatars() {
		if !visible[i.ID] {
			continue
		}
		known, err := s.entities.Know(a.who, "get-avatar", i.ID)
		if err != nil {
			return nil, err
		}
		if !known.Facts.Own {
			l, err := s.entities.Lens(known.Grant, nil)
			if carnet.CodeOf(err) == carnet.Forbidden { // it has just ended
				continue
			} else if err != nil {
				return nil, err
			}
			i = shownThrough(l, i)
		}
		list = append(list, i)
	}
	return list, nil
}

// stateThrough is an avatar's newest measurement of each property, as a lens
// shows it: of one with a rate, the one of the newest interval.
func (s *server) stateThrough(ctx context.Context, l *entity.Lens, id carnet.AvatarID) ([]carnet.Measurement, error) {
	latest, err := s.world.Latest(id)
	if err != nil {
		return nil, err
	}
	state := []carnet.Measurement{}
	for _, name := range l.Names() {
		newest, any := int64(0), false
		for _, m := range latest {
			if l.Whole(m.Name) == name && l.Shows(m.Name) {
				newest, any = max(newest, m.Time), true
			}
		}
		if !any {
			continue
		}
		from, to := l.Interval(name, newest)
		ms, _, err := s.world.History(ctx, id, avatar.Query{From: from, To: to, Property: name, Reader: l, Onward: true})
		if err != nil {
			return nil, err
		}
		l.Restart()
		ms = l.History(ms, from)
		at := make(map[string]int)
		for _, m := range ms {
			if i, known := at[m.Name]; known {
				state[i] = m
				continue
			}
			at[m.Name], state = len(state), append(state, m)
		}
	}
	return state, nil
}

// pageThrough is page, as a lens shows it.
func (s *server) pageThrough(ctx context.Context, l *entity.Lens, id carnet.AvatarID, q avatar.Query, limit int) (shown []carnet.Measurement, next int64, err error) {
	asked, from := q.Property, q.From
	q.Property, q.Reader, q.From, q.Onward = l.Whole(asked), l, l.Begin(from), true
	l.Restart()
	for {
		ms, more, err := s.page(ctx, id, q, avatar.MaxHistory/2)
		if err != nil {
			return nil, 0, err
		}
		for _, m := range l.History(ms, from) {
			if asked == q.Property || m.Name == asked {
				shown = append(shown, m)
			}
		}
		if len(shown) > limit {
			cut := limit
			for cut > 0 && shown[cut-1].Time == shown[cut].Time {
				cut--
			}
			if cut == 0 { // one instant with more than the limit is a page of its own
				for cut = limit; cut < len(shown) && shown[cut].Time == shown[0].Time; cut++ {
				}
			}
			if cut < len(shown) {
				return shown[:cut], shown[cut].Time, nil
			}
		}
		if more == 0 || len(shown) >= limit {
			return shown, more, nil
		}
		q.From = more
	}
}
