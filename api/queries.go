package api

import (
	"net/http"
	"sync"

	"carnet"
)

// queries bounds how many history queries run at once: each opens what it reads,
// and one caller's many must not hold up everybody.
type queries struct {
	mu      sync.Mutex
	running int
	by      map[Principal]int
}

// enter takes a place for a query, which leave gives back. Without one it fails
// at once: who waits here would hold memory.
func (q *queries) enter(p Principal, l limits) (leave func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.by[p] >= l.queriesOfOne:
		return nil, tooMany("%d history queries of yours run at once, which is all there may be", q.by[p])
	case q.running >= l.queries:
		return nil, tooMany("%d history queries run at once, which is all there may be", q.running)
	}
	if q.by == nil {
		q.by = make(map[Principal]int)
	}
	q.running, q.by[p] = q.running+1, q.by[p]+1
	return func() { q.leave(p) }, nil
}

func (q *queries) leave(p Principal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running, q.by[p] = q.running-1, q.by[p]-1; q.by[p] == 0 {
		delete(q.by, p)
	}
}

// tooMany is a refusal that has a status of its own (RFC 6585 §4).
func tooMany(format string, n int) error {
	return problem(http.StatusTooManyRequests, carnet.Errorf(carnet.Unavailable, format, n).WithFix("ask one after the other, and try again"))
}
