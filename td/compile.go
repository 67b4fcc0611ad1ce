package td

import (
	"math"
	"regexp"
	"strings"

	"carnet"
)

// compiler turns a checked description into leaves.
type compiler struct {
	d      *Description
	prefix string // of our terms, with its colon
}

func (c *compiler) thing(n *node) error {
	d := c.d
	d.ID, d.Title, d.Description = n.get("id").text(), n.get("title").text(), n.get("description").text()
	base, err := facts{label: carnet.Label{Sensitivity: carnet.AllSensitive}, linger: DefaultLinger}.with(nil, n, c.prefix)
	if err != nil {
		return err
	}
	root := (*place)(nil)
	if m := n.get("properties"); m != nil {
		for _, p := range m.members {
			if err := c.property(root.at("properties").at(p.name), p, base); err != nil {
				return err
			}
		}
	}
	if m := n.get("actions"); m != nil {
		for _, a := range m.members {
			f, err := base.with(root.at("actions").at(a.name), a.node, c.prefix)
			if err != nil {
				return err
			}
			d.Actions = append(d.Actions, Action{
				Name: a.name, Title: a.node.get("title").text(), Description: a.node.get("description").text(),
				Safe: a.node.get("safe").truth(), Idempotent: a.node.get("idempotent").truth(),
				Input: c.source(a.node.get("input")), Label: f.label,
			})
		}
	}
	if m := n.get("events"); m != nil {
		for _, e := range m.members {
			f, err := base.with(root.at("events").at(e.name), e.node, c.prefix)
			if err != nil {
				return err
			}
			d.Events = append(d.Events, Event{
				Name: e.name, Title: e.node.get("title").text(), Description: e.node.get("description").text(),
				Data: c.source(e.node.get("data")), Label: f.label,
			})
		}
	}
	return nil
}

// source returns an object's own text.
func (c *compiler) source(n *node) []byte {
	if n == nil {
		return nil
	}
	return c.d.Source[n.start:n.end:n.end]
}

// property adds a property's leaves, or the reason why it has none.
func (c *compiler) property(at *place, m member, base facts) error {
	f, err := base.with(at, m.node, c.prefix)
	if err != nil {
		return err
	}
	d, first := c.d, len(c.d.Properties)
	why, err := c.measure(at, m, f)
	if err != nil {
		return err
	}
	if why != "" {
		for i := range d.Properties[first:] {
			delete(d.byName, d.Properties[first+i].Name)
		}
		d.Properties = d.Properties[:first]
		d.Unmeasured = append(d.Unmeasured, Unmeasured{Name: m.name, Why: why})
		return nil
	}
	for i := range d.Properties[first:] {
		p := &d.Properties[first+i]
		p.first, p.fields = first, len(d.Properties)-first
	}
	if len(d.Properties) > MaxLeaves {
		return carnet.Errorf(carnet.TooLarge, "the thing description has more than %d properties and fields", MaxLeaves)
	}
	return nil
}

// measure adds the leaves of one property; why says what keeps a measurement
// from holding it.
func (c *compiler) measure(at *place, m member, f facts) (why string, err error) {
	if m.node.get("writeOnly").truth() {
		return "it can only be written", nil
	}
	if m.node.get("type").text() != "object" {
		return c.leaf("", m, f)
	}
	all := m.node.get("properties")
	if all == nil || len(all.members) == 0 {
		return "it is an object without described fields", nil
	}
	if !senmlName.MatchString(m.name) {
		return badName, nil
	}
	for _, field := range all.members {
		at := at.at("properties").at(field.name)
		g, err := f.with(at, field.node, c.prefix)
		if err != nil {
			return "", err
		}
		if why, err := c.leaf(m.name, field, g); why != "" || err != nil {
			return "its field " + field.name + ": " + why, err
		}
	}
	return "", nil
}

// senmlName is what a SenML name may hold (RFC 8428 §4.5.1), without the '/'
// that joins an object and its field.
var senmlName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9:._]*$`)

const badName = "its name has characters other than letters, digits, '-', ':', '.' and '_', or does not start with a letter or digit"

func (c *compiler) leaf(object string, m member, f facts) (why string, err error) {
	if !senmlName.MatchString(m.name) {
		return badName, nil
	}
	n := m.node
	p := Property{
		Index: len(c.d.Properties), Name: m.name, Object: object,
		Title: n.get("title").text(), Description: n.get("description").text(),
		Unit: Unit(n.get("unit").text()), MaxLength: -1,
		Label: f.label, Linger: f.linger, Retention: f.retention,
	}
	if object != "" {
		p.Name = object + "/" + m.name
	}
	if why = p.constrain(n); why != "" {
		return why, nil
	}
	c.d.byName[p.Name] = p.Index
	c.d.Properties = append(c.d.Properties, p)
	return "", nil
}

// constrain sets the kind and what values are allowed; what it can't enforce it
// refuses rather than leaves out.
func (p *Property) constrain(n *node) (why string) {
	switch t := n.get("type").text(); t {
	case "number", "integer":
		p.Kind, p.Integer = carnet.Number, t == "integer"
	case "boolean":
		p.Kind = carnet.Boolean
	case "string":
		p.Kind = carnet.Text
		if enc := n.get("contentEncoding").text(); enc == "base64" {
			p.Kind = carnet.Data
		} else if enc != "" {
			return "its contentEncoding " + enc + " is not base64"
		}
	case "":
		return "it has no type"
	default:
		return "its type is " + t
	}
	switch {
	case n.get("oneOf") != nil:
		return "it has alternatives (oneOf)"
	case n.get("pattern") != nil:
		return "it has a pattern, which is not checked"
	}
	bound := func(name string) *float64 {
		if v, ok := n.get(name).number(); ok {
			return &v
		}
		return nil
	}
	p.Minimum, p.Maximum = bound("minimum"), bound("maximum")
	p.Above, p.Below = bound("exclusiveMinimum"), bound("exclusiveMaximum")
	if v := bound("multipleOf"); v != nil {
		p.MultipleOf = *v
	}
	if v := bound("minLength"); v != nil {
		p.MinLength = int(*v)
	}
	if v := bound("maxLength"); v != nil {
		p.MaxLength = int(*v)
	}
	return p.constrainTo(n)
}

// constrainTo sets the values of enum and const.
func (p *Property) constrainTo(n *node) (why string) {
	var values []*node
	if e := n.get("enum"); e != nil {
		values = e.items
	}
	if v := n.get("const"); v != nil {
		values = []*node{v}
	}
	for _, v := range values {
		switch {
		case p.Kind == carnet.Number && v.kind == isNumber:
			f, ok := v.number()
			if !ok || math.IsInf(f, 0) {
				return "its enum has a number that a double can't hold"
			}
			p.Enum = append(p.Enum, carnet.Float(f))
		case p.Kind == carnet.Boolean && v.kind == isBool:
			p.Enum = append(p.Enum, carnet.Bool(v.truth()))
		case p.Kind == carnet.Text && v.kind == isString:
			p.Enum = append(p.Enum, carnet.String(v.text()))
		default:
			return "its enum or const has " + v.what() + ", which its type excludes: " + strings.ToLower(p.Kind.String())
		}
	}
	return ""
}
