package crossing

import (
	"cmp"
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/policy"
)

// Question is what a taker asks for.
type Question struct {
	ID      carnet.ShareID  `json:"id"`
	Avatar  carnet.AvatarID `json:"avatar"` // of the giver
	For     carnet.AvatarID `json:"for"`    // of the taker
	Purpose string          `json:"purpose"`
	View    *policy.View    `json:"view,omitempty"`   // what the taker wants or bears; absent: whatever it is given
	Taking  bool            `json:"taking,omitempty"` // the giver has said yes to it before
}

// Answer is what the giver gives.
type Answer struct {
	View   policy.View `json:"view"` // in force: the strictest of the grant's and the taker's
	Until  time.Time   `json:"until"`
	Onward bool        `json:"onward"` // whether the taker may pass it on
	// Shelf is where the taker finds what comes while the giver can't be reached.
	Shelf *ShelfAt `json:"shelf,omitempty"`
}

// Permit is what a proven caller's question is permitted by.
type Permit struct {
	Taker        carnet.PartyID
	Grant        string
	GrantVersion uint64
	View         policy.View
	Onward       bool
	Mandate      string
	Most         carnet.Clearance // the most that may flow: the least of the taker's, the peering's, the mandate's and the grant's
	Until        time.Time        // when the first of what permits it ends
}

// Given is a share at its giver.
type Given struct {
	ID           carnet.ShareID   `json:"id"`
	Taker        carnet.PartyID   `json:"taker"`
	Avatar       carnet.AvatarID  `json:"avatar"`
	For          carnet.AvatarID  `json:"for"`
	Purpose      string           `json:"purpose"`
	View         policy.View      `json:"view"`
	Most         carnet.Clearance `json:"most"`
	Onward       bool             `json:"onward,omitempty"`
	Grant        string           `json:"grant"`
	GrantVersion uint64           `json:"grant_version"`
	Mandate      string           `json:"mandate"`
	Begun        time.Time        `json:"begun"`
	Until        time.Time        `json:"until"`
	End          *End             `json:"end,omitempty"`
}

// End is why, when and by whose word a share ended.
type End struct {
	Time time.Time `json:"time"`
	By   string    `json:"by"`
	Why  string    `json:"why"`
}

// given is a share at its giver, with what only the giver needs.
type given struct {
	Given
	// From says where the avatar's streams stood at the beginning: nothing before is
	// shared. A stream that came later is shared from its beginning.
	From  map[carnet.StreamID]uint64 `json:"from"`
	Again *again                     `json:"again,omitempty"` // nil: this store was never restored meanwhile
	Told  bool                       `json:"told,omitempty"`
	// Erased: the avatar is erased, and nothing of what the share showed is remembered.
	Erased bool `json:"erased,omitempty"`

	version uint64
	// Nothing is sent while one of them is set: paused, since it isn't known whether
	// the share still holds; ceased, until its end is durable.
	paused bool
	ceased time.Time
}

// flows reports whether anything of the share may be sent.
func (g *given) flows() bool { return g != nil && g.End == nil && !g.paused && g.ceased.IsZero() }

func (g *given) state() State {
	switch {
	case g == nil:
		return None
	case g.End != nil:
		return Ended
	}
	return Giving
}

func (a *Agent) loadGiven(ctx context.Context) error {
	return a.World.EachKept(ctx, kindGiven, func(_ string, version uint64, open func(any) error) error {
		g := &given{version: version}
		if err := open(g); err != nil {
			return err
		}
		a.given[g.ID] = g
		return nil
	})
}

// keepGiven stores the next documents of shares, all or none, and takes them up. The
// caller holds changing.
func (a *Agent) keepGiven(ctx context.Context, all []given, statements []ledger.Statement, plain ...carnet.Document) error {
	var kept []avatar.Kept
	for _, g := range all {
		kept = append(kept, avatar.Kept{Kind: kindGiven, ID: g.ID.String(), Version: g.version + 1, Body: g})
	}
	if err := a.World.Keep(ctx, kept, statements, plain...); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range all {
		g.version++
		g.paused, g.ceased = false, time.Time{}
		if now := a.given[g.ID]; now != nil { // it may have ceased while this was being stored
			g.paused, g.ceased = now.paused, now.ceased
		}
		a.given[g.ID] = &g
	}
	a.changes.Add(1)
	return nil
}

