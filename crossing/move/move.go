// Package move owns what two worlds do so that an avatar goes from one to the
// other: it has exactly one home before and after, whatever is lost, killed or
// restored meanwhile.
//
// At the target a move is asked, copying, then prepared, home or dropped; at the
// source offered, frozen, then gone or kept (state.go). From what either has signed
// on, only the registrar's decision goes on. docs/design/crossing.md has the
// messages and the recovery rule for a crash at each point; search_test.go visits
// all orders of events with the functions that run here.
//
// The package must not know how a caller is proven (crossing/r5), how the register
// is kept (register), nor where history and keys lie (avatar).
package move

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/ledger"
	"carnet/mandate"
	"carnet/policy"
	"carnet/register"
	"carnet/seal"
)

// World is the world on whose side this is: an *avatar.Agent.
type World interface {
	Avatar(carnet.AvatarID) (avatar.Info, error)
	Avatars() []avatar.Info
	Frozen(carnet.AvatarID) (carnet.CrossingID, bool, error)
	// Policy is what an avatar's owner has signed of what may be done with it.
	Policy(carnet.AvatarID) (avatar.Policy, error)

	// The source's side.
	Freeze(context.Context, carnet.AvatarID, carnet.CrossingID) error
	Thaw(context.Context, carnet.AvatarID, carnet.CrossingID) error
	Pack(context.Context) error
	MovedCeiling(context.Context, carnet.AvatarID) (carnet.Label, error)
	avatar.Leaver
	// Redacted gives what an owner's order leaves of what moves.
	Redacted(avatar.Redaction) avatar.Leaver
	WouldLeave(context.Context, carnet.AvatarID, carnet.Clearance) ([]avatar.LeftBehind, error)
	// PassportManifest is Manifest of an avatar that goes on living.
	PassportManifest(ctx context.Context, id carnet.AvatarID, passport carnet.CrossingID, vouch func(carnet.AvatarID, avatar.MovedStream) ([]byte, error)) (*avatar.Manifest, error)
	Depart(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, to carnet.PartyID, decision carnet.Fingerprint) error
	Departed(carnet.AvatarID) (avatar.Destination, error)
	Reclaim(context.Context, carnet.AvatarID) error
	Clear(context.Context, carnet.AvatarID) error
	Silence(context.Context, carnet.AvatarID) error

	// The target's.
	Expect(ctx context.Context, x carnet.CrossingID, title string) (avatar.Info, error)
	ExpectBy(ctx context.Context, x, passport carnet.CrossingID, title string) (avatar.Info, error)
	Arriving() map[carnet.AvatarID]carnet.CrossingID
	TakeStreams(ctx context.Context, id carnet.AvatarID, streams []avatar.MovedStream, same []carnet.AvatarID) error
	Missing(context.Context, carnet.AvatarID, []avatar.MovedStretch) ([]avatar.MovedStretch, error)
	TakeStretch(ctx context.Context, id carnet.AvatarID, m avatar.MovedStretch, body, proof []byte) error
	ProveStretch(ctx context.Context, id carnet.AvatarID, m avatar.MovedStretch, body, proof []byte) (avatar.Proven, error)
	TakeStretches(context.Context, carnet.AvatarID, []avatar.Proven) error
	TakeKeys(ctx context.Context, id carnet.AvatarID, sealed []byte, want seal.Expected) error
	Check(context.Context, carnet.AvatarID, *avatar.Manifest) error
	ComingCeiling(context.Context, carnet.AvatarID) (carnet.Label, error)
	Arrive(context.Context, carnet.AvatarID, avatar.Landing) error
	Drop(context.Context, carnet.AvatarID) error
	Survey(ctx context.Context, id carnet.AvatarID, do func(avatar.Unfit)) error

	Keep(ctx context.Context, kept []avatar.Kept, statements []ledger.Statement, plain ...carnet.Document) error
	EachKept(ctx context.Context, kind string, do func(id string, version uint64, open func(any) error) error) error
	// OneKept reads one document into body; carnet.NotFound if there is none.
	OneKept(ctx context.Context, kind, id string, body any) (version uint64, err error)
}

// Registrar is a register, as this world asks it: a *register.Client. What can't be
// answered at the moment is carnet.Unavailable.
type Registrar interface {
	Enrol(ctx context.Context, home carnet.HomeID, owner string) (identity.HomeAnswer, register.HomeReply, error)
	Claim(ctx context.Context, home carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error)
	// ClaimItem is Claim of an item's home, whose chain has so many entries.
	ClaimItem(ctx context.Context, home carnet.HomeID, chain uint64) (identity.HomeAnswer, register.HomeReply, error)
	Home(ctx context.Context, home carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error)
	// NotAt returns those of homes of which the register says something else than that they
	// are at a world, live, and that nobody asks for their recovery.
	NotAt(ctx context.Context, world string, homes []carnet.HomeID) ([]carnet.HomeID, error)
	// Decide returns what was decided, verified; nil while nothing is.
	Decide(ctx context.Context, x carnet.CrossingID, p register.Petition) (*register.Decided, error)
}

