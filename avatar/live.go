package avatar

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"carnet"
	"carnet/policy"
)

// Event is what an avatar's stream said at once.
type Event struct {
	Measurements []carnet.Measurement
	Class        policy.Class
	Cursor       Cursor // go on after this event from here
	Batch        *Batch // for who follows; nil for who is subscribed
	Inward       bool   // it came by a share, and isn't to be passed on

	place int
	next  uint64
	came  came // of what was read from the store
}

// came is the order in which an avatar's batches were received. What came with a move
// was received before anything else here.
type came struct {
	here bool
	batchAt
}

func (c came) before(o came) bool {
	if c.here != o.here {
		return o.here
	}
	return c.frame < o.frame || c.frame == o.frame && c.leaf < o.leaf
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
		if n <= 0 || len(c.next) >= maxStreams {
			return Cursor{}, noCursor(s)
		}
		c.next, b = append(c.next, v), b[n:]
	}
	if err != nil {
		return Cursor{}, noCursor(s)
	}
	return c, nil
}

// reaches reports whether everything that comes before o comes before c.
func (c Cursor) reaches(o Cursor) bool {
	for i, n := range o.next {
		if n > 0 && (i >= len(c.next) || c.next[i] < n) {
			return false
		}
	}
	return true
}

// Reaches reports whether a cursor of an avatar has everything that another has.
func (a *Agent) Reaches(cursor, other string) bool {
	c, err := ParseCursor(cursor)
	o, failed := ParseCursor(other)
	return err == nil && failed == nil && c.reaches(o)
}

func noCursor(s string) error {
	return carnet.Errorf(carnet.Malformed, "the cursor %.80q is not one that was given out for this avatar", s).
		WithFix("give a cursor exactly as an event had it, an empty one for the beginning, or none for what comes from now on")
}

// within reports whether the cursor lies within what there is: nobody was given
// another.
func (c Cursor) within(streams []*stream) bool {
	if len(c.next) > len(streams) {
		return false
	}
	for i, n := range c.next {
		if n > streams[i].nextFirst {
			return false
		}
	}
	return true
}

// maxWaiting and maxWaitingMeasurements bound what waits for one subscriber in
// memory. One that reads slower goes on from the store and loses nothing.
const (
	maxWaiting             = 256
	maxWaitingMeasurements = 20_000
)

// Subscription is one reader's view of an avatar as it goes on: first what was
// stored after its cursor, then what comes. Next is for one goroutine.
type Subscription struct {
	agent  *Agent
	avatar *Avatar
	next   []uint64 // by the streams' places: the measurement that Next gives next

	whole bool   // wants batches, not measurements alone
	wake  func() // says that there is something to take; it doesn't block

	// Guarded by avatar.mu.
	waiting []Event
	size    int   // measurements in waiting
	behind  bool  // events were dropped: read the store
	live    bool  // somebody waits for what comes
	ended   error // why nothing comes any more

	replayed []Event   // read from the store, to be given next
	ahead    [][]Event // by the streams' places: read, and to be given when the others are as far
	batches  []uint64  // likewise: the batch that the next replay begins with

	woken chan struct{} // of who waits in Next
}

