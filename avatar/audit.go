package avatar

import (
	"context"

	"carnet"
	"carnet/seal"
)

// Held is one measurement as the store holds it.
type Held struct {
	Stream      carnet.StreamID
	Batch       uint64 // the batch's number in the stream
	Number      uint64 // the measurement's number in the stream
	Measurement carnet.Measurement
}

// EachHeld opens everything that the store holds of an avatar, as often as it
// holds it, for an auditor: nothing is left out that a reader of the history
// would not see twice. Refused batches, which no reader is given, are left out.
// So are batches whose keys were destroyed when their grant was over. What else
// can't be opened fails it. Compaction waits meanwhile.
func (a *Agent) EachHeld(ctx context.Context, id carnet.AvatarID, do func(Held) error) error {
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	a.moveMu.RLock()
	defer a.moveMu.RUnlock()
	if len(a.moved.adding) > 0 {
		return carnet.Errorf(carnet.Unavailable, "a compaction that ended in its midst is to be undone first").WithFix("try again; if it stays so, see what the world logs")
	}
	o := newOpening()
	of := make(map[carnet.StreamID]bool)
	for _, s := range a.streamsOf(v) {
		name := a.nameOf(s.id)
		if name == s.id { // of what came with a move nothing is in frames
			of[name] = true
		}
		in := map[carnet.StreamID]bool{name: true}
		rows, err := a.store.Stretches(ctx, s.id, everFrom, everTo)
		if err != nil {
			return err
		}
		for _, row := range rows {
			body, err := a.stretchBody(ctx, row)
			if err != nil {
				return err
			}
			if err := eachBatch(body, func(_, from, to int) error { return a.hold(ctx, &o, body[from:to], in, do) }); err != nil {
				return err
			}
		}
	}
	for at := uint64(0); ; {
		rows, err := a.store.Frames(ctx, at, compactBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if at = row.ID; a.moved.has(at) {
				continue
			}
			err := eachBatch(row.Body, func(leaf, from, to int) error {
				if a.wasRefused(batchAt{row.ID, uint32(leaf)}) {
					return nil
				}
				return a.hold(ctx, &o, row.Body[from:to], of, do)
			})
			if err != nil {
				return err
			}
		}
	}
}

// hold hands over what a batch holds, if it is of one of the streams.
func (a *Agent) hold(ctx context.Context, o *opening, batch []byte, of map[carnet.StreamID]bool, do func(Held) error) error {
	h, _, err := seal.ParseHeader(batch)
	if err != nil || !of[h.Stream] {
		return err
	}
	_, b, err := a.open(ctx, o, batch, 0)
	if carnet.CodeOf(err) == carnet.TooOld {
		return nil
	} else if err != nil {
		return err
	}
	for i, m := range o.measurements {
		if err := do(Held{h.Stream, h.Number, b.First + uint64(i), m}); err != nil {
			return err
		}
	}
	return nil
}

// Totals counts what the store holds.
func (a *Agent) Totals(ctx context.Context) (Totals, error) { return a.store.Totals(ctx) }

// Defects counts the batches that were stored and refused since the start.
func (a *Agent) Defects() uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.defects
}
