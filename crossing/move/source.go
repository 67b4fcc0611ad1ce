package move

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
)

// AtSource is a move at its source.
type AtSource struct {
	ID     carnet.CrossingID `json:"id"`
	Avatar carnet.AvatarID   `json:"avatar"`
	To     carnet.PartyID    `json:"to"` // the target, as this world calls it
	State  State             `json:"state"`
	SignedOrder
	Begun time.Time `json:"begun"`
	Until time.Time `json:"until"` // of the order

	Manifest  carnet.Fingerprint `json:"manifest,omitzero"`
	Release   string             `json:"release,omitempty"`
	Decision  string             `json:"decision,omitempty"`
	Heads     []carnet.Moved     `json:"heads,omitempty"` // what things agents are told
	Heard     bool               `json:"heard,omitempty"` // the target has said that it has the avatar
	Departure string             `json:"departure,omitempty"`
	Silent    bool               `json:"silent,omitempty"` // the avatar's key is destroyed, too
	Ended     time.Time          `json:"ended,omitzero"`
	Why       string             `json:"why,omitempty"` // it was kept
	Amount    Amount             `json:"amount,omitzero"`
	Steps     []Step             `json:"steps,omitempty"`
	Backup    *Backup            `json:"backup,omitempty"` // of the avatar, when it was offered
}

// alone reports whether an item moves, and not the avatar.
func (o SignedOrder) alone() bool { return o.Moving().Alone }

// Moving is what the order's terms say, which were held against the order when it
// came; the zero MoveTerms without an order.
func (o SignedOrder) Moving() (t identity.MoveTerms) {
	_ = json.Unmarshal(o.Terms, &t)
	return t
}

// leaving are the items of a move at its source.
func (l *AtSource) leaving() item.Leaving {
	t := l.Moving()
	return item.Leaving{Crossing: l.ID, Avatar: l.Avatar, Items: t.Items, Retired: t.Retired, Alone: t.Alone}
}

type atSource struct {
	AtSource
	version uint64
	notTill time.Time
	failed  int // in a row
}

// open reports whether there is something to do without being asked.
func (l *atSource) open() bool {
	return l.State == Frozen || l.State == Offered || l.State == Gone && !l.Silent
}

// gives reports whether a target is still given what it asks for: one that has the
// avatar says so, and may have lost what it had before.
func (l *atSource) gives() bool { return l.State == Gone && !l.Heard && l.Release != "" }

func (a *Agent) left(id carnet.CrossingID) atSource {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if l := a.sources[id]; l != nil {
		return *l
	}
	return atSource{}
}

