package policy

import (
	"strings"
	"testing"

	"carnet"
)

func TestJudge(t *testing.T) {
	const shown = `{"properties":{"heart_rate":{"round":5,"rate":"1s","deadband":0.5}},"retention":"day"}`
	permit := func(condition string) string {
		return openDoor + ` @id("p") forbid (principal, action, resource) unless { ` + condition + ` };`
	}
	tests := []struct {
		name, cedar, view string
		allow             bool
		policy, sentence  string
	}{
		{"nothing permits", `forbid (principal, action, resource) when { false };`, shown, false, "", "no policy permits"},
		{"permit", openDoor, shown, true, "all", "policy all permits it"},
		{"forbid wins", openDoor + `@id("no") forbid (principal == Party::"clinic", action == Action::"receive", resource == Property::"heart_rate");`, shown, false, "no", "policy no forbids it"},
		{"id is file and line", openDoor + "\n\nforbid (principal, action, resource);", shown, false, "test.cedar:3", "forbids"},
		{"an erring forbid denies", openDoor + `@id("typo") forbid (principal, action, resource) when { resource.helth };`, shown, false, "typo", "cannot be evaluated"},
		{"an erring permit denies beside another", openDoor + `@id("typo") permit (principal, action, resource) when { principal.age > 18 };`, shown, false, "typo", "cannot be evaluated"},
		{"an unknown attribute of the view denies", openDoor + `@id("typo") forbid (principal, action, resource) when { context.view.presision_m < 1000 };`, shown, false, "typo", "cannot be evaluated"},
		{"an unguarded absent set denies", openDoor + `@id("u") forbid (principal, action, resource) when { context.view.purposes.contains("ads") };`, shown, false, "u", "cannot be evaluated"},
		{"a wrong type denies", openDoor + `@id("w") forbid (principal, action, resource) when { context.view.round > 4 };`, shown, false, "w", "cannot be evaluated"},
		{"overflow denies", openDoor + `@id("o") forbid (principal, action, resource) when { 9223372036854775807 + context.view.precision_m + 1 > 0 };`, shown, false, "o", "cannot be evaluated"},
		{"round", permit(`context.view.round.greaterThanOrEqual(decimal("5.0"))`), shown, true, "all", ""},
		{"rate and deadband", permit(`context.view.rate_ms == 1000 && context.view.deadband == decimal("0.5")`), shown, true, "all", ""},
		{"precision of none is 0", permit(`context.view.precision_m == 0 && context.view.always && context.view.send_always`), shown, true, "all", ""},
		{"retention", permit(`context.view.retention_hours == 24 && resource.retention_hours == 24`), shown, true, "all", ""},
		{"absent sets", permit(`!(context.view has purposes) && !(context.view has store) && !(resource has residency)`), shown, true, "all", ""},
		{"sets", permit(`context.view.purposes == ["care"] && resource.purposes == ["care"] && principal.purposes == ["care"] && context.view.store == ["depot"]`), `{"properties":{"heart_rate":{}},"purposes":["care"],"store":["depot"]}`, true, "all", ""},
		{"the property", permit(`resource.name == "heart_rate" && resource.property == "heart_rate" && resource.field == "" && resource.unit == "beat/min" && resource.kind == "number" && resource.health && !resource.location`), shown, true, "all", ""},
		{"the reader", permit(`principal.party == "clinic" && principal.health && principal.location && principal.personal && principal.residency == ["eu"] && context.cleared && context.view.names`), shown, true, "all", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := compile(t, tt.cedar, tt.view, clinic)
			d, r := table.Why(heartRate), table.Result(heartRate)
			if d.Allow != tt.allow || d.Policy != tt.policy || !strings.Contains(d.Sentence, tt.sentence) {
				t.Errorf("decides %+v, want allow %v by %q with %q", d, tt.allow, tt.policy, tt.sentence)
			}
			m := carnet.Measurement{Value: carnet.Float(70)}
			verdict := table.Apply(new(State), heartRate, &m)
			if r.Admit != tt.allow || (verdict == Admitted) != tt.allow || verdict != r.Reason {
				t.Errorf("admits %v with %v, applies %v", r.Admit, r.Reason, verdict)
			}
			if !tt.allow && verdict != DeniedByPolicy {
				t.Errorf("applies %v, want denied", verdict)
			}
		})
	}
}

func TestNewJudgeRefuses(t *testing.T) {
	tests := []struct {
		name string
		text string
		want string
	}{
		{"not Cedar", `permit (principal, action`, "is not Cedar"},
		{"an id twice", openDoor + openDoor, `"all" stands twice`},
		{"too large", strings.Repeat("/", maxPolicyBytes+1), "bytes"},
		{"too many", strings.Repeat("permit (principal, action, resource);\n", maxPolicies+1), "policies"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewJudge(map[string][]byte{"test.cedar": []byte(tt.text)}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestDefaultPolicy(t *testing.T) {
	clear := func(s carnet.Sensitivity, purposes ...string) Reader {
		return Reader{"arena", carnet.Clearance{Sensitivity: s, Purposes: carnet.NewSet(purposes...)}}
	}
	tests := []struct {
		name, view string
		reader     Reader
		prop       int
		verdict    Verdict
		policy     string
	}{
		{"steps for anybody", `{"properties":{"steps":{}}}`, clear(carnet.Public), steps, Admitted, "receive-what-the-view-names"},
		{"not named", `{"properties":{}}`, clear(carnet.Public), steps, NotInView, ""},
		{"health without clearance", `{"properties":{"heart_rate":{}}}`, clear(carnet.Location, "care"), heartRate, ExceedsClearance, ""},
		{"health for care", `{"properties":{"heart_rate":{}}}`, clear(carnet.Health, "care"), heartRate, Admitted, "receive-what-the-view-names"},
		{"health for play", `{"properties":{"heart_rate":{}}}`, clear(carnet.Health, "play"), heartRate, DeniedByPolicy, "health-for-health-purposes"},
		{"exact location", `{"properties":{"position":{}}}`, clear(carnet.Location), lat, DeniedByPolicy, "location-to-1000-m"},
		{"location to 999 m", `{"properties":{"position":{"precision_m":999}}}`, clear(carnet.Location), lon, DeniedByPolicy, "location-to-1000-m"},
		{"location to 1 km", `{"properties":{"position":{"precision_m":1000}}}`, clear(carnet.Location), lon, Admitted, "receive-what-the-view-names"},
		{"exact location to navigate", `{"properties":{"position":{}}}`, clear(carnet.Location, "navigation"), lat, Admitted, "receive-what-the-view-names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := compile(t, "", tt.view, tt.reader).Result(tt.prop)
			if r.Reason != tt.verdict || r.Decision.Policy != tt.policy {
				t.Errorf("%v by %q (%s), want %v by %q", r.Reason, r.Decision.Policy, r.Decision.Sentence, tt.verdict, tt.policy)
			}
		})
	}
}
