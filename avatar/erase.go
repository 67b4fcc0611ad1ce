package avatar

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"carnet"
	"carnet/ledger"
)

// Extent is how much there was of what is erased. It says nothing of what it was.
type Extent struct {
	Streams uint64 `json:"streams"`
	Batches uint64 `json:"batches"`
}

// extent is how much there is of streams.
func (a *Agent) extent(streams []*stream) (e Extent) {
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	for _, s := range streams {
		if !s.gone {
			e.Streams, e.Batches = e.Streams+1, e.Batches+s.batches
		}
	}
	return e
}

// Withhold has the avatars that are here now, and that an owner's key is pinned with,
// refused to readers (carnet.Unavailable), or shows them again: while nobody can tell
// whether they are erased. Those that are made later aren't withheld.
func (a *Agent) Withhold(on bool) {
	if !on {
		a.withheld.Store(nil)
		return
	}
	these := make(map[carnet.AvatarID]struct{})
	for _, v := range a.Avatars() {
		if len(v.OwnerKey) > 0 {
			these[v.ID] = struct{}{}
		}
	}
	a.withheld.Store(&these)
}

func (a *Agent) isWithheld(id carnet.AvatarID) bool {
	these := a.withheld.Load()
	if these == nil {
		return false
	}
	_, is := (*these)[id]
	return is
}

// readable is avatar for who wants to read of it.
func (a *Agent) readable(id carnet.AvatarID) (*Avatar, error) {
	v, err := a.avatar(id)
	if err == nil && a.isWithheld(id) {
		return nil, carnet.Errorf(carnet.Unavailable, "since this world has started, it couldn't ask the register yet whether its avatars are erased").
			WithFix("try again when its depot can be reached: carnet status")
	}
	return v, err
}

// Readable refuses who wants to read of an avatar, or of what was made of it:
// carnet.NotFound if it isn't here, carnet.Unavailable while nobody can tell whether it is
// erased.
func (a *Agent) Readable(id carnet.AvatarID) error {
	_, err := a.readable(id)
	return err
}

// Erase makes an avatar one that is erased by an order, durably, and states it: from
// now on nobody can read anything of it, its subscriptions end, and what its senders
// still send of it is acknowledged and thrown away. What is left of it is deleted by
// Clear. One that keeps still for a move is carnet.Conflict, one that isn't here
// carnet.NotFound. Done again it stays done. Of an avatar that has moved away, what it
// left is deleted by this erasure.
func (a *Agent) Erase(ctx context.Context, id carnet.AvatarID, by carnet.ErasureID, order carnet.Fingerprint, told carnet.PartyID) error {
	a.moveMu.Lock()
	defer a.moveMu.Unlock()
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if had, err := a.Departed(id); err == nil {
		if had.Erasure != (carnet.ErasureID{}) || !had.Cleared.IsZero() {
			return nil
		}
		return a.eraseLeft(ctx, id, by, order)
	}
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	if err := a.changeable(v); err != nil {
		return err
	}
	return a.bury(ctx, v, goneDocument{Erasure: by, Order: order}, ledger.Statement{Kind: ledger.ErasureOrdered, Peer: told, Object: order})
}

// eraseLeft notes that what an avatar has left here is deleted by an erasure. The
// caller holds changeMu.
func (a *Agent) eraseLeft(ctx context.Context, id carnet.AvatarID, by carnet.ErasureID, order carnet.Fingerprint) error {
	d, err := a.store.Document(ctx, kindAvatar, id.String())
	if err != nil {
		return err
	}
	var doc avatarDocument
	if err := a.openDocument(d, &doc); err != nil {
		return err
	}
	if doc.Gone == nil {
		return carnet.Errorf(carnet.Tampered, "the document of the avatar %s doesn't say that it has moved away", id)
	}
	doc.Gone.Erasure, doc.Gone.Order = by, order
	if err := a.put(ctx, kindAvatar, id.String(), d.Version+1, doc); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.departed[id]
	v.version, v.passing = d.Version+1, &passing{gone: doc.Gone}
	return nil
}

// Speakers lists who sends streams of an avatar that is erased, and isn't a world that
// shares: whom to tell.
func (a *Agent) Speakers(id carnet.AvatarID) map[carnet.StreamID]carnet.PartyID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	v := a.departed[id]
	if v == nil {
		return nil
	}
	all := make(map[carnet.StreamID]carnet.PartyID)
	for _, s := range v.streams {
		if _, shared := a.shared[s.id]; !shared && s.sender != "" {
			all[s.id] = s.sender
		}
	}
	return all
}

// SharedBy lists the streams that came by a share, as their batches name them.
func (a *Agent) SharedBy(share carnet.ShareID) (all []carnet.StreamID) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id, s := range a.shared {
		if s.ID == share {
			all = append(all, id)
		}
	}
	slices.SortFunc(all, func(p, q carnet.StreamID) int { return slices.Compare(p[:], q[:]) })
	return all
}

