package faults_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api/client"
	"carnet/keys"
	"carnet/test/wait"
)

// A party's key is rotated by the command, which is killed before each write, sync and
// change of a name that it makes: done again it is done. Whatever was reached, the keys
// are those of before, and in the end the old key opens nothing.
func TestARotationOfAPartysKey(t *testing.T) {
	t.Parallel()
	tool(t, "strace", "-f", "-qq", "-o", "/dev/null", "true")
	dir := filepath.Join(t.TempDir(), "vault")
	config, kek := filepath.Join(dir, "carnet.toml"), filepath.Join(dir, "kek")
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
	does := func(args ...string) string {
		t.Helper()
		out, err := run(append([]string{*program}, args...)...)
		if err != nil {
			t.Fatalf("carnet %v: %v: %s", args, err, out)
		}
		return out
	}
	does("party", "init", "--role=depot", "--party=vault", "--dir="+dir, "--listen-http=localhost:8443", "--listen-r2=localhost:9443")
	var written int
	trust := func() (string, error) { // what the keys are
		written++
		file := filepath.Join(dir, fmt.Sprint("trust-", written))
		out, err := run(*program, "party", "trust", "--config="+config, "--out="+file)
		if err != nil {
			return out, err
		}
		text, err := os.ReadFile(file)
		return string(text), err
	}
	trusted := func() string {
		t.Helper()
		text, err := trust()
		if err != nil {
			t.Fatalf("carnet party trust: %v: %s", err, text)
		}
		return text
	}
	before := trusted()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	killed := 0
	for _, calls := range []string{writes, syncs, renames} {
		step := 1
		if calls == writes { // there are many, and what they leave is SQLite's to put right
			step = 4
		}
		for nth := 1; ; nth += step {
			if nth > 200 {
				t.Fatalf("a rotation makes more than %d calls of %s", nth, calls)
			}
			old := read(kek)
			out, err := run("strace", "-D", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+calls, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, nth), *program, "party", "rotate", "--config="+config)
			if err == nil {
				break
			}
			if !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%s, %d: %v: %s", calls, nth, err, out)
			}
			killed++
			// The key file opens the table all the while.
			if out, err := trust(); err != nil || out != before {
				t.Errorf("%s, killed before %d: the keys are %s, %v", calls, nth, out, err)
			}
			does("party", "rotate", "--config="+config)
			if now := trusted(); now != before {
				t.Fatalf("%s, killed before %d, and done again: the keys are %s, not %s", calls, nth, now, before)
			}
			now := read(kek)
			if now == old {
				t.Fatalf("%s, killed before %d, and done again: the key file is the same", calls, nth)
			}
			if _, err := os.Stat(kek + ".new"); !os.IsNotExist(err) {
				t.Errorf("%s, killed before %d, and done again: a next key is left: %v", calls, nth, err)
			}
			if nth > 1 {
				continue
			}
			for content, opens := range map[string]bool{old: false, now: true} {
				if err := os.WriteFile(kek, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := trust(); (err == nil) != opens {
					t.Fatalf("%s, killed before %d: with this key it opens: %v", calls, nth, err == nil)
				}
			}
			if err := os.WriteFile(kek, []byte(now), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed < 10 {
		t.Errorf("it was killed %d times only", killed)
	}
	// To a key that is given: it is copied, and the one of before is kept.
	given, old := filepath.Join(t.TempDir(), "given"), read(kek)
	other := filepath.Join(t.TempDir(), "other")
	does("party", "init", "--role=depot", "--party=other", "--dir="+other, "--listen-http=localhost:8443", "--listen-r2=localhost:9443")
	if err := os.WriteFile(given, []byte(read(filepath.Join(other, "kek"))), 0o600); err != nil {
		t.Fatal(err)
	}
	out := does("party", "rotate", "--config="+config, "--new-key="+given)
	if read(kek) != read(given) || trusted() != before {
		t.Errorf("the key that was given isn't the party's")
	}
	_, kept, _ := strings.Cut(out, "The old one is ")
	if kept, _, _ = strings.Cut(kept, ":"); read(kept) != old {
		t.Errorf("the key of before isn't in %q: %s", kept, out)
	}
	for what, bad := range map[string]struct{ file, content, want string }{
		"the key that it has": {given, read(given), "has that key already"},
		"no key":              {filepath.Join(t.TempDir(), "no"), "carnet key-encryption key 1\n00\n", "is not a key-encryption key file"},
		"nothing":             {filepath.Join(t.TempDir(), "nothing"), "", "is not a key-encryption key file"},
	} {
		if err := os.WriteFile(bad.file, []byte(bad.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run(*program, "party", "rotate", "--config="+config, "--new-key="+bad.file); err == nil || !strings.Contains(out, bad.want) {
			t.Errorf("to %s: %s, %v", what, out, err)
		}
		if _, err := os.Lstat(kek + ".new"); !os.IsNotExist(err) {
			t.Errorf("to %s: a next key is left: %v", what, err)
		}
	}
	if err := os.Chmod(given, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := run(*program, "party", "rotate", "--config="+config, "--new-key="+given); err == nil || !strings.Contains(out, "chmod 600") {
		t.Errorf("to a key that others can read: %s, %v", out, err)
	}
	// With the key of before in its place, it is said which is the right one.
	now := read(kek)
	if err := os.Rename(kek, kek+".right"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kek, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"depot"}, {"party", "rotate"}} {
		if out, err := run(append(append([]string{*program}, command...), "--config="+config)...); err == nil || !strings.Contains(out, "under the key in "+kek+".right") {
			t.Errorf("%v with the key of before: %s, %v", command, out, err)
		}
	}
	if read(kek+".right") != now {
		t.Error("the key beside it has changed")
	}
}

// wrappedSize is how long what a key file wraps is: a nonce, a table key, a tag.
const wrappedSize = 12 + 32 + 16

// opens counts what a key-encryption key opens in a store: every run of bytes is tried, as a
// table key of the first generations (docs/design/keys.md).
func opens(t *testing.T, s store, kek *keys.FileKEK) (n int) {
	t.Helper()
	var contexts [][]byte
	for generation := range uint32(16) {
		name := fmt.Sprintf("%08x/%s", generation+1, kek.ID())
		c := append([]byte("carnet/1 row\x00"), byte(len("table")))
		c = append(append(c, "table"...), byte(len(name)))
		contexts = append(contexts, binary.BigEndian.AppendUint32(append(c, name...), generation+1))
	}
	for _, b := range s {
		for i := 0; i+wrappedSize <= len(b); i++ {
			if bytes.Equal(b[i:i+12], make([]byte, 12)) { // free space
				continue
			}
			for _, c := range contexts {
				if _, err := kek.Unwrap(t.Context(), c, b[i:i+wrappedSize]); err == nil {
					n++
				}
			}
		}
	}
	return n
}

func openKey(t *testing.T, path string) *keys.FileKEK {
	t.Helper()
	kek, err := keys.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// kept is what a party has stored of its key table.
func (p *party) keyStore(t *testing.T) store {
	t.Helper()
	s, of := make(store), "keys.db" // and its log
	if p.database != nil {
		s, of = p.database.rows(t), string(p.name)+"_keys."
	} else {
		files, err := filepath.Glob(filepath.Join(p.data(), of+"*")) // other files come and go while it works
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			s[filepath.Base(file)] = text
		}
	}
	maps.DeleteFunc(s, func(name string, _ []byte) bool { return !strings.HasPrefix(name, of) }) // nothing else is wrapped by a key file
	return s
}

func (p *party) kek() string { return filepath.Join(p.dir, "kek") }

// rotate gives the command.
func (p *party) rotate(t *testing.T, more ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), *program, append([]string{"party", "rotate", "--config=" + p.file()}, more...)...).CombinedOutput()
	return string(out), err
}

// rotated wants nothing in a party's store to be opened by a key, and something by the
// party's.
func (p *party) rotated(t *testing.T, old *keys.FileKEK) {
	t.Helper()
	now := openKey(t, p.kek())
	s := p.keyStore(t)
	if n := opens(t, s, old); n != 0 || now.ID() == old.ID() {
		t.Errorf("%s: the key of before opens %d values of its store", p.name, n)
	}
	if n := opens(t, s, now); n == 0 {
		t.Errorf("%s: its key opens nothing of its store", p.name)
	}
	if _, err := os.Lstat(p.kek() + ".new"); !os.IsNotExist(err) {
		t.Errorf("%s: a next key is left: %v", p.name, err)
	}
	if openKey(t, p.kek()+"."+old.ID()).ID() != old.ID() {
		t.Errorf("%s: the key of before isn't kept", p.name)
	}
}

// Each party's key is rotated twice while everything is under way: a watch that publishes
// over one connection, links, a subscription, calls to the depot, a job at a DPM. No
// connection is cut, nothing is lost or doubled, the key of before opens nothing.
func TestAKeyIsRotatedWhileItsPartyWorks(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { t.Parallel(); rotateWorking(t, kind == "postgres") })
	}
}

