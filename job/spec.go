package job

import (
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/engine"
)

// Spec is what somebody wants to have computed.
type Spec struct {
	// At is the DPM, as this world calls it; empty: in this world.
	At carnet.PartyID `json:"at,omitempty"`
	// Module is the id of the module that runs, NAME@VERSION; empty: Program runs on Engine.
	Module     string            `json:"module,omitempty"`
	Engine     string            `json:"engine"`
	Program    []byte            `json:"program"`
	Parameters json.RawMessage   `json:"parameters,omitempty"`
	Avatars    []carnet.AvatarID `json:"avatars"`
	// At a things agent: whose job it is, and over which things of theirs. ViewOf is the
	// world, or Mapping the mapping, under whose views; neither: the log as it is.
	Owner      string            `json:"owner,omitempty"`
	Things     []carnet.ThingID  `json:"things,omitempty"`
	ViewOf     carnet.PartyID    `json:"view_of,omitempty"`
	Mapping    *carnet.MappingID `json:"mapping,omitempty"`
	From       time.Time         `json:"from,omitzero"` // default: from the first on
	To         time.Time         `json:"to,omitzero"`   // default: now
	Properties []string          `json:"properties,omitempty"`
	Limits     capsule.Limits    `json:"limits,omitzero"`  // zero fields: the default
	Within     time.Duration     `json:"within,omitempty"` // until when it is to be done; default 10 min
}

// Defaults of a job.
const (
	defaultMemory = 64 << 20
	defaultTime   = time.Minute
	defaultOutput = 4 << 20
	defaultParts  = 256
	defaultWithin = 10 * time.Minute
)

// complete fills in the defaults, and refuses what can't be ordered.
func (s Spec) complete(now time.Time) (Spec, error) {
	bad := func(format string, args ...any) error { return carnet.Errorf(carnet.Malformed, format, args...) }
	if s.Limits.Memory == 0 {
		s.Limits.Memory = defaultMemory
	}
	if s.Limits.Milliseconds == 0 {
		s.Limits.Milliseconds = defaultTime.Milliseconds()
	}
	if s.Limits.Output == 0 {
		s.Limits.Output = defaultOutput
	}
	if s.Limits.Parts == 0 {
		s.Limits.Parts = defaultParts
	}
	if s.Within == 0 {
		s.Within = defaultWithin
	}
	if s.To.IsZero() {
		s.To = now
	}
	if s.From.IsZero() {
		s.From = time.Unix(0, 0)
	}
	s.From, s.To = s.From.UTC(), s.To.UTC()
	s.Properties = slices.Compact(slices.Sorted(slices.Values(s.Properties)))
	switch {
	case len(s.Program) == 0 || len(s.Program) > engine.MostProgram:
		return s, bad("the program has %d bytes, want 1 to %d", len(s.Program), engine.MostProgram)
	case len(s.Properties) > 64:
		return s, bad("a job is about at most 64 properties, not %d", len(s.Properties))
	case !s.From.Before(s.To):
		return s, bad("the time range ends before it begins")
	case s.Within < time.Second || s.Within > capsule.Longest:
		return s, bad("a job is to be done within 1s to %s, not %s", capsule.Longest, s.Within)
	}
	return s, s.Limits.Engine().Check()
}

// about refuses what a job at a party can't be about.
func (a *Agent) about(s *Spec) error {
	bad := func(format string, args ...any) *carnet.Error {
		return carnet.Errorf(carnet.Malformed, format, args...)
	}
	if a.cfg.Owned != nil {
		return s.aboutThings()
	}
	if len(s.Things) > 0 || s.ViewOf != "" || s.Mapping != nil {
		return bad("a job in a world is about avatars, and things are named").WithFix("name avatars; or ask the things agent: carnet job run --party")
	}
	if len(s.Avatars) == 0 || len(s.Avatars) > capsule.MostInputs {
		return bad("a job is about 1 to %d avatars, not %d", capsule.MostInputs, len(s.Avatars)).WithFix("name them: carnet avatar list")
	}
	for i, v := range s.Avatars {
		if slices.Contains(s.Avatars[:i], v) {
			return bad("the avatar %s stands twice", v)
		}
	}
	return nil
}