// Subscribe opens a subscription after a cursor. Without one (nil) it begins
// with what comes from now on.
func (a *Agent) Subscribe(id carnet.AvatarID, after *Cursor) (*Subscription, error) {
	v, err := a.readable(id)
	if err != nil {
		return nil, err
	}
	s := &Subscription{agent: a, avatar: v, woken: make(chan struct{}, 1), behind: after != nil, live: true}
	s.wake = func() {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
	known := true
	a.begin(v, s, func(streams []*stream) {
		if after != nil {
			known = after.within(streams)
			s.next = append(s.next, after.next...)
			return
		}
		for _, st := range streams {
			s.next = append(s.next, st.nextFirst)
		}
	})
	if !known {
		s.Close()
		return nil, noCursor(after.String())
	}
	a.demand(v)
	return s, nil
}

// begin enters a subscription between two frames, where place puts it: what it
// isn't given as it comes is in the store and in the tail's index.
func (a *Agent) begin(v *Avatar, s *Subscription, place func(streams []*stream)) {
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	place(a.streamsOf(v))
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.subscribers == nil {
		v.subscribers = &subscribers{all: make(map[*Subscription]struct{})}
	}
	v.subscribers.all[s] = struct{}{}
	v.subscribers.count(s, 1)
}

// Cursor is where the subscription begins: asked for before Next, it is the
// cursor of who has had nothing yet. It is not empty even if the avatar has no
// stream: empty text is for some the lack of a cursor.
func (s *Subscription) Cursor() Cursor {
	s.reach(0)
	return Cursor{append([]uint64(nil), s.next...)}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	v := s.avatar
	v.mu.Lock()
	if v.subscribers.has(s) {
		v.subscribers.count(s, -1)
		if delete(v.subscribers.all, s); len(v.subscribers.all) == 0 {
			v.subscribers = nil
		}
	}
	v.mu.Unlock()
	s.agent.demand(v)
}

// has reports whether somebody is among them; all may be nil.
func (all *subscribers) has(s *Subscription) bool {
	if all == nil {
		return false
	}
	_, there := all.all[s]
	return there
}

// each are all of them; all may be nil.
func (all *subscribers) each() map[*Subscription]struct{} {
	if all == nil {
		return nil
	}
	return all.all
}

// count notes that a subscriber has come (1) or leaves (-1).
func (all *subscribers) count(s *Subscription, one int) {
	if s.live {
		all.live += one
	}
	if s.whole {
		all.whole += one
	}
}

// publish gives an event to who is subscribed.
func (v *Avatar) publish(e Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.subscribers.each() {
		s.offer(e)
	}
}

// offer gives an event to the subscriber without waiting. The caller holds the
// avatar's mutex.
func (s *Subscription) offer(e Event) {
	if s.behind {
		return
	}
	if !s.whole {
		e.Batch = nil
	}
	if s.size += len(e.Measurements); s.size > maxWaitingMeasurements && len(s.waiting) > 0 || len(s.waiting) >= maxWaiting {
		s.waiting, s.size, s.behind = nil, 0, true
	} else {
		s.waiting = append(s.waiting, e)
	}
	s.wake()
}

// Next returns the next event. It blocks until there is one or ctx ends.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok, err := s.ready(ctx); ok || err != nil {
			return e, err
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-s.woken:
		}
	}
}

// Skip hands over the events that there are now, without waiting for more.
func (s *Subscription) Skip(ctx context.Context, see func(Event) error) error {
	for {
		e, ok, err := s.ready(ctx)
		if err != nil || !ok {
			return err
		}
		if err := see(e); err != nil {
			return err
		}
	}
}

// ready returns the next event if there is one now.
func (s *Subscription) ready(ctx context.Context) (Event, bool, error) {
	for {
		e, ok, behind, err := s.take()
		switch {
		case err != nil:
			return Event{}, false, err
		case ok && s.give(&e):
			return e, true, nil
		case behind:
			if err := s.replay(ctx); err != nil {
				s.fall()
				return Event{}, false, err
			}
		case !ok:
			return Event{}, false, nil
		}
	}
}

// take returns the next event at hand. If there is none and the subscription is
// behind, what comes from now on waits for it, and it is to replay.
func (s *Subscription) take() (e Event, ok, behind bool, err error) {
	s.avatar.mu.Lock()
	defer s.avatar.mu.Unlock()
	switch {
	case s.ended != nil:
		return Event{}, false, false, s.ended
	case len(s.replayed) > 0:
		e, s.replayed = s.replayed[0], s.replayed[1:]
		return e, true, false, nil
	case s.behind:
		s.behind = false
		return Event{}, false, true, nil
	case len(s.waiting) == 0:
		return Event{}, false, false, nil
	}
	e, s.waiting = s.waiting[0], s.waiting[1:]
	s.size -= len(e.Measurements)
	return e, true, false, nil
}

