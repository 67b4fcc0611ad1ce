package crossing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/link"
	"carnet/seal"
	"carnet/senml"
)

// key is one to be given, and how long what it opens is kept.
type key struct {
	seal.Entry
	kept carnet.Retention
}

// building is a frame in the making.
type building struct {
	batches [][]byte
	bytes   int
	of      map[carnet.ShareID]bool // whose batches they are
	pairs   []carnet.Fingerprint    // of derived batches: the hash of source and derived
	marks   []mark
	keys    []key // which the taker must have first
	heads   []carnet.StreamHead
	version uint64    // the greatest of the grants' versions
	until   time.Time // the least of the shares' ends
}

func (b *building) full() bool {
	return len(b.batches) >= maxFrameBatches || b.bytes >= maxFrameBytes/2
}

// Next implements link.Source: it makes the next frame of what the shares' avatars
// have been given.
func (s *Source) Next(ctx context.Context) (link.Frame, error) {
	for {
		s.tryAside()
		if err := s.takeUp(ctx); err != nil {
			return link.Frame{}, err
		}
		b := &building{of: make(map[carnet.ShareID]bool)}
		if wait := gatherFor - time.Since(s.last); wait > 0 {
			select { // the last frame was a moment ago: let this one have more
			case <-ctx.Done():
				return link.Frame{}, ctx.Err()
			case <-time.After(wait):
			}
		}
		if err := s.fill(ctx, b); err != nil {
			return link.Frame{}, err
		}
		if len(b.batches) > 0 {
			if err := s.grant(ctx, b); err != nil {
				return link.Frame{}, err
			}
			if wire, ok, err := s.sign(b); ok || err != nil {
				return link.Frame{Number: s.number, Bytes: wire}, err
			}
			// Something ended meanwhile, or can't be told to hold: nothing of this frame
			// leaves, and the taker says where the rest goes on.
			return link.Frame{}, errAnew
		}
		s.mu.Lock()
		s.filling = false
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return link.Frame{}, ctx.Err()
		case <-s.wake:
		case <-s.asideEnds():
		}
	}
}

// errAnew has the link begin anew.
var errAnew = carnet.Errorf(carnet.Unavailable, "a share has changed: the link begins anew")

// takeUp takes up what has changed: shares, and what the taker has told.
func (s *Source) takeUp(ctx context.Context) error {
	if err := s.takeUpShares(ctx); err != nil {
		return err
	}
	s.tellGives(ctx)
	s.mu.Lock()
	demands := s.demands
	s.demands = make(map[carnet.StreamID]bool)
	if s.renewed != nil {
		s.reception, s.renewed = s.renewed, nil
	}
	s.mu.Unlock()
	for stream, on := range demands {
		s.demand(stream, on)
	}
	return nil
}

// takeUpShares begins and ends what flows to this taker.
func (s *Source) takeUpShares(ctx context.Context) error {
	a := s.agent
	if s.onShelf && a.unshelvable(s.to.Party) != "" {
		return errAnew // what is on the shelf isn't to be read any more
	}
	if s.onShelf {
		if err := a.shelvable(s.to.Party); err != nil {
			return err
		}
	}
	changes := a.changes.Load() + 1 // 0: nothing was taken up yet
	if changes == s.changes {
		return nil
	}
	a.mu.RLock()
	now := make(map[carnet.ShareID]*given)
	for id, g := range a.given {
		if g.Taker == s.to.Party {
			now[id] = g
		}
	}
	a.mu.RUnlock()
	var untold []*given
	for id, g := range now {
		f, flows := s.shares[id], g.flows()
		switch {
		case flows && f == nil && s.isAside(id):
		case flows && f == nil && !s.begun[id]:
			if err := s.begin(ctx, g); err != nil {
				return s.giveUp(ctx, id, err)
			}
		case flows && (f == nil || !same(*f.share, g.Given) || f.again != g.Again):
			return errAnew // it goes on from where the taker says, under the view of now
		case !flows && f != nil && s.onShelf:
			return errAnew // what is on the shelf of it isn't to be read any more
		case !flows && f != nil:
			f.following.Close()
			delete(s.shares, id)
			s.readAgain(id)
		case !flows:
			s.readAgain(id)
		}
		if g.End != nil && !g.Told {
			untold = append(untold, g)
		}
	}
	s.changes = changes
	if s.onShelf || !a.Permits.Tells(s.to.Party) {
		untold = nil // the taker is told when it can answer, and never once its peering was removed
	}
	if len(untold) > tellAtOnce { // what flows isn't to wait for all of them
		untold, s.changes = untold[:tellAtOnce], 0
		s.rouse()
	}
	if err := s.tellEnds(ctx, untold); err != nil {
		return err
	}
	s.mu.Lock()
	s.begunAll = true
	s.mu.Unlock()
	return nil
}

