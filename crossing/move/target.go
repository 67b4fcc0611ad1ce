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
	// Surveyed: since it is home, every batch has been opened, or it has moved on before;
	// Unfit counts those that can't be used.
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
	source   string // did:key of a recovery's source, by the passport
	looked   bool   // nothing was decided of it, as far as it was asked since the start
}

// open reports whether there is something to do without being asked. peer reports
// whether there is a peer with a key: a recovery's source that is none is gone for good,
// or learns from the register that it is home no more.
func (t *atTarget) open(peer func(did string) bool) bool {
	switch t.State {
	case Copying, Leaving, Prepared:
		return true
	case Home:
		return !t.Erased && (!t.Surveyed || t.Departure == "" && (!t.recovers() || peer(t.source)))
	}
	return false
}

// known finds out whether there are peers with keys, once it is asked.
func (a *Agent) known() func(did string) bool {
	var keys map[string]bool
	return func(did string) bool {
		if keys == nil {
			keys = make(map[string]bool)
			for _, p := range a.Peers.All() {
				keys[p.DID()] = true
			}
		}
		return keys[did]
	}
}

// read fills in what a document says in signed form.
func (t *atTarget) read() {
	if t.recovers() && t.source == "" {
		word, _ := identity.OpenPassport(t.Passport) // it was checked before it was stored
		t.source = word.Source
	}
}

// orderedWithin is how long a move waits for its order.
const orderedWithin = 7 * 24 * time.Hour

// forgotten reports whether a move has waited long enough for its order.
func (t *atTarget) forgotten(now time.Time) bool {
	return t.State == Asked && !now.Before(t.Begun.Add(orderedWithin))
}

// unsure reports whether a move without an order may have come by one: this store may be
// older than that.
func (t *atTarget) unsure() bool { return t.State == Asked && !t.looked && !t.recovers() }

func (t *atTarget) visit() Visit { return Visit{t.From, t.ID, t.To, t.Avatar, t.Decision} }

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
	t.read()
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
	// Redact: what is labelled above it is left behind, which Leaves counts; nil: nothing
	// may be.
	Redact *identity.Redaction
	Leaves []avatar.LeftBehind
	Policy string // its policy, as it is signed for the source; empty: none
	Backup *Backup
	Text   string // for the owner, in this world's words

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
	if err := byView(w.Redact, w.View); err != nil {
		return AtTarget{}, err
	}
	if w.Redact != nil && w.Ceiling.Exceeds(w.Redact.Clearance()) == "" {
		w.Redact = nil // nothing has to be left behind
	}
	if err := a.welcome(w, peer); err != nil {
		return AtTarget{}, err
	}
	if w.Alone {
		w.Policy = "" // it stays with the avatar
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
		To: t.To, View: w.View, Redact: w.Redact, Policy: w.Policy, Items: moving.items, Retired: moving.retired, Alone: w.Alone, Report: moving.report, Mandate: asked.Request,
	}.Marshal()
	if err != nil {
		return err
	}
	t.looked = true
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
	if over := w.Ceiling.Exceeds(a.Clearance); over != "" && w.Redact == nil {
		return nil, carnet.Errorf(carnet.Forbidden, "the avatar can't come: its history has what %s may not hold: %s", a.Party, over).
			WithFix("leave that behind for good, with the owner's consent: --redact; share with %s what may be shared, or move to a world that is cleared for all of it", a.Party)
	}
	if w.Alone {
		return nil, nil
	}
	if err := a.bears(w.View, w.Properties); err != nil {
		return nil, err
	}
	if w.Redact != nil {
		if err := redactable(a.Party, *w.Redact, a.Clearance); err != nil {
			return nil, err
		}
		return append(a.assessRedacted(w), backupLine(w.Backup)), nil
	}
	if len(w.Properties) == 0 {
		return []string{"It has shown nothing yet: its history is empty, or over.", backupLine(w.Backup)}, nil
	}
	names := slices.Sorted(slices.Values(w.Properties))
	line := fmt.Sprintf("%d properties come as they are, in their units", len(names))
	if len(names) == 1 {
		line = "1 property comes as it is, in its unit"
	}
	if list := ": " + strings.Join(names, ", "); len(line)+len(list) < identity.MaxRequestText {
		line += list
	}
	return []string{line + ".", "Nothing is converted and nothing is lost but what other worlds shared with it, which stays theirs: those shares end.", backupLine(w.Backup)}, nil
}

