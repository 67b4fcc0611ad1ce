package client

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"carnet"
	"carnet/api"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"
)

// GrantMove has an avatar's world give the grant by which the world to that it is to
// move may fetch it, as the request for the owner's mandate says, until then.
func (c *Client) GrantMove(ctx context.Context, to carnet.PartyID, t api.Traveller, m identity.MandateRequest, until time.Time) error {
	shown := make(map[string]struct{})
	for _, name := range t.Properties {
		object, _, _ := strings.Cut(name, "/")
		shown[object] = struct{}{}
	}
	text, err := json.Marshal(map[string]any{"properties": shown})
	if err != nil {
		return err
	}
	view, err := policy.ParseView(text)
	if err != nil {
		return err
	}
	terms := entity.Terms{
		Avatar: t.Avatar, To: entity.To{Platform: to, DID: identity.DID(m.Subject)}, Actions: []identity.Action{identity.ActionMove}, View: view, Purpose: m.Purpose,
		Ceiling: &entity.Clearance{Sensitivity: m.Clearance.Sensitivity, Residency: m.Clearance.Residency.Words()}, Expires: until.UTC().Truncate(time.Second),
	}
	a, err := c.Assess(ctx, terms)
	if err != nil {
		return err
	}
	_, err = c.Give(ctx, api.NewGrant{Terms: terms, Assessment: a.Fingerprint})
	return err
}
