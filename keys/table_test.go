package keys

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"carnet"
)

// memory is a Store for tests. fail, when set, is asked before each change and
// stops it.
type memory struct {
	mu   sync.Mutex
	rows map[ID][]byte
	fail func(op string) error
}

func newMemory() *memory { return &memory{rows: make(map[ID][]byte)} }

func (m *memory) Get(_ context.Context, id ID) (Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wrapped, ok := m.rows[id]
	if !ok {
		return Row{}, carnet.Errorf(carnet.NotFound, "there is no key %s", id)
	}
	return Row{id, wrapped}, nil
}

func (m *memory) Page(_ context.Context, after ID, limit int) ([]Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var page []Row
	for id, wrapped := range m.rows {
		if above(id, after) {
			page = append(page, Row{id, wrapped})
		}
	}
	slices.SortFunc(page, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.ID.Kind, b.ID.Kind), cmp.Compare(a.ID.Name, b.ID.Name))
	})
	return page[:min(limit, len(page))], nil
}

func (m *memory) Put(_ context.Context, rows []Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail("put"); err != nil {
			return err
		}
	}
	for _, row := range rows {
		m.rows[row.ID] = slices.Clone(row.Wrapped)
	}
	return nil
}

func (m *memory) Delete(_ context.Context, ids []ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail("delete"); err != nil {
			return err
		}
	}
	for _, id := range ids {
		clear(m.rows[id])
		delete(m.rows, id)
	}
	return nil
}

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
