package node

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/peering"
	"carnet/porter"
	"carnet/problem"
)

// inbound are the connections of peers to a listener of this party.
type inbound struct {
	mu    sync.Mutex
	conns map[net.Conn]carnet.PartyID
}

func (i *inbound) add(c net.Conn, peer carnet.PartyID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.conns[c] = peer
}

func (i *inbound) drop(c net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.conns, c)
}

// cut closes a peer's connections.
func (i *inbound) cut(peer carnet.PartyID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c, of := range i.conns {
		if of == peer {
			c.Close()
			delete(i.conns, c)
		}
	}
}

// serveMutual adds an HTTPS server for the peers of a scope. Their connections are
// closed when their peering ends.
func (n *Node) serveMutual(address string, cert tls.Certificate, s peering.Scope, handler http.Handler) error {
	config := mutualTLS(cert, nil)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return mutualTLS(cert, func(c *x509.Certificate) bool {
			p, ok := n.peers.ByPin(keys.Pin(c), s)
			if !ok {
				return false
			}
			n.inbound.add(hello.Conn, p.Name)
			_, ok = n.peers.ByPin(keys.Pin(c), s) // it may have ended before the connection could be found
			return ok
		}), nil
	}
	return n.serveHTTP(address, config, &courteous{handler: handler, most: mostCalls, within: bodyWithin, open: make(map[carnet.Fingerprint]int)})
}

// What a peer may ask of a mutual listener at once, and how long it may take over what
// it sends: the largest object of a depot in it takes 9 Mbit/s.
const (
	mostCalls  = 256
	bodyWithin = time.Minute
)

// courteous keeps one peer from holding calls without end.
type courteous struct {
	handler http.Handler
	most    int
	within  time.Duration

	mu   sync.Mutex
	open map[carnet.Fingerprint]int // by the peers' TLS keys
}

func (b *courteous) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		b.handler.ServeHTTP(w, r) // which refuses it
		return
	}
	pin := keys.Pin(r.TLS.PeerCertificates[0])
	if !b.enter(pin) {
		problem.Refuse(w, "", carnet.Errorf(carnet.Unavailable, "%d calls of yours are under way, which is all there may be", b.most).WithFix("wait until one has ended, and try again"), nil)
		return
	}
	defer b.leave(pin)
	defer porter.Known(r.Context())()
	porter.BodyWithin(w, r, b.within)
	b.handler.ServeHTTP(w, r)
}

func (b *courteous) enter(pin carnet.Fingerprint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[pin] >= b.most {
		return false
	}
	b.open[pin]++
	return true
}

func (b *courteous) leave(pin carnet.Fingerprint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[pin]--; b.open[pin] == 0 {
		delete(b.open, pin)
	}
}
