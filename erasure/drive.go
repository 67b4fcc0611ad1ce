package erasure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/job"
	"carnet/ledger"
)

// goOn does what is due of an erasure.
func (a *Agent) goOn(ctx context.Context, key string) {
	err := a.step(ctx, key)
	a.mu.Lock()
	if h := a.erasures[key]; h != nil {
		again := *h
		if again.failed++; err == nil {
			again.failed = 0
		}
		again.notTill = a.Now().Add(pause(again.failed))
		a.erasures[key] = &again
	}
	a.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		a.Log.Warn("an erasure waits", "erasure", key, "err", err)
	}
}

func (a *Agent) step(ctx context.Context, key string) error {
	h := a.erasure(key)
	if h.State == Ordered {
		if err := a.hide(ctx, key); err != nil {
			return err
		}
	}
	if h = a.erasure(key); h.State == Elsewhere || h.State == Ordered {
		return nil
	}
	if h.State == Over { // told again
		var telling sync.WaitGroup
		a.tellAll(ctx, key, &telling)
		telling.Wait()
		return nil
	}
	if err := a.listOthers(ctx, key); err != nil {
		return err
	}
	// The others are told beside what is deleted here: neither waits for the other.
	var telling sync.WaitGroup
	defer telling.Wait()
	a.tellAll(ctx, key, &telling)
	if a.erasure(key).State == Hiding {
		if err := a.clear(ctx, key); err != nil {
			return err
		}
		a.rouse() // the depot's turn
	}
	telling.Wait()
	return a.finish(ctx, key)
}

// waits notes why an erasure hasn't begun.
func (a *Agent) waits(ctx context.Context, key, why string) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	h := a.erasure(key)
	if h.State == None || h.Why == why {
		return nil
	}
	h.Why = why
	return a.keep(ctx, h, nil)
}

// hide has nothing of what is erased be readable any more, durably.
func (a *Agent) hide(ctx context.Context, key string) error {
	h := a.erasure(key)
	if h.Role == identity.DeletedShare {
		had, names, err := a.hideShared(ctx, &h.Erasure)
		if err != nil {
			return err
		}
		return a.hidden(ctx, key, had, names)
	}
	if err := a.callOff(ctx, h.Avatar); err != nil {
		return err
	}
	if err := a.Moves.LetGo(ctx, h.Avatar); err != nil { // it may keep still for a farewell
		if failed := a.waits(ctx, key, err.Error()); failed != nil {
			return failed
		}
		return err
	}
	gone, err := a.World.Departed(h.Avatar)
	if err == nil && gone.Crossing != (carnet.CrossingID{}) && h.Role == identity.DeletedAtHome {
		return a.elsewhere(ctx, key, fmt.Sprintf("the avatar has moved to %s by the crossing %s; its owner orders it there", gone.World, gone.Crossing))
	}
	if x, still, err := a.World.Frozen(h.Avatar); err == nil && still { // nothing is touched before it is decided
		err = carnet.Errorf(carnet.Conflict, "the avatar keeps still for crossing %s", x)
		return errors.Join(err, a.waits(ctx, key, err.Error()))
	}
	// Shares and jobs end by themselves as soon as it is hidden, with what the depot has of
	// them. Ended before, it signs for that.
	if err := a.unshelve(ctx, &h.Erasure); err != nil {
		return err
	}
	if _, err := a.Jobs.Erase(ctx, h.overJobs()); err != nil {
		return err
	}
	switch err = a.World.Erase(ctx, h.Avatar, h.ID, hashOf(h.Order), h.From); carnet.CodeOf(err) {
	case "":
		if err != nil {
			return err
		}
	case carnet.Conflict: // it moves
		if failed := a.waits(ctx, key, err.Error()); failed != nil {
			return failed
		}
		return err
	case carnet.NotFound:
		return a.elsewhere(ctx, key, err.Error())
	default:
		return err
	}
	if gone, err = a.World.Departed(h.Avatar); err != nil {
		return err
	}
	return a.hidden(ctx, key, gone.Had, a.World.Named(h.Avatar))
}

// callOff calls the moves of an avatar off that the registrar isn't needed for.
func (a *Agent) callOff(ctx context.Context, id carnet.AvatarID) error {
	for _, l := range a.Moves.AtSource() {
		if l.Avatar == id && l.State == move.Offered {
			if err := a.Moves.Cancel(ctx, l.ID, "its owner, who has it erased"); err != nil && carnet.CodeOf(err) != carnet.Conflict {
				return err
			}
		}
	}
	return nil
}

func (a *Agent) hidden(ctx context.Context, key string, had avatar.Extent, names []carnet.StreamID) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	h := a.erasure(key)
	next, ok := Next(h.State, Hidden)
	if !ok || next == h.State {
		return nil
	}
	h.State, h.Why, h.Had, h.Names, h.Hidden = next, "", had, names, a.Now().UTC()
	return a.keep(ctx, h, nil)
}

