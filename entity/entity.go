// Package entity owns a world's principals that are neither people nor things,
// and the grants by which they, or avatars of other worlds, may read avatars of
// this one.
//
// A principal is added, then removed. A grant is given, then revoked or over; it
// never changes. Each change is one transaction with its statement and the next
// revocation number, so that every process on the store ends what lived by it;
// docs/design/grants.md has the durable states and the recovery rule for a crash
// at each point. What is granted is seen through a Lens: the grant's view,
// compiled, below which no label above the clearance comes.
//
// The package must not know transports, how avatars are kept (only what they
// have shown, in policy's terms), or who else may do what (policy's roles).
package entity

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
	"carnet/revocation"
)

// Store keeps principals and grants: a world's store is one. Every method is one
// transaction, durable on return.
type Store interface {
	// Put stores documents (nil Body: delete) and statements, all or nothing; a
	// document whose stored version isn't Version-1 fails the whole with
	// carnet.Conflict.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error
	// DocumentPage returns documents of a kind with id > after, in the byte order
	// of their ids, at most limit.
	DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error)
}

// Avatars says what this world's avatars have shown. It may be called
// concurrently.
type Avatars interface {
	// Properties describes an avatar's properties, in the order in which it showed them
	// first; carnet.NotFound where there is no such avatar. The caller may change it.
	Properties(id carnet.AvatarID) ([]policy.Property, error)
	// Onward says whether some of what an avatar is given, and whether all of it, may
	// be passed on: what comes by a share of another world may not, unless that one
	// says so.
	Onward(id carnet.AvatarID) (some, all bool)
	// OnwardOf says whether some of what it was given of one property lately may be.
	OnwardOf(ctx context.Context, id carnet.AvatarID, property string) (bool, error)
	// Bounds are what an avatar's owner lets be done with it: from memory.
	Bounds(id carnet.AvatarID) policy.Bounds
	// Reaches reports whether a cursor of an avatar has everything that another has.
	Reaches(cursor, other string) bool
}

// Config makes an Agent. Every field without a stated default is required.
type Config struct {
	Party       carnet.PartyID
	Store       Store
	Keys        *keys.Table // has the key under which all of it rests; it is made at the first start
	Avatars     Avatars
	Judge       *policy.Judge // what views may show whom
	Revocations *revocation.Watcher
	// State makes the outbox item of a statement by this world.
	State func(ledger.Statement) (ledger.Item, error)
	// Recorded is called after a change that left a statement. It must not block.
	Recorded func()

	// World says by which did:key this world knows another, by what it calls that one;
	// empty: there is none.
	World func(carnet.PartyID) string

	// Receives is the most that another world may be given, by what this one calls it; false:
	// there is no such peer. Nil: it isn't known of any.
	Receives func(carnet.PartyID) (most carnet.Clearance, known bool)

	GrantsOfGiver int // in force, given by one; default 10,000

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Agent is a world's entity agent. It may be used by many goroutines.
type Agent struct {
	cfg      Config
	sealer   *keys.Sealer
	follower *revocation.Follower // what may have ended is read anew

	changing sync.Mutex // held while something is stored or loaded

	mu         sync.RWMutex // guards what follows
	principals map[string]*Principal
	grants     map[string]*Grant
	index      map[receiver][]*Grant // newest last; those that were revoked aren't in it
	holds      map[string]map[*hold]struct{}
	trails     map[string]*trail // of grants with deadbands that were read live since the start
	removed    chan struct{}     // closed, and another made, when a principal isn't there any more
}

// receiver is to whom a grant is given, about which avatar.
type receiver struct {
	to     To
	avatar carnet.AvatarID
}

// hold is what ends with a grant.
type hold struct {
	end   func()
	timer *time.Timer // at the grant's end
}

// Kinds of documents.
const (
	kindPrincipal = "principal"
	kindGrant     = "grant"

	pageSize = 512
)

// Limits.
const (
	maxGrants     = 100_000 // in force
	grantsOfGiver = 10_000  // in force, given by one, where nothing else is configured
	maxGrantsOfTo = 1000    // of these, to one receiver
	maxPrincipals = 10_000

	// How long a grant that has ended is kept to look up, and how many of one giver
	// at most.
	keepEnded  = 31 * 24 * time.Hour
	endedOfBy  = 1000
	clearEnded = 64 // deleted at once
)

var restKey = keys.ID{Kind: "rest", Name: "entities"}

// New loads what is stored.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Avatars == nil || cfg.Judge == nil || cfg.Revocations == nil || cfg.State == nil || cfg.Recorded == nil || cfg.World == nil {
		return nil, carnet.Errorf(carnet.Malformed, "an entity agent needs a store, keys, avatars, a judge, revocations, the worlds' keys and a way to state")
	}
	a := &Agent{
		cfg: cfg, follower: revocation.Follow(cfg.Revocations), principals: make(map[string]*Principal), grants: make(map[string]*Grant),
		index: make(map[receiver][]*Grant), holds: make(map[string]map[*hold]struct{}), trails: make(map[string]*trail),
		removed: make(chan struct{}),
	}
	if a.cfg.GrantsOfGiver == 0 {
		a.cfg.GrantsOfGiver = grantsOfGiver
	}
	if a.cfg.Now == nil {
		a.cfg.Now = time.Now
	}
	if a.cfg.Log == nil {
		a.cfg.Log = slog.Default()
	}
	if err := a.unseal(ctx); err != nil {
		return nil, err
	}
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// unseal takes the key under which documents rest. It is made at the first start
// only: a store that was used with another key table is refused.
func (a *Agent) unseal(ctx context.Context) (err error) {
	if a.sealer, err = a.cfg.Keys.Sealer(ctx, restKey); carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	for _, kind := range []string{kindPrincipal, kindGrant} {
		if some, err := a.cfg.Store.DocumentPage(ctx, kind, "", 1); err != nil {
			return err
		} else if len(some) > 0 {
			return carnet.Errorf(carnet.Tampered, "the key table doesn't have the key that this world's grants are sealed under").
				WithFix("give the key table that belongs to the store")
		}
	}
	if _, err = a.cfg.Keys.Make(ctx, restKey); err != nil {
		return err
	}
	a.sealer, err = a.cfg.Keys.Sealer(ctx, restKey)
	return err
}

