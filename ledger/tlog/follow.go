package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"carnet"
	"carnet/ledger"

	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
)

const (
	checkpointPath = layout.CheckpointPath
	// pollInterval is how often the checkpoint is looked at while somebody waits.
	pollInterval = 5 * time.Millisecond
	// idleInterval is how often it is looked at while nobody does.
	idleInterval = time.Second
	// maxCatchUp bounds the wait for the first checkpoint after a start.
	maxCatchUp = 2 * time.Second
	// maxUnpublished is how long what is sequenced waits for a checkpoint before that is said.
	maxUnpublished = 5 * time.Second
	// recordAtOnce bounds one Index.Record, for the catching up at a start.
	recordAtOnce = 16 * layout.EntryBundleWidth
)

// Run publishes and indexes until ctx ends, then lets the engine finish what it
// has, and closes the ledger. It must be called once. An error with ErrFsync in
// its chain means that the process must exit.
func (l *Log) Run(ctx context.Context) error {
	defer l.close()
	err := l.run(ctx)
	if err == nil {
		err = l.finish(context.WithoutCancel(ctx))
	}
	l.abandon(err)
	if err != nil {
		return fmt.Errorf("keep ledger: %w", err)
	}
	return nil
}

// run follows the checkpoint, closely while anybody waits for it.
func (l *Log) run(ctx context.Context) error {
	timer := time.NewTimer(idleInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wanted:
		case <-timer.C:
		}
		if err := l.step(ctx); err != nil {
			return err
		}
		timer.Reset(l.pause())
	}
}

// pause is how long the checkpoint need not be looked at.
func (l *Log) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		return pollInterval
	}
	return idleInterval
}

// step follows, and bears with an index that fails for the moment.
func (l *Log) step(ctx context.Context) error {
	if err := l.failure(); err != nil {
		return err
	}
	before, _ := l.Checkpoint()
	err := l.follow(ctx)
	l.unpublished(ctx, before.Size)
	if code := carnet.CodeOf(err); code == carnet.NoSpace || code == carnet.Unavailable {
		l.cfg.Logger.Warn("receipts wait for the index", "ledger", l.key.Origin, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// unpublished says that entries are on disk for which the engine publishes no checkpoint:
// it tries that again for ever, and who waits hears nothing but that it takes long.
func (l *Log) unpublished(ctx context.Context, before uint64) {
	l.mu.Lock()
	waits, size := len(l.waiting), l.state.Size
	l.mu.Unlock()
	if now := time.Now(); waits == 0 || size != before || l.moved.IsZero() {
		l.moved = now
		return
	} else if now.Sub(l.moved) < l.patience {
		return
	}
	l.moved = time.Now()
	if on, err := l.reader.IntegratedSize(ctx); err == nil && on > size {
		l.cfg.Logger.Error("entries are on disk, and no checkpoint of them is published: receipts wait", "ledger", l.key.Origin, "published", size, "on_disk", on, "waiting", waits)
	}
}

func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// follow reads the checkpoint and, when the ledger grew, indexes what is new and
// wakes who waits for it.
func (l *Log) follow(ctx context.Context) error {
	signed, err := l.reader.ReadCheckpoint(ctx)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return DiskError("read checkpoint", err)
	}
	l.mu.Lock()
	known := bytes.Equal(signed, l.state.signed) && !l.behind
	l.mu.Unlock()
	if known {
		return nil
	}
	next := published{signed: signed}
	if next.Checkpoint, err = ledger.ParseCheckpoint(l.key, signed); err != nil {
		return fmt.Errorf("read own checkpoint: %w", err)
	}
	if next.signature, err = l.cfg.Signer.SignRoot(next.Root); err != nil {
		return err
	}
	// The state comes before the index: who finds an entry there gets a receipt
	// at a checkpoint that covers it.
	l.mu.Lock()
	l.state, l.behind = next, true
	l.mu.Unlock()
	return l.index(ctx, next)
}

// ahead refuses an index that knows leaves which the ledger hasn't.
func ahead(indexed, size uint64) error {
	return carnet.Errorf(carnet.Tampered, "the index knows %d leaves and the ledger has %d", indexed, size).
		WithFix("the ledger was restored from an older copy than the depot's store: restore both from the same moment")
}

// index records the leaves that are new in the checkpoint, and ends the waits
// for them.
func (l *Log) index(ctx context.Context, next published) error {
	from, err := l.cfg.Index.Indexed(ctx)
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	if from > next.Size {
		return ahead(from, next.Size)
	}
	type leaf struct {
		entry ledger.Entry
		index uint64
	}
	var fresh []leaf
	for from < next.Size {
		to := min(next.Size, from+recordAtOnce)
		entries, err := l.entries(ctx, from, to, next.Size)
		if err != nil {
			return err
		}
		if err := l.cfg.Index.Record(ctx, from, entries); err != nil {
			return fmt.Errorf("index entries: %w", err)
		}
		for i, e := range entries {
			fresh = append(fresh, leaf{e, from + uint64(i)})
		}
		from = to
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behind = false
	for _, f := range fresh {
		if w := l.waiting[f.entry]; w != nil {
			l.end(f.entry, w, f.index, nil)
		}
	}
	return nil
}

// entries reads the leaves from up to to in the tree of size.
func (l *Log) entries(ctx context.Context, from, to, size uint64) ([]ledger.Entry, error) {
	out := make([]ledger.Entry, 0, to-from)
	for at := from; at < to; {
		bundle, err := client.GetEntryBundle(ctx, l.reader.ReadEntryBundle, at/layout.EntryBundleWidth, size)
		if err != nil {
			return nil, DiskError("read ledger entries", err)
		}
		in := bundle.Entries[min(int(at%layout.EntryBundleWidth), len(bundle.Entries)):]
		in = in[:min(uint64(len(in)), to-at)]
		if len(in) == 0 {
			return nil, carnet.Errorf(carnet.Tampered, "the ledger's leaf %d is not in its bundle", at)
		}
		for _, e := range in {
			if len(e) != len(ledger.Entry{}) {
				return nil, carnet.Errorf(carnet.Tampered, "the ledger's leaf %d has %d bytes", at, len(e))
			}
			out = append(out, ledger.Entry(e))
			at++
		}
	}
	return out, nil
}

// finish stops appending, lets the engine publish what it has, and indexes it.
func (l *Log) finish(ctx context.Context) error {
	l.mu.Lock()
	if l.err == nil {
		l.err = errClosed
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := l.shutdown(ctx); err != nil {
		l.cfg.Logger.Warn("the ledger stops before its last checkpoint; the next start goes on from there", "ledger", l.key.Origin, "error", err)
		return nil
	}
	return l.follow(ctx)
}

// abandon ends all waits.
func (l *Log) abandon(err error) {
	if err == nil {
		err = errClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	for e, w := range l.waiting {
		l.end(e, w, 0, err)
	}
}

var errClosed = carnet.Errorf(carnet.Unavailable, "the ledger is closing").WithFix("submit the same entries again")