func (a *Agent) elsewhere(ctx context.Context, key, why string) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	h := a.erasure(key)
	next, ok := Next(h.State, Left)
	if !ok || next == h.State {
		return nil
	}
	// What was noted for the depot, as it was about to be hidden, is deleted all the same.
	var plain []carnet.Document
	if !a.goesOn(h.ID, key) {
		var err error
		if plain, err = a.World.Release(ctx, h.ID); err != nil {
			return err
		}
	}
	h.State, h.Why, h.Ended = next, why, a.Now().UTC()
	return a.keep(ctx, h, nil, plain...)
}

// goesOn reports whether there is another erasure with an id here, which is of something
// else of the avatar.
func (a *Agent) goesOn(id carnet.ErasureID, but string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for key, h := range a.erasures {
		if h.ID == id && key != but && h.State != Elsewhere {
			return true
		}
	}
	return false
}

// listOthers ends the shares of what is erased, and notes who ever got something of it.
// None begins any more: so those that are listed once it is hidden are all.
func (a *Agent) listOthers(ctx context.Context, key string) error {
	h := a.erasure(key)
	found, err := a.others(ctx, &h.Erasure)
	if err != nil {
		return err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	h = a.erasure(key)
	others, changed := slices.Clone(h.Others), false
	for i := range found {
		at := slices.IndexFunc(others, func(o Other) bool { return o.same(&found[i]) })
		if at < 0 {
			others, changed = append(others, found[i]), true
			continue
		}
		if all, wider := united(others[at].Streams, found[i].Streams); wider || found[i].Jobs > others[at].Jobs { // told again, of more
			others[at], changed = found[i], true
			others[at].Streams = all
			a.mu.Lock()
			delete(h.tried, found[i].key())
			a.mu.Unlock()
		}
	}
	if !changed {
		return nil
	}
	next, ok := Next(h.State, Another)
	if !ok {
		return nil
	}
	h.State, h.Others = next, others
	if err := a.keep(ctx, h, nil); err != nil {
		return err
	}
	a.tellSpeakers(&h.Erasure)
	return nil
}

// others lists who got something of what is erased.
func (a *Agent) others(ctx context.Context, e *Erasure) (all []Other, err error) {
	if depot := a.Depot.Party(); depot != "" {
		all = append(all, Other{Role: identity.DeletedAtDepot, Party: depot})
	}
	if _, err := a.Jobs.Erase(ctx, e.overJobs()); err != nil {
		return nil, err
	}
	for dpm, jobs := range a.Jobs.ErasedAt(e.ID) {
		all = append(all, Other{Role: identity.DeletedAtDPM, Party: dpm, Jobs: jobs})
	}
	if err := a.unshelve(ctx, e); err != nil {
		return nil, err
	}
	if e.Role == identity.DeletedShare {
		return append(all, a.passedOn(e)...), nil
	}
	for _, g := range a.Shares.GivenOf(e.Avatar) {
		if g.End == nil {
			if err := a.Shares.StopGiving(ctx, g.ID, "its owner", "the avatar is erased"); err != nil && carnet.CodeOf(err) != carnet.NotFound {
				return nil, err
			}
		}
		all = append(all, Other{Role: identity.DeletedShare, Party: g.Taker, Of: g.ID.String()})
	}
	for _, t := range a.Shares.TakenFor(e.Avatar) {
		if t.End == nil {
			if err := a.Shares.StopTaking(ctx, t.ID, "its owner", "the avatar is erased"); err != nil && carnet.CodeOf(err) != carnet.NotFound {
				return nil, err
			}
		}
	}
	for _, l := range a.Moves.AtSource() {
		if l.Avatar == e.Avatar && l.State == move.Kept && !l.Moving().Alone {
			all = append(all, Other{Role: identity.DeletedComing, Party: l.To, Of: l.ID.String()})
		}
	}
	targets, _ := a.Moves.AtTarget()
	for _, t := range targets {
		if t.To == e.Avatar && t.State == move.Home && !t.Moving().Alone { // an item's source never had the avatar
			all = append(all, Other{Role: identity.DeletedFormer, Party: t.From, Of: t.ID.String()})
		}
	}
	if e.Role == identity.DeletedAtHome {
		for stream, party := range a.World.Speakers(e.Avatar) {
			all = append(all, Other{Role: identity.DeletedThings, Party: party, Of: stream.String()})
		}
		if order, err := identity.OpenErasure(e.Order); err == nil && order.World == a.did {
			all = append(all, Other{Role: Registers})
		}
	}
	return all, nil
}

// unshelve has what is shelved of what is erased be withdrawn.
func (a *Agent) unshelve(ctx context.Context, e *Erasure) error {
	var ids []carnet.ShareID
	for _, g := range a.Shares.GivenOf(e.Avatar) {
		ids = append(ids, g.ID)
	}
	if !e.ofAvatar() && len(a.passedOn(e)) == 0 {
		return nil
	}
	return a.Shares.Unshelve(ctx, ids, e.ID)
}

// overJobs says which jobs were over what is erased.
func (e *Erasure) overJobs() job.Erased {
	of := job.Erased{By: e.ID, Order: e.Order, Avatar: e.Avatar}
	if !e.ofAvatar() {
		of.Streams = append([]carnet.StreamID{}, e.Names...)
	}
	return of
}

// passedOn lists to whom streams of a share were passed on.
func (a *Agent) passedOn(e *Erasure) (all []Other) {
	id, err := shareOf(e.Of)
	if err != nil || len(e.Names) == 0 {
		return nil
	}
	if t, _ := a.Shares.TakenAs(id); t.Answer == nil || !t.Answer.Onward {
		return nil
	}
	for _, g := range a.Shares.GivenOf(e.Avatar) {
		all = append(all, Other{Role: identity.DeletedShare, Party: g.Taker, Of: g.ID.String(), Streams: a.Shares.Passed(g.ID, e.Names)})
	}
	return all
}

// clear deletes everything here, and signs for it.
func (a *Agent) clear(ctx context.Context, key string) error {
	h := a.erasure(key)
	var items uint64
	jobs, err := a.Jobs.Erase(ctx, h.overJobs())
	if err != nil {
		return err
	}
	if h.Role == identity.DeletedShare {
		if done, err := a.clearShared(ctx, key); err != nil || !done {
			return err
		}
	} else {
		if err := a.World.Clear(ctx, h.Avatar); err != nil {
			return err
		}
		if err := a.World.Silence(ctx, h.Avatar); err != nil {
			return err
		}
		if err := a.Revoke(ctx, h.Avatar); err != nil {
			return err
		}
		if err := a.Shares.ForgetGiven(ctx, h.Avatar); err != nil {
			return err
		}
		if err := a.Moves.Forget(ctx, h.Avatar); err != nil {
			return err
		}
		if items, err = a.Items.Erase(ctx, h.Avatar, h.ID); err != nil {
			return errors.Join(err, a.waits(ctx, key, err.Error()))
		}
		if err := a.World.Overwrite(ctx); err != nil {
			return err
		}
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	was := h.Streams
	h = a.erasure(key)
	h.Jobs, h.Items = jobs, items
	next, ok := Next(h.State, Cleared)
	if !ok || next == h.State || !slices.Equal(h.Streams, was) { // more came meanwhile
		return nil
	}
	now := a.Now()
	deletion, err := a.sign(&h.Erasure, now)
	if err != nil {
		return err
	}
	h.State, h.Why, h.Cleared, h.Deletion = next, "", now.UTC(), deletion
	return a.keep(ctx, h, []ledger.Statement{{
		Kind: ledger.Erased, Time: now.UnixNano(), Peer: h.From, Avatar: h.Avatar, Object: hashOf(deletion),
	}})
}

// sign makes this world's receipt: since this second nothing of it is left here.
func (a *Agent) sign(e *Erasure, now time.Time) (string, error) {
	since := now.UTC().Truncate(time.Second)
	return identity.SignDeletion(a.Key, identity.Deletion{
		Erasure: e.ID, Order: hashOf(e.Order), By: a.did, Role: e.Role, Of: e.Of, Named: identity.ErasedStreams(e.Streams), Streams: e.Had.Streams, Batches: e.Had.Batches, Jobs: e.Jobs, Items: e.Items,
		Unreadable: since, Unrecoverable: since.Add(a.Backups),
	})
}

// finish notes that everybody has answered, if so, and that the register knows of each
// item that ended: before it does, an older passport might bring one back.
func (a *Agent) finish(ctx context.Context, key string) error {
	h := a.erasure(key)
	if h.State != Erased || !h.allHeard() {
		return nil
	}
	if n := a.Items.Untold(h.ID); n > 0 {
		err := carnet.Errorf(carnet.Unavailable, "the register hasn't been told yet of the end of %d items", n)
		return errors.Join(err, a.waits(ctx, key, err.Error()))
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	h = a.erasure(key)
	if h.State != Erased || !h.allHeard() {
		return nil
	}
	next, ok := Next(h.State, All)
	if !ok {
		return nil
	}
	h.State, h.Why, h.Ended = next, "", a.Now().UTC()
	a.Log.Info("nothing of an avatar is left at anybody who is known to have had something", "erasure", h.ID, "avatar", h.Avatar, "as", h.Role)
	return a.keep(ctx, h, nil)
}

func shareOf(of string) (id carnet.ShareID, err error) { return id, id.UnmarshalText([]byte(of)) }
