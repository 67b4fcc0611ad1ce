package node

import (
	"context"
	"fmt"
	"net"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/link"
	"carnet/policy"
	"carnet/thing"
	"carnet/wire/mqtt"
)

func (n *Node) openThings(ctx context.Context) error {
	c := n.config
	store, err := n.stores.things(ctx)
	if err != nil {
		return err
	}
	_, recorded, err := n.openOutbox(ctx, store)
	if err != nil {
		return err
	}
	judge, err := n.judge()
	if err != nil {
		return err
	}
	config := thing.Config{
		Party: c.Party, Store: store, Keys: n.table, Judge: judge, Recorded: recorded, Log: n.log,
		MaxAge: time.Duration(c.Things.MaxAge), MaxAhead: time.Duration(c.Things.MaxAhead),
	}
	locals := make(map[carnet.PartyID]identity.Local)
	for name, p := range n.peers {
		if p.Role != identity.World {
			continue
		}
		local, err := identity.Load(ctx, n.table, name)
		if err != nil {
			return notShown(name, err)
		}
		locals[name] = local
		config.Worlds = append(config.Worlds, thing.World{
			Party: name, OwnName: p.Party, Self: local.Name, Key: local.Key, WorldKey: p.Key, Purpose: p.Purpose, Clearance: p.Clearance(),
		})
	}
	agent, err := thing.New(ctx, config)
	if err != nil {
		return err
	}
	n.work = append(n.work, agent.Run)
	for _, w := range config.Worlds {
		p, local := n.peers[w.Party], locals[w.Party]
		source, err := agent.Source(w.Party)
		if err != nil {
			return err
		}
		sender, err := link.NewSender(link.SenderConfig{
			Self: local.Name, Peer: link.Peer{Party: w.Party, OwnName: p.Party, Address: p.Link, Pin: p.Pin}, Certificate: local.Certificate,
			Source: source, Log: n.log,
		})
		if err != nil {
			return err
		}
		agent.Connect(w.Party, sender)
		n.work = append(n.work, n.keepLink(w.Party, sender))
	}
	n.api.Things = agent
	return nil
}

// keepLink runs a link. One that ends for good (another process took its place,
// or the world has other frames) leaves the rest of the agent at work.
func (n *Node) keepLink(world carnet.PartyID, sender *link.Sender) func(context.Context) error {
	return func(ctx context.Context) error {
		err := sender.Run(ctx)
		if ctx.Err() != nil || Durability(err) {
			return err
		}
		n.log.Error("nothing more is sent to a world until this agent is started again", "world", world, "err", err)
		return nil
	}
}

// notShown explains that a peer was accepted to whom this party has not shown
// itself under the same name.
func notShown(name carnet.PartyID, err error) error {
	if carnet.CodeOf(err) != carnet.NotFound {
		return fmt.Errorf("load the identity for %s: %w", name, err)
	}
	return carnet.Errorf(carnet.NotFound, "this party has no keys for its peer %q", name).
		WithFix("run 'carnet party show --for %s' and give the peer what it prints", name)
}

func (n *Node) judge() (*policy.Judge, error) {
	files, err := n.policyFiles(n.config.Things.Policies)
	if err != nil {
		return nil, err
	}
	return policy.NewJudge(files)
}

func (n *Node) listenMQTT(ctx context.Context) error {
	config, err := n.serverTLS(ctx)
	if err != nil {
		return err
	}
	server, err := mqtt.New(mqtt.Config{TLS: config, Backend: devices{n.api.Things, n.guard}, Limits: n.config.Limits.mqtt(), Log: n.log})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", n.config.Listen.MQTT)
	if err != nil {
		return fmt.Errorf("listen for MQTT: %w", err)
	}
	n.work = append(n.work, func(ctx context.Context) error { return server.Serve(ctx, listener) })
	return nil
}
