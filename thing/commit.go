package thing

import (
	"context"
	"time"

	"carnet"
	"carnet/ledger"
)

// Limits of a group. A full group holds up whoever wants to add to it until the
// committer has taken it.
const (
	maxGroupBytes    = 4 << 20
	maxGroupMessages = 8192
)

// A committer waits a moment for a group to fill, below what its sync takes: that
// saves syncs where many devices have few messages in flight each. Under full
// load groups fill by themselves.
const (
	fewMessages  = 16  // fewer than that, and the wait is short
	manyMessages = 256 // more than that, and there is none
	shortWait    = 300 * time.Microsecond
	longWait     = time.Millisecond
	// promptFor is how long after a frame of what may not wait another one is
	// expected.
	promptFor = time.Second
)

// linger is how long the committer waits for a group to fill, by the size of the
// one before: for the next frame of what may not wait, which one commit then
// records with what it is made of. Else a lone device gains nothing by waiting.
func (a *Agent) linger(last int) time.Duration {
	if last > manyMessages {
		return 0
	}
	wait := a.untilFrame()
	switch {
	case last >= fewMessages:
		return max(wait, longWait)
	case last > 1:
		return max(wait, shortWait)
	}
	return wait
}

// untilFrame says how long until links have built frames of what they may take
// now and what may not wait, and tells these links to look. Zero: there are none.
func (a *Agent) untilFrame() (wait time.Duration) {
	now := a.now().UnixNano()
	for _, s := range a.allSenders() {
		r := s.current()
		if r == nil || r.ctx.Err() != nil {
			continue
		}
		if since := time.Duration(now - r.prompt.Load()); since < promptFor {
			wait = max(wait, gatherFor-since, 0) + shortWait
			r.rouse()
		}
	}
	return wait
}

// gather waits for the open group to fill, until something is in it that nothing
// is gained for by waiting.
func (a *Agent) gather(last int, timer *time.Timer) {
	wait := a.linger(last)
	if wait == 0 {
		return
	}
	select {
	case <-a.hurry: // for what is committed
	default:
	}
	if a.urgent() {
		return
	}
	timer.Reset(wait)
	select {
	case <-a.hurry:
	case <-timer.C:
	}
}

// hasten ends the wait for the open group to fill.
func (a *Agent) hasten() {
	select {
	case a.hurry <- struct{}{}:
	default:
	}
}

// retryNoSpace is how often a full store is tried again.
const retryNoSpace = time.Second

// add runs fill on the open group, waiting while it is full. It fails when the
// store has no room or the agent has stopped.
func (a *Agent) add(fill func(g *group)) *carnet.Error {
	a.groupMu.Lock()
	for a.full(a.open) && a.stopped == nil && a.noSpace == nil {
		a.room.Wait()
	}
	if err := cmpErr(a.stopped, a.noSpace); err != nil {
		a.groupMu.Unlock()
		return err
	}
	fill(a.open)
	a.groupMu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

// urgent reports whether the open group holds what nothing is gained for by
// waiting: a frame that is to leave, or a change that somebody waits for.
func (a *Agent) urgent() bool {
	a.groupMu.Lock()
	defer a.groupMu.Unlock()
	return len(a.open.frames) > 0 || len(a.open.waiters) > 0
}

func cmpErr(errs ...*carnet.Error) *carnet.Error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) full(g *group) bool {
	return len(g.body) >= maxGroupBytes || len(g.acks) >= maxGroupMessages
}

// barrier returns once everything added before it is on disk.
func (a *Agent) barrier(ctx context.Context) error { return a.change(ctx, nil, nil) }

// change makes documents and statements durable, with everything added before.
// Once they are added it waits for the outcome whatever becomes of ctx: who
// changes something must know whether it stands.
func (a *Agent) change(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	err := a.add(func(g *group) {
		g.documents = append(g.documents, documents...)
		g.statements = append(g.statements, statements...)
		g.waiters = append(g.waiters, done)
	})
	if err != nil {
		return err
	}
	a.hasten()
	return <-done
}

// commitLoop is the committer: it takes the open group, makes it durable, tells
// whoever waits, and hands the entries to the links. At the end it takes nothing
// more and commits what there is. Only a failure that makes durability doubtful
// ends it before.
func (a *Agent) commitLoop(ctx context.Context, end <-chan struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for last := 0; ; {
		select {
		case <-end:
			a.setStopped(carnet.Errorf(carnet.Unavailable, "the things agent is stopping"))
			return a.commit(ctx, a.take(), end)
		case <-a.wake:
		}
		a.gather(last, timer)
		g := a.take()
		last = len(g.acks)
		if err := a.commit(ctx, g, end); err != nil {
			return err
		}
	}
}

func (a *Agent) commit(ctx context.Context, g *group, end <-chan struct{}) error {
	if g.empty() {
		a.body = g.body
		g.body = nil
		a.spare.put(g)
		return nil
	}
	// While it is committed the links go on building frames of it.
	if len(g.entries) > 0 {
		a.feed.offer(g)
	}
	err := a.store.Commit(ctx, a.storeGroup(g))
	if carnet.CodeOf(err) == carnet.Conflict && len(g.documents) > 0 {
		// A document that changed meanwhile concerns those who changed it alone.
		g.answer(err)
		g.documents, g.statements = nil, nil
		err = a.store.Commit(ctx, a.storeGroup(g))
	}
	switch {
	case err == nil:
		a.committed(g)
		return nil
	case carnet.CodeOf(err) == carnet.NoSpace:
		return a.waitForSpace(ctx, g, end)
	}
	why := carnet.Errorf(carnet.Unavailable, "the things agent's store has failed").WithFix("send it again later")
	a.setStopped(why)
	a.withdraw(why, g)
	a.refused(why, g, a.take())
	return err
}

