package move

import (
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
)

// Elsewhere is what a world is called, in a tombstone, that isn't a peer.
const Elsewhere carnet.PartyID = "elsewhere"

// watchHomes asks about each home here, now and then, as long as ctx lasts: one that is
// to be recovered is claimed, which ends that; what is elsewhere is gone; and what isn't
// claimed for whatever reason is. It also claims what is to be claimed anew, and tells the
// register of items that end, as soon as they do.
func (a *Agent) watchHomes(ctx context.Context) {
	due := time.NewTicker(a.HomeCheck) // however much is to be claimed in between
	defer due.Stop()
	again, failed := time.NewTimer(a.HomeCheck), 0 // to tell of ends
	defer again.Stop()
	tellEnds := func() {
		if a.tellEnds(ctx) == 0 {
			failed = 0
			return
		}
		again.Reset(pause(failed, longPause))
		failed++
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.ends:
			tellEnds()
			continue
		case <-again.C:
			tellEnds()
			continue
		case h := <-a.claims:
			if err := a.claimOne(ctx, h); err != nil && ctx.Err() == nil {
				a.Log.Warn("a home isn't claimed yet; it is when the register is asked about it", "avatar", h.Avatar, "item", h.item, "err", err)
			}
			continue
		case <-due.C:
		}
		a.lookAtHomes(ctx)
	}
}

// lookAtHomes asks about all homes here, once. What keeps still for nothing goes on before,
// so that it objects to a recovery. Where the registrar doesn't answer, the next look does
// the rest.
func (a *Agent) lookAtHomes(ctx context.Context) {
	if err := a.thawStrays(ctx); err != nil {
		a.Log.Error("what keeps still for nothing doesn't go on yet; that is tried again", "err", err)
	}
	if err := a.lookAtAll(ctx, a.watched()); err != nil {
		if ctx.Err() == nil {
			a.Log.Warn("the register doesn't say how homes stand; it is asked again", "err", err)
		}
		return
	}
	a.claimRest(ctx)
}

// lookAtAll asks about homes, many at once, and looks at each of which the register says
// something else than is so here. An error says that the registrar doesn't answer.
func (a *Agent) lookAtAll(ctx context.Context, homes []homeHere) error {
	at := make(map[string][]carnet.HomeID) // registrars
	here := make(map[carnet.HomeID][]homeHere)
	for _, h := range homes {
		if here[h.Home] == nil {
			at[h.Registrar] = append(at[h.Registrar], h.Home)
		}
		here[h.Home] = append(here[h.Home], h)
	}
	var row int
	for did, all := range at {
		registrar, err := a.registrarOf(did)
		if err != nil {
			a.Log.Warn("the register doesn't say how homes stand; it is asked again", "homes", len(all), "err", err)
			continue
		}
		for some := range slices.Chunk(all, identity.MostAsked) {
			not, err := registrar.NotAt(ctx, a.did, some)
			if away(err) {
				return err
			}
			if err != nil { // it answers, and doesn't say: each is asked about by itself
				a.Log.Warn("the register doesn't say how homes stand all at once; it is asked about each", "homes", len(some), "err", err)
				not = some
			}
			for _, id := range not {
				for _, h := range here[id] {
					err := a.look(ctx, h)
					if err != nil && ctx.Err() == nil {
						a.Log.Warn("the register doesn't say how a home stands; it is asked again", "avatar", h.Avatar, "item", h.item, "err", err)
					}
					if a.silent(ctx, h, err, &row) {
						return err
					}
				}
			}
		}
	}
	return nil
}

// silent reports whether a registrar doesn't answer, so that there is no use in asking it
// on: what was asked about one home after the other failed some times in a row, and so
// does a question that is about nothing else.
func (a *Agent) silent(ctx context.Context, h homeHere, failed error, row *int) bool {
	const enough = 3
	if !away(failed) {
		*row = 0
		return false
	}
	if *row++; *row < enough {
		return false
	}
	*row = 0
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return false // this world asks another one
	}
	_, err = registrar.NotAt(ctx, a.did, []carnet.HomeID{h.Home})
	return away(err)
}

// away reports whether a registrar didn't answer, or isn't a peer at the moment.
func away(err error) bool {
	return carnet.CodeOf(err) == carnet.Unavailable || carnet.CodeOf(err) == carnet.Unauthenticated
}

// again has a home claimed anew, soon.
func (a *Agent) again(h homeHere) {
	select {
	case a.claims <- h:
	default: // so many wait that the next look finds it
	}
}

