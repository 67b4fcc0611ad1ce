package node

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/operations/configuration.md anew")

const manualFile = "../docs/operations/configuration.md"

// TestTheManualIsTheConfiguration holds the manual of carnet.toml against Config
// and its comments, of which it is made: go test ./node -run Manual -update.
func TestTheManualIsTheConfiguration(t *testing.T) {
	want := manual(t)
	if *update {
		if err := os.WriteFile(manualFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(manualFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the configuration's comments say; write it anew: go test ./node -run Manual -update", manualFile)
	}
}

const preface = `# carnet.toml

The configuration of a party, in TOML. ` + "`carnet party init`" + ` writes it, with mode 0600; changes hold from the party's next start on. A key that isn't known
stops the start, and so does a value that can't be. This page is made from the comments of the Go types (` + "`node.Config`" + `), and a test holds it against them.

A world's, with all that it must have; tokens are added by ` + "`carnet party token`" + `:

` + "```toml\n" + example + "```\n"

// example is a configuration that the manual shows, and that can be read.
const example = `party = 'arena'
role = 'world'
data = 'data'
key_file = 'kek'

[store]
kind = 'sqlite'

[listen]
http = ':8443'
link = ':7443'
r5 = ':7444' # only where worlds share or move avatars

[advertise]
hosts = ['arena.example.org']

[world]
purpose = 'fitness'
sensitivity = 'personal+health'
`

// TestTheExampleIsAConfiguration reads what the manual shows.
func TestTheExampleIsAConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "carnet.toml")
	if err := os.WriteFile(path, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadConfig(path); err != nil || c.Party != "arena" || c.Listen.Link != ":7443" {
		t.Errorf("it is read as %+v, %v", c, err)
	}
}

// manual makes the page: a table for the file, and one for each of its tables.
func manual(t *testing.T) string {
	t.Helper()
	docs := comments(t)
	var b strings.Builder
	b.WriteString(preface)
	var section func(title string, of reflect.Type)
	section = func(title string, of reflect.Type) {
		doc := docs[of.Name()]
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | value | meaning |\n| --- | --- | --- |\n", title, doc[""])
		type sub struct {
			title string
			of    reflect.Type
		}
		var subs []sub
		var row string // of keys that share a comment
		var values []string
		for i := range of.NumField() {
			f := of.Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
			if key == "" {
				continue
			}
			value, meaning := kind(f.Type), doc[f.Name]
			switch inner := f.Type; {
			case inner.Kind() == reflect.Struct:
				subs = append(subs, sub{"[" + key + "]", inner})
				value = "table, below"
			case inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct:
				subs = append(subs, sub{"[[" + key + "]]", inner.Elem()})
				value = "tables, below"
			}
			if meaning == "" && !strings.Contains(value, "below") {
				t.Errorf("%s.%s has no comment: the manual doesn't say what it is", of.Name(), f.Name)
			}
			row += "`" + key + "`"
			if next := i + 1; meaning != "" && next < of.NumField() && doc[of.Field(next).Name] == meaning {
				row, values = row+", ", append(values, value)
				continue
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", row, strings.Join(slices.Compact(append(values, value)), "; "), keyed(of, meaning))
			row, values = "", nil
		}
		for _, s := range subs {
			section("`"+s.title+"`", s.of)
		}
	}
	section("The file", reflect.TypeFor[Config]())
	return b.String()
}

// keyed writes the fields that a comment names as the keys that they are.
func keyed(of reflect.Type, text string) string {
	for i := range of.NumField() {
		f := of.Field(i)
		if key, _, _ := strings.Cut(f.Tag.Get("toml"), ","); key != "" {
			text = regexp.MustCompile(`\b`+f.Name+`\b`).ReplaceAllLiteralString(text, "`"+key+"`")
		}
	}
	return text
}

func kind(of reflect.Type) string {
	switch {
	case of == reflect.TypeFor[Duration]():
		return "duration, such as `90s`"
	case of.Kind() == reflect.Slice:
		return "list of texts"
	case of.Kind() == reflect.Int:
		return "number"
	case of.Kind() == reflect.Bool:
		return "true or false"
	}
	return "text"
}

// comments reads the comments of the package's types: of each type its own under
// "", and those of its fields. Fields that follow a comment without a blank line
// or a comment of their own share it.
func comments(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := make(map[string]map[string]string)
	files := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, e.Name(), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				typ, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				if s, ok := typ.Type.(*ast.StructType); ok {
					all[typ.Name.Name] = fields(files, s, text(g.Doc))
				}
			}
		}
	}
	return all
}

func fields(files *token.FileSet, s *ast.StructType, doc string) map[string]string {
	found := map[string]string{"": doc}
	shared, line := "", 0
	for _, f := range s.Fields.List {
		own := text(f.Doc)
		if own == "" && files.Position(f.Pos()).Line == line+1 {
			own = shared
		}
		shared, line = own, files.Position(f.End()).Line
		if c := text(f.Comment); c != "" {
			own = c
		}
		for _, name := range f.Names {
			found[name.Name] = own
		}
	}
	return found
}

func text(c *ast.CommentGroup) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(c.Text()), " "), "|", "\\|")
}
