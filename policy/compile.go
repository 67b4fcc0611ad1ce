package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carnet"
)

// maxFields bounds an object property's fields, which a State keeps as bits.
const maxFields = 32

// compiler builds a Table; it lives as long as Compile does.
type compiler struct {
	judge  *Judge
	props  []Property
	view   View
	reader Reader
	table  *Table

	classes []Class               // by slot: what would be sent of its properties
	decided map[Property]Decision // what the judge said before; nil: it is asked about all
}

// Compile decides every property of props for reader r under view v, and
// returns the answer for the hot path. It fails where v asks for what a
// property can't do (rounding a text); what v names and props lack shows
// nothing. Version is the policy version that the table stands for.
func Compile(j *Judge, props []Property, v View, r Reader, version uint64) (*Table, error) {
	if err := v.validate(); err != nil {
		return nil, fmt.Errorf("compile view: %w", err)
	}
	var others beside
	for _, p := range props {
		if err := others.fits(p); err != nil {
			return nil, fmt.Errorf("compile view: %w", err)
		}
		others.add(p)
	}
	c := compiler{judge: j, props: props, view: v, reader: r}
	if err := c.compile(version); err != nil {
		return nil, fmt.Errorf("compile view: %w", err)
	}
	return c.table, nil
}

// compile makes the table of properties that can be beside each other.
func (c *compiler) compile(version uint64) error {
	c.table = &Table{
		version: version,
		view:    c.view,
		results: make([]Result, len(c.props)),
		entries: make([]entry, len(c.props)),
	}
	c.layOut()
	for i := range c.props {
		if err := c.decide(i); err != nil {
			return err
		}
	}
	c.closeObjects()
	c.number()
	return nil
}

// beside is the properties that were found to be able to stand beside each other.
type beside struct {
	names  map[string]bool
	fields map[string]int // of objects; a leaf counts as one
}

// fits says why a property can't be beside the others.
func (b *beside) fits(p Property) error {
	object, _, isField := strings.Cut(p.Name, "/")
	switch err := p.check(); {
	case err != nil:
		return err
	case len(b.names) >= maxProperties:
		return carnet.Errorf(carnet.TooLarge, "there are more than %d properties", maxProperties)
	case isField && b.fields[object] >= maxFields:
		return carnet.Errorf(carnet.TooLarge, "%s has more than %d fields", object, maxFields)
	case b.names[p.Name] || isField && b.names[object] || !isField && b.fields[object] > 0:
		return carnet.Errorf(carnet.Malformed, "property %s is described twice", p.Name)
	}
	return nil
}

func (b *beside) add(p Property) {
	if b.names == nil {
		b.names, b.fields = make(map[string]bool), make(map[string]int)
	}
	object, _, _ := strings.Cut(p.Name, "/")
	b.names[p.Name] = true
	b.fields[object]++
}

// check refuses what can't be a property.
func (p Property) check() error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if p.Kind < carnet.Number || p.Kind > carnet.Data {
		return carnet.Errorf(carnet.WrongType, "property %s has no kind of value", p.Name)
	}
	if p.Retention < carnet.Hour || p.Retention > carnet.Keep {
		return carnet.Errorf(carnet.Malformed, "property %s has no retention class", p.Name)
	}
	return nil
}

// layOut gives each leaf, and each object whose fields the view does not name
// one by one, a slot in the State; slots are in the order of their names. What the
// view names has one in any case: a State forgets nothing from one table of a view
// to another.
func (c *compiler) layOut() {
	slots := map[string]uint16{}
	for name := range c.view.Properties {
		slots[name] = 0
	}
	for _, p := range c.props {
		slots[c.slotName(p.Name)] = 0
	}
	c.table.slots = slices.Sorted(maps.Keys(slots))
	c.table.rates = make([]int64, len(c.table.slots))
	c.table.fields = make([]uint32, len(c.table.slots))
	for i, name := range c.table.slots {
		slots[name] = uint16(i)
	}
	c.classes = make([]Class, len(c.table.slots))
	for i := range c.classes {
		c.classes[i] = Class{carnet.Label{Purposes: c.view.Purposes, Residency: c.view.Residency}, c.view.Retention}
	}
	for i, p := range c.props {
		slot := slots[c.slotName(p.Name)]
		c.table.entries[i].slot = slot
		of := &c.classes[slot]
		of.Label, of.Retention = of.Label.Join(p.Label), shorter(of.Retention, p.Retention)
	}
}