// watched are the homes of avatars that are here, and of items that don't keep still for a
// crossing, whose decision says where they are.
func (a *Agent) watched() (all []homeHere) {
	for _, h := range a.Items.Homes() {
		if h.Frozen == (carnet.CrossingID{}) || a.saidFor(h.Frozen) {
			all = append(all, homeOfItem(h))
		}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, h := range a.homes {
		if _, err := a.World.Avatar(h.Avatar); err == nil {
			all = append(all, homeHere{Registered: h.Registered})
		}
	}
	return all
}

// look asks the register about a home that is here.
func (a *Agent) look(ctx context.Context, h homeHere) error {
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return err
	}
	is, reply, err := registrar.Home(ctx, h.Home)
	switch {
	case err != nil:
		return err
	case is.World != a.did && h.item != (carnet.ItemID{}):
		return a.itemElsewhere(ctx, h.Registered, is, reply)
	case is.World != a.did:
		return a.elsewhere(ctx, h.Registered, is, reply)
	case is.Recovery == (identity.Petitioned{}):
		return nil
	case h.item != (carnet.ItemID{}):
		return a.objectOfItem(ctx, h, is.Recovery)
	}
	return a.object(ctx, h.Registered, is.Recovery)
}

// object claims a home that is to be recovered, though this world is there. One that
// keeps still, for a move or a farewell, isn't claimed: the move's decision says where it
// is, and the farewell is of what was claimed before.
func (a *Agent) object(ctx context.Context, h Registered, r identity.Petitioned) error {
	defer a.changing.of(h.Avatar)()
	if _, said := a.saidFarewell(h.Avatar); said || a.keepsStill(h.Avatar) {
		return nil
	}
	if _, frozen, err := a.World.Frozen(h.Avatar); carnet.CodeOf(err) == carnet.NotFound || frozen {
		return nil
	} else if err != nil {
		return err
	}
	a.Log.Error("an avatar that lives here is to be recovered elsewhere; the home is claimed", "avatar", h.Avatar, "recovery", r.Crossing, "target", r.Target)
	defer a.claiming.of(h.Home)()
	_, err := a.claimNow(ctx, h.Registrar, h.Home, 0)
	return err
}

// objectOfItem is object of an item's home.
func (a *Agent) objectOfItem(ctx context.Context, h homeHere, r identity.Petitioned) error {
	defer a.chaining.of(h.Home)()
	is, here := a.Items.At(h.Home)
	if !here || is.Frozen != (carnet.CrossingID{}) {
		return nil
	}
	a.Log.Error("an item that is here is to be recovered elsewhere; its home is claimed", "item", h.item, "recovery", r.Crossing, "target", r.Target)
	defer a.claiming.of(h.Home)()
	_, err := a.claimNow(ctx, h.Registrar, h.Home, is.Entries)
	return err
}

// keepsStill reports whether an avatar is frozen for a move.
func (a *Agent) keepsStill(id carnet.AvatarID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, l := range a.sources {
		if l.Avatar == id && !l.alone() && (l.State == Frozen || l.State == Gone) {
			return true
		}
	}
	return false
}

// gone follows a claim that was refused: the register says where the home is.
func (a *Agent) gone(ctx context.Context, h Registered) error {
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return err
	}
	is, reply, err := registrar.Home(ctx, h.Home)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil // it was to be registered, and nobody has asked for that since
	}
	if err != nil || is.World == a.did {
		return err
	}
	return a.elsewhere(ctx, h, is, reply)
}

// elsewhere takes an avatar away that the register says lives elsewhere: by the commit
// that moved its home there. This world was away then, or its store is an older copy.
// What is left is deleted once the new home tells of it, or after a while.
func (a *Agent) elsewhere(ctx context.Context, h Registered, is identity.HomeAnswer, reply register.HomeReply) error {
	d, commit, to, err := a.movedBy(h, is, reply)
	if err != nil {
		return err
	}
	defer a.changing.of(h.Avatar)()
	l := a.left(d.Crossing)
	if l.State == None {
		l.AtSource = AtSource{ID: d.Crossing, Avatar: h.Avatar, To: to, Begun: a.Now().UTC(), Manifest: *d.Manifest}
	}
	next, ok := Source(l.State, Committed)
	if !ok || next == l.State {
		return nil
	}
	a.Log.Error("an avatar that is here has another home by now", "avatar", h.Avatar, "world", is.World, "crossing", d.Crossing)
	return a.leaveHome(ctx, l, next, commit)
}

