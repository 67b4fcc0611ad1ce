// Package erasure owns what a world does so that nothing of an avatar is left anywhere:
// here, and at everybody who got something of it (docs/design/erasure.md).
//
// An erasure is ordered, then hiding (nobody reads anything of it any more), then
// erased (nothing is left here), then over (everybody has signed the same); or
// elsewhere, if the avatar had moved away before (state.go). A world that others tell
// goes through the same states for what it had. Whoever doesn't answer is told again
// for ever.
//
// The package must not know how an avatar's keys and bytes are kept (avatar), how
// questions travel (link), or what a register does with an order (register).
package erasure

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"log/slog"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/crossing/move"
	"carnet/depot"
	"carnet/identity"
	"carnet/item"
	"carnet/job"
	"carnet/ledger"
	"carnet/register"
)

// World is the world on whose side this is: an *avatar.Agent.
type World interface {
	Avatars() []avatar.Info
	Avatar(carnet.AvatarID) (avatar.Info, error)
	Frozen(carnet.AvatarID) (carnet.CrossingID, bool, error)
	Departed(carnet.AvatarID) (avatar.Destination, error)
	Withhold(bool)

	Erase(ctx context.Context, id carnet.AvatarID, by carnet.ErasureID, order carnet.Fingerprint, told carnet.PartyID) error
	Clear(context.Context, carnet.AvatarID) error
	Silence(context.Context, carnet.AvatarID) error
	Named(carnet.AvatarID) []carnet.StreamID
	Speakers(carnet.AvatarID) map[carnet.StreamID]carnet.PartyID
	TellErased([]carnet.Erased)

	SharedBy(carnet.ShareID) []carnet.StreamID
	EraseShared(ctx context.Context, share carnet.ShareID, only []carnet.StreamID, by carnet.ErasureID) (avatar.Extent, error)
	ClearShared(ctx context.Context, share carnet.ShareID, only []carnet.StreamID, by carnet.ErasureID) error

	Doomed(context.Context, carnet.ErasureID) ([]carnet.Fingerprint, error)
	Undoomed(context.Context, []carnet.Fingerprint) ([]carnet.Document, error)
	Release(context.Context, carnet.ErasureID) ([]carnet.Document, error)
	DeleteDoomed(context.Context) error
	AtDepot(func() error) error
	DestroyAgain(context.Context, []carnet.StreamID) error
	Overwrite(context.Context) error

	Keep(ctx context.Context, kept []avatar.Kept, statements []ledger.Statement, plain ...carnet.Document) error
	EachKept(ctx context.Context, kind string, do func(id string, version uint64, open func(any) error) error) error
}

// Shares are this world's shares: a *crossing.Agent.
type Shares interface {
	GivenOf(carnet.AvatarID) []crossing.Given
	TakenFor(carnet.AvatarID) []crossing.Taken
	TakenAs(carnet.ShareID) (crossing.Taken, bool)
	StopGiving(ctx context.Context, id carnet.ShareID, by, why string) error
	StopTaking(ctx context.Context, id carnet.ShareID, by, why string) error
	Passed(carnet.ShareID, []carnet.StreamID) []carnet.StreamID
	ForgetGiven(context.Context, carnet.AvatarID) error
	Unshelve(context.Context, []carnet.ShareID, carnet.ErasureID) error
	Withdrawn(context.Context, carnet.ErasureID) error
}

// Jobs are what this world had computed: a *job.Agent.
type Jobs interface {
	Erase(context.Context, job.Erased) (jobs uint64, err error)
	Over(carnet.AvatarID) map[carnet.PartyID]int
	ErasedAt(carnet.ErasureID) map[carnet.PartyID]int
	TellErased(ctx context.Context, at carnet.PartyID, by carnet.ErasureID) (deletions []string, of []int, err error)
}

// Items are what avatars have: an *item.Book.
type Items interface {
	Of(carnet.AvatarID) []item.Info
	Erase(context.Context, carnet.AvatarID, carnet.ErasureID) (items uint64, err error)
	Erased(carnet.AvatarID, carnet.ErasureID)
	// Untold counts those that ended by an erasure, and of whose end the register hasn't
	// been told yet.
	Untold(carnet.ErasureID) int
}

