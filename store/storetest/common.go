package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"carnet"
	"carnet/ledger"
)

// shared is what the stores of things and worlds have in common; put stores
// documents and statements in one transaction.
type shared struct {
	ledger.OutboxStore
	put        func(context.Context, []carnet.Document, []ledger.Item) error
	documents  func(context.Context, string) ([]carnet.Document, error)
	statements func(context.Context, uint64, int) ([]ledger.Item, error)
}

// testDocuments checks documents: versions, order, letter case, bytes.
func testDocuments(t *testing.T, open func(*testing.T) shared) {
	ctx := t.Context()
	s := open(t)
	ids := []string{"a", "B", "b", "A", "ä", "a-b", "a.b", "ab", "", "Z", "z", "a b", "%", "_", "'", "10", "9"}
	for _, id := range ids {
		must(t, s.put(ctx, []carnet.Document{{Kind: "thing", ID: id, Version: 1, Body: append(awkward(), id...)}}, nil))
	}
	must(t, s.put(ctx, []carnet.Document{{Kind: "Thing", ID: "a", Version: 1, Body: []byte{}}}, nil))
	slices.Sort(ids)
	var want []carnet.Document
	for _, id := range ids {
		want = append(want, carnet.Document{Kind: "thing", ID: id, Version: 1, Body: append(awkward(), id...)})
	}
	same(t, "documents in the byte order of ids", get(s.documents(ctx, "thing"))(t), want)
	empty := get(s.documents(ctx, "Thing"))(t)
	if len(empty) != 1 || empty[0].Body == nil || len(empty[0].Body) != 0 {
		t.Fatalf("an empty body came back as %+v, want it empty and not nil", empty)
	}
	same(t, "documents of an unknown kind", get(s.documents(ctx, "THING"))(t), []carnet.Document(nil))
}

// testVersions checks that a document changes only from the version that the
// writer saw, and that a group fails as a whole.
func testVersions(t *testing.T, open func(*testing.T) shared) {
	begin := func(t *testing.T) shared {
		s := open(t)
		must(t, s.put(t.Context(), []carnet.Document{{Kind: "k", ID: "old", Version: 1, Body: []byte("1")}}, nil))
		must(t, s.put(t.Context(), []carnet.Document{{Kind: "k", ID: "old", Version: 2, Body: []byte("2")}}, nil))
		return s
	}
	refusing := begin(t)
	for _, c := range []struct {
		name string
		docs []carnet.Document
		code carnet.Code
		want []carnet.Document // of kind k, after it; before it, "old" has version 2
	}{
		{"new", []carnet.Document{{Kind: "k", ID: "new", Version: 1, Body: []byte("n")}}, "",
			[]carnet.Document{{Kind: "k", ID: "new", Version: 1, Body: []byte("n")}, {Kind: "k", ID: "old", Version: 2, Body: []byte("2")}}},
		{"next", []carnet.Document{{Kind: "k", ID: "old", Version: 3, Body: []byte("3")}}, "",
			[]carnet.Document{{Kind: "k", ID: "old", Version: 3, Body: []byte("3")}}},
		{"twice in one", []carnet.Document{{Kind: "k", ID: "old", Version: 3, Body: []byte("3")}, {Kind: "k", ID: "old", Version: 4, Body: []byte("4")}}, "",
			[]carnet.Document{{Kind: "k", ID: "old", Version: 4, Body: []byte("4")}}},
		{"delete", []carnet.Document{{Kind: "k", ID: "old", Version: 3}}, "", nil},
		{"delete and begin again", []carnet.Document{{Kind: "k", ID: "old", Version: 3}, {Kind: "k", ID: "old", Version: 1, Body: []byte("1")}}, "",
			[]carnet.Document{{Kind: "k", ID: "old", Version: 1, Body: []byte("1")}}},
		{"same version", []carnet.Document{{Kind: "k", ID: "old", Version: 2, Body: []byte("x")}}, carnet.Conflict, nil},
		{"skipped version", []carnet.Document{{Kind: "k", ID: "old", Version: 4, Body: []byte("x")}}, carnet.Conflict, nil},
		{"new but there", []carnet.Document{{Kind: "k", ID: "old", Version: 1, Body: []byte("x")}}, carnet.Conflict, nil},
		{"not there", []carnet.Document{{Kind: "k", ID: "new", Version: 2, Body: []byte("x")}}, carnet.Conflict, nil},
		{"version 0", []carnet.Document{{Kind: "k", ID: "new", Version: 0, Body: []byte("x")}}, carnet.Conflict, nil},
		{"version 0 of what is there", []carnet.Document{{Kind: "k", ID: "old", Version: 0, Body: []byte("x")}}, carnet.Conflict, nil},
		{"delete old version", []carnet.Document{{Kind: "k", ID: "old", Version: 2}}, carnet.Conflict, nil},
		{"version out of range", []carnet.Document{{Kind: "k", ID: "new", Version: outside, Body: []byte("x")}}, carnet.TooLarge, nil},
		{"good then bad", []carnet.Document{{Kind: "k", ID: "new", Version: 1, Body: []byte("x")}, {Kind: "k", ID: "old", Version: 9}}, carnet.Conflict, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			s := refusing // what is refused leaves nothing, so they share one
			if c.code == "" {
				s = begin(t)
			}
			wantCode(t, s.put(ctx, c.docs, []ledger.Item{statement(1)}), c.code)
			items := get(s.statements(ctx, 0, 9))(t)
			if c.code != "" {
				c.want = []carnet.Document{{Kind: "k", ID: "old", Version: 2, Body: []byte("2")}}
			}
			if (c.code == "") != (len(items) == 1) {
				t.Fatalf("the outbox holds %d statements after %q", len(items), c.code)
			}
			same(t, "documents", get(s.documents(ctx, "k"))(t), c.want)
		})
	}
}

