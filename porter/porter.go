// Package porter counts who is inside by where they come from, so that one address
// doesn't take the places of all others. It owns no connection; whoever admits one
// asks the porter first and says when it has left. What comes in is whole within a time
// (BodyWithin).
//
// An IPv6 address stands for its /64, which one subscriber has whole; an IPv4
// address in IPv6 form for itself. What has no address (a pipe) is one address.
//
// The package must not know what the places are for.
package porter

import (
	"net"
	"net/netip"
	"sync"
)

// Porter lets in so many at once. Its methods may be called concurrently.
type Porter struct {
	all, ofOne int

	mu     sync.Mutex
	inside int
	from   map[netip.Prefix]int
}

// New makes a Porter of so many places, of which one address may take some.
func New(all, ofOne int) *Porter {
	return &Porter{all: all, ofOne: ofOne, from: make(map[netip.Prefix]int)}
}

// Enter takes a place; false: there is none for this address. leave gives it back,
// at its first call.
func (p *Porter) Enter(remote net.Addr) (leave func(), ok bool) {
	from := network(remote)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside >= p.all || p.from[from] >= p.ofOne {
		return nil, false
	}
	p.inside++
	p.from[from]++
	return sync.OnceFunc(func() { p.leave(from) }), true
}

func (p *Porter) leave(from netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inside--
	if p.from[from]--; p.from[from] == 0 {
		delete(p.from, from)
	}
}

// network is what counts as one address.
func network(remote net.Addr) netip.Prefix {
	a, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return netip.Prefix{}
	}
	addr, bits := addr.Unmap().WithZone(""), 64
	if addr.Is4() {
		bits = 32
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// Listen wraps a listener: a connection is inside until it is closed, and one for
// whom there is no place is closed unanswered.
func (p *Porter) Listen(l net.Listener) net.Listener { return &listener{l, p} }

type listener struct {
	net.Listener
	porter *Porter
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if leave, ok := l.porter.Enter(conn.RemoteAddr()); ok {
			return &guest{conn, leave}, nil
		}
		conn.Close()
	}
}

// guest is a connection that has a place.
type guest struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}
