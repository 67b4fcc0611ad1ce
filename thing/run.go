package thing

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/link"
)

// Limits of what is built and not yet taken by the link. Several small frames
// are recorded by one commit.
const (
	readyFrames = 32
	readyBytes  = 4 << 20
)

// progressEvery is how often an empty frame says that something was decided and
// nothing admitted, so that a restart doesn't decide it again; the same when so
// many messages that don't concern the world have passed.
const (
	progressEvery    = 2 * time.Second
	progressMessages = 10_000
)

// gatherFor is the least time between two frames of less than gatherBatches
// batches: a frame costs a signature and a row at each end, whatever it holds.
const (
	gatherFor     = 4 * time.Millisecond
	gatherBatches = 64
)

// run is what a sender does during one connection: it takes messages into
// lanes, builds frames of the lanes that are due, and has them recorded.
// It ends with the connection; what it counted can still be read then.
type run struct {
	sender      *sender
	ctx         context.Context // its cause says why the run ended
	cancel      context.CancelCauseFunc
	done        chan struct{}
	ready       chan *frame   // recorded; its capacity is all that can be under way
	wake        chan struct{} // a mapping or a demand has changed, or a frame was taken
	incarnation uint64
	overtaken   uint64 // the position up to which the world may have what isn't recorded here; 0: it doesn't

	// What is built and not yet on its way.
	frames, bytes atomic.Int64
	gone          atomic.Uint64 // the last frame that is on its way
	// prompt is when a frame was last built of what may not wait, ns; 0: never.
	prompt atomic.Int64

	// Owned by the loop alone.
	snapshot uint64 // the frame of the last snapshot
	builder  builder

	// Written by the loop under mu, for others to read. Whoever holds the policy
	// lock, too, takes that one first.
	mu       sync.Mutex
	number   uint64
	parent   carnet.Fingerprint
	position uint64 // next position to take from the log
	courses  map[uint32]*course
	queues   map[time.Duration]*queue
	parked   []*lane
	touched  []*course // changed since the last frame
	held     int       // weight in lanes
	told     uint64    // what the last frame covers
	changes  uint64    // the changes of mappings that were noticed
	progress time.Time // of the last frame
}

func newRun(ctx context.Context, s *sender, at link.Resume) *run {
	r := &run{
		sender: s, done: make(chan struct{}), ready: make(chan *frame, readyFrames),
		wake: make(chan struct{}, 1), incarnation: at.Incarnation, number: at.Last.Number, snapshot: at.Last.Number, parent: at.Last.Hash,
		position: 1, courses: make(map[uint32]*course), queues: make(map[time.Duration]*queue), progress: s.agent.now(),
		builder: builder{limit: min(maxFrameBytes, at.MaxFrame/2)},
	}
	r.gone.Store(at.Last.Number)
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// course finds or makes the course of a mapping by its number; nil for one that
// this link doesn't have.
func (r *run) course(number uint32) *course {
	if c := r.courses[number]; c != nil {
		return c
	}
	m := r.sender.agent.mappingByNumber(number)
	if m == nil || m.World != r.sender.peer.Party {
		return nil
	}
	return r.add(m)
}

func (r *run) add(m *Mapping) *course {
	properties := len(m.thing.description.Properties)
	c := &course{mapping: m, counts: make(counts, properties), delta: make(counts, properties)}
	for _, linger := range m.thing.lingers {
		from := m.From
		if m.follows != nil {
			from = m.follows.Begin.at(linger)
		}
		c.lanes = append(c.lanes, lane{course: c, linger: linger, cursor: from, taken: from})
	}
	if m.follows != nil {
		c.nextBatch, c.nextFirst = m.follows.Begin.NextBatch, m.follows.Begin.NextFirst
		c.rates.CopyFrom(&m.memory)
	}
	r.courses[m.Number] = c
	return c
}

// adopt makes courses for the mappings that have none yet. The log is read from
// where they begin: the lanes of others pass over what they took before.
func (r *run) adopt() {
	world := r.sender.peer.Party
	for _, m := range r.sender.agent.mappingsTo(world) {
		if !slices.Contains(m.thing.mappingsTo(world), m) {
			continue // it has ended
		}
		c := r.courses[m.Number]
		if c == nil {
			c = r.add(m)
		}
		if !c.recorded && !c.touched {
			r.touch(c)
			r.position = min(r.position, m.From)
		}
	}
}

// notice takes up what has changed of mappings. A parked lane of one is opened: its
// view may have changed, and closes it again if not.
func (r *run) notice() {
	changes := r.sender.agent.changes.Load()
	if changes == r.changes {
		return
	}
	r.changes = changes
	r.adopt()
	r.parked = slices.DeleteFunc(r.parked, func(l *lane) bool {
		if l.turn == l.course.mapping.turn.Load() {
			return false
		}
		r.unpark(l)
		return true
	})
}

func (r *run) unpark(l *lane) {
	l.parked = false
	r.position = min(r.position, l.taken)
}

// rouse has the loop look at what has changed.
func (r *run) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *run) start() { go r.loop() }

