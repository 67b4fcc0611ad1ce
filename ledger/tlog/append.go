package tlog

import (
	"context"
	"errors"
	"fmt"

	"carnet"
	"carnet/ledger"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
)

// Append puts entries into the ledger and returns their receipts, in order,
// once they are durable and published. An entry that is in the ledger already
// gets a receipt for the leaf that it has.
//
// It answers carnet.Unavailable when too many entries of the party wait, whatever
// others have waiting, and carnet.NoSpace while the disk is full. Entries whose Append failed, or whose ctx ended, may
// be in the ledger nevertheless; appending them again is the way to know.
func (l *Log) Append(ctx context.Context, by carnet.PartyID, entries []ledger.Entry) ([]ledger.Receipt, error) {
	if len(entries) > l.cfg.MaxOutstanding {
		return nil, carnet.Errorf(carnet.TooLarge, "%d entries at once, want at most %d", len(entries), l.cfg.MaxOutstanding)
	}
	waiters, claimed, err := l.claim(by, entries)
	if err != nil {
		return nil, err
	}
	// Others may wait for the claimed entries by now, whatever becomes of ctx.
	l.settle(context.WithoutCancel(ctx), claimed, waiters)
	for _, w := range waiters {
		select {
		case <-w.done:
		case <-ctx.Done():
			return nil, carnet.Errorf(carnet.Unavailable, "the receipt did not come in time: %v", context.Cause(ctx)).
				WithFix("submit the same entries again")
		}
		if w.err != nil {
			return nil, w.err
		}
	}
	return l.receipts(ctx, entries, waiters)
}

// claim returns what to wait for, by entry, and the entries that nobody waited
// for before: these count as the party's. A claim comes before the entry is looked up, and ends after it is
// indexed, so no entry is sequenced twice.
func (l *Log) claim(by carnet.PartyID, entries []ledger.Entry) (waiters map[ledger.Entry]*waiter, claimed []ledger.Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, nil, l.err
	}
	waiters = make(map[ledger.Entry]*waiter, len(entries))
	for _, e := range entries {
		if waiters[e] != nil {
			continue
		}
		if waiters[e] = l.waiting[e]; waiters[e] == nil {
			waiters[e] = &waiter{by: by, done: make(chan struct{})}
			claimed = append(claimed, e)
		}
	}
	if n := l.outstanding[by]; n+len(claimed) > l.cfg.MaxOutstanding {
		return nil, nil, carnet.Errorf(carnet.Unavailable, "%d of your entries wait for their receipts already", n).WithFix("try again in a second")
	}
	for _, e := range claimed {
		l.waiting[e] = waiters[e]
	}
	if len(claimed) > 0 {
		l.outstanding[by] += len(claimed)
	}
	return waiters, claimed, nil
}

// settle ends the claims for entries that are indexed, and hands the others to
// the engine.
func (l *Log) settle(ctx context.Context, claimed []ledger.Entry, waiters map[ledger.Entry]*waiter) {
	if len(claimed) == 0 {
		return
	}
	found, err := l.cfg.Index.Lookup(ctx, claimed)
	fresh := claimed[:0:0]
	for _, e := range claimed {
		leaf, ok := found[e]
		switch {
		case err != nil:
			l.done(e, waiters[e], 0, fmt.Errorf("look entries up: %w", err))
		case ok:
			l.done(e, waiters[e], leaf, nil)
		default:
			fresh = append(fresh, e)
		}
	}
	if len(fresh) > 0 {
		l.sequence(fresh, waiters)
	}
}

// sequence hands fresh entries to the engine. They outlive the call that brought
// them: another call may wait for the same ones.
func (l *Log) sequence(fresh []ledger.Entry, waiters map[ledger.Entry]*waiter) {
	unwritable := probe(l.cfg.Dir)
	futures := make([]tessera.IndexFuture, len(fresh))
	of := make([]*waiter, len(fresh))
	for i, e := range fresh {
		of[i] = waiters[e]
		futures[i] = func() (tessera.Index, error) { return tessera.Index{}, unwritable }
		if unwritable == nil {
			futures[i] = l.add(context.Background(), tessera.NewEntry(e[:]))
		}
	}
	go func() {
		for i, f := range futures {
			if _, err := f(); err != nil {
				l.done(fresh[i], of[i], 0, DiskError("sequence entries", err))
			}
		}
		select {
		case l.wanted <- struct{}{}:
		default:
		}
	}()
}

