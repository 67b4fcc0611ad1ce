package thing

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"carnet"
	ident "carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
)

// onwardDocument is a mapping that is to go on at the target of a move. It is stored
// with the end of the one before, and gone once the mapping is there.
type onwardDocument struct {
	ID       carnet.MappingID  `json:"id"` // of the mapping to come
	Thing    carnet.ThingID    `json:"thing"`
	Former   uint32            `json:"former"` // number of the mapping before
	Crossing carnet.CrossingID `json:"crossing"`
	Target   string            `json:"target"` // did:key
	Avatar   carnet.AvatarID   `json:"avatar"` // at the target
	Stream   carnet.StreamID   `json:"stream"`
	Owner    []byte            `json:"owner"`  // the owner's key for the target
	Orders   []byte            `json:"orders"` // the owner's key that orders moves
	Order    string            `json:"order"`
	Terms    []byte            `json:"terms"`
	Onward   string            `json:"onward"` // this agent's word, by its key for the source
	View     policy.View       `json:"view"`
	Unfit    string            `json:"unfit,omitempty"` // why the terms' view can't be used; then View shows nothing
	Begin    beginning         `json:"begin"`
	Made     time.Time         `json:"made"`
}

// onward is such a mapping while it waits.
type onward struct {
	id      carnet.MappingID
	key     string // of its document
	target  string
	thing   *Thing
	version uint64 // of its document; owner: changeMu

	// Guarded by registryMu; doc is written under changeMu, too.
	doc   onwardDocument
	why   error         // why the target doesn't give the avatar yet
	wait  time.Duration // until it is asked again
	after time.Time
}

func newOnward(doc onwardDocument, t *Thing, version uint64) *onward {
	return &onward{id: doc.ID, key: doc.Crossing.String() + "/" + mappingKey(doc.Former), target: doc.Target, thing: t, version: version, doc: doc}
}

// waits is how the mapping waits now.
func (a *Agent) waits(p *onward) onwardDocument {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return p.doc
}

// newPending makes what follows a mapping whose avatar has moved.
func (a *Agent) newPending(ctx context.Context, s *sender, m *Mapping, told carnet.Moved, v movement, at standing) (*onward, error) {
	doc := onwardDocument{
		ID: carnet.NewMappingID(), Thing: m.thing.id, Former: m.Number, View: a.mappingDocument(m).Owner, Begin: at.begin, Made: a.now().UTC(),
	}
	if err := a.goesTo(ctx, &doc, s, m, told, v); err != nil {
		return nil, err
	}
	return newOnward(doc, m.thing, 1), nil
}

// goesTo says of what follows a mapping to s's world where a move went.
func (a *Agent) goesTo(ctx context.Context, doc *onwardDocument, s *sender, m *Mapping, told carnet.Moved, v movement) (err error) {
	if doc.Stream, err = a.onwardStream(ctx, v.order.Crossing, m.Stream); err != nil {
		return err
	}
	doc.Onward, err = ident.SignOnward(s.peer.Key, ident.Onward{
		Crossing: v.order.Crossing, Sender: ident.DID(s.peer.Key.Public().(ed25519.PublicKey)), Target: v.order.Target, Former: m.Stream, Stream: doc.Stream,
	})
	if err != nil {
		return err
	}
	doc.Crossing, doc.Target, doc.Avatar = v.order.Crossing, v.order.Target, v.terms.To
	doc.Owner, doc.Orders, doc.Order, doc.Terms = publicKey(v.terms.Owner), publicKey(v.order.Owner), told.Order, told.Terms
	if v.terms.View != nil {
		doc.Unfit = ""
		if doc.View, err = m.thing.viewOf(v.terms.View); err != nil {
			doc.Unfit = err.Error()
		}
	}
	return nil
}

