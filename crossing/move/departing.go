package move

import (
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
)

// Hear takes the registrar's decision from the target, which has the avatar then. A
// source that doesn't know of the move, since its store was restored from an older copy,
// is told all of it.
func (a *Agent) Hear(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, d Decided) (Left, error) {
	heads, err := a.take(ctx, by, about, x, d)
	if err != nil {
		return Left{}, err
	}
	if err := a.heard(ctx, x, heads); err != nil {
		return Left{}, err
	}
	if err := a.goOnAtSource(ctx, x); err != nil {
		return Left{}, err
	}
	l := a.left(x)
	return Left{l.State, l.Departure}, nil
}

// TakeDecided takes the registrar's decision from a target that lacks something of what
// has come to it, and answers as to its offer: what is asked for next proves itself.
func (a *Agent) TakeDecided(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID, d Decided) (Standing, error) {
	if _, err := a.take(ctx, by.Party, about, x, d); err != nil {
		return Standing{}, err
	}
	if err := a.DecidedTo(by.Party, about, x); err != nil {
		return Standing{}, err
	}
	return a.TakeOffer(ctx, by, about, x, d.SignedOrder)
}

// DecidedTo refuses a peer to which no avatar, or item of it, has gone by a crossing.
func (a *Agent) DecidedTo(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) error {
	if l := a.left(x); l.State != Gone || l.To != by || l.Avatar != about {
		return carnet.Errorf(carnet.NotFound, "nothing has gone by a crossing %s", x).WithFix("say what the registrar has decided")
	}
	return nil
}

// OrderOf gives a peer the order by which something has gone to it.
func (a *Agent) OrderOf(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) (SignedOrder, error) {
	if err := a.DecidedTo(by, about, x); err != nil {
		return SignedOrder{}, err
	}
	l := a.left(x)
	if l.Order == "" {
		return SignedOrder{}, carnet.Errorf(carnet.NotFound, "by which order it went isn't known here")
	}
	return l.SignedOrder, nil
}

// Proves refuses what isn't an owner's order for a peer with its registrar's decision
// about it. Nothing is done.
func (a *Agent) Proves(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, d Decided) error {
	_, _, err := a.proved(by, about, x, d)
	return err
}

func (a *Agent) proved(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, d Decided) (order identity.Order, decision identity.Decision, err error) {
	if order, err = a.checkOrder(by, about, x, d.SignedOrder); err != nil {
		return order, decision, err
	}
	if decision, err = identity.OpenDecision(d.Decision); err != nil {
		return order, decision, err
	}
	if decision.Registrar != order.Registrar || decision.Crossing != x {
		return order, decision, carnet.Errorf(carnet.Forbidden, "the decision isn't the registrar's about this crossing")
	}
	return order, decision, nil
}

// take takes the registrar's decision about an order, which both prove themselves. heads
// are what things agents are told if nothing was known of it here.
func (a *Agent) take(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, d Decided) (heads []carnet.Moved, err error) {
	order, decision, err := a.proved(by, about, x, d)
	if err != nil {
		return nil, err
	}
	l := a.left(x)
	switch {
	case l.State == None:
		l.AtSource = AtSource{ID: x, Avatar: about, To: by, SignedOrder: d.SignedOrder, Begun: a.Now().UTC(), Until: order.Until}
	case l.Avatar != about || l.To != by && l.To != Elsewhere || l.Order != d.Order && l.Order != "":
		return nil, carnet.Errorf(carnet.Conflict, "the crossing %s is another one", x)
	case l.Order == "": // the register told of it first
		l.To, l.SignedOrder, l.Until = by, d.SignedOrder, order.Until
	}
	if l.Release == "" { // this store is an older copy
		if heads, err = a.headsOf(ctx, about, d); err != nil {
			return nil, err
		}
	}
	return heads, a.decidedAtSource(ctx, l, order, decision, d.Decision)
}

// headsOf is what the things agents of an avatar are told of a move that this world
// doesn't know of any more: by the target's word, of the streams that were received here.
func (a *Agent) headsOf(ctx context.Context, about carnet.AvatarID, d Decided) (heads []carnet.Moved, err error) {
	streams, err := a.World.MovedStreams(ctx, about)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, nil // it isn't here any more, either
	} else if err != nil {
		return nil, err
	}
	for _, h := range d.Streams {
		if slices.ContainsFunc(streams, func(s avatar.MovedStream) bool { return s.Stream == h.Stream && s.Here }) {
			heads = append(heads, carnet.Moved{Stream: h.Stream, Order: d.Order, Terms: d.Terms, NextBatch: h.NextBatch, NextFirst: h.NextFirst})
		}
	}
	return heads, nil
}