// movedBy is the commit by which the register says that a home is elsewhere, and where.
func (a *Agent) movedBy(h Registered, is identity.HomeAnswer, reply register.HomeReply) (d identity.Decision, commit string, to carnet.PartyID, err error) {
	if d, commit, err = reply.Commit(); err != nil {
		return d, commit, to, err
	}
	if d.Registrar != h.Registrar || !d.Moves(identity.HomeAt{Home: h.Home, Version: is.Version, World: is.World}) {
		return d, commit, to, carnet.Errorf(carnet.Tampered, "the register says that a home is elsewhere, by a decision about something else")
	}
	to = Elsewhere
	if p, known := a.peerBy(is.World); known {
		to = p.Party
	}
	return d, commit, to, nil
}

// itemGone takes an item away whose claim was refused: the register says where it is, and
// by what it went. This world was away then, or its store is an older copy.
func (a *Agent) itemGone(ctx context.Context, h Registered) error {
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return err
	}
	is, reply, err := registrar.Home(ctx, h.Home)
	if err != nil || is.World == a.did {
		return err
	}
	return a.itemElsewhere(ctx, h, is, reply)
}

// itemElsewhere takes an item away that the register says is elsewhere. One that keeps
// still for a crossing by now is left to what was decided of that, which says where its
// avatar is, too.
func (a *Agent) itemElsewhere(ctx context.Context, h Registered, is identity.HomeAnswer, reply register.HomeReply) error {
	d, commit, to, err := a.movedBy(h, is, reply)
	if err != nil {
		return err
	}
	was, here := a.Items.At(h.Home)
	if !here {
		return nil
	}
	defer a.changing.of(was.Avatar)() // so it isn't being frozen
	now, here := a.Items.At(h.Home)
	switch {
	case !here || now.Frozen != (carnet.CrossingID{}) && !a.saidFor(now.Frozen):
		return nil
	case now.Avatar != was.Avatar:
		return carnet.Errorf(carnet.Unavailable, "the item has changed hands meanwhile")
	}
	a.Log.Error("an item that is here is elsewhere by now", "home", h.Home, "world", is.World, "crossing", d.Crossing)
	return a.itemsLeave(ctx, d, commit, to)
}

// itemsLeave notes that the items which a decision moved to another world are there.
func (a *Agent) itemsLeave(ctx context.Context, d identity.Decision, commit string, to carnet.PartyID) error {
	l := item.Leaving{Crossing: d.Crossing}
	for _, h := range a.Items.Homes() {
		if slices.ContainsFunc(d.Homes, func(at identity.HomeAt) bool { return at.Home == h.Home && at.World != a.did }) {
			l.Items = append(l.Items, identity.MovingItem{Item: h.Item, Home: h.Home})
		}
	}
	if len(l.Items) == 0 {
		return nil
	}
	return a.Items.Depart(ctx, l, to, item.Committed{Decision: commit, Homes: d.Homes})
}

// itemsEnd retires what ends by the order that a decision carried out, if that is known.
func (a *Agent) itemsEnd(ctx context.Context, l atSource, d identity.Decision, decision string) error {
	if l.Order == "" || d.Of(carnet.FingerprintOf([]byte(l.Order))) != identity.Commit {
		return nil
	}
	return a.Items.Depart(ctx, l.leaving(), l.To, item.Committed{Order: l.Order, Terms: l.Terms, Decision: decision, Homes: d.Homes})
}

// leaveHome makes an avatar one that has left, durably, and its items that went with it.
// The caller holds changing.
func (a *Agent) leaveHome(ctx context.Context, l atSource, next State, decision string) error {
	d, err := identity.OpenDecision(decision)
	if err != nil {
		return err
	}
	if err := a.departNow(ctx, l, decision); err != nil {
		return err
	}
	if err := a.itemsLeave(ctx, d, decision, l.To); err != nil {
		return err
	}
	if err := a.itemsEnd(ctx, l, d, decision); err != nil {
		return err
	}
	for i := range l.Heads {
		l.Heads[i].Decision = decision
	}
	l.State, l.Decision, l.Ended = next, decision, a.Now().UTC()
	if err := a.keepSource(ctx, l); err != nil {
		return err
	}
	a.Moved(l.Heads)
	return nil
}

