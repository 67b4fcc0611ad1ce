package node

import (
	"context"
	"net/http"
	"path/filepath"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/depot"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/peering"
	"carnet/register"
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
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	agent, err := depot.New(ctx, depot.Config{
		Dir: n.config.path(n.config.Data), Signer: signer, Store: store, Key: local.Key, Backups: n.config.Backups.keep(), Logger: n.log,
		State: func(ctx context.Context, s ledger.Statement) error {
			item, err := n.ownStatement(ctx, s)
			if err == nil {
				err = n.records.Put(ctx, nil, []ledger.Item{item})
			}
			n.depot.wake()
			return err
		},
	})
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
	n.depot.set(depotNow{outbox: outbox}, n.config.Party)
	n.work = append(n.work, outbox.Run)
	return n.openRegister(ctx, agent)
}

// ownLedger is the ledger of a depot for what it states itself.
type ownLedger struct {
	*depot.Agent
	party carnet.PartyID
}

// Submit implements ledger.Submitter.
func (l ownLedger) Submit(ctx context.Context, entries []ledger.Entry) ([]ledger.Receipt, error) {
	return l.Agent.Submit(ctx, l.party, entries)
}

// openRegister opens the depot's register, if it has the keys of one.
func (n *Node) openRegister(ctx context.Context, agent *depot.Agent) error {
	key, err := n.table.Signer(ctx, registerID)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	secret, err := n.table.Get(ctx, marksID)
	if err != nil {
		return err
	}
	store, err := n.stores.registers(ctx)
	if err != nil {
		return err
	}
	sealer, err := n.ownSealer(ctx)
	if err != nil {
		return err
	}
	n.registrar, err = register.New(register.Config{
		Dir: filepath.Join(n.config.path(n.config.Data), "register"), Party: n.config.Party, Key: key, Secret: secret, Sealer: sealer,
		Item: func(statement []byte, salt ledger.Salt) (ledger.Item, error) {
			return sealItem(sealer, statement, salt)
		},
		Store: store, Ledger: ownLedger{agent, n.config.Party}, RecoveryWait: time.Duration(n.config.Depot.RecoveryWait), Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.work = append(n.work, n.registrar.Run)
	return nil
}

// sealItem makes the outbox item of a statement with its salt.
func sealItem(sealer *keys.Sealer, encoded []byte, salt ledger.Salt) (item ledger.Item, err error) {
	item.Entry = ledger.EntryOf(salt, encoded)
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
	gate, served := n.gate(activity.R2, peering.R2), http.NewServeMux()
	gate.let(served, depot.Patterns(), n.api.Depot.Handler(gate.caller))
	gate.let(served, depot.ShelfPatterns(), n.api.Depot.ShelfHandler(shelfParties{n}))
	if n.registrar != nil {
		handler := n.registrar.Handler(func(r *http.Request) (register.Caller, error) {
			p, err := n.caller(r, peering.R2)
			if err != nil {
				return register.Caller{}, err
			}
			peer := peerFile(p)
			return register.Caller{Party: p.Name, DID: identity.DID(peer.Key), World: peer.Role == identity.World}, nil
		})
		gate.let(served, register.Patterns(), handler)
	}
	return n.serveMutual(n.config.Listen.R2, local.Certificate, peering.R2, served)
}
