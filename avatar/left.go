package avatar

import (
	"cmp"
	"slices"
	"time"

	"carnet"
)

// LeftOut is what a world left out of a stream when its avatar moved away, by the
// owner's order: it goes with the stream from then on.
type LeftOut struct {
	Crossing carnet.CrossingID  `json:"crossing"`
	World    carnet.PartyID     `json:"world"` // as it calls itself
	Order    carnet.Fingerprint `json:"order"`
	Ordered  time.Time          `json:"ordered"`
	Runs     []LeftRun          `json:"runs"`
	// Word is the same, signed by the world (evidence.Redaction).
	Word []byte `json:"word"`
}

// LeftRun is batches of one retention class and label that were left out: so many, none
// but with numbers From to To.
type LeftRun struct {
	Class        carnet.Retention   `json:"class"`
	Sensitivity  carnet.Sensitivity `json:"sensitivity"`
	Purposes     carnet.Set         `json:"purposes,omitempty"`
	Residency    carnet.Set         `json:"residency,omitempty"`
	From         uint64             `json:"from"`
	To           uint64             `json:"to"`
	Batches      uint64             `json:"batches"`
	Measurements uint64             `json:"measurements"`
	// Closed are those of the batches that couldn't be opened any more, so that their
	// measurements aren't counted and the label is the most that it can be.
	Closed uint64 `json:"closed,omitempty"`
}

// Label is that of what was left out.
func (r *LeftRun) Label() carnet.Label {
	return carnet.Label{Sensitivity: r.Sensitivity, Purposes: r.Purposes, Residency: r.Residency}
}

const (
	maxLeftRuns = 64
	maxLeftOut  = 256 // of a stream
)

// kindOfLeft is what a run is of.
type kindOfLeft struct {
	class carnet.Retention
	label carnet.Label
}

func (r *LeftRun) kind() kindOfLeft { return kindOfLeft{r.Class, r.Label()} }

// join adds another run of the same kind.
func (r *LeftRun) join(o *LeftRun) {
	r.From, r.To = min(r.From, o.From), max(r.To, o.To)
	r.Batches, r.Measurements, r.Closed = r.Batches+o.Batches, r.Measurements+o.Measurements, r.Closed+o.Closed
}

func compareKinds(p, q kindOfLeft) int {
	return cmp.Or(cmp.Compare(p.class, q.class), cmp.Compare(p.label.Sensitivity, q.label.Sensitivity), cmp.Compare(p.label.Purposes, q.label.Purposes), cmp.Compare(p.label.Residency, q.label.Residency))
}

// checkLeft holds together what a manifest says was left out of a stream.
func (s *MovedStream) checkLeft() error {
	bad := func() error {
		return carnet.Errorf(carnet.Malformed, "the manifest of a move says of stream %s that something was left out which can't have been", s.Stream)
	}
	if len(s.Left) > maxLeftOut || len(s.Left) > 0 && !s.Slots {
		return bad()
	}
	for i := range s.Left {
		l := &s.Left[i]
		if len(l.Runs) == 0 || len(l.Runs) > maxLeftRuns || slices.ContainsFunc(s.Left[:i], func(o LeftOut) bool { return o.Crossing == l.Crossing }) {
			return bad()
		}
		if _, err := carnet.ParsePartyID(string(l.World)); err != nil {
			return err
		}
		for j := range l.Runs {
			r := &l.Runs[j]
			if r.Class < carnet.Hour || r.Class > carnet.Keep || r.From > r.To || r.To >= s.NextBatch || r.Batches == 0 || r.Batches-1 > r.To-r.From ||
				r.Closed > r.Batches || r.Measurements > s.NextFirst || j > 0 && compareKinds(l.Runs[j-1].kind(), r.kind()) >= 0 {
				return bad()
			}
		}
	}
	return nil
}

// checkGaps refuses a redacted stream of which other batches are missing than were left out, but
// for what retention is said to have ended.
func (s *MovedStream) checkGaps(here []StretchRow, ended []Over) error {
	if !s.Slots {
		return nil
	}
	var numbers []uint64
	for i := range here {
		or, err := parseOrigins(here[i].Origins)
		if err != nil {
			return err
		}
		for _, o := range or.batches {
			numbers = append(numbers, o.number)
		}
	}
	slices.Sort(numbers)
	var runs []Over
	var left, out, either uint64 // said to be left out; missing for that alone; or since retention ended
	for i := range s.Left {
		for _, r := range s.Left[i].Runs {
			if runs = append(runs, Over{r.Class, r.From, r.To}); left+r.Batches < left {
				return carnet.Errorf(carnet.Tampered, "more batches of stream %s are said to be left out than there are numbers", s.Stream)
			}
			left += r.Batches
		}
	}
	byOrder, over, known := newSpans(runs), newSpans(ended), newSpans(append(runs, ended...))
	for next := uint64(0); next < s.NextBatch; {
		to := s.NextBatch // what is missing ends before it
		if len(numbers) > 0 {
			to, numbers = min(numbers[0], to), numbers[1:]
		}
		if to < next {
			return s.twice(to)
		}
		if n := known.gap(next); n < to {
			return carnet.Errorf(carnet.Tampered, "batch %d of stream %s is missing: neither was it left out by the owner's order, nor is its retention said to have ended", n, s.Stream)
		}
		both := over.within(next, to) + byOrder.within(next, to) - (to - next)
		either, out = either+both, out+byOrder.within(next, to)-both
		next = to + 1
	}
	if len(numbers) > 0 && numbers[0] < s.NextBatch {
		return s.twice(numbers[0])
	}
	if out > left || out+either < left {
		return carnet.Errorf(carnet.Tampered, "%d batches of stream %s are said to be left out by the owner's order, and %d are missing", left, s.Stream, out+either)
	}
	return nil
}

func (s *MovedStream) twice(batch uint64) error {
	return carnet.Errorf(carnet.Tampered, "batch %d of stream %s is there twice", batch, s.Stream)
}

// spans are ranges of numbers that don't touch, in order.
type spans []Over

// newSpans joins ranges.
func newSpans(all []Over) (joined spans) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(p, q Over) int { return cmp.Compare(p.From, q.From) })
	for _, o := range all {
		if n := len(joined); n > 0 && o.From <= joined[n-1].To+1 {
			joined[n-1].To = max(joined[n-1].To, o.To)
		} else {
			joined = append(joined, o)
		}
	}
	return joined
}

// at finds the first range that ends at a number or behind it.
func (s spans) at(n uint64) int {
	i, _ := slices.BinarySearchFunc(s, n, func(o Over, n uint64) int { return cmp.Compare(o.To, n) })
	return i
}

// gap is the first number from one on that no range has.
func (s spans) gap(n uint64) uint64 {
	if i := s.at(n); i < len(s) && s[i].From <= n {
		return s[i].To + 1
	}
	return n
}

// within counts the numbers from one to before another that are in a range.
func (s spans) within(from, to uint64) (n uint64) {
	for i := s.at(from); i < len(s) && s[i].From < to; i++ {
		n += min(s[i].To, to-1) - max(s[i].From, from) + 1
	}
	return n
}

// ended is what retention is said to have ended of a stream, of whose stretches some
// have ended since they were listed.
func (s *MovedStream) ended(listed []MovedStretch, now time.Time) []Over {
	all := slices.Clone(s.Over)
	for i := range listed {
		if t := &listed[i]; t.over(now) {
			all = append(all, Over{t.Class, t.First, t.Last})
		}
	}
	return all
}
