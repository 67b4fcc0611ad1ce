package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"carnet"

	"github.com/cedar-policy/cedar-go"
)

//go:embed default.cedar
var defaultPolicy string

// DefaultPolicy is the Cedar text that a Judge has when it is given none.
func DefaultPolicy() string { return defaultPolicy }

// Limits of a judge's policies.
const (
	maxPolicyBytes = 1 << 20
	maxPolicies    = 1000
)

// Judge holds Cedar policies. It is immutable.
type Judge struct{ policies *cedar.PolicySet }

// Decision is what was decided about one property, and why.
type Decision struct {
	Allow    bool
	Policy   string // id of the deciding policy; "" when none decided
	Sentence string // for people
}

// NewJudge reads Cedar text by file name; without files it takes
// the default policy.
func NewJudge(files map[string][]byte) (*Judge, error) {
	if len(files) == 0 {
		files = map[string][]byte{"default.cedar": []byte(defaultPolicy)}
	}
	policies, err := readPolicies(files)
	if err != nil {
		return nil, err
	}
	return &Judge{policies}, nil
}

// readPolicies reads Cedar text by file name. A policy's id is its @id annotation, or file:line.
func readPolicies(files map[string][]byte) (*cedar.PolicySet, error) {
	policies := cedar.NewPolicySet()
	size, count := 0, 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if size += len(files[name]); size > maxPolicyBytes {
			return nil, carnet.Errorf(carnet.TooLarge, "the policies have more than %d bytes", maxPolicyBytes)
		}
		list, err := cedar.NewPolicyListFromBytes(name, files[name])
		if err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "policy file %s is not Cedar: %s", name, err)
		}
		if count += len(list); count > maxPolicies {
			return nil, carnet.Errorf(carnet.TooLarge, "there are more than %d policies", maxPolicies)
		}
		for _, p := range list {
			id := policyID(name, p)
			if !policies.Add(id, p) {
				return nil, carnet.Errorf(carnet.Malformed, "policy id %q stands twice, again at %s:%d", id, name, p.Position().Line)
			}
		}
	}
	return policies, nil
}

func policyID(file string, p *cedar.Policy) cedar.PolicyID {
	if id := p.Annotations()["id"]; id != "" {
		return cedar.PolicyID(id)
	}
	return cedar.PolicyID(fmt.Sprintf("%s:%d", file, p.Position().Line))
}

// question is what the judge is asked about one property.
type question struct {
	property Property // its label and retention joined with the view's
	view     PropertyView
	whole    View
	reader   Reader
}

// decide asks Cedar.
func (j *Judge) decide(q question) Decision {
	party := cedar.NewEntityUID("Party", cedar.String(q.reader.Party))
	property := cedar.NewEntityUID("Property", cedar.String(q.property.Name))
	return decisionOf(j.policies, entities(party, property, q), cedar.Request{
		Principal: party,
		Action:    cedar.NewEntityUID("Action", "receive"),
		Resource:  property,
		Context:   q.context(),
	}, fmt.Sprintf("%s may not receive %s", q.reader.Party, q.property.Name), fmt.Sprintf("%s may receive %s", q.reader.Party, q.property.Name))
}

// decisionOf asks Cedar; no and yes say in words what the answers mean. Any
// evaluation error denies: Cedar skips a policy that errs, and a forbid that is
// skipped would open the door.
func decisionOf(policies *cedar.PolicySet, entities cedar.EntityMap, r cedar.Request, no, yes string) Decision {
	answer, diag := cedar.Authorize(policies, entities, r)
	if len(diag.Errors) > 0 {
		first := slices.MinFunc(diag.Errors, func(a, b cedar.DiagnosticError) int { return strings.Compare(string(a.PolicyID), string(b.PolicyID)) })
		return Decision{false, string(first.PolicyID), fmt.Sprintf("%s: policy %s cannot be evaluated: %s", no, first.PolicyID, first.Message)}
	}
	ids := make([]string, len(diag.Reasons))
	for i, r := range diag.Reasons {
		ids[i] = string(r.PolicyID)
	}
	slices.Sort(ids)
	switch {
	case len(ids) == 0:
		return Decision{false, "", no + ": no policy permits it"}
	case answer == cedar.Allow:
		return Decision{true, ids[0], fmt.Sprintf("%s: policy %s permits it", yes, ids[0])}
	}
	return Decision{false, ids[0], fmt.Sprintf("%s: policy %s forbids it", no, ids[0])}
}

