package faults_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
			// What opens the table meanwhile says so, or has the same keys.
			if out, err := trust(); err == nil && out != before || err != nil && !strings.Contains(out, "carnet party rotate --config") {
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
	if out, err := run(*program, "party", "rotate", "--config="+config, "--new-key="+given); err == nil || !strings.Contains(out, "has that key already") {
		t.Errorf("to the key that it has: %s, %v", out, err)
	}
}