// giveUp ends a share that can't be given, so that the others of the link go on.
// What may pass, or leaves in doubt what is on disk, is the link's to deal with.
func (s *Source) giveUp(ctx context.Context, id carnet.ShareID, why error) error {
	if code := carnet.CodeOf(why); code == "" || code == carnet.Unavailable || code == carnet.NoSpace {
		return why
	}
	if err := s.agent.StopGiving(ctx, id, string(s.agent.Party), why.Error()); err != nil {
		return err
	}
	return errAnew
}

// demand passes on that somebody waits at the taker for a stream.
func (s *Source) demand(stream carnet.StreamID, on bool) {
	for _, f := range s.shares {
		for _, st := range f.streams {
			if st.source == stream || st.derived == stream {
				f.following.Demand(on) // of all the avatar's streams: so many say so at the taker, too
			}
		}
	}
}

// begin has a share flow from where the taker says that it stands.
func (s *Source) begin(ctx context.Context, g *given) error {
	id := g.ID
	g, err := s.settle(ctx, id)
	if err != nil {
		return err
	}
	f := &flowing{share: &g.Given, streams: make(map[carnet.StreamID]*flow), again: g.Again}
	s.keeping.Lock()
	if m := s.marks[id]; m != nil {
		f.mark = m.markOf
	}
	s.keeping.Unlock()
	if f.mark.Memory != nil {
		if err := f.memory.UnmarshalBinary(f.mark.Memory); err != nil {
			return err
		}
	}
	asked := time.Now()
	if f.had, err = s.had(ctx, g); errors.Is(err, errManyHad) {
		s.setAside(id, err, time.Since(asked))
		return nil
	} else if err != nil {
		return err
	}
	var failed error
	following, err := s.agent.World.Follow(g.Avatar, func(stream carnet.StreamID) uint64 {
		st, err := s.open(f, g, stream)
		if err != nil {
			failed = err
			return 0
		}
		return st.from
	}, func() {
		s.mu.Lock()
		s.dirty[id] = true
		s.mu.Unlock()
		s.rouse()
	})
	if carnet.CodeOf(err) == carnet.Unavailable {
		s.setAside(id, err, 0)
		return nil
	}
	if err == nil && failed != nil {
		following.Close()
	}
	if err := cmp.Or(err, failed); err != nil {
		return err
	}
	s.readAgain(id)
	f.following = following
	s.shares[id], s.begun[id], s.gives, s.givesAfter = f, true, 0, time.Time{}
	s.mu.Lock()
	s.dirty[id] = true
	s.mu.Unlock()
	return nil
}

// open makes the flow of a source stream of a share.
func (s *Source) open(f *flowing, g *given, source carnet.StreamID) (*flow, error) {
	st := &flow{
		source: source, shown: shown{share: f.share, memory: &f.memory}, since: g.From[source], began: g.From[source], derived: derivedOf(g.ID, source, g.generation()),
		entered: make(map[carnet.StreamID]bool), slots: make(map[slotClass]*seal.Slot), granted: make(map[seal.Path]bool),
	}
	copied, derived := s.heads[source], s.heads[st.derived]
	if g.Again != nil {
		st.began = min(g.Again.From[source], s.stood(g, source))
	}
	if g.Again == nil || copied.NextFirst > g.Again.Copied[source] { // else the numbers are those of before
		st.began = max(st.began, copied.NextFirst)
	}
	st.began = max(st.began, derived.NextFirst)
	st.copied, st.copies, st.next = copied.NextFirst, copied.NextBatch, derived.NextBatch
	at, marked := f.mark.Streams[source]
	if err := st.shown.see(s.agent.Judge, at.Known...); err != nil {
		return nil, err
	}
	// What wasn't kept is remembered from the beginning on.
	if st.from = st.since; marked {
		st.from = min(st.began, at.Position)
	}
	st.decided = st.from
	f.streams[source] = st
	return st, nil
}

