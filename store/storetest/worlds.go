package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
)

// Worlds is the suite for avatar.Store.
func Worlds(t *testing.T, fresh Fresh[avatar.Store]) {
	common := func(t *testing.T) shared {
		s := open(t, fresh(t))
		return shared{s, s.Put, allDocuments(s), s.Statements}
	}
	t.Run("DocumentPage", func(t *testing.T) { testDocumentPage(t, fresh) })
	t.Run("Documents", func(t *testing.T) { testDocuments(t, common) })
	t.Run("Versions", func(t *testing.T) { testVersions(t, common) })
	t.Run("Outbox", func(t *testing.T) { testOutbox(t, common) })
	t.Run("Contention", func(t *testing.T) { testContention(t, common) })
	t.Run("Register", func(t *testing.T) { testRegister(t, fresh) })
	t.Run("Append", func(t *testing.T) { testAppend(t, fresh) })
	t.Run("AppendConflict", func(t *testing.T) { testAppendConflict(t, fresh) })
	t.Run("Compact", func(t *testing.T) { testCompact(t, fresh) })
	t.Run("CompactConflict", func(t *testing.T) { testCompactConflict(t, fresh) })
	t.Run("Stretches", func(t *testing.T) { testStretches(t, fresh) })
	t.Run("StretchPage", func(t *testing.T) { testStretchPage(t, fresh) })
	t.Run("RestoreStretch", func(t *testing.T) { testRestore(t, fresh) })
	t.Run("DropStretches", func(t *testing.T) { testDrop(t, fresh) })
	t.Run("DropConflict", func(t *testing.T) { testDropConflict(t, fresh) })
	t.Run("LargeBodies", func(t *testing.T) { testLargeBodies(t, fresh) })
	t.Run("SameBytes", func(t *testing.T) { testSameBytes(t, fresh) })
	t.Run("TwoProcesses", func(t *testing.T) { testWorldsFencing(t, fresh) })
	t.Run("Random", func(t *testing.T) {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { randomWorlds(t, fresh(t), rand.New(rand.NewPCG(seed, 2))) })
		}
	})
}

// allDocuments reads documents in pages. One with an empty id is on none.
func allDocuments(s avatar.Store) func(context.Context, string) ([]carnet.Document, error) {
	return func(ctx context.Context, kind string) (docs []carnet.Document, err error) {
		if d, err := s.Document(ctx, kind, ""); err == nil {
			docs = append(docs, d)
		} else if carnet.CodeOf(err) != carnet.NotFound {
			return nil, err
		}
		for after := ""; ; {
			page, err := s.DocumentPage(ctx, kind, after, 3)
			if err != nil || len(page) == 0 {
				return docs, err
			}
			docs, after = append(docs, page...), page[len(page)-1].ID
		}
	}
}

// testDocumentPage pages through documents by the bytes of their ids.
func testDocumentPage(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	var docs []carnet.Document
	for _, id := range []string{"A", "B", "Z", "a", "a b", "a-b", "a.b", "a/b", "ab", "b", "ä"} {
		docs = append(docs, carnet.Document{Kind: "k", ID: id, Version: 1, Body: []byte(id)})
	}
	must(t, s.Put(ctx, docs, nil))
	must(t, s.Put(ctx, []carnet.Document{{Kind: "K", ID: "a", Version: 1, Body: []byte{}}}, nil))
	for _, c := range []struct {
		after           string
		limit, from, to int
	}{{"", 99, 0, 11}, {"", 3, 0, 3}, {"Z", 3, 3, 6}, {"Y", 1, 2, 3}, {"a/", 2, 7, 9}, {"b", 9, 10, 11}, {"ä", 9, 11, 11}, {"", 0, 0, 0}} {
		same(t, fmt.Sprintf("%d documents after %q", c.limit, c.after), get(s.DocumentPage(ctx, "k", c.after, c.limit))(t), docs[c.from:c.to])
	}
	same(t, "one", get(s.Document(ctx, "k", "a b"))(t), docs[4])
	for _, c := range [][2]string{{"k", "c"}, {"K", "b"}, {"k", ""}, {"x", "a"}} {
		_, err := s.Document(ctx, c[0], c[1])
		wantCode(t, err, carnet.NotFound)
	}
}

