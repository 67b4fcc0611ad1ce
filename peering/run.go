package peering

import (
	"context"
	"slices"
	"sync"
	"time"

	"carnet"

	"golang.org/x/sync/errgroup"
)

const (
	askEvery = 2 * time.Second // for a confirmation, while it is waited for
	askLimit = 20 * time.Second

	leastWait = 50 * time.Millisecond // so that a store that fails isn't asked without pause
)

// Run ends what time ends, carries acceptances until they are confirmed, and takes
// in what other processes on the same store have ended, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.follower.Run(ctx, r.takeStored) })
	group.Go(func() error { return r.keepTime(ctx) })
	return group.Wait()
}

// keepTime ends what time ends, and has acceptances carried: an inviter who doesn't
// answer holds nothing else up.
func (r *Registry) keepTime(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	carrying, carried := make(map[carnet.PartyID]bool), make(chan carnet.PartyID)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		case name := <-carried:
			delete(carrying, name)
		}
		r.end(ctx)
		for _, p := range r.awaiting() {
			if carrying[p.Name] {
				continue
			}
			carrying[p.Name] = true
			work.Go(func() {
				r.carry(ctx, p)
				select { // not again at once
				case <-time.After(askEvery):
				case <-ctx.Done():
				}
				select {
				case carried <- p.Name:
				case <-ctx.Done():
				}
			})
		}
		timer.Reset(max(r.wait(), leastWait))
	}
}

// takeStored takes in what the store has that this process hasn't.
func (r *Registry) takeStored(ctx context.Context) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	all, err := r.stored(ctx)
	if err != nil {
		r.cfg.Log.Warn("peerings can't be read; it is tried again", "err", err)
		return err
	}
	r.mu.RLock()
	was := r.peerings
	r.mu.RUnlock()
	r.take(all)
	for name, p := range was {
		if _, ok := all[name]; !ok {
			r.tell(Peering{Name: p.Name})
		}
	}
	for name, p := range all {
		if p.version != was[name].version {
			r.tell(p.Peering)
		}
	}
	return nil
}

// end ends what time has ended.
func (r *Registry) end(ctx context.Context) {
	for _, p := range r.All() {
		r.changing.Lock()
		p, err := r.change(ctx, p.Name, func(p Peering) (Peering, error) { return p.Next(Event{Kind: Tick, Now: r.cfg.Now()}) })
		r.changing.Unlock()
		if err != nil {
			r.cfg.Log.Warn("the end of a peering can't be stored; nothing is done by it all the same", "peer", p.Name, "err", err)
		}
	}
}

// awaiting lists the peerings whose acceptance is to be carried.
func (r *Registry) awaiting() []Peering {
	if r.cfg.Courier == nil {
		return nil
	}
	return slices.DeleteFunc(r.All(), func(p Peering) bool { return !p.awaits() })
}

// awaits reports whether the acceptance is to be carried.
func (p Peering) awaits() bool {
	return p.State == Accepted && p.Confirmation == "" && p.ReplyTo != nil
}

// carry brings the acceptance once more, the same bytes, and takes the
// confirmation if there is one.
func (r *Registry) carry(ctx context.Context, p Peering) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	message, err := r.cfg.Courier.Carry(ctx, *p.ReplyTo, p.Terms.Invitation, p.Secret, p.Acceptance)
	if err == nil && message != "" {
		_, err = r.TakeConfirmation(ctx, p.Name, message)
	}
	why := ""
	if err != nil {
		why = err.Error()
		r.cfg.Log.Info("an acceptance isn't confirmed yet", "peer", p.Name, "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble[p.Name] = why
}

// wait says how long nothing is due.
func (r *Registry) wait() time.Duration {
	now := r.cfg.Now()
	wait := time.Hour
	for _, p := range r.All() {
		switch p.State {
		case Invited:
			wait = min(wait, p.Until.Sub(now))
		case Active, Suspended, Answered, Accepted:
			wait = min(wait, p.Terms.NotAfter.Sub(now))
		}
	}
	return wait
}
