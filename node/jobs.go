package node

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"path/filepath"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/identity"
	"carnet/job"
	"carnet/job/thinglog"
	"carnet/keys"
	"carnet/peering"
	"carnet/revocation"
	"carnet/thing"
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

// jobsID is the key with which a things agent signs what its owners have computed. It is
// for that alone: what worlds and depots know it by are others.
var jobsID = keys.ID{Kind: "sign", Name: "jobs"}

// ownMost is the most that a job at a things agent may have.
var ownMost = capsule.Limits{Memory: 256 << 20, Milliseconds: (10 * time.Minute).Milliseconds(), Output: 8 << 20, Parts: 1024}

// openOwnJobs opens what owners have computed over what their things measured.
func (n *Node) openOwnJobs(ctx context.Context, agent *thing.Agent) error {
	key, err := n.table.Signer(ctx, jobsID)
	if carnet.CodeOf(err) == carnet.NotFound {
		key, err = n.table.MakeSigner(ctx, jobsID)
	}
	if err != nil {
		return err
	}
	engines, err := engines(filepath.Join(n.config.path(n.config.Data), "compiled"))
	if err != nil {
		return err
	}
	c := n.config
	n.api.Jobs, err = job.New(ctx, job.Config{
		Party: c.Party, Key: key, Purpose: "own", Owned: thinglog.Agent{Agent: agent}, Keys: n.table, Depot: &n.depot, Engines: engines, Log: n.log,
		Most: ownMost, AtOnce: c.Limits.JobsAtOnce, OfOwner: c.Limits.JobsOfOwner,
		Signed: signed(c.Things.UnsignedPrograms), Publishers: c.Things.Publishers,
	})
	if err != nil {
		return err
	}
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
	connections, done := n.connections(ctx, p.Name)
	defer done()
	secure := mutualTLS(local.Certificate, func(c *x509.Certificate) bool { return keys.Pin(c) == peer.Pin && ctx.Err() == nil })
	// A call waits as long as its context says.
	n.dpms.Store(p.Name, &dpm.Client{Base: peer.R6, HTTP: depotHTTP(secure, connections.dial, 0)})
	defer n.dpms.Delete(p.Name)
	<-ctx.Done()
	return nil
}