// Run takes in what other processes on the same store have changed, and ends what
// lives by grants when nobody can tell any more whether they hold, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	return a.follower.Run(ctx, func(ctx context.Context) error {
		if !a.cfg.Revocations.Fresh() {
			a.endAll()
			return nil
		}
		a.changing.Lock()
		err := a.load(ctx)
		a.changing.Unlock()
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Error("grants can't be read; what lives by them ends, and it is tried again", "err", err)
			a.endAll()
		}
		return err
	})
}

// fresh reports whether it is known which grants hold.
func (a *Agent) fresh() bool { return a.cfg.Revocations.Fresh() && !a.follower.Behind() }

// load takes in documents whose version isn't known yet. The caller holds
// changing, but for New.
func (a *Agent) load(ctx context.Context) error {
	principals, err := loadKind(ctx, a, kindPrincipal, a.principals)
	if err != nil {
		return err
	}
	grants, err := loadKind(ctx, a, kindGrant, a.grants)
	if err != nil {
		return err
	}
	a.set(principals, grants)
	return nil
}

// versioned is what rests as a document.
type versioned interface{ documentVersion() uint64 }

// loadKind reads all documents of a kind, and opens those that aren't known as
// they are.
func loadKind[T any, P interface {
	*T
	versioned
	setVersion(uint64)
}](ctx context.Context, a *Agent, kind string, known map[string]P) (map[string]P, error) {
	all := make(map[string]P, len(known))
	for after := ""; ; {
		page, err := a.cfg.Store.DocumentPage(ctx, kind, after, pageSize)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			after = d.ID
			if have := known[d.ID]; have != nil && have.documentVersion() == d.Version {
				all[d.ID] = have
				continue
			}
			plain, err := a.sealer.Open(nil, aad(d.Kind, d.ID), d.Body)
			if err != nil {
				return nil, err
			}
			v := P(new(T))
			if err := json.Unmarshal(plain, v); err != nil {
				return nil, carnet.Errorf(carnet.Tampered, "the %s %s can't be read: %v", d.Kind, d.ID, err)
			}
			v.setVersion(d.Version)
			all[d.ID] = v
		}
		if len(page) < pageSize {
			return all, nil
		}
	}
}

