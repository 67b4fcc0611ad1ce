package avatar

import (
	"context"
	"errors"

	"carnet"
	"carnet/seal"
)

// Unfit is a batch that came with a move and can't be used. Its sender signed it and
// its former world stated to have received it; no reader is shown it.
type Unfit struct {
	Stream      carnet.StreamID
	Batch       uint64
	Fingerprint carnet.Fingerprint
	Why         error
}

// Survey opens every batch that came with an avatar's moves, which nobody did
// before it was here, and hands over those that can't be used. A batch whose
// grant is over can't be opened by anybody and isn't one of them.
func (a *Agent) Survey(ctx context.Context, id carnet.AvatarID, do func(Unfit)) error {
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	o := newOpening()
	for _, s := range a.streamsOf(v) {
		if a.formerOf(s.id) == nil {
			continue
		}
		for from := uint64(0); ; {
			rows, err := a.store.StretchPage(ctx, s.id, from, 16)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			for i := range rows {
				if err := a.surveyStretch(ctx, &o, &rows[i], do); err != nil {
					return err
				}
				from = rows[i].FirstBatch + 1
			}
		}
	}
	return nil
}

func (a *Agent) surveyStretch(ctx context.Context, o *opening, row *StretchRow, do func(Unfit)) error {
	body, err := a.stretchBody(ctx, *row)
	if errors.Is(err, errMoved) {
		return nil
	} else if err != nil {
		return err
	}
	return eachBatch(body, func(_, from, to int) error {
		h, b, err := a.open(ctx, o, body[from:to], 0)
		if code := carnet.CodeOf(err); err != nil && code == "" || code == carnet.TooOld {
			if code == carnet.TooOld {
				return nil
			}
			return err
		}
		why := a.unfit(h, b, len(o.measurements), err)
		if first, last := minutes(o.measurements); why == nil && (first < row.FromMinute || last > row.ToMinute) && len(o.measurements) > 0 {
			why = carnet.Errorf(carnet.Tampered, "batch %d of stream %s was measured at other times than its stretch is said to be of", h.Number, h.Stream)
		}
		if why != nil {
			a.log.Error("a batch that came with a move can't be used", "stream", h.Stream, "batch", h.Number, "why", why)
			do(Unfit{h.Stream, h.Number, carnet.FingerprintOf(body[from:to]), why})
		}
		return nil
	})
}

// unfit says why a batch that came with a move can't be used, once it was opened or
// not.
func (a *Agent) unfit(h seal.Header, b seal.Body, n int, err error) error {
	if err != nil {
		if carnet.CodeOf(err) == "" {
			return nil
		}
		return err
	}
	if int(b.Count) != n {
		return carnet.Errorf(carnet.Tampered, "batch %d of stream %s holds %d measurements and says %d", h.Number, h.Stream, n, b.Count)
	}
	if over := b.Label.Exceeds(a.clearance); over != "" {
		return carnet.Errorf(carnet.Forbidden, "batch %d of stream %s: %s", h.Number, h.Stream, over)
	}
	return nil
}
