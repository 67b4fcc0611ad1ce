package avatar

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"

	"carnet"
)

// Event is what an avatar's stream said at once.
type Event struct {
	Measurements []carnet.Measurement
	Cursor       Cursor // go on after this event from here

	place int
	next  uint64
}

// Cursor is how far a subscriber has read each of an avatar's streams: opaque
// text outside.
type Cursor struct{ next []uint64 }

// String writes the cursor.
func (c Cursor) String() string {
	var b []byte
	for _, n := range c.next {
		b = binary.AppendUvarint(b, n)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseCursor reads what String wrote. The empty string is the beginning.
func ParseCursor(s string) (c Cursor, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	for err == nil && len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 || len(c.next) > 1024 {
			return Cursor{}, carnet.Errorf(carnet.Malformed, "the cursor %q is not one that was given out", s)
		}
		c.next, b = append(c.next, v), b[n:]
	}
	if err != nil {
		return Cursor{}, carnet.Errorf(carnet.Malformed, "the cursor %q is not one that was given out", s)
	}
	return c, nil
}

// maxWaiting is how many events wait for one subscriber in memory. One that
// reads slower goes on from the store and loses nothing.
const maxWaiting = 256

// Subscription is one reader's view of an avatar as it goes on: first what was
// stored after its cursor, then what comes. Next is for one goroutine.
type Subscription struct {
	agent  *Agent
	avatar *Avatar
	next   []uint64 // by the streams' places: what Next gives after

	// Guarded by avatar.mu.
	waiting []Event
	behind  bool // events were dropped: read the store
	wake    chan struct{}

	replayed []Event // read from the store, not yet given
}

// Subscribe opens a subscription after a cursor. Without one (nil) it begins
// with what comes from now on.
func (a *Agent) Subscribe(id carnet.AvatarID, after *Cursor) (*Subscription, error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	s := &Subscription{agent: a, avatar: v, wake: make(chan struct{}, 1), behind: after != nil}
	v.mu.Lock()
	first := len(v.subscribers) == 0
	v.subscribers[s] = struct{}{}
	v.mu.Unlock()
	if after != nil {
		s.next = append(s.next, after.next...)
	} else {
		a.mu.RLock()
		for _, st := range v.streams {
			s.next = append(s.next, st.nextFirst)
		}
		a.mu.RUnlock()
	}
	if first {
		a.demand(v, true)
	}
	return s, nil
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.avatar.mu.Lock()
	delete(s.avatar.subscribers, s)
	last := len(s.avatar.subscribers) == 0
	s.avatar.mu.Unlock()
	if last {
		s.agent.demand(s.avatar, false)
	}
}

// demand tells an avatar's senders whether somebody waits.
func (a *Agent) demand(v *Avatar, on bool) {
	for _, s := range a.streamsOf(v) {
		body, err := json.Marshal(carnet.Demand{Stream: s.id, On: on})
		if err != nil {
			a.log.Error("encode a demand", "err", err)
			continue
		}
		a.notify(s.sender, carnet.NoticeDemand, body)
	}
}

// offer gives an event to the subscriber without waiting. The caller holds the
// avatar's mutex.
func (s *Subscription) offer(e Event) {
	if s.behind {
		return
	}
	if len(s.waiting) >= maxWaiting {
		s.waiting, s.behind = nil, true
	} else {
		s.waiting = append(s.waiting, e)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next returns the next event. It blocks until there is one or ctx ends.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if len(s.replayed) > 0 {
			e := s.replayed[0]
			s.replayed = s.replayed[1:]
			if s.give(&e) {
				return e, nil
			}
			continue
		}
		s.avatar.mu.Lock()
		behind := s.behind
		var e *Event
		if !behind && len(s.waiting) > 0 {
			e = &s.waiting[0]
			s.waiting = s.waiting[1:]
		}
		s.behind = false
		s.avatar.mu.Unlock()
		switch {
		case behind:
			if err := s.replay(ctx); err != nil {
				return Event{}, err
			}
			continue
		case e != nil:
			if s.give(e) {
				return *e, nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-s.wake:
		}
	}
}

// give moves the subscription past an event, and reports whether anything of it
// is new.
func (s *Subscription) give(e *Event) bool {
	for len(s.next) <= e.place {
		s.next = append(s.next, 0)
	}
	if e.next <= s.next[e.place] {
		return false
	}
	if fresh := e.next - s.next[e.place]; fresh < uint64(len(e.Measurements)) {
		e.Measurements = e.Measurements[uint64(len(e.Measurements))-fresh:]
	}
	s.next[e.place] = e.next
	e.Cursor = Cursor{append([]uint64(nil), s.next...)}
	return true
}

// replayWindow is how many of a stream's measurements one replay reads.
const replayWindow = 50_000

// replay reads from the store what comes after the subscription's place, in
// order, and leaves the subscription behind while there is more.
func (s *Subscription) replay(ctx context.Context) error {
	o := opening{decoder: newColumnsDecoder()}
	for _, st := range s.agent.streamsOf(s.avatar) {
		at := uint64(0)
		if st.place < len(s.next) {
			at = s.next[st.place]
		}
		var read []Event
		numbers := span64{at, at + replayWindow}
		err := s.agent.eachOf(ctx, &o, st, ever, numbers, func(first uint64, ms []carnet.Measurement) error {
			read = append(read, Event{
				Measurements: append([]carnet.Measurement(nil), ms...), place: st.place, next: first + uint64(len(ms)),
			})
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortFunc(read, func(p, q Event) int { return cmp.Compare(p.next, q.next) })
		s.replayed = append(s.replayed, read...)
		if s.agent.nextFirst(st) > numbers.to {
			s.avatar.mu.Lock()
			s.behind, s.waiting = true, nil
			s.avatar.mu.Unlock()
			if len(read) == 0 {
				s.skip(st.place, numbers.to)
			}
		}
	}
	return nil
}

// skip moves past numbers that the store no longer has.
func (s *Subscription) skip(place int, to uint64) {
	for len(s.next) <= place {
		s.next = append(s.next, 0)
	}
	s.next[place] = max(s.next[place], to)
}

func (a *Agent) nextFirst(s *stream) uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return s.nextFirst
}