// moveOn has a waiting mapping wait for another world: its avatar has moved on from the
// one that was asked. Nothing of the thing's data is there.
func (a *Agent) moveOn(ctx context.Context, asked *sender, p *onward, told carnet.Moved) error {
	before := a.waits(p)
	v, err := proveMove(told, before.Orders, before.Target, before.Avatar)
	if err != nil {
		return err
	}
	former := a.mappingByNumber(before.Former)
	if former == nil {
		return carnet.Errorf(carnet.NotFound, "the mapping %d, which the avatar left, isn't known", before.Former)
	}
	first := a.sender(former.World)
	if first == nil || first.peer.Key == nil {
		return carnet.Errorf(carnet.Conflict, "the peering with %s has ended, by whose key the avatar's next home would know this agent", former.World).
			WithFix("end the mapping, and map the thing to the avatar's home")
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if a.pendingByID(p.id) != p {
		return nil // it was changed meanwhile
	}
	doc := a.waits(p)
	if err := a.goesTo(ctx, &doc, first, former, told, v); err != nil {
		return err
	}
	next := newOnward(doc, p.thing, 1)
	d, err := a.document(kindOnward, next.key, next.version, next.doc)
	if err != nil {
		return err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.MappingMoved, Time: a.now().UnixNano(), Peer: asked.peer.Party, Thing: p.thing.id, Mapping: p.id, Avatar: before.Avatar,
		Object: carnet.FingerprintOf([]byte(told.Decision)),
	})
	if err != nil {
		return err
	}
	documents := []carnet.Document{d, {Kind: kindOnward, ID: p.key, Version: p.version + 1}}
	if err := a.change(ctx, documents, []ledger.Item{item}); err != nil {
		return err
	}
	a.registryMu.Lock()
	delete(a.registry.onward, p.key)
	a.registry.onward[next.key] = next
	a.registryMu.Unlock()
	a.lookAtMoves()
	a.log.Info("an avatar has moved on; its thing's data waits to go where it went", "from", asked.peer.Party, "thing", p.thing.id, "target", v.order.Target)
	return nil
}

// viewOf reads the view of a move's terms: what it says of this thing, for the avatar
// may stand for others, too. With an error it shows nothing.
func (t *Thing) viewOf(text []byte) (policy.View, error) {
	none := policy.View{Properties: map[string]policy.PropertyView{}}
	v, err := policy.ParseView(text)
	if err != nil {
		return none, err
	}
	names := t.names()
	v.Properties = maps.Clone(v.Properties)
	maps.DeleteFunc(v.Properties, func(name string, _ policy.PropertyView) bool { return !slices.Contains(names, name) })
	if err := t.takes(v); err != nil {
		return none, err
	}
	return v, nil
}

// takes refuses a view that the thing can't be mapped with.
func (t *Thing) takes(v policy.View) error {
	if err := t.has(v); err != nil {
		return err
	}
	return v.Enforced()
}

// onwardStream is the stream that goes on at a move's target: the same, if it is
// asked for again by an agent that was restored from an older copy; to anybody else
// a random one.
func (a *Agent) onwardStream(ctx context.Context, x carnet.CrossingID, former carnet.StreamID) (s carnet.StreamID, err error) {
	id := keys.ID{Kind: "streams", Name: "onward"}
	secret, err := a.keys.Get(ctx, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		made, merr := a.keys.Make(ctx, id)
		if merr != nil {
			return s, merr
		}
		secret, err = made[0][:], nil
	}
	if err != nil {
		return s, err
	}
	h := hmac.New(sha256.New, secret)
	h.Write(x[:])
	h.Write(former[:])
	copy(s[:], h.Sum(nil))
	return s, nil
}

func (a *Agent) enterPending(d carnet.Document, v onwardDocument) error {
	t, err := a.thing(v.Thing)
	if err != nil {
		return err
	}
	a.keepPending(newOnward(v, t, d.Version))
	return nil
}

func (a *Agent) keepPending(p *onward) {
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.onward[p.key] = p
	a.lookAtMoves()
}

func (a *Agent) allPending() []*onward {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return slices.Collect(maps.Values(a.registry.onward))
}

// pendingByID finds a mapping that waits, nil for none.
func (a *Agent) pendingByID(id carnet.MappingID) *onward {
	for _, p := range a.allPending() {
		if p.id == id {
			return p
		}
	}
	return nil
}

