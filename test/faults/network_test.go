package faults_test

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"carnet/identity"
)

// network is what lies between the parties: connections to a world's link and calls,
// and to a depot, go through a line each, which can be cut.
type network struct{ lines []*line }

// line is how others reach one listener of a party.
type line struct {
	name    string
	address string
	listens func() string // where the party does

	mu   sync.Mutex
	down bool // nobody gets through
	open map[net.Conn]bool
}

// lay lays lines to a party: it has others connect to them.
func (n *network) lay(t *testing.T, p *party) {
	to := func(name string, listens func() string) string {
		l := newLine(t, string(p.name)+"'s "+name, listens)
		n.lines = append(n.lines, l)
		return l.address
	}
	switch p.role {
	case identity.World:
		p.config.Advertise.Link = to("link", func() string { return p.config.Listen.Link })
		p.config.Advertise.R5 = to("calls", func() string { return p.config.Listen.R5 })
	case identity.Depot:
		p.config.Advertise.R2 = to("ledger, objects and register", func() string { return p.config.Listen.R2 })
	}
}

// any draws a line.
func (n *network) any(r *rand.Rand) *line { return n.lines[r.IntN(len(n.lines))] }

func newLine(t *testing.T, name string, listens func() string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{name: name, address: listener.Addr().String(), listens: listens, open: make(map[net.Conn]bool)}
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			caller, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Go(func() { l.connect(caller) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.cut(true)
		calls.Wait()
	})
	return l
}

// connect passes on what two sides say, until one hangs up or the line is cut.
func (l *line) connect(caller net.Conn) {
	defer caller.Close()
	callee, err := net.Dial("tcp", l.listens())
	if err != nil {
		return // the caller sees nobody there
	}
	defer callee.Close()
	if !l.enter(caller, callee) {
		return
	}
	defer l.leave(caller, callee)
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(caller, callee)
		caller.Close()
	})
	io.Copy(callee, caller)
	callee.Close()
	back.Wait()
}

func (l *line) enter(both ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range both {
		l.open[c] = true
	}
	return !l.down
}

func (l *line) leave(both ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range both {
		delete(l.open, c)
	}
}

// cut ends every connection through the line; down, nobody gets through any more.
func (l *line) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	for c := range l.open {
		c.Close()
	}
}

// mend lets callers through again.
func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
