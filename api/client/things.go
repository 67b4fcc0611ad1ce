package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"carnet"
	"carnet/api"
	"carnet/policy"
	"carnet/thing"
)

// Things lists the things that the token may see.
func (c *Client) Things(ctx context.Context) ([]thing.Info, error) {
	list, err := get[api.ThingList](ctx, c, "/v1/things")
	return list.Things, err
}

// AddThing adds a thing. The answer has its password, once.
func (c *Client) AddThing(ctx context.Context, n api.NewThing) (api.AddedThing, error) {
	return send[api.AddedThing](ctx, c, http.MethodPost, "/v1/things", n)
}

// Thing returns one thing.
func (c *Client) Thing(ctx context.Context, id carnet.ThingID) (thing.Info, error) {
	return get[thing.Info](ctx, c, thingPath(id))
}

// Description returns a thing's description, byte by byte as it was given.
func (c *Client) Description(ctx context.Context, id carnet.ThingID) ([]byte, error) {
	answer, _, err := c.call(ctx, http.MethodGet, thingPath(id)+"/description", "application/td+json", nil)
	return answer, err
}

// RenewPassword gives a thing another password, which is in the answer, once.
func (c *Client) RenewPassword(ctx context.Context, id carnet.ThingID) (api.RenewedPassword, error) {
	return send[api.RenewedPassword](ctx, c, http.MethodPost, thingPath(id)+"/password", nil)
}

// Refusals returns a thing's newest refused messages, at most limit.
func (c *Client) Refusals(ctx context.Context, id carnet.ThingID, limit int) ([]thing.Refusal, error) {
	list, err := get[api.RefusalList](ctx, c, fmt.Sprintf("%s/refusals?limit=%d", thingPath(id), limit))
	return list.Refusals, err
}

// Map gives a thing an avatar in a world.
func (c *Client) Map(ctx context.Context, id carnet.ThingID, n api.NewMapping) (thing.MappingInfo, error) {
	return send[thing.MappingInfo](ctx, c, http.MethodPost, thingPath(id)+"/mappings", n)
}

// Mapping returns one mapping.
func (c *Client) Mapping(ctx context.Context, id carnet.MappingID) (thing.MappingInfo, error) {
	return get[thing.MappingInfo](ctx, c, mappingPath(id))
}

// SetView changes what the thing's owner lets the mapping's world have.
func (c *Client) SetView(ctx context.Context, id carnet.MappingID, view policy.View) (thing.MappingInfo, error) {
	return send[thing.MappingInfo](ctx, c, http.MethodPut, mappingPath(id)+"/view", view)
}

// Explain says for people what the mapping's world gets.
func (c *Client) Explain(ctx context.Context, id carnet.MappingID) ([]string, error) {
	e, err := get[api.Explanation](ctx, c, mappingPath(id)+"/explain")
	return e.Lines, err
}

// Views returns every view that was in force for a mapping, oldest first.
func (c *Client) Views(ctx context.Context, id carnet.MappingID) ([]thing.ViewRecord, error) {
	list, err := get[api.ViewList](ctx, c, mappingPath(id)+"/views")
	return list.Views, err
}

// Unmap ends a mapping.
func (c *Client) Unmap(ctx context.Context, id carnet.MappingID) (thing.MappingInfo, error) {
	return send[thing.MappingInfo](ctx, c, http.MethodDelete, mappingPath(id), nil)
}

// Own passes on an owner's signed word that the mapping's avatar is theirs.
func (c *Client) Own(ctx context.Context, id carnet.MappingID, ownership string) (thing.MappingInfo, error) {
	return send[thing.MappingInfo](ctx, c, http.MethodPost, mappingPath(id)+"/ownership", api.NewOwnership{Ownership: ownership})
}

// Owner says who got what of an owner's things.
func (c *Client) Owner(ctx context.Context, name string) (api.OwnerReport, error) {
	return get[api.OwnerReport](ctx, c, "/v1/owners/"+url.PathEscape(name))
}

// Status says how the party is.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, "/v1/status")
}

// Examine says what the party has that is half done, or not as it should be.
func (c *Client) Examine(ctx context.Context) (carnet.Examination, error) {
	return get[carnet.Examination](ctx, c, "/v1/examination")
}

// Healthy returns nil if the party answers. It needs no token.
func (c *Client) Healthy(ctx context.Context) error {
	_, err := get[api.Health](ctx, c, "/healthz")
	return err
}

func thingPath(id carnet.ThingID) string     { return "/v1/things/" + url.PathEscape(string(id)) }
func mappingPath(id carnet.MappingID) string { return "/v1/mappings/" + id.String() }