func testRegister(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	n1, n2 := [16]byte{0, 1}, [16]byte{0, 2}
	for i, c := range []struct {
		sender      carnet.PartyID
		nonce       [16]byte
		above       uint64
		incarnation uint64
	}{
		{"hub", n1, 0, 1}, {"hub", n1, 0, 1}, {"hub", n2, 1, 2}, {"hub", n1, 0, 3}, // a nonce of long ago is new again
		{"lab", n1, 8, 9}, {"hub", n1, 7, 3}, {"hub", [16]byte{}, 2, 4}, {"new", [16]byte{}, 0, 1}, {"lab", n2, outside - 2, outside - 1},
	} {
		same(t, fmt.Sprint("registration ", i), get(s.Register(ctx, c.sender, c.nonce, c.above))(t),
			avatar.LinkRow{Sender: c.sender, Nonce: c.nonce, Incarnation: c.incarnation})
	}
	for _, above := range []uint64{0, outside - 1, outside, 1<<64 - 1} {
		_, err := s.Register(ctx, "lab", [16]byte{7}, above)
		wantCode(t, err, carnet.TooLarge)
	}
	f := nextFrame(avatar.LinkRow{Sender: "hub", Incarnation: 4}, 1)
	must(t, s.Append(ctx, []avatar.FrameRow{f}))
	if _, err := s.Register(cancelled(), "hub", n2, 0); err == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	want := []avatar.LinkRow{
		{Sender: "hub", Incarnation: 4, Number: 1, Hash: f.Hash, Covers: f.Covers},
		{Sender: "lab", Nonce: n2, Incarnation: outside - 1},
		{Sender: "new", Incarnation: 1},
	}
	same(t, "links", get(s.Links(ctx))(t), want)
	want[0].Nonce, want[0].Incarnation = n2, 5
	same(t, "registration of a sender with frames", get(s.Register(ctx, "hub", n2, 0))(t), want[0])
}

// nextFrame makes the frame that follows a link's state; n tells it apart.
func nextFrame(link avatar.LinkRow, n int) avatar.FrameRow {
	name := fmt.Appendf(nil, "%s %d\x00", link.Sender, n)
	f := avatar.FrameRow{
		Sender: link.Sender, Incarnation: link.Incarnation, Number: link.Number + 1, Parent: link.Hash,
		Hash: carnet.FingerprintOf(name), Covers: [16]byte{0, byte(n), 0xff}, Received: int64(n) - 3, Batches: uint32(n),
		Header: name, Body: append(awkward(), name...),
	}
	if n%2 == 0 {
		f.Statement = statement(n)
		f.Leaves = bytes.Repeat(name, 32)
	}
	return f
}

// chain makes n frames that follow one another, from a link's state on.
func chain(link avatar.LinkRow, n int) (frames []avatar.FrameRow) {
	for range n {
		f := nextFrame(link, int(link.Number)+1)
		frames = append(frames, f)
		link.Number, link.Hash = f.Number, f.Hash
	}
	return frames
}

// registered makes a database with senders hub and lab registered.
func registered(t *testing.T, db Database[avatar.Store]) (s avatar.Store, hub, lab avatar.LinkRow, close func()) {
	t.Helper()
	s, close = db(t)
	hub = get(s.Register(t.Context(), "hub", [16]byte{1}, 0))(t)
	lab = get(s.Register(t.Context(), "lab", [16]byte{2}, 0))(t)
	return s, hub, lab, close
}