// Give gives a share that is permitted. Asked again it gives the same, for as long
// as it is permitted now.
func (a *Agent) Give(ctx context.Context, q Question, p Permit) (Answer, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.RLock()
	had := a.given[q.ID]
	a.mu.RUnlock()
	if had != nil && (had.Taker != p.Taker || had.Avatar != q.Avatar || had.For != q.For || had.Purpose != q.Purpose) {
		return Answer{}, carnet.Errorf(carnet.Conflict, "the share %s is another one", q.ID).WithFix("draw another id")
	}
	if _, ok := had.state().next(question); !ok {
		return Answer{}, carnet.Errorf(carnet.Forbidden, "the share %s has ended: %s", q.ID, had.End.Why).WithFix("ask for a new one")
	}
	g := given{Given: Given{
		ID: q.ID, Taker: p.Taker, Avatar: q.Avatar, For: q.For, Purpose: q.Purpose, View: p.View, Most: p.Most, Onward: p.Onward,
		Grant: p.Grant, GrantVersion: p.GrantVersion, Mandate: p.Mandate, Begun: a.Now().UTC(), Until: p.Until.UTC(),
	}}
	g.Most.Sensitivity &= a.World.Bounds(q.Avatar).Most()
	if q.View != nil {
		g.View = policy.Strictest(p.View, *q.View)
	}
	if err := g.View.Enforced(); err != nil {
		return Answer{}, err
	}
	if had != nil {
		g.From, g.Again, g.Begun, g.version = had.From, had.Again, had.Begun, had.version
	} else {
		if err := a.mayHaveOneMore(p); err != nil {
			return Answer{}, err
		}
		var err error
		if g.From, err = a.World.Heads(q.Avatar); err != nil {
			return Answer{}, err
		}
		if q.Taking { // it was given before this store was restored
			g.Again = &again{Time: a.Now().UTC(), From: g.From}
		}
	}
	if had == nil || !same(had.Given, g.Given) {
		err := a.keepGiven(ctx, []given{g}, []ledger.Statement{{
			Kind: ledger.ShareGiven, Time: a.Now().UnixNano(), Who: a.Party, Peer: g.Taker, Avatar: g.Avatar, PolicyVersion: g.GrantVersion,
		}})
		if err != nil {
			return Answer{}, err
		}
	}
	a.rouse(g.Taker)
	answer := Answer{View: g.View, Until: g.Until, Onward: g.Onward}
	if a.ShelfAt != nil {
		answer.Shelf = a.ShelfAt()
	}
	return answer, nil
}

// sharesOfGrant is how many shares a taker has by one grant where nothing else is
// configured: one is usual, and each costs work at every frame and a document for good.
const sharesOfGrant = 100

// mayHaveOneMore bounds what a taker gets by drawing new ids: shares in force by one
// grant, and those that ended within a day.
func (a *Agent) mayHaveOneMore(p Permit) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var flow, over int
	dayAgo := a.Now().Add(-24 * time.Hour)
	for _, g := range a.given {
		switch {
		case g.Taker != p.Taker || g.Grant != p.Grant:
		case g.End == nil:
			flow++
		case g.End.Time.After(dayAgo):
			over++
		}
	}
	if flow < a.SharesOfGrant && over < a.SharesOfGrant {
		return nil
	}
	return carnet.Errorf(carnet.TooLarge, "by this grant %s has %d shares, and %d that ended within a day: at most %d of each there may be", p.Taker, flow, over, a.SharesOfGrant).
		WithFix("go on with one that is there, or have the operator raise limits.shares_of_grant")
}

// same reports whether two of a share's documents say the same of what flows.
func same(p, q Given) bool {
	pv, perr := p.View.MarshalJSON()
	qv, qerr := q.View.MarshalJSON()
	return perr == nil && qerr == nil && string(pv) == string(qv) && p.Most == q.Most && p.Onward == q.Onward &&
		p.Grant == q.Grant && p.GrantVersion == q.GrantVersion && p.Mandate == q.Mandate && p.Until.Equal(q.Until)
}

// Given lists the shares that are given, those that have ended included, in order
// of their beginnings.
func (a *Agent) Given() []Given {
	a.mu.RLock()
	all := make([]Given, 0, len(a.given))
	for _, g := range a.given {
		all = append(all, g.Given)
	}
	a.mu.RUnlock()
	slices.SortFunc(all, func(p, q Given) int {
		return cmp.Or(p.Begun.Compare(q.Begun), cmp.Compare(p.ID.String(), q.ID.String()))
	})
	return all
}

