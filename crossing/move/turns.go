package move

import "sync"

// turns has those who change what is known of the same avatar, or home, do so one after
// the other, also while they ask others; those of others go on meanwhile.
type turns[K comparable] struct {
	mu    sync.Mutex
	turns map[K]*turn
}

type turn struct {
	sync.Mutex
	wanted int // by how many; guarded by turns.mu
}

// of waits for one's turn; done ends it.
func (t *turns[K]) of(id K) (done func()) {
	t.mu.Lock()
	its := t.turns[id]
	if its == nil {
		if t.turns == nil {
			t.turns = make(map[K]*turn)
		}
		its = new(turn)
		t.turns[id] = its
	}
	its.wanted++
	t.mu.Unlock()
	its.Lock()
	return func() {
		its.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if its.wanted--; its.wanted == 0 {
			delete(t.turns, id)
		}
	}
}
