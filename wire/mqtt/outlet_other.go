//go:build !unix

package mqtt

import "errors"

// canTry says that every write is left to the connection's own goroutine.
const canTry = false

func tryWrite(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
