package client

import (
	"context"
	"net/http"
	"net/url"

	"carnet"
	"carnet/api"
)

// Items lists a world's items.
func (c *Client) Items(ctx context.Context) ([]api.Item, error) {
	list, err := get[api.ItemList](ctx, c, "/v1/items")
	return list.Items, err
}

// ItemsOf lists the items of one avatar.
func (c *Client) ItemsOf(ctx context.Context, id carnet.AvatarID) ([]api.Item, error) {
	list, err := get[api.ItemList](ctx, c, "/v1/avatars/"+id.String()+"/items")
	return list.Items, err
}

// Item returns one item.
func (c *Client) Item(ctx context.Context, id carnet.ItemID) (api.Item, error) {
	return get[api.Item](ctx, c, itemPath(id))
}

// ItemProof returns all that proves an item.
func (c *Client) ItemProof(ctx context.Context, id carnet.ItemID) (api.ItemProof, error) {
	return get[api.ItemProof](ctx, c, itemPath(id)+"/proof")
}

// IssueItem issues an item.
func (c *Client) IssueItem(ctx context.Context, n api.NewItem) (api.Item, error) {
	return send[api.Item](ctx, c, http.MethodPost, "/v1/items", n)
}

// EquipItem has an item's avatar put it on.
func (c *Client) EquipItem(ctx context.Context, id carnet.ItemID, slot string) (api.Item, error) {
	return send[api.Item](ctx, c, http.MethodPut, itemPath(id)+"/slot", api.Equipped{Slot: slot})
}

// UnequipItem has an item's avatar put it off.
func (c *Client) UnequipItem(ctx context.Context, id carnet.ItemID) (api.Item, error) {
	return send[api.Item](ctx, c, http.MethodDelete, itemPath(id)+"/slot", nil)
}

// GiveItem hands in an owner's gift.
func (c *Client) GiveItem(ctx context.Context, id carnet.ItemID, gift string) (api.Item, error) {
	return send[api.Item](ctx, c, http.MethodPost, itemPath(id)+"/gifts", api.SignedGift{Gift: gift})
}

// RetireItem ends an item.
func (c *Client) RetireItem(ctx context.Context, id carnet.ItemID) (api.Item, error) {
	return send[api.Item](ctx, c, http.MethodDelete, itemPath(id), nil)
}

// AssessItems asks what items of other worlds would be here.
func (c *Client) AssessItems(ctx context.Context, credentials []string) ([]api.ItemAssessment, error) {
	all, err := send[api.ItemAssessments](ctx, c, http.MethodPost, "/v1/items/assessments", api.Credentials{Credentials: credentials})
	return all.Items, err
}

// AcceptedItems lists what a world takes of other issuers.
func (c *Client) AcceptedItems(ctx context.Context) (api.AcceptedItems, error) {
	return get[api.AcceptedItems](ctx, c, "/v1/accepted-items")
}

// AcceptItems takes items of a kind of another issuer.
func (c *Client) AcceptItems(ctx context.Context, a api.ItemAcceptance) (api.ItemAcceptance, error) {
	return send[api.ItemAcceptance](ctx, c, http.MethodPut, "/v1/accepted-items", a)
}

// RefuseItems takes no more items of a kind of another issuer.
func (c *Client) RefuseItems(ctx context.Context, issuer, kind string) (api.ItemAcceptance, error) {
	return send[api.ItemAcceptance](ctx, c, http.MethodDelete, "/v1/accepted-items?"+url.Values{"issuer": {issuer}, "kind": {kind}}.Encode(), nil)
}

func itemPath(id carnet.ItemID) string { return "/v1/items/" + id.String() }
