package main

import (
	"context"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/identity"
	"carnet/policy"
)

// withdrawn names the properties that an avatar keeps a last value of though no
// view in force gives them any more. A world isn't told; it is known where the
// access file reaches the things agent, too, and without that nothing is named.
func (c avatarShow) withdrawn(ctx context.Context, state []carnet.Measurement) (names []string, err error) {
	f, err := c.file()
	if err != nil {
		return nil, err
	}
	views, err := c.views(ctx, f)
	if err != nil || views == nil {
		return nil, err
	}
	for _, m := range state {
		given := false
		for _, v := range views {
			given = given || gives(v, m.Name)
		}
		if !given {
			names = append(names, m.Name)
		}
	}
	return names, nil
}

// views are the views in force for the avatar's mappings; nil where that can't be
// told, and not nil where there is none in force.
func (c avatarShow) views(ctx context.Context, f *access.File) ([]policy.View, error) {
	agents := f.Having(identity.Things)
	var views []policy.View
	for _, a := range f.Avatars {
		if a.ID != c.ID || a.Mapping == nil || len(agents) != 1 {
			continue
		}
		// It is the world that was asked: it answers also who can't ask the agent.
		cl, err := reaching{}.dial(f, agents[0], administrator, creator, ownUser)
		if err != nil {
			return nil, nil
		}
		m, err := cl.Mapping(ctx, *a.Mapping)
		switch carnet.CodeOf(err) {
		case carnet.Unavailable, carnet.NotFound, carnet.Unauthenticated, carnet.Forbidden:
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if views == nil {
			views = []policy.View{}
		}
		if !m.Stopped {
			views = append(views, m.View)
		}
	}
	return views, nil
}

// gives reports whether a view names a property, or the object that it is a
// field of.
func gives(v policy.View, name string) bool {
	object, _, _ := strings.Cut(name, "/")
	_, whole := v.Properties[object]
	_, itself := v.Properties[name]
	return whole || itself
}
