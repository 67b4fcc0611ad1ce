package register

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"carnet"
	"carnet/ledger"
)

const (
	// group is how many changes are marked at once at most. All changes before a
	// group have their marks before one of the group gets its, so a mark of a change
	// that a store lacks is among the next group of its last.
	group = 256
	// again is how long a Registrar waits after what fails for the moment.
	again = time.Second
	// submitTime is how long the ledger may take for a group.
	submitTime = 30 * time.Second
)

// Run catches up, then files and marks changes, until ctx ends. An error with
// tlog.ErrFsync in its chain means that the process must exit with code 74.
func (r *Registrar) Run(ctx context.Context) error {
	f, err := openFile(r.cfg.Dir)
	if err != nil {
		return fmt.Errorf("keep register: %w", err)
	}
	defer f.close()
	err = r.persist(ctx, func() (bool, error) { return false, r.catchUp(ctx, f) })
	if err == nil {
		err = r.persist(ctx, func() (bool, error) { return true, r.carry(ctx, f) })
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("keep register: %w", err)
	}
	return nil
}

// olderCopy is in the chain of errors after which a Registrar answers nothing any more.
type olderCopy struct{ why *carnet.Error }

func (o olderCopy) Error() string { return o.why.Error() }

// persist does a step until it says that it was the last, ctx ends, it fails for good
// or nothing is answered any more. It bears with what fails for the moment.
func (r *Registrar) persist(ctx context.Context, step func() (more bool, err error)) error {
	for ctx.Err() == nil {
		if r.isNot() {
			<-ctx.Done()
			return nil
		}
		more, err := step()
		older, isOlder := errors.AsType[olderCopy](err)
		switch code := carnet.CodeOf(err); {
		case err == nil && !more:
			return nil
		case isOlder:
			r.isOlder(older.why)
		case code == carnet.Unavailable || code == carnet.NoSpace || code == carnet.Conflict:
			r.cfg.Logger.Warn("the register's answers wait", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// isNot reports whether what is known here isn't the newest, for good.
func (r *Registrar) isNot() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.older
}

// catchUp brings store and file of changes to the newest that either has, if the
// ledger knows of nothing newer.
func (r *Registrar) catchUp(ctx context.Context, f *file) error {
	if err := r.recallNewer(ctx); err != nil {
		return err
	}
	last, err := r.cfg.Store.Last(ctx)
	if err != nil {
		return err
	}
	filed, err := r.filed(ctx, f, last)
	if err != nil {
		return err
	}
	newest := max(last.Number, filed)
	beyond, err := r.marks(ctx, newest, newest+group)
	if err != nil {
		return err
	}
	if len(beyond) > 0 {
		return olderCopy{carnet.Errorf(carnet.Unavailable, "the register has %d changes, and its ledger has marks of later ones: the depot's store and its file of changes are older copies", newest).
			WithFix("put back a newer copy of the depot's store or of %s, and start the depot again", f.f.Name())}
	}
	if err := r.putBack(ctx, f, last, filed); err != nil {
		return err
	}
	if err := f.cut(filed); err != nil {
		return err
	}
	if err := r.file(ctx, f, newest); err != nil {
		return err
	}
	marked, err := r.lastMarked(ctx, newest)
	if err != nil {
		return err
	}
	r.change(func() {
		r.marked = marked
		if !r.older {
			r.why = nil
		}
	})
	return nil
}

// filed is how many changes the file has that are changes of this register. The
// newest that both have is held against the store's: each names the one before.
func (r *Registrar) filed(ctx context.Context, f *file, last Change) (uint64, error) {
	filed := f.count()
	for ; filed > 0; filed-- {
		body, err := f.body(filed)
		if err != nil {
			return 0, err
		}
		if _, err := r.read(filed, body); err == nil {
			break
		} // torn: what was written last may not be what was meant
	}
	both := min(filed, last.Number)
	if both == 0 {
		return filed, nil
	}
	body, err := f.body(both)
	if err != nil {
		return 0, err
	}
	changes, err := r.cfg.Store.Changes(ctx, both-1, 1)
	if err != nil {
		return 0, err
	}
	if len(changes) != 1 || !bytes.Equal(changes[0].Body, body) {
		return 0, olderCopy{carnet.Errorf(carnet.Unavailable, "change %d of the register is another in the depot's store than in its file of changes", both).
			WithFix("put back the newest copies of the store and of %s that belong together, and start the depot again", f.f.Name())}
	}
	return filed, nil
}

// putBack gives the store the changes that only the file has.
func (r *Registrar) putBack(ctx context.Context, f *file, last Change, filed uint64) error {
	if filed > last.Number {
		r.cfg.Logger.Warn("the depot's store is an older copy: what it lacks of the register is put back", "changes", filed-last.Number)
	}
	for n := last.Number + 1; n <= filed; n++ {
		body, err := f.body(n)
		if err != nil {
			return err
		}
		rec, err := r.read(n, body)
		if err == nil && rec.Before != carnet.FingerprintOf(last.Body) {
			err = fmt.Errorf("it doesn't follow the one before")
		}
		if err != nil {
			return olderCopy{carnet.Errorf(carnet.Unavailable, "the depot's store lacks change %d of the register, and its file of changes is damaged there: %v", n, err).
				WithFix("put back a newer copy of the store or a whole one of %s, and start the depot again", f.f.Name())}
		}
		c, err := r.rebuild(body, rec)
		if err != nil {
			return err
		}
		if err := r.cfg.Store.Append(ctx, c); err != nil {
			return fmt.Errorf("put back change %d of the register: %w", n, err)
		}
		last = c
	}
	return nil
}

// file adds the changes up to one to the file.
func (r *Registrar) file(ctx context.Context, f *file, to uint64) error {
	for f.count() < to {
		changes, err := r.cfg.Store.Changes(ctx, f.count(), group)
		if err != nil {
			return err
		}
		if err := f.follow(changes); err != nil {
			return err
		}
	}
	return nil
}

// follow adds those of changes that the file lacks.
func (c *file) follow(changes []Change) error {
	var bodies [][]byte
	for i := range changes {
		if changes[i].Number <= c.count() {
			continue
		}
		if want := c.count() + uint64(len(bodies)) + 1; changes[i].Number != want {
			return fmt.Errorf("change %d comes where %d is to be filed", changes[i].Number, want)
		}
		bodies = append(bodies, changes[i].Body)
	}
	return c.add(bodies)
}

// marks finds which changes after one, up to another, have their marks on the ledger.
func (r *Registrar) marks(ctx context.Context, after, to uint64) (map[uint64]bool, error) {
	var entries []ledger.Entry
	for n := after + 1; n <= to; n++ {
		entries = append(entries, r.mark(n))
	}
	found, err := r.cfg.Ledger.Find(ctx, entries)
	if err != nil {
		return nil, err
	}
	have := make(map[uint64]bool)
	for i, e := range entries {
		if _, ok := found[e]; ok {
			have[after+1+uint64(i)] = true
		}
	}
	return have, nil
}

// lastMarked is the newest change up to which all are marked, and have their
// statements' receipts in the store.
func (r *Registrar) lastMarked(ctx context.Context, newest uint64) (uint64, error) {
	marked := newest
	for marked > 0 {
		from := marked - min(group, marked)
		have, err := r.marks(ctx, from, marked)
		if err != nil {
			return 0, err
		}
		changes, err := r.cfg.Store.Changes(ctx, from, int(marked-from))
		if err != nil {
			return 0, err
		}
		first := from + 1
		for _, c := range changes {
			if c.Number != first || !have[first] || len(c.Item.Receipt) == 0 {
				break
			}
			first++
		}
		if first > marked {
			break
		}
		marked = first - 1
	}
	return marked, nil
}

// carry files and marks the next group of changes, and waits for one if there is none.
func (r *Registrar) carry(ctx context.Context, f *file) error {
	r.mu.Lock()
	marked := r.marked
	r.mu.Unlock()
	changes, err := r.cfg.Store.Changes(ctx, marked, group)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		select {
		case <-ctx.Done():
		case <-r.wanted:
		}
		return nil
	}
	if err := f.follow(changes); err != nil {
		return err
	}
	if err := r.state(ctx, changes); err != nil {
		return err
	}
	r.change(func() { r.marked = changes[len(changes)-1].Number })
	return nil
}

// state has the ledger take statements and marks of changes, and stores the receipts.
func (r *Registrar) state(ctx context.Context, changes []Change) error {
	var entries []ledger.Entry
	for i := range changes {
		entries = append(entries, changes[i].Item.Entry, r.mark(changes[i].Number))
	}
	within, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	receipts, err := r.cfg.Ledger.Submit(within, entries)
	if err != nil {
		return err
	}
	if len(receipts) != len(entries) {
		return carnet.Errorf(carnet.Tampered, "the ledger answered %d entries with %d receipts", len(entries), len(receipts))
	}
	var items []ledger.Item
	for i, receipt := range receipts {
		if _, err := r.verifier.Verify(entries[i], receipt); err != nil {
			return err
		}
		if item := changes[i/2].Item; i%2 == 0 && len(item.Receipt) == 0 {
			item.Receipt = receipt.Marshal()
			items = append(items, item)
		}
	}
	return r.cfg.Store.Receipted(ctx, items)
}
