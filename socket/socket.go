// Package socket is the way to a process for who is at its machine and may open its
// directory: Unix sockets in it, which only the user of the process can connect to.
//
// It must not know who speaks there, nor what is said.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// mostPath is how long the path of a socket may be.
const mostPath = 100

// at calls do with a path of a socket in a directory. Where its own is too long, it goes
// by a descriptor of the directory (Linux).
func at(dir, name string, do func(path string) error) error {
	path := filepath.Join(dir, name)
	if len(path) <= mostPath {
		return do(path)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// Listen makes a socket, in the place of one that an earlier process left. The directory is
// this process's alone, and lets nobody else in.
func Listen(dir, name string) (net.Listener, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier process: %w", err)
	}
	var l net.Listener
	err := at(dir, name, func(path string) (err error) {
		l, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its path may be by a descriptor that is closed
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Dial connects to a socket.
func Dial(ctx context.Context, dir, name string) (c net.Conn, err error) {
	err = at(dir, name, func(path string) (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}
