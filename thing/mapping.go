package thing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/policy"
)

// Mapping is a thing's way to one avatar. What the policy lock guards is set
// under it.
type Mapping struct {
	ID     carnet.MappingID
	Number uint32
	World  carnet.PartyID
	Stream carnet.StreamID
	Avatar carnet.AvatarID
	From   uint64 // the first log position that the mapping concerns
	thing  *Thing

	follows *following   // nil for a mapping that follows no other
	memory  policy.State // of the one that it follows

	// Guarded by the policy lock.
	owner   policy.View // what the owner lets the world have
	world   policy.View // what the world itself wants or bears, if bears
	bears   bool
	made    time.Time
	table   *policy.Table
	cut     uint64        // grows when the next batch must begin a new epoch
	held    int           // changes that wait until what was decided before has left
	turn    atomic.Uint64 // grows when lanes that are parked may find it otherwise
	stopped bool
	moved   *movedOn // where its avatar went; nil while it is here
	version uint64   // of the document
}

type mappingDocument struct {
	ID      carnet.MappingID `json:"id"`
	Thing   carnet.ThingID   `json:"thing"`
	World   carnet.PartyID   `json:"world"`
	Stream  carnet.StreamID  `json:"stream"`
	Avatar  carnet.AvatarID  `json:"avatar"`
	From    uint64           `json:"from"`
	Owner   policy.View      `json:"owner_view"`
	Bears   *policy.View     `json:"world_view,omitempty"`
	Stopped bool             `json:"stopped,omitempty"`
	Made    time.Time        `json:"made"`
	Moved   *movedOn         `json:"moved,omitempty"`
	Follows *following       `json:"follows,omitempty"`
}

// ViewRecord is one view that was in force for a mapping: the history that an
// auditor recomputes from.
type ViewRecord struct {
	Mapping uint32      `json:"mapping"`
	Version uint64      `json:"policy_version"`
	Time    time.Time   `json:"time"`
	By      string      `json:"by"`
	View    policy.View `json:"view"` // the strictest of the owner's and the world's
	Stopped bool        `json:"stopped,omitempty"`
	// Denied names the properties that the judge or the clearance withholds,
	// whatever the view says.
	Denied []string `json:"denied,omitempty"`
	// Since says, per linger in milliseconds, the position from which on the view
	// decides: what came before was decided under the version before.
	Since map[int64]uint64 `json:"since"`

	document uint64
}

// mappingsTo lists the mappings to a world, in order of their numbers, those
// that have ended included.
func (a *Agent) mappingsTo(world carnet.PartyID) (ms []*Mapping) {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	for _, m := range a.registry.mappings {
		if m.World == world {
			ms = append(ms, m)
		}
	}
	slices.SortFunc(ms, func(p, q *Mapping) int { return cmp.Compare(p.Number, q.Number) })
	return ms
}

func (a *Agent) mappingByNumber(n uint32) *Mapping {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return a.registry.mappings[n]
}

func (a *Agent) mappingByStream(s carnet.StreamID) *Mapping {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return a.registry.byStream[s]
}

// maySend says whether the view lets anything be transmitted now, and until
// when the answer holds.
func (m *Mapping) maySend(now time.Time) (open bool, until time.Time) { return m.table.MaySend(now) }

// noWorld refuses a world that there is no peering with, and says which there are.
func (a *Agent) noWorld(world carnet.PartyID) error {
	err := carnet.Errorf(carnet.NotFound, "%q is not a world that %s has a peering with", world, a.party)
	var names []string
	for name, s := range a.allSenders() {
		if !s.peer.Ended {
			names = append(names, string(name))
		}
	}
	if len(names) == 0 {
		return err.WithFix("it has none with any world yet; see 'carnet peer list', and make one with 'carnet peer accept'")
	}
	slices.Sort(names)
	return err.WithFix("its worlds are %s; see 'carnet peer list'", strings.Join(names, ", "))
}

