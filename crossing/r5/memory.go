package r5

import (
	"context"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
)

// kind tells the ids of assertions from those of proofs.
type kind byte

const (
	anAssertion kind = iota + 1
	aProof
)

// seenID is a UUID and of what it is.
type seenID [17]byte

// usable is how long after their receipt assertions and proofs could be taken
// again: until their time is over, by clocks that may differ both ways.
const usable = max(identity.ProofLife, identity.AssertionLife) + 2*Skew

// horizonStep is how far the horizon is raised at once, so that a peer whose clock
// is ahead doesn't cost a commit a second.
const horizonStep = 5 * time.Second

// memory is what was shown, for as long as it could be shown again. It forgets at
// a restart; therefore nothing is taken that was made before it.
type memory struct {
	limit   int // for each peer
	store   Horizon
	raising sync.Mutex // held while the horizon is stored

	mu      sync.Mutex // guards what follows
	start   time.Time  // what was made before isn't taken
	horizon time.Time
	peers   map[carnet.PartyID]*shown
}

// shown is what one peer showed, in the order in which it is forgotten.
type shown struct {
	ids   map[seenID]struct{}
	order []entry // order[head:]
	head  int
}

type entry struct {
	id    seenID
	until time.Time
}

func newMemory(ctx context.Context, limit int, now time.Time, store Horizon) (*memory, error) {
	newest, err := store.Newest(ctx)
	if err != nil {
		return nil, err
	}
	// Tokens have whole seconds, cut off: what was made in the second of the start,
	// or in the last one that the horizon names, may have been made before.
	start := now.Truncate(time.Second).Add(time.Second)
	if newest = newest.Add(time.Second); start.Before(newest) {
		start = newest
	}
	return &memory{limit: limit, store: store, start: start, horizon: newest, peers: make(map[carnet.PartyID]*shown)}, nil
}

// take remembers what was shown at a time; it refuses what was shown before, or
// may have been shown to an earlier process.
func (m *memory) take(ctx context.Context, peer carnet.PartyID, k kind, jti string, made, now time.Time) error {
	if made.Before(m.start) {
		return carnet.Errorf(carnet.Unauthenticated, "it was made at %v, and this process can't tell what was shown before %v", made, m.start)
	}
	if made.After(now) {
		if err := m.raise(ctx, made); err != nil {
			return err
		}
	}
	id := seenID{byte(k)}
	if _, err := hex.Decode(id[1:], []byte(strings.ReplaceAll(strings.TrimPrefix(jti, "urn:uuid:"), "-", ""))); err != nil {
		return carnet.Errorf(carnet.Malformed, "%.80q is not a urn:uuid", jti)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[peer]
	if p == nil {
		p = &shown{ids: make(map[seenID]struct{})}
		m.peers[peer] = p
	}
	p.forget(now)
	if _, known := p.ids[id]; known {
		return carnet.Errorf(carnet.Unauthenticated, "it was shown before: a replay")
	}
	if len(p.ids) >= m.limit {
		return refusal(OverloadRule, carnet.Errorf(carnet.Unavailable, "%s has shown %d assertions and proofs within %v", peer, m.limit, usable))
	}
	p.ids[id] = struct{}{}
	p.order = append(p.order, entry{id, now.Add(usable)})
	return nil
}

// raise makes it durable that something made at a time ahead is being taken.
func (m *memory) raise(ctx context.Context, made time.Time) error {
	m.raising.Lock()
	defer m.raising.Unlock()
	m.mu.Lock()
	known := !m.horizon.Before(made)
	m.mu.Unlock()
	if known {
		return nil
	}
	to := made.Add(horizonStep)
	if err := m.store.Raise(ctx, to); err != nil {
		return refusal(RecordRule, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.horizon = to
	return nil
}

// forget drops what can't be shown again.
func (p *shown) forget(now time.Time) {
	for p.head < len(p.order) && p.order[p.head].until.Before(now) {
		delete(p.ids, p.order[p.head].id)
		p.head++
	}
	if p.head > len(p.order)/2 {
		p.order = append(p.order[:0], p.order[p.head:]...)
		p.head = 0
	}
}

// tokens keeps tokens that were read already: their signatures hold for ever, and
// most are shown many times.
type tokens struct {
	key   []byte
	world carnet.PartyID

	mu         sync.Mutex
	young, old map[carnet.Fingerprint]identity.Token
}

// maxTokens is how many tokens are kept in each of two generations.
const maxTokens = 8192

func newTokens(key []byte, world carnet.PartyID) *tokens {
	return &tokens{key: key, world: world, young: make(map[carnet.Fingerprint]identity.Token)}
}

func (t *tokens) verify(text string, hash carnet.Fingerprint) (identity.Token, error) {
	t.mu.Lock()
	known, ok := t.young[hash]
	if !ok {
		if known, ok = t.old[hash]; ok {
			t.keep(hash, known)
		}
	}
	t.mu.Unlock()
	if ok {
		return known, nil
	}
	read, err := identity.VerifyToken(t.key, t.world, text)
	if err != nil {
		return read, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(hash, read)
	return read, nil
}

// keep adds a token; the caller holds mu.
func (t *tokens) keep(hash carnet.Fingerprint, token identity.Token) {
	if len(t.young) >= maxTokens {
		t.old, t.young = t.young, make(map[carnet.Fingerprint]identity.Token)
	}
	t.young[hash] = token
}
