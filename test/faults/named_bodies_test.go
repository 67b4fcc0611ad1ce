package faults_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

const (
	endedBodies = `SELECT count(*) FROM world_body_ended`
	addStretch  = `copy "world_stretch" `
)

// bodyFiles are the files of arena's large bodies: in what is written, under their
// names, and in what is overwritten.
type bodyFiles struct{ tmp, named, gone []string }

func (n *named) bodyFiles() (f bodyFiles) {
	n.t.Helper()
	for pattern, to := range map[string]*[]string{"tmp/*": &f.tmp, "[0-9a-f][0-9a-f]/*": &f.named, "gone/*": &f.gone} {
		var err error
		if *to, err = filepath.Glob(filepath.Join(n.arena.data(), "stretches", pattern)); err != nil {
			n.t.Fatal(err)
		}
	}
	return f
}

// wantFiles compares how many files there are.
func (n *named) wantFiles(where string, tmp, named, gone int) bodyFiles {
	n.t.Helper()
	f := n.bodyFiles()
	if len(f.tmp) != tmp || len(f.named) != named || len(f.gone) != gone {
		n.t.Errorf("%s: %d files are written, %d named, %d overwritten; want %d, %d, %d", where, len(f.tmp), len(f.named), len(f.gone), tmp, named, gone)
	}
	return f
}

// large kills arena at the rows of a large body (store.md): while it is made, and,
// two hours later, while it ends.
func (n *named) large() {
	n.quiet()
	arena, gate := n.arena, n.arena.database.gate
	notes := n.addNotes(`{"properties": {"note": {}}, "retention": "hour", "purposes": ["fitness"]}`)
	h := gate.before("WHERE NOT stored")
	h.await(n.t)
	had, others := arena.number(n.t, stretches), n.bodyFiles().named
	kept := len(others)
	for range 24 { // a frame each, so that it compacts; all of it is added at once
		notes.sendTexts(1)
	}
	n.quiet()
	tr := arena.killBefore(n.t, renames, 1)
	h.pass()
	n.dies("names a body")
	tr.detach()
	n.wantFiles("B1", 1, kept, 0)
	n.startUntil(syncs, n.shards()...)
	n.dies("syncs a body's directory")
	n.wantFiles("B2", 0, kept+1, 0)
	n.want(arena, stretches, had)
	n.dieAt(arena, gate.before(addStretch))
	n.wantFiles("B2, synced", 0, kept+1, 0)
	n.want(arena, stretches, had)
	n.dieAt(arena, gate.after(addStretch))
	n.wantFiles("B3", 0, kept+1, 0)
	if n.want(arena, endedBodies, 0); arena.number(n.t, stretches) <= had {
		n.t.Error("no stretch was added")
	}
	n.restart(arena)
	n.becomes(arena, bodies, 0)
	n.becomes(arena, unstored, 0)
	f := n.wantFiles("kept", 0, kept+1, 0)
	body := f.named[slices.IndexFunc(f.named, func(name string) bool { return !slices.Contains(others, name) })]
	fingerprint, err := hex.DecodeString(filepath.Base(body))
	if err != nil {
		n.t.Fatal(err)
	}

	n.quiet()
	arena.kill(n.t)
	if aged := arena.number(n.t, `WITH aged AS (UPDATE world_stretch SET received = received - 7200000000000 WHERE class = 1 AND size > 131072 RETURNING id) SELECT count(*) FROM aged`); aged != 1 {
		n.t.Fatalf("%d large stretches are kept for an hour", aged)
	}
	n.dieAt(arena, gate.after("DELETE FROM world_stretch"))
	n.wantFiles("B4", 0, kept+1, 0)
	n.want(arena, endedBodies, 1)
	n.dieAt(arena, gate.after("SELECT DISTINCT f FROM unnest", string(fingerprint))) // while nobody may add a row
	f = n.wantFiles("B5", 0, kept, 1)
	if b, err := os.ReadFile(f.gone[0]); err != nil || len(bytes.Trim(b, "\x00")) == 0 {
		n.t.Errorf("the body is overwritten: %d bytes, %v", len(b), err)
	}
	n.startUntil("unlinkat", f.gone...)
	n.dies("removes a body")
	f = n.wantFiles("B6", 0, kept, 1)
	if b, err := os.ReadFile(f.gone[0]); err != nil || len(b) < 131072 || len(bytes.Trim(b, "\x00")) > 0 {
		n.t.Errorf("the body isn't overwritten: %d bytes, %v", len(b), err)
	}
	n.dieAt(arena, gate.before("DELETE FROM world_body_ended"))
	n.wantFiles("B7", 0, kept, 0)
	n.want(arena, endedBodies, 1)
	n.restart(arena)
	n.becomes(arena, endedBodies, 0)
	n.becomes(arena, doomed, 0)
	n.wantFiles("ended", 0, kept, 0)
}

// shards are all directories that arena may have bodies in.
func (n *named) shards() (all []string) {
	for i := range 256 {
		all = append(all, filepath.Join(n.arena.data(), "stretches", strconv.FormatInt(int64(256+i), 16)[1:]))
	}
	return all
}

// startUntil starts arena, to be killed right before it makes one of these calls, if
// paths are given with one of these files.
func (n *named) startUntil(calls string, paths ...string) {
	n.t.Helper()
	by := []string{"strace", "-D", "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + calls, "-e", "inject=" + calls + ":signal=KILL"}
	for _, path := range paths {
		by = slices.Concat(by, []string{"-P", path})
	}
	n.arena.start(n.t, by...)
}

// dies wants arena to be killed before it does something.
func (n *named) dies(before string) {
	n.t.Helper()
	if !n.arena.dies(20 * time.Second) {
		n.t.Fatalf("arena never %s", before)
	}
}
