package mqtt

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// outlet is a transport connection on which Write never waits for the device:
// what the kernel does not take at once is left to a goroutine that exists only
// while something is left, and closes the connection when it cannot write for
// as long as timeout. So one goroutine can serve all connections, whether their
// devices read or not. It lies under crypto/tls.
//
// Who writes must stop while blocked, or what is left grows without bound.
type outlet struct {
	net.Conn
	raw     syscall.RawConn // nil: cannot try without waiting
	timeout time.Duration
	drained func() // called when nothing is left any more

	mu       sync.Mutex
	rest     []byte // not yet with the kernel
	draining bool
	closing  bool // Close was called: it happens when nothing is left
	err      error

	// The argument and results of attempt; guarded by mu.
	chunk   []byte
	written int
	failure error
	attempt func(fd uintptr) bool // made once, since a closure allocates
}

func newOutlet(conn net.Conn, timeout time.Duration, drained func()) *outlet {
	o := &outlet{Conn: conn, timeout: timeout, drained: drained}
	if sc, ok := conn.(syscall.Conn); ok && canTry {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw = raw
			o.attempt = func(fd uintptr) bool {
				o.written, o.failure = tryWrite(fd, o.chunk)
				return true
			}
		}
	}
	return o
}

// Write takes all of b, or fails.
func (o *outlet) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n := 0
	if !o.draining && o.raw != nil {
		o.chunk = b
		err := o.raw.Write(o.attempt)
		o.chunk = nil
		if err == nil {
			n, err = o.written, o.failure
		}
		if err != nil {
			o.fail(err)
			return 0, err
		}
	}
	if n == len(b) {
		return n, nil
	}
	o.rest = append(o.rest, b[n:]...)
	if !o.draining {
		o.draining = true
		go o.drain()
	}
	return len(b), nil
}

// drain writes what is left, waiting for the device.
func (o *outlet) drain() {
	var b []byte
	for {
		o.mu.Lock()
		if len(o.rest) == 0 || o.err != nil {
			o.draining, o.rest = false, nil
			if o.closing {
				o.Conn.Close()
			}
			o.mu.Unlock()
			o.drained()
			return
		}
		b, o.rest = o.rest, b[:0]
		o.mu.Unlock()
		o.Conn.SetWriteDeadline(time.Now().Add(o.timeout))
		if _, err := o.Conn.Write(b); err != nil {
			o.mu.Lock()
			o.fail(err)
			o.mu.Unlock()
		}
	}
}

// fail closes the connection, so that its reader notices. o.mu is held.
func (o *outlet) fail(err error) {
	o.err, o.rest = err, nil
	o.Conn.Close()
}

// blocked reports whether something is left that the device must read first.
func (o *outlet) blocked() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.draining && o.err == nil
}

// broken reports whether writing has failed.
func (o *outlet) broken() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err != nil
}

// Close closes the connection when nothing is left.
func (o *outlet) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
	if o.draining {
		return nil
	}
	return o.Conn.Close()
}

// SetDeadline and SetWriteDeadline leave writing alone, whose deadlines are the
// outlet's own: crypto/tls sets one when it closes.
func (o *outlet) SetDeadline(t time.Time) error    { return o.Conn.SetReadDeadline(t) }
func (o *outlet) SetWriteDeadline(time.Time) error { return nil }
