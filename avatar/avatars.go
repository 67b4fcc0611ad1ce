package avatar

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
)

// Avatar is one avatar of this world.
type Avatar struct {
	id      carnet.AvatarID
	title   string
	created time.Time
	key     ed25519.PublicKey
	streams []*stream // guarded by Agent.mu
	version uint64    // of its document

	stateVersion uint64 // of its saved state; the compaction's

	mu          sync.Mutex
	latest      map[string]carnet.Measurement // by property
	subscribers map[*Subscription]struct{}
}

// stream is what one sender says about one avatar. Numbers are the opener's.
type stream struct {
	id     carnet.StreamID
	sender carnet.PartyID
	avatar *Avatar
	place  int  // among the avatar's streams: cursors name it by this
	ended  bool // guarded by Agent.mu

	nextBatch    uint64
	nextFirst    uint64
	measurements uint64
	batches      uint64
}

type avatarDocument struct {
	Title   string           `json:"title"`
	Created time.Time        `json:"created"`
	Key     []byte           `json:"key"` // Ed25519 public key
	Streams []streamDocument `json:"streams"`
}

type streamDocument struct {
	ID     carnet.StreamID `json:"id"`
	Sender carnet.PartyID  `json:"sender"`
	Ended  bool            `json:"ended,omitempty"`
}

func (a *Agent) stream(id carnet.StreamID) *stream {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.streams[id]
}

// Avatar returns an avatar; carnet.NotFound if there is none.
func (a *Agent) avatar(id carnet.AvatarID) (*Avatar, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if v := a.avatars[id]; v != nil {
		return v, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id).WithFix("list the avatars")
}

// Call implements link.Sink.
func (a *Agent) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	from, ok := a.senders[party]
	if !ok {
		return nil, carnet.Errorf(carnet.Forbidden, "%s is not a sender of this world", party)
	}
	switch kind {
	case carnet.CallBag:
		return nil, a.takeBag(ctx, from, body)
	case carnet.CallMap:
		var r carnet.MapRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "a mapping request can't be read: %v", err)
		}
		answer, err := a.mapStream(ctx, party, r)
		if err != nil {
			return nil, err
		}
		return json.Marshal(answer)
	case carnet.CallUnmap:
		var r carnet.Unmap
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "the end of a stream can't be read: %v", err)
		}
		return nil, a.endStream(ctx, party, r.Stream)
	case carnet.CallHeads:
		return json.Marshal(a.heads(party))
	}
	return nil, carnet.Errorf(carnet.Malformed, "a world has no call %q", kind)
}

// maxTitle bounds an avatar's title.
const maxTitle = 200

// mapStream gives a stream its avatar: a new one, or the one asked for if the
// same sender speaks about it already.
func (a *Agent) mapStream(ctx context.Context, party carnet.PartyID, r carnet.MapRequest) (carnet.MapAnswer, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	answer, err := a.mapAnswer()
	if err != nil {
		return answer, err
	}
	if s := a.stream(r.Stream); s != nil {
		if s.sender != party {
			return answer, carnet.Errorf(carnet.Conflict, "the stream is another sender's")
		}
		answer.Avatar = s.avatar.id
		return answer, nil
	}
	if len(r.Title) > maxTitle {
		return answer, carnet.Errorf(carnet.TooLarge, "an avatar's title has %d bytes, at most %d are accepted", len(r.Title), maxTitle)
	}
	v, err := a.findOrMake(ctx, party, r)
	if err != nil {
		return answer, err
	}
	s := &stream{id: r.Stream, sender: party, avatar: v, place: len(v.streams)}
	streams := append(slices.Clone(v.streams), s)
	item, err := a.state(ledger.Statement{
		Kind: ledger.Mapped, Time: a.now().UnixNano(), Peer: party, Mapping: carnet.MappingID(r.Stream), Avatar: v.id, Stream: r.Stream,
	})
	if err != nil {
		return answer, err
	}
	if err := a.saveAvatar(ctx, v, streams, item); err != nil {
		return answer, err
	}
	a.mu.Lock()
	v.streams = streams
	a.avatars[v.id] = v
	a.streams[s.id] = s
	a.mu.Unlock()
	answer.Avatar = v.id
	a.recorded()
	return answer, nil
}

func (a *Agent) mapAnswer() (answer carnet.MapAnswer, err error) {
	if a.view != nil {
		answer.View, err = json.Marshal(a.view)
	}
	return answer, err
}

func (a *Agent) findOrMake(ctx context.Context, party carnet.PartyID, r carnet.MapRequest) (*Avatar, error) {
	if r.Avatar != nil {
		v, err := a.avatar(*r.Avatar)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(v.streams, func(s *stream) bool { return s.sender == party }) {
			return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", *r.Avatar).WithFix("list the avatars")
		}
		return v, nil
	}
	v := &Avatar{id: carnet.NewAvatarID(), title: r.Title, created: a.now().UTC()}
	key, err := a.keys.MakeSigner(ctx, keys.ID{Kind: "avatar", Name: v.id.String()})
	if err != nil {
		return nil, err
	}
	v.key = key.Public().(ed25519.PublicKey)
	v.init()
	return v, nil
}