// changePending changes a waiting mapping durably, or ends it.
func (a *Agent) changePending(ctx context.Context, p *onward, change func(*onwardDocument) (end bool)) (MappingInfo, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if a.pendingByID(p.id) == nil {
		return MappingInfo{}, carnet.Errorf(carnet.Conflict, "the mapping %s has gone on meanwhile", p.id).WithFix("do it again")
	}
	doc := a.waits(p)
	end := change(&doc)
	d, err := a.document(kindOnward, p.key, p.version+1, doc)
	if err != nil {
		return MappingInfo{}, err
	}
	if end {
		d.Body = nil
	}
	if err := a.change(ctx, []carnet.Document{d}, nil); err != nil {
		return MappingInfo{}, err
	}
	p.version = d.Version
	a.registryMu.Lock()
	if p.doc, p.after = doc, (time.Time{}); end {
		delete(a.registry.onward, p.key)
	}
	a.registryMu.Unlock()
	a.lookAtMoves()
	info := a.pendingInfo(p)
	info.Stopped = end
	return info, nil
}

func (a *Agent) setPendingView(ctx context.Context, p *onward, view policy.View) (MappingInfo, error) {
	if err := p.thing.takes(view); err != nil {
		return MappingInfo{}, err
	}
	return a.changePending(ctx, p, func(doc *onwardDocument) bool {
		doc.View, doc.Unfit = view, ""
		return false
	})
}

func (a *Agent) endPending(ctx context.Context, p *onward) (MappingInfo, error) {
	return a.changePending(ctx, p, func(*onwardDocument) bool { return true })
}

// lookAtMoves has the agent look at what it was told and what waits.
func (a *Agent) lookAtMoves() {
	select {
	case a.moved <- struct{}{}:
	default:
	}
}

// followEvery is how often the agent looks at what waits to go on.
const followEvery = time.Second

