// Package policy decides what a receiver gets of a thing: views as closed,
// typed documents, Cedar as the judge over them, and the answer compiled into
// an immutable Table that the hot path indexes.
//
// It owns the form of a view and its lattice (Strictest), the facts that Cedar
// is given, the arithmetic of rounding, rates, deadbands, windows and position
// grids, and the durable State that rates and deadbands need. A view is
// parsed, met with others, compiled for one reader, and then applied to one
// measurement at a time; a State follows a mapping from Table to Table.
//
// Everything fails closed: what a view does not name is withheld, a policy
// that errs denies, and a label above the reader's clearance is withheld
// whatever Cedar says. Labels are never lowered here: rounding is a named
// transform, but a lower label needs a recorded act that is not a view's.
//
// It must not know stores, streams, links, clocks or how a description is
// written; docs/design/policy.md has every format and formula.
package policy

import "carnet"

// Property is what a view can speak about: one leaf of a thing's description.
// Name is "heart_rate", or "position/lat" for a field of an object property.
type Property struct {
	Name      string
	Unit      string // SenML unit, for people
	Kind      carnet.Kind
	Label     carnet.Label
	Retention carnet.Retention
}

// Reader is who would receive.
type Reader struct {
	Party     carnet.PartyID
	Clearance carnet.Clearance
}
