package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
	"carnet/policy"
)

// ownerAnswer is what an owner is told: what the things agent says, and what the
// worlds say of who else gets it there.
type ownerAnswer struct {
	api.OwnerReport
	Shared []sharedOn `json:"shared"`
	// Unasked says of which worlds that isn't known, and why.
	Unasked []unasked `json:"unasked,omitempty"`
}

// sharedOn is a share of an avatar of the owner's, at the world that gives it.
type sharedOn struct {
	Party carnet.PartyID `json:"party"` // the giver, as the access file calls it
	api.CrossShare
}

type unasked struct {
	World carnet.PartyID `json:"world"`
	Why   string         `json:"why"`
}

// sharedOf finds what is shared on of the avatars in a report. A world is found by its
// avatars: what the things agent calls it needn't be what the access file does.
func (r reaching) sharedOf(ctx context.Context, f *access.File, report api.OwnerReport) (found []sharedOn, lacking []unasked) {
	found = []sharedOn{}
	var all []api.Share
	for _, t := range report.Things {
		for _, w := range t.Worlds {
			if w.Moved == nil { // its new home is another mapping's
				all = append(all, w)
			}
		}
	}
	slices.SortFunc(all, func(p, q api.Share) int { return strings.Compare(p.Avatar.String(), q.Avatar.String()) })
	all = slices.CompactFunc(all, func(p, q api.Share) bool { return p.Avatar == q.Avatar }) // several things may have one
	for _, w := range all {
		shares, party, why := r.sharedBy(ctx, f, w)
		if why != "" {
			lacking = append(lacking, unasked{w.World, why})
		}
		for _, s := range shares {
			if s.Direction == api.Giving && s.Ended == nil {
				found = append(found, sharedOn{party, s})
			}
		}
	}
	slices.SortFunc(lacking, func(p, q unasked) int { return strings.Compare(string(p.World), string(q.World)) })
	return found, slices.Compact(lacking)
}

// sharedBy asks the worlds of the access file for an avatar's shares, the one of that
// name first, or says why that isn't known.
func (r reaching) sharedBy(ctx context.Context, f *access.File, w api.Share) (shares []api.CrossShare, at carnet.PartyID, why string) {
	worlds := f.Having(identity.World)
	if i := slices.IndexFunc(worlds, func(p access.Party) bool { return p.Name == w.World }); i > 0 {
		worlds[0], worlds[i] = worlds[i], worlds[0]
	}
	why = fmt.Sprintf("%s isn't among the parties of the access file, or has no such avatar any more", w.World)
	for _, p := range worlds {
		cl, err := (reaching{As: r.As}).asWorlds(f, p)
		if err == nil {
			shares, err = cl.AvatarShares(ctx, w.Avatar)
		}
		switch {
		case err == nil:
			return shares, p.Name, ""
		case carnet.CodeOf(err) == carnet.NotFound && p.Name != w.World:
		case p.Name == w.World:
			why = err.Error()
		}
	}
	return nil, "", why
}

// asWorlds is the way to a world, with whatever token sees its avatars; the name of
// the token at the things agent is taken where there is one of it.
func (r reaching) asWorlds(f *access.File, p access.Party) (*client.Client, error) {
	if cl, err := r.dial(f, p, service, creator, ownUser, administrator); err == nil {
		return cl, nil
	}
	return reaching{}.dial(f, p, service, creator, ownUser, administrator)
}

// byShares says how exactly a world gets a property of the owner's other avatars there, by
// the shares with it.
func byShares(w api.Share, shared []sharedOn, property string) (all []string) {
	for _, o := range shared {
		if o.Theirs != w.Avatar || o.View == nil {
			continue
		}
		object, _, _ := strings.Cut(property, "/")
		if v, ok := o.View.Of(property); ok && !slices.Contains(o.Withdrawn, property) && !slices.Contains(o.Withdrawn, object) {
			all = append(all, fmt.Sprintf("by %s's share: %s", o.Party, o.exactly(v)))
		}
	}
	return all
}

// exactly says how exactly a share gives something.
func (o sharedOn) exactly(v policy.PropertyView) string {
	if how := v.Explain(""); how != policy.Exact {
		return how
	}
	return "as " + string(o.Party) + " has it"
}

// shownShare tells the owner of what is shared on, and how to end it.
func shownShare(s streams, o sharedOn) {
	pass := ""
	if o.Onward {
		pass = ", and may be passed on there"
	}
	fmt.Fprintf(s.out, "\n  shared on by %s to %s, for %s, since %s%s%s\n", o.Party, o.World, plain(o.Purpose), clock(o.Begun), untilOf(o.CrossShare), pass)
	if o.View != nil {
		for _, name := range slices.Sorted(maps.Keys(o.View.Properties)) {
			how := o.exactly(o.View.Properties[name])
			if slices.Contains(o.Withdrawn, name) {
				how = fmt.Sprintf("nothing now, since %s isn't given it or %s may not have it (else %s)", o.Party, o.World, how)
			}
			fmt.Fprintf(s.out, "    %s: %s\n", plain(name), how)
		}
	}
	if o.Held != "" {
		fmt.Fprintf(s.out, "    nothing comes across at the moment: %s\n", plain(o.Held))
	}
	fmt.Fprintf(s.out, "    to stop it: carnet owner withdraw %s --keystore FILE\n", strings.TrimPrefix(o.Mandate, "urn:uuid:"))
}

func untilOf(c api.CrossShare) string {
	if c.Until == nil {
		return ""
	}
	return ", until " + clock(*c.Until)
}
