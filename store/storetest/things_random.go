package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"carnet"
	"carnet/ledger"
	"carnet/thing"
)

// thingModel is what a thing.Store should hold, kept the plain way.
type thingModel struct {
	log       []thing.LogRow
	next      uint64
	sent      map[carnet.PartyID][]thing.SentRow
	snapshots map[carnet.PartyID]map[uint64][]byte
	refusals  map[carnet.ThingID][]thing.RefusalRow // newest first
	counts    map[carnet.ThingID]map[carnet.Code]uint64
	documents map[string]carnet.Document
	items     []ledger.Item // without ids: the store gives them
	serial    int
}

var modelLinks = []carnet.PartyID{"arena", "clinic"}

// randomThings does random operations on a store and on the model, and compares
// all that can be read after each.
func randomThings(t *testing.T, db Database[thing.Store], r *rand.Rand) {
	ctx := t.Context()
	m := &thingModel{
		sent: make(map[carnet.PartyID][]thing.SentRow), snapshots: make(map[carnet.PartyID]map[uint64][]byte),
		refusals: make(map[carnet.ThingID][]thing.RefusalRow), counts: make(map[carnet.ThingID]map[carnet.Code]uint64),
		documents: make(map[string]carnet.Document),
	}
	s, close := db(t)
	for step := range 50 {
		switch r.IntN(12) {
		case 0:
			before := int64(r.IntN(1000))
			m.log = slices.DeleteFunc(m.log, func(row thing.LogRow) bool { return row.Received < before })
			get(s.TrimLog(ctx, before))(t)
		case 1:
			link := modelLinks[r.IntN(2)]
			last := r.IntN(len(m.sent[link]) + 1)
			acked := uint64(r.IntN(len(m.sent[link]) + 1))
			m.rewind(link, uint64(last), acked)
			must(t, s.Rewind(ctx, link, uint64(last), acked))
		case 2:
			m.saveLink(t, ctx, s, r)
		case 3:
			m.receipts(t, ctx, s, r)
		case 4:
			close()
			s, close = db(t)
		default:
			group, ok := m.group(r)
			if err := s.Commit(ctx, group); (err == nil) != ok {
				t.Fatalf("step %d: commit answered %v, want success: %v", step, err, ok)
			}
			if ok {
				m.apply(group)
			}
		}
		m.compare(t, ctx, s, step)
	}
	close()
}

// group draws a commit, and whether it should succeed.
func (m *thingModel) group(r *rand.Rand) (*thing.Group, bool) {
	g, ok := &thing.Group{}, true
	if r.IntN(2) == 0 {
		g.Log = &thing.LogRow{First: m.next, Count: uint32(1 + r.IntN(9)), Received: int64(r.IntN(1000)), Index: randomBytes(r, 40), Body: randomBytes(r, 20000)}
		if m.next > 0 && r.IntN(8) == 0 {
			g.Log.First -= 1 + uint64(r.IntN(int(m.next)))
			ok = false
		}
	}
	for _, link := range modelLinks {
		number := uint64(len(m.sent[link]))
		for range r.IntN(3) {
			number++
			m.serial++
			row := thing.SentRow{Link: link, Number: number, Time: int64(r.Uint64()), Policy: r.Uint64() >> 1, Batches: r.Uint32(),
				Header: randomBytes(r, 300), Leaves: randomBytes(r, 9000), State: randomBytes(r, 99)}
			if r.IntN(2) == 0 {
				row.Statement = statement(m.serial)
			}
			g.Sent = append(g.Sent, row)
		}
	}
	for range r.IntN(4) {
		id := carnet.ThingID(fmt.Sprint("thing-", r.IntN(3)))
		g.Refusals = append(g.Refusals, thing.RefusalRow{Thing: id, Time: int64(r.Uint64()), Code: carnet.TooOld, Body: randomBytes(r, 50)})
	}
	for range r.IntN(3) {
		id := fmt.Sprint("doc-", r.IntN(4))
		if slices.ContainsFunc(g.Documents, func(d carnet.Document) bool { return d.ID == id }) {
			continue
		}
		doc := carnet.Document{Kind: "k", ID: id, Version: m.documents[id].Version + 1, Body: randomBytes(r, 90)}
		switch r.IntN(12) {
		case 0, 1:
			doc.Body = nil
		case 2:
			doc.Version += uint64(1 + r.IntN(2))
			ok = false
		}
		g.Documents = append(g.Documents, doc)
	}
	for range r.IntN(3) {
		m.serial++
		g.Statements = append(g.Statements, statement(m.serial))
	}
	return g, ok
}

func (m *thingModel) apply(g *thing.Group) {
	if g.Log != nil {
		m.log = append(m.log, *g.Log)
		m.next = g.Log.First + uint64(g.Log.Count)
	}
	for _, row := range g.Sent {
		m.sent[row.Link] = append(m.sent[row.Link], row)
		if row.Statement.Entry != (ledger.Entry{}) {
			m.items = append(m.items, row.Statement)
		}
	}
	for _, row := range g.Refusals {
		m.refusals[row.Thing] = append([]thing.RefusalRow{row}, m.refusals[row.Thing]...)
		if m.counts[row.Thing] == nil {
			m.counts[row.Thing] = make(map[carnet.Code]uint64)
		}
		m.counts[row.Thing][row.Code]++
	}
	for _, doc := range g.Documents {
		m.documents[doc.ID] = doc
		if doc.Body == nil {
			delete(m.documents, doc.ID)
		}
	}
	m.items = append(m.items, g.Statements...)
}