// stored are frames as reads return them: with the statement ids of have, where
// there is a statement.
func stored(t *testing.T, want, have []avatar.FrameRow) []avatar.FrameRow {
	t.Helper()
	want = append([]avatar.FrameRow(nil), want...)
	for i := range min(len(want), len(have)) {
		if want[i].Statement.Entry != (ledger.Entry{}) {
			want[i].StatementID, want[i].Statement.ID = have[i].StatementID, have[i].StatementID
			if have[i].StatementID == 0 {
				t.Fatalf("frame %d has no statement id", have[i].ID)
			}
		}
	}
	return want
}

func testAppend(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, hub, lab, close := registered(t, db)
	h, l := chain(hub, 5), chain(lab, 2)
	frames := []avatar.FrameRow{h[0], l[0], h[1], h[2], l[1], h[3], h[4]}
	frames[3].Body = []byte{} // empty, but there
	must(t, s.Append(ctx, frames[:3]))
	must(t, s.Append(ctx, frames[3:]))
	must(t, s.Append(ctx, nil))
	for i := range frames {
		if frames[i].ID == 0 || i > 0 && frames[i].ID <= frames[i-1].ID {
			t.Fatalf("frame ids are not increasing: %d after %d", frames[i].ID, frames[max(i-1, 0)].ID)
		}
	}
	close()
	s = open(t, db)
	have := get(s.Frames(ctx, 0, 1<<30))(t)
	same(t, "frames", have, stored(t, frames, have))
	if have[3].Body == nil {
		t.Fatal("an empty body came back as nil, which means compacted")
	}
	whole := len(frames[0].Body)
	for _, c := range []struct{ after, limit, from, to int }{
		{0, 0, 0, 1}, {0, 1, 0, 1}, {0, whole, 0, 1}, {0, whole + 1, 0, 1}, {0, whole + len(frames[1].Body), 0, 2}, {3, 1, 3, 4}, {7, 9, 7, 7},
	} {
		after := uint64(0)
		if c.after > 0 {
			after = frames[c.after-1].ID
		}
		part := get(s.Frames(ctx, after, c.limit))(t)
		same(t, fmt.Sprintf("frames after the first %d, %d bytes", c.after, c.limit), part, have[c.from:c.to])
	}
	same(t, "frames after 2^64-1", get(s.Frames(ctx, 1<<64-1, 9))(t), have[7:])
	same(t, "one frame", get(s.Frame(ctx, "lab", 2))(t), have[4])
	for _, c := range []struct {
		sender carnet.PartyID
		number uint64
	}{{"lab", 3}, {"lab", 0}, {"Lab", 1}, {"nobody", 1}, {"lab", 1<<64 - 1}} {
		_, err := s.Frame(ctx, c.sender, c.number)
		wantCode(t, err, carnet.NotFound)
	}
	headers := append([]avatar.FrameRow(nil), have...)
	for i := range headers {
		headers[i].Body = nil
	}
	same(t, "headers", get(s.FrameHeaders(ctx, 0, 99))(t), headers)
	same(t, "headers after the second, at most 3", get(s.FrameHeaders(ctx, have[1].ID, 3))(t), headers[2:5])
	same(t, "totals", get(s.Totals(ctx))(t), avatar.Totals{Frames: 7, FramesWithBody: 7, Batches: 1 + 2 + 3 + 4 + 5 + 1 + 2, Statements: 3})
	if n := len(get(s.Statements(ctx, 0, 9))(t)); n != 3 {
		t.Fatalf("the outbox holds %d statements, want 3", n)
	}
}

