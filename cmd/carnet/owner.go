package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
)

type ownerCommands struct {
	Show ownerShow `cmd:"" help:"Who got what, what was withheld and why, since when."`
	Stop ownerStop `cmd:"" help:"Stop a world from getting more."`

	Keystore keystoreCommands `cmd:"" help:"The file with your keys, one for each world."`
	Claim    ownerClaim       `cmd:"" help:"Have a world know an avatar as yours, by a key of your keystore."`
	Requests ownerRequests    `cmd:"" help:"What a world asks you to permit its avatar elsewhere."`
	Approve  ownerApprove     `cmd:"" help:"Read a request, and sign the mandate that it asks for."`
	HandOver ownerHandOver    `cmd:"" help:"Give a mandate that was signed to the world that asked for it."`
	Mandates ownerMandates    `cmd:"" help:"The mandates that you signed."`
	Withdraw ownerWithdraw    `cmd:"" help:"End a mandate before its time."`
	Policy   ownerPolicy      `cmd:"" help:"What may be done with an avatar of yours: stored, used, given to others, moved."`

	Recovered ownerRecovered `cmd:"" help:"Tell the things agent that an avatar whose world is gone has a new home."`
}

// asking is a way to the things agent, and as whom.
type asking struct {
	*client.Client
	as        access.Token
	operators []access.Token // that the access file has, too
}

// asOwner is the way to the things agent, with the owner's token first.
func (r reaching) asOwner() (asking, error) {
	f, err := r.file()
	if err != nil {
		return asking{}, err
	}
	p, err := r.meant(f, identity.Things)
	if err != nil {
		return asking{}, err
	}
	token, err := f.Token(p.Name, r.As, ownUser, creator, administrator)
	if err != nil {
		return asking{}, err
	}
	cl, err := r.dial(f, p, token.Role)
	return asking{cl, token, f.TokensOf(p.Name, administrator)}, err
}

// own reports whether the token's bearer sees its own things only.
func (a asking) own() bool { return a.as.Role == ownUser || a.as.Role == creator }

// explain says what to do where an owner asked for what it can't see: to it,
// others' things are not there.
func (a asking) explain(err error) error {
	e, ok := errors.AsType[*carnet.Error](err)
	if !ok || e.Code != carnet.NotFound || !a.own() {
		return err
	}
	told := carnet.Errorf(e.Code, "%s (asked as the owner %s, who sees nothing of others)", e.Reason, plain(a.as.Name))
	if len(a.operators) > 0 {
		return told.WithFix("see everybody's with --as %s", plain(a.operators[0].Name))
	}
	return told.WithFix("name another token with --as, or ask the party's operator")
}

// hint says to people that there may be more than is shown.
func (a asking) hint(s streams) {
	if a.own() && len(a.operators) > 0 {
		fmt.Fprintf(s.err, "These are the things of %s; everybody's: --as %s\n", plain(a.as.Name), plain(a.operators[0].Name))
	}
}

type ownerShow struct {
	reaching
	Name string `arg:"" optional:"" placeholder:"OWNER|THING" help:"The owner, or one thing. Default: whose token it is; for an operator, all."`
	JSON bool   `help:"As JSON."`
}

func (c ownerShow) Run(ctx context.Context, s streams) error {
	a, err := c.asOwner()
	if err != nil {
		return err
	}
	names := []string{c.Name}
	switch {
	case c.Name != "":
	case a.own():
		names[0] = a.as.Name
	default:
		if names, err = owners(ctx, a.Client); err != nil {
			return err
		}
	}
	f, err := c.file()
	if err != nil {
		return err
	}
	reports := []ownerAnswer{}
	for _, name := range names {
		r, err := a.report(ctx, name)
		if err != nil {
			return a.explain(err)
		}
		shared, lacking := c.sharedOf(ctx, f, r)
		reports = append(reports, ownerAnswer{r, shared, lacking})
	}
	if c.JSON {
		return writeJSON(s.out, reports)
	}
	for _, r := range reports {
		if err := showOwner(s, r); err != nil {
			return err
		}
	}
	if c.Name == "" {
		a.hint(s)
	}
	return nil
}