// Map gives the thing an avatar in a world, with the view that its owner lets
// the world have. avatar may name one that another thing of the same owner has there;
// nil asks for a new one. title is what people in that world call it; it may be empty.
func (a *Agent) Map(ctx context.Context, by string, id carnet.ThingID, world carnet.PartyID, avatar *carnet.AvatarID, title string, view policy.View) (MappingInfo, error) {
	t, err := a.thing(id)
	if err != nil {
		return MappingInfo{}, err
	}
	if err := t.takes(view); err != nil { // before the world makes an avatar
		return MappingInfo{}, err
	}
	s := a.sender(world)
	if s == nil || s.peer.Ended {
		return MappingInfo{}, a.noWorld(world)
	}
	if avatar != nil {
		if err := a.sameOwner(t, world, *avatar); err != nil {
			return MappingInfo{}, err
		}
	}
	if err := a.mayMap(t.owner, world); err != nil {
		return MappingInfo{}, err
	}
	stream, done, err := a.streamFor(ctx, askedKey(id, world, avatar))
	if err != nil {
		return MappingInfo{}, err
	}
	defer done()
	answer, err := s.ask(ctx, carnet.CallMap, carnet.MapRequest{Stream: stream, Avatar: avatar, Title: title})
	if err != nil {
		return MappingInfo{}, fmt.Errorf("ask %s for an avatar: %w", world, err)
	}
	var got carnet.MapAnswer
	if err := json.Unmarshal(answer, &got); err != nil {
		return MappingInfo{}, carnet.Errorf(carnet.Malformed, "%s answered with something else than an avatar: %v", world, err)
	}
	doc := mappingDocument{
		ID: carnet.NewMappingID(), Thing: id, World: world, Stream: stream, Avatar: got.Avatar, Owner: view, Made: a.now().UTC(),
	}
	if len(got.View) > 0 {
		bears, err := policy.ParseView(got.View)
		if err != nil {
			return MappingInfo{}, fmt.Errorf("read the view that %s states: %w", world, err)
		}
		doc.Bears = &bears
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	m, err := a.newMapping(ctx, t, doc)
	if err != nil {
		return MappingInfo{}, err
	}
	if err := a.decideAnew(ctx, mappingChange{by: by, mapping: m, doc: doc, kind: ledger.Mapped}); err != nil {
		return MappingInfo{}, err
	}
	return a.info(m), nil
}

// newMapping makes the mapping, not yet in force. What the thing sent before
// now doesn't concern it.
func (a *Agent) newMapping(ctx context.Context, t *Thing, doc mappingDocument) (*Mapping, error) {
	if err := a.barrier(ctx); err != nil {
		return nil, err
	}
	return &Mapping{
		ID: doc.ID, Number: a.nextMapping(), World: doc.World, Stream: doc.Stream, Avatar: doc.Avatar, From: a.feed.end(), thing: t,
	}, nil
}

func (a *Agent) nextMapping() uint32 {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	number := uint32(1)
	for n := range a.registry.mappings {
		number = max(number, n+1)
	}
	return number
}

// enterMapping takes a stored mapping into the registry.
func (a *Agent) enterMapping(d carnet.Document, doc mappingDocument) error {
	t, err := a.thing(doc.Thing)
	if err != nil {
		return err
	}
	number, err := parseMappingKey(d.ID)
	if err != nil {
		return err
	}
	m := &Mapping{
		ID: doc.ID, Number: number, World: doc.World, Stream: doc.Stream, Avatar: doc.Avatar, From: doc.From, thing: t,
		version: d.Version, stopped: doc.Stopped, follows: doc.Follows,
	}
	if doc.Follows != nil {
		if m.memory, err = doc.Follows.Begin.memory(); err != nil {
			return err
		}
	}
	views := a.registry.views[number]
	if len(views) == 0 {
		return carnet.Errorf(carnet.Tampered, "mapping %d has no view in the store", number)
	}
	last := views[len(views)-1].Version
	table, err := a.compile(m, effective(doc), last)
	if err != nil {
		return err
	}
	a.policyVersions[m.World] = max(a.policyVersions[m.World], last)
	a.enforce(m, doc, table)
	return nil
}

func effective(doc mappingDocument) policy.View {
	if doc.Bears == nil {
		return doc.Owner
	}
	return policy.Strictest(doc.Owner, *doc.Bears)
}

func (a *Agent) compile(m *Mapping, v policy.View, version uint64) (*policy.Table, error) {
	s := a.sender(m.World)
	if s == nil {
		return nil, carnet.Errorf(carnet.NotFound, "mapping %d is to %q, which is no longer a peer", m.Number, m.World)
	}
	return policy.Compile(a.judge, m.thing.properties(), v, policy.Reader{Party: m.World, Clearance: s.peer.Clearance}, version)
}

// enforce puts a mapping with its table in force.
func (a *Agent) enforce(m *Mapping, doc mappingDocument, table *policy.Table) {
	m.owner, m.table, m.stopped, m.made, m.moved = doc.Owner, table, doc.Stopped, doc.Made, doc.Moved
	if m.bears = doc.Bears != nil; m.bears {
		m.world = *doc.Bears
	}
	m.cut++
	m.turn.Add(1)
	defer a.tellRuns(m.World)
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.mappings[m.Number] = m
	a.registry.byStream[m.Stream] = m
	to := make(map[carnet.PartyID][]*Mapping)
	for world, ms := range *m.thing.mappings.Load() {
		to[world] = slices.DeleteFunc(slices.Clone(ms), func(o *Mapping) bool { return o == m })
	}
	if !m.stopped {
		to[m.World] = append(to[m.World], m)
	}
	m.thing.mappings.Store(&to)
}

// mappingChange is a change of a mapping, or a new one.
type mappingChange struct {
	by      string
	mapping *Mapping
	doc     mappingDocument
	kind    ledger.Kind      // Mapped or ViewSet
	since   map[int64]uint64 // from where on it decides; nil: from what isn't decided yet

	// What is stored with it, in one transaction; and what is done once that is on
	// disk, under the policy lock.
	documents  []carnet.Document
	statements []ledger.Item
	done       func()
}

// decideAnew makes a changed mapping durable and puts it in force, in one
// critical section with the signing of frames: a frame is either signed before,
// or under the new view. The caller holds changeMu.
func (a *Agent) decideAnew(ctx context.Context, c mappingChange) error {
	a.policyMu.Lock()
	defer a.policyMu.Unlock()
	m, doc, kind := c.mapping, c.doc, c.kind
	version := a.policyVersions[m.World] + 1
	if kind == ledger.Mapped {
		doc.From = m.From
	}
	view := effective(doc)
	if !doc.Stopped {
		if err := view.Enforced(); err != nil {
			return err
		}
	}
	table, err := a.compile(m, view, version)
	if err != nil {
		return err
	}
	since := c.since
	if since == nil {
		since = a.decidedUpTo(m)
		if kind == ledger.Mapped {
			for linger := range since {
				since[linger] = m.From
			}
		}
	}
	record := ViewRecord{
		Mapping: m.Number, Version: version, Time: a.now().UTC(), By: c.by, View: view, Stopped: doc.Stopped,
		Denied: denied(table, m.thing), Since: since, document: 1,
	}
	documents, err := a.viewDocuments(m, doc, record)
	if err != nil {
		return err
	}
	fingerprint, err := view.Hash()
	if err != nil {
		return err
	}
	statement := ledger.Statement{
		Kind: kind, Time: record.Time.UnixNano(), Peer: m.World, Thing: m.thing.id, Mapping: m.ID, Avatar: m.Avatar, PolicyVersion: version,
	}
	if kind == ledger.Mapped {
		statement.Stream = m.Stream
	} else {
		statement.Object = fingerprint
	}
	item, err := a.Statement(statement)
	if err != nil {
		return err
	}
	documents = append(documents, c.documents...)
	idle := a.idleView(m, since)
	if idle != nil {
		documents = append(documents, carnet.Document{Kind: kindView, ID: viewKey(*idle), Version: idle.document + 1})
	}
	if err := a.change(ctx, documents, append(c.statements, item)); err != nil {
		return err
	}
	a.policyVersions[m.World] = version
	m.version++
	a.enforce(m, doc, table)
	if c.done != nil {
		c.done()
	}
	if kind != ledger.Mapped {
		a.recall(m)
	}
	a.stored(documents...)
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	views := a.registry.views[m.Number]
	if idle != nil {
		views = slices.Clone(views[:len(views)-1]) // others may still read the list
	}
	a.registry.views[m.Number] = append(views, record)
	return nil
}

// idleView is the last view of a mapping if it has decided nothing: the next begins
// where it did, and takes its place. The first one stays. Nil: there is none.
func (a *Agent) idleView(m *Mapping, since map[int64]uint64) *ViewRecord {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	views := a.registry.views[m.Number]
	if len(views) < 2 || !maps.Equal(views[len(views)-1].Since, since) {
		return nil
	}
	return &views[len(views)-1]
}

// tellRuns wakes the world's run, if there is one, after a mapping to it changed.
func (a *Agent) tellRuns(world carnet.PartyID) {
	a.changes.Add(1)
	if r := a.sender(world).current(); r != nil {
		r.rouse()
	}
}

func denied(table *policy.Table, t *Thing) (names []string) {
	for i := range t.description.Properties {
		if reason := table.Result(i).Reason; reason == policy.DeniedByPolicy || reason == policy.ExceedsClearance {
			names = append(names, t.description.Properties[i].Name)
		}
	}
	return names
}

func (a *Agent) viewDocuments(m *Mapping, doc mappingDocument, record ViewRecord) ([]carnet.Document, error) {
	mapping, err := a.document(kindMapping, mappingKey(m.Number), m.version+1, doc)
	if err != nil {
		return nil, err
	}
	view, err := a.document(kindView, viewKey(record), 1, record)
	return []carnet.Document{mapping, view}, err
}

func viewKey(v ViewRecord) string { return fmt.Sprintf("%d/%d", v.Mapping, v.Version) }

// decidedUpTo says, per linger, from which position on a new view decides. The
// caller holds the policy lock for writing. While the world is away nothing is
// decided; the next start of the link lowers the positions to where it begins.
func (a *Agent) decidedUpTo(m *Mapping) map[int64]uint64 {
	since := make(map[int64]uint64)
	for _, linger := range m.thing.lingers {
		since[linger.Milliseconds()] = max(m.From, a.feed.end())
	}
	r := a.sender(m.World).current()
	if r == nil {
		return since
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.courses[m.Number]; c != nil {
		for i := range c.lanes {
			since[c.lanes[i].linger.Milliseconds()] = c.lanes[i].cursor
		}
	}
	return since
}

// lowerViews corrects the history of a mapping's views where a link begins
// before positions that were decided once already, or that no link has reached
// yet: they are decided under the view now in force. What of a mapping moved is
// decided for good. The caller holds changeMu.
func (a *Agent) lowerViews(ctx context.Context, c *course) error {
	if a.hasMoved(c.mapping) {
		return nil
	}
	a.registryMu.RLock()
	views := slices.Clone(a.registry.views[c.mapping.Number])
	a.registryMu.RUnlock()
	var documents []carnet.Document
	for i := range views {
		v, lowered := views[i], false
		v.Since = maps.Clone(v.Since)
		for _, l := range c.lanes {
			if key := l.linger.Milliseconds(); i > 0 && v.Since[key] > l.cursor {
				v.Since[key], lowered = l.cursor, true
			}
		}
		if !lowered {
			continue
		}
		v.document++
		views[i] = v
		d, err := a.document(kindView, viewKey(v), v.document, v)
		if err != nil {
			return err
		}
		documents = append(documents, d)
	}
	if len(documents) == 0 {
		return nil
	}
	if err := a.change(ctx, documents, nil); err != nil {
		return err
	}
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.views[c.mapping.Number] = views
	return nil
}

// SetView changes what the thing's owner lets a world have. It takes effect on
// everything that isn't sent yet.
func (a *Agent) SetView(ctx context.Context, by string, id carnet.MappingID, view policy.View) (MappingInfo, error) {
	if p := a.pendingByID(id); p != nil {
		return a.setPendingView(ctx, p, view)
	}
	m, err := a.mapping(id)
	if err != nil {
		return MappingInfo{}, err
	}
	if err := m.thing.has(view); err != nil {
		return MappingInfo{}, err
	}
	return a.changeMapping(ctx, by, id, func(doc *mappingDocument) error {
		if doc.Stopped {
			return carnet.Errorf(carnet.Conflict, "the mapping of %s to %s is stopped, and gets nothing more under any view", doc.Thing, doc.World).
				WithFix("map it again: carnet thing map %s --world %s --avatar %s", doc.Thing, doc.World, doc.Avatar)
		}
		if err := a.mayChange(m.thing.owner); err != nil {
			return err
		}
		doc.Owner = view
		return nil
	})
}

// has refuses a view that names what the thing doesn't have, or wants of a
// property what isn't in it: either would show nothing.
func (t *Thing) has(view policy.View) error {
	names := t.names()
	for _, name := range slices.Sorted(maps.Keys(view.Properties)) {
		if !slices.Contains(names, name) {
			slices.Sort(names)
			return carnet.Errorf(carnet.Malformed, "the view names %q, which %q doesn't have", name, t.description.Title).
				WithFix("it has %s", strings.Join(slices.Compact(names), ", "))
		}
	}
	return view.CheckPrecision(t.properties())
}

// names are what a view may name: properties, and objects of them.
func (t *Thing) names() (names []string) {
	for i := range t.description.Properties {
		p := &t.description.Properties[i]
		names = append(names, p.Name)
		if p.Object != "" {
			names = append(names, p.Object)
		}
	}
	return names
}

// Unmap ends a mapping: nothing more is sent, and the world hears that the
// stream has ended. What the world has it keeps, as the view let it.
func (a *Agent) Unmap(ctx context.Context, by string, id carnet.MappingID) (MappingInfo, error) {
	if p := a.pendingByID(id); p != nil {
		return a.endPending(ctx, p)
	}
	info, err := a.changeMapping(ctx, by, id, func(doc *mappingDocument) error {
		if doc.Stopped {
			return errAsItIs // whoever stopped it, and when, stands
		}
		doc.Stopped = true
		return nil
	})
	if err != nil {
		return info, err
	}
	s := a.sender(info.World)
	s.awaitNew(ctx)
	if _, err := s.ask(ctx, carnet.CallUnmap, carnet.Unmap{Stream: info.Stream}); err != nil {
		a.log.Warn("the world was not told that a stream has ended; it gets nothing more all the same", "world", info.World, "err", err)
	}
	return info, nil
}

// errAsItIs says that a mapping is as it is to be already.
var errAsItIs = errors.New("the mapping is so already")

func (a *Agent) changeMapping(ctx context.Context, by string, id carnet.MappingID, change func(*mappingDocument) error) (MappingInfo, error) {
	m, err := a.mapping(id)
	if err != nil {
		return MappingInfo{}, err
	}
	if err := a.hold(ctx, m); err != nil {
		return MappingInfo{}, err
	}
	defer a.letGo(m)
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	doc := a.mappingDocument(m)
	if err := change(&doc); errors.Is(err, errAsItIs) {
		return a.info(m), nil
	} else if err != nil {
		return MappingInfo{}, err
	}
	if err := a.decideAnew(ctx, mappingChange{by: by, mapping: m, doc: doc, kind: ledger.ViewSet}); err != nil {
		return MappingInfo{}, err
	}
	return a.info(m), nil
}

func (a *Agent) mappingDocument(m *Mapping) mappingDocument {
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	doc := mappingDocument{
		ID: m.ID, Thing: m.thing.id, World: m.World, Stream: m.Stream, Avatar: m.Avatar, From: m.From, Owner: m.owner, Stopped: m.stopped, Made: m.made,
		Moved: m.moved, Follows: m.follows,
	}
	if m.bears {
		bears := m.world
		doc.Bears = &bears
	}
	return doc
}

func (a *Agent) mapping(id carnet.MappingID) (*Mapping, error) {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	for _, m := range a.registry.mappings {
		if m.ID == id {
			return m, nil
		}
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no mapping %s", id).WithFix("list the thing's mappings")
}

func mappingKey(number uint32) string { return strconv.FormatUint(uint64(number), 10) }

func parseMappingKey(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, carnet.Errorf(carnet.Tampered, "the store has a mapping %q, which is no number", s)
	}
	return uint32(n), nil
}
