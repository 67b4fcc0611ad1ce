package register

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
	"carnet/ledger/tlog"
)

// memory is a depot's store as far as a register and its ledger need it. It outlives
// registrars, and can be copied and put back.
type memory struct {
	mu      sync.Mutex
	changes []Change
	homes   map[carnet.HomeID]uint64
	decided map[carnet.CrossingID]uint64
	leaves  map[ledger.Entry]uint64
	indexed uint64
	fail    error // by Append, once
	// appended is told of each Append, if there is room; nil: it isn't.
	appended chan struct{}
}

func newMemory() *memory {
	return &memory{homes: make(map[carnet.HomeID]uint64), decided: make(map[carnet.CrossingID]uint64), leaves: make(map[ledger.Entry]uint64)}
}

func (m *memory) copy() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{changes: slices.Clone(m.changes), homes: maps.Clone(m.homes), decided: maps.Clone(m.decided), leaves: maps.Clone(m.leaves), indexed: m.indexed}
}

func (m *memory) Append(_ context.Context, c Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	if c.Number != uint64(len(m.changes))+1 || m.decided[c.Crossing] != 0 {
		return carnet.Errorf(carnet.Conflict, "not the next")
	}
	for _, h := range c.Homes {
		m.homes[h] = c.Number
	}
	if c.Crossing != (carnet.CrossingID{}) {
		m.decided[c.Crossing] = c.Number
	}
	c.Item.ID, c.Homes, c.Crossing = c.Number, nil, carnet.CrossingID{}
	m.changes = append(m.changes, c)
	select {
	case m.appended <- struct{}{}:
	default:
	}
	return nil
}

func (m *memory) Last(context.Context) (c Change, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.changes); n > 0 {
		c = m.changes[n-1]
	}
	return c, nil
}

func (m *memory) Homes(_ context.Context, ids []carnet.HomeID) (map[carnet.HomeID]Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[carnet.HomeID]Change)
	for _, id := range ids {
		if n := m.homes[id]; n > 0 {
			found[id] = m.changes[n-1]
		}
	}
	return found, nil
}

func (m *memory) Decided(_ context.Context, id carnet.CrossingID) (c Change, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.decided[id]; n > 0 {
		return m.changes[n-1], nil
	}
	return c, carnet.Errorf(carnet.NotFound, "not decided")
}

func (m *memory) Changes(_ context.Context, after uint64, limit int) ([]Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := min(after, uint64(len(m.changes)))
	return slices.Clone(m.changes[from:min(int(from)+limit, len(m.changes))]), nil
}

func (m *memory) Receipted(_ context.Context, items []ledger.Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, item := range items {
		if c := &m.changes[item.ID-1]; len(c.Item.Receipt) == 0 {
			c.Item.Receipt = item.Receipt
		}
	}
	return nil
}

func (m *memory) Lookup(_ context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[ledger.Entry]uint64)
	for _, e := range entries {
		if i, ok := m.leaves[e]; ok {
			found[e] = i
		}
	}
	return found, nil
}

func (m *memory) Record(_ context.Context, first uint64, entries []ledger.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range entries {
		if _, ok := m.leaves[e]; !ok {
			m.leaves[e] = first + uint64(i)
		}
	}
	m.indexed = first + uint64(len(entries))
	return nil
}

func (m *memory) Indexed(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.indexed, nil
}

// sealer is a Sealer with one key.
type sealer struct{ aead cipher.AEAD }

func newSealer(t testing.TB) sealer {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{aead}
}

func (s sealer) Seal(dst, aad, plaintext []byte) ([]byte, error) {
	return s.aead.Seal(dst, nil, plaintext, aad), nil
}
func (s sealer) Open(dst, aad, sealed []byte) ([]byte, error) {
	return s.aead.Open(dst, nil, sealed, aad)
}

// ownLedger is a ledger whose statements are the depot's.
type ownLedger struct {
	*tlog.Log
	before func() error // called by Submit; nil: nothing
}

func (l *ownLedger) Submit(ctx context.Context, entries []ledger.Entry) ([]ledger.Receipt, error) {
	if l.before != nil {
		if err := l.before(); err != nil {
			return nil, err
		}
	}
	return l.Append(ctx, "vault", entries)
}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed))
}
func did(seed byte) string { return identity.DID(key(seed).Public().(ed25519.PublicKey)) }

// Who has which key.
const (
	theRegistrar = iota + 1
	theLedger
	arena
	citadel
	clinic
	alice
	mallory
)

// stage is a depot with a register, which can be stopped, restored and started.
type stage struct {
	t      testing.TB
	dir    string
	store  *memory
	before func() error // of the ledger

	registrar *Registrar
	ledger    *ownLedger
	server    *httptest.Server
	stop      func()
}

func newStage(t testing.TB) *stage {
	s := &stage{t: t, dir: t.TempDir(), store: newMemory()}
	s.start()
	return s
}

