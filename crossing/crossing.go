// Package crossing owns what goes from an avatar of one world to an avatar of
// another: shares. A share is asked for by the taker over R5, given by the giver
// under a grant and a mandate, and then flows over the link from giver to taker
// like what a things agent sends, batch by batch, until either side or what it
// lives by ends it.
//
// At the giver a share is giving, then ended; at the taker it is asked, taking,
// then ended (state.go). Where a share stands in a stream is nowhere but in the
// taker's stream heads: a giver asks, and goes on from there. docs/design/share.md
// has the messages, the numbers of derived batches, and the recovery rule for a
// crash at each point.
//
// The package must not know how a caller is proven (crossing/r5), how frames
// travel (link), where documents lie (avatar keeps them), nor what permits a
// share: that is asked of Permits.
package crossing

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/link"
	"carnet/policy"
	"carnet/seal"

	"golang.org/x/sync/errgroup"
)

// World is the world on whose side this is: an *avatar.Agent.
type World interface {
	Avatar(carnet.AvatarID) (avatar.Info, error)
	// Properties are those of an avatar's state.
	Properties(carnet.AvatarID) ([]policy.Property, error)
	// Bounds are what an avatar's owner lets be done with it.
	Bounds(carnet.AvatarID) policy.Bounds
	Heads(carnet.AvatarID) (map[carnet.StreamID]uint64, error)
	Hears(id carnet.AvatarID, from carnet.PartyID) bool
	Follow(id carnet.AvatarID, from func(carnet.StreamID) uint64, wake func()) (*avatar.Following, error)
	ShareOf(carnet.StreamID) (avatar.Shared, bool)
	SlotKey(context.Context, seal.Header) (seal.Key, error)

	Enter(ctx context.Context, id carnet.StreamID, from carnet.PartyID, to carnet.AvatarID, share avatar.Shared, batch uint64) error
	EndShare(context.Context, carnet.ShareID) error

	// Gives names what of a view's properties an avatar is given now and may pass on, and
	// false where that isn't known. It may be another answer once GivesChanged has grown.
	Gives(carnet.AvatarID, policy.View) (names []string, known bool)
	GivesChanged() uint64
	// ShareGives notes what a share gives to an avatar here; nil: it isn't known.
	ShareGives(ctx context.Context, to carnet.AvatarID, share carnet.ShareID, names *[]string) error
	Dooming(ctx context.Context, objects []carnet.Fingerprint, by carnet.ErasureID) ([]carnet.Document, error)

	Keep(ctx context.Context, kept []avatar.Kept, statements []ledger.Statement, plain ...carnet.Document) error
	EachKept(ctx context.Context, kind string, do func(id string, version uint64, open func(any) error) error) error
}

// Permits says whether what a share lives by still holds: its peering, grant and
// mandate, and that revocations are known. It answers from memory, and is asked for
// every share at each Recheck, ten times in the second after it, and once a second.
type Permits interface {
	Still(Given) error
	// Tells reports whether a taker may be told anything: a peer that was removed isn't.
	Tells(taker carnet.PartyID) bool
}

// Revocations writes the party's revocation number with what ends.
type Revocations interface {
	// End has put store the end and the number in one transaction; put may be called
	// again.
	End(ctx context.Context, put func(carnet.Document) error) error
}

// Asker asks a giver, as the taker's avatar, over R5.
type Asker interface {
	// Ask puts a question. The same question is answered the same. What the giver
	// refuses for good has a code other than carnet.Unavailable.
	Ask(ctx context.Context, giver carnet.PartyID, q Question) (Answer, error)
	// Stop tells the giver that nothing more is taken.
	Stop(ctx context.Context, giver carnet.PartyID, q Question) error
}

