package crossing

import (
	"time"

	"carnet"
)

// aside is a share that can't go on at the moment: its avatar can't be read, since a part
// of its history is lost here while the depot is away, say. The others of the link go on
// without it.
type aside struct {
	till time.Time // it isn't tried before
	why  string
}

// asideFor is how long a share is set aside, with asideEach as long as it was tried for
// in vain, so that a depot that is slow to answer holds up the others no more than so.
const (
	asideFor  = 5 * time.Second
	asideEach = 4
)

// setAside has a share be tried again later.
func (s *Source) setAside(id carnet.ShareID, why error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.aside[id]; !again {
		s.agent.Log.Warn("a share is set aside: it is tried again", "share", id, "taker", s.to.Party, "err", why)
	}
	s.aside[id] = aside{time.Now().Add(asideFor + asideEach*took), why.Error()}
}

// readAgain notes that a share isn't set aside any more.
func (s *Source) readAgain(id carnet.ShareID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.aside, id)
}

// isAside reports whether a share isn't to be tried yet.
func (s *Source) isAside(id carnet.ShareID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.aside[id].till)
}

// tryAside has those be tried whose time has come.
func (s *Source) tryAside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, is := range s.aside {
		if time.Now().Before(is.till) {
			continue
		}
		if s.shares[id] == nil {
			s.changes = 0 // it hasn't begun
		} else {
			s.dirty[id] = true
		}
	}
}

// asideEnds says when the next is to be tried; nil: there is none.
func (s *Source) asideEnds() <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next time.Time
	for _, is := range s.aside {
		if next.IsZero() || is.till.Before(next) {
			next = is.till
		}
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}

// Aside says why nothing of a share that is given is sent at the moment, though it may be.
func (a *Agent) Aside(id carnet.ShareID) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	g := a.given[id]
	if g == nil || a.sources[g.Taker] == nil {
		return ""
	}
	s := a.sources[g.Taker]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aside[id].why
}
