package node

import (
	"context"
	"crypto/ed25519"

	"carnet"
	"carnet/avatar"
	"carnet/depot"
	"carnet/erasure"
	"carnet/identity"
	"carnet/link"
	"carnet/peering"
)

// openErasures opens what the world knows of avatars that are erased.
func (n *Node) openErasures(ctx context.Context, agent *avatar.Agent, key ed25519.PrivateKey) (err error) {
	n.api.Erasures, err = erasure.New(ctx, erasure.Config{
		Party: n.config.Party, Key: key, World: agent, Shares: n.api.Shares, Moves: n.api.Moves, Jobs: n.api.Jobs, Items: n.api.Items, Depot: &n.depot,
		Registrar: func() (erasure.Registrar, string, error) {
			client, err := n.depot.register()
			if err != nil {
				return nil, "", err
			}
			return client, client.Registrar, nil
		},
		Registered: n.knowsRegister, Peer: n.didOf, Tell: n.api.Shares.Tell, Revoke: n.forgetAvatar, Backups: n.config.Backups.keep(), Log: n.log,
	})
	if err != nil {
		return err
	}
	agent.Hear(n.api.Erasures)
	n.api.ErasureKey, n.api.ErasureSigner = n.didOf, agent.EvidenceSigner
	n.work = append(n.work, n.api.Erasures.Run)
	return nil
}

// knowsRegister reports whether a depot that the world is peered with keeps a register.
func (n *Node) knowsRegister() bool {
	for _, p := range n.peers.All() {
		if peer, ok := p.Peer(); ok && peer.Registrar != "" && p.State != peering.Removed {
			return true
		}
	}
	return false
}

// didOf is the did:key by which a party is known, also one whose peering has ended.
func (n *Node) didOf(party carnet.PartyID) string {
	if peer, ok := peerFiles(n.peers)[party]; ok && len(peer.Key) == ed25519.PublicKeySize {
		return identity.DID(peer.Key)
	}
	return ""
}

// forgetAvatar ends what else there is about an avatar that is erased: grants, and what
// its owner was asked for.
func (n *Node) forgetAvatar(ctx context.Context, id carnet.AvatarID) error {
	for _, g := range n.api.Entities.Grants(nil) {
		if g.Avatar == id && g.Revoked == nil {
			if _, err := n.api.Entities.Revoke(ctx, "erasure", g.ID); err != nil {
				return err
			}
		}
	}
	requests, err := n.api.Mandates.Requests(id)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	}
	for _, r := range requests {
		if _, err := n.api.Mandates.Remove(ctx, r.ID); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	return err
}

// erasingSink is a world's end of links: what is about erasures goes to their Agent,
// everything else on.
type erasingSink struct {
	link.Sink
	erasures *erasure.Agent
}

// Call implements link.Sink.
func (s erasingSink) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	if kind == erasure.Call {
		return s.erasures.Handle(ctx, party, body)
	}
	return s.Sink.Call(ctx, party, kind, body)
}

// Erase implements erasure.Depot.
func (o *outlet) Erase(ctx context.Context, q depot.Erasing) (string, error) {
	c, err := o.now()
	if err != nil {
		return "", err
	}
	return c.Erase(ctx, q)
}
