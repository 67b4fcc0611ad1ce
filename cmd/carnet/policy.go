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

type policyCommands struct {
	Show    policyShow    `cmd:"" help:"Print the built-in roles, in Cedar."`
	Actions policyActions `cmd:"" help:"List what can be done at a party: the actions that explain takes."`
	Explain policyExplain `cmd:"" help:"May somebody do something at a party, why, and what would permit it."`
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
	Role      policy.Role   `help:"The role, of a person."`
	Purpose   string        `help:"What it would use data for, where no grant says so."`
	JSON      bool          `help:"As JSON."`
}

func (c policyExplain) Run(ctx context.Context, s streams) error {
	of, err := c.check()
	if err != nil {
		return err
	}
	f, err := c.file()
	if err != nil {
		return err
	}
	at, err := c.at(ctx, f, of.Resource)
	if err != nil {
		return err
	}
	token, err := f.Token(at.Name, c.As, anybody...)
	if err != nil {
		return err
	}
	cl, err := c.dial(f, at, anybody...)
	if err != nil {
		return err
	}
	who := policy.Bearer(token.Name, policy.Role(token.Role))
	if of.Principal == nil {
		fmt.Fprintf(s.err, "Asked about %s (%s), whose token it is. Of others: --principal, or --as.\n", plain(token.Name), token.Role)
	} else {
		who = *of.Principal
	}
	a, err := cl.Check(ctx, of)
	if err != nil || c.JSON {
		return orJSON(s, a, err)
	}
	e := explained{of, a, who, principalName(ctx, cl, who), at}
	for _, line := range e.lines() {
		if _, err := fmt.Fprintln(s.out, plain(line)); err != nil {
			return err
		}
	}
	return nil
}

// check is the question that is asked.
func (c policyExplain) check() (of api.Check, err error) {
	kind, id, ok := strings.Cut(c.Resource, ":")
	if !ok {
		return of, carnet.Errorf(carnet.Malformed, "the resource is %q", c.Resource).WithFix("write KIND:ID, such as Thing:watch-7")
	}
	if use, ok := policy.UseOf(c.Action); !ok {
		return of, carnet.Errorf(carnet.Malformed, "there is no action %.40q", c.Action).WithFix("see: carnet policy actions")
	} else if string(use.Resource) != kind {
		return of, carnet.Errorf(carnet.Malformed, "%s is about the kind %s, not %.40q", c.Action, use.Resource, kind).WithFix("write %s:ID", use.Resource)
	}
	of = api.Check{Action: c.Action, Resource: policy.Resource{Kind: policy.ResourceKind(kind), ID: id}, Purpose: c.Purpose}
	if c.Principal == "" {
		return of, nil
	}
	kind, name, ok := strings.Cut(c.Principal, ":")
	if !ok {
		return of, carnet.Errorf(carnet.Malformed, "the principal is %q", c.Principal).WithFix("write KIND:NAME, such as Person:alice, with --role")
	}
	of.Principal = &policy.Principal{Kind: policy.PrincipalKind(kind), Name: name, Role: c.Role}
	switch {
	case c.Role != "":
	case of.Principal.Kind == policy.Program:
		of.Principal.Role = policy.Service
	case of.Principal.Kind == policy.Person:
		return of, carnet.Errorf(carnet.Malformed, "what a person may do goes by the role").WithFix("add --role: %s", roles())
	}
	return of, of.Principal.Valid()
}

// rolesHaving are the roles of parties that have resources of a kind; of others any.
func rolesHaving(kind policy.ResourceKind) []identity.Role {
	switch kind {
	case policy.ThingResource, policy.MappingResource, policy.OwnerResource, policy.TopicResource:
		return []identity.Role{identity.Things}
	case policy.AvatarResource, policy.GrantResource, policy.PrincipalResource, policy.MandateResource, policy.ShareResource, policy.ItemResource, policy.ErasureResource:
		return []identity.Role{identity.World}
	case policy.ObjectResource, policy.ShelfResource, policy.HomeResource:
		return []identity.Role{identity.Depot}
	}
	return nil
}

// at is the party that is asked: the one that is named, or that has the resource.
func (c policyExplain) at(ctx context.Context, f *access.File, of policy.Resource) (access.Party, error) {
	roles := rolesHaving(of.Kind)
	if c.Party != "" {
		return f.Party(c.Party)
	}
	if of.Kind == policy.PartyResource && of.ID != policy.Any {
		return f.Party(carnet.PartyID(of.ID))
	}
	id, err := carnet.ParseAvatarID(of.ID)
	if of.Kind == policy.AvatarResource && err == nil && len(f.Having(roles...)) > 1 {
		h, err := avatarAt(ctx, id, way{identity.World: {administrator, auditor, service, ownUser}}).first(reaching{Access: c.Access}) // as whoever sees it
		return h.at, err
	}
	return f.Only(roles...)
}

