package api

import (
	"encoding/json"
	"fmt"
	"reflect"

	"carnet/avatar"
	"carnet/capsule"
	"carnet/crossing"
	"carnet/depot"
	"carnet/dpm"
	"carnet/job"
	"carnet/policy"
	"carnet/senml"
	"carnet/shelf"
	"carnet/thing"

	"github.com/danielgtaylor/huma/v2"
)

// newRegistry makes schemas of Go types. What writes its own JSON has its schema
// here.
func newRegistry() huma.Registry {
	names := map[reflect.Type]string{
		reflect.TypeFor[thing.Info]():  "Thing",
		reflect.TypeFor[avatar.Info](): "Avatar",
		reflect.TypeFor[viewSchema]():  "View",

		reflect.TypeFor[crossing.Question]():  "ShareQuestion",
		reflect.TypeFor[crossing.Answer]():    "ShareAnswer",
		reflect.TypeFor[depot.ObjectAnswer](): "StoredObject",
		reflect.TypeFor[depot.TotalsAnswer](): "StoredTotals",
		reflect.TypeFor[shelf.Signed]():       "Shelf",
		reflect.TypeFor[shelf.Object]():       "ShelvedObject",
		reflect.TypeFor[crossing.Storage]():   "ShareStorage",
		reflect.TypeFor[crossing.ShelfAt]():   "ShelfAt",

		reflect.TypeFor[capsule.Label]():     "JobLabel",
		reflect.TypeFor[capsule.Task]():      "JobTask",
		reflect.TypeFor[capsule.Content]():   "JobContent",
		reflect.TypeFor[capsule.Input]():     "JobInput",
		reflect.TypeFor[capsule.Limits]():    "JobLimits",
		reflect.TypeFor[capsule.Output]():    "JobOutput",
		reflect.TypeFor[job.Plan]():          "JobPlan",
		reflect.TypeFor[job.Place]():         "JobPlace",
		reflect.TypeFor[job.Progress]():      "JobProgress",
		reflect.TypeFor[dpm.Counts]():        "JobCounts",
		reflect.TypeFor[job.Contradiction](): "JobContradiction",

		reflect.TypeFor[dpm.Offer]():             "DPMOffer",
		reflect.TypeFor[dpm.Submission]():        "Capsule",
		reflect.TypeFor[dpm.SubmissionAnswer]():  "CapsuleAnswer",
		reflect.TypeFor[dpm.Status]():            "JobStatus",
		reflect.TypeFor[dpm.Progress]():          "JobStatusProgress",
		reflect.TypeFor[dpm.PartialAnswer]():     "JobPartialAnswer",
		reflect.TypeFor[dpm.Withdrawing]():       "JobWithdrawal",
		reflect.TypeFor[dpm.WithdrawingAnswer](): "JobWithdrawalAnswer",
		reflect.TypeFor[dpm.Taking]():            "JobTaken",
		reflect.TypeFor[dpm.Revoking]():          "ModuleRevocation",
		reflect.TypeFor[dpm.RecordAnswer]():      "JobRecord",
	}
	r := huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if name, ok := names[t]; ok {
			return name
		}
		return huma.DefaultSchemaNamer(t, hint)
	})
	r.RegisterTypeAlias(reflect.TypeFor[policy.View](), reflect.TypeFor[viewSchema]())
	return r
}

// viewSchema stands for a policy.View, whose JSON is policy.ParseView's.
type viewSchema struct{}

// Schema is the form of a view document (docs/design/policy.md).
func (viewSchema) Schema(huma.Registry) *huma.Schema {
	decimal := &huma.Schema{Type: "number", Description: "Greater than 0, at most nine decimals, no exponent."}
	words := func(description string, enum ...any) *huma.Schema {
		return &huma.Schema{Type: "array", Description: description, Items: &huma.Schema{Type: "string", Enum: enum}}
	}
	windows := &huma.Schema{
		Type: "object", Description: "By IANA time zone, stretches of the week such as \"mon-fri 08:00-18:00\". Left out: always.",
		AdditionalProperties: &huma.Schema{Type: "array", Items: &huma.Schema{Type: "string"}},
	}
	property := &huma.Schema{
		Type: "object", AdditionalProperties: false, Description: "How exactly a property is shown; {} is as it was measured.",
		Properties: map[string]*huma.Schema{
			"round":       decimal,
			"precision_m": {Type: "integer", Description: "For a position: cells at least so many metres wide."},
			"rate":        {Type: "string", Description: "At most one in each interval of measured time, such as \"1s\"."},
			"deadband":    decimal,
			"windows":     windows,
		},
	}
	property.PrecomputeMessages()
	s := &huma.Schema{
		Type: "object", AdditionalProperties: false, Required: []string{"properties"},
		Description: "What one party lets another have. What isn't named is withheld.",
		Properties: map[string]*huma.Schema{
			"properties": {Type: "object", AdditionalProperties: property, Description: "By property; an object's name stands for its fields."},
			"purposes":   words("What the data may be used for."),
			"residency":  words("Where it may be kept."),
			"retention":  {Type: "string", Enum: []any{"hour", "day", "month", "year", "keep"}},
			"store":      words("At whom it may be kept.", "depot", "thing", "world"),
			"send":       windows,
		},
	}
	s.PrecomputeMessages()
	return s
}