func testAppendConflict(t *testing.T, fresh Fresh[avatar.Store]) {
	s, hub, lab, close := registered(t, fresh(t))
	t.Cleanup(close)
	must(t, s.Append(t.Context(), chain(hub, 2)))
	for _, c := range []struct {
		name   string
		change func(f []avatar.FrameRow) []avatar.FrameRow // of frames 3 and 4 of hub, 1 of lab
		code   carnet.Code
	}{
		{"again", func(f []avatar.FrameRow) []avatar.FrameRow { return []avatar.FrameRow{f[0], f[0]} }, carnet.Conflict},
		{"gap", func(f []avatar.FrameRow) []avatar.FrameRow { return f[1:] }, carnet.Conflict},
		{"out of order", func(f []avatar.FrameRow) []avatar.FrameRow { return []avatar.FrameRow{f[1], f[0]} }, carnet.Conflict},
		{"wrong parent", func(f []avatar.FrameRow) []avatar.FrameRow { f[0].Parent[31]++; return f }, carnet.Conflict},
		{"wrong parent of the second", func(f []avatar.FrameRow) []avatar.FrameRow { f[1].Parent[0]++; return f }, carnet.Conflict},
		{"older incarnation", func(f []avatar.FrameRow) []avatar.FrameRow { f[0].Incarnation--; return f }, carnet.Conflict},
		{"newer incarnation", func(f []avatar.FrameRow) []avatar.FrameRow { f[1].Incarnation++; return f }, carnet.Conflict},
		{"unregistered sender", func(f []avatar.FrameRow) []avatar.FrameRow { f[2].Sender = "nobody"; return f }, carnet.Conflict},
		{"another sender's", func(f []avatar.FrameRow) []avatar.FrameRow { f[0].Sender = "lab"; return f }, carnet.Conflict},
		{"wraps around", func(f []avatar.FrameRow) []avatar.FrameRow { f[0].Number = 1<<64 - 1; return f }, carnet.Conflict},
		{"right", func(f []avatar.FrameRow) []avatar.FrameRow { return f }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			all := chain(hub, 4)
			before, links := get(s.Totals(ctx))(t), get(s.Links(ctx))(t)
			wantCode(t, s.Append(ctx, c.change([]avatar.FrameRow{all[2], all[3], chain(lab, 1)[0]})), c.code)
			if c.code == "" {
				return
			}
			same(t, "totals", get(s.Totals(ctx))(t), before)
			same(t, "links", get(s.Links(ctx))(t), links)
			if n := len(get(s.FrameHeaders(ctx, 0, 9))(t)); n != 2 {
				t.Fatalf("%d frames are stored, want 2", n)
			}
		})
	}
}

// stretch makes a stretch of stream st; n tells it apart.
func stretch(st byte, n int, class carnet.Retention) avatar.StretchRow {
	body := append(awkward(), st, byte(n), byte(n>>8))
	return avatar.StretchRow{
		Stream: carnet.StreamID{0, st}, Class: class, FirstBatch: uint64(n) * 10, LastBatch: uint64(n)*10 + 9, Batches: 10, Measurements: uint64(n) << 33,
		FromMinute: int64(n) * 5, ToMinute: int64(n)*5 + 7, Received: int64(n) * 1000, Fingerprint: carnet.FingerprintOf(body),
		Origins: []byte{0, byte(n)}, Body: body,
	}
}

// bare are stretches as they are listed: with the ids of have, without bodies.
func bare(want, have []avatar.StretchRow) []avatar.StretchRow {
	want = append([]avatar.StretchRow(nil), want...)
	for i := range min(len(want), len(have)) {
		want[i].ID, want[i].Size, want[i].Body = have[i].ID, len(want[i].Body), nil
	}
	return want
}

