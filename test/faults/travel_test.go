package faults_test

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

// beginMove makes room in one world for an avatar of another and all its items, with the
// grant by which it may be fetched.
func (n *neighbours) beginMove(ctx context.Context, from, to *party, id carnet.AvatarID) (x api.Crossing, err error) {
	traveller, err := from.client.Enrol(ctx, id)
	if err != nil {
		return x, err
	}
	what := api.NewMove{World: from.name, Traveller: traveller, Text: "It goes on here."}
	for _, i := range traveller.Items {
		what.Items = append(what.Items, i.ID)
	}
	return n.beginAt(ctx, from, to, id, what)
}

// beginAt does so for what exactly is to move.
func (n *neighbours) beginAt(ctx context.Context, from, to *party, id carnet.AvatarID, what api.NewMove) (x api.Crossing, err error) {
	if x, err = to.client.BeginCrossing(ctx, what); err != nil {
		return x, err
	}
	_, m, err := identity.ParseMoveRequest(x.Request)
	if err != nil {
		return x, err
	}
	shown := make(map[string]struct{})
	for _, name := range what.Traveller.Properties {
		object, _, _ := strings.Cut(name, "/")
		shown[object] = struct{}{}
	}
	text, err := json.Marshal(map[string]any{"properties": shown})
	if err != nil {
		return x, err
	}
	view, err := policy.ParseView(text)
	if err != nil {
		return x, err
	}
	terms := entity.Terms{
		Avatar: id, To: entity.To{Platform: to.name, DID: identity.DID(m.Subject)}, Actions: []identity.Action{identity.ActionMove},
		View: view, Purpose: m.Purpose, Ceiling: &entity.Clearance{Sensitivity: m.Clearance.Sensitivity, Residency: m.Clearance.Residency.Words()}, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	a, err := from.client.Assess(ctx, terms)
	if err != nil {
		return x, err
	}
	_, err = from.client.Give(ctx, api.NewGrant{Terms: terms, Assessment: a.Fingerprint})
	return x, err
}

// sign has the owner sign what a move asks for.
func (n *neighbours) sign(x api.Crossing) (identity.Ordered, error) {
	r, _, err := identity.ParseMoveRequest(x.Request)
	if err != nil {
		return identity.Ordered{}, err
	}
	n.signing.Lock()
	defer n.signing.Unlock()
	return n.store.Order(r, time.Now(), time.Hour)
}