// principalName is what people call a principal.
func principalName(ctx context.Context, cl *client.Client, who policy.Principal) string {
	if who.Kind != policy.Application && who.Kind != policy.AvatarSelf {
		return who.String()
	}
	all, err := cl.Principals(ctx)
	if err != nil { // not everybody may know
		return who.String()
	}
	for _, p := range all {
		switch {
		case who.Kind == policy.Application && p.ID == who.Name:
			return fmt.Sprintf("%s (%s)", p.Name, who)
		case who.Kind == policy.AvatarSelf && p.Avatar != nil && p.Avatar.String() == who.Name:
			return fmt.Sprintf("%s (%s)", p.Name, who)
		}
	}
	return who.String()
}

// explained is an answer to who may what.
type explained struct {
	api.Check
	is     api.Checked
	who    policy.Principal
	called string
	at     access.Party
}

// doing says in words what the actions do that people ask about most.
var doing = map[policy.Action]string{
	"get-state": "read the state", "get-history": "read the history", "watch-avatar": "follow the events", "get-avatar": "see the properties",
	"get-evidence": "fetch the evidence", "get-status": "see the status", "list-activity": "read the activity log", "list-things": "list the things",
	"list-avatars": "list the avatars", "set-view": "change the view", "stop-mapping": "end the use", "run-job": "have jobs run",
}

// lines say it in sentences.
func (e explained) lines() (all []string) {
	does := string(e.Action)
	if words := doing[e.Action]; words != "" {
		does = fmt.Sprintf("%s (%s)", words, e.Action)
	}
	what := fmt.Sprintf("%s %s", does, e.Resource)
	switch {
	case e.is.Permitted:
		all = append(all, fmt.Sprintf("yes: %s may %s: the policy %q permits it", e.called, what, e.is.Rule))
		if e.is.Grant != "" {
			all = append(all, fmt.Sprintf("It goes by the grant %s, for %s; what is read %s be passed on.", e.is.Grant, e.is.Facts.Purpose, map[bool]string{true: "may", false: "may not"}[e.is.Facts.Onward]))
		}
		return all
	case e.is.Would == nil: // a policy says no
		all = append(all, "no: "+e.is.Why)
	default:
		all = append(all, fmt.Sprintf("no: %s may not %s: nothing permits it", e.called, what))
		all = append(all, e.would()...)
	}
	if e.is.Hidden {
		all = append(all, "It would be answered as though there were no such resource.")
	}
	return all
}

// would says what would permit it, and what to do for that.
func (e explained) would() (all []string) {
	w := e.is.Would
	if w.More != "" {
		all = append(all, "As things are: "+w.More+".")
	}
	switch w.Of {
	case "granted":
		all = append(all, fmt.Sprintf("The policy %q would, under a grant that gives it:", w.Rule), "  "+e.grant())
	case "own":
		all = append(all, fmt.Sprintf("The policy %q would, of what is its own; this is somebody else's, or isn't there.", w.Rule))
	default:
		all = append(all, fmt.Sprintf("No policy permits that to %s, of whatever %s.", e.called, strings.ToLower(string(e.Resource.Kind))))
	}
	if len(w.Roles) > 0 {
		var names []string
		for _, r := range w.Roles {
			names = append(names, string(r))
		}
		all = append(all, fmt.Sprintf("Who has the role %s may. A token with that role, from the operator of %s:", strings.Join(names, " or "), e.at.Name),
			fmt.Sprintf("  carnet party token NAME --role %s --config FILE", w.Roles[len(w.Roles)-1]))
	}
	return all
}

// grant is the command that gives what is lacking.
func (e explained) grant() string {
	to, action := "--application "+e.who.Name, identity.ActionRead
	switch e.who.Kind {
	case policy.AvatarSelf:
		to = "--to-avatar " + e.who.Name
	case policy.Foreign:
		platform, did, _ := strings.Cut(e.who.Name, " ")
		to = fmt.Sprintf("--platform %s --did %s --sensitivity WORDS", platform, did)
	}
	switch e.Action {
	case "watch-avatar":
		action = identity.ActionSubscribe
	case "move-avatar":
		action = identity.ActionMove
	}
	return fmt.Sprintf("carnet grant give %s %s --actions %s --view FILE --purpose WORD --party %s", e.Resource.ID, to, action, e.at.Name)
}
