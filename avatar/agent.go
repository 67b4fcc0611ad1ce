// Package avatar owns a world's avatars and what streams say about them: the
// frames that things agents send, the keys that open them, each avatar's present
// state, its history, and the subscriptions to it.
//
// A frame is verified by the link, judged, stored in one commit with the link's
// new position and a statement, and only then acknowledged. After that its
// batches are opened, folded into the avatars' states and published. In the
// background frames are compacted into stretches (one stream, one retention
// class, batches byte-identical), and stretches are put into the depot, from
// which a lost one is fetched back by its fingerprint. docs/design/world.md has
// the durable states and the recovery rule for a crash at each point.
//
// The package must not know how frames travel (link), where rows lie (store),
// what a thing is, or how a reader asks (api).
package avatar

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/link"
	"carnet/policy"
	"carnet/seal"

	"golang.org/x/sync/errgroup"
)

// Sender is a party that may send to this world: a things agent, or a world that
// shares.
type Sender struct {
	Party   carnet.PartyID     // as this world calls it
	OwnName carnet.PartyID     // as it calls itself to this world, and signs; empty: Party
	Key     ed25519.PublicKey  // signs its frames and key bags
	Self    carnet.PartyID     // as this world calls itself to it
	Own     ed25519.PrivateKey // signs this world's reception keys for it
	Shares  bool               // it is a world, which shares what it has: it maps nothing
	// Clearance is what this world may be given by it, as both agreed; nil: all that
	// this world may hold.
	Clearance *carnet.Clearance
}

// Notifier tells a sender something over its link: a link.Server.
type Notifier interface {
	Notify(party carnet.PartyID, kind string, body []byte) error
}

// Depot keeps sealed objects: a depot.Client.
type Depot interface {
	Party() carnet.PartyID
	PutObject(ctx context.Context, body []byte, class carnet.Retention) (carnet.Fingerprint, error)
	GetObject(ctx context.Context, f carnet.Fingerprint) ([]byte, error)
	DeleteObject(ctx context.Context, f carnet.Fingerprint) error
	// Objects lists a page of what it keeps for this world, by fingerprint, those after
	// one; empty: there are no more.
	Objects(ctx context.Context, after carnet.Fingerprint) ([]carnet.Fingerprint, error)
}