// Peer is another world, as it is known here.
type Peer struct {
	Party     carnet.PartyID // as this world calls it
	OwnName   carnet.PartyID // as it calls itself
	Key       ed25519.PublicKey
	Clearance carnet.Clearance // what may be given to it, by its own word and the peering
}

// DID names the peer in signed messages.
func (p Peer) DID() string { return identity.DID(p.Key) }

// Peers are the worlds that this one deals with now.
type Peers interface {
	Named(carnet.PartyID) (Peer, error)
	All() []Peer
}

// Far is the source of a move, as its target reaches it over R5. What the source
// refuses for good has a code other than carnet.Unavailable and carnet.NoSpace.
type Far interface {
	Offer(ctx context.Context, to Visit, o SignedOrder) (Standing, error)
	Stretches(ctx context.Context, to Visit, from avatar.Place) ([]avatar.MovedStretch, error)
	// Stretch gives a stretch as the source has it or, looked, as the source has looked
	// at it.
	Stretch(ctx context.Context, to Visit, m avatar.MovedStretch, looked bool) (body, proof []byte, err error)
	// Several gives the first of some stretches as the source has them, in their order: at
	// least one. A source that an older program runs refuses it: carnet.Malformed.
	Several(ctx context.Context, to Visit, some []avatar.MovedStretch) ([]Piece, error)
	Freeze(ctx context.Context, to Visit, reception []byte) (Freezing, error)
	Manifest(ctx context.Context, to Visit) ([]byte, error)
	Decided(ctx context.Context, to Visit, d Decided) (Left, error)
	// Ordered returns the order by which something has come, which this world has lost.
	Ordered(ctx context.Context, to Visit) (SignedOrder, error)
	// Recovered tells a world that was away that an avatar of its lives here now.
	Recovered(ctx context.Context, source carnet.PartyID, d Decided) (Left, error)
}

// Items are this world's items: an *item.Book.
type Items interface {
	Homes() []item.Home
	// At returns the home of an item that is here.
	At(carnet.HomeID) (item.Home, bool)
	// Ending returns those of items that have ended, which the register is to be told;
	// Ended notes that it was.
	Ending() []item.Home
	Ended(context.Context, carnet.ItemID) error
	Items() []item.Info
	Of(carnet.AvatarID) []item.Info

	// The source's side.
	Leaves(l item.Leaving, owner string) error
	Freeze(ctx context.Context, l item.Leaving, owner string) ([]identity.ItemProof, error)
	Still(carnet.AvatarID, carnet.CrossingID)
	Thaw(context.Context, carnet.CrossingID) error
	Depart(ctx context.Context, l item.Leaving, to carnet.PartyID, d item.Committed) error
	// Passported has those of an avatar that are under an owner's key at a registrar keep
	// still for a passport with a farewell; without one they go on.
	Passported(ctx context.Context, avatar carnet.AvatarID, registrar, owner string, still carnet.CrossingID) ([]identity.ItemProof, error)

	// The target's.
	Fit(credential string) (identity.Item, item.Looks, error)
	Check(c item.Coming, proofs []identity.ItemProof) ([]item.Checked, error)
	CheckOne(c item.Coming, m identity.MovingItem, p identity.ItemProof) (item.Checked, error)
	Land(context.Context, item.Landing) error
}

// Mandates are the requests and mandates of this world's avatars: a *mandate.Book.
type Mandates interface {
	Ask(ctx context.Context, by string, avatar carnet.AvatarID, want mandate.Wanted) (mandate.Request, error)
	Give(ctx context.Context, token string) (mandate.Request, error)
	Remove(ctx context.Context, id string) (mandate.Request, error)
}

// Visit names a move to its source: which avatar of this world calls, about which
// of that world.
type Visit struct {
	Source   carnet.PartyID
	Crossing carnet.CrossingID
	As       carnet.AvatarID // here
	About    carnet.AvatarID // there
	// Decision is the registrar's, once there is one: with it the crossing proves itself,
	// and no mandate is needed any more.
	Decision string
}

// SignedOrder is an owner's order with its terms.
type SignedOrder struct {
	Order string `json:"order"`
	Terms []byte `json:"terms"`
}

// Standing is how things stand at a source.
type Standing struct {
	State   State                `json:"state"`
	Streams []avatar.MovedStream `json:"streams"`
}

