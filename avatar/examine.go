package avatar

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"carnet"
	"carnet/seal"
)

// Examine looks for what is left of avatars that aren't here any more: of those that are
// still being deleted, and, of those that were, stretches and keys that belong to nobody.
func (a *Agent) Examine(ctx context.Context, e *carnet.Examination) error {
	known := a.examineAvatars(e)
	if err := a.examineStretches(ctx, e, known); err != nil {
		return err
	}
	return a.examineKeys(ctx, e, known)
}

// belonging is to which streams and avatars something may belong.
type belonging struct {
	streams  map[carnet.StreamID]bool // by their ids in the store
	names    map[carnet.StreamID]bool // by what their batches call them
	arriving map[carnet.AvatarID]bool
}

func (a *Agent) examineAvatars(e *carnet.Examination) belonging {
	a.mu.RLock()
	arriving := slices.Collect(maps.Values(a.arriving))
	a.mu.RUnlock()
	all := belonging{make(map[carnet.StreamID]bool), make(map[carnet.StreamID]bool), make(map[carnet.AvatarID]bool)}
	for _, r := range arriving { // not under mu: who has an arrival takes it after
		all.arriving[r.id] = true
		r.mu.Lock()
		for _, s := range r.doc.Streams {
			all.streams[s.ID] = true
		}
		r.mu.Unlock()
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	add := func(v *Avatar) {
		for _, s := range v.streams {
			all.streams[s.id], all.names[s.id] = true, true
			if f := a.former[s.id]; f != nil {
				all.names[f.Name] = true
			}
		}
	}
	for _, v := range a.avatars {
		add(v)
	}
	for id, v := range a.departed {
		gone := v.passing.gone
		if !gone.Cleared.IsZero() {
			continue
		}
		add(v)
		why := "it has moved to " + string(gone.World)
		if gone.erased() {
			why = "it is erased"
		}
		e.Found(carnet.Finding{Kind: "avatar", About: id.String(), Since: gone.At, Reason: why + ", and what is left of it here isn't deleted yet"})
	}
	e.Saw("avatars", len(a.avatars))
	return all
}

// examineStretches looks for stretches of streams that no avatar has.
func (a *Agent) examineStretches(ctx context.Context, e *carnet.Examination, known belonging) error {
	for after := (carnet.StreamID{}); ; {
		page, err := a.store.StretchStreams(ctx, after, documentPage)
		if err != nil {
			return err
		}
		e.Saw("streams", len(page))
		for _, id := range page {
			if after = id; !known.streams[id] {
				e.Found(carnet.Finding{
					Kind: "bytes", About: id.String(), Wrong: true, Reason: "the store has stretches of a stream that no avatar here has",
					Fix: "this is a fault of the program: please report it; without keys they can't be read",
				})
			}
		}
		if len(page) < documentPage {
			return nil
		}
	}
}

// examineKeys looks for keys of streams that no avatar has.
func (a *Agent) examineKeys(ctx context.Context, e *carnet.Examination, known belonging) error {
	given, err := a.keys.List(ctx, keyID(seal.Path{}).Kind, "")
	if err != nil {
		return err
	}
	orphans := make(map[carnet.StreamID]int)
	for _, id := range given {
		at, err := seal.ParsePath(id.Name)
		if err != nil {
			return fmt.Errorf("read the key table: %w", err)
		}
		if !known.names[at.Stream] {
			orphans[at.Stream]++
		}
	}
	e.Saw("keys", len(given))
	for stream, n := range orphans {
		e.Found(carnet.Finding{
			Kind: "keys", About: stream.String(), Wrong: true, Reason: fmt.Sprintf("the key table has %d keys of a stream that no avatar here has", n),
			Fix: "this is a fault of the program: please report it",
		})
	}
	coming, err := a.keys.List(ctx, kindArrivingKey, "")
	if err != nil {
		return err
	}
	left := make(map[carnet.AvatarID]int)
	for _, id := range coming {
		avatar, err := carnet.ParseAvatarID(id.Name[:min(len(id.Name), 2*len(carnet.AvatarID{}))])
		if err != nil {
			return fmt.Errorf("read the key table: %w", err)
		}
		if !known.arriving[avatar] {
			left[avatar]++
		}
	}
	for avatar, n := range left {
		e.Found(carnet.Finding{
			Kind: "keys", About: avatar.String(), Wrong: true, Reason: fmt.Sprintf("the key table has %d keys for an avatar that isn't to come", n),
			Fix: "this is a fault of the program: please report it",
		})
	}
	return nil
}
