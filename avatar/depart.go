package avatar

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
)

// goneDocument says where an avatar went, or that it is erased. It stays when all
// else of the avatar is deleted.
type goneDocument struct {
	Crossing carnet.CrossingID  `json:"crossing,omitzero"`
	World    carnet.PartyID     `json:"world,omitempty"`   // as this world calls it
	Decision carnet.Fingerprint `json:"decision,omitzero"` // the registrar's
	// Erasure is by which it is erased, and Order the owner's.
	Erasure carnet.ErasureID   `json:"erasure,omitzero"`
	Order   carnet.Fingerprint `json:"order,omitzero"`
	At      time.Time          `json:"at"`
	// Had is what there was of it then.
	Had Extent `json:"had,omitzero"`
	// Cleared is when nothing of it was left here; absent: it is being deleted.
	Cleared time.Time `json:"cleared,omitzero"`
}

// erased reports whether the avatar is erased, rather than somewhere else.
func (g *goneDocument) erased() bool { return g.Erasure != carnet.ErasureID{} }

// Destination is where an avatar has moved to, or what erased it.
type Destination struct {
	Crossing carnet.CrossingID
	World    carnet.PartyID // as this world calls it
	Decision carnet.Fingerprint
	Erasure  carnet.ErasureID
	Order    carnet.Fingerprint
	At       time.Time
	Had      Extent
	Cleared  time.Time // zero: it isn't deleted yet
}

// Departed says where an avatar has moved to; carnet.NotFound if it hasn't.
func (a *Agent) Departed(id carnet.AvatarID) (Destination, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	v := a.departed[id]
	if v == nil {
		return Destination{}, carnet.Errorf(carnet.NotFound, "no avatar %s has moved away", id)
	}
	return Destination(*v.passing.gone), nil
}

// Depart makes an avatar that keeps still for a crossing one that has moved away,
// durably, and states it: from now on it isn't here for anybody, its
// subscriptions end, and what its senders still send of it is acknowledged and
// thrown away. What is left of it is deleted by Clear. Done again it stays done.
func (a *Agent) Depart(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, to carnet.PartyID, decision carnet.Fingerprint) error {
	a.moveMu.Lock()
	defer a.moveMu.Unlock()
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if had, err := a.Departed(id); err == nil && had.Crossing == x {
		return nil
	}
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	if had, frozen := a.frozenFor(v); !frozen || had != x {
		return carnet.Errorf(carnet.Conflict, "the avatar doesn't keep still for crossing %s", x)
	}
	return a.bury(ctx, v, goneDocument{Crossing: x, World: to, Decision: decision}, ledger.Statement{Kind: ledger.Departed, Peer: to, Object: decision})
}

// why says to who asks for the avatar that it isn't here.
func (g *goneDocument) why(id carnet.AvatarID) error {
	if g.erased() {
		return carnet.Errorf(carnet.NotFound, "the avatar %s is erased, by its owner's order", id)
	}
	return carnet.Errorf(carnet.NotFound, "the avatar %s has moved to %s", id, g.World).WithFix("ask there for it")
}

