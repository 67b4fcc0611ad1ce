package activity

import (
	"sync"
	"time"
)

// Budget is how many refusals of each one who asks are recorded one by one in a
// minute. What is beyond is counted with the next that is recorded, so that nobody
// fills a log with what they may not do. It is safe for concurrent use.
type Budget[K comparable] struct {
	limit int

	mu sync.Mutex
	of map[K]*spent
}

type spent struct {
	since time.Time
	count int
	more  uint64 // refused and not recorded
}

// NewBudget makes a budget of limit records a minute for each.
func NewBudget[K comparable](limit int) *Budget[K] {
	return &Budget[K]{limit: limit, of: make(map[K]*spent)}
}

// Take says whether a refusal is to be recorded, and how many weren't since the
// last that was.
func (b *Budget[K]) Take(who K, now time.Time) (more uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.of[who]
	if p == nil {
		p = &spent{since: now}
		b.of[who] = p
	}
	if since := now.Sub(p.since); since >= time.Minute || since < 0 {
		p.since, p.count = now, 0
	}
	if p.count >= b.limit {
		p.more++
		return 0, false
	}
	p.count++
	more, p.more = p.more, 0
	return more, true
}
