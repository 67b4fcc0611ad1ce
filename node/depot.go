package node

import (
	"context"
	"net/http"

	"carnet"
	"carnet/depot"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/peering"
)

func (n *Node) openDepot(ctx context.Context) error {
	store, err := n.stores.depots(ctx)
	if err != nil {
		return err
	}
	signer, err := ledgerSigner(ctx, n.config, n.table)
	if err != nil {
		return err
	}
	agent, err := depot.New(ctx, depot.Config{Dir: n.config.path(n.config.Data), Signer: signer, Store: store, Logger: n.log})
	if err != nil {
		return err
	}
	n.work = append(n.work, agent.Run)
	n.api.Depot = agent
	// What a depot states itself goes into its own ledger.
	outbox, err := ledger.NewOutbox(ledger.OutboxConfig{Store: n.records, Submitter: depot.By{Agent: agent, Party: n.config.Party}, Key: signer.Key(), Logger: n.log})
	if err != nil {
		return err
	}
	n.depot.set(nil, n.config.Party, outbox)
	n.work = append(n.work, outbox.Run)
	return nil
}

var depotRestKey = keys.ID{Kind: "rest", Name: "depot"}

// depotStatement makes the outbox item of a statement by a depot.
func (n *Node) depotStatement(ctx context.Context, s ledger.Statement) (ledger.Item, error) {
	sealer, err := n.table.Sealer(ctx, depotRestKey)
	if carnet.CodeOf(err) == carnet.NotFound {
		if _, err := n.table.Make(ctx, depotRestKey); err != nil {
			return ledger.Item{}, err
		}
		sealer, err = n.table.Sealer(ctx, depotRestKey)
	}
	if err != nil {
		return ledger.Item{}, err
	}
	s.Who = n.config.Party
	encoded, err := s.Marshal()
	if err != nil {
		return ledger.Item{}, err
	}
	salt := ledger.NewSalt()
	item := ledger.Item{Entry: ledger.EntryOf(salt, encoded)}
	if item.Statement, err = sealer.Seal(nil, []byte("statement"), encoded); err != nil {
		return ledger.Item{}, err
	}
	item.Salt, err = sealer.Seal(nil, []byte("salt"), salt[:])
	return item, err
}

func (n *Node) listenR2(ctx context.Context) error {
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	return n.serveMutual(n.config.Listen.R2, local.Certificate, peering.R2, n.api.Depot.Handler(func(r *http.Request) (carnet.PartyID, error) {
		p, err := n.caller(r, peering.R2)
		return p.Name, err
	}))
}
