package api

import (
	"io"
	"sync"
)

// bodies bounds how many bytes of requests' bodies are there at once, of one caller and
// of all: each is read whole before anything is done with it, and one caller's many must
// not take everybody's memory.
type bodies struct {
	all, ofOne int64

	mu   sync.Mutex
	held int64
	by   map[Principal]int64
}

// countedBody reads a caller's body, and counts it as it comes and not by what it says of
// itself.
type countedBody struct {
	from io.Reader
	in   *bodies
	of   Principal
	n    int64
	full error // why no more of it is taken
}

// Read implements io.Reader.
func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if n > 0 {
		if c.full = c.in.add(c.of, int64(n)); c.full != nil {
			return 0, c.full
		}
		c.n += int64(n)
	}
	return n, err
}

// leave gives back what was counted.
func (c *countedBody) leave() {
	c.in.remove(c.of, c.n)
	c.n = 0
}

func (b *bodies) add(p Principal, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.by[p]+n > b.ofOne:
		return tooMany("%d %s of yours are on their way, which is nearly all there may be", int(b.by[p]), "bytes of bodies")
	case b.held+n > b.all:
		return tooMany("%d %s are on their way, which is nearly all there may be", int(b.held), "bytes of bodies")
	}
	if b.by == nil {
		b.by = make(map[Principal]int64)
	}
	b.held, b.by[p] = b.held+n, b.by[p]+n
	return nil
}

func (b *bodies) remove(p Principal, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held, b.by[p] = b.held-n, b.by[p]-n; b.by[p] == 0 {
		delete(b.by, p)
	}
}
