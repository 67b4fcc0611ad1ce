package avatar

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"math"
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
	created int64 // ns since 1970
	key     [ed25519.PublicKeySize]byte
	owner   *[ed25519.PublicKeySize]byte // pinned once; guarded by Agent.mu
	streams []*stream                    // guarded by Agent.mu
	version uint64                       // of its document
	passing *passing                     // nil while it doesn't move; guarded by Agent.mu

	stateVersion uint64 // of its saved state; owner: Agent.moveMu
	changed      bool   // since that was taken; owner: Agent.foldMu
	departed     bool   // it has moved away: no state is saved; owner: Agent.foldMu

	mu          sync.Mutex   // guards what follows
	latest      []latest     // of each property; changed under Agent.foldMu too
	subscribers *subscribers // nil while there is none; begins under Agent.foldMu too
}

// subscribers are those of an avatar. Its mutex guards them.
type subscribers struct {
	all         map[*Subscription]struct{}
	live, whole int // how many wait for what comes, and how many want batches
}

// stream is what one sender says about one avatar.
type stream struct {
	id     carnet.StreamID
	sender carnet.PartyID
	avatar *Avatar
	place  uint16 // among the avatar's streams: cursors name it by this
	gives  gives  // guarded by Agent.mu, and written under Agent.changeMu, too
	ended  bool   // owner: Agent.changeMu
	gone   bool   // its avatar has moved away; owner: Agent.foldMu, and changed under Agent.mu, too

	unsaved bool // that it is erased isn't stored yet; owner: Agent.changeMu

	// The epoch given last since the start, zero before; owner: Agent.changeMu. A
	// sender begins a new one with each connection, so nothing comes under others
	// for long, whatever the clock said when they were given.
	epoch carnet.EpochID

	// Written by who folds under foldMu and the avatar's mutex; read under either.
	nextBatch    uint64
	nextFirst    uint64
	measurements uint64
	batches      uint64

	tail *streamTail // nil while it is idle; guarded by Agent.mu
}

type avatarDocument struct {
	Title   string           `json:"title"`
	Created time.Time        `json:"created"`
	Key     []byte           `json:"key"` // Ed25519 public key
	Owner   []byte           `json:"owner,omitempty"`
	Streams []streamDocument `json:"streams"`

	Frozen *carnet.CrossingID `json:"frozen,omitempty"` // for which it keeps still
	Gone   *goneDocument      `json:"gone,omitempty"`   // it has moved away
}

type streamDocument struct {
	ID     carnet.StreamID `json:"id"`
	Sender carnet.PartyID  `json:"sender"`
	Ended  bool            `json:"ended,omitempty"`
	Share  *Shared         `json:"share,omitempty"`  // by which it comes from another world
	Former *former         `json:"former,omitempty"` // it came with a move
	Gives  *[]string       `json:"gives,omitempty"`  // what it gives now; absent: its sender hasn't said

	// Erased is by which erasure it is erased while its avatar stays.
	Erased carnet.ErasureID `json:"erased,omitzero"`

	// Where it stood when its avatar moved away, or it was erased.
	NextBatch uint64 `json:"next_batch,omitempty"`
	NextFirst uint64 `json:"next_first,omitempty"`
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
	if v := a.departed[id]; v != nil {
		return nil, v.passing.gone.why(id)
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id).WithFix("list the avatars")
}

// Call implements link.Sink.
func (a *Agent) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	from, ok := a.sender(party)
	if !ok {
		return nil, carnet.Errorf(carnet.Forbidden, "%s is not a sender of this world", party)
	}
	switch kind {
	case carnet.CallBag:
		return nil, a.takeBag(ctx, from, body)
	case carnet.CallMap:
		if from.Shares {
			return nil, carnet.Errorf(carnet.Forbidden, "%s shares what it has, and may not ask for avatars", party)
		}
		var r carnet.MapRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "a mapping request can't be read: %v", err)
		}
		if r.Order != "" && a.stream(r.Stream) == nil {
			came, err := a.onward(ctx, r)
			if err != nil {
				return nil, err
			}
			if came.Moved != nil {
				return json.Marshal(came)
			}
			r.Avatar = &came.Avatar
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
	case carnet.CallOwn:
		if from.Shares {
			return nil, carnet.Errorf(carnet.Forbidden, "%s shares what it has, and may not say whose an avatar is", party)
		}
		var r carnet.Own
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "an owner's word can't be read: %v", err)
		}
		return nil, a.pinOwner(ctx, from, r.Ownership)
	case carnet.CallGives:
		if from.Shares {
			return nil, carnet.Errorf(carnet.Forbidden, "%s shares what it has, and says of each share what it gives", party)
		}
		var r carnet.Gives
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "what streams give can't be read: %v", err)
		}
		return nil, a.takeGives(ctx, party, r.Streams)
	case carnet.CallErased:
		return nil, a.heardErased(ctx, from, body)
	case carnet.CallHeads:
		var r carnet.HeadsRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "a question for stream heads can't be read: %v", err)
		}
		if err := a.settled(ctx); err != nil {
			return nil, err
		}
		return a.heads(from, r.After)
	}
	return nil, carnet.Errorf(carnet.Malformed, "a world has no call %q", kind)
}

