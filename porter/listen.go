package porter

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"

	"carnet"
)

// Open listens at an address; where another program does, fix says what to do.
func Open(address, fix string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, carnet.Errorf(carnet.Conflict, "another program listens at %s", address).WithFix("%s", fix)
	}
	return l, err
}

// Listen wraps a listener: a connection has a place until it is closed, and one for whom
// there is none is closed unanswered. It waits but for as long as one of its calls is
// known to be somebody's (Known).
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
		if place, ok := l.porter.Enter(conn.RemoteAddr(), func() { conn.Close() }); ok {
			return &guest{Conn: conn, place: place}, nil
		}
		conn.Close()
	}
}

// guest is a connection that has a place.
type guest struct {
	net.Conn
	place *Place

	mu    sync.Mutex
	known int // calls under way whose caller is known
}

// Close implements net.Conn.
func (g *guest) Close() error {
	defer g.place.Leave()
	return g.Conn.Close()
}

type guestKey struct{}

// WithConn is for http.Server.ConnContext, if its connections are of Listen.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	if g, ok := c.(*guest); ok {
		return context.WithValue(ctx, guestKey{}, g)
	}
	return ctx
}

// Known has the connection of a call keep its place until done is called: it is known
// who makes the call. Without a connection of Listen it does nothing.
func Known(ctx context.Context) (done func()) {
	g, ok := ctx.Value(guestKey{}).(*guest)
	if !ok {
		return func() {}
	}
	g.count(1)
	return sync.OnceFunc(func() { g.count(-1) })
}

func (g *guest) count(by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known += by
	if g.known > 0 {
		g.place.Keep()
	} else {
		g.place.Wait()
	}
}
