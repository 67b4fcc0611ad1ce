package api

import (
	"net/http"
	"strings"
	"sync"

	"carnet"
	"carnet/policy"
)

// places bounds how many requests of a kind are served at once, of one caller and
// of all: each holds memory or a processor, and one caller's many must not hold up
// everybody.
type places struct {
	what       string // the requests, for people
	all, ofOne int

	mu    sync.Mutex
	taken int
	by    map[Principal]int
}

// platformOf is who a caller counts as where all avatars of another world are one: it
// has as many as it likes.
func platformOf(p Principal) Principal {
	if p.Kind == policy.Foreign {
		p.Name, _, _ = strings.Cut(p.Name, " ")
	}
	return p
}

// enter takes a place, which leave gives back. Without one it fails at once: who
// waits here would hold memory.
func (l *places) enter(p Principal) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.by[p] >= l.ofOne:
		return nil, tooMany("%d %s of yours are open, which is all there may be", l.by[p], l.what)
	case l.taken >= l.all:
		return nil, tooMany("%d %s are open, which is all there may be", l.taken, l.what)
	}
	if l.by == nil {
		l.by = make(map[Principal]int)
	}
	l.taken, l.by[p] = l.taken+1, l.by[p]+1
	return sync.OnceFunc(func() { l.leave(p) }), nil
}

func (l *places) leave(p Principal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken, l.by[p] = l.taken-1, l.by[p]-1; l.by[p] == 0 {
		delete(l.by, p)
	}
}

// count is how many places are taken.
func (l *places) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken
}

// tooMany is a refusal that has a status of its own (RFC 6585 §4).
func tooMany(format string, n int, what string) error {
	return problem(http.StatusTooManyRequests, carnet.Errorf(carnet.Unavailable, format, n, what).WithFix("end one, or wait until one has ended, and try again"))
}
