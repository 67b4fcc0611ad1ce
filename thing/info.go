package thing

import (
	"cmp"
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/policy"
)

// Info is what there is to know of a thing.
type Info struct {
	ID         carnet.ThingID   `json:"id"`
	Owner      string           `json:"owner"`
	Title      string           `json:"title"`
	Added      time.Time        `json:"added"`
	Properties []PropertyInfo   `json:"properties"`
	Unmeasured []UnmeasuredInfo `json:"unmeasured,omitempty"`
	Mappings   []MappingInfo    `json:"mappings"`
	// Waiting are mappings that are to go on where the thing's avatars have moved.
	Waiting []MappingInfo          `json:"waiting,omitempty"`
	Refused map[carnet.Code]uint64 `json:"refused,omitempty"`
	// Denied are attempts to be the thing with a wrong password.
	Denied    *Denied `json:"denied,omitempty"`
	Connected int     `json:"connected"` // sessions open now
	// Duplicates counts measurements that were acknowledged since the agent's
	// start and not kept, since they were there already.
	Duplicates uint64 `json:"duplicates"`
}

// PropertyInfo is one leaf of a thing's description.
type PropertyInfo struct {
	Name        string     `json:"name"`
	Unit        string     `json:"unit,omitempty"`
	Kind        string     `json:"kind"`
	Sensitivity string     `json:"sensitivity"`
	LastTime    *time.Time `json:"last_time,omitempty"` // newest measured time accepted
}

// UnmeasuredInfo is a property of which no measurement can be taken, and why.
type UnmeasuredInfo struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// MappingInfo is a mapping, the view in force, and what became of the thing's
// data on its way there.
type MappingInfo struct {
	ID    carnet.MappingID `json:"id"`
	Thing carnet.ThingID   `json:"thing"`
	World carnet.PartyID   `json:"world"`
	// WorldName is how the world calls itself, WorldKey its Ed25519 public key as
	// this agent has pinned it: by both an owner's keystore knows it.
	WorldName carnet.PartyID `json:"world_name"`
	WorldKey  []byte         `json:"world_key"`
	// OwnerKey is the owner's public key that the world has pinned with the avatar.
	OwnerKey      []byte          `json:"owner_key,omitempty"`
	Avatar        carnet.AvatarID `json:"avatar"`
	Stream        carnet.StreamID `json:"-"`
	From          uint64          `json:"from"` // the first position of the agent's log that it concerns
	PolicyVersion uint64          `json:"policy_version"`
	OwnerView     policy.View     `json:"owner_view"`
	View          policy.View     `json:"view"` // in force: the strictest of the owner's and the world's
	Stopped       bool            `json:"stopped"`
	Got           []PropertyCount `json:"got"`
	// Uncounted says why the counts of Got aren't known; empty if they are.
	Uncounted string `json:"uncounted,omitempty"`
	// Moved says where the avatar went, Waits what a mapping waits for that is to go
	// on there, and Follows which mapping it goes on for.
	Moved   *MovedInfo        `json:"moved,omitempty"`
	Waits   *Waiting          `json:"waits,omitempty"`
	Follows *carnet.MappingID `json:"follows,omitempty"`
	// Refused is the last that the world told of a move and that was refused.
	Refused *RefusedMove `json:"refused_move,omitempty"`
}

// MovedInfo says where a mapping's avatar went.
type MovedInfo struct {
	Crossing carnet.CrossingID `json:"crossing"`
	Target   string            `json:"target"`          // did:key
	World    carnet.PartyID    `json:"world,omitempty"` // where it is a peer
	Batches  uint64            `json:"batches"`         // of the stream, that went along
	// Measurements of the stream that went along.
	Measurements uint64 `json:"measurements"`
}

// RefusedMove is a move that a world told of, and why it isn't one.
type RefusedMove struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// PropertyCount says how many measurements of a property a world got, and how
// many were withheld, by reason.
type PropertyCount struct {
	Property string            `json:"property"`
	Sent     uint64            `json:"sent"`
	Withheld map[string]uint64 `json:"withheld,omitempty"`
	Why      string            `json:"why"`          // what the view and the policies say of it
	As       string            `json:"as,omitempty"` // how exactly it is shown, for people; empty where it is withheld
}

