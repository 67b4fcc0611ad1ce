package demo

import (
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
	"carnet/job"
)

// Grant is a grant of a world's, as its store has it.
type Grant struct {
	ID      string            `json:"id"`
	World   carnet.PartyID    `json:"world"`
	Avatar  carnet.AvatarID   `json:"avatar"`
	To      string            `json:"to"` // a world, or an application
	Actions []identity.Action `json:"actions"`
	Purpose string            `json:"purpose"`
	Expires time.Time         `json:"expires"`
	Revoked bool              `json:"revoked"`
}

// Move is an avatar's move, as the stores of its target and its source have it.
type Move struct {
	ID      carnet.CrossingID `json:"id"`
	From    carnet.PartyID    `json:"from"`
	To      carnet.PartyID    `json:"to"`
	Avatar  carnet.AvatarID   `json:"avatar"` // there
	For     carnet.AvatarID   `json:"for"`    // here
	State   move.State        `json:"state"`  // at the target
	Leaving move.State        `json:"leaving"`
	// Outcome is the registrar's, where both worlds have the same decision.
	Outcome identity.Outcome `json:"outcome"`
	// Frozen is how long it could be read and not written, in seconds.
	Frozen       float64 `json:"frozen"`
	Streams      int     `json:"streams"`
	Batches      uint64  `json:"batches"`
	Measurements uint64  `json:"measurements"` // by the manifest
	Items        int     `json:"items"`

	ordered, manifests, departed bool
	mandated                     string // what is wrong with the order
}

// Item is an item, as the stores of all worlds that know it have it.
type Item struct {
	ID     carnet.ItemID                 `json:"id"`
	Kind   string                        `json:"kind"` // of its issuer's
	Title  string                        `json:"title"`
	Issuer carnet.PartyID                `json:"issuer"`
	States map[carnet.PartyID]item.State `json:"states"` // at each world
	// As is what it counts as where it is, and Proved that its chain verifies from its
	// issue on, of Entries entries, with the ledger's receipts.
	As      string `json:"as"`
	Entries int    `json:"entries"`
	Proved  bool   `json:"proved"`

	power any
}

// Job is a job, as its world's store has it, and its DPM's.
type Job struct {
	ID           carnet.JobID       `json:"id"`
	World        carnet.PartyID     `json:"world"`
	At           carnet.PartyID     `json:"at"`      // a DPM, or the world itself
	Program      string             `json:"program"` // a module's name, or the query
	Properties   []string           `json:"properties"`
	State        job.State          `json:"state"`
	Outcome      capsule.Outcome    `json:"outcome"`
	Made         time.Time          `json:"made"`
	Began        time.Time          `json:"began"` // by the signed result
	Ended        time.Time          `json:"ended"` // by the signed result
	Measurements uint64             `json:"measurements"`
	Inputs       carnet.Fingerprint `json:"inputs"` // root over their fingerprints
	Output       carnet.Fingerprint `json:"output"`
	Repeats      *carnet.JobID      `json:"repeats,omitempty"`
	Comparison   string             `json:"comparison,omitempty"`

	label        carnet.Label
	noted        time.Time // when the world noted that it had ended
	atDPM        string    // what is wrong with what the DPM has of it
	content      string    // what is wrong with what the result says that it was
	stated       string    // which statement lacks
	module       string    // the signed module that ran; empty: a query, or a program that nobody signed
	unsigned     string    // what lacks of that module
	stored       bool      // its output is at the depot
	output       []byte
	streams      []carnet.StreamID // of its inputs
	outputFailed string
}

// away reports whether a DPM computed it.
func (j *Job) away() bool { return j.At != j.World }
