package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"carnet"
	"carnet/ledger"
	"carnet/thing"
)

// Things is the suite for thing.Store.
func Things(t *testing.T, fresh Fresh[thing.Store]) {
	common := func(t *testing.T) shared {
		s := open(t, fresh(t))
		put := func(ctx context.Context, docs []carnet.Document, items []ledger.Item) error {
			return s.Commit(ctx, &thing.Group{Documents: docs, Statements: items})
		}
		return shared{s, put, s.Documents, s.Statements}
	}
	t.Run("Documents", func(t *testing.T) { testDocuments(t, common) })
	t.Run("Versions", func(t *testing.T) { testVersions(t, common) })
	t.Run("Outbox", func(t *testing.T) { testOutbox(t, common) })
	t.Run("Contention", func(t *testing.T) { testContention(t, common) })
	t.Run("Log", func(t *testing.T) { testLog(t, fresh) })
	t.Run("LogConflict", func(t *testing.T) { testLogConflict(t, fresh) })
	t.Run("TrimLog", func(t *testing.T) { testTrimLog(t, fresh) })
	t.Run("Sent", func(t *testing.T) { testSent(t, fresh) })
	t.Run("Rewind", func(t *testing.T) { testRewind(t, fresh) })
	t.Run("Snapshots", func(t *testing.T) { testSnapshots(t, fresh) })
	t.Run("Refusals", func(t *testing.T) { testRefusals(t, fresh) })
	t.Run("Atomic", func(t *testing.T) { testCommitAtomic(t, fresh) })
	t.Run("TwoProcesses", func(t *testing.T) { testThingsFencing(t, fresh) })
	t.Run("Random", func(t *testing.T) {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { randomThings(t, fresh(t), rand.New(rand.NewPCG(seed, 1))) })
		}
	})
}

func commitLog(ctx context.Context, s thing.Store, rows ...thing.LogRow) error {
	for i := range rows {
		if err := s.Commit(ctx, &thing.Group{Log: &rows[i]}); err != nil {
			return err
		}
	}
	return nil
}

// logRows are three rows over positions 0 to 9, with bodies of 266, 0 and 4 bytes.
func logRows() []thing.LogRow {
	return []thing.LogRow{
		{First: 0, Count: 4, Received: 1_700_000_000_123_456_789, Index: awkward(), Body: awkward()},
		{First: 4, Count: 1, Received: -1, Index: nil, Body: []byte{}},
		{First: 5, Count: 5, Received: 1_700_000_000_123_456_790, Index: []byte{0}, Body: []byte("body")},
	}
}

func testLog(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	rows := logRows()
	must(t, commitLog(ctx, s, rows...))
	close()
	s = open(t, db)
	whole := len(rows[0].Body)
	for _, c := range []struct {
		from     uint64
		limit    int
		from0    int // rows[from0:to0] are wanted
		to0      int
		index    int // at most so many of the index
		indexEnd int
	}{
		{0, 1 << 20, 0, 3, 9, 3},
		{0, 0, 0, 1, 0, 0}, // at least one row, but no index
		{0, 1, 0, 1, 1, 1},
		{0, whole, 0, 1, 2, 2},
		{0, whole + 1, 0, 2, 3, 3},
		{0, whole + 4, 0, 3, 4, 3},
		{3, 1 << 20, 0, 3, 9, 3}, // in the middle of a row
		{4, 1 << 20, 1, 3, 1, 2},
		{5, 1 << 20, 2, 3, 9, 3},
		{9, 1 << 20, 2, 3, 9, 3},
		{10, 1 << 20, 3, 3, 9, 3},
		{1<<64 - 1, 1 << 20, 3, 3, 9, 3},
	} {
		same(t, fmt.Sprintf("log from %d, %d bytes", c.from, c.limit), get(s.Log(ctx, c.from, c.limit))(t), rows[c.from0:c.to0])
		index := append([]thing.LogRow(nil), rows[c.from0:max(c.indexEnd, c.from0)]...)
		for i := range index {
			index[i].Body = nil
		}
		same(t, fmt.Sprintf("index from %d, %d rows", c.from, c.index), get(s.LogIndex(ctx, c.from, c.index))(t), index)
	}
	same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{LogRows: 3, LogNext: 10})
}

