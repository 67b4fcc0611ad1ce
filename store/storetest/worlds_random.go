package storetest

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"
	"carnet/ledger"
)

// worldModel is what an avatar.Store should hold, kept the plain way. Ids are
// the store's: the model learns them where the store tells.
type worldModel struct {
	links     map[carnet.PartyID]avatar.LinkRow
	frames    []avatar.FrameRow
	stretches []avatar.StretchRow // in the order of ids
	items     []ledger.Item
	totals    avatar.Totals
	serial    int
}

var modelSenders = []carnet.PartyID{"hub", "lab"}

// randomWorlds does random operations on a store and on the model, and compares
// all that can be read after each.
func randomWorlds(t *testing.T, db Database[avatar.Store], r *rand.Rand) {
	ctx := t.Context()
	m := &worldModel{links: make(map[carnet.PartyID]avatar.LinkRow)}
	s, close := db(t)
	for step := range 50 {
		switch r.IntN(10) {
		case 0:
			m.register(t, ctx, s, r)
		case 1:
			close()
			s, close = db(t)
		case 2, 3:
			m.compact(t, ctx, s, r)
		case 4:
			m.mark(t, ctx, s, r)
		case 5:
			m.drop(t, ctx, s, r)
		default:
			m.append(t, ctx, s, r)
		}
		m.compare(t, ctx, s, step)
	}
	close()
}

func (m *worldModel) register(t *testing.T, ctx context.Context, s avatar.Store, r *rand.Rand) {
	sender, nonce, above := modelSenders[r.IntN(2)], [16]byte{byte(r.IntN(3))}, uint64(r.IntN(20))
	link, known := m.links[sender]
	if !known || link.Nonce != nonce {
		link.Sender, link.Nonce = sender, nonce
		link.Incarnation = max(link.Incarnation, above) + 1
	}
	m.links[sender] = link
	same(t, "registration", get(s.Register(ctx, sender, nonce, above))(t), link)
}

func (m *worldModel) append(t *testing.T, ctx context.Context, s avatar.Store, r *rand.Rand) {
	links := make(map[carnet.PartyID]avatar.LinkRow)
	for sender, link := range m.links {
		links[sender] = link
	}
	var frames []avatar.FrameRow
	good := true
	for range r.IntN(5) {
		link := links[modelSenders[r.IntN(2)]]
		if link.Sender == "" {
			continue
		}
		m.serial++
		f := nextFrame(link, m.serial)
		f.Body = randomBytes(r, 30000)
		if r.IntN(3) == 0 {
			f.Statement = statement(m.serial)
		}
		if r.IntN(12) == 0 {
			good = false
			f.Number += uint64(r.IntN(2))
			f.Parent[3] ^= 1
		}
		frames = append(frames, f)
		links[f.Sender] = avatar.LinkRow{Sender: f.Sender, Nonce: link.Nonce, Incarnation: link.Incarnation, Number: f.Number, Hash: f.Hash, Covers: f.Covers}
	}
	if !good {
		wantCode(t, s.Append(ctx, frames), carnet.Conflict)
		return
	}
	must(t, s.Append(ctx, frames))
	m.links = links
	m.frames = append(m.frames, frames...)
	for _, f := range frames {
		m.totals.Frames++
		m.totals.FramesWithBody++
		m.totals.Batches += uint64(f.Batches)
		if f.Statement.Entry != (ledger.Entry{}) {
			m.items = append(m.items, f.Statement)
		}
	}
}

// compact strips the oldest frames that have bodies.
func (m *worldModel) compact(t *testing.T, ctx context.Context, s avatar.Store, r *rand.Rand) {
	var c avatar.Compaction
	for n, i := r.IntN(4), 0; i < len(m.frames) && n > 0; i++ {
		if f := &m.frames[i]; f.Body != nil {
			f.Body, f.Leaves = nil, randomBytes(r, 500)
			c.Strip = append(c.Strip, avatar.Strip{Frame: f.ID, Leaves: f.Leaves})
			m.totals.FramesWithBody--
			n--
		}
	}
	for range r.IntN(4) {
		m.serial++
		row := stretch(byte(r.IntN(2)), m.serial, carnet.Hour+carnet.Retention(r.IntN(3)))
		row.Body = randomBytes(r, 30000)
		if r.IntN(4) == 0 { // a file
			row.Body = append(make([]byte, bodies.Large), row.Body...)
		}
		row.FirstBatch = uint64(r.IntN(50))
		c.Stretches = append(c.Stretches, row)
		m.totals.Stretches++
		m.totals.StretchBytes += uint64(len(row.Body))
	}
	must(t, s.Compact(ctx, c))
	m.stretches = append(m.stretches, c.Stretches...)
}

