package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsPage string

// described is an operation on the page for people.
type described struct {
	Method, Path, ID, Summary, Description string
	Roles                                  string
	Parameters                             []*huma.Param
	Example                                string
}

// serveDocuments serves the OpenAPI document, and a page for people made of it.
// They are made once: nothing in them depends on the caller.
func (s *server) serveDocuments(mux *surface, document *huma.OpenAPI) error {
	asJSON, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	asYAML, err := document.YAML()
	if err != nil {
		return err
	}
	page, err := template.New("docs").Parse(docsPage)
	if err != nil {
		return err
	}
	var asHTML bytes.Buffer
	err = page.Execute(&asHTML, struct {
		Title      string
		Operations []described
	}{document.Info.Title, s.describe(document)})
	if err != nil {
		return err
	}
	serve := func(path, contentType string, b []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(b) // a failed write means that the caller went away
		})
	}
	serve("/openapi.json", "application/openapi+json", asJSON)
	serve("/openapi.yaml", "application/openapi+yaml", asYAML)
	serve("/docs", "text/html; charset=utf-8", asHTML.Bytes())
	return nil
}

// mayCall says which roles may call an operation, of their own things at least.
func (s *server) mayCall(action policy.Action, use policy.Use) string {
	var names []string
	for _, role := range policy.Roles() {
		if s.guard.Best(policy.Bearer("", role), action, use.Resource, "").Allow {
			names = append(names, string(role))
		}
	}
	return strings.Join(names, ", ")
}

func (s *server) describe(document *huma.OpenAPI) (all []described) {
	for path, item := range document.Paths {
		for method, op := range operationsOf(item) {
			d := described{
				Method: method, Path: path, ID: op.OperationID, Summary: op.Summary, Description: op.Description,
				Roles: "no token needed", Parameters: op.Parameters,
			}
			if use, known := policy.UseOf(policy.Action(op.OperationID)); known {
				d.Roles = s.mayCall(policy.Action(op.OperationID), use)
			}
			if op.RequestBody != nil && op.RequestBody.Content[typeJSON] != nil {
				if b, err := json.MarshalIndent(op.RequestBody.Content[typeJSON].Example, "", "  "); err == nil {
					d.Example = string(b)
				}
			}
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(p, q described) int { return strings.Compare(p.Path+" "+p.Method, q.Path+" "+q.Method) })
	return all
}