// heard notes that the target has the avatar, and knows it: what is left here is no
// longer needed. heads are what things agents are told if nothing is known of that.
func (a *Agent) heard(ctx context.Context, x carnet.CrossingID, heads []carnet.Moved) error {
	defer a.changing.of(a.left(x).Avatar)()
	l := a.left(x)
	if l.State != Gone || l.Heard {
		return nil
	}
	l.Heard = true
	without, err := a.neededNoMore(ctx, l)
	if err != nil {
		return err
	}
	late := l.Heads == nil && l.Release == ""
	if late {
		for _, h := range heads {
			h.Decision = l.Decision
			l.Heads = append(l.Heads, h)
		}
	}
	if err := a.keepSource(ctx, l, without...); err != nil {
		return err
	}
	if late {
		a.Moved(l.Heads)
	}
	return nil
}

// decidedAtSource makes a decision durable. What it was read from may be old.
func (a *Agent) decidedAtSource(ctx context.Context, was atSource, order identity.Order, d identity.Decision, token string) error {
	defer a.changing.of(was.Avatar)()
	learnt := false // by which order it went
	if l := a.left(was.ID); l.State != None {
		if learnt = l.Order == "" && was.Order != ""; learnt {
			l.To, l.SignedOrder, l.Until = was.To, was.SignedOrder, was.Until
		}
		was = l
	}
	outcome := d.Of(carnet.FingerprintOf([]byte(was.Order)))
	if outcome == identity.Commit {
		moved := func(home carnet.HomeID) bool {
			return slices.ContainsFunc(d.Homes, func(h identity.HomeAt) bool { return h.Home == home && h.World == order.Target })
		}
		if slices.ContainsFunc(order.Homes, func(home carnet.HomeID) bool { return !moved(home) }) || was.Manifest != (carnet.Fingerprint{}) && was.Manifest != *d.Manifest {
			return carnet.Errorf(carnet.Tampered, "the registrar's commit of crossing %s isn't of what was ordered and released", was.ID)
		}
		was.Manifest = *d.Manifest
	}
	next, ok := Source(was.State, event(outcome))
	if !ok {
		return carnet.Errorf(carnet.Conflict, "the crossing %s was %s here, and is now said to be decided otherwise", was.ID, was.State)
	}
	if next == was.State {
		if !learnt {
			return nil
		}
		if next == Gone { // what ends by that order is known now
			if err := a.itemsEnd(ctx, was, d, token); err != nil {
				return err
			}
		}
		return a.keepSource(ctx, was)
	}
	switch next {
	case Gone:
		if err := a.send(ctx, was, d, token); err != nil {
			return err
		}
		for i := range was.Heads {
			was.Heads[i].Decision = token
		}
	case Kept:
		if err := a.thaw(ctx, was); err != nil {
			return err
		}
		was.Why = "the registrar decided abort"
	}
	frozen := was.State == Frozen
	was.State, was.Decision, was.Ended = next, token, a.Now().UTC()
	without, err := a.neededNoMore(ctx, was)
	if err != nil {
		return err
	}
	if err := a.keepSource(ctx, was, without...); err != nil {
		return err
	}
	a.Log.Info("a move was decided", "crossing", was.ID, "avatar", was.Avatar, "to", was.To, "outcome", outcome)
	if next == Gone {
		a.Moved(was.Heads)
		return nil
	}
	// If it didn't keep still for this crossing, it may for another, whose release a claim
	// would void.
	if frozen {
		a.claimAnew(a.keptStill(was))
	}
	return nil
}

// keptStill are the homes of what kept still for a move: the avatar's, unless its item
// moved alone, and the items'.
func (a *Agent) keptStill(l atSource) (all []homeHere) {
	if h, enrolled := a.homeOf(l.Avatar); enrolled && !l.alone() {
		all = append(all, homeHere{Registered: h})
	}
	terms := l.Moving()
	for _, m := range slices.Concat(terms.Items, terms.Retired) {
		if h, here := a.Items.At(m.Home); here {
			all = append(all, homeOfItem(h))
		}
	}
	return all
}

// claimAnew has homes claimed of what kept still, which objected to no recovery
// meanwhile: before it is frozen again, and now, if the registrar answers.
func (a *Agent) claimAnew(homes []homeHere) {
	a.mu.Lock()
	for _, h := range homes {
		delete(a.claimed, h.Home)
	}
	a.mu.Unlock()
	for _, h := range homes {
		a.again(h)
	}
}

// send notes that what moved has gone: the avatar, unless the item moved alone, and
// then the items, whose retirement is of an avatar that is no more.
func (a *Agent) send(ctx context.Context, l atSource, d identity.Decision, token string) error {
	if !l.alone() {
		if err := a.noteHomeOf(ctx, l.Avatar); err != nil {
			return err
		}
		if err := a.departNow(ctx, l, token); err != nil {
			return err
		}
	}
	return a.Items.Depart(ctx, l.leaving(), l.To, item.Committed{Order: l.Order, Terms: l.Terms, Decision: token, Homes: d.Homes})
}

