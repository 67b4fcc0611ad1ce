package client

import (
	"carnet"
	"context"
	"net/http"
	"net/url"
	"strconv"

	"carnet/activity"
	"carnet/api"
	"carnet/entity"
)

// Check asks what would be decided about a call.
func (c *Client) Check(ctx context.Context, of api.Check) (api.Checked, error) {
	return send[api.Checked](ctx, c, http.MethodPost, "/v1/check", of)
}

// Activity returns a part of the activity log, and the number to go on after.
func (c *Client) Activity(ctx context.Context, q activity.Query) (api.ActivityList, error) {
	v := url.Values{}
	if q.After != nil {
		v.Set("after", strconv.FormatUint(*q.After, 10))
	}
	if q.Before != nil {
		v.Set("before", strconv.FormatUint(*q.Before, 10))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	for name, text := range map[string]string{"who": q.Who, "action": string(q.Action), "resource": q.About} {
		if text != "" {
			v.Set(name, text)
		}
	}
	if q.Refused {
		v.Set("refused", "true")
	}
	return get[api.ActivityList](ctx, c, "/v1/activity?"+v.Encode())
}

// Principals lists a world's applications, and who acts as avatars.
func (c *Client) Principals(ctx context.Context) ([]api.PrincipalInfo, error) {
	list, err := get[api.PrincipalList](ctx, c, "/v1/principals")
	return list.Principals, err
}

// AddPrincipal adds one. The answer has its token, once.
func (c *Client) AddPrincipal(ctx context.Context, n entity.NewPrincipal) (api.AddedPrincipal, error) {
	return send[api.AddedPrincipal](ctx, c, http.MethodPost, "/v1/principals", n)
}

// RemovePrincipal takes a principal's token away.
func (c *Client) RemovePrincipal(ctx context.Context, id string) (api.PrincipalInfo, error) {
	return send[api.PrincipalInfo](ctx, c, http.MethodDelete, "/v1/principals/"+url.PathEscape(id), nil)
}

// Assess says what a grant would give.
func (c *Client) Assess(ctx context.Context, t entity.Terms) (entity.Assessment, error) {
	return send[entity.Assessment](ctx, c, http.MethodPost, "/v1/assessments", t)
}

// Give gives a grant whose assessment was read.
func (c *Client) Give(ctx context.Context, n api.NewGrant) (entity.Grant, error) {
	return send[entity.Grant](ctx, c, http.MethodPost, "/v1/grants", n)
}

// Grants lists the grants that the token may see.
func (c *Client) Grants(ctx context.Context) ([]entity.Grant, error) {
	list, err := get[api.GrantList](ctx, c, "/v1/grants")
	return list.Grants, err
}

// Grant returns one grant.
func (c *Client) Grant(ctx context.Context, id string) (entity.Grant, error) {
	return get[entity.Grant](ctx, c, "/v1/grants/"+url.PathEscape(id))
}

// Revoke ends a grant at once.
func (c *Client) Revoke(ctx context.Context, id string) (entity.Grant, error) {
	return send[entity.Grant](ctx, c, http.MethodDelete, "/v1/grants/"+url.PathEscape(id), nil)
}

// AvatarGrants lists the grants about an avatar.
func (c *Client) AvatarGrants(ctx context.Context, avatar carnet.AvatarID) ([]entity.Grant, error) {
	list, err := get[api.GrantList](ctx, c, avatarPath(avatar)+"/grants")
	return list.Grants, err
}