func testCompact(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, hub, _, close := registered(t, db)
	frames := chain(hub, 3)
	must(t, s.Append(ctx, frames))
	rows := []avatar.StretchRow{stretch(1, 1, carnet.Day), stretch(2, 1, carnet.Day)}
	strips := []avatar.Strip{{Frame: frames[0].ID, Leaves: awkward()}, {Frame: frames[1].ID, Leaves: nil}}
	note := carnet.Document{Kind: "moved", ID: "a", Version: 1, Body: awkward()}
	wantCode(t, s.Compact(ctx, avatar.Compaction{Stretches: rows, Strip: strips, Documents: []carnet.Document{note, note}}), carnet.Conflict)
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows, Strip: strips, Documents: []carnet.Document{note}}))
	must(t, s.Compact(ctx, avatar.Compaction{}))
	close()
	s = open(t, db)
	have := get(s.FrameHeaders(ctx, 0, 9))(t)
	frames[0].Leaves, frames[1].Leaves = awkward(), nil
	for i := range 2 {
		frames[i].Body = nil
		f := get(s.Frame(ctx, "hub", uint64(i)+1))(t)
		same(t, "stripped frame", f, stored(t, frames[i:i+1], have[i:])[0])
		if f.Body != nil {
			t.Fatal("a stripped frame has an empty body, want nil")
		}
	}
	left := get(s.Frames(ctx, 0, 1<<30))(t)
	same(t, "frames with bodies", left, stored(t, frames[2:], left))
	same(t, "document", get(s.Document(ctx, "moved", "a"))(t), note)
	listed := get(s.Stretches(ctx, rows[1].Stream, 0, 99))(t)
	same(t, "stretch", listed, bare(rows[1:], listed))
	same(t, "body", get(s.StretchBody(ctx, listed[0].ID))(t), rows[1].Body)
	same(t, "totals", get(s.Totals(ctx))(t), avatar.Totals{Frames: 3, FramesWithBody: 1, Batches: 6, Stretches: 2,
		StretchBytes: uint64(len(rows[0].Body) + len(rows[1].Body)), Statements: 1})
}

func testCompactConflict(t *testing.T, fresh Fresh[avatar.Store]) {
	s, hub, _, close := registered(t, fresh(t))
	t.Cleanup(close)
	frames := chain(hub, 3)
	must(t, s.Append(t.Context(), frames))
	must(t, s.Compact(t.Context(), avatar.Compaction{Strip: []avatar.Strip{{Frame: frames[0].ID}}}))
	for _, c := range []struct {
		name  string
		strip func(ids []uint64) []uint64 // of three frames, the first compacted
		bad   func(*avatar.StretchRow)
		code  carnet.Code
	}{
		{"compacted already", func(ids []uint64) []uint64 { return []uint64{ids[1], ids[0]} }, nil, carnet.Conflict},
		{"twice in one", func(ids []uint64) []uint64 { return []uint64{ids[1], ids[1]} }, nil, carnet.Conflict},
		{"unknown frame", func(ids []uint64) []uint64 { return []uint64{ids[1], ids[2] + 1} }, nil, carnet.Conflict},
		{"no such id", func(ids []uint64) []uint64 { return []uint64{ids[1], 1<<64 - 1} }, nil, carnet.Conflict},
		{"batch out of range", func(ids []uint64) []uint64 { return ids[1:] }, func(r *avatar.StretchRow) { r.LastBatch = outside }, carnet.TooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			before := get(s.Totals(ctx))(t)
			row := stretch(1, 1, carnet.Day)
			if c.bad != nil {
				c.bad(&row)
			}
			var strips []avatar.Strip
			for _, id := range c.strip([]uint64{frames[0].ID, frames[1].ID, frames[2].ID}) {
				strips = append(strips, avatar.Strip{Frame: id})
			}
			wantCode(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{stretch(1, 0, carnet.Day), row}, Strip: strips}), c.code)
			same(t, "totals", get(s.Totals(ctx))(t), before)
			if n := len(get(s.Frames(ctx, 0, 1<<20))(t)); n != 2 {
				t.Fatalf("%d frames have bodies, want 2", n)
			}
			same(t, "stretches", get(s.Unstored(ctx, 0, 9))(t), []avatar.StretchRow{})
		})
	}
}

