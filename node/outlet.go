package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"carnet"
	"carnet/depot"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/peering"
	"carnet/register"
)

// outlet is a party's way to its depot, whichever that is at the moment. While
// there is none, statements wait and objects aren't stored.
type outlet struct {
	mu sync.RWMutex // guards what follows
	depotNow
	party carnet.PartyID
	since time.Time // when the depot last changed
}

// depotNow is a party's depot at the moment: nothing while there is none.
type depotNow struct {
	client    *depot.Client
	registrar *register.Client // nil if the depot keeps no register
	outbox    *ledger.Outbox
}

func (o *outlet) set(now depotNow, party carnet.PartyID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.depotNow, o.since = now, time.Now()
	if party != "" {
		o.party = party
	}
}

// wake says that there may be new statements.
func (o *outlet) wake() {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.outbox != nil {
		o.outbox.Wake()
	}
}

// knew has the outlet name the depot that the party had before its start, which may
// have something of it still.
func (o *outlet) knew(party carnet.PartyID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.party = party
}

// lastDepot is the depot of the peerings, the newest of those that were one.
func lastDepot(all []peering.Peering) (last carnet.PartyID) {
	var since time.Time
	stood := false
	for _, p := range all {
		made, ok := p.Made()
		if !ok || peerFile(made).Role != identity.Depot {
			continue
		}
		stands := made.State == peering.Active || made.State == peering.Suspended
		if last == "" || stands && !stood || stands == stood && p.Since.After(since) {
			last, since, stood = p.Name, p.Since, stands
		}
	}
	return last
}

// Party names the depot, or the last one that there ever was.
func (o *outlet) Party() carnet.PartyID {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.party
}

// away says since when and why the depot takes no statements; nil: it does.
func (o *outlet) away() *ledger.Away {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.outbox == nil {
		return &ledger.Away{Since: o.since, Why: "there is no depot at the moment"}
	}
	return o.outbox.Away()
}

func (o *outlet) now() (*depot.Client, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.client == nil {
		return nil, carnet.Errorf(carnet.Unavailable, "there is no depot at the moment").WithFix("try again in a moment; if it stays so, peer with one: carnet peer list")
	}
	return o.client, nil
}

// register is the register that the depot keeps.
func (o *outlet) register() (*register.Client, error) {
	if _, err := o.now(); err != nil {
		return nil, err
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.registrar == nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the depot %s keeps no register", o.party).WithFix("peer with a depot that does")
	}
	return o.registrar, nil
}

// PutObject implements avatar.Depot.
func (o *outlet) PutObject(ctx context.Context, body []byte, class carnet.Retention) (carnet.Fingerprint, error) {
	c, err := o.now()
	if err != nil {
		return carnet.FingerprintOf(body), err
	}
	return c.PutObject(ctx, body, class)
}

// GetObject implements avatar.Depot.
func (o *outlet) GetObject(ctx context.Context, f carnet.Fingerprint) ([]byte, error) {
	c, err := o.now()
	if err != nil {
		return nil, err
	}
	return c.GetObject(ctx, f)
}

// DeleteObject implements avatar.Depot.
func (o *outlet) DeleteObject(ctx context.Context, f carnet.Fingerprint) error {
	c, err := o.now()
	if err != nil {
		return err
	}
	return c.DeleteObject(ctx, f)
}

// Objects implements avatar.Depot.
func (o *outlet) Objects(ctx context.Context, after carnet.Fingerprint) ([]carnet.Fingerprint, error) {
	c, err := o.now()
	if err != nil {
		return nil, err
	}
	return c.Objects(ctx, after)
}

// depotPatience is how long a depot may take over one request. What a world does
// beside storing (compaction, retention, the end of keys) waits for it as long.
const depotPatience = time.Minute