// Job is a job that this party ordered. It is stored sealed, as it is.
type Job struct {
	ID       carnet.JobID       `json:"id"`
	At       carnet.PartyID     `json:"at,omitempty"` // the DPM, as this world calls it; empty: in this world
	Purpose  string             `json:"purpose"`
	Made     time.Time          `json:"made"`
	Until    time.Time          `json:"until"`
	Task     capsule.Task       `json:"task"`
	Module   string             `json:"module,omitempty"` // the id of the one that runs
	Label    capsule.Label      `json:"label"`
	Avatars  []carnet.AvatarID  `json:"avatars"`            // a1, a2 and so on in the order; none at a things agent
	Policies []capsule.Policy   `json:"policies,omitempty"` // that the order was held against
	Owner    string             `json:"owner,omitempty"`    // at a things agent: whose it is
	Things   []carnet.ThingID   `json:"things,omitempty"`   // likewise, instead of avatars
	Logs     []Log              `json:"logs,omitempty"`     // what it reads of each of them
	Pins     []Pin              `json:"pins"`               // of the task's inputs, in their order
	Order    string             `json:"order,omitempty"`
	Bags     [][]byte           `json:"bags,omitempty"`
	Received []byte             `json:"reception,omitempty"` // the announcement that goes with them
	Repeats  *carnet.JobID      `json:"repeats,omitempty"`   // the job that it repeats
	Found    string             `json:"found,omitempty"`     // of the comparison with it
	Stand    Stand              `json:"stand"`
	Output   *capsule.Output    `json:"output,omitempty"`
	Path     string             `json:"path,omitempty"`  // of the output's key
	Stored   carnet.Fingerprint `json:"stored,omitzero"` // the output at the depot
	// Record is what the DPM stated of it, as it signed that; NoRecord is why there is none
	// and none is to come.
	Record   string `json:"record,omitempty"`
	NoRecord string `json:"no_record,omitempty"`
	// Contradiction is what its DPM put out while it ran, and then not.
	Contradiction *Contradiction `json:"contradiction,omitempty"`
	// Erasure is by which something that it was over is erased, Erasing the owner's order,
	// which its DPM is told.
	Erasure carnet.ErasureID `json:"erasure,omitzero"`
	Erasing string           `json:"erasing,omitempty"`
	// Further are later erasures, of what else it was over: the DPM is told of each.
	Further []ErasedBy `json:"further_erasures,omitempty"`
}

// ErasedBy is an erasure, by an owner's order.
type ErasedBy struct {
	Erasure carnet.ErasureID `json:"erasure"`
	Order   string           `json:"order"`
}

// erased reports whether something that a job was over is erased.
func (j *Job) erased() bool { return j.Erasure != carnet.ErasureID{} }

// erasedBy returns the order by which something that a job was over is erased; false: it
// isn't, by that erasure.
func (j *Job) erasedBy(id carnet.ErasureID) (order string, is bool) {
	if j.erased() && j.Erasure == id {
		return j.Erasing, true
	}
	for _, e := range j.Further {
		if e.Erasure == id {
			return e.Order, true
		}
	}
	return "", false
}

// strip deletes what was ordered and said of a job that is erased, when nobody is here any
// more whose evidence it is in.
func (j *Job) strip() {
	j.Order, j.Stand.Acceptance, j.Stand.Withdrawal, j.Stand.Result, j.Record, j.NoRecord, j.Found = "", "", "", "", "", "", ""
	j.Pins, j.Policies, j.Contradiction, j.Task = nil, nil, nil, capsule.Task{Engine: j.Task.Engine}
}

// Pin says where an input's batches are.
type Pin struct {
	Avatar       carnet.AvatarID `json:"avatar,omitzero"` // none at a things agent
	Stream       carnet.StreamID `json:"stream,omitzero"` // its id in this world's store
	First        uint64          `json:"first"`           // batch; of a thing's log, position
	Last         uint64          `json:"last"`
	Measurements uint64          `json:"measurements"` // that the program is given
	Along        uint64          `json:"along"`        // others, that are in the same batches
}

// Progress is how far a job is, as it was heard of last.
type Progress struct {
	State        string    `json:"state"` // at the DPM
	Attempt      int       `json:"attempt"`
	Permille     int       `json:"permille"`
	Measurements uint64    `json:"measurements"`
	Parts        int       `json:"parts"`
	Heard        time.Time `json:"heard,omitzero"`
	Trouble      string    `json:"trouble,omitempty"` // why the DPM can't be asked
}

// Info is a job with how far it is.
type Info struct {
	Job
	Progress Progress
}