// Piece is a stretch as a source gives it, with what proves it. The zero Piece is of one
// that isn't there any more.
type Piece struct{ Body, Proof []byte }

func (p *Piece) gone() bool { return len(p.Body) == 0 && len(p.Proof) == 0 }

// Freezing is what a frozen source gives: its release, of a manifest, and keys,
// sealed to the reception key that the target announced.
type Freezing struct {
	Release string   `json:"release"`
	Size    int      `json:"size"` // of the manifest
	Bags    [][]byte `json:"bags"`
}

// Decided tells a source what the registrar has decided.
type Decided struct {
	SignedOrder
	Decision string `json:"decision"`
	// Streams are how the streams stood that moved: for a source that doesn't know any
	// more what it released, so that it tells its things agents.
	Streams []Head `json:"streams,omitempty"`
}

// Head is where a stream stands in a manifest.
type Head struct {
	Stream    carnet.StreamID `json:"stream"`
	NextBatch uint64          `json:"next_batch"`
	NextFirst uint64          `json:"next_measurement"`
}

// Left is what a source says after a decision: a departure once all is deleted.
type Left struct {
	State     State  `json:"state"`
	Departure string `json:"departure,omitempty"`
}

// Config makes an Agent. Fields without a stated default are required.
type Config struct {
	Party carnet.PartyID
	Key   ed25519.PrivateKey // by which peers and registrars know this world
	World World
	Items Items
	Peers Peers
	Far   Far
	// Registrar returns the register that this world asks now, with its did:key;
	// carnet.Unavailable where its depot keeps none.
	Registrar func() (Registrar, string, error)
	// Vouch signs what this world says of a stream that it received itself.
	Vouch func(carnet.AvatarID, avatar.MovedStream) ([]byte, error)
	// VouchLeft signs what this world left out of a stream by an owner's order.
	VouchLeft func(avatar.MovedStream, avatar.LeftOut) ([]byte, error)
	// Announce signs this world's reception key for a world that is to give keys.
	Announce  func() ([]byte, error)
	Mandates  Mandates
	Clearance carnet.Clearance // this world's own
	Bears     *policy.View     // of whatever comes here; nil: all
	// Moved tells the things agents of an avatar that it moved, now and at each
	// connection.
	Moved func([]carnet.Moved)
	// HomeCheck is how often the register is asked about each home here.
	HomeCheck time.Duration // default 15 minutes
	// BackupWithin is how old the newest passport of an avatar with keys for its owner may
	// be when the avatar is offered to another world. 0: there needn't be one.
	BackupWithin time.Duration
	// Unrecoverable is how long what is deleted stays in backups of the key table.
	Unrecoverable time.Duration // default 30 days

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Agent is a world's side of its moves.
type Agent struct {
	Config
	did string

	changing turns[carnet.AvatarID] // held while an avatar's documents change; before mu
	claiming turns[carnet.HomeID]   // held while a home is claimed; after changing, before mu
	chaining turns[carnet.HomeID]   // held while an item's chain changes; after changing, before claiming
	wake     chan struct{}
	still    *places // of those that keep still to come here

	mu      sync.RWMutex // guards what follows
	sources map[carnet.CrossingID]*atSource
	targets map[carnet.CrossingID]*atTarget
	homes   map[carnet.AvatarID]*knownHome
	claimed map[carnet.HomeID]uint64 // incarnations claimed since the start

	farewells map[carnet.AvatarID]farewell
	saying    map[carnet.CrossingID]bool // passports with which one is being said
	claims    chan homeHere              // to claim anew
	ends      chan struct{}              // items have ended
}

// New reads the moves that there are.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.World == nil || cfg.Items == nil || cfg.Peers == nil || cfg.Far == nil || cfg.Vouch == nil || cfg.VouchLeft == nil || cfg.Announce == nil || cfg.Mandates == nil || cfg.Moved == nil || cfg.Registrar == nil ||
		len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, carnet.Errorf(carnet.Malformed, "moves need a world with its key and items, peers, ways to them, and to things agents")
	}
	if cfg.Unrecoverable == 0 {
		cfg.Unrecoverable = 30 * 24 * time.Hour
	}
	if cfg.HomeCheck <= 0 {
		cfg.HomeCheck = 15 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	a := &Agent{
		Config: cfg, did: identity.DID(cfg.Key.Public().(ed25519.PublicKey)), wake: make(chan struct{}, 1), still: newPlaces(maxStill),
		sources: make(map[carnet.CrossingID]*atSource), targets: make(map[carnet.CrossingID]*atTarget),
		homes: make(map[carnet.AvatarID]*knownHome), claimed: make(map[carnet.HomeID]uint64),
		farewells: make(map[carnet.AvatarID]farewell), saying: make(map[carnet.CrossingID]bool), claims: make(chan homeHere, 1024),
		ends: make(chan struct{}, 1),
	}
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	if err := a.forgetFarewells(ctx); err != nil {
		return nil, err
	}
	if err := a.thawStrays(ctx); err != nil {
		return nil, err
	}
	return a, a.forgetRooms(ctx)
}