// keepSource stores a move's next document and takes it up. The caller has the
// avatar's turn.
func (a *Agent) keepSource(ctx context.Context, l atSource, more ...avatar.Kept) error {
	l.version++
	l.Steps = stepped(l.Steps, l.State, a.Now())
	kept := append(more, avatar.Kept{Kind: kindSource, ID: l.ID.String(), Version: l.version, Body: l.AtSource})
	if err := a.World.Keep(ctx, kept, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sources[l.ID] = &l
	return nil
}

// Asking is a target that asks for what moves to it, as its call is proved.
type Asking struct {
	Party carnet.PartyID
	// Most is the most that may move to it: the least of what it is cleared for, the
	// peering, the owner's mandate and the grant.
	Most carnet.Clearance
}

// TakeOffer takes a target's offer of an order: the owner's, about an avatar that is
// here, to a world that may have all of it. Offered again it is answered again.
func (a *Agent) TakeOffer(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID, o SignedOrder) (Standing, error) {
	state, err := a.takeOffer(ctx, by, about, x, o)
	if err != nil || o.alone() {
		return Standing{state, []avatar.MovedStream{}}, err
	}
	if err := a.World.Pack(ctx); err != nil {
		return Standing{}, err
	}
	from, err := a.leaver(o)
	if err != nil {
		return Standing{}, err
	}
	streams, err := from.MovedStreams(ctx, about)
	return Standing{state, streams}, err
}

func (a *Agent) takeOffer(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID, o SignedOrder) (State, error) {
	defer a.changing.of(about)()
	l := a.left(x)
	if l.State != None && (l.Avatar != about || l.To != by.Party || l.Order != o.Order) {
		return None, carnet.Errorf(carnet.Conflict, "the crossing %s is another one", x)
	}
	if l.gives() {
		return l.State, nil
	}
	next, ok := Source(l.State, Offer)
	if !ok {
		return None, carnet.Errorf(carnet.Conflict, "the crossing %s is over here: %s", x, cmp.Or(l.Why, string(l.State)))
	}
	if l.State != None {
		return next, nil
	}
	order, err := a.checkOrder(by.Party, about, x, o)
	if err != nil {
		return None, err
	}
	if !o.alone() {
		if err := a.takesPolicy(about, o.Moving()); err != nil {
			return None, err
		}
	}
	if err := a.checkMay(ctx, by, about, order, o.Moving()); err != nil {
		return None, err
	}
	l.AtSource = AtSource{ID: x, Avatar: about, To: by.Party, State: next, SignedOrder: o, Begun: a.Now().UTC(), Until: order.Until}
	if err := a.Items.Leaves(l.leaving(), order.Owner); err != nil {
		return None, err
	}
	if !l.alone() {
		if l.Backup, err = a.backedUp(ctx, about); err != nil {
			return None, err
		}
		if err := a.noteHomeOf(ctx, about); err != nil {
			return None, err
		}
	}
	return next, a.keepSource(ctx, l)
}

// checkOrder refuses an order that isn't the owner's for this.
func (a *Agent) checkOrder(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, o SignedOrder) (identity.Order, error) {
	refuse := func(format string, args ...any) (identity.Order, error) {
		return identity.Order{}, carnet.Errorf(carnet.Forbidden, "the order "+format, args...)
	}
	order, err := identity.OpenOrder(o.Order)
	if err != nil {
		return order, err
	}
	terms, err := identity.ParseMoveTerms(o.Terms, order)
	if err != nil {
		return order, err
	}
	peer, err := a.Peers.Named(by)
	if err != nil {
		return order, err
	}
	h, unknown := a.HomeOf(about) // this store may be from before it was registered
	switch {
	case order.Crossing != x:
		return refuse("is for another crossing")
	case order.Source != a.did || order.Target != peer.DID():
		return refuse("is between other worlds")
	case terms.Avatar != about:
		return refuse("is about another avatar")
	case terms.Alone: // its item's home and owner are checked where it leaves
		_, err := a.registrarOf(order.Registrar)
		return order, err
	case unknown != nil && !final(unknown):
		return order, unknown
	case unknown != nil: // whoever asks the register of the home believes no other
		return refuse("is about an avatar whose home isn't registered here: %v", unknown)
	case order.Registrar != h.Registrar || terms.Home != h.Home:
		return refuse("is about another home")
	case order.Owner != h.Owner:
		return refuse("isn't by the owner")
	}
	return order, nil
}

// checkMay refuses what may not move to the target, or not any more.
func (a *Agent) checkMay(ctx context.Context, by Asking, about carnet.AvatarID, order identity.Order, terms identity.MoveTerms) error {
	if !a.Now().Before(order.Until) {
		return carnet.Errorf(carnet.Forbidden, "the order was good until %s", order.Until.Format(time.RFC3339)).WithFix("its owner orders it anew")
	}
	peer, err := a.Peers.Named(by.Party)
	if err != nil {
		return err
	}
	if err := a.bounded(ctx, peer, about, terms); err != nil {
		return err
	}
	if terms.Alone { // an item says nothing that was measured
		return nil
	}
	if by.Most.Purposes == "" {
		return carnet.Errorf(carnet.Forbidden, "nothing may be given to %s: its peering names no purpose", by.Party).WithFix("agree on new terms: carnet peer invite")
	}
	if err := byView(terms.Redact, terms.View); err != nil {
		return err
	}
	v, err := a.World.Avatar(about)
	if err != nil {
		return err
	}
	if err := wholly(terms.View, v.Properties); err != nil {
		return err
	}
	if terms.Redact != nil {
		return redactable(by.Party, *terms.Redact, by.Most)
	}
	ceiling, err := a.World.MovedCeiling(ctx, about)
	if err != nil {
		return err
	}
	if over := ceiling.Exceeds(by.Most); over != "" {
		return carnet.Errorf(carnet.Forbidden, "the history may not go to %s, by its clearance, the peering, the owner's mandate or the grant: %s", by.Party, over).
			WithFix("order the move with --redact, which leaves that behind for good; give a grant and a mandate that let it flow; move it to a world that is cleared for it, or share what may be shared")
	}
	return nil
}

// stillMay refuses to list what may not move to the target any more.
func (a *Agent) stillMay(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID) error {
	l := a.left(x)
	if l.State != Offered {
		return nil
	}
	order, err := identity.OpenOrder(l.Order)
	if err != nil {
		return err
	}
	return a.checkMay(ctx, by, about, order, l.Moving())
}

// readable returns a move whose avatar the target may fetch.
func (a *Agent) readable(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) (atSource, error) {
	l := a.left(x)
	if l.State == None || l.To != by || l.Avatar != about {
		return l, carnet.Errorf(carnet.NotFound, "there is no crossing %s", x).WithFix("offer its order first")
	}
	if l.State.Over() && !l.gives() {
		return l, carnet.Errorf(carnet.Conflict, "the crossing %s is over here: %s", x, cmp.Or(l.Why, string(l.State)))
	}
	if l.State == Offered && !a.Now().Before(l.Until) {
		return l, carnet.Errorf(carnet.Conflict, "the time of the crossing %s is over", x).WithFix("its owner orders it anew")
	}
	return l, nil
}

// historyOf returns what moves, and refuses a move whose avatar stays: only its item may
// be fetched.
func (a *Agent) historyOf(by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) (avatar.Leaver, error) {
	l, err := a.readable(by, about, x)
	if err != nil {
		return nil, err
	}
	if l.alone() {
		return nil, carnet.Errorf(carnet.Forbidden, "the crossing %s is of an item, and the avatar stays", x)
	}
	return a.leaver(l.SignedOrder)
}

// pageOfStretches is how many stretches are listed at once.
const pageOfStretches = 512

// Stretches lists stretches for the target, those from a place on.
func (a *Agent) Stretches(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID, from avatar.Place) ([]avatar.MovedStretch, error) {
	moves, err := a.historyOf(by.Party, about, x)
	if err != nil {
		return nil, err
	}
	if err := a.stillMay(ctx, by, about, x); err != nil {
		return nil, err
	}
	return moves.MovedStretches(ctx, about, from, pageOfStretches)
}

// Stretch gives the target one stretch, with what proves it: its bytes as they are
// here, since the target looks at them; or, looked, once it is seen that they are whole.
func (a *Agent) Stretch(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, m avatar.MovedStretch, looked bool) (body, proof []byte, err error) {
	moves, err := a.historyOf(by, about, x)
	if err != nil {
		return nil, nil, err
	}
	p, err := give(ctx, moves, about, m, looked)
	return p.Body, p.Proof, err
}

func give(ctx context.Context, moves avatar.Leaver, about carnet.AvatarID, m avatar.MovedStretch, looked bool) (p Piece, err error) {
	bytes := moves.StoredBytes
	if looked {
		bytes = moves.StretchBytes
	}
	if p.Body, err = bytes(ctx, about, m); err != nil {
		return Piece{}, err
	}
	p.Proof, err = moves.ProofOf(ctx, about, m)
	return p, err
}

// restTime is how long what a target gets beside the first of several stretches is waited
// for.
const restTime = 5 * time.Second

// Several gives the target the first of some stretches, in their order, each as Stretch
// does: at least one, and so many as fit into an answer. It ends before one that can't be
// given now: asked for again, that is the first, and what holds it up is told.
func (a *Agent) Several(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, some []avatar.MovedStretch) (given []Piece, err error) {
	if len(some) == 0 || len(some) > MaxSeveral {
		return nil, carnet.Errorf(carnet.Malformed, "%d stretches are asked for, one to %d are given", len(some), MaxSeveral)
	}
	rest, cancel := context.WithTimeout(ctx, restTime)
	defer cancel()
	size := 0
	for i, m := range some {
		within := rest
		if i == 0 {
			within = ctx
		}
		moves, err := a.historyOf(by, about, x) // it may be over by now
		var p Piece
		if err == nil {
			if p, err = give(within, moves, about, m, false); carnet.CodeOf(err) == carnet.NotFound {
				p, err = Piece{}, nil
			}
		}
		switch {
		case err != nil && i == 0:
			return nil, err
		case err != nil:
			return given, nil
		}
		if size += len(p.Body) + len(p.Proof); i > 0 && size > answerBytes {
			break
		}
		given = append(given, p)
	}
	return given, nil
}

// Cancel calls a move off, at either side, as far as that is still possible here.
func (a *Agent) Cancel(ctx context.Context, x carnet.CrossingID, by string) error {
	a.mu.RLock()
	_, comes := a.targets[x]
	a.mu.RUnlock()
	if comes {
		return a.cancelAtTarget(ctx, x, by)
	}
	defer a.changing.of(a.left(x).Avatar)()
	l := a.left(x)
	next, ok := Source(l.State, Cancel)
	switch {
	case l.State == None:
		return carnet.Errorf(carnet.NotFound, "there is no crossing %s", x).WithFix("list them")
	case !ok:
		return tooLate(x, l.State)
	case next == l.State:
		return nil
	}
	if err := a.thaw(ctx, l); err != nil {
		return err
	}
	l.State, l.Why, l.Ended = next, "called off by "+by, a.Now().UTC()
	return a.keepSource(ctx, l)
}

func tooLate(x carnet.CrossingID, s State) error {
	return carnet.Errorf(carnet.Conflict, "the crossing %s is %s: only the registrar can still decide it", x, s).
		WithFix("wait for the decision; after the order's time the registrar aborts it")
}

// AtSource lists the moves away from here, oldest first.
func (a *Agent) AtSource() []AtSource {
	a.mu.RLock()
	all := make([]AtSource, 0, len(a.sources))
	for _, l := range a.sources {
		all = append(all, l.AtSource)
	}
	a.mu.RUnlock()
	slices.SortFunc(all, func(p, q AtSource) int {
		return cmp.Or(p.Begun.Compare(q.Begun), cmp.Compare(p.ID.String(), q.ID.String()))
	})
	return all
}
