package api

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"carnet/docs"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// page is what the page for people is made of: it reads without its script, and
// tries operations with it.
//
//go:embed docs/page.html docs/page.css docs/try.js docs/icon.svg docs/inter.woff2
var page embed.FS

// pageFiles are what the page loads, with their types. They need no token.
var pageFiles = map[string]string{
	"page.css": "text/css; charset=utf-8", "try.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml", "inter.woff2": "font/woff2",
}

// pagePaths are their paths.
func pagePaths() (all []string) {
	for name := range pageFiles {
		all = append(all, docsPath+"/"+name)
	}
	return all
}

// docsPath is the page's.
const docsPath = "/docs"

// pagePolicy lets the page have its own files and ask its own party, and nothing
// else: no script or style in line, no text that becomes markup.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// What the page shows.
type (
	tagged struct {
		Name, Title, Description, Anchor string
		Operations                       []described
	}
	described struct {
		Method, Path, ID, Summary, Description string
		Roles                                  string // empty: decided otherwise
		Elsewhere, Listener                    string // the listener that has it; empty: this one
		Tokenless                              bool
		Parameters                             []param
		Body                                   []media
		Answers                                []reply
		Refusal                                *refusal
	}
	param struct {
		Name, In, Type, Description, Example, Default string
		Required                                      bool
	}
	media struct {
		Type, Example string
		Of            kind
	}
	reply struct {
		Status, Description string
		Media               []media
	}
	refusal struct{ Summary, Example string }
	// kind is a type in words; Ref names the schema that has its members.
	kind   struct{ Text, Ref string }
	member struct {
		Name, Description string
		Of                kind
		Required          bool
	}
	model struct {
		Name, Description string
		Of                kind
		Members           []member
	}
)

// serveDocuments serves the OpenAPI document, and a page for people made of it.
// They are made once, when one is first asked for: nothing in them depends on the
// caller, and making them takes as long as all else of a start.
func (s *server) serveDocuments(mux *surface, document *huma.OpenAPI) {
	made := sync.OnceValues(func() (map[string][]byte, error) { return s.documents(document) })
	serve := func(path, contentType, policy string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			all, err := made()
			if err != nil {
				s.refuse(w, r, err)
				return
			}
			w.Header().Set("Content-Type", contentType)
			if policy != "" {
				w.Header().Set("Content-Security-Policy", policy)
			}
			_, _ = w.Write(all[path]) // a failed write means that the caller went away
		})
	}
	serve("/openapi.json", "application/openapi+json", "")
	serve("/openapi.yaml", "application/openapi+yaml", "")
	if s.asyncAPI() != nil {
		serve("/asyncapi.json", "application/vnd.aai.asyncapi+json;version=3.0.0", "")
	}
	serve(docsPath, "text/html; charset=utf-8", pagePolicy)
	for name, contentType := range pageFiles {
		serve(docsPath+"/"+name, contentType, "")
	}
}

