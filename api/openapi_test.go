package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"carnet/avatar"
	"carnet/policy"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// operation is one of an OpenAPI document's.
type operation struct {
	method, path, id, summary string
	doc                       map[string]any
}

func openAPI(t testing.TB, base string) map[string]any {
	t.Helper()
	a := ask(t, "GET", base+"/openapi.json", "", "")
	var doc map[string]any
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("the document is %d: %v", a.status, err)
	}
	return doc
}

func operations(t testing.TB, base string) (all []operation) {
	t.Helper()
	for path, item := range openAPI(t, base)["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			o, ok := op.(map[string]any)
			if !ok { // the item's servers
				continue
			}
			summary, _ := o["summary"].(string)
			all = append(all, operation{strings.ToUpper(method), path, o["operationId"].(string), summary, o})
		}
	}
	return all
}

// find follows names in a document; nil where one is missing.
func find(v any, names ...string) any {
	for _, n := range names {
		m, _ := v.(map[string]any)
		v = m[n]
	}
	return v
}

var record = flag.Bool("record", false, "write examples.json anew")

// Every operation of the documents, called with its own examples, answers what the
// document says, and as examples.json has it.
func TestTheDocumentIsTrue(t *testing.T) {
	r := newReview(t)
	for _, base := range []string{r.forgeURL, r.vaultURL, r.hubURL, r.arenaURL} {
		doc := openAPI(t, base)
		if doc["openapi"] != "3.1.0" {
			t.Errorf("the version is %v", doc["openapi"])
		}
		known := r.tagsOf(doc)
		schemas := compiler(t, doc)
		all := operations(t, base)
		// What ends something comes last, what makes it first.
		slices.SortFunc(all, func(p, q operation) int { return strings.Compare(last(p), last(q)) })
		for _, op := range all {
			if tags, _ := op.doc["tags"].([]any); len(tags) != 1 || !known[fmt.Sprint(tags[0])] {
				t.Errorf("%s has the tags %v, want one of %v", op.id, tags, known)
			}
			if op.summary == "" || find(op.doc, "responses", "default", "content", "application/problem+json", "schema") == nil {
				t.Errorf("%s has no summary, or doesn't say how it refuses", op.id)
			}
			q := r.question(base, op)
			if example, media := exampleOf(op); example != nil {
				check(t, op.id+"'s example", schemas(op.path, op.method, "requestBody", "content", media, "schema"), marshal(t, example))
			} else if op.doc["requestBody"] != nil && !slices.Contains([]string{"state-entries", "freeze-avatar", "begin-recovery", "put-stretch"}, op.id) { // bytes
				t.Errorf("%s has a body and no example of it", op.id)
			}
			if ofMoves(op) {
				for status, answer := range find(op.doc, "responses").(map[string]any) {
					if example := find(answer, "content", "application/json", "example"); example != nil {
						check(t, op.id+"'s example of an answer", schemas(op.path, op.method, "responses", status, "content", "application/json", "schema"), marshal(t, example))
					}
				}
				if op.id == "get-manifest" {
					text, _ := find(op.doc, "responses", "200", "content", "application/octet-stream", "example").(string)
					if m, err := avatar.ParseManifest([]byte(text)); err != nil || len(m.Stretches) != 1 {
						t.Errorf("%s has the example %q: %v", op.id, text, err)
					}
				}
				continue
			}
			refusal := func(name string, text string) {
				check(t, name, schemas(op.path, op.method, "responses", "default", "content", "application/problem+json", "schema"), text)
			}
			if signedElsewhere[op.id] {
				r.refused(base, op, q, refusal)
				continue
			}
			a := r.put(q)
			kind := a.header.Get("Content-Type")
			content := find(op.doc, "responses", fmt.Sprint(a.status), "content", kind)
			if a.status/100 != 2 || content == nil && a.status != http.StatusNoContent {
				t.Errorf("%s answers %d %s, which its document doesn't say: %s", op.id, a.status, kind, a.body)
				continue
			}
			if strings.HasSuffix(kind, "json") {
				schema := schemas(op.path, op.method, "responses", fmt.Sprint(a.status), "content", kind, "schema")
				check(t, op.id+"'s answer", schema, a.body)
				if example := find(content, "example"); example != nil {
					check(t, op.id+"'s example of an answer", schema, marshal(t, example))
				}
			}
			if find(content, "example") == nil && readable(kind) && !*record {
				t.Errorf("%s has no example of its answer", op.id)
			}
			r.answered(base, op, a)
			r.refused(base, op, q, refusal)
		}
		for _, path := range []string{"/openapi.yaml", "/docs"} {
			text := ask(t, "GET", base+path, "", "").body
			for _, op := range all {
				if !strings.Contains(text, op.path) || !strings.Contains(text, op.id) {
					t.Errorf("%s doesn't list %s", path, op.id)
				}
			}
		}
	}
	r.compare()
}

