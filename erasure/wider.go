package erasure

import (
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

// Who passes on what came by two shares may do so by one, and then tells of it twice, for
// other streams each time (docs/design/erasure.md, "Who is told what").

// united are the streams of a share that are erased, once some more are: none are all of
// them. wider: there are more than before.
func united(streams, more []carnet.StreamID) (all []carnet.StreamID, wider bool) {
	if len(streams) == 0 || len(more) == 0 {
		return nil, len(streams) > 0
	}
	all = slices.Clone(streams)
	has := make(map[carnet.StreamID]bool, len(streams))
	for _, s := range streams {
		has[s] = true
	}
	for _, s := range more {
		if !has[s] {
			has[s], all = true, append(all, s)
		}
	}
	return all, len(all) > len(streams)
}

// widen has an erasure of some streams of a share be of more. The caller holds changing.
func (a *Agent) widen(ctx context.Context, h held, more []carnet.StreamID) (Erasure, error) {
	if h.Role != identity.DeletedShare {
		return h.Erasure, nil
	}
	all, wider := united(h.Streams, more)
	next, ok := Next(h.State, Wider)
	if !wider || !ok {
		return h.Erasure, nil
	}
	h.State, h.Streams, h.Deletion, h.Cleared, h.Ended = next, all, "", time.Time{}, time.Time{}
	h.notTill = time.Time{}
	h.Others = slices.Clone(h.Others)
	for i := range h.Others {
		if o := &h.Others[i]; !o.tellsWorld() { // there is more for the depot; worlds are told of more
			o.Heard = time.Time{}
		}
	}
	return h.Erasure, a.keep(ctx, h, nil)
}

// hideShared has nothing be readable of the streams of a share that are erased, and says
// how much there was, and how their batches name them.
func (a *Agent) hideShared(ctx context.Context, e *Erasure) (had avatar.Extent, names []carnet.StreamID, err error) {
	id, err := shareOf(e.Of)
	if err != nil {
		return had, nil, err
	}
	if had, err = a.World.EraseShared(ctx, id, e.Streams, e.ID); err != nil {
		return had, nil, err
	}
	names = a.World.SharedBy(id)
	if e.Streams != nil {
		names = slices.DeleteFunc(names, func(s carnet.StreamID) bool { return !slices.Contains(e.Streams, s) })
	}
	return had, names, nil
}

// clearShared deletes the streams of a share that are erased. done: whoever got
// them is among those who are told; there may be more streams by now.
func (a *Agent) clearShared(ctx context.Context, key string) (done bool, err error) {
	h := a.erasure(key)
	had, names, err := a.hideShared(ctx, &h.Erasure)
	if err != nil {
		return false, err
	}
	id, err := shareOf(h.Of)
	if err != nil {
		return false, err
	}
	if err := a.World.ClearShared(ctx, id, h.Streams, h.ID); err != nil {
		return false, err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if h = a.erasure(key); h.State != Hiding {
		return false, nil
	}
	if slices.Equal(h.Names, names) {
		return true, nil
	}
	h.Had, h.Names = had, names
	return false, a.keep(ctx, h, nil)
}

// deletionsOf are an erasure's, for who told of some streams: this world's own is of
// exactly these, all of which are deleted, beside others perhaps.
func (a *Agent) deletionsOf(h *Erasure, named []carnet.StreamID) ([]string, error) {
	all := h.Deletions()
	if h.Deletion == "" || h.Role != identity.DeletedShare {
		return all, nil
	}
	if d, err := identity.OpenDeletion(h.Deletion); err != nil || d.Named == identity.ErasedStreams(named) {
		return all, err
	}
	of := *h
	of.Streams = named
	own, err := a.sign(&of, h.Cleared)
	if err != nil {
		return nil, err
	}
	all[0] = own
	return all, nil
}
