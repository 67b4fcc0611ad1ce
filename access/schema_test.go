package access

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../docs/access.schema.json"

// schema is as much of JSON Schema as the comparison needs.
type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Const      any               `json:"const"`
	Enum       []string          `json:"enum"`
	Required   []string          `json:"required"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	Defs       map[string]schema `json:"$defs"`
}

// TestSchemaIsTheType holds docs/access.schema.json against the Go type, member
// by member in both directions.
func TestSchemaIsTheType(t *testing.T) {
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	same(t, root.Defs, "", root, reflect.TypeFor[File]())
}

func same(t *testing.T, defs map[string]schema, at string, s schema, goes reflect.Type) {
	t.Helper()
	if s.Ref != "" {
		s = defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
	}
	if goes.Kind() == reflect.Pointer {
		goes = goes.Elem()
	}
	kind := goes.Kind()
	switch {
	case kind == reflect.Struct:
		sameStruct(t, defs, at, s, goes)
	case kind == reflect.Slice:
		if s.Type != "array" || s.Items == nil {
			t.Errorf("%s: schema has type %q, Go a slice", at, s.Type)
			return
		}
		same(t, defs, at+"/0", *s.Items, goes.Elem())
	case kind == reflect.Int:
		if s.Const != float64(Version) {
			t.Errorf("%s: schema has %v, Go the version %d", at, s.Const, Version)
		}
	case kind == reflect.String, kind == reflect.Array: // ids are arrays that write themselves as text
		if s.Type != "string" && len(s.Enum) == 0 {
			t.Errorf("%s: schema has type %q, Go %s", at, s.Type, goes)
		}
	default:
		t.Errorf("%s: the test doesn't know %s", at, goes)
	}
}

func sameStruct(t *testing.T, defs map[string]schema, at string, s schema, goes reflect.Type) {
	t.Helper()
	if s.Type != "object" {
		t.Errorf("%s: schema has type %q, Go a struct", at, s.Type)
	}
	var members, required []string
	for i := range goes.NumField() {
		field := goes.Field(i)
		if !field.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		members = append(members, name)
		if options != "omitempty" {
			required = append(required, name)
		}
		sub, ok := s.Properties[name]
		if !ok {
			t.Errorf("%s/%s: the schema lacks it", at, name)
			continue
		}
		same(t, defs, at+"/"+name, sub, field.Type)
	}
	for name := range s.Properties {
		if !slices.Contains(members, name) {
			t.Errorf("%s/%s: the Go type lacks it", at, name)
		}
	}
	if !slices.Equal(required, s.Required) {
		t.Errorf("%s: the schema requires %q, Go always writes %q", at, s.Required, required)
	}
}

func TestSchemaAdmitsWhatIsWritten(t *testing.T) {
	compiled, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	valid := func(f *File) error {
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return compiled.Validate(v)
	}
	if err := valid(full()); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*File){
		"version":     func(f *File) { f.Version = 2 },
		"party id":    func(f *File) { f.Parties[0].Name = "Hub" },
		"role":        func(f *File) { f.Parties[0].Role = "king" },
		"plain HTTP":  func(f *File) { f.Parties[0].HTTP = "http://localhost" },
		"token role":  func(f *File) { f.Tokens[0].Role = "king" },
		"thing id":    func(f *File) { f.Things[0].ID = "Watch" },
		"no tokens":   func(f *File) { f.Tokens = nil },
		"no encoding": func(f *File) { f.Things[0].Encodings = nil },
	} {
		f := full()
		spoil(f)
		if valid(f) == nil {
			t.Errorf("%s: the schema admits it", name)
		}
	}
}
