// Package audit is the oracle: it works out again, from a things agent's log and
// the views that were recorded, what a world may hold of a thing, and compares
// that with what the world holds.
//
// It owns a second reading of docs/design/policy.md: it parses views, rounds,
// and keeps the memory of rates, deadbands and objects itself, written from the
// page alone, so that a mistake of the engine that decides on the hot path
// doesn't repeat itself here. What can't be worked out from a log (what the
// judge and the clearance said) is given as recorded facts.
//
// An Oracle is made for one mapping and keeps nothing between two runs. A run
// reads the log in order; each lane (the properties with one linger interval)
// goes from one view to the next at its own position. Compare pulls what is
// admitted and what is held side by side and keeps only what doesn't match yet.
//
// The package must not know the view engine, the agents, stores, links or
// frames: whoever calls it reads them and hands over measurements.
// docs/design/audit.md says what is caught and what isn't.
package audit

import (
	"context"
	"time"

	"carnet"
)

// Config says what is known of a mapping.
type Config struct {
	From  uint64        // the first log position that the mapping concerns
	Views []ViewVersion // every view that was in force, oldest first; at least one
	// Upto says, per linger in milliseconds, the position before which everything
	// is decided and has reached the world: what comes from there on may be held,
	// but isn't missed. A lane that it doesn't name is decided whole.
	Upto map[int64]uint64
}

// ViewVersion is one view that was in force, with the facts that were recorded.
type ViewVersion struct {
	Version    uint64
	View       []byte // the strictest of all views, as JSON (policy.md section 1)
	Stopped    bool   // nothing is sent under it
	Properties []Property
	// Since says, per linger in milliseconds, the first log position that was
	// decided under this version: it names the linger of each property.
	Since map[int64]uint64
}

// Property is a leaf of the thing's description, in its order, with what was
// decided about it under one version. All versions have the same properties.
type Property struct {
	Name   string
	Unit   string
	Kind   carnet.Kind
	Linger time.Duration // one for all fields of an object
	Admit  bool          // what the judge and the clearance said
}

// Message is what a device sent at once, as the agent's log has it.
type Message struct {
	Position     uint64
	Measurements []carnet.Measurement
}

// Log hands over the messages of the mapping's thing, and of no other, from a
// position on in ascending order, until do fails or nothing is left. What it
// hands over need be valid during the call of do only. It may be asked several
// times, and has the same messages each time but for new ones at its end.
type Log func(ctx context.Context, from uint64, do func(Message) error) error

// Admitted is a measurement that the world may have, as the view shows it.
type Admitted struct {
	Position    uint64 // in the log
	Due         bool   // the world must have it: it lies before Config.Upto
	Measurement carnet.Measurement
}

// Held is a measurement that a world holds of the mapping's stream.
type Held struct {
	Number      uint64 // in the stream: a batch's first number, plus its place in the batch
	Measurement carnet.Measurement
}

// Holdings hands over what a world holds of the mapping's stream, in the order
// of its batch numbers, until do fails or nothing is left. It may be asked
// several times, and has the same each time.
type Holdings func(ctx context.Context, do func(Held) error) error

// Result says how what a world holds compares with what it may hold. A faithful
// sender's has no Faults.
type Result struct {
	Expected  int // measurements that are admitted and due
	Held      int // measurements that the world holds
	Lost      int // admitted, due, and not held
	Doubled   int // held under a number that was held before, or more often than admitted
	Extra     int // held, and not admitted at all
	Reordered int // numbers that go backwards, and properties held in another order than the log's
	Examples  Examples
}

// Examples are sentences about the first few of each kind.
type Examples struct {
	Lost, Doubled, Extra, Reordered []string
}

// Faults is how many measurements and orders are not as they should be.
func (r Result) Faults() int { return r.Lost + r.Doubled + r.Extra + r.Reordered }

// Audit works out what the mapping's world may hold and compares it with what it
// holds.
func (o *Oracle) Audit(ctx context.Context, log Log, held Holdings) (Result, error) {
	return Compare(ctx, func(ctx context.Context, do func(Admitted) error) error { return o.Recompute(ctx, log, do) }, held)
}
