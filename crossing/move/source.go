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
	"carnet/register"
	"carnet/seal"
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

// TakeOffer takes a target's offer of an order: the owner's, about an avatar that is
// here, to a world that may have all of it. Offered again it is answered again.
func (a *Agent) TakeOffer(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, o SignedOrder) (Standing, error) {
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

func (a *Agent) takeOffer(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, o SignedOrder) (State, error) {
	defer a.changing.of(about)()
	l := a.left(x)
	if l.State != None && (l.Avatar != about || l.To != by || l.Order != o.Order) {
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
	order, err := a.checkOrder(by, about, x, o)
	if err != nil {
		return None, err
	}
	if err := a.checkMay(ctx, by, about, order, o.Moving()); err != nil {
		return None, err
	}
	l.AtSource = AtSource{ID: x, Avatar: about, To: by, State: next, SignedOrder: o, Begun: a.Now().UTC(), Until: order.Until}
	if err := a.Items.Leaves(l.leaving(), order.Owner); err != nil {
		return None, err
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
	h, enrolled := a.homeOf(about)
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
	case !enrolled: // whoever asks the register of the home believes no other
		return refuse("is about an avatar whose home isn't registered here")
	case order.Registrar != h.Registrar || terms.Home != h.Home:
		return refuse("is about another home")
	case order.Owner != h.Owner:
		return refuse("isn't by the owner")
	}
	return order, nil
}

// checkMay refuses what may not move to the target, or not any more.
func (a *Agent) checkMay(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, order identity.Order, terms identity.MoveTerms) error {
	if !a.Now().Before(order.Until) {
		return carnet.Errorf(carnet.Forbidden, "the order was good until %s", order.Until.Format(time.RFC3339)).WithFix("its owner orders it anew")
	}
	if terms.Alone { // an item says nothing that was measured
		return nil
	}
	peer, err := a.Peers.Named(by)
	if err != nil {
		return err
	}
	if peer.Clearance.Purposes == "" {
		return carnet.Errorf(carnet.Forbidden, "nothing may be given to %s: its peering names no purpose", by).WithFix("agree on new terms: carnet peer invite")
	}
	if err := byView(terms.Redact, terms.View); err != nil {
		return err
	}
	if terms.Redact != nil {
		return redactable(by, *terms.Redact, peer.Clearance)
	}
	ceiling, err := a.World.MovedCeiling(ctx, about)
	if err != nil {
		return err
	}
	if over := ceiling.Exceeds(peer.Clearance); over != "" {
		return carnet.Errorf(carnet.Forbidden, "the history may not go to %s: %s", by, over).
			WithFix("order the move with --redact, which leaves that behind for good; move it to a world that is cleared for it, or share what may be shared")
	}
	return nil
}

// stillMay refuses to list what may not move to the target any more.
func (a *Agent) stillMay(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) error {
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

// Stretches lists stretches for the target, those of a stream from a batch on.
func (a *Agent) Stretches(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, stream carnet.StreamID, from uint64) ([]avatar.MovedStretch, error) {
	moves, err := a.historyOf(by, about, x)
	if err != nil {
		return nil, err
	}
	if err := a.stillMay(ctx, by, about, x); err != nil {
		return nil, err
	}
	return moves.MovedStretches(ctx, about, stream, from, pageOfStretches)
}

// Stretch gives the target one stretch, with what proves it: its bytes as they are
// here, since the target looks at them; or, looked, once it is seen that they are whole.
func (a *Agent) Stretch(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, m avatar.MovedStretch, looked bool) (body, proof []byte, err error) {
	moves, err := a.historyOf(by, about, x)
	if err != nil {
		return nil, nil, err
	}
	bytes := moves.StoredBytes
	if looked {
		bytes = moves.StretchBytes
	}
	if body, err = bytes(ctx, about, m); err != nil {
		return nil, nil, err
	}
	proof, err = moves.ProofOf(ctx, about, m)
	return body, proof, err
}

// Freeze fixes what moves, for the target, and gives the release with the keys. Asked
// again it gives the same release, and the keys sealed anew.
func (a *Agent) Freeze(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, announcement []byte) (Freezing, error) {
	peer, err := a.Peers.Named(by)
	if err != nil {
		return Freezing{}, err
	}
	reception, err := seal.ParseReception(announcement, peer.Key, a.Now())
	if err != nil {
		return Freezing{}, err
	}
	if reception.Reader != peer.OwnName {
		return Freezing{}, carnet.Errorf(carnet.Forbidden, "%s announces a reception key of %s", by, reception.Reader)
	}
	l, m, err := a.freeze(ctx, by, about, x)
	if err != nil {
		return Freezing{}, err
	}
	parsed, err := avatar.ParseManifest(m)
	if err != nil {
		return Freezing{}, err
	}
	moves, err := a.leaver(l.SignedOrder)
	if err != nil {
		return Freezing{}, err
	}
	bags, err := moves.KeyBags(ctx, parsed, avatar.KeyTerms{
		Granter: a.Party, Signer: a.Key, Reception: reception, Clearance: peer.Clearance, Purpose: peer.Clearance.Purposes.Words()[0],
	})
	return Freezing{l.Release, len(m), bags}, err
}

func (a *Agent) freeze(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) (atSource, []byte, error) {
	defer a.changing.of(about)()
	l, err := a.readable(by, about, x)
	if err != nil {
		return l, nil, err
	}
	next, ok := Source(l.State, Freeze)
	if !ok && !l.gives() {
		return l, nil, carnet.Errorf(carnet.Conflict, "the crossing %s is %s here", x, l.State)
	}
	if l.State != Offered {
		m, err := a.manifest(ctx, x)
		return l, m, err
	}
	order, err := identity.OpenOrder(l.Order)
	if err != nil {
		return l, nil, err
	}
	if err := a.free(l.AtSource); err != nil {
		return l, nil, err
	}
	if err := a.Items.Leaves(l.leaving(), order.Owner); err != nil {
		return l, nil, err
	}
	incarnations := make([]uint64, len(order.Homes))
	for i, home := range order.Homes {
		if incarnations[i], err = a.claim(ctx, order.Registrar, home); err != nil {
			return l, nil, err
		}
	}
	made, err := a.fix(ctx, l, order)
	if err != nil {
		return l, nil, err
	}
	m, err := made.Marshal()
	if err != nil {
		return l, nil, err
	}
	l.State, l.Manifest, l.Amount = next, carnet.FingerprintOf(m), amountOf(made)
	l.Release, err = identity.SignRelease(a.Key, identity.Release{
		Crossing: x, Source: a.did, Order: carnet.FingerprintOf([]byte(l.Order)), Manifest: l.Manifest, Incarnations: incarnations,
	})
	if err != nil {
		return l, nil, err
	}
	for i := range made.Streams {
		s := &made.Streams[i]
		if !s.Here {
			continue // whoever sent it was told when it left that world
		}
		l.Heads = append(l.Heads, carnet.Moved{Stream: s.Stream, Order: l.Order, Terms: l.Terms, NextBatch: s.NextBatch, NextFirst: s.NextFirst})
	}
	return l, m, a.keepSource(ctx, l, a.manifestDocument(x, m))
}

// fix has what moves keep still, and says exactly what it is.
func (a *Agent) fix(ctx context.Context, l atSource, order identity.Order) (m *avatar.Manifest, err error) {
	if l.alone() {
		m = &avatar.Manifest{
			Version: 1, Crossing: l.ID, Avatar: l.Avatar, Created: l.Begun,
			Streams: []avatar.MovedStream{}, Stretches: []avatar.MovedStretch{}, Keys: []avatar.MovedKey{}, State: []avatar.MovedValue{},
		}
	} else if err = a.World.Freeze(ctx, l.Avatar, l.ID); err == nil {
		var moves avatar.Leaver
		if moves, err = a.leaver(l.SignedOrder); err == nil {
			m, err = moves.Manifest(ctx, l.Avatar, l.ID, a.Vouch)
		}
	}
	if err != nil {
		return nil, err
	}
	m.Items, err = a.Items.Freeze(ctx, l.leaving(), order.Owner)
	return m, err
}

// free refuses to freeze an avatar that keeps still for another crossing, or for which
// an item is on its way: it has it soon, or not at all.
func (a *Agent) free(l AtSource) error {
	if l.alone() {
		return a.expects(l.Avatar)
	}
	if other, frozen := a.frozenFor(l.Avatar); frozen {
		a.askNow(other) // it may be over, and not known here yet
		return carnet.Errorf(carnet.Unavailable, "the avatar keeps still for crossing %s, which is to be decided first", other)
	}
	return a.expects(l.Avatar)
}

// expects refuses an avatar for which an item is on its way.
func (a *Agent) expects(id carnet.AvatarID) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.To == id && t.State == Prepared && t.alone() {
			return carnet.Errorf(carnet.Unavailable, "an item is on its way to the avatar by the crossing %s", t.ID)
		}
	}
	return nil
}

// frozenFor finds the crossing for which an avatar keeps still.
func (a *Agent) frozenFor(id carnet.AvatarID) (x carnet.CrossingID, frozen bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, l := range a.sources {
		if l.Avatar == id && l.State == Frozen && !l.alone() {
			return l.ID, true
		}
	}
	return x, false
}

// askNow has the registrar asked of a move from here without more waiting.
func (a *Agent) askNow(x carnet.CrossingID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.sources[x]; is != nil {
		again := *is
		again.notTill = time.Time{}
		a.sources[x] = &again
		a.rouse()
	}
}

// saidAll has the key of an avatar destroyed that was kept to ask its home of before.
func (a *Agent) saidAll(id carnet.AvatarID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for x, l := range a.sources {
		if l.Avatar == id && l.State == Gone && !l.Silent {
			again := *l
			again.notTill = time.Time{}
			a.sources[x] = &again
		}
	}
	a.rouse()
}

// manifestDocument is the document of a manifest, which is stored once.
func (a *Agent) manifestDocument(x carnet.CrossingID, m []byte) avatar.Kept {
	return avatar.Kept{Kind: kindManifest, ID: x.String(), Version: 1, Body: m}
}

// manifest reads the manifest of a move.
func (a *Agent) manifest(ctx context.Context, x carnet.CrossingID) (m []byte, err error) {
	_, err = a.World.OneKept(ctx, kindManifest, x.String(), &m)
	return m, err
}

// ManifestFor gives the target the manifest that was released.
func (a *Agent) ManifestFor(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) ([]byte, error) {
	l, err := a.readable(by, about, x)
	if err != nil {
		return nil, err
	}
	if l.State != Frozen && !l.gives() {
		return nil, carnet.Errorf(carnet.Conflict, "the crossing %s has no manifest yet", x).WithFix("freeze it first")
	}
	return a.manifest(ctx, x)
}

// Hear takes the registrar's decision from the target. A source that doesn't know
// of the move, since its store was restored from an older copy, is told all of it.
func (a *Agent) Hear(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID, d Decided) (Left, error) {
	order, err := a.checkOrder(by, about, x, d.SignedOrder)
	if err != nil {
		return Left{}, err
	}
	l := a.left(x)
	switch {
	case l.State == None:
		l.AtSource = AtSource{ID: x, Avatar: about, To: by, SignedOrder: d.SignedOrder, Begun: a.Now().UTC(), Until: order.Until}
	case l.Avatar != about || l.To != by && l.To != Elsewhere || l.Order != d.Order && l.Order != "": // the register told of it first
		return Left{}, carnet.Errorf(carnet.Conflict, "the crossing %s is another one", x)
	}
	decision, err := identity.OpenDecision(d.Decision)
	if err != nil {
		return Left{}, err
	}
	if decision.Registrar != order.Registrar || decision.Crossing != x {
		return Left{}, carnet.Errorf(carnet.Forbidden, "the decision isn't the registrar's about this crossing")
	}
	var heads []carnet.Moved
	if l.Release == "" { // this store is an older copy
		if heads, err = a.headsOf(ctx, about, d); err != nil {
			return Left{}, err
		}
	}
	if err := a.decidedAtSource(ctx, l, order, decision, d.Decision); err != nil {
		return Left{}, err
	}
	if err := a.heard(ctx, x, heads); err != nil {
		return Left{}, err
	}
	if err := a.goOnAtSource(ctx, x); err != nil {
		return Left{}, err
	}
	l = a.left(x)
	return Left{l.State, l.Departure}, nil
}

// headsOf is what the things agents of an avatar are told of a move that this world
// doesn't know of any more: by the target's word, of the streams that were received here.
func (a *Agent) headsOf(ctx context.Context, about carnet.AvatarID, d Decided) (heads []carnet.Moved, err error) {
	streams, err := a.World.MovedStreams(ctx, about)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, nil // it isn't here any more, either
	} else if err != nil {
		return nil, err
	}
	for _, h := range d.Streams {
		if slices.ContainsFunc(streams, func(s avatar.MovedStream) bool { return s.Stream == h.Stream && s.Here }) {
			heads = append(heads, carnet.Moved{Stream: h.Stream, Order: d.Order, Terms: d.Terms, NextBatch: h.NextBatch, NextFirst: h.NextFirst})
		}
	}
	return heads, nil
}