// TakeOrder takes what the owner signed for a move. Handed in again it is answered
// again.
func (a *Agent) TakeOrder(ctx context.Context, x carnet.CrossingID, o identity.Ordered) (AtTarget, error) {
	t := a.came(x)
	if t.State == None {
		return AtTarget{}, carnet.Errorf(carnet.NotFound, "there is no crossing %s", x).WithFix("list them: carnet avatar status")
	}
	if t.State == Home && t.Order == o.Order {
		return t.AtTarget, nil
	}
	if t.State == Dropped {
		return AtTarget{}, carnet.Errorf(carnet.Conflict, "the crossing %s is %s", x, t.State).WithFix("begin another: carnet avatar move")
	}
	until, err := a.checkOrdered(&t, o)
	if err != nil {
		return AtTarget{}, err
	}
	came, err := a.cameBy(ctx, t, o.Order)
	if err != nil {
		return AtTarget{}, err
	}
	if !came { // else nothing hangs on time, mandate and room any more: it is here
		if moving := (SignedOrder{o.Order, o.Terms}).Moving(); moving.Alone {
			if err := a.has(x, t.To, moving.Owner); err != nil {
				return AtTarget{}, err
			}
		}
		if !a.Now().Before(until) {
			return AtTarget{}, carnet.Errorf(carnet.Forbidden, "the order was good until %s", until.Format(time.RFC3339)).WithFix("approve it again")
		}
		given, err := a.Mandates.Give(ctx, o.Mandate)
		if err != nil {
			return AtTarget{}, err
		}
		if given.ID != t.Asked {
			return AtTarget{}, carnet.Errorf(carnet.Conflict, "the mandate is for another request, and not for the move %s", x).WithFix("hand in what 'carnet owner approve' wrote for this move")
		}
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

// cameBy asks the registrar about a move that has no order here: this store may be older
// than the order, and what moved may have come by it. It refuses every other order then.
func (a *Agent) cameBy(ctx context.Context, t atTarget, order string) (came bool, err error) {
	if t.State != Asked {
		return false, nil
	}
	d, err := a.decidedUnordered(ctx, t)
	switch {
	case err != nil || d == nil:
		return false, err
	case d.Decision.Outcome == identity.Abort:
		return false, carnet.Errorf(carnet.Conflict, "the registrar has ended the crossing %s: %s", t.ID, d.Decision.Why).WithFix("begin another: carnet avatar move")
	case d.Decision.Order != carnet.FingerprintOf([]byte(order)):
		return false, cameAlready(t.ID)
	}
	return true, nil
}

// lookFor asks, once since the start, whether a move that has no order here has come by
// one. Then it has its source give that, which has it as long as it keeps what has moved.
func (a *Agent) lookFor(ctx context.Context, t atTarget) error {
	d, err := a.decidedUnordered(ctx, t)
	if err != nil {
		return err
	}
	if d == nil || d.Decision.Outcome == identity.Abort {
		a.mu.Lock()
		defer a.mu.Unlock()
		if is := a.targets[t.ID]; is != nil {
			looked := *is
			looked.looked = true
			a.targets[t.ID] = &looked
		}
		return nil
	}
	at := t.visit()
	at.Decision = d.Reply.Decision
	o, err := a.Far.Ordered(ctx, at)
	if err == nil {
		_, err = a.TakeOrder(ctx, t.ID, identity.Ordered{Order: o.Order, Terms: o.Terms})
	}
	if err != nil {
		return carnet.Errorf(carnet.Unavailable, "%v; its source doesn't give it: %v", cameAlready(t.ID), err)
	}
	return nil
}

// decidedUnordered asks what was decided of a move that has no order here.
func (a *Agent) decidedUnordered(ctx context.Context, t atTarget) (*register.Decided, error) {
	registrar, err := a.registrarOf(t.Home.Registrar)
	if err != nil {
		return nil, err
	}
	return registrar.Decide(ctx, t.ID, register.Petition{Want: register.Ask})
}

// cameAlready says that what moves by a crossing is this world's, which lacks the order.
func cameAlready(x carnet.CrossingID) error {
	return carnet.Errorf(carnet.Conflict, "the registrar has decided that what moves by the crossing %s lives here, and this world's store is from before its order came", x).
		WithFix("hand in the order that its owner gave then, though its time may be over (carnet owner approve wrote it), or put back a newer copy of this world's store")
}

// checkOrdered refuses what isn't what was asked for, but for its time.
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
		!terms.Redact.Same(asked.Redact) || !slices.Equal(terms.Items, asked.Items) || !slices.Equal(terms.Retired, asked.Retired) || terms.Alone != asked.Alone:
		return until, carnet.Errorf(carnet.Forbidden, "the order's terms aren't what was asked for").WithFix("approve the request as it was written: carnet owner approve")
	case !samePolicy(terms.Policy, asked.Policy):
		return until, carnet.Errorf(carnet.Forbidden, "the order's terms have another policy of the avatar than the request").WithFix("approve the request as it was written: carnet owner approve")
	}
	return order.Until, nil
}

