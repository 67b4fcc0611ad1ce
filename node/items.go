package node

import (
	"context"
	"crypto/ed25519"

	"carnet"
	"carnet/avatar"
	"carnet/item"
	"carnet/ledger"
)

// openItems opens what the world's avatars have.
func (n *Node) openItems(ctx context.Context, store avatar.Store, key ed25519.PrivateKey, agent *avatar.Agent) (err error) {
	n.api.Items, err = item.New(ctx, item.Config{
		Party: n.config.Party, Key: key, Store: store, Keys: n.table, Homes: homes{n}, Ledger: n.ledgerOf, State: agent.Statement, Recorded: n.depot.wake,
	})
	return err
}

// homes registers the homes of items as those of avatars. The world's moves are there
// before anybody asks.
type homes struct{ node *Node }

// EnrolItem implements item.Homes.
func (h homes) EnrolItem(ctx context.Context, avatar carnet.AvatarID) (item.Enrolled, error) {
	return h.node.api.Moves.EnrolItem(ctx, avatar)
}

// OwnerOf implements item.Homes.
func (h homes) OwnerOf(ctx context.Context, avatar carnet.AvatarID) (string, error) {
	return h.node.api.Moves.OwnerOf(ctx, avatar)
}

// ChangeItem implements item.Homes.
func (h homes) ChangeItem(ctx context.Context, registrar string, home carnet.HomeID, change func() error) error {
	return h.node.api.Moves.ChangeItem(ctx, registrar, home, change)
}

// Coming implements item.Homes.
func (h homes) Coming(avatar carnet.AvatarID) int { return h.node.api.Moves.Coming(avatar) }

// ItemsEnd implements item.Homes.
func (h homes) ItemsEnd() { h.node.api.Moves.ItemsEnd() }

// ledgerOf returns the key of a registrar's ledger, if the world's depot is that
// registrar.
func (n *Node) ledgerOf(registrar string) (ledger.Key, error) {
	client, err := n.depot.register()
	if err != nil {
		return ledger.Key{}, err
	}
	if client.Registrar != registrar {
		return ledger.Key{}, carnet.Errorf(carnet.Forbidden, "the item's home is registered at %s, which is not the register that this world asks", registrar)
	}
	return client.Ledger, nil
}
