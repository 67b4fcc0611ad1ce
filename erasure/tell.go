package erasure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/depot"
	"carnet/identity"
	"carnet/ledger"
)

// Call is what one world asks another over the link: Telling → Told.
const Call = "erase"

// Telling tells another world to erase what it has by a share or a crossing.
type Telling struct {
	Order    string             `json:"order"`
	Share    *carnet.ShareID    `json:"share,omitempty"`
	Streams  []carnet.StreamID  `json:"streams,omitempty"` // of the share; none: all
	Crossing *carnet.CrossingID `json:"crossing,omitempty"`
	// Role is as what it had something of the crossing; "": DeletedFormer.
	Role identity.DeletionRole `json:"role,omitempty"`
	// Under is the share by which the one who tells was told itself; none: by the owner,
	// or by a move.
	Under *carnet.ShareID `json:"under,omitempty"`
}

// Told is what it answers.
type Told struct {
	State     State     `json:"state"`
	Deletions []string  `json:"deletions,omitempty"` // its own, and of those whom it told
	Waiting   []Waiting `json:"waiting,omitempty"`
}

// maxWaits is how long it may be by way of whom somebody waits, and why.
const maxWaits = 1024

// tellTime is how long somebody may take over an answer.
const tellTime = 30 * time.Second

// tellAll tells those whose turn it is, each by itself.
func (a *Agent) tellAll(ctx context.Context, key string, telling *sync.WaitGroup) {
	h := a.erasure(key)
	a.mu.RLock()
	turn := h.toTell(a.Now())
	a.mu.RUnlock()
	for _, i := range turn {
		o := h.Others[i]
		if o.Role == identity.DeletedThings {
			a.tryAgain(key, &o, nil)
			a.tellSpeakers(&Erasure{Order: h.Order, Others: []Other{o}})
			telling.Go(func() { a.awaitSpeaker(ctx, key, o) })
			continue
		}
		telling.Go(func() { a.tell(ctx, key, o) })
	}
}

// tell tells one of the others, and keeps what it answers.
func (a *Agent) tell(ctx context.Context, key string, o Other) {
	within, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	h := a.erasure(key)
	var err error
	var answered Other
	var gone []carnet.Document
	switch o.Role {
	case identity.DeletedAtDepot:
		answered, gone, err = a.tellDepot(within, &h.Erasure, o)
	case identity.DeletedAtDPM:
		answered, err = a.tellDPM(within, &h.Erasure, o)
	case Registers:
		answered, err = a.tellRegistrar(within, &h.Erasure, o)
	default:
		answered, err = a.tellWorld(within, &h.Erasure, o)
	}
	if err == nil {
		err = a.heard(ctx, key, answered, gone...)
	}
	a.tryAgain(key, &o, err)
	if err != nil && ctx.Err() == nil {
		a.notReached(ctx, key, o, err.Error())
	}
}

// tryAgain notes when somebody is told next, if it is needed.
func (a *Agent) tryAgain(key string, o *Other, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.erasures[key]
	if h == nil {
		return
	}
	t := h.tried[o.key()]
	if t == nil {
		t = new(trying)
		h.tried[o.key()] = t
	}
	t.notTill, t.again = a.Now().Add(pause(t.failed)), false
	t.failed++
}

// notReached notes since when and why somebody hasn't answered.
func (a *Agent) notReached(ctx context.Context, key string, o Other, why string) {
	a.changing.Lock()
	defer a.changing.Unlock()
	h := a.erasure(key)
	i := slices.IndexFunc(h.Others, func(p Other) bool { return p.same(&o) })
	if i < 0 || !h.Others[i].Heard.IsZero() || h.Others[i].Why == why && !h.Others[i].Since.IsZero() {
		return
	}
	h.Others = slices.Clone(h.Others)
	if h.Others[i].Since.IsZero() {
		h.Others[i].Since = a.Now().UTC()
	}
	h.Others[i].Why = why
	if err := a.keep(context.WithoutCancel(ctx), h, nil); err != nil {
		a.Log.Warn("who isn't reached by an erasure couldn't be noted", "erasure", key, "err", err)
	}
}