func rotateWorking(t *testing.T, postgres bool) {
	var stores []func(*testing.T, *party)
	if postgres {
		stores = append(stores, onPostgres)
	}
	w := &works{town: makeTown(t, t.TempDir(), stores...)}
	w.forge = w.addDPM("forge", "personal+health", stores...)
	all := append(w.parties(), w.forge)
	for _, p := range all {
		p.start(t)
	}
	for _, p := range all {
		w.await(p)
	}
	w.watch = w.addWatch()
	w.watch.send(20)
	w.settle()
	j, err := w.arena.client.RunJob(t.Context(), w.long())
	if err != nil {
		t.Fatal(err)
	}
	w.runs(j, 1)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	published := make(chan error, 1)
	go func() { published <- w.watch.connection(ctx, t.Context(), 2*time.Millisecond) }()
	live := &client.Client{Base: w.arena.client.Base, Token: w.arena.token, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: w.arena.tls()}}}
	heard := make(chan int, 1<<16)
	watched := make(chan error, 1)
	go func() {
		for e, err := range live.Watch(ctx, w.watch.mappings["arena"].Avatar, nil) {
			if err != nil {
				watched <- err
				return
			}
			heard <- len(e.Measurements)
		}
	}()
	if n := <-heard; n != 0 {
		t.Fatalf("the subscription begins with %d measurements", n)
	}
	<-heard
	lasting := func() map[string]bool { // links of hub, and the watch's connection, at its other end
		all := w.hub.established(t, w.arena.config.Listen.Link)
		maps.Copy(all, w.hub.established(t, w.clinic.config.Listen.Link))
		return all
	}
	links := lasting()
	if len(links) != 2 {
		t.Fatalf("hub has the links %v", links)
	}
	for round := range 2 {
		for _, p := range all {
			old := openKey(t, p.kek())
			if n := opens(t, p.keyStore(t), old); n == 0 {
				t.Fatalf("%s: the search finds nothing before the rotation", p.name)
			}
			pid := p.process.cmd.Process.Pid
			if out, err := p.rotate(t); err != nil || !strings.Contains(out, p.kek()+"."+old.ID()) {
				t.Fatalf("rotate %s: %v: %s", p.name, err, out)
			}
			if !p.running() || p.process.cmd.Process.Pid != pid {
				t.Errorf("%s was ended by its rotation", p.name)
			}
			p.rotated(t, old)
			select {
			case err := <-published:
				t.Fatalf("round %d, %s: the watch's connection ended: %v", round, p.name, err)
			case err := <-watched:
				t.Fatalf("round %d, %s: the subscription ended: %v", round, p.name, err)
			default:
			}
		}
	}
	for n := len(heard); n >= 0; n-- { // what comes from now on
		<-heard
	}
	// A server that doesn't answer for a second, as a busy one may not, ends peers' connections
	// (nobody can tell then what was ended), whether anything is rotated or not.
	if now := lasting(); !postgres && !maps.Equal(now, links) {
		t.Errorf("hub's links were %v and are %v", links, now)
	}
	w.counted(j) // which was ordered before
	for _, p := range all {
		found, err := p.client.Activity(t.Context(), activity.Query{Action: "rotate-key", Limit: 10})
		if err != nil || len(found.Records) != 2 {
			t.Errorf("%s has recorded %+v, %v", p.name, found, err)
			continue
		}
		if r := found.Records[0]; !r.Permitted || r.Via != activity.Machine || r.Who.Name != "operator" || r.Resource.ID != string(p.name) || r.Rule != "administrator-everything" {
			t.Errorf("%s has recorded %+v", p.name, r)
		}
	}
	stop()
	if err := <-published; err != nil {
		t.Errorf("the watch's connection: %v", err)
	}
	if w.watch.resent != 0 {
		t.Errorf("the watch published %d messages again", w.watch.resent)
	}
	if missing := w.watch.unacknowledged(); len(missing) > 0 {
		t.Errorf("%d messages aren't acknowledged", len(missing))
	}
	w.judge(w.watch) // which opens the stores with the new keys
	w.forge.end(t)
}

