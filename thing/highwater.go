package thing

import (
	"context"
	"slices"
	"strconv"
	"time"

	"carnet"
)

// saveEvery is how often the high-water times are saved, so that a start reads
// no more of the log than that.
const saveEvery = 10 * time.Second

// seenDocument is one thing's high-water times, by property index, as of a log
// position.
type seenDocument struct {
	Upto uint64  `json:"upto"`
	High []int64 `json:"high"`
}

// saveHighWater saves the high-water times of the things that have new ones.
func (a *Agent) saveHighWater(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := a.saveSeen(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("the high-water times were not saved; a start reads more of the log", "err", err)
		}
	}
}

// allSeen is the document that says up to which position every thing's times
// are saved.
const allSeen = "all"

func (a *Agent) saveSeen(ctx context.Context) (err error) {
	// Times may be ahead of upto, which only makes a start look more up; never
	// behind it, or it would take duplicates for new.
	upto := a.feed.end()
	var documents []carnet.Document
	var saved []*Thing
	defer func() {
		if err == nil {
			return
		}
		for _, t := range saved { // or the next upto would be ahead of their times
			t.mu.Lock()
			t.seen.dirty = true
			t.mu.Unlock()
		}
	}()
	add := func(id string, v seenDocument) error {
		d, err := a.document(kindSeen, id, a.nextVersion(kindSeen, id), v)
		documents = append(documents, d)
		return err
	}
	for _, t := range a.allThings() {
		t.mu.Lock()
		dirty := t.seen.dirty
		t.seen.dirty = false
		v := seenDocument{upto, slices.Clone(t.seen.high)}
		t.mu.Unlock()
		if !dirty {
			continue
		}
		saved = append(saved, t)
		if err := add(strconv.FormatUint(uint64(t.number), 10), v); err != nil {
			return err
		}
	}
	if len(documents) == 0 {
		return nil
	}
	if err := add(allSeen, seenDocument{Upto: upto}); err != nil {
		return err
	}
	if err := a.change(ctx, documents, nil); err != nil {
		return err
	}
	a.stored(documents...)
	return nil
}

func (a *Agent) allThings() (ts []*Thing) {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	for _, t := range a.registry.things {
		ts = append(ts, t)
	}
	return ts
}

// loadLog rebuilds what the agent keeps in memory of its log: the index, and
// the high-water times since they were saved.
func (a *Agent) loadLog(ctx context.Context) error {
	upto := uint64(1)
	err := each(ctx, a, kindSeen, func(d carnet.Document, v seenDocument) error {
		a.registry.versions[kindSeen+"/"+d.ID] = d.Version
		if d.ID == allSeen {
			upto = v.Upto
			return nil
		}
		n, err := strconv.ParseUint(d.ID, 10, 32)
		if err != nil {
			return carnet.Errorf(carnet.Tampered, "the store has high-water times of thing %q", d.ID)
		}
		if t := a.thingByNumber(uint32(n)); t != nil && len(v.High) == len(t.seen.high) {
			t.seen.raise(v.High)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for at := uint64(0); ; {
		rows, err := a.store.LogIndex(ctx, at, 10_000)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if err := a.index.load(row); err != nil {
				return err
			}
			at = row.First + uint64(row.Count)
			a.open.received = max(a.open.received, row.Received)
		}
	}
	return a.catchUpSeen(ctx, upto)
}

func (a *Agent) catchUpSeen(ctx context.Context, upto uint64) error {
	d := logDecoder()
	for at := upto; ; {
		rows, err := a.store.Log(ctx, at, readBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			err := a.eachMessage(ctx, row, d, nil, func(_ uint64, t *Thing, ms []carnet.Measurement) error {
				for i := range ms {
					if p, known := t.description.Lookup(ms[i].Name); known {
						t.seen.high[p.Index] = max(t.seen.high[p.Index], ms[i].Time)
						t.seen.dirty = true
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			at = row.First + uint64(row.Count)
		}
	}
}
