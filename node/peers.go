package node

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/peering"
	"carnet/revocation"

	"golang.org/x/sync/errgroup"
)

// openRegistry opens the party's key table, revocations and peerings.
func (n *Node) openRegistry(ctx context.Context) (err error) {
	if n.table, err = openTable(ctx, n.config, n.stores); err != nil {
		return err
	}
	if n.records, err = n.stores.records(ctx); err != nil {
		return err
	}
	if n.revocations, err = revocation.New(ctx, revocation.Config{Store: n.records, Log: n.log}); err != nil {
		return err
	}
	n.peers, err = peering.New(ctx, peering.Config{
		Party: n.config.Party, Store: n.records, Keys: n.table, Revocations: n.revocations, Shown: shown{n.config, n.table},
		State: n.statement, Recorded: n.depot.wake, Courier: courier{}, ReplyTo: n.replyTo(ctx), Log: n.log,
	})
	if err != nil {
		return err
	}
	n.depot.knew(lastDepot(n.peers.All()))
	n.lives = newLives(n)
	n.peers.Subscribe(n.lives.follow)
	n.revocations.Subscribe(n.lives.freshness)
	n.work = append(n.work, n.revocations.Run, n.peers.Run)
	return nil
}

// statement makes the outbox item of a statement by the party.
func (n *Node) statement(s ledger.Statement) (ledger.Item, error) {
	switch {
	case n.api.Things != nil:
		return n.api.Things.Statement(s)
	case n.api.World != nil:
		return n.api.World.Statement(s)
	}
	return n.ownStatement(context.Background(), s)
}

// byPeering does what is to be done while a peering is active.
func (n *Node) byPeering(ctx context.Context, p peering.Peering) error {
	peer := peerFile(p)
	switch {
	case peer.Role == identity.Depot:
		return n.sendStatements(ctx, p)
	case n.config.Role == identity.Things:
		return n.sendTo(ctx, p)
	case n.config.Role == identity.World && peer.Role == identity.Things:
		return n.takeFrom(ctx, p)
	case n.config.Role == identity.World && peer.Role == identity.World:
		return n.shareWith(ctx, p)
	case n.config.Role == identity.World && peer.Role == identity.DPM:
		return n.orderFrom(ctx, p)
	}
	<-ctx.Done()
	return nil
}

// cut closes a peer's connections, those that this party made, too. They are closed when
// it returns.
func (n *Node) cut(peer carnet.PartyID) {
	n.inbound.cut(peer)
	if o, ok := n.outbound.Load(peer); ok {
		o.(*outbound).cut()
	}
	if n.abroad != nil {
		n.abroad.cut(peer)
	}
	if n.links != nil {
		n.links.Disconnect(peer)
	}
}

// removed does what follows from a removal.
func (n *Node) removed(ctx context.Context, peer carnet.PartyID) error {
	switch {
	case n.api.Things != nil:
		return n.api.Things.EndWorld(ctx, peer)
	case n.api.Shares != nil:
		return n.endShares(ctx, peer)
	}
	return nil
}

