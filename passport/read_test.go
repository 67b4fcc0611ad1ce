package passport

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
)

// A passport comes from somebody else: what stands in the place of one of its files and
// isn't one is refused, and not waited for.
func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{FileHead, FileManifest, FileStretches, FileProofs, FileKeys} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half := t.TempDir()
	if err := os.WriteFile(filepath.Join(half, FileStretches), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(half, FileProofs), 0o600); err != nil {
		t.Fatal(err)
	}
	pieces := func(dir string) error {
		p := Passport{dir: dir, Manifest: new(avatar.Manifest)}
		return p.Pieces(func(avatar.MovedStretch, []byte, []byte) error { return errors.New("there is a piece") })
	}
	for what, read := range map[string]func() error{
		"the head":      func() error { _, err := Open(dir); return err },
		"the stretches": func() error { return pieces(dir) },
		"the proofs":    func() error { return pieces(half) },
		"the keys":      func() error { _, err := (&Passport{dir: dir}).Bags(); return err },
		"a directory":   func() error { _, err := readSmall(dir, 10); return err },
	} {
		done := make(chan error, 1)
		go func() { done <- read() }()
		select {
		case err := <-done:
			if carnet.CodeOf(err) != carnet.Tampered {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s are waited for", what)
		}
	}
}

// What follows the list of grants is refused, not passed over.
func TestGrantsEndWithTheirList(t *testing.T) {
	if _, err := readGrants([]byte("[]\n")); err != nil {
		t.Error(err)
	}
	for _, more := range []string{"[]", "{}", "x"} {
		if _, err := readGrants([]byte("[]\n" + more)); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("with %q behind it: %v", more, err)
		}
	}
}
