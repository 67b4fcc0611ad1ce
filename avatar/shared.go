package avatar

import (
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
)

// Shared says by which share a stream comes from another world.
type Shared struct {
	ID carnet.ShareID `json:"id"`
	// Onward: the avatar's readers may pass it on.
	Onward bool `json:"onward,omitempty"`
	// Lapses are the stretches of the stream for which no share was in force: between
	// the end of one and the beginning of the next, or still.
	Lapses []Lapse `json:"lapses,omitempty"`
}

// Lapse is a stretch of a stream's batches that may not be here.
type Lapse struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to,omitempty"` // not included; 0: it goes on
}

// ended reports whether no share is in force.
func (s *Shared) ended() bool { return len(s.Lapses) > 0 && s.Lapses[len(s.Lapses)-1].To == 0 }

// shareOf returns the share by which a stream comes, and false if it comes from a
// things agent.
func (a *Agent) shareOf(id carnet.StreamID) (Shared, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s, ok := a.shared[id]
	return s, ok
}

// lapsed reports whether a batch came while no share of its stream was in force.
func (a *Agent) lapsed(s *stream, batch uint64) bool {
	share, _ := a.shareOf(s.id)
	return slices.ContainsFunc(share.Lapses, func(l Lapse) bool { return batch >= l.From && (l.To == 0 || batch < l.To) })
}

// ShareOf returns the share by which a stream comes from another world, and
// false if it comes from a things agent or isn't here.
func (a *Agent) ShareOf(id carnet.StreamID) (Shared, bool) { return a.shareOf(id) }

// inward reports whether a stream comes by a share that doesn't let it be passed on.
func (a *Agent) inward(s *stream) bool {
	share, ok := a.shareOf(s.id)
	return ok && !share.Onward
}

// Onward says whether some of what an avatar is given, and whether all of it, may be
// passed on: all but what comes by shares that don't say so.
func (a *Agent) Onward(id carnet.AvatarID) (some, all bool) {
	v, err := a.avatar(id)
	if err != nil {
		return false, false
	}
	streams, all := a.streamsOf(v), true
	for _, s := range streams {
		if a.inward(s) {
			all = false
		} else {
			some = true
		}
	}
	return some || len(streams) == 0, all
}

// lately is how far back of a property's newest measurement OnwardOf looks.
const lately = int64(time.Hour)

// OnwardOf reports whether what an avatar is given of a property may be passed on:
// some of it, if it was given by several lately.
func (a *Agent) OnwardOf(ctx context.Context, id carnet.AvatarID, property string) (bool, error) {
	v, err := a.avatar(id)
	if err != nil {
		return false, err
	}
	if some, all := a.Onward(id); !some || all {
		return some, nil
	}
	newest, ok := v.newest(property)
	streams := a.streamsOf(v)
	if ok && int(newest.place) < len(streams) && !a.inward(streams[newest.place]) {
		return true, nil
	}
	ms, _, err := a.History(ctx, id, Query{From: newest.time - lately, To: newest.time + 1, Property: property, Limit: 1, Onward: true})
	if carnet.CodeOf(err) == carnet.TooOld { // nobody can read it any more
		return false, nil
	}
	return len(ms) > 0, err
}

// Enter gives a stream that another world shares, from a batch on, the avatar that
// it speaks to. Entered again it stays as it is; a stream whose share has ended is
// taken up by the next. It is durable on return.
func (a *Agent) Enter(ctx context.Context, id carnet.StreamID, from carnet.PartyID, to carnet.AvatarID, share Shared, batch uint64) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(to)
	if err != nil {
		return err
	}
	if s := a.stream(id); s != nil {
		return a.enterAgain(ctx, s, from, v, share, batch)
	}
	if err := a.changeable(v); err != nil {
		return err
	}
	switch {
	case id == nobody:
		return carnet.Errorf(carnet.Malformed, "a share names no stream")
	case len(v.streams) >= maxStreams:
		return carnet.Errorf(carnet.TooLarge, "the avatar has %d streams, which is all it may have", maxStreams)
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.Mapped, Time: a.now().UnixNano(), Peer: from, Mapping: carnet.MappingID(id), Avatar: v.id, Stream: id,
	})
	if err != nil {
		return err
	}
	s := &stream{id: id, sender: from, avatar: v, place: uint16(len(v.streams))}
	a.setShared(id, &share)
	if err := a.grow(ctx, v, s, item); err != nil {
		a.setShared(id, nil)
		return err
	}
	return nil
}