// departNow makes an avatar one that has left, if it isn't by any crossing.
func (a *Agent) departNow(ctx context.Context, l atSource, decision string) error {
	if _, err := a.World.Departed(l.Avatar); err == nil {
		return a.forgetFarewell(ctx, l.Avatar)
	}
	if err := a.letGo(ctx, l.Avatar); err != nil {
		return err
	}
	if err := a.World.Freeze(ctx, l.Avatar, l.ID); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if err := a.World.Depart(ctx, l.Avatar, l.ID, l.To, carnet.FingerprintOf([]byte(decision))); err != nil {
		return err
	}
	return a.forgetFarewell(ctx, l.Avatar)
}

// ProvesRecovered refuses what isn't the word of an owner, and of the registrar, that an
// avatar of this world lives at a peer since a recovery, and says which. Nothing is done.
func (a *Agent) ProvesRecovered(by carnet.PartyID, d Decided) (carnet.AvatarID, error) {
	_, terms, err := a.provedRecovered(by, d)
	return terms.Avatar, err
}

func (a *Agent) provedRecovered(by carnet.PartyID, d Decided) (order identity.Order, terms identity.MoveTerms, err error) {
	if order, err = identity.OpenRecovery(d.Order); err != nil {
		return order, terms, err
	}
	if terms, err = identity.ParseMoveTerms(d.Terms, order); err != nil {
		return order, terms, err
	}
	h, unknown := a.HomeOf(terms.Avatar) // this store may be from before it was registered
	peer, err := a.Peers.Named(by)
	switch {
	case err != nil:
		return order, terms, err
	case unknown != nil && !final(unknown):
		return order, terms, unknown
	case unknown != nil || h.Home != terms.Home || order.Registrar != h.Registrar || order.Owner != h.Owner:
		return order, terms, carnet.Errorf(carnet.Forbidden, "the recovery is about no home that is registered here, or not by its owner")
	case order.Source != a.did || order.Target != peer.DID():
		return order, terms, carnet.Errorf(carnet.Forbidden, "the recovery is between other worlds")
	}
	decision, err := identity.OpenDecision(d.Decision)
	if err != nil {
		return order, terms, err
	}
	moved := slices.EqualFunc(decision.Homes, order.Homes, func(at identity.HomeAt, home carnet.HomeID) bool { return at.Home == home && at.World == order.Target })
	if decision.Registrar != order.Registrar || decision.Crossing != order.Crossing || decision.Of(carnet.FingerprintOf([]byte(d.Order))) != identity.Commit || !moved {
		return order, terms, carnet.Errorf(carnet.Forbidden, "the decision isn't the registrar's commit of this recovery")
	}
	return order, terms, nil
}

// HearRecovered takes from a world that an avatar of this one lives there since a
// recovery: by the owner's word and the registrar's decision. It answers with the
// departure once all is deleted.
func (a *Agent) HearRecovered(ctx context.Context, by carnet.PartyID, d Decided) (Left, error) {
	order, terms, err := a.provedRecovered(by, d)
	if err != nil {
		return Left{}, err
	}
	if err := a.learn(ctx, by, order, terms, d); err != nil {
		return Left{}, err
	}
	if err := a.heard(ctx, order.Crossing, nil); err != nil {
		return Left{}, err
	}
	if err := a.goOnAtSource(ctx, order.Crossing); err != nil {
		return Left{}, err
	}
	l := a.left(order.Crossing)
	return Left{l.State, l.Departure}, nil
}

// learn notes a recovery that was decided, with what its things agents are told. The
// register may have told of it before.
func (a *Agent) learn(ctx context.Context, by carnet.PartyID, order identity.Order, terms identity.MoveTerms, d Decided) error {
	defer a.changing.of(terms.Avatar)()
	l := a.left(order.Crossing)
	switch {
	case l.State == Gone && l.Order != "":
		return nil
	case l.State == None:
		l.AtSource = AtSource{ID: order.Crossing, Avatar: terms.Avatar, Begun: a.Now().UTC()}
	}
	if err := a.noteHomeOf(ctx, terms.Avatar); err != nil {
		return err
	}
	l.To, l.SignedOrder, l.Until, l.Manifest = by, d.SignedOrder, order.Until, order.Recovers.Manifest
	l.Heads = nil
	for _, at := range terms.Heads {
		l.Heads = append(l.Heads, carnet.Moved{Stream: at.Stream, Order: d.Order, Terms: d.Terms, NextBatch: at.NextBatch, NextFirst: at.NextFirst})
	}
	next, ok := Source(l.State, Committed)
	if !ok {
		return carnet.Errorf(carnet.Conflict, "the crossing %s was %s here, and is now said to be decided otherwise", l.ID, l.State)
	}
	return a.leaveHome(ctx, l, next, d.Decision)
}
