package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

// examplesFile has what operations answered when their examples were called, with
// ids, times and secrets replaced. A test writes it (-record) and holds it against
// what is answered now, so an example is never what somebody thought.
//
//go:embed examples.json
var examplesFile []byte

// Example is what an operation answers to the example of its request, and how it
// refuses a call that differs from that in one thing.
type Example struct {
	Answer  *ExampleAnswer  `json:"answer,omitempty"` // nil: it has no body
	Refusal *ExampleRefusal `json:"refusal,omitempty"`
}

// ExampleAnswer is an answer with a body: JSON as it is, anything else as text.
type ExampleAnswer struct {
	Status int    `json:"status"`
	Type   string `json:"type"`
	Body   any    `json:"body"`
}

// ExampleRefusal is a refusal, and what was called.
type ExampleRefusal struct {
	Summary string  `json:"summary"`
	Call    Call    `json:"call"`
	Problem Problem `json:"problem"`
}

// Call is what differs from the example of a request.
type Call struct {
	Path    map[string]string `json:"path,omitempty"`
	Query   map[string]string `json:"query,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
	NoToken bool              `json:"no_token,omitempty"`
}

// callKey is where an example in the document says what was called.
const callKey = "x-call"

// addExamples puts the recorded examples into the document, and those of parameters
// where OpenAPI has them.
func addExamples(document *huma.OpenAPI) error {
	var recorded map[string]Example
	if err := json.Unmarshal(examplesFile, &recorded); err != nil {
		return fmt.Errorf("read examples.json: %w", err)
	}
	for _, item := range document.Paths {
		for _, op := range operationsOf(item) {
			op.Parameters = slices.DeleteFunc(op.Parameters, unsaid)
			for _, p := range op.Parameters {
				if p.Example == nil && len(p.Schema.Examples) > 0 {
					p.Example = p.Schema.Examples[0]
				}
			}
			if err := recorded[op.OperationID].addTo(op); err != nil {
				return fmt.Errorf("the example of %s: %w", op.OperationID, err)
			}
		}
	}
	return nil
}

// unsaid says which parameters a document is not to have (OpenAPI 3.1.0 §4.8.12.2):
// content types and security say the same.
func unsaid(p *huma.Param) bool {
	return p.In == "header" && (p.Name == "Accept" || p.Name == "Content-Type" || p.Name == "Authorization")
}

func (e Example) addTo(op *huma.Operation) error {
	if a := e.Answer; a != nil {
		r := op.Responses[fmt.Sprint(a.Status)]
		if r == nil || r.Content[a.Type] == nil {
			return fmt.Errorf("it is %d %s, which the operation doesn't answer, but %v", a.Status, a.Type, slices.Sorted(maps.Keys(op.Responses)))
		}
		r.Content[a.Type].Example = a.Body
	}
	if r := e.Refusal; r != nil {
		op.Responses["default"].Content = map[string]*huma.MediaType{typeProblem: {
			Schema: op.Responses["default"].Content[typeProblem].Schema,
			Examples: map[string]*huma.Example{"refused": {
				Summary: r.Summary, Value: plain(r.Problem), Extensions: map[string]any{callKey: plain(r.Call)},
			}},
		}}
	}
	return nil
}
