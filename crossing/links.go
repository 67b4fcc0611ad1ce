package crossing

import (
	"cmp"
	"maps"
	"slices"

	"carnet"
)

// Link is how this world stands with another one that it gives shares to or takes
// them from.
type Link struct {
	World   carnet.PartyID `json:"world" doc:"The other world, as this one calls it."`
	Giving  int            `json:"giving" doc:"Shares in force that this world gives."`
	Taking  int            `json:"taking" doc:"Shares in force that it takes."`
	Acked   uint64         `json:"acked" doc:"Frames that the other world has acknowledged."`
	Waiting bool           `json:"waiting" doc:"Something that is given isn't acknowledged yet."`
	Trouble string         `json:"trouble,omitempty" doc:"Since when the other world can't be reached, and why."` // filled in by who runs the link
}

// Links lists the worlds with which there are shares, or were since the start, in
// the order of their names.
func (a *Agent) Links() []Link {
	a.mu.RLock()
	defer a.mu.RUnlock()
	links := make(map[carnet.PartyID]*Link)
	of := func(world carnet.PartyID) *Link {
		if links[world] == nil {
			links[world] = &Link{World: world}
		}
		return links[world]
	}
	for _, g := range a.given {
		if g.End == nil {
			of(g.Taker).Giving++
		}
	}
	for _, t := range a.taken {
		if t.State == Taking {
			of(t.Giver).Taking++
		}
	}
	for world, s := range a.sources {
		acked, waiting := s.stands()
		if l := links[world]; l != nil || acked > 0 {
			l = of(world)
			l.Acked, l.Waiting = acked, waiting && l.Giving > 0
		}
	}
	all := make([]Link, 0, len(links))
	for _, l := range slices.SortedFunc(maps.Values(links), func(p, q *Link) int { return cmp.Compare(p.World, q.World) }) {
		all = append(all, *l)
	}
	return all
}

// stands says how many frames the taker has acknowledged, and whether there is
// something that it hasn't.
func (s *Source) stands() (acked uint64, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known.Number, !s.begunAll || s.filling || len(s.dirty)+len(s.aside)+len(s.sent)+len(s.done) > 0
}

// Streams are the source streams of a share: each with the measurement from which on
// it is shared, and the stream of what is derived from it, whether anything is yet or
// not. A stream that came since the share began is shared from its beginning.
func (a *Agent) Streams(id carnet.ShareID) (from map[carnet.StreamID]uint64, derived map[carnet.StreamID]carnet.StreamID) {
	a.mu.RLock()
	g := a.given[id]
	a.mu.RUnlock()
	if g == nil {
		return nil, nil
	}
	streams, err := a.World.Heads(g.Avatar)
	if err != nil {
		return nil, nil // the avatar isn't here any more
	}
	derived = make(map[carnet.StreamID]carnet.StreamID)
	for source := range streams {
		derived[source] = derivedOf(id, source, g.generation())
	}
	return maps.Clone(g.From), derived
}
