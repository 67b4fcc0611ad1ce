package thing

import (
	"context"
	"fmt"
	"math"
	"time"

	"carnet"
	"carnet/link"
	"carnet/policy"
	"carnet/seal"
)

// beginning is where a mapping goes on that follows another one: each lane at its
// own position of the log, with the memory of the one before.
type beginning struct {
	Lanes map[int64]uint64 `json:"lanes"` // by linger in milliseconds
	Rates []byte           `json:"rates"` // a policy.State
	// The numbers of the stream's next batch and measurement, unless it begins.
	NextBatch uint64 `json:"next_batch,omitempty"`
	NextFirst uint64 `json:"next_measurement,omitempty"`
}

// at is the position from which a lane goes on.
func (b beginning) at(linger time.Duration) uint64 { return b.Lanes[linger.Milliseconds()] }

// first is the lowest position of all lanes.
func (b beginning) first() uint64 {
	first := uint64(math.MaxUint64)
	for _, at := range b.Lanes {
		first = min(first, at)
	}
	return first
}

func (b beginning) memory() (s policy.State, err error) {
	if err := s.UnmarshalBinary(b.Rates); err != nil {
		return s, fmt.Errorf("read what a mapping remembers of the one before: %w", err)
	}
	return s, nil
}

func (c *course) beginning() (beginning, error) {
	b := beginning{Lanes: make(map[int64]uint64)}
	for i := range c.lanes {
		b.Lanes[c.lanes[i].linger.Milliseconds()] = c.lanes[i].cursor
	}
	var err error
	b.Rates, err = c.rates.MarshalBinary()
	return b, err
}

// standing is what the records say of a mapping where its stream had two numbers.
type standing struct {
	begin beginning
	// Measurements of the stream, from and to, that the world had beyond these
	// numbers and that nobody sends again: their records are lost.
	lostFrom, lostTo uint64
}

// standing finds how a mapping stood after the frame with which its stream came to
// two numbers. It is carnet.NotFound where no recorded frame ended with them, and
// none can have.
func (s *sender) standing(ctx context.Context, m *Mapping, nextBatch, nextFirst uint64) (standing, error) {
	r := newRun(ctx, s, link.Resume{})
	defer r.cancel(nil)
	w := walk{sender: s, run: r, mapping: m, nextBatch: nextBatch, nextFirst: nextFirst}
	if err := w.start(ctx); err != nil {
		return standing{}, err
	}
	return w.find(ctx)
}

// walk goes through a link's records up to the frame after which a mapping's stream
// had two numbers.
type walk struct {
	sender               *sender
	run                  *run
	mapping              *Mapping
	nextBatch, nextFirst uint64

	course  *course // as of frame reached
	reached uint64
	covered uint64 // the position that it covers
}

// beyond reports whether a state is of after the numbers.
func (w *walk) beyond(c *course) bool { return c.nextFirst > w.nextFirst || c.nextBatch > w.nextBatch }

func (w *walk) there(c *course) bool {
	return c.nextFirst == w.nextFirst && c.nextBatch == w.nextBatch
}

// of takes the mapping's part of a written state into a course, if it has any.
func (w *walk) of(state []byte, whole bool, c *course) error {
	return mergeState(state, whole, func(number uint32) *course {
		if number == w.mapping.Number {
			return c
		}
		return nil
	})
}

// snapshot reads the newest snapshot up to a frame; its number is 0 for none.
func (w *walk) snapshot(ctx context.Context, upTo uint64) (c *course, number uint64, err error) {
	peer := w.sender.peer.Party
	c = w.run.add(w.mapping)
	snapshot, err := w.sender.agent.store.Link(ctx, peer, upTo)
	if err != nil || len(snapshot.State) == 0 {
		return c, 0, err
	}
	plain, err := w.sender.agent.rest.Open(nil, snapshotAAD(peer, snapshot.Number), snapshot.State)
	if err == nil {
		err = w.of(plain, true, c)
	}
	return c, snapshot.Number, err
}

