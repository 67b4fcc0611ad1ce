package thing

import (
	"context"
	"time"

	"carnet"
	"carnet/link"
)

// What follows is for who reads the log of one thing again: its owner, who has something
// computed over it.

// Part is a part of the log, in positions: from First on, and before End.
type Part struct {
	First, End uint64
	// Received is when its first group was received; zero: there is none yet.
	Received time.Time
}

// Kept says which part of the log there is from a position on.
func (a *Agent) Kept(ctx context.Context, from uint64) (Part, error) {
	p := Part{End: a.feed.end()}
	p.First = max(from, p.End)
	rows, err := a.store.LogIndex(ctx, from, 1)
	if err == nil && len(rows) > 0 && rows[0].First < p.End {
		p.First, p.Received = max(from, rows[0].First), time.Unix(0, rows[0].Received).UTC()
	}
	return p, err
}

// MaxAhead is how far ahead of its receipt something may be measured.
func (a *Agent) MaxAhead() time.Duration { return time.Duration(a.maxAhead) }

// EachOf opens a thing's messages in a part of the log, in order. Messages whose key is
// destroyed are passed over. What it hands over is valid during the call of do only.
func (a *Agent) EachOf(ctx context.Context, id carnet.ThingID, first, end uint64, do func(position uint64, ms []carnet.Measurement) error) error {
	t, err := a.thing(id)
	if err != nil {
		return err
	}
	d, mine := logDecoder(), func(o *Thing) bool { return o == t }
	end = min(end, a.feed.end())
	for at := max(first, 1); at < end; {
		rows, err := a.store.Log(ctx, at, readBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			err := a.eachMessage(ctx, row, d, mine, func(position uint64, _ *Thing, ms []carnet.Measurement) error {
				if position < at || position >= end {
					return nil
				}
				return do(position, ms)
			})
			if err != nil {
				return err
			}
			at = row.First + uint64(row.Count)
		}
	}
	return nil
}

// Labels are those of a thing's properties, as its description has them.
func (a *Agent) Labels(id carnet.ThingID) (map[string]carnet.Label, error) {
	t, err := a.thing(id)
	if err != nil {
		return nil, err
	}
	labels := make(map[string]carnet.Label)
	for i := range t.description.Properties {
		labels[t.description.Properties[i].Name] = t.description.Properties[i].Label
	}
	return labels, nil
}

// Reached says, by linger in milliseconds, the position of the log before which
// everything of a mapping is decided and has reached its world, as far as that is known
// here.
func (a *Agent) Reached(ctx context.Context, id carnet.MappingID) (map[int64]uint64, error) {
	m, err := a.mapping(id)
	if err != nil {
		return nil, err
	}
	s := a.sender(m.World)
	known, err := s.Known(ctx)
	if err != nil {
		return nil, err
	}
	decided := s.decidedUpTo() // before the records are read: it may only grow
	r := newRun(context.WithoutCancel(ctx), s, link.Resume{})
	defer r.cancel(nil)
	c := r.add(m) // where nothing of it is recorded, its lanes are where it begins
	if _, err := s.merge(ctx, r, known.Number); err != nil {
		return nil, err
	}
	upto, goesOn := make(map[int64]uint64), c.recorded && !a.hasEnded(m)
	for i := range c.lanes {
		at := c.lanes[i].cursor
		if goesOn { // a lane without anything to say comes as far as frames cover
			at = max(at, decided)
		}
		upto[c.lanes[i].linger.Milliseconds()] = at
	}
	return upto, nil
}