// enterAgain takes a stream that is here from the share that it came by into
// another. The caller holds changeMu.
func (a *Agent) enterAgain(ctx context.Context, s *stream, from carnet.PartyID, v *Avatar, share Shared, batch uint64) error {
	had, ok := a.shareOf(s.id)
	switch {
	case s.gone:
		return carnet.Errorf(carnet.Forbidden, "the stream is erased")
	case !ok || s.sender != from || s.avatar != v || had.ID != share.ID && !had.ended():
		return carnet.Errorf(carnet.Conflict, "the stream is here already, for something else")
	case had.ID == share.ID && !had.ended():
		return nil
	case had.ID == share.ID:
		return carnet.Errorf(carnet.Forbidden, "the share of the stream has ended")
	}
	share.Lapses = slices.Clone(had.Lapses)
	last := &share.Lapses[len(share.Lapses)-1]
	last.To = max(last.From, batch, 1)
	a.setShared(s.id, &share)
	s.ended = false
	a.noteGives(s, givesUnknown)
	if err := a.saveAvatar(ctx, s.avatar, s.avatar.streams, nil); err != nil {
		a.setShared(s.id, &had)
		s.ended = true
		a.noteGives(s, givesNothing)
		return err
	}
	return nil
}

// setShared notes by which share a stream comes; nil: by none.
func (a *Agent) setShared(id carnet.StreamID, share *Shared) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if share == nil {
		delete(a.shared, id)
	} else {
		a.shared[id] = *share
	}
}

// grow adds a stream to an avatar. The caller holds changeMu.
func (a *Agent) grow(ctx context.Context, v *Avatar, s *stream, item ledger.Item) error {
	streams := append(slices.Clone(v.streams), s)
	if err := a.saveAvatar(ctx, v, streams, nil, item); err != nil {
		return err
	}
	a.mu.Lock()
	v.streams = streams
	if a.avatars[v.id] == nil {
		a.count(v, 1)
	}
	a.avatars[v.id] = v
	a.streams[s.id] = s
	a.mu.Unlock()
	a.givesChanged.Add(1) // what it gives isn't known yet
	a.recorded()
	a.demandMu.Lock()
	defer a.demandMu.Unlock()
	if _, on := a.demanded[v]; on {
		a.notifyDemand(s, true)
	}
	return nil
}

// EndShare ends the streams of a share: what comes of them is refused from now
// on. It is durable on return.
func (a *Agent) EndShare(ctx context.Context, id carnet.ShareID) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	for _, s := range a.streamsOfShare(id) {
		share, _ := a.shareOf(s.id)
		if !share.ended() {
			a.foldMu.Lock()
			share.Lapses = append(slices.Clone(share.Lapses), Lapse{From: s.nextBatch})
			a.setShared(s.id, &share) // at once, whatever the store says: it only refuses
			a.foldMu.Unlock()
		} else if s.ended {
			continue
		}
		if err := a.saveAvatar(ctx, s.avatar, s.avatar.streams, s); err != nil {
			return err
		}
		s.ended = true
		a.noteGives(s, givesNothing)
	}
	return nil
}

func (a *Agent) streamsOfShare(id carnet.ShareID) (all []*stream) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for stream, share := range a.shared {
		if share.ID == id {
			all = append(all, a.streams[stream])
		}
	}
	return all
}