func testStretches(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	// Minutes [5n, 5n+7]; first batches 10n; added out of order.
	rows := []avatar.StretchRow{stretch(1, 3, carnet.Day), stretch(1, 0, carnet.Day), stretch(2, 2, carnet.Day), stretch(1, 1, carnet.Keep)}
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows[:2]}))
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows[2:]}))
	negative := stretch(1, 9, carnet.Day)
	negative.FromMinute, negative.ToMinute, negative.FirstBatch = -1<<63, -100, 1<<63-1
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{negative}}))
	for _, c := range []struct {
		from, to int64
		want     []avatar.StretchRow
	}{
		{-1 << 63, 1<<63 - 1, []avatar.StretchRow{rows[1], rows[3], rows[0], negative}},
		{0, 100, []avatar.StretchRow{rows[1], rows[3], rows[0]}},
		{7, 7, []avatar.StretchRow{rows[1], rows[3]}},
		{8, 14, []avatar.StretchRow{rows[3]}},
		{13, 14, nil},
		{22, 22, []avatar.StretchRow{rows[0]}},
		{23, 99, nil},
		{-101, -100, []avatar.StretchRow{negative}},
		{-99, -1, nil},
		{9, 3, nil},
	} {
		have := get(s.Stretches(ctx, carnet.StreamID{0, 1}, c.from, c.to))(t)
		same(t, fmt.Sprintf("stretches in [%d, %d]", c.from, c.to), have, bare(c.want, have))
	}
	same(t, "stretches of an unknown stream", get(s.Stretches(ctx, carnet.StreamID{}, 0, 99))(t), rows[:0])
	all := get(s.Unstored(ctx, 0, 99))(t)
	same(t, "unstored", all, bare(append(rows, negative), all))
	for i := range all {
		if i > 0 && all[i].ID <= all[i-1].ID {
			t.Fatalf("stretch id %d comes after %d", all[i].ID, all[i-1].ID)
		}
	}
	must(t, s.Stored(ctx, []uint64{all[0].ID, all[3].ID, 1 << 62, all[0].ID}))
	must(t, s.Stored(ctx, nil))
	same(t, "unstored, at most 2", get(s.Unstored(ctx, 0, 2))(t), all[1:3])
	same(t, "unstored, after one", get(s.Unstored(ctx, all[1].ID, 9))(t), []avatar.StretchRow{all[2], all[4]})
	same(t, "unstored, after all", get(s.Unstored(ctx, 1<<64-1, 9))(t), []avatar.StretchRow{})
	have := get(s.Stretches(ctx, carnet.StreamID{0, 1}, 15, 22))(t)
	if len(have) != 1 || !have[0].Stored {
		t.Fatalf("a stretch that was stored is listed as %+v", have)
	}
	doomed := carnet.Document{Kind: "doomed", ID: "one", Version: 1, Body: []byte("sealed")}
	must(t, s.Unstore(ctx, []uint64{all[3].ID, 1 << 62}, []carnet.Document{doomed}, nil))
	same(t, "unstored, once one isn't held any more", get(s.Unstored(ctx, 0, 9))(t), []avatar.StretchRow{all[1], all[2], all[3], all[4]})
	if err := s.Unstore(ctx, []uint64{all[0].ID}, []carnet.Document{doomed}, nil); carnet.CodeOf(err) != carnet.Conflict {
		t.Fatalf("a document that is there: %v", err)
	}
	same(t, "unstored, after a conflict", get(s.Unstored(ctx, 0, 1))(t), all[1:2])
}

// testStretchPage pages through a stream's stretches by their first batches.
func testStretchPage(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	rows := []avatar.StretchRow{stretch(1, 3, carnet.Day), stretch(1, 0, carnet.Day), stretch(2, 2, carnet.Day), stretch(1, 1, carnet.Keep)}
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows}))
	first := rows[1]
	first.FirstBatch = 1<<63 - 1
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{first}}))
	in := []avatar.StretchRow{rows[1], rows[3], rows[0], first}
	for _, c := range []struct {
		from        uint64
		limit, a, b int
	}{{0, 9, 0, 4}, {0, 2, 0, 2}, {1, 2, 1, 3}, {10, 1, 1, 2}, {11, 1, 2, 3}, {31, 9, 3, 4}, {1<<63 - 1, 9, 3, 4}, {0, 0, 0, 0}, {1 << 63, 9, 3, 4}} {
		have := get(s.StretchPage(ctx, carnet.StreamID{0, 1}, c.from, c.limit))(t)
		same(t, fmt.Sprintf("%d stretches from batch %d on", c.limit, c.from), have, bare(in[c.a:c.b], have))
	}
	same(t, "stretches of an unknown stream", get(s.StretchPage(ctx, carnet.StreamID{}, 0, 9))(t), rows[:0])
	one, two := carnet.StreamID{0, 1}, carnet.StreamID{0, 2}
	same(t, "streams", get(s.StretchStreams(ctx, carnet.StreamID{}, 9))(t), []carnet.StreamID{one, two})
	same(t, "the first stream", get(s.StretchStreams(ctx, carnet.StreamID{}, 1))(t), []carnet.StreamID{one})
	same(t, "streams after the first", get(s.StretchStreams(ctx, one, 9))(t), []carnet.StreamID{two})
	same(t, "streams after the last", get(s.StretchStreams(ctx, two, 9))(t), []carnet.StreamID{})
}

