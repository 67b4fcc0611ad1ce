package register

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"carnet"
	"carnet/identity"
	"carnet/ledger"

	"golang.org/x/mod/sumdb/note"
)

// moved is a crossing that was committed.
type moved struct {
	homes    []carnet.HomeID
	order    identity.Order
	petition Petition
	decided  *Decided
}

// move moves a new home from arena to citadel.
func (s *stage) move() moved {
	s.t.Helper()
	m := moved{homes: s.enrolled(arena, 1)}
	m.order = order(m.homes...)
	m.petition = petition(s.t, m.order)
	var err error
	if m.decided, err = s.by(citadel).Decide(s.t.Context(), m.order.Crossing, m.petition); err != nil || m.decided.Outcome != identity.Commit {
		s.t.Fatalf("decided %+v, %v", m.decided, err)
	}
	return m
}

// knows checks that a move is answered as before.
func (s *stage) knows(m moved) {
	s.t.Helper()
	d, err := s.by(arena).Decide(s.t.Context(), m.order.Crossing, Petition{Want: Ask, Order: m.petition.Order})
	if err != nil || d == nil || d.Reply.Decision != m.decided.Reply.Decision ||
		!bytes.Equal(d.Reply.Proof.Statement, m.decided.Reply.Proof.Statement) || !bytes.Equal(d.Reply.Proof.Salt, m.decided.Reply.Proof.Salt) {
		s.t.Fatalf("a move from before is answered as %+v, %v", d, err)
	}
	if h, _, err := s.by(arena).Home(s.t.Context(), m.homes[0]); err != nil || h.World != did(citadel) {
		s.t.Fatalf("its home stands as %+v, %v", h, err)
	}
}

// saysNothing checks that nothing is answered, known or not, and that it is said
// what to do.
func (s *stage) saysNothing(m moved) {
	s.t.Helper()
	ctx := s.t.Context()
	fresh := order(carnet.NewHomeID())
	_, decide := s.by(arena).Decide(ctx, m.order.Crossing, Petition{Want: Ask})
	_, commit := s.by(citadel).Decide(ctx, fresh.Crossing, petition(s.t, fresh))
	_, _, home := s.by(arena).Home(ctx, m.homes[0])
	_, _, enrol := s.by(arena).Enrol(ctx, carnet.NewHomeID(), did(alice))
	_, _, claim := s.by(citadel).Claim(ctx, m.homes[0])
	for what, err := range map[string]error{"decided": decide, "decide": commit, "home": home, "enrol": enrol, "claim": claim} {
		e, ok := errors.AsType[*carnet.Error](err)
		if !ok || e.Code != carnet.Unavailable || !bytes.Contains([]byte(e.Fix), []byte("put back")) {
			s.t.Errorf("%s: an older copy answers %v", what, err)
		}
	}
}

func TestAnOlderStoreIsCaughtUpFromTheFile(t *testing.T) {
	s := newStage(t)
	first := s.move()
	old := s.store.copy()
	second, third := s.move(), s.move()
	want := s.store.copy()
	s.stop()
	s.store = old
	s.start()
	for _, m := range []moved{first, second, third} {
		s.knows(m)
	}
	for i, c := range s.store.copy().changes {
		if !bytes.Equal(c.Body, want.changes[i].Body) || c.Item.Entry != want.changes[i].Item.Entry {
			t.Errorf("change %d came back as another", i+1)
		}
	}
	s.knows(s.move())
	if n := len(s.store.changes); n != 8 {
		t.Errorf("the register has %d changes, want 8", n)
	}
}

func TestAnOlderFileIsCaughtUpFromTheStore(t *testing.T) {
	s := newStage(t)
	first := s.move()
	s.stop()
	restore := s.copied("register")
	path := filepath.Join(s.dir, "register", fileName)
	s.start()
	second := s.move()
	s.stop()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(){
		"older": restore,
		"gone":  func() { os.Remove(path) },
		"cut":   func() { os.Truncate(path, int64(len(want)-1)) },
		"torn":  func() { os.WriteFile(path, append(bytes.Clone(want[:len(want)-20]), make([]byte, 20)...), 0o600) },
		"begun": func() { os.WriteFile(path, append(bytes.Clone(want), 0, 0, 1), 0o600) },
		"empty": func() { os.WriteFile(path, []byte(fileTitle[:5]), 0o600) },
	} {
		spoil()
		s.start()
		s.knows(first)
		s.knows(second)
		s.stop()
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s: the file has %d bytes, want %d as before: %v", name, len(have), len(want), err)
		}
	}
}

