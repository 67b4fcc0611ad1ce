package account

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"carnet"
)

// How often somebody may guess.
const (
	freeOfOne     = 5  // failures of one name from one address, before it must wait
	freeOfAddress = 30 // failures from one address
	firstWait     = 30 * time.Second
	mostWait      = 15 * time.Minute
	forgetAfter   = 15 * time.Minute // after the last failure, and the wait
	mostGuessers  = 10_000
)

// waiting is an Unavailable that says when to try again.
type waiting struct {
	error // a *carnet.Error
	wait  time.Duration
}

func (w *waiting) Unwrap() error { return w.error }

func busy(wait time.Duration, reason string) error {
	wait = max(wait, time.Second).Round(time.Second)
	return &waiting{carnet.Errorf(carnet.Unavailable, "%s", reason).WithFix("try again in %s", wait), wait}
}

// Wait is how long to wait before a refused attempt is repeated; 0: err says
// nothing of it.
func Wait(err error) time.Duration {
	if w, ok := errors.AsType[*waiting](err); ok {
		return w.wait
	}
	return 0
}

// guesser is who guesses: a name from an address, or an address as a whole.
type guesser struct{ name, from string }

// record is what one guesser has done.
type record struct {
	failures int // with attempts that aren't decided yet
	until    time.Time
	last     time.Time
}

// over says when the record means nothing any more.
func (r *record) over() time.Time {
	if r.until.After(r.last) {
		return r.until.Add(forgetAfter)
	}
	return r.last.Add(forgetAfter)
}

// guesses counts failures to sign in.
type guesses struct {
	mu  sync.Mutex
	all map[guesser]*record
}

func newGuesses() *guesses { return &guesses{all: make(map[guesser]*record)} }

// outcome is what became of an attempt.
type outcome int

const (
	undecided outcome = iota
	failed
	succeeded
)

// enter admits an attempt. It counts as a failure until leave says otherwise, so
// that many at once are no more than many in a row.
func (g *guesses) enter(name, from string, now time.Time) (leave func(outcome), err error) {
	from = networkOf(from)
	one, address := guesser{name, from}, guesser{"", from}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range []guesser{one, address} {
		if r := g.all[w]; r != nil && now.Before(r.until) {
			return nil, busy(r.until.Sub(now), "too many attempts to sign in have failed")
		}
	}
	wait := g.record(one, now).fail(freeOfOne, now)
	ofAddress := g.record(address, now).fail(freeOfAddress, now)
	return func(o outcome) {
		g.mu.Lock()
		defer g.mu.Unlock()
		switch o {
		case succeeded:
			delete(g.all, one)
			g.take(address, ofAddress)
		case undecided:
			g.take(one, wait)
			g.take(address, ofAddress)
		}
	}, nil
}

// networkOf is what counts as one address: of IPv6 the /64, which one subscriber has
// whole.
func networkOf(from string) string {
	a, err := netip.ParseAddr(from)
	if err != nil {
		return from
	}
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	return netip.PrefixFrom(a, 64).Masked().String()
}

// take takes a failure back that wasn't one, with the wait that it brought; one that others
// have brought since stays.
func (g *guesses) take(w guesser, wait time.Time) {
	r := g.all[w]
	if r == nil {
		return
	}
	if r.failures--; r.until.Equal(wait) {
		r.until = time.Time{}
	}
	if r.failures <= 0 {
		delete(g.all, w)
	}
}

// record finds or begins a guesser's record. The caller holds the lock.
func (g *guesses) record(w guesser, now time.Time) *record {
	r := g.all[w]
	if r == nil || !now.Before(r.over()) {
		if len(g.all) >= mostGuessers {
			g.makeRoom()
		}
		r = new(record)
		g.all[w] = r
	}
	return r
}

// makeRoom forgets the stalest tenth of the records. The caller holds the lock.
func (g *guesses) makeRoom() {
	stalest := slices.SortedFunc(maps.Keys(g.all), func(v, w guesser) int { return g.all[v].over().Compare(g.all[w].over()) })
	for _, w := range stalest[:len(stalest)/10] {
		delete(g.all, w)
	}
}

// fail counts a failure; from the last free one on, the next must wait: until when, if it
// must.
func (r *record) fail(free int, now time.Time) (until time.Time) {
	r.failures, r.last = r.failures+1, now
	if over := r.failures - free; over >= 0 {
		r.until = now.Add(min(firstWait<<min(over, 10), mostWait))
	}
	return r.until
}
