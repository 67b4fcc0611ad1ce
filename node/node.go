// Package node composes a party out of its parts: from a configuration file to
// agents, stores, links and listeners, one kind for each role. It owns what runs
// and ends together.
//
// The states of a node are those of a process: New opens everything and checks
// it, Run listens and works until its context ends or something fails. After a
// failure that leaves in doubt what is on disk (Durability), the process must
// exit with code 74; the next start recovers.
//
// The package must not decide anything itself: rules are the agents'.
package node

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/identity"
	"carnet/keys"
	"carnet/link"
	"carnet/mandate"
	"carnet/peering"
	"carnet/policy"
	"carnet/porter"
	"carnet/register"
	"carnet/revocation"
	"carnet/thing"

	"golang.org/x/sync/errgroup"
)

// Node is a running party.
type Node struct {
	config   Config
	log      *slog.Logger
	stores   *stores
	table    *keys.Table
	rotating sync.Mutex // held while its key-encryption key is rotated
	work     []func(context.Context) error
	activity *activity.Log
	guard    *activity.Guard
	api      api.Config

	records     records
	revocations *revocation.Watcher
	peers       *peering.Registry
	lives       *lives
	depot       outlet
	registrar   *register.Registrar // of a depot that keeps a register
	links       *link.Server        // of a world that listens
	abroad      *abroad             // of a world: its calls to others
	clearance   carnet.Clearance    // of a world: what it may hold
	fenced      sync.Map            // carnet.PartyID of worlds that this process may send nothing more to
	senders     sync.Map            // carnet.PartyID → *link.Sender: links that this party keeps up
	inbound     inbound
	outbound    sync.Map // carnet.PartyID → *outbound: connections that this party made by a peering
	dpms        sync.Map // carnet.PartyID → *dpm.Client: of a world, while they are peers
}

// New opens the party that the configuration describes.
func New(ctx context.Context, c Config, log *slog.Logger) (*Node, error) {
	n, err := opened(ctx, c, log, (*Node).open)
	if err != nil {
		return nil, err
	}
	if err := n.listen(ctx); err != nil {
		return nil, errors.Join(err, n.stores.close())
	}
	return n, nil
}

// opened opens a party's stores, and what open makes on them.
func opened(ctx context.Context, c Config, log *slog.Logger, open func(*Node, context.Context) error) (*Node, error) {
	if log == nil {
		log = slog.Default()
	}
	n := &Node{config: c, log: log.With("party", c.Party), inbound: inbound{conns: make(map[net.Conn]carnet.PartyID)}}
	var err error
	if n.stores, err = openAlone(ctx, c); err != nil {
		return nil, err
	}
	if err := open(n, ctx); err != nil {
		return nil, errors.Join(err, n.stores.close())
	}
	return n, nil
}

// open makes the agents. It listens nowhere.
func (n *Node) open(ctx context.Context) (err error) {
	if err := n.openRegistry(ctx); err != nil {
		return err
	}
	if err := n.openActivity(ctx); err != nil {
		return err
	}
	n.api = api.Config{Party: n.config.Party, Tokens: n.principal, Guard: n.guard, Activity: n.activity, Peers: peersOf{n.peers, n}, Examine: n.examine, Log: n.log,
		Live: n.config.Limits.Live, LiveOfToken: n.config.Limits.LiveOfToken}
	switch reached := n.config.Reached(); {
	case n.config.Role == identity.Depot:
		n.api.R2 = "https://" + reached.R2
	case n.config.Role == identity.DPM:
		n.api.R6 = "https://" + reached.R6
	case n.config.Role == identity.Things:
		n.api.MQTT = reached.MQTT
	case reached.R5 != "":
		n.api.R5 = "https://" + reached.R5
	}
	if n.config.Role != identity.Depot {
		n.api.Outbox = &api.Outbox{To: n.depot.Party, Away: n.depot.away}
	}
	switch n.config.Role {
	case identity.Things:
		return n.openThings(ctx)
	case identity.World:
		return n.openWorld(ctx)
	case identity.DPM:
		return n.openDPM(ctx)
	}
	return n.openDepot(ctx)
}

// listen opens the party's listeners: its own, and HTTP.
func (n *Node) listen(ctx context.Context) (err error) {
	switch n.config.Role {
	case identity.Things:
		err = n.listenMQTT(ctx)
	case identity.World:
		err = n.listenLink(ctx)
	case identity.Depot:
		err = n.listenR2(ctx)
	case identity.DPM:
		err = n.listenR6(ctx)
	}
	if err != nil {
		return err
	}
	n.work = append(n.work, n.serveMachine, n.endRotation)
	return n.openHTTP(ctx)
}

