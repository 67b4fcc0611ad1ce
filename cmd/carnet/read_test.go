package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"carnet/docs"
)

// TestReadAnAvatar runs what docs/read-an-avatar.md says beside a demo, word for word:
// each way shows the state, and then something live. The one in TypeScript is run by
// console/app/test/docs.test.mjs, where its compiler is.
func TestReadAnAvatar(t *testing.T) {
	for _, tool := range []string{"curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	all, err := docs.ReadAnAvatar()
	if err != nil {
		t.Fatal(err)
	}
	var languages []string
	for _, s := range all {
		languages = append(languages, s.Title+": "+s.Language)
		if n := len(tenLines(s)); n > 10 {
			t.Errorf("%s has %d lines", s.Title, n)
		}
	}
	if want := []string{"What to read, as whom, and whom to trust: sh", "curl: sh", "Go: go", "TypeScript: ts"}; !slices.Equal(languages, want) {
		t.Fatalf("the page has %q", languages)
	}
	build := exec.CommandContext(t.Context(), "sh", "-c", "cat > read.go && go vet read.go && go build read.go") // which may take longer than anybody waits below
	build.Dir, build.Stdin = t.TempDir(), strings.NewReader(all[2].Code)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("read.go: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // it compiles
	defer cancel()
	u := user{t, ctx, t.TempDir()}
	demo := u.starts("demo", "--data=demo", "--speed=1", "--for=2m")
	demo.says(demo.err, "everything about this demo")
	u.write("read.go", all[2].Code)
	who := all[0].Code
	u.until("something is there", who+all[1].Code[:strings.IndexByte(all[1].Code, '\n')+1], `"heart_rate"`)
	u.looksLike(who+all[1].Code[:strings.IndexByte(all[1].Code, '\n')+1], all[3].Code)
	for name, script := range map[string]string{
		"curl": all[1].Code,
		"Go":   "go run read.go /state && go run read.go /live",
	} {
		t.Run(name, func(t *testing.T) {
			got := u.follows(t, who+script)
			if state, live, ok := strings.Cut(got, "retry: "); !ok || !strings.HasPrefix(state, `[{"`) || !strings.Contains(state, `"n":"heart_rate"`) || !strings.Contains(live, "\ndata: [") {
				t.Errorf("it shows %s", got)
			}
		})
	}
}

// looksLike holds a state against what the page says that it looks like: its example,
// and the type in TypeScript.
func (u user) looksLike(script, typescript string) {
	u.t.Helper()
	text, err := os.ReadFile("../../docs/read-an-avatar.md")
	if err != nil {
		u.t.Fatal(err)
	}
	records := func(pack string) (all []map[string]any) {
		if err := json.Unmarshal([]byte(pack), &all); err != nil || len(all) < 2 {
			u.t.Fatalf("%s: %v", pack, err)
		}
		return all
	}
	_, rest, _ := strings.Cut(string(text), "says in clinic\n\n")
	example, _, _ := strings.Cut(rest, "\n\n")
	u.until("several properties are there", script, "position/lat")
	out, err := u.shell(u.ctx, script).Output()
	if err != nil {
		u.t.Fatal(err)
	}
	said, got := records(example), records(string(out))
	if fmt.Sprint(slices.Sorted(maps.Keys(said[0]))) != fmt.Sprint(slices.Sorted(maps.Keys(got[0]))) {
		u.t.Errorf("the page has %s, and it is %s", example, out)
	}
	for _, r := range append(said, got...) {
		for name := range r {
			if !strings.Contains(typescript, " "+name+"?: ") {
				u.t.Errorf("the type has no %s that may be missing, and there is %v", name, r)
			}
		}
	}
}

// tenLines are the lines that count: Go's are those of main.
func tenLines(s docs.Snippet) (all []string) {
	code := s.Code
	if s.Language == "go" {
		_, code, _ = strings.Cut(code, "func main() {\n")
		code = strings.TrimSuffix(code, "}\n")
	}
	return strings.Split(strings.TrimSuffix(code, "\n"), "\n")
}

func (u user) shell(ctx context.Context, script string) *exec.Cmd {
	c := exec.CommandContext(ctx, "sh", "-c", script)
	c.Dir, c.Env = u.dir, append(os.Environ(), "GOFLAGS=", "GO111MODULE=on")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it starts ends with it
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	return c
}

// until runs a script until it shows something.
func (u user) until(what, script, shows string) {
	u.t.Helper()
	for {
		out, err := u.shell(u.ctx, script).Output()
		if strings.Contains(string(out), shows) {
			return
		}
		if u.ctx.Err() != nil {
			u.t.Fatalf("%s: %s %v", what, out, err)
		}
	}
}

// follows runs a script until it has shown something live, and returns all that it
// showed.
func (u user) follows(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	c := u.shell(ctx, script)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(got.String(), "\ndata: ") {
		n, err := out.Read(b)
		if got.Write(b[:n]); err != nil {
			t.Errorf("it ended: %v", err)
			break
		}
	}
	cancel()
	_ = c.Wait() // it was ended
	return got.String()
}
