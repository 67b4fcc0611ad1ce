package docs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// word is a test's name as the table has it, a package in which it may be, or a test's
// name that isn't marked as one.
var word = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`|[A-Za-z0-9_/*]+")

var function = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)

// TestRequirementsNameTests holds requirements.md against the tests: each that it names
// is in the package that is named before it in the same cell.
func TestRequirementsNameTests(t *testing.T) {
	tests := testsOf(t, "..")
	text, err := os.ReadFile("requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, says := range unfounded(string(text), tests, &named) {
		t.Error("docs/requirements.md", says)
	}
	if named < 300 {
		t.Errorf("it names %d tests only", named)
	}
}

// TestWhatRequirementsMayName is what is found wrong in a table.
func TestWhatRequirementsMayName(t *testing.T) {
	tests := map[string]map[string]bool{"seal": {"TestSeals": true, "FuzzSeals": true}, "modules/guest": {"TestKinds": true}}
	for row, want := range map[string]string{
		"| A1 | seal `TestSeals`, `FuzzSeals`; modules/* (`TestKinds`) | done: seal `TestSeals` |": "",
		"| A1 | keys | `TestSeals` |":              "names TestSeals without its package: write that before it",
		"| A1 | seal TestSeals |":                  "names TestSeals without backticks",
		"| A1 | modules/guest `TestSeals` |":       "has TestSeals in modules/guest, where it isn't",
		"| A1 | seal `TestOpens`; a `TestSeals` |": "has TestOpens in seal, where it isn't",
	} {
		named := 0
		if got := strings.Join(unfounded(row, tests, &named), "; "); got != want {
			t.Errorf("%s: %q, want %q", row, got, want)
		}
	}
}

// unfounded lists what a text says of tests that isn't so, and counts those that it names.
func unfounded(text string, tests map[string]map[string]bool, named *int) (bad []string) {
	for _, cell := range strings.Split(strings.ReplaceAll(text, "\n", "|"), "|") {
		in := ""
		for _, m := range word.FindAllStringSubmatch(cell, -1) {
			name := m[1]
			switch {
			case name == "" && function.MatchString("func "+m[0]+"("):
				bad = append(bad, "names "+m[0]+" without backticks")
			case name == "":
				if len(packages(m[0], tests)) > 0 {
					in = m[0]
				}
			case in == "":
				bad = append(bad, "names "+name+" without its package: write that before it")
			default:
				*named++
				found := false
				for _, p := range packages(in, tests) {
					found = found || tests[p][name]
				}
				if !found {
					bad = append(bad, "has "+name+" in "+in+", where it isn't")
				}
			}
		}
	}
	return bad
}

// packages are those that a word means: one, or with a * several.
func packages(pattern string, tests map[string]map[string]bool) (all []string) {
	for p := range tests {
		if ok, err := path.Match(pattern, p); ok && err == nil {
			all = append(all, p)
		}
	}
	return all
}

// testsOf finds the tests of every package below a directory.
func testsOf(t *testing.T, root string) map[string]map[string]bool {
	t.Helper()
	tests := make(map[string]map[string]bool)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && file != root) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(d.Name(), "_test.go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		in, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		in = filepath.ToSlash(in)
		if tests[in] == nil {
			tests[in] = make(map[string]bool)
		}
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			tests[in][m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
