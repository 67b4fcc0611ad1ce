package owner

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carnet"
)

// The test in this file runs this test binary again, in a mount namespace of its
// own, with a small disk at the directory that smallDisk names.
const smallDisk = "CARNET_OWNER_TEST_DISK"

func TestMain(m *testing.M) {
	dir := os.Getenv(smallDisk)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := onSmallDisk(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("done")
}

func TestAFullDiskAndOneThatIsReadOnlyLeaveTheKeystoreAsItWas(t *testing.T) {
	dir := t.TempDir()
	namespace := []string{"--user", "--map-root-user", "--mount"}
	try := exec.Command("unshare", append(namespace, "mount", "-t", "tmpfs", "-o", "size=64k", "none", dir)...)
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append(namespace, os.Args[0])...)
	cmd.Env = append(os.Environ(), smallDisk+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// onSmallDisk fills a disk under an open keystore, makes room again, and then
// lets nothing be written.
func onSmallDisk(dir string) error {
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		return err
	}
	path, filler := filepath.Join(dir, "keys.json"), filepath.Join(dir, "filler")
	k, err := Create(path, secret, quick)
	if err != nil {
		return err
	}
	first, err := k.Key(arena())
	if err != nil {
		return err
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := fill(filler); err != nil {
		return err
	}
	if _, err := k.Key(clinic()); carnet.CodeOf(err) != carnet.NoSpace || !strings.Contains(err.Error(), "as it was; make room") {
		return fmt.Errorf("without room: %v, want %s", err, carnet.NoSpace)
	}
	asItWas := func() error {
		after, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(after, before) || len(k.Worlds()) != 1 {
			return fmt.Errorf("the keystore has changed, or can't be read: %v", err)
		}
		return nil
	}
	if err := asItWas(); err != nil {
		return err
	}
	if _, err := os.Lstat(path + ".new"); !os.IsNotExist(err) {
		return fmt.Errorf("the draft is left over: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	if _, err := k.Key(clinic()); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if before, err = os.ReadFile(path); err != nil {
		return err
	}
	// The lock is a file that is open for writing: the keystore is closed meanwhile.
	if err := k.Close(); err != nil {
		return err
	}
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	if _, err := Open(path, secret); err == nil || !strings.Contains(err.Error(), "read-only") {
		return fmt.Errorf("on a read-only disk: %v", err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, ""); err != nil {
		return err
	}
	if k, err = Open(path, secret); err != nil {
		return err
	}
	if again, err := k.Key(arena()); err != nil || !again.Equal(first) || len(k.Worlds()) != 2 {
		return fmt.Errorf("at the end the keystore has %+v, %v", k.Worlds(), err)
	}
	return nil
}

func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 64 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	return nil
}
