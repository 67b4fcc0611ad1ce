package evidence

import (
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Evidence is judged by its bytes: no agent, store or policy has a say.
func TestImportsFormatsAlone(t *testing.T) {
	allowed := []string{"carnet", "carnet/capsule", "carnet/identity", "carnet/ledger", "carnet/seal", "carnet/senml"}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range files {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if seen++; strings.HasPrefix(path, "carnet") && !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", e.Name(), path)
			}
		}
	}
	if seen == 0 {
		t.Error("no imports were read")
	}
}