// StopTaken ends a share by its taker's word: the taker is not told of it.
func (a *Agent) StopTaken(ctx context.Context, id carnet.ShareID, taker carnet.PartyID) error {
	a.mu.RLock()
	g := a.given[id]
	a.mu.RUnlock()
	if g == nil || g.Taker != taker {
		return carnet.Errorf(carnet.NotFound, "there is no share %s", id)
	}
	return a.StopGiving(ctx, id, string(taker), "the taker stopped it")
}

// StopGiving ends a share at its giver: at once, before it is durable, since an end
// only withholds; a crash before that leaves it to whoever ends it again.
func (a *Agent) StopGiving(ctx context.Context, id carnet.ShareID, by, why string) error {
	a.cease(id)
	a.mu.RLock()
	had := a.given[id]
	a.mu.RUnlock()
	if _, ok := had.state().next(over); !ok {
		return carnet.Errorf(carnet.NotFound, "there is no share %s", id).WithFix("list the shares")
	}
	return a.stopGiving(ctx, []carnet.ShareID{id}, by, func(carnet.ShareID) string { return why })
}

// endAtOnce is how many ends one transaction has.
const endAtOnce = 256

// stopGiving makes the ends of shares that have ceased durable together. Those that
// have ended already stay as they are.
func (a *Agent) stopGiving(ctx context.Context, ids []carnet.ShareID, by string, why func(carnet.ShareID) string) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	var ends []given
	var statements []ledger.Statement
	a.mu.RLock()
	for _, id := range ids {
		if had := a.given[id]; had.End == nil {
			g := *had
			if g.ceased.IsZero() { // it was given after it was to cease
				g.ceased = a.Now()
			}
			g.End = &End{g.ceased.UTC(), by, why(id)}
			ends = append(ends, g)
			statements = append(statements, ledger.Statement{
				Kind: ledger.ShareEnded, Time: g.ceased.UnixNano(), Who: a.Party, Peer: g.Taker, Avatar: g.Avatar, Reason: clip(g.End.Why),
			})
		}
	}
	a.mu.RUnlock()
	if len(ends) == 0 {
		return nil
	}
	err := a.Revocations.End(ctx, func(number carnet.Document) error { return a.keepGiven(ctx, ends, statements, number) })
	if err != nil {
		return err
	}
	takers := make(map[carnet.PartyID]bool)
	for _, g := range ends {
		a.Log.Info("a share has ended", "share", g.ID, "taker", g.Taker, "by", by, "why", g.End.Why)
		takers[g.Taker] = true
	}
	for taker := range takers {
		a.rouse(taker)
	}
	return nil
}

// clip cuts a reason to what a statement holds.
func clip(why string) string { return carnet.Shorten(why, ledger.MaxReason) }

// pause has nothing of shares be signed, or goes on with them.
func (a *Agent) pause(on bool, ids ...carnet.ShareID) {
	a.alter(ids, func(g *given) { g.paused = on })
}

// cease has nothing of shares be signed any more: they are about to end.
func (a *Agent) cease(ids ...carnet.ShareID) {
	now := a.Now()
	a.alter(ids, func(g *given) {
		if g.ceased.IsZero() {
			g.ceased = now
		}
	})
}

// alter changes what is in memory alone of shares that haven't ended.
func (a *Agent) alter(ids []carnet.ShareID, change func(*given)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		g := a.given[id]
		if g == nil || g.End != nil {
			continue
		}
		now := *g
		if change(&now); now.paused == g.paused && now.ceased.Equal(g.ceased) {
			continue
		}
		a.given[id] = &now
		a.changes.Add(1)
		if s := a.sources[g.Taker]; s != nil {
			s.rouse()
		}
	}
}

// Waits reports whether nothing of a share is sent because it isn't known whether
// it still holds.
func (a *Agent) Waits(id carnet.ShareID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	g := a.given[id]
	return g != nil && g.End == nil && g.paused
}

// derivedOf is the stream into which what is derived from a source stream goes, in a
// generation of them. Nothing that could be lost says so: a giver whose store was
// restored from an older copy finds those that the taker has.
func derivedOf(id carnet.ShareID, source carnet.StreamID, generation int) carnet.StreamID {
	name := append([]byte("carnet derived stream"), id[:]...)
	sum := carnet.FingerprintOf(append(append(name, source[:]...), byte(generation)))
	return carnet.StreamID(sum[:])
}

// generation is which of its derived streams are written.
func (g *given) generation() int {
	if g.Again == nil {
		return 0
	}
	return g.Again.Generation
}
