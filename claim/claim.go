// Package claim keeps a file or directory for one process, or for several that share
// it, until that gives it up or ends.
package claim

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTaken is that another has it.
var ErrTaken = errors.New("taken by another")

// A Claim is an advisory lock (flock) on an open file or directory.
type Claim struct{ f *os.File }

// On opens a file or directory that is there, and claims nothing yet.
func On(path string) (*Claim, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Claim{f}, nil
}

// Alone claims a file or directory that is there for nobody else.
func Alone(path string) (*Claim, error) { return alone(On(path)) }

// File claims a file for nobody else, and makes it if it isn't there. A symbolic link
// is refused, and so is a disk that is read-only.
func File(path string) (*Claim, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return alone(&Claim{f}, nil)
}

func alone(c *Claim, err error) (*Claim, error) {
	if err != nil {
		return nil, err
	}
	if err := c.Alone(); err != nil {
		return nil, errors.Join(err, c.f.Close())
	}
	return c, nil
}

// Alone makes the claim one for nobody else; ErrTaken: another has one.
func (c *Claim) Alone() error {
	err := c.lock(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrTaken
	}
	return err
}

// Share makes the claim one beside others, and waits for who is alone.
func (c *Claim) Share() error { return c.lock(unix.LOCK_SH) }

func (c *Claim) lock(how int) error {
	for {
		if err := unix.Flock(int(c.f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Release gives the claim up. It unlocks first: a process that is being started has the
// file open until it runs its own program, and a closed file's lock would be its.
func (c *Claim) Release() error {
	return errors.Join(c.lock(unix.LOCK_UN), c.f.Close())
}
