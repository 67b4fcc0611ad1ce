//go:build unix

package mqtt

import "syscall"

// canTry says that tryWrite works here.
const canTry = true

// tryWrite writes to a socket what fits without waiting. The runtime has made
// the descriptor non-blocking.
func tryWrite(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}
