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

// lingerFor is how long the committer waits for a group to fill when the one
// before it was small: it halves the number of syncs when many devices have one
// message in flight each, and costs a lone device a third of a sync.
const (
	lingerFor   = 300 * time.Microsecond
	lingerBelow = 16
)

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
func (a *Agent) change(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error {
	done := make(chan error, 1)
	err := a.add(func(g *group) {
		g.documents = append(g.documents, documents...)
		g.statements = append(g.statements, statements...)
		g.waiters = append(g.waiters, done)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commitLoop is the committer: it takes the open group, makes it durable, tells
// whoever waits, and hands the entries to the links. Only a failure that makes
// durability doubtful ends it.
func (a *Agent) commitLoop(ctx context.Context) error {
	last := 0
	for {
		select {
		case <-ctx.Done():
			a.stop(carnet.Errorf(carnet.Unavailable, "the things agent is stopping"))
			return nil
		case <-a.wake:
		}
		if last < lingerBelow && last > 1 {
			time.Sleep(lingerFor)
		}
		g := a.take()
		if g.empty() {
			a.groups.Put(g)
			continue
		}
		last = len(g.acks)
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
		case carnet.CodeOf(err) == carnet.NoSpace:
			if err := a.waitForSpace(ctx, g, err); err != nil {
				return err
			}
		case ctx.Err() != nil:
			a.stop(carnet.Errorf(carnet.Unavailable, "the things agent is stopping"))
			return nil
		default:
			a.stop(carnet.Errorf(carnet.Unavailable, "the things agent's store has failed"))
			return err
		}
	}
}

// take closes the open group.
func (a *Agent) take() *group {
	next := a.groups.Get().(*group)
	a.groupMu.Lock()
	g := a.open
	a.open = next
	a.room.Broadcast()
	a.groupMu.Unlock()
	g.first = a.next
	g.received = a.now().UnixNano()
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

// committed tells everybody that the group is on disk. Positions move first, so
// that a look-up that waited for a barrier finds the entries in the index.
func (a *Agent) committed(g *group) {
	a.next = g.next()
	if len(g.entries) > 0 {
		a.index.add(g)
	}
	a.acknowledge(g, nil)
	for _, f := range g.frames {
		f.link.recorded(f)
	}
	if len(g.statements) > 0 || len(g.frames) > 0 {
		a.recorded()
	}
	g.answer(nil)
	a.feed.put(g)
}

// answer tells those who wait for the group's documents.
func (g *group) answer(err error) {
	for _, w := range g.waiters {
		w <- err
	}
	g.waiters = g.waiters[:0]
}

// refused tells everybody that the group could not be stored for the moment.
// Nothing may be added to groups meanwhile: a thing's mutex may be held by
// somebody who waits for this group, so whoever waits is answered first, and no
// message may be taken for a duplicate of one that was not stored.
func (a *Agent) refused(g *group, err error) {
	g.answer(err)
	a.acknowledge(g, carnet.Errorf(carnet.CodeOf(err), "the things agent could not store the message: %v", err).
		WithFix("send it again later"))
	for _, e := range g.entries {
		e.thing.forget()
	}
	for _, f := range g.frames {
		f.link.cancel(err) // the link begins anew from what is recorded
	}
	g.links.Store(1)
	a.release(g)
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
func (a *Agent) waitForSpace(ctx context.Context, g *group, why error) error {
	a.log.Error("the store has no room: refusing what devices send until it has")
	a.setNoSpace(carnet.Errorf(carnet.NoSpace, "the things agent's store has no room").WithFix("free space on its disk; it tries again each second"))
	a.refused(g, why)
	a.refused(a.take(), why)
	for tick := time.NewTicker(retryNoSpace); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		probe, err := a.probe()
		if err == nil {
			err = a.store.Commit(ctx, &Group{Documents: []carnet.Document{probe}})
		}
		if carnet.CodeOf(err) == carnet.NoSpace {
			continue
		}
		tick.Stop()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		a.stored(probe)
		a.log.Info("the store has room again")
		a.setNoSpace(nil)
		return nil
	}
}
