package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"unicode"

	"carnet"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Version is the interface's: a change that breaks a caller begins a new path
// prefix.
const Version = "1"

// routes is the whole surface, made of what the party has.
func (s *server) routes() (http.Handler, error) {
	mux := &surface{ServeMux: http.NewServeMux(), actions: make(map[string]policy.Action)}
	h := humago.New(mux, s.document())
	h.UseMiddleware(s.accept)
	s.every(h)
	if s.examine != nil {
		s.examinationRoutes(h)
	}
	if s.peers != nil {
		s.peerRoutes(h)
	}
	if s.things != nil {
		s.thingRoutes(h)
		s.mappingRoutes(h)
		if s.recovered {
			s.recoveredRoutes(h)
		}
		if s.jobs != nil {
			s.ownJobRoutes(h)
			s.moduleRoutes(h)
		}
	}
	if s.activity != nil {
		s.activityRoutes(h)
	}
	s.checkRoutes(h)
	if s.entities != nil {
		s.grantRoutes(h)
	}
	if s.world != nil {
		s.avatarRoutes(h)
		s.policyRoutes(h)
		if s.proofs != nil {
			s.proofRoutes(h)
		}
		if s.mandates != nil {
			s.mandateRoutes(h)
		}
		if s.shares != nil {
			s.shareRoutes(h)
		}
		if s.items != nil {
			s.itemRoutes(h)
		}
		if s.moves != nil {
			s.crossingRoutes(h)
		}
		if s.erasures != nil {
			s.erasureRoutes(h)
		}
		if s.passports != nil {
			s.passportRoutes(h)
		}
		if s.abroad != nil {
			s.abroadRoutes(h)
		}
		if s.jobs != nil {
			s.jobRoutes(h)
			s.moduleRoutes(h)
		}
	}
	for path, item := range h.OpenAPI().Paths {
		for method, op := range operationsOf(item) {
			mux.actions[method+" "+path] = policy.Action(op.OperationID)
		}
	}
	s.describeOthers(h.OpenAPI())
	if err := addExamples(h.OpenAPI()); err != nil {
		return nil, fmt.Errorf("make the API's documents: %w", err)
	}
	s.serveDocuments(mux, h.OpenAPI())
	return &gate{s, mux}, nil
}

// surface is every route, and what each is for. A route that is for nothing in
// the table of actions is refused by the gate, whoever adds it.
type surface struct {
	*http.ServeMux
	actions map[string]policy.Action // by pattern
}

// HandleFunc adds a route, which is for nothing yet.
func (m *surface) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.actions[pattern] = ""
	m.ServeMux.HandleFunc(pattern, handler)
}

// operationsOf lists a path's operations by method.
func operationsOf(item *huma.PathItem) map[string]*huma.Operation {
	all := map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete,
	}
	maps.DeleteFunc(all, func(_ string, op *huma.Operation) bool { return op == nil })
	return all
}

// document is huma's configuration: our JSON, our registry, and none of what
// huma would serve by itself.
func (s *server) document() huma.Config {
	ours := huma.Format{Marshal: marshal, Unmarshal: unmarshal}
	formats := map[string]huma.Format{typeJSON: ours, "json": ours} // huma finds problem+json by its suffix
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Carnet: " + string(s.party), Version: Version,
				Description: "The management and data interface of one party. Every refusal is a problem document (RFC 9457) with a code and a fix.",
				License:     &huma.License{Name: "Apache License 2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: newRegistry(),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer":     {Type: "http", Scheme: "bearer", Description: "A token of the party's operator, with the role user, creator, administrator, auditor or service."},
					"invitation": {Type: "http", Scheme: "bearer", Description: "The secret of an invitation to become a peer."},
				},
			},
			Security: []map[string][]string{{"bearer": {}}},
			Tags:     tags(),
		},
		Formats: formats, DefaultFormat: typeJSON,
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{transform},
	}
}

const typeJSON = "application/json"

func marshal(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// unmarshal refuses what encoding/json would guess at: a member that stands
// twice.
func unmarshal(b []byte, v any) error {
	if err := eachOnce(b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// eachOnce refuses an object in which a name stands twice, whatever its case at
// the outermost object, whose members encoding/json finds without regard to it.
func eachOnce(b []byte) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	type level struct {
		names map[string]bool // nil: an array
		value bool            // a value is due, not a name
		at    string          // the last name
	}
	var levels []level
	tokens := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return carnet.Errorf(carnet.Malformed, "the body is not JSON: %v", err)
		}
		if tokens++; tokens > maxTokens {
			return carnet.Errorf(carnet.TooLarge, "the body has more than %d names, values and brackets", maxTokens)
		}
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			levels = levels[:len(levels)-1]
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].names != nil {
			top := &levels[n-1]
			if !top.value {
				at, _ := token.(string)
				name := at
				if n == 1 {
					name = folded(name)
				}
				if top.names[name] {
					within := ""
					for _, l := range levels[:n-1] {
						within += fmt.Sprintf("%.64s/", l.at)
					}
					return carnet.Errorf(carnet.Malformed, "the member %.200q stands twice", within+at)
				}
				top.names[name], top.value, top.at = true, true, at
				continue
			}
			top.value = false
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{names: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{})
		}
		if len(levels) > maxDepth {
			return carnet.Errorf(carnet.TooLarge, "the body is nested deeper than %d", maxDepth)
		}
	}
}

// folded is one text for all names that encoding/json and huma take for the same:
// those that differ by simple case folding.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}

// maxTokens bounds what a body is made of: each takes many times the memory of its bytes.
const maxTokens = 1 << 19

// maxDepth bounds a body's nesting: td.MaxDepth and what stands around it.
const maxDepth = 40

// servesKey is where an operation's metadata lists what it serves.
const servesKey = "serves"

func servesOf(op *huma.Operation) []string {
	serves, _ := op.Metadata[servesKey].([]string)
	return serves
}

// serving adds an operation whose errors are told as problems.
func serving[I, O any](s *server, h huma.API, op huma.Operation, do func(context.Context, *I) (*O, error)) {
	if op.Metadata == nil {
		op.Metadata = map[string]any{servesKey: []string{typeJSON}}
	}
	op.MaxBodyBytes, op.BodyReadTimeout = -1, -1 // the gate has read the body
	documentRefusals(h, &op)
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, s.answerTo(ctx, err)
		}
		return out, nil
	})
}

// answerTo is err for huma, with the headers that belong to it.
func (s *server) answerTo(ctx context.Context, err error) error {
	p := s.problemOf(ctx, err)
	headers := http.Header{}
	headersFor(p.Status, headers.Set)
	return huma.ErrorWithHeaders(p, headers)
}

// refuseIn answers err from within huma's middleware.
func (s *server) refuseIn(ctx huma.Context, err error) {
	r, w := humago.Unwrap(ctx)
	s.refuse(w, r, err)
}

// isLive says whether a pattern is the live route's, which has no end of time.
func isLive(pattern string) bool { return strings.HasSuffix(pattern, "/live") }

// body is an answer that is one document.
type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}