// mark tells the store that the depot holds some stretches, and gives one
// another body.
func (m *worldModel) mark(t *testing.T, ctx context.Context, s avatar.Store, r *rand.Rand) {
	rows := get(s.Unstored(ctx, 0, 1+r.IntN(5)))(t)
	var ids []uint64
	for _, row := range rows {
		ids = append(ids, row.ID)
		for i := range m.stretches {
			if m.stretches[i].Fingerprint == row.Fingerprint {
				m.stretches[i].Stored = true
			}
		}
	}
	must(t, s.Stored(ctx, ids))
	for i := range m.stretches {
		if len(rows) > 0 && m.stretches[i].Fingerprint == rows[0].Fingerprint {
			body := randomBytes(r, 9000)
			if len(m.stretches[i].Body) >= bodies.Large {
				body = append(make([]byte, bodies.Large), body...)
			}
			m.totals.StretchBytes += uint64(len(body)) - uint64(len(m.stretches[i].Body))
			m.stretches[i].Body = body
			must(t, s.RestoreStretch(ctx, rows[0].ID, body))
		}
	}
}

func (m *worldModel) drop(t *testing.T, ctx context.Context, s avatar.Store, r *rand.Rand) {
	class, before := carnet.Hour+carnet.Retention(r.IntN(3)), int64(r.IntN(m.serial+1))*1000
	var want []avatar.StretchRow
	m.stretches = slices.DeleteFunc(m.stretches, func(row avatar.StretchRow) bool {
		if row.Class != class || row.Received >= before {
			return false
		}
		want = append(want, row)
		m.totals.Stretches--
		m.totals.StretchBytes -= uint64(len(row.Body))
		return true
	})
	have := get(s.Expired(ctx, class, before, 1<<20))(t)
	same(t, "expired", have, bare(want, have))
	var ids []uint64
	var items []ledger.Item
	for _, row := range have {
		m.serial++
		ids, items = append(ids, row.ID), append(items, statement(m.serial))
	}
	must(t, s.DropStretches(ctx, ids, nil, items))
	m.items = append(m.items, items...)
}

func (m *worldModel) compare(t *testing.T, ctx context.Context, s avatar.Store, step int) {
	t.Helper()
	name := func(what string) string { return fmt.Sprintf("step %d: %s", step, what) }
	var links []avatar.LinkRow
	for _, sender := range modelSenders {
		if link, ok := m.links[sender]; ok {
			links = append(links, link)
		}
	}
	same(t, name("links"), get(s.Links(ctx))(t), links)
	headers := get(s.FrameHeaders(ctx, 0, 1<<20))(t)
	want := stored(t, m.frames, headers)
	var whole []avatar.FrameRow
	for i := range want {
		if want[i].Body != nil {
			whole = append(whole, want[i])
		}
		want[i].Body = nil
	}
	same(t, name("headers"), headers, want)
	same(t, name("frames"), get(s.Frames(ctx, 0, 1<<30))(t), whole)
	items := get(s.Statements(ctx, 0, 1<<20))(t)
	for i := range min(len(items), len(m.items)) {
		m.items[i].ID = items[i].ID
	}
	same(t, name("statements"), items, m.items)
	for st := range byte(2) {
		var rows []avatar.StretchRow
		for _, row := range m.stretches {
			if row.Stream == (carnet.StreamID{0, st}) {
				rows = append(rows, row)
			}
		}
		slices.SortStableFunc(rows, func(a, b avatar.StretchRow) int { return cmp.Compare(a.FirstBatch, b.FirstBatch) })
		have := get(s.Stretches(ctx, carnet.StreamID{0, st}, -1<<63, 1<<63-1))(t)
		same(t, name("stretches"), have, bare(rows, have))
		for i := range have {
			same(t, name("stretch body"), get(s.StretchBody(ctx, have[i].ID))(t), rows[i].Body)
		}
	}
	m.totals.Statements = uint64(len(m.items))
	same(t, name("totals"), get(s.Totals(ctx))(t), m.totals)
}
