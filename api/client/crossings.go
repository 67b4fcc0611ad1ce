package client

import (
	"context"
	"net/http"
	"net/url"

	"carnet"
	"carnet/api"
	"carnet/identity"
)

// Enrol has an avatar's home registered, and describes it for a world that it is to
// move to.
func (c *Client) Enrol(ctx context.Context, id carnet.AvatarID) (api.Traveller, error) {
	return send[api.Traveller](ctx, c, http.MethodPut, "/v1/avatars/"+id.String()+"/home", nil)
}

// EnrolFor is Enrol with what would have to be left behind for a world, as the one that
// is asked calls it.
func (c *Client) EnrolFor(ctx context.Context, id carnet.AvatarID, to carnet.PartyID) (api.Traveller, error) {
	return send[api.Traveller](ctx, c, http.MethodPut, "/v1/avatars/"+id.String()+"/home?for="+url.QueryEscape(string(to)), nil)
}

// Crossings lists a world's moves.
func (c *Client) Crossings(ctx context.Context) ([]api.Crossing, error) {
	list, err := get[api.CrossingList](ctx, c, "/v1/crossings")
	return list.Crossings, err
}

// Crossing returns one move.
func (c *Client) Crossing(ctx context.Context, id carnet.CrossingID) (api.Crossing, error) {
	return get[api.Crossing](ctx, c, crossingPath(id))
}

// BeginCrossing asks for an avatar of another world to come to this one.
func (c *Client) BeginCrossing(ctx context.Context, n api.NewMove) (api.Crossing, error) {
	return send[api.Crossing](ctx, c, http.MethodPost, "/v1/crossings", n)
}

// OrderCrossing hands in what the owner signed.
func (c *Client) OrderCrossing(ctx context.Context, id carnet.CrossingID, o identity.Ordered) (api.Crossing, error) {
	return send[api.Crossing](ctx, c, http.MethodPut, crossingPath(id)+"/order", o)
}

// CancelCrossing calls a move off.
func (c *Client) CancelCrossing(ctx context.Context, id carnet.CrossingID) (api.Crossing, error) {
	return send[api.Crossing](ctx, c, http.MethodDelete, crossingPath(id), nil)
}

func crossingPath(id carnet.CrossingID) string { return "/v1/crossings/" + id.String() }
