package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/peering"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// shares is what the handler needs of a world's shares: a *crossing.Agent.
type shares interface {
	Take(ctx context.Context, giver carnet.PartyID, theirs, ours carnet.AvatarID, purpose string) (crossing.Taken, error)
	Given() []crossing.Given
	Taken() []crossing.Taken
	Waits(carnet.ShareID) bool
	Aside(carnet.ShareID) string
	Reach(other carnet.PartyID, gives bool) (reachable bool, through *crossing.Storage)
	Gives(*crossing.Given) (names []string, known bool)
	Links() []crossing.Link
	StopGiving(ctx context.Context, id carnet.ShareID, by, why string) error
	StopTaking(ctx context.Context, id carnet.ShareID, by, why string) error
}

// OfShare is the input of what concerns one share. It is exported because huma
// passes over embedded structs that aren't.
type OfShare struct {
	ID carnet.ShareID `path:"id" doc:"The share's id." example:"00112233445566778899aabbccddeeff"`
}

func (s *server) shareRoutes(h huma.API) {
	tags := []string{atR3}
	serving(s, h, huma.Operation{
		OperationID: "list-shares", Method: http.MethodGet, Path: "/v1/shares", Tags: tags,
		Summary: "The shares with other worlds that are given and taken, oldest first, those that have ended included.",
	}, func(ctx context.Context, _ *struct{}) (*body[ShareList], error) {
		return answer(ShareList{worlds(ctx, func() []CrossShare { return s.shareList(nil).Shares })}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "list-avatar-shares", Method: http.MethodGet, Path: "/v1/avatars/{id}/shares", Tags: tags,
		Summary: "The shares that an avatar gives and takes, oldest first: who gets what of it in other worlds, and what comes to it from there.",
	}, func(ctx context.Context, in *OfAvatar) (*body[ShareList], error) {
		if _, err := s.world.Avatar(in.ID); err != nil {
			return nil, err
		}
		list := s.shareList(&in.ID)
		if !s.seesPeerings(ctx) {
			for i := range list.Shares {
				list.Shares[i].hideTrouble()
			}
		}
		return answer(list, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "take-share", Method: http.MethodPost, Path: "/v1/shares", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Asks another world for what one of its avatars is given, for an avatar of this one.",
		Description: "It is stored, then asked until the other world answers. What the other world gives is decided there: by its grant, the owner's mandate and the peering.",
		RequestBody: example(NewShare{World: "arena", Avatar: carnet.AvatarID{1}, For: carnet.AvatarID{2}, Purpose: "fitness"}),
	}, func(ctx context.Context, in *struct{ Body NewShare }) (*body[CrossShare], error) {
		t, err := s.shares.Take(ctx, in.Body.World, in.Body.Avatar, in.Body.For, in.Body.Purpose)
		return answer(s.taken(t), err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-share", Method: http.MethodGet, Path: "/v1/shares/{id}", Tags: tags,
		Summary: "One share, with what is given, under which view, and why it ended.",
	}, func(_ context.Context, in *OfShare) (*body[CrossShare], error) {
		return answer(s.share(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "stop-share", Method: http.MethodDelete, Path: "/v1/shares/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Ends a share at once. The other world is told, now or as soon as it can be reached.",
	}, func(ctx context.Context, in *OfShare) (*body[CrossShare], error) {
		c, err := s.share(in.ID)
		if err != nil {
			return nil, err
		}
		stop := s.shares.StopGiving
		if c.Direction == Taking {
			stop = s.shares.StopTaking
		}
		if err := stop(ctx, in.ID, caller(ctx).Name, "stopped by "+caller(ctx).Name); err != nil {
			return nil, err
		}
		return answer(s.share(in.ID))
	})
}

// NewShare asks for a share.
type NewShare struct {
	World   carnet.PartyID  `json:"world" doc:"The other world, as this one calls it." example:"arena"`
	Avatar  carnet.AvatarID `json:"avatar" doc:"Its avatar." example:"00112233445566778899aabbccddeeff"`
	For     carnet.AvatarID `json:"for" doc:"The avatar here that gets it." example:"ffeeddccbbaa99887766554433221100"`
	Purpose string          `json:"purpose" doc:"What for: one word." example:"fitness" minLength:"1" maxLength:"64"`
}

// The directions of a share, seen from here.
const (
	Giving = "giving"
	Taking = "taking"
)

// CrossShare is a share between this world and another.
type CrossShare struct {
	ID        carnet.ShareID    `json:"id"`
	Direction string            `json:"direction" enum:"giving,taking"`
	State     crossing.State    `json:"state" enum:"asked,taking,giving,ended"`
	World     carnet.PartyID    `json:"world" doc:"The other world, as this one calls it."`
	Ours      carnet.AvatarID   `json:"ours"`
	Theirs    carnet.AvatarID   `json:"theirs"`
	Purpose   string            `json:"purpose"`
	View      *policy.View      `json:"view,omitempty" doc:"In force; absent while there is no answer."`
	Withdrawn []string          `json:"withdrawn,omitempty" doc:"What of the view doesn't come now, since the avatar that it is of isn't given it or the taker may not have it: as far as that is known here."`
	Onward    bool              `json:"onward" doc:"Whether who takes it may pass it on."`
	Grant     string            `json:"grant,omitempty" doc:"The grant by which this world gives it."`
	Mandate   string            `json:"mandate,omitempty" doc:"The owner's mandate by which this world gives it: its withdrawal ends the share."`
	Begun     time.Time         `json:"begun"`
	Until     *time.Time        `json:"until,omitempty"`
	Waits     bool              `json:"waits" doc:"Nothing is sent at the moment, since it isn't known whether it still may be."`
	Aside     string            `json:"aside,omitempty" doc:"Why nothing is sent at the moment, though it may be: its avatar can't be read, say. It is tried again."`
	Held      string            `json:"held,omitempty" doc:"Why nothing comes across at the moment, as far as the peering tells: it is suspended, say."`
	Reachable bool              `json:"reachable" doc:"Whether what is shared comes from world to world, over their link."`
	Storage   *crossing.Storage `json:"storage,omitempty" doc:"How it goes on through a depot meanwhile; absent while the other world can be reached, and once the share has ended."`
	Ended     *crossing.End     `json:"ended,omitempty"`

	trouble bool // Held says what trouble there is with the peering
}

// ShareList is all shares of a world.
type ShareList struct {
	Shares []CrossShare `json:"shares"`
}

// reach says how a share that is in force comes across.
func (s *server) reach(c *CrossShare) {
	if c.Ended == nil && c.State != crossing.Asked {
		c.Reachable, c.Storage = s.shares.Reach(c.World, c.Direction == Giving)
		c.Held, c.trouble = s.held(c.World)
	}
}

// withdraw says what of the view of a share in force isn't given now; known is
// false where nobody has said what is.
func (c *CrossShare) withdraw(gives []string, known bool) {
	if c.Ended != nil || c.View == nil || !known {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.View.Properties)) {
		if !slices.ContainsFunc(gives, func(g string) bool { return g == name || strings.HasPrefix(g, name+"/") }) {
			c.Withdrawn = append(c.Withdrawn, name)
		}
	}
}

// held says why nothing is shared with a world at the moment, as far as the peering
// tells, and whether that is its trouble.
func (s *server) held(world carnet.PartyID) (why string, trouble bool) {
	if s.peers == nil {
		return "", false
	}
	p, err := s.peers.Named(world)
	switch {
	case err != nil:
		return fmt.Sprintf("%s is no peer", world), false
	case p.State == peering.Suspended:
		return fmt.Sprintf("the peering with %s is suspended here", world), false
	case p.State != peering.Active:
		return fmt.Sprintf("the peering with %s is %s", world, p.State), false
	}
	why = s.peers.Trouble(world)
	return why, why != ""
}

func (s *server) taken(t crossing.Taken) CrossShare {
	c := CrossShare{
		ID: t.ID, Direction: Taking, State: t.State, World: t.Giver, Ours: t.For, Theirs: t.Avatar, Purpose: t.Purpose, Begun: t.Asked, Ended: t.End,
	}
	if t.Answer != nil {
		c.View, c.Onward, c.Until = &t.Answer.View, t.Answer.Onward, &t.Answer.Until
	}
	c.withdraw(s.world.ShareGave(t.For, t.ID))
	s.reach(&c)
	return c
}

func (s *server) given(g crossing.Given) CrossShare {
	c := CrossShare{
		ID: g.ID, Direction: Giving, State: crossing.Giving, World: g.Taker, Ours: g.Avatar, Theirs: g.For, Purpose: g.Purpose,
		View: &g.View, Onward: g.Onward, Grant: g.Grant, Mandate: g.Mandate, Begun: g.Begun, Until: &g.Until, Waits: s.shares.Waits(g.ID), Aside: s.shares.Aside(g.ID), Ended: g.End,
	}
	if g.End != nil {
		c.State = crossing.Ended
	}
	c.withdraw(s.shares.Gives(&g))
	s.reach(&c)
	return c
}

// hideTrouble leaves out what only who sees the peering with the other world may know.
func (c *CrossShare) hideTrouble() {
	if c.trouble {
		c.Held = fmt.Sprintf("%s can't be reached", c.World)
	}
}

// shareList is all shares, or those of an avatar of this world.
func (s *server) shareList(of *carnet.AvatarID) ShareList {
	list := ShareList{Shares: []CrossShare{}}
	for _, g := range s.shares.Given() {
		if of == nil || g.Avatar == *of {
			list.Shares = append(list.Shares, s.given(g))
		}
	}
	for _, t := range s.shares.Taken() {
		if of == nil || t.For == *of {
			list.Shares = append(list.Shares, s.taken(t))
		}
	}
	return list
}

func (s *server) share(id carnet.ShareID) (CrossShare, error) {
	for _, g := range s.shares.Given() {
		if g.ID == id {
			return s.given(g), nil
		}
	}
	for _, t := range s.shares.Taken() {
		if t.ID == id {
			return s.taken(t), nil
		}
	}
	return CrossShare{}, carnet.Errorf(carnet.NotFound, "there is no share %s", id).WithFix("list the shares")
}