// Config says what an agent is made of. Every field without a stated default is
// required.
type Config struct {
	Party     carnet.PartyID
	Store     Store
	Keys      *keys.Table
	Senders   []Sender
	Clearance carnet.Clearance // what this world may hold; a batch above it is refused
	View      *policy.View     // what this world wants or bears; nil: whatever it is given
	Depot     Depot

	// Origin says where what a sender sends to this world is proved. Nil: avatars
	// can't move from here.
	Origin func(sender carnet.PartyID) (Origin, error)
	// Vouched reads what a former world signed of a stream that comes here, and refuses
	// one that says otherwise. Nil: avatars can't move to here.
	Vouched func(MovedStream) error

	// DID is the did:key by which others know this world, and Revocations what ends is
	// written with. Without either it takes no avatar policies.
	DID         string
	Revocations Revocations
	// DepotDID is the did:key of the depot; nil, or nothing: it is unknown, so no policy
	// names it.
	DepotDID func() string

	CompactEvery time.Duration // default 30 s
	// MaxAvatars is how many avatars each sender may have here. Default 100,000.
	MaxAvatars int
	Recorded   func() // as thing.Config.Recorded

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Agent is a world's avatar agent.
type Agent struct {
	party     carnet.PartyID
	store     Store
	keys      *keys.Table
	rest      *keys.Sealer
	clearance carnet.Clearance
	view      *policy.View
	depot     Depot
	recorded  func()
	origin    func(carnet.PartyID) (Origin, error)
	vouched   func(MovedStream) error
	did       string
	now       func() time.Time
	log       *slog.Logger
	every     time.Duration

	maxAvatars int // of a sender

	revocations Revocations
	depotDID    func() string
	home        map[carnet.AvatarID]uint64 // the version of the policy by which all was brought home since the start; owner: compactLoop

	opener  *seal.Opener
	epochs  epochs
	appends chan *arrived // to the committer
	turns   turns         // of senders, before the committer
	opened  chan work     // to the opener
	compact chan struct{} // compact now
	stopped chan struct{} // closed when the committer has ended

	sendersMu sync.RWMutex
	senders   map[carnet.PartyID]Sender // owned by sendersMu

	linkMu sync.Mutex // guards what follows
	links  map[carnet.PartyID]link.State

	// moveMu is held while batches go from frames into stretches, and shared by
	// who must not meet them in both or in neither. It comes before the others.
	moveMu sync.RWMutex
	moved  moved               // owner: moveMu
	hurry  atomic.Int32        // how many wait for it who keep something still
	needed map[seal.Path]int64 // until when keys are needed, as far as it is remembered; owner: moveMu

	// foldMu is held while a frame is folded, and while states are taken or a
	// subscription begins: these see frames whole. It guards pending.
	foldMu  sync.Mutex
	pending pending

	givesChanged atomic.Uint64

	mu          sync.RWMutex // guards what follows
	notifier    Notifier
	arrivals    Arrivals   // nil: no avatar comes by a move
	unmappings  Unmappings // nil: nothing is erased
	avatars     map[carnet.AvatarID]*Avatar
	given       map[carnet.PartyID]int // how many of them a sender asked for
	streams     map[carnet.StreamID]*stream
	shared      map[carnet.StreamID]Shared // of streams that come from other worlds
	lists       lists
	former      map[carnet.StreamID]*former           // of streams that came with moves, by their ids in the store
	formerNames map[carnet.StreamID][]carnet.StreamID // the same ids, by the streams' names
	formerOwner map[carnet.StreamID]carnet.AvatarID   // of the same ids, whose they are, or are to be
	departed    map[carnet.AvatarID]*Avatar           // those that have moved away, or are erased
	clearing    []carnet.AvatarID                     // those of them that wait to be cleared
	erased      map[carnet.StreamID]carnet.ErasureID  // of streams that are erased while their avatars stay
	arriving    map[carnet.AvatarID]*arrival          // those that aren't here yet
	policies    map[carnet.AvatarID]*bounding
	tail        tail
	classes     classes
	folded      uint64 // the id of the last frame folded
	defects     uint64

	withheld atomic.Pointer[map[carnet.AvatarID]struct{}] // avatars that aren't shown (Withhold); nil: none

	demandMu sync.Mutex
	demanded map[*Avatar]struct{}             // whose senders know that somebody waits
	onwards  map[carnet.StreamID]carnet.Moved // what senders of streams are told until they have ended them
	erasures map[carnet.StreamID]carnet.Erased

	receptionMu sync.Mutex
	reception   *seal.ReceptionKey
	receptions  map[carnet.Fingerprint]*seal.ReceptionKey // not yet destroyed
	announced   []receptionEntry                          // the newest last

	choices choices // what remains of stretches in redacted moves

	clearMu   sync.Mutex // held while what has moved away, or doesn't come, is deleted; before the others
	depotMu   sync.Mutex // held while an object is put at the depot, so that none is that is erased there
	nameMu    sync.Mutex // held while a stream that comes gets its keys, and while those of one that went are destroyed; before changeMu
	changeMu  sync.Mutex // held while documents change
	epochsDue time.Time  // when it is next looked at which keys are over; owner: compactLoop
	valuesDue time.Time  // which values are; owner: compactLoop
}

// New loads the agent's state from its store.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Depot == nil || cfg.Recorded == nil {
		return nil, carnet.Errorf(carnet.Malformed, "a world needs a store, a key table, a depot and a call for records")
	}
	if _, err := carnet.ParsePartyID(string(cfg.Party)); err != nil {
		return nil, err
	}
	a := &Agent{
		party: cfg.Party, store: cfg.Store, keys: cfg.Keys, senders: make(map[carnet.PartyID]Sender), clearance: cfg.Clearance,
		view: cfg.View, depot: cfg.Depot, recorded: cfg.Recorded, origin: cfg.Origin, vouched: cfg.Vouched, did: cfg.DID, revocations: cfg.Revocations, depotDID: cfg.DepotDID, home: make(map[carnet.AvatarID]uint64), now: cfg.Now, log: cfg.Log, every: cfg.CompactEvery, maxAvatars: cmp.Or(cfg.MaxAvatars, maxAvatars),
		appends: make(chan *arrived), turns: newTurns(), opened: make(chan work, maxOpened), compact: make(chan struct{}, 1), stopped: make(chan struct{}),
		links:   make(map[carnet.PartyID]link.State),
		avatars: make(map[carnet.AvatarID]*Avatar), given: make(map[carnet.PartyID]int), streams: make(map[carnet.StreamID]*stream), shared: make(map[carnet.StreamID]Shared), demanded: make(map[*Avatar]struct{}), onwards: make(map[carnet.StreamID]carnet.Moved),
		erasures: make(map[carnet.StreamID]carnet.Erased), erased: make(map[carnet.StreamID]carnet.ErasureID),
		former: make(map[carnet.StreamID]*former), formerNames: make(map[carnet.StreamID][]carnet.StreamID), formerOwner: make(map[carnet.StreamID]carnet.AvatarID),
		departed: make(map[carnet.AvatarID]*Avatar), arriving: make(map[carnet.AvatarID]*arrival), policies: make(map[carnet.AvatarID]*bounding),
		receptions: make(map[carnet.Fingerprint]*seal.ReceptionKey),
		needed:     make(map[seal.Path]int64),
		tail:       newTail(),
		classes:    newClasses(),
		lists:      newLists(),
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.every == 0 {
		a.every = 30 * time.Second
	}
	for _, s := range cfg.Senders {
		if err := a.SetSender(s); err != nil {
			return nil, err
		}
	}
	var err error
	a.epochs = epochs{cfg.Keys}
	if a.opener, err = seal.NewOpener(maxSlots, a.epochs.lookup); err != nil {
		return nil, err
	}
	return a, a.load(ctx)
}

