package thing

import "sync"

// Bounds of what the feed holds for links that lag: bytes of memory, and groups.
// A link that falls further behind reads the log instead.
const (
	maxFeedBytes  = 96 << 20
	maxFeedGroups = 4096
)

// feed hands committed groups to the links, in order. It holds the last few in
// memory so that a link that keeps up never reads the store.
type feed struct {
	release func(*group)

	mu     sync.Mutex
	groups []*group // consecutive positions
	next   uint64   // the position after everything committed
	held   int      // bytes that groups hold
	wake   chan struct{}
	takers map[*run]uint64 // the position that each run takes next
}

func newFeed(next uint64, release func(*group)) *feed {
	return &feed{next: next, release: release, wake: make(chan struct{}), takers: make(map[*run]uint64)}
}

// keepBytes is how much stays although every run has taken it: a run that begins
// anew needs what its frames in flight held, which it would have to read in the
// log. What is dropped is used again for groups to come while it is warm.
const keepBytes = 1 << 20

// put adds a committed group that has entries, and drops the oldest: what every
// run has taken, and what is too much.
func (f *feed) put(g *group) {
	g.holds.Add(1)
	f.mu.Lock()
	f.groups = append(f.groups, g)
	f.next = g.next()
	f.held += g.size()
	var drop []*group
	taken := f.taken()
	for f.held > keepBytes && f.groups[0].next() <= taken || len(f.groups) > 1 && f.held > maxFeedBytes || len(f.groups) > maxFeedGroups {
		f.held -= f.groups[0].size()
		drop = append(drop, f.groups[0])
		f.groups = f.groups[1:]
	}
	close(f.wake)
	f.wake = make(chan struct{})
	f.mu.Unlock()
	for _, g := range drop {
		f.release(g)
	}
}

// taken is the position before which every run has taken everything.
func (f *feed) taken() uint64 {
	taken := f.next
	for _, at := range f.takers {
		taken = min(taken, at)
	}
	return taken
}

// leave forgets a run that has ended.
func (f *feed) leave(r *run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.takers, r)
}

// takeGroups is how many groups a link takes at once.
const takeGroups = 16

// from returns the group that holds position at and some after it, in order. It
// returns none and ok when nothing after at is committed, and !ok when position
// at is no longer in memory. The caller releases each group.
func (f *feed) from(r *run, at uint64) (gs []*group, ok bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	more = f.wake
	f.takers[r] = at
	if at >= f.next {
		return nil, true, more
	}
	if len(f.groups) == 0 || f.groups[0].first > at {
		return nil, false, more
	}
	// The usual case is the newest group or two: search from the end.
	i := len(f.groups)
	for i > 0 && f.groups[i-1].next() > at {
		i--
	}
	for _, g := range f.groups[i:min(len(f.groups), i+takeGroups)] {
		g.holds.Add(1)
		gs = append(gs, g)
	}
	return gs, true, more
}

// end is the position after everything committed.
func (f *feed) end() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// oldest is the first position that the feed still holds.
func (f *feed) oldest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.groups) == 0 {
		return f.next
	}
	return f.groups[0].first
}