func entities(party, property cedar.EntityUID, q question) cedar.EntityMap {
	c, p := q.reader.Clearance, q.property
	object, field, _ := strings.Cut(p.Name, "/")
	data := sensitivity(p.Label.Sensitivity)
	data["name"] = cedar.String(p.Name)
	data["property"] = cedar.String(object)
	data["field"] = cedar.String(field)
	data["unit"] = cedar.String(p.Unit)
	data["kind"] = cedar.String(p.Kind.String())
	data["retention_hours"] = retentionHours(p.Retention)
	addSet(data, "purposes", p.Label.Purposes)
	addSet(data, "residency", p.Label.Residency)

	who := sensitivity(c.Sensitivity)
	who["party"] = cedar.String(q.reader.Party)
	who["purposes"] = cedarSet(c.Purposes)
	who["residency"] = cedarSet(c.Residency)
	return cedar.EntityMap{
		party:    {UID: party, Attributes: cedar.NewRecord(who)},
		property: {UID: property, Attributes: cedar.NewRecord(data)},
	}
}

func (q question) context() cedar.Record {
	pv := q.view
	view := cedar.RecordMap{
		"names":       cedar.True,
		"precision_m": cedar.Long(pv.PrecisionM),
		"round":       cedarDecimal(pv.Round),
		"rate_ms":     cedar.Long(pv.Rate.Milliseconds()),
		"deadband":    cedarDecimal(pv.Deadband),
		"always":      cedar.Boolean(pv.Windows.Always()),
		"send_always": cedar.Boolean(q.whole.Send.Always()),
	}
	addSet(view, "purposes", q.whole.Purposes)
	addSet(view, "residency", q.whole.Residency)
	addSet(view, "store", q.whole.Store)
	if q.whole.Retention != 0 {
		view["retention_hours"] = retentionHours(q.whole.Retention)
	}
	return cedar.NewRecord(cedar.RecordMap{
		"view":    cedar.NewRecord(view),
		"cleared": cedar.Boolean(q.property.Label.Exceeds(q.reader.Clearance) == ""),
	})
}

func sensitivity(s carnet.Sensitivity) cedar.RecordMap {
	return cedar.RecordMap{
		"personal": cedar.Boolean(s&carnet.Personal != 0),
		"health":   cedar.Boolean(s&carnet.Health != 0),
		"location": cedar.Boolean(s&carnet.Location != 0),
	}
}

// addSet leaves the attribute out when s restricts nothing: a policy asks with
// has, and one that does not ask errs, which denies.
func addSet(m cedar.RecordMap, name cedar.String, s carnet.Set) {
	if s != "" {
		m[name] = cedarSet(s)
	}
}

func cedarSet(s carnet.Set) cedar.Set {
	var values []cedar.Value
	for _, w := range words(s) {
		values = append(values, cedar.String(w))
	}
	return cedar.NewSet(values...)
}

// cedarDecimal has Cedar's four decimals: what is finer counts as finer still.
func cedarDecimal(d Decimal) cedar.Value {
	v, err := cedar.NewDecimal(int64(d/1e5), -4)
	if err != nil {
		return cedar.String("out of range") // no decimal operator takes it: deny
	}
	return v
}

func retentionHours(r carnet.Retention) cedar.Long {
	switch r {
	case carnet.Hour:
		return 1
	case carnet.Day:
		return 24
	case carnet.Month:
		return 31 * 24
	case carnet.Year:
		return 366 * 24
	}
	return math.MaxInt64
}