// Config makes an Agent. Fields without a stated default are required.
type Config struct {
	Party       carnet.PartyID
	World       World
	Permits     Permits
	Revocations Revocations
	Asker       Asker
	Judge       *policy.Judge
	Own         *policy.View // what this world wants or bears; nil: whatever it is given

	// Depot keeps the shelves of what this world shares; nil: there are none. It is asked
	// for at each use: what it returns may change.
	Depot func() (Depot, error)
	// ShelfAt says where that depot is; nil, or what returns nil: nobody is told.
	ShelfAt func() *ShelfAt

	// Connected is told that the link to a world has begun anew; it must not block. nil:
	// nobody is.
	Connected func(carnet.PartyID)

	SharesOfGrant int // in force of a taker by one grant, and as many that ended within a day; default 100

	ShelveAfter time.Duration    // how long a taker is away until what it would get is shelved; default 5 s
	ShelveEach  time.Duration    // how long what is made waits for more, the longer the more there is; default 1 s
	ReadEvery   time.Duration    // how often a giver's depot is asked then; default 1 s
	AskPause    time.Duration    // until a question that had no answer is put again; default 2 s
	Now         func() time.Time // default time.Now
	Log         *slog.Logger     // default slog.Default()
}

// Agent is a world's side of its shares, given and taken.
type Agent struct {
	Config

	changing  sync.Mutex     // held while documents change, or what is known of questions; before mu
	questions sync.WaitGroup // of those under way
	changes   atomic.Uint64  // of shares that are given
	recheck   chan struct{}  // what shares live by may have changed
	ending    chan struct{}  // some are over

	// mu guards what follows. Frames are signed under it for reading, so that none
	// that is signed after a share's end has anything of it.
	mu        sync.RWMutex
	given     map[carnet.ShareID]*given
	taken     map[carnet.ShareID]*taken
	sources   map[carnet.PartyID]*Source
	processes map[carnet.PartyID]link.Process // the last of each giver
	readings  map[carnet.PartyID]*Storage     // of givers that can't be reached
	shelves   map[carnet.PartyID]*keeping     // for each taker
	over      map[carnet.ShareID]string       // given ones that don't hold any more, and why: their ends are being stored
	believed  map[carnet.PartyID]bool         // who has told this process that its store was restored

	gives uint64 // the world's GivesChanged, as it was looked at last; owner: Run
}

// New reads the shares that there are.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.World == nil || cfg.Permits == nil || cfg.Revocations == nil || cfg.Asker == nil || cfg.Judge == nil {
		return nil, carnet.Errorf(carnet.Malformed, "shares need a world, permits, revocations, an asker and a judge")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.SharesOfGrant == 0 {
		cfg.SharesOfGrant = sharesOfGrant
	}
	if cfg.ShelveAfter == 0 {
		cfg.ShelveAfter = 5 * time.Second
	}
	if cfg.ShelveEach == 0 {
		cfg.ShelveEach = time.Second
	}
	if cfg.ReadEvery == 0 {
		cfg.ReadEvery = time.Second
	}
	if cfg.AskPause == 0 {
		cfg.AskPause = 2 * time.Second
	}
	a := &Agent{
		Config: cfg, given: make(map[carnet.ShareID]*given), taken: make(map[carnet.ShareID]*taken), sources: make(map[carnet.PartyID]*Source),
		recheck:   make(chan struct{}, 1),
		ending:    make(chan struct{}, 1),
		over:      make(map[carnet.ShareID]string),
		processes: make(map[carnet.PartyID]link.Process),
		readings:  make(map[carnet.PartyID]*Storage),
		shelves:   make(map[carnet.PartyID]*keeping),
	}
	if err := a.loadGiven(ctx); err != nil {
		return nil, err
	}
	if err := a.loadShelves(ctx); err != nil {
		return nil, err
	}
	return a, a.loadTaken(ctx)
}

// Kinds of documents.
const (
	kindGiven = "share-out"
	kindMark  = "share-at"
	kindTaken = "share-in"
	kindLink  = "share-link"
	kindShelf = "share-shelf"
)

// It is looked every lookEvery at the time, and at what is paused; and at whether
// every share still holds, for permitEvery after something has changed, since who is
// asked may learn of it a moment later, and every permitEvery otherwise.
const (
	lookEvery   = 100 * time.Millisecond
	permitEvery = time.Second
)