func (r *run) failure() error { return context.Cause(r.ctx) }

// loop ends when the run is cancelled or something fails; the link then begins
// a new run.
func (r *run) loop() {
	defer close(r.done)
	r.cancel(r.work())
	r.sender.agent.feed.leave(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.position = r.covered()
	r.queues, r.parked, r.held, r.builder = nil, nil, 0, builder{}
	for _, c := range r.courses {
		for i := range c.lanes {
			c.lanes[i].pending, c.lanes[i].texts = nil, nil
		}
	}
}

func (r *run) work() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for r.ctx.Err() == nil {
		more, err := r.takeMessages()
		if err != nil {
			return err
		}
		var next time.Duration = -1
		if r.frames.Load() < readyFrames && r.bytes.Load() < readyBytes {
			var built bool
			if built, next, err = r.buildDue(); err != nil {
				return err
			} else if built {
				continue
			}
		}
		if next >= 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		select {
		case <-r.ctx.Done():
		case <-more:
		case <-r.wake:
		case <-timer.C:
		}
	}
	return nil
}

// recorded is called by the committer once the frame's record is on disk.
func (r *run) recorded(f *frame) { r.ready <- f }

// taken is called when the link has taken a frame.
func (r *run) taken(f *frame) {
	r.bytes.Add(-int64(len(f.wire)))
	r.frames.Add(-1)
	r.gone.Store(f.number)
	r.rouse()
}

// takeMessages moves messages that are committed, or about to be, into the lanes
// until there are no more or the lanes hold enough. more tells when to look
// again, at the latest; nil means after the next frame.
func (r *run) takeMessages() (more <-chan struct{}, err error) {
	a := r.sender.agent
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notice()
	r.hasten()
	r.reopenLanes(a.now())
	for r.held < maxPending && r.ctx.Err() == nil {
		parts, inMemory, wake := a.feed.from(r, r.position)
		if !inMemory {
			if err := r.takeFromLog(); err != nil {
				return nil, err
			}
			continue
		}
		if len(parts) == 0 {
			if p, some := a.filling(r.position); some {
				r.takePart(&p)
			}
			return wake, nil
		}
		for i := range parts {
			r.takePart(&parts[i])
		}
	}
	return nil, nil
}

// takePart moves what is new of a part into the lanes, and releases its group.
func (r *run) takePart(p *part) {
	for i, e := range p.entries {
		if position := p.first() + uint64(i); position >= r.position {
			r.take(position, p.hour, e.thing, p.samples[e.from:e.to], p.texts)
		}
	}
	r.position = p.next()
	r.sender.agent.release(p.group)
}

// takeFromLog reads a stretch of the log into the lanes. The store is read
// without the mutex, which others wait for.
func (r *run) takeFromLog() error {
	a := r.sender.agent
	from := r.position
	r.mu.Unlock()
	rows, err := a.store.Log(r.ctx, from, readBytes)
	r.mu.Lock()
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		// What the position asks for was trimmed, or is yet to be committed.
		r.position = max(r.position, a.feed.oldest())
		return nil
	}
	decoder := logDecoder()
	var samples []sample
	var texts texts
	for _, row := range rows {
		hour := hourOf(row.Received)
		err := a.eachMessage(r.ctx, row, decoder, r.wants, func(position uint64, t *Thing, ms []carnet.Measurement) error {
			if position < r.position {
				return nil
			}
			samples, texts = samples[:0], texts[:0]
			for i := range ms {
				p, known := t.description.Lookup(ms[i].Name)
				if !known {
					return carnet.Errorf(carnet.Tampered, "message %d of the log has a property that its thing doesn't", position)
				}
				samples = append(samples, texts.pack(uint16(p.Index), &ms[i]))
			}
			r.take(position, hour, t, samples, texts)
			return nil
		})
		if err != nil {
			return err
		}
		r.position = row.First + uint64(row.Count)
		if r.held >= maxPending {
			return nil
		}
	}
	return nil
}

