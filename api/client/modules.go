package client

import (
	"context"
	"net/http"
	"net/url"

	"carnet/api"
)

func modulePath(id string) string { return "/v1/modules/" + url.PathEscape(id) }

// Modules lists the modules that the world knows.
func (c *Client) Modules(ctx context.Context) ([]api.Module, error) {
	list, err := get[api.ModuleList](ctx, c, "/v1/modules")
	return list.Modules, err
}

// Module returns one version of a module.
func (c *Client) Module(ctx context.Context, id string) (api.Module, error) {
	return get[api.Module](ctx, c, modulePath(id))
}

// AddModule adds a version of a module.
func (c *Client) AddModule(ctx context.Context, n api.NewModule) (api.Module, error) {
	return send[api.Module](ctx, c, http.MethodPost, "/v1/modules", n)
}

// RevokeModule revokes one for good.
func (c *Client) RevokeModule(ctx context.Context, id string, n api.NewRevocation) (api.Module, error) {
	return send[api.Module](ctx, c, http.MethodPost, modulePath(id)+"/revocations", n)
}