// Schema leaves a description to the td package, which checks it against the
// recommendation.
func (Description) Schema(huma.Registry) *huma.Schema { return descriptionSchema() }

func descriptionSchema() *huma.Schema {
	return &huma.Schema{
		Type: "object", AdditionalProperties: true,
		Description: "A W3C WoT Thing Description 1.1 (https://www.w3.org/TR/wot-thing-description11/).",
	}
}

// exampleDescription is a thing with one property.
var exampleDescription = Description(`{"@context":"https://www.w3.org/2022/wot/td/v1.1","title":"Pulse band",` +
	`"securityDefinitions":{"none":{"scheme":"nosec"}},"security":"none",` +
	`"properties":{"heart_rate":{"type":"number","unit":"beat/min","forms":[{"href":"heart_rate"}]}}}`)

// exampleToken has the form of a signed token. Nobody takes it.
const exampleToken = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiIifQ.AA"

func exampleView() policy.View {
	return policy.View{Properties: map[string]policy.PropertyView{"heart_rate": {Round: 5 * policy.One}}}
}

// example is a request body with an example in the document.
func example(v any) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeJSON: {Example: plain(v)}}}
}

// plain is v as its JSON says it, for the document in YAML as in JSON.
func plain(v any) (p any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		panic(fmt.Sprintf("the example of %T can't be written: %v", v, err)) // a mistake in this file
	}
	return p
}

// packSchema is a SenML pack in JSON (RFC 8428 §4 and §5), as it is written here.
func packSchema() *huma.Schema {
	number, text := &huma.Schema{Type: "number"}, &huma.Schema{Type: "string"}
	return &huma.Schema{
		Type: "array", Description: "A SenML pack (RFC 8428): names are the avatar's properties, times seconds since 1970.",
		Items: &huma.Schema{Type: "object", AdditionalProperties: false, Properties: map[string]*huma.Schema{
			"bn": text, "bt": number, "bu": text, "n": text, "u": text, "t": number,
			"v": number, "vb": {Type: "boolean"}, "vs": text, "vd": {Type: "string", ContentEncoding: "base64url"},
		}},
		Examples: []any{plain(json.RawMessage(`[{"n":"heart_rate","u":"beat/min","t":1.7e9,"v":75}]`))},
	}
}

func binarySchema() *huma.Schema {
	return &huma.Schema{Type: "string", Format: "binary", Description: "The same pack in this form (RFC 8428)."}
}

func packResponses() map[string]*huma.Response {
	content := map[string]*huma.MediaType{}
	for _, form := range packs {
		content[form] = &huma.MediaType{Schema: binarySchema()}
	}
	content[senml.JSON.ContentType()].Schema = packSchema()
	return map[string]*huma.Response{"200": {Description: "OK", Content: content}}
}

// limitedTo adds the answer to who asks for too much at once.
func limitedTo(of map[string]*huma.Response) map[string]*huma.Response {
	of["429"] = &huma.Response{
		Description: "Too many of these are open at once.",
		Headers:     map[string]*huma.Header{"Retry-After": {Description: "Seconds to wait.", Schema: &huma.Schema{Type: "integer"}}},
	}
	return of
}

func liveResponses() map[string]*huma.Response {
	return map[string]*huma.Response{
		"101": {Description: "The WebSocket is open."},
		"200": {Description: "Server-sent events.", Content: map[string]*huma.MediaType{typeEvents: {Schema: &huma.Schema{Type: "string"}}}},
	}
}

// documentRefusals says in the document how an operation refuses.
func documentRefusals(h huma.API, op *huma.Operation) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	schema := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	content := map[string]*huma.MediaType{typeProblem: {Schema: schema}}
	op.Responses["default"] = &huma.Response{Description: "A refusal.", Content: content}
	if r := op.Responses["429"]; r != nil {
		r.Content = content
	}
}
