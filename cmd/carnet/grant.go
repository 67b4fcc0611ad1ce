package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"
)

type grantCommands struct {
	Assess    grantAssess       `cmd:"" help:"Say what a grant would give, before it is given."`
	Give      grantGive         `cmd:"" help:"Give a grant, after its assessment."`
	List      grantList         `cmd:"" help:"List the grants."`
	Show      grantShow         `cmd:"" help:"Show one grant."`
	Revoke    grantRevoke       `cmd:"" help:"End a grant at once, and what lives by it."`
	Principal principalCommands `cmd:"" help:"Applications, and who acts as avatars."`
}

// grantTerms is what a grant is to say.
type grantTerms struct {
	reaching
	Avatar      carnet.AvatarID   `arg:"" help:"The avatar that may be read."`
	Application string            `xor:"to" placeholder:"ID" help:"To an application."`
	ToAvatar    string            `xor:"to" placeholder:"ID" help:"To who acts as another avatar of this world."`
	Platform    carnet.PartyID    `xor:"to" and:"foreign" placeholder:"NAME" help:"To an avatar of another world, with --did."`
	DID         string            `name:"did" and:"foreign" placeholder:"DID" help:"Which avatar of that world."`
	Actions     []identity.Action `default:"read,subscribe" help:"read, subscribe, move."`
	View        string            `required:"" type:"existingfile" placeholder:"FILE" help:"A view document: what is shown, and how exactly."`
	Purpose     string            `required:"" help:"What it may be used for, in one word."`
	Sensitivity string            `help:"The most that may flow: public, or personal, health, location joined by +. Wanted with --platform; default otherwise: the receiver's clearance."`
	Residency   []string          `help:"Where the receiver keeps it."`
	For         time.Duration     `default:"720h" help:"How long, at most 8784h."`
	Onward      bool              `help:"The receiver may pass on what it reads."`
	Unit        map[string]string `placeholder:"PROPERTY=UNIT" help:"A unit that the receiver wants: the assessment says how it gets there."`
}

func (c grantTerms) terms() (t entity.Terms, err error) {
	text, err := os.ReadFile(c.View)
	if err != nil {
		return t, fmt.Errorf("read the view: %w", err)
	}
	if c.Platform != "" && c.Sensitivity == "" {
		return t, carnet.Errorf(carnet.Malformed, "a grant to another world says the most that may flow").
			WithFix("add --sensitivity: public, or personal, health, location joined by +")
	}
	t = entity.Terms{
		Avatar: c.Avatar, To: entity.To{Application: c.Application, Avatar: c.ToAvatar, Platform: c.Platform, DID: c.DID}, Actions: c.Actions,
		Purpose: c.Purpose, Onward: c.Onward, Expires: time.Now().Add(c.For).UTC().Truncate(time.Second), Units: c.Unit,
	}
	if t.View, err = policy.ParseView(text); err != nil {
		return t, err
	}
	if c.Sensitivity != "" || len(c.Residency) > 0 {
		t.Ceiling = &entity.Clearance{Residency: c.Residency}
		t.Ceiling.Sensitivity, err = carnet.ParseSensitivity(c.Sensitivity)
	}
	return t, err
}

// showAssessment shows an assessment.
func showAssessment(s streams, a entity.Assessment) error {
	fmt.Fprintf(s.out, "%s would be shown %s:\n", plain(a.To), number(uint64(a.Shown), "property", "properties"))
	t := table{{"KIND", "WHAT"}}
	for _, l := range a.Lines {
		t.add(l.Kind, l.Text)
	}
	return t.write(s.out)
}

type grantAssess struct {
	grantTerms
	JSON bool `help:"As JSON."`
}

func (c grantAssess) Run(ctx context.Context, s streams) error {
	t, err := c.terms()
	if err != nil {
		return err
	}
	cl, _, err := c.worldOf(ctx, c.Avatar, administrator, auditor)
	if err != nil {
		return err
	}
	a, err := cl.Assess(ctx, t)
	if err != nil || c.JSON {
		return orJSON(s, a, err)
	}
	return showAssessment(s, a)
}

