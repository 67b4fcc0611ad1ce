package avatar

import (
	"context"
	"errors"
	"slices"

	"carnet"
	"carnet/seal"
)

// passing is what an avatar's document says of its move. Guarded by Agent.mu.
type passing struct {
	frozen carnet.CrossingID // for which it keeps still; zero: none
	gone   *goneDocument     // where it went
}

// Changeable refuses what a user wants to change of an avatar, or by it, while it
// keeps still for a move (carnet.Conflict), or when it isn't here any more.
func (a *Agent) Changeable(id carnet.AvatarID) error {
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	return a.changeable(v)
}

func (a *Agent) changeable(v *Avatar) error {
	if x, frozen := a.frozenFor(v); frozen {
		return carnet.Errorf(carnet.Conflict, "the avatar keeps still: it moves to another world by crossing %s", x).
			WithFix("see 'carnet avatar status'; when the move is over, or cancelled, try again")
	}
	return nil
}

// Frozen says for which crossing an avatar keeps still, if it does.
func (a *Agent) Frozen(id carnet.AvatarID) (carnet.CrossingID, bool, error) {
	v, err := a.avatar(id)
	if err != nil {
		return carnet.CrossingID{}, false, err
	}
	x, frozen := a.frozenFor(v)
	return x, frozen, nil
}

func (a *Agent) frozenFor(v *Avatar) (carnet.CrossingID, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if v.passing == nil || v.passing.frozen == (carnet.CrossingID{}) {
		return carnet.CrossingID{}, false
	}
	return v.passing.frozen, true
}

// Freeze has an avatar keep still for a crossing, durably: from now on no user
// changes it. What its senders send goes on being taken and shown. Frozen again
// for the same crossing it stays so; for another, carnet.Conflict.
func (a *Agent) Freeze(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID) error {
	if x == (carnet.CrossingID{}) {
		return carnet.Errorf(carnet.Malformed, "a move has no crossing")
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	if had, frozen := a.frozenFor(v); frozen && had == x {
		return nil
	} else if frozen {
		return a.changeable(v)
	}
	return a.setFrozen(ctx, v, x)
}

// Thaw ends what Freeze began, if it was for this crossing. It is durable on
// return.
func (a *Agent) Thaw(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	if had, frozen := a.frozenFor(v); !frozen || had != x {
		return nil
	}
	return a.setFrozen(ctx, v, carnet.CrossingID{})
}

// setFrozen notes durably for which crossing an avatar keeps still. The caller
// holds changeMu.
func (a *Agent) setFrozen(ctx context.Context, v *Avatar, x carnet.CrossingID) error {
	a.mu.Lock()
	before := v.passing
	v.passing = &passing{frozen: x}
	if x == (carnet.CrossingID{}) {
		v.passing = nil
	}
	a.mu.Unlock()
	err := a.saveAvatar(ctx, v, v.streams, nil)
	if err != nil {
		a.mu.Lock()
		v.passing = before
		a.mu.Unlock()
	}
	return err
}

// Pack moves what was folded so far into stretches, which alone can leave. It is
// done once before a freeze, so that little is left to do then.
func (a *Agent) Pack(ctx context.Context) error { return a.Compact(ctx, 1) }

// moving are the streams of an avatar that move with it: what came by shares
// doesn't, since others gave it to this world.
func (a *Agent) moving(v *Avatar) (streams []*stream) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range v.streams {
		if _, shared := a.shared[s.id]; !shared {
			streams = append(streams, s)
		}
	}
	return streams
}