// has refuses an avatar that isn't here under an owner's key, that is leaving or keeps
// still for a passport, or that can have no item more, for a crossing by which it is to
// get one.
func (a *Agent) has(x carnet.CrossingID, id carnet.AvatarID, owner string) error {
	v, err := a.World.Avatar(id)
	if err != nil {
		return err
	}
	if identity.DID(v.OwnerKey) != owner {
		return carnet.Errorf(carnet.Forbidden, "the avatar %s is another owner's than who ordered the item here", id).WithFix("order it with the keystore with which that avatar was claimed")
	}
	if _, said := a.saidFarewell(id); said {
		return carnet.Errorf(carnet.Conflict, "the avatar %s keeps still for good: its world has said farewell to it", id).WithFix("order the item to another avatar")
	}
	still, frozen, err := a.World.Frozen(id)
	if err != nil {
		return err
	}
	if frozen {
		return carnet.Errorf(carnet.Unavailable, "the avatar %s keeps still for the crossing %s", id, still)
	}
	if n := len(a.Items.Of(id)) + a.coming(id, x); n >= item.MaxOf {
		return carnet.Errorf(carnet.TooLarge, "the avatar %s has %d items, or is to get them, and at most so many", id, n).WithFix("order the item to another avatar")
	}
	return nil
}

// Coming implements item.Homes.
func (a *Agent) Coming(id carnet.AvatarID) int { return a.coming(id, carnet.CrossingID{}) }

// coming counts the items that are on their way to an avatar, but for that of a crossing.
func (a *Agent) coming(id carnet.AvatarID, but carnet.CrossingID) (n int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.To == id && t.ID != but && t.State == Prepared && t.alone() {
			n++
		}
	}
	return n
}

// goOnAtTarget does what is due of a move at its target.
func (a *Agent) goOnAtTarget(ctx context.Context, x carnet.CrossingID) error {
	t := a.came(x)
	var err error
	switch t.State {
	case Asked:
		if t.unsure() {
			err = a.lookFor(ctx, t)
		}
		if t = a.came(x); err == nil && t.forgotten(a.Now()) {
			err = a.callOff(ctx, x, "its owner didn't order it within seven days")
		}
	case Copying:
		if t.recovers() {
			err = a.acceptRecovery(ctx, t)
		} else {
			err = a.copy(ctx, t)
		}
		switch {
		case err == nil:
		case a.Now().Before(t.Until) && a.decide(ctx, t, register.Petition{Want: register.Ask, Order: t.Order}) == nil && a.came(x).State != Copying:
			err = nil // this store is an older copy: it was decided
		case final(err) || !a.Now().Before(t.Until):
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
		err = errors.Join(err, a.forgetLate(ctx, x))
	}
	if err != nil || a.came(x).State != Prepared {
		a.still.give(x)
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
		longest := longPause
		if (again.State == Copying || again.State.Waits()) && !again.recovers() { // which its former world has days for
			longest = waitedPause
		}
		if again.notTill = a.Now(); again.failed > 0 {
			again.notTill = a.Now().Add(pause(again.failed-1, longest))
		}
		a.targets[x] = &again
	}
	if err != nil && ctx.Err() == nil {
		a.Log.Warn("a move waits", "crossing", x, "avatar", t.To, "from", t.From, "state", t.State, "err", err)
	}
	return err
}

// accept signs that everything is here, durably.
func (a *Agent) accept(ctx context.Context, t atTarget, all fetched) error {
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	if moving := t.Moving(); moving.Alone {
		if err := a.has(t.ID, t.To, moving.Owner); err != nil { // from now on it can't leave
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
	if t.State == Asked { // the order may have come to a newer store than this one
		if d, err := a.decidedUnordered(ctx, t); err != nil {
			return err
		} else if d != nil && d.Decision.Outcome == identity.Commit {
			return cameAlready(x)
		}
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
	without, err := a.withoutManifest(ctx, t.ID)
	if err != nil {
		return err
	}
	if !t.Moving().Alone {
		t.Request = nil // it says what the avatar has shown
	}
	t.State, t.Ended = Dropped, a.Now().UTC()
	return a.keepTarget(ctx, t, without...)
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
			moved, err := a.movedOn(t.To, r.Stream)
			return carnet.MapAnswer{Avatar: t.To, Moved: moved}, err
		}
	}
	return refuse()
}

// movedOn is how an avatar has moved away from here, to the sender of a stream of
// which nothing moved; nil: it hasn't. An item of it that moved alone has left it here.
func (a *Agent) movedOn(id carnet.AvatarID, stream carnet.StreamID) (*carnet.Moved, error) {
	a.mu.RLock()
	for _, l := range a.sources {
		if l.Avatar == id && l.State == Gone && l.Order != "" && !l.alone() {
			defer a.mu.RUnlock()
			return &carnet.Moved{Stream: stream, Order: l.Order, Terms: l.Terms, Decision: l.Decision}, nil
		}
	}
	a.mu.RUnlock()
	if _, err := a.World.Departed(id); err == nil { // as the register told first
		return nil, carnet.Errorf(carnet.Unavailable, "the avatar has moved on, and by which order isn't known here yet")
	}
	return nil, nil
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
