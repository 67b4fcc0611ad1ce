package avatar

import (
	"bytes"
	"context"
	"slices"

	"carnet"
	"carnet/seal"
)

// Batch is a batch of an avatar's stream as it was received, and what opening it
// told.
type Batch struct {
	Stream    carnet.StreamID
	Sender    carnet.PartyID // whose stream it is
	Bytes     []byte
	Header    seal.Header
	Label     carnet.Label
	Retention carnet.Retention
	Hour      uint32 // of receipt at the stream's writer, as seal.Body has it
	First     uint64 // number of its first measurement
	Count     uint32
	Inward    bool // of EachBatch: it came by a share, and isn't to be passed on
}

// newBatch copies: what is read and folded is used again.
func newBatch(s *stream, batch []byte, h seal.Header, b seal.Body) *Batch {
	return &Batch{
		Stream: h.Stream, Sender: s.sender, Bytes: bytes.Clone(batch), Header: h,
		Label: b.Label, Retention: b.Retention, Hour: b.Hour, First: b.First, Count: b.Count,
	}
}

// End is the number of the measurement after its last.
func (b *Batch) End() uint64 { return b.First + uint64(b.Count) }

// followed reports whether somebody wants batches of what comes. The caller
// holds v.mu.
func (v *Avatar) followed() bool { return v.subscribers != nil && v.subscribers.whole > 0 }

// Following is the batches of an avatar from some place on, for who passes them
// on: each stream's in the order of their numbers, each once. It is a
// subscription whose events have their batches, and that is asked rather than
// waited for. An event has less measurements than its batch only if the place
// where the following began lies inside. Its methods are for one goroutine.
type Following struct{ s *Subscription }

// Follow begins where from says: for each stream the number of the measurement
// that is wanted first. A stream that comes later begins at its beginning. wake
// is called when there is something to take after Take has said that there is
// none; it must neither block nor call the agent.
func (a *Agent) Follow(id carnet.AvatarID, from func(carnet.StreamID) uint64, wake func()) (*Following, error) {
	v, err := a.readable(id)
	if err != nil {
		return nil, err
	}
	s := &Subscription{agent: a, avatar: v, wake: wake, behind: true, whole: true}
	a.begin(v, s, func(streams []*stream) {
		for _, st := range streams {
			s.next = append(s.next, from(a.nameOf(st.id)))
		}
	})
	return &Following{s}, nil
}

// Heads returns where an avatar's streams stand: the number of the measurement
// that each gets next.
func (a *Agent) Heads(id carnet.AvatarID) (map[carnet.StreamID]uint64, error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	heads := make(map[carnet.StreamID]uint64)
	for _, s := range a.streamsOf(v) {
		heads[a.nameOf(s.id)] = s.nextFirst
	}
	return heads, nil
}

// Hears reports whether an avatar has a stream of a sender.
func (a *Agent) Hears(id carnet.AvatarID, from carnet.PartyID) bool {
	v, err := a.avatar(id)
	return err == nil && slices.ContainsFunc(a.streamsOf(v), func(s *stream) bool { return s.sender == from })
}

// Take returns the next batch if there is one now.
func (f *Following) Take(ctx context.Context) (Event, bool, error) { return f.s.ready(ctx) }

// Demand says whether somebody waits for what comes: the avatar's senders then
// don't linger.
func (f *Following) Demand(on bool) {
	v := f.s.avatar
	v.mu.Lock()
	if v.subscribers.has(f.s) {
		v.subscribers.count(f.s, -1)
		f.s.live = on
		v.subscribers.count(f.s, 1)
	}
	v.mu.Unlock()
	f.s.agent.demand(v)
}

// Close ends it.
func (f *Following) Close() { f.s.Close() }

// SlotKey returns the key of the slot that a batch is of, to be granted to who
// gets a copy; carnet.NotFound if its epoch's is destroyed.
func (a *Agent) SlotKey(ctx context.Context, h seal.Header) (seal.Key, error) {
	k, err := a.epochs.key(ctx, h)
	if err != nil {
		return seal.Key{}, err
	}
	slot, err := k.Slot(h.Slot)
	if err != nil {
		return seal.Key{}, err
	}
	return slot.Key(), nil
}