func testLogConflict(t *testing.T, fresh Fresh[thing.Store]) {
	s := open(t, fresh(t))
	must(t, commitLog(t.Context(), s, logRows()...))
	for _, c := range []struct {
		name string
		row  thing.LogRow
		code carnet.Code
	}{
		{"again", thing.LogRow{First: 5, Count: 5}, carnet.Conflict},
		{"overlap", thing.LogRow{First: 9, Count: 5}, carnet.Conflict},
		{"at the start", thing.LogRow{First: 0, Count: 1}, carnet.Conflict},
		{"hole", thing.LogRow{First: 11, Count: 1}, carnet.Conflict},
		{"empty", thing.LogRow{First: 10, Count: 0}, carnet.Conflict},
		{"out of range", thing.LogRow{First: outside, Count: 1}, carnet.TooLarge},
		{"ends out of range", thing.LogRow{First: outside - 1, Count: 1}, carnet.TooLarge},
		{"wraps around", thing.LogRow{First: 1<<64 - 1, Count: 11}, carnet.TooLarge},
		{"next", thing.LogRow{First: 10, Count: 1}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			want := get(s.Totals(ctx))(t)
			wantCode(t, commitLog(ctx, s, c.row), c.code)
			if c.code == "" {
				want.LogRows, want.LogNext = want.LogRows+1, c.row.First+uint64(c.row.Count)
			}
			same(t, "totals", get(s.Totals(ctx))(t), want)
		})
	}
	t.Run("new log begins anywhere", func(t *testing.T) {
		s := open(t, fresh(t))
		must(t, commitLog(t.Context(), s, thing.LogRow{First: outside - 2, Count: 1}))
		wantCode(t, commitLog(t.Context(), s, thing.LogRow{First: 0, Count: 1}), carnet.Conflict)
	})
}

func testTrimLog(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	rows := logRows()
	must(t, commitLog(ctx, s, rows...))
	same(t, "rows trimmed", get(s.TrimLog(ctx, -1))(t), 0)
	same(t, "rows trimmed", get(s.TrimLog(ctx, rows[2].Received))(t), 2)
	same(t, "log", get(s.Log(ctx, 0, 1<<20))(t), rows[2:])
	same(t, "log from a position trimmed", get(s.Log(ctx, 2, 1<<20))(t), rows[2:])
	same(t, "rows trimmed", get(s.TrimLog(ctx, 1<<63-1))(t), 1)
	close()
	s = open(t, db)
	same(t, "empty log", get(s.Log(ctx, 0, 1<<20))(t), rows[3:])
	same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{LogNext: 10})
	wantCode(t, commitLog(ctx, s, thing.LogRow{First: 0, Count: 1}), carnet.Conflict)
	must(t, commitLog(ctx, s, thing.LogRow{First: 10, Count: 1}))
}

// sentRow makes a frame record that link and number tell apart; each second one
// has a statement.
func sentRow(link carnet.PartyID, number uint64) thing.SentRow {
	name := fmt.Appendf(nil, "%s %d", link, number)
	row := thing.SentRow{
		Link: link, Number: number, Hash: carnet.FingerprintOf(name), Time: int64(number) - 5, Policy: number * 3, Batches: uint32(number % 7),
		Header: append(awkward(), name...), Leaves: name, State: awkward(),
	}
	if number%2 == 0 {
		row.Statement = statement(int(number))
	}
	return row
}

// withIDs are rows with the statement ids that the store gave; it checks that
// there is one where there is a statement.
func withIDs(t *testing.T, want, have []thing.SentRow) []thing.SentRow {
	t.Helper()
	want = append([]thing.SentRow(nil), want...)
	for i := range min(len(want), len(have)) {
		want[i].Statement.ID = have[i].Statement.ID
		if (have[i].Statement.ID != 0) != (want[i].Statement.Entry != ledger.Entry{}) {
			t.Fatalf("frame %d has statement id %d", have[i].Number, have[i].Statement.ID)
		}
	}
	return want
}

