package faults_test

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"carnet/test/wait"
)

// endsWithTest has the kernel kill a child when this program ends, however it ends.
func endsWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// capped keeps the last of what is written to it.
type capped struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

const cappedAt = 1 << 20

func (c *capped) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept.Len() > cappedAt {
		c.kept.Next(c.kept.Len() - cappedAt/2)
	}
	return c.kept.Write(b)
}

func (c *capped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept.String()
}

// process is one run of a party.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
	log   *capped
}

// start runs the party. What stands in by goes before the command.
func (p *party) start(t *testing.T, by ...string) {
	t.Helper()
	args := append(by, *program, string(p.role), "--config", p.file(), "--log-level", "info")
	cmd := exec.Command(args[0], args[1:]...)
	run := &process{cmd: cmd, ended: make(chan struct{}), log: &p.log}
	cmd.Stderr, cmd.Stdout, cmd.SysProcAttr = run.log, run.log, endsWithTest()
	// A tracer that outlives its party keeps the pipe open.
	cmd.WaitDelay = time.Second
	p.client.HTTP.CloseIdleConnections() // to the process before
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		cmd.Wait() // the state is read from cmd.ProcessState
		close(run.ended)
	}()
	p.process = run
}

// running says whether the party's process is there.
func (p *party) running() bool {
	if p.process == nil {
		return false
	}
	select {
	case <-p.process.ended:
		return false
	default:
		return true
	}
}

func (p *party) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.process.cmd.Process.Signal(s); err != nil && p.running() {
		t.Fatalf("signal %s to %s: %v", s, p.name, err)
	}
}

// kill ends the party as a loss of power of the process would.
func (p *party) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.process.ended
}

// freeze stops the party, and returns when all its threads have stopped: a
// signal is only on its way when kill(2) returns.
func (p *party) freeze(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	wait.Until(t, string(p.name)+" stops", func() bool { return !p.running() || frozen(p.process.cmd.Process.Pid) })
}

func frozen(pid int) bool {
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return false
	}
	for _, task := range tasks {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + task.Name() + "/stat")
		if err != nil {
			return false
		}
		// "pid (name) state …", and the name may have parentheses (proc(5)).
		_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
		if !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return len(tasks) > 0
}

func (p *party) thaw(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

// end asks the party to end and returns its exit code.
func (p *party) end(t *testing.T) int {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	return p.exit(t, 30*time.Second)
}

// exit waits for the party to end by itself; -1 says that a signal ended it.
func (p *party) exit(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.process.ended:
	case <-time.After(within):
		p.signal(t, syscall.SIGQUIT) // for the goroutines
		<-p.process.ended
		t.Fatalf("%s does not end within %s; its log:\n%s", p.name, within, p.process.log)
	}
	return p.process.cmd.ProcessState.ExitCode()
}
