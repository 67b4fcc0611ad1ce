package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"carnet"
	"carnet/identity"
	"carnet/peering"
)

// Introduction is what the operators of two parties that don't run agree on.
type Introduction struct {
	Inviter, Accepter Config
	// Calls is what the inviter is to call the accepter; Called the other way round,
	// by default as the inviter calls itself.
	Calls, Called carnet.PartyID
	Offer         peering.Offer
}

// Offers is what a world may be given at most, as it says itself: an offer of scope
// r1 or r5 to it.
func (c Config) Offers(s ...peering.Scope) (peering.Offer, error) {
	sensitivity, err := carnet.ParseSensitivity(c.World.Sensitivity)
	return peering.Offer{Scope: s, Purposes: []string{c.World.Purpose}, Sensitivity: &sensitivity, Residency: c.World.Residency}, err
}

// Introduce makes peers of two parties that don't run and whose files both are
// here, by the whole exchange, with nobody in between: messages and words are
// carried by this process.
func Introduce(ctx context.Context, i Introduction, log *slog.Logger) (err error) {
	inviter, err := opened(ctx, i.Inviter, log, (*Node).openForPeering)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inviter.stores.close()) }()
	accepter, err := opened(ctx, i.Accepter, log, (*Node).openForPeering)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, accepter.stores.close()) }()
	if err := i.exchange(ctx, inviter.peers, accepter.peers); err != nil {
		return fmt.Errorf("introduce %s and %s: %w", i.Inviter.Party, i.Accepter.Party, err)
	}
	return nil
}

func (i Introduction) exchange(ctx context.Context, inviter, accepter *peering.Registry) error {
	p, err := inviter.Invite(ctx, i.Calls, i.Offer)
	if err != nil {
		return err
	}
	if i.Called == "" {
		i.Called = p.Own().Party
	}
	q, err := accepter.Accept(ctx, i.Called, p.Invitation)
	if err != nil {
		return err
	}
	if p, err = inviter.TakeAcceptance(ctx, i.Calls, q.Acceptance); err != nil {
		return err
	}
	if _, err := accepter.Compare(ctx, i.Called, p.Terms.Words()); err != nil {
		return err
	}
	if p, err = inviter.Compare(ctx, i.Calls, q.Terms.Words()); err != nil {
		return err
	}
	_, err = accepter.TakeConfirmation(ctx, i.Called, p.Confirmation)
	return err
}

// openForPeering opens what an exchange needs: a depot's ledger needn't be.
func (n *Node) openForPeering(ctx context.Context) error {
	if n.config.Role == identity.Depot {
		return n.openRegistry(ctx)
	}
	return n.open(ctx)
}
