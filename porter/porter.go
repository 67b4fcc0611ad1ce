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
	"slices"
	"sync"
)

// Porter lets in so many at once. Its methods may be called concurrently.
type Porter struct {
	all, ofOne int

	mu     sync.Mutex
	inside int
	from   map[netip.Prefix]int
	idle   []*waiting // those who may be put out, in the order in which they came
}

// waiting is somebody who has a place until another needs it more.
type waiting struct {
	from netip.Prefix
	out  func()
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

// EnterWaiting is Enter for somebody who hasn't shown yet who they are. When all places
// are taken, the address that has most of them gives up one, if it has more than this
// one: out is called for who has waited longest there, and has left then. So those who
// only wait keep out nobody who comes from somewhere else. leave may be called all the
// same. out must not call the porter.
func (p *Porter) EnterWaiting(remote net.Addr, out func()) (leave func(), ok bool) {
	w := &waiting{network(remote), out}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from[w.from] >= p.ofOne {
		return nil, false
	}
	if p.inside >= p.all {
		i := p.dispensable(p.from[w.from])
		if i < 0 {
			return nil, false
		}
		last := p.idle[i]
		p.forget(last)
		last.out()
	}
	p.inside++
	p.from[w.from]++
	p.idle = append(p.idle, w)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forget(w)
	}, true
}

// dispensable finds who has waited longest at the address that has most places, if it
// has more than so many; -1: nobody. The caller holds mu.
func (p *Porter) dispensable(than int) int {
	found := -1
	for i, w := range p.idle {
		if n := p.from[w.from]; n > than {
			found, than = i, n
		}
	}
	return found
}

// forget gives a place back, at its first call; the caller holds mu.
func (p *Porter) forget(w *waiting) {
	if i := slices.Index(p.idle, w); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
		p.left(w.from)
	}
}

func (p *Porter) leave(from netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left(from)
}

// left gives back a place; the caller holds mu.
func (p *Porter) left(from netip.Prefix) {
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