// stood is where a share that begins anew stood in a source stream before: what the
// taker lacks of the numbers that still mean what they meant is sent.
func (s *Source) stood(g *given, source carnet.StreamID) uint64 {
	at := max(g.From[source], g.Again.Copied[source])
	for generation := range g.Again.Generation {
		at = max(at, s.heads[derivedOf(g.ID, source, generation)].NextFirst)
	}
	return at
}

// fill takes batches of the shares that have some, until the frame is full.
func (s *Source) fill(ctx context.Context, b *building) error {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty, s.filling = make(map[carnet.ShareID]bool), true
	s.mu.Unlock()
	for id := range dirty {
		f := s.shares[id]
		if f == nil {
			continue
		}
		empty := false
		for !b.full() && !empty {
			began := time.Now()
			e, ok, err := f.following.Take(ctx)
			if empty = !ok; carnet.CodeOf(err) == carnet.Unavailable {
				s.setAside(id, err, time.Since(began))
				break
			}
			if s.readAgain(id); err == nil && ok {
				err = s.decide(ctx, f, b, &e)
			}
			if err != nil { // of one avatar, which may have been erased meanwhile
				return s.giveUp(ctx, id, err)
			}
		}
		if empty {
			continue
		}
		s.mu.Lock()
		s.dirty[id] = true // there is more
		s.mu.Unlock()
		s.rouse()
	}
	return nil
}

// decide applies a share's view to one batch, and adds to the frame what is to be
// sent of it.
func (s *Source) decide(ctx context.Context, f *flowing, b *building, e *avatar.Event) error {
	batch := e.Batch
	if from, foreign := s.agent.World.ShareOf(batch.Stream); foreign && !from.Onward {
		return nil
	}
	st := f.streams[batch.Stream]
	if st == nil { // a stream that came since
		s.agent.mu.RLock()
		g := s.agent.given[f.share.ID]
		s.agent.mu.RUnlock()
		var err error
		if st, err = s.open(f, g, batch.Stream); err != nil {
			return s.giveUp(ctx, f.share.ID, err)
		}
	}
	out, whole := st.shown.batch(batch, e.Measurements, s.agent.Now())
	if st.shown.learned {
		st.shown.learned, s.gives = false, 0 // more may be given than the taker was told
	}
	end := batch.End()
	st.decided = end
	if end <= st.began || len(out) == 0 {
		return nil // the taker has it, or nothing of it is shown
	}
	if out = f.had.without(out); len(out) == 0 {
		return nil
	}
	label, retention := st.shown.label(batch), st.shown.retention(batch)
	if label.Exceeds(f.share.Most) != "" {
		return nil
	}
	b.of[f.share.ID] = true
	b.version = max(b.version, f.share.GrantVersion)
	if b.until.IsZero() || f.share.Until.Before(b.until) {
		b.until = f.share.Until
	}
	var err error
	// The numbers may have been others' before this store was restored.
	whole = whole && batch.First >= max(st.began, st.copied) && batch.Header.Number >= st.copies
	whole = whole && len(out) == int(batch.Count) && label == batch.Label && retention == batch.Retention
	if whole {
		whole, err = s.copy(ctx, f, st, b, batch)
	}
	if !whole && err == nil {
		err = s.derive(ctx, f, st, b, batch, out, label, retention)
	}
	if err != nil {
		return err
	}
	if now := s.agent.Now(); now.Sub(f.marked) >= markEvery {
		f.marked = now
		m, err := f.marks()
		if err != nil {
			return err
		}
		b.marks = append(b.marks, mark{f.share.ID, m})
	}
	return nil
}

// marks is what is kept of a share's memory.
func (f *flowing) marks() (m markOf, err error) {
	m.Streams = make(map[carnet.StreamID]markedAt)
	for source, st := range f.streams {
		m.Streams[source] = markedAt{st.decided, st.shown.sight.Known()}
	}
	m.Memory, err = f.memory.MarshalBinary()
	return m, err
}