func testSent(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	a := []thing.SentRow{sentRow("arena", 1), sentRow("arena", 2), sentRow("arena", 3), sentRow("arena", 7)}
	b := []thing.SentRow{sentRow("clinic", 1), sentRow("clinic", 2)}
	must(t, s.Commit(ctx, &thing.Group{Sent: []thing.SentRow{a[0], b[0], a[1]}}))
	must(t, s.Commit(ctx, &thing.Group{Sent: []thing.SentRow{a[2], a[3], b[1]}}))
	close()
	s = open(t, db)
	have := get(s.Sent(ctx, "arena", 0, 9))(t)
	same(t, "frames to arena", have, withIDs(t, a, have))
	same(t, "frames to arena after 1, at most 2", get(s.Sent(ctx, "arena", 1, 2))(t), have[1:3])
	same(t, "frames to arena after 2^64-1", get(s.Sent(ctx, "arena", 1<<64-1, 2))(t), have[4:])
	have = get(s.Sent(ctx, "clinic", 0, 9))(t)
	same(t, "frames to clinic", have, withIDs(t, b, have))
	same(t, "frames to nobody", get(s.Sent(ctx, "aren", 0, 9))(t), have[2:])
	same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{SentFrames: 6, SentBatches: 9, Statements: 2})
	for _, c := range []struct {
		name string
		sent []thing.SentRow
		code carnet.Code
	}{
		{"again", []thing.SentRow{sentRow("arena", 7)}, carnet.Conflict},
		{"into a gap", []thing.SentRow{sentRow("arena", 5)}, carnet.Conflict},
		{"twice in one", []thing.SentRow{sentRow("arena", 8), sentRow("arena", 8)}, carnet.Conflict},
		{"out of order", []thing.SentRow{sentRow("arena", 9), sentRow("arena", 8)}, carnet.Conflict},
		{"out of range", []thing.SentRow{sentRow("arena", outside)}, carnet.TooLarge},
		{"policy out of range", []thing.SentRow{{Link: "arena", Number: 8, Policy: outside}}, carnet.TooLarge},
		{"largest", []thing.SentRow{{Link: "arena", Number: outside - 1, Policy: outside - 1, Batches: 1<<32 - 1, Time: 1<<63 - 1}}, ""},
	} {
		before := get(s.Totals(ctx))(t)
		wantCode(t, s.Commit(ctx, &thing.Group{Sent: c.sent}), c.code)
		if after := get(s.Totals(ctx))(t); (after == before) != (c.code != "") {
			t.Fatalf("%s: totals are %+v, were %+v", c.name, after, before)
		}
	}
	same(t, "largest frame", get(s.Sent(ctx, "arena", 7, 9))(t),
		[]thing.SentRow{{Link: "arena", Number: outside - 1, Policy: outside - 1, Batches: 1<<32 - 1, Time: 1<<63 - 1}})
}

func testRewind(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	for n := range uint64(6) {
		must(t, s.Commit(ctx, &thing.Group{Sent: []thing.SentRow{sentRow("arena", n+1), sentRow("clinic", n+1)}}))
		must(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: "arena", Number: n + 1, State: []byte{byte(n + 1)}}))
	}
	before := get(s.Statements(ctx, 0, 99))(t)
	must(t, s.Receipted(ctx, []ledger.Item{{ID: before[5].ID, Receipt: []byte("r")}, {ID: before[2].ID, Receipt: []byte("r")}}))
	must(t, s.Rewind(ctx, "arena", 1, 2))
	if n := len(get(s.Sent(ctx, "arena", 0, 99))(t)); n != 1 {
		t.Fatalf("%d frames are left, want 1", n)
	}
	if n := len(get(s.Sent(ctx, "clinic", 0, 99))(t)); n != 6 {
		t.Fatalf("the other link has %d frames, want 6", n)
	}
	var ids, want []uint64
	for _, item := range get(s.Statements(ctx, 0, 99))(t) {
		ids = append(ids, item.ID)
	}
	for _, i := range []int{0, 1, 2, 3, 5} { // 0, 2 and 4 state frames 2, 4 and 6 to arena: acknowledged, on the ledger, neither
		want = append(want, before[i].ID)
	}
	same(t, "statement ids", ids, want)
	same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{SentFrames: 7, SentBatches: 1 + 1 + 2 + 3 + 4 + 5 + 6, Statements: 5, Receipts: 2})
	same(t, "snapshot of a frame that is gone", get(s.Link(ctx, "arena", 99))(t), thing.LinkSnapshot{Link: "arena", Number: 1, State: []byte{1}})

	again := sentRow("arena", 4)
	must(t, s.Commit(ctx, &thing.Group{Sent: []thing.SentRow{again}}))
	have := get(s.Sent(ctx, "arena", 3, 9))(t)
	same(t, "frame 4 made anew", have, withIDs(t, []thing.SentRow{again}, have))
	if last := before[len(before)-1].ID; have[0].Statement.ID <= last {
		t.Fatalf("statement id %d was given again; the last was %d", have[0].Statement.ID, last)
	}
	must(t, s.Rewind(ctx, "arena", 1<<64-1, 0))
	must(t, s.Rewind(ctx, "nobody", 0, 0))
	must(t, s.Rewind(ctx, "arena", 0, 0))
	same(t, "frames after rewinding to 0", get(s.Sent(ctx, "arena", 0, 9))(t), have[1:])
	same(t, "snapshot after rewinding to 0", get(s.Link(ctx, "arena", 99))(t), thing.LinkSnapshot{})
}