// orJSON writes a value as JSON, if there is one.
func orJSON(s streams, v any, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(s.out, v)
}

type grantGive struct {
	grantTerms
	Yes  bool `help:"Give it without being asked, once the assessment is shown."`
	JSON bool `help:"As JSON."`
}

func (c grantGive) Run(ctx context.Context, s streams) error {
	t, err := c.terms()
	if err != nil {
		return err
	}
	cl, _, err := c.worldOf(ctx, c.Avatar, administrator, auditor)
	if err != nil {
		return err
	}
	a, err := cl.Assess(ctx, t)
	if err != nil {
		return err
	}
	shown := s
	shown.out = s.err
	if err := showAssessment(shown, a); err != nil {
		return err
	}
	if a.Shown == 0 {
		fmt.Fprintln(s.err, "As things are, this grant shows nothing: see above why.")
	}
	if yes, err := saysYes(s, c.Yes, "Give it"); err != nil {
		return err
	} else if !yes {
		return carnet.Errorf(carnet.Forbidden, "the grant is not given").WithFix("type yes, or add --yes")
	}
	g, err := cl.Give(ctx, api.NewGrant{Terms: t, Assessment: a.Fingerprint})
	if err != nil || c.JSON {
		return orJSON(s, g, err)
	}
	_, err = fmt.Fprintf(s.out, "Grant %s holds until %s\n", g.ID, clock(g.Expires))
	return err
}

type grantList struct {
	reaching
	JSON bool `help:"As JSON."`
}

func (c grantList) Run(ctx context.Context, s streams) error {
	all := []grantOf{}
	err := c.each(s, atAudited, func(w access.Party, cl *client.Client) error {
		list, err := cl.Grants(ctx)
		for _, g := range list {
			all = append(all, grantOf{w.Name, g})
		}
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		return grantTable(all).list(s, "There are no grants.")
	})
}

// grantOf is a grant with the world that was asked.
type grantOf struct {
	Party carnet.PartyID `json:"party"`
	entity.Grant
}

func grantTable(all []grantOf) table {
	t := table{{"GRANT", "PARTY", "AVATAR", "TO", "ACTIONS", "PURPOSE", "SHOWS", "UNTIL", "REVOKED"}}
	for _, g := range all {
		var actions []string
		for _, a := range g.Actions {
			actions = append(actions, string(a))
		}
		t.add(g.ID, string(g.Party), g.Avatar.String(), g.To.String(), strings.Join(actions, " "), g.Purpose, strings.Join(slices.Sorted(maps.Keys(g.View.Properties)), " "), clock(g.Expires), moment(g.Revoked))
	}
	return t
}

type ofGrant struct {
	reaching
	ID   string `arg:"" help:"The grant's id."`
	JSON bool   `help:"As JSON."`
}

// find finds the grant.
func (c ofGrant) find(ctx context.Context) (hit[entity.Grant], error) {
	return sought[entity.Grant]{"grant " + c.ID, "carnet grant list", atAudited, func(cl *client.Client) (entity.Grant, error) { return cl.Grant(ctx, c.ID) }}.first(c.reaching)
}

type grantShow struct{ ofGrant }

func (c grantShow) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx)
	if err != nil || c.JSON {
		return orJSON(s, h.is, err)
	}
	return grantTable([]grantOf{{h.at.Name, h.is}}).write(s.out)
}

type grantRevoke struct{ ofGrant }

func (c grantRevoke) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx)
	if err != nil {
		return err
	}
	g, err := h.cl.Revoke(ctx, c.ID)
	if err != nil || c.JSON {
		return orJSON(s, g, err)
	}
	_, err = fmt.Fprintf(s.out, "Grant %s is revoked since %s\n", g.ID, moment(g.Revoked))
	return err
}

type principalCommands struct {
	Add    principalAdd    `cmd:"" help:"Add an application, or who acts as an avatar; shows its token, once."`
	List   principalList   `cmd:"" help:"List them."`
	Remove principalRemove `cmd:"" help:"Take a token away, and end what it has open under grants."`
}

