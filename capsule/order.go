// Package capsule owns the messages of reference point R6: the order that a world
// signs for a job, and what a DPM signs in return; and of modules, what their publishers
// sign (docs/design/modules.md). docs/design/capsule.md has all others, with what each
// proves.
//
// A capsule is an order and the key bags that it names. The package has no state: it
// makes and reads messages, each in one form, and checks what a message says of
// itself. What two of them must have in common is checked where it is decided.
//
// The package must not know stores, transports, engines that run, or what an avatar
// is.
package capsule

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/engine"
	"carnet/identity"
	"carnet/seal"
)

// The types of the messages.
const (
	typOrder      = "carnet-order-job+jwt"
	typAcceptance = "carnet-acceptance-job+jwt"
	typResult     = "carnet-result-job+jwt"
	typWithdrawal = "carnet-withdrawal-job+jwt"
	typOffer      = "carnet-offer-dpm+jwt"
	typModule     = "carnet-module+jwt"
	typRevocation = "carnet-revocation-module+jwt"
	typRecord     = "carnet-record-job+jwt"
	typTaken      = "carnet-taken-job+jwt"
	typPartial    = "carnet-partial-job+jwt"
)

// Bounds of a job.
const (
	MostInputs = 64
	MostInput  = 32 << 20 // bytes of one
	MostBags   = 8
	Longest    = 24 * time.Hour // from made to until
)

// Label is a label as messages have it.
type Label struct {
	Sensitivity carnet.Sensitivity `json:"sensitivity"`
	Purposes    []string           `json:"purposes,omitempty"`
	Residency   []string           `json:"residency,omitempty"`
}

// LabelOf makes a message's label.
func LabelOf(l carnet.Label) Label {
	return Label{l.Sensitivity, l.Purposes.Words(), l.Residency.Words()}
}

// Label is the label that is meant.
func (l Label) Label() carnet.Label {
	return carnet.Label{Sensitivity: l.Sensitivity, Purposes: carnet.NewSet(l.Purposes...), Residency: carnet.NewSet(l.Residency...)}
}

// Content is bytes that a job needs.
type Content struct {
	Fingerprint carnet.Fingerprint `json:"fingerprint"`
	Size        int64              `json:"size"`
}

// Input is a job's input: batches of one stream, each with its length before it.
type Input struct {
	Content
	Avatar  string             `json:"avatar"` // what the program is told: a1, a2, …
	Batches int                `json:"batches"`
	Root    carnet.Fingerprint `json:"root"` // over the batches' fingerprints
}

// Limits are a run's, as messages have them.
type Limits struct {
	Memory       uint64 `json:"memory"`
	Milliseconds int64  `json:"milliseconds"`
	Output       uint64 `json:"output"`
	Parts        int    `json:"parts"`
}

// Engine is the limits as engines take them.
func (l Limits) Engine() engine.Limits {
	return engine.Limits{Memory: l.Memory, Time: time.Duration(l.Milliseconds) * time.Millisecond, Output: l.Output, Parts: l.Parts}
}

// Task is what is computed: all of an order that decides the output.
type Task struct {
	Engine     string          `json:"engine"`
	Program    Content         `json:"program"`
	Parameters json.RawMessage `json:"parameters,omitempty"` // an object
	From       int64           `json:"from"`                 // measured time, ns: from it on,
	To         int64           `json:"to"`                   // and before it
	Properties []string        `json:"properties,omitempty"` // ascending; none: all
	Inputs     []Input         `json:"inputs"`
	Limits     Limits          `json:"limits"`
}

// Policy is a version of an avatar's policy, which its owner has signed.
type Policy struct {
	Avatar  string `json:"avatar"` // as inputs call it
	Version uint64 `json:"version"`
}

// Order is what a world signs of a job.
type Order struct {
	Job     carnet.JobID       `json:"job"`
	By      carnet.PartyID     `json:"by"`  // the world, as it calls itself
	For     carnet.PartyID     `json:"for"` // the DPM, as it calls itself
	Purpose string             `json:"purpose"`
	Terms   carnet.Fingerprint `json:"terms"` // of the peering
	Task    Task               `json:"task"`
	// Module is the fingerprint of the record of the module that runs; zero: nobody signed
	// the program but who signs the order.
	Module carnet.Fingerprint `json:"module,omitzero"`
	// Policies are those of its avatars that the order was held against; an avatar without
	// one isn't named.
	Policies []Policy `json:"policies,omitempty"`
	// Label is the output's: all inputs' joined.
	Label Label                `json:"label"`
	Bags  []carnet.Fingerprint `json:"bags"`
	// Reception is the id of the world's reception key, to which the output's key is given.
	Reception carnet.Fingerprint `json:"reception"`
	Made      time.Time          `json:"made"`
	Until     time.Time          `json:"until"`
}

func bad(format string, args ...any) *carnet.Error {
	return carnet.Errorf(carnet.Malformed, format, args...)
}

