package crossing

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"carnet"
	"carnet/senml"
)

// What follows is for a giver whose store was restored from an older copy. Its
// senders send again what it lacks, but in other batches, so that a number of a stream
// isn't the measurement any more that it was. The giver begins the streams of its
// shares anew there, and leaves out what the taker says that it has.

// again is where the streams of a share began anew.
type again struct {
	Time time.Time `json:"time"` // of the last restore
	// From says where the avatar's streams stood: whatever they were given before has
	// its number still. A stream that came later begins anew at its beginning.
	From map[carnet.StreamID]uint64 `json:"from"`
	// Generation is which of the derived streams are written; 0 until the taker was
	// asked.
	Generation int `json:"generation"`
	// Copied says where the taker's copies stood when it was asked. What is copied
	// since goes beyond.
	Copied map[carnet.StreamID]uint64 `json:"copied"`
}

const (
	// maxGenerations bounds how often a share's streams begin anew.
	maxGenerations = 64
	// compareFor is how long after a restore it is compared what senders send again.
	compareFor = 24 * time.Hour
	// maxCompared bounds how many measurements of a taker are held against them: of one
	// share, and of all at once.
	maxCompared = 1 << 20
)

// restored begins the streams of the shares anew that have something of the sender
// which says that this store was restored. It is durable on return. No store is
// restored under a process, so a sender that says it again doesn't tell the truth,
// and isn't let in: each time costs a generation of derived streams.
func (a *Agent) restored(ctx context.Context, by carnet.PartyID) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.RLock()
	told := a.believed[by]
	a.mu.RUnlock()
	if told {
		return carnet.Errorf(carnet.Conflict, "%s names an incarnation of its link that nobody gave it, and this world took its word for one already since it started", by).
			WithFix("give the sender the store that it had, or invite it anew; after a restore of this world's store, start the world")
	}
	var all []given
	for _, g := range a.giving() {
		if !a.World.Hears(g.Avatar, by) {
			continue
		}
		heads, err := a.World.Heads(g.Avatar)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // its avatar isn't here any more
		} else if err != nil {
			return err
		}
		now := *g
		now.Again = &again{Time: a.Now().UTC(), From: heads}
		if g.Again != nil {
			for stream := range heads {
				now.Again.From[stream] = min(heads[stream], g.Again.From[stream])
			}
		}
		all = append(all, now)
	}
	if len(all) == 0 {
		return nil
	}
	a.Log.Warn("this world's store was restored from an older copy: what it shares begins anew, without what the takers have", "known_by", by, "shares", len(all))
	return a.keepGiven(ctx, all, nil)
}

// believe notes that a sender's word that this store was restored was taken.
func (a *Agent) believe(by carnet.PartyID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.believed == nil {
		a.believed = make(map[carnet.PartyID]bool)
	}
	a.believed[by] = true
}

// errUnasked is why a share that begins anew isn't shelved.
var errUnasked = carnet.Errorf(carnet.Unavailable, "a share begins anew, and the taker must be asked what it has")

// errManyHad is why a share that begins anew waits for the others.
var errManyHad = carnet.Errorf(carnet.Unavailable, "it is compared with more than %d measurements that the taker has of other shares", maxCompared)

