package tlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"carnet"
)

// ErrFsync is in the chain of errors after which nothing that the process
// believes to be on disk can be believed: it must exit (code 74) and recover at
// the next start.
var ErrFsync = errors.New("the disk did not take what was written")

// DiskError classes a failure to write. A disk that is full (carnet.NoSpace) and
// a lack of files or memory (carnet.Unavailable) pass; any other failure gets
// ErrFsync into its chain. The engine hands some errors on as text only, so it
// is the text that is looked at.
func DiskError(what string, err error) error {
	is := func(of ...syscall.Errno) bool {
		for _, e := range of {
			if strings.Contains(err.Error(), e.Error()) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.ENOSPC, syscall.EDQUOT):
		return carnet.Errorf(carnet.NoSpace, "the depot has no room: %s: %v", what, err).WithFix("make room on the depot's disk")
	case is(syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM):
		return carnet.Errorf(carnet.Unavailable, "the depot is short of means: %s: %v", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrFsync, err)
}

// MakeDir makes dir and what is missing above it, and makes that durable.
func MakeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MakeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	d, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// probe opens a file for writing. The engine panics when it can't open its own
// (and probing those would release their locks), so a disk that went read-only
// is found here.
func probe(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, ".probe"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
