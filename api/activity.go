package api

import (
	"context"
	"net/http"
	"strconv"

	"carnet"
	"carnet/activity"
	"carnet/entity"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// ActivityList is a part of the activity log.
type ActivityList = activity.Found

func (s *server) activityRoutes(h huma.API) {
	serving(s, h, huma.Operation{
		OperationID: "list-activity", Method: http.MethodGet, Path: "/v1/activity", Tags: []string{ofActivity},
		Summary:     "Who asked for what, and what was decided: the newest records, or those after one.",
		Description: "Records are in the order of their numbers. One answer looks through 50,000 records at most; stopped says where it ended then: go on after it, or, for the newest, before it.",
	}, s.listActivity)
}

type activityQuery struct {
	After    string `query:"after" doc:"Records after this one, oldest first; left out: the newest." example:"0" maxLength:"20"`
	Before   string `query:"before" doc:"Records before this one; without after the newest of them." example:"1000" maxLength:"20"`
	Limit    int    `query:"limit" doc:"At most this many." default:"100" minimum:"1" maximum:"1000"`
	Who      string `query:"who" doc:"Of a principal with this name only." maxLength:"256"`
	Action   string `query:"action" doc:"Of this action only." maxLength:"64"`
	Resource string `query:"resource" doc:"About a resource with this id only." maxLength:"256"`
	Refused  bool   `query:"refused" doc:"Refusals only."`
}

func (s *server) listActivity(ctx context.Context, in *activityQuery) (*body[ActivityList], error) {
	q := activity.Query{Limit: in.Limit, Who: in.Who, Action: policy.Action(in.Action), About: in.Resource, Refused: in.Refused}
	for _, n := range []struct {
		name, text string
		to         **uint64
	}{{"after", in.After, &q.After}, {"before", in.Before, &q.Before}} {
		if n.text == "" {
			continue
		}
		number, err := strconv.ParseUint(n.text, 10, 63)
		if err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "%s=%.40q is no record's number", n.name, n.text).WithFix("give the number that next or stopped had")
		}
		*n.to = &number
	}
	found, err := s.activity.Page(ctx, q)
	if found.Records == nil {
		found.Records = []activity.Record{}
	}
	return answer(found, err)
}

// Check asks what would be decided about a call.
type Check struct {
	Principal *policy.Principal `json:"principal,omitempty" doc:"Who would call; left out, who asks. About others: administrators and auditors."`
	Action    policy.Action     `json:"action" doc:"The operation's id." example:"get-status" minLength:"1" maxLength:"64"`
	Resource  policy.Resource   `json:"resource"`
	Purpose   string            `json:"purpose,omitempty" doc:"What it would use data for, where no grant says so." maxLength:"64"`
}

// Checked says what would be decided, and why.
type Checked struct {
	Permitted bool         `json:"permitted"`
	Rule      string       `json:"rule,omitempty" doc:"The policy that decides; none where no policy permits it."`
	Why       string       `json:"why" doc:"For people."`
	Hidden    bool         `json:"hidden,omitempty" doc:"The answer would be as though there were no such resource."`
	Facts     policy.Facts `json:"facts" doc:"What is known of the two together."`
	Grant     string       `json:"grant,omitempty" doc:"The grant that it would go by."`
	Would     *Would       `json:"would,omitempty" doc:"What would permit it, where no policy does."`
	Policy    string       `json:"policy" doc:"The version of the policies."`
}

// Would says what would permit something.
type Would struct {
	Rule  string        `json:"rule,omitempty" doc:"The policy that permits it of other resources; none where no policy permits the principal anything of the kind."`
	Of    string        `json:"of,omitempty" enum:"granted,own" doc:"Of which: what a grant gives, or what is the principal's own."`
	Roles []policy.Role `json:"roles" nullable:"false" enum:"user,creator,administrator,auditor,service" doc:"The roles of people and services to whom it is permitted, whosever the resource is."`
	More  string        `json:"more,omitempty" doc:"What the grants that the principal has lack."`
}

func (s *server) checkRoutes(h huma.API) {
	serving(s, h, huma.Operation{
		OperationID: "check", Method: http.MethodPost, Path: "/v1/check", Tags: []string{ofActivity}, DefaultStatus: http.StatusOK,
		Summary:     "May somebody do something, and why: what a call would be answered, without its being made.",
		RequestBody: example(Check{Action: "get-status", Resource: policy.Resource{Kind: policy.PartyResource, ID: string(s.party)}}),
	}, s.check)
}

func (s *server) check(ctx context.Context, in *struct{ Body Check }) (*body[Checked], error) {
	who := caller(ctx)
	if p := in.Body.Principal; p != nil && *p != who {
		if err := p.Valid(); err != nil {
			return nil, err
		}
		_, err := s.guard.Ask(ctx, activity.Call{
			Who: who, Action: "check-others", Resource: policy.Resource{Kind: policy.PartyResource, ID: string(s.party)}, Via: activity.HTTP,
		})
		if err != nil {
			return nil, err
		}
		if err := s.exists(*p); err != nil {
			return nil, err
		}
		who = *p
	}
	c := activity.Call{Who: who, Action: in.Body.Action, Resource: in.Body.Resource, Purpose: in.Body.Purpose}
	if in.Body.Resource.ID != policy.Any {
		c.Look, c.Absent = s.look(who, c.Action, c.Resource)
	}
	a, refused, err := s.guard.Judge(ctx, c)
	if err != nil {
		return nil, err
	}
	checked := Checked{
		Permitted: refused == nil, Rule: a.Decision.Policy, Why: a.Decision.Sentence, Hidden: carnet.CodeOf(refused) == carnet.NotFound,
		Facts: a.Known.Facts, Grant: a.Known.Grant, Policy: s.guard.Authorizer.Version(),
	}
	if refused != nil && checked.Rule == "" {
		checked.Would = s.would(a, c)
	}
	return answer(checked, nil)
}

// exists refuses an application that isn't there, and an avatar as which nobody acts.
func (s *server) exists(who policy.Principal) error {
	if s.entities == nil || who.Kind != policy.Application && who.Kind != policy.AvatarSelf {
		return nil
	}
	for _, p := range s.entities.Principals() {
		if who.Kind == policy.Application && p.Kind == entity.KindApplication && p.ID == who.Name ||
			who.Kind == policy.AvatarSelf && p.Avatar != nil && p.Avatar.String() == who.Name {
			return nil
		}
	}
	if who.Kind == policy.Application {
		return carnet.Errorf(carnet.NotFound, "there is no application %.64q", who.Name).WithFix("list them: carnet grant principal list")
	}
	return carnet.Errorf(carnet.NotFound, "nobody acts as the avatar %.64q", who.Name).WithFix("add who does: carnet grant principal add --avatar")
}

// would says what would permit a call that no policy permits.
func (s *server) would(a activity.Answer, c activity.Call) *Would {
	w := &Would{Rule: a.Would.Policy, Roles: []policy.Role{}, More: a.Known.Why}
	switch {
	case a.Would.Granted:
		w.Of = "granted"
	case w.Rule != "":
		w.Of = "own"
	}
	for _, role := range policy.Roles() {
		q := policy.Question{Principal: policy.Bearer("somebody", role), Action: c.Action, Resource: c.Resource, Facts: policy.Facts{Purpose: c.Purpose}}
		if s.guard.Authorizer.Decide(q).Allow {
			w.Roles = append(w.Roles, role)
		}
	}
	return w
}