// heard keeps what somebody answered.
func (a *Agent) heard(ctx context.Context, key string, o Other, gone ...carnet.Document) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	h := a.erasure(key)
	i := slices.IndexFunc(h.Others, func(p Other) bool { return p.same(&o) })
	if i < 0 {
		return nil
	}
	before := h.Others[i]
	if o.Heard.IsZero() && before.Since.IsZero() {
		o.Since = a.Now().UTC()
	} else if o.Heard.IsZero() {
		o.Since = before.Since
	}
	if !before.Heard.IsZero() && !o.Heard.IsZero() && slices.Equal(before.Deletions, o.Deletions) {
		return nil
	}
	h.Others = slices.Clone(h.Others)
	h.Others[i] = o
	if o.Heard.IsZero() {
		var ok bool
		if h.State, ok = Next(h.State, Another); !ok {
			return nil
		}
	}
	var statements []ledger.Statement
	for _, d := range o.Deletions {
		if !slices.Contains(before.Deletions, d) {
			statements = append(statements, ledger.Statement{
				Kind: ledger.DeletionTaken, Time: a.Now().UnixNano(), Peer: o.Party, Avatar: h.Avatar, Object: hashOf(d),
			})
		}
	}
	return a.keep(ctx, h, statements, gone...)
}

// deletionOf reads a deletion that must be a party's own, for what it was told.
func (a *Agent) deletionOf(e *Erasure, o *Other, token string) error {
	d, err := identity.OpenDeletion(token)
	if err != nil {
		return carnet.Errorf(carnet.Tampered, "its deletion can't be believed: %v", err)
	}
	switch {
	case d.Erasure != e.ID || d.Order != hashOf(e.Order):
		err = carnet.Errorf(carnet.Tampered, "its deletion is of another erasure")
	case d.By != a.Peer(o.Party):
		err = carnet.Errorf(carnet.Tampered, "its deletion is signed by another key than its own")
	case d.Role != o.Role || d.Of != o.Of:
		err = carnet.Errorf(carnet.Tampered, "its deletion is as %s of %q, and it was told as %s of %q", d.Role, d.Of, o.Role, o.Of)
	case d.Named != identity.ErasedStreams(o.Streams):
		err = carnet.Errorf(carnet.Tampered, "its deletion is of other streams of %q than the %d that it was told", d.Of, len(o.Streams))
	}
	return err
}

func (a *Agent) tellWorld(ctx context.Context, e *Erasure, o Other) (Other, error) {
	t := Telling{Order: e.Order, Streams: o.Streams}
	if e.Role == identity.DeletedShare {
		under, err := shareOf(e.Of)
		if err != nil {
			return o, err
		}
		t.Under = &under
	}
	if o.Role == identity.DeletedShare {
		id, err := shareOf(o.Of)
		if err != nil {
			return o, err
		}
		t.Share = &id
	} else {
		var id carnet.CrossingID
		if err := id.UnmarshalText([]byte(o.Of)); err != nil {
			return o, err
		}
		t.Crossing, t.Role = &id, o.Role
	}
	body, err := json.Marshal(t)
	if err != nil {
		return o, err
	}
	answer, err := a.Tell(ctx, o.Party, Call, body)
	if err != nil {
		return o, err
	}
	var told Told
	if err := json.Unmarshal(answer, &told); err != nil {
		return o, carnet.Errorf(carnet.Malformed, "its answer can't be read: %v", err)
	}
	return a.answered(e, o, told)
}