// keyed is a town whose parties are killed while their keys are rotated. Its watch
// publishes all the while.
type keyed struct {
	*town
	w     *watch
	ended chan error
	stop  context.CancelFunc
	given int
}

func newKeyed(t *testing.T, stores ...func(*testing.T, *party)) *keyed {
	t.Helper()
	k := &keyed{town: newTown(t, stores...), ended: make(chan error, 1)}
	k.w = k.addWatch()
	ctx, stop := context.WithCancel(t.Context())
	k.stop = stop
	go func() { k.ended <- k.w.run(ctx, 20*time.Millisecond) }()
	return k
}

// judged ends it.
func (k *keyed) judged() {
	k.t.Helper()
	k.stop()
	if err := <-k.ended; err != nil {
		k.t.Error(err)
	}
	k.judge(k.w)
}

// dies rotates a party to a key that is given, while it is killed as armed says. It checks
// which keys open its store then, starts it, and has the rotation end: by itself if it was
// begun. It says whether the old key and the next one opened the store, and which was the
// party's, at its death.
func (k *keyed) dies(p *party, what string, armed func(old, next *keys.FileKEK) (awaitDeath func())) (old, next, swapped bool) {
	t := k.t
	t.Helper()
	k.given++
	file := filepath.Join(k.dir, fmt.Sprint("given-", k.given))
	to, err := keys.CreateFile(file)
	if err != nil {
		t.Fatal(err)
	}
	was := openKey(t, p.kek())
	awaitDeath := armed(was, to)
	asked := make(chan error, 1)
	go func() {
		out, err := p.rotate(t, "--new-key="+file)
		if err == nil {
			err = fmt.Errorf("it says that it is done: %s", out)
		} else if strings.Contains(out, "ended before it said") {
			err = nil
		} else {
			err = fmt.Errorf("%w: %s", err, out)
		}
		asked <- err
	}()
	awaitDeath()
	if err := <-asked; err != nil {
		t.Errorf("%s: the command of a party that died: %v", what, err)
	}
	dead := p.keyStore(t)
	old, next, swapped = opens(t, dead, was) > 0, opens(t, dead, to) > 0, openKey(t, p.kek()).ID() == to.ID()
	k.restart(p) // with the key file, whatever was reached
	if !next {   // nothing was begun
		if out, err := p.rotate(t, "--new-key="+file); err != nil {
			t.Fatalf("%s: the command, given again: %v: %s", what, err, out)
		}
	}
	wait.Until(t, fmt.Sprintf("%s: %s has ended the rotation", what, p.name), func() bool {
		e, err := p.client.Examine(t.Context())
		return err == nil && !slices.ContainsFunc(e.Findings, func(f carnet.Finding) bool { return f.Kind == "keys" })
	})
	if openKey(t, p.kek()).ID() != to.ID() {
		t.Errorf("%s: %s isn't under the key that it was rotated to", what, p.name)
	}
	p.rotated(t, was)
	return old, next, swapped
}

