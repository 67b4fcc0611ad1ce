package thing

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
)

// memory is a Store without a disk. It can be copied, and can fail on demand.
type memory struct {
	mu sync.Mutex
	memoryState
	fail    func(*Group) error // asked before each commit, under mu
	commits int
	reading func() // called before each reading of the log
	unread  error  // what reading a link's state fails with
}

type memoryState struct {
	log       []LogRow
	next      uint64
	sent      map[carnet.PartyID][]SentRow
	snapshots map[carnet.PartyID][]LinkSnapshot
	refusals  []RefusalRow
	documents map[string]carnet.Document
	items     []ledger.Item
	lastItem  uint64
}

func newMemory() *memory {
	return &memory{memoryState: memoryState{
		sent: map[carnet.PartyID][]SentRow{}, snapshots: map[carnet.PartyID][]LinkSnapshot{}, documents: map[string]carnet.Document{},
	}}
}

// copy is a store with the same content.
func (s *memory) copy() *memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newMemory()
	c.memoryState = s.memoryState
	c.log, c.refusals, c.items = slices.Clone(s.log), slices.Clone(s.refusals), slices.Clone(s.items)
	c.sent, c.snapshots, c.documents = maps.Clone(s.sent), maps.Clone(s.snapshots), maps.Clone(s.documents)
	for k, v := range c.sent {
		c.sent[k] = slices.Clone(v)
	}
	for k, v := range c.snapshots {
		c.snapshots[k] = slices.Clone(v)
	}
	return c
}

