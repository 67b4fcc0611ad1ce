package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet/demo/demotest"

	"golang.org/x/sys/unix"
)

// TestADemoOnATerminal looks at a demo on a terminal, plays the lines with which its
// screen ends, as somebody does who pastes them, and ends it.
func TestADemoOnATerminal(t *testing.T) {
	for _, tool := range []string{"mosquitto_pub", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	u.ctx = ctx
	at := &demotest.Terminal{Columns: 400, Rows: 40} // no line wraps
	keys, slave := openTerminal(t, at.Columns, at.Rows)
	c := u.command("demo", "--data=d")
	c.Stdout, c.Stderr = slave, slave
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	ended := make(chan struct{})
	go func() { defer close(ended); io.Copy(at, keys) }() // until the program has ended
	t.Cleanup(func() {
		c.Process.Kill() // one that has ended already doesn't mind
		c.Wait()
		if t.Failed() {
			t.Logf("the terminal:\n%s", strings.Join(at.All(), "\n"))
		}
	})
	shows := func(what string) []string {
		t.Helper()
		for ctx.Err() == nil {
			if screen := at.Screen(); slices.ContainsFunc(screen, func(line string) bool { return strings.Contains(line, what) }) {
				return screen
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("it doesn't show %q", what)
		return nil
	}

	screen := shows("→ citadel")
	begins := slices.Index(screen, "In other terminals, to begin with:")
	if begins < 0 || !strings.Contains(strings.Join(screen[:begins], "\n"), "messages acknowledged, 0 refused") {
		t.Fatalf("the screen is\n%s", strings.Join(screen, "\n"))
	}
	pasted := screen[begins:]
	if len(pasted) != 2+2*5 {
		t.Fatalf("the screen ends with %d lines:\n%s", len(pasted), strings.Join(pasted, "\n"))
	}
	first, expected := strings.TrimSpace(pasted[1]), []string{"", "", "<- arena", "heart_rate: nearest 20", "Verdict: true."}
	var watched *lines
	for i, line := range pasted[2:] {
		if i%2 == 0 {
			continue // it says what the next is for
		}
		if i == 1 {
			watched = u.watches(first, line)
			if _, ok := watched.next(ctx, "heart_rate"); !ok {
				t.Fatalf("%s\nshows nothing", line)
			}
			continue
		}
		out, err := u.pastes(first, line)
		if want := expected[i/2]; err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\nshows %v, %q\nwant %q", line, err, out, want)
		}
		if i == 3 {
			if _, ok := watched.next(ctx, " 142 "); !ok {
				t.Fatalf("what was sent isn't seen live, but\n%s", strings.Join(watched.all(), "\n"))
			}
		}
	}

	signsIn(t, at.All())

	// What is refused of somebody else's is on the screen, which still ends so.
	bad := strings.Replace(pasted[5], `{"n":"heart_rate","v":142}`, `{"n":"mood","v":1}`, 1)
	if out, err := u.pastes(first, bad); bad == pasted[5] {
		t.Fatalf("%q, %v, of\n%s", out, err, bad)
	}
	screen = shows("hub refused 1 message that the devices didn't send: carnet thing refusals ")
	if !slices.Equal(screen[len(screen)-len(pasted):], pasted) || strings.Count(strings.Join(at.All(), "\n"), pasted[0]) != 1 {
		t.Errorf("the screen ends otherwise:\n%s", strings.Join(screen, "\n"))
	}

	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	c.Wait()
	text := strings.Join(at.All(), "\n")
	if code := c.ProcessState.ExitCode(); code != 0 || !strings.Contains(text, "0 lost, 0 doubled, 0 too many, 0 out of order") || strings.Contains(text, pasted[0]) {
		t.Errorf("it ended with %d", code)
	}
}

// signsIn signs in to the console as a demo's screen says.
func signsIn(t *testing.T, screen []string) {
	t.Helper()
	for _, line := range screen {
		said := regexp.MustCompile(`the console is at (\S+): sign in as (\w+), .*, password (\S+)$`).FindStringSubmatch(strings.TrimSpace(line))
		if said == nil {
			continue
		}
		answer, err := http.Post(strings.TrimSuffix(said[1], "/")+"/session", "application/json", strings.NewReader(fmt.Sprintf(`{"name":%q,"password":%q}`, said[2], said[3])))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusCreated {
			t.Errorf("the console answers %s to %q", answer.Status, said[0])
		}
		return
	}
	t.Error("it doesn't say where the console is")
}

// pastes runs lines in a shell of its own, as the demo's screen says.
func (u user) pastes(first, line string) (string, error) {
	out, err := u.sh(first + "; " + line).CombinedOutput()
	return string(out), err
}

// watches starts a line that goes on until the test ends.
func (u user) watches(first, line string) *lines {
	u.t.Helper()
	c := u.sh(first + "; exec " + strings.TrimSpace(line))
	out, err := c.StdoutPipe()
	if err := errors.Join(err, c.Start()); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return read(out)
}

func (u user) sh(script string) *exec.Cmd {
	c := exec.CommandContext(u.ctx, "sh", "-c", script)
	c.Dir, c.Env = u.dir, append(os.Environ(), "CARNET_TEST_COMMAND=1", "CARNET_ACCESS=")
	return c
}

// openTerminal makes a terminal, and returns the ends of who types and of the program.
func openTerminal(t *testing.T, columns, rows int) (keys, program *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0))
	err = errors.Join(err, unix.IoctlSetWinsize(int(keys.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}))
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return keys, program
}