// A party on PostgreSQL is killed at each row of the key table's design, as the statements
// tell them apart.
func TestKeyRows(t *testing.T) {
	t.Parallel()
	k := newKeyed(t, onPostgres)
	const put, replaced, deleted = "INSERT INTO key_row", "UPDATE key_row", "DELETE FROM key_row"
	for i, row := range []struct {
		name               string
		after              bool
		statement          string
		of                 string // whose name is among the arguments
		old, next, swapped bool
	}{
		{"K1, before the table keys are put", false, put, "next", true, false, false},
		{"K2, the table keys are put", true, put, "next", true, true, false},
		{"K2, before rows are replaced", false, replaced, "", true, true, false},
		{"K3, a page is replaced", true, replaced, "", true, true, false},
		{"K5, before the table keys under the old one are deleted", false, deleted, "old", true, true, true},
		{"K6, they are deleted", true, deleted, "old", false, true, true},
		{"K6, before the older table key is deleted", false, deleted, "next", false, true, true},
		{"K7, it is deleted", true, deleted, "next", false, true, true},
	} {
		p := k.parties()[i%4]
		old, next, swapped := k.dies(p, row.name, func(old, next *keys.FileKEK) func() {
			var arguments []string
			if row.of != "" {
				arguments = []string{map[string]*keys.FileKEK{"old": old, "next": next}[row.of].ID()}
			}
			at := p.database.gate.before
			if row.after {
				at = p.database.gate.after
			}
			h := at(row.statement, arguments...)
			return func() {
				h.await(t)
				p.kill(t)
				h.pass()
			}
		})
		if old != row.old || next != row.next || swapped != row.swapped {
			t.Errorf("%s, at %s: the old key opens it: %v, the next: %v, which is the party's: %v; want %v, %v, %v", row.name, p.name, old, next, swapped, row.old, row.next, row.swapped)
		}
	}
	k.judged()
}