// heard notes that the target has the avatar, and knows it: what is left here is no
// longer needed. heads are what things agents are told if nothing is known of that.
func (a *Agent) heard(ctx context.Context, x carnet.CrossingID, heads []carnet.Moved) error {
	defer a.changing.of(a.left(x).Avatar)()
	l := a.left(x)
	if l.State != Gone || l.Heard {
		return nil
	}
	l.Heard = true
	late := l.Heads == nil && l.Release == ""
	if late {
		for _, h := range heads {
			h.Decision = l.Decision
			l.Heads = append(l.Heads, h)
		}
	}
	if err := a.keepSource(ctx, l); err != nil {
		return err
	}
	if late {
		a.Moved(l.Heads)
	}
	return nil
}

// decidedAtSource makes a decision durable. What it was read from may be old.
func (a *Agent) decidedAtSource(ctx context.Context, was atSource, order identity.Order, d identity.Decision, token string) error {
	defer a.changing.of(was.Avatar)()
	if l := a.left(was.ID); l.State != None {
		was = l
	}
	outcome := d.Of(carnet.FingerprintOf([]byte(was.Order)))
	if outcome == identity.Commit {
		moved := func(home carnet.HomeID) bool {
			return slices.ContainsFunc(d.Homes, func(h identity.HomeAt) bool { return h.Home == home && h.World == order.Target })
		}
		if slices.ContainsFunc(order.Homes, func(home carnet.HomeID) bool { return !moved(home) }) || was.Manifest != (carnet.Fingerprint{}) && was.Manifest != *d.Manifest {
			return carnet.Errorf(carnet.Tampered, "the registrar's commit of crossing %s isn't of what was ordered and released", was.ID)
		}
		was.Manifest = *d.Manifest
	}
	next, ok := Source(was.State, event(outcome))
	if !ok {
		return carnet.Errorf(carnet.Conflict, "the crossing %s was %s here, and is now said to be decided otherwise", was.ID, was.State)
	}
	if next == was.State {
		return nil
	}
	switch next {
	case Gone:
		if err := a.send(ctx, was, d, token); err != nil {
			return err
		}
		for i := range was.Heads {
			was.Heads[i].Decision = token
		}
	case Kept:
		if err := a.thaw(ctx, was); err != nil {
			return err
		}
		was.Why = "the registrar decided abort"
	}
	frozen := was.State == Frozen
	was.State, was.Decision, was.Ended = next, token, a.Now().UTC()
	if err := a.keepSource(ctx, was); err != nil {
		return err
	}
	a.Log.Info("a move was decided", "crossing", was.ID, "avatar", was.Avatar, "to", was.To, "outcome", outcome)
	if next == Gone {
		a.Moved(was.Heads)
		return nil
	}
	// What kept still objected to no recovery meanwhile: it claims anew before it is
	// frozen again, and now, if the registrar answers. If it didn't for this crossing, it
	// may for another, whose release a claim would void.
	if h, enrolled := a.homeOf(was.Avatar); enrolled && frozen && !was.alone() {
		a.mu.Lock()
		delete(a.claimed, h.Home)
		a.mu.Unlock()
		a.again(h)
	}
	return nil
}