// documents makes what serveDocuments serves, by path.
func (s *server) documents(document *huma.OpenAPI) (map[string][]byte, error) {
	all := make(map[string][]byte)
	var err error
	if all["/openapi.json"], err = json.MarshalIndent(document, "", "  "); err != nil {
		return nil, err
	}
	if all["/openapi.yaml"], err = document.YAML(); err != nil {
		return nil, err
	}
	if messages := s.asyncAPI(); messages != nil {
		if all["/asyncapi.json"], err = json.MarshalIndent(messages, "", "  "); err != nil {
			return nil, err
		}
	}
	if all[docsPath], err = s.forPeople(document); err != nil {
		return nil, err
	}
	for name := range pageFiles {
		if all[docsPath+"/"+name], err = page.ReadFile("docs/" + name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// forPeople makes the page.
func (s *server) forPeople(document *huma.OpenAPI) ([]byte, error) {
	t, err := template.ParseFS(page, "docs/page.html")
	if err != nil {
		return nil, err
	}
	tags, err := s.describe(document)
	if err != nil {
		return nil, err
	}
	shown := struct {
		Party   string
		Async   bool // there are messages, too
		Tags    []tagged
		Schemas []model
		Read    []docs.Snippet // how an avatar is read; a world's only
	}{Party: string(s.party), Async: s.asyncAPI() != nil, Tags: tags, Schemas: schemasOf(document)}
	if s.world != nil {
		if shown.Read, err = docs.ReadAnAvatar(); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	err = t.Execute(&b, shown)
	return b.Bytes(), err
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

// methods are in the order in which a path's operations are shown.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete}

// describe sorts the document's operations by tag.
func (s *server) describe(document *huma.OpenAPI) (all []tagged, err error) {
	at := make(map[string]*tagged)
	for _, t := range document.Tags {
		title, rest, _ := strings.Cut(t.Description, ". ")
		anchor := strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(t.Name, ":", ""), " ", "-"))
		at[t.Name] = &tagged{Name: t.Name, Title: title, Description: rest, Anchor: anchor}
	}
	for path, item := range document.Paths {
		for method, op := range operationsOf(item) {
			d, err := s.describeOne(method, path, item, op)
			if err != nil {
				return nil, fmt.Errorf("describe %s: %w", op.OperationID, err)
			}
			tag := at[op.Tags[0]]
			if tag == nil {
				return nil, fmt.Errorf("%s has no tag that there is", op.OperationID)
			}
			tag.Operations = append(tag.Operations, d)
		}
	}
	for _, t := range document.Tags {
		tag := *at[t.Name]
		slices.SortFunc(tag.Operations, func(p, q described) int {
			return cmp.Or(cmp.Compare(p.Path, q.Path), cmp.Compare(slices.Index(methods, p.Method), slices.Index(methods, q.Method)))
		})
		all = append(all, tag)
	}
	return all, nil
}

func (s *server) describeOne(method, path string, item *huma.PathItem, op *huma.Operation) (d described, err error) {
	d = described{Method: method, Path: path, ID: op.OperationID, Summary: op.Summary, Description: op.Description}
	d.Tokenless = op.Security != nil && len(op.Security) == 0
	if use, known := policy.UseOf(policy.Action(op.OperationID)); known {
		d.Roles = s.mayCall(policy.Action(op.OperationID), use)
	}
	if len(item.Servers) > 0 {
		d.Elsewhere, d.Listener = item.Servers[0].URL, item.Servers[0].Description
	}
	for _, p := range op.Parameters {
		one := param{Name: p.Name, In: p.In, Type: kindOf(p.Schema).Text, Description: p.Description, Required: p.Required}
		if p.Example != nil {
			one.Example = fmt.Sprint(p.Example)
		}
		if p.Schema.Default != nil {
			one.Default = fmt.Sprint(p.Schema.Default)
		}
		d.Parameters = append(d.Parameters, one)
	}
	if op.RequestBody != nil {
		if d.Body, err = mediaOf(op.RequestBody.Content); err != nil {
			return d, err
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		a := reply{Status: status, Description: r.Description}
		if a.Media, err = mediaOf(r.Content); err != nil {
			return d, err
		}
		d.Answers = append(d.Answers, a)
		for _, m := range r.Content {
			if e := m.Examples["refused"]; e != nil {
				text, err := json.MarshalIndent(e.Value, "", "  ")
				if err != nil {
					return d, err
				}
				d.Refusal = &refusal{e.Summary, string(text)}
			}
		}
	}
	return d, nil
}

// mediaOf lists what a body may be.
func mediaOf(content map[string]*huma.MediaType) (all []media, err error) {
	for _, name := range slices.Sorted(maps.Keys(content)) {
		m := media{Type: name, Of: kindOf(content[name].Schema)}
		switch e := content[name].Example.(type) {
		case nil:
		case string:
			m.Example = e
		default:
			text, err := json.MarshalIndent(e, "", "  ")
			if err != nil {
				return nil, err
			}
			m.Example = string(text)
		}
		all = append(all, m)
	}
	return all, nil
}

// kindOf says in words what a schema takes.
func kindOf(s *huma.Schema) kind {
	switch {
	case s == nil:
		return kind{Text: "anything"}
	case s.Ref != "":
		name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		return kind{Text: name, Ref: name}
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i] = fmt.Sprint(e)
		}
		return kind{Text: strings.Join(words, " | ")}
	case s.Type == "array":
		of := kindOf(s.Items)
		return kind{Text: "list of " + of.Text, Ref: of.Ref}
	case s.Type == "object" && len(s.Properties) == 0:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			k := kindOf(of)
			return kind{Text: "object, by name: " + k.Text, Ref: k.Ref}
		}
	case s.Format == "date-time":
		return kind{Text: "time"}
	case s.Format == "binary":
		return kind{Text: "bytes"}
	case s.Type == "":
		return kind{Text: "anything"}
	}
	return kind{Text: s.Type}
}

// schemasOf lists the schemas that have a name, with their members.
func schemasOf(document *huma.OpenAPI) (all []model) {
	named := document.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(named)) {
		all = append(all, model{Name: name, Description: named[name].Description, Of: kindOf(named[name]), Members: membersOf("", named[name])})
	}
	return all
}

// membersOf lists a schema's members, and those of objects in it that have no name
// of their own.
func membersOf(prefix string, s *huma.Schema) (all []member) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		of := s.Properties[name]
		all = append(all, member{Name: prefix + name, Of: kindOf(of), Description: of.Description, Required: slices.Contains(s.Required, name)})
		if of.Ref == "" {
			all = append(all, membersOf(prefix+name+".", of)...)
		}
		if each, ok := of.AdditionalProperties.(*huma.Schema); ok && each.Ref == "" {
			all = append(all, membersOf(prefix+name+".*.", each)...)
		}
	}
	return all
}
