package thing

import (
	"sync"
	"sync/atomic"

	"carnet"
	"carnet/ledger"
)

// Sink is where a device's connection learns what became of its messages. Done
// is called once for each message, from the committer: it must not block nor
// write. Flush is called once after a run of Dones. Sinks are compared with ==.
type Sink interface {
	Done(token uint64, outcome Outcome)
	Flush()
}

// Outcome says what became of a message. The zero Outcome is: stored.
type Outcome struct {
	// Refused is why the message can never be accepted. That it was refused is
	// on disk.
	Refused *carnet.Error
	// Retry is why the message isn't stored for the moment; the device should
	// send it again. It must not be acknowledged.
	Retry *carnet.Error
}

// group is what becomes durable together. It fills while its predecessor is
// committed; entries then stay readable until every link has taken them.
type group struct {
	first   uint64 // position of entries[0]; set when the group is opened
	entries []entry
	samples []sample // what the entries hold, in order
	texts   texts
	body    []byte // becomes the log row; gone once it is one
	// bodySize is what body came to.
	bodySize int
	received int64 // when it was closed; before that, when the one before it was

	acks       []ack
	refusals   []RefusalRow
	frames     []*frame
	documents  []carnet.Document
	statements []ledger.Item
	waiters    []chan<- error

	holds atomic.Int32 // who needs the group: the committer, the feed, links that read it
}

// part is what a group holds so far, readable while the group is held: it stays
// as it is while the group goes on filling.
type part struct {
	group   *group
	hour    uint32 // of receipt
	entries []entry
	samples []sample
	texts   texts
}

// hold returns what the group holds, received at the given time, and holds it.
func (g *group) hold(received int64) part {
	g.holds.Add(1)
	return part{g, hourOf(received), g.entries, g.samples, g.texts}
}

// first is the position of the part's first entry, and next that after its last.
func (p *part) first() uint64 { return p.group.first }
func (p *part) next() uint64  { return p.group.first + uint64(len(p.entries)) }

// entry is one accepted message: samples[from:to] of its group.
type entry struct {
	thing    *Thing
	from, to int
}

type ack struct {
	sink    Sink
	token   uint64
	outcome Outcome
}

func (g *group) empty() bool {
	return len(g.acks) == 0 && len(g.frames) == 0 && len(g.waiters) == 0 && len(g.refusals) == 0
}

// next is the position after the group's last.
func (g *group) next() uint64 { return g.first + uint64(len(g.entries)) }

// size is about how many bytes of memory the group holds.
func (g *group) size() int {
	return g.bodySize + 24*cap(g.samples) + 24*cap(g.entries) + 56*cap(g.acks)
}

// newGroup makes a group that its committer holds.
func newGroup() *group {
	g := new(group)
	g.holds.Store(1)
	return g
}

// release gives a group back once nobody needs it any more.
func (a *Agent) release(g *group) {
	if g.holds.Add(-1) > 0 {
		return
	}
	clear(g.entries)
	clear(g.texts)
	clear(g.acks)
	clear(g.frames)
	clear(g.waiters)
	*g = group{
		entries: g.entries[:0], samples: g.samples[:0], texts: g.texts[:0],
		acks: g.acks[:0], frames: g.frames[:0], waiters: g.waiters[:0],
	}
	a.spare.put(g)
}

// spareBytes is how much memory waits to be used again.
const spareBytes = 32 << 20

// spare holds groups to be used again: their slices have reached a steady size,
// and memory that was touched lately costs least. The garbage collector, which
// empties a sync.Pool, would have them grow anew each time.
type spare struct {
	mu     sync.Mutex
	groups []*group
	held   int
}

func (s *spare) put(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size := g.size(); s.held+size <= spareBytes {
		s.groups = append(s.groups, g)
		s.held += size
	}
}

// take returns the group that was used last, or a new one.
func (s *spare) take() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.groups)
	if n == 0 {
		return new(group)
	}
	g := s.groups[n-1]
	s.groups = s.groups[:n-1]
	s.held -= g.size()
	return g
}