// end has a subscription end: its avatar has moved away. The caller holds the
// avatar's mutex.
func (s *Subscription) end(why error) {
	s.ended, s.waiting, s.size = why, nil, 0
	s.wake()
}

// fall puts the subscription behind: it is to replay.
func (s *Subscription) fall() {
	s.avatar.mu.Lock()
	defer s.avatar.mu.Unlock()
	s.behind, s.waiting, s.size = true, nil, 0
}

// give moves the subscription past an event, and reports whether anything of it
// is new.
func (s *Subscription) give(e *Event) bool {
	s.reach(e.place)
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

// replayWindow is how many measurements of a stream one replay reads, and the
// rest of the last batch.
const replayWindow = 20_000

// replay reads from the store what comes after the subscription's place, in the order
// in which it was received, as who was there had it live: what a view's rates remember
// is then the same. It leaves the subscription behind while there is more.
func (s *Subscription) replay(ctx context.Context) error {
	// What is received from now on waits for the subscription.
	s.agent.mu.RLock()
	upTo := s.agent.folded
	s.agent.mu.RUnlock()
	streams := s.agent.streamsOf(s.avatar)
	more := make([]bool, len(streams)) // there may be more of the stream, or isn't known
	r := reading{agent: s.agent, opening: newOpening(), minutes: ever}
	for i, st := range streams {
		s.reach(int(st.place))
		var err error
		if more[i] = len(s.ahead[st.place]) > 0; !more[i] {
			more[i], err = s.readAhead(ctx, &r, st, upTo)
		}
		if err != nil {
			s.replayed = nil
			clear(s.ahead)
			clear(s.batches)
			return err
		}
	}
	for {
		first := -1
		for i, st := range streams {
			switch ahead := s.ahead[st.place]; {
			case len(ahead) == 0 && more[i]:
				s.fall()
				return nil
			case len(ahead) > 0 && (first < 0 || ahead[0].came.before(s.ahead[streams[first].place][0].came)):
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		place := streams[first].place
		s.replayed, s.ahead[place] = append(s.replayed, s.ahead[place][0]), s.ahead[place][1:]
	}
}

// readAhead reads some of what a stream has up to a frame, and reports whether there is
// more.
func (s *Subscription) readAhead(ctx context.Context, r *reading, st *stream, upTo uint64) (more bool, err error) {
	place, read := int(st.place), 0
	here := s.agent.formerOf(st.id) == nil
	errBeyond := errors.New("the rest waits")
	r.start(st, s.batches[place], s.next[place])
	err = r.each(ctx, func(b readBatch) error {
		if here && b.at.frame > upTo {
			r.batch = b.header.Number
			return errBeyond
		}
		e := Event{Measurements: append([]carnet.Measurement(nil), b.measurements...), Class: policy.Class{Label: b.body.Label, Retention: b.body.Retention}, Inward: s.agent.inward(st), place: place, next: b.end(), came: came{here, b.at}}
		if s.whole {
			e.Batch = newBatch(st, b.bytes, b.header, b.body)
		}
		s.ahead[place] = append(s.ahead[place], e)
		if read += len(b.measurements); read >= replayWindow {
			return errEnough
		}
		return nil
	})
	s.batches[place] = r.batch
	switch {
	case errors.Is(err, errEnough):
		return true, nil
	case errors.Is(err, errBeyond):
		return false, nil
	}
	return false, err
}

// reach makes room for a stream's place.
func (s *Subscription) reach(place int) {
	for len(s.next) <= place {
		s.next = append(s.next, 0)
	}
	for len(s.batches) <= place {
		s.batches, s.ahead = append(s.batches, 0), append(s.ahead, nil)
	}
}
