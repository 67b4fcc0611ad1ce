package crossing

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/policy"
)

// What a share gives is what its view shows the taker of what the giver's own avatar is
// given: the taker hears of nothing that its clearance or a policy withholds. A property that the avatar loses stops without a word in the frames, so the
// giver says it, at each connection and when it changes (docs/design/share.md).

// CallGives says what shares give now: givesCall → nothing.
const CallGives = "share-gives"

type givesCall struct {
	Shares []shareGives `json:"shares"`
}

type shareGives struct {
	Share carnet.ShareID `json:"share"`
	// Properties are names of the view's; absent: the giver doesn't know.
	Properties *[]string `json:"properties,omitempty"`
}

func (g *shareGives) same(other *shareGives) bool {
	if g.Properties == nil || other.Properties == nil {
		return g.Properties == other.Properties
	}
	return slices.Equal(*g.Properties, *other.Properties)
}

// size is roughly how many bytes it takes in a call.
func (g *shareGives) size() int {
	n := 80
	if g.Properties != nil {
		for _, name := range *g.Properties {
			n += len(name) + 4
		}
	}
	return n
}

// maxGivesCall is how large a call with more than one share may be, roughly.
const maxGivesCall = 128 << 10

// tellEvery is how long a taker that couldn't take it isn't told again.
const tellEvery = 10 * time.Second

// tellGives tells the taker what flows gives now, where that isn't what it was told on this
// connection. One that refuses it isn't told again on that connection. What flows doesn't
// wait for it: one that can't take it now is told later.
func (s *Source) tellGives(ctx context.Context) {
	changed := s.agent.World.GivesChanged() + 1 // 0: nothing was told yet
	if changed == s.gives || s.onShelf || s.agent.Now().Before(s.givesAfter) {
		return
	}
	if err := s.tellAllGive(ctx); err != nil {
		s.agent.Log.Debug("a taker can't take now what it is told of shares", "taker", s.to.Party, "err", err)
		s.givesAfter = s.agent.Now().Add(tellEvery)
		return
	}
	s.gives = changed
}

func (s *Source) tellAllGive(ctx context.Context) error {
	var call givesCall
	var told []*flowing
	size := 0
	for id, f := range s.shares {
		now := shareGives{Share: id}
		if names, known := s.agent.World.Gives(f.share.Avatar, f.share.View); known {
			names, err := f.shows(s.agent, names)
			if err != nil {
				return err
			}
			now.Properties = &names
		}
		if f.gives != nil && f.gives.same(&now) {
			continue
		}
		if size += now.size(); size > maxGivesCall && len(told) > 0 {
			if err := s.callGives(ctx, call, told); err != nil {
				return err
			}
			call, told, size = givesCall{}, nil, now.size()
		}
		call.Shares, told = append(call.Shares, now), append(told, f)
	}
	return s.callGives(ctx, call, told)
}

// Gives names what of a share's view its avatar is given now and its taker may have, as
// far as that can be told: what hasn't come yet is judged when it does. False: it isn't
// known.
func (a *Agent) Gives(g *Given) (names []string, known bool) {
	names, known = a.World.Gives(g.Avatar, g.View)
	if !known {
		return nil, false
	}
	state, err := a.stateShows(g, names)
	if err != nil {
		return nil, false
	}
	return slices.DeleteFunc(names, func(name string) bool { return state.Knows(name) && !state.Shows(name) }), true
}

// stateShows is what a share's taker may see of some properties, as far as its avatar's
// state has them.
func (a *Agent) stateShows(g *Given, names []string) (*policy.Sight, error) {
	has, err := a.World.Properties(g.Avatar)
	if err != nil {
		return nil, err
	}
	of := shown{share: g}
	err = of.see(a.Judge, slices.DeleteFunc(has, func(p policy.Property) bool { return !slices.Contains(names, p.Name) })...)
	return of.sight, err
}

// shows leaves those of some names of which the taker sees measurements: as its streams
// have shown so far; of what hasn't come since the share began, or this connection, as
// the avatar's state has it.
func (f *flowing) shows(a *Agent, names []string) (some []string, err error) {
	some = []string{}
	var state *policy.Sight
	for _, name := range names {
		known, shows := false, false
		for _, st := range f.streams {
			known, shows = known || st.shown.sight.Knows(name), shows || st.shown.sight.Shows(name)
		}
		if !known && state == nil {
			if state, err = a.stateShows(f.share, names); err != nil {
				return nil, err
			}
		}
		if shows || !known && state.Shows(name) {
			some = append(some, name)
		}
	}
	return some, nil
}

func (s *Source) callGives(ctx context.Context, call givesCall, of []*flowing) error {
	if len(of) == 0 {
		return nil
	}
	body, err := json.Marshal(call)
	if err != nil {
		return err
	}
	_, err = s.call.Call(ctx, CallGives, body)
	switch carnet.CodeOf(err) {
	case "", carnet.Unavailable, carnet.NoSpace:
		if err != nil {
			return err
		}
	default: // for good: a taker that an older program runs has no word for it
		s.agent.Log.Debug("a taker doesn't take what it is told of shares", "taker", s.to.Party, "err", err)
	}
	for i, f := range of {
		f.gives = &call.Shares[i]
	}
	return nil
}

// heardGives notes what shares give. One that isn't taken any more is passed over.
func (a *Agent) heardGives(ctx context.Context, giver carnet.PartyID, c givesCall) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	for i := range c.Shares {
		t, err := a.of(giver, c.Shares[i].Share)
		if err != nil || t.State == Ended {
			continue
		}
		if err := a.World.ShareGives(ctx, t.For, t.ID, c.Shares[i].Properties); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	return nil
}

// rouseForGives has every source look at what it gives, once what avatars are given has
// changed.
func (a *Agent) rouseForGives() {
	now := a.World.GivesChanged()
	if now == a.gives {
		return
	}
	a.gives = now
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.sources {
		s.rouse()
	}
}
