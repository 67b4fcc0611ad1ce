package audit

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// Admissions hands over what a world may hold, in the log's order, until do
// fails or nothing is left: Oracle.Recompute with its log. It may be asked
// several times, as a Log may.
type Admissions func(ctx context.Context, do func(Admitted) error) error

// Compare pulls what may be held and what is held side by side. Each property is
// a queue on either side: while their fronts are the same, nothing is kept but
// the one side's lead. From the first difference on, the property goes on as a
// multiset of what doesn't match. If anything is left over at the end, both
// sides are read once more, to tell doubled from extra and to give examples.
func Compare(ctx context.Context, admitted Admissions, held Holdings) (Result, error) {
	c := comparison{tracks: make(map[named]*track)}
	if err := c.match(ctx, admitted, held); err != nil {
		return Result{}, err
	}
	lost, surplus := c.settle()
	if lost > 0 {
		if err := admitted(ctx, c.explainLost); err != nil {
			return Result{}, fmt.Errorf("read what is admitted once more: %w", err)
		}
	}
	if surplus > 0 {
		if err := c.explainSurplus(ctx, admitted, held); err != nil {
			return Result{}, err
		}
	}
	return c.result, nil
}

// comparison is one run of Compare.
type comparison struct {
	result  Result
	tracks  map[named]*track
	numbers ranges
}

// named is what a track is for: a property with its unit.
type named struct{ name, unit string }

func (c *comparison) track(name, unit string) *track {
	t := c.tracks[named{name, unit}]
	if t == nil {
		of := named{strings.Clone(name), strings.Clone(unit)}
		t = &track{name: of.name, differences: make(map[fact]difference)}
		c.tracks[of] = t
	}
	return t
}

// match takes from both sides in turn, so that neither gets far ahead.
func (c *comparison) match(ctx context.Context, admitted Admissions, held Holdings) error {
	nextHeld, stop := iter.Pull2(each(ctx, held))
	defer stop()
	take := func() (more bool, err error) {
		h, err, more := nextHeld()
		if err != nil {
			return false, fmt.Errorf("read what is held: %w", err)
		}
		if more {
			c.hold(h)
		}
		return more, nil
	}
	more := true
	err := admitted(ctx, func(a Admitted) (err error) {
		c.admit(a)
		if more {
			more, err = take()
		}
		return err
	})
	for err == nil && more {
		more, err = take()
	}
	return err
}

// each makes a sequence of what a source hands over; an error comes last.
func each(ctx context.Context, source Holdings) iter.Seq2[Held, error] {
	return func(yield func(Held, error) bool) {
		stopped := false
		err := source(ctx, func(h Held) error {
			if stopped = stopped || !yield(h, nil); stopped {
				return context.Canceled
			}
			return ctx.Err()
		})
		if err != nil && !stopped {
			yield(Held{}, err)
		}
	}
}

func (c *comparison) admit(a Admitted) {
	if a.Due {
		c.result.Expected++
	}
	m := &a.Measurement
	c.track(m.Name, m.Unit).admit(item{factOf(m), a.Due})
}

func (c *comparison) hold(h Held) {
	c.result.Held++
	r, m := &c.result, &h.Measurement
	newest, isNew := c.numbers.add(h.Number)
	if !isNew {
		r.Doubled++
		example(&r.Examples.Doubled, "%s is held as number %d of the stream, which is held already", describe(m), h.Number)
		return
	}
	if !newest {
		r.Reordered++
		example(&r.Examples.Reordered, "%s is held as number %d of the stream, after higher ones", describe(m), h.Number)
	}
	c.track(m.Name, m.Unit).hold(factOf(m), h.Number)
}

// settle counts what is left over.
func (c *comparison) settle() (lost, surplus int) {
	for _, t := range c.tracks {
		unsorted := t.unsorted
		t.scatter()
		missed, over := 0, 0
		for f, d := range t.differences {
			if d.due+d.held == 0 {
				delete(t.differences, f) // admitted, and neither due nor held
			}
			missed, over = missed+d.due, over+d.held
		}
		if unsorted && missed+over == 0 {
			c.result.Reordered++
			example(&c.result.Examples.Reordered, "%s", t.where)
		}
		lost, surplus = lost+missed, surplus+over
	}
	c.result.Lost = lost
	return lost, surplus
}

func (c *comparison) explainLost(a Admitted) error {
	m := &a.Measurement
	t := c.track(m.Name, m.Unit)
	f := factOf(m)
	if d, ok := t.differences[f]; ok && d.due > 0 {
		// What is due comes before what isn't, so this is one that is.
		example(&c.result.Examples.Lost, "%s, at position %d of the log, is admitted and not held", describe(m), a.Position)
		d.due--
		t.differences[f] = d
	}
	return nil
}

// explainSurplus tells what is held more often than admitted from what isn't
// admitted at all.
func (c *comparison) explainSurplus(ctx context.Context, admitted Admissions, held Holdings) error {
	err := admitted(ctx, func(a Admitted) error {
		t := c.track(a.Measurement.Name, a.Measurement.Unit)
		f := factOf(&a.Measurement)
		if d, ok := t.differences[f]; ok {
			d.admitted++
			d.rightful++
			t.differences[f] = d
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what is admitted once more: %w", err)
	}
	c.numbers = nil
	err = held(ctx, func(h Held) error {
		if _, isNew := c.numbers.add(h.Number); isNew {
			c.explainHeld(h)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what is held once more: %w", err)
	}
	return nil
}

func (c *comparison) explainHeld(h Held) {
	m, r := &h.Measurement, &c.result
	t := c.track(m.Name, m.Unit)
	f := factOf(m)
	d, ok := t.differences[f]
	switch {
	case !ok || d.held == 0:
		return
	case d.rightful > 0:
		d.rightful--
	case d.admitted > 0:
		d.held--
		r.Doubled++
		example(&r.Examples.Doubled, "%s is held as number %d of the stream, but %d times were admitted", describe(m), h.Number, d.admitted)
	default:
		d.held--
		r.Extra++
		example(&r.Examples.Extra, "%s is held as number %d of the stream and not admitted", describe(m), h.Number)
	}
	t.differences[f] = d
}
