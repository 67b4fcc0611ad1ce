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
	// ofWorld is for avatars of one other world together, and ofWorlds for those of all
	// of them: each avatar is a caller, and a world has as many as it likes. 0: they are
	// bounded as everybody is.
	ofWorld, ofWorlds int

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
	counts := l.countsAs(p)
	for who, most := range counts {
		if l.by[who] >= most {
			return nil, tooMany("%d %s of yours are open, which is all there may be", l.by[who], l.what)
		}
	}
	if l.taken >= l.all {
		return nil, tooMany("%d %s are open, which is all there may be", l.taken, l.what)
	}
	if l.by == nil {
		l.by = make(map[Principal]int)
	}
	l.taken++
	for who := range counts {
		l.by[who]++
	}
	return sync.OnceFunc(func() { l.leave(counts) }), nil
}

// countsAs is whose places a caller takes, and how many each may have.
func (l *places) countsAs(p Principal) map[Principal]int {
	counts := map[Principal]int{p: l.ofOne}
	if world := platformOf(p); l.ofWorld > 0 && world != p {
		counts[world], counts[Principal{Kind: policy.Foreign}] = l.ofWorld, l.ofWorlds
	}
	return counts
}

func (l *places) leave(counts map[Principal]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken--
	for who := range counts {
		if l.by[who]--; l.by[who] == 0 {
			delete(l.by, who)
		}
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