// testOutbox checks statements and their receipts.
func testOutbox(t *testing.T, open func(*testing.T) shared) {
	ctx := t.Context()
	s := open(t)
	for i := 1; i <= 5; i++ {
		item := statement(i)
		item.ID = 99 // the store gives the ids
		must(t, s.put(ctx, nil, []ledger.Item{item}))
	}
	all := get(s.statements(ctx, 0, 100))(t)
	if len(all) != 5 {
		t.Fatalf("the outbox holds %d statements, want 5", len(all))
	}
	for i := range all {
		want := statement(i + 1)
		want.ID = all[i].ID
		same(t, "statement", all[i], want)
		if i > 0 && all[i].ID <= all[i-1].ID {
			t.Fatalf("statement id %d comes after %d", all[i].ID, all[i-1].ID)
		}
	}
	same(t, "statements after the second, at most two", get(s.statements(ctx, all[1].ID, 2))(t), all[2:4])
	same(t, "no statements after the last", get(s.statements(ctx, all[4].ID, 9))(t), all[5:])
	same(t, "no statements after 2^64-1", get(s.statements(ctx, 1<<64-1, 9))(t), all[5:])
	same(t, "at most no statements", get(s.statements(ctx, 0, 0))(t), all[5:])

	receipts := []ledger.Item{{ID: all[3].ID, Receipt: awkward()}, {ID: all[0].ID, Receipt: []byte("r1")}, {ID: 1 << 62, Receipt: []byte("gone")}}
	must(t, s.Receipted(ctx, receipts))
	must(t, s.Receipted(ctx, nil))
	all[3].Receipt, all[0].Receipt = receipts[0].Receipt, receipts[1].Receipt
	same(t, "statements with receipts", get(s.statements(ctx, 0, 9))(t), all)
	var ids []uint64
	for _, item := range get(s.Pending(ctx, 0, 2))(t) {
		if item.Entry != all[item.ID-all[0].ID].Entry {
			t.Fatalf("pending statement %d has another's entry", item.ID)
		}
		ids = append(ids, item.ID)
	}
	same(t, "oldest pending ids", ids, []uint64{all[1].ID, all[2].ID})
	for _, c := range []struct {
		after uint64
		want  []uint64
	}{{all[0].ID, []uint64{all[1].ID, all[2].ID, all[4].ID}}, {all[1].ID, []uint64{all[2].ID, all[4].ID}}, {all[3].ID, []uint64{all[4].ID}}, {1<<64 - 1, nil}} {
		ids = nil
		for _, item := range get(s.Pending(ctx, c.after, 9))(t) {
			ids = append(ids, item.ID)
		}
		same(t, fmt.Sprint("pending ids after ", c.after), ids, c.want)
	}

	must(t, s.Receipted(ctx, []ledger.Item{{ID: all[0].ID, Receipt: []byte("again")}}))
	kept := get(s.statements(ctx, 0, 1))(t)[0].Receipt
	if string(kept) != "r1" && string(kept) != "again" {
		t.Fatalf("after a second receipt the first item's is %q", kept)
	}
	wantCode(t, s.Receipted(ctx, []ledger.Item{{ID: all[1].ID, Receipt: []byte("r")}, {ID: all[2].ID}}), carnet.Malformed)
	if n := len(get(s.Pending(ctx, 0, 9))(t)); n != 3 {
		t.Fatalf("%d statements are pending after receipts that failed, want 3", n)
	}
	if err := s.Receipted(cancelled(), []ledger.Item{{ID: all[1].ID, Receipt: []byte("r")}}); err == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
}

// testContention lets several goroutines change and read at once.
func testContention(t *testing.T, open func(*testing.T) shared) {
	const workers, rounds = 8, 25
	ctx := t.Context()
	s := open(t)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			id := fmt.Sprint("d", w)
			for v := uint64(1); v <= rounds; v++ {
				item := statement(w)
				if err := s.put(ctx, []carnet.Document{{Kind: "k", ID: id, Version: v, Body: []byte{byte(v)}}}, []ledger.Item{item}); err != nil {
					t.Errorf("put: %v", err)
				}
				pending, err := s.Pending(ctx, 0, 3)
				if err != nil {
					t.Errorf("pending: %v", err)
				}
				for i := range pending {
					pending[i].Receipt = []byte("r")
				}
				if err := s.Receipted(ctx, pending); err != nil {
					t.Errorf("receipted: %v", err)
				}
			}
		})
	}
	// A reader that follows by id must meet every statement: none may appear
	// below an id that was seen.
	seen := 0
	for after := uint64(0); seen < workers*rounds && !t.Failed(); {
		for _, item := range get(s.statements(ctx, after, 7))(t) {
			seen++
			after = item.ID
		}
		if all := get(s.statements(ctx, 0, 1<<20))(t); len(all) > 0 && after == all[len(all)-1].ID && len(all) != seen {
			t.Fatalf("following by id met %d of %d statements", seen, len(all))
		}
	}
	group.Wait()
	for _, doc := range get(s.documents(ctx, "k"))(t) {
		if doc.Version != rounds {
			t.Errorf("%s has version %d, want %d", doc.ID, doc.Version, rounds)
		}
	}
}