func testSnapshots(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	same(t, "no snapshot", get(s.Link(ctx, "arena", 1<<64-1))(t), thing.LinkSnapshot{})
	for n := range uint64(40) {
		must(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: "arena", Number: n * 10, State: append(awkward(), byte(n))}))
	}
	must(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: "clinic", Number: 1, State: []byte("c")}))
	must(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: "arena", Number: 390, State: []byte("again")}))
	must(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: "arena", Number: 70, State: []byte("older than the 32 newest")}))
	close()
	s = open(t, db)
	for _, c := range []struct {
		link carnet.PartyID
		at   uint64
		want thing.LinkSnapshot
	}{
		{"arena", 1<<64 - 1, thing.LinkSnapshot{Link: "arena", Number: 390, State: []byte("again")}},
		{"arena", 390, thing.LinkSnapshot{Link: "arena", Number: 390, State: []byte("again")}},
		{"arena", 389, thing.LinkSnapshot{Link: "arena", Number: 380, State: append(awkward(), 38)}},
		{"arena", 80, thing.LinkSnapshot{Link: "arena", Number: 80, State: append(awkward(), 8)}}, // the 32nd newest
		{"arena", 79, thing.LinkSnapshot{}},
		{"clinic", 5, thing.LinkSnapshot{Link: "clinic", Number: 1, State: []byte("c")}},
		{"clinic", 0, thing.LinkSnapshot{}},
		{"Arena", 390, thing.LinkSnapshot{}},
	} {
		same(t, fmt.Sprintf("snapshot of %s at %d", c.link, c.at), get(s.Link(ctx, c.link, c.at))(t), c.want)
	}
	wantCode(t, s.SaveLink(ctx, thing.LinkSnapshot{Link: "arena", Number: outside}), carnet.TooLarge)
}

func testRefusals(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	var want []thing.RefusalRow // newest first
	refuse := func(n int, id carnet.ThingID) thing.RefusalRow {
		return thing.RefusalRow{Thing: id, Time: int64(-n), Code: []carnet.Code{carnet.WrongUnit, carnet.TooOld}[n%2], Body: append(awkward(), byte(n), byte(n>>8))}
	}
	for n := 0; n < 1100; n += 50 {
		var group []thing.RefusalRow
		for i := n; i < n+50; i++ {
			group = append(group, refuse(i, "watch"))
			want = append([]thing.RefusalRow{group[len(group)-1]}, want...)
		}
		must(t, s.Commit(ctx, &thing.Group{Refusals: append(group, refuse(n, "scale"))}))
	}
	close()
	s = open(t, db)
	same(t, "newest refusals", get(s.Refusals(ctx, "watch", 3))(t), want[:3])
	same(t, "all refusals kept", get(s.Refusals(ctx, "watch", 5000))(t), want[:1000])
	if n := len(get(s.Refusals(ctx, "scale", 5000))(t)); n != 22 {
		t.Fatalf("the other thing has %d refusals, want 22", n)
	}
	same(t, "refusals of an unknown thing", get(s.Refusals(ctx, "Watch", 9))(t), want[:0])
	same(t, "counts", get(s.RefusalCounts(ctx))(t), map[carnet.ThingID]map[carnet.Code]uint64{
		"watch": {carnet.WrongUnit: 550, carnet.TooOld: 550}, "scale": {carnet.WrongUnit: 22},
	})
	same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{Refusals: 1022})
}

