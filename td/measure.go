package td

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"carnet"
)

// Check holds m, a measurement of p, to the description. What it accepts it
// gives the description's unit: an empty or equivalent unit becomes p.Unit, so
// that equal measurements are equal however the device wrote them.
func (d *Description) Check(p *Property, m *carnet.Measurement) *carnet.Error {
	if m.Value.Kind != p.Kind {
		return carnet.Errorf(carnet.WrongType, "%s is a %s, want a %s", p.Name, m.Value.Kind, p.Kind).WithFix("send it as %s (RFC 8428)", members[p.Kind])
	}
	if m.Unit != "" && m.Unit != p.Unit && !means(m.Unit, p.Unit) {
		return p.wrongUnit(m.Unit)
	}
	switch p.Kind {
	case carnet.Number:
		if err := p.checkNumber(m.Value.Num); err != nil {
			return err
		}
	case carnet.Text:
		if n := utf8.RuneCountInString(m.Value.Str); n < p.MinLength || p.MaxLength >= 0 && n > p.MaxLength {
			return p.wrongLength(n, "characters")
		}
	case carnet.Data:
		if n := len(m.Value.Str); n < p.MinLength || p.MaxLength >= 0 && n > p.MaxLength {
			return p.wrongLength(n, "bytes")
		}
	}
	if p.Enum != nil {
		if err := p.checkEnum(m.Value); err != nil {
			return err
		}
	}
	m.Unit = p.Unit
	return nil
}

func (p *Property) checkNumber(v float64) *carnet.Error {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return carnet.Errorf(carnet.OutOfRange, "%s is %v, want a finite number", p.Name, v)
	case p.Minimum != nil && v < *p.Minimum, p.Maximum != nil && v > *p.Maximum,
		p.Above != nil && v <= *p.Above, p.Below != nil && v >= *p.Below:
		return carnet.Errorf(carnet.OutOfRange, "%s is %s, want %s", p.Name, p.quantity(v), p.bounds())
	case p.Integer && v != math.Trunc(v):
		return carnet.Errorf(carnet.WrongType, "%s is %s, want a whole number", p.Name, p.quantity(v))
	case p.MultipleOf != 0 && !isMultiple(v, p.MultipleOf):
		return carnet.Errorf(carnet.OutOfRange, "%s is %s, want a multiple of %s", p.Name, p.quantity(v), number(p.MultipleOf))
	}
	return nil
}

// isMultiple allows for what a decimal step loses in binary: 0.3 is 3 × 0.1.
func isMultiple(v, step float64) bool {
	q := v / step
	return math.Abs(q-math.Round(q)) <= 1e-9*math.Max(1, math.Abs(q))
}

func (p *Property) checkEnum(v carnet.Value) *carnet.Error {
	for _, e := range p.Enum {
		if e == v {
			return nil
		}
	}
	var want []string
	for _, e := range p.Enum[:min(len(p.Enum), 12)] {
		want = append(want, show(e))
	}
	if len(p.Enum) > len(want) {
		want = append(want, fmt.Sprintf("%d more", len(p.Enum)-len(want)))
	}
	return carnet.Errorf(carnet.OutOfRange, "%s is %s, want one of %s", p.Name, show(v), strings.Join(want, ", "))
}

func (p *Property) wrongUnit(got string) *carnet.Error {
	if len(got) > 32 {
		got = got[:32] + "…"
	}
	if p.Unit == "" {
		return carnet.Errorf(carnet.WrongUnit, "%s has the unit %q, want none", p.Name, got).WithFix("leave the unit out")
	}
	return carnet.Errorf(carnet.WrongUnit, "%s has the unit %q, want %q", p.Name, got, p.Unit).
		WithFix("convert the value, or leave the unit out if it is in %s already", p.Unit)
}

func (p *Property) wrongLength(n int, of string) *carnet.Error {
	want := fmt.Sprintf("at least %d", p.MinLength)
	if p.MaxLength >= 0 {
		want = fmt.Sprintf("%d to %d", p.MinLength, p.MaxLength)
	}
	return carnet.Errorf(carnet.OutOfRange, "%s has %d %s, want %s", p.Name, n, of, want)
}

// bounds says in words which numbers are allowed.
func (p *Property) bounds() string {
	var parts []string
	for _, b := range []struct {
		word  string
		bound *float64
	}{{"at least", p.Minimum}, {"above", p.Above}, {"at most", p.Maximum}, {"below", p.Below}} {
		if b.bound != nil {
			parts = append(parts, b.word+" "+p.quantity(*b.bound))
		}
	}
	if parts == nil {
		return "any number"
	}
	return strings.Join(parts, " and ")
}

func (p *Property) quantity(v float64) string {
	if p.Unit == "" {
		return number(v)
	}
	return number(v) + " " + p.Unit
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func show(v carnet.Value) string {
	switch v.Kind {
	case carnet.Number:
		return number(v.Num)
	case carnet.Boolean:
		return strconv.FormatBool(v.Num != 0)
	}
	if len(v.Str) > 32 {
		return strconv.Quote(v.Str[:32]) + "…"
	}
	return strconv.Quote(v.Str)
}

// members say as which member of a SenML record a value of a kind is sent.
var members = map[carnet.Kind]string{
	carnet.Number: "v, a number without quotes", carnet.Boolean: "vb, true or false", carnet.Text: "vs, a string", carnet.Data: "vd, in base64url",
}
