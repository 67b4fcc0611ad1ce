package avatar

import (
	"math/rand/v2"
	"slices"
	"testing"

	"carnet"
)

// rowOf is a row with batches of these numbers.
func rowOf(t *testing.T, numbers ...uint64) StretchRow {
	t.Helper()
	var o origins
	for _, n := range numbers {
		o.batches = append(o.batches, origin{number: n})
	}
	return StretchRow{Origins: o.append(nil)}
}

// What is missing is found by ranges: the same as by looking at each number, whatever a
// source says how many there are.
func TestGapsOfAMove(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	span := func(most uint64) Over {
		from := random.Uint64N(most)
		return Over{carnet.Hour, from, min(from+random.Uint64N(6), most-1)}
	}
	fine := 0
	for range 20_000 {
		s := MovedStream{Slots: true, NextBatch: 1 + random.Uint64N(24)}
		var ended, runs []Over
		for range random.IntN(3) {
			ended = append(ended, span(s.NextBatch))
		}
		var left uint64
		for range random.IntN(3) {
			o := span(s.NextBatch)
			n := 1 + random.Uint64N(o.To-o.From+1)
			runs, left = append(runs, o), left+n
			s.Left = append(s.Left, LeftOut{Runs: []LeftRun{{From: o.From, To: o.To, Batches: n}}})
		}
		var numbers []uint64
		var out, either uint64
		ok := true
		for n := range s.NextBatch {
			in := func(all []Over) bool {
				return slices.ContainsFunc(all, func(o Over) bool { return o.From <= n && n <= o.To })
			}
			over, byOrder := in(ended), in(runs)
			switch {
			case !over && !byOrder && random.IntN(40) > 0 || random.IntN(3) == 0:
				numbers = append(numbers, n)
			case over && byOrder:
				either++
			case byOrder:
				out++
			case !over:
				ok = false
			}
		}
		ok = ok && out <= left && left <= out+either
		random.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
		if err := s.checkGaps([]StretchRow{rowOf(t, numbers...)}, ended); (err == nil) != ok {
			t.Fatalf("%v of %d, ended %v, left out %+v: %v", numbers, s.NextBatch, ended, s.Left, err)
		}
		if ok {
			fine++
		}
	}
	if fine < 1000 {
		t.Errorf("%d of 20,000 hold: the test tests little", fine)
	}
	large := MovedStream{Slots: true, NextBatch: maxNumber}
	if err := large.checkGaps(nil, []Over{{carnet.Hour, 0, maxNumber - 1}}); err != nil {
		t.Error(err)
	}
	if err := large.checkGaps(nil, []Over{{carnet.Hour, 0, maxNumber - 2}}); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("the last batch is missing: %v", err)
	}
	if err := (&MovedStream{Slots: true, NextBatch: 2}).checkGaps([]StretchRow{rowOf(t, 0, 1, 1)}, nil); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("a batch is there twice: %v", err)
	}
}
