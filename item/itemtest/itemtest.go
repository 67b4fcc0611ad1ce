// Package itemtest has what tests of items need: a world's store in memory, and a
// registrar's ledger that gives receipts.
package itemtest

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// Memory is a world's store and key table in memory: what is put in it stays when a
// book goes.
type Memory struct {
	mu     sync.Mutex
	docs   map[[2]string]carnet.Document
	keys   map[keys.ID]keys.Row
	stated []ledger.Item
	fail   error
	lost   error
}

// NewMemory is an empty store.
func NewMemory() *Memory {
	return &Memory{docs: make(map[[2]string]carnet.Document), keys: make(map[keys.ID]keys.Row)}
}

// Copied is the store as it is now, to be restored later.
func (m *Memory) Copied() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{docs: maps.Clone(m.docs), keys: maps.Clone(m.keys), stated: slices.Clone(m.stated)}
}

// Fail has puts fail before anything is stored; nil: no longer.
func (m *Memory) Fail(err error) { m.mu.Lock(); defer m.mu.Unlock(); m.fail = err }

// Lose has puts fail after all is stored, as when the process dies then.
func (m *Memory) Lose(err error) { m.mu.Lock(); defer m.mu.Unlock(); m.lost = err }

// Stated counts the statements that were stored.
func (m *Memory) Stated() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.stated) }

// Put implements item.Store.
func (m *Memory) Put(_ context.Context, docs []carnet.Document, items []ledger.Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, d := range docs {
		if m.docs[[2]string{d.Kind, d.ID}].Version+1 != d.Version {
			return carnet.Errorf(carnet.Conflict, "%s %q has another version", d.Kind, d.ID)
		}
	}
	for _, d := range docs {
		if d.Body == nil {
			delete(m.docs, [2]string{d.Kind, d.ID})
		} else {
			m.docs[[2]string{d.Kind, d.ID}] = d
		}
	}
	m.stated = append(m.stated, items...)
	return m.lost
}

// Document implements item.Store.
func (m *Memory) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.docs[[2]string{kind, id}]; ok {
		return d, nil
	}
	return carnet.Document{}, carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
}

// DocumentPage implements item.Store.
func (m *Memory) DocumentPage(_ context.Context, kind, after string, limit int) (page []carnet.Document, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.docs {
		if d.Kind == kind && d.ID > after {
			page = append(page, d)
		}
	}
	slices.SortFunc(page, func(a, b carnet.Document) int { return cmp.Compare(a.ID, b.ID) })
	return page[:min(limit, len(page))], nil
}

// Table is a key table in the store.
func (m *Memory) Table(t testing.TB) *keys.Table {
	t.Helper()
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := keys.Create(t.Context(), keys.Config{KEK: kek, Store: rows{m}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// rows is the store of the key table.
type rows struct{ *Memory }

func (r rows) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row, ok := r.keys[id]; ok {
		return row, nil
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "there is no key %s", id)
}

func (r rows) Page(_ context.Context, after keys.ID, limit int) (page []keys.Row, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	order := func(a, b keys.ID) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) }
	for _, id := range slices.SortedFunc(maps.Keys(r.keys), order) {
		if order(id, after) > 0 && len(page) < limit {
			page = append(page, r.keys[id])
		}
	}
	return page, nil
}

func (r rows) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (r rows) Put(_ context.Context, _ keys.ID, all []keys.Row) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range all {
		r.keys[row.ID] = row
	}
	return nil
}

func (r rows) Delete(_ context.Context, _ keys.ID, ids []keys.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.keys, id)
	}
	return nil
}

// Key is an owner's, world's or registrar's key, by name.
func Key(name string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((name + strings.Repeat(".", 32))[:32]))
}

// DID names who has a key.
func DID(name string) string { return identity.DID(Key(name).Public().(ed25519.PublicKey)) }

// Ledger is a registrar's ledger in memory.
type Ledger struct {
	t       testing.TB
	signer  *ledger.Signer
	mu      sync.Mutex
	entries []carnet.Fingerprint
}

// NewLedger is an empty ledger of a depot.
func NewLedger(t testing.TB, depot string) *Ledger {
	signer, err := ledger.NewSigner(depot, Key("ledger of "+depot))
	if err != nil {
		t.Fatal(err)
	}
	return &Ledger{t: t, signer: signer}
}

// Key is the ledger's.
func (l *Ledger) Key() ledger.Key { return l.signer.Key() }

// State puts a statement about what a registrar signed on the ledger, with its receipt.
func (l *Ledger) State(kind ledger.Kind, signed string) identity.OnLedger {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := ledger.Statement{Kind: kind, Who: "vault", Time: 1, Object: carnet.FingerprintOf([]byte(signed))}.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	salt := ledger.Salt{byte(len(l.entries))}
	l.entries = append(l.entries, carnet.Fingerprint(ledger.EntryOf(salt, s)))
	root := seal.Root(l.entries)
	text := log.Checkpoint{Origin: l.signer.Name(), Size: uint64(len(l.entries)), Hash: root[:]}.Marshal()
	checkpoint, err := note.Sign(&note.Note{Text: string(text)}, l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	r := ledger.Receipt{Index: uint64(len(l.entries) - 1), Checkpoint: checkpoint}
	if r.Signature, err = l.signer.SignRoot(root); err != nil {
		l.t.Fatal(err)
	}
	for _, p := range seal.Proof(l.entries, len(l.entries)-1) {
		r.Path = append(r.Path, p)
	}
	return identity.OnLedger{Statement: s, Salt: salt[:], Receipt: r.Marshal()}
}
