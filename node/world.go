package node

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/link"
	"carnet/mandate"
	"carnet/policy"
	"carnet/revocation"
)

func (n *Node) openWorld(ctx context.Context) error {
	c := n.config
	store, err := n.stores.worlds(ctx)
	if err != nil {
		return err
	}
	client, recorded, err := n.openOutbox(ctx, store)
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
	config := avatar.Config{
		Party: c.Party, Store: store, Keys: n.table, View: own, Depot: client, Recorded: recorded, Log: n.log,
		CompactEvery: time.Duration(c.World.CompactEvery),
		Clearance: carnet.Clearance{
			Sensitivity: sensitivity, Purposes: carnet.NewSet(c.World.Purpose), Residency: carnet.NewSet(c.World.Residency...),
		},
	}
	for name, p := range n.peers {
		if p.Role == identity.Things {
			config.Senders = append(config.Senders, avatar.Sender{Party: name, OwnName: p.Party, Key: p.Key, Self: c.Party, Own: local.Key})
		}
	}
	agent, err := avatar.New(ctx, config)
	if err != nil {
		return err
	}
	if err := n.openMandates(ctx, store, agent, local.Key, recorded); err != nil {
		return err
	}
	n.work = append(n.work, agent.Run)
	n.api.World, n.api.Proofs = agent, proofs{n, local.Key}
	return nil
}

// openMandates opens what the world keeps of owners' mandates.
func (n *Node) openMandates(ctx context.Context, store avatar.Store, agent *avatar.Agent, key ed25519.PrivateKey, recorded func()) error {
	revocations, err := revocation.New(ctx, revocation.Config{Store: store, Log: n.log})
	if err != nil {
		return err
	}
	n.api.Mandates, err = mandate.New(ctx, mandate.Config{
		Party: n.config.Party, Store: store, Keys: n.table, Avatars: agent, Revocations: revocations, State: agent.Statement, Recorded: recorded, Log: n.log,
		// A world shows all its peers one key.
		Platform: func(carnet.PartyID) (ed25519.PublicKey, error) { return key.Public().(ed25519.PublicKey), nil },
	})
	if err != nil {
		return err
	}
	n.work = append(n.work, revocations.Run, n.api.Mandates.Run)
	return nil
}

// listenLink takes the links of the world's senders.
func (n *Node) listenLink(ctx context.Context) error {
	c, agent := n.config, n.api.World
	if err := removeBundles(c.path(c.Data)); err != nil {
		return fmt.Errorf("remove evidence that was not sent: %w", err)
	}
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	byPin := make(map[[32]byte]link.Peer)
	for name, p := range n.peers {
		if p.Role == identity.Things {
			byPin[p.Pin] = link.Peer{Party: name, OwnName: p.Party, Pin: p.Pin, Key: p.Key}
		}
	}
	server, err := link.NewServer(link.ServerConfig{
		Self: c.Party, Certificate: local.Certificate, Sink: agent, Log: n.log,
		Peer: func(pin [32]byte) (link.Peer, bool) { p, ok := byPin[pin]; return p, ok },
		Alarm: func(party carnet.PartyID, err *carnet.Error) {
			n.log.Error("a link needs a person's look", "sender", party, "code", err.Code, "err", err)
		},
	})
	if err != nil {
		return err
	}
	agent.Connect(server)
	listener, err := net.Listen("tcp", c.Listen.Link)
	if err != nil {
		return fmt.Errorf("listen for links: %w", err)
	}
	n.work = append(n.work, func(ctx context.Context) error { return server.Serve(ctx, listener) })
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
