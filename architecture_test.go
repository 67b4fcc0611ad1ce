package carnet_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ranks orders the packages: a package may import packages of lower ranks only,
// so that imports go one way and siblings don't know each other. A package that
// isn't listed fails the test: find its place first.
var ranks = map[string]int{
	"carnet": 0, "carnet/claim": 0, "carnet/socket": 0,

	"carnet/senml": 1, "carnet/td": 1, "carnet/seal": 1, "carnet/keys": 1, "carnet/porter": 1, "carnet/problem": 1, "carnet/docs": 1, "carnet/bodies": 1,
	"carnet/engine": 1, // what engines share

	"carnet/engine/wasm": 2, "carnet/engine/sql": 2, // leaves

	"carnet/policy": 2, "carnet/identity": 2, "carnet/ledger": 2, "carnet/revocation": 2,
	"carnet/link": 3, "carnet/ledger/tlog": 3, "carnet/access": 3, "carnet/owner": 3, "carnet/mandate": 3, "carnet/activity": 3, "carnet/peering": 3,
	"carnet/shelf": 3, "carnet/item": 3, "carnet/capsule": 3,

	"carnet/thing": 4, "carnet/avatar": 4, "carnet/depot": 4, "carnet/entity": 4, "carnet/dpm": 4,
	"carnet/account": 4, "carnet/register": 4, "carnet/item/itemtest": 4,
	"carnet/evidence": 5, "carnet/audit": 5, "carnet/crossing": 5, "carnet/crossing/r5": 5, "carnet/crossing/move": 5, "carnet/job": 5,
	"carnet/passport":     6, // takes evidence's forms
	"carnet/job/thinglog": 6, // applies views as audits do

	"carnet/erasure": 6, // above shares and moves, whose others it tells

	"carnet/store/sqlite":     6,
	"carnet/store/postgres":   6,
	"carnet/store/storetest":  6,
	"carnet/wire/file":        6,
	"carnet/wire/mqtt":        6,
	"carnet/wire/mqtt/packet": 6,
	"carnet/wire/mqtt/client": 6,

	"carnet/api":           7,
	"carnet/console":       7,
	"carnet/api/client":    8,
	"carnet/node":          8,
	"carnet/demo":          9,
	"carnet/demo/demotest": 0,
	"carnet/cmd/carnet":    10,
	"carnet/test/wait":     0,
	"carnet/test/faults":   10,
	"carnet/test/spine":    10,
	"carnet/test/world":    10,
	"carnet/test/share":    10,
	"carnet/test/passage":  10,
	"carnet/test/capsule":  10,
	"carnet/test/bench":    10,

	// Modules are programs of their own, which run in the sandbox of an engine.
	"carnet/modules/guest":       0,
	"carnet/modules/gazemap":     2,
	"carnet/modules/heartzones":  2,
	"carnet/modules/motion":      2,
	"carnet/modules/stepcadence": 2,
	"carnet/modules/moduletest":  1,
}

// exceptions are imports that the ranks would forbid, each with its reason.
var exceptions = map[string]string{
	"carnet/api carnet/api/client":                    "tests only: the client is the API's counterpart",
	"carnet/wire/mqtt carnet/wire/mqtt/packet":        "a package and its own part",
	"carnet/wire/mqtt/client carnet/wire/mqtt/packet": "a package and its own part",
	"carnet/store/sqlite carnet/store/storetest":      "tests only: the suite that every adapter passes",
	"carnet/store/postgres carnet/store/storetest":    "tests only: the suite that every adapter passes",
	"carnet/wire/mqtt carnet/wire/mqtt/client":        "tests only: the client is the server's counterpart",
	"carnet/item carnet/item/itemtest":                "tests only: what its own tests and those of moves share",
}

type listed struct {
	ImportPath                         string
	Dir                                string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
	Standard                           bool
}

func list(t *testing.T) (packages []listed) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("read package list: %v", err)
		}
		packages = append(packages, p)
	}
}

