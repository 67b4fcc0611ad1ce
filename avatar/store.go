package avatar

import (
	"context"

	"carnet"
	"carnet/ledger"
)

// Store is the agent's durable state. Every method is one transaction: when it
// returns nil its change is on disk (fsync), when it returns an error nothing of
// it is. Methods may be called from many goroutines; Append is called by one.
//
// A store that has no room answers carnet.NoSpace and works again once it has;
// any other failure to make a change durable is fatal to the process.
type Store interface {
	// Register fences every older incarnation of the sender: it returns the
	// link's state with the incarnation that nonce has. A nonce that is the last
	// registered keeps its incarnation; any other gets a new one, one more than
	// the greater of the last and above.
	Register(ctx context.Context, sender carnet.PartyID, nonce [16]byte, above uint64) (LinkRow, error)
	// Links returns the state of every sender that ever registered.
	Links(ctx context.Context) ([]LinkRow, error)

	// Append stores frames, in order, with the statements about them, and moves
	// each sender's link to its last frame. A frame that doesn't follow its
	// link's stored state (incarnation, number, parent) fails the whole with
	// carnet.Conflict. It fills in the frames' IDs (increasing).
	Append(ctx context.Context, frames []FrameRow) error
	// Frames returns the frames with id > after that still hold their bodies
	// (uncompacted), in order of ids, until limit bytes of bodies are reached
	// (at least one if there is any).
	Frames(ctx context.Context, after uint64, limit int) ([]FrameRow, error)
	// Frame returns one frame, with or without its body as it now is;
	// carnet.NotFound if there is none.
	Frame(ctx context.Context, sender carnet.PartyID, number uint64) (FrameRow, error)
	// FrameHeaders returns frames by id without bodies, in order, at most limit.
	FrameHeaders(ctx context.Context, after uint64, limit int) ([]FrameRow, error)

	// Compact adds stretches, takes the bodies off frames and stores documents as
	// Put does.
	Compact(ctx context.Context, c Compaction) error
	// Stretches returns a stream's stretches that overlap the measured minutes
	// [from, to], without bodies, in order of their first batch.
	Stretches(ctx context.Context, stream carnet.StreamID, from, to int64) ([]StretchRow, error)
	// StretchPage returns a stream's stretches whose first batch is at least from,
	// without bodies, in order of their first batch, at most limit.
	StretchPage(ctx context.Context, stream carnet.StreamID, from uint64, limit int) ([]StretchRow, error)
	// StretchStreams returns the streams above after that have stretches, in the byte
	// order of their ids, at most limit.
	StretchStreams(ctx context.Context, after carnet.StreamID, limit int) ([]carnet.StreamID, error)
	// StretchBody returns one stretch's bytes, as they are (the caller compares
	// the fingerprint); carnet.NotFound if the row or its body is lost.
	StretchBody(ctx context.Context, id uint64) ([]byte, error)
	// RestoreStretch puts a lost or damaged body back.
	RestoreStretch(ctx context.Context, id uint64, body []byte) error
	// Unstored returns stretches with ids above after that the depot doesn't hold
	// yet, without bodies, in order of ids.
	Unstored(ctx context.Context, after uint64, limit int) ([]StretchRow, error)
	// Stored marks stretches as held by the depot.
	Stored(ctx context.Context, ids []uint64) error
	// Unstore marks stretches as not held by the depot, and stores documents and
	// statements about it as Put does, in one transaction. What isn't there is passed over.
	Unstore(ctx context.Context, ids []uint64, documents []carnet.Document, statements []ledger.Item) error
	// Expired returns stretches of a retention class whose newest batch was
	// received before the given time, without bodies, in order of ids.
	Expired(ctx context.Context, class carnet.Retention, before int64, limit int) ([]StretchRow, error)
	// DropStretches deletes stretches, with overwriting, and stores documents and
	// statements about it as Put does. One that isn't there, or is named twice,
	// fails the whole with carnet.Conflict.
	DropStretches(ctx context.Context, ids []uint64, documents []carnet.Document, statements []ledger.Item) error

	// Overwrite leaves nothing, in any file of the store, of what was deleted or
	// replaced before: rows, bodies of frames, documents.
	Overwrite(ctx context.Context) error

	// Put stores documents (nil Body: delete) with statements about the change.
	// A document whose stored version isn't Version-1 fails the whole with
	// carnet.Conflict.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error
	// Document returns one document; carnet.NotFound if there is none.
	Document(ctx context.Context, kind, id string) (carnet.Document, error)
	// DocumentPage returns documents of a kind with id > after, in the byte order
	// of their ids, at most limit.
	DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error)

	// Statements returns statements with id > after, with receipts where they
	// have come, in order, at most limit.
	Statements(ctx context.Context, after uint64, limit int) ([]ledger.Item, error)

	// Totals counts what the store holds.
	Totals(ctx context.Context) (Totals, error)

	ledger.OutboxStore
}

// LinkRow is what a receiver durably knows of one sender (docs/design/link.md).
type LinkRow struct {
	Sender      carnet.PartyID
	Nonce       [16]byte
	Incarnation uint64
	Number      uint64             // of the last frame stored; 0: none
	Hash        carnet.Fingerprint // of its signed header
	Covers      [16]byte           // the sender's sealed log position
}

// FrameRow is one frame as it was received.
type FrameRow struct {
	ID          uint64 // given by Append
	Sender      carnet.PartyID
	Incarnation uint64
	Number      uint64
	Parent      carnet.Fingerprint
	Hash        carnet.Fingerprint
	Covers      [16]byte
	Received    int64
	Batches     uint32
	Header      []byte // the COSE_Sign1 with its signed header
	Leaves      []byte // the batches' fingerprints, 32 bytes each; in Append may be nil: kept only from compaction on
	Body        []byte // the batches as they came; nil once compacted
	// Statement is the frame's received-root statement; it enters the outbox
	// with the frame. StatementID is filled in by reads.
	Statement   ledger.Item
	StatementID uint64
}

// Compaction is a part of moving batches from frames into stretches, all or
// nothing. Frames named in Strip lose their bodies and keep Leaves.
type Compaction struct {
	Stretches []StretchRow // IDs are given by the store
	Strip     []Strip
	Documents []carnet.Document
}

// Strip names a frame whose batches have all gone into stretches.
type Strip struct {
	Frame  uint64 // its ID
	Leaves []byte
}

// StretchRow is a run of one stream's batches with one retention class,
// byte-identical to what was received.
type StretchRow struct {
	ID           uint64
	Stream       carnet.StreamID
	Class        carnet.Retention
	FirstBatch   uint64
	LastBatch    uint64
	Batches      uint32
	Measurements uint64
	FromMinute   int64 // smallest and largest measured minute (Unix time / 60 s)
	ToMinute     int64
	Received     int64              // when its newest batch was received
	Fingerprint  carnet.Fingerprint // of Body: its name at the depot
	Stored       bool               // the depot holds it
	Origins      []byte             // per batch: frame id and leaf index; opaque here
	Size         int                // of Body, in bytes; filled in by reads
	Body         []byte             // the batches, each length-prefixed
}

// Totals counts what a store holds.
type Totals struct {
	Frames         uint64
	FramesWithBody uint64
	Batches        uint64
	Stretches      uint64
	StretchBytes   uint64
	Statements     uint64
	Receipts       uint64
}
