package td

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"carnet"
)

// dataDir finds the shared recordings and examples, which are no part of the
// repository.
func dataDir(t *testing.T, path string) string {
	t.Helper()
	dir := os.Getenv("CARNET_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, path)
	if _, err := os.Stat(dir); err != nil {
		t.Skip("shared data not present")
	}
	return dir
}

func w3cSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(dataDir(t, "wot"), "w3c-td-1.1-json-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(t *testing.T, schema *jsonschema.Schema, data []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(v)
}

func TestW3CExamples(t *testing.T) {
	schema := w3cSchema(t)
	// What a JSON schema can't see: a scheme that is used and not defined, and a
	// name that occurs twice.
	onlyWe := []string{"invalidSecuMatch.json", "duplicateSecurityDefinitions.json"}
	for folder, count := range map[string]int{"valid": 20, "invalid": 9} {
		files, err := filepath.Glob(filepath.Join(dataDir(t, "wot"), folder, "*.json"))
		if err != nil || len(files) != count {
			t.Fatalf("%s: %d examples, want %d (%v)", folder, len(files), count, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(file)
			_, ours := Parse(data)
			if (ours == nil) != (folder == "valid") || ours != nil && carnet.CodeOf(ours) != carnet.Malformed {
				t.Errorf("%s/%s: Parse says %v", folder, name, ours)
			}
			if theirs := validate(t, schema, data); (theirs == nil) != (ours == nil) && !slices.Contains(onlyWe, name) {
				t.Errorf("%s: the schema says %v, Parse says %v", name, theirs, ours)
			}
		}
	}
}

// base is a description that is right; the tests change it one place at a time.
const base = `{
  "@context": ["https://www.w3.org/2022/wot/td/v1.1", {"carnet": "urn:carnet:td#"}],
  "id": "urn:lamp", "title": "Lamp",
  "securityDefinitions": {"basic": {"scheme": "basic", "in": "header"}, "none": {"scheme": "nosec"},
    "both": {"scheme": "combo", "allOf": ["basic", "none"]}},
  "security": "basic",
  "links": [{"href": "https://lamp.example/", "rel": "icon", "sizes": "16x16"}],
  "forms": [{"href": "all", "op": "readallproperties"}],
  "version": {"instance": "1"}, "created": "2026-01-31T12:00:00Z",
  "carnet:residency": ["eu", "ch"],
  "properties": {
    "level": {"type": "integer", "unit": "%", "minimum": 0, "maximum": 100, "forms": [{"href": "level", "op": ["readproperty"]}],
      "carnet:sensitivity": "public", "carnet:linger": "PT2.5S", "carnet:retention": "month"},
    "mode": {"type": "string", "enum": ["day", "night"], "forms": [{"href": "mode", "security": "both"}], "carnet:linger": 0},
    "where": {"type": "object", "forms": [{"href": "where"}], "carnet:sensitivity": ["location", "personal"], "properties": {
      "lat": {"type": "number", "unit": "lat", "minimum": -90, "maximum": 90},
      "lon": {"type": "number", "unit": "lon", "minimum": -180, "maximum": 180},
      "floor": {"type": "integer", "carnet:sensitivity": "public"}}},
    "raw": {"type": "string", "contentEncoding": "base64", "maxLength": 4, "forms": [{"href": "raw"}]},
    "on": {"type": "boolean", "forms": [{"href": "on"}]},
    "list": {"type": "array", "items": {"type": "number"}, "forms": [{"href": "list"}]}
  },
  "actions": {"blink": {"title": "Blink", "input": {"type": "integer"}, "safe": true, "forms": [{"href": "blink"}], "carnet:purposes": "maintenance"}},
  "events": {"hot": {"data": {"type": "number"}, "forms": [{"href": "hot", "op": "subscribeevent"}]}}
}`

// change sets the value at a pointer of base, or removes it with nil.
func change(t *testing.T, pointer string, value any) []byte {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(base), &doc); err != nil {
		t.Fatal(err)
	}
	at, steps := doc, strings.Split(pointer, "/")[1:]
	for i, step := range steps {
		switch x := at.(type) {
		case map[string]any:
			if i < len(steps)-1 {
				at = x[step]
			} else if value == nil {
				delete(x, step)
			} else {
				x[step] = value
			}
		case []any:
			index := int(step[0] - '0')
			if i < len(steps)-1 {
				at = x[index]
			} else {
				x[index] = value
			}
		default:
			t.Fatalf("%s is not in the base", pointer)
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type object = map[string]any

// TestParseRefuses changes one place and wants the refusal to name it, as the
// schema's verdict agrees, unless only we can see what is wrong.
func TestParseRefuses(t *testing.T) {
	type refusal struct {
		at     string // the place that is changed
		value  any
		names  string // the pointer in the refusal, when it is another
		onlyWe bool
	}
	var schema *jsonschema.Schema
	t.Run("schema", func(t *testing.T) { schema = w3cSchema(t) })
	for _, test := range []refusal{
		{"/@context", nil, `"@context" is missing`, false},
		{"/title", nil, `"title" is missing`, false},
		{"/security", nil, `"security" is missing`, false},
		{"/securityDefinitions", nil, `"securityDefinitions" is missing`, false},
		{"/@context/0", "https://example.org", "/@context", false},
		{"/@context/1", 5, "", false},
		{"/@context/1", object{"carnet": "urn:other"}, "/@context/1/carnet", true},
		{"/@context/1", object{"a": "urn:carnet:td#", "b": "urn:carnet:td#"}, "/@context/1/b", true},
		{"/@context/1", "https://www.w3.org/2019/wot/td/v1", "", false},
		{"/title", 5, "", false},
		{"/title", "", "", true},
		{"/titles", object{"de": 5}, "/titles/de", false},
		{"/id", "no uri", "", false},
		{"/@type", "tm:ThingModel", "", false},
		{"/security", "other", "", true},
		{"/security", []any{}, "", false},
		{"/securityDefinitions", object{}, "", false},
		{"/securityDefinitions/basic/scheme", nil, "/securityDefinitions/basic", false},
		{"/securityDefinitions/basic/scheme", "magic", "", false},
		{"/securityDefinitions/basic/in", "pocket", "", false},
		{"/securityDefinitions/both/allOf", []any{"basic"}, "", false},
		{"/securityDefinitions/both/allOf/1", "other", "", true},
		{"/securityDefinitions/both/oneOf", []any{"basic", "none"}, "/securityDefinitions/both", false},
		{"/links/0/rel", "next", "/links/0/sizes", false},
		{"/links/0/href", nil, "/links/0", false},
		{"/forms/0/op", nil, "/forms/0", false},
		{"/forms/0/op", "readproperty", "", false},
		{"/version/instance", nil, "/version", false},
		{"/created", "yesterday", "", false},
		{"/properties", []any{}, "", false},
		{"/properties/level/forms", nil, "/properties/level", false},
		{"/properties/level/forms", []any{}, "", false},
		{"/properties/level/forms/0/href", nil, "/properties/level/forms/0", false},
		{"/properties/level/forms/0/op/0", "invokeaction", "", false},
		{"/properties/level/type", "float", "", false},
		{"/properties/level/minimum", "0", "", false},
		{"/properties/level/multipleOf", 0, "", false},
		{"/properties/level/observable", "yes", "", false},
		{"/properties/level/unit", 5, "", false},
		{"/properties/mode/enum/1", "day", "", false},
		{"/properties/mode/enum", []any{}, "", false},
		{"/properties/raw/maxLength", -1, "", false},
		{"/properties/where/properties/lat/type", "angle", "", false},
		{"/properties/where/required", "lat", "", false},
		{"/actions/blink/input/type", "int", "", false},
		{"/actions/blink/safe", 1, "", false},
		{"/events/hot/forms/0/op", "invokeaction", "", false},
		{"/carnet:owner", "me", "", true},
		{"/carnet:residency", []any{}, "", true},
		{"/carnet:residency", "European Union", "", true},
		{"/properties/level/carnet:sensitivity", "secret", "", true},
		{"/properties/level/carnet:sensitivity", "", "", true},
		{"/properties/level/carnet:sensitivity", []any{}, "", true},
		{"/properties/level/carnet:sensitivity", []any{"public", "health"}, "", true},
		{"/properties/level/carnet:sensitivty", "public", "", true},
		{"/properties/level/carnet:linger", "PT61S", "", true},
		{"/properties/level/carnet:linger", -1, "", true},
		{"/properties/level/carnet:linger", 60.5, "", true},
		{"/properties/level/carnet:linger", "1s", "", true},
		{"/properties/level/carnet:retention", "week", "", true},
		{"/properties/where/properties/floor/carnet:retention", 5, "", true},
		{"/properties/level/urn:carnet:td#sensitivity", "secret", "/properties/level/urn:carnet:td#sensitivity", true},
		{"/properties/level/forms/0/carnet:sensitivity", "public", "", true},
		{"/actions/blink/carnet:linger", 1, "", true},
		{"/@context/1", object{}, "/carnet:residency", true},
	} {
		data := change(t, test.at, test.value)
		want := test.names
		if want == "" {
			want = test.at
		}
		_, err := Parse(data)
		if carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), want+":") && !strings.Contains(err.Error(), want+" ") {
			t.Errorf("%s = %v: %v", test.at, test.value, err)
		}
		if schema != nil && (validate(t, schema, data) == nil) != test.onlyWe {
			t.Errorf("%s = %v: the schema's verdict is not as expected", test.at, test.value)
		}
	}
}

func TestParseRefusesText(t *testing.T) {
	var wide, leaves string
	for i := range MaxMembers {
		wide += fmt.Sprintf(`"%d": 0, `, i)
	}
	for i := range MaxLeaves {
		leaves += fmt.Sprintf(`"p%d": {"type": "number", "forms": [{"href": "x"}]}, `, i)
	}
	for name, test := range map[string]struct {
		text string
		code carnet.Code
		says string
	}{
		"nothing":      {"", carnet.Malformed, "not JSON"},
		"no object":    {"[]", carnet.Malformed, "want an object"},
		"cut off":      {base[:len(base)-20], carnet.Malformed, "line 24"},
		"two values":   {base + "{}", carnet.Malformed, "not JSON"},
		"not UTF-8":    {strings.Replace(base, "Lamp", "L\xe4mp", 1), carnet.Malformed, "UTF-8"},
		"a name twice": {strings.Replace(base, `"on":`, `"mode":`, 1), carnet.Malformed, "/properties/mode: the name occurs twice"},
		"too deep":     {strings.Replace(base, `"1"`, strings.Repeat("[", 40)+strings.Repeat("]", 40), 1), carnet.TooLarge, "inside each other"},
		"too wide":     {strings.Replace(base, `"instance": "1"`, wide+`"instance": "1"`, 1), carnet.TooLarge, "/version: more than"},
		"too many":     {strings.Replace(base, `"on":`, leaves+`"on":`, 1), carnet.TooLarge, "properties and fields"},
		"too large":    {base + strings.Repeat(" ", MaxSize), carnet.TooLarge, "bytes"},
	} {
		if _, err := Parse([]byte(test.text)); carnet.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func parse(t testing.TB, data []byte) *Description {
	t.Helper()
	d, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCompile(t *testing.T) {
	d := parse(t, []byte(base))
	eu := carnet.NewSet("ch", "eu")
	for i, want := range []struct {
		name      string
		kind      carnet.Kind
		unit      string
		label     carnet.Label
		linger    time.Duration
		retention carnet.Retention
	}{
		{"level", carnet.Number, "%", carnet.Label{Sensitivity: carnet.Public, Residency: eu}, 2500 * time.Millisecond, carnet.Month},
		{"mode", carnet.Text, "", carnet.Label{Sensitivity: carnet.AllSensitive, Residency: eu}, 0, 0},
		{"where/lat", carnet.Number, "lat", carnet.Label{Sensitivity: carnet.Personal | carnet.Location, Residency: eu}, time.Second, 0},
		{"where/lon", carnet.Number, "lon", carnet.Label{Sensitivity: carnet.Personal | carnet.Location, Residency: eu}, time.Second, 0},
		{"where/floor", carnet.Number, "", carnet.Label{Sensitivity: carnet.Public, Residency: eu}, time.Second, 0},
		{"raw", carnet.Data, "", carnet.Label{Sensitivity: carnet.AllSensitive, Residency: eu}, time.Second, 0},
		{"on", carnet.Boolean, "", carnet.Label{Sensitivity: carnet.AllSensitive, Residency: eu}, time.Second, 0},
	} {
		p, ok := d.Lookup(want.name)
		if !ok {
			t.Fatalf("%s is not there", want.name)
		}
		if p.Index != i || p != &d.Properties[i] || p.Name != want.name || p.Kind != want.kind || p.Unit != want.unit || p.Label != want.label || p.Linger != want.linger || p.Retention != want.retention {
			t.Errorf("%s is %+v", want.name, *p)
		}
	}
	if p, _ := d.Lookup("where/lon"); p.Object != "where" {
		t.Errorf("where/lon is of %q", p.Object)
	}
	if len(d.Properties) != 7 || len(d.Unmeasured) != 1 || d.Unmeasured[0] != (Unmeasured{"list", "its type is array"}) {
		t.Errorf("%d leaves, unmeasured %v", len(d.Properties), d.Unmeasured)
	}
	a, e := d.Actions[0], d.Events[0]
	if a.Name != "blink" || a.Title != "Blink" || !a.Safe || a.Idempotent || string(a.Input) != `{"type": "integer"}` || a.Label.Purposes != "maintenance" || a.Label.Residency != eu {
		t.Errorf("the action is %+v", a)
	}
	if e.Name != "hot" || string(e.Data) != `{"type": "number"}` || e.Label.Sensitivity != carnet.AllSensitive {
		t.Errorf("the event is %+v", e)
	}
	if d.ID != "urn:lamp" || d.Title != "Lamp" || string(d.Source) != base {
		t.Errorf("the thing is %q, %q", d.ID, d.Title)
	}
}

// TestUnmeasured wants a reason, and no leaf, for what no measurement can hold.
func TestUnmeasured(t *testing.T) {
	for at, value := range map[string]any{
		"/properties/on/type":                   "null",
		"/properties/on/writeOnly":              true,
		"/properties/on/oneOf":                  []any{object{"const": true}},
		"/properties/on/enum":                   []any{"yes"},
		"/properties/mode/pattern":              "^d",
		"/properties/raw/contentEncoding":       "base32",
		"/properties/where/properties/lat/type": "object",
		"/properties/where/properties":          object{},
		"/properties/a~1b":                      nil, // replaced below
	} {
		name := strings.Split(at, "/")[2]
		data := change(t, at, value)
		if value == nil {
			name = "a/b"
			data = []byte(strings.Replace(base, `"on":`, `"a/b":`, 1))
		}
		d := parse(t, data)
		if !slices.ContainsFunc(d.Unmeasured, func(u Unmeasured) bool { return u.Name == name && u.Why != "" }) {
			t.Errorf("%s = %v: unmeasured %v", at, value, d.Unmeasured)
		}
		for _, field := range []string{"where/floor", "where/lat", "where/lon"} { // some were leaves before the one that failed
			if _, ok := d.Lookup(field); ok == (name == "where") {
				t.Errorf("%s = %v: found %s: %v", at, value, field, ok)
			}
		}
		for i, p := range d.Properties {
			if got, ok := d.Lookup(p.Name); p.Name == name || p.Object == name || !ok || got.Index != i {
				t.Errorf("%s = %v: %s is leaf %d", at, value, p.Name, i)
			}
		}
		if err := d.Unknown(name); err.Code != carnet.UnknownProperty || !strings.Contains(err.Reason, "can't be measured") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExamples(t *testing.T) {
	for name, test := range map[string]struct {
		text   []byte
		leaves []string
	}{
		"watch": {Watch(), []string{"heart_rate", "steps", "stress", "speed", "altitude", "cadence", "position/lat", "position/lon", "temperature"}},
		"room":  {Room(), []string{"temperature", "humidity", "light", "co2", "occupancy"}},

		"headset": {Headset(), []string{"head/x", "head/y", "head/z", "gaze/w", "gaze/x", "gaze/y", "gaze/z"}},
		"band":    {Band(), []string{"body_temperature", "temperature"}},
	} {
		d := parse(t, test.text)
		var leaves []string
		for i := range d.Properties {
			p := &d.Properties[i]
			leaves = append(leaves, p.Name)
			if p.Label.Sensitivity == carnet.AllSensitive || p.Retention == 0 || p.Kind == carnet.Number && (p.Minimum == nil || p.Maximum == nil) {
				t.Errorf("%s: %s leaves something open", name, p.Name)
			}
		}
		if !slices.Equal(leaves, test.leaves) || d.Unmeasured != nil {
			t.Errorf("%s has %v, unmeasured %v", name, leaves, d.Unmeasured)
		}
		t.Run("schema", func(t *testing.T) {
			if err := validate(t, w3cSchema(t), test.text); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(base))
	f.Add(Watch())
	f.Add([]byte(`{"@context":"https://www.w3.org/2022/wot/td/v1.1","title":"x","security":"a","securityDefinitions":{"a":{"scheme":"nosec"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(data)
		if err != nil {
			if _, ok := errors.AsType[*carnet.Error](err); !ok {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		for i := range d.Properties {
			if p, ok := d.Lookup(d.Properties[i].Name); !ok || p.Index != i {
				t.Fatalf("%q is not leaf %d", d.Properties[i].Name, i)
			}
		}
	})
}

// TestWhatTheSchemaRefusesIsRefused puts a wrong value at each place of a right
// description, one after the other, and compares the verdicts.
func TestWhatTheSchemaRefusesIsRefused(t *testing.T) {
	schema := w3cSchema(t)
	var doc any
	if err := json.Unmarshal([]byte(base), &doc); err != nil {
		t.Fatal(err)
	}
	refused := 0
	everyPlace(doc, "", func(at string) {
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if theirs := validate(t, schema, data); theirs != nil {
			refused++
			if _, ours := Parse(data); ours == nil {
				t.Errorf("%s: Parse accepts it, the schema says %v", at, theirs)
			}
		}
	})
	if refused < 500 {
		t.Errorf("only %d descriptions were wrong", refused)
	}
}

// everyPlace calls try with each value inside v replaced by each of a few others.
func everyPlace(v any, at string, try func(at string)) {
	wrong := []any{nil, true, -1.5, "", "wrong", []any{}, []any{1.0}, []any{"wrong", "wrong"}, object{}, object{"wrong": 1.0}}
	switch x := v.(type) {
	case object:
		for name, was := range x {
			everyPlace(was, at+"/"+name, try)
			for _, w := range wrong {
				x[name] = w
				try(fmt.Sprintf("%s/%s = %v", at, name, w))
			}
			delete(x, name)
			try(at + "/" + name + " left out")
			x[name] = was
		}
	case []any:
		for i, was := range x {
			everyPlace(was, fmt.Sprintf("%s/%d", at, i), try)
			for _, w := range wrong {
				x[i] = w
				try(fmt.Sprintf("%s/%d = %v", at, i, w))
			}
			x[i] = was
		}
	}
}

// All values of an enum are told apart, however many they are and whatever is in them.
func TestEnumsOfObjects(t *testing.T) {
	with := func(values string) []byte {
		return []byte(strings.Replace(base, `["day", "night"]`, "["+values+"]", 1))
	}
	var many []string
	for i := range maxEnum { // as many as there may be, of 1 MiB together
		var one strings.Builder
		for n := range 570 {
			fmt.Fprintf(&one, `"%c%c":0,`, 'a'+n%26, 'a'+n/26)
		}
		many = append(many, fmt.Sprintf(`{%s"last":%d}`, &one, i))
	}
	before := processor(t)
	if _, err := Parse(with(strings.Join(many, ","))); err != nil {
		t.Error(err)
	}
	if took := processor(t) - before; took > 4*time.Second { // a tenth of that will do
		t.Errorf("the values take %v of the processor", took)
	}
	for values, twice := range map[string]bool{
		`1, 1.0`: true, `0, -0.0`: true, `100, 1e2`: true, `1, "1"`: false, `true, "true"`: false, `null, "<nil>"`: false, `"a", "A"`: false,
		`{"a":1,"b":[2]}, {"b":[2.0],"a":1}`: true, `{"a":1,"b":[2]}, {"b":[2],"a":2}`: false, `[1,2], [2,1]`: false, `[1], 1`: false,
		`{}, []`: false, `{"a":1}, {"a":1,"b":2}`: false, `["a,b"], ["a","b"]`: false, `{"a":"b"}, ["a","b"]`: false, `[[1],2], [[1,2]]`: false,
	} {
		if _, err := Parse(with(values)); (err != nil) != twice {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// processor is how much time of it the process has had.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano())
}