// thaw has what kept still go on as before.
func (a *Agent) thaw(ctx context.Context, l atSource) error {
	if !l.alone() {
		if err := a.World.Thaw(ctx, l.Avatar, l.ID); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	return a.Items.Thaw(ctx, l.ID)
}

// keepFor is how long what has moved is kept here, where nobody can read it, for a
// target that doesn't say that it has it.
const keepFor = 7 * 24 * time.Hour

// goOnAtSource does what is due of a move at its source.
func (a *Agent) goOnAtSource(ctx context.Context, x carnet.CrossingID) error {
	l := a.left(x)
	var err error
	switch {
	case l.State == Frozen || l.State == Offered: // the target may have had it aborted
		err = a.askAtSource(ctx, l)
	case l.State == Gone && l.Departure == "" && (l.Heard || !a.Now().Before(l.Ended.Add(keepFor))):
		err = a.depart(ctx, l)
	case l.State == Gone && l.Departure != "":
		err = a.silence(ctx, l)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.sources[x]; is != nil {
		again := *is
		if again.failed++; err == nil && again.State != l.State {
			again.failed = 0
		}
		switch again.State {
		case Offered:
			again.notTill = a.Now().Add(longPause)
		case Frozen:
			again.notTill = a.Now().Add(pause(again.failed, waitedPause))
		default:
			again.notTill = a.Now().Add(pause(again.failed, longPause))
		}
		a.sources[x] = &again
	}
	if err != nil {
		a.Log.Warn("a move waits", "crossing", x, "avatar", l.Avatar, "to", l.To, "state", l.State, "err", err)
	}
	return err
}

// askAtSource asks the registrar what was decided. An order whose time is over is
// decided by asking.
func (a *Agent) askAtSource(ctx context.Context, l atSource) error {
	d, err := a.ask(ctx, l.ID, register.Petition{Want: register.Ask, Order: l.Order})
	if err != nil || d == nil {
		return err
	}
	order, err := identity.OpenOrder(l.Order)
	if err != nil {
		return err
	}
	return a.decidedAtSource(ctx, l, order, d.Decision, d.Reply.Decision)
}

// depart deletes what is left of an avatar that has moved, and signs for it.
func (a *Agent) depart(ctx context.Context, l atSource) error {
	since, err := a.cleared(ctx, l)
	if err != nil {
		return err
	}
	departure, err := identity.SignDeparture(a.Key, identity.Departure{
		Crossing: l.ID, Source: a.did, Manifest: l.Manifest, Unreadable: since, Unrecoverable: since.Add(a.Unrecoverable), Left: l.Amount.LeftMeasurements,
	})
	if err != nil {
		return err
	}
	done := a.changing.of(l.Avatar)
	l = a.left(l.ID)
	l.Departure = departure
	without, err := a.neededNoMore(ctx, l)
	if err == nil {
		err = a.keepSource(ctx, l, without...)
	}
	done()
	if err != nil {
		return err
	}
	return a.silence(ctx, l)
}

// silence destroys the key of an avatar that is cleared, and notes it. An avatar that came
// by a move itself asks its home of before for the departure with that key: it is kept
// until that one has signed, but not for ever.
func (a *Agent) silence(ctx context.Context, l atSource) error {
	if a.tellsStill(l.Avatar) && a.Now().Before(l.Ended.Add(keepFor)) {
		return nil
	}
	if !l.alone() {
		if err := a.World.Silence(ctx, l.Avatar); err != nil {
			return err
		}
	}
	defer a.changing.of(l.Avatar)()
	l = a.left(l.ID)
	l.Silent = true
	return a.keepSource(ctx, l)
}

// cleared deletes what is left of what has moved, and says since when nothing is.
func (a *Agent) cleared(ctx context.Context, l atSource) (time.Time, error) {
	if l.alone() { // its chain went in the transaction in which it did
		return l.Ended.UTC().Truncate(time.Second), nil
	}
	if l.Release == "" { // this store is an older copy: what it stored since is known to the depot alone
		if err := a.World.Reclaim(ctx, l.Avatar); err != nil {
			return time.Time{}, err
		}
	}
	if err := a.World.Clear(ctx, l.Avatar); err != nil {
		return time.Time{}, err
	}
	gone, err := a.World.Departed(l.Avatar)
	if err != nil {
		return time.Time{}, err
	}
	if gone.Cleared.IsZero() {
		return time.Time{}, carnet.Errorf(carnet.Unavailable, "what the avatar left behind is still being deleted")
	}
	return gone.Cleared.UTC().Truncate(time.Second), nil
}

// tellsStill reports whether the move by which an avatar came here waits for its source.
func (a *Agent) tellsStill(id carnet.AvatarID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.To == id && t.State == Home && t.Departure == "" && !t.recovers() {
			return true
		}
	}
	return false
}