func TestAnOlderCopyOfBothAnswersNothing(t *testing.T) {
	s := newStage(t)
	first := s.move()
	s.stop()
	old, restore := s.store.copy(), s.copied("register")
	s.start()
	second := s.move()
	s.stop()
	newer := s.copied("register")
	s.store = old
	restore()
	s.start()
	s.saysNothing(first)
	s.saysNothing(second)
	s.restart()
	s.saysNothing(second)
	// What to do is said, and helps.
	s.stop()
	newer()
	s.start()
	s.knows(first)
	s.knows(second)
}

// A damaged place in the file, which only it has, isn't passed over.
func TestADamagedFileAndAnOlderStoreAnswerNothing(t *testing.T) {
	s := newStage(t)
	first := s.move()
	old := s.store.copy()
	second := s.move()
	s.stop()
	s.store = old
	path := filepath.Join(s.dir, "register", fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFile(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	at := f.starts[2] + 30 // the first that the store lacks
	f.close()
	damaged := bytes.Clone(b)
	damaged[at] ^= 1
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.saysNothing(first)
	s.stop()
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, damaged) {
		t.Errorf("the damaged file was changed: %v", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.knows(first)
	s.knows(second)
}

func TestAFileOfAnotherRegisterAnswersNothing(t *testing.T) {
	s, other := newStage(t), newStage(t)
	m := s.move()
	other.move()
	s.stop()
	other.stop()
	b, err := os.ReadFile(filepath.Join(other.dir, "register", fileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "register", fileName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.saysNothing(m)
}

// Everything is an older copy, the ledger as well: who was given a newer checkpoint
// shows it.
func TestAnOlderCopyOfEverythingIsShownItsOwnCheckpoint(t *testing.T) {
	s := newStage(t)
	first := s.move()
	s.stop()
	old, register, tiles := s.store.copy(), s.copied("register"), s.copied("ledger")
	s.start()
	second := s.move()
	_, newest := s.ledger.Checkpoint()
	s.stop()
	newStore, newRegister, newTiles := s.store.copy(), s.copied("register"), s.copied("ledger")
	s.store = old
	register()
	tiles()
	s.start()
	s.knows(first) // nobody can know better yet
	ctx := t.Context()
	showing := s.by(arena)
	showing.Newest = func() []byte { return newest }
	if _, err := showing.Decide(ctx, first.order.Crossing, Petition{Want: Ask}); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("a caller showed a newer checkpoint and was answered %v", err)
	}
	s.saysNothing(first)
	s.restart() // what it was shown isn't forgotten
	s.saysNothing(first)
	s.stop()
	s.store = newStore
	newRegister()
	newTiles()
	s.start()
	s.knows(first)
	s.knows(second)
	showing = s.by(arena)
	showing.Newest = func() []byte { return newest }
	if _, err := showing.Decide(ctx, first.order.Crossing, Petition{Want: Ask}); err != nil {
		t.Errorf("the newest copy, shown its own checkpoint: %v", err)
	}
}

// An older copy that went on is found out, too: it doesn't continue what was signed.
func TestALedgerThatWentOnFromAnOlderCopyIsAnother(t *testing.T) {
	s := newStage(t)
	first := s.move()
	s.stop()
	old, register, tiles := s.store.copy(), s.copied("register"), s.copied("ledger")
	s.start()
	s.move()
	_, newest := s.ledger.Checkpoint()
	s.stop()
	s.store = old
	register()
	tiles()
	s.start()
	s.move()
	s.move()
	if cp, _ := s.ledger.Checkpoint(); cp.Size <= 8 {
		t.Fatalf("the ledger has %d entries", cp.Size)
	}
	showing := s.by(arena)
	showing.Newest = func() []byte { return newest }
	if _, err := showing.Decide(t.Context(), first.order.Crossing, Petition{Want: Ask}); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("a caller showed another history and was answered %v", err)
	}
	s.saysNothing(first)
}

// What anybody can make up shows nothing.
func TestCheckpointsThatAreNoneRefuseTheirCallerOnly(t *testing.T) {
	s := newStage(t)
	m := s.move()
	forger, err := ledger.NewSigner("vault.example/ledger", key(mallory))
	if err != nil {
		t.Fatal(err)
	}
	own, signed := s.ledger.Checkpoint()
	for name, shown := range map[string][]byte{"junk": []byte("junk"), "cut": signed[:len(signed)-5], "another key": forged(t, forger, own.Size+100)} {
		c := s.by(arena)
		c.Newest = func() []byte { return shown }
		if _, err := c.Decide(t.Context(), m.order.Crossing, Petition{Want: Ask}); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.knows(m)
}

// forged is a checkpoint by another signer.
func forged(t *testing.T, by *ledger.Signer, size uint64) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("vault.example/ledger\n%d\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", size)}, by)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// A change that is stored and not yet marked when the process ends is told after the
// next start: the same.
func TestAnInterruptedDecisionIsToldAfterwards(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	home := s.enrolled(arena, 1)[0]
	o := order(home)
	p := petition(t, o)
	s.stop()
	s.before = func() error { return carnet.Errorf(carnet.Unavailable, "the ledger is away") }
	s.start()
	s.store.appended = make(chan struct{}, 1)
	within, cancel := context.WithCancel(ctx)
	asked := make(chan error)
	go func() { _, err := s.registrar.Decide(within, did(citadel), o.Crossing, p); asked <- err }()
	<-s.store.appended
	cancel()
	if err := <-asked; carnet.CodeOf(err) != carnet.Unavailable {
		t.Fatalf("without a receipt it was answered %v", err)
	}
	// Nor is it told to anybody else, or what follows from it.
	over, cancel := context.WithCancel(ctx)
	cancel()
	if h, err := s.registrar.Home(over, home, identity.NewNonce()); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("the home was told as %+v, %v", h, err)
	}
	stored := s.store.copy().changes[1]
	s.stop()
	s.before = nil
	s.start()
	d, err := s.by(arena).Decide(ctx, o.Crossing, Petition{Want: Ask, Order: p.Order})
	if err != nil || d.Outcome != identity.Commit {
		t.Fatalf("decided %+v, %v", d, err)
	}
	rec, err := s.registrar.read(2, stored.Body)
	if err != nil || rec.Signed != d.Reply.Decision {
		t.Errorf("another decision was told than was stored: %v", err)
	}
}

// More changes than one group wait for the ledger at a crash.
func TestMarksAfterACrashAreMadeGood(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	s.stop()
	s.before = func() error { return carnet.Errorf(carnet.Unavailable, "the ledger is away") }
	s.start()
	const n = group + 10
	for range n {
		over, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.registrar.Enrol(over, did(arena), carnet.NewHomeID(), did(alice), identity.NewNonce()); carnet.CodeOf(err) != carnet.Unavailable {
			t.Fatal(err)
		}
	}
	s.stop()
	s.before = nil
	s.start()
	if err := s.registrar.settled(ctx, n); err != nil {
		t.Fatal(err)
	}
	marks, err := s.registrar.marks(ctx, 0, n+group)
	if err != nil || len(marks) != n {
		t.Errorf("%d changes have marks, want %d: %v", len(marks), n, err)
	}
	s.restart()
	if s.registrar.marked != n {
		t.Errorf("after a restart %d changes are marked, want %d", s.registrar.marked, n)
	}
}

func TestAStoreThatFailsDecidesNothing(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	home := s.enrolled(arena, 1)[0]
	o := order(home)
	p := petition(t, o)
	for _, code := range []carnet.Code{carnet.NoSpace, carnet.Unavailable} {
		s.store.fail = carnet.Errorf(code, "the store fails")
		if d, err := s.by(citadel).Decide(ctx, o.Crossing, p); carnet.CodeOf(err) != code {
			t.Errorf("decided %+v, %v", d, err)
		}
	}
	s.store.fail = carnet.Errorf(carnet.Conflict, "another was first") // made anew
	if d, err := s.by(citadel).Decide(ctx, o.Crossing, p); err != nil || d.Outcome != identity.Commit {
		t.Errorf("decided %+v, %v", d, err)
	}
}

func TestARegistrarNeedsItsParts(t *testing.T) {
	s := newStage(t)
	if _, err := New(s.registrar.cfg); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"a directory":      func(c *Config) { c.Dir = "" },
		"a party":          func(c *Config) { c.Party = "" },
		"a key":            func(c *Config) { c.Key = ed25519.PrivateKey{} },
		"a secret":         func(c *Config) { c.Secret = nil },
		"a sealer":         func(c *Config) { c.Sealer = nil },
		"a way to seal":    func(c *Config) { c.Item = nil },
		"a store":          func(c *Config) { c.Store = nil },
		"a ledger":         func(c *Config) { c.Ledger = nil },
		"a longer secret":  func(c *Config) { c.Secret = make([]byte, 31) },
		"no longer secret": func(c *Config) { c.Secret = make([]byte, 33) },
	} {
		c := s.registrar.cfg
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("without %s there is a registrar", name)
		}
	}
	if !reflect.DeepEqual(Patterns(), []string{"GET /r2/homes/{home}", "POST /r2/crossings/{crossing}", "POST /r2/erased", "POST /r2/homes", "POST /r2/homes/{home}/claims", "POST /r2/homes/{home}/erasure", "PUT /r2/homes/{home}"}) {
		t.Errorf("it serves %v", Patterns())
	}
}
