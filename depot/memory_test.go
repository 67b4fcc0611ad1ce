package depot

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"carnet"
	"carnet/ledger"
)

type objectKey struct {
	owner carnet.PartyID
	f     carnet.Fingerprint
}

// memoryStore is a Store that lasts as long as the test.
type memoryStore struct {
	mu      sync.Mutex
	objects map[objectKey]Object
	leaves  map[ledger.Entry]uint64
	indexed uint64
	fail    error // by PutObject, once
	docs    map[string]carnet.Document
}

func newStore() *memoryStore {
	return &memoryStore{objects: make(map[objectKey]Object), leaves: make(map[ledger.Entry]uint64), docs: make(map[string]carnet.Document)}
}

func (m *memoryStore) PutObject(_ context.Context, o Object) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	key := objectKey{o.Owner, o.Fingerprint}
	if old, ok := m.objects[key]; ok {
		old.Retention = max(old.Retention, o.Retention)
		o = old
	}
	m.objects[key] = o
	return nil
}

func (m *memoryStore) Object(_ context.Context, owner carnet.PartyID, f carnet.Fingerprint) (Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[objectKey{owner, f}]
	if !ok {
		return o, carnet.Errorf(carnet.NotFound, "no row")
	}
	return o, nil
}

func (m *memoryStore) DeleteObject(_ context.Context, owner carnet.PartyID, f carnet.Fingerprint) (others int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[objectKey{owner, f}]; !ok {
		return 0, carnet.Errorf(carnet.NotFound, "no row")
	}
	delete(m.objects, objectKey{owner, f})
	return m.owners(f), nil
}

func (m *memoryStore) owners(f carnet.Fingerprint) (n int) {
	for key := range m.objects {
		if key.f == f {
			n++
		}
	}
	return n
}

func (m *memoryStore) Objects(_ context.Context, owner carnet.PartyID, after carnet.Fingerprint, limit int) (out []Object, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, o := range m.objects {
		if key.owner == owner && bytes.Compare(key.f[:], after[:]) > 0 {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b Object) int { return bytes.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
	return out[:min(limit, len(out))], nil
}

func (m *memoryStore) Unowned(_ context.Context, fs []carnet.Fingerprint) (out []carnet.Fingerprint, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range fs {
		if m.owners(f) == 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

func (m *memoryStore) Totals(_ context.Context, owner carnet.PartyID) (t Totals, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, o := range m.objects {
		if owner == "" || key.owner == owner {
			t.Objects++
			t.Bytes += o.Size
		}
	}
	return t, nil
}

func (m *memoryStore) Lookup(_ context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
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

func (m *memoryStore) Record(_ context.Context, first uint64, entries []ledger.Entry) error {
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

func (m *memoryStore) Indexed(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.indexed, nil
}

func (m *memoryStore) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.docs[kind+" "+id]
	if !ok {
		return d, carnet.Errorf(carnet.NotFound, "no document")
	}
	return d, nil
}

func (m *memoryStore) Put(_ context.Context, docs []carnet.Document, _ []ledger.Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range docs {
		key := d.Kind + " " + d.ID
		if m.docs[key].Version+1 != d.Version {
			return carnet.Errorf(carnet.Conflict, "another version")
		}
		if d.Body == nil {
			delete(m.docs, key)
		} else {
			m.docs[key] = d
		}
	}
	return nil
}
