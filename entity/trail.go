package entity

import (
	"sync"

	"carnet/policy"
)

// trail is what the deadbands of a grant remember: once for the grant, whoever
// subscribes under it and how often. What a deadband shows depends on where it began;
// subscriptions that began for themselves would show together what it withholds. So
// all of a grant are on one way through the avatar's streams: it begins where the first
// was opened since the agent's start, and who comes later goes on with what was
// remembered there. Of what was before nothing is shown, as in history.
type trail struct {
	// beginning is held while a subscription finds its place: there is one that is first.
	beginning sync.Mutex

	mu      sync.Mutex // guards what follows
	origin  *mark      // where it begins; nil: nowhere yet
	reached mark       // how far somebody has come
}

// mark is a place in an avatar's streams, and what the view remembers there.
type mark struct {
	cursor string // the avatar's
	memory []byte // policy.State
}

// trailOf finds or makes a grant's trail, and forgets those of grants that are over.
func (a *Agent) trailOf(grant string) *trail {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.trails[grant]
	if t == nil {
		now := a.cfg.Now()
		for id := range a.trails {
			if g := a.grants[id]; g == nil || !g.holds(now) {
				delete(a.trails, id)
			}
		}
		t = new(trail)
		a.trails[grant] = t
	}
	return t
}

// Deadbands reports whether what is shown live depends on what was shown before.
func (l *Lens) Deadbands() bool { return l.trail != nil }

// Join holds the places of the grant's subscriptions while one finds its own, until done.
func (l *Lens) Join() (done func()) {
	l.trail.beginning.Lock()
	return l.trail.beginning.Unlock
}

// Begun reports whether the deadbands' memory has begun.
func (l *Lens) Begun() bool {
	l.trail.mu.Lock()
	defer l.trail.mu.Unlock()
	return l.trail.origin != nil
}

// Reached takes back the memory of where somebody under the grant has come, to go on
// from there, and returns where that is. It has begun.
func (l *Lens) Reached() (cursor string, err error) {
	l.trail.mu.Lock()
	defer l.trail.mu.Unlock()
	return l.trail.reached.cursor, l.remembers.UnmarshalBinary(l.trail.reached.memory)
}

// Forget has the subscription remember nothing: it begins at the beginning.
func (l *Lens) Forget() { l.remembers = policy.State{} }

// Found says where the subscription is, with what it remembers. If it is the first under
// the grant, the deadbands' memory begins there.
func (l *Lens) Found(cursor string) error {
	memory, err := l.remembers.MarshalBinary()
	if err != nil {
		return err
	}
	l.trail.mu.Lock()
	defer l.trail.mu.Unlock()
	if l.trail.origin == nil {
		l.trail.origin, l.trail.reached = &mark{cursor, memory}, mark{cursor, memory}
	}
	l.before = l.agent.cfg.Avatars.Reaches(l.trail.origin.cursor, cursor)
	return nil
}

// Pass says where the subscription is after what is shown next. As long as that is
// before the deadbands' memory begins, nothing is shown of properties that have one.
func (l *Lens) Pass(cursor string) error {
	if !l.before {
		return nil
	}
	l.trail.mu.Lock()
	origin := *l.trail.origin
	l.trail.mu.Unlock()
	if l.agent.cfg.Avatars.Reaches(origin.cursor, cursor) {
		return nil
	}
	l.before = false
	return l.remembers.UnmarshalBinary(origin.memory)
}

// reach notes how far the subscription has come, if nobody was further.
func (t *trail) reach(l *Lens, m mark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !l.agent.cfg.Avatars.Reaches(t.reached.cursor, m.cursor) {
		t.reached = m
	}
}

// hasDeadband reports whether a view has any.
func hasDeadband(v policy.View) bool {
	for _, of := range v.Properties {
		if of.Deadband != 0 {
			return true
		}
	}
	return false
}
