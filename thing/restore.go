package thing

import (
	"bytes"
	"context"
	"encoding/json"

	"carnet"
	"carnet/ledger"
	"carnet/link"
	"carnet/policy"
)

// What follows is for a store that was restored from an older copy: the world
// has frames that no record here tells of.

// lastCommon finds the last frame up to the world's that this agent has a record
// of, being the same frame: all of them, unless the store was restored from an
// older copy.
func (s *sender) lastCommon(ctx context.Context, last link.Position) (uint64, error) {
	number, hash, known := last.Number, last.Hash, true
	for ; number > 0; number-- {
		rows, err := s.agent.store.Sent(ctx, s.peer.Party, number-1, 1)
		if err != nil {
			return 0, err
		}
		if len(rows) == 0 || rows[0].Number != number {
			// Not recorded here: go on with the last that is.
			below, err := s.lastRecorded(ctx, number)
			if err != nil || below == 0 {
				return 0, err
			}
			number, known = below+1, false
			continue
		}
		if number != last.Number || !known {
			at, kept, err := s.caller().Trace(ctx, number)
			if err != nil {
				return 0, err
			}
			if !kept {
				continue
			}
			hash = at.Hash
		}
		if rows[0].Hash == hash {
			return number, nil
		}
	}
	return 0, nil
}

// lastRecorded is the greatest frame number below a number that is recorded for
// the link, 0 for none.
func (s *sender) lastRecorded(ctx context.Context, below uint64) (last uint64, err error) {
	for low, high := uint64(0), below-1; low < high; {
		middle := low + (high-low+1)/2
		rows, err := s.agent.store.Sent(ctx, s.peer.Party, middle-1, 1)
		if err != nil {
			return 0, err
		}
		if len(rows) > 0 && rows[0].Number < below {
			low, last = middle, rows[0].Number
		} else {
			high = middle - 1
		}
	}
	return last, nil
}

// saw takes back what the world has into the rates' state.
func (c *course) saw(latest []carnet.SeenMeasurement) { c.sawUnder(c.mapping.table, latest) }

func (c *course) sawUnder(table *policy.Table, latest []carnet.SeenMeasurement) {
	for _, m := range latest {
		if p, known := c.mapping.thing.description.Lookup(m.Name); known {
			c.rates.Saw(table, p.Index, &carnet.Measurement{Time: m.Time, Value: carnet.Float(m.Value)})
		}
	}
}

// overtaken goes on after the store was restored from an older copy: the world
// has frames that no record here tells of. Their numbers come from the world,
// the cursor moves past everything they may have covered, and a statement says
// which frames' records are at no party's sender any more.
func (s *sender) overtaken(ctx context.Context, r *run, reached uint64, at link.Resume) error {
	a := s.agent
	a.log.Warn("the world has frames that this agent's store doesn't know: it was restored from an older copy",
		"world", s.peer.Party, "known", reached, "world_has", at.Last.Number)
	heads, err := s.heads(ctx)
	if err != nil {
		return err
	}
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	for _, h := range heads {
		if m := a.mappingByStream(h.Stream); m != nil && m.World == s.peer.Party && h.NextBatch > 0 {
			c := r.courses[m.Number]
			if c == nil {
				c = r.add(m)
			}
			c.recorded = true
			c.nextBatch, c.nextFirst = max(c.nextBatch, h.NextBatch), max(c.nextFirst, h.NextFirst)
			c.saw(h.Latest)
		}
	}
	for _, c := range r.courses {
		for i := range c.lanes {
			l := &c.lanes[i]
			l.cursor = max(l.cursor, r.position)
			l.taken = l.cursor
		}
		r.touch(c)
	}
	// What the link goes on from is kept: a move may ask for it.
	r.overtaken = r.position
	if err := r.saveState(ctx); err != nil {
		return err
	}
	return s.stateGap(ctx, reached, at)
}

// heads asks the world where all of this agent's streams stand, page by page. No
// frame leaves meanwhile, so the pages are of one moment.
func (s *sender) heads(ctx context.Context) (heads []carnet.StreamHead, err error) {
	for page := (carnet.HeadsPage{More: true}); page.More; {
		var r carnet.HeadsRequest
		if n := len(heads); n > 0 {
			r.After = heads[n-1].Stream
		}
		question, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		answer, err := s.caller().Call(ctx, carnet.CallHeads, question)
		if err != nil {
			return nil, err
		}
		page = carnet.HeadsPage{}
		if err := json.Unmarshal(answer, &page); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "the world's stream heads can't be read: %v", err)
		}
		if n := len(page.Heads); page.More && (n == 0 || bytes.Compare(page.Heads[n-1].Stream[:], r.After[:]) <= 0) {
			return nil, carnet.Errorf(carnet.Malformed, "the world's stream heads have no end")
		}
		if heads = append(heads, page.Heads...); len(heads) > carnet.MaxHeads {
			return nil, carnet.Errorf(carnet.Unavailable, "the world says that it has more than %d streams", carnet.MaxHeads)
		}
	}
	return heads, nil
}

// resumeAt is the position of this agent's log from which on the world still
// needs something, given its last frame, and the last one that is recorded here.
func (s *sender) resumeAt(ctx context.Context, common uint64, last link.Position) (uint64, error) {
	p, position, err := s.position.open(last.Covers)
	if err != nil {
		return 0, err
	}
	id, known := s.agent.known(p)
	if !known {
		if id, err = s.lastKnown(ctx, common, last.Number); err != nil {
			return 0, err
		}
	}
	return s.agent.here(id, position), nil
}

// lastKnown is the last known process of which the world has a frame, given that
// the process of frame last is not known; 0 when there is none. Behind the last
// common frame come those that were sent after the copy was made by the process
// that ran then, and then those of processes that aren't known.
func (s *sender) lastKnown(ctx context.Context, common, last uint64) (id uint32, err error) {
	ask := func(number uint64) (known bool, err error) {
		at, kept, err := s.caller().Trace(ctx, number)
		if err != nil || !kept {
			return false, err
		}
		p, _, err := s.position.open(at.Covers)
		if err != nil {
			return false, err
		}
		found, known := s.agent.known(p)
		if known {
			id = found
		}
		return known, nil
	}
	if common > 0 {
		if _, err := ask(common); err != nil {
			return 0, err
		}
	}
	for low, high := common, last; high-low > 1; {
		middle := low + (high-low)/2
		known, err := ask(middle)
		if err != nil {
			return 0, err
		}
		if known {
			low = middle
		} else {
			high = middle
		}
	}
	return id, nil
}

// stateGap states which frames are recorded nowhere at this agent.
func (s *sender) stateGap(ctx context.Context, reached uint64, at link.Resume) error {
	item, err := s.agent.Statement(ledger.Statement{
		Kind: ledger.Gap, Time: s.agent.now().UnixNano(), Peer: s.peer.Party, From: reached + 1, To: at.Last.Number,
		Reason: "the sender's store was restored from an older copy: the world has these frames, the sender has no record of them",
	})
	if err != nil {
		return err
	}
	return s.agent.change(ctx, nil, []ledger.Item{item})
}