// send notes that what moved has gone: the avatar, unless the item moved alone, and
// then the items, whose retirement is of an avatar that is no more.
func (a *Agent) send(ctx context.Context, l atSource, d identity.Decision, token string) error {
	if !l.alone() {
		if err := a.departNow(ctx, l, token); err != nil {
			return err
		}
	}
	return a.Items.Depart(ctx, l.leaving(), l.To, item.Committed{Order: l.Order, Terms: l.Terms, Decision: token, Homes: d.Homes})
}

// thaw has what kept still go on as before.
func (a *Agent) thaw(ctx context.Context, l atSource) error {
	if !l.alone() {
		if err := a.World.Thaw(ctx, l.Avatar, l.ID); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	return a.Items.Thaw(ctx, l.ID)
}

// keepFor is how long what has moved is kept here, where nobody can read it, for a
// target that doesn't say that it has it.
const keepFor = 7 * 24 * time.Hour

// goOnAtSource does what is due of a move at its source.
func (a *Agent) goOnAtSource(ctx context.Context, x carnet.CrossingID) error {
	l := a.left(x)
	var err error
	switch {
	case l.State == Frozen || l.State == Offered: // the target may have had it aborted
		err = a.askAtSource(ctx, l)
	case l.State == Gone && l.Departure == "" && (l.Heard || !a.Now().Before(l.Ended.Add(keepFor))):
		err = a.depart(ctx, l)
	case l.State == Gone && l.Departure != "":
		err = a.silence(ctx, l)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.sources[x]; is != nil {
		again := *is
		if again.failed++; err == nil && again.State != l.State {
			again.failed = 0
		}
		again.notTill = a.Now().Add(pause(again.failed))
		if again.State == Offered {
			again.notTill = a.Now().Add(longPause)
		}
		a.sources[x] = &again
	}
	if err != nil {
		a.Log.Warn("a move waits", "crossing", x, "avatar", l.Avatar, "to", l.To, "state", l.State, "err", err)
	}
	return err
}

// askAtSource asks the registrar what was decided. An order whose time is over is
// decided by asking.
func (a *Agent) askAtSource(ctx context.Context, l atSource) error {
	d, err := a.ask(ctx, l.ID, register.Petition{Want: register.Ask, Order: l.Order})
	if err != nil || d == nil {
		return err
	}
	order, err := identity.OpenOrder(l.Order)
	if err != nil {
		return err
	}
	return a.decidedAtSource(ctx, l, order, d.Decision, d.Reply.Decision)
}

// depart deletes what is left of an avatar that has moved, and signs for it.
func (a *Agent) depart(ctx context.Context, l atSource) error {
	since, err := a.cleared(ctx, l)
	if err != nil {
		return err
	}
	departure, err := identity.SignDeparture(a.Key, identity.Departure{
		Crossing: l.ID, Source: a.did, Manifest: l.Manifest, Unreadable: since, Unrecoverable: since.Add(a.Unrecoverable), Left: l.Amount.LeftMeasurements,
	})
	if err != nil {
		return err
	}
	done := a.changing.of(l.Avatar)
	l = a.left(l.ID)
	l.Departure = departure
	err = a.keepSource(ctx, l)
	done()
	if err != nil {
		return err
	}
	return a.silence(ctx, l)
}

// silence destroys the key of an avatar that is cleared, and notes it. An avatar that came
// by a move itself asks its home of before for the departure with that key: it is kept
// until that one has signed, but not for ever.
func (a *Agent) silence(ctx context.Context, l atSource) error {
	if a.tellsStill(l.Avatar) && a.Now().Before(l.Ended.Add(keepFor)) {
		return nil
	}
	if !l.alone() {
		if err := a.World.Silence(ctx, l.Avatar); err != nil {
			return err
		}
	}
	defer a.changing.of(l.Avatar)()
	l = a.left(l.ID)
	l.Silent = true
	return a.keepSource(ctx, l)
}

// cleared deletes what is left of what has moved, and says since when nothing is.
func (a *Agent) cleared(ctx context.Context, l atSource) (time.Time, error) {
	if l.alone() { // its chain went in the transaction in which it did
		return l.Ended.UTC().Truncate(time.Second), nil
	}
	if err := a.World.Clear(ctx, l.Avatar); err != nil {
		return time.Time{}, err
	}
	gone, err := a.World.Departed(l.Avatar)
	if err != nil {
		return time.Time{}, err
	}
	if gone.Cleared.IsZero() {
		return time.Time{}, carnet.Errorf(carnet.Unavailable, "what the avatar left behind is still being deleted")
	}
	return gone.Cleared.UTC().Truncate(time.Second), nil
}

// tellsStill reports whether the move by which an avatar came here waits for its source.
func (a *Agent) tellsStill(id carnet.AvatarID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.To == id && t.State == Home && t.Departure == "" && !t.recovers() {
			return true
		}
	}
	return false
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
