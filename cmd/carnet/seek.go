package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/identity"
	"carnet/policy"
)

// way says which parties may be asked for something: by their role, with a token of which
// roles, those that are taken first before the others.
type way map[identity.Role][]string

// The ways that several commands go.
var (
	auditor       = string(policy.Auditor)
	atWorlds      = way{identity.World: {administrator}}
	atAudited     = way{identity.World: {administrator, auditor}}
	atItems       = way{identity.World: {administrator, creator, service}}
	atPeers       = anywhere(administrator)
	atJobs        = way{identity.World: {administrator}, identity.Things: {ownUser, creator, administrator}}
	atModules     = way{identity.World: {administrator}, identity.Things: {administrator, creator, ownUser}}
	atAvatars     = way{identity.World: {administrator, service}}
	atSeenAvatars = way{identity.World: {administrator, service, ownUser}}
)

// anywhere is the way to a party of any role.
func anywhere(tokens ...string) way {
	return way{identity.World: tokens, identity.Things: tokens, identity.Depot: tokens, identity.DPM: tokens}
}

// roles are those that a way goes to, worlds first.
func (w way) roles() []identity.Role {
	return slices.SortedFunc(maps.Keys(w), func(p, q identity.Role) int { return strings.Compare(string(q), string(p)) })
}

// parties lists those that may be meant: the one that is named, or all that a way goes to.
func (r reaching) parties(f *access.File, w way) ([]access.Party, error) {
	if r.Party != "" {
		p, err := r.meant(f, w.roles()...)
		return []access.Party{p}, err
	}
	found := f.Having(w.roles()...)
	if len(found) == 0 {
		_, err := f.Only(w.roles()...)
		return nil, err
	}
	return found, nil
}

// each asks every party that may be meant. Those for which the access file has no token
// that may are named beside the answer. One that doesn't answer doesn't hide the others:
// it is told, and what is returned then is only that there was one (answered knows it).
func (r reaching) each(s streams, w way, do func(access.Party, *client.Client) error) error {
	f, err := r.file()
	if err != nil {
		return err
	}
	all, err := r.parties(f, w)
	if err != nil {
		return err
	}
	var unasked []access.Party
	var lacking, silent []error
	for _, p := range all {
		if _, err := f.Token(p.Name, r.As, w[p.Role]...); err != nil {
			unasked, lacking = append(unasked, p), append(lacking, err)
			continue
		}
		cl, err := r.dial(f, p, w[p.Role]...)
		if err == nil {
			err = do(p, cl)
		}
		switch {
		case err == nil:
		case carnet.CodeOf(err) == carnet.Unavailable:
			silent = append(silent, fmt.Errorf("%s: %w", p.Name, err))
		default:
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	switch {
	case len(unasked) == len(all):
		return lacking[0]
	case len(unasked)+len(silent) == len(all):
		return errors.Join(silent...)
	case len(unasked) > 0:
		fmt.Fprintf(s.err, "Not asked, since the access file has no token for it: %s\n", access.Names(unasked))
	}
	if len(silent) == 0 {
		return nil
	}
	for _, err := range silent {
		report(s, err)
	}
	return exitCode{code: exitError}
}

// answered shows what the parties that answered have, as JSON or as people read it. That
// others didn't has been told, and makes the command fail.
func answered(s streams, asJSON bool, v any, err error, show func() error) error {
	if told, ok := errors.AsType[exitCode](err); err != nil && (!ok || told.err != nil) {
		return err
	}
	if asJSON {
		return cmp.Or(writeJSON(s.out, v), err)
	}
	return cmp.Or(show(), err)
}

// hit is something that was looked for, at a party that has it.
type hit[T any] struct {
	at access.Party
	cl *client.Client
	is T
}

// sought is something that is looked for at the parties that may have it.
type sought[T any] struct {
	what string // share 0011…
	list string // the command that lists such
	way  way
	get  func(*client.Client) (T, error)
}

// at asks the parties for it one after the other, all of them or until one has it.
func (q sought[T]) at(r reaching, all bool) (found []hit[T], err error) {
	f, err := r.file()
	if err != nil {
		return nil, err
	}
	parties, err := r.parties(f, q.way)
	if err != nil {
		return nil, err
	}
	var missed []error // but for those that don't have it
	var lack []access.Party
	for _, p := range parties {
		cl, err := r.dial(f, p, q.way[p.Role]...)
		if err != nil {
			missed = append(missed, err)
			continue
		}
		v, err := q.get(cl)
		switch {
		case err == nil:
			if found = append(found, hit[T]{p, cl, v}); !all {
				return found, nil
			}
		case carnet.CodeOf(err) == carnet.NotFound:
			lack = append(lack, p)
		default:
			missed = append(missed, fmt.Errorf("%s: %w", p.Name, err))
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	if len(lack) > 0 {
		missed = append(missed, carnet.Errorf(carnet.NotFound, "there is no %s in %s", q.what, access.Names(lack)).WithFix("see: %s", q.list))
	}
	return nil, errors.Join(missed...)
}

// first finds it at the first party that has it: what has an id that nobody else gives.
func (q sought[T]) first(r reaching) (h hit[T], err error) {
	found, err := q.at(r, false)
	if err != nil {
		return h, err
	}
	return found[0], nil
}

// only finds it at the one party that has it: several may call something by one name.
func (q sought[T]) only(r reaching) (h hit[T], err error) {
	found, err := q.at(r, true)
	if err != nil {
		return h, err
	}
	if len(found) > 1 {
		var having []access.Party
		for _, one := range found {
			having = append(having, one.at)
		}
		return h, carnet.Errorf(carnet.Malformed, "there is a %s in several parties", q.what).WithFix("name one with --party: %s", access.Names(having))
	}
	return found[0], nil
}

// avatarAt looks for an avatar.
func avatarAt(ctx context.Context, id carnet.AvatarID, w way) sought[avatar.Info] {
	return sought[avatar.Info]{"avatar " + id.String(), "carnet avatar list", w, func(cl *client.Client) (avatar.Info, error) { return cl.Avatar(ctx, id) }}
}

// worldOf is the way to the world that is named, or that there is, or else that has an avatar.
func (r reaching) worldOf(ctx context.Context, id carnet.AvatarID, tokens ...string) (*client.Client, carnet.PartyID, error) {
	f, err := r.file()
	if err != nil {
		return nil, "", err
	}
	if r.Party != "" || len(f.Having(identity.World)) < 2 {
		p, err := r.meant(f, identity.World)
		if err != nil {
			return nil, "", err
		}
		cl, err := r.dial(f, p, tokens...)
		return cl, p.Name, err
	}
	h, err := avatarAt(ctx, id, way{identity.World: tokens}).first(r)
	return h.cl, h.at.Name, err
}
