package evidence

import (
	"fmt"

	"carnet"
)

// Gaps accounts for the numbers of a stream's batches that aren't there: by what
// retention is said to have ended, and by what was left out by its owner's order.
type Gaps struct {
	over []Over
	runs []Over // of what was left out, as ranges
	left LeftOut
	all  []LeftOut

	ended, out, both uint64 // numbers that retention, an order, or either accounts for
	endedIn          Range  // where those of the first and last are
	measurements     uint64 // in gaps that an order alone accounts for
	vague            bool   // not all of those are known
}

// NewGaps makes the account of one stream.
func NewGaps(over []Over, left []*Redaction) *Gaps {
	g := &Gaps{over: over}
	for _, r := range left {
		for _, run := range r.Runs {
			g.runs = append(g.runs, Over{Class: run.Class, From: run.From, To: run.To})
		}
		l := r.leftOut()
		g.all = append(g.all, l)
		g.left.Batches, g.left.Measurements, g.left.Closed = g.left.Batches+l.Batches, g.left.Measurements+l.Measurements, g.left.Closed+l.Closed
	}
	return g
}

// Take notes numbers that aren't there, with how many measurements they had if that is
// known (else less than 0), and returns those that nothing accounts for.
func (g *Gaps) Take(r Range, measurements int64) (missing []Range) {
	alone := true
	for _, p := range parts(r, g.over) {
		for _, q := range parts(p.Range, g.runs) {
			n := q.To - q.From + 1
			alone = alone && !p.over && q.over
			switch {
			case p.over && q.over:
				g.both += n
			case p.over:
				g.ended += n
			case q.over:
				g.out += n
			default:
				missing = append(missing, q.Range)
			}
			if p.over {
				if g.ended+g.both == n {
					g.endedIn = q.Range
				}
				g.endedIn.To = q.To
			}
		}
	}
	if alone && measurements >= 0 {
		g.measurements += uint64(measurements)
	} else {
		g.vague = true
	}
	return missing
}

// Ended is how many of the numbers are missing since retention has ended, and where
// they are.
func (g *Gaps) Ended() (n uint64, in Range) {
	return g.ended + g.both - min(g.both, g.left.Batches-min(g.left.Batches, g.out)), g.endedIn
}

// Left is what was left out, by those who did.
func (g *Gaps) Left() []LeftOut { return g.all }

// Wrong says why what was left out isn't what is missing; empty: it is.
func (g *Gaps) Wrong() string {
	switch l := g.left; {
	case g.out > l.Batches:
		return fmt.Sprintf("%s missing where %d were left out by the owner's order", number(g.out, "batch is", "batches are"), l.Batches)
	case g.out+g.both < l.Batches:
		return fmt.Sprintf("%s said to be left out by the owner's order, and %d of these numbers are missing", number(l.Batches, "batch is", "batches are"), g.out+g.both)
	case l.Closed == 0 && (g.measurements > l.Measurements || !g.vague && g.measurements < l.Measurements):
		return fmt.Sprintf("%s said to be left out by the owner's order, and %d are missing there", number(l.Measurements, "measurement is", "measurements are"), g.measurements)
	}
	return ""
}

// checkLeft opens what worlds left out of a stream.
func checkLeft(stream carnet.StreamID, words [][]byte) (all []*Redaction, err error) {
	if len(words) > maxRedactions {
		return nil, carnet.Errorf(carnet.TooLarge, "a stream is said to be redacted %d times, at most %d are read", len(words), maxRedactions)
	}
	for _, word := range words {
		r, err := OpenRedaction(word)
		if err != nil {
			return nil, err
		}
		if r.Stream != stream {
			return nil, carnet.Errorf(carnet.Tampered, "what %s left out is of another stream", r.World.Party)
		}
		all = append(all, r)
	}
	return all, nil
}