// answered holds what a world answers against what it was told. Deletions of others
// are believed to be of this erasure only.
func (a *Agent) answered(e *Erasure, o Other, told Told) (Other, error) {
	const most = 1024
	if len(told.Deletions) > most || len(told.Waiting) > most {
		return o, carnet.Errorf(carnet.TooLarge, "it answers with %d deletions, and %d that wait", len(told.Deletions), len(told.Waiting))
	}
	for i := range told.Waiting {
		w := &told.Waiting[i]
		w.Party, w.Why = carnet.Shorten(w.Party, maxWaits), carnet.Shorten(w.Why, maxWaits)
	}
	o.Below, o.Why = told.Waiting, ""
	own := false
	for _, token := range told.Deletions {
		if a.deletionOf(e, &o, token) == nil {
			own = true
			continue
		}
		d, err := identity.OpenDeletion(token)
		if err != nil || d.Erasure != e.ID || d.Order != hashOf(e.Order) {
			return o, carnet.Errorf(carnet.Tampered, "it brings a deletion that isn't one of this erasure")
		}
	}
	o.Deletions = told.Deletions
	switch {
	case told.State == Over && !own, told.State == Erased && !own:
		if len(told.Deletions) > 0 {
			return o, a.deletionOf(e, &o, told.Deletions[0])
		}
		return o, carnet.Errorf(carnet.Tampered, "it says that nothing is left, and signs no deletion")
	case told.State == Over && len(told.Waiting) == 0:
		o.Heard, o.Since = a.Now().UTC(), time.Time{}
	case told.State == Erased || told.State == Over:
		o.Why = "nothing is left there, and it waits for others"
	default:
		o.Why = fmt.Sprintf("it is at it: %.20s", told.State)
		for _, w := range told.Waiting {
			o.Why = w.Why
		}
	}
	return o, nil
}

func (a *Agent) tellDepot(ctx context.Context, e *Erasure, o Other) (Other, []carnet.Document, error) {
	if err := a.Shares.Withdrawn(ctx, e.ID); err != nil {
		return o, nil, err
	}
	if err := a.nothingBefore(ctx, e); err != nil {
		return o, nil, err
	}
	objects, err := a.World.Doomed(ctx, e.ID)
	if err != nil {
		return o, nil, err
	}
	o.Why, o.Deletions = "", slices.Clone(o.Deletions) // of what it was asked before; somebody else may be told by the same
	for rest := objects; len(o.Deletions) == 0 || len(rest) > 0; rest = rest[min(len(rest), depot.MaxErasing):] {
		some := append([]carnet.Fingerprint{}, rest[:min(len(rest), depot.MaxErasing)]...)
		var token string
		err := a.World.AtDepot(func() (err error) {
			token, err = a.Depot.Erase(ctx, depot.Erasing{Erasure: e.ID, Order: hashOf(e.Order), Objects: some})
			return err
		})
		if err != nil {
			return o, nil, err
		}
		if err := a.deletionOf(e, &o, token); err != nil {
			return o, nil, err
		}
		if d, _ := identity.OpenDeletion(token); d.Objects != uint64(len(some)) {
			return o, nil, carnet.Errorf(carnet.Tampered, "its deletion is of %d objects, and it was asked for %d", d.Objects, len(some))
		}
		o.Deletions = append(o.Deletions, token)
	}
	o.Heard, o.Since = a.Now().UTC(), time.Time{}
	gone, err := a.World.Undoomed(ctx, objects)
	return o, gone, err
}

// nothingBefore refuses to have the depot sign for an erasure while it may have something
// of the same that it was to delete before: for another reason, of which it isn't written
// whose it was, or for an erasure that has begun earlier.
func (a *Agent) nothingBefore(ctx context.Context, e *Erasure) error {
	if err := a.World.DeleteDoomed(ctx); err != nil {
		return fmt.Errorf("what it was to delete before: %w", err)
	}
	for _, other := range a.before(e) {
		if objects, err := a.World.Doomed(ctx, other); err != nil {
			return err
		} else if len(objects) > 0 {
			return carnet.Errorf(carnet.Unavailable, "it is to sign for %d objects of the erasure %s first", len(objects), other)
		}
	}
	return nil
}

// before lists the erasures that were hidden before one, and go on here.
func (a *Agent) before(e *Erasure) (all []carnet.ErasureID) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, h := range a.erasures {
		if h.ID == e.ID || h.State == Elsewhere || h.Hidden.IsZero() || slices.Contains(all, h.ID) {
			continue
		}
		if c := h.Hidden.Compare(e.Hidden); c < 0 || c == 0 && bytes.Compare(h.ID[:], e.ID[:]) < 0 {
			all = append(all, h.ID)
		}
	}
	return all
}

