package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"carnet"
)

// Item is a statement on its way to a depot and back.
type Item struct {
	ID        uint64 // the store's number; later items have larger ones
	Entry     Entry
	Statement []byte // sealed by the store
	Salt      []byte // sealed by the store
	Receipt   []byte // Receipt.Marshal; empty while pending
}

// OutboxStore keeps a party's statements. A statement is put into it in the same
// transaction as the change that it states; how is the store's own affair.
//
// Both methods may be called concurrently.
type OutboxStore interface {
	// Pending returns at most limit items with ID > after and without a receipt,
	// oldest first. Only ID and Entry need be filled. No item appears later below
	// one that was returned.
	Pending(ctx context.Context, after uint64, limit int) ([]Item, error)
	// Receipted stores the receipts of items, found by ID, in one transaction
	// that is durable on return. An item that has a receipt already keeps either
	// of the two; one that is gone is skipped.
	Receipted(ctx context.Context, items []Item) error
}

// Submitter hands entries to a depot and returns their receipts in order. The
// same entry submitted again returns the same or an equally valid receipt.
type Submitter interface {
	Submit(ctx context.Context, entries []Entry) ([]Receipt, error)
}

// OutboxConfig configures an Outbox.
type OutboxConfig struct {
	Store     OutboxStore
	Submitter Submitter
	Key       Key // of the depot's ledger; a receipt that it doesn't verify isn't stored
	// Newest is a signed checkpoint of a ledger that the party had before, or nil; one
	// of another ledger is passed over.
	Newest []byte

	Batch    int           // entries sent at once; default 256
	Flights  int           // batches on their way at once; default 16
	Gap      time.Duration // least time between two sendings of less than Batch; default 100 ms
	Backoff  time.Duration // first wait after a failure, doubled up to MaxWait; default 200 ms
	MaxWait  time.Duration // default 30 s
	Deadline time.Duration // for one sending; default 30 s

	Logger *slog.Logger // default slog.Default()
}

// Outbox sends pending entries to a depot and stores the receipts. A depot that
// is away delays receipts and loses nothing.
type Outbox struct {
	cfg      OutboxConfig
	verifier *Verifier
	wake     chan struct{}
	landed   chan flight

	away   atomic.Pointer[Away]   // nil: the last sending didn't fail
	newest atomic.Pointer[newest] // nil: no checkpoint was seen
	older  atomic.Bool            // the depot shows less than it has shown

	// Owned by Run.
	due      bool     // there may be something to send
	last     uint64   // the id up to which the store was read
	again    [][]Item // batches that came back without receipts
	flights  int
	failures int       // sendings that failed since the last that didn't
	notUntil time.Time // nothing is sent before
}

// Away says that statements wait, since what they are sent to doesn't take them.
type Away struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"` // the newest failure
}

// Away says since when and why statements wait; nil: they don't. It may be called
// concurrently.
func (o *Outbox) Away() *Away { return o.away.Load() }

// newest is a checkpoint as it was signed.
type newest struct {
	Checkpoint
	signed []byte
}

// Newest returns the largest checkpoint of the ledger that the party was shown, as it
// was signed; nil without one. It may be called concurrently.
func (o *Outbox) Newest() []byte {
	if n := o.newest.Load(); n != nil {
		return n.signed
	}
	return nil
}

// saw keeps a checkpoint if it is the largest. One as large, with another root, is of
// another ledger.
func (o *Outbox) saw(cp Checkpoint, signed []byte) error {
	for {
		have := o.newest.Load()
		switch {
		case have != nil && have.Size == cp.Size && have.Root != cp.Root:
			return carnet.Errorf(carnet.Tampered, "the depot has signed two ledgers of %d entries", cp.Size).
				WithFix("keep this party's store: with the depot's checkpoint it proves that")
		case have != nil && have.Size >= cp.Size, o.newest.CompareAndSwap(have, &newest{cp, signed}):
			return nil
		}
	}
}

// shrunk says so, once, when a checkpoint is smaller than one that was there before it was
// asked for. Its receipt holds nonetheless.
func (o *Outbox) shrunk(before *newest, cp Checkpoint) {
	older := before != nil && cp.Size < before.Size
	if was := o.older.Swap(older); older && !was {
		o.cfg.Logger.Error("the depot shows an older ledger than it has shown: it was restored from an older copy, or keeps two", "ledger", o.cfg.Key.Origin, "had", before.Size, "has", cp.Size)
	}
}

// flight is a batch that came back.
type flight struct {
	items []Item
	err   error
}