// report is what there is to tell an owner, or, where a thing is named, of that alone.
func (a asking) report(ctx context.Context, name string) (api.OwnerReport, error) {
	r, err := a.Owner(ctx, name)
	id, wrong := carnet.ParseThingID(name)
	if wrong != nil || carnet.CodeOf(err) != carnet.NotFound && carnet.CodeOf(err) != carnet.Forbidden {
		return r, err
	}
	t, none := a.Thing(ctx, id)
	if none != nil {
		return r, err
	}
	r, err = a.Owner(ctx, t.Owner)
	r.Things = slices.DeleteFunc(r.Things, func(of api.OwnedThing) bool { return of.ID != t.ID })
	return r, err
}

// owners lists whoever has things.
func owners(ctx context.Context, cl *client.Client) (names []string, err error) {
	things, err := cl.Things(ctx)
	for _, t := range things {
		names = append(names, t.Owner)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

func showOwner(s streams, r ownerAnswer) error {
	if len(r.Things) == 0 {
		fmt.Fprintf(s.out, "%s has no things here.\n", plain(r.Owner))
	}
	for _, t := range r.Things {
		fmt.Fprintf(s.out, "%s of %s: %s, added %s\n", t.ID, plain(r.Owner), plain(t.Title), clock(t.Added))
		if len(t.Refused) > 0 {
			fmt.Fprintf(s.out, "refused: %s (carnet thing refusals %s)\n", counts(t.Refused), t.ID)
		}
		denied(s, t.Denied)
		for _, w := range t.Worlds {
			if err := showShare(s, w, r.Shared); err != nil {
				return err
			}
			for _, o := range r.Shared {
				if o.Ours == w.Avatar {
					shownShare(s, o)
				}
			}
		}
		for _, m := range t.Waiting {
			waits(s, "  ", m.ID, m.Avatar, m.Waits)
			fmt.Fprintf(s.out, "    to stop it: carnet owner stop %s\n", m.ID)
		}
		fmt.Fprintln(s.out)
	}
	for _, u := range r.Unasked {
		fmt.Fprintf(s.err, "Who else gets what %s has isn't known: %s\n", u.World, plain(u.Why))
	}
	return nil
}

func showShare(s streams, w api.Share, shared []sharedOn) error {
	did := "view set"
	if w.Stopped && w.Moved == nil {
		did = "stopped"
	}
	fmt.Fprintf(s.out, "\n  %s, avatar %s, since %s\n  %s by %s at %s, policy version %d; ", w.World, w.Avatar, clock(w.Since), did, plain(w.By), clock(w.Decided), w.PolicyVersion)
	switch how := ended(w.Stopped, w.Moved); how {
	case "":
		fmt.Fprintf(s.out, "to stop it: carnet owner stop %s\n", w.Mapping)
	case did:
		fmt.Fprintln(s.out, "gets nothing more")
	default:
		fmt.Fprintf(s.out, "%s: gets nothing more\n", how)
	}
	t := table{{"  PROPERTY", "AS", "SENT", "WITHHELD", "WHY"}}
	for _, p := range w.Got {
		why := p.Why
		if p.As != "" { // nothing is to be said why it is given
			why = ""
		}
		as := strings.Join(slices.DeleteFunc(append([]string{p.As}, byShares(w, shared, p.Property)...), func(s string) bool { return s == "" }), "; ")
		t.add("  "+p.Property, cmp.Or(as, "-"), counted(p.Sent, unknown(w.Uncounted)), counts(p.Withheld), why)
	}
	if w.Uncounted != "" {
		defer fmt.Fprintf(s.out, "  how much it got: %s\n", plain(w.Uncounted))
	}
	if err := t.write(s.out); err != nil {
		return err
	}
	refusedMove(s, "  ", string(w.World), w.RefusedMove)
	return nil
}

// unknown stands in a column for what isn't known, whose reason is said below.
func unknown(why string) string {
	if why != "" {
		return "?"
	}
	return ""
}

type ownerStop struct {
	reaching
	Mapping string `arg:"" help:"The mapping, or THING/WORLD."`
	JSON    bool   `help:"As JSON."`
}

func (c ownerStop) Run(ctx context.Context, s streams) error {
	a, err := c.asOwner()
	if err != nil {
		return err
	}
	return a.explain(stop(ctx, s, a.Client, c.Mapping, c.JSON))
}