func testRestore(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{stretch(1, 1, carnet.Day), stretch(1, 2, carnet.Day)}}))
	rows := get(s.Unstored(ctx, 0, 9))(t)
	_, err := s.StretchBody(ctx, rows[1].ID+1)
	wantCode(t, err, carnet.NotFound)
	_, err = s.StretchBody(ctx, 1<<64-1)
	wantCode(t, err, carnet.NotFound)
	wantCode(t, s.RestoreStretch(ctx, rows[1].ID+1, []byte("x")), carnet.NotFound)
	must(t, s.RestoreStretch(ctx, rows[0].ID, []byte("restored\x00")))
	same(t, "restored body", get(s.StretchBody(ctx, rows[0].ID))(t), []byte("restored\x00"))
	same(t, "other body", get(s.StretchBody(ctx, rows[1].ID))(t), stretch(1, 2, carnet.Day).Body)
	if n := get(s.Totals(ctx))(t).StretchBytes; n != uint64(len("restored\x00")+len(stretch(1, 2, carnet.Day).Body)) {
		t.Fatalf("stretches have %d bytes", n)
	}
}

func testDrop(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	rows := []avatar.StretchRow{stretch(1, 1, carnet.Day), stretch(1, 2, carnet.Month), stretch(1, 3, carnet.Day), stretch(2, 4, carnet.Day)}
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows}))
	all := get(s.Unstored(ctx, 0, 9))(t)
	last := all[3].ID
	same(t, "nothing expired", get(s.Expired(ctx, carnet.Day, 1000, 9))(t), []avatar.StretchRow{})
	same(t, "expired", get(s.Expired(ctx, carnet.Day, 3001, 9))(t), []avatar.StretchRow{all[0], all[2]})
	same(t, "the oldest expired", get(s.Expired(ctx, carnet.Day, 3001, 1))(t), []avatar.StretchRow{all[0]})
	note := []carnet.Document{{Kind: "doomed", ID: "a", Version: 1, Body: []byte("1")}}
	must(t, s.DropStretches(ctx, []uint64{all[0].ID, all[2].ID}, note, []ledger.Item{statement(1), statement(2)}))
	must(t, s.DropStretches(ctx, nil, nil, nil))
	must(t, s.Overwrite(ctx))
	must(t, s.Overwrite(ctx)) // with nothing to do
	close()
	s = open(t, db)
	have := get(s.Unstored(ctx, 0, 9))(t)
	same(t, "left", have, bare([]avatar.StretchRow{rows[1], rows[3]}, have))
	same(t, "documents about it", get(s.DocumentPage(ctx, "doomed", "", 9))(t), note)
	same(t, "pending statements", len(get(s.Pending(ctx, 0, 9))(t)), 2)
	same(t, "totals", get(s.Totals(ctx))(t), avatar.Totals{Stretches: 2, StretchBytes: uint64(len(rows[1].Body) + len(rows[3].Body)), Statements: 2})
	must(t, s.DropStretches(ctx, []uint64{last}, nil, nil))
	_, err := s.StretchBody(ctx, last)
	wantCode(t, err, carnet.NotFound)
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows[:1]}))
	if have := get(s.Unstored(ctx, 0, 9))(t); have[1].ID <= last {
		t.Fatalf("stretch id %d was given again; the last was %d", have[1].ID, last)
	}
}