// failing makes commits fail as f says, until it is called with nil.
func (s *memory) failing(f func(*Group) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// unreadable makes reading a link's state fail, until it is called with nil.
func (s *memory) unreadable(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = err
}

func (s *memory) Commit(_ context.Context, g *Group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	if s.fail != nil {
		if err := s.fail(g); err != nil {
			return err
		}
	}
	if g.Log != nil && s.next != 0 && g.Log.First != s.next {
		return carnet.Errorf(carnet.Conflict, "the log goes on at %d, not at %d", s.next, g.Log.First)
	}
	for _, f := range g.Sent {
		if rows := s.sent[f.Link]; len(rows) > 0 && rows[len(rows)-1].Number >= f.Number {
			return carnet.Errorf(carnet.Conflict, "frame %d is recorded", f.Number)
		}
	}
	for _, d := range g.Documents {
		if s.documents[d.Kind+"/"+d.ID].Version != d.Version-1 {
			return carnet.Errorf(carnet.Conflict, "document %s %s is not at version %d", d.Kind, d.ID, d.Version-1)
		}
	}
	if g.Log != nil {
		row := *g.Log
		row.Body, row.Index = slices.Clone(row.Body), slices.Clone(row.Index)
		s.log = append(s.log, row)
		s.next = row.First + uint64(row.Count)
	}
	for _, f := range g.Sent {
		s.lastItem++
		f.Statement.ID = s.lastItem
		s.items = append(s.items, f.Statement)
		s.sent[f.Link] = append(s.sent[f.Link], f)
	}
	s.refusals = append(s.refusals, g.Refusals...)
	for _, d := range g.Documents {
		if d.Body == nil {
			delete(s.documents, d.Kind+"/"+d.ID)
		} else {
			s.documents[d.Kind+"/"+d.ID] = d
		}
	}
	for _, item := range g.Statements {
		s.lastItem++
		item.ID = s.lastItem
		s.items = append(s.items, item)
	}
	return nil
}

func (s *keyMemory) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (s *memory) Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error {
	return s.Commit(ctx, &Group{Documents: documents, Statements: statements})
}

func (s *memory) Log(ctx context.Context, from uint64, limit int) (rows []LogRow, err error) {
	s.mu.Lock()
	reading := s.reading
	s.mu.Unlock()
	if reading != nil {
		reading()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	for _, row := range s.log {
		if row.First+uint64(row.Count) > from && (len(rows) == 0 || size < limit) {
			rows = append(rows, row)
			size += len(row.Body)
		}
	}
	return rows, nil
}

func (s *memory) LogIndex(ctx context.Context, from uint64, limit int) ([]LogRow, error) {
	rows, err := s.Log(ctx, from, 1<<40)
	rows = slices.Clone(rows[:min(limit, len(rows))])
	for i := range rows {
		rows[i].Body = nil
	}
	return rows, err
}

func (s *memory) TrimLog(_ context.Context, before int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.log)
	s.log = slices.DeleteFunc(slices.Clone(s.log), func(r LogRow) bool { return r.Received < before })
	return n - len(s.log), nil
}

func (s *memory) Sent(_ context.Context, link carnet.PartyID, after uint64, limit int) (rows []SentRow, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range s.sent[link] {
		if row.Number > after && len(rows) < limit {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (s *memory) Rewind(_ context.Context, link carnet.PartyID, last, acked uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[uint64]bool{}
	s.sent[link] = slices.DeleteFunc(slices.Clone(s.sent[link]), func(r SentRow) bool {
		gone[r.Statement.ID] = r.Number > max(last, acked)
		return r.Number > last
	})
	s.items = slices.DeleteFunc(slices.Clone(s.items), func(i ledger.Item) bool { return gone[i.ID] && len(i.Receipt) == 0 })
	s.snapshots[link] = slices.DeleteFunc(slices.Clone(s.snapshots[link]), func(l LinkSnapshot) bool { return l.Number > last })
	return nil
}

func (s *memory) SaveLink(_ context.Context, l LinkSnapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(s.snapshots[l.Link]), func(o LinkSnapshot) bool { return o.Number == l.Number })
	all = append(all, l)
	s.snapshots[l.Link] = all[max(0, len(all)-32):]
	return nil
}

func (s *memory) Link(_ context.Context, link carnet.PartyID, at uint64) (found LinkSnapshot, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unread != nil {
		return found, s.unread
	}
	for _, l := range s.snapshots[link] {
		if l.Number <= at && l.Number >= found.Number {
			found = l
		}
	}
	return found, nil
}

func (s *memory) Refusals(_ context.Context, id carnet.ThingID, limit int) (rows []RefusalRow, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range slices.Backward(s.refusals) {
		if row.Thing == id && len(rows) < limit {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (s *memory) RefusalCounts(context.Context) (map[carnet.ThingID]map[carnet.Code]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[carnet.ThingID]map[carnet.Code]uint64{}
	for _, row := range s.refusals {
		if counts[row.Thing] == nil {
			counts[row.Thing] = map[carnet.Code]uint64{}
		}
		counts[row.Thing][row.Code]++
	}
	return counts, nil
}

func (s *memory) Documents(_ context.Context, kind string) (all []carnet.Document, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.documents {
		if d.Kind == kind {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b carnet.Document) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

func (s *memory) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.documents {
		if d.Kind == kind && d.ID == id {
			return d, nil
		}
	}
	return carnet.Document{}, carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
}

func (s *memory) Statements(_ context.Context, after uint64, limit int) (items []ledger.Item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.items {
		if i.ID > after && len(items) < limit {
			items = append(items, i)
		}
	}
	return items, nil
}

func (s *memory) Totals(context.Context) (Totals, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Totals{LogRows: uint64(len(s.log)), LogNext: s.next, Refusals: uint64(len(s.refusals)), Statements: uint64(len(s.items))}, nil
}

func (s *memory) Pending(context.Context, uint64, int) ([]ledger.Item, error) { return nil, nil }
func (s *memory) Receipted(context.Context, []ledger.Item) error              { return nil }

// keyMemory is a keys.Store without a disk.
type keyMemory struct {
	mu   sync.Mutex
	rows map[keys.ID]keys.Row
}

func (s *keyMemory) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.rows[id]; ok {
		return r, nil
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "there is no key %v", id)
}

func (s *keyMemory) Page(_ context.Context, after keys.ID, limit int) (page []keys.Row, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := func(a, b keys.ID) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) }
	for id, r := range s.rows {
		if order(id, after) > 0 {
			page = append(page, r)
		}
	}
	slices.SortFunc(page, func(a, b keys.Row) int { return order(a.ID, b.ID) })
	return page[:min(limit, len(page))], nil
}

func (s *keyMemory) Put(_ context.Context, _ keys.ID, rows []keys.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.rows[r.ID] = r
	}
	return nil
}

func (s *keyMemory) Delete(_ context.Context, _ keys.ID, ids []keys.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.rows, id)
	}
	return nil
}
