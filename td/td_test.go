package td

import (
	"os"
	"path/filepath"
	"testing"

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

func TestW3CExamples(t *testing.T) {
	dir := dataDir(t, "wot")
	compiler := jsonschema.NewCompiler()
	schema, err := compiler.Compile(filepath.Join(dir, "w3c-td-1.1-json-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	// What a JSON schema can't see: a scheme that is used and not defined, and a
	// name that occurs twice.
	onlyWe := map[string]bool{"invalidSecuMatch.json": true, "duplicateSecurityDefinitions.json": true}
	for folder, count := range map[string]int{"valid": 20, "invalid": 9} {
		files, err := filepath.Glob(filepath.Join(dir, folder, "*.json"))
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
			if (ours == nil) != (folder == "valid") {
				t.Errorf("%s/%s: Parse says %v", folder, name, ours)
			}
			if ours != nil && carnet.CodeOf(ours) != carnet.Malformed {
				t.Errorf("%s: code %q, want malformed", name, carnet.CodeOf(ours))
			}
			if theirs := validate(t, schema, file); (theirs == nil) != (ours == nil) && !onlyWe[name] {
				t.Errorf("%s: the schema says %v, Parse says %v", name, theirs, ours)
			}
			if ours != nil {
				t.Log(name, ours)
			}
		}
	}
}

func validate(t *testing.T, schema *jsonschema.Schema, file string) error {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(v)
}
