package node

import (
	"context"
	"fmt"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/link"
	"carnet/peering"
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
	judge, err := n.judge()
	if err != nil {
		return err
	}
	config := thing.Config{
		Party: c.Party, Store: store, Keys: n.table, Judge: judge, Recorded: n.depot.wake, Log: n.log,
		MaxAge: time.Duration(c.Things.MaxAge), MaxAhead: time.Duration(c.Things.MaxAhead),
		Bounds: c.Limits.things(),
	}
	for _, p := range n.peers.All() {
		w, ok, err := n.world(ctx, p)
		if err != nil {
			return err
		}
		if ok {
			config.Worlds = append(config.Worlds, w)
		}
	}
	agent, err := thing.New(ctx, config)
	if err != nil {
		return err
	}
	n.work = append(n.work, agent.Run)
	n.api.Things, n.api.Recoveries = agent, true
	return n.openOwnJobs(ctx, agent)
}

// world is what the agent knows of a world that is its peer, or was.
func (n *Node) world(ctx context.Context, p peering.Peering) (w thing.World, ok bool, err error) {
	p, ok = p.Made()
	peer := peerFile(p)
	if !ok || peer.Role != identity.World {
		return w, false, nil
	}
	w = thing.World{
		Party: p.Name, OwnName: peer.Party, Self: p.Own().Party, WorldKey: peer.Key, Purpose: peer.Purpose, Clearance: p.Clearance(),
		Ended: p.State == peering.Removed,
	}
	if !w.Ended {
		local, err := identity.Load(ctx, n.table, p.Name)
		if err != nil {
			return w, false, fmt.Errorf("load the identity for %s: %w", p.Name, err)
		}
		w.Key = local.Key
	}
	return w, true, nil
}

// sendTo keeps a link to a world while they are peers. One that ends for good
// (another process took its place, or the world has other frames) leaves the rest
// of the agent at work.
func (n *Node) sendTo(ctx context.Context, p peering.Peering) error {
	w, ok, err := n.world(ctx, p)
	if err != nil || !ok {
		return err
	}
	agent, peer := n.api.Things, peerFile(p)
	if err := agent.SetWorld(ctx, w); err != nil {
		return err
	}
	source, err := agent.Source(w.Party)
	if err != nil {
		return err
	}
	local, err := identity.Load(ctx, n.table, p.Name)
	if err != nil {
		return err
	}
	if _, never := n.fenced.Load(w.Party); never {
		<-ctx.Done()
		return nil
	}
	connections, done := n.connections(ctx, p.Name)
	defer done()
	sender, err := link.NewSender(link.SenderConfig{
		Self: local.Name, Peer: link.Peer{Party: w.Party, OwnName: peer.Party, Address: peer.Link, Pin: peer.Pin}, Certificate: local.Certificate,
		Source: source, Dial: connections.dial, Log: n.log,
	})
	if err != nil {
		return err
	}
	agent.Connect(w.Party, sender)
	return n.keepSending(ctx, w.Party, sender)
}

// keepSending runs a link. One that ends for good (another process took its
// place, or the world has other frames) leaves the rest of the party at work.
func (n *Node) keepSending(ctx context.Context, to carnet.PartyID, sender *link.Sender) error {
	n.senders.Store(to, sender)
	defer n.senders.Delete(to)
	err := sender.Run(ctx)
	if ctx.Err() != nil || Durability(err) {
		return err
	}
	n.fenced.Store(to, true)
	n.log.Error("nothing more is sent to a world until this agent is started again", "world", to, "err", err)
	return nil
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
	listener, err := listen(n.config.Listen.MQTT)
	if err != nil {
		return fmt.Errorf("listen for MQTT: %w", err)
	}
	n.work = append(n.work, func(ctx context.Context) error { return server.Serve(ctx, listener) })
	return nil
}
