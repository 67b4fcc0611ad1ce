package client

import (
	"context"
	"net/http"

	"carnet"
	"carnet/api"
	"carnet/evidence"
	"carnet/identity"
)

// Erasures lists what was erased at a world.
func (c *Client) Erasures(ctx context.Context) ([]api.Erasure, error) {
	list, err := get[api.ErasureList](ctx, c, "/v1/erasures")
	return list.Erasures, err
}

// Erasure returns one erasure: an entry for each thing that the world had of it.
func (c *Client) Erasure(ctx context.Context, id carnet.ErasureID) ([]api.Erasure, error) {
	list, err := get[api.ErasureList](ctx, c, erasurePath(id))
	return list.Erasures, err
}

// BeginErasure asks what an avatar's owner is to order.
func (c *Client) BeginErasure(ctx context.Context, n api.NewErasure) (api.AskedErasure, error) {
	return send[api.AskedErasure](ctx, c, http.MethodPost, "/v1/erasures", n)
}

// OrderErasure hands in the owner's order.
func (c *Client) OrderErasure(ctx context.Context, id carnet.ErasureID, e identity.Erasing) (api.Erasure, error) {
	return send[api.Erasure](ctx, c, http.MethodPut, erasurePath(id)+"/order", e)
}

func erasurePath(id carnet.ErasureID) string { return "/v1/erasures/" + id.String() }

// ErasureEvidence returns what proves an erasure at its home.
func (c *Client) ErasureEvidence(ctx context.Context, id carnet.ErasureID) (evidence.ErasureBundle, error) {
	return get[evidence.ErasureBundle](ctx, c, erasurePath(id)+"/evidence")
}