// endShares ends what is shared with a world that was removed, as soon as that can be
// made durable: nothing of it flows meanwhile.
func (n *Node) endShares(ctx context.Context, peer carnet.PartyID) error {
	for {
		err := n.api.Shares.EndPeer(ctx, peer)
		if code := carnet.CodeOf(err); code != carnet.Unavailable && code != carnet.NoSpace {
			return err
		}
		n.log.Error("the shares with a removed peer can't be ended; it is tried again", "peer", peer, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// replyTo is where acceptances of this party's invitations come to. A things agent
// has none: its HTTP interface is the same for all, and two worlds that compare
// what they were shown would find it.
func (n *Node) replyTo(ctx context.Context) *peering.ReplyTo {
	if n.config.Role == identity.Things {
		return nil
	}
	cert, err := n.table.Certificate(ctx, serverID)
	if err != nil {
		return nil // serverTLS says why, if the party is to run
	}
	return &peering.ReplyTo{URL: "https://" + n.config.Reached().HTTP, Pin: keys.Pin(cert.Leaf)}
}

// shown is what a party shows its peers.
type shown struct {
	config Config
	table  *keys.Table
}

// name is under which the keys for a peer rest: worlds, depots and DPMs show
// everybody the same.
func (s shown) name(peer carnet.PartyID) carnet.PartyID {
	if s.config.Role == identity.Things {
		return peer
	}
	return self
}

// Show implements peering.Shown.
func (s shown) Show(ctx context.Context, peer carnet.PartyID) (identity.Peer, ed25519.PrivateKey, error) {
	c, name := s.config, s.name(peer)
	local, err := identity.Load(ctx, s.table, name)
	if carnet.CodeOf(err) == carnet.NotFound && name != self {
		if err := identity.Destroy(ctx, s.table, name); err != nil { // what a crash left of their making
			return identity.Peer{}, nil, err
		}
		local, err = identity.Make(ctx, s.table, name, "", time.Now())
	}
	if err != nil {
		return identity.Peer{}, nil, err
	}
	p := local.Show(c.Role)
	switch c.Role {
	case identity.World:
		sensitivity, err := carnet.ParseSensitivity(c.World.Sensitivity)
		if err != nil {
			return p, nil, err
		}
		p.Link, p.R5, p.Purpose, p.Sensitivity, p.Residency = c.Reached().Link, c.Reached().R5, c.World.Purpose, &sensitivity, c.World.Residency
	case identity.DPM:
		sensitivity, err := carnet.ParseSensitivity(c.DPM.Sensitivity)
		if err != nil {
			return p, nil, err
		}
		p.R6, p.Sensitivity, p.Residency = "https://"+c.Reached().R6, &sensitivity, c.DPM.Residency
	case identity.Depot:
		signer, err := ledgerSigner(ctx, c, s.table)
		if err != nil {
			return p, nil, err
		}
		p.R2, p.Ledger = "https://"+c.Reached().R2, signer.Key().String()
		key, err := s.table.Signer(ctx, registerID)
		if carnet.CodeOf(err) == carnet.NotFound {
			break // a depot from before registers: it keeps none
		}
		if err != nil {
			return p, nil, err
		}
		p.Registrar = identity.DID(key.Public().(ed25519.PublicKey))
	}
	return p, local.Key, nil
}

// Forget implements peering.Shown.
func (s shown) Forget(ctx context.Context, peer carnet.PartyID) error {
	if s.name(peer) == self {
		return nil
	}
	return identity.Destroy(ctx, s.table, peer)
}

// peerFile is what the peer of a peering that was made shows.
func peerFile(p peering.Peering) identity.Peer {
	peer, _ := p.Peer()
	return peer
}

// peerFiles are what all peers that the party ever had show it, by what it calls
// them.
func peerFiles(r *peering.Registry) map[carnet.PartyID]identity.Peer {
	all := make(map[carnet.PartyID]identity.Peer)
	for _, p := range r.All() {
		if p, ok := p.Made(); ok {
			all[p.Name] = peerFile(p)
		}
	}
	return all
}

// lives is what lives by the party's peerings: for each that is active some work,
// and connections that are closed when it ends.
type lives struct {
	work  func(context.Context, peering.Peering) error // returns when its context ends
	cut   func(carnet.PartyID)                         // closes connections, at once
	gone  func(context.Context, carnet.PartyID) error  // does what follows from a removal
	fresh func() bool

	mu      sync.Mutex // guards what follows
	keepers map[carnet.PartyID]*keeper
	start   func(*keeper) // nil before Run
}

// keeper does the work by one peering, one time after the other.
type keeper struct {
	changed chan struct{}

	// Owned by lives.mu.
	peering peering.Peering
	cancel  context.CancelFunc // of the work under way
}

func newLives(n *Node) *lives {
	return &lives{work: n.byPeering, cut: n.cut, gone: n.removed, fresh: n.revocations.Fresh, keepers: make(map[carnet.PartyID]*keeper)}
}

// stands reports whether anything may live by a peering now.
func (l *lives) stands(p peering.Peering) bool { return p.State == peering.Active && l.fresh() }

// follow has work begin or end, and connections close, as a peering now stands.
// It is called whenever one has changed, and doesn't block.
func (l *lives) follow(p peering.Peering) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keepers[p.Name]
	if k == nil {
		k = &keeper{changed: make(chan struct{}, 1), cancel: func() {}}
		l.keepers[p.Name] = k
		if l.start != nil {
			l.start(k)
		}
	}
	k.peering = p
	l.look(k)
}

// look ends at once what may live no more. The caller holds mu.
func (l *lives) look(k *keeper) {
	if !l.stands(k.peering) {
		k.cancel()
		l.cut(k.peering.Name)
	}
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// freshness looks at all peerings again, after the revocation number was lost or
// found.
func (l *lives) freshness(revocation.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.keepers {
		l.look(k)
	}
}

// run keeps what lives by the peerings until ctx ends.
func (l *lives) run(ctx context.Context, all []peering.Peering) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { <-ctx.Done(); return nil }) // so that others can be started until then
	l.mu.Lock()
	l.start = func(k *keeper) { group.Go(func() error { return l.keep(ctx, k) }) }
	for _, k := range l.keepers {
		l.start(k)
	}
	l.mu.Unlock()
	for _, p := range all {
		l.follow(p)
	}
	<-ctx.Done()
	l.mu.Lock()
	l.start = nil
	l.mu.Unlock()
	return group.Wait()
}

func (l *lives) keep(ctx context.Context, k *keeper) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.changed:
		}
		l.mu.Lock()
		p := k.peering
		work, cancel := context.WithCancel(ctx)
		if k.cancel = cancel; !l.stands(p) {
			cancel()
		}
		l.mu.Unlock()
		if p.State == peering.Removed {
			if err := l.gone(ctx, p.Name); err != nil && ctx.Err() == nil {
				cancel()
				return err
			}
		}
		if work.Err() == nil {
			if err := l.work(work, p); err != nil && work.Err() == nil {
				cancel()
				return err
			}
		}
		cancel()
	}
}

// caller names the peer of a scope that sent a request, as mutual TLS proved it:
// asked anew for each, since a peering may have ended meanwhile.
func (n *Node) caller(r *http.Request, s peering.Scope) (peering.Peering, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		if p, ok := n.peers.ByPin(keys.Pin(r.TLS.PeerCertificates[0]), s); ok {
			return p, nil
		}
	}
	return peering.Peering{}, carnet.Errorf(carnet.Unauthenticated, "the caller is not a peer of %s", n.config.Party)
}