func (c *compiler) slotName(leaf string) string {
	if _, key, ok := c.view.property(leaf); ok {
		return key
	}
	object, _, _ := strings.Cut(leaf, "/")
	return object
}

// isObject reports whether the leaf is shown as one of an object's fields.
func (c *compiler) isObject(leaf string) bool { return c.slotName(leaf) != leaf }

func (c *compiler) decide(i int) error {
	p, t := c.props[i], c.table
	e, res := &t.entries[i], &t.results[i]
	pv, _, ok := c.view.property(p.Name)
	if !ok {
		c.withhold(i, NotInView, "", p.Name+" is withheld: the view does not name it")
		return nil
	}
	// The property's label and retention, bound by the view's. An object's fields share
	// theirs, so that they stay in one batch. Labels are never lowered here.
	res.Label, res.Retention = c.classes[e.slot].Label, c.classes[e.slot].Retention
	own := p.Label
	p.Label, p.Retention = res.Label, res.Retention
	if err := c.exactly(e, p, pv); err != nil {
		return err
	}
	if pv.PrecisionM != 0 && e.role == single {
		c.withhold(i, Incomplete, "", p.Name+" is withheld: precision_m shows a position's lat and lon together, and nothing else of it")
		return nil
	}
	if why := p.Label.Exceeds(c.reader.Clearance); why != "" {
		if p.Label.Sensitivity&^c.reader.Clearance.Sensitivity == 0 {
			why = cmp.Or(c.apart(own, p.Label), why)
		}
		c.withhold(i, ExceedsClearance, "", fmt.Sprintf("%s may not receive %s: %s", c.reader.Party, p.Name, why))
		return nil
	}
	d := c.judged(p, pv)
	if !d.Allow {
		c.withhold(i, DeniedByPolicy, d.Policy, d.Sentence)
		return nil
	}
	res.Admit, res.Reason, res.Decision = true, Admitted, d
	e.fixed = Admitted
	return nil
}

// judged asks the judge about a property whose label is bound by the view's, once.
func (c *compiler) judged(p Property, pv PropertyView) Decision {
	d, asked := c.decided[p]
	if !asked {
		if d = c.judge.decide(question{p, pv, c.view, c.reader}); c.decided != nil {
			c.decided[p] = d
		}
	}
	return d
}

// permits reports whether reader and judge let a property be shown, whatever else is
// known of it.
func (c *compiler) permits(p Property) bool {
	pv, _, ok := c.view.property(p.Name)
	if !ok {
		return false
	}
	p.Label = p.Label.Join(carnet.Label{Purposes: c.view.Purposes, Residency: c.view.Residency})
	p.Retention = shorter(c.view.Retention, p.Retention)
	return p.Label.Exceeds(c.reader.Clearance) == "" && c.judged(p, pv).Allow
}

// apart says for what, or where, neither the view nor the property's own label leaves
// anything of what the other allows.
func (c *compiler) apart(own, bound carnet.Label) string {
	for _, of := range []struct {
		what             string
		own, view, bound carnet.Set
	}{{"used for", own.Purposes, c.view.Purposes, bound.Purposes}, {"kept in", own.Residency, c.view.Residency, bound.Residency}} {
		if of.bound == nothing && len(words(of.own)) > 0 && len(words(of.view)) > 0 {
			return fmt.Sprintf("the data may be %s %s only, and by the view %s: they have none in common", of.what, strings.Join(words(of.own), ", "), strings.Join(words(of.view), ", "))
		}
	}
	return ""
}

