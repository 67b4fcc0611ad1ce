package register

import (
	"context"

	"carnet"
	"carnet/ledger"
)

// Change is one change of a register, as its store keeps it: some homes stand as
// it says from now on, or a crossing is decided by it. What it says is sealed in
// its body; the store knows whom it is about.
type Change struct {
	Number   uint64            // 1 is the first; each is one more than the one before
	Body     []byte            // sealed
	Homes    []carnet.HomeID   // that stand as it says; filled for Append only
	Crossing carnet.CrossingID // that it decides; zero if none; filled for Append only
	Item     ledger.Item       // its statement, in the outbox
}

// Store keeps a register's changes. Every method is one transaction, durable on
// return, and may be called concurrently, by several processes as well. Failures
// that pass have the code carnet.NoSpace or carnet.Unavailable.
type Store interface {
	// Append adds a change, with its statement in the outbox. It is carnet.Conflict,
	// and nothing stays, if its number isn't the next or its crossing has been
	// decided: so of two callers who saw the same register, one changes it.
	Append(ctx context.Context, c Change) error
	// Last returns the newest change, and the zero Change of a register without any.
	Last(ctx context.Context) (Change, error)
	// Homes returns the newest change of each of the homes that has any.
	Homes(ctx context.Context, ids []carnet.HomeID) (map[carnet.HomeID]Change, error)
	// Decided returns the change that decided a crossing; carnet.NotFound without one.
	Decided(ctx context.Context, id carnet.CrossingID) (Change, error)
	// Changes returns changes with Number > after, in order, at most limit.
	Changes(ctx context.Context, after uint64, limit int) ([]Change, error)
	// Receipted is as ledger.OutboxStore has it: the first receipt stays.
	Receipted(ctx context.Context, items []ledger.Item) error
}