// forgetRooms deletes avatars that are to come by no move: a crash left them.
func (a *Agent) forgetRooms(ctx context.Context) error {
	for id, x := range a.World.Arriving() {
		if t := a.targets[x]; t == nil || t.State == Dropped {
			if err := a.World.Drop(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Kinds of documents.
const (
	kindSource   = "move-source"
	kindTarget   = "move-target"
	kindManifest = "move-manifest"
	kindHome     = "move-home"
)

func (a *Agent) load(ctx context.Context) error {
	err := a.World.EachKept(ctx, kindSource, func(_ string, version uint64, open func(any) error) error {
		l := &atSource{version: version}
		if err := open(&l.AtSource); err != nil {
			return err
		}
		a.sources[l.ID] = l
		switch {
		case l.State == Gone:
			a.Moved(l.Heads)
		case l.State == Frozen && !l.alone():
			a.Items.Still(l.Avatar, l.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = a.World.EachKept(ctx, kindTarget, func(_ string, version uint64, open func(any) error) error {
		c := &atTarget{version: version}
		if err := open(&c.AtTarget); err != nil {
			return err
		}
		c.read()
		a.targets[c.ID] = c
		return nil
	})
	if err != nil {
		return err
	}
	err = a.World.EachKept(ctx, kindFarewell, func(_ string, _ uint64, open func(any) error) error {
		var f farewell
		if err := open(&f); err != nil {
			return err
		}
		a.farewells[f.Avatar] = f
		a.Items.Still(f.Avatar, f.Passport)
		return nil
	})
	if err != nil {
		return err
	}
	return a.World.EachKept(ctx, kindHome, func(_ string, version uint64, open func(any) error) error {
		h := &knownHome{version: version}
		if err := open(&h.Registered); err != nil {
			return err
		}
		a.homes[h.Avatar] = h
		return nil
	})
}

// How often a move is gone on with that waits for somebody else: while it isn't decided
// its owner waits for it, and what moves may keep still.
const (
	shortPause  = time.Second
	waitedPause = 8 * time.Second // the longest, until it is decided
	longPause   = time.Minute     // the longest, from then on
)

// pause is how long something that failed n times in a row rests, at most so long.
func pause(n int, longest time.Duration) time.Duration {
	return min(shortPause<<min(n, 10), longest)
}

// Run goes on with every move that isn't over, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	var driving sync.WaitGroup
	defer driving.Wait()
	driving.Go(func() { a.claimAll(ctx) })
	driving.Go(func() { a.watchHomes(ctx) })
	driving.Go(func() { a.forgetOver(ctx) })
	busy := make(map[carnet.CrossingID]bool)
	done := make(chan carnet.CrossingID)
	tick := time.NewTicker(shortPause)
	defer tick.Stop()
	for {
		for _, d := range a.due() {
			if busy[d.id] {
				continue
			}
			busy[d.id] = true
			driving.Go(func() {
				_ = d.drive(ctx) // it is tried again
				select {
				case done <- d.id:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case id := <-done:
			delete(busy, id)
		case <-tick.C:
		case <-a.wake:
		}
	}
}

func (a *Agent) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// driven is a move that can be gone on with now.
type driven struct {
	id    carnet.CrossingID
	drive func(context.Context) error
}

func (a *Agent) due() (all []driven) {
	now, peer := a.Now(), a.known()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id, l := range a.sources {
		if l.open() && !now.Before(l.notTill) {
			all = append(all, driven{id, func(ctx context.Context) error { return a.goOnAtSource(ctx, id) }})
		}
	}
	for id, c := range a.targets {
		if (c.open(peer) || c.forgotten(now) || c.unsure()) && !now.Before(c.notTill) {
			all = append(all, driven{id, func(ctx context.Context) error { return a.goOnAtTarget(ctx, id) }})
		}
	}
	return all
}

// final reports whether an error says that something never goes well: it was
// refused, or isn't what it should be. Without a code it is this process's own.
func final(err error) bool {
	code := carnet.CodeOf(err)
	return code != "" && code != carnet.Unavailable && code != carnet.NoSpace
}

// event is what an outcome is for the tables of states.
func event(o identity.Outcome) Event {
	if o == identity.Commit {
		return Committed
	}
	return Aborted
}
