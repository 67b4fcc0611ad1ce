package demo

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"carnet/crossing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../docs/demo-report.schema.json"

// admitted holds a report against the schema.
func admitted(t *testing.T, r *Report) (value any) {
	t.Helper()
	compiled, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%s\n%v", data, err)
	}
	return value
}

// TestSchemaIsTheReport fills every member of a report: the schema admits no
// other, and names none that isn't written.
func TestSchemaIsTheReport(t *testing.T) {
	var r Report
	fill(reflect.ValueOf(&r).Elem())
	r.Input.LeftOut[0].Place, r.Refusals[0].Thing, r.Worlds[0].Thing = "line", "watch", "room"
	r.Shares[0].State, r.Shares[0].Taking = crossing.Ended, crossing.Asked
	value := admitted(t, &r)

	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	root.writtenIn(t, "", value)

	admitted(t, &Report{Worlds: []World{}, Shares: []Share{}, Grants: []Grant{}, Moves: []Move{}, Items: []Item{}, Jobs: []Job{}, Checks: []Check{}}) // what is left out where there is nothing
}

// schema is as much of JSON Schema as the comparison needs.
type schema struct {
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
}

func (s schema) writtenIn(t *testing.T, at string, value any) {
	t.Helper()
	switch v := value.(type) {
	case map[string]any:
		for name, sub := range s.Properties {
			if _, ok := v[name]; !ok {
				t.Errorf("%s/%s: the report lacks it", at, name)
			}
			sub.writtenIn(t, at+"/"+name, v[name])
		}
	case []any:
		for i := range v {
			s.Items.writtenIn(t, at+"/0", v[i])
		}
	}
}

// fill gives every member a value that isn't left out.
func fill(v reflect.Value) {
	if !v.CanSet() {
		return // the report doesn't write it
	}
	if _, ok := v.Interface().(time.Time); ok {
		v.Set(reflect.ValueOf(time.Unix(1_800_000_000, 0)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1)
	}
}