// followMoves takes up what worlds tell of moves and asks targets, one thing at a
// time for each world, until ctx ends.
func (a *Agent) followMoves(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		for _, s := range a.allSenders() {
			if a.mayFollow(s) {
				work.Go(func() { a.follow(ctx, s) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.moved:
		case <-tick.C:
		}
	}
}

// mayFollow claims the work for a world, if there is any and nobody does it.
func (a *Agent) mayFollow(s *sender) bool {
	waits := slices.ContainsFunc(a.allPending(), func(p *onward) bool { return a.asksNow(p, s) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.following || !waits && len(s.told) == 0 {
		return false
	}
	s.following = true
	return true
}

func (a *Agent) follow(ctx context.Context, s *sender) {
	for t, some := s.nextTold(); some && ctx.Err() == nil; t, some = s.nextTold() {
		if t.erased != nil {
			a.takeErased(ctx, s, t)
			continue
		}
		a.takeMove(ctx, s, t)
	}
	for _, p := range a.allPending() {
		if a.asksNow(p, s) && ctx.Err() == nil {
			a.note(p, a.goOn(ctx, s, p))
		}
	}
	s.mu.Lock()
	s.following = false
	more := len(s.told) > 0
	s.mu.Unlock()
	if more {
		a.lookAtMoves()
	}
}

// asksNow reports whether a waiting mapping is to ask a world now.
func (a *Agent) asksNow(p *onward, s *sender) bool {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return p.doc.Unfit == "" && s.isTarget(p.target) && !a.now().Before(p.after)
}

func (s *sender) isTarget(did string) bool { return !s.peer.Ended && s.did == did }

// target finds the world that has a key, nil where no peer has it.
func (a *Agent) target(did string) *sender {
	for _, s := range a.allSenders() {
		if s.isTarget(did) {
			return s
		}
	}
	return nil
}

// note keeps why a target doesn't give the avatar yet, and when it is asked again.
func (a *Agent) note(p *onward, why error) {
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	p.why = why
	p.wait = min(max(2*p.wait, followEvery), time.Minute)
	p.after = a.now().Add(p.wait)
}

// goOn asks the target for the avatar, and begins the mapping to it.
func (a *Agent) goOn(ctx context.Context, s *sender, p *onward) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	doc := a.waits(p)
	answer, err := s.ask(ctx, carnet.CallMap, carnet.MapRequest{Stream: doc.Stream, Order: doc.Order, Terms: doc.Terms, Onward: doc.Onward})
	if err != nil {
		return err
	}
	var got carnet.MapAnswer
	if err := json.Unmarshal(answer, &got); err != nil {
		return carnet.Errorf(carnet.Malformed, "it answered with something else than an avatar: %v", err)
	}
	if got.Moved != nil {
		return a.moveOn(ctx, s, p, *got.Moved)
	}
	if got.Avatar != doc.Avatar {
		return carnet.Errorf(carnet.Malformed, "it gives the avatar %s, and the order's terms name %s", got.Avatar, doc.Avatar)
	}
	var bears *policy.View
	if len(got.View) > 0 {
		v, err := policy.ParseView(got.View)
		if err != nil {
			return fmt.Errorf("read the view that it states: %w", err)
		}
		bears = &v
	}
	head, err := s.head(ctx, doc.Stream)
	if err != nil {
		return err
	}
	return a.begun(ctx, s, p, bears, head)
}

// head asks the world where a stream stands; zero where it has nothing of it.
func (s *sender) head(ctx context.Context, stream carnet.StreamID) (carnet.StreamHead, error) {
	before := stream
	for i := len(before) - 1; i >= 0; i-- {
		if before[i]--; before[i] != math.MaxUint8 {
			break
		}
	}
	answer, err := s.ask(ctx, carnet.CallHeads, carnet.HeadsRequest{After: before})
	if err != nil {
		return carnet.StreamHead{}, err
	}
	var page carnet.HeadsPage
	if err := json.Unmarshal(answer, &page); err != nil {
		return carnet.StreamHead{}, carnet.Errorf(carnet.Malformed, "the world's stream heads can't be read: %v", err)
	}
	i := slices.IndexFunc(page.Heads, func(h carnet.StreamHead) bool { return bytes.Equal(h.Stream[:], stream[:]) })
	if i < 0 {
		return carnet.StreamHead{}, nil
	}
	return page.Heads[i], nil
}

// begun makes the mapping and puts it in force, in one transaction with the end of
// the wait for it.
func (a *Agent) begun(ctx context.Context, s *sender, p *onward, bears *policy.View, head carnet.StreamHead) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if a.pendingByID(p.id) == nil {
		return nil // its owner has ended it
	}
	from := a.waits(p)
	begin := from.Begin
	m := &Mapping{
		ID: p.id, Number: a.nextMapping(), World: s.peer.Party, Stream: from.Stream, Avatar: from.Avatar, thing: p.thing,
	}
	doc := mappingDocument{
		ID: p.id, Thing: p.thing.id, World: m.World, Stream: m.Stream, Avatar: m.Avatar, Owner: from.View, Bears: bears, Made: a.now().UTC(),
	}
	var err error
	if m.memory, err = begin.memory(); err != nil {
		return err
	}
	if head.NextBatch > 0 {
		if err := a.overtakenAt(m, doc, &begin, head); err != nil {
			return err
		}
	}
	m.From = begin.first()
	m.follows = &following{from.Crossing, from.Former, begin}
	doc.Follows = m.follows
	owner := ownerDocument{Key: from.Owner, At: a.now().UTC(), Orders: from.Orders}
	number := mappingKey(m.Number)
	pinned, err := a.document(kindOwner, number, a.nextVersion(kindOwner, number), owner)
	if err != nil {
		return err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.OwnerPinned, Time: a.now().UnixNano(), Peer: m.World, Thing: p.thing.id, Mapping: m.ID, Avatar: m.Avatar,
		Object: carnet.FingerprintOf([]byte(from.Order)),
	})
	if err != nil {
		return err
	}
	record := a.linkRecord(m.World)
	record.Decided = min(record.Decided, m.From)
	needed, err := a.linkDocument(m.World, record)
	if err != nil {
		return err
	}
	err = a.decideAnew(ctx, mappingChange{
		by: byMove, mapping: m, doc: doc, kind: ledger.Mapped, since: begin.Lanes,
		documents:  []carnet.Document{pinned, needed, {Kind: kindOnward, ID: p.key, Version: p.version + 1}},
		statements: []ledger.Item{item},
		done: func() {
			s.need(m.From)
			a.registryMu.Lock()
			defer a.registryMu.Unlock()
			a.registry.owners[m.Number] = owner
			a.registry.links[m.World] = held[linkRecord]{needed.Version, record}
			delete(a.registry.onward, p.key)
		},
	})
	if err == nil {
		a.log.Info("an avatar's thing goes on at the avatar's new home", "world", m.World, "thing", p.thing.id, "mapping", m.ID)
	}
	return err
}

// overtakenAt has a mapping begin behind what the target has of it: this store is an
// older copy, which doesn't know that the mapping was there.
func (a *Agent) overtakenAt(m *Mapping, doc mappingDocument, begin *beginning, head carnet.StreamHead) error {
	a.log.Warn("the target of a move has more of a stream than this agent's store knows: it was restored from an older copy", "world", m.World, "mapping", m.ID)
	table, err := a.compile(m, effective(doc), 0)
	if err != nil {
		return err
	}
	c := course{mapping: m}
	c.rates.CopyFrom(&m.memory)
	c.sawUnder(table, head.Latest)
	after := a.linkRecord(m.World).Overtaken
	begin.Lanes = maps.Clone(begin.Lanes)
	for linger, at := range begin.Lanes {
		begin.Lanes[linger] = max(at, after)
	}
	begin.NextBatch, begin.NextFirst = head.NextBatch, head.NextFirst
	if begin.Rates, err = c.rates.MarshalBinary(); err != nil {
		return err
	}
	m.memory, err = begin.memory()
	return err
}

// need has the log kept from a position on, whatever frames that were built before
// say that they cover. The caller holds the policy lock for writing.
func (s *sender) need(from uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decided = min(s.decided, from)
	for i := range s.unacked {
		s.unacked[i].position = min(s.unacked[i].position, from)
	}
}

// Waiting says what a mapping waits for that is to go on at a move's target.
type Waiting struct {
	Crossing carnet.CrossingID `json:"crossing"`
	Target   string            `json:"target"` // did:key
	For      string            `json:"for"`
	Fix      string            `json:"fix,omitempty"`
	Messages uint64            `json:"messages"` // of the log, of all things, that came since
}

// waiting says what a pending mapping waits for.
func (a *Agent) waiting(p *onward) *Waiting {
	s, end := a.target(p.target), a.feed.end()
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	w := &Waiting{Crossing: p.doc.Crossing, Target: p.target, Messages: end - min(end, p.doc.Begin.first())}
	switch {
	case p.doc.Unfit != "":
		w.For = "the view that the move's terms name can't be used for this thing: " + p.doc.Unfit
		w.Fix = fmt.Sprintf("set another: carnet thing view set %s FILE", p.id)
	case s == nil:
		w.For = fmt.Sprintf("the world that its avatar moved to is no peer; its key is %s", p.target)
		w.Fix = "become its peer: carnet peer invite NAME --scope r1 --purpose WORD, or carnet peer accept with its invitation"
	case p.why == nil:
		w.For = fmt.Sprintf("%s is asked for the avatar", s.peer.Party)
	default:
		w.For = fmt.Sprintf("%s doesn't give the avatar yet: %v", s.peer.Party, p.why)
		w.Fix = "it is asked again by itself; see carnet status, and ask the world's operator"
	}
	return w
}

// pendingInfo shows a mapping that waits.
func (a *Agent) pendingInfo(p *onward) MappingInfo {
	w, doc := a.waiting(p), a.waits(p)
	info := MappingInfo{
		ID: doc.ID, Thing: doc.Thing, WorldKey: publicKey(doc.Target), OwnerKey: doc.Owner, Avatar: doc.Avatar, Stream: doc.Stream,
		From: doc.Begin.first(), OwnerView: doc.View, View: doc.View, Waits: w, Got: []PropertyCount{},
	}
	if s := a.target(doc.Target); s != nil {
		info.World, info.WorldName = s.peer.Party, s.peer.OwnName
	}
	if former := a.mappingByNumber(doc.Former); former != nil {
		info.Follows = &former.ID
	}
	for i := range p.thing.description.Properties {
		info.Got = append(info.Got, PropertyCount{Property: p.thing.description.Properties[i].Name, Why: "waits: " + w.For})
	}
	return info
}

// pendingOf lists a thing's mappings that wait, oldest first.
func (a *Agent) pendingOf(t *Thing) (all []*onward) {
	for _, p := range a.allPending() {
		if p.thing == t {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(p, q *onward) int {
		return cmp.Or(a.waits(p).Made.Compare(a.waits(q).Made), cmp.Compare(p.key, q.key))
	})
	return all
}
