// Package porter gives places to those who come in, so that who says nothing keeps
// nobody else out. It owns no connection; whoever admits one asks the porter first and
// says when it has left. What comes in is whole within a time (BodyWithin), and what panics
// at it is told (TellPanics).
//
// Who comes in waits until it has shown who it is, and gives its place up meanwhile if
// another needs it: one address has so many places, and when they or all are taken, who
// has waited longest at the address where most wait is put out. So a silent crowd from a
// few addresses keeps out only itself.
//
// An IPv6 address stands for its /64, which one subscriber has whole; an IPv4
// address in IPv6 form for itself. What has no address (a pipe) is one address.
//
// The package must not know what the places are for.
package porter

import (
	"container/heap"
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// Porter lets in so many at once. Its methods, and those of its places, may be called
// concurrently.
type Porter struct {
	all, ofOne int

	mu     sync.Mutex
	inside int
	came   uint64 // how often somebody began to wait
	from   map[netip.Prefix]*origin
	crowds crowds // the origins where somebody waits
}

// origin is an address that somebody has come from.
type origin struct {
	prefix  netip.Prefix
	inside  int       // places that count for it
	waiting list.List // *Place, who has waited longest first
	at      int       // among the crowds, if somebody waits
}

// Place is what somebody has who was let in.
type Place struct {
	porter *Porter
	from   *origin
	out    func()

	// Under the porter's lock.
	waits *list.Element // nil: it doesn't wait
	since uint64
	left  bool
	alone bool // it counts for its address no more
}

// New makes a Porter of so many places, of which one address may take some.
func New(all, ofOne int) *Porter {
	return &Porter{all: all, ofOne: ofOne, from: make(map[netip.Prefix]*origin)}
}

// Enter gives a place to somebody who waits from then on; false: none can be had. out is
// called, once at most, if the place goes to another; it has been left then.
func (p *Porter) Enter(remote net.Addr, out func()) (*Place, bool) {
	place, gone := p.enter(network(remote), out)
	if gone == place {
		return nil, false
	}
	if gone != nil {
		gone.out()
	}
	return place, true
}

// enter takes a place, and finds who is put out for it: nobody, another, or the one who
// came just now.
func (p *Porter) enter(prefix netip.Prefix, out func()) (place, gone *Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := p.from[prefix]
	if from == nil {
		from = &origin{prefix: prefix}
		p.from[prefix] = from
	}
	place = &Place{porter: p, from: from, out: out}
	p.inside++
	from.inside++
	p.wait(place)
	switch {
	case from.inside > p.ofOne:
		gone = from.longest()
	case p.inside > p.all:
		gone = p.crowds[0].longest()
	default:
		return place, nil
	}
	p.leave(gone)
	return place, gone
}

// Keep has a place kept, whatever crowd comes: who has it has shown who it is.
func (l *Place) Keep() {
	l.porter.mu.Lock()
	defer l.porter.mu.Unlock()
	l.porter.keep(l)
}

// Settle is Keep for good, and counts for the place's address no more: there is another
// bound on how many have one.
func (l *Place) Settle() {
	p := l.porter
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.left || l.alone {
		return
	}
	p.keep(l)
	l.alone = true
	p.uncount(l.from)
}

// Wait has a place that was kept given up again if another needs it.
func (l *Place) Wait() {
	l.porter.mu.Lock()
	defer l.porter.mu.Unlock()
	if !l.left && !l.alone && l.waits == nil {
		l.porter.wait(l)
	}
}

// Leave gives a place back, at its first call.
func (l *Place) Leave() {
	l.porter.mu.Lock()
	defer l.porter.mu.Unlock()
	l.porter.leave(l)
}

// What follows is called under mu.

func (p *Porter) wait(l *Place) {
	p.came++
	l.since = p.came
	l.waits = l.from.waiting.PushBack(l)
	if l.from.waiting.Len() == 1 {
		heap.Push(&p.crowds, l.from)
	} else {
		heap.Fix(&p.crowds, l.from.at)
	}
}

func (p *Porter) keep(l *Place) {
	if l.waits == nil {
		return
	}
	l.from.waiting.Remove(l.waits)
	l.waits = nil
	if l.from.waiting.Len() == 0 {
		heap.Remove(&p.crowds, l.from.at)
	} else {
		heap.Fix(&p.crowds, l.from.at)
	}
}

func (p *Porter) leave(l *Place) {
	if l.left {
		return
	}
	p.keep(l)
	l.left = true
	p.inside--
	if !l.alone {
		p.uncount(l.from)
	}
}

func (p *Porter) uncount(from *origin) {
	if from.inside--; from.inside == 0 {
		delete(p.from, from.prefix)
	}
}

// longest is who has waited longest.
func (o *origin) longest() *Place { return o.waiting.Front().Value.(*Place) }

// crowds is a heap: first the address where most wait, of those with as many the one
// where somebody has waited longest.
type crowds []*origin

// Len implements heap.Interface.
func (c crowds) Len() int { return len(c) }

// Less implements heap.Interface.
func (c crowds) Less(i, j int) bool {
	if n, m := c[i].waiting.Len(), c[j].waiting.Len(); n != m {
		return n > m
	}
	return c[i].longest().since < c[j].longest().since
}

// Swap implements heap.Interface.
func (c crowds) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].at, c[j].at = i, j
}

// Push implements heap.Interface.
func (c *crowds) Push(o any) {
	from := o.(*origin)
	from.at = len(*c)
	*c = append(*c, from)
}

// Pop implements heap.Interface.
func (c *crowds) Pop() any {
	last := len(*c) - 1
	from := (*c)[last]
	(*c)[last] = nil
	*c = (*c)[:last]
	return from
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
