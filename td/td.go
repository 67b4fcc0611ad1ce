// Package td reads W3C WoT Thing Descriptions 1.1
// (https://www.w3.org/TR/wot-thing-description11/) and compiles them into what
// drives validation, mapping and the console: a flat list of leaves, each with
// its kind, unit, range, label, linger and retention.
//
// A Description is made once by Parse and never changes; every method may be
// called concurrently. Lookup, Check and Arrange are on the data path and do
// not allocate for a measurement that is accepted.
//
// Parse is strict where the recommendation is: what the W3C schema refuses is
// refused, with the JSON pointer (RFC 6901) of the place and what is expected
// there. Beyond the schema it refuses names that occur twice in an object,
// security names that are not defined, and terms of Carnet's own vocabulary
// (TermsIRI) that it does not know.
//
// It must not know things agents, policies, stores or transports.
package td

import (
	"fmt"
	"strings"
	"time"

	"carnet"
)

// The limits of a description that Parse accepts.
const (
	MaxSize    = 1 << 20 // bytes
	MaxDepth   = 32      // objects and arrays inside each other
	MaxMembers = 2048    // members of one object
	MaxLeaves  = 1024    // properties, with the fields of objects counted one by one
)

// Description is a thing's description, compiled.
type Description struct {
	ID          string // empty when the description has none
	Title       string
	Description string
	Properties  []Property // by Index; the fields of one object are adjacent
	Actions     []Action
	Events      []Event
	Unmeasured  []Unmeasured // properties that no measurement can hold
	Source      []byte       // the bytes that were parsed

	byName map[string]int
}

// Property is one leaf: a property of a simple type, or one field of a property
// that is an object.
type Property struct {
	Index       int    // in Description.Properties
	Name        string // "heart_rate", "position/lat"
	Object      string // "position" for a field, otherwise empty
	Title       string
	Description string

	Kind             carnet.Kind
	Unit             string // the SenML unit where one is known, otherwise as given; empty for none
	Integer          bool
	Minimum, Maximum *float64 // the bound itself is allowed
	Above, Below     *float64 // exclusiveMinimum and exclusiveMaximum
	MultipleOf       float64  // 0 for none
	Enum             []carnet.Value
	MinLength        int // characters of Text, bytes of Data
	MaxLength        int // as MinLength; negative for none

	Label     carnet.Label
	Linger    time.Duration    // how long a batch may wait for more, 0 to 60 s
	Retention carnet.Retention // 0 when the description does not say

	first, fields int // the leaves of the same object: Properties[first:first+fields]
}

// Fields is how many leaves stand together: those of the property's object, or 1.
func (p *Property) Fields() int { return max(1, p.fields) }

// Action is something that the thing can be asked to do.
type Action struct {
	Name, Title, Description string
	Safe, Idempotent         bool
	Input                    []byte // the data schema of its input, as given; nil for none
	Label                    carnet.Label
}

// Event is something that the thing tells by itself.
type Event struct {
	Name, Title, Description string
	Data                     []byte // the data schema of what it tells, as given; nil for none
	Label                    carnet.Label
}

// Unmeasured is a property that is well described and yet can't arrive as a
// measurement, and why.
type Unmeasured struct {
	Name string
	Why  string
}

// DefaultLinger is the linger of a property whose description names none.
const DefaultLinger = time.Second

// Parse checks data and compiles it. The error is a *carnet.Error that names the
// place in data and what is expected there.
func Parse(data []byte) (*Description, error) {
	if len(data) > MaxSize {
		return nil, carnet.Errorf(carnet.TooLarge, "the thing description has %d bytes, at most %d are accepted", len(data), MaxSize)
	}
	root, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	c := &checker{}
	if err := c.thing(root); err != nil {
		return nil, err
	}
	d := &Description{Source: append([]byte(nil), data...), byName: make(map[string]int)}
	if err := (&compiler{d: d, prefix: c.prefix}).thing(root); err != nil {
		return nil, err
	}
	return d, nil
}

// Lookup finds a leaf by its name.
func (d *Description) Lookup(name string) (*Property, bool) {
	i, ok := d.byName[name]
	if !ok {
		return nil, false
	}
	return &d.Properties[i], true
}

// Unknown makes the refusal of a measurement whose name Lookup did not find.
func (d *Description) Unknown(name string) *carnet.Error {
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	for _, u := range d.Unmeasured {
		if u.Name == name {
			return carnet.Errorf(carnet.UnknownProperty, "property %q can't be measured: %s", name, u.Why)
		}
	}
	e := carnet.Errorf(carnet.UnknownProperty, "property %q is not in the description of %q", name, d.Title)
	var fields, names []string
	for i := range d.Properties {
		if d.Properties[i].Object == name {
			fields = append(fields, d.Properties[i].Name)
		}
		if len(names) < 12 {
			names = append(names, d.Properties[i].Name)
		}
	}
	switch {
	case fields != nil:
		return e.WithFix("it is an object: send its fields %s", strings.Join(fields, ", "))
	case names == nil:
		return e.WithFix("the description has no measurable property")
	case len(names) < len(d.Properties):
		return e.WithFix("use one of %s and %d more", strings.Join(names, ", "), len(d.Properties)-len(names))
	}
	return e.WithFix("use one of %s", strings.Join(names, ", "))
}

func malformed(at *place, format string, args ...any) *carnet.Error {
	return carnet.Errorf(carnet.Malformed, "thing description at %s: %s", at, fmt.Sprintf(format, args...))
}