// Things lists the things, of one owner if owner isn't empty, in order of ids.
func (a *Agent) Things(ctx context.Context, owner string) ([]Info, error) {
	refused, err := a.store.RefusalCounts(ctx)
	if err != nil {
		return nil, err
	}
	infos := []Info{}
	for _, t := range a.allThings() {
		if owner == "" || t.owner == owner {
			infos = append(infos, a.thingInfo(t, refused[t.id]))
		}
	}
	slices.SortFunc(infos, func(p, q Info) int { return cmp.Compare(p.ID, q.ID) })
	return infos, nil
}

// Thing returns one thing.
func (a *Agent) Thing(ctx context.Context, id carnet.ThingID) (Info, error) {
	t, err := a.thing(id)
	if err != nil {
		return Info{}, err
	}
	refused, err := a.store.RefusalCounts(ctx)
	if err != nil {
		return Info{}, err
	}
	return a.thingInfo(t, refused[id]), nil
}

// Description returns a thing's description, as it was given.
func (a *Agent) Description(ctx context.Context, id carnet.ThingID) ([]byte, error) {
	if _, err := a.thing(id); err != nil {
		return nil, err
	}
	d, err := a.store.Document(ctx, kindThing, string(id))
	if err != nil {
		return nil, err
	}
	var doc thingDocument
	if err := a.openDocument(d, &doc); err != nil {
		return nil, err
	}
	return doc.Description, nil
}

func (a *Agent) thingInfo(t *Thing, refused map[carnet.Code]uint64) Info {
	d := t.description
	info := Info{
		ID: t.id, Owner: t.owner, Title: d.Title, Added: t.added, Refused: refused, Mappings: []MappingInfo{},
	}
	t.mu.Lock()
	info.Connected, info.Duplicates = len(t.outboxes), t.duplicates
	if t.denied != nil {
		info.Denied = new(*t.denied)
	}
	high := slices.Clone(t.seen.high)
	t.mu.Unlock()
	for i := range d.Properties {
		p := &d.Properties[i]
		pi := PropertyInfo{Name: p.Name, Unit: p.Unit, Kind: p.Kind.String(), Sensitivity: p.Label.Sensitivity.String()}
		if high[i] != unseen {
			at := time.Unix(0, high[i]).UTC()
			pi.LastTime = &at
		}
		info.Properties = append(info.Properties, pi)
	}
	for _, u := range d.Unmeasured {
		info.Unmeasured = append(info.Unmeasured, UnmeasuredInfo(u))
	}
	for _, p := range a.pendingOf(t) { // first: one that goes on meanwhile is among the mappings then
		info.Waiting = append(info.Waiting, a.pendingInfo(p))
	}
	a.registryMu.RLock()
	var mappings []*Mapping
	for _, m := range a.registry.mappings {
		if m.thing == t {
			mappings = append(mappings, m)
		}
	}
	a.registryMu.RUnlock()
	slices.SortFunc(mappings, func(p, q *Mapping) int { return cmp.Compare(p.Number, q.Number) })
	for _, m := range mappings {
		info.Mappings = append(info.Mappings, a.info(m))
	}
	return info
}

// Mapping returns one mapping.
func (a *Agent) Mapping(id carnet.MappingID) (MappingInfo, error) {
	if p := a.pendingByID(id); p != nil {
		return a.pendingInfo(p), nil
	}
	m, err := a.mapping(id)
	if err != nil {
		return MappingInfo{}, err
	}
	return a.info(m), nil
}

func (a *Agent) info(m *Mapping) MappingInfo {
	counted, uncounted := a.counted(m)
	peer := &a.sender(m.World).peer
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	info := MappingInfo{
		ID: m.ID, Thing: m.thing.id, World: m.World, WorldName: peer.OwnName, WorldKey: peer.WorldKey, OwnerKey: a.ownerKey(m), Avatar: m.Avatar, Stream: m.Stream, From: m.From,
		PolicyVersion: m.table.Version(), OwnerView: m.owner, View: m.owner, Stopped: m.stopped,
	}
	if m.bears {
		info.View = policy.Strictest(m.owner, m.world)
	}
	info.Got = propertyCounts(m, counted)
	if uncounted != nil {
		a.log.Warn("what was counted of a mapping can't be read", "mapping", m.ID, "err", uncounted)
		info.Uncounted = "not known until " + string(m.World) + " is connected: the store can't be read"
	}
	if m.follows != nil {
		if former := a.mappingByNumber(m.follows.Mapping); former != nil {
			info.Follows = &former.ID
		}
	}
	if m.moved != nil {
		info.Moved = &MovedInfo{Crossing: m.moved.Crossing, Target: m.moved.Target, Batches: m.moved.NextBatch, Measurements: m.moved.NextFirst}
		if s := a.target(m.moved.Target); s != nil {
			info.Moved.World = s.peer.Party
		}
		return info
	}
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	if r, some := a.registry.refused[m.Number]; some {
		info.Refused = &RefusedMove{r.At, r.Why}
	}
	return info
}