// Moves are this world's moves: a *move.Agent.
type Moves interface {
	AtSource() []move.AtSource
	AtTarget() ([]move.AtTarget, map[carnet.CrossingID]move.Progress)
	Cancel(ctx context.Context, x carnet.CrossingID, by string) error
	LetGo(context.Context, carnet.AvatarID) error
	HomeOf(carnet.AvatarID) (move.Registered, error)
	NoteHome(context.Context, move.Registered) error
	ByHome(carnet.HomeID) []move.Registered
	Forget(context.Context, carnet.AvatarID) error
}

// Registrar is a register, as this world asks it: a *register.Client. What can't be
// answered at the moment is carnet.Unavailable.
type Registrar interface {
	Enrol(ctx context.Context, home carnet.HomeID, owner string) (identity.HomeAnswer, register.HomeReply, error)
	Home(ctx context.Context, home carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error)
	Erase(ctx context.Context, home carnet.HomeID, order string) (identity.HomeAnswer, register.HomeReply, error)
	Erased(ctx context.Context, homes []carnet.HomeID) ([]carnet.HomeID, error)
}

// Depot is the depot of this world.
type Depot interface {
	Party() carnet.PartyID // "": there was never one
	Erase(ctx context.Context, q depot.Erasing) (deletion string, err error)
}