// leaves finds an avatar that may move, or has moved and isn't deleted yet: its next
// home may need of it again what it lost.
func (a *Agent) leaves(id carnet.AvatarID) (*Avatar, error) {
	v, err := a.avatar(id)
	if err == nil {
		return v, nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if gone := a.departed[id]; gone != nil && gone.passing.gone.Cleared.IsZero() {
		return gone, nil
	}
	return nil, err
}

// MovedStreams lists the streams that move with an avatar, as they stand. What
// came by shares doesn't move, and neither do batches that were refused.
func (a *Agent) MovedStreams(ctx context.Context, id carnet.AvatarID) ([]MovedStream, error) {
	v, err := a.leaves(id)
	if err != nil {
		return nil, err
	}
	a.foldMu.Lock()
	moved := headsOf(a.moving(v))
	a.foldMu.Unlock()
	return moved, a.describe(ctx, v, moved)
}

// headsOf says where streams stand. The caller holds foldMu.
func headsOf(streams []*stream) []MovedStream {
	moved := make([]MovedStream, len(streams))
	for i, s := range streams {
		moved[i] = MovedStream{Stream: s.id, NextBatch: s.nextBatch, NextFirst: s.nextFirst, Measurements: s.measurements, Batches: s.batches}
	}
	return moved
}

// describe fills in, of streams that are named as the store has them, what there
// is to know beside their numbers.
func (a *Agent) describe(ctx context.Context, v *Avatar, moved []MovedStream) error {
	for i := range moved {
		m := &moved[i]
		over, _, err := loadOne[overDocument](ctx, a, kindOver, m.Stream.String())
		if err != nil {
			return err
		}
		m.Over = over.list()
		if f := a.formerOf(m.Stream); f != nil {
			m.Stream, m.Origin, m.Passage, m.Commit, m.Slots = f.Name, f.Origin, f.Passage, f.Commit, m.Slots || f.Slots
			m.Left = slices.Concat(f.Left, m.Left)
			continue
		}
		if m.Here = true; a.origin == nil {
			return carnet.Errorf(carnet.Unavailable, "this world can't say where it proves what it received")
		}
		if m.Origin, err = a.origin(a.stream(m.Stream).sender); err != nil {
			return err
		}
	}
	return nil
}

// movingStream finds one of the streams that move with an avatar by its name.
func (a *Agent) movingStream(id carnet.AvatarID, name carnet.StreamID) (*stream, error) {
	v, err := a.leaves(id)
	if err != nil {
		return nil, err
	}
	for _, s := range a.moving(v) {
		if a.nameOf(s.id) == name {
			return s, nil
		}
	}
	return nil, noStream(name)
}

// movingFrom returns the streams that move with an avatar from a place on, the first
// of which is the place's own.
func (a *Agent) movingFrom(id carnet.AvatarID, from Place) ([]*stream, error) {
	v, err := a.leaves(id)
	if err != nil {
		return nil, err
	}
	streams := a.moving(v)
	if from == (Place{}) {
		return streams, nil
	}
	at := slices.IndexFunc(streams, func(s *stream) bool { return a.nameOf(s.id) == from.Stream })
	if at < 0 {
		return nil, noStream(from.Stream)
	}
	return streams[at:], nil
}

func noStream(name carnet.StreamID) error {
	return carnet.Errorf(carnet.NotFound, "the avatar has no stream %s that can move", name)
}

// MovedStretches lists the stretches that move with an avatar from a place on, by
// stream in the order of MovedStreams, at most limit. The next page begins after the
// last of them; an empty one ends the listing.
func (a *Agent) MovedStretches(ctx context.Context, id carnet.AvatarID, from Place, limit int) ([]MovedStretch, error) {
	streams, err := a.movingFrom(id, from)
	if err != nil {
		return nil, err
	}
	// What a compaction has added is undone if that ends in its midst.
	a.moveMu.RLock()
	defer a.moveMu.RUnlock()
	if len(a.moved.adding) > 0 {
		return nil, carnet.Errorf(carnet.Unavailable, "a compaction that ended in its midst is to be undone first")
	}
	listed := []MovedStretch{}
	for _, s := range streams {
		rows, err := a.store.StretchPage(ctx, s.id, from.Batch, limit-len(listed))
		if err != nil {
			return nil, err
		}
		name := a.nameOf(s.id)
		for i := range rows {
			m, err := movedStretch(&rows[i], name)
			if err != nil {
				return nil, err
			}
			listed = append(listed, m)
		}
		if len(listed) == limit {
			break
		}
		from.Batch = 0
	}
	return listed, nil
}

func movedStretch(row *StretchRow, name carnet.StreamID) (MovedStretch, error) {
	or, err := parseOrigins(row.Origins)
	return MovedStretch{
		Fingerprint: row.Fingerprint, Size: row.Size, Stream: name, Class: row.Class, First: row.FirstBatch, Last: row.LastBatch, Batches: row.Batches,
		FirstNumber: or.first, NextNumber: or.next, Measurements: row.Measurements, FromMinute: row.FromMinute, ToMinute: row.ToMinute, Received: row.Received,
	}, err
}

// movedRow finds a stretch that was listed; carnet.NotFound if its retention has
// ended since.
func (a *Agent) movedRow(ctx context.Context, id carnet.AvatarID, m *MovedStretch) (row StretchRow, err error) {
	s, err := a.movingStream(id, m.Stream)
	if err != nil {
		return row, err
	}
	rows, err := a.store.StretchPage(ctx, s.id, m.First, 1)
	if err != nil {
		return row, err
	}
	if len(rows) == 0 || rows[0].FirstBatch != m.First || rows[0].Fingerprint != m.Fingerprint {
		return row, carnet.Errorf(carnet.NotFound, "there is no stretch %s of stream %s", m.Fingerprint, m.Stream)
	}
	return rows[0], nil
}

// StretchBytes returns the bytes of a stretch that was listed.
func (a *Agent) StretchBytes(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, err := a.movedRow(ctx, id, &m)
	if err != nil {
		return nil, err
	}
	body, err := a.stretchBody(ctx, row)
	if errors.Is(err, errMoved) {
		return nil, carnet.Errorf(carnet.NotFound, "the retention of stretch %s has ended", m.Fingerprint)
	}
	return body, err
}

// StoredBytes returns the bytes of a stretch that was listed as they are in the store,
// for who looks at them; what is lost there is StretchBytes' to find.
func (a *Agent) StoredBytes(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, err := a.movedRow(ctx, id, &m)
	if err != nil {
		return nil, err
	}
	body, err := a.store.StretchBody(ctx, row.ID)
	if carnet.CodeOf(err) == carnet.NotFound {
		return a.StretchBytes(ctx, id, m)
	}
	return body, err
}

// MovedCeiling is the label that everything of an avatar that moves stays within,
// as far as its senders said: what a target must be cleared for.
func (a *Agent) MovedCeiling(ctx context.Context, id carnet.AvatarID) (label carnet.Label, err error) {
	v, err := a.avatar(id)
	if err != nil {
		return label, err
	}
	for _, s := range a.moving(v) {
		f := a.formerOf(s.id)
		err := a.eachEpoch(ctx, a.nameOf(s.id), func(k keyDocument) error {
			if (k.id.Level == seal.SlotLevel) == (f != nil && f.Slots) && k.doc.Ended.IsZero() {
				label = label.Join(k.doc.ceiling())
			}
			return nil
		})
		if err != nil {
			return label, err
		}
	}
	return label, nil
}
