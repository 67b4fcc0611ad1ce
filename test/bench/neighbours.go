package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing"
	"carnet/entity"
	"carnet/identity"
	"carnet/owner"
	"carnet/policy"
	"carnet/thing"
)

// neighbours are arena, which gives, and citadel, which takes, with the keystore of
// who owns the things.
type neighbours struct {
	*system
	arena, citadel *party
	keystore       *owner.Keystore
}

// neighbours takes a system that was started with arena and citadel. Arena takes
// nothing that was signed in the second in which it started.
func (s *system) neighbours(ctx context.Context, b *bench, row string) (n *neighbours, err error) {
	n = &neighbours{system: s, arena: s.worlds[0], citadel: s.worlds[1]}
	if err := sleep(ctx, time.Until(time.Now().Truncate(time.Second).Add(time.Second))); err != nil {
		return nil, err
	}
	n.keystore, err = owner.Create(filepath.Join(b.dir, row, "keystore"), []byte(rand.Text()), owner.Usual)
	return n, err
}

// citadelView lets citadel have an avatar of a plain thing, and nothing of its own of
// what is measured.
const citadelView = `{"properties": {"d": {}}, "purposes": ["fitness"]}`

// own has a world know an avatar as its owner's.
func (n *neighbours) own(ctx context.Context, m thing.MappingInfo) error {
	world := owner.World{Party: m.WorldName, Key: m.WorldKey}
	key, err := n.keystore.Key(world)
	if err != nil {
		return err
	}
	word, err := identity.SignOwnership(key, identity.Ownership{Audience: world.Party, Avatar: m.Avatar, Issued: time.Now()})
	if err != nil {
		return err
	}
	if _, err := n.hub.client.Own(ctx, m.ID, word); err != nil {
		return fmt.Errorf("own an avatar: %w", err)
	}
	return n.keystore.Pinned(world, m.Avatar)
}

// permit has arena know a device's avatar as its owner's, and gives citadel's avatar
// of the device the owner's mandate. It returns the did of that avatar.
func (n *neighbours) permit(ctx context.Context, d device) (did string, err error) {
	there, here := d.mappings[0], d.mappings[1]
	if err := n.own(ctx, there); err != nil {
		return "", err
	}
	asked, err := n.citadel.client.AskMandate(ctx, here.Avatar, api.NewMandate{
		World: there.WorldName, Avatar: there.Avatar, Actions: []identity.Action{identity.ActionSubscribe}, Purpose: "fitness",
		Sensitivity: "personal+health", Text: "To be measured.",
	})
	if err != nil {
		return "", fmt.Errorf("ask for a mandate: %w", err)
	}
	request, err := identity.ParseMandateRequest(asked.Request)
	if err != nil {
		return "", err
	}
	mandate, err := n.keystore.Approve(request, time.Now(), time.Hour)
	if err != nil {
		return "", err
	}
	if _, err := n.citadel.client.GiveMandate(ctx, mandate.Token); err != nil {
		return "", fmt.Errorf("give a mandate: %w", err)
	}
	return identity.DID(request.Subject), nil
}

// give has a world give a grant about an avatar of its own.
func (p *party) give(ctx context.Context, avatar carnet.AvatarID, to entity.To, document string, action identity.Action) (g entity.Grant, err error) {
	view, err := policy.ParseView([]byte(document))
	if err != nil {
		return g, err
	}
	terms := entity.Terms{
		Avatar: avatar, To: to, Actions: []identity.Action{action}, View: view, Purpose: "fitness",
		Ceiling: &entity.Clearance{Sensitivity: carnet.Personal | carnet.Health}, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	report, err := p.client.Assess(ctx, terms)
	if err != nil {
		return g, fmt.Errorf("assess a grant: %w", err)
	}
	if g, err = p.client.Give(ctx, api.NewGrant{Terms: terms, Assessment: report.Fingerprint}); err != nil {
		err = fmt.Errorf("give a grant: %w", err)
	}
	return g, err
}

// take has citadel take what arena's avatar of a device is given.
func (n *neighbours) take(ctx context.Context, d device) (api.CrossShare, error) {
	share, err := n.citadel.client.TakeShare(ctx, api.NewShare{World: "arena", Avatar: d.mappings[0].Avatar, For: d.mappings[1].Avatar, Purpose: "fitness"})
	if err == nil && share.State != crossing.Taking {
		err = fmt.Errorf("the share %s is %s", share.ID, share.State)
	}
	if err != nil {
		err = fmt.Errorf("take a share: %w", err)
	}
	return share, err
}