func (s *stage) start() {
	s.t.Helper()
	signer, err := ledger.NewSigner("vault.example/ledger", key(theLedger))
	if err != nil {
		s.t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	log, err := tlog.New(s.t.Context(), tlog.Config{Dir: filepath.Join(s.dir, "ledger"), Signer: signer, Index: s.store, BatchAge: time.Millisecond, Logger: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	s.ledger = &ownLedger{log, s.before}
	s.registrar, err = New(Config{
		Dir: filepath.Join(s.dir, "register"), Party: "vault", Key: key(theRegistrar), Secret: make([]byte, 32), Sealer: newSealer(s.t),
		Item: func(statement []byte, salt ledger.Salt) (ledger.Item, error) {
			return ledger.Item{Entry: ledger.EntryOf(salt, statement), Statement: statement, Salt: salt[:]}, nil
		},
		Store: s.store, Ledger: s.ledger, Logger: quiet,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := log.Run(ctx); err != nil {
			s.t.Errorf("ledger: %v", err)
		}
	})
	group.Go(func() {
		if err := s.registrar.Run(ctx); err != nil {
			s.t.Errorf("registrar: %v", err)
		}
	})
	s.server = httptest.NewServer(s.registrar.Handler(func(r *http.Request) (Caller, error) {
		who := r.Header.Get("Test-Caller")
		if who == "" {
			return Caller{}, carnet.Errorf(carnet.Unauthenticated, "nobody")
		}
		return Caller{Party: "somebody", DID: who, World: who != did(alice)}, nil
	}))
	s.stop = sync.OnceFunc(func() { s.server.Close(); cancel(); group.Wait() })
	s.t.Cleanup(s.stop)
	s.settle()
}

// settle waits until the registrar answers, or says that it never will.
func (s *stage) settle() {
	for {
		s.registrar.mu.Lock()
		done, more := s.registrar.why == nil || s.registrar.older, s.registrar.more
		s.registrar.mu.Unlock()
		if done {
			return
		}
		<-more
	}
}

func (s *stage) restart() { s.stop(); s.start() }

// copied copies a directory of the stopped stage, and returns what puts it back.
func (s *stage) copied(name string) (restore func()) {
	s.t.Helper()
	from, to := filepath.Join(s.dir, name), filepath.Join(s.t.TempDir(), name)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := os.RemoveAll(from); err != nil {
			s.t.Fatal(err)
		}
		if err := os.CopyFS(from, os.DirFS(to)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// as sends requests as who has a key.
type as struct{ who string }

func (a as) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Test-Caller", a.who)
	return http.DefaultTransport.RoundTrip(r)
}

// by is the client of who has a key.
func (s *stage) by(who byte) *Client {
	return &Client{Base: s.server.URL, HTTP: &http.Client{Transport: as{did(who)}}, Registrar: did(theRegistrar), Ledger: s.ledger.Key()}
}

// enrolled enrols new homes of a world for alice.
func (s *stage) enrolled(world byte, n int) (homes []carnet.HomeID) {
	s.t.Helper()
	for range n {
		id := carnet.NewHomeID()
		if _, _, err := s.by(world).Enrol(s.t.Context(), id, did(alice)); err != nil {
			s.t.Fatal(err)
		}
		homes = append(homes, id)
	}
	slices.SortFunc(homes, func(a, b carnet.HomeID) int { return slices.Compare(a[:], b[:]) })
	return homes
}

// order is alice's order to move homes from arena to citadel.
func order(homes ...carnet.HomeID) identity.Order {
	made := time.Now().UTC().Truncate(time.Second)
	return identity.Order{
		Crossing: carnet.NewCrossingID(), Registrar: did(theRegistrar), Owner: did(alice), Source: did(arena), Target: did(citadel),
		Homes: homes, Terms: carnet.Fingerprint{1}, Made: made, Until: made.Add(time.Hour),
	}
}

// petition is all that a commit of an order needs, signed by whom it names; the homes
// are in their first incarnation.
func petition(t testing.TB, o identity.Order) Petition {
	t.Helper()
	signers := make(map[string]ed25519.PrivateKey)
	for seed := byte(theRegistrar); seed <= mallory; seed++ {
		signers[did(seed)] = key(seed)
	}
	p := Petition{Want: Commit}
	var err error
	if p.Order, err = identity.SignOrder(signers[o.Owner], o); err != nil {
		t.Fatal(err)
	}
	hash, manifest := carnet.FingerprintOf([]byte(p.Order)), carnet.Fingerprint{2}
	first := slices.Repeat([]uint64{1}, len(o.Homes))
	p.Release, err = identity.SignRelease(signers[o.Source], identity.Release{Crossing: o.Crossing, Source: o.Source, Order: hash, Manifest: manifest, Incarnations: first})
	if err != nil {
		t.Fatal(err)
	}
	p.Acceptance, err = identity.SignAcceptance(signers[o.Target], identity.Acceptance{Crossing: o.Crossing, Target: o.Target, Order: hash, Manifest: manifest})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
