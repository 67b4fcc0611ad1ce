package node

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"

	"carnet"
	"carnet/porter"
)

// Ports from which FreeAddress draws lie below those that kernels give to
// connections (RFC 6335 §6 and Linux alike begin far above), so that one is still
// free when its party listens, and when it starts again.
const (
	lowestPort  = 12_000
	highestPort = 31_999
)

// drawn are the ports that this process was given: never one twice.
var drawn sync.Map

// FreeAddress draws an address of this machine that is free for now, for parties
// that nobody configures: a demo's and tests'.
func FreeAddress() (string, error) {
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if _, twice := drawn.LoadOrStore(port, true); twice {
			continue
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		} else if err != nil {
			return "", err
		}
		return address, l.Close()
	}
	return "", carnet.Errorf(carnet.Unavailable, "no port from %d to %d of this machine is free", lowestPort, highestPort).WithFix("end what listens there, or name the ports")
}

// listen takes an address that the party is configured to listen at.
func listen(address string) (net.Listener, error) {
	return porter.Open(address, "end it if it's the same party, or name another address under [listen]; a demo takes others with --port-base")
}
