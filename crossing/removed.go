package crossing

import (
	"context"
	"slices"

	"carnet"
)

// EndPeer ends all shares with a world that is no peer any more, given and taken: what
// came stays, and nothing comes or goes. The other side can't be told, so it counts as
// told; it ends them when its operator removes the peering there. Done again it changes
// nothing.
func (a *Agent) EndPeer(ctx context.Context, world carnet.PartyID) error {
	why := "the peering with " + string(world) + " was removed"
	var gives, untold []carnet.ShareID
	a.mu.RLock()
	for id, g := range a.given {
		if g.Taker == world && g.End == nil {
			gives = append(gives, id)
		}
		if g.Taker == world && !g.Told {
			untold = append(untold, id)
		}
	}
	a.mu.RUnlock()
	a.cease(gives...)
	a.mu.Lock()
	delete(a.sources, world) // nobody is told or sent anything
	a.mu.Unlock()
	for ids := range slices.Chunk(gives, endAtOnce) {
		if err := a.stopGiving(ctx, ids, overBy, func(carnet.ShareID) string { return why }); err != nil {
			return err
		}
	}
	for ids := range slices.Chunk(untold, endAtOnce) {
		if err := a.countAsTold(ctx, ids); err != nil {
			return err
		}
	}
	for _, t := range a.Taken() {
		if t.Giver != world || t.State == Ended {
			continue
		}
		a.changing.Lock()
		err := a.endTaken(ctx, *a.takenBy(t.ID), overBy, why)
		a.changing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// countAsTold notes of shares that have ended that their taker needn't be told.
func (a *Agent) countAsTold(ctx context.Context, ids []carnet.ShareID) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	var told []given
	a.mu.RLock()
	for _, id := range ids {
		if g := a.given[id]; g.End != nil && !g.Told {
			now := *g
			now.Told = true
			told = append(told, now)
		}
	}
	a.mu.RUnlock()
	if len(told) == 0 {
		return nil
	}
	return a.keepGiven(ctx, told, nil)
}