// done ends the wait for an entry. A failure of the disk ends the ledger too.
func (l *Log) done(e ledger.Entry, w *waiter, leaf uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[e] != w {
		return
	}
	if errors.Is(err, ErrFsync) {
		if l.err == nil {
			l.err = err
		}
		err = l.err
	}
	l.end(e, w, leaf, err)
}

// end closes a waiter; l.mu is held.
func (l *Log) end(e ledger.Entry, w *waiter, leaf uint64, err error) {
	delete(l.waiting, e)
	if l.outstanding[w.by]--; l.outstanding[w.by] == 0 {
		delete(l.outstanding, w.by)
	}
	w.index, w.err = leaf, err
	close(w.done)
}

// receipts builds the receipts of entries at the last checkpoint.
func (l *Log) receipts(ctx context.Context, entries []ledger.Entry, of map[ledger.Entry]*waiter) ([]ledger.Receipt, error) {
	l.mu.Lock()
	at := l.state
	l.mu.Unlock()
	out := make([]ledger.Receipt, len(entries))
	for i, e := range entries {
		leaf := of[e].index
		path, err := l.path(ctx, leaf, at.Size)
		if err != nil {
			return nil, fmt.Errorf("build inclusion proof: %w", err)
		}
		out[i] = ledger.Receipt{Index: leaf, Path: path, Checkpoint: at.signed, Signature: at.signature}
	}
	return out, nil
}

// Find returns the leaves of those of entries that the ledger has. One that ever got
// a receipt is found, also right after a start from an index that was restored from an
// older copy: while the index lacks something, Find is carnet.Unavailable.
func (l *Log) Find(ctx context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
	l.mu.Lock()
	size, behind := l.state.Size, l.behind
	l.mu.Unlock()
	indexed, err := l.cfg.Index.Indexed(ctx)
	if err != nil {
		return nil, fmt.Errorf("read end of index: %w", err)
	}
	if behind || indexed < size {
		return nil, carnet.Errorf(carnet.Unavailable, "the ledger's index is catching up").WithFix("try again in a second")
	}
	found, err := l.cfg.Index.Lookup(ctx, entries)
	if err != nil {
		return nil, fmt.Errorf("look entries up: %w", err)
	}
	return found, nil
}

// path is the inclusion path of a leaf (RFC 9162 §2.1.3.1).
func (l *Log) path(ctx context.Context, index, size uint64) ([][32]byte, error) {
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, err
	}
	return l.nodes(ctx, nodes, size)
}

// Consistency returns the path that proves the ledger at size newer to continue
// the one at size older (RFC 9162 §2.1.4.1).
func (l *Log) Consistency(ctx context.Context, older, newer uint64) ([][32]byte, error) {
	if at, _ := l.Checkpoint(); older > newer || newer > at.Size {
		return nil, carnet.Errorf(carnet.OutOfRange, "no consistency proof from size %d to %d: the ledger has %d", older, newer, at.Size)
	}
	nodes, err := proof.Consistency(older, newer)
	if err != nil {
		return nil, fmt.Errorf("build consistency proof: %w", err)
	}
	return l.nodes(ctx, nodes, newer)
}

// nodes reads the hashes of a proof from the tiles of the tree of size.
func (l *Log) nodes(ctx context.Context, nodes proof.Nodes, size uint64) ([][32]byte, error) {
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		h, err := l.tiles.node(ctx, id, size)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	hashes, err := nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return nil, err
	}
	path := make([][32]byte, len(hashes))
	for i, h := range hashes {
		path[i] = [32]byte(h)
	}
	return path, nil
}
