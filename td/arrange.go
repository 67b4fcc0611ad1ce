package td

import (
	"strings"

	"carnet"
)

// Arrange puts the records of one object's value (the fields of one property
// with one time) next to each other, in the description's order, where the
// first of them stood; all else keeps its order. Every field of the description
// belongs to a value; records of values that lack one are moved to the end, and
// n is where they start. The error, Incomplete, says what the first of them
// lacks; it is nil when n is len(ms).
//
// When ms is in that order already, as devices send it, nothing is moved or
// allocated. Records whose names are unknown count as complete: refusing them is
// Lookup's matter.
func (d *Description) Arrange(ms []carnet.Measurement) (n int, err *carnet.Error) {
	for i := 0; i < len(ms); {
		p := d.field(ms[i].Name)
		switch {
		case p == nil:
			i++
		case d.whole(p, ms[i:]):
			i += p.fields
		default:
			return d.rearrange(ms)
		}
	}
	return len(ms), nil
}

// field finds the leaf called name when it is a field of an object.
func (d *Description) field(name string) *Property {
	if strings.IndexByte(name, '/') < 0 {
		return nil
	}
	p, _ := d.Lookup(name)
	return p
}

// whole reports whether ms starts with all fields of p's object in order.
func (d *Description) whole(p *Property, ms []carnet.Measurement) bool {
	if p.Index != p.first || len(ms) < p.fields {
		return false
	}
	for k := 1; k < p.fields; k++ {
		if ms[k].Time != ms[0].Time || ms[k].Name != d.Properties[p.first+k].Name {
			return false
		}
	}
	return true
}

// value names an object's value: where its fields start, and its time.
type value struct {
	first int
	time  int64
}

// parts are where the records of one object's value stand among all.
type parts struct {
	at     []int
	fields [][]int // by field, where there are enough for all; first ones first
	lacks  int     // the first field without a record left; -1: all have
}

// rearrange does Arrange's work in time and memory linear in len(ms), whatever its
// order.
func (d *Description) rearrange(ms []carnet.Measurement) (int, *carnet.Error) {
	found := make(map[value]*parts)
	for i := range ms {
		if p := d.field(ms[i].Name); p != nil {
			v := value{p.first, ms[i].Time}
			if found[v] == nil {
				found[v] = new(parts)
			}
			found[v].at = append(found[v].at, i)
		}
	}
	var whole, rest []carnet.Measurement
	var err *carnet.Error
	taken := make([]bool, len(ms))
	for i := range ms {
		p := d.field(ms[i].Name)
		if p == nil {
			whole = append(whole, ms[i])
			continue
		}
		if taken[i] {
			continue
		}
		r := found[value{p.first, ms[i].Time}]
		if r.fields == nil && (len(r.at) >= p.fields || err == nil) {
			d.part(r, p, ms)
		}
		if len(r.at) < p.fields || r.lacks >= 0 {
			rest = append(rest, ms[i])
			if err == nil {
				err = d.incomplete(p, p.first+r.lacks)
			}
			continue
		}
		for k := range r.fields {
			j := r.fields[k][0]
			r.fields[k], taken[j] = r.fields[k][1:], true
			whole = append(whole, ms[j])
		}
		r.lacks = lacking(r.fields)
	}
	copy(ms[copy(ms, whole):], rest)
	return len(whole), err
}

// part finds out which records are of which field of p's object.
func (d *Description) part(r *parts, p *Property, ms []carnet.Measurement) {
	r.fields = make([][]int, p.fields)
	for _, i := range r.at {
		k := d.field(ms[i].Name).Index - p.first
		r.fields[k] = append(r.fields[k], i)
	}
	r.lacks = lacking(r.fields)
}

// lacking returns the first field without a record left, and -1 when all have.
func lacking(fields [][]int) int {
	for k := range fields {
		if len(fields[k]) == 0 {
			return k
		}
	}
	return -1
}

func (d *Description) incomplete(p *Property, lacks int) *carnet.Error {
	var names []string
	for i := range p.fields {
		names = append(names, d.Properties[p.first+i].Name)
	}
	return carnet.Errorf(carnet.Incomplete, "%s came without %s at the same time", p.Name, d.Properties[lacks].Name).
		WithFix("send %s together, with one time", strings.Join(names, ", "))
}