// testDropConflict drops what can't be, with documents and statements of which
// then nothing stays either.
func testDropConflict(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{stretch(1, 1, carnet.Day), stretch(1, 2, carnet.Day)}}))
	rows := get(s.Unstored(ctx, 0, 9))(t)
	one, two := rows[0].ID, rows[1].ID
	before := get(s.Totals(ctx))(t)
	for _, c := range []struct {
		name    string
		ids     []uint64
		version uint64 // of a new document
	}{
		{"unknown", []uint64{one, two + 1}, 1},
		{"no such id", []uint64{one, 1<<64 - 1}, 1},
		{"twice", []uint64{one, one}, 1},
		{"another's document", []uint64{one, two}, 2},
	} {
		note := []carnet.Document{{Kind: "doomed", ID: "a", Version: c.version, Body: []byte("1")}}
		wantCode(t, s.DropStretches(ctx, c.ids, note, []ledger.Item{statement(1)}), carnet.Conflict)
		same(t, c.name+": totals", get(s.Totals(ctx))(t), before)
		same(t, c.name+": stretches", get(s.Unstored(ctx, 0, 9))(t), rows)
		same(t, c.name+": documents", get(s.DocumentPage(ctx, "doomed", "", 9))(t), []carnet.Document(nil))
		for _, row := range rows {
			get(s.StretchBody(ctx, row.ID))(t)
		}
	}
}

// testWorldsFencing has two processes on one database, of which only one can
// extend a link, strip a frame, or win a registration.
func testWorldsFencing(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	a, hub, _, close := registered(t, db)
	t.Cleanup(close)
	b := open(t, db)
	frames := chain(hub, 40)
	race := func(what string, n int, do func(s avatar.Store, i int) error) {
		t.Helper()
		wins := make(chan int, 2)
		for _, s := range []avatar.Store{a, b} {
			go func() {
				won := 0
				for i := range n {
					if err := do(s, i); err == nil {
						won++
					} else if carnet.CodeOf(err) != carnet.Conflict {
						t.Errorf("%s: %v", what, err)
					}
				}
				wins <- won
			}()
		}
		if won := <-wins + <-wins; won != n {
			t.Fatalf("%s: %d won, want %d", what, won, n)
		}
	}
	race("append", len(frames), func(s avatar.Store, i int) error {
		return s.Append(context.WithoutCancel(ctx), []avatar.FrameRow{frames[i]})
	})
	ids := make([]uint64, 0, len(frames))
	for _, f := range get(a.FrameHeaders(ctx, 0, 99))(t) {
		ids = append(ids, f.ID)
	}
	if len(ids) != len(frames) {
		t.Fatalf("%d frames are stored, want %d", len(ids), len(frames))
	}
	race("compact", len(ids), func(s avatar.Store, i int) error {
		return s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{stretch(1, i, carnet.Day)}, Strip: []avatar.Strip{{Frame: ids[i]}}})
	})
	if n := get(b.Totals(ctx))(t); n.Stretches != uint64(len(ids)) || n.FramesWithBody != 0 {
		t.Fatalf("totals are %+v", n)
	}
	// A sender that registers anew with b can't be extended through a.
	again := get(b.Register(ctx, "hub", [16]byte{9}, 0))(t)
	last := frames[len(frames)-1]
	late := nextFrame(avatar.LinkRow{Sender: "hub", Incarnation: hub.Incarnation, Number: last.Number, Hash: last.Hash}, 41)
	wantCode(t, a.Append(ctx, []avatar.FrameRow{late}), carnet.Conflict)
	late.Incarnation = again.Incarnation
	must(t, a.Append(ctx, []avatar.FrameRow{late}))
}
