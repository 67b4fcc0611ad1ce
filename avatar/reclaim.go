package avatar

import (
	"context"
	"slices"

	"carnet"
	"carnet/seal"
)

// Reclaim finds what the depot keeps of an avatar that has left, and this world, whose
// store is an older copy, doesn't know of: it is noted as to be deleted there. Clear
// follows. Done again it finds nothing more.
func (a *Agent) Reclaim(ctx context.Context, id carnet.AvatarID) error {
	if _, err := a.Departed(id); err != nil {
		return err
	}
	listed, err := a.listed(ctx)
	if err != nil || len(listed) == 0 {
		return err
	}
	// What is listed first is known if it is known at all: a stretch is stored here before.
	if err := a.forgetKnown(ctx, listed); err != nil {
		return err
	}
	a.mu.RLock()
	v := a.departed[id]
	a.mu.RUnlock()
	var names []carnet.StreamID
	for _, s := range v.streams {
		names = append(names, a.nameOf(s.id))
	}
	for f := range listed {
		if err := a.reclaimOne(ctx, f, names); err != nil {
			return err
		}
	}
	return nil
}

// listed is everything that the depot keeps for this world.
func (a *Agent) listed(ctx context.Context) (map[carnet.Fingerprint]struct{}, error) {
	all := make(map[carnet.Fingerprint]struct{})
	for after := (carnet.Fingerprint{}); ; {
		page, err := a.depot.Objects(ctx, after)
		if err != nil || len(page) == 0 {
			return all, err
		}
		for _, f := range page {
			all[f] = struct{}{}
		}
		after = page[len(page)-1]
	}
}

// forgetKnown takes out of what the depot keeps what a stretch here is, or what is to be
// deleted already.
func (a *Agent) forgetKnown(ctx context.Context, listed map[carnet.Fingerprint]struct{}) error {
	a.mu.RLock()
	streams := make([]carnet.StreamID, 0, len(a.streams))
	for id := range a.streams {
		streams = append(streams, id)
	}
	a.mu.RUnlock()
	for _, id := range streams {
		for from := uint64(0); ; {
			rows, err := a.store.StretchPage(ctx, id, from, listAtOnce)
			if err != nil {
				return err
			}
			for i := range rows {
				delete(listed, rows[i].Fingerprint)
			}
			if len(rows) < listAtOnce {
				break
			}
			from = rows[len(rows)-1].FirstBatch + 1
		}
	}
	return a.eachDocument(ctx, kindDoomed, func(d carnet.Document) error {
		var f carnet.Fingerprint
		if err := f.UnmarshalText([]byte(d.ID)); err != nil {
			return err
		}
		delete(listed, f)
		return nil
	})
}

// reclaimOne notes that the depot is to delete an object, if it is a stretch of one of
// the streams. What else is there (outputs of jobs, what is on a shelf) is others'.
func (a *Agent) reclaimOne(ctx context.Context, f carnet.Fingerprint, streams []carnet.StreamID) error {
	body, err := a.depot.GetObject(ctx, f)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	var of *carnet.StreamID
	err = eachBatch(body, func(_, from, to int) error {
		h, _, err := seal.ParseHeader(body[from:to])
		if err == nil && of == nil {
			of = &h.Stream
		}
		return err
	})
	if err != nil || of == nil || !slices.Contains(streams, *of) {
		return nil // it isn't one
	}
	d, err := a.document(kindDoomed, f.String(), 1, doomedDocument{Class: carnet.Keep})
	if err != nil {
		return err
	}
	if err := a.store.Put(ctx, []carnet.Document{d}, nil); err != nil && carnet.CodeOf(err) != carnet.Conflict {
		return err
	}
	return nil
}
