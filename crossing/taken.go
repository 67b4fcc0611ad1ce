package crossing

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/link"
)

// Taken is a share at its taker.
type Taken struct {
	Question
	Giver  carnet.PartyID `json:"giver"`
	State  State          `json:"state"`
	Asked  time.Time      `json:"asked"`
	Answer *Answer        `json:"answer,omitempty"` // the giver's last
	Renew  time.Time      `json:"renew,omitzero"`   // when it is asked again
	End    *End           `json:"end,omitempty"`
}

type taken struct {
	Taken
	version uint64
	asking  bool      // a question is under way
	again   int       // it is to be asked for, whatever Renew says
	notTill time.Time // it isn't asked again before
	refused int       // how often in a row the giver has said no
}

func (t *taken) state() State {
	if t == nil {
		return None
	}
	return t.State
}

func (a *Agent) loadTaken(ctx context.Context) error {
	return a.World.EachKept(ctx, kindTaken, func(_ string, version uint64, open func(any) error) error {
		t := &taken{version: version}
		if err := open(&t.Taken); err != nil {
			return err
		}
		a.taken[t.ID] = t
		return nil
	})
}

// keepTaken stores a share's next document and takes it up. The caller holds
// changing.
func (a *Agent) keepTaken(ctx context.Context, t taken, statements ...ledger.Statement) error {
	t.version++
	kept := avatar.Kept{Kind: kindTaken, ID: t.ID.String(), Version: t.version, Body: t.Taken}
	if err := a.World.Keep(ctx, []avatar.Kept{kept}, statements); err != nil {
		return err
	}
	a.note(t)
	return nil
}

func (a *Agent) takenBy(id carnet.ShareID) *taken {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.taken[id]
}

// Take asks a giver for what its avatar is given, for an avatar that is here. It is
// stored first, and asked until the giver answers: what came of the first question
// is in what is returned.
func (a *Agent) Take(ctx context.Context, giver carnet.PartyID, theirs, ours carnet.AvatarID, purpose string) (Taken, error) {
	if _, err := a.World.Avatar(ours); err != nil {
		return Taken{}, err
	}
	t := taken{asking: true, Taken: Taken{
		Question: Question{ID: carnet.NewShareID(), Avatar: theirs, For: ours, Purpose: purpose, View: a.Own},
		Giver:    giver, State: Asked, Asked: a.Now().UTC(),
	}}
	a.changing.Lock()
	err := a.keepTaken(ctx, t, ledger.Statement{
		Kind: ledger.ShareTaken, Time: a.Now().UnixNano(), Who: a.Party, Peer: giver, Avatar: ours,
	})
	a.changing.Unlock()
	if err != nil {
		return Taken{}, err
	}
	if err := a.question(ctx, t.ID, 1); err != nil {
		return a.takenBy(t.ID).Taken, err
	}
	return a.takenBy(t.ID).Taken, nil
}

const (
	// renewAhead is how long before the end of an answer it is asked again.
	renewAhead = time.Minute
	// noAgain is how often in a row one process of a giver says no to who asks again
	// until it is believed: one that has just started refuses everybody for a moment.
	noAgain = 10
	// askAtOnce is how many questions are asked again at once.
	askAtOnce = 64
)

// question asks the giver and keeps its answer: a no when it is one of so many in a
// row.
func (a *Agent) question(ctx context.Context, id carnet.ShareID, believed int) error {
	t := a.takenBy(id)
	q := t.Question
	q.Taking = t.State == Taking
	answer, refused := a.Asker.Ask(ctx, t.Giver, q)
	a.changing.Lock()
	defer a.changing.Unlock()
	now := *a.takenBy(id) // it may have been ended meanwhile
	now.asking, now.notTill = false, a.Now().Add(a.AskPause)
	switch carnet.CodeOf(refused) {
	case carnet.Unavailable, carnet.NoSpace:
		now.refused = 0
		a.note(now)
		return nil
	case "":
		a.note(now)
		state, ok := now.State.next(yes)
		if refused != nil || !ok {
			return refused
		}
		now.State, now.Answer, now.refused = state, &answer, 0
		if now.again == t.again { // else another process of the giver began meanwhile
			now.again = 0
		}
		now.Renew = answer.Until.Add(-min(renewAhead, answer.Until.Sub(a.Now())/2))
		return a.keepTaken(ctx, now)
	}
	now.refused++
	a.note(now)
	if now.refused < believed {
		return nil
	}
	if _, ok := now.State.next(no); !ok {
		return refused
	}
	return cmp.Or(a.endTaken(ctx, now, string(now.Giver), refused.Error()), refused)
}

// note takes up what is known of a share in memory only. The caller holds changing.
func (a *Agent) note(t taken) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken[t.ID] = &t
}

// askAgain asks for what was asked and not answered, and for what ends soon.
func (a *Agent) askAgain(ctx context.Context) {
	for _, t := range a.due() {
		a.questions.Go(func() {
			if err := a.question(ctx, t.ID, noAgain); err != nil && ctx.Err() == nil {
				a.Log.Warn("a share was asked for", "share", t.ID, "giver", t.Giver, "err", err)
			}
		})
	}
}

