package node

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/depot"
	"carnet/identity"
	"carnet/link"
	"carnet/peering"
)

// shelves is where this world keeps what it shares with worlds that can't be reached.
func (n *Node) shelves() (crossing.Depot, error) {
	client, err := n.depot.now()
	if err != nil {
		return nil, err
	}
	return client, nil
}

// shelfAt tells takers where that is; nil while there is no depot.
func (n *Node) shelfAt() *crossing.ShelfAt {
	p, err := n.peers.Named(n.depot.Party())
	if err != nil || !p.Allows(peering.R2, time.Now()) {
		return nil
	}
	peer := peerFile(p)
	return &crossing.ShelfAt{DID: identity.DID(peer.Key), URL: peer.R2, Pin: peer.Pin}
}

// readShelf takes what a world has shelved for this one while they are peers.
func (n *Node) readShelf(ctx context.Context, p peering.Peering, local identity.Local) error {
	if n.links == nil {
		<-ctx.Done() // nothing comes over links either
		return nil
	}
	peer := peerFile(p)
	return n.api.Shares.Read(ctx, crossing.Reading{
		Giver: link.Peer{Party: p.Name, OwnName: peer.Party, Pin: peer.Pin, Key: peer.Key}, Self: local.Key.Public().(ed25519.PublicKey),
		Receiver: n.links, Sink: n.links.Sink, Depot: n.shelfOf,
	})
}

// shelfOf finds the way to the depot that a giver names, by a peering of this world's
// own with it: what the giver says is for its operator to read.
func (n *Node) shelfOf(_ context.Context, at crossing.ShelfAt) (crossing.ShelfReader, carnet.PartyID, error) {
	name := n.depot.Party()
	p, err := n.peers.Named(name)
	if err != nil || identity.DID(peerFile(p).Key) != at.DID {
		return nil, "", carnet.Errorf(carnet.Forbidden, "the giver's depot, %s at %s, isn't this world's", at.DID, at.URL).
			WithFix("peer with that depot for r2, or wait until the giver is back")
	}
	if !p.Allows(peering.R2, time.Now()) {
		return nil, name, carnet.Errorf(carnet.Unavailable, "the peering with %s isn't in force for r2", name).WithFix("see 'carnet peer show %s'", name)
	}
	client, err := n.depot.now()
	if err != nil {
		return nil, name, err
	}
	return client, name, nil
}

// shelfParties are a depot's peers, by the keys that they show it.
type shelfParties struct{ node *Node }

// Caller implements depot.Parties.
func (s shelfParties) Caller(r *http.Request) (depot.Party, error) {
	p, err := s.node.caller(r, peering.R2)
	if err != nil {
		return depot.Party{}, err
	}
	return depot.Party{Name: p.Name, DID: identity.DID(peerFile(p).Key)}, nil
}

// Named implements depot.Parties.
func (s shelfParties) Named(did string) (carnet.PartyID, error) {
	for _, p := range s.node.peers.With(peering.R2) {
		if identity.DID(peerFile(p).Key) == did {
			return p.Name, nil
		}
	}
	return "", carnet.Errorf(carnet.NotFound, "no peer shows the key %.80q", did)
}
