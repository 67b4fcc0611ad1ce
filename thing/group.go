package thing

import (
	"sync/atomic"

	"carnet"
	"carnet/ledger"
)

// Sink is where a device's connection learns what became of its messages. Done
// is called once for each message, from the committer: it must not block nor
// write. Flush is called once after a run of Dones.
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
	first   uint64 // position of entries[0]; set by the committer
	entries []entry
	// What the entries hold, in order, and each measurement's property.
	measurements []carnet.Measurement
	properties   []uint16
	body         []byte // becomes the log row; gone once it is one
	bodySize     int
	received     int64

	acks       []ack
	refusals   []RefusalRow
	frames     []*frame
	documents  []carnet.Document
	statements []ledger.Item
	waiters    []chan<- error

	holds atomic.Int32 // who needs the group: the committer, the feed, links that read it
}

// entry is one accepted message: measurements[from:to] of its group.
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
	return g.bodySize + 72*cap(g.measurements) + 2*cap(g.properties) + 24*cap(g.entries) + 56*cap(g.acks)
}

// release gives a group back once nobody needs it any more: its slices are used
// again and reach a steady size.
func (a *Agent) release(g *group) {
	if g.holds.Add(-1) > 0 {
		return
	}
	clear(g.entries)
	clear(g.measurements)
	clear(g.acks)
	clear(g.frames)
	clear(g.waiters)
	*g = group{
		entries: g.entries[:0], measurements: g.measurements[:0], properties: g.properties[:0],
		acks: g.acks[:0], frames: g.frames[:0], waiters: g.waiters[:0],
	}
	a.groups.Put(g)
}