// copy sends a batch as it is, with the key of its slot. It reports false where
// the taker has the stream already for something else.
func (s *Source) copy(ctx context.Context, f *flowing, st *flow, b *building, batch *avatar.Batch) (bool, error) {
	if st.elsewhere || s.onShelf && s.copies[batch.Header.Stream] != f.share.ID {
		return false, nil // on a shelf nobody says whether the taker has the stream for something else
	}
	err := s.enter(ctx, f, st, batch.Stream, batch.Header.Number)
	if st.elsewhere = carnet.CodeOf(err) == carnet.Conflict; st.elsewhere {
		return false, nil
	} else if err != nil {
		return false, err
	}
	s.copies[batch.Header.Stream] = f.share.ID
	at := seal.Path{Level: seal.SlotLevel, Stream: batch.Header.Stream, Epoch: batch.Header.Epoch, Slot: batch.Header.Slot}
	if !st.granted[at] {
		k, err := s.agent.World.SlotKey(ctx, batch.Header)
		if err != nil {
			return false, err
		}
		st.granted[at] = true
		b.keys = append(b.keys, key{seal.Entry{Key: k, Ceiling: batch.Label}, batch.Retention})
	}
	b.add(batch.Bytes)
	b.heads = append(b.heads, carnet.StreamHead{Stream: batch.Stream, NextBatch: batch.Header.Number + 1, NextFirst: batch.End()})
	return true, nil
}

// derive sends what is shown of a batch as a batch of the derived stream.
func (s *Source) derive(ctx context.Context, f *flowing, st *flow, b *building, batch *avatar.Batch, out []carnet.Measurement, label carnet.Label, retention carnet.Retention) error {
	if err := s.enter(ctx, f, st, st.derived, st.next); err != nil {
		return err
	}
	if batch.Hour/24 != st.day { // an epoch lasts a day at most
		st.day, st.slots = batch.Hour/24, make(map[slotClass]*seal.Slot)
	}
	slot, err := st.slot(b, slotClass{label, retention, batch.Hour})
	if err != nil {
		return err
	}
	body, err := seal.AppendBody(nil, seal.Body{
		Label: label, Retention: retention, Hour: batch.Hour,
		First: batch.End() - uint64(len(out)), Count: uint32(len(out)), Content: senml.AppendColumns(nil, out),
	})
	if err != nil {
		return err
	}
	sealed, err := slot.Seal(nil, st.next, body)
	if err != nil {
		return err
	}
	st.next++
	source, derived := carnet.FingerprintOf(batch.Bytes), carnet.FingerprintOf(sealed)
	b.pairs = append(b.pairs, carnet.FingerprintOf(append(source[:], derived[:]...)))
	b.add(sealed)
	b.heads = append(b.heads, carnet.StreamHead{Stream: st.derived, NextBatch: st.next, NextFirst: batch.End()})
	return nil
}

// slot returns the slot of the derived stream's epoch; a new one is to be granted.
func (st *flow) slot(b *building, of slotClass) (*seal.Slot, error) {
	if slot, ok := st.slots[of]; ok {
		return slot, nil
	}
	if len(st.slots) == 0 {
		st.epoch = seal.NewEpoch(st.derived)
	}
	slot, err := st.epoch.Slot(uint32(len(st.slots)))
	if err != nil {
		return nil, err
	}
	st.slots[of] = slot
	b.keys = append(b.keys, key{seal.Entry{Key: slot.Key(), Ceiling: of.label}, of.retention})
	return slot, nil
}

func (b *building) add(batch []byte) {
	b.batches = append(b.batches, batch)
	b.bytes += len(batch)
}

// enter tells the taker, once for each connection, that a stream comes from a
// batch on.
func (s *Source) enter(ctx context.Context, f *flowing, st *flow, stream carnet.StreamID, batch uint64) error {
	if st.entered[stream] {
		return nil
	}
	body, err := json.Marshal(streamCall{f.share.ID, stream, batch})
	if err != nil {
		return err
	}
	_, err = s.call.Call(ctx, CallStream, body)
	switch carnet.CodeOf(err) {
	case "":
		if err != nil {
			return err
		}
		st.entered[stream] = true
		f.gives, s.gives = nil, 0 // the taker doesn't know it of this stream
		return nil
	case carnet.Unavailable, carnet.NoSpace, carnet.Conflict:
		return err
	}
	if err := s.agent.StopGiving(ctx, f.share.ID, string(s.to.Party), "the taker doesn't take it: "+err.Error()); err != nil {
		return err
	}
	return errAnew
}

// tellAtOnce is how many ends the taker is told of between two frames.
const tellAtOnce = 64