// testCommitAtomic checks that nothing of a group stays when its last part
// fails, or its context has ended.
func testCommitAtomic(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	must(t, s.Commit(ctx, &thing.Group{Documents: []carnet.Document{{Kind: "k", ID: "d", Version: 1, Body: []byte("1")}}}))
	group := func(version uint64) *thing.Group {
		return &thing.Group{
			Log:        &thing.LogRow{First: 0, Count: 2, Body: awkward()},
			Sent:       []thing.SentRow{sentRow("arena", 2)},
			Refusals:   []thing.RefusalRow{{Thing: "watch", Code: carnet.TooOld}},
			Documents:  []carnet.Document{{Kind: "k", ID: "e", Version: 1, Body: []byte("e")}, {Kind: "k", ID: "d", Version: version, Body: []byte("2")}},
			Statements: []ledger.Item{statement(1)},
		}
	}
	wantCode(t, s.Commit(ctx, group(1)), carnet.Conflict)
	if s.Commit(cancelled(), group(2)) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	for range 2 {
		same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{})
		same(t, "log", get(s.Log(ctx, 0, 99))(t), []thing.LogRow{})
		same(t, "sent", get(s.Sent(ctx, "arena", 0, 99))(t), []thing.SentRow{})
		same(t, "refusals", get(s.Refusals(ctx, "watch", 99))(t), []thing.RefusalRow{})
		same(t, "refusal counts", get(s.RefusalCounts(ctx))(t), map[carnet.ThingID]map[carnet.Code]uint64{})
		same(t, "documents", get(s.Documents(ctx, "k"))(t), []carnet.Document{{Kind: "k", ID: "d", Version: 1, Body: []byte("1")}})
		same(t, "document", get(s.Document(ctx, "k", "d"))(t), carnet.Document{Kind: "k", ID: "d", Version: 1, Body: []byte("1")})
		if _, err := s.Document(ctx, "k", "D"); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("a document that isn't there: %v", err)
		}
		same(t, "statements", get(s.Statements(ctx, 0, 99))(t), []ledger.Item{})
		close()
		s, close = db(t)
	}
	must(t, s.Commit(ctx, group(2)))
	must(t, s.Commit(ctx, &thing.Group{}))
	close()
	s = open(t, db)
	same(t, "totals", get(s.Totals(ctx))(t), thing.Totals{LogRows: 1, LogNext: 2, SentFrames: 1, SentBatches: 2, Refusals: 1, Statements: 2})
}

// testThingsFencing has two processes on one database: what one has extended,
// the other can't extend from where it thinks it ends.
func testThingsFencing(t *testing.T, fresh Fresh[thing.Store]) {
	ctx := t.Context()
	db := fresh(t)
	a, b := open(t, db), open(t, db)
	must(t, a.Commit(ctx, &thing.Group{Log: &thing.LogRow{First: 0, Count: 3}, Sent: []thing.SentRow{sentRow("arena", 1)}}))
	wantCode(t, b.Commit(ctx, &thing.Group{Log: &thing.LogRow{First: 0, Count: 2}}), carnet.Conflict)
	wantCode(t, b.Commit(ctx, &thing.Group{Sent: []thing.SentRow{sentRow("arena", 1)}}), carnet.Conflict)

	// Racing for each position, exactly one wins.
	const rounds = 20
	wins := make(chan int, 2)
	for _, s := range []thing.Store{a, b} {
		go func() {
			n := 0
			for i := range uint64(rounds) {
				err := s.Commit(ctx, &thing.Group{Log: &thing.LogRow{First: 3 + i, Count: 1}, Sent: []thing.SentRow{sentRow("arena", 2+i)}})
				if err == nil {
					n++
				} else if carnet.CodeOf(err) != carnet.Conflict {
					t.Errorf("commit: %v", err)
				}
			}
			wins <- n
		}()
	}
	if n := <-wins + <-wins; n != rounds {
		t.Fatalf("%d commits won %d positions", n, rounds)
	}
	for _, s := range []thing.Store{a, b} {
		if n := get(s.Totals(ctx))(t); n.LogNext != 3+rounds || n.SentFrames != 1+rounds {
			t.Fatalf("totals are %+v", n)
		}
	}
}