func last(op operation) string {
	return fmt.Sprint(op.method == "DELETE", op.method != "PUT", op.path, op.method)
}

// ofMoves reports what needs two worlds that are in the midst of a move: only the
// examples are held against the schemas here. test/faults TestMove has it called, by the
// types that the schemas are made of.
func ofMoves(op operation) bool {
	return strings.Contains(op.path, "/moves/{crossing}") || op.path == "/r5/recovered"
}

// signedElsewhere are operations that need what another world has signed and proved, a
// registrar's commit, or a job that just then runs: here only their refusals are called. test/faults TestAnAvatarIsRecovered has the
// rest called.
var signedElsewhere = map[string]bool{"export-avatar": true, "put-stretch": true, "get-crossing-proof": true, "recover-mappings": true, "get-partial": true, "get-own-job-partial": true}

// exampleOf finds the example of an operation's request.
func exampleOf(op operation) (example any, media string) {
	content, _ := find(op.doc, "requestBody", "content").(map[string]any)
	for media, m := range content {
		if e := find(m, "example"); e != nil {
			return e, media
		}
	}
	return nil, ""
}

// query makes a query of the examples of an operation's parameters, and checks
// that those of its path are documented.
func query(t testing.TB, op operation) string {
	t.Helper()
	v := url.Values{}
	named := map[string]bool{}
	parameters, _ := op.doc["parameters"].([]any)
	for _, p := range parameters {
		name := find(p, "name").(string)
		named[name] = find(p, "in") == "path"
		if find(p, "in") == "query" && find(p, "example") != nil {
			v.Set(name, fmt.Sprint(find(p, "example")))
		}
	}
	for _, name := range []string{"id", "name", "peer", "share", "fingerprint", "home", "crossing", "stream", "job", "attempt", "n"} {
		if strings.Contains(op.path, "{"+name+"}") != named[name] {
			t.Errorf("%s: the path and the parameters disagree on %s", op.id, name)
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// compiler compiles schemas at places in the document: OpenAPI 3.1 schemas are
// JSON Schema 2020-12.
func compiler(t testing.TB, doc map[string]any) func(path, method string, names ...string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	resource, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(marshal(t, doc))))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("carnet:openapi.json", resource); err != nil {
		t.Fatal(err)
	}
	for name := range find(doc, "components", "schemas").(map[string]any) {
		if _, err := c.Compile("carnet:openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("the schema %s: %v", name, err)
		}
	}
	return func(path, method string, names ...string) *jsonschema.Schema {
		pointer := "carnet:openapi.json#/paths"
		for _, n := range append([]string{path, strings.ToLower(method)}, names...) {
			pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(n))
		}
		schema, err := c.Compile(pointer)
		if err != nil {
			t.Fatalf("the schema at %s: %v", pointer, err)
		}
		return schema
	}
}

func check(t testing.TB, what string, schema *jsonschema.Schema, text string) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s isn't of its schema: %v\n%s", what, err, text)
	}
}

// The page for people lists every operation of the document, with its group.
func TestThePageListsEveryOperation(t *testing.T) {
	page, err := os.ReadFile("../docs/design/api.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[[3]string]bool) // operation, tag and group
	for _, row := range regexp.MustCompile("(?m)^\\| ([A-Z]+) \\| `([^`]+)` \\| ([A-Za-z0-9: ]+?) \\| ([a-z]*) ?\\|").FindAllStringSubmatch(string(page), -1) {
		listed[[3]string{row[1] + " " + row[2], row[3], row[4]}] = true
	}
	left := maps.Clone(listed)
	s := newServed(t)
	vault, _ := newVault(t)
	for _, base := range []string{s.hubURL, s.arenaURL, s.forgeURL, s.serve(vault)} {
		for _, o := range operations(t, base) {
			use, _ := policy.UseOf(policy.Action(o.id))
			tag := fmt.Sprint(o.doc["tags"].([]any)[0])
			row := [3]string{o.method + " " + o.path, tag, string(use.Group)}
			if !listed[row] {
				t.Errorf("docs/design/api.md doesn't list %s %s with the tag %s and the group %q", o.method, o.path, tag, use.Group)
			}
			delete(left, row)
		}
	}
	for row := range left {
		t.Errorf("docs/design/api.md lists %s, which no party has", row)
	}
}
