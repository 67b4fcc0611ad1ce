// Package thing owns what a things agent keeps of its things: descriptions,
// credentials, mappings to avatars, the log of accepted measurements, and the
// links on which worlds get their views.
//
// A message is decoded, checked against its thing's description, told from
// duplicates, sealed, and committed with others as one log row; only then is it
// acknowledged. Committed messages wait in lanes until they are due; a frame is
// built of the due lanes under the policy in force at that moment, recorded, and
// only then sent. docs/design/thing-agent.md has the durable states and the
// recovery rule for a crash at each point.
//
// The package must not know how messages arrive (wire), where rows lie (store),
// how a link carries frames (link) or what a world does with them (avatar).
package thing

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/link"
	"carnet/policy"
)

// Config says what an agent is made of. Every field without a stated default is
// required.
type Config struct {
	Party  carnet.PartyID
	Store  Store
	Keys   *keys.Table
	Judge  *policy.Judge
	Worlds []World

	MaxAge   time.Duration // oldest measurement accepted; default 30 days
	MaxAhead time.Duration // newest; default 5 minutes
	// KeepLog is how long the log keeps what every world has; at least a day
	// longer than MaxAge, for duplicates are looked up in the log. Default 31
	// days, or that.
	KeepLog time.Duration

	Bounds Bounds

	// Recorded is called after a commit that left statements to be sent to the
	// depot; it must not block.
	Recorded func()

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Agent is the things agent.
type Agent struct {
	party    carnet.PartyID
	store    Store
	keys     *keys.Table
	rest     *keys.Sealer
	judge    *policy.Judge
	recorded func()
	now      func() time.Time
	log      *slog.Logger
	maxAge   int64
	maxAhead int64
	keepLog  int64
	bounds   Bounds
	senders  atomic.Pointer[map[carnet.PartyID]*sender] // replaced whole; changeMu is held then
	days     dayKeys
	index    index
	feed     *feed
	spare    spare
	packs    sync.Pool // of *pack
	wake     chan struct{}
	hurry    chan struct{}   // what is urgent was added
	held     atomic.Int64    // bytes that all things hold to know duplicates by
	wide     chan struct{}   // a place for who reads much of the log to find duplicates
	life     context.Context // ends when the agent does
	end      context.CancelFunc

	// policyMu is held for reading while a frame is built and signed, and for
	// writing while a view or mapping changes.
	policyMu sync.RWMutex
	// policyVersions are by world, each counted for itself: frames' headers name
	// them, and one count for all worlds would link two of them.
	policyVersions map[carnet.PartyID]uint64
	changes        atomic.Uint64 // counts changes of mappings, for runs to notice

	registryMu sync.RWMutex
	registry   registry

	groupMu sync.Mutex
	room    *sync.Cond // open has room again, or the agent stopped
	open    *group
	stopped *carnet.Error
	noSpace *carnet.Error

	next uint64 // position after everything committed; the committer's
	body []byte // memory for the next group's body; the committer's

	process   process
	processes []process // this one last

	changeMu sync.Mutex          // one management change at a time
	viewsSet map[string]viewsSet // by owner; owner: changeMu

	moved chan struct{} // a world told of a move, or a mapping waits to go on
}

// New loads the agent's state from its store.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Judge == nil || cfg.Recorded == nil {
		return nil, carnet.Errorf(carnet.Malformed, "a things agent needs a store, a key table, a judge and a call for records")
	}
	if _, err := carnet.ParsePartyID(string(cfg.Party)); err != nil {
		return nil, err
	}
	a := &Agent{
		party: cfg.Party, store: cfg.Store, keys: cfg.Keys, judge: cfg.Judge, recorded: cfg.Recorded,
		now: cfg.Now, log: cfg.Log, maxAge: int64(cfg.MaxAge), maxAhead: int64(cfg.MaxAhead), keepLog: int64(cfg.KeepLog), bounds: cfg.Bounds, viewsSet: make(map[string]viewsSet),
		policyVersions: make(map[carnet.PartyID]uint64), index: index{buckets: make(map[bucketKey]span)},
		open: newGroup(), wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), wide: make(chan struct{}, 1), moved: make(chan struct{}, 1), registry: newRegistry(),
	}
	a.bounds.complete()
	a.life, a.end = context.WithCancel(context.Background())
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.maxAge == 0 {
		a.maxAge = int64(30 * 24 * time.Hour)
	}
	if a.maxAhead == 0 {
		a.maxAhead = int64(5 * time.Minute)
	}
	if least := a.maxAge + nanosPerDay; a.keepLog == 0 {
		a.keepLog = max(least, 31*nanosPerDay)
	} else if a.keepLog < least {
		return nil, carnet.Errorf(carnet.Malformed, "a log kept for %s can't tell duplicates of what is accepted up to %s back",
			time.Duration(a.keepLog), time.Duration(a.maxAge)).WithFix("keep it for at least %s", time.Duration(least))
	}
	a.packs.New = func() any { return newPack() }
	a.room = sync.NewCond(&a.groupMu)
	a.days.init(cfg.Keys)
	if err := a.load(ctx, cfg.Worlds); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Agent) load(ctx context.Context, worlds []World) (err error) {
	if a.rest, err = restSealer(ctx, a.keys); err != nil {
		return err
	}
	a.senders.Store(new(map[carnet.PartyID]*sender))
	for _, w := range worlds {
		s, err := a.newSender(ctx, w)
		if err != nil {
			return err
		}
		a.setSender(s)
	}
	if err := a.loadRegistry(ctx); err != nil {
		return err
	}
	totals, err := a.store.Totals(ctx)
	if err != nil {
		return err
	}
	a.next = max(1, totals.LogNext)
	a.open.first = a.next
	a.feed = newFeed(a.next, a.release)
	if err := a.loadLog(ctx); err != nil {
		return err
	}
	return a.begin(ctx)
}