// SetSender adds a things agent that may send, or changes what was agreed with
// one.
func (a *Agent) SetSender(s Sender) error {
	if s.Key == nil || s.Own == nil {
		return carnet.Errorf(carnet.Malformed, "sender %q needs its key and this world's own for it", s.Party)
	}
	a.sendersMu.Lock()
	defer a.sendersMu.Unlock()
	a.senders[s.Party] = s
	return nil
}

// DropSender lets a things agent send no more. What it has sent stays.
func (a *Agent) DropSender(party carnet.PartyID) {
	a.sendersMu.Lock()
	defer a.sendersMu.Unlock()
	delete(a.senders, party)
}

func (a *Agent) sender(party carnet.PartyID) (Sender, bool) {
	a.sendersMu.RLock()
	defer a.sendersMu.RUnlock()
	s, ok := a.senders[party]
	return s, ok
}

func (a *Agent) senderNames() []carnet.PartyID {
	a.sendersMu.RLock()
	defer a.sendersMu.RUnlock()
	return slices.Collect(maps.Keys(a.senders))
}

// maxSlots is how many slots' keys are held derived.
const maxSlots = 1 << 16

// Connect gives the agent the way to tell senders something.
func (a *Agent) Connect(n Notifier) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notifier = n
}

// Run commits, opens and compacts until ctx ends; it is called once. It returns
// an error only when the process must end and recover at the next start: the
// store failed in a way that leaves durability in doubt, another process changes
// it, or the key table can't be read.
func (a *Agent) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return a.commitLoop(ctx) })
	work.Go(func() error { return a.openLoop(ctx) })
	work.Go(func() error { return a.compactLoop(ctx) })
	work.Go(func() error { return a.receptionLoop(ctx) })
	return work.Wait()
}

// Statement makes the outbox item of a statement by this agent, for who changes its
// store beside it.
func (a *Agent) Statement(s ledger.Statement) (ledger.Item, error) {
	s.Who = a.party
	encoded, err := s.Marshal()
	if err != nil {
		return ledger.Item{}, err
	}
	salt := ledger.NewSalt()
	item := ledger.Item{Entry: ledger.EntryOf(salt, encoded)}
	if item.Statement, err = a.rest.Seal(nil, statementAAD, encoded); err != nil {
		return ledger.Item{}, err
	}
	item.Salt, err = a.rest.Seal(nil, saltAAD, salt[:])
	return item, err
}
