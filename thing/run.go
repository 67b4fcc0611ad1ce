package thing

import (
	"context"
	"time"

	"carnet"
	"carnet/link"
	"carnet/senml"
)

// readyFrames is how many recorded frames may wait for the link to take them.
const readyFrames = 4

// progressEvery is how often an empty frame says that something was decided and
// nothing admitted, so that a restart doesn't decide it again.
const progressEvery = 2 * time.Second

// gatherFor is the least time between two frames of less than gatherBatches
// batches: a frame costs a signature and a row at each end, whatever it holds.
const (
	gatherFor     = 2 * time.Millisecond
	gatherBatches = 64
)

// run is what a sender does during one connection: it takes committed messages
// into lanes, builds frames of the lanes that are due, and has them recorded.
type run struct {
	sender      *sender
	ctx         context.Context // its cause says why the run ended
	cancel      context.CancelCauseFunc
	done        chan struct{}
	recordedC   chan *frame // from the committer; its capacity is all that can be under way
	ready       chan *frame
	incarnation uint64

	// Owned by the loop; courses also guarded by sender.mu.
	number   uint64
	parent   carnet.Fingerprint
	position uint64 // next position to take from the log
	courses  map[uint32]*course
	queues   map[time.Duration]*queue
	held     int // measurements in lanes
	progress time.Time
	moved    bool // something was decided since the last frame
	builder  builder
	underWay int    // frames with the committer
	snapshot uint64 // the frame of the last snapshot
}

// queue holds the lanes of one linger, by when they became non-empty.
type queue struct{ lanes []*lane }

func newRun(s *sender, at link.Resume) *run {
	r := &run{
		sender: s, done: make(chan struct{}), ready: make(chan *frame, readyFrames), recordedC: make(chan *frame, readyFrames),
		incarnation: at.Incarnation, number: at.Last.Number, parent: at.Last.Hash, position: 1,
		courses: make(map[uint32]*course), queues: make(map[time.Duration]*queue), progress: s.agent.now(),
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
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
	c := &course{mapping: m, nextFirst: 0, counts: make(counts, properties), delta: make(counts, properties)}
	for _, linger := range m.thing.lingers {
		c.lanes = append(c.lanes, lane{course: c, linger: linger, cursor: m.From, taken: m.From})
	}
	r.courses[m.Number] = c
	return c
}

func (r *run) start() { go r.loop() }

func (r *run) failure() error { return context.Cause(r.ctx) }

// loop ends when the run is cancelled or something fails; the link then begins
// a new run.
func (r *run) loop() {
	defer close(r.done)
	r.cancel(r.work())
}

func (r *run) work() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var out []*frame // recorded, not yet taken by the link
	for {
		more, err := r.takeCommitted()
		if err != nil {
			return err
		}
		var next time.Duration = -1
		if r.underWay+len(out) < readyFrames {
			if next, err = r.buildDue(); err != nil {
				return err
			}
		}
		timer.Reset(max(next, 0))
		if next < 0 {
			timer.Stop()
		}
		var ready chan *frame
		var first *frame
		if len(out) > 0 {
			ready, first = r.ready, out[0]
		}
		select {
		case <-r.ctx.Done():
			return nil
		case f := <-r.recordedC:
			r.underWay--
			out = append(out, f)
		case ready <- first:
			out = out[1:]
		case <-more:
		case <-timer.C:
		}
	}
}

// recorded is called by the committer once the frame's record is on disk.
func (r *run) recorded(f *frame) { r.recordedC <- f }

// takeCommitted moves committed messages into the lanes until there are no more
// or the lanes hold enough. more tells when to look again; nil means after the
// next frame.
func (r *run) takeCommitted() (more <-chan struct{}, err error) {
	a := r.sender.agent
	r.sender.mu.Lock()
	defer r.sender.mu.Unlock()
	r.reopenLanes(a.now())
	for r.held < maxPending {
		groups, inMemory, wake := a.feed.from(r.position)
		if !inMemory {
			if err := r.takeFromLog(); err != nil {
				return nil, err
			}
			continue
		}
		if len(groups) == 0 {
			return wake, nil
		}
		for _, g := range groups {
			hour := hourOf(g.received)
			for i, e := range g.entries {
				if position := g.first + uint64(i); position >= r.position {
					r.take(position, hour, e.thing, g.measurements[e.from:e.to], g.properties[e.from:e.to])
				}
			}
			r.position = g.next()
			a.release(g)
		}
	}
	return nil, nil
}

