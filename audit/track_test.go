package audit

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestRangesAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ranges
		seen := make(map[uint64]bool)
		number := rapid.OneOf(rapid.Uint64Range(0, 20), rapid.Uint64Range(math.MaxUint64-5, math.MaxUint64))
		for _, n := range rapid.SliceOf(number).Draw(t, "numbers") {
			highest := true
			for other := range seen {
				highest = highest && n > other
			}
			newest, isNew := r.add(n)
			if isNew == seen[n] || newest != (isNew && highest) {
				t.Fatalf("%d in %v: new %v, newest %v", n, r, isNew, newest)
			}
			seen[n] = true
		}
		count := uint64(0)
		for i, s := range r {
			if count += s.last - s.first + 1; i > 0 && r[i-1].last+1 >= s.first {
				t.Fatalf("%v could be fewer stretches", r)
			}
		}
		if count != uint64(len(seen)) {
			t.Fatalf("%v holds %d numbers, want %d", r, count, len(seen))
		}
	})
}

func TestQueueComesOutAsItWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var want []item
		for i, push := range rapid.SliceOf(rapid.Bool()).Draw(t, "pushes") {
			if push {
				q.push(item{fact: fact{time: int64(i)}})
				want = append(want, item{fact: fact{time: int64(i)}})
			} else if len(want) > 0 {
				q.pop()
				want = want[1:]
			}
			front, ok := q.front()
			if ok != (len(want) > 0) || ok && front != want[0] || !slices.Equal(q.items[q.head:], want) || len(q.items) > 2*len(want)+1 {
				t.Fatalf("%v from %d, want %v", q.items, q.head, want)
			}
		}
	})
}