func (v *Avatar) init() {
	v.latest = make(map[string]carnet.Measurement)
	v.subscribers = make(map[*Subscription]struct{})
}

func (a *Agent) saveAvatar(ctx context.Context, v *Avatar, streams []*stream, item ...ledger.Item) error {
	doc := avatarDocument{Title: v.title, Created: v.created, Key: v.key}
	for _, s := range streams {
		doc.Streams = append(doc.Streams, streamDocument{s.id, s.sender, s.ended})
	}
	d, err := a.document(kindAvatar, v.id.String(), v.version+1, doc)
	if err != nil {
		return err
	}
	if err := a.store.Put(ctx, []carnet.Document{d}, item); err != nil {
		return err
	}
	v.version++
	return nil
}

func (a *Agent) endStream(ctx context.Context, party carnet.PartyID, id carnet.StreamID) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	s := a.stream(id)
	if s == nil || s.sender != party {
		return carnet.Errorf(carnet.NotFound, "%s has no stream %s here", party, id)
	}
	a.mu.Lock()
	s.ended = true
	a.mu.Unlock()
	return a.saveAvatar(ctx, s.avatar, s.avatar.streams)
}

// heads says where a sender's streams stand.
func (a *Agent) heads(party carnet.PartyID) []carnet.StreamHead {
	a.mu.RLock()
	defer a.mu.RUnlock()
	heads := []carnet.StreamHead{}
	for _, s := range a.streams {
		if s.sender == party {
			heads = append(heads, carnet.StreamHead{Stream: s.id, NextBatch: s.nextBatch, NextFirst: s.nextFirst, Latest: s.avatar.seen()})
		}
	}
	return heads
}

func (v *Avatar) seen() (ms []carnet.SeenMeasurement) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.latest {
		ms = append(ms, carnet.SeenMeasurement{Name: m.Name, Time: m.Time, Value: m.Value.Num})
	}
	return ms
}

// Info is what there is to know of an avatar.
type Info struct {
	ID           carnet.AvatarID `json:"id"`
	Title        string          `json:"title,omitempty"`
	Created      time.Time       `json:"created"`
	Key          []byte          `json:"key"` // its Ed25519 public key
	Streams      int             `json:"streams"`
	Measurements uint64          `json:"measurements"`
	Batches      uint64          `json:"batches"`
	Properties   []string        `json:"properties"`
	Latest       *time.Time      `json:"latest,omitempty"` // newest measured time
}

// Avatars lists the avatars in order of their creation.
func (a *Agent) Avatars() []Info {
	a.mu.RLock()
	all := make([]*Avatar, 0, len(a.avatars))
	for _, v := range a.avatars {
		all = append(all, v)
	}
	a.mu.RUnlock()
	infos := make([]Info, 0, len(all))
	for _, v := range all {
		infos = append(infos, a.info(v))
	}
	slices.SortFunc(infos, func(p, q Info) int {
		return cmp.Or(p.Created.Compare(q.Created), cmp.Compare(p.ID.String(), q.ID.String()))
	})
	return infos
}

// Avatar returns one avatar.
func (a *Agent) Avatar(id carnet.AvatarID) (Info, error) {
	v, err := a.avatar(id)
	if err != nil {
		return Info{}, err
	}
	return a.info(v), nil
}

func (a *Agent) info(v *Avatar) Info {
	info := Info{ID: v.id, Title: v.title, Created: v.created, Key: v.key, Properties: []string{}}
	a.mu.RLock()
	info.Streams = len(v.streams)
	for _, s := range v.streams {
		info.Measurements += s.measurements
		info.Batches += s.batches
	}
	a.mu.RUnlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	newest := int64(-1 << 63)
	for name, m := range v.latest {
		info.Properties = append(info.Properties, name)
		newest = max(newest, m.Time)
	}
	slices.Sort(info.Properties)
	if len(v.latest) > 0 {
		at := time.Unix(0, newest).UTC()
		info.Latest = &at
	}
	return info
}

// Latest returns an avatar's newest measurement of each property, in order of
// names.
func (a *Agent) Latest(id carnet.AvatarID) ([]carnet.Measurement, error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	ms := make([]carnet.Measurement, 0, len(v.latest))
	for _, m := range v.latest {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(p, q carnet.Measurement) int { return cmp.Compare(p.Name, q.Name) })
	return ms, nil
}

// View returns what this world states that it wants or bears, nil for none.
func (a *Agent) View() *policy.View { return a.view }