// tellEnds tells the taker that shares have ended, and remembers that it was told.
func (s *Source) tellEnds(ctx context.Context, ended []*given) error {
	if len(ended) == 0 {
		return nil
	}
	for _, g := range ended {
		body, err := json.Marshal(endCall{g.ID, g.End.Why})
		if err != nil {
			return err
		}
		if _, err := s.call.Call(ctx, CallEnd, body); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	a := s.agent
	a.changing.Lock()
	defer a.changing.Unlock()
	var told []given
	a.mu.RLock()
	for _, g := range ended {
		now := *a.given[g.ID]
		now.Told = true
		told = append(told, now)
	}
	a.mu.RUnlock()
	return a.keepGiven(ctx, told, nil)
}

// grant gives the taker the keys that a frame needs, for as long as what they open
// may be kept: in a bag of their own those that open what is kept for good.
func (s *Source) grant(ctx context.Context, b *building) error {
	var ending, lasting []seal.Entry
	for _, k := range b.keys {
		if k.kept == carnet.Keep {
			lasting = append(lasting, k.Entry)
		} else {
			ending = append(ending, k.Entry)
		}
	}
	if err := s.giveBag(ctx, b, ending, bagLife); err != nil {
		return err
	}
	return s.giveBag(ctx, b, lasting, bagForGood)
}

func (s *Source) giveBag(ctx context.Context, b *building, entries []seal.Entry, life time.Duration) error {
	if len(entries) == 0 {
		return nil
	}
	now := s.agent.Now()
	bag, err := seal.Grant(s.to.Key, s.reception.Reception, seal.Terms{
		Granter: s.to.Self, Grant: carnet.NewShareID(), Purpose: s.purpose(b), Clearance: s.to.Clearance, Time: now, NotAfter: now.Add(life),
	}, entries)
	if err != nil {
		return err
	}
	_, err = s.call.Call(ctx, carnet.CallBag, bag)
	if code := carnet.CodeOf(err); code != "" && code != carnet.Unavailable {
		return carnet.Errorf(carnet.Unavailable, "%s refuses a key bag: %v", s.to.Party, err) // so nothing under its keys is sent
	}
	return err
}

// How long the taker may keep a bag's keys: as long as the longest retention class
// that ends, with two days to spare; or a century.
const (
	bagLife    = (366 + 2) * 24 * time.Hour
	bagForGood = 36525 * 24 * time.Hour
)

// purpose is what a bag's keys are for. All shares of a frame have the taker's one
// purpose.
func (s *Source) purpose(b *building) string {
	for id := range b.of {
		if f := s.shares[id]; f != nil {
			return f.share.Purpose
		}
	}
	return ""
}

// sign makes the frame, unless a share that it has something of may not be sent
// any more.
func (s *Source) sign(b *building) (wire []byte, ok bool, err error) {
	a := s.agent
	a.mu.RLock()
	defer a.mu.RUnlock()
	now := a.Now()
	for id := range b.of {
		if g, f := a.given[id], s.shares[id]; !g.flows() || f.again != g.Again {
			return nil, false, nil
		}
	}
	if !now.Before(b.until) {
		return nil, false, nil
	}
	header := seal.FrameHeader{
		Audience: s.to.OwnName, Incarnation: s.incarnation, Number: s.number + 1, Previous: s.parent, Policy: b.version, Time: now.UnixNano(),
	}
	if err := s.frame.Sign(s.to.Key, header, b.batches); err != nil {
		return nil, false, err
	}
	sent := sentFrame{incarnation: header.Incarnation, number: header.Number, hash: s.frame.Hash(), heads: b.heads, marks: b.marks, statements: []ledger.Statement{{
		Kind: ledger.SentRoot, Time: header.Time, Who: a.Party, Peer: s.to.Party, Frame: header.Number, Root: s.frame.Root, Header: s.frame.Hash(),
		PolicyVersion: b.version,
	}}}
	if len(b.pairs) > 0 {
		sent.statements = append(sent.statements, ledger.Statement{
			Kind: ledger.Derived, Time: header.Time, Who: a.Party, Peer: s.to.Party, Frame: header.Number, Root: seal.Root(b.pairs),
		})
	}
	sent.of = slices.Collect(maps.Keys(b.of))
	for _, h := range b.heads {
		s.heads[h.Stream] = h
	}
	wire = s.frame.AppendWire(nil)
	if !s.onShelf {
		sent.wire = wire
	}
	s.number, s.parent, s.last = header.Number, sent.hash, time.Now()
	s.mu.Lock()
	s.sent, s.filling = append(s.sent, sent), false
	s.mu.Unlock()
	return wire, true, nil
}
