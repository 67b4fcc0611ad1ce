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

// The program tells the stories, each party as a process of its own, of what it makes up and
// of what a headset and a watch recorded: all that it writes to standard output is the
// report, by which each check holds.
func TestStoryOfTheProgram(t *testing.T) {
	t.Parallel()
	modules := t.TempDir()
	missing := []string{"demo", "--story", "game", "--json", "--modules", modules, "--data", filepath.Join(t.TempDir(), "data")}
	if out, errs, code := carnetCommand(t, missing...); code == 0 || out != "" || !strings.Contains(errs, "the story needs the module gazemap") {
		t.Errorf("without modules the story ends with %d:\n%s%s", code, out, errs)
	}
	for _, name := range []string{"gazemap", "heartzones", "motion", "stepcadence"} {
		if err := os.WriteFile(filepath.Join(modules, name+".wasm"), moduletest.Build(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		story                      string
		checks, moves, items, jobs int
		inputs                     []string
		measurements               int // that are played; 0: as many as it makes up
		held                       []string
	}{
		"the game": {story: "game", checks: 40, moves: 1, items: 2, jobs: 4, held: []string{"told-to-the-end", "one-home", "items-once", "history-came", "modules-signed", "repeated-alike"}},
		"the game of a headset's recording": {
			story: "game", inputs: []string{"vr/questset_movement_first4000.csv"}, checks: 40, moves: 1, items: 2, jobs: 4, held: []string{"told-to-the-end", "one-home", "items-once", "history-came"},
		},
		"the watch of a recording": {
			story: "watch", inputs: []string{"garmin/datasets/activities/2019/3537714464.fit", "garmin/datasets/general/2019/01/08/28768104496.fit"},
			checks: 35, jobs: 4, measurements: 8222, held: []string{"told-to-the-end", "modules-signed", "repeated-alike"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"demo", "--story", row.story, "--json", "--processes", "--speed", "max", "--modules", modules, "--data", filepath.Join(t.TempDir(), "data")}
			for _, input := range row.inputs {
				args = append(args, "--input", recorded(t, input, 0))
			}
			if len(row.inputs) == 0 {
				args = append(args, "--for", "20s")
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
			for _, name := range row.held {
				if !held[name] {
					t.Errorf("the check %s isn't among the %d, or fails", name, len(r.Checks))
				}
			}
			if len(r.Checks) < row.checks || len(r.Moves) != row.moves || len(r.Items) != row.items || len(r.Jobs) < row.jobs || row.moves > 0 && len(r.Grants) == 0 || len(r.Findings) > 0 {
				t.Errorf("%d checks, %d moves, %d items, %d jobs, %d grants; findings: %v", len(r.Checks), len(r.Moves), len(r.Items), len(r.Jobs), len(r.Grants), r.Findings)
			}
			if row.measurements > 0 && r.Input.Measurements != row.measurements {
				t.Errorf("%d measurements were played, want %d", r.Input.Measurements, row.measurements)
			}
			t.Logf("%d measurements of %d files", r.Input.Measurements, r.Input.Files)
		})
	}
}