func (c *compiler) withhold(i int, why Verdict, policy, sentence string) {
	res := &c.table.results[i]
	res.Admit, res.Reason, res.Decision = false, why, Decision{false, policy, sentence}
	c.table.entries[i].fixed = why
}

// suits refuses a property of which the view asks what it can't do.
func (v View) suits(p Property) error {
	pv, key, _ := v.property(p.Name)
	object := key != p.Name
	if p.Kind != carnet.Number && (pv.Round != 0 || pv.Deadband != 0 || pv.PrecisionM != 0 && !object) {
		return carnet.Errorf(carnet.WrongType, "%s is %s, and round, deadband and precision_m are for numbers", p.Name, p.Kind)
	}
	if object && pv.Deadband != 0 {
		return carnet.Errorf(carnet.WrongType, "deadband is for one number, and %s is a field of an object", p.Name).WithFix("name the fields one by one")
	}
	return nil
}

// exactly fills in how exactly the property is shown.
func (c *compiler) exactly(e *entry, p Property, pv PropertyView) error {
	if err := c.view.suits(p); err != nil {
		return err
	}
	object := c.isObject(p.Name)
	e.kind = p.Kind
	e.rate = int64(pv.Rate)
	e.deadband = pv.Deadband.Float()
	if !pv.Windows.Always() {
		e.windows = &pv.Windows
	}
	if pv.Round != 0 {
		e.step.c, e.step.p = pv.Round.fraction()
	}
	if object {
		e.role, e.bit = field, c.nextBit(e.slot)
	}
	if pv.PrecisionM != 0 {
		e.role = single
		if object {
			e.role = c.positionRole(p)
		}
		e.grid = newGrid(pv.PrecisionM)
	}
	e.plain = e.rate == 0 && e.deadband == 0 && e.windows == nil && e.step.c == 0 && (e.role == single || e.role == field)
	c.table.rates[e.slot] = e.rate
	if e.role != single {
		c.table.fields[e.slot] |= e.bit
	}
	return nil
}

// nextBit is the lowest that no field of the slot has.
func (c *compiler) nextBit(slot uint16) uint32 { return c.table.fields[slot] + 1 }

// positionRole is lat or lon where the object has both as numbers, and single
// for everything else, which precision_m does not cover.
func (c *compiler) positionRole(p Property) role {
	object, name, _ := strings.Cut(p.Name, "/")
	switch {
	case !hasNumber(c.props, object+"/lat") || !hasNumber(c.props, object+"/lon"):
		return single
	case name == "lat":
		return latitude
	case name == "lon":
		return longitude
	}
	return single
}

// closeObjects withholds an object, shown as a whole, of which a field is
// withheld. What precision_m does not cover is no such field.
func (c *compiler) closeObjects() {
	first := make([]int, len(c.table.slots)) // by slot: the first that is withheld, from 1
	for i := range c.props {
		e := &c.table.entries[i]
		if e.fixed != Admitted && e.role != single && first[e.slot] == 0 {
			first[e.slot] = i + 1
		}
	}
	for k := range c.props {
		if e := &c.table.entries[k]; e.fixed == Admitted && first[e.slot] != 0 {
			i := first[e.slot] - 1
			c.withhold(k, Incomplete, c.table.results[i].Decision.Policy,
				fmt.Sprintf("%s is withheld with %s: %s", c.props[k].Name, c.props[i].Name, c.table.results[i].Decision.Sentence))
		}
	}
}

// number gives the distinct (label, retention) pairs of admitted properties
// their dense indices.
func (c *compiler) number() {
	t := c.table
	for i := range t.results {
		res := &t.results[i]
		if !res.Admit {
			res.Label, res.Retention, res.Class = carnet.Label{}, 0, -1
			continue
		}
		class := Class{res.Label, res.Retention}
		if res.Class = slices.Index(t.classes, class); res.Class < 0 {
			res.Class = len(t.classes)
			t.classes = append(t.classes, class)
		}
	}
}
