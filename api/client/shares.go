package client

import (
	"context"
	"net/http"

	"carnet"
	"carnet/api"
)

// Shares lists a world's shares with other worlds.
func (c *Client) Shares(ctx context.Context) ([]api.CrossShare, error) {
	list, err := get[api.ShareList](ctx, c, "/v1/shares")
	return list.Shares, err
}

// Share returns one share.
func (c *Client) Share(ctx context.Context, id carnet.ShareID) (api.CrossShare, error) {
	return get[api.CrossShare](ctx, c, sharePath(id))
}

// TakeShare asks another world for what its avatar is given.
func (c *Client) TakeShare(ctx context.Context, n api.NewShare) (api.CrossShare, error) {
	return send[api.CrossShare](ctx, c, http.MethodPost, "/v1/shares", n)
}

// StopShare ends a share.
func (c *Client) StopShare(ctx context.Context, id carnet.ShareID) (api.CrossShare, error) {
	return send[api.CrossShare](ctx, c, http.MethodDelete, sharePath(id), nil)
}

func sharePath(id carnet.ShareID) string { return "/v1/shares/" + id.String() }

// AvatarShares lists the shares that an avatar gives and takes.
func (c *Client) AvatarShares(ctx context.Context, avatar carnet.AvatarID) ([]api.CrossShare, error) {
	list, err := get[api.ShareList](ctx, c, avatarPath(avatar)+"/shares")
	return list.Shares, err
}
