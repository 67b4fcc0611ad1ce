package faults_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carnet/demo"
	"carnet/modules/moduletest"
)

// The program tells the story of the game, each party as a process of its own: all that it
// writes to standard output is the report, by which each check holds.
func TestStoryOfTheProgram(t *testing.T) {
	t.Parallel()
	modules := t.TempDir()
	args := []string{"demo", "--story", "game", "--json", "--processes", "--speed", "max", "--for", "20s", "--modules", modules, "--data", filepath.Join(t.TempDir(), "data")}
	if out, errs, code := carnetCommand(t, args...); code == 0 || out != "" || !strings.Contains(errs, "the story needs the module gazemap") {
		t.Errorf("without modules the story ends with %d:\n%s%s", code, out, errs)
	}
	if err := os.WriteFile(filepath.Join(modules, "gazemap.wasm"), moduletest.Build(t, "gazemap"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := carnetCommand(t, args...)
	var r demo.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("carnet %s ended with %d, %v:\n%s%s", strings.Join(args, " "), code, err, out, errs)
	}
	held := make(map[string]bool)
	for _, c := range r.Checks {
		if held[c.Name] = c.OK; !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	for _, name := range []string{"told-to-the-end", "one-home", "items-once", "history-came", "modules-signed", "repeated-alike"} {
		if !held[name] {
			t.Errorf("the check %s isn't among the %d, or fails", name, len(r.Checks))
		}
	}
	if len(r.Checks) < 40 || len(r.Moves) != 1 || len(r.Items) != 2 || len(r.Jobs) != 4 || len(r.Grants) == 0 || len(r.Findings) > 0 {
		t.Errorf("%d checks, %d moves, %d items, %d jobs, %d grants; findings: %v", len(r.Checks), len(r.Moves), len(r.Items), len(r.Jobs), len(r.Grants), r.Findings)
	}
}
