package activity

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"carnet"
	"carnet/policy"
)

// Recorder takes records: a *Log.
type Recorder interface {
	// Add returns nil when the record is on disk.
	Add(ctx context.Context, r Record) error
}

// Guard is the one choke point: whoever lets a caller do something asks it
// first. It is safe for concurrent use.
type Guard struct {
	Authorizer *policy.Authorizer
	Recorder   Recorder
	Log        *slog.Logger
	Refusals   int              // of each principal, recorded one by one in a minute; default 600
	Now        func() time.Time // default time.Now

	once   sync.Once
	budget *Budget[policy.Principal]
}

// Known is what was found out about a principal and a resource.
type Known struct {
	Facts   policy.Facts
	Grant   string // the grant that the facts speak of
	Visible bool   // the principal knows of the resource, whatever it may do with it
	Why     string // more about what the grant gives, for the answer; may be empty
}

// Call is a call that wants to be let in.
type Call struct {
	Who      policy.Principal
	Action   policy.Action
	Resource policy.Resource
	Via      Via
	Purpose  string // what the principal uses data for, where there is no grant
	Proven   string // what was proved of the principal before, for the record; may be empty

	// Look finds out about the resource, with the same work whether it is there,
	// is another's, or isn't. Nil: there is no resource to look up (a list, what is
	// only being made); what is done then keeps to the caller's own.
	Look func(context.Context) (Known, error)
	// Absent is what is said of a resource that isn't there, and so of one that is
	// hidden. Nil: it isn't hidden.
	Absent error
}

// Answer says how a call was let in.
type Answer struct {
	Decision policy.Decision
	Known    Known
	// All says that it is permitted whosever the resource is; else only for what
	// is the caller's own, or granted.
	All bool
	// Would says which policy would permit what none does.
	Would Would
}

// Would is a policy that permits something of other resources than the one asked about.
type Would struct {
	Policy  string // none: nothing of the kind is permitted
	Granted bool   // of what a grant gives; else of the principal's own
}

func (w Would) String() string {
	if w.Granted {
		return w.Policy + " would, under a grant that gives it"
	}
	return w.Policy + " would, of what is its own"
}

// defaultRefusals is as many as a person who tries things out doesn't reach.
const defaultRefusals = 600

// Ask decides a call and records it; refusals beyond the principal's budget are
// counted with the next that is recorded. What it refuses is a *carnet.Error:
// carnet.Forbidden with the rule, or Absent. No answer comes before its record
// is on disk.
func (g *Guard) Ask(ctx context.Context, c Call) (Answer, error) {
	a, refused, err := g.Judge(ctx, c)
	if err != nil {
		return a, err
	}
	r := Record{
		Who: c.Who, Action: c.Action, Resource: c.Resource, Via: c.Via, Purpose: a.Known.Facts.Purpose, Permitted: refused == nil,
		Rule: a.Decision.Policy, Why: a.Decision.Sentence, Grant: a.Known.Grant, Policy: g.Authorizer.Version(),
	}
	if c.Proven != "" {
		r.Why = c.Proven + "; " + r.Why
	}
	if refused != nil {
		g.refusal(ctx, r)
		return a, refused
	}
	return a, g.Recorder.Add(ctx, r)
}

// Refuse records a call that is refused before it is decided, since who makes it
// couldn't prove what it goes by. Why says what they lack.
func (g *Guard) Refuse(ctx context.Context, c Call, why error) {
	g.refusal(ctx, Record{Who: c.Who, Action: c.Action, Resource: c.Resource, Via: c.Via, Why: why.Error(), Policy: g.Authorizer.Version()})
}

func (g *Guard) refusal(ctx context.Context, r Record) {
	g.once.Do(func() { g.budget = NewBudget[policy.Principal](cmp.Or(g.Refusals, defaultRefusals)) })
	now := time.Now
	if g.Now != nil {
		now = g.Now
	}
	more, ok := g.budget.Take(r.Who, now())
	if !ok {
		return
	}
	if more > 0 {
		r.Why += fmt.Sprintf("; %d more were refused since the record before", more)
	}
	if err := g.Recorder.Add(ctx, r); err != nil {
		g.Log.Error("a refusal could not be recorded", "who", r.Who.String(), "action", r.Action, "err", err)
	}
}

// Judge is Ask without a record: for what was recorded and is asked again, and
// for questions about calls. Refused says why the call isn't let in; err, that
// it could not be found out.
func (g *Guard) Judge(ctx context.Context, c Call) (a Answer, refused, err error) {
	q := policy.Question{Principal: c.Who, Action: c.Action, Resource: c.Resource, Facts: policy.Facts{Purpose: c.Purpose}}
	a.Known.Facts = q.Facts
	if a.Decision = g.Authorizer.Decide(q); a.Decision.Allow {
		a.All = true
		return a, nil, nil
	}
	best := g.Best(c.Who, c.Action, c.Resource.Kind, c.Purpose)
	if !best.Allow {
		a.Decision = best
		return a, forbidden(best), nil
	}
	if c.Look == nil {
		a.Decision, a.Known.Facts = best, policy.Facts{Own: true, Purpose: c.Purpose}
		return a, nil, nil
	}
	if a.Known, err = c.Look(ctx); err != nil {
		return a, nil, err
	}
	if a.Known.Facts.Purpose == "" {
		a.Known.Facts.Purpose = c.Purpose
	}
	q.Facts = a.Known.Facts
	a.Decision = g.Authorizer.Decide(q)
	if !a.Decision.Allow && a.Decision.Policy == "" {
		a.Would = g.would(c, best)
		a.Decision.Sentence += "; " + a.Would.String()
	}
	if a.Known.Why != "" {
		a.Decision.Sentence += "; " + a.Known.Why
	}
	switch {
	case a.Decision.Allow:
		return a, nil, nil
	case a.Known.Visible || c.Absent == nil:
		return a, forbidden(a.Decision), nil
	}
	return a, c.Absent, nil
}

// would says which rule permits what no rule permitted, and of what: best is with the
// best facts that there may be.
func (g *Guard) would(c Call, best policy.Decision) Would {
	granted := g.Authorizer.Decide(policy.Question{Principal: c.Who, Action: c.Action, Resource: c.Resource, Facts: policy.Facts{Granted: true, Onward: true, Purpose: c.Purpose}})
	if granted.Allow {
		return Would{granted.Policy, true}
	}
	return Would{best.Policy, false}
}

// Best is what a principal may at best do: whatever there is to know of a
// resource that nothing is looked up of.
func (g *Guard) Best(who policy.Principal, action policy.Action, kind policy.ResourceKind, purpose string) policy.Decision {
	return g.Authorizer.Decide(policy.Question{Principal: who, Action: action, Resource: policy.Resource{Kind: kind, ID: policy.Any},
		Facts: policy.Facts{Own: true, Granted: true, Onward: true, Purpose: purpose}})
}

// forbidden is a refusal that names its rule.
func forbidden(d policy.Decision) error {
	return carnet.Errorf(carnet.Forbidden, "%s", d.Sentence).WithFix("use a token of another role, or have it granted; 'carnet policy explain' says who may")
}
