package claim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAlone(t *testing.T) {
	dir := t.TempDir()
	c, err := Alone(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Alone(dir); !errors.Is(err, ErrTaken) {
		t.Errorf("a second claim: %v", err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if c, err = Alone(dir); err != nil {
		t.Fatalf("after the first was given up: %v", err)
	}
	c.Release()
}

func TestShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, err := File(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := On(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Alone(); !errors.Is(err, ErrTaken) {
		t.Errorf("alone beside one who is: %v", err)
	}
	if err := errors.Join(one.Share(), other.Share()); err != nil {
		t.Fatal(err)
	}
	if err := other.Alone(); !errors.Is(err, ErrTaken) {
		t.Errorf("alone beside one who shares: %v", err)
	}
	if err := one.Release(); err != nil {
		t.Fatal(err)
	}
	if err := other.Alone(); err != nil {
		t.Errorf("alone, when nobody shares: %v", err)
	}
	other.Release()
}

// A process that is being started has what its parent has open until it runs its own
// program. What is given up meanwhile is free.
func TestReleaseBesideAStart(t *testing.T) {
	dir := t.TempDir()
	c, err := Alone(dir)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := unix.Dup(int(c.f.Fd())) // as fork does
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if c, err = Alone(dir); err != nil {
		t.Fatal(err)
	}
	c.Release()
}

func TestFileIsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := File(filepath.Join(dir, "lock")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link was followed: %v", err)
	}
}
