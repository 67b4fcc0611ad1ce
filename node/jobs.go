package node

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"net"
	"path/filepath"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/dpm"
	"carnet/identity"
	"carnet/job"
	"carnet/keys"
	"carnet/peering"
	"carnet/revocation"
)

// openJobs opens what a world has computed.
func (n *Node) openJobs(ctx context.Context, agent *avatar.Agent, key ed25519.PrivateKey) error {
	engines, err := engines(filepath.Join(n.config.path(n.config.Data), "compiled"))
	if err != nil {
		return err
	}
	n.api.Jobs, err = job.New(ctx, job.Config{
		Party: n.config.Party, Key: key, Purpose: n.config.World.Purpose, World: agent, Keys: n.table, Depot: &n.depot, DepotDID: func() string { return n.didOf(n.depot.Party()) },
		Peer: n.dpm, DPMs: n.dpmNames, Engines: engines, Log: n.log,
		Signed: signed(n.config.World.UnsignedPrograms), Publishers: n.config.World.Publishers,
	})
	if err != nil {
		return err
	}
	n.revocations.Subscribe(func(revocation.State) { n.api.Jobs.Recheck() })
	n.work = append(n.work, n.api.Jobs.Run)
	return nil
}

// dpm finds a DPM that may be given jobs now.
func (n *Node) dpm(name carnet.PartyID) (job.Peer, error) {
	p, err := n.peers.Named(name)
	if err != nil {
		return job.Peer{}, err
	}
	peer, _ := p.Peer()
	if peer.Role != identity.DPM {
		return job.Peer{}, carnet.Errorf(carnet.NotFound, "%s is no DPM", name).WithFix("see: carnet peer list")
	}
	client, up := n.dpms.Load(name)
	switch {
	case p.State == peering.Removed || p.State == peering.Over:
		return job.Peer{}, carnet.Errorf(carnet.Forbidden, "the peering with %s has ended", name)
	case !p.Allows(peering.R6, time.Now()) || !up:
		return job.Peer{}, carnet.Errorf(carnet.Unavailable, "the peering with %s isn't in force", name).WithFix("see: carnet peer show %s", name)
	}
	return job.Peer{
		Name: name, OwnName: peer.Party, Key: peer.Key, Terms: p.Terms.Fingerprint(), Clearance: p.Clearance(), DPM: client.(*dpm.Client),
	}, nil
}

// dpmNames lists the DPMs that may be given jobs now.
func (n *Node) dpmNames() (names []carnet.PartyID) {
	for _, p := range n.peers.With(peering.R6) {
		names = append(names, p.Name)
	}
	return names
}

// orderFrom lets jobs be ordered from a DPM while they are peers.
func (n *Node) orderFrom(ctx context.Context, p peering.Peering) error {
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	peer := peerFile(p)
	connections := &outbound{conns: make(map[net.Conn]struct{})}
	stop := context.AfterFunc(ctx, connections.cut)
	defer stop()
	secure := mutualTLS(local.Certificate, func(c *x509.Certificate) bool { return keys.Pin(c) == peer.Pin && ctx.Err() == nil })
	// A call waits as long as its context says.
	n.dpms.Store(p.Name, &dpm.Client{Base: peer.R6, HTTP: depotHTTP(secure, connections.dial, 0)})
	defer n.dpms.Delete(p.Name)
	<-ctx.Done()
	return nil
}