// depotHTTP is how a depot is called: one that hangs is given up, and one that
// sends the caller elsewhere isn't followed.
func depotHTTP(secure *tls.Config, dial func(context.Context, string, string) (net.Conn, error), patience time.Duration) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: secure, DialContext: dial, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}
}

// sendStatements sends the party's statements to its depot while they are peers.
func (n *Node) sendStatements(ctx context.Context, p peering.Peering) error {
	peer := peerFile(p)
	local, err := identity.Load(ctx, n.table, shown{n.config, n.table}.name(p.Name))
	if err != nil {
		return err
	}
	key, err := ledger.ParseKey(peer.Ledger)
	if err != nil {
		return err
	}
	connections, done := n.connections(ctx, p.Name)
	defer done()
	secure := mutualTLS(local.Certificate, func(c *x509.Certificate) bool { return keys.Pin(c) == peer.Pin && ctx.Err() == nil })
	client := &depot.Client{Base: peer.R2, HTTP: depotHTTP(secure, connections.dial, depotPatience)}
	newest, err := n.newestReceipt(ctx)
	if err != nil {
		return err
	}
	outbox, err := ledger.NewOutbox(ledger.OutboxConfig{Store: n.records, Submitter: client, Key: key, Newest: newest, Logger: n.log})
	if err != nil {
		return err
	}
	n.log.Info("statements go to the depot", "depot", p.Name, "at", peer.R2)
	now := depotNow{client: client, outbox: outbox}
	if peer.Registrar != "" {
		now.registrar = &register.Client{Base: client.Base, HTTP: client.HTTP, Registrar: peer.Registrar, Ledger: key, Newest: outbox.Newest}
	}
	n.depot.set(now, p.Name)
	defer n.depot.set(depotNow{}, "")
	return outbox.Run(ctx)
}

// newestReceipt is a checkpoint of the ledger as the party knew it before its start.
func (n *Node) newestReceipt(ctx context.Context) ([]byte, error) {
	text, err := n.records.LastReceipt(ctx)
	if err != nil || len(text) == 0 {
		return nil, err
	}
	receipt, err := ledger.ParseReceipt(text)
	return receipt.Checkpoint, err
}

// connections are what this party dials by a peering, until ctx ends: cut when it does,
// and by node.cut.
func (n *Node) connections(ctx context.Context, peer carnet.PartyID) (o *outbound, done func()) {
	o = &outbound{conns: make(map[net.Conn]struct{})}
	n.outbound.Store(peer, o)
	stop := context.AfterFunc(ctx, o.cut)
	return o, func() {
		stop()
		n.outbound.CompareAndDelete(peer, o)
	}
}

// outbound are connections that this party made by one peering.
type outbound struct {
	dialer net.Dialer

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]struct{}
}

func (o *outbound) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := o.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		c.Close()
		return nil, carnet.Errorf(carnet.Unavailable, "the peering has ended")
	}
	o.conns[c] = struct{}{}
	return &outboundConn{c, o}, nil
}

// cut closes what there is and lets nothing be dialled any more.
func (o *outbound) cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for c := range o.conns {
		c.Close()
	}
	clear(o.conns)
}

// outboundConn leaves the list when it is closed.
type outboundConn struct {
	net.Conn
	of *outbound
}

// Close implements net.Conn.
func (c *outboundConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// mutualTLS is TLS 1.3 between parties: each proves the key that the other has
// pinned; names and issuers mean nothing.
func mutualTLS(cert tls.Certificate, known func(*x509.Certificate) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert,
		NextProtos:             []string{"h2", "http/1.1"},
		InsecureSkipVerify:     true, // VerifyConnection compares the pins instead
		SessionTicketsDisabled: true, // so that it is asked at every connection
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 && known(state.PeerCertificates[0]) {
				return nil
			}
			return carnet.Errorf(carnet.Unauthenticated, "the other side's TLS key is not one that this party has a peering with now").
				WithFix("see 'carnet peer list' on both sides")
		},
	}
}