// maxTitle bounds an avatar's title.
const maxTitle = 200

// Arrivals knows the moves by which avatars come to this world.
type Arrivals interface {
	// Onward answers with the avatar that came by the move of a mapping request's
	// order and terms, and with how it moved on if it did, if who asks may go on with what it sent to the avatar before: by its
	// word (identity.OpenOnward), whose sender is the one that the manifest names for
	// the former stream, and whose stream is the one asked for. Else it is
	// carnet.NotFound; and carnet.Unavailable while the move isn't decided.
	Onward(ctx context.Context, r carnet.MapRequest) (carnet.MapAnswer, error)
}

// Receive gives the agent the way to ask about moves, before links are taken.
func (a *Agent) Receive(arrivals Arrivals) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.arrivals = arrivals
}

// onward is the avatar that a things agent goes on with.
func (a *Agent) onward(ctx context.Context, r carnet.MapRequest) (carnet.MapAnswer, error) {
	a.mu.RLock()
	arrivals := a.arrivals
	a.mu.RUnlock()
	if arrivals == nil {
		return carnet.MapAnswer{}, carnet.Errorf(carnet.Unavailable, "%s takes no avatars of other worlds", a.party)
	}
	return arrivals.Onward(ctx, r)
}

// mapStream gives a stream its avatar: a new one, or the one asked for if the
// same sender speaks about it already, or if it came by a move.
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
	if r.Stream == nobody {
		return answer, carnet.Errorf(carnet.Malformed, "a mapping request names no stream")
	}
	if a.isFormer(r.Stream) {
		return answer, carnet.Errorf(carnet.Conflict, "a stream of that name came here with an avatar that moved").WithFix("map the thing anew")
	}
	if len(r.Title) > maxTitle {
		return answer, carnet.Errorf(carnet.TooLarge, "an avatar's title has %d bytes, at most %d are accepted", len(r.Title), maxTitle)
	}
	v, err := a.findOrMake(ctx, party, r)
	if err != nil {
		return answer, err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.Mapped, Time: a.now().UnixNano(), Peer: party, Mapping: carnet.MappingID(r.Stream), Avatar: v.id, Stream: r.Stream,
	})
	if err != nil {
		return answer, err
	}
	if err := a.grow(ctx, v, &stream{id: r.Stream, sender: party, avatar: v, place: uint16(len(v.streams))}, item); err != nil {
		return answer, err
	}
	answer.Avatar = v.id
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
		if r.Order == "" && !slices.ContainsFunc(v.streams, func(s *stream) bool { return s.sender == party }) {
			return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", *r.Avatar).WithFix("list the avatars")
		}
		if len(v.streams) >= maxStreams {
			return nil, carnet.Errorf(carnet.TooLarge, "the avatar has %d streams, which is all it may have", maxStreams)
		}
		return v, a.changeable(v)
	}
	a.mu.RLock()
	given := a.given[party]
	a.mu.RUnlock()
	if given >= a.maxAvatars {
		return nil, carnet.Errorf(carnet.TooLarge, "%s has %d avatars of this sender's things, which is all that one may have", a.party, given).
			WithFix("ask the operator of %s to raise limits.avatars_of_sender", a.party)
	}
	v := &Avatar{id: carnet.NewAvatarID(), title: r.Title, created: a.now().UnixNano()}
	key, err := a.keys.MakeSigner(ctx, keys.ID{Kind: "avatar", Name: v.id.String()})
	if err != nil {
		return nil, err
	}
	v.key = [ed25519.PublicKeySize]byte(key.Public().(ed25519.PublicKey))
	return v, nil
}

// count counts an avatar for the sender that asked for it; one that came by a move is
// nobody's. The caller holds Agent.mu, or loads.
func (a *Agent) count(v *Avatar, n int) {
	if len(v.streams) > 0 && v.streams[0].sender != "" {
		a.given[v.streams[0].sender] += n
	}
}

// maxAvatars is how many avatars a sender has at most where nothing else is said.
const maxAvatars = 100_000

// maxStreams is how many streams an avatar has at most: a cursor names each.
const maxStreams = 1024

func (a *Agent) saveAvatar(ctx context.Context, v *Avatar, streams []*stream, ending *stream, item ...ledger.Item) error {
	return a.saveOwned(ctx, v, v.ownerKey(), streams, ending, item...)
}