// NewOutbox checks cfg and makes an Outbox.
func NewOutbox(cfg OutboxConfig) (*Outbox, error) {
	if cfg.Store == nil || cfg.Submitter == nil {
		return nil, errors.New("make outbox: Store and Submitter are needed")
	}
	if err := cfg.Key.check(); err != nil {
		return nil, fmt.Errorf("make outbox: %w", err)
	}
	if cfg.Batch < 0 || cfg.Flights < 0 || min(cfg.Gap, cfg.Backoff, cfg.MaxWait, cfg.Deadline) < 0 {
		return nil, errors.New("make outbox: a limit is below zero")
	}
	cfg.Batch = orDefault(cfg.Batch, 256)
	cfg.Flights = orDefault(cfg.Flights, 16)
	cfg.Gap = orDefault(cfg.Gap, 100*time.Millisecond)
	cfg.Backoff = orDefault(cfg.Backoff, 200*time.Millisecond)
	cfg.MaxWait = orDefault(cfg.MaxWait, 30*time.Second)
	cfg.Deadline = orDefault(cfg.Deadline, 30*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	o := &Outbox{
		cfg:      cfg,
		verifier: NewVerifier(cfg.Key),
		wake:     make(chan struct{}, 1),
		landed:   make(chan flight, cfg.Flights),
	}
	if cp, err := ParseCheckpoint(cfg.Key, cfg.Newest); err == nil {
		o.newest.Store(&newest{cp, cfg.Newest})
	}
	return o, nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Wake says that there may be new pending items. It never blocks.
func (o *Outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run sends what is pending, then waits for Wake, until ctx ends; it returns
// nil then. An error is the store's: what it says is not known to be durable.
func (o *Outbox) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	o.due = true
	for {
		if o.due && o.flights < o.cfg.Flights {
			if wait := time.Until(o.notUntil); wait > 0 {
				timer.Reset(wait)
			} else if err := o.launch(ctx); err != nil {
				return o.stop(ctx, err)
			} else {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return o.stop(ctx, nil)
		case <-o.wake:
			o.due = true
		case <-timer.C:
		case f := <-o.landed:
			o.due = true
			if err := o.land(ctx, f); err != nil {
				return o.stop(ctx, err)
			}
		}
	}
}

// launch sends a batch that came back, or else the next of the store.
func (o *Outbox) launch(ctx context.Context) error {
	o.due = false
	batch, err := o.next(ctx)
	if err != nil {
		return o.passing(ctx, fmt.Errorf("read pending statements: %w", err))
	}
	if len(batch) == 0 {
		return nil
	}
	o.flights++
	go func() { o.landed <- flight{batch, o.send(ctx, batch)} }()
	if len(batch) == o.cfg.Batch || len(o.again) > 0 {
		o.due = true // there may be more behind it
		return nil
	}
	o.notUntil = time.Now().Add(o.cfg.Gap)
	return nil
}

// next takes the batch to send next.
func (o *Outbox) next(ctx context.Context) (batch []Item, err error) {
	if len(o.again) > 0 {
		batch, o.again = o.again[0], o.again[1:]
		return batch, nil
	}
	if batch, err = o.cfg.Store.Pending(ctx, o.last, o.cfg.Batch); err == nil && len(batch) > 0 {
		o.last = batch[len(batch)-1].ID
	}
	return batch, err
}

// send fills in the receipts of batch, all verified.
func (o *Outbox) send(ctx context.Context, batch []Item) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadline)
	defer cancel()
	entries := make([]Entry, len(batch))
	for i := range batch {
		entries[i] = batch[i].Entry
	}
	before := o.newest.Load()
	receipts, err := o.cfg.Submitter.Submit(ctx, entries)
	if err != nil {
		return fmt.Errorf("submit %d entries: %w", len(entries), err)
	}
	if len(receipts) != len(entries) {
		return carnet.Errorf(carnet.Tampered, "the depot answered %d entries with %d receipts", len(entries), len(receipts))
	}
	for i := range batch {
		cp, err := o.verifier.Verify(batch[i].Entry, receipts[i])
		if err != nil {
			return fmt.Errorf("verify receipt: %w", err)
		}
		o.shrunk(before, cp)
		if err := o.saw(cp, receipts[i].Checkpoint); err != nil {
			return err
		}
		batch[i].Receipt = receipts[i].Marshal()
	}
	return nil
}

// land stores what a flight brought back.
func (o *Outbox) land(ctx context.Context, f flight) error {
	o.flights--
	if f.err != nil {
		o.again = append(o.again, f.items)
		o.postpone(ctx, f.err)
		return nil
	}
	if err := o.cfg.Store.Receipted(ctx, f.items); err != nil {
		o.again = append(o.again, f.items)
		return o.passing(ctx, fmt.Errorf("store %d receipts: %w", len(f.items), err))
	}
	o.failures = 0
	o.away.Store(nil)
	return nil
}

// passing postpones for a store's failure that passes, and returns any other.
func (o *Outbox) passing(ctx context.Context, err error) error {
	if code := carnet.CodeOf(err); code != carnet.NoSpace && code != carnet.Unavailable && ctx.Err() == nil {
		return err
	}
	o.postpone(ctx, err)
	return nil
}

// postpone waits longer after each failure in a row.
func (o *Outbox) postpone(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	o.due = true
	away := Away{Since: time.Now(), Why: err.Error()}
	if before := o.away.Load(); before != nil {
		away.Since = before.Since
	}
	o.away.Store(&away)
	wait := min(o.cfg.Backoff<<min(o.failures, 20), o.cfg.MaxWait)
	o.failures++
	o.notUntil = time.Now().Add(wait)
	level := slog.LevelWarn
	if carnet.CodeOf(err) == carnet.Tampered {
		level = slog.LevelError
	}
	o.cfg.Logger.Log(ctx, level, "statements wait for their receipts", "ledger", o.cfg.Key.Origin, "retry_in", wait, "error", err)
}

// stop waits for what is on its way, so that no goroutine outlives Run, and
// keeps the receipts that came.
func (o *Outbox) stop(ctx context.Context, err error) error {
	ctx = context.WithoutCancel(ctx)
	for o.flights > 0 {
		f := <-o.landed
		if err == nil {
			err = o.land(ctx, f)
			continue
		}
		o.flights--
	}
	return err
}
