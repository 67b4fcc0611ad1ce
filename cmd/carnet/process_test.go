package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"carnet/node"
	"carnet/owner"
)

// TestMain makes the test binary the command: the tests start real processes.
func TestMain(m *testing.M) {
	newKeystores = owner.Params{Time: 1, MemoryKiB: 19 << 10, Lanes: 1}
	if os.Getenv("CARNET_TEST_COMMAND") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience bounds every wait, so that a test that hangs says where.
const patience = 90 * time.Second

// user is a person at a shell in a directory.
type user struct {
	t   *testing.T
	ctx context.Context
	dir string
}

func newUser(t *testing.T) user {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return user{t, ctx, t.TempDir()}
}

func (u user) command(args ...string) *exec.Cmd {
	c := exec.CommandContext(u.ctx, os.Args[0], args...)
	c.Dir, c.Env = u.dir, append(os.Environ(), "CARNET_TEST_COMMAND=1", "CARNET_ACCESS=")
	return c
}

// result is what a command came to.
type result struct {
	out, err string
	code     int
}

// try runs a command to its end.
func (u user) try(input string, args ...string) (r result) {
	u.t.Helper()
	var out, errs bytes.Buffer
	c := u.command(args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &out, &errs
	err := c.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		u.t.Fatalf("carnet %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// does runs a command that must succeed and returns what it showed.
func (u user) does(args ...string) string {
	u.t.Helper()
	return u.gives("", args...)
}

// gives is does with something on standard input.
func (u user) gives(input string, args ...string) string {
	u.t.Helper()
	r := u.try(input, args...)
	if r.code != 0 {
		u.t.Fatalf("carnet %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// sees runs a command and expects words in what it shows.
func (u user) sees(words []string, args ...string) string {
	u.t.Helper()
	out := u.does(args...)
	for _, w := range words {
		if !strings.Contains(out, w) {
			u.t.Errorf("carnet %s: no %q in\n%s", strings.Join(args, " "), w, out)
		}
	}
	return out
}

// reads runs a command with --json and decodes what it shows.
func reads[T any](u user, args ...string) (v T) {
	u.t.Helper()
	out := u.does(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		u.t.Fatalf("carnet %s: %v in\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// process is a command that runs on.
type process struct {
	u    user
	name string
	cmd  *exec.Cmd
	out  *lines
	err  *lines
}

// starts starts a command that ends when it is told to, or with the test.
func (u user) starts(args ...string) *process {
	u.t.Helper()
	return u.started(u.command(args...))
}

// started starts a command that lasts.
func (u user) started(cmd *exec.Cmd) *process {
	u.t.Helper()
	p := &process{u: u, name: strings.Join(cmd.Args[1:], " "), cmd: cmd}
	out, err1 := p.cmd.StdoutPipe()
	errs, err2 := p.cmd.StderrPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		u.t.Fatal(err)
	}
	p.out, p.err = read(out), read(errs)
	u.t.Cleanup(func() {
		p.cmd.Process.Kill() // one that has ended already doesn't mind
		p.cmd.Wait()
		if u.t.Failed() {
			u.t.Logf("carnet %s:\n%s", p.name, strings.Join(p.err.all(), "\n"))
		}
	})
	return p
}

// stop sends a signal, waits for the end and returns the exit code.
func (p *process) stop(s syscall.Signal) int {
	p.u.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.u.t.Fatal(err)
	}
	return p.code()
}

// code waits for the end and returns the exit code.
func (p *process) code() int {
	<-p.out.ended
	<-p.err.ended
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// says waits for the next line on a stream that has a word.
func (p *process) says(from *lines, word string) string {
	p.u.t.Helper()
	line, ok := from.next(p.u.ctx, word)
	if !ok {
		p.u.t.Fatalf("carnet %s did not say %q but\n%s", p.name, word, strings.Join(from.all(), "\n"))
	}
	return line
}

// lines are the lines of a stream as they come.
type lines struct {
	ended chan struct{} // closed at the stream's end

	mu    sync.Mutex
	more  chan struct{} // closed and made anew with each line
	lines []string
	seen  int // by next
}

func read(r io.Reader) *lines {
	l := &lines{ended: make(chan struct{}), more: make(chan struct{})}
	go func() {
		defer close(l.ended)
		for s := bufio.NewScanner(r); s.Scan(); {
			l.mu.Lock()
			l.lines = append(l.lines, s.Text())
			close(l.more)
			l.more = make(chan struct{})
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)]
}

// next waits for a line that has a word, after the one that it returned before.
func (l *lines) next(ctx context.Context, word string) (string, bool) {
	for ended := false; ; {
		l.mu.Lock()
		for l.seen < len(l.lines) {
			line := l.lines[l.seen]
			l.seen++
			if strings.Contains(line, word) {
				l.mu.Unlock()
				return line, true
			}
		}
		more := l.more
		l.mu.Unlock()
		if ended {
			return "", false
		}
		select {
		case <-more:
		case <-l.ended:
			ended = true
		case <-ctx.Done():
			return "", false
		}
	}
}

// elsewhere gives an address another host.
func elsewhere(t *testing.T, host, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}

func address(t *testing.T) string {
	t.Helper()
	address, err := node.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
