package keys

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
)

// memory is a Store for tests. before and after, when set, run around each
// change; an error of before stops it, one of after comes too late.
type memory struct {
	mu            sync.Mutex
	rows          map[ID][]byte
	before, after func() error
	got           func() // runs when Get has read a row
}

func newMemory() *memory { return &memory{rows: make(map[ID][]byte)} }

func (m *memory) Get(_ context.Context, id ID) (Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wrapped, ok := m.rows[id]
	if m.got != nil {
		m.mu.Unlock()
		m.got()
		m.mu.Lock()
	}
	if !ok {
		return Row{}, carnet.Errorf(carnet.NotFound, "there is no key %s", id)
	}
	return Row{id, slices.Clone(wrapped)}, nil
}

func (m *memory) Page(_ context.Context, after ID, limit int) ([]Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var page []Row
	for id, wrapped := range m.rows {
		if above(id, after) {
			page = append(page, Row{id, slices.Clone(wrapped)})
		}
	}
	slices.SortFunc(page, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.ID.Kind, b.ID.Kind), cmp.Compare(a.ID.Name, b.ID.Name))
	})
	return page[:min(limit, len(page))], nil
}

func (m *memory) Put(_ context.Context, upTo ID, rows []Row) error {
	return m.change(upTo, func() {
		for _, row := range rows {
			m.rows[row.ID] = slices.Clone(row.Wrapped)
		}
	})
}

func (m *memory) Replace(_ context.Context, upTo ID, was, now []Row) error {
	return m.change(upTo, func() {
		for i, row := range now {
			if have, ok := m.rows[row.ID]; ok && bytes.Equal(have, was[i].Wrapped) {
				m.rows[row.ID] = slices.Clone(row.Wrapped)
			}
		}
	})
}

func (m *memory) Delete(_ context.Context, upTo ID, ids []ID) error {
	return m.change(upTo, func() {
		for _, id := range ids {
			delete(m.rows, id)
		}
	})
}

func (m *memory) change(upTo ID, apply func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.rows {
		if id.Kind == upTo.Kind && id.Name > upTo.Name {
			return carnet.Errorf(carnet.Fenced, "there is a row %s", id)
		}
	}
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	apply()
	if m.after != nil {
		return m.after()
	}
	return nil
}

// copy is the store as another process finds it.
func (m *memory) copy() *memory { return &memory{rows: maps.Clone(m.rows)} }