// Inspection is a party that doesn't run: its agents can be asked what is in
// its stores.
type Inspection struct {
	Things *thing.Agent // of a things agent
	World  *avatar.Agent
	// Mandates is what a world keeps of owners' mandates, and Shares are its shares with
	// others.
	Mandates *mandate.Book
	Shares   *crossing.Agent
	Self     identity.Local // of a world: what it shows its peers
	Peers    map[carnet.PartyID]identity.Peer

	node  *Node
	close func() error
}

// Shown is what the party shows a peer, with the keys behind it.
func (i *Inspection) Shown(ctx context.Context, peer carnet.PartyID) (identity.Local, error) {
	return identity.Load(ctx, i.node.table, shown{i.node.config, i.node.table}.name(peer))
}

// Inspect opens a party whose process has ended.
func Inspect(ctx context.Context, c Config, log *slog.Logger) (*Inspection, error) {
	n, err := opened(ctx, c, log, (*Node).open)
	if err != nil {
		return nil, err
	}
	i := &Inspection{Things: n.api.Things, World: n.api.World, Mandates: n.api.Mandates, Shares: n.api.Shares, Peers: peerFiles(n.peers), node: n, close: n.stores.close}
	if n.api.Depot != nil { // its ledger works from the start on, until it has run
		over, cancel := context.WithCancel(ctx)
		cancel()
		i.close = func() error { return errors.Join(n.api.Depot.Run(over), n.stores.close()) }
	}
	if c.Role == identity.World {
		if i.Self, err = identity.Load(ctx, n.table, self); err != nil {
			return nil, errors.Join(err, n.stores.close())
		}
	}
	return i, nil
}

// Close ends the inspection.
func (i *Inspection) Close() error { return i.close() }

// Run works until ctx ends or a part fails; then all parts end.
func (n *Node) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return n.stores.watch(ctx) })
	work.Go(func() error { return n.lives.run(ctx, n.peers.All()) })
	for _, w := range n.work {
		work.Go(func() error { return w(ctx) })
	}
	err := work.Wait()
	return errors.Join(err, n.stores.close())
}

// principal finds who bears a token.
func (n *Node) principal(token string) (api.Principal, bool) {
	var found api.Principal
	ok := false
	for _, t := range n.config.Tokens {
		if subtle.ConstantTimeCompare([]byte(t.hash(token)), []byte(t.Hash)) == 1 {
			found, ok = policy.Bearer(t.Name, policy.Role(t.Role)), true
		}
	}
	if !ok && n.api.Entities != nil {
		return n.api.Entities.Authenticate(token)
	}
	return found, ok
}

// serverTLS is TLS for people and devices, who know the party by its
// certificate.
func (n *Node) serverTLS(ctx context.Context) (*tls.Config, error) {
	cert, err := n.table.Certificate(ctx, serverID)
	if carnet.CodeOf(err) == carnet.NotFound { // a renewal was cut off
		return nil, carnet.Errorf(carnet.NotFound, "%s has no certificate for people and devices", n.config.Party).
			WithFix("run: carnet party certificate --config %s", n.config.file)
	}
	if err != nil {
		return nil, err
	}
	if err := n.config.names(cert.Leaf); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}, nil
}

func (n *Node) openHTTP(ctx context.Context) error {
	if n.config.Role == identity.World {
		n.api.Abroad = n.abroad
	}
	handler, err := api.New(n.api)
	if err != nil {
		return err
	}
	if err := n.listenR5(ctx, handler); err != nil {
		return err
	}
	config, err := n.serverTLS(ctx)
	if err != nil {
		return err
	}
	return n.serveHTTP(n.config.Listen.HTTP, config, handler)
}

// newHTTPServer bounds how long and how much of a request's headers a caller may
// take, before it is known who calls.
func newHTTPServer(config *tls.Config, handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: porter.TellPanics(handler, log), TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		// Each stream is memory of the party's for as long as nobody takes its answer.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: mostStreams},
	}
}

// mostStreams is how many calls of HTTP/2 a connection has at once. Clients that want more
// connect again.
const mostStreams = 32

// serveHTTP adds an HTTPS server to the node's work.
func (n *Node) serveHTTP(address string, config *tls.Config, handler http.Handler) error {
	listener, err := listen(address)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	listener = n.config.Limits.http().Listen(listener)
	config.NextProtos = []string{"h2", "http/1.1"}
	server := newHTTPServer(config, handler, n.log)
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return withConnection(porter.WithConn(ctx, c))
	}
	server.ConnState = func(c net.Conn, s http.ConnState) {
		if t, ok := c.(*tls.Conn); ok && (s == http.StateClosed || s == http.StateHijacked) {
			n.inbound.drop(t.NetConn())
		}
	}
	n.work = append(n.work, func(ctx context.Context) error {
		server.BaseContext = func(net.Listener) context.Context { return ctx } // live subscriptions end with it
		stop := context.AfterFunc(ctx, func() {
			ending, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if server.Shutdown(ending) != nil {
				server.Close()
			}
		})
		defer stop()
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	return nil
}
