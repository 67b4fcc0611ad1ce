package dpm

import (
	"context"

	"carnet"
	"carnet/ledger"
)

// Store keeps a DPM's documents and statements. Every method is one transaction,
// durable on return, and may be called concurrently. Failures that pass have the code
// carnet.NoSpace or carnet.Unavailable.
type Store interface {
	// Put stores documents of the next versions, or deletes those without a body, with
	// statements about it; another version fails the whole with carnet.Conflict.
	Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error
	// DocumentPage returns documents of a kind with id > after, in the byte order of
	// their ids, at most limit.
	DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error)
	// Document returns one document; carnet.NotFound if there is none.
	Document(ctx context.Context, kind, id string) (carnet.Document, error)
	// Statements returns statements with id > after, with receipts where they have come,
	// in order, at most limit.
	Statements(ctx context.Context, after uint64, limit int) ([]ledger.Item, error)
	// LastReceipt returns the receipt of the newest statement that has one; nil without
	// one.
	LastReceipt(ctx context.Context) ([]byte, error)

	// Overwrite leaves nothing in the store's files of what was deleted or replaced, as far
	// as the store can.
	Overwrite(ctx context.Context) error

	ledger.OutboxStore
}
