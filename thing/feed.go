package thing

import "sync"

// maxFeed bounds how many measurements the feed holds for links that lag; a
// link that falls further behind reads the log instead.
const maxFeed = 1 << 20

// feed hands committed groups to the links, in order. It holds the last few in
// memory so that a link that keeps up never reads the store.
type feed struct {
	release func(*group)

	mu     sync.Mutex
	groups []*group // consecutive positions
	next   uint64   // the position after everything committed
	held   int      // measurements in groups
	wake   chan struct{}
}

func newFeed(next uint64, release func(*group)) *feed {
	return &feed{next: next, release: release, wake: make(chan struct{})}
}

// put adds a committed group and drops the oldest where too much is held.
func (f *feed) put(g *group) {
	g.links.Store(1) // the feed's own hold
	f.mu.Lock()
	if len(g.entries) == 0 {
		f.mu.Unlock()
		f.release(g)
		return
	}
	f.groups = append(f.groups, g)
	f.next = g.next()
	f.held += len(g.measurements)
	var drop []*group
	for len(f.groups) > 1 && f.held > maxFeed || len(f.groups) > 4096 {
		f.held -= len(f.groups[0].measurements)
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

// from returns the groups that hold position at and everything after it. It
// returns none and ok when nothing after at is committed, and !ok when position
// at is no longer in memory. The caller releases each group.
func (f *feed) from(at uint64) (gs []*group, ok bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	more = f.wake
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
	for _, g := range f.groups[i:] {
		g.links.Add(1)
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