func TestImportsGoOneWay(t *testing.T) {
	ranked, used := make(map[string]bool), make(map[string]bool)
	defer func() {
		for name := range ranks {
			if !ranked[name] {
				t.Errorf("%s has a rank and isn't there", name)
			}
		}
		for imports := range exceptions {
			if !used[imports] {
				t.Errorf("nobody needs the exception %q", imports)
			}
		}
	}()
	for _, p := range list(t) {
		ranked[p.ImportPath] = true
		rank, ok := ranks[p.ImportPath]
		if !ok {
			t.Errorf("%s has no rank: decide where it stands and add it", p.ImportPath)
			continue
		}
		check := func(imports []string, tests bool) {
			for _, i := range imports {
				if i != "carnet" && !strings.HasPrefix(i, "carnet/") || i == p.ImportPath {
					continue
				}
				reason, excepted := exceptions[p.ImportPath+" "+i]
				if excepted && (tests || !strings.HasPrefix(reason, "tests only")) {
					used[p.ImportPath+" "+i] = true
					continue
				}
				if ranks[i] >= rank {
					t.Errorf("%s (rank %d) imports %s (rank %d)", p.ImportPath, rank, i, ranks[i])
				}
			}
		}
		check(p.Imports, false)
		check(p.TestImports, true)
		check(p.XTestImports, true)
	}
}

// TestOnlyTheCommandLineOpensKeystores holds what docs/design/mandate.md promises:
// no process of a world or an agent opens an owner's keystore. The program has that code
// beside the one that runs parties, each in files of its own; 'carnet demo' plays the owner.
func TestOnlyTheCommandLineOpensKeystores(t *testing.T) {
	for _, p := range list(t) {
		imports := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		playing := []string{"carnet/cmd/carnet", "carnet/test/faults", "carnet/test/bench"} // the owner
		if slices.Contains(imports, "carnet/owner") && !slices.Contains(playing, p.ImportPath) {
			t.Errorf("%s imports carnet/owner", p.ImportPath)
		}
		if p.ImportPath != "carnet/cmd/carnet" {
			continue
		}
		opens := 0
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), p.Dir+"/"+name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			has := func(path string) bool {
				return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(path) })
			}
			if !has("carnet/owner") {
				continue
			}
			if opens++; has("carnet/node") {
				t.Errorf("%s imports carnet/owner and carnet/node: what runs a party doesn't open keystores", name)
			}
		}
		if opens < 3 {
			t.Errorf("%d files of the program import carnet/owner: the test looks at nothing", opens)
		}
	}
}

// A handler's panic is an error of ours: no server leaves it to net/http, which tells it among
// what strangers cause.
func TestServersTellPanics(t *testing.T) {
	servers := 0
	for _, p := range list(t) {
		if strings.HasPrefix(p.ImportPath, "carnet/test/") {
			continue
		}
		for _, name := range p.GoFiles {
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, p.Dir+"/"+name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				server, ok := n.(*ast.CompositeLit)
				if !ok || !is(server.Type, "http", "Server") {
					return true
				}
				servers++
				told := slices.ContainsFunc(server.Elts, func(e ast.Expr) bool {
					field, ok := e.(*ast.KeyValueExpr)
					if !ok {
						return false
					}
					name, _ := field.Key.(*ast.Ident)
					call, ok := field.Value.(*ast.CallExpr)
					return ok && name != nil && name.Name == "Handler" && is(call.Fun, "porter", "TellPanics")
				})
				if !told {
					t.Errorf("%s: the server's handler isn't porter.TellPanics", set.Position(server.Pos()))
				}
				return true
			})
		}
	}
	if servers < 5 {
		t.Errorf("there are %d servers: the test looks at nothing", servers)
	}
}

// is reports whether an expression is what a package calls so.
func is(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

// The demo's oracle says what each world should have: it works that out by itself, and
// shares nothing with what it judges but the words.
func TestTheOracleIsOnItsOwn(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != "carnet/audit" {
			continue
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "carnet/") {
				t.Errorf("the oracle imports %s", i)
			}
		}
		return
	}
	t.Error("there is no oracle")
}

func TestVocabularyUsesOnlyTheStandardLibrary(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != "carnet" {
			continue
		}
		for _, i := range p.Imports {
			if strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				t.Errorf("the root package imports %s", i)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		found := false
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), p.Dir+"/"+name, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			found = found || f.Doc != nil && len(f.Doc.Text()) > 80
		}
		if !found {
			t.Errorf("%s has no package comment that says what it owns", p.ImportPath)
		}
	}
}
