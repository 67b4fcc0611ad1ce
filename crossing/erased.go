package crossing

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"carnet"
	"carnet/avatar"
	"carnet/policy"
	"carnet/shelf"
)

// What an erasure asks of shares (docs/design/erasure.md).

// GivenOf lists the shares that are or were given of an avatar. One that is being given
// is among them: none begins afterwards of an avatar that is erased.
func (a *Agent) GivenOf(id carnet.AvatarID) (all []Given) {
	a.changing.Lock()
	defer a.changing.Unlock()
	for _, g := range a.Given() {
		if g.Avatar == id {
			all = append(all, g)
		}
	}
	return all
}

// TakenFor lists the shares that are or were taken for an avatar.
func (a *Agent) TakenFor(id carnet.AvatarID) (all []Taken) {
	a.changing.Lock()
	defer a.changing.Unlock()
	for _, t := range a.Taken() {
		if t.For == id {
			all = append(all, t)
		}
	}
	return all
}

// TakenAs returns a share that is or was taken.
func (a *Agent) TakenAs(id carnet.ShareID) (Taken, bool) {
	if t := a.takenBy(id); t != nil {
		return t.Taken, true
	}
	return Taken{}, false
}

// Passed are the streams into which some of an avatar's streams went by a share: the
// copies, and what was derived.
func (a *Agent) Passed(id carnet.ShareID, sources []carnet.StreamID) []carnet.StreamID {
	a.mu.RLock()
	g := a.given[id]
	a.mu.RUnlock()
	all := slices.Clone(sources)
	for _, source := range sources {
		for generation := 0; g != nil && generation <= g.generation(); generation++ {
			all = append(all, derivedOf(id, source, generation))
		}
	}
	return all
}

// Tell puts a question about an erasure to a world that this one shares with, over the
// link.
func (a *Agent) Tell(ctx context.Context, world carnet.PartyID, kind string, body []byte) ([]byte, error) {
	a.mu.RLock()
	s := a.sources[world]
	a.mu.RUnlock()
	var to Caller
	if s != nil {
		s.mu.Lock()
		to = s.link
		s.mu.Unlock()
	}
	if to == nil {
		return nil, carnet.Errorf(carnet.Unavailable, "there is no link to %s", world).WithFix("see 'carnet peer show %s'", world)
	}
	return to.Call(ctx, kind, body) // also while a shelf is made
}

// ForgetGiven forgets what is remembered of the shares of an avatar that is erased, but
// for their ids: what they showed, and what their rates and deadbands remember. They
// must have ended. A crash leaves less; done again it goes on.
func (a *Agent) ForgetGiven(ctx context.Context, id carnet.AvatarID) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	var all, forgotten []given
	a.mu.RLock()
	for _, g := range a.given {
		if g.Avatar == id && g.End != nil {
			all = append(all, *g) // also those that were forgotten before: what they remember may be left
		}
		if g.Avatar == id && g.End != nil && !g.Erased {
			now := *g
			now.Erased, now.View, now.From, now.Again = true, policy.View{Properties: map[string]policy.PropertyView{}}, nil, nil
			forgotten = append(forgotten, now)
		}
	}
	a.mu.RUnlock()
	if len(forgotten) > 0 {
		if err := a.keepGiven(ctx, forgotten, nil); err != nil {
			return err
		}
	}
	return a.forgetMarks(ctx, all)
}

// forgetMarks deletes what rates and deadbands of shares remember.
func (a *Agent) forgetMarks(ctx context.Context, all []given) error {
	for i := range all {
		a.mu.RLock()
		s := a.sources[all[i].Taker]
		a.mu.RUnlock()
		if s != nil {
			s.keeping.Lock()
			delete(s.marks, all[i].ID)
		}
		err := a.dropKept(ctx, kindMark, all[i].ID.String())
		if s != nil {
			s.keeping.Unlock()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Unshelve has each shelf be withdrawn that may have something of one of these shares,
// by an erasure: on return it is durable, with the objects that the depot is to sign for,
// and nothing more is shelved on these connections. Withdrawn says that it is done.
func (a *Agent) Unshelve(ctx context.Context, shares []carnet.ShareID, by carnet.ErasureID) error {
	takers := make(map[carnet.PartyID]*Source)
	a.mu.RLock()
	for _, id := range shares {
		if g := a.given[id]; g != nil {
			takers[g.Taker] = a.sources[g.Taker]
		}
	}
	a.mu.RUnlock()
	for taker, s := range takers {
		if s != nil {
			s.endShelf()
		}
		if err := a.unshelve(ctx, taker, shares, by); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) unshelve(ctx context.Context, taker carnet.PartyID, shares []carnet.ShareID, by carnet.ErasureID) error {
	k := a.shelfFor(taker)
	k.busy.Lock()
	defer k.busy.Unlock()
	doc := k.now()
	if doc == nil || doc.Erasure != (carnet.ErasureID{}) {
		return nil
	}
	// What an object has that isn't on the list isn't written down yet.
	if of := func(id carnet.ShareID) bool { return slices.Contains(doc.Shares, id) }; doc.Staged == nil && !slices.ContainsFunc(shares, of) {
		return nil
	}
	next := *doc
	next.Erasure, next.Over = by, cmp.Or(doc.Over, "an avatar that something on it is of is erased")
	doomed, err := a.World.Dooming(ctx, next.objects(shelf.Signed{}), by)
	if err != nil {
		return err
	}
	return a.keepShelf(ctx, taker, k, &next, doomed...)
}

// Withdrawn withdraws the shelves that an erasure has be withdrawn. Without an error none
// of them is at the depot any more, and all their objects are noted.
func (a *Agent) Withdrawn(ctx context.Context, by carnet.ErasureID) error {
	a.mu.RLock()
	all := maps.Clone(a.shelves)
	a.mu.RUnlock()
	for taker, k := range all {
		if doc := k.now(); doc == nil || doc.Erasure != by {
			continue
		}
		k.busy.Lock()
		var err error
		if doc := k.now(); doc != nil && doc.Erasure == by {
			err = a.withdraw(ctx, taker, k, doc, doc.Over)
		}
		k.busy.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) dropKept(ctx context.Context, kind, id string) error {
	var version uint64
	err := a.World.EachKept(ctx, kind, func(at string, v uint64, _ func(any) error) error {
		if at == id {
			version = v
		}
		return nil
	})
	if err != nil || version == 0 {
		return err
	}
	return a.World.Keep(ctx, []avatar.Kept{{Kind: kind, ID: id, Version: version + 1}}, nil)
}

// forgotten reports whether nothing is to be remembered of a share.
func (a *Agent) forgotten(id carnet.ShareID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	g := a.given[id]
	return g != nil && g.Erased
}