func (r *run) wants(t *Thing) bool { return len(t.mappingsTo(r.sender.peer.Party)) > 0 }

func (r *run) take(position uint64, hour uint32, t *Thing, samples []sample, texts texts) {
	for _, m := range t.mappingsTo(r.sender.peer.Party) {
		// A mapping made this moment is adopted before anything else is taken, and
		// reads this message then.
		if c := r.courses[m.Number]; c != nil {
			r.held += c.take(position, hour, samples, texts, r.enqueue)
		}
	}
}

// buildDue builds a frame if one is due, and otherwise says when to look again
// (negative: when something new is committed).
func (r *run) buildDue() (built bool, wait time.Duration, err error) {
	now := r.sender.agent.now()
	if wait := r.wait(now); wait != 0 {
		return false, wait, nil
	}
	f, err := r.build(now)
	if err != nil || f == nil {
		return false, r.wait(now), err
	}
	if err := r.sender.agent.recordFrame(f); err != nil {
		return false, 0, err
	}
	return true, 0, r.snapshotNow()
}

// wait says how long until something is to be done: a lane is due or may open,
// or progress is owed. Negative: nothing waits.
func (r *run) wait(now time.Time) time.Duration {
	lane, later := r.untilDue(now), time.Duration(-1)
	since := now.Sub(r.progress)
	if lane == 0 && since < gatherFor && len(r.builder.ends) < gatherBatches && r.held < maxPending {
		lane = gatherFor - max(0, since)
	}
	if len(r.touched) > 0 || r.position-min(r.position, r.told) >= progressMessages {
		later = max(0, progressEvery-since)
	}
	for _, l := range r.parked {
		if !l.reopen.IsZero() {
			later = sooner(later, max(0, l.reopen.Sub(now)))
		}
	}
	return sooner(lane, later)
}

// sooner is the lesser of two times to wait, of which a negative one is never.
func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// owesProgress reports whether a frame is due even if it is empty.
func (r *run) owesProgress(now time.Time) bool {
	return now.Sub(r.progress) >= progressEvery &&
		(len(r.touched) > 0 || r.position-min(r.position, r.told) >= progressMessages)
}

// reopenLanes takes the log up again where the lanes stopped whose time has come.
func (r *run) reopenLanes(now time.Time) {
	r.parked = slices.DeleteFunc(r.parked, func(l *lane) bool {
		if l.reopen.IsZero() || now.Before(l.reopen) {
			return false
		}
		r.unpark(l)
		return true
	})
}

// snapshotNow saves the link's whole state from time to time, so that a start
// doesn't read all records.
func (r *run) snapshotNow() error {
	if r.number-r.snapshot < uint64(max(snapshotFrames, len(r.courses)/8)) {
		return nil
	}
	r.snapshot = r.number
	return r.saveState(r.ctx)
}

// saveState saves the link's whole state as of its last frame.
func (r *run) saveState(ctx context.Context) error {
	var state []byte
	for _, c := range r.courses {
		var err error
		if state, err = c.appendWhole(state); err != nil {
			return err
		}
	}
	peer, a := r.sender.peer.Party, r.sender.agent
	sealed, err := a.rest.Seal(nil, snapshotAAD(peer, r.number), state)
	if err != nil {
		return err
	}
	return a.store.SaveLink(ctx, LinkSnapshot{Link: peer, Number: r.number, State: sealed})
}

// snapshotFrames is after how many frames a snapshot is due.
const snapshotFrames = 256

// covered is the position before which everything is decided.
func (r *run) covered() uint64 {
	position := r.position
	for _, q := range r.queues {
		position = min(position, q.oldest())
	}
	for _, l := range r.parked {
		position = min(position, l.taken)
	}
	return position
}
