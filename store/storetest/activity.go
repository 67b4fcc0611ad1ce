package storetest

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"carnet/activity"
)

// Activity is the suite for activity.Store.
func Activity(t *testing.T, fresh Fresh[activity.Store]) {
	t.Run("Rows", func(t *testing.T) { testActivityRows(t, fresh) })
	t.Run("Trim", func(t *testing.T) { testActivityTrim(t, fresh) })
	t.Run("Contention", func(t *testing.T) { testActivityContention(t, fresh) })
}

// activityRow makes a row that n tells apart from others.
func activityRow(n int) activity.Row {
	return activity.Row{ID: 99, Time: int64(n) * 1000, Body: append(awkward(), fmt.Sprint(n)...)}
}

func testActivityRows(t *testing.T, fresh Fresh[activity.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	var want []activity.Row
	for n := 1; n <= 6; n++ {
		row := activityRow(n)
		row.ID = uint64(n)
		want = append(want, row)
	}
	want[3].Body, want[4].Time = nil, -5 // a clock that was wrong
	must(t, s.Append(ctx, []activity.Row{want[0], want[1]}))
	must(t, s.Append(ctx, nil))
	must(t, s.Append(ctx, want[2:5]))
	if s.Append(cancelled(), want[:1]) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	must(t, s.Append(ctx, want[5:]))
	same(t, "all", get(s.After(ctx, 0, 99))(t), want)
	same(t, "two after the third", get(s.After(ctx, 3, 2))(t), want[3:5])
	same(t, "after the last", get(s.After(ctx, 6, 9))(t), want[6:])
	same(t, "after 2^64-1", get(s.After(ctx, math.MaxUint64, 9))(t), want[6:])
	same(t, "at most none", get(s.After(ctx, 0, 0))(t), want[6:])
	same(t, "two before the fourth", get(s.Before(ctx, 4, 2))(t), []activity.Row{want[2], want[1]})
	same(t, "before the first", get(s.Before(ctx, 1, 9))(t), want[6:])
	same(t, "the newest", get(s.Before(ctx, math.MaxUint64, 1))(t), want[5:])
}

func testActivityTrim(t *testing.T, fresh Fresh[activity.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	for n := 1; n <= 5; n++ {
		must(t, s.Append(ctx, []activity.Row{activityRow(n)}))
	}
	same(t, "trimmed, at most two", get(s.Trim(ctx, 4000, 2))(t), 2)
	same(t, "trimmed, the rest", get(s.Trim(ctx, 4000, 9))(t), 1)
	same(t, "nothing more", get(s.Trim(ctx, 4000, 9))(t), 0)
	same(t, "the last ones", get(s.Trim(ctx, 9000, 9))(t), 2)
	close()
	s = open(t, db)
	must(t, s.Append(ctx, []activity.Row{activityRow(6)}))
	want := activityRow(6)
	want.ID = 6 // no number is given twice, not even after all were trimmed
	same(t, "what comes after", get(s.After(ctx, 0, 9))(t), []activity.Row{want})
}

// testActivityContention lets two processes append: a reader that follows by
// number meets every row.
func testActivityContention(t *testing.T, fresh Fresh[activity.Store]) {
	const workers, rounds = 4, 25
	ctx := t.Context()
	db := fresh(t)
	stores := []activity.Store{open(t, db), open(t, db)}
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for range rounds {
				if err := stores[w%2].Append(ctx, []activity.Row{activityRow(w), activityRow(w)}); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	var after uint64
	for after < 2*workers*rounds && !t.Failed() {
		for _, row := range get(stores[0].After(ctx, after, 7))(t) {
			if row.ID != after+1 {
				t.Fatalf("row %d follows %d", row.ID, after)
			}
			after = row.ID
		}
	}
	group.Wait()
}
