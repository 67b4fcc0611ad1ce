package storetest

import (
	"fmt"
	"strings"
	"testing"

	"carnet"
	"carnet/keys"
)

// Keys is the suite for keys.Store.
func Keys(t *testing.T, fresh Fresh[keys.Store]) {
	t.Run("Page", func(t *testing.T) { testKeyPages(t, fresh) })
	t.Run("Replace", func(t *testing.T) { testKeyReplace(t, fresh) })
	t.Run("Contention", func(t *testing.T) { testKeyContention(t, fresh) })
	t.Run("Fence", func(t *testing.T) { testKeyFence(t, fresh) })
	t.Run("ReplaceAsRead", func(t *testing.T) { testKeyReplaceAsRead(t, fresh) })
}

// keyRow makes a row of an id written kind:name.
func keyRow(id string, wrapped []byte) keys.Row {
	kind, name, _ := strings.Cut(id, ":")
	return keys.Row{ID: keys.ID{Kind: kind, Name: name}, Wrapped: wrapped}
}

func testKeyPages(t *testing.T, fresh Fresh[keys.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	// In the order of the bytes of kind, then name.
	var want []keys.Row
	for _, id := range []string{"a:!", "a:A", "a:B", "a:a", "a:b", "a:~", "a-b:a", "a0:a", "ab:a", "b:%", "b:'", "b:_"} {
		want = append(want, keyRow(id, append(awkward(), id...)))
	}
	must(t, s.Put(ctx, keys.ID{}, []keys.Row{want[11], want[3], want[6], want[0], want[9]}))
	must(t, s.Put(ctx, keys.ID{}, []keys.Row{want[1], want[2], want[4], want[5], want[7], want[8], want[10]}))
	must(t, s.Put(ctx, keys.ID{}, nil))
	if s.Put(cancelled(), keys.ID{}, []keys.Row{{ID: keys.ID{Kind: "c", Name: "c"}}}) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	same(t, "all", get(s.Page(ctx, keys.ID{}, 99))(t), want)
	for i := range want {
		same(t, fmt.Sprint("two after ", want[i].ID), get(s.Page(ctx, want[i].ID, 2))(t), want[i+1:min(i+3, len(want))])
		same(t, "one", get(s.Get(ctx, want[i].ID))(t), want[i])
	}
	same(t, "after one that isn't there", get(s.Page(ctx, keys.ID{Kind: "a", Name: "zz"}, 1))(t), want[5:6])
	for _, id := range []keys.ID{{Kind: "A", Name: "a"}, {Kind: "a", Name: "c"}, {}} {
		_, err := s.Get(ctx, id)
		wantCode(t, err, carnet.NotFound)
	}
}

func testKeyReplace(t *testing.T, fresh Fresh[keys.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	must(t, s.Put(ctx, keys.ID{}, []keys.Row{keyRow("k:a", []byte("1")), keyRow("k:b", []byte("1")), keyRow("k:c", []byte("1"))}))
	must(t, s.Put(ctx, keys.ID{}, []keys.Row{keyRow("k:b", []byte("2")), keyRow("k:c", []byte("2")), keyRow("k:c", []byte("3"))})) // the last stands
	must(t, s.Delete(ctx, keys.ID{}, []keys.ID{{Kind: "k", Name: "a"}, {Kind: "k", Name: "never"}, {Kind: "k", Name: "a"}}))
	must(t, s.Delete(ctx, keys.ID{}, nil))
	close()
	s = open(t, db)
	same(t, "rows", get(s.Page(ctx, keys.ID{}, 9))(t), []keys.Row{keyRow("k:b", []byte("2")), keyRow("k:c", []byte("3"))})
	_, err := s.Get(ctx, keys.ID{Kind: "k", Name: "a"})
	wantCode(t, err, carnet.NotFound)
}

// testKeyContention checks that rows put together are seen together.
func testKeyContention(t *testing.T, fresh Fresh[keys.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s := open(t, db)
	must(t, s.Put(ctx, keys.ID{}, []keys.Row{keyRow("k:a", []byte{0}), keyRow("k:b", []byte{0})}))
	done := make(chan struct{})
	for w := range 4 {
		go func() {
			for i := range 25 {
				if err := s.Put(ctx, keys.ID{}, []keys.Row{keyRow("k:a", []byte{byte(w), byte(i)}), keyRow("k:b", []byte{byte(w), byte(i)})}); err != nil {
					t.Errorf("put: %v", err)
				}
			}
			done <- struct{}{}
		}()
	}
	for left := 4; left > 0; {
		select {
		case <-done:
			left--
		default:
		}
		rows := get(s.Page(ctx, keys.ID{}, 9))(t)
		same(t, "rows put together", rows[0].Wrapped, rows[1].Wrapped)
	}
}

// testKeyFence checks that a change is refused, whole, by who doesn't know of a row.
func testKeyFence(t *testing.T, fresh Fresh[keys.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	must(t, s.Put(ctx, keys.ID{Kind: "table", Name: "1/~"}, []keys.Row{keyRow("table:1/x", []byte("1")), keyRow("k:a", []byte("1")), keyRow("zz:9", []byte("1"))}))
	rows := get(s.Page(ctx, keys.ID{}, 9))(t)
	for _, upTo := range []keys.ID{{Kind: "table", Name: "0/~"}, {Kind: "table", Name: "1/w"}, {Kind: "table"}, {Kind: "k"}} {
		wantCode(t, s.Put(ctx, upTo, []keys.Row{keyRow("k:a", []byte("2")), keyRow("k:b", []byte("2"))}), carnet.Fenced)
		wantCode(t, s.Replace(ctx, upTo, []keys.Row{keyRow("k:a", []byte("1"))}, []keys.Row{keyRow("k:a", []byte("2"))}), carnet.Fenced)
		wantCode(t, s.Delete(ctx, upTo, []keys.ID{{Kind: "k", Name: "a"}}), carnet.Fenced)
		wantCode(t, s.Delete(ctx, upTo, nil), carnet.Fenced)
		same(t, "rows after refusals", get(s.Page(ctx, keys.ID{}, 9))(t), rows)
	}
	for _, upTo := range []keys.ID{{Kind: "table", Name: "1/x"}, {Kind: "table", Name: "1/~"}, {Kind: "tabl"}, {Kind: "Table"}, {}} {
		must(t, s.Put(ctx, upTo, []keys.Row{keyRow("k:a", []byte("3"))}))
		must(t, s.Replace(ctx, upTo, []keys.Row{keyRow("k:a", []byte("3"))}, []keys.Row{keyRow("k:a", []byte("4"))}))
		must(t, s.Delete(ctx, upTo, []keys.ID{{Kind: "k", Name: "a"}}))
	}
}

// testKeyReplaceAsRead checks that a row that isn't as it was read any more stays, and
// one that is gone stays gone.
func testKeyReplaceAsRead(t *testing.T, fresh Fresh[keys.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	was := []keys.Row{keyRow("k:a", []byte("1")), keyRow("k:b", []byte("1")), keyRow("k:c", awkward()), keyRow("k:d", nil)}
	must(t, s.Put(ctx, keys.ID{}, was))
	must(t, s.Put(ctx, keys.ID{}, []keys.Row{keyRow("k:a", []byte("2"))}))
	must(t, s.Delete(ctx, keys.ID{}, []keys.ID{{Kind: "k", Name: "b"}}))
	now := []keys.Row{keyRow("k:a", []byte("9")), keyRow("k:b", []byte("9")), keyRow("k:c", []byte("9")), keyRow("k:d", []byte("9"))}
	must(t, s.Replace(ctx, keys.ID{}, was, now))
	must(t, s.Replace(ctx, keys.ID{}, nil, nil))
	close()
	s = open(t, db)
	same(t, "rows", get(s.Page(ctx, keys.ID{}, 9))(t), []keys.Row{keyRow("k:a", []byte("2")), now[2], now[3]})
}
