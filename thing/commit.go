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

// linger is how long the committer waits for a group to fill, by the size of the
// one before: nothing for a lone device, which would only wait, and nothing under
// full load, which fills groups by itself. In between, many devices have few
// messages in flight each, and a wait below a sync's time saves syncs; but while
// there are few, a frame that is to leave doesn't wait.
func (a *Agent) linger(last int) time.Duration {
	switch {
	case last <= 1 || last > 256:
		return 0
	case last >= 16:
		return time.Millisecond
	case a.urgent():
		return 0
	}
	return 300 * time.Microsecond
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
	return <-done
}

// commitLoop is the committer: it takes the open group, makes it durable, tells
// whoever waits, and hands the entries to the links. At the end it takes nothing
// more and commits what there is. Only a failure that makes durability doubtful
// ends it before.
func (a *Agent) commitLoop(ctx context.Context, end <-chan struct{}) error {
	for last := 0; ; {
		select {
		case <-end:
			a.setStopped(carnet.Errorf(carnet.Unavailable, "the things agent is stopping"))
			return a.commit(ctx, a.take(), end)
		case <-a.wake:
		}
		if wait := a.linger(last); wait > 0 {
			time.Sleep(wait)
		}
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
	// While it is committed the links may build frames of it already.
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
// which may have made frames of it: their links begin anew from what is
// recorded. A run that begins meanwhile finds it no more.
func (a *Agent) withdraw(why *carnet.Error, g *group) {
	if len(g.entries) == 0 {
		return
	}
	a.feed.withdraw(g)
	for _, s := range a.senders {
		if r := s.current(); r != nil {
			r.cancel(why)
		}
	}
}

// take closes the open group. A group's time never goes back, so that the log
// can be trimmed by time.
func (a *Agent) take() *group {
	next := a.spare.take()
	next.body, a.body = a.body, nil
	a.groupMu.Lock()
	g := a.open
	a.open = next
	a.room.Broadcast()
	a.groupMu.Unlock()
	g.holds.Store(1)
	g.first = a.next
	a.received = max(a.received, a.now().UnixNano())
	g.received, g.bodySize = a.received, len(g.body)
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
	a.acknowledge(g, nil)
	for _, f := range g.frames {
		f.link.recorded(f)
	}
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
	for _, k := range g.acks {
		k.sink.Flush()
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
		a.setNoSpace(nil)
		return nil
	}
}
