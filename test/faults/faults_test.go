// Package faults_test does to parties what the world does to them: it runs each
// as a process of the built binary, kills and stops them, fills their disks,
// makes their fsync fail, gives them an older copy of their store, and sends them
// what no device should send. Afterwards nothing acknowledged may be lost,
// nothing doubled, and every world's evidence must prove.
//
// A test has a town (four parties and what their operators know of them), drives
// watches against it over MQTT, and ends with town.judge, which waits until
// everything is passed on, ends the processes and reads their stores.
//
// docs/design/faults.md lists which row of which table of durable states is
// reached by what. The tests must not use a hook in the program: only processes,
// signals, system calls, files and the network.
package faults_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	rounds  = flag.Int("rounds", 10, "how often TestKill kills a party")
	moves   = flag.Int("moves", 60, "how many moves TestMoves has made")
	seed    = flag.Uint64("seed", 0, "of what is random; 0: drawn")
	program = flag.String("binary", os.Getenv("CARNET_BINARY"), "the program under test; empty: built for the test")
)

func TestMain(m *testing.M) {
	// The tests wait for processes more than they compute.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *program == "" {
		dir, err := os.MkdirTemp("", "carnet-faults-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		*program = filepath.Join(dir, "carnet")
		build := exec.Command("go", "build", "-o", *program, "carnet/cmd/carnet")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
			return 1
		}
		// A test that runs itself again as a child uses the same program.
		os.Setenv("CARNET_BINARY", *program)
	}
	return m.Run()
}

// tool skips a test whose tool is missing or can't be used here.
func tool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CARNET_REQUIRE_TOOLS") == "1":
		t.Fatalf("%s can't be used: %v: %s", args[0], err, out)
	default:
		t.Skipf("%s can't be used: %v: %s", args[0], err, out)
	}
}

// carnetCommand runs a command of the program and returns what it said and its exit code.
func carnetCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs capped
	cmd := exec.CommandContext(t.Context(), *program, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &errs, endsWithTest()
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitCode()
	} else if err != nil {
		t.Fatalf("run carnet %v: %v", args, err)
	}
	return out.String(), errs.String(), 0
}