// bury makes an avatar's document a tombstone, durably, and states why. The caller
// holds moveMu and changeMu.
func (a *Agent) bury(ctx context.Context, v *Avatar, gone goneDocument, why ledger.Statement) error {
	id := v.id
	gone.At, gone.Had = a.now().UTC(), a.extent(v.streams)
	doc := avatarDocument{Title: v.title, Created: time.Unix(0, v.created).UTC(), Key: v.key[:], Owner: a.ownerOf(v), Streams: []streamDocument{}, Gone: &gone}
	for _, s := range v.streams {
		share, shared := a.shareOf(s.id)
		d := streamDocument{ID: s.id, Sender: s.sender, Ended: true, Former: a.formerOf(s.id), NextBatch: s.nextBatch, NextFirst: s.nextFirst}
		if shared {
			d.Share = &share
		}
		doc.Streams = append(doc.Streams, d)
	}
	d, err := a.document(kindAvatar, id.String(), v.version+1, doc)
	if err != nil {
		return err
	}
	why.Time, why.Avatar = gone.At.UnixNano(), id
	item, err := a.Statement(why)
	if err != nil {
		return err
	}
	documents := append(a.withoutPolicy(id), d)
	if v.stateVersion > 0 {
		documents = append(documents, carnet.Document{Kind: kindState, ID: id.String(), Version: v.stateVersion + 1})
	}
	// Nothing is folded meanwhile, so that no state of it is saved afterwards.
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	if err := a.store.Put(ctx, documents, []ledger.Item{item}); err != nil {
		return err
	}
	v.version, v.stateVersion = v.version+1, 0
	v.departed = true
	a.pending.avatars = slices.DeleteFunc(a.pending.avatars, func(other *Avatar) bool { return other == v })
	a.mu.Lock()
	delete(a.avatars, id)
	delete(a.policies, id)
	a.count(v, -1)
	v.passing = &passing{gone: &gone}
	a.departed[id] = v
	for _, s := range v.streams {
		s.ended, s.gone = true, true
	}
	a.mu.Unlock()
	a.recorded()
	a.demandMu.Lock()
	delete(a.demanded, v)
	a.demandMu.Unlock()
	v.mu.Lock()
	v.latest = nil
	for s := range v.subscribers.each() {
		s.end(gone.why(id))
	}
	v.mu.Unlock()
	return nil
}

// loadDeparted takes an avatar that has moved away: its streams are known so that
// what still comes of them is thrown away, unless they are here again.
func (a *Agent) loadDeparted(v *Avatar, doc *avatarDocument) {
	v.departed, v.passing = true, &passing{gone: doc.Gone}
	for i, s := range v.streams {
		s.ended, s.gone = true, true
		s.nextBatch, s.nextFirst = doc.Streams[i].NextBatch, doc.Streams[i].NextFirst
		if doc.Gone.Cleared.IsZero() {
			a.setFormer(v.id, s.id, doc.Streams[i].Former)
			if share := doc.Streams[i].Share; share != nil {
				a.shared[s.id] = *share
			}
		}
		if a.streams[s.id] == nil {
			a.streams[s.id] = s
		}
	}
	a.departed[v.id] = v
}

// hasGone reports whether a sender's stream is of an avatar that has moved away.
func (a *Agent) hasGone(id carnet.StreamID, party carnet.PartyID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := a.streams[id]
	return s != nil && s.gone && s.sender == party
}

// Clear deletes what is left of an avatar that has moved away: stretches, here with
// overwriting and then at the depot, proofs, and every key of its data. On return
// nothing of it can be read here any more, and the document says so; what the
// depot has is asked back until it is gone, too. A crash leaves less; done again it
// goes on, and is done once. The key by which it proves itself stays (Silence).
//
// Who calls while others are cleared is cleared with those who wait, too: compacting and
// overwriting take as long for one as for many.
func (a *Agent) Clear(ctx context.Context, id carnet.AvatarID) error {
	if to, err := a.Departed(id); err != nil || !to.Cleared.IsZero() {
		return err
	}
	a.mu.Lock()
	a.clearing = append(a.clearing, id)
	a.mu.Unlock()
	a.clearMu.Lock()
	defer a.clearMu.Unlock()
	if to, err := a.Departed(id); err != nil || !to.Cleared.IsZero() {
		return err
	}
	all := a.toClear(id)
	err := a.clearAll(ctx, all)
	if err != nil && len(all) > 1 && ctx.Err() == nil { // it may be of another
		err = a.clearAll(ctx, all[:1])
	}
	return err
}

// clearAtOnce is how many avatars are cleared together.
const clearAtOnce = 64

// leftBy is an avatar that has moved away, and why.
type leftBy struct {
	*Avatar
	gone *goneDocument
}