// Run commits what comes until ctx ends, and then what was handed over before:
// every message has its outcome when Run returns. It returns an error only when
// the store failed in a way that leaves durability in doubt: the process must
// then end and recover at the next start.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := make(chan struct{})
	committer := make(chan error, 1)
	go func() {
		defer cancel()
		committer <- a.commitLoop(context.WithoutCancel(ctx), end)
	}()
	var upkeep sync.WaitGroup
	upkeep.Go(func() { a.saveHighWater(ctx) })
	upkeep.Go(func() { a.trimLog(ctx) })
	upkeep.Go(func() { a.followMoves(ctx) })
	upkeep.Go(func() { a.tellGives(ctx) })
	<-ctx.Done()
	a.end()
	upkeep.Wait()
	for _, s := range a.allSenders() {
		s.close()
	}
	if err := a.saveSeen(context.WithoutCancel(ctx)); err != nil {
		a.log.Warn("the high-water times were not saved; the next start reads more of the log", "err", err)
	}
	close(end)
	return <-committer
}

// Source returns what a link to the world sends, one link after the other.
func (a *Agent) Source(world carnet.PartyID) (link.Source, error) {
	s := a.sender(world)
	if s == nil || s.peer.Ended {
		return nil, carnet.Errorf(carnet.NotFound, "%s has no world %q", a.party, world)
	}
	return s, nil
}

// Connect gives the agent the way to ask a world, before its link runs.
func (a *Agent) Connect(world carnet.PartyID, call Caller) {
	if s := a.sender(world); s != nil {
		s.connect(call)
	}
}

// setStopped lets nothing more be added, for ever.
func (a *Agent) setStopped(why *carnet.Error) {
	a.groupMu.Lock()
	a.stopped = why
	a.room.Broadcast()
	a.groupMu.Unlock()
}

// setNoSpace lets nothing be added until hasSpace is called.
func (a *Agent) setNoSpace(why *carnet.Error) {
	a.groupMu.Lock()
	a.noSpace = why
	a.room.Broadcast()
	a.groupMu.Unlock()
}

// hasSpace lets something be added again, at the position after what is
// committed: what came after that was refused. The committer calls it.
func (a *Agent) hasSpace() {
	a.groupMu.Lock()
	a.noSpace, a.open.first = nil, a.next
	a.groupMu.Unlock()
}

// recordFrame has a frame recorded, unless its run has ended: what it was made
// of may not be stored.
func (a *Agent) recordFrame(f *frame) error {
	ended := false
	err := a.add(func(g *group) {
		if ended = f.link.ctx.Err() != nil; !ended {
			g.frames = append(g.frames, f)
		}
	})
	a.hasten()
	switch {
	case err != nil:
		return err
	case ended:
		return f.link.failure()
	}
	return nil
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