// withdraw takes a group back that could not be stored, and then ends the runs,
// which may have made frames of it or of what came after it: their links begin
// anew from what is recorded. A run that begins meanwhile finds neither, since
// nothing may be added any more.
func (a *Agent) withdraw(why *carnet.Error, g *group) {
	if len(g.entries) > 0 {
		a.feed.withdraw(g)
	}
	for _, s := range a.allSenders() {
		if r := s.current(); r != nil {
			r.cancel(why)
		}
	}
}

// filling returns what the open group holds, if it has position at and perhaps
// more after it. The caller releases the group. Once nothing may be added the
// open group is lost, and so are the runs that took of it before.
func (a *Agent) filling(at uint64) (p part, some bool) {
	a.groupMu.Lock()
	defer a.groupMu.Unlock()
	g := a.open
	if a.stopped != nil || a.noSpace != nil || at < g.first || at >= g.next() {
		return part{}, false
	}
	return g.hold(max(g.received, a.now().UnixNano())), true
}

// take closes the open group and opens the next. A group's time never goes back,
// so that the log can be trimmed by time.
func (a *Agent) take() *group {
	next := a.spare.take()
	next.body, a.body = a.body, nil
	next.holds.Store(1)
	a.groupMu.Lock()
	defer a.groupMu.Unlock()
	g := a.open
	g.received, g.bodySize = max(g.received, a.now().UnixNano()), len(g.body)
	next.first, next.received = g.next(), g.received
	a.open = next
	a.room.Broadcast()
	return g
}

func (a *Agent) storeGroup(g *group) *Group {
	out := &Group{Refusals: g.refusals, Documents: g.documents, Statements: g.statements}
	if len(g.entries) > 0 {
		out.Log = &LogRow{
			First: g.first, Count: uint32(len(g.entries)), Received: g.received,
			Index: a.index.row(g), Body: g.body,
		}
	}
	for _, f := range g.frames {
		out.Sent = append(out.Sent, f.row)
	}
	return out
}

// committed tells everybody that the group is on disk. Positions, the index and
// the feed move first, so that who hears of it finds what was committed.
func (a *Agent) committed(g *group) {
	a.next = g.next()
	a.body, g.body = g.body[:0], nil
	if len(g.entries) > 0 {
		a.index.add(g)
		a.feed.committed(g)
	}
	for _, f := range g.frames {
		f.link.recorded(f)
	}
	a.acknowledge(g, nil)
	if len(g.statements) > 0 || len(g.frames) > 0 {
		a.recorded()
	}
	g.answer(nil)
	a.release(g)
}

// answer tells those who wait for the group's documents.
func (g *group) answer(err error) {
	for _, w := range g.waiters {
		w <- err
	}
	g.waiters = g.waiters[:0]
}

// refused tells everybody that groups could not be stored. Nothing may be added
// meanwhile. A thing's mutex may be held by somebody who waits for one of these
// groups, so whoever waits is answered before any thing is asked to forget; and
// things must forget before anything is added again, or a message could be taken
// for a duplicate of one that was not stored.
func (a *Agent) refused(why *carnet.Error, groups ...*group) {
	for _, g := range groups {
		g.answer(why)
		a.acknowledge(g, why)
		for _, f := range g.frames {
			f.link.cancel(why) // the link begins anew from what is recorded
		}
	}
	for _, g := range groups {
		for _, e := range g.entries {
			e.thing.forget()
		}
		a.body, g.body = g.body[:0], nil
		a.release(g)
	}
}

func (a *Agent) acknowledge(g *group, retry *carnet.Error) {
	for i := range g.acks {
		k := &g.acks[i]
		if retry != nil {
			k.outcome = Outcome{Retry: retry}
		}
		k.sink.Done(k.token, k.outcome)
	}
	// A connection's messages stand one after the other where it sends many.
	for i, k := range g.acks {
		if i+1 == len(g.acks) || g.acks[i+1].sink != k.sink {
			k.sink.Flush()
		}
	}
}

// waitForSpace refuses a group that the store had no room for, and everything
// new until it takes a write again.
func (a *Agent) waitForSpace(ctx context.Context, g *group, end <-chan struct{}) error {
	a.log.Error("the store has no room: refusing what devices send until it has")
	why := carnet.Errorf(carnet.NoSpace, "the things agent's store has no room").WithFix("free space on its disk; it tries again each second")
	a.setNoSpace(why)
	a.withdraw(why, g)
	a.refused(why, g, a.take())
	tick := time.NewTicker(retryNoSpace)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return nil
		case <-tick.C:
		}
		probe, err := a.probe()
		if err == nil {
			err = a.store.Commit(ctx, &Group{Documents: []carnet.Document{probe}})
		}
		switch {
		case carnet.CodeOf(err) == carnet.NoSpace:
			continue
		case err != nil:
			a.setStopped(carnet.Errorf(carnet.Unavailable, "the things agent's store has failed"))
			return err
		}
		a.stored(probe)
		a.log.Info("the store has room again")
		a.hasSpace()
		return nil
	}
}
