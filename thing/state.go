package thing

import (
	"encoding/binary"
	"time"

	"carnet"
	"carnet/policy"
)

// A link's state is written per mapping, one after the other, as a change (in a
// frame's record: only the mappings that the frame touched) or whole (in a
// snapshot). In bytes, numbers being unsigned LEB128:
//
//	mapping number, next batch, next measurement,
//	lanes: count, then (linger in ms, cursor) each,
//	rates: length, then policy state (a delta in a change),
//	counts: count, then (property, verdict, number) each (increments in a change)

// appendChange appends what a frame changed of a course and starts the next change.
func (c *course) appendChange(b []byte) []byte {
	b = c.appendState(b, c.rates.AppendDelta(nil), c.delta)
	c.rates.ClearDelta()
	clear(c.delta)
	return b
}

// appendWhole appends all of a course's state.
func (c *course) appendWhole(b []byte) ([]byte, error) {
	rates, err := c.rates.MarshalBinary()
	if err != nil {
		return b, err
	}
	return c.appendState(b, rates, c.counts), nil
}

func (c *course) appendState(b, rates []byte, counted counts) []byte {
	b = binary.AppendUvarint(b, uint64(c.mapping.Number))
	b = binary.AppendUvarint(b, c.nextBatch)
	b = binary.AppendUvarint(b, c.nextFirst)
	b = binary.AppendUvarint(b, uint64(len(c.lanes)))
	for i := range c.lanes {
		b = binary.AppendUvarint(b, uint64(c.lanes[i].linger/time.Millisecond))
		b = binary.AppendUvarint(b, c.lanes[i].cursor)
	}
	b = binary.AppendUvarint(b, uint64(len(rates)))
	b = append(b, rates...)
	n := 0
	for p := range counted {
		for _, v := range counted[p] {
			if v > 0 {
				n++
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for p := range counted {
		for verdict, v := range counted[p] {
			if v > 0 {
				b = binary.AppendUvarint(b, uint64(p))
				b = binary.AppendUvarint(b, uint64(verdict))
				b = binary.AppendUvarint(b, v)
			}
		}
	}
	return b
}

// stateReader reads what appendState wrote.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *stateReader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// mergeState applies one written state, whole or a change, to the courses that find
// returns; find may answer nil for a mapping that is gone.
func mergeState(b []byte, whole bool, find func(number uint32) *course) error {
	for r := (stateReader{b: b}); len(r.b) > 0; {
		c := find(uint32(r.uint()))
		if c == nil {
			c = new(course) // read past it
		}
		c.recorded = true
		c.nextBatch, c.nextFirst = r.uint(), r.uint()
		for range r.uint() {
			linger, cursor := time.Duration(r.uint())*time.Millisecond, r.uint()
			for i := range c.lanes {
				if l := &c.lanes[i]; l.linger == linger {
					l.cursor, l.taken = cursor, cursor
				}
			}
			if r.bad {
				break
			}
		}
		if rates := r.bytes(r.uint()); !r.bad {
			if whole {
				c.rates = policy.State{}
			}
			if err := c.rates.Merge(rates); err != nil {
				return err
			}
		}
		for range r.uint() {
			p, verdict, n := r.uint(), r.uint(), r.uint()
			if p < uint64(len(c.counts)) && verdict <= uint64(policy.WithinDeadband) {
				c.counts[p][verdict] += n
			}
			if r.bad {
				break
			}
		}
		if r.bad {
			return carnet.Errorf(carnet.Tampered, "a link's recorded state is damaged")
		}
	}
	return nil
}