func newKEK(t *testing.T) *FileKEK {
	t.Helper()
	kek, err := CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func create(t *testing.T, kek KEK, store Store) *Table {
	t.Helper()
	table, err := Create(t.Context(), Config{KEK: kek, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestKeysOutliveTheProcess(t *testing.T) {
	ctx, kek, store := t.Context(), newKEK(t), newMemory()
	id := ID{"epoch", "a/b"}
	made, err := create(t, kek, store).Make(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(ctx, Config{KEK: kek, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Get(ctx, id)
	if err != nil || [32]byte(got) != made[0] {
		t.Errorf("key is %x, %v; want %x", got, err, made[0])
	}
}

// counting counts how often its KEK is asked.
type counting struct {
	KEK
	asked int
}

func (c *counting) Wrap(ctx context.Context, context, plaintext []byte) ([]byte, error) {
	c.asked++
	return c.KEK.Wrap(ctx, context, plaintext)
}

func (c *counting) Unwrap(ctx context.Context, context, wrapped []byte) ([]byte, error) {
	c.asked++
	return c.KEK.Unwrap(ctx, context, wrapped)
}

func someIDs(n int) []ID {
	ids := make([]ID, n)
	for i := range ids {
		ids[i] = ID{"epoch", fmt.Sprintf("stream/%04d", i)}
	}
	return ids
}

func TestKEKIsAskedOnceAtAStart(t *testing.T) {
	ctx, store, kek := t.Context(), newMemory(), &counting{KEK: newKEK(t)}
	ids := someIDs(1000)
	if _, err := create(t, kek, store).Make(ctx, ids...); err != nil {
		t.Fatal(err)
	}
	kek.asked = 0
	table, err := Open(ctx, Config{KEK: kek, Store: store, Cache: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, err := table.Get(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if kek.asked != 1 {
		t.Errorf("the KEK was asked %d times, want once", kek.asked)
	}
	if len(table.cache) != 10 {
		t.Errorf("%d keys in memory, want 10", len(table.cache))
	}
}

func TestStoredRowsShowNoKey(t *testing.T) {
	ctx, store, kek := t.Context(), newMemory(), newKEK(t)
	table := create(t, kek, store)
	made, err := table.Make(ctx, someIDs(50)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.MakeCertificate(ctx, ID{"tls", "arena"}, certificate(P256)); err != nil {
		t.Fatal(err)
	}
	stored, err := table.Get(ctx, ID{"tls", "arena"})
	if err != nil {
		t.Fatal(err)
	}
	tableSecret := table.tableKeys[1].secret
	var all []byte
	for id, wrapped := range store.rows {
		all = append(append(append(all, id.String()...), '\n'), wrapped...)
	}
	secrets := [][]byte{stored, tableSecret[:]}
	for _, key := range made {
		secrets = append(secrets, key[:])
	}
	for _, secret := range secrets {
		for i := 0; i+8 <= len(secret); i++ {
			if part := secret[i : i+8]; bytes.Contains(all, part) || bytes.Contains(all, []byte(hex.EncodeToString(part))) {
				t.Fatalf("the rows show %x of a key", part)
			}
		}
	}
}

func TestCreateAndOpenMakeNothingSilently(t *testing.T) {
	ctx, store, kek := t.Context(), newMemory(), newKEK(t)
	if _, err := Open(ctx, Config{KEK: kek, Store: store}); carnet.CodeOf(err) != carnet.NotFound || len(store.rows) != 0 {
		t.Errorf("opened an empty store: %v, %d rows", err, len(store.rows))
	}
	create(t, kek, store)
	before := maps.Clone(store.rows)
	if _, err := Create(ctx, Config{KEK: kek, Store: store}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("created over a table: %v", err)
	}
	if !maps.EqualFunc(store.rows, before, bytes.Equal) {
		t.Error("the refused Create changed the store")
	}
	for _, cfg := range []Config{{Store: store}, {KEK: kek}, {KEK: kek, Store: store, Cache: -1}} {
		if _, err := Open(ctx, cfg); err == nil {
			t.Errorf("opened with %+v", cfg)
		}
	}
}

// renamed is a KEK that claims to be another.
type renamed struct {
	KEK
	id string
}

func (r renamed) ID() string { return r.id }

func TestWrongKEKIsRefused(t *testing.T) {
	ctx, store, kek, other := t.Context(), newMemory(), newKEK(t), newKEK(t)
	create(t, kek, store)
	if _, err := Open(ctx, Config{KEK: other, Store: store}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("another KEK: %v", err)
	}
	if _, err := Open(ctx, Config{KEK: renamed{other, kek.ID()}, Store: store}); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("another KEK of the same id: %v", err)
	}
	if _, err := Open(ctx, Config{KEK: renamed{kek, "Not an id"}, Store: store}); err == nil {
		t.Error("a KEK with an id that can't be one")
	}
}

func TestTamperedRowsAreRefused(t *testing.T) {
	ctx, store, kek := t.Context(), newMemory(), newKEK(t)
	a, b := ID{"epoch", "a"}, ID{"epoch", "b"}
	if _, err := create(t, kek, store).Make(ctx, a, b); err != nil {
		t.Fatal(err)
	}
	get := func(m *memory, id ID) error {
		table, err := Open(ctx, Config{KEK: kek, Store: m})
		if err != nil {
			return err
		}
		_, err = table.Get(ctx, id)
		return err
	}
	for id, wrapped := range store.rows {
		for bit := range len(wrapped) * 8 {
			m := store.copy()
			m.rows[id] = slices.Clone(wrapped)
			m.rows[id][bit/8] ^= 1 << (bit % 8)
			want := id
			if id.Kind == tableKind {
				want = a
			}
			if err := get(m, want); carnet.CodeOf(err) != carnet.Tampered {
				t.Fatalf("bit %d of row %s flipped: %v", bit, id, err)
			}
		}
		for n := range wrapped {
			m := store.copy()
			m.rows[id] = wrapped[:n]
			if get(m, a) == nil && get(m, b) == nil {
				t.Errorf("first %d bytes of row %s: accepted", n, id)
			}
		}
	}
	m := store.copy()
	m.rows[a], m.rows[b] = m.rows[b], m.rows[a]
	if err := get(m, a); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("rows exchanged: %v", err)
	}
	m = store.copy()
	for n := range 64 {
		m.rows[tableKeyID(uint32(n), "kek")] = nil
	}
	if err := get(m, a); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("more table keys than are read: %v", err)
	}
	m = store.copy()
	m.rows[ID{tableKind, "1/x"}] = nil
	if err := get(m, a); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("an odd table key: %v", err)
	}
}

func TestPut(t *testing.T) {
	ctx, store := t.Context(), newMemory()
	table := create(t, newKEK(t), store)
	id := ID{"epoch", "a"}
	for _, c := range []struct {
		what    string
		entries []Entry
		code    carnet.Code
	}{
		{"a key", []Entry{{id, []byte("secret")}}, ""},
		{"it again", []Entry{{id, []byte("secret")}}, ""},
		{"another in its place", []Entry{{id, []byte("other")}}, carnet.Conflict},
		{"two keys of one id", []Entry{{ID{"x", "y"}, []byte("1")}, {ID{"x", "y"}, []byte("2")}}, carnet.Conflict},
		{"one key twice", []Entry{{ID{"x", "z"}, []byte("1")}, {ID{"x", "z"}, []byte("1")}}, ""},
		{"nothing", nil, ""},
		{"an empty key", []Entry{{ID{"x", "e"}, nil}}, carnet.TooLarge},
		{"a large key", []Entry{{ID{"x", "e"}, make([]byte, maxSecret+1)}}, carnet.TooLarge},
		{"the table's own", []Entry{{ID{"table", "00000001/x"}, []byte("1")}}, carnet.Malformed},
		{"no kind", []Entry{{ID{"", "x"}, []byte("1")}}, carnet.Malformed},
		{"a kind in capitals", []Entry{{ID{"X", "x"}, []byte("1")}}, carnet.Malformed},
		{"no name", []Entry{{ID{"x", ""}, []byte("1")}}, carnet.Malformed},
		{"a name with a space", []Entry{{ID{"x", "a b"}, []byte("1")}}, carnet.Malformed},
		{"a long name", []Entry{{ID{"x", string(bytes.Repeat([]byte("n"), 201))}, []byte("1")}}, carnet.Malformed},
	} {
		if err := table.Put(ctx, c.entries...); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %q", c.what, err, c.code)
		}
	}
	if _, ok := store.rows[ID{"x", "y"}]; ok {
		t.Error("a refused Put stored a key")
	}
	got, err := table.Get(ctx, id)
	if err != nil || string(got) != "secret" {
		t.Fatalf("got %q, %v", got, err)
	}
	clear(got) // the caller's copy
	if again, _ := table.Get(ctx, id); string(again) != "secret" {
		t.Error("a caller changed the key in the table's memory")
	}
}

func TestPutThatIsNotDurableIsNotUsed(t *testing.T) {
	ctx, store := t.Context(), newMemory()
	table := create(t, newKEK(t), store)
	full := errors.New("disk full")
	store.before = func() error { return full }
	id := ID{"epoch", "a"}
	if _, err := table.Make(ctx, id); !errors.Is(err, full) {
		t.Fatalf("made a key on a full disk: %v", err)
	}
	if _, err := table.Get(ctx, id); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the key is there: %v", err)
	}
}

func TestList(t *testing.T) {
	ctx := t.Context()
	table := create(t, newKEK(t), newMemory())
	many := someIDs(2*listPage + 3)
	others := []ID{{"epoch", "stream"}, {"epoch", "streams/1"}, {"epoch", "a"}, {"slot", "stream/1"}, {"a", "stream/1"}}
	if _, err := table.Make(ctx, append(others, many...)...); err != nil {
		t.Fatal(err)
	}
	got, err := table.List(ctx, "epoch", "stream/")
	if err != nil || !slices.Equal(got, many) {
		t.Errorf("listed %d keys, want %d: %v", len(got), len(many), err)
	}
	if got, err := table.List(ctx, "slot", ""); err != nil || !slices.Equal(got, others[3:4]) {
		t.Errorf("listed %v, %v", got, err)
	}
	if got, err := table.List(ctx, "none", ""); err != nil || len(got) != 0 {
		t.Errorf("listed %v, %v", got, err)
	}
	if _, err := table.List(ctx, "table", ""); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("listed the table's own keys: %v", err)
	}
}

func TestDestroy(t *testing.T) {
	ctx, store := t.Context(), newMemory()
	table := create(t, newKEK(t), store)
	ids := someIDs(3)
	if _, err := table.Make(ctx, ids...); err != nil {
		t.Fatal(err)
	}
	kept := table.cache[ids[0]]
	if err := table.Destroy(ctx, ids[0], ids[1], ID{"epoch", "absent"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, make([]byte, 32)) {
		t.Error("the copy in memory is not wiped")
	}
	for i, id := range ids {
		_, stored := store.rows[id]
		_, err := table.Get(ctx, id)
		if want := i == 2; stored != want || (err == nil) != want || !want && carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("key %d: stored %v, %v", i, stored, err)
		}
	}
	for id := range store.rows {
		if id.Kind == tableKind && table.Destroy(ctx, id) == nil {
			t.Error("destroyed the table key")
		}
	}
}

// late deletes, and fails afterwards, as a store does that can't overwrite.
type late struct {
	*memory
	failed error
}

func (l late) Delete(ctx context.Context, upTo ID, ids []ID) error {
	return errors.Join(l.memory.Delete(ctx, upTo, ids), l.failed)
}

// A key whose row is gone isn't there, whatever the store says; put again it is stored.
func TestDestroyThatFailsLate(t *testing.T) {
	ctx, store := t.Context(), newMemory()
	failed := errors.New("somebody reads")
	table, err := Create(ctx, Config{KEK: newKEK(t), Store: late{store, failed}})
	if err != nil {
		t.Fatal(err)
	}
	e := Entry{ID: ID{"epoch", "a"}, Secret: []byte("secret")}
	if err := table.Put(ctx, e); err != nil {
		t.Fatal(err)
	}
	if err := table.Destroy(ctx, e.ID); !errors.Is(err, failed) {
		t.Errorf("destroyed: %v", err)
	}
	if _, err := table.Get(ctx, e.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the key is there: %v", err)
	}
	if err := table.Put(ctx, e); err != nil {
		t.Fatal(err)
	}
	if _, stored := store.rows[e.ID]; !stored {
		t.Error("what was put again isn't stored")
	}
}

// disordered answers every Page with the same row.
type disordered struct {
	*memory
	row Row
}

func (d disordered) Page(context.Context, ID, int) ([]Row, error) {
	return []Row{d.row, d.row}, nil
}

func TestStoreOutOfOrderIsRefused(t *testing.T) {
	ctx, kek, store := t.Context(), newKEK(t), newMemory()
	table := create(t, kek, store)
	id := ID{"epoch", "a"}
	if _, err := table.Make(ctx, id); err != nil {
		t.Fatal(err)
	}
	table.store = disordered{store, Row{id, store.rows[id]}}
	if ids, err := table.List(ctx, "epoch", ""); err == nil {
		t.Errorf("listed %v", ids)
	}
	if err := table.useTableKey(2, [32]byte{}); err != nil { // so that every row is of an older generation
		t.Fatal(err)
	}
	last, _, err := table.rewrapPage(ctx, ID{})
	if err == nil {
		_, _, err = table.rewrapPage(ctx, last)
	}
	if err == nil {
		t.Error("wrapped anew what the store answers again and again")
	}
}

// lying answers every Get with one row.
type lying struct {
	*memory
	row Row
}

func (l lying) Get(context.Context, ID) (Row, error) { return l.row, nil }

func TestRowOfAnotherKeyIsRefused(t *testing.T) {
	ctx, kek, store := t.Context(), newKEK(t), newMemory()
	a, b := ID{"epoch", "a"}, ID{"epoch", "b"}
	if _, err := create(t, kek, store).Make(ctx, a, b); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{a, b} { // the store says truly or falsely whose row it is
		table, err := Open(ctx, Config{KEK: kek, Store: lying{store, Row{id, store.rows[b]}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := table.Get(ctx, a); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("row of %s: %v", id, err)
		}
	}
}

// TestDestroyedKeyDoesNotComeBack destroys a key while a Get has read its row
// and not yet unwrapped it.
func TestDestroyedKeyDoesNotComeBack(t *testing.T) {
	ctx, kek, store := t.Context(), newKEK(t), newMemory()
	id := ID{"epoch", "a"}
	if _, err := create(t, kek, store).Make(ctx, id); err != nil {
		t.Fatal(err)
	}
	table, err := Open(ctx, Config{KEK: kek, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	hasRead, deleted, done := make(chan bool), make(chan bool), make(chan error, 2)
	store.got = func() { hasRead <- true; <-deleted }
	store.after = func() error { close(deleted); return nil }
	go func() { _, err := table.Get(ctx, id); done <- err }()
	<-hasRead
	go func() { done <- table.Destroy(ctx, id) }()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	store.got = nil
	if _, err := table.Get(ctx, id); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after Destroy: %v", err)
	}
}

// Keys whose destruction waits for another are destroyed together: the store overwrites
// what rows left once, and each caller hears what came of it.
func TestKeysAreDestroyedTogether(t *testing.T) {
	for _, failure := range []error{nil, errors.New("no room")} {
		m := newMemory()
		table, err := Create(t.Context(), Config{KEK: newKEK(t), Store: m})
		if err != nil {
			t.Fatal(err)
		}
		id := func(n int) ID { return ID{"epoch", fmt.Sprint(n)} }
		const many = 40
		for n := range many {
			if err := table.Put(t.Context(), Entry{id(n), []byte{1}}); err != nil {
				t.Fatal(err)
			}
		}
		first, others := make(chan struct{}), make(chan struct{})
		changes := 0 // guarded by m.mu
		m.before = func() error {
			if changes++; changes == 1 {
				m.mu.Unlock()
				close(first)
				<-others
				m.mu.Lock()
				return nil
			}
			return failure
		}
		var destroying sync.WaitGroup
		said := make([]error, many)
		destroy := func(n int) { destroying.Go(func() { said[n] = table.Destroy(t.Context(), id(n)) }) }
		destroy(0)
		<-first
		for n := 1; n < many; n++ {
			destroy(n)
		}
		for end, waiting := time.Now().Add(10*time.Second), 0; waiting < many-1; time.Sleep(time.Millisecond) {
			table.mu.Lock()
			if waiting = 0; table.doomed != nil {
				waiting = len(table.doomed.ids)
			}
			table.mu.Unlock()
			if time.Now().After(end) {
				t.Errorf("%d wait together, want %d", waiting, many-1)
				break
			}
		}
		close(others)
		destroying.Wait()
		if changes != 2 || len(m.rows) != 1 && failure == nil || len(m.rows) != many && failure != nil {
			t.Errorf("with %v: %d keys are destroyed in %d times, and %d rows are left", failure, many, changes, len(m.rows))
		}
		for n, err := range said {
			if wants := failure; n == 0 && err != nil || n > 0 && !errors.Is(err, wants) {
				t.Errorf("with %v: who destroys key %d hears %v", failure, n, err)
			}
		}
		m.before = nil
		for n := range many {
			if err := table.Destroy(t.Context(), id(n)); err != nil {
				t.Errorf("destroyed again: %v", err)
			}
			if _, err := table.Get(t.Context(), id(n)); carnet.CodeOf(err) != carnet.NotFound {
				t.Errorf("key %d is still there: %v", n, err)
			}
		}
	}
}
