package node

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/entity"
	"carnet/identity"
	"carnet/link"
	"carnet/mandate"
	"carnet/passport"
	"carnet/peering"
	"carnet/policy"
)

func (n *Node) openWorld(ctx context.Context) error {
	c := n.config
	store, err := n.stores.worlds(ctx)
	if err != nil {
		return err
	}
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	own, err := n.ownView()
	if err != nil {
		return err
	}
	sensitivity, err := carnet.ParseSensitivity(c.World.Sensitivity)
	if err != nil {
		return err
	}
	n.clearance = carnet.Clearance{
		Sensitivity: sensitivity, Purposes: carnet.NewSet(c.World.Purpose), Residency: carnet.NewSet(c.World.Residency...),
	}
	config := avatar.Config{
		Party: c.Party, Store: store, Keys: n.table, View: own, Depot: &n.depot, Recorded: n.depot.wake, Log: n.log,
		CompactEvery: time.Duration(c.World.CompactEvery), MaxAvatars: c.Limits.AvatarsOfSender,
		DID: identity.DID(local.Key.Public().(ed25519.PublicKey)), Revocations: n.revocations, DepotDID: func() string { return n.didOf(n.depot.Party()) },
		Clearance: n.clearance, Origin: n.origin, Vouched: passport.Vouched,
	}
	agent, err := avatar.New(ctx, config)
	if err != nil {
		return err
	}
	if err := n.openMandates(ctx, store, agent, local.Key); err != nil {
		return err
	}
	if err := n.openEntities(ctx, store, agent); err != nil {
		return err
	}
	n.abroad = &abroad{node: n, clients: make(map[carnet.PartyID]abroadClient)}
	if err := n.openShares(ctx, agent, own); err != nil {
		return err
	}
	if err := n.openItems(ctx, store, local.Key, agent); err != nil {
		return err
	}
	if err := n.openMoves(ctx, agent, local.Key, own); err != nil {
		return err
	}
	if err := n.openJobs(ctx, agent, local.Key); err != nil {
		return err
	}
	if err := n.openErasures(ctx, agent, local.Key); err != nil {
		return err
	}
	n.work = append(n.work, agent.Run)
	n.api.World, n.api.Proofs = agent, proofs{n, local.Key}
	return nil
}

// openMandates opens what the world keeps of owners' mandates.
func (n *Node) openMandates(ctx context.Context, store avatar.Store, agent *avatar.Agent, key ed25519.PrivateKey) (err error) {
	n.api.Mandates, err = mandate.New(ctx, mandate.Config{
		Party: n.config.Party, Store: store, Keys: n.table, Avatars: agent, Revocations: n.revocations, State: agent.Statement, Recorded: n.depot.wake, Log: n.log,
		// A world shows all its peers one key.
		Platform: func(carnet.PartyID) (ed25519.PublicKey, error) { return key.Public().(ed25519.PublicKey), nil },
	})
	if err != nil {
		return err
	}
	n.work = append(n.work, n.api.Mandates.Run)
	return nil
}

// openEntities opens the world's applications and grants.
func (n *Node) openEntities(ctx context.Context, store avatar.Store, agent *avatar.Agent) error {
	judge, err := policy.NewJudge(nil)
	if err != nil {
		return err
	}
	n.api.Entities, err = entity.New(ctx, entity.Config{
		Party: n.config.Party, Store: store, Keys: n.table, Avatars: agent, Judge: judge, Revocations: n.revocations,
		State: agent.Statement, Recorded: n.depot.wake, World: n.didOf, Receives: n.receives, Log: n.log, GrantsOfGiver: n.config.Limits.GrantsOfGiver,
	})
	if err != nil {
		return err
	}
	n.work = append(n.work, n.api.Entities.Run)
	return nil
}

// receives is the most that a peer, a world, may be given.
func (n *Node) receives(world carnet.PartyID) (most carnet.Clearance, known bool) {
	p, err := n.peers.Named(world)
	if err != nil || p.State != peering.Active && p.State != peering.Suspended {
		return most, false
	}
	return p.Clearance(), true
}

// listenLink takes the links of the world's senders.
func (n *Node) listenLink(ctx context.Context) error {
	c, agent := n.config, n.api.World
	if err := removeBundles(c.path(c.Data)); err != nil {
		return fmt.Errorf("remove evidence that was not sent: %w", err)
	}
	n.api.Erasures.Withhold()
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	server, err := link.NewServer(link.ServerConfig{
		Self: c.Party, Certificate: local.Certificate, Sink: erasingSink{crossing.Sink{Sink: agent, Shares: n.api.Shares}, n.api.Erasures}, Log: n.log,
		Peer: n.sender,
		Alarm: func(party carnet.PartyID, err *carnet.Error) {
			n.log.Error("a link needs a person's look", "sender", party, "code", err.Code, "err", err)
		},
	})
	if err != nil {
		return err
	}
	agent.Connect(server)
	n.links = server
	listener, err := listen(c.Listen.Link)
	if err != nil {
		return fmt.Errorf("listen for links: %w", err)
	}
	n.work = append(n.work, func(ctx context.Context) error { return server.Serve(ctx, listener) })
	return nil
}

// sender finds the things agent, or the world that shares, that shows a TLS key.
func (n *Node) sender(pin [32]byte) (link.Peer, bool) {
	p, ok := n.peers.ByPin(pin, peering.R1)
	if !ok {
		p, ok = n.peers.ByPin(pin, peering.R5)
	}
	if !ok {
		return link.Peer{}, false
	}
	peer := peerFile(p)
	return link.Peer{Party: p.Name, OwnName: peer.Party, Pin: peer.Pin, Key: peer.Key}, true
}

// takeFrom lets a things agent send while they are peers.
func (n *Node) takeFrom(ctx context.Context, p peering.Peering) error {
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	peer := peerFile(p)
	agreed := peering.Within(p.Terms, n.clearance)
	err = n.api.World.SetSender(avatar.Sender{
		Party: p.Name, OwnName: peer.Party, Key: peer.Key, Self: n.config.Party, Own: local.Key, Clearance: &agreed,
	})
	if err != nil {
		return err
	}
	defer n.api.World.DropSender(p.Name)
	<-ctx.Done()
	return nil
}

func (n *Node) ownView() (*policy.View, error) {
	if n.config.World.View == "" {
		return nil, nil
	}
	data, err := os.ReadFile(n.config.path(n.config.World.View))
	if err != nil {
		return nil, fmt.Errorf("read the world's view: %w", err)
	}
	v, err := policy.ParseView(data)
	if err == nil {
		err = v.Enforced()
	}
	if err != nil {
		return nil, fmt.Errorf("the world's view %s: %w", n.config.World.View, err)
	}
	return &v, nil
}