// Config makes an Agent. Fields without a stated default are required.
type Config struct {
	Party  carnet.PartyID
	Key    ed25519.PrivateKey // by which peers and registrars know this world
	World  World
	Shares Shares
	Moves  Moves
	Jobs   Jobs
	Items  Items
	Depot  Depot
	// Registrar returns the register that this world asks now, with its did:key;
	// carnet.Unavailable where it can't be asked.
	Registrar func() (Registrar, string, error)
	// Registered reports whether any depot that this world knows keeps a register:
	// otherwise nothing is asked at the start.
	Registered func() bool
	// Peer is the did:key by which a party is known here, also one whose peering has
	// ended; "": none.
	Peer func(carnet.PartyID) string
	// Tell puts a question to another world over the link.
	Tell func(ctx context.Context, world carnet.PartyID, kind string, body []byte) ([]byte, error)
	// Revoke ends what else there is about an avatar: grants, and what its owner was
	// asked for.
	Revoke func(context.Context, carnet.AvatarID) error
	// Backups is how long copies of the key table are kept; default 30 days.
	Backups time.Duration

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Erasure is an erasure at this world, of one thing that it has or had.
type Erasure struct {
	ID    carnet.ErasureID      `json:"id"`
	Order string                `json:"order"` // the owner's
	Role  identity.DeletionRole `json:"role"`  // as what this world had it
	Of    string                `json:"of,omitempty"`
	// Avatar is what is erased of this world; of a share, whose it was here.
	Avatar carnet.AvatarID `json:"avatar"`
	// Streams are which streams of a share are erased; none: all.
	Streams []carnet.StreamID `json:"streams,omitempty"`
	From    carnet.PartyID    `json:"from,omitempty"` // who told; "": the owner, or the register
	// Under is the share by which who told first was told itself: that one waits for those
	// whom this world tells.
	Under *carnet.ShareID `json:"under,omitempty"`
	State State           `json:"state"`
	Why   string          `json:"why,omitempty"` // it waits here, or isn't here
	Asked time.Time       `json:"asked"`

	Had      avatar.Extent     `json:"had,omitzero"`
	Jobs     uint64            `json:"jobs,omitempty"`  // that were over it
	Items    uint64            `json:"items,omitempty"` // that it had
	Names    []carnet.StreamID `json:"names,omitempty"` // of the streams, as their batches named them
	Hidden   time.Time         `json:"hidden,omitzero"`
	Cleared  time.Time         `json:"cleared,omitzero"`
	Deletion string            `json:"deletion,omitempty"`
	Others   []Other           `json:"others,omitempty"`
	Ended    time.Time         `json:"ended,omitzero"`
}

// Registers is the role of the registrar among those who are told: it signs no
// deletion.
const Registers identity.DeletionRole = "registrar"

// Other is somebody who is told.
type Other struct {
	Role    identity.DeletionRole `json:"role"`
	Party   carnet.PartyID        `json:"party"` // as this world calls it
	Of      string                `json:"of,omitempty"`
	Streams []carnet.StreamID     `json:"streams,omitempty"`
	Jobs    int                   `json:"jobs,omitempty"` // of a DPM: of how many it is told
	// Deletions are its own, and those of whom it has told.
	Deletions []string  `json:"deletions,omitempty"`
	Below     []Waiting `json:"below,omitempty"` // whom it has told without an answer
	Heard     time.Time `json:"heard,omitzero"`  // nothing is left there, or below
	Since     time.Time `json:"since,omitzero"`  // it hasn't been reached since then
	Why       string    `json:"why,omitempty"`
}

// Waiting is somebody who hasn't answered.
type Waiting struct {
	Role  identity.DeletionRole `json:"role"`
	Party string                `json:"party"` // by way of whom, and what these call it
	Since time.Time             `json:"since,omitzero"`
	Why   string                `json:"why"`
}

func (o *Other) same(p *Other) bool { return o.Role == p.Role && o.Party == p.Party && o.Of == p.Of }

// Waits lists who hasn't answered.
func (e *Erasure) Waits() (all []Waiting) {
	for i := range e.Others {
		o := &e.Others[i]
		if !o.Heard.IsZero() {
			continue
		}
		if len(o.Below) == 0 {
			all = append(all, Waiting{o.Role, string(o.Party), o.Since, cmp.Or(o.Why, "it is being told")})
		}
		for _, w := range o.Below {
			w.Party = string(o.Party) + " › " + w.Party
			all = append(all, w)
		}
	}
	return all
}

// Deletions are all that were signed: this world's first.
func (e *Erasure) Deletions() (all []string) {
	if e.Deletion != "" {
		all = append(all, e.Deletion)
	}
	for i := range e.Others {
		for _, d := range e.Others[i].Deletions {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all
}

// key names an erasure's document.
func (e *Erasure) key() string {
	if e.Role == identity.DeletedAtHome {
		return e.ID.String() + "/" + string(e.Role)
	}
	return e.ID.String() + "/" + string(e.Role) + "/" + e.Of
}

// ofAvatar reports whether it is of an avatar that is, or was, of this world: not of what
// another avatar got of it.
func (e *Erasure) ofAvatar() bool {
	return e.Role == identity.DeletedAtHome || e.Role == identity.DeletedFormer
}

// held is an erasure with what is known of it in memory only.
type held struct {
	Erasure
	version uint64
	notTill time.Time
	failed  int
	tried   map[string]*trying // of others, by trying's key
}

// trying is how telling somebody goes.
type trying struct {
	notTill time.Time
	failed  int
	again   bool // it has answered, and is told again
}

// Agent is a world's side of erasures.
type Agent struct {
	Config
	did string

	changing sync.Mutex // held while documents change; before mu
	wake     chan struct{}

	mu       sync.RWMutex // guards what follows
	erasures map[string]*held
}

const kindErasure = "erasure"

// New reads the erasures that there are.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.World == nil || cfg.Shares == nil || cfg.Moves == nil || cfg.Jobs == nil || cfg.Items == nil || cfg.Depot == nil || cfg.Registrar == nil || cfg.Registered == nil || cfg.Peer == nil ||
		cfg.Tell == nil || cfg.Revoke == nil || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, carnet.Errorf(carnet.Malformed, "erasures need a world with its key, its shares, moves, jobs and items, its depot, a register, and ways to others")
	}
	if cfg.Backups == 0 {
		cfg.Backups = 30 * 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	a := &Agent{Config: cfg, did: identity.DID(cfg.Key.Public().(ed25519.PublicKey)), wake: make(chan struct{}, 1), erasures: make(map[string]*held)}
	return a, a.World.EachKept(ctx, kindErasure, func(_ string, version uint64, open func(any) error) error {
		h := &held{version: version, tried: make(map[string]*trying)}
		if err := open(&h.Erasure); err != nil {
			return err
		}
		a.erasures[h.key()] = h
		a.tellSpeakers(&h.Erasure)
		if h.ofAvatar() && !h.State.Readable() {
			a.Items.Erased(h.Avatar, h.ID)
		}
		return nil
	})
}

// How long something rests that waits for somebody else.
const (
	shortPause = time.Second
	longPause  = time.Hour
)

// pause is how long something that failed n times in a row rests.
func pause(n int) time.Duration { return min(shortPause<<min(n, 12), longPause) }

// Run asks the register what is erased of what is here, and goes on with every erasure
// that isn't over, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()
	working.Go(func() { a.askRegister(ctx) })
	working.Go(func() { a.destroyAgain(ctx) })
	busy := make(map[string]bool)
	done := make(chan string)
	tick := time.NewTicker(shortPause)
	defer tick.Stop()
	for {
		for _, key := range a.due() {
			if busy[key] {
				continue
			}
			busy[key] = true
			working.Go(func() {
				a.goOn(ctx, key)
				select {
				case done <- key:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-done:
			delete(busy, key)
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

// due lists the erasures with which something can be done now.
func (a *Agent) due() (all []string) {
	now := a.Now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for key, h := range a.erasures {
		if h.State == Elsewhere {
			continue
		}
		if due := !now.Before(h.notTill); (h.State == Ordered || h.State == Hiding) && due || len(h.toTell(now)) > 0 || h.State == Erased && h.allHeard() && (due || h.failed == 0) {
			all = append(all, key)
		}
	}
	return all
}

// toTell lists who is to be told now. The depot is once all is deleted here. The caller
// holds mu.
func (h *held) toTell(now time.Time) (all []int) {
	if h.State != Hiding && h.State != Erased && h.State != Over {
		return nil
	}
	for i := range h.Others {
		o := &h.Others[i]
		t := h.tried[o.key()]
		if due := t == nil || !now.Before(t.notTill); !o.Heard.IsZero() && (t == nil || !t.again) || !due {
			continue
		}
		if o.Role != identity.DeletedAtDepot || h.State != Hiding {
			all = append(all, i)
		}
	}
	return all
}

func (h *held) allHeard() bool {
	return !slices.ContainsFunc(h.Others, func(o Other) bool { return o.Heard.IsZero() })
}

func (o *Other) key() string { return string(o.Role) + "/" + string(o.Party) + "/" + o.Of }

func (a *Agent) erasure(key string) held {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if h := a.erasures[key]; h != nil {
		return *h
	}
	return held{}
}

// keep stores an erasure's next document and takes it up. The caller holds changing.
func (a *Agent) keep(ctx context.Context, h held, statements []ledger.Statement, plain ...carnet.Document) error {
	h.version++
	kept := avatar.Kept{Kind: kindErasure, ID: h.key(), Version: h.version, Body: h.Erasure}
	if err := a.World.Keep(ctx, []avatar.Kept{kept}, statements, plain...); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.tried == nil {
		h.tried = make(map[string]*trying)
	}
	a.erasures[h.key()] = &h
	return nil
}

// All lists the erasures, oldest first.
func (a *Agent) All() []Erasure {
	a.mu.RLock()
	all := make([]Erasure, 0, len(a.erasures))
	for _, h := range a.erasures {
		e := h.Erasure
		e.Others = slices.Clone(e.Others)
		all = append(all, e)
	}
	a.mu.RUnlock()
	slices.SortFunc(all, func(p, q Erasure) int {
		return cmp.Or(p.Asked.Compare(q.Asked), cmp.Compare(p.key(), q.key()))
	})
	return all
}

// Of lists the erasures with an id, of each thing that this world had.
func (a *Agent) Of(id carnet.ErasureID) []Erasure {
	return slices.DeleteFunc(a.All(), func(e Erasure) bool { return e.ID != id })
}
