package thing

import (
	"context"

	"carnet"
	"carnet/ledger"
)

// Store is the agent's durable state. Every method is one transaction: when it
// returns nil its change is on disk (fsync), when it returns an error nothing of
// it is. Methods may be called from many goroutines; Commit is called by one.
//
// A store that has no room answers carnet.NoSpace and works again once it has;
// any other failure to make a change durable is fatal to the process.
type Store interface {
	// Commit makes one group durable: new log rows, frames about to be sent,
	// refusals, changed documents, statements. Positions and frame numbers that
	// exist already, and documents whose stored version isn't Version-1, fail
	// the whole with carnet.Conflict.
	Commit(ctx context.Context, group *Group) error
	// Put makes documents and statements durable beside the groups, as Commit would. Any
	// goroutine may call it.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error

	// Log returns the rows that hold position from and what comes after it, oldest
	// first, until limit bytes of bodies are reached (at least one row if there is
	// any).
	Log(ctx context.Context, from uint64, limit int) ([]LogRow, error)
	// LogIndex returns the same rows without bodies, at most limit of them.
	LogIndex(ctx context.Context, from uint64, limit int) ([]LogRow, error)
	// TrimLog deletes the rows that were received before the given time.
	TrimLog(ctx context.Context, before int64) (rows int, err error)

	// Sent returns the frames recorded for a link with numbers in (after, ...],
	// in order, at most limit.
	Sent(ctx context.Context, link carnet.PartyID, after uint64, limit int) ([]SentRow, error)
	// Rewind deletes the frames recorded for a link with numbers above last, which the
	// receiver says that it hasn't, and the link's snapshots above last. Statements of
	// frames with numbers above acked go with them, but for those with a receipt: what a
	// receiver acknowledged, or a ledger has, was said.
	Rewind(ctx context.Context, link carnet.PartyID, last, acked uint64) error
	// SaveLink stores a link's snapshot as of its frame Number; the newest 32
	// are kept.
	SaveLink(ctx context.Context, s LinkSnapshot) error
	// Link returns the newest snapshot of a link with Number <= at, and a zero
	// snapshot where there is none.
	Link(ctx context.Context, link carnet.PartyID, at uint64) (LinkSnapshot, error)

	// Refusals returns the newest refusals of a thing, newest first.
	Refusals(ctx context.Context, thing carnet.ThingID, limit int) ([]RefusalRow, error)
	// RefusalCounts returns how often each thing was refused, by code, ever.
	RefusalCounts(ctx context.Context) (map[carnet.ThingID]map[carnet.Code]uint64, error)

	// Documents returns all documents of a kind, in order of their ids.
	Documents(ctx context.Context, kind string) ([]carnet.Document, error)
	// Document returns one; carnet.NotFound if there is none.
	Document(ctx context.Context, kind, id string) (carnet.Document, error)

	// Statements returns statements with id > after, with receipts where they
	// have come, in order, at most limit.
	Statements(ctx context.Context, after uint64, limit int) ([]ledger.Item, error)

	// Totals counts what the store holds.
	Totals(ctx context.Context) (Totals, error)

	ledger.OutboxStore
}

// Group is one commit.
type Group struct {
	Log        *LogRow // nil: none
	Sent       []SentRow
	Refusals   []RefusalRow
	Documents  []carnet.Document // nil Body: delete
	Statements []ledger.Item     // appended to the outbox; the store gives the ids
}

// LogRow is one commit group of accepted messages. Positions count messages and
// have no holes: the next row's First is this row's First + Count.
type LogRow struct {
	First    uint64
	Count    uint32
	Received int64  // when the group was made, ns
	Index    []byte // per thing and property what the body holds: opaque here
	Body     []byte // the messages, each sealed under its thing's key of the day
}

// SentRow records one frame before it leaves: what was sent to whom under which
// policy version, and the link's state after it.
type SentRow struct {
	Link    carnet.PartyID
	Number  uint64
	Hash    carnet.Fingerprint // of Header
	Time    int64
	Policy  uint64
	Batches uint32
	Header  []byte // the COSE_Sign1 with its signed header
	Leaves  []byte // the batches' fingerprints, 32 bytes each
	State   []byte // what changed in the link's state, sealed: opaque here
	// Statement is the frame's sent-root statement; it enters the outbox with
	// the frame. Zero Entry: none.
	Statement ledger.Item
}

// LinkSnapshot is a link's whole state after frame Number.
type LinkSnapshot struct {
	Link   carnet.PartyID
	Number uint64
	State  []byte // sealed: opaque here
}

// RefusalRow records one message, or one measurement of it, that was refused
// for good. The newest 1,000 of each thing are kept; counts are kept for ever.
type RefusalRow struct {
	Thing carnet.ThingID
	Time  int64
	Code  carnet.Code
	Body  []byte // the reason and what came, sealed: opaque here
}

// Totals counts what a store holds.
type Totals struct {
	LogRows     uint64
	LogNext     uint64 // the position that the next message will get
	SentFrames  uint64
	SentBatches uint64
	Refusals    uint64
	Statements  uint64
	Receipts    uint64
}