type principalAdd struct {
	reaching
	Name        string           `arg:"" help:"What people call it."`
	Avatar      *carnet.AvatarID `placeholder:"ID" help:"It acts as this avatar. Left out, it is an application."`
	Purpose     string           `required:"" help:"What it uses data for, in one word."`
	Sensitivity string           `required:"" help:"What it may see: public, or personal, health, location joined by +."`
	Residency   []string         `help:"Where it keeps data."`
	JSON        bool             `help:"As JSON."`
}

func (c principalAdd) Run(ctx context.Context, s streams) error {
	cl, err := c.world(ctx)
	if err != nil {
		return err
	}
	n := entity.NewPrincipal{Kind: entity.KindApplication, Name: c.Name, Avatar: c.Avatar, Purpose: c.Purpose, Clearance: entity.Clearance{Residency: c.Residency}}
	if c.Avatar != nil {
		n.Kind = entity.KindAvatar
	}
	if n.Clearance.Sensitivity, err = carnet.ParseSensitivity(c.Sensitivity); err != nil {
		return err
	}
	p, err := cl.AddPrincipal(ctx, n)
	if err != nil || c.JSON {
		return orJSON(s, p, err)
	}
	as := ", an application,"
	if p.Avatar != nil {
		as = ", who acts as avatar " + p.Avatar.String() + ","
	}
	_, err = fmt.Fprintf(s.out, "%s%s is principal %s\nIts token, shown once: %s\n", plain(p.Name), as, p.ID, p.Token)
	return err
}

// world is the way to the world where it is added.
func (c principalAdd) world(ctx context.Context) (*client.Client, error) {
	if c.Avatar == nil {
		return c.one(identity.World, administrator)
	}
	cl, _, err := c.worldOf(ctx, *c.Avatar, administrator)
	return cl, err
}

type principalList struct {
	reaching
	JSON bool `help:"As JSON."`
}

// principalOf is a principal with the world that was asked.
type principalOf struct {
	Party carnet.PartyID `json:"party"`
	api.PrincipalInfo
}

// principals lists those of all worlds that are meant.
func (r reaching) principals(ctx context.Context, s streams) (all []principalOf, err error) {
	all = []principalOf{}
	err = r.each(s, atAudited, func(w access.Party, cl *client.Client) error {
		list, err := cl.Principals(ctx)
		for _, p := range list {
			all = append(all, principalOf{w.Name, p})
		}
		return err
	})
	return all, err
}

func (c principalList) Run(ctx context.Context, s streams) error {
	all, err := c.principals(ctx, s)
	return answered(s, c.JSON, all, err, func() error {
		t := table{{"PRINCIPAL", "PARTY", "KIND", "NAME", "AVATAR", "PURPOSE", "MAY SEE", "SINCE"}}
		for _, p := range all {
			avatar := ""
			if p.Avatar != nil {
				avatar = p.Avatar.String()
			}
			t.add(p.ID, string(p.Party), p.Kind, p.Name, avatar, p.Purpose, p.Clearance.Sensitivity.String(), clock(p.Created))
		}
		return t.list(s, "There are no principals.")
	})
}

type principalRemove struct {
	reaching
	ID string `arg:"" help:"The principal's id."`
}

func (c principalRemove) Run(ctx context.Context, s streams) error {
	h, err := sought[api.PrincipalInfo]{"principal " + c.ID, "carnet grant principal list", atWorlds, func(cl *client.Client) (is api.PrincipalInfo, err error) {
		all, err := cl.Principals(ctx)
		if i := slices.IndexFunc(all, func(p api.PrincipalInfo) bool { return p.ID == c.ID }); err == nil && i >= 0 {
			return all[i], nil
		}
		return is, cmp.Or(err, error(carnet.Errorf(carnet.NotFound, "there is no principal %s", c.ID)))
	}}.first(c.reaching)
	if err != nil {
		return err
	}
	p, err := h.cl.RemovePrincipal(ctx, c.ID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s is removed\n", plain(p.Name))
	return err
}