// begun hears that a giver has begun a connection: if by another process than
// before, what is taken of it is asked for again, and what the one before has refused
// counts no more. Its store, or this one, may be an older copy, in which a share isn't
// what the other side has.
func (a *Agent) begun(giver carnet.PartyID, process link.Process) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.processes[giver] == process {
		return
	}
	a.processes[giver] = process
	for id, t := range a.taken {
		if t.Giver != giver || t.State == Ended {
			continue
		}
		now := *t
		now.refused = 0
		if t.State == Taking {
			now.again++
		}
		a.taken[id] = &now
	}
}

// due lists the shares that are to be asked for now, and notes that they are.
func (a *Agent) due() (all []*taken) {
	now := a.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	asking := 0
	for _, t := range a.taken {
		if t.asking {
			asking++
		}
	}
	for id, t := range a.taken {
		is := t.State == Asked || t.State == Taking && (t.again > 0 || !now.Before(t.Renew))
		if !is || t.asking || now.Before(t.notTill) || asking >= askAtOnce {
			continue
		}
		asking++
		asked := *t
		asked.asking = true
		a.taken[id] = &asked
		all = append(all, &asked)
	}
	return all
}

// Taken lists the shares that are asked for, taken or ended, in order of their
// beginnings.
func (a *Agent) Taken() []Taken {
	a.mu.RLock()
	all := make([]Taken, 0, len(a.taken))
	for _, t := range a.taken {
		all = append(all, t.Taken)
	}
	a.mu.RUnlock()
	slices.SortFunc(all, func(p, q Taken) int {
		return cmp.Or(p.Asked.Compare(q.Asked), cmp.Compare(p.ID.String(), q.ID.String()))
	})
	return all
}

// StopTaking ends a share at its taker, and tells the giver if it can be reached
// now: one that isn't told hears it when it next has something to send.
func (a *Agent) StopTaking(ctx context.Context, id carnet.ShareID, by, why string) error {
	a.changing.Lock()
	t := a.takenBy(id)
	if _, ok := t.state().next(over); !ok {
		a.changing.Unlock()
		return carnet.Errorf(carnet.NotFound, "there is no share %s", id).WithFix("list the shares")
	}
	err := a.endTaken(ctx, *t, by, why)
	a.changing.Unlock()
	if err != nil {
		return err
	}
	if err := a.Asker.Stop(ctx, t.Giver, t.Question); err != nil {
		a.Log.Info("the giver of a share was not told that it has ended", "share", id, "giver", t.Giver, "err", err)
	}
	return nil
}

// endTaken ends a share at its taker: its streams take nothing more. The caller
// holds changing.
func (a *Agent) endTaken(ctx context.Context, t taken, by, why string) error {
	if err := a.World.EndShare(ctx, t.ID); err != nil {
		return err
	}
	if t.State == Ended {
		return nil
	}
	t.State, t.End = Ended, &End{a.Now().UTC(), by, why}
	a.Log.Info("a share has ended", "share", t.ID, "giver", t.Giver, "by", by, "why", why)
	return a.keepTaken(ctx, t, ledger.Statement{
		Kind: ledger.ShareEnded, Time: a.Now().UnixNano(), Who: a.Party, Peer: t.Giver, Avatar: t.For, Reason: clip(why),
	})
}

// Call answers what a giver asks over the link; handled is false for what isn't
// about shares.
func (a *Agent) Call(ctx context.Context, giver carnet.PartyID, kind string, body []byte) (answer []byte, handled bool, err error) {
	switch kind {
	case CallStream:
		var c streamCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, true, carnet.Errorf(carnet.Malformed, "a share's stream can't be read: %v", err)
		}
		return nil, true, a.takeStream(ctx, giver, c)
	case CallHave:
		var c haveCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, true, carnet.Errorf(carnet.Malformed, "a question about a share's stream can't be read: %v", err)
		}
		answer, err = a.have(ctx, giver, c)
		return answer, true, err
	case CallGives:
		var c givesCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, true, carnet.Errorf(carnet.Malformed, "what shares give can't be read: %v", err)
		}
		return nil, true, a.heardGives(ctx, giver, c)
	case CallEnd:
		var c endCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, true, carnet.Errorf(carnet.Malformed, "the end of a share can't be read: %v", err)
		}
		return nil, true, a.heardEnd(ctx, giver, c)
	}
	return nil, false, nil
}

// of returns a share that a giver may speak of. The caller holds changing.
func (a *Agent) of(giver carnet.PartyID, id carnet.ShareID) (*taken, error) {
	t := a.takenBy(id)
	if t == nil || t.Giver != giver {
		return nil, carnet.Errorf(carnet.NotFound, "there is no share %s", id)
	}
	return t, nil
}

func (a *Agent) takeStream(ctx context.Context, giver carnet.PartyID, c streamCall) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	t, err := a.of(giver, c.Share)
	if err != nil {
		return err
	}
	if _, ok := t.State.next(stream); !ok {
		return carnet.Errorf(carnet.Forbidden, "the share %s has ended", c.Share)
	}
	return a.World.Enter(ctx, c.Stream, giver, t.For, avatar.Shared{ID: t.ID, Onward: t.Answer != nil && t.Answer.Onward}, c.From)
}

func (a *Agent) heardEnd(ctx context.Context, giver carnet.PartyID, c endCall) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	t, err := a.of(giver, c.Share)
	if err != nil {
		return err
	}
	return a.endTaken(ctx, *t, string(giver), c.Why)
}
