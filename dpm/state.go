package dpm

import (
	"time"

	"carnet"
	"carnet/capsule"
)

// State is where a job stands at a DPM.
type State string

// The states; the zero State is that of a job that isn't there.
const (
	Waiting State = "waiting" // content lacks
	Ready   State = "ready"   // a worker may have it
	Leased  State = "leased"  // a worker has it
	Ended   State = "ended"   // in whatever way: the result says
)

// MostAttempts is how often a job is given to a worker that doesn't give it back.
const MostAttempts = 3

// Job is what a DPM knows of one job of one world. It is stored sealed, as it is.
type Job struct {
	Peer  carnet.PartyID     `json:"peer"` // as this DPM calls the world
	Order string             `json:"order"`
	Named carnet.Fingerprint `json:"named"` // of the order
	// Acceptance is this DPM's, as it was signed first.
	Acceptance string    `json:"acceptance"`
	Reception  []byte    `json:"reception"` // the world's announcement
	Until      time.Time `json:"until"`
	// Record is that of the module that runs, where the order names one.
	Record string `json:"record,omitempty"`

	State   State  `json:"state"`
	Attempt int    `json:"attempt,omitempty"` // leases given
	Back    int    `json:"back,omitempty"`    // of these, given back by workers that live
	Worker  string `json:"worker,omitempty"`  // who has the last
	// Of the last attempt: when it began, and the bag that gives the world its key.
	Began time.Time `json:"began,omitzero"`
	Bag   []byte    `json:"bag,omitempty"`
	Path  string    `json:"path,omitempty"` // of that key

	Outcome capsule.Outcome `json:"outcome,omitempty"`
	Code    carnet.Code     `json:"code,omitempty"`
	Why     string          `json:"why,omitempty"`
	Output  *capsule.Output `json:"output,omitempty"`
	Ended   time.Time       `json:"ended,omitzero"`
	Result  string          `json:"result,omitempty"` // signed
	Taken   bool            `json:"taken,omitempty"`  // the world has it
	Took    string          `json:"took,omitempty"`   // the world's word of that
	Cleared bool            `json:"cleared,omitempty"`
	// Withdrawal is the world's word, where there is one.
	Withdrawal string `json:"withdrawal,omitempty"`
	// Erasure is by which all else was erased.
	Erasure carnet.ErasureID `json:"erasure,omitzero"`
}

// erased reports whether nothing of a job is here but that there was one.
func (j *Job) erased() bool { return j.Erasure != carnet.ErasureID{} }

// Event is something that happens to a job.
type Event struct {
	Kind    EventKind
	At      time.Time
	Attempt int // of Lost, Returned and Finished: whose

	Worker string // of Given
	Bag    []byte
	Path   string

	Outcome    capsule.Outcome // of Finished: done or failed
	Code       carnet.Code
	Why        string
	Output     *capsule.Output
	Withdrawal string // of Withdraw
	Took       string // of Take
	Erasure    carnet.ErasureID
}

// EventKind says what happens.
type EventKind int

// What happens to a job after it was accepted.
const (
	Whole    EventKind = iota // all its content is there
	Lacking                   // some of it is found not to be
	Given                     // a worker gets it
	Lost                      // the worker's lease has ended
	Returned                  // the worker gives it back: it can't go on for now
	Finished                  // the worker says how it ended
	Late                      // its time is over
	Withdraw                  // the world wants it no more
	Take                      // the world has the result
	Clear                     // its keys are destroyed, and its content is deleted
	Refuse                    // its module is revoked
	Erase                     // what it was over is erased, by its owner's order
)

// Next is what becomes of a job by an event. It has no other effects: what is to be
// done about a state (Due says) is done again after each start. An event that a job
// isn't in the state for is carnet.Conflict; one that has happened changes nothing.
func Next(j Job, e Event) (Job, error) {
	current := j.State == Leased && e.Attempt == j.Attempt
	if j.erased() && e.Kind != Clear { // nothing brings anything of it back
		return j, nil
	}
	switch e.Kind {
	case Erase:
		return erased(j, e.At, e.Erasure), nil
	case Whole:
		if j.State == Waiting {
			j.State = Ready
		}
		return j, nil
	case Lacking:
		if j.State == Ready || current {
			j.State, j.Bag, j.Path = Waiting, nil, ""
		}
		return j, nil
	case Given:
		if j.State != Ready || !e.At.Before(j.Until) {
			return j, stateConflict(j)
		}
		j.State, j.Attempt, j.Worker, j.Began, j.Bag, j.Path = Leased, j.Attempt+1, e.Worker, e.At, e.Bag, e.Path
		return j, nil
	case Lost, Returned:
		if !current {
			return j, nil
		}
		if e.Kind == Returned {
			j.Back++
		}
		if j.Attempt-j.Back < MostAttempts {
			j.State, j.Bag, j.Path = Ready, nil, ""
			return j, nil
		}
		return end(j, e.At, capsule.Parked, carnet.Unavailable, "it ended the worker that ran it three times, or kept it from answering"), nil
	case Finished:
		if !current {
			return j, stateConflict(j)
		}
		j = end(j, e.At, e.Outcome, e.Code, e.Why)
		j.Output = e.Output
		return j, nil
	case Late:
		if j.State == Ended {
			return j, nil
		}
		return end(j, e.At, capsule.Expired, carnet.TooOld, "its time was over"), nil
	case Withdraw:
		if j.Withdrawal == "" {
			j.Withdrawal = e.Withdrawal
		}
		if j.State == Ended && j.Outcome != capsule.Done {
			return j, nil
		}
		// What is done may be withdrawn, too: nothing of it is to be kept.
		j.Output, j.Taken, j.Took = nil, false, ""
		return end(j, e.At, capsule.Withdrawn, "", ""), nil
	case Refuse:
		if j.State == Ended {
			return j, nil
		}
		return end(j, e.At, capsule.Refused, e.Code, e.Why), nil
	case Take:
		if j.State != Ended {
			return j, stateConflict(j)
		}
		if !j.Taken {
			j.Taken, j.Took, j.Cleared = true, e.Took, false // its parts can go now
		}
		return j, nil
	case Clear:
		if j.State != Ended {
			return j, stateConflict(j)
		}
		j.Cleared = true
		return j, nil
	}
	return j, stateConflict(j)
}

func end(j Job, at time.Time, o capsule.Outcome, code carnet.Code, why string) Job {
	j.State, j.Outcome, j.Code, j.Why, j.Ended, j.Result, j.Cleared = Ended, o, code, why, at.UTC().Truncate(time.Second), "", false
	if o != capsule.Done {
		j.Bag, j.Path = nil, ""
	}
	return j
}

func stateConflict(j Job) error {
	return carnet.Errorf(carnet.Conflict, "the job is %s, in attempt %d", j.State, j.Attempt)
}

// HasKeys reports whether a job needs the keys of its bags. They are destroyed as
// soon as it doesn't.
func (j *Job) HasKeys() bool { return j.State == Waiting || j.State == Ready || j.State == Leased }

// HasParts reports whether what the attempt put out is kept.
func (j *Job) HasParts() bool {
	return j.State == Leased || j.State == Ended && j.Outcome == capsule.Done && !j.Taken && !j.erased()
}

// remembered is how long a job that ended is known, so that its capsule isn't taken
// again: as long as the order could be, and a day for who asks late.
const remembered = 24 * time.Hour

// Forgettable reports whether nothing can come of a job any more, and nothing of it is
// left but that it was there.
func (j *Job) Forgettable(now time.Time) bool {
	return j.State == Ended && j.Cleared && !now.Before(j.Until.Add(remembered))
}
