package thing

import "sync"

// Bounds of what the feed holds for links that lag: bytes of memory, and groups.
// A link that falls further behind reads the log instead.
const (
	maxFeedBytes  = 96 << 20
	maxFeedGroups = 4096
)

// feed hands groups to the links, in order, from the moment that their commit
// begins; the open group they read in the agent. A frame of what isn't committed
// yet is recorded by the same commit or a later one, so it can't outlast what it
// was made of. The feed holds the last few groups in memory so that a link that
// keeps up never reads the store.
type feed struct {
	release func(*group)

	mu      sync.Mutex
	groups  []*group // consecutive positions
	offered uint64   // the position after the last of them
	next    uint64   // the position after everything committed
	held    int      // bytes that groups hold
	wake    chan struct{}
	takers  map[*run]uint64 // the position that each run takes next
}

func newFeed(next uint64, release func(*group)) *feed {
	return &feed{offered: next, next: next, release: release, wake: make(chan struct{}), takers: make(map[*run]uint64)}
}

// keepBytes is how much stays although every run has taken it: a run that begins
// anew needs what its frames in flight held, which it would have to read in the
// log. What is dropped is used again for groups to come while it is warm.
const keepBytes = 1 << 20

// offer adds a group that has entries and is about to be committed.
func (f *feed) offer(g *group) {
	g.holds.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups = append(f.groups, g)
	f.offered = g.next()
	f.held += g.size()
	close(f.wake)
	f.wake = make(chan struct{})
}

// withdraw takes the group back that was offered last: it was not committed.
func (f *feed) withdraw(g *group) {
	f.mu.Lock()
	f.groups = f.groups[:len(f.groups)-1]
	f.offered = f.next
	f.held -= g.size()
	f.mu.Unlock()
	f.release(g)
}

// committed says that the group that was offered last is on disk, and drops the
// oldest: what every run has taken, and what is too much.
func (f *feed) committed(g *group) {
	f.mu.Lock()
	f.next = g.next()
	var drop []*group
	taken := f.taken()
	for f.held > keepBytes && f.groups[0].next() <= taken || len(f.groups) > 1 && f.held > maxFeedBytes || len(f.groups) > maxFeedGroups {
		f.held -= f.groups[0].size()
		drop = append(drop, f.groups[0])
		f.groups = f.groups[1:]
	}
	f.mu.Unlock()
	for _, g := range drop {
		f.release(g)
	}
}

// taken is the position before which every run has taken everything.
func (f *feed) taken() uint64 {
	taken := f.offered
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
// returns none and ok when nothing after at was offered, and !ok when position at
// is no longer in memory. The caller releases each group.
func (f *feed) from(r *run, at uint64) (ps []part, ok bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	more = f.wake
	f.takers[r] = at
	if at >= f.offered {
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
		ps = append(ps, g.hold(g.received))
	}
	return ps, true, more
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
