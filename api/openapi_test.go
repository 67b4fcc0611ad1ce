package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"carnet"
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
			o := op.(map[string]any)
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

// Every operation of the document, called with its own examples, answers what
// the document says.
func TestTheDocumentIsTrue(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}},"purposes":["fitness"],"send":{"UTC":["mon-sun 00:00-24:00"]}}`)
	d.mustSend(heart(0, 72))
	d.send(carnet.Measurement{Name: "mood", Time: heart(1, 0).Time, Value: carnet.Float(1)})
	s.arrived(m.Avatar, 1)
	s.pinned(m)
	for base, ids := range map[string][2]string{s.hubURL: {"watch-7", m.ID.String()}, s.arenaURL: {m.Avatar.String(), ""}} {
		doc := openAPI(t, base)
		if doc["openapi"] != "3.1.0" {
			t.Errorf("the version is %v", doc["openapi"])
		}
		schemas := compiler(t, doc)
		all := operations(t, base)
		// What ends a mapping comes last.
		slices.SortFunc(all, func(p, q operation) int { return strings.Compare(last(p), last(q)) })
		for _, op := range all {
			if op.id == "watch-avatar" {
				continue // no single answer: TestServerSentEvents
			}
			if op.summary == "" || find(op.doc, "responses", "default", "content", "application/problem+json", "schema") == nil {
				t.Errorf("%s has no summary, or doesn't say how it refuses", op.id)
			}
			id := ids[0]
			if strings.HasPrefix(op.path, "/v1/mappings/") {
				id = ids[1]
			}
			mine, signed := s.signed(op.id, m)
			if mine != "" {
				id = mine
			}
			if strings.HasPrefix(op.path, "/v1/shares") {
				id, signed = s.sharing(op.id, m)
			}
			if slices.Contains([]string{"remove-principal", "assess-grant", "give-grant", "get-grant", "revoke-grant"}, op.id) {
				id, signed = s.granting(op.id, m)
			}
			address := base + strings.NewReplacer("{id}", id, "{name}", "alice", "{peer}", "gym", "{invitation}", invitation, "{world}", "citadel", "{avatar}", id).Replace(op.path) + query(t, op)
			body := ""
			if op.doc["requestBody"] != nil {
				example := find(op.doc, "requestBody", "content", "application/json", "example")
				if example == nil {
					t.Errorf("%s has a body and no example of it", op.id)
					continue
				}
				body = marshal(t, example)
				check(t, op.id+"'s example", schemas(op.path, op.method, "requestBody", "content", "application/json", "schema"), body)
			}
			if signed != "" {
				body = signed
			}
			token := "operator-token"
			if strings.HasPrefix(op.path, "/v1/peerings/") {
				token = secret
			}
			a := ask(t, op.method, address, token, body)
			kind := a.header.Get("Content-Type")
			if find(op.doc, "responses", fmt.Sprint(a.status), "content", kind, "schema") == nil || a.status/100 != 2 {
				t.Errorf("%s answers %d %s, which its document doesn't say: %s", op.id, a.status, kind, a.body)
				continue
			}
			if strings.HasSuffix(kind, "json") { // the others have their own tests
				check(t, op.id+"'s answer", schemas(op.path, op.method, "responses", fmt.Sprint(a.status), "content", kind, "schema"), a.body)
			}
			refused := ask(t, op.method, address, "odd-token", body)
			if op.path != "/healthz" {
				check(t, op.id+"'s refusal", schemas(op.path, op.method, "responses", "default", "content", "application/problem+json", "schema"), refused.body)
			}
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
}

func last(op operation) string { return fmt.Sprint(op.method == "DELETE", op.path, op.method) }

// query makes a query of the examples of an operation's parameters, and checks
// that those of its path are documented.
func query(t testing.TB, op operation) string {
	t.Helper()
	v := url.Values{}
	named := map[string]bool{}
	parameters, _ := op.doc["parameters"].([]any)
	for _, p := range parameters {
		name := find(p, "name").(string)
		named[name] = true
		if find(p, "in") == "query" && find(p, "example") != nil {
			v.Set(name, fmt.Sprint(find(p, "example")))
		}
	}
	for _, name := range []string{"id", "name"} {
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
	listed := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| ([A-Z]+) \\| `([^`]+)` \\| ([a-z]*) ?\\|").FindAllStringSubmatch(string(page), -1) {
		listed[row[1]+" "+row[2]] = row[3]
	}
	s := newServed(t)
	for _, base := range []string{s.hubURL, s.arenaURL} {
		for _, o := range operations(t, base) {
			use, _ := policy.UseOf(policy.Action(o.id))
			if group, ok := listed[o.method+" "+o.path]; !ok || group != string(use.Group) {
				t.Errorf("docs/design/api.md lists %s %s (%t) in the group %q, and it is in %q", o.method, o.path, ok, group, use.Group)
			}
		}
	}
}
