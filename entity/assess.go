package entity

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carnet"
	"carnet/policy"
)

// The kinds of an assessment's lines.
const (
	Matches  = "matches"
	Converts = "converts"
	Lost     = "lost"
	Labelled = "label"
	Denied   = "denied"
	Absent   = "absent"
)

// Line is one thing that an assessment says.
type Line struct {
	Kind     string `json:"kind" doc:"What kind of line it is." enum:"matches,converts,lost,label,denied,absent"`
	Property string `json:"property" doc:"Empty: all of them."`
	Text     string `json:"text" doc:"For people."`
}

// Assessment says before a grant is given what it would give.
type Assessment struct {
	Fingerprint string `json:"fingerprint" doc:"To name when the grant is given: over the terms and everything said here."`
	To          string `json:"to" doc:"Who would receive it, for people."`
	Lines       []Line `json:"lines"`
	Shown       int    `json:"shown" doc:"How many properties would be shown."`
}

// Assess says what terms would give, of what the avatar has shown so far.
func (a *Agent) Assess(ctx context.Context, t Terms) (Assessment, error) {
	report, _, err := a.assess(ctx, t)
	return report, err
}

// assess says it with who would receive it, as it was when this was said.
func (a *Agent) assess(ctx context.Context, t Terms) (Assessment, policy.Reader, error) {
	if err := t.check(a.cfg.Now()); err != nil {
		return Assessment{}, policy.Reader{}, err
	}
	if err := a.bounded(&t); err != nil {
		return Assessment{}, policy.Reader{}, err
	}
	r, to, err := a.reader(t)
	if err != nil {
		return Assessment{}, policy.Reader{}, err
	}
	props, err := a.cfg.Avatars.Properties(t.Avatar)
	if err != nil {
		return Assessment{}, policy.Reader{}, err
	}
	sight, err := policy.NewSight(a.cfg.Judge, t.View, r, 1, props...)
	if err != nil {
		return Assessment{}, policy.Reader{}, err
	}
	slices.SortFunc(props, func(p, q policy.Property) int { return strings.Compare(p.Name, q.Name) })
	report := Assessment{To: to, Lines: []Line{}}
	add := func(kind, property, format string, args ...any) {
		report.Lines = append(report.Lines, Line{kind, property, fmt.Sprintf(format, args...)})
	}
	had := make(map[string]bool)
	for _, p := range props {
		object, _, _ := strings.Cut(p.Name, "/")
		had[p.Name], had[object] = true, true
		v, named := t.View.Of(p.Name)
		res, known := sight.Result(p.Name)
		switch {
		case !named:
			add(Lost, p.Name, "%s is withheld: the view does not name it", p.Name)
			continue
		case !known:
			add(Denied, p.Name, "%s is withheld: it can't stand beside what was shown before it, or not as the view says: %v", p.Name, sight.Fits(p))
			continue
		case res.Reason == policy.ExceedsClearance:
			add(Labelled, p.Name, "%s", res.Decision.Sentence)
			continue
		case !res.Admit:
			add(Denied, p.Name, "%s", res.Decision.Sentence)
			continue
		}
		if may, err := a.cfg.Avatars.OnwardOf(ctx, t.Avatar, p.Name); err != nil {
			return Assessment{}, policy.Reader{}, err
		} else if !may {
			add(Denied, p.Name, "%s is withheld: it comes by a share of another world, which doesn't let it be passed on", p.Name)
			continue
		}
		report.Shown++
		add(Matches, p.Name, "%s is shown%s", p.Name, inUnit(p.Unit))
		add(Labelled, p.Name, "%s is %s%s: within what %s is cleared for", p.Name, res.Label.Sensitivity, boundTo(res.Label), to)
		for _, text := range losses(v, p.Unit) {
			add(Lost, p.Name, "%s: %s", p.Name, text)
		}
		if want := t.Units[p.Name]; want != "" && want != p.Unit {
			if how, ok := conversions[[2]string{p.Unit, want}]; ok {
				add(Converts, p.Name, "%s is in %s; for %s the receiver takes %s", p.Name, p.Unit, want, how)
			} else {
				add(Lost, p.Name, "%s is in %q, and there is no way from that to %q", p.Name, p.Unit, want)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.View.Properties)) {
		if !had[name] {
			add(Absent, name, "the avatar has shown no %s so far: it is withheld until it does, and then judged", name)
		}
	}
	if b := a.cfg.Avatars.Bounds(t.Avatar); b.Most() != carnet.AllSensitive {
		add(Labelled, "", "by its owner's policy, version %d, nobody but its world may have more of it than what is %s (transmit.sensitivity)", b.Version, b.Most())
	}
	if some, all := a.cfg.Avatars.Onward(t.Avatar); !some {
		add(Denied, "", "%s", nothingOnward)
	} else if !all {
		add(Denied, "", "%s", notAllOnward)
	}
	whole, err := json.Marshal(struct {
		Terms  Terms
		To     string
		Lines  []Line
		Reader policy.Reader
	}{t, to, report.Lines, r})
	if err != nil {
		return Assessment{}, policy.Reader{}, fmt.Errorf("fingerprint an assessment: %w", err)
	}
	report.Fingerprint = carnet.FingerprintOf(whole).String()
	return report, r, nil
}

// reader is who would receive what terms give, and with which clearance: at most
// the terms' ceiling and the receiver's own, of another world as its peering has it.
// Where it keeps data is the receiver's to say: who keeps data there must be allowed to by
// the ceiling, as by a label.
func (a *Agent) reader(t Terms) (policy.Reader, string, error) {
	name := t.To.String()
	most := carnet.Clearance{Sensitivity: a.most(t.Avatar), Purposes: carnet.NewSet(t.Purpose)}
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch {
	case t.To.Application != "":
		p := a.principals[t.To.Application]
		if p == nil || p.Kind != KindApplication {
			return policy.Reader{}, "", carnet.Errorf(carnet.NotFound, "there is no application %.64q", t.To.Application).WithFix("add it: carnet grant principal add")
		}
		if p.Purpose != t.Purpose {
			return policy.Reader{}, "", carnet.Errorf(carnet.Forbidden, "%s uses data for %s, and the grant is for %s", p.Name, p.Purpose, t.Purpose).WithFix("name its purpose")
		}
		name = fmt.Sprintf("the application %s", p.Name)
		most.Sensitivity &= p.Clearance.Sensitivity
		most.Residency = carnet.NewSet(p.Clearance.Residency...)
	case t.To.Avatar != "":
		all := behind(a.principals, policy.Principal{Kind: policy.AvatarSelf, Name: t.To.Avatar})
		if len(all) == 0 {
			return policy.Reader{}, "", carnet.Errorf(carnet.NotFound, "nobody acts as avatar %s", t.To.Avatar).WithFix("add who does: carnet grant principal add --avatar %s", t.To.Avatar)
		}
		slices.SortFunc(all, func(p, q *Principal) int { return strings.Compare(p.ID, q.ID) })
		for _, p := range all {
			if p.Purpose != t.Purpose {
				return policy.Reader{}, "", carnet.Errorf(carnet.Forbidden, "%s, which acts as the avatar, uses data for %s, and the grant is for %s", p.Name, p.Purpose, t.Purpose).
					WithFix("name its purpose")
			}
			most.Sensitivity &= p.Clearance.Sensitivity
		}
		most.Residency = everywhere(all)
	case t.Ceiling == nil:
		return policy.Reader{}, "", carnet.Errorf(carnet.Malformed, "a grant to another world says the most that may flow").WithFix("add a ceiling")
	default:
		receives, known := a.receives(t.To.Platform)
		if !known { // then its calls say where
			most.Residency = carnet.NewSet(t.Ceiling.Residency...)
			break
		}
		if !receives.Purposes.Has(t.Purpose) {
			return policy.Reader{}, "", carnet.Errorf(carnet.Forbidden, "%s may not use data for %s, by its peering", t.To.Platform, t.Purpose).WithFix("name one of its purposes: %s", receives.Purposes)
		}
		most.Sensitivity &= receives.Sensitivity
		most.Residency = receives.Residency
	}
	if t.Ceiling != nil {
		most.Sensitivity &= t.Ceiling.Sensitivity
		if why := t.Ceiling.elsewhere(most); why != "" {
			return policy.Reader{}, "", carnet.Errorf(carnet.Forbidden, "%s may not have it, by the ceiling: %s", name, why).WithFix("give a ceiling with other places, or none")
		}
	}
	return policy.Reader{Party: carnet.PartyID(t.To.String()), Clearance: most}, name, nil
}

// receives is what another world may receive by its peering, if there is one.
func (a *Agent) receives(platform carnet.PartyID) (carnet.Clearance, bool) {
	if a.cfg.Receives == nil {
		return carnet.Clearance{}, false
	}
	return a.cfg.Receives(platform)
}

// everywhere is where an avatar's data is kept by all who act as it: nowhere that can be
// said if one of them doesn't say it.
func everywhere(all []*Principal) carnet.Set {
	var places []string
	for _, p := range all {
		if len(p.Clearance.Residency) == 0 {
			return ""
		}
		places = append(places, p.Clearance.Residency...)
	}
	return carnet.NewSet(places...)
}

// elsewhere says why what a ceiling binds to places may not go to who keeps it in its own.
func (c *Clearance) elsewhere(reader carnet.Clearance) string {
	reader.Sensitivity = carnet.AllSensitive
	return carnet.Label{Residency: carnet.NewSet(c.Residency...)}.Exceeds(reader)
}

func inUnit(unit string) string {
	if unit == "" {
		return ""
	}
	return " in " + unit
}

func boundTo(l carnet.Label) string {
	text := ""
	if l.Purposes != "" {
		text += ", for " + string(l.Purposes)
	}
	if l.Residency != "" {
		text += ", in " + string(l.Residency)
	}
	return text
}

// losses says what a view takes from a property.
func losses(v policy.PropertyView, unit string) (texts []string) {
	add := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if v.Round != 0 {
		add("only the nearest multiple of %s%s", v.Round, inUnit(unit))
	}
	if v.PrecisionM != 0 {
		add("only where it is to %d m", v.PrecisionM)
	}
	if v.Rate != 0 {
		add("at most one measurement in %s", v.Rate)
	}
	if v.Deadband != 0 {
		add("changes of less than %s are left out, and it isn't in state and history: live only", v.Deadband)
	}
	if !v.Windows.Always() {
		add("only what was measured %s", v.Windows)
	}
	return texts
}

// conversions between units of the SenML registry (RFC 8428 §12.1, RFC 8798).
var conversions = map[[2]string]string{
	{"Cel", "K"}: "v + 273.15", {"K", "Cel"}: "v - 273.15",
	{"beat/min", "Hz"}: "v / 60", {"Hz", "beat/min"}: "v * 60",
	{"m", "km"}: "v / 1000", {"km", "m"}: "v * 1000", {"m", "mm"}: "v * 1000", {"m", "cm"}: "v * 100",
	{"m/s", "km/h"}: "v * 3.6", {"km/h", "m/s"}: "v / 3.6",
	{"s", "ms"}: "v * 1000", {"ms", "s"}: "v / 1000", {"s", "min"}: "v / 60", {"s", "h"}: "v / 3600",
	{"%", "/"}: "v / 100", {"/", "%"}: "v * 100", {"%RH", "/"}: "v / 100",
	{"Pa", "hPa"}: "v / 100", {"hPa", "Pa"}: "v * 100", {"kg", "g"}: "v * 1000", {"g", "kg"}: "v / 1000",
	{"rad", "deg"}: "v * 57.29578", {"deg", "rad"}: "v / 57.29578", {"J", "kWh"}: "v / 3600000", {"W", "kW"}: "v / 1000", {"kW", "W"}: "v * 1000",
}