// Recheck has it asked for every share, at once, whether what it lives by still
// holds. It doesn't wait.
func (a *Agent) Recheck() {
	select {
	case a.recheck <- struct{}{}:
	default:
	}
}

// Run ends what no longer holds, asks for what was asked and not answered, and
// withdraws shelves, until ctx ends. It returns an error only when the process must
// recover at its next start.
func (a *Agent) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return a.keepLooking(ctx) })
	work.Go(func() error { return a.keepEnding(ctx) })
	work.Go(func() error { return a.keepShelves(ctx) })
	return work.Wait()
}

func (a *Agent) keepLooking(ctx context.Context) error {
	defer a.questions.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var asked time.Time // when it was asked for every share
	changed := time.Now()
	for {
		now := time.Now()
		all := now.Sub(changed) < permitEvery || now.Sub(asked) >= permitEvery
		if all {
			asked = now
		}
		a.look(ctx, all)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.recheck:
			changed = time.Now()
		}
	}
}

// look has nothing be signed any more of the shares that may not go on, and goes on with
// those that were asked for. Without all it asks only for those whose time is over, and
// those that wait. It waits for no store: whatever ends while others' ends are being
// stored is seen as soon.
func (a *Agent) look(ctx context.Context, all bool) {
	a.rouseForGives()
	var waits, flows []carnet.ShareID
	over := make(map[carnet.ShareID]string)
	now := a.Now()
	for _, g := range a.going() {
		ended := !now.Before(g.Until)
		if !all && !ended && !g.paused {
			continue
		}
		err := a.Permits.Still(g.Given)
		if err == nil {
			err = a.bounded(&g.Given)
		}
		if err == nil && ended {
			err = carnet.Errorf(carnet.TooOld, "it was given until %s", g.Until.UTC().Format(time.RFC3339))
		}
		switch {
		case err == nil:
			if g.paused {
				flows = append(flows, g.ID)
			}
		case carnet.CodeOf(err) == carnet.Unavailable: // it may hold again
			waits = append(waits, g.ID)
		default:
			over[g.ID] = err.Error()
		}
	}
	a.cease(slices.Collect(maps.Keys(over))...)
	a.pause(true, waits...)
	a.pause(false, flows...)
	a.toEnd(over)
	if all {
		a.rouseShelves()
	}
	a.askAgain(ctx)
}

// toEnd has the ends of shares be stored, and of those that couldn't be before.
func (a *Agent) toEnd(over map[carnet.ShareID]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.over, over)
	if len(a.over) > 0 {
		select {
		case a.ending <- struct{}{}:
		default:
		}
	}
}

func (a *Agent) keepEnding(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.ending:
		}
		if err := a.end(ctx); err != nil && ctx.Err() == nil && carnet.CodeOf(err) == "" {
			return err
		}
	}
}

// overBy is by what a share ends that nobody stopped.
const overBy = "the end of what permitted it"

// end stores the ends of the shares that are over. Those that can't be stored now are
// tried again after the next look.
func (a *Agent) end(ctx context.Context) error {
	a.mu.RLock()
	over := maps.Clone(a.over)
	a.mu.RUnlock()
	for ids := range slices.Chunk(slices.Collect(maps.Keys(over)), endAtOnce) {
		if err := a.stopGiving(ctx, ids, overBy, func(id carnet.ShareID) string { return over[id] }); err != nil {
			return err
		}
		a.mu.Lock()
		for _, id := range ids {
			delete(a.over, id)
		}
		a.mu.Unlock()
	}
	return nil
}

// going lists the shares that are given and aren't over.
func (a *Agent) going() []*given {
	all := a.giving()
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.DeleteFunc(all, func(g *given) bool { _, over := a.over[g.ID]; return over })
}

// giving lists the shares that are given and haven't ended. Nobody changes what the
// pointers show.
func (a *Agent) giving() (all []*given) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, g := range a.given {
		if g.End == nil {
			all = append(all, g)
		}
	}
	return all
}