// What a mapping that has ended gives.
const (
	stoppedText = "stopped: gets nothing more"
	movedText   = "moved: its avatar went on, and gets nothing more here"
)

// ended is what a mapping that has ended gives. The caller holds the policy lock.
func (m *Mapping) ended() string {
	if m.moved != nil {
		return movedText
	}
	return stoppedText
}

// propertyCounts says what counts mean. The caller holds the policy lock.
func propertyCounts(m *Mapping, counted counts) (all []PropertyCount) {
	properties := m.thing.properties()
	for i := range properties {
		c := PropertyCount{Property: properties[i].Name, Why: m.table.Why(i).Sentence, As: m.table.How(properties, i)}
		if m.stopped {
			c.Why, c.As = m.ended(), ""
		}
		for verdict, n := range counted[i] {
			switch v := policy.Verdict(verdict); {
			case n == 0:
			case v == policy.Admitted:
				c.Sent = n
			default:
				if c.Withheld == nil {
					c.Withheld = make(map[string]uint64)
				}
				c.Withheld[v.String()] = n
			}
		}
		all = append(all, c)
	}
	return all
}

// Explain says for people what a mapping's world gets.
func (a *Agent) Explain(id carnet.MappingID) ([]string, error) {
	if p := a.pendingByID(id); p != nil {
		return []string{"waits: " + a.waiting(p).For}, nil
	}
	m, err := a.mapping(id)
	if err != nil {
		return nil, err
	}
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	if m.stopped {
		return []string{m.ended()}, nil
	}
	return m.table.Explain(m.thing.properties()), nil
}

// Status is how the agent and its links are.
type Status struct {
	Totals
	PolicyVersion uint64       `json:"policy_version"` // all worlds' together
	Links         []LinkStatus `json:"links"`          // to those who are peers: a removed peering has none
}

// LinkStatus is how one link is.
type LinkStatus struct {
	World carnet.PartyID `json:"world"`
	Up    bool           `json:"up"`
	Acked uint64         `json:"acked"` // frames the world has
	Lag   uint64         `json:"lag"`   // messages of the log not yet decided for it
	// Waiting counts the frames that are due, or built and not acknowledged by
	// the world.
	Waiting uint64 `json:"waiting"`
	// Trouble says since when the world can't be reached, and why: who runs the link
	// fills it in.
	Trouble string `json:"trouble,omitempty"`
}

// Status counts what the agent has.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	a.policyMu.RLock()
	st := Status{Links: []LinkStatus{}}
	for _, version := range a.policyVersions {
		st.PolicyVersion += version
	}
	a.policyMu.RUnlock()
	end := a.feed.end()
	for _, s := range a.allSenders() {
		if s.peer.Ended { // nothing is sent there any more, so nothing waits
			continue
		}
		s.mu.Lock()
		r, l := s.run, LinkStatus{World: s.peer.Party, Acked: s.acked}
		s.mu.Unlock()
		if r != nil {
			l.Up = r.ctx.Err() == nil
			r.mu.Lock()
			covered := r.covered()
			l.Lag, l.Waiting = end-min(end, covered), r.number-min(r.number, l.Acked)
			if len(r.touched) > 0 {
				l.Waiting++ // a frame that says what was decided is due
			}
			r.mu.Unlock()
		}
		st.Links = append(st.Links, l)
	}
	slices.SortFunc(st.Links, func(p, q LinkStatus) int { return cmp.Compare(p.World, q.World) })
	// After the links: what a frame that has arrived is stated by is counted then.
	var err error
	st.Totals, err = a.store.Totals(ctx)
	return st, err
}