// saveOwned saves the avatar with an owner's key.
func (a *Agent) saveOwned(ctx context.Context, v *Avatar, owner ed25519.PublicKey, streams []*stream, ending *stream, item ...ledger.Item) error {
	doc := avatarDocument{Title: v.title, Created: time.Unix(0, v.created).UTC(), Key: v.key[:], Owner: owner}
	for _, s := range streams {
		d := streamDocument{ID: s.id, Sender: s.sender, Ended: s.ended || s == ending, Former: a.formerOf(s.id)}
		if !d.Ended {
			d.Gives = a.givenBy(s)
		}
		if share, ok := a.shareOf(s.id); ok {
			d.Share = &share
		}
		if by, erased := a.erasedBy(s.id); erased {
			d.Erased, d.NextBatch, d.NextFirst = by, s.nextBatch, s.nextFirst
		}
		doc.Streams = append(doc.Streams, d)
	}
	if x, frozen := a.frozenFor(v); frozen {
		doc.Frozen = &x
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
	if a.hasGone(id, party) { // it has ended with its avatar's move
		a.heardMoved(id)
		return nil
	}
	if err := a.saveAvatar(ctx, s.avatar, s.avatar.streams, s); err != nil {
		return err
	}
	s.ended = true
	a.noteGives(s, givesNothing)
	return nil
}

// state is what of the avatar is saved. The caller holds Agent.foldMu.
func (v *Avatar) state(classes []policy.Class) (doc stateDocument) {
	for i := range v.latest {
		l := &v.latest[i]
		p := l.property.Value()
		doc.Latest = append(doc.Latest, savedValue{
			p.name, p.unit, l.time, l.kind, l.num, []byte(l.str), savedClassOf(classes[l.class]), l.ends, l.epoch, l.slot, l.place,
		})
	}
	for _, s := range v.streams {
		doc.Streams = append(doc.Streams, savedStream{s.id, s.nextBatch, s.nextFirst, s.measurements, s.batches})
	}
	return doc
}

// Info is what there is to know of an avatar.
type Info struct {
	ID      carnet.AvatarID `json:"id"`
	Title   string          `json:"title,omitempty"`
	Created time.Time       `json:"created"`
	Key     []byte          `json:"key"` // its Ed25519 public key
	// OwnerKey is its owner's Ed25519 public key for this world, if one is pinned.
	OwnerKey     []byte     `json:"owner_key,omitempty"`
	Streams      int        `json:"streams"`
	Shared       int        `json:"shared_streams,omitempty"` // of them, that come by shares of other worlds
	Measurements uint64     `json:"measurements"`
	Batches      uint64     `json:"batches"`
	Properties   []string   `json:"properties"`
	Withdrawn    []string   `json:"withdrawn,omitempty" doc:"Of the properties, those that nothing gives any more: no view of a mapping, and no share. What there is of them is the last. Nothing is named while it isn't known of all that gives to the avatar."`
	Latest       *time.Time `json:"latest,omitempty"` // newest measured time
	// Uncounted: it is shown to somebody who isn't told how much there is of it, nor when.
	Uncounted bool `json:"uncounted,omitempty" doc:"It is seen through a grant, which doesn't tell how much there is of it, nor when: streams, measurements and batches are 0, and latest is left out."`
}

// Avatars lists the avatars in order of their creation.
func (a *Agent) Avatars() []Info {
	all := a.all()
	infos := make([]Info, 0, len(all))
	for _, v := range all {
		infos = append(infos, a.info(v))
	}
	slices.SortFunc(infos, func(p, q Info) int {
		return cmp.Or(p.Created.Compare(q.Created), cmp.Compare(p.ID.String(), q.ID.String()))
	})
	return infos
}

// SendersOf lists the things agents that speak about an avatar now, each once, in order:
// not the worlds that share something with it.
func (a *Agent) SendersOf(id carnet.AvatarID) (all []carnet.PartyID) {
	v, err := a.avatar(id)
	if err != nil {
		return nil
	}
	for _, s := range a.streamsOf(v) {
		if _, shared := a.shareOf(s.id); !shared && s.sender != "" {
			all = append(all, s.sender)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *Agent) all() []*Avatar {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Collect(maps.Values(a.avatars))
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
	streams, shared := a.streamsOf(v), 0
	for _, s := range streams {
		if _, ok := a.shareOf(s.id); ok {
			shared++
		}
	}
	info := Info{ID: v.id, Title: v.title, Created: time.Unix(0, v.created).UTC(), Key: v.key[:], OwnerKey: a.ownerOf(v), Streams: len(streams), Shared: shared, Properties: []string{}}
	withdrawn := a.withdrawn(v)
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range streams {
		info.Measurements += s.measurements
		info.Batches += s.batches
	}
	now, newest := a.now().UnixNano(), int64(math.MinInt64)
	for i := range v.latest {
		if l := &v.latest[i]; !l.over(now) {
			info.Properties = append(info.Properties, l.property.Value().name)
			newest = max(newest, l.time)
		}
	}
	slices.Sort(info.Properties)
	for _, name := range info.Properties {
		if withdrawn(name) {
			info.Withdrawn = append(info.Withdrawn, name)
		}
	}
	if len(info.Properties) > 0 {
		at := time.Unix(0, newest).UTC()
		info.Latest = &at
	}
	return info
}

// View returns what this world states that it wants or bears, nil for none.
func (a *Agent) View() *policy.View { return a.view }