// set replaces what is known, and ends what lived by what is no more.
func (a *Agent) set(principals map[string]*Principal, grants map[string]*Grant) {
	index := make(map[receiver][]*Grant)
	for _, g := range grants {
		if g.Revoked == nil && g.receiverIs(principals) {
			r := receiver{g.To, g.Avatar}
			index[r] = append(index[r], g)
		}
	}
	for _, of := range index {
		sortByGiven(of)
	}
	a.mu.Lock()
	for id := range a.principals {
		if principals[id] == nil {
			close(a.removed)
			a.removed = make(chan struct{})
			break
		}
	}
	a.principals, a.grants, a.index = principals, grants, index
	var over []*hold
	for id, held := range a.holds {
		if g := grants[id]; g == nil || g.Revoked != nil || !g.receiverIs(principals) || a.bounded(&g.Terms) != nil {
			for h := range held {
				over = append(over, h)
			}
			delete(a.holds, id)
		}
	}
	a.mu.Unlock()
	endEach(over)
}

// endAll ends whatever lives by any grant.
func (a *Agent) endAll() {
	a.mu.Lock()
	var over []*hold
	for _, held := range a.holds {
		for h := range held {
			over = append(over, h)
		}
	}
	clear(a.holds)
	a.mu.Unlock()
	endEach(over)
}

func endEach(over []*hold) {
	for _, h := range over {
		h.timer.Stop()
		h.end()
	}
}

// Hold has end called once, when a grant ends or nobody can tell any more whether
// it holds, until release is called. end must not block. A grant that doesn't
// hold now is refused.
func (a *Agent) Hold(id string, end func()) (release func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.grants[id]
	now := a.cfg.Now()
	if g == nil || !g.holds(now) || !g.receiverIs(a.principals) {
		return nil, carnet.Errorf(carnet.Forbidden, "the grant %s is over", id)
	}
	if err := a.bounded(&g.Terms); err != nil {
		return nil, err
	}
	if !a.fresh() {
		return nil, errStale
	}
	h := &hold{end: end}
	drop := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		_, there := a.holds[id][h]
		delete(a.holds[id], h)
		if len(a.holds[id]) == 0 {
			delete(a.holds, id)
		}
		return there
	}
	h.timer = time.AfterFunc(g.Expires.Sub(now), func() {
		if drop() {
			end()
		}
	})
	if a.holds[id] == nil {
		a.holds[id] = make(map[*hold]struct{})
	}
	a.holds[id][h] = struct{}{}
	return func() { h.timer.Stop(); drop() }, nil
}

var errStale = carnet.Errorf(carnet.Unavailable, "the store doesn't answer, so nobody can tell whether the grant still holds").WithFix("try again")

func aad(kind, id string) []byte { return []byte("document " + kind + " " + id) }

func (a *Agent) document(kind, id string, version uint64, v any) (carnet.Document, []byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return carnet.Document{}, nil, err
	}
	body, err := a.sealer.Seal(nil, aad(kind, id), plain)
	return carnet.Document{Kind: kind, ID: id, Version: version, Body: body}, plain, err
}

// change is one change of a principal or a grant.
type change struct {
	kind, id string
	version  uint64 // the document's new one
	value    any
	state    ledger.Statement  // without who, when and about which bytes
	gone     []carnet.Document // deleted with it
}

// store makes a change durable, with its statement and the next revocation
// number, and takes it in. The caller holds changing.
func (a *Agent) store(ctx context.Context, c change) error {
	d, plain, err := a.document(c.kind, c.id, c.version, c.value)
	if err != nil {
		return err
	}
	c.state.Time, c.state.Object = a.cfg.Now().UnixNano(), carnet.FingerprintOf(plain)
	item, err := a.cfg.State(c.state)
	if err != nil {
		return err
	}
	err = a.cfg.Revocations.End(ctx, func(number carnet.Document) error {
		return a.cfg.Store.Put(ctx, append([]carnet.Document{d, number}, c.gone...), []ledger.Item{item})
	})
	if err != nil {
		return err
	}
	a.cfg.Recorded()
	return a.load(context.WithoutCancel(ctx)) // it stands, whoever has left meanwhile
}