// start goes back to the newest snapshot that isn't beyond the numbers.
func (w *walk) start(ctx context.Context) (err error) {
	for upTo := uint64(math.MaxInt64); ; upTo = w.reached - 1 {
		if w.course, w.reached, err = w.snapshot(ctx, upTo); err != nil || w.reached == 0 || !w.beyond(w.course) {
			return err
		}
	}
}

// find goes on through the records. Of frames that have the numbers in common, the
// last that the world is known to have counts; that it has the first, it said.
func (w *walk) find(ctx context.Context) (standing, error) {
	acked, err := w.acked(ctx)
	if err != nil {
		return standing{}, err
	}
	for after := w.reached - min(w.reached, 1); ; {
		rows, err := w.sender.agent.store.Sent(ctx, w.sender.peer.Party, after, 1000)
		if err != nil {
			return standing{}, err
		}
		if len(rows) == 0 {
			if !w.there(w.course) && w.reached < acked {
				return w.lost(ctx, math.MaxInt64, nil)
			}
			return w.found()
		}
		for i := range rows {
			row := &rows[i]
			if after = row.Number; after > w.reached {
				plain, err := w.sender.agent.rest.Open(nil, stateAAD(row.Link, row.Number), row.State)
				if err != nil {
					return standing{}, err
				}
				var next course
				if err := w.of(plain, false, &next); err != nil {
					return standing{}, err
				}
				beyond := next.recorded && w.beyond(&next)
				switch {
				case w.there(w.course) && (beyond || row.Number > acked):
					return w.found()
				case beyond && row.Number > w.reached+1:
					return w.lost(ctx, row.Number-1, plain)
				case beyond:
					return w.found()
				case next.recorded:
					if err := w.of(plain, false, w.course); err != nil {
						return standing{}, err
					}
				}
			}
			if err := w.pass(row); err != nil {
				return standing{}, err
			}
		}
	}
}

// pass takes note of what a frame covers: all lanes have come that far, those of
// which nothing was measured, too.
func (w *walk) pass(row *SentRow) error {
	w.reached = row.Number
	h, _, err := seal.ParseSign1(row.Header)
	if err != nil {
		return err
	}
	p, position, err := w.sender.position.open(h.Covers)
	if err != nil {
		return err
	}
	if id, known := w.sender.agent.known(p); known {
		w.covered = w.sender.agent.here(id, position)
	}
	return nil
}

// acked is the last frame that the world is known to have.
func (w *walk) acked(ctx context.Context) (uint64, error) {
	known, err := w.sender.Known(ctx)
	return known.Number, err
}

// found is how the mapping stands where the walk has come to.
func (w *walk) found() (standing, error) {
	if !w.there(w.course) {
		return standing{}, carnet.Errorf(carnet.NotFound, "no frame that was sent ended with batch %d and measurement %d of the stream", w.nextBatch, w.nextFirst)
	}
	begin, err := w.course.beginning()
	if !w.course.recorded {
		// Nothing was sent, and what frames cover may be of before the mapping began,
		// which may go back behind them.
		return standing{begin: begin}, err
	}
	for linger, at := range begin.Lanes {
		begin.Lanes[linger] = max(at, w.covered)
	}
	return standing{begin: begin}, err
}

// lost is how the mapping stood with the first record after those that are lost: of
// the frame itself, or of the state that the link took over with before it.
func (w *walk) lost(ctx context.Context, before uint64, after []byte) (standing, error) {
	c, number, err := w.snapshot(ctx, before)
	if err != nil {
		return standing{}, err
	}
	if number <= w.reached {
		if after == nil {
			return standing{}, carnet.Errorf(carnet.Unavailable, "the link hasn't taken over yet from a store that was older")
		}
		if err := w.of(after, false, c); err != nil {
			return standing{}, err
		}
	}
	if !w.beyond(c) && !w.there(c) {
		return standing{}, carnet.Errorf(carnet.NotFound, "no frame that was sent came as far as batch %d and measurement %d of the stream", w.nextBatch, w.nextFirst)
	}
	st := standing{lostFrom: w.nextFirst, lostTo: c.nextFirst}
	st.begin, err = c.beginning()
	return st, err
}
