package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/activity"
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

// grants is the way to the world.
func (r reaching) grants() (*client.Client, error) {
	return r.one(identity.World, administrator, string(policy.Auditor))
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
	cl, err := c.grants()
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
	cl, err := c.grants()
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
	if !c.Yes {
		fmt.Fprint(s.err, "Give it? (yes) ")
		var said string
		if _, err := fmt.Fscanln(s.in, &said); err != nil || said != "yes" {
			return carnet.Errorf(carnet.Forbidden, "the grant is not given").WithFix("answer yes, or add --yes")
		}
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
	err := c.each(func(w access.Party, cl *client.Client) error {
		list, err := cl.Grants(ctx)
		for _, g := range list {
			all = append(all, grantOf{w.Name, g})
		}
		return err
	}, administrator, string(policy.Auditor))
	if err != nil || c.JSON {
		return orJSON(s, all, err)
	}
	return grantTable(all).write(s.out)
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

type grantShow struct{ ofGrant }

func (c grantShow) Run(ctx context.Context, s streams) error {
	f, err := c.file()
	if err != nil {
		return err
	}
	w, err := c.meant(f, identity.World)
	if err != nil {
		return err
	}
	cl, err := c.dial(f, w, administrator, string(policy.Auditor))
	if err != nil {
		return err
	}
	g, err := cl.Grant(ctx, c.ID)
	if err != nil || c.JSON {
		return orJSON(s, g, err)
	}
	return grantTable([]grantOf{{w.Name, g}}).write(s.out)
}

type grantRevoke struct{ ofGrant }

func (c grantRevoke) Run(ctx context.Context, s streams) error {
	cl, err := c.grants()
	if err != nil {
		return err
	}
	g, err := cl.Revoke(ctx, c.ID)
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
	cl, err := c.grants()
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
	_, err = fmt.Fprintf(s.out, "%s %s is called %s\nIts token, shown once: %s\n", p.Kind, plain(p.Name), p.ID, p.Token)
	return err
}

type principalList struct {
	reaching
	JSON bool `help:"As JSON."`
}

func (c principalList) Run(ctx context.Context, s streams) error {
	cl, err := c.grants()
	if err != nil {
		return err
	}
	all, err := cl.Principals(ctx)
	if err != nil || c.JSON {
		return orJSON(s, all, err)
	}
	t := table{{"PRINCIPAL", "KIND", "NAME", "AVATAR", "PURPOSE", "MAY SEE", "SINCE"}}
	for _, p := range all {
		avatar := ""
		if p.Avatar != nil {
			avatar = p.Avatar.String()
		}
		t.add(p.ID, p.Kind, p.Name, avatar, p.Purpose, p.Clearance.Sensitivity.String(), clock(p.Created))
	}
	return t.write(s.out)
}

type principalRemove struct {
	reaching
	ID string `arg:"" help:"The principal's id."`
}

func (c principalRemove) Run(ctx context.Context, s streams) error {
	cl, err := c.grants()
	if err != nil {
		return err
	}
	p, err := cl.RemovePrincipal(ctx, c.ID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s is removed\n", plain(p.Name))
	return err
}

type activityCommand struct {
	reaching
	After    *uint64       `placeholder:"NUMBER" help:"Records after this one, oldest first. Default: the newest."`
	Before   *uint64       `placeholder:"NUMBER" help:"Records before this one."`
	Limit    int           `default:"50" help:"At most so many, up to 1000."`
	Who      string        `placeholder:"NAME" help:"Of one principal."`
	Action   policy.Action `help:"Of one action, such as get-state."`
	Resource string        `placeholder:"ID" help:"About one resource."`
	Refused  bool          `help:"Refusals only."`
	JSON     bool          `help:"As JSON."`
}

// party is the way to the party that is meant, with a token that may audit, and as
// whom.
func (r reaching) party() (*client.Client, access.Token, error) {
	f, err := r.file()
	if err != nil {
		return nil, access.Token{}, err
	}
	if r.Party == "" && len(f.Parties) != 1 {
		return nil, access.Token{}, carnet.Errorf(carnet.Malformed, "the access file has %d parties", len(f.Parties)).WithFix("name one with --party")
	}
	p := f.Parties[0]
	if r.Party != "" {
		if p, err = f.Party(r.Party); err != nil {
			return nil, access.Token{}, err
		}
	}
	roles := []string{string(policy.Auditor), administrator, ownUser, creator, service}
	token, err := f.Token(p.Name, r.As, roles...)
	if err != nil {
		return nil, token, err
	}
	cl, err := r.dial(f, p, roles...)
	return cl, token, err
}

func (c activityCommand) Run(ctx context.Context, s streams) error {
	cl, _, err := c.party()
	if err != nil {
		return err
	}
	list, err := cl.Activity(ctx, activity.Query{After: c.After, Before: c.Before, Limit: c.Limit, Who: c.Who, Action: c.Action, About: c.Resource, Refused: c.Refused})
	if err != nil || c.JSON {
		return orJSON(s, list, err)
	}
	if err := activities(list.Records).write(s.out); err != nil || list.Stopped == 0 {
		return err
	}
	on := "--before"
	if c.After != nil {
		on = "--after"
	}
	_, err = fmt.Fprintf(s.err, "The search looked as far as record %d and stopped; go on with %s %d.\n", list.Stopped, on, list.Stopped)
	return err
}

// activities is records as a table.
func activities(records []activity.Record) table {
	t := table{{"NUMBER", "TIME", "WHO", "VIA", "PERMITTED", "RULE", "WHY"}}
	for _, r := range records {
		t.add(fmt.Sprint(r.ID), clock(r.Time), r.Who.String(), string(r.Via), fmt.Sprint(r.Permitted), r.Rule, r.Why)
	}
	return t
}

type policyCommands struct {
	Show    policyShow    `cmd:"" help:"Print the built-in roles, in Cedar."`
	Actions policyActions `cmd:"" help:"List what can be done at a party: the actions that explain takes."`
	Explain policyExplain `cmd:"" help:"May somebody do something at a party, and why."`
}

// roles lists them.
func roles() string {
	var names []string
	for _, r := range policy.Roles() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

type policyShow struct{}

func (policyShow) Run(s streams) error {
	_, err := fmt.Fprint(s.out, policy.RolesPolicy())
	return err
}

type policyActions struct{}

func (policyActions) Run(s streams) error {
	all := policy.Actions()
	t := table{{"ACTION", "GROUP", "ABOUT"}}
	for _, a := range slices.Sorted(maps.Keys(all)) {
		id := "ID"
		if all[a].Param == "" {
			id = policy.Any
		}
		t.add(string(a), string(all[a].Group), string(all[a].Resource)+":"+id)
	}
	return t.write(s.out)
}

type policyExplain struct {
	reaching
	Action    policy.Action `arg:"" help:"The operation's id, such as get-state; carnet policy actions lists them."`
	Resource  string        `arg:"" help:"KIND:ID, such as Avatar:0011… or Thing:watch-7; KIND:* for a list."`
	Principal string        `placeholder:"KIND:NAME" help:"Who: Person:alice, Service:poller, Application:ID, Avatar:ID, Thing:ID. Default: whose token it is."`
	Role      policy.Role   `help:"The role, of a person or service."`
	Purpose   string        `help:"What it would use data for, where no grant says so."`
	JSON      bool          `help:"As JSON."`
}

func (c policyExplain) Run(ctx context.Context, s streams) error {
	kind, id, ok := strings.Cut(c.Resource, ":")
	if !ok {
		return carnet.Errorf(carnet.Malformed, "the resource is %q", c.Resource).WithFix("write KIND:ID, such as Thing:watch-7")
	}
	if use, ok := policy.UseOf(c.Action); !ok {
		return carnet.Errorf(carnet.Malformed, "there is no action %.40q", c.Action).WithFix("see: carnet policy actions")
	} else if string(use.Resource) != kind {
		return carnet.Errorf(carnet.Malformed, "%s is about the kind %s, not %.40q", c.Action, use.Resource, kind).WithFix("write %s:ID", use.Resource)
	}
	of := api.Check{Action: c.Action, Resource: policy.Resource{Kind: policy.ResourceKind(kind), ID: id}, Purpose: c.Purpose}
	if c.Principal != "" {
		kind, name, ok := strings.Cut(c.Principal, ":")
		if !ok {
			return carnet.Errorf(carnet.Malformed, "the principal is %q", c.Principal).WithFix("write KIND:NAME, such as Person:alice, with --role")
		}
		of.Principal = &policy.Principal{Kind: policy.PrincipalKind(kind), Name: name, Role: c.Role}
		if (of.Principal.Kind == policy.Person || of.Principal.Kind == policy.Program) && c.Role == "" {
			return carnet.Errorf(carnet.Malformed, "what a person or service may do goes by the role").WithFix("add --role: %s", roles())
		}
	}
	cl, token, err := c.party()
	if err != nil {
		return err
	}
	if c.Principal == "" {
		fmt.Fprintf(s.err, "Asked about %s (%s), whose token it is. Of others: --principal, or --as.\n", plain(token.Name), token.Role)
	}
	a, err := cl.Check(ctx, of)
	if err != nil || c.JSON {
		return orJSON(s, a, err)
	}
	verdict := "no"
	if a.Permitted {
		verdict = "yes"
	}
	fmt.Fprintf(s.out, "%s: %s\n", verdict, plain(a.Why))
	if !a.Permitted && id != policy.Any && strings.Contains(a.Why, policy.Resource{Kind: of.Resource.Kind, ID: policy.Any}.String()) {
		fmt.Fprintf(s.out, "So not %s either: it isn't looked up.\n", of.Resource)
	}
	if a.Hidden {
		fmt.Fprintln(s.out, "It would be answered as though there were no such resource.")
	}
	fmt.Fprintf(s.out, "Facts: own %t, granted %t, onward %t, purpose %q. Policies: version %s.\n", a.Facts.Own, a.Facts.Granted, a.Facts.Onward, a.Facts.Purpose, a.Policy)
	if a.Grant != "" {
		fmt.Fprintf(s.out, "By grant %s.\n", a.Grant)
	}
	return nil
}
