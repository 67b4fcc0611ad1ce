package avatar

import (
	"bytes"
	"encoding/json"
	"slices"

	"carnet"
)

// A page of stream heads: at most so many, and no more than fit into an answer over
// a link.
const (
	headsAtOnce = 2000
	headsBytes  = 512 << 10
)

// heads says where a sender's streams stand, those with ids above one, as a page.
// Who asks sends nothing between the pages, so that together they are of one
// moment.
func (a *Agent) heads(from Sender, after carnet.StreamID) ([]byte, error) {
	streams, more := a.streamsAfter(from.Party, after)
	now := a.now().UnixNano()
	page, size := carnet.HeadsPage{Heads: []carnet.StreamHead{}}, 0
	for _, s := range streams {
		h := s.head(now, !from.Shares)
		text, err := json.Marshal(h)
		if err != nil {
			return nil, err
		}
		if size += len(text) + 1; size > headsBytes && len(page.Heads) > 0 {
			more = true
			break
		}
		page.Heads = append(page.Heads, h)
	}
	page.More = more
	return json.Marshal(page)
}

// streamsAfter returns the first of a sender's streams above an id, in order of
// their ids, and whether there are more.
func (a *Agent) streamsAfter(party carnet.PartyID, after carnet.StreamID) (first []*stream, more bool) {
	byID := func(s, t *stream) int { return bytes.Compare(s.id[:], t.id[:]) }
	cut := func() {
		slices.SortFunc(first, byID)
		if len(first) > headsAtOnce {
			first, more = first[:headsAtOnce], true
		}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.streams {
		if s.sender != party || bytes.Compare(s.id[:], after[:]) <= 0 {
			continue
		}
		if first = append(first, s); len(first) >= 4*headsAtOnce {
			cut()
		}
	}
	cut()
	return first, more
}

// head says where a stream stands; values: with the newest that came by it. What came by
// others isn't its sender's to know.
func (s *stream) head(now int64, values bool) carnet.StreamHead {
	v := s.avatar
	v.mu.Lock()
	defer v.mu.Unlock()
	head := carnet.StreamHead{Stream: s.id, NextBatch: s.nextBatch, NextFirst: s.nextFirst}
	for i := range v.latest {
		if l := &v.latest[i]; values && l.place == s.place && !l.over(now) {
			head.Latest = append(head.Latest, carnet.SeenMeasurement{Name: l.property.Value().name, Time: l.time, Value: l.num})
		}
	}
	return head
}