// EraseShared erases the streams that came by a share, or those of them that are
// named: from now on nobody can read anything of them, and what still comes of them is
// acknowledged and thrown away. It is durable on return, and says how much there was.
// What is left is deleted by ClearShared. Done again it stays done.
func (a *Agent) EraseShared(ctx context.Context, share carnet.ShareID, only []carnet.StreamID, by carnet.ErasureID) (had Extent, err error) {
	a.moveMu.Lock()
	defer a.moveMu.Unlock()
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	streams := a.sharedStreams(share, only)
	for _, s := range streams {
		// Nothing is folded meanwhile, and what was folded of it isn't shown any more.
		a.foldMu.Lock()
		had.Streams, had.Batches = had.Streams+1, had.Batches+s.batches
		if s.gone && !s.unsaved {
			a.foldMu.Unlock()
			continue
		}
		a.mu.Lock()
		if s.gives != givesNothing {
			a.givesChanged.Add(1)
		}
		s.ended, s.gone, s.unsaved, s.gives = true, true, true, givesNothing
		a.erased[s.id] = by
		a.mu.Unlock()
		v := s.avatar
		v.mu.Lock()
		v.latest = slices.DeleteFunc(v.latest, func(l latest) bool { return l.place == s.place })
		v.mu.Unlock()
		a.changed(v)
		a.pending.forgot = true // so that the state is saved in any case
		a.foldMu.Unlock()
		if err := a.saveAvatar(ctx, v, v.streams, s); err != nil {
			return had, err
		}
		s.unsaved = false
	}
	return had, nil
}

// sharedStreams are the streams that came by a share, or those of them that are named.
func (a *Agent) sharedStreams(share carnet.ShareID, only []carnet.StreamID) []*stream {
	return slices.DeleteFunc(a.streamsOfShare(share), func(s *stream) bool {
		return s == nil || len(only) > 0 && !slices.Contains(only, s.id)
	})
}

// ClearShared deletes what is left of streams that EraseShared has erased: their
// keys, their stretches, here with overwriting, and the frames that hold batches of
// them. On return nothing of them can be read here any more. A crash leaves less; done
// again it goes on.
func (a *Agent) ClearShared(ctx context.Context, share carnet.ShareID, only []carnet.StreamID, by carnet.ErasureID) error {
	a.clearMu.Lock()
	defer a.clearMu.Unlock()
	streams := slices.DeleteFunc(a.sharedStreams(share, only), func(s *stream) bool { return !s.gone })
	why := fmt.Sprintf("its avatar is erased by %s", by)
	left := make([]leftStream, len(streams))
	for i, s := range streams {
		left[i] = leftStream{s, why, by}
	}
	if err := a.destroyStreams(ctx, left); err != nil {
		return err
	}
	for _, s := range streams {
		if err := a.dropErased(ctx, s.id, why, by); err != nil {
			return err
		}
	}
	if err := a.Compact(ctx, 1); err != nil { // saves the states, and frames lose their batches of it
		return err
	}
	return a.store.Overwrite(ctx)
}

// Overwrite leaves nothing in the store's files of what was deleted or replaced.
func (a *Agent) Overwrite(ctx context.Context) error { return a.store.Overwrite(ctx) }

// dropErased deletes all stretches of a stream whose avatar stays, and notes which
// batches that were, as for those whose retention has ended.
func (a *Agent) dropErased(ctx context.Context, id carnet.StreamID, why string, by carnet.ErasureID) error {
	for {
		rows, err := a.store.StretchPage(ctx, id, 0, dropAtOnce)
		if err != nil || len(rows) == 0 {
			return err
		}
		documents, err := a.overDocuments(ctx, rows)
		if err != nil {
			return err
		}
		if err := a.drop(ctx, rows, why, by, documents); err != nil && carnet.CodeOf(err) != carnet.Conflict {
			return err
		}
	}
}

// erasedBy says by which erasure a stream is erased whose avatar stays.
func (a *Agent) erasedBy(id carnet.StreamID) (by carnet.ErasureID, erased bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	by, erased = a.erased[id]
	return by, erased
}

// Doomed lists the objects that the depot is to delete by an erasure.
func (a *Agent) Doomed(ctx context.Context, by carnet.ErasureID) (all []carnet.Fingerprint, err error) {
	return all, a.eachDocument(ctx, kindDoomed, func(d carnet.Document) error {
		var doc doomedDocument
		if err := a.openDocument(d, &doc); err != nil || doc.Erasure != by {
			return err
		}
		var f carnet.Fingerprint
		if err := f.UnmarshalText([]byte(d.ID)); err != nil {
			return err
		}
		all = append(all, f)
		return nil
	})
}

// Dooming are the documents by which objects are noted that the depot is to delete and
// to sign for by an erasure: to be stored with what says that they aren't needed here
// any more. What is noted for an erasure already stays so.
func (a *Agent) Dooming(ctx context.Context, objects []carnet.Fingerprint, by carnet.ErasureID) (documents []carnet.Document, err error) {
	for _, f := range objects {
		if documents, err = a.doom(ctx, documents, f, carnet.Keep, by); err != nil {
			return nil, err
		}
	}
	return documents, nil
}