// Check holds an order against itself.
func (o Order) Check() error {
	_, byErr := carnet.ParsePartyID(string(o.By))
	_, forErr := carnet.ParsePartyID(string(o.For))
	switch {
	case byErr != nil || forErr != nil:
		return bad("the order is by %.40q for %.40q, which are no names of parties", o.By, o.For)
	case o.Job == carnet.JobID{}:
		return bad("the order names no job")
	case !identity.Words([]string{o.Purpose}):
		return bad("the order's purpose is %.40q: want one word", o.Purpose)
	case !whole(o.Made, o.Until) || !o.Made.Before(o.Until) || o.Until.Sub(o.Made) > Longest:
		return bad("the order is from %s until %s: want whole seconds in UTC, at most %s", o.Made, o.Until, Longest)
	case o.For != o.By && len(o.Bags) == 0 || o.For == o.By && len(o.Bags) > 0 || len(o.Bags) > MostBags:
		return bad("the order names %d key bags: want 1 to %d, or none for what the world runs itself", len(o.Bags), MostBags)
	}
	for i, p := range o.Policies {
		switch {
		case p.Version == 0:
			return bad("the order names a policy of %.70q without a version", p.Avatar)
		case !slices.ContainsFunc(o.Task.Inputs, func(in Input) bool { return in.Avatar == p.Avatar }):
			return bad("the order names a policy of %.70q, of which it has no input", p.Avatar)
		case slices.ContainsFunc(o.Policies[:i], func(q Policy) bool { return q.Avatar == p.Avatar }):
			return bad("the order names two policies of %.70q", p.Avatar)
		}
	}
	return o.Task.Check()
}

// Check holds a task against itself.
func (t Task) Check() error {
	switch {
	case !identity.Words([]string{t.Engine}):
		return bad("the engine is %.40q: want one word", t.Engine)
	case t.Program.Size < 1 || t.Program.Size > engine.MostProgram:
		return bad("the program has %d bytes, want 1 to %d", t.Program.Size, engine.MostProgram)
	case len(t.Parameters) > engine.MostParameter || len(t.Parameters) > 0 && !object(t.Parameters):
		return bad("the parameters are a JSON object of at most %d bytes", engine.MostParameter)
	case t.From >= t.To:
		return bad("the time range ends before it begins")
	case len(t.Properties) > 64 || !slices.IsSorted(t.Properties) || slices.Contains(t.Properties, ""):
		return bad("the properties are at most 64, ascending")
	case len(t.Inputs) == 0 || len(t.Inputs) > MostInputs:
		return bad("a job has 1 to %d inputs, not %d", MostInputs, len(t.Inputs))
	}
	for _, in := range t.Inputs {
		if in.Size < 5 || in.Size > MostInput || in.Batches < 1 || int64(in.Batches) > in.Size || in.Avatar == "" || len(in.Avatar) > 64 {
			return bad("an input has %d batches in %d bytes of %.70q", in.Batches, in.Size, in.Avatar)
		}
	}
	return t.Limits.Engine().Check()
}

func object(text json.RawMessage) bool {
	var o map[string]json.RawMessage
	return json.Unmarshal(text, &o) == nil && o != nil
}

// whole reports whether times are whole seconds in UTC.
func whole(times ...time.Time) bool {
	for _, t := range times {
		if t.Location() != time.UTC || !t.Equal(t.Truncate(time.Second)) {
			return false
		}
	}
	return true
}

// Contents lists what must be at hand before a job can run.
func (t Task) Contents() []Content {
	all := []Content{t.Program}
	for _, in := range t.Inputs {
		all = append(all, in.Content)
	}
	slices.SortFunc(all, func(a, b Content) int { return slices.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
	return slices.CompactFunc(all, func(a, b Content) bool { return a.Fingerprint == b.Fingerprint })
}

// Root is the root over the fingerprints of a task's inputs.
func (t Task) Root() carnet.Fingerprint {
	leaves := make([]carnet.Fingerprint, len(t.Inputs))
	for i, in := range t.Inputs {
		leaves[i] = in.Fingerprint
	}
	return seal.Root(leaves)
}

// Sign makes the order's message.
func (o Order) Sign(key ed25519.PrivateKey) (string, error) {
	if err := o.Check(); err != nil {
		return "", err
	}
	return identity.SignMessage(key, typOrder, o)
}

// OpenOrder reads an order by the key.
func OpenOrder(text string, key ed25519.PublicKey) (o Order, err error) {
	if err := identity.OpenMessage(text, typOrder, &o, keyed(key)); err != nil {
		return Order{}, err
	}
	return o, o.Check()
}

func keyed(key ed25519.PublicKey) func() (ed25519.PublicKey, error) {
	return func() (ed25519.PublicKey, error) { return key, nil }
}

// Fingerprint names a message.
func Fingerprint(message string) carnet.Fingerprint { return carnet.FingerprintOf([]byte(message)) }

// Fits reports whether a measurement is one that the program is given: measured within
// the task's time, of one of its properties or a field of one.
func (t *Task) Fits(m *carnet.Measurement) bool {
	if m.Time < t.From || m.Time >= t.To {
		return false
	}
	if len(t.Properties) == 0 {
		return true
	}
	for _, p := range t.Properties {
		if m.Name == p || len(m.Name) > len(p) && m.Name[:len(p)] == p && m.Name[len(p)] == '/' {
			return true
		}
	}
	return false
}