// takeFromLog reads a stretch of the log into the lanes.
func (r *run) takeFromLog() error {
	a := r.sender.agent
	rows, err := a.store.Log(r.ctx, r.position, readBytes)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		// What the position asks for was trimmed, or is yet to be committed.
		r.position = max(r.position, a.feed.oldest())
		return nil
	}
	decoder := senml.NewDecoder(senml.Limits{})
	var properties []uint16
	for _, row := range rows {
		hour := hourOf(row.Received)
		err := a.eachMessage(r.ctx, row, decoder, r.wants, func(position uint64, t *Thing, ms []carnet.Measurement) error {
			if position < r.position {
				return nil
			}
			properties = properties[:0]
			for i := range ms {
				p, known := t.description.Lookup(ms[i].Name)
				if !known {
					return carnet.Errorf(carnet.Tampered, "message %d of the log has a property that its thing doesn't", position)
				}
				properties = append(properties, uint16(p.Index))
			}
			r.take(position, hour, t, ms, properties)
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

func (r *run) take(position uint64, hour uint32, t *Thing, ms []carnet.Measurement, properties []uint16) {
	for _, m := range t.mappingsTo(r.sender.peer.Party) {
		c := r.courses[m.Number]
		if c == nil {
			c = r.add(m)
		}
		r.held += c.take(position, hour, ms, properties, r.enqueue)
	}
}

func (r *run) enqueue(l *lane) {
	linger := l.linger
	if r.sender.demand[l.course.mapping.Stream] {
		linger = 0
	}
	q := r.queues[linger]
	if q == nil {
		q = new(queue)
		r.queues[linger] = q
	}
	l.queued = r.sender.agent.now()
	q.lanes = append(q.lanes, l)
}

// popDue takes the lane off its queue that is due, or nil when none is.
func (r *run) popDue(now time.Time) *lane {
	for linger, q := range r.queues {
		if len(q.lanes) == 0 {
			continue
		}
		l := q.lanes[0]
		if now.Sub(l.queued) < linger && r.held < maxPending {
			continue
		}
		q.lanes = q.lanes[1:]
		return l
	}
	return nil
}

// buildDue builds a frame if a lane is due, and says when to look again
// (negative: when something new is committed).
func (r *run) buildDue() (time.Duration, error) {
	now := r.sender.agent.now()
	wait := r.waitDue(now)
	if wait > 0 || wait < 0 && !r.owesProgress(now) {
		return wait, nil
	}
	f, err := r.build(now)
	if err != nil || f == nil {
		return r.waitDue(now), err
	}
	if err := r.sender.agent.recordFrame(f); err != nil {
		return 0, err
	}
	r.underWay++
	r.moved = false
	return 0, r.snapshotNow()
}

// waitDue says how long until the first lane is due: negative when none waits.
func (r *run) waitDue(now time.Time) time.Duration {
	if r.held >= maxPending {
		return 0
	}
	wait := time.Duration(-1)
	for linger, q := range r.queues {
		if len(q.lanes) == 0 {
			continue
		}
		due := max(0, linger-now.Sub(q.lanes[0].queued))
		if wait < 0 || due < wait {
			wait = due
		}
	}
	if since := now.Sub(r.progress); wait == 0 && since < gatherFor && len(r.builder.ends) < gatherBatches {
		return gatherFor - since
	}
	if wait < 0 && r.moved {
		return max(time.Nanosecond, progressEvery-now.Sub(r.progress))
	}
	return wait
}

// owesProgress reports whether an empty frame is due.
func (r *run) owesProgress(now time.Time) bool {
	return r.moved && now.Sub(r.progress) >= progressEvery
}

// park closes a lane until a time: what it held, and what comes, stays in the log.
func (l *lane) park(until time.Time) {
	l.parked, l.reopen, l.taken = true, until, l.first
	l.pending = l.pending[:0]
}

// drop forgets what a lane holds: its mapping has ended.
func (l *lane) drop() { l.cursor, l.pending = l.taken, l.pending[:0] }

// reopenLanes takes the log up again where the lanes stopped whose time has come.
func (r *run) reopenLanes(now time.Time) {
	for _, c := range r.courses {
		for i := range c.lanes {
			if l := &c.lanes[i]; l.parked && !now.Before(l.reopen) {
				l.parked = false
				r.position = min(r.position, l.taken)
			}
		}
	}
}

// snapshotNow saves the link's whole state from time to time, so that a start
// doesn't read all records.
func (r *run) snapshotNow() error {
	a := r.sender.agent
	if r.number-r.snapshot < uint64(max(snapshotFrames, len(r.courses)/8)) {
		return nil
	}
	r.snapshot = r.number
	var state []byte
	for _, c := range r.courses {
		var err error
		if state, err = c.appendWhole(state); err != nil {
			return err
		}
	}
	peer := r.sender.peer.Party
	sealed, err := a.rest.Seal(nil, snapshotAAD(peer, r.number), state)
	if err != nil {
		return err
	}
	return a.store.SaveLink(r.ctx, LinkSnapshot{Link: peer, Number: r.number, State: sealed})
}

// snapshotFrames is after how many frames a snapshot is due.
const snapshotFrames = 256

// covered is the position before which everything is decided.
func (r *run) covered() uint64 {
	position := r.position
	for _, q := range r.queues {
		if len(q.lanes) > 0 {
			position = min(position, q.lanes[0].first)
		}
	}
	for _, c := range r.courses {
		for i := range c.lanes {
			if l := &c.lanes[i]; l.parked {
				position = min(position, l.taken)
			}
		}
	}
	return position
}
