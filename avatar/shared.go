package avatar

import (
	"context"
	"slices"

	"carnet"
	"carnet/ledger"
)

// Shared says by which share a stream comes from another world.
type Shared struct {
	ID carnet.ShareID `json:"id"`
	// Onward: the avatar's readers may pass it on.
	Onward bool `json:"onward,omitempty"`
	// Ended is the number of the first batch of the stream that came too late; nil
	// while the share lasts.
	Ended *uint64 `json:"ended,omitempty"`
}

// shareOf returns the share by which a stream comes, and false if it comes from a
// things agent.
func (a *Agent) shareOf(id carnet.StreamID) (Shared, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s, ok := a.shared[id]
	return s, ok
}

// tooLate reports whether a batch of a stream came after the end of its share.
func (a *Agent) tooLate(s *stream, batch uint64) bool {
	share, ok := a.shareOf(s.id)
	return ok && share.Ended != nil && batch >= *share.Ended
}

// ShareOf returns the share by which a stream comes from another world, and
// false if it comes from a things agent or isn't here.
func (a *Agent) ShareOf(id carnet.StreamID) (Shared, bool) { return a.shareOf(id) }

// Enter gives a stream that another world shares the avatar that it speaks to.
// Entered again it stays as it is. It is durable on return.
func (a *Agent) Enter(ctx context.Context, id carnet.StreamID, from carnet.PartyID, to carnet.AvatarID, share Shared) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(to)
	if err != nil {
		return err
	}
	if s := a.stream(id); s != nil {
		if had, ok := a.shareOf(id); s.sender != from || s.avatar != v || !ok || had.ID != share.ID {
			return carnet.Errorf(carnet.Conflict, "the stream is here already, for something else")
		}
		return nil
	}
	switch {
	case id == nobody:
		return carnet.Errorf(carnet.Malformed, "a share names no stream")
	case len(v.streams) >= maxStreams:
		return carnet.Errorf(carnet.TooLarge, "the avatar has %d streams, which is all it may have", maxStreams)
	}
	item, err := a.state(ledger.Statement{
		Kind: ledger.Mapped, Time: a.now().UnixNano(), Peer: from, Mapping: carnet.MappingID(id), Avatar: v.id, Stream: id,
	})
	if err != nil {
		return err
	}
	s := &stream{id: id, sender: from, avatar: v, place: int32(len(v.streams))}
	a.setShared(id, &share)
	if err := a.grow(ctx, v, s, item); err != nil {
		a.setShared(id, nil)
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
	a.avatars[v.id] = v
	a.streams[s.id] = s
	a.mu.Unlock()
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
		if share.Ended == nil {
			a.foldMu.Lock()
			share.Ended = new(s.nextBatch)
			a.setShared(s.id, &share) // at once, whatever the store says: it only refuses
			a.foldMu.Unlock()
		} else if s.ended {
			continue
		}
		if err := a.saveAvatar(ctx, s.avatar, s.avatar.streams, s); err != nil {
			return err
		}
		s.ended = true
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