// tellDPM has a DPM erase what it has of this world's jobs over what is erased.
func (a *Agent) tellDPM(ctx context.Context, e *Erasure, o Other) (Other, error) {
	tokens, of, err := a.Jobs.TellErased(ctx, o.Party, e.ID)
	if err != nil {
		return o, err
	}
	for i, token := range tokens {
		if err := a.deletionOf(e, &o, token); err != nil {
			return o, err
		}
		if d, _ := identity.OpenDeletion(token); d.Jobs != uint64(of[i]) {
			return o, carnet.Errorf(carnet.Tampered, "its deletion is of %d jobs, and it was asked for %d", d.Jobs, of[i])
		}
	}
	o.Deletions, o.Heard, o.Since, o.Why = tokens, a.Now().UTC(), time.Time{}, ""
	return o, nil
}

func (a *Agent) tellRegistrar(ctx context.Context, e *Erasure, o Other) (Other, error) {
	order, err := identity.OpenErasure(e.Order)
	if err != nil {
		return o, err
	}
	registrar, did, err := a.Registrar()
	if err != nil {
		return o, err
	}
	if did != order.Registrar {
		return o, carnet.Errorf(carnet.Unavailable, "the home is registered at %s, which is not the register that this world asks", order.Registrar).
			WithFix("peer this world with the depot that keeps it")
	}
	// A home that has moved here is enrolled, by another world.
	if _, _, err := registrar.Enrol(ctx, order.Home, order.Owner); err != nil && carnet.CodeOf(err) != carnet.Conflict {
		return o, err
	}
	if _, _, err := registrar.Erase(ctx, order.Home, e.Order); err != nil {
		return o, err
	}
	o.Heard, o.Since, o.Why = a.Now().UTC(), time.Time{}, ""
	return o, nil
}

// tellSpeakers has the world tell the things agents that speak for an avatar.
func (a *Agent) tellSpeakers(e *Erasure) {
	var all []carnet.Erased
	for i := range e.Others {
		if o := &e.Others[i]; o.Role == identity.DeletedThings {
			if id, err := carnet.ParseStreamID(o.Of); err == nil {
				all = append(all, carnet.Erased{Stream: id, Order: e.Order})
			}
		}
	}
	if len(all) > 0 {
		a.World.TellErased(all)
	}
}

// awaitSpeaker notes that a things agent hasn't answered.
func (a *Agent) awaitSpeaker(ctx context.Context, key string, o Other) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(shortPause):
	}
	if h := a.erasure(key); slices.ContainsFunc(h.Others, func(p Other) bool { return p.same(&o) && p.Heard.IsZero() && p.Why == "" }) {
		a.notReached(ctx, key, o, "it hasn't answered yet; it is told at each connection")
	}
}

// Unmapped implements avatar.Unmappings: a things agent has ended a stream whose avatar
// is erased, or says why not.
func (a *Agent) Unmapped(ctx context.Context, party carnet.PartyID, answer carnet.Unmapped) error {
	want := Other{Role: identity.DeletedThings, Party: party, Of: answer.Stream.String()}
	for _, e := range a.All() {
		i := slices.IndexFunc(e.Others, func(o Other) bool { return o.same(&want) })
		if i < 0 {
			continue
		}
		o := e.Others[i]
		if answer.Deletion == "" {
			a.notReached(ctx, e.key(), o, "it refuses: "+clip(answer.Why))
			return nil
		}
		if err := a.deletionOf(&e, &o, answer.Deletion); err != nil {
			a.notReached(ctx, e.key(), o, err.Error())
			return err
		}
		if !o.Heard.IsZero() {
			return nil
		}
		o.Deletions, o.Heard, o.Since, o.Why = []string{answer.Deletion}, a.Now().UTC(), time.Time{}, ""
		err := a.heard(ctx, e.key(), o)
		a.rouse()
		return err
	}
	return carnet.Errorf(carnet.NotFound, "no erasure waits for the stream %s of %s", answer.Stream, party)
}

func clip(why string) string { return why[:min(len(why), 400)] }

// Connected hears that the link to a world has begun anew: who waits there is told at
// once, and who has answered is told again, since it may be an older copy by now.
func (a *Agent) Connected(world carnet.PartyID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.erasures {
		for i := range h.Others {
			if o := &h.Others[i]; o.Party == world {
				h.tried[o.key()] = &trying{again: o.tellsWorld()}
			}
		}
	}
	a.rouse()
}

func (o *Other) tellsWorld() bool {
	return o.Role == identity.DeletedShare || o.Role == identity.DeletedFormer || o.Role == identity.DeletedComing
}
