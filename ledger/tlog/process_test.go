package tlog

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carnet"
	"carnet/ledger"
)

// The tests in this file run this test binary again, as another process that
// does what roleVariable says in the directory dirVariable.
const (
	roleVariable = "CARNET_TLOG_TEST_ROLE"
	dirVariable  = "CARNET_TLOG_TEST_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "append until killed":
		appendUntilKilled(os.Getenv(dirVariable))
	case "on a small disk":
		if err := onSmallDisk(os.Getenv(dirVariable)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done")
	}
}

func again(ctx context.Context, role, dir string, under ...string) *exec.Cmd {
	args := append(under, os.Args[0])
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// appendUntilKilled prints each entry once its receipt is there.
func appendUntilKilled(dir string) {
	var t testing.T
	l, err := New(context.Background(), config(&t, dir, newIndex()))
	if err != nil {
		panic(err)
	}
	go l.Run(context.Background())
	for i := 0; ; i += 50 {
		es := make([]ledger.Entry, 50)
		for n := range es {
			es[n] = ledger.NewSalt()
		}
		if _, err := l.Append(context.Background(), "hub", es); err != nil {
			panic(err)
		}
		for _, e := range es {
			fmt.Println(hex.EncodeToString(e[:]))
		}
	}
}

func TestNothingReceiptedIsLostByKilling(t *testing.T) {
	dir := scratch(t)
	receipted := make(map[ledger.Entry]bool)
	for range 3 {
		cmd := again(t.Context(), "append until killed", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			raw, err := hex.DecodeString(lines.Text())
			if err != nil || len(raw) != 32 {
				t.Fatalf("the process printed %q", lines.Text())
			}
			receipted[ledger.Entry(raw)] = true
			if n == 120 {
				cmd.Process.Signal(syscall.SIGKILL)
			}
		}
		cmd.Wait()
	}
	if len(receipted) < 300 {
		t.Fatalf("only %d entries were receipted", len(receipted))
	}
	index := newIndex()
	l, _ := start(t, config(t, dir, index))
	for e := range receipted {
		if _, ok := index.at[e]; !ok {
			t.Errorf("entry %x is lost", e)
			break
		}
		mustAppend(t, l, []ledger.Entry{e})
	}
	cp, _ := l.Checkpoint()
	mustAppend(t, l, entries(0, 10))
	if after, _ := l.Checkpoint(); after.Size != cp.Size+10 {
		t.Errorf("%d leaves after 10 more than %d", after.Size, cp.Size)
	}
}

func TestAFullDiskRefusesAndRecoversAndABrokenOneEnds(t *testing.T) {
	dir := scratch(t)
	try := exec.Command("unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "none", dir)
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v: %s", err, out)
	}
	cmd := again(t.Context(), "on a small disk", dir, "unshare", "--user", "--map-root-user", "--mount")
	out, err := cmd.Output()
	if err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// onSmallDisk fills a disk under a ledger, makes room again, then lets nothing
// be written any more.
func onSmallDisk(dir string) error {
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		return err
	}
	var t testing.T
	l, err := New(context.Background(), config(&t, dir, newIndex()))
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	if _, err := l.Append(context.Background(), "hub", entries(0, 10)); err != nil {
		return fmt.Errorf("with room: %w", err)
	}
	filler := filepath.Join(dir, "filler")
	for size := 1 << 20; size > 0; size /= 2 {
		f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		f.Close()
	}
	if _, err := l.Append(context.Background(), "hub", entries(10, 20)); carnet.CodeOf(err) != carnet.NoSpace {
		return fmt.Errorf("without room: %v, want %s", err, carnet.NoSpace)
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	receipts, err := l.Append(context.Background(), "hub", entries(0, 20))
	for carnet.CodeOf(err) == carnet.NoSpace { // it waited for entries that are still being refused
		receipts, err = l.Append(context.Background(), "hub", entries(0, 20))
	}
	if err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	for i, r := range receipts {
		if err := ledger.VerifyReceipt(l.Key(), entry(i), r); err != nil {
			return err
		}
	}
	err = syscall.EBUSY // while the engine has a file open
	for errors.Is(err, syscall.EBUSY) {
		err = syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	if err != nil {
		return err
	}
	if _, err := l.Append(context.Background(), "hub", entries(20, 21)); !errors.Is(err, ErrFsync) {
		return fmt.Errorf("read-only: %v, want %v", err, ErrFsync)
	}
	if err := <-ended; !errors.Is(err, ErrFsync) {
		return fmt.Errorf("run ended with %v, want %v", err, ErrFsync)
	}
	return nil
}
