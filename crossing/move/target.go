package move

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/mandate"
	"carnet/register"
	"carnet/seal"
)

// AtTarget is a move at its target.
type AtTarget struct {
	ID     carnet.CrossingID `json:"id"`
	From   carnet.PartyID    `json:"from"`   // the source, as this world calls it
	Avatar carnet.AvatarID   `json:"avatar"` // there
	To     carnet.AvatarID   `json:"to"`     // here
	State  State             `json:"state"`
	Home   Registered        `json:"home"`
	// Request is what the owner is asked to order, Asked the request for the mandate
	// in it.
	Request json.RawMessage `json:"request"`
	Asked   string          `json:"asked"`
	By      string          `json:"by"`
	SignedOrder
	Begun time.Time `json:"begun"`
	Until time.Time `json:"until,omitzero"` // of the order

	Manifest   carnet.Fingerprint `json:"manifest,omitzero"`
	Release    string             `json:"release,omitempty"`
	Acceptance string             `json:"acceptance,omitempty"`
	Decision   string             `json:"decision,omitempty"`
	Departure  string             `json:"departure,omitempty"`
	Ended      time.Time          `json:"ended,omitzero"`
	Why        string             `json:"why,omitempty"` // it was called off, or dropped
	// Looks are what the order's items look like here, since they were checked.
	Looks []item.Looks `json:"looks,omitempty"`
	// Surveyed: since it is home, every batch has been opened; Unfit counts those that
	// can't be used.
	Surveyed bool   `json:"surveyed,omitempty"`
	Unfit    int    `json:"unfit,omitempty"`
	Amount   Amount `json:"amount,omitzero"`
	Steps    []Step `json:"steps,omitempty"`
	// Erased: it was home here, and is erased.
	Erased bool `json:"erased,omitempty"`

	// Of a recovery: the passport's word, its source's farewell, and the incarnation of
	// the home when the owner was asked.
	Passport    string `json:"passport,omitempty"`
	Farewell    string `json:"farewell,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// Progress is how far the copying has come since this process began.
type Progress struct {
	Stretches int       `json:"stretches"` // here
	Of        int       `json:"of"`        // as far as they are listed
	Bytes     int64     `json:"bytes"`
	OfBytes   int64     `json:"of_bytes"`
	Since     time.Time `json:"since,omitzero"`
	Fetched   int64     `json:"fetched"`         // bytes, since then
	Waits     string    `json:"waits,omitempty"` // for what
	// SourceUntil is until when the source of a recovery may still show itself.
	SourceUntil time.Time `json:"source_until,omitzero"`
}

type atTarget struct {
	AtTarget
	version  uint64
	notTill  time.Time
	failed   int // in a row
	progress Progress
}

// open reports whether there is something to do without being asked.
func (t *atTarget) open() bool {
	return t.State == Copying || t.State == Leaving || t.State == Prepared || t.State == Home && !t.Erased && (t.Departure == "" || !t.Surveyed)
}

// orderedWithin is how long a move waits for its order.
const orderedWithin = 7 * 24 * time.Hour

// forgotten reports whether a move has waited long enough for its order.
func (t *atTarget) forgotten(now time.Time) bool {
	return t.State == Asked && !now.Before(t.Begun.Add(orderedWithin))
}

func (t *atTarget) visit() Visit { return Visit{t.From, t.ID, t.To, t.Avatar} }

func (a *Agent) came(id carnet.CrossingID) atTarget {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if t := a.targets[id]; t != nil {
		return *t
	}
	return atTarget{}
}

// keepTarget stores a move's next document and takes it up. The caller has the
// avatar's turn.
func (a *Agent) keepTarget(ctx context.Context, t atTarget, more ...avatar.Kept) error {
	t.version++
	t.Steps = stepped(t.Steps, t.State, a.Now())
	kept := append(more, avatar.Kept{Kind: kindTarget, ID: t.ID.String(), Version: t.version, Body: t.AtTarget})
	if err := a.World.Keep(ctx, kept, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.targets[t.ID] = &t
	a.rouse()
	return nil
}

// Wanted is the avatar of another world that is to come here, as that world
// describes it.
type Wanted struct {
	From       carnet.PartyID // as this world calls it
	Home       Registered
	Title      string
	Ceiling    carnet.Label    // of all that would come
	Properties []string        // what it has
	View       json.RawMessage // of what its things send from then on; nil: as now
	Text       string          // for the owner, in this world's words

	Has   []Possession    // its items
	Along []carnet.ItemID // those that come with it
	End   []carnet.ItemID // those that are retired, since they don't
	// Alone: the one item that it has comes to an avatar that is here, and Home is the
	// item's.
	Alone bool
	To    carnet.AvatarID
}

// Possession is an item of an avatar, as its world describes it.
type Possession struct {
	Credential string
	Owner      string // the key that is registered for its home
}

// Ask makes room for an avatar of another world, and says what its owner is asked to
// order.
func (a *Agent) Ask(ctx context.Context, by string, w Wanted) (AtTarget, error) {
	peer, err := a.Peers.Named(w.From)
	if err != nil {
		return AtTarget{}, err
	}
	if _, err := a.registrarOf(w.Home.Registrar); err != nil {
		return AtTarget{}, err
	}
	if err := a.checkHome(ctx, w.Home, peer.DID()); err != nil {
		return AtTarget{}, err
	}
	report, err := a.assess(w)
	if err != nil {
		return AtTarget{}, err
	}
	moving, err := a.assessItems(w)
	if err != nil {
		return AtTarget{}, err
	}
	t := atTarget{AtTarget: AtTarget{
		ID: carnet.NewCrossingID(), From: w.From, Avatar: w.Home.Avatar, State: Asked, Home: w.Home, By: by, Begun: a.Now().UTC(),
	}}
	if t.To, err = a.room(ctx, t.ID, w); err != nil {
		return AtTarget{}, err
	}
	moving.report = append(report, moving.report...)
	if err := a.askFor(ctx, &t, by, w, peer, moving); err != nil {
		if t.Asked != "" {
			_, failed := a.Mandates.Remove(ctx, t.Asked)
			err = errors.Join(err, failed)
		}
		if !w.Alone {
			err = errors.Join(err, a.World.Drop(ctx, t.To))
		}
		return AtTarget{}, err
	}
	return a.came(t.ID).AtTarget, nil
}

// room is where what comes is to be: a new avatar, or one that is here.
func (a *Agent) room(ctx context.Context, x carnet.CrossingID, w Wanted) (carnet.AvatarID, error) {
	if !w.Alone {
		room, err := a.World.Expect(ctx, x, w.Title)
		return room.ID, err
	}
	v, err := a.World.Avatar(w.To)
	if err == nil && len(v.OwnerKey) != ed25519.PublicKeySize {
		err = carnet.Errorf(carnet.Forbidden, "no owner's key is pinned with the avatar %s, so it can't get an item", w.To).
			WithFix("its owner pins one: carnet owner claim THING/WORLD --keystore FILE")
	}
	return v.ID, err
}

// askFor makes what the owner is asked to order, and stores the move.
func (a *Agent) askFor(ctx context.Context, t *atTarget, by string, w Wanted, peer Peer, moving assessed) error {
	asked, err := a.Mandates.Ask(ctx, by, t.To, mandate.Wanted{
		Audience: peer.OwnName, About: w.Home.Avatar, Actions: []identity.Action{identity.ActionMove}, Purpose: a.purpose(), Clearance: a.Clearance,
		Text: cmp.Or(w.Text, a.says(w)),
	})
	if err != nil {
		return err
	}
	t.Asked = asked.ID
	t.Request, err = identity.MoveRequest{
		Crossing: t.ID, Registrar: w.Home.Registrar, Home: w.Home.Home, Owner: w.Home.Owner, Source: peer.DID(), Target: a.Party, TargetKey: a.did,
		To: t.To, View: w.View, Items: moving.items, Retired: moving.retired, Alone: w.Alone, Report: moving.report, Mandate: asked.Request,
	}.Marshal()
	if err != nil {
		return err
	}
	defer a.changing.of(t.To)()
	return a.keepTarget(ctx, *t)
}

// says is what an owner is told that the mandate is for.
func (a *Agent) says(w Wanted) string {
	if w.Alone {
		return fmt.Sprintf("An item of your avatar comes to %s.", a.Party)
	}
	return fmt.Sprintf("Your avatar comes to live in %s.", a.Party)
}

// purpose is what this world uses data for.
func (a *Agent) purpose() string { return a.Clearance.Purposes.Words()[0] }

// assess says what fits, and refuses what this world may not hold.
func (a *Agent) assess(w Wanted) (report []string, err error) {
	if over := w.Ceiling.Exceeds(a.Clearance); over != "" {
		return nil, carnet.Errorf(carnet.Forbidden, "the avatar can't come: its history has what %s may not hold: %s", a.Party, over).
			WithFix("share with %s what may be shared, or move to a world that is cleared for all of it", a.Party)
	}
	if w.Alone {
		return nil, nil
	}
	if len(w.Properties) == 0 {
		return []string{"It has shown nothing yet: its history is empty, or over."}, nil
	}
	names := slices.Sorted(slices.Values(w.Properties))
	line := fmt.Sprintf("%d properties come as they are, in their units: %s.", len(names), strings.Join(names, ", "))
	if len(line) > identity.MaxRequestText {
		line = fmt.Sprintf("%d properties come as they are, in their units.", len(names))
	}
	return []string{line, "Nothing is converted and nothing is lost but what other worlds shared with it, which stays theirs: those shares end."}, nil
}

// TakeOrder takes what the owner signed for a move. Handed in again it is answered
// again.
func (a *Agent) TakeOrder(ctx context.Context, x carnet.CrossingID, o identity.Ordered) (AtTarget, error) {
	t := a.came(x)
	if t.State == None {
		return AtTarget{}, carnet.Errorf(carnet.NotFound, "there is no crossing %s", x).WithFix("list them: carnet avatar status")
	}
	until, err := a.checkOrdered(&t, o)
	if err != nil {
		return AtTarget{}, err
	}
	if _, err := a.Mandates.Give(ctx, o.Mandate); err != nil {
		return AtTarget{}, err
	}
	defer a.changing.of(t.To)()
	t = a.came(x)
	next, ok := Target(t.State, Order)
	switch {
	case !ok:
		return AtTarget{}, carnet.Errorf(carnet.Conflict, "the crossing %s is %s", x, t.State).WithFix("begin another: carnet avatar move")
	case t.State != Asked && t.Order != o.Order:
		return AtTarget{}, carnet.Errorf(carnet.Conflict, "the crossing %s has an order already", x)
	case t.State != Asked:
		return t.AtTarget, nil
	}
	t.State, t.SignedOrder, t.Until = next, SignedOrder{o.Order, o.Terms}, until
	err = a.keepTarget(ctx, t)
	return a.came(x).AtTarget, err
}

// checkOrdered refuses what isn't what was asked for.
func (a *Agent) checkOrdered(t *atTarget, o identity.Ordered) (until time.Time, err error) {
	order, err := identity.OpenOrder(o.Order)
	if err != nil {
		return until, err
	}
	terms, err := identity.ParseMoveTerms(o.Terms, order)
	if err != nil {
		return until, err
	}
	asked, _, err := identity.ParseMoveRequest(t.Request)
	if err != nil {
		return until, err
	}
	switch {
	case order.Crossing != t.ID || order.Source != asked.Source || order.Target != asked.TargetKey || order.Registrar != asked.Registrar ||
		!slices.Equal(order.Homes, asked.Homes()) || order.Owner != asked.Owner:
		return until, carnet.Errorf(carnet.Forbidden, "the order isn't what was asked for").WithFix("approve the request as it was written: carnet owner approve")
	case terms.Avatar != t.Avatar || terms.Home != asked.Home || terms.To != t.To || string(terms.View) != string(asked.View) ||
		!slices.Equal(terms.Items, asked.Items) || !slices.Equal(terms.Retired, asked.Retired) || terms.Alone != asked.Alone:
		return until, carnet.Errorf(carnet.Forbidden, "the order's terms aren't what was asked for").WithFix("approve the request as it was written: carnet owner approve")
	case !a.Now().Before(order.Until):
		return until, carnet.Errorf(carnet.Forbidden, "the order was good until %s", order.Until.Format(time.RFC3339)).WithFix("approve it again")
	}
	if terms.Alone {
		return order.Until, a.has(t.To, terms.Owner)
	}
	return order.Until, nil
}

// has refuses an avatar that isn't here under an owner's key, or that is leaving.
func (a *Agent) has(id carnet.AvatarID, owner string) error {
	v, err := a.World.Avatar(id)
	if err != nil {
		return err
	}
	if identity.DID(v.OwnerKey) != owner {
		return carnet.Errorf(carnet.Forbidden, "the avatar %s is another owner's than who ordered the item here", id).WithFix("order it with the keystore with which that avatar was claimed")
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, l := range a.sources {
		if l.Avatar == id && l.State == Frozen && !l.alone() {
			return carnet.Errorf(carnet.Unavailable, "the avatar %s keeps still for the crossing %s", id, l.ID)
		}
	}
	return nil
}

// goOnAtTarget does what is due of a move at its target.
func (a *Agent) goOnAtTarget(ctx context.Context, x carnet.CrossingID) error {
	t := a.came(x)
	var err error
	switch t.State {
	case Asked:
		if t.forgotten(a.Now()) {
			err = a.callOff(ctx, x, "its owner didn't order it within seven days")
		}
	case Copying:
		if t.recovers() {
			err = a.acceptRecovery(ctx, t)
		} else {
			err = a.copy(ctx, t)
		}
		if err != nil && (final(err) || !a.Now().Before(t.Until)) {
			err = a.leave(ctx, t, err.Error())
		}
	case Leaving:
		err = a.decide(ctx, t, register.Petition{Want: register.Abort, Order: t.Order})
	case Prepared:
		if t.recovers() {
			err = a.awaitSource(ctx, t)
			break
		}
		err = a.decide(ctx, t, register.Petition{Want: register.Commit, Order: t.Order, Release: t.Release, Acceptance: t.Acceptance})
	case Home:
		if t.Departure == "" {
			err = a.tellSource(ctx, t)
		}
		if !t.Surveyed {
			err = errors.Join(err, a.survey(ctx, t))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.targets[x]; is != nil {
		again := *is
		again.failed++
		if again.progress.Waits = ""; err == nil {
			if again.State != t.State {
				again.failed = 0
			}
		} else {
			again.progress.Waits = err.Error()
		}
		if again.notTill = a.Now(); again.failed > 0 {
			again.notTill = a.Now().Add(pause(again.failed - 1))
		}
		a.targets[x] = &again
	}
	if err != nil && ctx.Err() == nil {
		a.Log.Warn("a move waits", "crossing", x, "avatar", t.To, "from", t.From, "state", t.State, "err", err)
	}
	return err
}

// fewLeft is how many bytes are left to fetch when the source is asked to keep still.
const fewLeft = 8 << 20

// copy fetches what there is at the source, again and again until little is left;
// then has the source keep still, fetches that, checks everything and accepts it.
func (a *Agent) copy(ctx context.Context, t atTarget) error {
	all, err := a.fetchAll(ctx, t)
	if err != nil {
		return err
	}
	return a.accept(ctx, t, all)
}

// fetched is what a source has released: all of it is here, and checked.
type fetched struct {
	release  string
	document []byte // the manifest
	amount   Amount
	looks    []item.Looks
}

// fetchAll fetches what there is at the source until nothing lacks of what it releases.
func (a *Agent) fetchAll(ctx context.Context, t atTarget) (all fetched, err error) {
	none, gone := fetched{}, false
	for {
		standing, err := a.Far.Offer(ctx, t.visit(), t.SignedOrder)
		if err != nil {
			return none, err
		}
		gone = standing.State == Gone
		if t.alone() {
			break
		}
		if err := a.World.TakeStreams(ctx, t.To, standing.Streams); err != nil {
			return none, err
		}
		fetched, err := a.copyListed(ctx, t, standing.Streams)
		if err != nil {
			return none, err
		}
		if fetched <= fewLeft {
			break
		}
	}
	announcement, err := a.Announce()
	if err != nil {
		return none, err
	}
	given, err := a.Far.Freeze(ctx, t.visit(), announcement)
	if err != nil {
		return none, err
	}
	if given.Size <= 0 || given.Size > avatar.MaxManifest {
		return none, carnet.Errorf(carnet.Malformed, "%s has a manifest of %d bytes", t.From, given.Size)
	}
	document, err := a.Far.Manifest(ctx, t.visit())
	if err != nil {
		return none, err
	}
	m, err := a.released(t, given.Release, document)
	if err != nil {
		return none, err
	}
	peer, err := a.Peers.Named(t.From)
	if err != nil {
		return none, err
	}
	if err := a.copyAvatar(ctx, t, peer, m, given.Bags); err != nil {
		return none, err
	}
	if !gone && !t.alone() { // else the registrar says what was decided
		if err := a.checkHome(ctx, t.Home, peer.DID()); err != nil {
			return none, err
		}
	}
	looks, err := a.checkItems(ctx, t, peer, m, gone)
	return fetched{given.Release, document, amountOf(m), looks}, err
}

// copyAvatar fetches the rest of an avatar, takes its keys and checks everything.
func (a *Agent) copyAvatar(ctx context.Context, t atTarget, peer Peer, m *avatar.Manifest, bags [][]byte) error {
	if t.alone() {
		if len(m.Streams) > 0 {
			return carnet.Errorf(carnet.Forbidden, "%s gives the streams of an avatar with an item that moves alone", t.From)
		}
		return nil
	}
	if err := a.World.TakeStreams(ctx, t.To, m.Streams); err != nil {
		return err
	}
	if _, err := a.fetch(ctx, t, m.Stretches); err != nil {
		return err
	}
	for _, bag := range bags {
		err := a.World.TakeKeys(ctx, t.To, bag, seal.Expected{Granter: peer.OwnName, Signer: peer.Key, Reader: a.Party})
		if err != nil {
			return err
		}
	}
	return a.World.Check(ctx, t.To, m)
}

// copyListed fetches the stretches that the source lists now.
func (a *Agent) copyListed(ctx context.Context, t atTarget, streams []avatar.MovedStream) (fetched int64, err error) {
	a.note(t.ID, func(p *Progress) { *p = Progress{Since: p.Since, Fetched: p.Fetched} })
	for i := range streams {
		for from := uint64(0); ; {
			page, err := a.Far.Stretches(ctx, t.visit(), streams[i].Stream, from)
			if err != nil {
				return fetched, err
			}
			if len(page) == 0 {
				break
			}
			n, err := a.fetch(ctx, t, page)
			if fetched += n; err != nil {
				return fetched, err
			}
			last := page[len(page)-1].First
			if last < from {
				return fetched, carnet.Errorf(carnet.Malformed, "%s lists stretches in no order", t.From)
			}
			from = last + 1
		}
	}
	return fetched, nil
}

// fetch takes those of the stretches that aren't here.
func (a *Agent) fetch(ctx context.Context, t atTarget, listed []avatar.MovedStretch) (fetched int64, err error) {
	missing, err := a.World.Missing(ctx, t.To, listed)
	if err != nil {
		return 0, err
	}
	var all, absent int64
	for i := range listed {
		all += int64(listed[i].Size)
	}
	for i := range missing {
		absent += int64(missing[i].Size)
	}
	a.note(t.ID, func(p *Progress) {
		p.Of, p.OfBytes = p.Of+len(listed), p.OfBytes+all
		p.Stretches, p.Bytes = p.Stretches+len(listed)-len(missing), p.Bytes+all-absent
		if p.Since.IsZero() {
			p.Since = a.Now().UTC()
		}
	})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	coming := a.ahead(ctx, t.visit(), missing)
	for i := range missing {
		m := &missing[i]
		body, proof, err := coming(i)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // its retention has ended meanwhile
		}
		if err != nil {
			return fetched, err
		}
		if err := a.World.TakeStretch(ctx, t.To, *m, body, proof); err != nil {
			return fetched, err
		}
		fetched += int64(m.Size)
		a.note(t.ID, func(p *Progress) {
			p.Stretches, p.Bytes, p.Fetched = p.Stretches+1, p.Bytes+int64(m.Size), p.Fetched+int64(m.Size)
		})
		if state := a.came(t.ID).State; state != t.State {
			return fetched, carnet.Errorf(carnet.Unavailable, "the crossing is %s by now", state)
		}
	}
	return fetched, nil
}

// fetchAhead is how many stretches are under way while one is checked and stored.
const fetchAhead = 3

// ahead asks for stretches a few at a time, and returns the way to have each: in
// their order, once. What is under way ends with ctx.
func (a *Agent) ahead(ctx context.Context, to Visit, all []avatar.MovedStretch) func(i int) (body, proof []byte, err error) {
	type piece struct {
		body, proof []byte
		err         error
	}
	pieces := make([]chan piece, len(all))
	asked := 0
	return func(i int) (body, proof []byte, err error) {
		for ; asked < len(all) && asked <= i+fetchAhead; asked++ {
			m, here := all[asked], make(chan piece, 1)
			pieces[asked] = here
			go func() {
				var p piece
				p.body, p.proof, p.err = a.Far.Stretch(ctx, to, m)
				here <- p
			}()
		}
		p := <-pieces[i]
		pieces[i] = nil
		return p.body, p.proof, p.err
	}
}

func (a *Agent) note(x carnet.CrossingID, change func(*Progress)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.targets[x]; is != nil {
		noted := *is
		change(&noted.progress)
		a.targets[x] = &noted
	}
}

// released reads a manifest that the source has released.
func (a *Agent) released(t atTarget, release string, document []byte) (*avatar.Manifest, error) {
	r, err := identity.OpenRelease(release)
	if err != nil {
		return nil, err
	}
	order, err := identity.OpenOrder(t.Order)
	if err != nil {
		return nil, err
	}
	if r.Crossing != t.ID || r.Source != order.Source || r.Order != carnet.FingerprintOf([]byte(t.Order)) || r.Manifest != carnet.FingerprintOf(document) {
		return nil, carnet.Errorf(carnet.Forbidden, "%s gives a release that isn't its own for this manifest and order", t.From)
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return nil, err
	}
	if m.Crossing != t.ID || m.Avatar != t.Avatar {
		return nil, carnet.Errorf(carnet.Forbidden, "%s gives the manifest of something else", t.From)
	}
	return m, nil
}

// accept signs that everything is here, durably.
func (a *Agent) accept(ctx context.Context, t atTarget, all fetched) error {
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	if moving := t.Moving(); moving.Alone {
		if err := a.has(t.To, moving.Owner); err != nil { // from now on it can't leave
			return err
		}
	}
	next, ok := Target(t.State, Checked)
	if !ok || t.State == next {
		return nil
	}
	var err error
	t.State, t.Release, t.Manifest, t.Amount, t.Looks = next, all.release, carnet.FingerprintOf(all.document), all.amount, all.looks
	t.Acceptance, err = identity.SignAcceptance(a.Key, identity.Acceptance{
		Crossing: t.ID, Target: a.did, Order: carnet.FingerprintOf([]byte(t.Order)), Manifest: t.Manifest,
	})
	if err != nil {
		return err
	}
	return a.keepTarget(ctx, t, avatar.Kept{Kind: kindManifest, ID: t.ID.String(), Version: 1, Body: all.document})
}

// leave calls a move off that can't go on: the registrar is asked for abort.
func (a *Agent) leave(ctx context.Context, t atTarget, why string) error {
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	next, ok := Target(t.State, Cancel)
	if !ok || next == t.State {
		return nil
	}
	t.State, t.Why = next, why
	a.Log.Warn("a move is called off", "crossing", t.ID, "avatar", t.To, "from", t.From, "why", why)
	return a.keepTarget(ctx, t)
}

func (a *Agent) cancelAtTarget(ctx context.Context, x carnet.CrossingID, by string) error {
	return a.callOff(ctx, x, "called off by "+by)
}

func (a *Agent) callOff(ctx context.Context, x carnet.CrossingID, why string) error {
	defer a.changing.of(a.came(x).To)()
	t := a.came(x)
	next, ok := Target(t.State, Cancel)
	if !ok {
		return tooLate(x, t.State)
	}
	if next == t.State {
		return nil
	}
	t.Why = why
	if next == Dropped {
		return a.drop(ctx, t)
	}
	t.State = next
	return a.keepTarget(ctx, t)
}

// drop deletes what came, and notes that nothing more does. The caller has the
// avatar's turn.
func (a *Agent) drop(ctx context.Context, t atTarget) error {
	if !t.Moving().Alone {
		if err := a.World.Drop(ctx, t.To); err != nil {
			return err
		}
	}
	if t.Asked != "" {
		if _, err := a.Mandates.Remove(ctx, t.Asked); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	t.State, t.Ended = Dropped, a.Now().UTC()
	return a.keepTarget(ctx, t)
}

// decide asks the registrar, and does what it decided.
func (a *Agent) decide(ctx context.Context, t atTarget, p register.Petition) error {
	d, err := a.ask(ctx, t.ID, p)
	if err != nil || d == nil {
		return err
	}
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	next, ok := Target(t.State, event(d.Outcome))
	if !ok || next == t.State {
		return nil
	}
	t.Decision = d.Reply.Decision
	a.Log.Info("a move was decided", "crossing", t.ID, "avatar", t.To, "from", t.From, "outcome", d.Outcome, "why", d.Decision.Why)
	if next == Dropped {
		t.Why = cmp.Or(t.Why, d.Decision.Why, "the registrar decided abort")
		return a.drop(ctx, t)
	}
	return a.arrive(ctx, t, d)
}

// arrive makes what came this world's, with what the manifest names that the registrar
// has decided. What isn't here, since this store is an older copy, is fetched
// again: the source has it until it hears that the avatar is here. The caller has its
// turn.
func (a *Agent) arrive(ctx context.Context, t atTarget, d *register.Decided) error {
	manifest := *d.Decision.Manifest
	if t.Manifest == manifest {
		err := a.land(ctx, t, d)
		if code := carnet.CodeOf(err); code != carnet.NotFound && code != carnet.Tampered {
			return err
		}
	}
	t, err := a.fetchAgain(ctx, t, manifest)
	if err == nil {
		err = a.land(ctx, t, d)
	}
	if final(err) {
		return carnet.Errorf(carnet.Unavailable, "the avatar's home is here, and what it had isn't: %v", err).
			WithFix("put back a newer copy of this world's store, if there is one")
	}
	return err
}

// fetchAgain fetches what is released once more, and notes that it is here.
func (a *Agent) fetchAgain(ctx context.Context, t atTarget, manifest carnet.Fingerprint) (atTarget, error) {
	a.Log.Warn("an avatar's home is here, and not all of it is: it is fetched again", "crossing", t.ID, "avatar", t.To, "from", t.From)
	all, err := a.fetchAll(ctx, t)
	if err != nil {
		return t, err
	}
	if t.Manifest = carnet.FingerprintOf(all.document); t.Manifest != manifest {
		return t, carnet.Errorf(carnet.Tampered, "%s has another manifest than was decided", t.From)
	}
	t.Release, t.Amount, t.Looks = all.release, all.amount, all.looks
	version, err := a.World.OneKept(ctx, kindManifest, t.ID.String(), new([]byte))
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return t, err
	}
	if err := a.keepTarget(ctx, t, avatar.Kept{Kind: kindManifest, ID: t.ID.String(), Version: version + 1, Body: all.document}); err != nil {
		return t, err
	}
	t = a.came(t.ID)
	return t, nil
}

// land makes what came this world's, of which everything is here. The caller has its
// turn.
func (a *Agent) land(ctx context.Context, t atTarget, d *register.Decided) error {
	document, err := a.manifest(ctx, t.ID)
	if err != nil {
		return err
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return err
	}
	order, err := identity.OpenWish(t.Order)
	if err != nil {
		return err
	}
	terms, err := identity.ParseMoveTerms(t.Terms, order)
	if err != nil {
		return err
	}
	if !terms.Alone {
		if err := a.arriveAvatar(ctx, t, m, terms); err != nil {
			return err
		}
	}
	if !t.recovers() { // a passport has no items
		err = a.Items.Land(ctx, item.Landing{
			From: t.From, Avatar: t.To, Proofs: m.Items, Looks: t.Looks,
			Committed: item.Committed{Order: t.Order, Terms: t.Terms, Decision: d.Reply.Decision, Proof: identity.OnLedger(d.Reply.Proof), Homes: d.Decision.Homes},
		})
		if err != nil {
			return err
		}
	}
	t.State, t.Ended, t.Surveyed = Home, a.Now().UTC(), terms.Alone
	return a.keepTarget(ctx, t)
}

// arriveAvatar makes the avatar one of this world's.
func (a *Agent) arriveAvatar(ctx context.Context, t atTarget, m *avatar.Manifest, terms identity.MoveTerms) error {
	owner, err := identity.ParseDID(terms.Owner)
	if err != nil {
		return err
	}
	if err := a.World.Arrive(ctx, t.To, avatar.Landing{From: t.From, Manifest: m, Hash: t.Manifest, Owner: owner}); err != nil {
		return err
	}
	here := t.Home
	here.Avatar = t.To
	if _, known := a.homeOf(t.To); known {
		return nil
	}
	return a.keepHome(ctx, knownHome{Registered: here})
}

// tellSource tells the source until it has deleted everything and signed for it.
func (a *Agent) tellSource(ctx context.Context, t atTarget) error {
	document, err := a.manifest(ctx, t.ID)
	if err != nil {
		return err
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return err
	}
	tells := Decided{SignedOrder: t.SignedOrder, Decision: t.Decision}
	for i := range m.Streams {
		s := &m.Streams[i]
		tells.Streams = append(tells.Streams, Head{s.Stream, s.NextBatch, s.NextFirst})
	}
	var left Left
	if t.recovers() {
		if _, err := a.Peers.Named(t.From); err != nil {
			return nil // nobody to tell; the register does, if it comes back
		}
		left, err = a.Far.Recovered(ctx, t.From, tells)
	} else {
		left, err = a.Far.Decided(ctx, t.visit(), tells)
	}
	if err != nil {
		return err
	}
	if left.Departure == "" {
		return carnet.Errorf(carnet.Unavailable, "%s hasn't deleted everything yet", t.From)
	}
	d, err := identity.OpenDeparture(left.Departure)
	if err != nil {
		return err
	}
	order, err := identity.OpenWish(t.Order)
	if err != nil {
		return err
	}
	if d.Crossing != t.ID || d.Source != order.Source || d.Manifest != t.Manifest {
		return carnet.Errorf(carnet.Unavailable, "%s signs for another departure", t.From)
	}
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	t.Departure = left.Departure
	return a.keepTarget(ctx, t)
}

// survey opens every batch that came, which nobody did while the source kept still for
// it, and says which can't be used: who sent it and the source stand for that.
func (a *Agent) survey(ctx context.Context, t atTarget) error {
	unfit := 0
	err := a.World.Survey(ctx, t.To, func(u avatar.Unfit) {
		unfit++
		a.Log.Error("a batch that came with a move can't be used", "crossing", t.ID, "avatar", t.To, "from", t.From, "stream", u.Stream, "batch", u.Batch, "fingerprint", u.Fingerprint, "err", u.Why)
	})
	if err != nil {
		return err
	}
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	t.Surveyed, t.Unfit = true, unfit
	return a.keepTarget(ctx, t)
}

// AtTarget lists the moves to here, oldest first, with their progress.
func (a *Agent) AtTarget() (all []AtTarget, progress map[carnet.CrossingID]Progress) {
	progress = make(map[carnet.CrossingID]Progress)
	a.mu.RLock()
	for _, t := range a.targets {
		all = append(all, t.AtTarget)
		progress[t.ID] = t.progress
	}
	a.mu.RUnlock()
	slices.SortFunc(all, func(p, q AtTarget) int {
		return cmp.Or(p.Begun.Compare(q.Begun), cmp.Compare(p.ID.String(), q.ID.String()))
	})
	return all, progress
}

// Onward answers with the avatar that came by the move of a mapping request's order and
// terms, and with how it moved on since if it did, to a things agent that goes on with what it sent to it before: by its word,
// with the key by which the source knew it.
func (a *Agent) Onward(ctx context.Context, r carnet.MapRequest) (carnet.MapAnswer, error) {
	refuse := func() (carnet.MapAnswer, error) {
		return carnet.MapAnswer{}, carnet.Errorf(carnet.NotFound, "no avatar came here by this order, to who asks")
	}
	t, found := a.byOrder(r.Order, r.Terms)
	switch {
	case !found:
		return refuse()
	case !t.State.Over():
		return carnet.MapAnswer{}, carnet.Errorf(carnet.Unavailable, "the avatar isn't here yet")
	case t.State != Home:
		return refuse()
	}
	word, err := identity.OpenOnward(r.Onward)
	if err != nil {
		return carnet.MapAnswer{}, err
	}
	if word.Crossing != t.ID || word.Target != a.did || word.Stream != r.Stream {
		return refuse()
	}
	document, err := a.manifest(ctx, t.ID)
	if err != nil {
		return carnet.MapAnswer{}, err
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return carnet.MapAnswer{}, err
	}
	for i := range m.Streams {
		if s := &m.Streams[i]; s.Stream == word.Former && identity.DID(s.Origin.Key) == word.Sender {
			return carnet.MapAnswer{Avatar: t.To, Moved: a.movedOn(t.To, r.Stream)}, nil
		}
	}
	return refuse()
}

// movedOn is how an avatar has moved away from here, to the sender of a stream of
// which nothing moved; nil: it hasn't.
func (a *Agent) movedOn(id carnet.AvatarID, stream carnet.StreamID) *carnet.Moved {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, l := range a.sources {
		if l.Avatar == id && l.State == Gone {
			return &carnet.Moved{Stream: stream, Order: l.Order, Terms: l.Terms, Decision: l.Decision}
		}
	}
	return nil
}

func (a *Agent) byOrder(order string, terms []byte) (AtTarget, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.Order == order && order != "" && bytes.Equal(t.Terms, terms) {
			return t.AtTarget, true
		}
	}
	return AtTarget{}, false
}
