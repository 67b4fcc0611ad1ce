package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"carnet"
)

// fact is a measurement's time and value: exact for numbers, a hash of texts and
// data.
type fact struct {
	time int64
	a, b uint64
	kind carnet.Kind
}

func factOf(m *carnet.Measurement) fact {
	f := fact{time: m.Time, kind: m.Value.Kind, a: math.Float64bits(m.Value.Num)}
	if m.Value.Kind == carnet.Text || m.Value.Kind == carnet.Data {
		sum := sha256.Sum256([]byte(m.Value.Str))
		f.a, f.b = binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])
	}
	return f
}

// item is a fact that waits for the other side.
type item struct {
	fact
	due bool
}

// difference is what the sides have of one fact beyond each other.
type difference struct {
	due, optional, held int
	admitted, rightful  int // in all; those of them that weren't met yet
}

// track is one property, side by side.
type track struct {
	name     string
	admitted queue // not matched yet; while ordered, one of the two is empty
	held     queue
	unsorted bool
	where    string // the first difference

	differences map[fact]difference
}

func (t *track) admit(i item) {
	switch front, ok := t.held.front(); {
	case t.unsorted:
		t.count(i)
	case !ok:
		t.admitted.push(i)
	case front.fact == i.fact:
		t.held.pop()
	default:
		t.differ(front.fact, i.fact, "")
		t.count(i)
	}
}

func (t *track) hold(f fact, number uint64) {
	switch front, ok := t.admitted.front(); {
	case t.unsorted:
		t.uncount(f)
	case !ok:
		t.held.push(item{fact: f})
	case front.fact == f:
		t.admitted.pop()
	default:
		t.differ(f, front.fact, fmt.Sprintf(" as number %d of the stream", number))
		t.uncount(f)
	}
}

func (t *track) differ(held, admitted fact, number string) {
	t.where = fmt.Sprintf("%s of %s is held%s where that of %s comes next in the log", t.name, clock(held.time), number, clock(admitted.time))
	t.scatter()
}

// scatter goes on without the order.
func (t *track) scatter() {
	t.unsorted = true
	for i, ok := t.admitted.front(); ok; i, ok = t.admitted.front() {
		t.admitted.pop()
		t.count(i)
	}
	for i, ok := t.held.front(); ok; i, ok = t.held.front() {
		t.held.pop()
		t.uncount(i.fact)
	}
}

// count adds an admitted fact. What is due comes before what isn't, so a held
// one stands for the due one first.
func (t *track) count(i item) {
	d := t.differences[i.fact]
	switch {
	case d.held > 0:
		d.held--
	case i.due:
		d.due++
	default:
		d.optional++
	}
	t.put(i.fact, d)
}

// uncount adds a held fact.
func (t *track) uncount(f fact) {
	d := t.differences[f]
	switch {
	case d.due > 0:
		d.due--
	case d.optional > 0:
		d.optional--
	default:
		d.held++
	}
	t.put(f, d)
}

func (t *track) put(f fact, d difference) {
	if d == (difference{}) {
		delete(t.differences, f)
	} else {
		t.differences[f] = d
	}
}

// queue is first in, first out.
type queue struct {
	items []item
	head  int
}

func (q *queue) push(i item) { q.items = append(q.items, i) }

func (q *queue) front() (item, bool) {
	if q.head == len(q.items) {
		return item{}, false
	}
	return q.items[q.head], true
}

// pop drops the front. It moves what is left when that is no more than what was
// dropped, so that a queue is never longer than twice its content.
func (q *queue) pop() {
	if q.head++; q.head*2 >= len(q.items) {
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
	}
}

// ranges is a set of numbers as stretches without holes, in order.
type ranges []stretch

type stretch struct{ first, last uint64 }

// add reports whether the number is new, and above all others.
func (r *ranges) add(n uint64) (newest, isNew bool) {
	s := *r
	after, found := slices.BinarySearchFunc(s, n, func(a stretch, n uint64) int {
		switch {
		case a.last < n:
			return -1
		case a.first > n:
			return 1
		}
		return 0
	})
	if found {
		return false, false
	}
	newest = after == len(s)
	joinsBefore := after > 0 && s[after-1].last+1 == n
	joinsAfter := !newest && n+1 == s[after].first
	switch {
	case joinsBefore && joinsAfter:
		s[after-1].last = s[after].last
		s = slices.Delete(s, after, after+1)
	case joinsBefore:
		s[after-1].last = n
	case joinsAfter:
		s[after].first = n
	default:
		s = slices.Insert(s, after, stretch{n, n})
	}
	*r = s
	return newest, true
}

const maxExamples = 5

func example(to *[]string, format string, args ...any) {
	if len(*to) < maxExamples {
		*to = append(*to, fmt.Sprintf(format, args...))
	}
}

func describe(m *carnet.Measurement) string {
	value := fmt.Sprintf("%v", m.Value.Num)
	switch m.Value.Kind {
	case carnet.Boolean:
		value = fmt.Sprintf("%t", m.Value.Num != 0)
	case carnet.Text, carnet.Data:
		value = fmt.Sprintf("%v of %d bytes", m.Value.Kind, len(m.Value.Str))
	}
	return fmt.Sprintf("%s %s of %s", m.Name, value, clock(m.Time))
}

func clock(at int64) string { return time.Unix(0, at).UTC().Format("2006-01-02T15:04:05.999999999Z") }
