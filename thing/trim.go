package thing

import (
	"context"
	"math"
	"slices"
	"time"
)

// trimEvery is how often the log is trimmed.
const trimEvery = time.Hour

// trimLog trims the log from time to time.
func (a *Agent) trimLog(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		if err := a.trim(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("the log was not trimmed; it grows until it is", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// trim deletes what was received before the time that the log is kept for,
// except for what is still to be decided for a world, and what came after that.
func (a *Agent) trim(ctx context.Context) error {
	before := a.now().UnixNano() - a.keepLog
	if undecided := a.undecided(); undecided < math.MaxUint64 {
		rows, err := a.store.LogIndex(ctx, undecided, 1)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			before = min(before, rows[0].Received)
		}
	}
	n, failed := a.store.TrimLog(ctx, before) // rows may be gone that aren't overwritten yet
	if n == 0 {
		return failed
	}
	rows, err := a.store.LogIndex(ctx, 0, 1)
	if err != nil {
		return err
	}
	first := a.feed.end()
	if len(rows) > 0 {
		first = min(first, rows[0].First)
	}
	a.index.forget(first)
	a.log.Info("the log was trimmed", "rows", n, "first", first)
	return failed
}

// undecided is the position from which on some world may still need the log;
// the greatest number when none does. A world whose mappings have all ended needs
// nothing; a mapping that waits to go on needs all from its beginning on.
func (a *Agent) undecided() uint64 {
	from := uint64(math.MaxUint64)
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	for world, s := range a.allSenders() {
		if slices.ContainsFunc(a.mappingsTo(world), func(m *Mapping) bool { return !m.stopped }) {
			from = min(from, s.decidedUpTo())
		}
	}
	for _, p := range a.allPending() {
		from = min(from, a.waits(p).Begin.first())
	}
	return from
}