// Release are the changes of documents after which what was to be deleted at the depot by
// an erasure is so for nobody's: to be stored with what says that it has come to nothing.
func (a *Agent) Release(ctx context.Context, by carnet.ErasureID) (documents []carnet.Document, err error) {
	return documents, a.eachDocument(ctx, kindDoomed, func(d carnet.Document) error {
		var doc doomedDocument
		if err := a.openDocument(d, &doc); err != nil || doc.Erasure != by {
			return err
		}
		doc.Erasure = carnet.ErasureID{}
		next, err := a.document(kindDoomed, d.ID, d.Version+1, doc)
		documents = append(documents, next)
		return err
	})
}

// AtDepot has do delete objects at the depot, while none is put there.
func (a *Agent) AtDepot(do func() error) error {
	a.depotMu.Lock()
	defer a.depotMu.Unlock()
	return do()
}

// Undoomed are the changes of documents after which objects that were doomed aren't
// listed any more, since the depot has signed that they are gone: to be stored with
// what it signed.
func (a *Agent) Undoomed(ctx context.Context, objects []carnet.Fingerprint) (documents []carnet.Document, err error) {
	for _, f := range objects {
		d, err := a.store.Document(ctx, kindDoomed, f.String())
		if carnet.CodeOf(err) == carnet.NotFound {
			continue
		} else if err != nil {
			return nil, err
		}
		documents = append(documents, carnet.Document{Kind: kindDoomed, ID: d.ID, Version: d.Version + 1})
	}
	return documents, nil
}

// TellErased tells the senders of streams whose avatar is erased: now, and whenever a
// connection's first call or frame comes.
func (a *Agent) TellErased(erased []carnet.Erased) {
	a.demandMu.Lock()
	defer a.demandMu.Unlock()
	for i := range erased {
		e := &erased[i]
		a.erasures[e.Stream] = *e
		if s := a.stream(e.Stream); s != nil && a.hasGone(s.id, s.sender) {
			a.notifyErased(s)
		}
	}
}

// notifyErased tells a stream's sender that its avatar is erased, if that is to be told.
// The caller holds demandMu.
func (a *Agent) notifyErased(s *stream) {
	e, tell := a.erasures[s.id]
	if !tell {
		return
	}
	body, err := json.Marshal(e)
	if err != nil {
		a.log.Error("encode that an avatar is erased", "err", err)
		return
	}
	a.notify(s.sender, carnet.NoticeErased, body)
}

// Unmappings takes what things agents answer to TellErased.
type Unmappings interface {
	// Unmapped takes a party's answer about a stream of its.
	Unmapped(ctx context.Context, party carnet.PartyID, answer carnet.Unmapped) error
}

// Hear gives the agent who takes what things agents answer, before links are taken.
func (a *Agent) Hear(u Unmappings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unmappings = u
}

// heardErased takes a things agent's answer.
func (a *Agent) heardErased(ctx context.Context, from Sender, body []byte) error {
	var answer carnet.Unmapped
	if err := json.Unmarshal(body, &answer); err != nil {
		return carnet.Errorf(carnet.Malformed, "an answer to an erasure can't be read: %v", err)
	}
	a.mu.RLock()
	u := a.unmappings
	a.mu.RUnlock()
	if u == nil || !a.hasGone(answer.Stream, from.Party) {
		return carnet.Errorf(carnet.NotFound, "%s has no stream %s here whose avatar is erased", from.Party, answer.Stream)
	}
	return u.Unmapped(ctx, from.Party, answer)
}

// SenderKey is the key by which a sender signs, while it is one.
func (a *Agent) SenderKey(party carnet.PartyID) ([]byte, bool) {
	s, ok := a.sender(party)
	return s.Key, ok
}

// Named lists an erased or departed avatar's streams, as their batches name them.
func (a *Agent) Named(id carnet.AvatarID) (names []carnet.StreamID) {
	a.mu.RLock()
	v := a.departed[id]
	a.mu.RUnlock()
	if v == nil {
		return nil
	}
	for _, s := range v.streams {
		names = append(names, a.nameOf(s.id))
	}
	return names
}

// DestroyAgain destroys the keys of streams that are erased, which an older copy of the
// key table has brought back: but for streams that something else here needs.
func (a *Agent) DestroyAgain(ctx context.Context, names []carnet.StreamID) error {
	a.clearMu.Lock()
	defer a.clearMu.Unlock()
	for _, name := range names {
		if s := a.stream(name); s != nil && !s.gone || len(slices.DeleteFunc(a.formerly(name), func(s *stream) bool { return s.gone })) > 0 {
			continue
		}
		ids, err := a.keys.List(ctx, kindEpoch, name.String()+"/")
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			continue
		}
		a.log.Warn("keys of a stream that is erased were there again, and are destroyed", "stream", name, "keys", len(ids))
		if err := a.keys.Destroy(ctx, ids...); err != nil {
			return err
		}
		a.opener.Forget(name)
	}
	return nil
}