func (m *thingModel) rewind(link carnet.PartyID, last, acked uint64) {
	for _, row := range m.sent[link][max(last, acked):] {
		m.items = slices.DeleteFunc(m.items, func(item ledger.Item) bool {
			return item.Entry == row.Statement.Entry && len(item.Receipt) == 0
		})
	}
	m.sent[link] = m.sent[link][:last:last]
	for number := range m.snapshots[link] {
		if number > last {
			delete(m.snapshots[link], number)
		}
	}
}

func (m *thingModel) saveLink(t *testing.T, ctx context.Context, s thing.Store, r *rand.Rand) {
	link := modelLinks[r.IntN(2)]
	if m.snapshots[link] == nil {
		m.snapshots[link] = make(map[uint64][]byte)
	}
	for range 12 {
		number, state := uint64(r.IntN(60)), randomBytes(r, 50)
		m.snapshots[link][number] = state
		must(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: link, Number: number, State: state}))
		var numbers []uint64
		for n := range m.snapshots[link] {
			numbers = append(numbers, n)
		}
		slices.Sort(numbers)
		for len(numbers) > 32 {
			delete(m.snapshots[link], numbers[0])
			numbers = numbers[1:]
		}
	}
}

func (m *thingModel) receipts(t *testing.T, ctx context.Context, s thing.Store, r *rand.Rand) {
	pending := get(s.Pending(ctx, 0, 1+r.IntN(5)))(t)
	for i := range pending {
		pending[i].Receipt = []byte(fmt.Sprint("receipt of ", pending[i].ID))
		for k := range m.items {
			if m.items[k].Entry == pending[i].Entry {
				m.items[k].Receipt = pending[i].Receipt
			}
		}
	}
	must(t, s.Receipted(ctx, pending))
}

func (m *thingModel) compare(t *testing.T, ctx context.Context, s thing.Store, step int) {
	t.Helper()
	want := thing.Totals{LogRows: uint64(len(m.log)), LogNext: m.next, Statements: uint64(len(m.items))}
	name := func(what string) string { return fmt.Sprintf("step %d: %s", step, what) }
	for _, link := range modelLinks {
		have := get(s.Sent(ctx, link, 0, 1<<20))(t)
		rows := append([]thing.SentRow(nil), m.sent[link]...)
		for i := range min(len(rows), len(have)) {
			want.SentBatches += uint64(rows[i].Batches)
			rows[i].Statement = have[i].Statement // compared with the outbox below
		}
		same(t, name("frames"), have, rows)
		want.SentFrames += uint64(len(rows))
		for at := range uint64(62) {
			snapshot := thing.LinkSnapshot{}
			for n, state := range m.snapshots[link] {
				if n <= at && (snapshot.Link == "" || n > snapshot.Number) {
					snapshot = thing.LinkSnapshot{Link: link, Number: n, State: state}
				}
			}
			if at%10 == 0 || at > 58 {
				same(t, name("snapshot"), get(s.Link(ctx, link, at))(t), snapshot)
			}
		}
	}
	have := get(s.Statements(ctx, 0, 1<<20))(t)
	items := append([]ledger.Item(nil), m.items...)
	for i := range min(len(items), len(have)) {
		items[i].ID = have[i].ID
		if len(items[i].Receipt) > 0 {
			want.Receipts++
		}
	}
	same(t, name("statements"), have, items)
	for _, link := range modelLinks {
		for _, row := range get(s.Sent(ctx, link, 0, 1<<20))(t) {
			if row.Statement.Entry != (ledger.Entry{}) && !slices.ContainsFunc(have, func(i ledger.Item) bool { return i.ID == row.Statement.ID && i.Entry == row.Statement.Entry }) {
				t.Fatal(name(fmt.Sprintf("the statement of frame %d to %s is not in the outbox", row.Number, link)))
			}
		}
	}
	for id, rows := range m.refusals {
		same(t, name("refusals"), get(s.Refusals(ctx, id, 1<<20))(t), rows)
		want.Refusals += uint64(len(rows))
	}
	same(t, name("refusal counts"), get(s.RefusalCounts(ctx))(t), m.counts)
	var docs []carnet.Document
	for _, id := range []string{"doc-0", "doc-1", "doc-2", "doc-3"} {
		if doc, ok := m.documents[id]; ok {
			docs = append(docs, doc)
		}
	}
	same(t, name("documents"), get(s.Documents(ctx, "k"))(t), docs)
	same(t, name("log"), get(s.Log(ctx, 0, 1<<30))(t), m.log)
	same(t, name("totals"), get(s.Totals(ctx))(t), want)
}
