package node

import (
	"context"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
)

// restID is the key under which a depot or a DPM keeps what is its own; other parties'
// agents have theirs.
func (n *Node) restID() keys.ID {
	if n.config.Role == identity.DPM {
		return keys.ID{Kind: "rest", Name: "dpm"}
	}
	return keys.ID{Kind: "rest", Name: "depot"}
}

// ownSealer seals what a depot or a DPM keeps of its own.
func (n *Node) ownSealer(ctx context.Context) (*keys.Sealer, error) {
	id := n.restID()
	sealer, err := n.table.Sealer(ctx, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		if _, err := n.table.Make(ctx, id); err != nil {
			return nil, err
		}
		sealer, err = n.table.Sealer(ctx, id)
	}
	return sealer, err
}

// ownStatement makes the outbox item of a statement by a depot or a DPM.
func (n *Node) ownStatement(ctx context.Context, s ledger.Statement) (ledger.Item, error) {
	sealer, err := n.ownSealer(ctx)
	if err != nil {
		return ledger.Item{}, err
	}
	s.Who = n.config.Party
	encoded, err := s.Marshal()
	if err != nil {
		return ledger.Item{}, err
	}
	return sealItem(sealer, encoded, ledger.NewSalt())
}
