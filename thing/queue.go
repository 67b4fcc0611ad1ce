package thing

import (
	"math"
	"time"
)

// queue holds the lanes of one linger that have something pending, by when they
// became so.
type queue struct {
	lanes []*lane
	// disordered: positions don't grow along the queue, for some lanes began to
	// read the log again. Kept until the queue is empty.
	disordered bool
}

func (q *queue) push(l *lane) {
	if n := len(q.lanes); n > 0 && l.first() < q.lanes[n-1].first() {
		q.disordered = true
	}
	q.lanes = append(q.lanes, l)
}

func (q *queue) pop() {
	q.lanes[0] = nil
	if q.lanes = q.lanes[1:]; len(q.lanes) == 0 {
		q.disordered = false
	}
}

// oldest is the lowest position that a lane holds.
func (q *queue) oldest() uint64 {
	if len(q.lanes) == 0 {
		return math.MaxUint64
	}
	oldest := q.lanes[0].first()
	if q.disordered {
		for _, l := range q.lanes {
			oldest = min(oldest, l.first())
		}
	}
	return oldest
}

// enqueue is called for a lane that has something pending now.
func (r *run) enqueue(l *lane) {
	l.queued = r.sender.agent.now()
	if r.sender.demanded(l.course.mapping.Stream) {
		r.queue(0).push(l)
	} else {
		r.queue(l.linger).push(l)
	}
}

func (r *run) queue(linger time.Duration) *queue {
	q := r.queues[linger]
	if q == nil {
		q = new(queue)
		r.queues[linger] = q
	}
	return q
}

// hasten moves lanes that wait to the queue that doesn't, once somebody has
// subscribed to their streams.
func (r *run) hasten() {
	if !r.sender.newDemand() {
		return
	}
	for linger, q := range r.queues {
		if linger == 0 {
			continue
		}
		waiting := q.lanes
		*q = queue{}
		for _, l := range waiting {
			if r.sender.demanded(l.course.mapping.Stream) {
				r.queue(0).push(l)
			} else {
				q.push(l)
			}
		}
	}
}

// due is a queue whose first lane is due, or nil when there is none. When the
// lanes hold too much, any lane is.
func (r *run) due(now time.Time) *queue {
	for linger, q := range r.queues {
		if len(q.lanes) > 0 && (now.Sub(q.lanes[0].queued) >= linger || r.held >= maxPending) {
			return q
		}
	}
	return nil
}

// untilDue says how long until a lane is due; negative when none waits.
func (r *run) untilDue(now time.Time) time.Duration {
	wait := time.Duration(-1)
	for linger, q := range r.queues {
		if len(q.lanes) == 0 {
			continue
		}
		if r.held >= maxPending {
			return 0
		}
		wait = sooner(wait, max(0, linger-now.Sub(q.lanes[0].queued)))
	}
	return wait
}