// A party on SQLite is killed before calls of the operating system that no statement tells
// of: those that make the next key, and put it in its place, and those that overwrite what
// is deleted.
func TestKeyFiles(t *testing.T) {
	t.Parallel()
	tool(t, "strace", "-f", "-qq", "-o", "/dev/null", "true")
	k := newKeyed(t)
	for i, row := range []struct {
		name, calls, file string
		next, swapped     bool
	}{
		{"K1, the next key isn't synced", syncs, "kek.new", false, false},
		{"K1, its name isn't synced", syncs, ".", false, false},
		{"K2, before a page of the log is written", writes, "data/keys.db-wal", false, false},
		{"K4, before the old key has another name", "linkat,link", "kek", true, false},
		{"K5, before the next key takes its place", "rename,renameat,renameat2", "kek.new", true, false},
		{"K6, before the log is cut", "ftruncate", "data/keys.db-wal", true, true},
	} {
		for _, p := range []*party{k.parties()[i%4], k.parties()[(i+3)%4]} {
			_, next, swapped := k.dies(p, row.name, func(_, _ *keys.FileKEK) func() {
				tr := p.killBefore(t, row.calls, 1, filepath.Join(p.dir, row.file))
				return func() {
					if !p.dies(time.Minute) {
						t.Fatalf("%s: %s makes no such call: %s", row.name, p.name, &tr.out)
					}
					tr.detach()
				}
			})
			if next != row.next || swapped != row.swapped {
				t.Errorf("%s, at %s: the next key opens it: %v, and is the party's: %v; want %v, %v", row.name, p.name, next, swapped, row.next, row.swapped)
			}
		}
	}
	k.judged()
}

// A party on PostgreSQL isn't rotated while another process has its key table open, and
// none opens it while it is rotated.
func TestAKeyIsNotRotatedBesideAnotherProcess(t *testing.T) {
	t.Parallel()
	v := newTown(t, onPostgres)
	v.addWatch().send(5)
	was := openKey(t, v.arena.kek())
	// Another process: the same store and key, another directory.
	second := &party{name: "arena", role: v.arena.role, dir: filepath.Join(v.dir, "second"), database: v.arena.database}
	if err := os.MkdirAll(second.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(v.arena.file())
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{v.arena.config.Listen.HTTP, v.arena.config.Listen.Link} {
		config = bytes.ReplaceAll(config, []byte(address), []byte(freeAddress(t)))
	}
	key, err := os.ReadFile(v.arena.kek())
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{second.file(): config, second.kek(): key} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second.token = v.arena.token
	v.know(second)
	second.start(t)
	v.await(second)
	for _, p := range []*party{v.arena, second} {
		if out, err := p.rotate(t); err == nil || !strings.Contains(out, "another process has the key table open") || !strings.Contains(out, "stop every other process") {
			t.Errorf("rotated beside another process: %v: %s", err, out)
		}
	}
	v.arena.kill(t)
	if out, err := v.arena.rotate(t); err == nil || !strings.Contains(out, "another process has the key table open") { // by the command itself
		t.Errorf("rotated by the command beside another process: %v: %s", err, out)
	}
	second.kill(t)
	if openKey(t, v.arena.kek()).ID() != was.ID() {
		t.Error("the key is another, though each rotation was refused")
	}
	v.restart(v.arena)
	h := v.arena.database.gate.before("UPDATE key_row")
	asked := make(chan error, 1)
	go func() {
		out, err := v.arena.rotate(t)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		asked <- err
	}()
	h.await(t)
	if out, err := v.arena.rotate(t); err == nil || !strings.Contains(out, "being rotated already") {
		t.Errorf("a second command meanwhile: %v: %s", err, out)
	}
	second.start(t)
	if code := second.exit(t, time.Minute); code == 0 || !strings.Contains(second.log.String(), "another process has the key table alone") {
		t.Errorf("a process that starts meanwhile ends with %d: %s", code, &second.log)
	}
	h.pass()
	if err := <-asked; err != nil {
		t.Error(err)
	}
	v.arena.rotated(t, was)
	second.start(t) // with the key of before
	if code := second.exit(t, time.Minute); code == 0 || !strings.Contains(second.log.String(), "give that key-encryption key") {
		t.Errorf("a process with the key of before ends with %d: %s", code, &second.log)
	}
}
