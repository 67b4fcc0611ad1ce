package client

import (
	"context"
	"net/http"

	"carnet"
	"carnet/api"
)

// AskMandate makes the request of an avatar's owner for a mandate.
func (c *Client) AskMandate(ctx context.Context, avatar carnet.AvatarID, n api.NewMandate) (api.MandateRequest, error) {
	return send[api.MandateRequest](ctx, c, http.MethodPost, avatarPath(avatar)+"/mandates", n)
}

// Mandates lists what an avatar's owner was asked for, oldest first.
func (c *Client) Mandates(ctx context.Context, avatar carnet.AvatarID) ([]api.MandateRequest, error) {
	list, err := get[api.MandateList](ctx, c, avatarPath(avatar)+"/mandates")
	return list.Requests, err
}

// RemoveMandate forgets a request.
func (c *Client) RemoveMandate(ctx context.Context, id string) (api.MandateRequest, error) {
	return send[api.MandateRequest](ctx, c, http.MethodDelete, "/v1/mandates/"+id, nil)
}

// GiveMandate hands in a signed mandate to the world that asked for it.
func (c *Client) GiveMandate(ctx context.Context, token string) (api.MandateRequest, error) {
	return send[api.MandateRequest](ctx, c, http.MethodPost, "/v1/mandates", api.SignedMandate{Mandate: token})
}

// Withdraw hands in a signed withdrawal of a mandate about an avatar. When it
// returns kept, the world has it on disk; else, without an error, the mandate is
// over by itself.
func (c *Client) Withdraw(ctx context.Context, avatar carnet.AvatarID, withdrawal string) (kept bool, err error) {
	a, err := send[api.Acknowledged](ctx, c, http.MethodPost, avatarPath(avatar)+"/withdrawals", api.SignedWithdrawal{Withdrawal: withdrawal})
	return a.Acknowledged, err
}
