package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheFirstThing plays docs/first-thing.md.
func TestTheFirstThing(t *testing.T) { playsPage(t, "../../docs/first-thing.md") }

// TestTheFirstShare plays docs/first-share.md.
func TestTheFirstShare(t *testing.T) { playsPage(t, "../../docs/first-share.md") }

// TestTheFirstApplication plays docs/first-application.md.
func TestTheFirstApplication(t *testing.T) {
	playsPage(t, "../../docs/first-application.md", "curl", "jq")
}

// TestTheFirstMove plays docs/first-move.md.
func TestTheFirstMove(t *testing.T) { playsPage(t, "../../docs/first-move.md") }

// playsPage writes a page's files, runs its commands in their order beside a demo, and
// compares what they show. Ids, times and the like are others each time; a command gets
// those that were shown before in their place.
func playsPage(t *testing.T, page string, tools ...string) {
	for _, tool := range append(tools, "mosquitto_pub") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	u.ctx = ctx
	demo := u.starts("demo", "--data=demo", "--speed=1", "--for=8m")
	demo.says(demo.err, "everything about this demo")
	if err := os.Mkdir(filepath.Join(u.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.write("bin/carnet", "#!/bin/sh\nCARNET_TEST_COMMAND=1 exec "+os.Args[0]+" \"$@\"\n")
	if err := os.Chmod(filepath.Join(u.dir, "bin/carnet"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile("(?s)`([a-z.]+\\.json)`:\n\n```json\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	for _, file := range files {
		u.write(file[1], file[2])
	}
	blocks := regexp.MustCompile("(?s)```console\n(.*?)\n```").FindAllStringSubmatch(string(text), -1)
	if len(files) < 2 || len(blocks) < 8 {
		t.Errorf("the page has %d files and %d blocks of commands", len(files), len(blocks))
	}
	r := follower{u: u, known: make(map[string]string)}
	for _, block := range blocks {
		r.block(block[1])
	}
}

// follower is somebody who follows the page.
type follower struct {
	u       user
	exports string
	known   map[string]string // what the page has → what it is here
}

// changing is what is another each time.
var changing = regexp.MustCompile(`[0-9a-f]{32}|\d{4}-\d\d-\d\dT[0-9:.]+Z|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|localhost:\d+|\b[a-z2-7]{26,}\b|did:key:z[1-9A-HJ-NP-Za-km-z]+|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{64}\b|\bproof-\d+\b|\b[0-9a-f]{16}\b|\b1\d{9}(?:\.\d+)?\b`)

// passing is what a command shows of a job on its way, if it takes long enough.
var passing = regexp.MustCompile(`(?m)^  \w+, attempt \d+: .*\n`)

// block plays a block of commands.
func (r *follower) block(block string) {
	r.u.t.Helper()
	lines := strings.Split(block, "\n")
	for i := 0; i < len(lines); i++ {
		command := strings.TrimPrefix(lines[i], "$ ")
		var shown []string
		for i+1 < len(lines) && !strings.HasPrefix(lines[i+1], "$ ") {
			i++
			shown = append(shown, lines[i])
		}
		r.compare(command, shown, r.run(command))
	}
}

// run runs a command of the page in a shell.
func (r *follower) run(command string) string {
	r.u.t.Helper()
	for theirs, ours := range r.known {
		command = strings.ReplaceAll(command, theirs, ours)
	}
	if strings.HasPrefix(command, "export ") {
		r.exports += command + "\n"
		return ""
	}
	c := exec.CommandContext(r.u.ctx, "sh", "-c", r.exports+command)
	c.Dir, c.Env = r.u.dir, append(os.Environ(), "PATH="+filepath.Join(r.u.dir, "bin")+":"+os.Getenv("PATH"))
	got, err := c.CombinedOutput()
	if err != nil {
		r.u.t.Fatalf("%s: %v\n%s", command, err, got)
	}
	return strings.ReplaceAll(string(got), r.u.dir, "/home/you")
}

// compare holds what is shown against the page, and notes what is another here.
func (r *follower) compare(command string, page []string, got string) {
	r.u.t.Helper()
	want := strings.Join(page, "\n")
	got = passing.ReplaceAllString(got, "")
	theirs, ours := changing.FindAllString(want, -1), changing.FindAllString(got, -1)
	plain := func(s string) string {
		return strings.Join(strings.Fields(changing.ReplaceAllString(s, "…")), " ") // columns are as wide as what is in them
	}
	if plain(want) != plain(got) {
		r.u.t.Errorf("$ %s\nshows\n%s\nand the page has\n%s", command, got, want)
	}
	for i := range min(len(theirs), len(ours)) {
		r.known[strings.TrimPrefix(theirs[i], "localhost:")] = strings.TrimPrefix(ours[i], "localhost:")
	}
}
