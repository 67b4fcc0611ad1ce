package client

import (
	"context"
	"net/http"

	"carnet"
	"carnet/api"
)

// AvatarPolicy returns the policy of an avatar; version 0: it has none.
func (c *Client) AvatarPolicy(ctx context.Context, avatar carnet.AvatarID) (api.AvatarPolicy, error) {
	return get[api.AvatarPolicy](ctx, c, avatarPath(avatar)+"/policy")
}

// SetAvatarPolicy hands in a policy that an avatar's owner signed. When it returns, the
// world has it on disk and in force.
func (c *Client) SetAvatarPolicy(ctx context.Context, avatar carnet.AvatarID, signed string) (api.AvatarPolicy, error) {
	return send[api.AvatarPolicy](ctx, c, http.MethodPut, avatarPath(avatar)+"/policy", api.SignedPolicy{Policy: signed})
}
