package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"carnet/test/wait"
)

// Sets of system calls before which a party is killed.
const (
	writes  = "pwrite64"                              // SQLite writes a page or a log frame
	syncs   = "fsync,fdatasync"                       // what was written is to be made durable
	renames = "rename,renameat,renameat2,link,linkat" // a file takes its place
	sends   = "write"                                 // to a connection: an answer, a frame
)

// state is the files of the agent's own state, beside which the activity log and
// the key table have their own.
func (p *party) state() []string {
	db := filepath.Join(p.data(), "state.db")
	return []string{db, db + "-wal"}
}

// tracer is an strace that is attached to a party.
type tracer struct {
	cmd *exec.Cmd
	out capped
}

// inject attaches strace to a running party, with a rule such as
// "error=EIO:when=1" for some calls; if paths are given, for those with these
// files only. It counts calls per thread.
func (p *party) inject(t *testing.T, calls, what string, paths ...string) *tracer {
	t.Helper()
	pid := p.process.cmd.Process.Pid
	args := []string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + what, "-p", strconv.Itoa(pid)}
	for _, path := range paths {
		args = append(args, "-P", path)
	}
	tr := &tracer{cmd: exec.Command("strace", args...)}
	tr.cmd.Stderr, tr.cmd.SysProcAttr = &tr.out, endsWithTest()
	if err := tr.cmd.Start(); err != nil {
		t.Fatalf("attach strace: %v", err)
	}
	wait.Until(t, fmt.Sprintf("strace is attached to %s (%s)", p.name, &tr.out), func() bool { return !p.running() || traced(pid) })
	return tr
}

// traced says whether every thread has a tracer.
func traced(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	for _, task := range tasks {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if err != nil || bytes.Contains(status, []byte("TracerPid:\t0\n")) {
			return false
		}
	}
	return true
}

// detach ends the tracing, if it goes on.
func (tr *tracer) detach() {
	tr.cmd.Process.Signal(os.Interrupt) // strace lets go of the party
	tr.cmd.Wait()
}

// dies says whether the party ends within a time.
func (p *party) dies(within time.Duration) bool {
	select {
	case <-p.process.ended:
		return true
	case <-time.After(within):
		return false
	}
}

// killBefore has the party killed right before one of its threads makes a call
// the nth time.
func (p *party) killBefore(t *testing.T, calls string, nth int, paths ...string) *tracer {
	t.Helper()
	return p.inject(t, calls, fmt.Sprintf("signal=KILL:when=%d", nth), paths...)
}