// toClear takes an avatar, and those that wait to be cleared with it.
func (a *Agent) toClear(id carnet.AvatarID) []leftBy {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []leftBy{{a.departed[id], a.departed[id].passing.gone}}
	a.clearing = slices.DeleteFunc(a.clearing, func(other carnet.AvatarID) bool {
		v := a.departed[other]
		if v == nil || !v.passing.gone.Cleared.IsZero() || slices.ContainsFunc(all, func(l leftBy) bool { return l.Avatar == v }) {
			return true
		}
		if len(all) == clearAtOnce {
			return false
		}
		all = append(all, leftBy{v, v.passing.gone})
		return true
	})
	return all
}

// clearAll is Clear for avatars that have moved away. The caller holds clearMu.
func (a *Agent) clearAll(ctx context.Context, all []leftBy) error {
	var streams []leftStream
	for _, l := range all {
		for _, s := range l.streams {
			streams = append(streams, leftStream{s, l.gone.cause(), l.gone.Erasure})
		}
	}
	if err := a.destroyStreams(ctx, streams); err != nil {
		return err
	}
	for _, s := range streams {
		if err := a.deleteStretches(ctx, s.id, s.why, s.by); err != nil {
			return err
		}
	}
	if err := a.Compact(ctx, 1); err != nil { // frames that hold batches of them
		return err
	}
	if err := a.store.Overwrite(ctx); err != nil { // their bodies, and their states
		return err
	}
	for _, l := range all {
		if err := a.setCleared(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// cause is why what is left of an avatar is deleted.
func (g *goneDocument) cause() string {
	if g.erased() {
		return fmt.Sprintf("its avatar is erased by %s", g.Erasure)
	}
	return fmt.Sprintf("its avatar has moved to %s by crossing %s", g.World, g.Crossing)
}

// Silence destroys the key by which an avatar proves itself, that has moved away or is
// erased: it has nothing more to ask of another world. Done again it stays done.
func (a *Agent) Silence(ctx context.Context, id carnet.AvatarID) error {
	if _, err := a.Departed(id); err != nil {
		return err
	}
	return a.keys.Destroy(ctx, keys.ID{Kind: "avatar", Name: id.String()})
}

// setCleared notes that nothing is left of an avatar that has moved away.
func (a *Agent) setCleared(ctx context.Context, l leftBy) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v := l.Avatar
	if v.passing.gone != l.gone {
		return carnet.Errorf(carnet.Unavailable, "the avatar %s has been erased while what it left was deleted: that is done again", v.id)
	}
	gone := *l.gone
	gone.Cleared = a.now().UTC()
	// The owner's key stays: by it the next home may ask again for what it didn't hear.
	doc := avatarDocument{Created: time.Unix(0, v.created).UTC(), Key: v.key[:], Owner: a.ownerOf(v), Streams: []streamDocument{}, Gone: &gone}
	for _, s := range v.streams {
		if s.sender != "" {
			doc.Streams = append(doc.Streams, streamDocument{ID: s.id, Sender: s.sender, Ended: true, NextBatch: s.nextBatch, NextFirst: s.nextFirst})
		}
	}
	d, err := a.document(kindAvatar, v.id.String(), v.version+1, doc)
	if err != nil {
		return err
	}
	if err := a.store.Put(ctx, []carnet.Document{d}, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v.version++
	v.passing = &passing{gone: &gone}
	for _, s := range v.streams {
		a.setFormer(v.id, s.id, nil)
		delete(a.shared, s.id)
		if s.sender == "" {
			delete(a.streams, s.id)
		}
	}
	v.title = ""
	return nil
}

// deleteStretches deletes everything that the store has of a stream, by its id
// there. Their objects wait to be deleted at the depot by an erasure, if it is by one.
func (a *Agent) deleteStretches(ctx context.Context, id carnet.StreamID, why string, by carnet.ErasureID) error {
	for {
		rows, err := a.store.StretchPage(ctx, id, 0, dropAtOnce)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return a.deleteDocument(ctx, kindOver, id.String())
		}
		// What its retention ends at the same time is gone then.
		if err := a.drop(ctx, rows, why, by, nil); err != nil && carnet.CodeOf(err) != carnet.Conflict {
			return err
		}
	}
}

func (a *Agent) deleteDocument(ctx context.Context, kind, id string) error {
	d, err := a.store.Document(ctx, kind, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	return a.store.Put(ctx, []carnet.Document{{Kind: kind, ID: id, Version: d.Version + 1}}, nil)
}

// leftStream is a stream of an avatar, or of a share, that is gone, and why it is.
type leftStream struct {
	*stream
	why string
	by  carnet.ErasureID // if it is gone by one
}

// destroyStreams destroys the keys of streams, but for those that another stream of
// the same name needs, which has come with another move.
func (a *Agent) destroyStreams(ctx context.Context, streams []leftStream) error {
	a.nameMu.Lock() // until they are destroyed none of these names comes
	defer a.nameMu.Unlock()
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	d := destroyed{ids: make(map[keys.ID]bool)}
	for _, s := range streams {
		if level, some := a.unneeded(s.stream); some {
			if err := a.collect(ctx, &d, a.nameOf(s.id), level, s.why); err != nil {
				return err
			}
		}
	}
	if len(d.ids) == 0 {
		return nil
	}
	if err := a.keys.Destroy(ctx, slices.Collect(maps.Keys(d.ids))...); err != nil {
		return err
	}
	for _, name := range d.names {
		a.opener.Forget(name)
	}
	if err := a.store.Put(ctx, d.documents, d.said); err != nil {
		return err
	}
	a.recorded()
	return nil
}

// unneeded says of which level the keys of a stream are that nothing else here needs; 0:
// of all. false: all of them are needed. The caller holds nameMu.
func (a *Agent) unneeded(s *stream) (level seal.Level, some bool) {
	name := a.nameOf(s.id)
	former := a.formerOf(s.id) != nil
	if s := a.stream(name); former && s != nil && !s.gone {
		if _, shared := a.shareOf(name); !shared {
			return 0, false // all are that one's, which is received here
		}
		level = seal.EpochLevel // those of slots are a share's
	}
	others := slices.DeleteFunc(a.formerly(name), func(other *stream) bool { return other.gone })
	switch {
	case len(others) == 0:
		return level, true
	case former || slices.ContainsFunc(others, func(other *stream) bool { return a.formerOf(other.id).Slots }):
		return 0, false // they are the other's, too
	}
	return seal.SlotLevel, true
}

// destroyed is what is destroyed at once, and what says so.
type destroyed struct {
	ids       map[keys.ID]bool
	names     []carnet.StreamID
	documents []carnet.Document
	said      []ledger.Item
}

// collect adds the keys of a stream, by its name, of a level, or 0: of all. The caller
// holds changeMu.
func (a *Agent) collect(ctx context.Context, d *destroyed, name carnet.StreamID, level seal.Level, why string) error {
	before := len(d.ids)
	err := a.eachEpoch(ctx, name, func(k keyDocument) error {
		if id := keyID(k.id); (level == 0 || k.id.Level == level) && !d.ids[id] {
			d.ids[id] = true
			d.documents = append(d.documents, carnet.Document{Kind: kindEpoch, ID: id.Name, Version: k.version + 1})
		}
		return nil
	})
	n := len(d.ids) - before
	if err != nil || n == 0 {
		return err
	}
	item, err := a.Statement(ledger.Statement{Kind: ledger.Deleted, Time: a.now().UnixNano(), Stream: name, Reason: fmt.Sprintf("%d keys are destroyed: %s", n, why)})
	d.names, d.said = append(d.names, name), append(d.said, item)
	return err
}