// settle asks what the taker has of a share that begins anew, and makes durable which
// derived streams it goes on with.
func (s *Source) settle(ctx context.Context, id carnet.ShareID) (*given, error) {
	a := s.agent
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.RLock()
	g := *a.given[id]
	a.mu.RUnlock()
	if g.Again == nil || g.Again.Generation > 0 {
		return &g, nil
	}
	if s.onShelf {
		return nil, errUnasked
	}
	settled := *g.Again
	settled.Generation, settled.Copied = 1, make(map[carnet.StreamID]uint64)
	for source := range settled.From {
		if head, ok := s.heads[source]; ok {
			settled.Copied[source] = head.NextFirst
		}
		for generation := range maxGenerations {
			if _, ok := s.heads[derivedOf(id, source, generation)]; ok {
				settled.Generation = max(settled.Generation, generation+1)
			}
		}
	}
	if settled.Generation == maxGenerations {
		return nil, carnet.Errorf(carnet.TooLarge, "the share began anew %d times, which is as often as it may", maxGenerations)
	}
	g.Again = &settled
	if err := a.keepGiven(ctx, []given{g}, nil); err != nil {
		return nil, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.given[id], nil
}

// CallHave asks the taker what it has of a stream of a share: haveCall → haveAnswer.
const CallHave = "share-have"

type haveCall struct {
	Share  carnet.ShareID  `json:"share"`
	Stream carnet.StreamID `json:"stream"`
	From   uint64          `json:"from"` // the first measurement that is asked for
}

type haveAnswer struct {
	Next uint64 `json:"next"` // goes on here; the same as asked: there is nothing more
	Have []byte `json:"have"` // an identity after the other
}

// identity tells a measurement from others.
type identity [16]byte

func identityOf(m carnet.Measurement) identity {
	sum := carnet.FingerprintOf(senml.AppendColumns(nil, []carnet.Measurement{m}))
	return identity(sum[:])
}

// maxHave is how many identities an answer has, and those of one batch more.
const maxHave = 16384

// had is what the taker has of what a share that began anew would give it again.
type had map[identity]int

// had lists what the taker has of a share from before it began anew.
func (s *Source) had(ctx context.Context, g *given) (had, error) {
	if g.Again == nil || s.agent.Now().Sub(g.Again.Time) > compareFor {
		return nil, nil
	}
	all, n, others := make(had), 0, 0
	for _, f := range s.shares {
		others += len(f.had)
	}
	add := func(stream carnet.StreamID, from, to uint64) error {
		for from < to {
			question, err := json.Marshal(haveCall{g.ID, stream, from})
			if err != nil {
				return err
			}
			text, err := s.call.Call(ctx, CallHave, question)
			if err != nil {
				return err
			}
			var answer haveAnswer
			if err := json.Unmarshal(text, &answer); err != nil || len(answer.Have)%len(identity{}) != 0 || answer.Next < from {
				return carnet.Errorf(carnet.Malformed, "what %s says that it has can't be read", s.to.Party)
			}
			for have := answer.Have; len(have) > 0; have = have[len(identity{}):] {
				all[identity(have)]++
				n++
			}
			if n > maxCompared {
				return carnet.Errorf(carnet.TooLarge, "this world's store lacks more than %d measurements that %s has: nobody can tell what is new", maxCompared, s.to.Party)
			} else if others+n > maxCompared {
				return errManyHad
			}
			if answer.Next == from {
				return nil
			}
			from = answer.Next
		}
		return nil
	}
	for source, from := range g.Again.From {
		if err := add(source, from, g.Again.Copied[source]); err != nil {
			return nil, err
		}
		for generation := range g.Again.Generation {
			derived := derivedOf(g.ID, source, generation)
			if head, ok := s.heads[derived]; ok {
				if err := add(derived, from, head.NextFirst); err != nil {
					return nil, err
				}
			}
		}
	}
	return all, nil
}

// without takes from what is shown what the taker has already.
func (h had) without(shown []carnet.Measurement) []carnet.Measurement {
	if len(h) == 0 {
		return shown
	}
	rest := shown[:0]
	for _, m := range shown {
		id := identityOf(m)
		if n := h[id]; n > 1 {
			h[id] = n - 1
		} else if n == 1 {
			delete(h, id)
		} else {
			rest = append(rest, m)
		}
	}
	return rest
}

// have answers what this side, the taker, has of a stream of a share.
func (a *Agent) have(ctx context.Context, giver carnet.PartyID, c haveCall) ([]byte, error) {
	a.changing.Lock()
	t, err := a.of(giver, c.Share)
	a.changing.Unlock()
	if err != nil {
		return nil, err
	}
	answer := haveAnswer{Next: c.From}
	by, ok := a.World.ShareOf(c.Stream)
	if !ok || by.ID != c.Share {
		return json.Marshal(answer)
	}
	following, err := a.World.Follow(t.For, func(stream carnet.StreamID) uint64 {
		if stream == c.Stream {
			return c.From
		}
		return math.MaxInt64 // nothing of others
	}, func() {})
	if err != nil {
		return nil, err
	}
	defer following.Close()
	for len(answer.Have) < maxHave*len(identity{}) {
		e, ok, err := following.Take(ctx)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if e.Batch.Stream != c.Stream {
			continue
		}
		for _, m := range e.Measurements {
			id := identityOf(m)
			answer.Have = append(answer.Have, id[:]...)
		}
		answer.Next = e.Batch.End()
	}
	return json.Marshal(answer)
}
