package main

import (
	"context"
	"slices"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/identity"
	"carnet/policy"
	"carnet/thing"
)

// withdrawn names the properties that an avatar keeps a last value of though
// nothing in force gives them any more: no mapping's view, and no share's. The world
// says so where it has been told; what older parties don't tell is found out where the
// access file reaches the things agents, too. Where a stream's source isn't known,
// nothing is named.
func (c avatarShow) withdrawn(ctx context.Context, world *client.Client, i avatar.Info, state []carnet.Measurement) (names []string, err error) {
	names = i.Withdrawn
	views, ok := c.shares(ctx, world, i)
	if !ok {
		return names, nil
	}
	mapped, ok, err := c.mappings(ctx, i)
	if err != nil || !ok {
		return names, err
	}
	views = append(views, mapped...)
	for _, m := range state {
		if !slices.Contains(names, m.Name) && !slices.ContainsFunc(views, func(v policy.View) bool { return gives(v, m.Name) }) {
			names = append(names, m.Name)
		}
	}
	return names, nil
}

// shares are the views of the shares in force that the avatar takes, and false where
// that can't be told.
func (c avatarShow) shares(ctx context.Context, world *client.Client, i avatar.Info) (views []policy.View, ok bool) {
	if i.Shared == 0 {
		return nil, true
	}
	all, err := world.AvatarShares(ctx, c.ID)
	if err != nil { // the token that may see the avatar needn't see these
		return nil, false
	}
	for _, share := range all {
		if share.Direction == api.Taking && share.Ended == nil && share.View != nil {
			views = append(views, *share.View)
		}
	}
	return views, true
}

// mappings are the views of the mappings in force that give to the avatar, and false
// where there are others than those that can be asked for.
func (c avatarShow) mappings(ctx context.Context, i avatar.Info) (views []policy.View, ok bool, err error) {
	f, err := c.file()
	if err != nil {
		return nil, false, err
	}
	found := 0
	for _, agent := range f.Having(identity.Things) {
		things, err := thingsOf(ctx, f, agent)
		if err != nil {
			return nil, false, err
		}
		for _, t := range things {
			for _, m := range t.Mappings {
				if m.Avatar != c.ID {
					continue
				}
				if found++; !m.Stopped {
					views = append(views, m.View)
				}
			}
		}
	}
	return views, found >= i.Streams-i.Shared, nil
}

// thingsOf lists a things agent's things; none where it can't be asked: it is the
// world that was asked, which answers also who can't ask the agent.
func thingsOf(ctx context.Context, f *access.File, agent access.Party) ([]thing.Info, error) {
	cl, err := reaching{}.dial(f, agent, administrator, creator, ownUser)
	if err != nil {
		return nil, nil
	}
	things, err := cl.Things(ctx)
	switch carnet.CodeOf(err) {
	case carnet.Unavailable, carnet.NotFound, carnet.Unauthenticated, carnet.Forbidden:
		return nil, nil
	}
	return things, err
}

// gives reports whether a view names a property, or the object that it is a
// field of.
func gives(v policy.View, name string) bool {
	object, _, _ := strings.Cut(name, "/")
	_, whole := v.Properties[object]
	_, itself := v.Properties[name]
	return whole || itself
}
